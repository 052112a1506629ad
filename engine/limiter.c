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
 * To take all or nothing: plan every term, and if all say yes swap the words one by one. A word
 * that another thread moved meanwhile is planned again, alone. Only when it now refuses are those
 * before it undone: swapped back, or where others have moved on meanwhile the cost is taken off. So
 * an observer may see a take that is undone a moment later: a neighbour's retry, never its token.
 *
 * Permits are swapped before rates. A permit taken off is as if never taken; the debt of a rate
 * drains by itself, and after it has drained nothing is left to take off. So with one rate among the
 * terms, which comes last, no rate is ever undone. With more, a thread that is held up between two
 * swaps, while others move the first rate on and the second runs dry, may return its cost late: a
 * refund of tokens that nobody used, which the long run allows and the burst does not.
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

int64_t neap_limiter_available(const struct neap_limiter *l, neap_ns now)
{
	switch (l->kind) {
	case NEAP_GCRA: return neap_gcra_available(&l->as.gcra, now);
	case NEAP_SEMAPHORE:
		return l->as.semaphore.limit -
		       __atomic_load_n(&l->as.semaphore.in_use, __ATOMIC_RELAXED);
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
	case NEAP_GCRA: return l->as.gcra.tat <= neap_gcra_clock(&l->as.gcra, now);
	case NEAP_SEMAPHORE: return l->as.semaphore.in_use == 0;
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

/* A take of several words: permits from the front of the array on, rates at its end. */
struct plan {
	struct step {
		struct neap_change change;
		struct neap_limiter *of;
	} step[NEAP_TERMS];
	struct step *permits_end, *rates;
	struct owned {
		struct neap_limiter *of;
		int64_t cost;
	} owned[NEAP_TERMS];   /* what has one owner */
	int owned_count, logs;
};

/* The word moved since it was planned: plan it again, alone, until it is swapped. 0 when it refuses
 * now. */
__attribute__((cold)) static int swap_again(struct step *s, neap_ns now, int waited)
{
	struct neap_change *c = &s->change;
	do {
		if (s->of->kind == NEAP_SEMAPHORE) {
			if (neap_semaphore_plan(&s->of->as.semaphore, c->by, now, c) > now)
				return 0;
		} else {
			struct neap_gcra *g = &s->of->as.gcra;
			if (neap_gcra_plan(g, c->by >> g->shift, now, c) > now)
				return 0;
			if (waited)
				neap_gcra_backdate(g, now, c);
		}
	} while (!swap(c->word, c->from, c->to));
	return 1;
}

static int swap_step(struct step *s, neap_ns now, int waited)
{
	return swap(s->change.word, s->change.from, s->change.to) || swap_again(s, now, waited);
}

__attribute__((cold)) static void undo(struct step *first, const struct step *end)
{
	while (end-- > first)
		if (!swap(end->change.word, end->change.to, end->change.from))
			__atomic_fetch_sub(end->change.word, end->change.by, __ATOMIC_ACQ_REL);
}

/* Swap all words, or none: 1, or 0 when one refuses now and everything is as it was. */
static int swap_all(struct plan *p, neap_ns now, int waited)
{
	for (struct step *s = p->step; s < p->permits_end; s++)
		if (!swap_step(s, now, waited)) {
			undo(p->step, s);
			return 0;
		}
	for (struct step *s = p->rates; s < &p->step[NEAP_TERMS]; s++)
		if (!swap_step(s, now, waited)) {
			undo(p->rates, s);
			undo(p->step, p->permits_end);
			return 0;
		}
	return 1;
}

/* Add what the terms would do at 'now'. Answers the first that refuses, or else all->count. */
static int32_t plan(const struct neap_all *all, const int64_t *cost, neap_ns now, int waited,
		    struct plan *p)
{
	struct step *permit = p->permits_end, *rate = p->rates;
	int32_t i = 0;
	for (int32_t next; i < all->count; i = next) {
		struct neap_limiter *l = all->terms[i].limiter;
		int64_t c = neap_all_cost(all, cost, i, &next);
		if (c == 0)
			continue;
		if (l->kind == NEAP_GCRA) {
			if (neap_gcra_plan(&l->as.gcra, c, now, &rate[-1].change) > now)
				break;
			(--rate)->of = l;
			if (waited)
				neap_gcra_backdate(&l->as.gcra, now, &rate->change);
		} else if (l->kind == NEAP_SEMAPHORE) {
			if (neap_semaphore_plan(&l->as.semaphore, c, now, &permit->change) > now)
				break;
			(permit++)->of = l;
		} else {
			if (neap_limiter_when(l, c, now) > now)
				break;
			p->logs |= l->kind == NEAP_WINDOW;
			if (l->kind != NEAP_PAUSE)   /* which a take does not change */
				p->owned[p->owned_count++] = (struct owned){l, c};
		}
	}
	p->permits_end = permit;
	p->rates = rate;
	return i;
}

static neap_ns take(const struct neap_all *all, const int64_t *cost, neap_ns now, int waited,
		    int32_t *bound)
{
	struct plan p;
	for (;;) {
		p.permits_end = p.step;
		p.rates = &p.step[NEAP_TERMS];
		p.logs = p.owned_count = 0;
		int32_t refuses = plan(all, cost, now, waited, &p);
		if (refuses < all->count) {
			neap_ns at = when(all, refuses, p.logs, cost, now, bound);
			if (at > now)
				return at;
		} else if (swap_all(&p, now, waited)) {
			for (int i = 0; i < p.owned_count; i++)
				neap_limiter_take(p.owned[i].of, p.owned[i].cost, now);
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
	*all = (struct neap_all){terms, count, kinds};
	return NEAP_OK;
}
