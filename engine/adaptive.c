/* SPDX-License-Identifier: MIT */
/* adaptive.c - permits in flight under a limit that is found out, not told.
 *
 * How many calls a server can bear at once nobody knows beforehand, and it changes. So the limit is
 * an estimate, and what becomes of each call corrects it: a give is a sample. Between samples this
 * is a semaphore.
 *
 *      ceiling ---------------------------------------
 *                    /|        /|
 *                  /  |      /  |      /       success, and the limit was in use: up
 *        limit   /    |    /    |    /         failure, or slower than it was:    down
 *              /      |  /      |  /
 *      floor ------------------------------------------> samples
 *
 * Four strategies:
 *   AIMD      failures alone count (D. Chiu, R. Jain, 1989; as in TCP's congestion avoidance)
 *   VEGAS     the best latency is what the server takes by itself; whatever a call took longer, it
 *             stood in a queue over there, and limit * (rtt - best) / rtt of ours stand in it
 *             (L. Brakmo, L. Peterson, TCP Vegas, 1995)
 *   GRADIENT  the latency of now against its long mean: a server that has always been uneven is not
 *             one that is crowded (Netflix, concurrency-limits, Gradient2)
 *   STEERED   whoever owns it moves it
 *
 * A best latency kept for ever would take a longer way to the server for a crowd there, for ever.
 * So it is the minimum of two halves, the one under way and the one before, and an old one is gone
 * after 'memory_ns' at the latest, half of that at the earliest. What this cannot tell apart is a
 * queue of our own making that stands for as long: then the limit may rise for a while.
 *
 * A failure is news about the limit its call was granted under. When eight calls fail together the
 * first halves the limit and the other seven say the same thing again, of a limit that is no more;
 * NEAP_ONE_CUT does not listen to them. It does listen to failures after slow calls: being slow
 * lowers by a step, and would otherwise hide that things got worse.
 *
 * A limit that nobody reaches cannot be wrong, so successes under it prove nothing. "Reached" is:
 * one more call like this would not fit. Costs above 1 seldom fill a limit to the last permit.
 *
 * Invariants, after every call:
 *   1 <= floor <= limit <= ceiling <= 2^59, 0 <= fraction < 1, and 0 at the ceiling
 *   in_use is what was taken and not given back; more than the limit only for one call that is
 *   heavier than it and so goes alone, when the limit was lowered, or by a settle
 *   full_at, cut_at and lowered_at are -1, or instants that were
 */
#include "change.h"

#include <assert.h>
#include <math.h>

enum { WARM_UP = 10 };   /* samples whose plain mean the long one begins with */

__extension__ typedef __int128 wide;

static const int64_t most = INT64_C(1) << 59;

static int64_t clamp(wide n, int64_t low, int64_t high)
{
	return n < low ? low : n > high ? high : (int64_t)n;
}

/* ---- making ---- */

int neap_strategy_init(struct neap_strategy *s, int kind)
{
	if (kind < NEAP_AIMD || kind > NEAP_STEERED)
		return NEAP_ERANGE;
	*s = (struct neap_strategy){
		.kind = kind, .increase = 1, .decrease = 0.5, .smoothing = 1, .alpha = 3, .beta = 6,
		.threshold = -1, .queue = 4, .tolerance = 1.5, .window = 600,
		.memory_ns = INT64_C(30000000000),
	};
	if (kind == NEAP_AIMD)
		s->use = 1;
	if (kind == NEAP_GRADIENT) {
		s->use = 2;
		s->smoothing = 0.2;
	}
	return NEAP_OK;
}

static int makes_sense(const struct neap_strategy *s)
{
	const int64_t large = INT64_C(1) << 40; /* times a limit's digits it is still far below 2^59 */
	int any = s->kind >= NEAP_AIMD && s->kind <= NEAP_STEERED && s->increase >= 0 &&
		  s->increase <= most && !isnan(s->decrease) &&
		  s->smoothing > 0 && s->smoothing <= 1 && s->use >= 0 && s->use <= large &&
		  s->slow_ns >= 0;
	int vegas = s->alpha >= 0 && s->alpha <= large && s->beta <= large &&
		    s->threshold <= large && s->shrink >= 0 && s->shrink <= 1 &&
		    s->memory_ns >= 0 && s->memory_ns <= neap_horizon;
	int gradient = s->queue >= 0 && s->queue <= large && s->tolerance > 0 &&
		       s->tolerance <= 1e9 && s->window >= 1;
	return any && vegas && gradient;
}

int neap_adaptive_init(struct neap_adaptive *a, const struct neap_strategy *s, int64_t floor,
		       int64_t ceiling, int64_t initial)
{
	if (!makes_sense(s) || floor > most || ceiling > most)
		return NEAP_ERANGE;
	floor = clamp(floor, 1, most);
	ceiling = clamp(ceiling, floor, most);
	*a = (struct neap_adaptive){
		.strategy = *s, .floor = floor, .ceiling = ceiling,
		.limit = clamp(initial, floor, ceiling),
		.full_at = -1, .cut_at = -1, .lowered_at = -1,
		.best = {neap_never, neap_never}, .half_since = -1,
	};
	struct neap_strategy *own = &a->strategy;
	own->increase = clamp(s->increase, 1, most);
	own->decrease = s->decrease < 0 ? 0 : s->decrease > 1 ? 1 : s->decrease;
	own->beta = clamp(s->beta, s->alpha, s->beta);
	return NEAP_OK;
}

/* ---- permits ---- */

neap_ns neap_adaptive_when(const struct neap_adaptive *a, int64_t cost, neap_ns now)
{
	assert(cost >= 0);
	if (cost > a->ceiling)
		return neap_never;
	/* heavier than the limit, it goes alone: it would stand before a limit that nobody moves */
	return cost == 0 || a->in_use == 0 || a->in_use <= a->limit - cost ? now : neap_on_give;
}

/* Another call of this cost would not fit: all of the limit that such calls can use is in use. */
static int is_reached(const struct neap_adaptive *a, int64_t cost)
{
	return a->in_use > a->limit - cost;
}

neap_ns neap_adaptive_take(struct neap_adaptive *a, int64_t cost, neap_ns now)
{
	neap_ns at = neap_adaptive_when(a, cost, now);
	if (at > now || cost == 0)
		return at;
	a->in_use += cost;
	if (is_reached(a, cost))
		a->full_at = now;
	return at;
}

void neap_adaptive_settle(struct neap_adaptive *a, int64_t cost, int64_t used)
{
	assert(cost >= 0 && used >= 0);
	int64_t others = cost < a->in_use ? a->in_use - cost : 0;
	a->in_use = used < 2 * most - others ? others + used : 2 * most;
}

/* ---- moving ---- */

/* The limit from now on, within its bounds. */
static void move(struct neap_adaptive *a, wide whole, double fraction, neap_ns now)
{
	int64_t limit = clamp(whole, a->floor, a->ceiling);
	a->fraction = limit == whole && limit < a->ceiling ? fraction : 0;
	if (limit == a->limit)
		return;
	if (limit < a->limit)
		a->lowered_at = now;
	a->limit = limit;
	a->full_at = -1;
	a->changes++;
	a->changed_at = now;
}

void neap_adaptive_move(struct neap_adaptive *a, int64_t limit, neap_ns now)
{
	move(a, limit, 0, now);
}

int neap_adaptive_bounds(struct neap_adaptive *a, int64_t floor, int64_t ceiling, neap_ns now)
{
	if (floor > most || ceiling > most)
		return NEAP_ERANGE;
	a->floor = clamp(floor, 1, most);
	a->ceiling = clamp(ceiling, a->floor, most);
	move(a, a->limit, a->fraction, now);
	return NEAP_OK;
}

static double estimate(const struct neap_adaptive *a) { return (double)a->limit + a->fraction; }

/* The whole part of an estimate, which above 2^53 may be rounded up; 0 below the lowest floor. */
static int64_t whole_of(const struct neap_adaptive *a, double limit)
{
	return limit < 1 ? 0 : limit < (double)a->ceiling ? (int64_t)limit : a->ceiling;
}

/* A call that was granted at 'at' ended well, and this is where the limit should go: also beyond
 * its bounds, for it may go a share of the way only. */
static void follow(struct neap_adaptive *a, wide whole, double fraction, neap_ns at, neap_ns now)
{
	uint32_t options = a->strategy.options;
	int grows = whole > a->limit || (whole == a->limit && fraction > a->fraction);
	if (grows ? (options & NEAP_GROW_WHEN_USED) && a->full_at < at
		  : (options & NEAP_ONE_CUT) && a->lowered_at >= at)
		return;
	double share = a->strategy.smoothing;
	if (share < 1) {
		double limit = (1 - share) * estimate(a) + share * ((double)whole + fraction);
		whole = whole_of(a, limit);
		fraction = limit - (double)whole;
	}
	move(a, whole, fraction, now);
}

static void follow_to(struct neap_adaptive *a, double limit, neap_ns at, neap_ns now)
{
	int64_t whole = whole_of(a, limit);
	follow(a, whole, limit - (double)whole, at, now);
}

/* ---- strategies: what a success of 'rtt' makes of the limit ---- */

/* Take the sample into the minimum. 1 when it is a new one. */
static int is_best(struct neap_adaptive *a, neap_ns rtt, neap_ns now)
{
	neap_ns half = (a->strategy.memory_ns + 1) / 2;
	if (a->half_since < 0)
		a->half_since = now;
	neap_ns old = now - a->half_since;
	if (half && old >= half) {
		a->best[0] = old < 2 * half ? a->best[1] : neap_never;
		a->best[1] = neap_never;
		a->half_since += old / half * half;
	}
	int best = rtt < a->best[0] && rtt < a->best[1];
	if (rtt < a->best[1])
		a->best[1] = rtt;
	return best;
}

/* max(1, the whole part of log10): by how much a larger limit moves in larger steps. */
static int64_t digits(int64_t limit)
{
	int64_t n = 1;
	for (limit /= 100; limit; limit /= 10)
		n++;
	return n;
}

static void vegas(struct neap_adaptive *a, int new_best, neap_ns rtt, neap_ns at, neap_ns now)
{
	const struct neap_strategy *s = &a->strategy;
	if (new_best && (s->options & NEAP_BEST_HOLDS))
		return;
	neap_ns best = a->best[0] < a->best[1] ? a->best[0] : a->best[1];
	wide product = (wide)a->limit * (rtt - best);
	if (s->options & NEAP_ROUND_UP)
		product += rtt - 1;
	int64_t queue = (int64_t)(product / rtt);
	int64_t unit = s->options & NEAP_LOG10 ? digits(a->limit) : 1;
	wide step = (wide)s->increase * unit;
	if (s->threshold >= 0 && queue <= s->threshold * unit)
		follow(a, a->limit + s->beta * unit, a->fraction, at, now);
	else if (queue < s->alpha * unit)
		follow(a, a->limit + step, a->fraction, at, now);
	else if (queue > s->beta * unit && s->shrink > 0)
		follow_to(a, estimate(a) * s->shrink, at, now);
	else if (queue > s->beta * unit)
		follow(a, a->limit - step, a->fraction, at, now);
}

/* The long mean, with the sample in it. */
static double mean_with(struct neap_adaptive *a, neap_ns rtt)
{
	double share = 2.0 / (a->strategy.window + 1.0);
	if (a->samples < WARM_UP)
		share = 1.0 / ++a->samples;
	return a->mean += ((double)rtt - a->mean) * share;
}

static void gradient(struct neap_adaptive *a, double mean, neap_ns rtt, neap_ns at, neap_ns now)
{
	double slope = a->strategy.tolerance * mean / (double)rtt;
	slope = slope < 0.5 ? 0.5 : slope > 1 ? 1 : slope;
	follow_to(a, estimate(a) * slope + (double)a->strategy.queue, at, now);
}

/* ---- samples ---- */

/* Too little is in use for a success to say anything. */
static int is_idle(const struct neap_adaptive *a, int64_t cost)
{
	int64_t use = a->strategy.use, reached;
	return use && !__builtin_mul_overflow(a->in_use + cost - 1, use, &reached) &&
	       reached < a->limit;
}

static void succeed(struct neap_adaptive *a, int64_t cost, neap_ns rtt, neap_ns at, neap_ns now)
{
	const struct neap_strategy *s = &a->strategy;
	int best = 0, idle = is_idle(a, cost);
	double mean = 0;
	/* latency is measured also where the limit does not move */
	if (s->kind == NEAP_VEGAS)
		best = is_best(a, rtt, now);
	if (s->kind == NEAP_GRADIENT) {
		mean = mean_with(a, rtt);
		if (mean > 2 * (double)rtt)   /* the crowd is gone: do not wait until it forgets */
			a->mean *= 0.9;
	}
	if (idle)
		return;
	if (s->kind == NEAP_AIMD)
		follow(a, a->limit + s->increase, a->fraction, at, now);
	else if (s->kind == NEAP_VEGAS)
		vegas(a, best, rtt, at, now);
	else if (s->kind == NEAP_GRADIENT)
		gradient(a, mean, rtt, at, now);
}

static void fail(struct neap_adaptive *a, neap_ns at, neap_ns now)
{
	if (a->strategy.kind == NEAP_STEERED ||
	    ((a->strategy.options & NEAP_ONE_CUT) && a->cut_at >= at))
		return;
	a->cut_at = now;
	int64_t left = (int64_t)((double)a->limit * a->strategy.decrease);
	move(a, left < a->limit ? left : a->limit, 0, now);
}

void neap_adaptive_give(struct neap_adaptive *a, int64_t cost, int outcome, neap_ns at, neap_ns now)
{
	neap_ns rtt = now > at ? now - at : 1, slow = a->strategy.slow_ns;
	if (cost > a->in_use)
		cost = a->in_use;   /* misuse, or it was settled for more than can be counted */
	if (outcome == NEAP_FAILURE || (outcome == NEAP_SUCCESS && slow && rtt > slow))
		fail(a, at, now);
	else if (outcome == NEAP_SUCCESS)
		succeed(a, cost, rtt, at, now);
	neap_adaptive_settle(a, cost, 0);
}
