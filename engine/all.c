/* SPDX-License-Identifier: MIT */
/* all.c - the algebra: all of several limiters, or none.
 *
 * A limiter answers with an instant, so all-of is a maximum, and the term that holds the maximum is
 * the answer to "why am I waiting?".
 *
 * The maximum is also exact, not a lower bound: an instant does not become later by itself, so at
 * the maximum every term conforms if nobody came in between. Only a log may change its mind: full,
 * it lets a call of its last entry's instant join that entry, but has no room for one of its own a
 * moment later. So with a log among the terms the maximum is asked, too.
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
 * What has one owner (window, breaker, adaptive) is written last, when nothing can fail any more. In
 * a segment it is whoever has entered its guard, permits included (guard.c): so when there is one
 * among the terms all begins anew, after all guards were entered, in one order for all processes.
 */
#include "change.h"
#include "segment.h"

#include <assert.h>

/* The maximum of 'latest' and the terms from i on, asked at 'now', and in *bound what is later. */
static neap_ns ask_each(const struct neap_all *all, int32_t i, neap_ns latest, const int64_t *cost,
			neap_ns now, int32_t *bound, int *logs)
{
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
			at = ask_each(all, 0, asked, cost, asked, bound, &logs);
	} while (at > asked);
	return at;
}

/* As neap_all_when, when 'at' is the maximum over the terms before i, and *bound holds it. */
static neap_ns when(const struct neap_all *all, int32_t i, neap_ns at, int logs,
		    const int64_t *cost, neap_ns now, int32_t *bound)
{
	at = ask_each(all, i, at, cost, now, bound, &logs);
	return at > now && logs ? agreed(all, cost, at, bound) : at;
}

neap_ns neap_all_when(const struct neap_all *all, const int64_t *cost, neap_ns now, int32_t *bound)
{
	int32_t binds = -1;
	neap_ns at = when(all, 0, now, 0, cost, now, &binds);
	if (bound)
		*bound = binds;
	return at;
}

static int swap(int64_t *word, int64_t from, int64_t to)
{
	return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* ---- all or none of several words ---- */

static const int64_t HELD = INT64_MIN;

/* What a take does to a word. */
struct step {
	struct neap_limiter *of;
	struct neap_change change;
};

/* A take of these terms; at the limiters' exact instant when it 'waited' for it. */
struct take {
	const struct neap_all *all;
	const int64_t *cost;
	neap_ns now;
	int waited;
	int entered;   /* the guards of all that have one, and need it */
};

static int is_robust(const struct neap_limiter *l)
{
	return l->kind == NEAP_GCRA ? l->as.gcra.robust : l->as.semaphore.robust;
}

/* The plan of a rate that others may change at any moment. */
__attribute__((noinline)) static neap_ns plan_shared(const struct take *t, struct step *s,
						     struct neap_limiter *l, int64_t cost)
{
	int64_t version;
	neap_ns at;
	do {
		version = neap_guard_look(l);
		at = neap_gcra_plan(&l->as.gcra, cost, t->now, &s->change);
		if (t->waited && at <= t->now)
			neap_gcra_backdate(&l->as.gcra, cost, t->now, &s->change);
	} while (neap_guard_moved(l, version));
	return at;
}

/* As neap_limiter_when; up to 'now' means that *s is what the take would do. */
static inline neap_ns plan_step(const struct take *t, struct step *s, struct neap_limiter *l,
				int64_t cost)
{
	s->of = l;
	if (l->kind == NEAP_SEMAPHORE)
		return neap_semaphore_plan(&l->as.semaphore, cost, t->now, &s->change);
	if (__builtin_expect(l->shared, 0))
		return plan_shared(t, s, l, cost);
	neap_ns at = neap_gcra_plan(&l->as.gcra, cost, t->now, &s->change);
	if (t->waited && at <= t->now)
		neap_gcra_backdate(&l->as.gcra, cost, t->now, &s->change);
	return at;
}

/* The cost of this term and those after it of the same limiter, and the next one of another. */
__attribute__((noinline)) static int64_t cost_of_many(const struct neap_term *term,
						      const struct neap_term *end,
						      const int64_t *cost,
						      const struct neap_term **next)
{
	const struct neap_limiter *l = term->limiter;
	int64_t sum = 0;
	for (; term < end && term->limiter == l; term++)
		sum = neap_plus(sum, neap_term_cost(term, cost));
	*next = term;
	return sum;
}

__attribute__((cold)) static int64_t cost_of(const struct take *t, const struct neap_limiter *l)
{
	int32_t i = 0, next;
	while (t->all->terms[i].limiter != l)
		i++;
	return neap_all_cost(t->all, t->cost, i, &next);
}

/* The term, the first that refuses, goes at 'at': when do all? */
__attribute__((noinline)) static neap_ns refused(const struct take *t,
						 const struct neap_term *term, neap_ns at,
						 int logs, int32_t *bound)
{
	int32_t binds = (int32_t)(term - t->all->terms), next;
	neap_all_cost(t->all, t->cost, binds, &next);
	at = when(t->all, next, at, logs, t->cost, t->now, &binds);
	if (bound)
		*bound = binds;
	return at;
}

/* Somebody is about to change what rate it is. */
static int is_turning(const struct neap_limiter *l)
{
	return l->shared && (__atomic_load_n(&neap_slot_of(l)->version, __ATOMIC_RELAXED) & 1);
}

/* Others moved the word since it was planned. 0: it refuses now, or is held. */
__attribute__((cold)) static int plan_again(const struct take *t, struct step *s)
{
	return __atomic_load_n(&s->of->as.word, __ATOMIC_RELAXED) >= 0 && !is_turning(s->of) &&
	       plan_step(t, s, s->of, cost_of(t, s->of)) <= t->now;
}

/* The last step to its place among those before it. 0: its limiter is in two of them, which is
 * misuse: its terms do not stand together. */
__attribute__((cold)) static int sort_in(const struct step *first, struct step *s)
{
	struct step last = *s;
	for (; s > first && s[-1].of > last.of; s--)
		*s = s[-1];
	*s = last;
	assert(s == first || s[-1].of != last.of);
	return s == first || s[-1].of != last.of;
}

/* Write a word that is held. 0: the hold was lost, and nothing is written. */
static inline int let_go(const struct step *s, int64_t value)
{
	if (__builtin_expect(is_robust(s->of), 0))
		return swap(&s->of->as.word, s->change.from | HELD, value);
	__atomic_store_n(&s->of->as.word, value, __ATOMIC_RELEASE);
	return 1;
}

/* Let go those from 'first' to 'end' as they were. */
__attribute__((cold)) static void let_go_as_they_were(const struct step *first,
						      const struct step *end)
{
	for (; first < end; first++)
		let_go(first, first->change.from);
}

/* The word of this step could not be swapped. 1 when it is planned anew; 0 when those before it
 * have been let go, and all must be asked again. */
__attribute__((cold)) static int hindered(const struct take *t, const struct step *first,
					  struct step *s)
{
	if (plan_again(t, s))
		return 1;
	let_go_as_they_were(first, s);
	neap_word_wait(&s->of->as.word, is_robust(s->of));
	return 0;
}

static int pauses_are_over(const struct take *t)
{
	for (int32_t i = 0, next; i < t->all->count; i = next) {
		const struct neap_limiter *l = t->all->terms[i].limiter;
		int64_t c = neap_all_cost(t->all, t->cost, i, &next);
		if (c && l->kind == NEAP_PAUSE && neap_pause_when(&l->as.pause, t->now) > t->now)
			return 0;
	}
	return 1;
}

/* Write all words, or none: 1, or 0 when they are as they were and must be asked again. */
__attribute__((always_inline)) static inline int swap_all(const struct take *t, struct step *first,
							  struct step *end, int pauses)
{
	struct step *s = first, *held = pauses || end == first ? end : end - 1;
	for (; s < held; s++)
		while (!swap(&s->of->as.word, s->change.from, s->change.from | HELD))
			if (!hindered(t, first, s))
				return 0;
	if (pauses && !pauses_are_over(t)) {
		let_go_as_they_were(first, end);
		return 0;
	}
	for (; s < end; s++)
		while (!swap(&s->of->as.word, s->change.from, s->change.to))
			if (!hindered(t, first, s))
				return 0;
	for (s = first; s < held; s++)
		if (!let_go(s, s->change.to))
			neap_limiter_settle(s->of, 0, cost_of(t, s->of), t->now, t->now);
	return 1;
}

/* What is no word: what has one owner, and is taken last; and pauses, which are asked again. */
struct others {
	int logs, pauses, count;
	struct {
		struct neap_limiter *limiter;
		int64_t cost;
	} owned[NEAP_TERMS];
};

__attribute__((noinline)) static neap_ns plan_other(struct others *o, struct neap_limiter *l,
						    int64_t cost, neap_ns now)
{
	o->logs |= l->kind == NEAP_WINDOW;
	o->pauses |= l->kind == NEAP_PAUSE;
	/* a take does not change a pause, nor a breaker that is closed */
	if (l->kind != NEAP_PAUSE && (l->kind != NEAP_BREAKER || l->as.breaker.open)) {
		o->owned[o->count].limiter = l;
		o->owned[o->count++].cost = cost;
	}
	return neap_limiter_when(l, cost, now);
}

/* Permits that somebody has to be known for are no word. */
static inline int is_word(const struct neap_limiter *l)
{
	return l->kind == NEAP_GCRA || (l->kind == NEAP_SEMAPHORE && !l->shared);
}

static int has_guard(const struct neap_limiter *l)
{
	return l->shared && l->kind != NEAP_GCRA && l->kind != NEAP_PAUSE;
}

__attribute__((noinline)) static neap_ns take_entered(const struct take *t, int32_t *bound);

__attribute__((noinline)) static void take_owned(const struct others *o, neap_ns now)
{
	for (int i = 0; i < o->count; i++)
		neap_limiter_take(o->owned[i].limiter, o->owned[i].cost, now);
}

/* Inline, and what it seldom needs is not: an all-of take consists of little else than this loop,
 * and every register that is saved is a store that the next compare-and-swap waits for. */
__attribute__((always_inline)) static inline neap_ns take(const struct take *t, int32_t *bound)
{
	struct step step[NEAP_TERMS], *s;
	struct others o;
	do {
		s = step;
		o.count = o.logs = o.pauses = 0;
		const struct neap_term *term = t->all->terms, *end = term + t->all->count, *next;
		for (; term < end; term = next) {
			struct neap_limiter *l = term->limiter;
			int64_t c = neap_term_cost(term, t->cost);
			neap_ns at;
			next = term + 1;
			if (next < end && next->limiter == l)
				c = cost_of_many(term, end, t->cost, &next);
			if (c == 0)
				continue;
			if (is_word(l)) {
				at = plan_step(t, s, l, c);
				if (at <= t->now && s++ > step && s[-2].of >= l && !sort_in(step, s - 1))
					at = neap_never;
			} else {
				if (!t->entered && has_guard(l))
					return take_entered(t, bound);
				at = plan_other(&o, l, c, t->now);
			}
			if (at > t->now)
				return refused(t, term, at, o.logs, bound);
		}
	} while (!swap_all(t, step, s, o.pauses));
	if (o.count)
		take_owned(&o, t->now);
	if (bound)
		*bound = -1;
	return t->now;
}

/* Enter all guards, in their order, and take. */
static neap_ns take_entered(const struct take *t, int32_t *bound)
{
	struct neap_limiter *guarded[NEAP_TERMS];
	int count = 0;
	for (int32_t i = 0; i < t->all->count; i++) {
		struct neap_limiter *l = t->all->terms[i].limiter;
		if (!has_guard(l))
			continue;
		int at = count++;
		for (; at > 0 && neap_guard_before(l, guarded[at - 1]); at--)
			guarded[at] = guarded[at - 1];
		guarded[at] = l;
	}
	for (int i = 0; i < count; i++)
		neap_guard_enter(guarded[i]);
	neap_ns at = take(&(struct take){t->all, t->cost, t->now, t->waited, 1}, bound);
	for (int i = count - 1; i >= 0; i--)
		neap_guard_leave(guarded[i]);
	return at;
}

neap_ns neap_all_take(const struct neap_all *all, const int64_t *cost, neap_ns now, int32_t *bound)
{
	return take(&(struct take){all, cost, now, 0, 0}, bound);
}

neap_ns neap_all_claim(const struct neap_all *all, const int64_t *cost, neap_ns at, int32_t *bound)
{
	return take(&(struct take){all, cost, at, 1, 0}, bound);
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

/* Does a term ask the limiter that this conditional is of, besides its own? */
static int others_ask(const struct neap_term *terms, int32_t count, const struct neap_limiter *l)
{
	const struct neap_limiter *of = l->as.conditional.of;
	for (const struct neap_term *t = terms; t < terms + count; t++) {
		const struct neap_limiter *o = t->limiter;
		if (o == of || (o != l && o->kind == NEAP_CONDITIONAL && o->as.conditional.of == of))
			return 1;
	}
	return 0;
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
		if (t->limiter->kind == NEAP_CONDITIONAL) {
			if (others_ask(terms, count, t->limiter))
				return NEAP_ERANGE;
			kinds |= 1u << t->limiter->as.conditional.of->kind;
		}
	}
	*all = (struct neap_all){terms, count, kinds, NULL};
	return NEAP_OK;
}
