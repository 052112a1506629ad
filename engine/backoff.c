/* SPDX-License-Identifier: MIT */
/* backoff.c - how long to wait before the next attempt.
 *
 * A delay is a pure function of the attempt's number, the delay before it and one draw of a random
 * source. Nothing is kept between calls, so attempt 1,000,000 costs what attempt 3 does, and a
 * policy may be shared by everybody who is backing off.
 *
 *     curve(attempt) --> min(cap) --> jitter(draw) --> grid
 *
 * The famous loop, delay = delay * factor, has two faults: the product overflows long before
 * anybody gives up, and a loop with a bound stops growing there. Here the power is taken by
 * squaring, in floating point, which has an infinity: what is too large is only ever compared with
 * the cap, and the cap is an integer.
 *
 * Jitter after the cap, and within it. Clipping the draws would undo the jitter just where all who
 * are backing off have met: at the cap. So not the draws are cut but the window that they come
 * from; and when less than half of it would be left, it slides down until half is:
 *
 *                    low                   cap    high
 *      range 0.5..1.5 [---------------------|. . . .]      drawn from all that is below the cap
 *      range 1..1.5              [----|-----]  . . .]      half of the width, moved below it
 *
 * Sources: exponential back-off and the none, full, equal and decorrelated kinds of jitter are
 * M. Brooker's (Exponential Backoff And Jitter, 2015); there a decorrelated draw above the cap is
 * the cap. The generator is splitmix64 (Steele, Lea, Flood 2014).
 *
 * Invariants: 0 <= delay <= cap. With no jitter and a factor of 1 and more, delays never shrink.
 */
#include "neap.h"

#include <assert.h>

static neap_ns least(neap_ns a, neap_ns b) { return a < b ? a : b; }

/* ---- the generator ---- */

uint64_t neap_random_next(struct neap_random *r)
{
	uint64_t x = r->state += UINT64_C(0x9E3779B97F4A7C15);
	x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
	return x ^ x >> 31;
}

double neap_random_unit(struct neap_random *r)
{
	return (double)(neap_random_next(r) >> 11) * 0x1p-53;
}

/* ---- the curve ---- */

/* To the power of n. Each squaring doubles the error, so it is about n * 2^-53 in the end. */
static double power(double x, int64_t n)
{
	double result = 1;
	for (; n > 0; n >>= 1, x *= x)
		if (n & 1)
			result *= x;
	return result;
}

/* To the nearest ns, from 0 to 'most'; infinity is 'most'. */
static neap_ns to_ns(double x, neap_ns most)
{
	if (x >= (double)most)
		return most;
	return x > 0 ? least((neap_ns)(x + 0.5), most) : 0;
}

neap_ns neap_backoff_curve(const struct neap_backoff *b, int64_t attempt)
{
	assert(attempt >= 0);
	neap_ns added;
	if (b->curve == NEAP_EXPONENTIAL && attempt > 0 && b->base_ns > 0)
		return to_ns((double)b->base_ns * power(b->factor, attempt), b->cap_ns);
	if (b->curve != NEAP_LINEAR)
		return least(b->base_ns, b->cap_ns);
	if (__builtin_mul_overflow(b->step_ns, attempt, &added) || added > neap_horizon)
		return b->cap_ns;
	return least(b->base_ns + added, b->cap_ns);   /* below 2^61 */
}

/* ---- jitter ---- */

static neap_ns spread(const struct neap_backoff *b, neap_ns delay, double unit)
{
	double cap = (double)b->cap_ns;
	double low = (double)delay * b->low, high = (double)delay * b->high;
	double half = (high - low) / 2;
	if (high > cap) {
		high = cap;
		low = low < cap - half ? low : cap - half;
		low = low > 0 ? low : 0;
	}
	return to_ns(low + (high - low) * unit, b->cap_ns);
}

/* Between the base and three times the delay before. When that is not known it is what it could
 * have been at most. */
static neap_ns decorrelate(const struct neap_backoff *b, int64_t attempt, neap_ns previous,
			   double unit)
{
	double base = (double)least(b->base_ns, b->cap_ns), cap = (double)b->cap_ns;
	if (base <= 0)
		return 0;
	double high = previous > 0 ? 3 * (double)previous : 3 * base * power(3, attempt);
	high = high > cap ? cap : high > base ? high : base;
	return to_ns(base + (high - base) * unit, b->cap_ns);
}

/* To a multiple of the grid, half of it up, but not above the cap. */
static neap_ns on_grid(const struct neap_backoff *b, neap_ns delay)
{
	neap_ns rest = delay % b->grid_ns;
	delay += rest >= b->grid_ns - rest ? b->grid_ns - rest : -rest;
	return least(delay, b->cap_ns);
}

neap_ns neap_backoff_delay(const struct neap_backoff *b, int64_t attempt, neap_ns previous,
			   double unit)
{
	assert(previous >= 0 && unit >= 0 && unit <= 1);
	neap_ns delay;
	if (b->jitter == NEAP_DECORRELATED)
		delay = decorrelate(b, attempt, previous, unit);
	else if (b->jitter == NEAP_SPREAD)
		delay = spread(b, neap_backoff_curve(b, attempt), unit);
	else
		delay = neap_backoff_curve(b, attempt);
	return b->grid_ns > 1 && delay % b->grid_ns ? on_grid(b, delay) : delay;
}

/* ---- what makes sense ---- */

static int is_duration(neap_ns ns) { return ns >= 0 && ns <= neap_horizon; }
static int is_share(double x) { return x >= 0 && x <= 1e9; }   /* and a number */

int neap_backoff_check(const struct neap_backoff *b)
{
	int fits = b->curve >= NEAP_CONSTANT && b->curve <= NEAP_EXPONENTIAL &&
		   b->jitter >= NEAP_NO_JITTER && b->jitter <= NEAP_DECORRELATED &&
		   is_duration(b->base_ns) && is_duration(b->cap_ns) &&
		   b->grid_ns >= 1 && b->grid_ns <= neap_horizon;
	if (fits && b->curve == NEAP_LINEAR)
		fits = is_duration(b->step_ns);
	if (fits && b->curve == NEAP_EXPONENTIAL)
		fits = is_share(b->factor);
	if (fits && b->jitter == NEAP_SPREAD)
		fits = is_share(b->low) && is_share(b->high) && b->low <= b->high;
	return fits ? NEAP_OK : NEAP_ERANGE;
}
