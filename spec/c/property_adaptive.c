/* SPDX-License-Identifier: MIT */
/* property_adaptive.c - adaptive against a log that is read anew for each question. */
#include "pilot.h"
#include "trial.h"

#include <math.h>
#include <string.h>

static const int64_t MOST = INT64_C(1) << 59;

static struct pilot pilot;

/* A number of a strategy: mostly small, sometimes as large as it may be. */
static int64_t some(struct dice *d, int64_t usual, int64_t large)
{
	return dice_between(d, 0, 9) ? dice_between(d, 0, usual) : dice_any_size(d, 1, large);
}

static double share(struct dice *d) { return (double)dice_between(d, 1, 100) / 100; }

static struct neap_strategy any_strategy(struct dice *d)
{
	struct neap_strategy s;
	neap_strategy_init(&s, (int)dice_between(d, NEAP_AIMD, NEAP_STEERED));
	s.options = (uint32_t)dice_between(d, 0, 31);
	s.increase = some(d, 4, MOST);
	s.decrease = dice_between(d, 0, 4) ? share(d) : (double)dice_between(d, -2, 2);
	if (dice_between(d, 0, 1))
		s.smoothing = share(d);
	s.use = some(d, 3, INT64_C(1) << 40);
	s.slow_ns = dice_between(d, 0, 3) ? 0 : dice_any_size(d, 1, 10000);
	s.alpha = some(d, 5, INT64_C(1) << 40);
	s.beta = some(d, 9, INT64_C(1) << 40);
	s.threshold = dice_between(d, 0, 1) ? -1 : dice_between(d, 0, 4);
	s.shrink = dice_between(d, 0, 1) ? 0 : share(d);
	s.memory_ns = dice_between(d, 0, 5) ? dice_any_size(d, 1, 100000) : 0;
	s.tolerance = (double)dice_between(d, 1, 30) / 10;
	s.queue = some(d, 6, INT64_C(1) << 40);
	s.window = (int32_t)dice_any_size(d, 1, INT32_MAX);
	return s;
}

static void compare(const struct neap_limiter *l, neap_ns now)
{
	const struct neap_adaptive *a = &l->as.adaptive;
	if (a->in_use != pilot_in_use(&pilot))
		trial_fail("%ld in use, not %ld", a->in_use, pilot_in_use(&pilot));
	if (a->limit < a->floor || a->limit > a->ceiling || a->floor < 1 || a->ceiling > MOST ||
	    !(a->fraction >= 0 && a->fraction < 1) || (a->limit == a->ceiling && a->fraction > 0))
		trial_fail("%ld + %g within %ld and %ld", a->limit, a->fraction, a->floor, a->ceiling);
	if (neap_limiter_available(l, now) != a->limit - a->in_use ||
	    neap_limiter_capacity(l) != a->ceiling)
		trial_fail("%ld available, of %ld", neap_limiter_available(l, now),
			   neap_limiter_capacity(l));
}

/* The call that ends, and what is then made of the limit. */
static void end_call(struct dice *d, struct neap_limiter *l, neap_ns now)
{
	struct neap_adaptive *a = &l->as.adaptive, was = *a;
	int i = (int)dice_between(d, 0, pilot.out - 1);
	struct neap_stamp call = pilot.call[i];
	int outcome = (int)(dice_between(d, 0, 3) ? NEAP_SUCCESS : dice_between(d, 0, 2));
	long double low, high;
	pilot_give(&pilot, i, outcome, now, &low, &high);
	neap_limiter_give(l, call.cost, outcome, call.at, now);
	long double is = (long double)a->limit + a->fraction;
	if (pilot.unsure)
		return;
	if (!(is >= low && is <= high))
		trial_fail("strategy %d, options %d: outcome %d after %ld moves %ld + %g to %ld + %g, "
			   "not between %Lg and %Lg", a->strategy.kind, a->strategy.options, outcome,
			   now - call.at, was.limit, was.fraction, a->limit, a->fraction, low, high);
	if (a->changes - was.changes != (a->limit != was.limit) ||
	    (a->limit != was.limit && a->changed_at != now))
		trial_fail("%ld to %ld: %ld changes, the last at %ld", was.limit, a->limit,
			   a->changes - was.changes, a->changed_at);
	pilot_moved(&pilot, a->limit, a->fraction, now);
}

/* Somebody else changes it: its bounds, itself, or what a call holds. */
static void meddle(struct dice *d, struct neap_limiter *l, neap_ns now)
{
	struct neap_adaptive *a = &l->as.adaptive;
	int64_t x = some(d, 40, MOST), y = some(d, 80, MOST);
	switch (dice_between(d, 0, 3)) {
	case 0:
		if (neap_adaptive_bounds(a, x, y, now) ||
		    a->floor != (pilot.floor = x ? x : 1) ||
		    a->ceiling != (pilot.ceiling = y > pilot.floor ? y : pilot.floor))
			trial_fail("bounds %ld and %ld, not %ld and %ld", a->floor, a->ceiling, x, y);
		pilot_moved(&pilot, a->limit, a->fraction, now);
		return;
	case 1:
		neap_adaptive_move(a, x, now);
		if (a->limit != (x < a->floor ? a->floor : x > a->ceiling ? a->ceiling : x))
			trial_fail("moved to %ld, not %ld", a->limit, x);
		pilot_moved(&pilot, a->limit, a->fraction, now);
		return;
	}
	if (!pilot.out || pilot_in_use(&pilot) > MOST)
		return;
	int64_t *cost = &pilot.call[dice_between(d, 0, pilot.out - 1)].cost;
	x = some(d, 40, INT64_MAX);
	neap_limiter_settle(l, *cost, x, 0, now);
	*cost = x;
}

static void episode(struct dice *d)
{
	struct neap_limiter l = {.kind = NEAP_ADAPTIVE};
	struct neap_strategy s = any_strategy(d);
	int64_t top = dice_between(d, 0, 4) ? 100 : MOST;
	int64_t floor = dice_between(d, 0, 1) ? 1 : dice_any_size(d, 1, top) - 1;
	int64_t ceiling = dice_between(d, 0, 1) ? top : dice_any_size(d, 1, top);
	int64_t initial = dice_between(d, 0, 3) ? dice_any_size(d, 1, top) : top - dice_between(d, 0, 99);
	int meddled = dice_between(d, 0, 3) ? 0 : 20, rushes = (int)dice_between(d, 1, 8);
	if (neap_adaptive_init(&l.as.adaptive, &s, floor, ceiling, initial))
		trial_fail("kind %d refused", s.kind);
	pilot_init(&pilot, &s, floor, ceiling, initial);
	if (l.as.adaptive.limit != pilot.limit)
		trial_fail("begins at %ld, not %ld", l.as.adaptive.limit, pilot.limit);
	neap_ns now = dice_between(d, 0, 1) ? 0 : dice_any_size(d, 1, neap_horizon / 4);
	for (int i = 0; i < 400; i++) {
		int64_t cost = dice_between(d, 0, 4) ? 1 : some(d, 5, dice_between(d, 0, 5) ? top : MOST);
		now += dice_between(d, 0, 3) ? dice_between(d, 0, 50) : dice_any_size(d, 1, 30000);
		if (dice_between(d, 1, 100) <= meddled) {
			meddle(d, &l, now);
		} else if (pilot.out && dice_between(d, 0, 9) >= rushes) {
			end_call(d, &l, now);
		} else {
			struct neap_adaptive was = l.as.adaptive;
			neap_ns want = pilot_when(&pilot, cost, now);
			if (neap_limiter_when(&l, cost, now) != want)
				trial_fail("when %ld, not %ld: cost %ld, %ld of %ld in use",
					   neap_limiter_when(&l, cost, now), want, cost, was.in_use,
					   was.limit);
			if (neap_limiter_take(&l, cost, now) != want)
				trial_fail("take and when disagree");
			if (want <= now)
				pilot_take(&pilot, cost, now);
			else if (memcmp(&was, &l.as.adaptive, sizeof was))
				trial_fail("a refused take left a trace");
		}
		compare(&l, now);
		if (pilot_in_use(&pilot) > MOST || pilot.unsure)
			return;
	}
}

static void follows_its_log(struct dice *d)
{
	for (int64_t ops = trial_ops(600000); ops > 0; ops -= 400)
		episode(d);
}

/* The largest step there is, and the limit goes a share of the way: not of the way to its ceiling. */
static void goes_a_share_of_the_way(struct dice *d)
{
	(void)d;
	const struct { int64_t limit, alpha, beta, want; } row[] = {
		{64, 1, 1, 64 + MOST / 4}, {512, 1, 1, 512 + MOST / 4 * 2},
		{4096, 1, 1, 4096 + MOST / 4 * 3}, {65536, 1, 1, MOST}, {MOST, 0, 0, 1},
	};
	for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
		struct neap_strategy s;
		struct neap_adaptive a;
		neap_strategy_init(&s, NEAP_VEGAS);
		s.options = NEAP_LOG10;
		s.increase = MOST;
		s.smoothing = 0.25;
		s.alpha = row[i].alpha, s.beta = row[i].beta;
		neap_adaptive_init(&a, &s, 1, MOST, row[i].limit);
		neap_adaptive_take(&a, 2, 0);
		neap_adaptive_give(&a, 1, NEAP_SUCCESS, 0, 1);
		if (row[i].alpha == 0)
			neap_adaptive_give(&a, 1, NEAP_SUCCESS, 0, 2);
		if (a.limit != row[i].want)
			trial_fail("%ld moves to %ld, not %ld", row[i].limit, a.limit, row[i].want);
	}
}

/* Limits beyond 2^53, of which a double holds every 2nd, 4th, … 64th: the rest is rounded. */
static void failures_never_raise(struct dice *d)
{
	for (int64_t i = trial_ops(100000); i > 0; i--) {
		struct neap_strategy s;
		struct neap_adaptive a;
		int64_t limit = dice_any_size(d, 1, MOST);
		neap_strategy_init(&s, NEAP_AIMD);
		s.decrease = dice_between(d, 0, 1) ? 1 : share(d);
		neap_adaptive_init(&a, &s, 1, MOST, limit);
		neap_adaptive_take(&a, 1, 0);
		neap_adaptive_give(&a, 1, NEAP_FAILURE, 0, 1);
		if (a.limit > limit || (limit >> 53 == 0 && s.decrease == 1 && a.limit != limit))
			trial_fail("%g of %ld is %ld", s.decrease, limit, a.limit);
	}
}

/* Calls that wait for nobody: all that fit are out, and come back together, well or badly. */
static void settles_where_the_server_is(struct dice *d)
{
	for (int64_t rounds = trial_ops(20000); rounds > 0; rounds -= 200) {
		struct neap_limiter l = {.kind = NEAP_ADAPTIVE};
		struct neap_adaptive *a = &l.as.adaptive;
		struct neap_strategy s;
		int64_t room = dice_between(d, 20, 60), lowest = 1000, highest = 0;
		neap_strategy_init(&s, NEAP_AIMD);
		s.options = NEAP_ONE_CUT | NEAP_GROW_WHEN_USED;
		neap_adaptive_init(a, &s, 1, 1000, dice_between(d, 1, 200));
		neap_ns now = 0;
		for (int i = 0; i < 200; i++) {
			int64_t out = 0;
			while (neap_limiter_take(&l, 1, now) <= now)
				out++;
			for (int64_t call = 0; call < out; call++)
				neap_limiter_give(&l, 1, out > room, now, now + 1000);
			now += 1001;
			if (i < 150)
				continue;
			lowest = a->limit < lowest ? a->limit : lowest;
			highest = a->limit > highest ? a->limit : highest;
		}
		if (lowest != (room + 1) / 2 || highest != room + 1)
			trial_fail("between %ld and %ld, where %ld fit", lowest, highest, room);
	}
}

static void bounds_are_refused(struct dice *d)
{
	(void)d;
	struct neap_strategy good, s;
	struct neap_adaptive a, was;
	memset(&a, 0x5A, sizeof a), memset(&s, 0x5A, sizeof s);
	was = a, good = s;
	if (neap_strategy_init(&s, NEAP_AIMD - 1) != NEAP_ERANGE ||
	    neap_strategy_init(&s, NEAP_STEERED + 1) != NEAP_ERANGE || memcmp(&s, &good, sizeof s))
		trial_fail("a strategy that is none");
	neap_strategy_init(&good, NEAP_VEGAS);
	for (int i = 0; i < 21; i++) {
		s = good;
		switch (i) {
		case 0: s.kind = 0; break;
		case 1: s.kind = NEAP_STEERED + 1; break;
		case 2: s.increase = -1; break;
		case 3: s.increase = MOST + 1; break;
		case 4: s.decrease = NAN; break;
		case 5: s.smoothing = 0; break;
		case 6: s.smoothing = NAN; break;
		case 7: s.smoothing = 1.01; break;
		case 8: s.use = -1; break;
		case 9: s.slow_ns = -1; break;
		case 10: s.alpha = -1; break;
		case 11: s.alpha = INT64_MAX; break;
		case 12: s.beta = INT64_MAX; break;
		case 13: s.threshold = INT64_MAX; break;
		case 14: s.shrink = -0.1; break;
		case 15: s.shrink = NAN; break;
		case 16: s.memory_ns = -1; break;
		case 17: s.tolerance = 0; break;
		case 18: s.tolerance = INFINITY; break;
		case 19: s.queue = -1; break;
		case 20: s.window = 0; break;
		}
		if (neap_adaptive_init(&a, &s, 1, 10, 1) != NEAP_ERANGE)
			trial_fail("strategy %d", i);
	}
	if (neap_adaptive_init(&a, &good, MOST + 1, MOST, 1) != NEAP_ERANGE ||
	    neap_adaptive_init(&a, &good, 1, INT64_MAX, 1) != NEAP_ERANGE)
		trial_fail("bounds above 2^59");
	if (memcmp(&a, &was, sizeof a))
		trial_fail("a refused _init wrote something");
	if (neap_adaptive_init(&a, &good, INT64_MIN, MOST, INT64_MAX) || a.floor != 1 || a.limit != MOST)
		trial_fail("the largest is refused");
	was = a;
	if (neap_adaptive_bounds(&a, MOST + 1, MOST, 0) != NEAP_ERANGE || memcmp(&a, &was, sizeof a))
		trial_fail("refused _bounds wrote something");
}

int main(void)
{
	trial_run("adaptive refuses what makes no sense and touches nothing", bounds_are_refused);
	trial_run("adaptive moves as the log of all that happened says", follows_its_log);
	trial_run("a success moves a share of the whole way, wherever that ends", goes_a_share_of_the_way);
	trial_run("a failure never raises the limit, however it is rounded", failures_never_raise);
	trial_run("AIMD swings between what the server bears and half of it", settles_where_the_server_is);
	return trial_verdict();
}
