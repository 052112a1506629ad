/* SPDX-License-Identifier: MIT */
/* limiter.c - the algebra: any limiter, and all of several.
 *
 * A limiter maps (state, request, now) to an instant, the first at which the answer is yes.
 * Instants are ordered so that "when somebody gives back" and "never" come last, so all-of is a
 * maximum, and the term that holds the maximum is the answer to "why am I waiting?".
 *
 * The maximum is also exact, not a lower bound: an instant does not become later by itself, so at
 * the maximum every term conforms if nobody came in between. Only a log may
 * change its mind: full, it lets a call of its last entry's instant join that entry, but has no
 * room for one of its own a moment later. So with a log among the terms the maximum is asked, too.
 *
 * To take all or nothing: plan every term, and if all say yes make the plan true. Rates and
 * semaphores are words that others share. One alone is swapped, by compare-and-swap, if it still is
 * what was planned. Several are made to stand still (word.c), in the order of their addresses:
 *
 *      A  B  C    plan     what each becomes; who refuses ends it here, and nothing was touched
 *      A' B' C    hold     all but the last, each if it still is what was planned
 *      A' B' C+   swap     the last: here the take is made, or not
 *      A+ B+ C+   let go   the others, by a plain store of what they become, or of what they were
 *
 * So nobody ever sees a charge that is taken back, and no debt drains in between: whatever the
 * threads do, their takes are what they would be one after the other. (To charge at once, and to
 * take it off when a later word refuses, is not that: a debt drains by itself, and then there is
 * nothing left to take off. The refund would be of tokens that nobody spent, above the burst.) A
 * refusal reads a held word as it was before: its owner can only add to it.
 *
 * A word that others moved meanwhile is planned again, alone. If it refuses now, or is held, all is
 * let go as it was, and then waited for and asked again: nobody waits while he holds. Of those who
 * hold, the one who is furthest in the order of addresses is hindered by finished takes alone, so
 * somebody always gets on; and processes that see their shared memory at different addresses may
 * hinder each other but never block.
 *
 * A pause is only read. With one among the terms the last word is held, too, and pauses are asked
 * again while all words stand still. (That the last word is what it was when the pause was asked is
 * not enough: it may have been taken and given back since, by one who saw the pause extended.)
 *
 * Robust words can be lost while they are held, by an owner that is dead or was stopped for long.
 * Before the last word is swapped that does no harm: nothing was written. After it the take is
 * made, and a word that was lost is charged all the same, by adding to what it is now: so charges
 * equal grants, and what others took meanwhile is a debt that the next ones wait for. The burst may
 * be exceeded by this one cost, if the owner stood still between the swap and its next few stores
 * for longer than a waiter is patient. Nothing better can be had: the words of a take have no
 * memory in common that says how far it got. An owner that dies there has charged some of its words
 * for a call that never left, as if it had died a moment later.
 *
 * What has one owner (window, breaker, adaptive) is written last, when nothing can fail any more.
 */
#include "change.h"

#include <assert.h>

neap_ns neap_limiter_when(const struct neap_limiter *l, int64_t cost, neap_ns now)
{
	switch (l->kind) {
	case NEAP_GCRA: return neap_gcra_when(&l->as.gcra, cost, now);
	case NEAP_SEMAPHORE: return neap_semaphore_when(&l->as.semaphore, cost, now);
	case NEAP_WINDOW: return neap_window_when(&l->as.window, cost, now);
	case NEAP_PAUSE: return neap_pause_when(&l->as.pause, now);
	case NEAP_BREAKER: return cost ? neap_breaker_when(&l->as.breaker, now) : now;
	case NEAP_ADAPTIVE: return neap_adaptive_when(&l->as.adaptive, cost, now);
	}
	assert(!"a limiter that was never initialised, or is keyed");
	return neap_never;
}

neap_ns neap_limiter_take(struct neap_limiter *l, int64_t cost, neap_ns now)
{
	switch (l->kind) {
	case NEAP_GCRA: return neap_gcra_take(&l->as.gcra, cost, now);
	case NEAP_SEMAPHORE: return neap_semaphore_take(&l->as.semaphore, cost, now);
	case NEAP_WINDOW: return neap_window_take(&l->as.window, cost, now);
	case NEAP_PAUSE: return neap_pause_when(&l->as.pause, now);
	case NEAP_BREAKER: return cost ? neap_breaker_take(&l->as.breaker, now) : now;
	case NEAP_ADAPTIVE: return neap_adaptive_take(&l->as.adaptive, cost, now);
	}
	assert(!"a limiter that was never initialised");
	return neap_never;
}

void neap_limiter_give(struct neap_limiter *l, int64_t cost, int outcome, neap_ns at, neap_ns now)
{
	assert(outcome >= NEAP_SUCCESS && outcome <= NEAP_IGNORE && at >= 0 && now >= 0);
	switch (l->kind) {
	case NEAP_SEMAPHORE:
		neap_semaphore_give(&l->as.semaphore, cost);
		break;
	case NEAP_BREAKER:
		neap_breaker_give(&l->as.breaker, outcome, at, now);
		break;
	case NEAP_ADAPTIVE:
		neap_adaptive_give(&l->as.adaptive, cost, outcome, at, now);
		break;
	}
}

void neap_limiter_settle(struct neap_limiter *l, int64_t cost, int64_t used, neap_ns at,
			 neap_ns now)
{
	switch (l->kind) {
	case NEAP_GCRA:
		neap_gcra_settle(&l->as.gcra, cost, used, now);
		break;
	case NEAP_SEMAPHORE:
		if (used <= cost)
			neap_semaphore_give(&l->as.semaphore, cost - used);
		else
			neap_semaphore_add(&l->as.semaphore, used - cost);
		break;
	case NEAP_WINDOW:
		neap_window_settle(&l->as.window, cost, used, at);
		break;
	case NEAP_BREAKER:
		if (used == 0)
			neap_breaker_give(&l->as.breaker, NEAP_IGNORE, at, now);
		break;
	case NEAP_ADAPTIVE:
		neap_adaptive_settle(&l->as.adaptive, cost, used);
		break;
	}
}

void neap_limiter_share(struct neap_limiter *l)
{
	if (l->kind == NEAP_GCRA)
		l->as.gcra.robust = 1;
	else if (l->kind == NEAP_SEMAPHORE)
		l->as.semaphore.robust = 1;
}

int64_t neap_limiter_available(const struct neap_limiter *l, neap_ns now)
{
	switch (l->kind) {
	case NEAP_GCRA: return neap_gcra_available(&l->as.gcra, now);
	case NEAP_SEMAPHORE:
		return l->as.semaphore.limit - neap_word_value(&l->as.semaphore.in_use);
	case NEAP_WINDOW: return neap_window_available(&l->as.window, now);
	case NEAP_PAUSE:
	case NEAP_BREAKER: return neap_limiter_when(l, 1, now) > now ? 0 : INT64_MAX;
	case NEAP_ADAPTIVE: return l->as.adaptive.limit - l->as.adaptive.in_use;
	}
	return 0;
}

int64_t neap_limiter_capacity(const struct neap_limiter *l)
{
	switch (l->kind) {
	case NEAP_GCRA: return l->as.gcra.burst >> l->as.gcra.shift;
	case NEAP_SEMAPHORE: return l->as.semaphore.overdraw ? INT64_MAX : l->as.semaphore.limit;
	case NEAP_WINDOW: return l->as.window.limit;
	case NEAP_PAUSE:
	case NEAP_BREAKER: return INT64_MAX;
	case NEAP_ADAPTIVE: return l->as.adaptive.ceiling;
	}
	return 0;
}

int neap_limiter_is_new(const struct neap_limiter *l, neap_ns now)
{
	switch (l->kind) {
	case NEAP_GCRA: return neap_word_value(&l->as.gcra.tat) <= neap_gcra_clock(&l->as.gcra, now);
	case NEAP_SEMAPHORE: return neap_word_value(&l->as.semaphore.in_use) == 0;
	case NEAP_WINDOW: return neap_window_available(&l->as.window, now) == l->as.window.limit;
	case NEAP_PAUSE: return neap_pause_when(&l->as.pause, now) <= now;
	case NEAP_BREAKER:
		return neap_breaker_state(&l->as.breaker, now) == NEAP_BREAKER_CLOSED &&
		       neap_breaker_failures(&l->as.breaker, now) == 0;
	case NEAP_ADAPTIVE: return l->as.adaptive.in_use == 0 && l->as.adaptive.changes == 0;
	}
	return 0;
}

neap_ns neap_limiter_after(const struct neap_limiter *l, int64_t ahead, int64_t cost, neap_ns now)
{
	neap_ns alone = neap_limiter_when(l, cost, now);
	if (ahead == 0 || cost == 0 || alone == neap_never)
		return alone;
	switch (l->kind) {
	case NEAP_GCRA: return neap_gcra_after(&l->as.gcra, ahead, cost, now);
	case NEAP_WINDOW: return neap_window_after(&l->as.window, ahead, cost, now);
	case NEAP_SEMAPHORE:   /* with overdraw whatever goes once those ahead leave the level at 0 */
		if (!l->as.semaphore.overdraw)
			ahead = neap_plus(ahead, cost);
		return neap_limiter_available(l, now) >= ahead ? alone : neap_on_give;
	case NEAP_ADAPTIVE:
		return neap_limiter_available(l, now) >= neap_plus(ahead, cost) ? alone : neap_on_give;
	}
	return alone;   /* a pause, a breaker: at least that long */
}

/* The maximum over the terms from i on, asked at 'now', and in *bound what is later than that. */
static neap_ns ask_each(const struct neap_all *all, int32_t i, const int64_t *cost, neap_ns now,
			int32_t *bound, int *logs)
{
	neap_ns latest = now;
	for (int32_t next; i < all->count; i = next) {
		const struct neap_limiter *l = all->terms[i].limiter;
		int64_t c = neap_all_cost(all, cost, i, &next);
		neap_ns at = c ? neap_limiter_when(l, c, now) : now;
		*logs += l->kind == NEAP_WINDOW;
		if (at > latest) {
			latest = at;
			*bound = i;
		}
	}
	return latest;
}

/* The first instant from 'at' on to which logs agree as well. */
static neap_ns agreed(const struct neap_all *all, const int64_t *cost, neap_ns at, int32_t *bound)
{
	int logs = 0;
	neap_ns asked;
	do {
		asked = at;
		if (at < neap_horizon)
			at = ask_each(all, 0, cost, asked, bound, &logs);
	} while (at > asked);
	return at;
}

/* As neap_all_when, of which it is known that the terms before i conform. */
static neap_ns when(const struct neap_all *all, int32_t i, int logs, const int64_t *cost,
		    neap_ns now, int32_t *bound)
{
	int32_t binds = -1;
	neap_ns at = ask_each(all, i, cost, now, &binds, &logs);
	if (at > now && logs)
		at = agreed(all, cost, at, &binds);
	if (bound)
		*bound = binds;
	return at;
}

neap_ns neap_all_when(const struct neap_all *all, const int64_t *cost, neap_ns now, int32_t *bound)
{
	return when(all, 0, 0, cost, now, bound);
}

static int swap(int64_t *word, int64_t from, int64_t to)
{
	return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* ---- all or none of several words ---- */

static const int64_t HELD = INT64_MIN;

/* What a take does to words, in the order of their addresses, and what else it has to mind. */
struct plan {
	struct step {
		struct neap_change change;
		struct neap_limiter *of;
	} step[NEAP_TERMS], *end;
	struct owned {
		struct neap_limiter *of;
		int64_t cost;
	} owned[NEAP_TERMS], *owned_end;   /* what has one owner */
	int logs, pauses, torn;
};

/* As neap_limiter_when; up to 'now' means that *s is what the take would do. */
static inline neap_ns plan_step(struct step *s, struct neap_limiter *l, int64_t cost, neap_ns now,
				int waited)
{
	s->of = l;
	if (l->kind == NEAP_SEMAPHORE)
		return neap_semaphore_plan(&l->as.semaphore, cost, now, &s->change);
	neap_ns at = neap_gcra_plan(&l->as.gcra, cost, now, &s->change);
	if (waited && at <= now)
		neap_gcra_backdate(&l->as.gcra, now, &s->change);
	return at;
}

static int64_t cost_of(const struct step *s)
{
	return s->of->kind == NEAP_SEMAPHORE ? s->change.by : s->change.by >> s->of->as.gcra.shift;
}

/* Others moved the word since it was planned. 0: it refuses now, or is held. */
__attribute__((cold)) static int plan_again(struct step *s, neap_ns now, int waited)
{
	return __atomic_load_n(s->change.word, __ATOMIC_RELAXED) >= 0 &&
	       plan_step(s, s->of, cost_of(s), now, waited) <= now;
}

/* The last step to its place among those before it. A limiter in two of them is misuse: its terms
 * stand together and are one step. */
__attribute__((cold)) static int sort_in(struct plan *p)
{
	struct step *s = p->end - 1, last = *s;
	for (; s > p->step && s[-1].of > last.of; s--)
		*s = s[-1];
	*s = last;
	p->torn = s > p->step && s[-1].of == last.of;
	assert(!p->torn);
	return !p->torn;
}

static int hold(struct step *s, neap_ns now, int waited)
{
	while (!swap(s->change.word, s->change.from, s->change.from | HELD))
		if (!plan_again(s, now, waited))
			return 0;
	return 1;
}

/* Write a word that is held. 0: the hold was lost, and nothing is written. */
static int let_go(const struct step *s, int64_t value)
{
	if (s->change.robust)
		return swap(s->change.word, s->change.from | HELD, value);
	__atomic_store_n(s->change.word, value, __ATOMIC_RELEASE);
	return 1;
}

static int pauses_are_over(const struct neap_all *all, const int64_t *cost, neap_ns now)
{
	for (int32_t i = 0, next; i < all->count; i = next) {
		const struct neap_limiter *l = all->terms[i].limiter;
		int64_t c = neap_all_cost(all, cost, i, &next);
		if (c && l->kind == NEAP_PAUSE && neap_pause_when(&l->as.pause, now) > now)
			return 0;
	}
	return 1;
}

static int swap_last(const struct neap_all *all, const int64_t *cost, struct plan *p, neap_ns now,
		     int waited)
{
	struct step *s = p->end - 1;
	if (p->pauses) {
		if (!hold(s, now, waited))
			return 0;
		int over = pauses_are_over(all, cost, now);
		return let_go(s, over ? s->change.to : s->change.from) && over;
	}
	while (!swap(s->change.word, s->change.from, s->change.to))
		if (!plan_again(s, now, waited))
			return 0;
	return 1;
}

/* Write all words, or none: 1, or 0 when they are as they were and must be asked again. */
static int swap_all(const struct neap_all *all, const int64_t *cost, struct plan *p, neap_ns now,
		    int waited)
{
	struct step *s = p->step, *last = p->end - 1;
	if (s > last)
		return 1;
	while (s < last && hold(s, now, waited))
		s++;
	if (s == last && swap_last(all, cost, p, now, waited)) {
		while (s-- > p->step)
			if (!let_go(s, s->change.to))
				neap_limiter_settle(s->of, 0, cost_of(s), now, now);
		return 1;
	}
	const struct step *hindered = s;
	while (s-- > p->step)
		let_go(s, s->change.from);
	neap_word_free(hindered->change.word, hindered->change.robust);
	return 0;
}

/* Plan what the terms would do at 'now'. Answers the first that refuses, or else all->count. */
static int32_t plan(const struct neap_all *all, const int64_t *cost, neap_ns now, int waited,
		    struct plan *p)
{
	p->end = p->step;
	p->owned_end = p->owned;
	p->logs = p->pauses = p->torn = 0;
	for (int32_t i = 0, next; i < all->count; i = next) {
		struct neap_limiter *l = all->terms[i].limiter;
		int64_t c = neap_all_cost(all, cost, i, &next);
		if (c == 0)
			continue;
		if (l->kind == NEAP_GCRA || l->kind == NEAP_SEMAPHORE) {
			if (plan_step(p->end, l, c, now, waited) > now)
				return i;
			if (p->end++ > p->step && p->end[-2].of >= l && !sort_in(p))
				return i;
		} else {
			if (neap_limiter_when(l, c, now) > now)
				return i;
			p->logs |= l->kind == NEAP_WINDOW;
			p->pauses |= l->kind == NEAP_PAUSE;
			if (l->kind != NEAP_PAUSE)   /* which a take does not change */
				*p->owned_end++ = (struct owned){l, c};
		}
	}
	return all->count;
}

static neap_ns take(const struct neap_all *all, const int64_t *cost, neap_ns now, int waited,
		    int32_t *bound)
{
	struct plan p;
	for (;;) {
		int32_t refuses = plan(all, cost, now, waited, &p);
		if (refuses < all->count) {
			neap_ns at = when(all, refuses, p.logs, cost, now, bound);
			if (at > now)
				return at;
			if (p.torn) {
				if (bound)
					*bound = refuses;
				return neap_never;
			}
		} else if (swap_all(all, cost, &p, now, waited)) {
			for (const struct owned *o = p.owned; o < p.owned_end; o++)
				neap_limiter_take(o->of, o->cost, now);
			if (bound)
				*bound = -1;
			return now;
		}
	}
}

neap_ns neap_all_take(const struct neap_all *all, const int64_t *cost, neap_ns now, int32_t *bound)
{
	return take(all, cost, now, 0, bound);
}

neap_ns neap_all_claim(const struct neap_all *all, const int64_t *cost, neap_ns at, int32_t *bound)
{
	return take(all, cost, at, 1, bound);
}

void neap_all_give(const struct neap_all *all, const int64_t *cost, int outcome, neap_ns at,
		   neap_ns now)
{
	for (int32_t i = 0, next; i < all->count; i = next) {
		int64_t c = neap_all_cost(all, cost, i, &next);
		if (c)
			neap_limiter_give(all->terms[i].limiter, c, outcome, at, now);
	}
}

void neap_all_settle(const struct neap_all *all, const int64_t *cost, const int64_t *used,
		     neap_ns at, neap_ns now)
{
	for (int32_t i = 0, next; i < all->count; i = next) {
		int64_t c = neap_all_cost(all, cost, i, &next);
		int64_t u = neap_all_cost(all, used, i, &next);
		if (c != u)
			neap_limiter_settle(all->terms[i].limiter, c, u, at, now);
	}
}

int neap_all_init(struct neap_all *all, const struct neap_term *terms, int32_t count)
{
	if (count < 0 || count > NEAP_TERMS || (count && !terms))
		return NEAP_ERANGE;
	uint32_t kinds = 0;
	for (int32_t i = 0; i < count; i++) {
		const struct neap_term *t = &terms[i];
		if (!t->limiter || t->multiplier < 1 || t->multiplier > INT32_MAX || t->cost < 0 ||
		    t->cost >= NEAP_COSTS || t->key < 0 || t->key >= NEAP_KEYS)
			return NEAP_ERANGE;
		for (int32_t j = 0; j < i; j++)
			if (terms[j].limiter == t->limiter &&
			    (t[-1].limiter != t->limiter || t[-1].key != t->key))
				return NEAP_ERANGE;
		kinds |= 1u << t->limiter->kind;
	}
	*all = (struct neap_all){terms, count, kinds, NULL};
	return NEAP_OK;
}
