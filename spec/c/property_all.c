/* SPDX-License-Identifier: MIT */
/* property_all.c - all-of against "ask each, wait for the last, take from each".
 *
 * Two worlds of equal limiters. In one, neap_all_* does the work; in the other each limiter is
 * asked and charged by itself, by the functions that other trials have compared with their
 * oracles. Afterwards the worlds are equal, byte for byte: after a grant, and all the more after
 * a refusal. Limiters stand in several terms, and several alls share limiters.
 */
#include "neap.h"
#include "trial.h"

#include <string.h>

enum { LIMITERS = 6, ALLS = 4, LOG = 12 };

__extension__ typedef __int128 wide;

static const int64_t MOST = INT64_C(1) << 59;

struct world {
	struct neap_limiter limiter[LIMITERS];
	struct neap_stamp log[LIMITERS][LOG];
};

struct composite {
	struct neap_all all;
	struct neap_term term[NEAP_TERMS];
};

static void any_limiter(struct dice *d, struct world *w, int i)
{
	struct neap_limiter *l = &w->limiter[i];
	int64_t some = dice_any_size(d, 1, dice_between(d, 0, 7) ? 50 : MOST - 1);
	struct neap_strategy strategy;
	l->kind = (int32_t)dice_between(d, NEAP_GCRA, NEAP_ADAPTIVE);
	switch (l->kind) {
	case NEAP_GCRA:
		neap_gcra_init(&l->as.gcra, dice_any_size(d, 1, 40), dice_any_size(d, 7, 300), some);
		break;
	case NEAP_SEMAPHORE:
		neap_semaphore_init(&l->as.semaphore, some, (int)dice_between(d, 0, 1));
		break;
	case NEAP_WINDOW:
		neap_window_init(&l->as.window, some, dice_any_size(d, 1, 300), w->log[i],
				 (uint32_t)dice_between(d, 1, LOG));
		break;
	case NEAP_PAUSE:
		neap_pause_init(&l->as.pause);
		break;
	case NEAP_BREAKER:   /* which opens now and then, see below */
		neap_breaker_init(&l->as.breaker,
				  &(struct neap_trip){.rule = NEAP_TRIP_ROW, .failures = 1}, NULL,
				  dice_between(d, 0, 300), 3, (int32_t)dice_between(d, 1, 3));
		neap_breaker_open(&l->as.breaker, dice_between(d, 0, 100), 0);
		break;
	case NEAP_ADAPTIVE:
		neap_strategy_init(&strategy, (int)dice_between(d, NEAP_AIMD, NEAP_GRADIENT));
		neap_adaptive_init(&l->as.adaptive, &strategy, 1, some, dice_any_size(d, 1, some));
	}
}

/* The limiter in w that is l in the other world. */
static struct neap_limiter *in(struct world *w, const struct world *from,
			       const struct neap_limiter *l)
{
	return &w->limiter[l - from->limiter];
}

static void copy_world(struct world *to, const struct world *from)
{
	memcpy(to, from, sizeof *to);
	for (int i = 0; i < LIMITERS; i++)
		if (to->limiter[i].kind == NEAP_WINDOW)
			to->limiter[i].as.window.log = to->log[i];
}

static int same_world(const struct world *a, const struct world *b)
{
	struct world c;
	copy_world(&c, b);
	for (int i = 0; i < LIMITERS; i++)
		if (c.limiter[i].kind == NEAP_WINDOW)
			c.limiter[i].as.window.log = a->limiter[i].as.window.log;
	return !memcmp(a, &c, sizeof c);
}

/* Some limiters in any order, each for one to three terms. */
static void any_composite(struct dice *d, struct world *w, struct composite *c)
{
	int order[LIMITERS];
	for (int i = 0; i < LIMITERS; i++) {
		int j = (int)dice_between(d, 0, i);
		order[i] = order[j];
		order[j] = i;
	}
	c->all = (struct neap_all){c->term, 0, 0, NULL};
	for (int64_t n = dice_between(d, 0, LIMITERS) - 1; n >= 0; n--)
		for (int64_t terms = dice_between(d, 0, 3) ? 1 : 3; terms; terms--)
			c->term[c->all.count++] = (struct neap_term){
				&w->limiter[order[n]],
				dice_any_size(d, 1, dice_between(d, 0, 9) ? 3 : INT32_MAX),
				(int32_t)dice_between(d, 0, NEAP_COSTS - 1), 0};
	if (neap_all_init(&c->all, c->term, c->all.count))
		trial_fail("a composite of %d terms is refused", c->all.count);
}

static void any_costs(struct dice *d, int64_t *cost)
{
	for (int i = 0; i < NEAP_COSTS; i++)
		cost[i] = dice_between(d, 0, 2) ? dice_between(d, 0, 3)
						: dice_any_size(d, 1, dice_between(d, 0, 9) ? 60 : MOST);
}

/* All that a composite asks of one limiter, at its first term; nothing at the others. */
static int64_t asked(const struct neap_all *all, const int64_t *cost, int i)
{
	wide sum = 0;
	if (i && all->terms[i - 1].limiter == all->terms[i].limiter)
		return 0;
	for (int j = 0; j < all->count; j++)
		if (all->terms[j].limiter == all->terms[i].limiter)
			sum += (wide)cost[all->terms[j].cost] * all->terms[j].multiplier;
	return sum < INT64_MAX ? (int64_t)sum : INT64_MAX;
}

static neap_ns ask_each(struct world *w, const struct world *from, const struct neap_all *all,
			const int64_t *cost, neap_ns now, int32_t *bound)
{
	neap_ns last = now;
	*bound = -1;
	for (int i = 0; i < all->count; i++) {
		int64_t c = asked(all, cost, i);
		neap_ns at = c ? neap_limiter_when(in(w, from, all->terms[i].limiter), c, now) : now;
		if (at > last) {
			last = at;
			*bound = i;
		}
	}
	return last;
}

/* A log that would let a call join its last entry may have no room for one that comes later. */
static neap_ns ask_until_all_agree(struct world *w, const struct world *from,
				   const struct neap_all *all, const int64_t *cost, neap_ns now,
				   int32_t *bound)
{
	neap_ns at = ask_each(w, from, all, cost, now, bound);
	while (at > now && at < neap_horizon) {
		int32_t later;
		now = at;
		at = ask_each(w, from, all, cost, now, &later);
		*bound = at > now ? later : *bound;
	}
	return at;
}

static void take_each(struct world *w, const struct world *from, const struct neap_all *all,
		      const int64_t *cost, neap_ns now, int claimed)
{
	for (int i = 0; i < all->count; i++) {
		int64_t c = asked(all, cost, i), ones[NEAP_COSTS] = {0};
		struct neap_limiter *l = in(w, from, all->terms[i].limiter);
		const struct neap_term term = {l, 1, 0, 0};
		const struct neap_all one = {&term, 1, 0, NULL};
		ones[0] = c;
		if (c)
			claimed && l->kind == NEAP_GCRA ? neap_all_claim(&one, ones, now, NULL)
							: neap_limiter_take(l, c, now);
	}
}

static void give_each(struct world *w, const struct world *from, const struct neap_all *all,
		      const int64_t *cost, const int64_t *used, neap_ns at, neap_ns now)
{
	for (int i = 0; i < all->count; i++) {
		struct neap_limiter *l = in(w, from, all->terms[i].limiter);
		int64_t c = asked(all, cost, i), u = used ? asked(all, used, i) : 0;
		if (c && !used)
			neap_limiter_give(l, c, NEAP_SUCCESS, now, now);
		else if (used && c != u)
			neap_limiter_settle(l, c, u, at, now);
	}
}

static void attempt(struct dice *d, struct world *real, struct world *model,
		    const struct composite *c, neap_ns *now)
{
	int64_t cost[NEAP_COSTS], used[NEAP_COSTS];
	int32_t bound, want_bound;
	neap_ns since = *now;
	any_costs(d, cost);
	neap_ns want = ask_until_all_agree(model, real, &c->all, cost, *now, &want_bound);
	neap_ns got = neap_all_when(&c->all, cost, *now, &bound);
	if (got != want || bound != want_bound)
		trial_fail("when %ld, not %ld, bound %d, not %d", got, want, bound, want_bound);
	got = neap_all_take(&c->all, cost, *now, &bound);
	if (got != want || bound != want_bound)
		trial_fail("take %ld, not %ld, bound %d, not %d", got, want, bound, want_bound);
	if (want > *now) {
		if (!same_world(real, model))
			trial_fail("a refused take left a trace");
		if (want >= neap_horizon / 2 || dice_between(d, 0, 2))
			return;
		*now = want;   /* nobody comes in between, so the maximum is exact */
		if (neap_all_claim(&c->all, cost, want - 1, &bound) != want || !same_world(real, model))
			trial_fail("claimed 1 ns before %ld", want);
		if (neap_all_claim(&c->all, cost, want, &bound) != want || bound != -1)
			trial_fail("refused at the promised %ld, by term %d, kind %d", want, bound,
				   c->term[bound].limiter->kind);
	}
	take_each(model, real, &c->all, cost, *now, *now > since);
	if (!same_world(real, model))
		trial_fail("a %s charges otherwise than each by itself", *now > since ? "claim" : "take");
	switch (dice_between(d, 0, 5)) {
	case 0: case 1:
		neap_all_give(&c->all, cost, NEAP_SUCCESS, *now, *now);
		give_each(model, real, &c->all, cost, NULL, 0, *now);
		break;
	case 2:
		for (int i = 0; i < NEAP_COSTS; i++)
			used[i] = dice_between(d, 0, 1) ? cost[i] : dice_between(d, 0, 9);
		neap_all_settle(&c->all, cost, used, *now, *now);
		give_each(model, real, &c->all, cost, used, *now, *now);
	}
	if (!same_world(real, model))
		trial_fail("a give or settle differs from each by itself");
}

static void all_is_each(struct dice *d)
{
	for (int64_t ops = trial_ops(1500000); ops > 0;) {
		struct world real, model;
		struct composite c[ALLS];
		neap_ns now = dice_between(d, 0, 1) ? 0 : dice_any_size(d, 1, neap_horizon / 4);
		memset(&real, 0, sizeof real);
		for (int i = 0; i < LIMITERS; i++)
			any_limiter(d, &real, i);
		for (int i = 0; i < ALLS; i++)
			any_composite(d, &real, &c[i]);
		copy_world(&model, &real);
		for (int i = 0; i < 400; i++, ops--) {
			now += dice_between(d, 0, 3) ? dice_between(d, 0, 9) : dice_any_size(d, 1, 5000);
			int l = (int)dice_between(d, 0, LIMITERS - 1);
			if (real.limiter[l].kind == NEAP_PAUSE && !dice_between(d, 0, 3)) {
				neap_ns until = now + dice_between(d, 0, 500);
				neap_pause_extend(&real.limiter[l].as.pause, until);
				neap_pause_extend(&model.limiter[l].as.pause, until);
			} else if (real.limiter[l].kind == NEAP_BREAKER && !dice_between(d, 0, 3)) {
				neap_breaker_open(&real.limiter[l].as.breaker, now + 9, now);
				neap_breaker_open(&model.limiter[l].as.breaker, now + 9, now);
			}
			attempt(d, &real, &model, &c[dice_between(d, 0, ALLS - 1)], &now);
		}
	}
}

/* Undone at once, a take might as well not have been: each answers as before, from now on. */
static void settling_for_nothing_undoes(struct dice *d)
{
	const int64_t nothing[NEAP_COSTS] = {0};
	for (int64_t ops = trial_ops(300000); ops > 0;) {
		struct world w, before;
		struct composite c;
		memset(&w, 0, sizeof w);
		for (int i = 0; i < LIMITERS; i++)
			any_limiter(d, &w, i);
		any_composite(d, &w, &c);
		neap_ns now = 0;
		for (int i = 0; i < 50; i++, ops--) {
			int64_t cost[NEAP_COSTS];
			now += dice_between(d, 0, 40);
			any_costs(d, cost);
			copy_world(&before, &w);
			if (neap_all_take(&c.all, cost, now, NULL) > now || dice_between(d, 0, 1))
				continue;
			neap_all_settle(&c.all, cost, nothing, now, now);
			for (int l = 0; l < LIMITERS; l++) {
				int64_t ask = dice_any_size(d, 1, 50);
				neap_ns then = now + dice_between(d, 0, 200);
				neap_ns was = neap_limiter_when(&before.limiter[l], ask, then);
				neap_ns is = neap_limiter_when(&w.limiter[l], ask, then);
				if (is != was)
					trial_fail("kind %d: %ld, not %ld as before", w.limiter[l].kind, is,
						   was);
			}
		}
	}
}

static void check_finds_what_is_wrong(struct dice *d)
{
	(void)d;
	struct neap_limiter a = {.kind = NEAP_PAUSE}, b = {.kind = NEAP_GCRA};
	struct neap_all all;
	const struct neap_term rows[][4] = {
		{{&a, 1, 0, 0}, {&a, INT32_MAX, 7, 0}, {&b, 1, 0, 0}, {&b, 1, 1, 0}},   /* right */
		{{&a, 1, 0, 0}, {&b, 1, 0, 0}, {&a, 1, 0, 0}, {&a, 1, 1, 0}},           /* a is torn apart */
		{{&a, 1, 0, 0}, {&a, 1, 0, 0}, {&b, 1, 0, 0}, {&a, 1, 1, 0}},
		{{NULL, 1, 0, 0}, {&a, 1, 0, 0}, {&a, 1, 0, 0}, {&a, 1, 1, 0}},
		{{&a, 0, 0, 0}, {&a, 1, 0, 0}, {&a, 1, 0, 0}, {&a, 1, 1, 0}},
		{{&a, 1, 0, 0}, {&a, (int64_t)INT32_MAX + 1, 0, 0}, {&a, 1, 0, 0}, {&a, 1, 1, 0}},
		{{&a, 1, 0, 0}, {&a, 1, -1, 0}, {&a, 1, 0, 0}, {&a, 1, 1, 0}},
		{{&a, 1, 0, 0}, {&a, 1, 0, 0}, {&a, 1, 0, 0}, {&a, 1, NEAP_COSTS, 0}},
	};
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++)
		if (neap_all_init(&all, rows[i], 4) != (i ? NEAP_ERANGE : NEAP_OK))
			trial_fail("row %u", i);
	struct neap_term many[NEAP_TERMS + 1];
	for (int i = 0; i <= NEAP_TERMS; i++)
		many[i] = (struct neap_term){&a, 1, 0, 0};
	if (neap_all_init(&all, many, NEAP_TERMS) ||
	    !neap_all_init(&all, many, NEAP_TERMS + 1) ||
	    !neap_all_init(&all, many, -1) ||
	    !neap_all_init(&all, NULL, 1) || neap_all_init(&all, NULL, 0))
		trial_fail("the number of terms");
}

/* As many limiters as there may be: one grant for each, then a refusal by any one of them. */
static void as_many_as_there_may_be(struct dice *d)
{
	for (int64_t round = trial_ops(3000); round > 0; round--) {
		struct neap_limiter l[NEAP_TERMS], were[NEAP_TERMS];
		struct neap_term term[NEAP_TERMS];
		const struct neap_all all = {term, NEAP_TERMS, 0, NULL};
		const int64_t one[NEAP_COSTS] = {1};
		int32_t bound, narrow = (int32_t)dice_between(d, 0, NEAP_TERMS - 1);
		int rates = (int)dice_between(d, 0, 2);   /* none, some, all */
		memset(l, 0, sizeof l);
		for (int i = 0; i < NEAP_TERMS; i++) {
			int64_t limit = i == narrow ? 1 : 2;
			term[i] = (struct neap_term){&l[i], 1, 0, 0};
			l[i].kind = rates == 2 || (rates && dice_between(d, 0, 1)) ? NEAP_GCRA : NEAP_SEMAPHORE;
			if (l[i].kind == NEAP_GCRA)
				neap_gcra_init(&l[i].as.gcra, 1, 1000, limit);
			else
				neap_semaphore_init(&l[i].as.semaphore, limit, 0);
		}
		if (neap_all_take(&all, one, 0, &bound) != 0 || bound != -1)
			trial_fail("refused by %d", bound);
		for (int i = 0; i < NEAP_TERMS; i++)
			if (neap_limiter_available(&l[i], 0) != (i == narrow ? 0 : 1))
				trial_fail("term %d of %d: %ld left", i, NEAP_TERMS,
					   neap_limiter_available(&l[i], 0));
		memcpy(were, l, sizeof l);
		if (neap_all_take(&all, one, 0, &bound) <= 0 || bound != narrow)
			trial_fail("bound %d, not %d", bound, narrow);
		if (memcmp(were, l, sizeof l))
			trial_fail("a refused take left a trace");
	}
}

int main(void)
{
	trial_run("check finds what is wrong with a composite", check_finds_what_is_wrong);
	trial_run("all-of waits for the last and takes from each, or from none", all_is_each);
	trial_run("all-of takes from 64 limiters, or from none", as_many_as_there_may_be);
	trial_run("what is settled for nothing was never taken", settling_for_nothing_undoes);
	return trial_verdict();
}
