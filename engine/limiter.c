/* SPDX-License-Identifier: MIT */
/* limiter.c - any limiter.
 *
 * A limiter maps (state, request, now) to an instant, the first at which the answer is yes.
 * Instants are ordered so that "when somebody gives back" and "never" come last.
 *
 * One that is shared lies in a segment, and is used under its guard (guard.c); what is bare here is
 * the same without.
 */
#include "change.h"
#include "segment.h"

#include <assert.h>

inline neap_ns neap_bare_when(const struct neap_limiter *l, int64_t cost, neap_ns now)
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

inline neap_ns neap_bare_take(struct neap_limiter *l, int64_t cost, neap_ns now)
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

void neap_bare_give(struct neap_limiter *l, int64_t cost, int outcome, neap_ns at, neap_ns now)
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

void neap_bare_settle(struct neap_limiter *l, int64_t cost, int64_t used, neap_ns at, neap_ns now)
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
		neap_window_settle(&l->as.window, cost, used, at, now);
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

neap_ns neap_limiter_when(const struct neap_limiter *l, int64_t cost, neap_ns now)
{
	return __builtin_expect(l->shared != 0, 0) ? neap_guarded_when(l, cost, now)
						   : neap_bare_when(l, cost, now);
}

neap_ns neap_limiter_take(struct neap_limiter *l, int64_t cost, neap_ns now)
{
	if (__builtin_expect(l->kind == NEAP_GCRA && !l->shared, 1))
		return neap_gcra_take(&l->as.gcra, cost, now);   /* what most are, without a table */
	return __builtin_expect(l->shared != 0, 0) ? neap_guarded_take(l, cost, now)
						   : neap_bare_take(l, cost, now);
}

void neap_limiter_give(struct neap_limiter *l, int64_t cost, int outcome, neap_ns at, neap_ns now)
{
	if (l->shared)
		neap_guarded_give(l, cost, outcome, at, now);
	else
		neap_bare_give(l, cost, outcome, at, now);
}

void neap_limiter_settle(struct neap_limiter *l, int64_t cost, int64_t used, neap_ns at,
			 neap_ns now)
{
	if (l->shared)
		neap_guarded_settle(l, cost, used, at, now);
	else
		neap_bare_settle(l, cost, used, at, now);
}

int neap_conditional_init(struct neap_limiter *l, const struct neap_conditional *c)
{
	if (!c->of || c->of->kind == NEAP_KEYED || c->of->kind == NEAP_CONDITIONAL || !c->pause[0] ||
	    c->off < 0 || c->on < c->off || c->on > INT32_MAX)
		return NEAP_ERANGE;
	l->kind = NEAP_CONDITIONAL;
	l->shared = 0;
	l->as.conditional = *c;
	return NEAP_OK;
}

/* What is asked of the limiter at 'now' for each token of a conditional one. */
static int64_t multiple(const struct neap_conditional *c, neap_ns now)
{
	return neap_conditional_ends(c, now) > now ? c->on : c->off;
}

/* So many whole times. */
static int64_t over(int64_t amount, int64_t multiple)
{
	if (multiple == 0 || amount == INT64_MAX)
		return INT64_MAX;
	return amount / multiple - (amount % multiple < 0);
}

void neap_limiter_share(struct neap_limiter *l)
{
	if (l->kind == NEAP_GCRA)
		l->as.gcra.robust = 1;
	else if (l->kind == NEAP_SEMAPHORE)
		l->as.semaphore.robust = 1;
}

static int64_t available(const struct neap_limiter *l, neap_ns now)
{
	switch (l->kind) {
	case NEAP_GCRA: return neap_gcra_available(&l->as.gcra, now);
	case NEAP_SEMAPHORE:
		return l->as.semaphore.limit - neap_word_value(&l->as.semaphore.in_use);
	case NEAP_WINDOW: return neap_window_available(&l->as.window, now);
	case NEAP_PAUSE:
	case NEAP_BREAKER: return neap_bare_when(l, 1, now) > now ? 0 : INT64_MAX;
	case NEAP_ADAPTIVE: return l->as.adaptive.limit - l->as.adaptive.in_use;
	case NEAP_CONDITIONAL:
		return over(neap_limiter_available(l->as.conditional.of, now),
			    multiple(&l->as.conditional, now));
	}
	return 0;
}

int neap_limiter_hold(struct neap_limiter *l, int64_t tokens, neap_ns until, neap_ns now)
{
	neap_ns end = until < neap_horizon ? until : neap_horizon;
	if (l->shared)
		return neap_guarded_hold(l, tokens, end, now);
	switch (l->kind) {
	case NEAP_GCRA: neap_gcra_hold(&l->as.gcra, tokens, end, now); return NEAP_OK;
	case NEAP_WINDOW: neap_window_hold(&l->as.window, tokens, end, now); return NEAP_OK;
	}
	return NEAP_ERANGE;
}

static int64_t capacity(const struct neap_limiter *l)
{
	switch (l->kind) {
	case NEAP_GCRA: return l->as.gcra.burst >> l->as.gcra.shift;
	case NEAP_SEMAPHORE: return l->as.semaphore.overdraw ? INT64_MAX : l->as.semaphore.limit;
	case NEAP_WINDOW: return l->as.window.limit;
	case NEAP_PAUSE:
	case NEAP_BREAKER: return INT64_MAX;
	case NEAP_ADAPTIVE: return l->as.adaptive.ceiling;
	case NEAP_CONDITIONAL: {
		const struct neap_conditional *c = &l->as.conditional;
		return over(neap_limiter_capacity(c->of), c->off);
	}
	}
	return 0;
}

static int is_new(const struct neap_limiter *l, neap_ns now)
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
	case NEAP_CONDITIONAL: return neap_limiter_is_new(l->as.conditional.of, now);
	}
	return 0;
}

static neap_ns after(const struct neap_limiter *l, int64_t ahead, int64_t cost, neap_ns now)
{
	neap_ns alone = neap_bare_when(l, cost, now);
	if (ahead == 0 || cost == 0 || alone == neap_never)
		return alone;
	switch (l->kind) {
	case NEAP_GCRA: return neap_gcra_after(&l->as.gcra, ahead, cost, now);
	case NEAP_WINDOW: return neap_window_after(&l->as.window, ahead, cost, now);
	case NEAP_SEMAPHORE:   /* with overdraw whatever goes once those ahead leave the level at 0 */
		if (!l->as.semaphore.overdraw)
			ahead = neap_plus(ahead, cost);
		return available(l, now) >= ahead ? alone : neap_on_give;
	case NEAP_ADAPTIVE:
		return available(l, now) >= neap_plus(ahead, cost) ? alone : neap_on_give;
	}
	return alone;   /* a pause, a breaker: at least that long */
}

/* ---- looking, alone at it if it is shared ---- */

static void enter(const struct neap_limiter *l)
{
	if (l->shared)
		neap_guard_enter(l);
}

static void leave(const struct neap_limiter *l)
{
	if (l->shared)
		neap_guard_leave(l);
}

int64_t neap_limiter_available(const struct neap_limiter *l, neap_ns now)
{
	enter(l);
	int64_t tokens = available(l, now);
	leave(l);
	return tokens;
}

int64_t neap_limiter_capacity(const struct neap_limiter *l)
{
	enter(l);
	int64_t tokens = capacity(l);
	leave(l);
	return tokens;
}

int neap_limiter_is_new(const struct neap_limiter *l, neap_ns now)
{
	enter(l);
	int answer = is_new(l, now);
	leave(l);
	return answer;
}

neap_ns neap_limiter_after(const struct neap_limiter *l, int64_t ahead, int64_t cost, neap_ns now)
{
	enter(l);
	neap_ns at = after(l, ahead, cost, now);
	leave(l);
	return at;
}
