/* SPDX-License-Identifier: MIT */
/* gcra.c - the Generic Cell Rate Algorithm, in token space.
 *
 * A token bucket keeps two numbers, a level and the time it was true. GCRA keeps one: tat, where
 * the clock must be for the bucket to be full again. The debt is the distance from the clock to
 * tat, and it drains by itself as the clock moves:
 *
 *          clock           tat          clock + burst
 *     -------|--------------|------------------|-------> units
 *            |<--- debt --->|<----- room ----->|
 *
 * Units are tokens cut in 2^shift pieces, not nanoseconds: a cost is then a whole number of them
 * and nothing accumulates. Kept in nanoseconds, 700,000 a second would be one per 1428.57 ns, and
 * every grant would round again.
 *
 * Only the clock is rounded, afresh at each reading, and that exactly. With speed = num / den
 * units per ns, in lowest terms, the clock is floor(now * num / den) for every now up to the
 * horizon. A division would cost more than the rest together, so speed is kept as
 * Q = floor(2^124 * num / den) + 1. Q is too large by at most 1, the product by now / 2^124 <=
 * 2^-64, while the true value lies at least 1 / den >= 2^-60 below the next whole number: the
 * floor is the same. The way back, ceil(units * den / num), uses P = floor(2^m * den / num) with
 * m = 64 + bits(num), by the mirrored argument.
 *
 * What the rounding costs: a bucket that was idle starts its next interval up to one unit early,
 * once per idle time, never adding up. A unit is at most 1 ns of refill, unless a burst near 2^60
 * leaves no room for such fine ones.
 *
 * Held, the clock stands where it was, and at the end of that is where it should be: nothing flows
 * in meanwhile, and then all of it at once. So holding is no state of its own, and costs a compare.
 *
 * Invariants, after every call:
 *   0 < burst < 2^60, a multiple of 2^shift
 *   tat - clock <= burst, unless a settle borrowed
 *   a take never moves tat left
 *   0 <= tat < 2^63, below the bit of one who holds the word (word.c)
 *   tat = 2^63 - 1, the end of the number line, is left by _fill and _change only
 *
 * That end is out of reach: clocks stay below 6 * 2^60 units, a burst below 2^60. So of a debt that
 * does not fit on the line the rest is not known, but nobody goes any more; and to give back some of
 * what is not known would be to forgive.
 */
#include "change.h"

#include <assert.h>

const neap_ns neap_never = INT64_MAX;
const neap_ns neap_on_give = INT64_MAX - 1;
const neap_ns neap_horizon = INT64_C(1) << 60;

enum { SPEED_BITS = 124 };

__extension__ typedef unsigned __int128 wide;

static int64_t later(int64_t a, int64_t b) { return a > b ? a : b; }

static wide gcd(wide a, wide b)
{
	while (b) {
		wide rest = a % b;
		a = b;
		b = rest;
	}
	return a;
}

static int bits(wide x)
{
	int n = 0;
	for (; x; x >>= 1)
		n++;
	return n;
}

/* floor(num << shift / den), one bit at a time; the caller knows that it fits. */
static wide shifted_ratio(wide num, wide den, int shift)
{
	wide quotient = num / den, rest = num % den;
	while (shift--) {
		rest <<= 1;
		quotient = quotient << 1 | (rest >= den);
		if (rest >= den)
			rest -= den;
	}
	return quotient;
}

/* Where the clock stands, in units. Rounds down: what has not quite arrived is not there. */
static int64_t clock_at(const struct neap_gcra *g, neap_ns now)
{
	if (now < g->held)
		return g->stands;
	uint64_t t = (uint64_t)now << (128 - SPEED_BITS);   /* whole units are then the top word */
	uint64_t low = (uint64_t)((wide)t * g->speed[0] >> 64);
	wide high = (wide)t * g->speed[1];
	uint64_t carry = (uint64_t)high + low < low;   /* by hand: gcc would add in memory */
	return (int64_t)((uint64_t)(high >> 64) + carry);
}

/* The first nanosecond at which the clock stands at 'units' or beyond, where it does not at 'now':
 * late, never early. */
__attribute__((noinline)) static neap_ns reaches(const struct neap_gcra *g, int64_t units,
						 neap_ns now)
{
	wide low = (wide)(uint64_t)units * g->pace[0];
	wide high = (wide)(uint64_t)units * g->pace[1] + (low >> 64);
	wide whole = high >> g->pace_shift;
	int rest = (high & (((wide)1 << g->pace_shift) - 1)) != 0 || (uint64_t)low != 0;
	neap_ns at = whole >= (wide)neap_horizon ? neap_horizon : (neap_ns)whole + rest;
	return now < g->held && at < g->held ? g->held : at;
}

/* Where the clock must stand for a charge of 'by' units on 'base': up to the clock itself means now.
 * In this order, because base may be close to the end of the number line. */
static int64_t due_at(const struct neap_gcra *g, int64_t base, int64_t by)
{
	return base - g->burst + by;
}

static int64_t read_tat(const struct neap_gcra *g) { return neap_word_value(&g->tat); }

/* More than the bucket holds; or misuse, which must not read as "go" where asserts are off. */
static int is_never(const struct neap_gcra *g, int64_t cost, neap_ns now)
{
	return (uint64_t)cost > (uint64_t)(g->burst >> g->shift) ||
	       (uint64_t)now >= (uint64_t)neap_horizon;
}

neap_ns neap_gcra_when(const struct neap_gcra *g, int64_t cost, neap_ns now)
{
	assert(cost >= 0 && now >= 0 && now < neap_horizon);
	if (is_never(g, cost, now))
		return neap_never;
	int64_t clock = clock_at(g, now);
	int64_t due = due_at(g, later(read_tat(g), clock), cost << g->shift);
	return due <= clock ? now : reaches(g, due, now);
}

neap_ns neap_gcra_take(struct neap_gcra *g, int64_t cost, neap_ns now)
{
	assert(cost >= 0 && now >= 0 && now < neap_horizon);
	if (is_never(g, cost, now))
		return neap_never;
	int64_t clock = clock_at(g, now);
	int64_t by = cost << g->shift;
	int64_t latest = clock + g->burst - by;   /* where base may be; g is read before the race */
	int64_t tat = __atomic_load_n(&g->tat, __ATOMIC_RELAXED), base;
	do {
		if (tat < 0)
			tat = neap_word_wait(&g->tat, g->robust);
		base = later(tat, clock);
		if (base > latest)
			return reaches(g, due_at(g, base, by), now);
	} while (!neap_word_swap(&g->tat, &tat, base + by));
	return now;
}

/* Public to the core, and 'inline' all the same: an all-of take consists of little else. */
inline neap_ns neap_gcra_plan(struct neap_gcra *g, int64_t cost, neap_ns at,
			      struct neap_change *change)
{
	assert(cost >= 0 && at >= 0 && at < neap_horizon);
	if (is_never(g, cost, at))
		return neap_never;
	int64_t clock = clock_at(g, at);
	int64_t tat = read_tat(g);
	int64_t base = later(tat, clock), by = cost << g->shift;
	int64_t due = due_at(g, base, by);
	if (due > clock)
		return reaches(g, due, at);
	*change = (struct neap_change){tat, base + by};
	return at;
}

void neap_gcra_backdate(const struct neap_gcra *g, int64_t cost, neap_ns at,
			struct neap_change *change)
{
	if (at == g->held)
		return;   /* what came at once did not come one by one to who waited */
	int64_t before = clock_at(g, at - 1);
	int64_t base = later(change->from, before), by = cost << g->shift;
	if (due_at(g, base, by) > before)
		change->to = base + by;
}

neap_ns neap_gcra_after(const struct neap_gcra *g, int64_t ahead, int64_t cost, neap_ns now)
{
	if (is_never(g, cost, now))
		return neap_never;
	int64_t clock = clock_at(g, now);
	wide ahead_of_it = (wide)later(read_tat(g), clock) + ((wide)(uint64_t)ahead << g->shift);
	wide spent = ahead_of_it + ((wide)(uint64_t)cost << g->shift);
	if (spent <= (wide)clock + (wide)(uint64_t)g->burst)
		return now;
	wide due = spent - (wide)(uint64_t)g->burst;
	return due > (wide)INT64_MAX ? neap_horizon : reaches(g, (int64_t)due, now);
}

/* Debt may be borrowed up to the end of the number line and no further. */
static int64_t moved(int64_t tat, int64_t clock, wide by, int back)
{
	if (tat == INT64_MAX)
		return tat;
	if (back)
		return (wide)tat > by ? tat - (int64_t)by : 0;
	int64_t base = later(tat, clock);
	return (wide)base + by < (wide)INT64_MAX ? base + (int64_t)by : INT64_MAX;
}

void neap_gcra_settle(struct neap_gcra *g, int64_t cost, int64_t used, neap_ns now)
{
	assert(cost >= 0 && used >= 0 && now >= 0 && now < neap_horizon);
	int64_t clock = clock_at(g, now);
	wide by = (wide)(uint64_t)(used < cost ? cost - used : used - cost) << g->shift;
	if (by == 0)
		return;
	int64_t tat;
	do
		tat = neap_word_free(&g->tat, g->robust);
	while (!neap_word_swap(&g->tat, &tat, moved(tat, clock, by, used < cost)));
}

int64_t neap_gcra_then(const struct neap_gcra *g, int64_t base, int64_t cost, neap_ns at)
{
	return later(base, clock_at(g, at)) + (cost << g->shift);
}

neap_ns neap_gcra_book_when(const struct neap_gcra *g, int64_t cost, neap_ns at, neap_ns now)
{
	int64_t clock = clock_at(g, now), by = cost << g->shift;
	int64_t base = later(read_tat(g), clock);
	/* it is what is waited for until then, or not full before */
	if (due_at(g, base, by) > clock_at(g, at - 1) || base >= clock_at(g, at))
		return now;
	int64_t due = due_at(g, clock_at(g, at), by);
	return due <= clock ? now : reaches(g, due, now);
}

int64_t neap_gcra_clock(const struct neap_gcra *g, neap_ns now) { return clock_at(g, now); }

neap_ns neap_gcra_reaches(const struct neap_gcra *g, int64_t units)
{
	return reaches(g, units, neap_horizon);
}

int64_t neap_gcra_available(const struct neap_gcra *g, neap_ns now)
{
	int64_t clock = clock_at(g, now);
	return (g->burst - (later(read_tat(g), clock) - clock)) >> g->shift;
}

void neap_gcra_fill(struct neap_gcra *g, int64_t tokens, neap_ns now)
{
	int64_t full = g->burst >> g->shift;
	int64_t missing = full - (tokens < 0 ? 0 : tokens > full ? full : tokens);
	int64_t level = clock_at(g, now) + (missing << g->shift);
	int64_t tat;
	do
		tat = neap_word_free(&g->tat, g->robust);
	while (!neap_word_swap(&g->tat, &tat, level));
}

void neap_gcra_full_at(struct neap_gcra *g, neap_ns at)
{
	assert(at >= 0);
	g->held = 0;
	int64_t level = clock_at(g, at < neap_horizon ? at : neap_horizon), tat;
	do
		tat = neap_word_free(&g->tat, g->robust);
	while (!neap_word_swap(&g->tat, &tat, level));
}

void neap_gcra_hold(struct neap_gcra *g, int64_t tokens, neap_ns until, neap_ns now)
{
	assert(tokens >= 0 && now >= 0 && now < neap_horizon);
	g->held = 0;
	if (tokens < neap_gcra_available(g, now))
		neap_gcra_fill(g, tokens, now);
	g->stands = clock_at(g, now);
	g->held = until > now ? until : 0;
}

int neap_gcra_init(struct neap_gcra *g, int64_t amount, neap_ns period_ns, int64_t burst)
{
	const int64_t most = INT64_C(1) << 59;
	if (amount <= 0 || period_ns <= 0 || burst <= 0 || amount >= most || burst >= most ||
	    period_ns > neap_horizon || (wide)amount > (wide)period_ns * 6)
		return NEAP_ERANGE;
	/* fine units for slow rates: 2^30 units a second or more, while the burst stays below 2^60 */
	uint8_t shift = 0;
	while ((wide)amount << shift < (wide)period_ns + (wide)period_ns * 73741824 / 1000000000 &&
	       burst < INT64_C(1) << (59 - shift))
		shift++;
	wide num = (wide)amount << shift, den = (wide)period_ns;
	wide common = gcd(num, den);
	num /= common;
	den /= common;
	wide speed = shifted_ratio(num, den, SPEED_BITS) + 1;
	wide pace = shifted_ratio(den, num, 64 + bits(num));
	*g = (struct neap_gcra){
		.tat = 0,
		.burst = burst << shift,
		.speed = {(uint64_t)speed, (uint64_t)(speed >> 64)},
		.pace = {(uint64_t)pace, (uint64_t)(pace >> 64)},
		.shift = shift,
		.pace_shift = (uint8_t)bits(num),
	};
	return NEAP_OK;
}

int64_t neap_gcra_carry(const struct neap_gcra *g, const struct neap_gcra *fresh, int keep,
			neap_ns now)
{
	assert(keep >= NEAP_KEEP_SPENT && keep <= NEAP_KEEP_NOTHING);
	int64_t clock = clock_at(g, now);
	wide was = (wide)(uint64_t)(later(read_tat(g), clock) - clock);
	wide full = (wide)(uint64_t)g->burst << fresh->shift >> g->shift;   /* all in fresh units */
	wide debt = ((was << fresh->shift) + ((wide)1 << g->shift) - 1) >> g->shift;
	wide owed = debt > full ? debt - full : 0;   /* borrowed */
	wide room = (wide)(uint64_t)fresh->burst;
	wide held = full + owed - debt;
	wide spent = debt - owed;
	if (keep == NEAP_KEEP_HELD) {
		spent = held < room ? room - held : 0;
	} else if (keep == NEAP_KEEP_RATIO) {
		spent = (was * room + (wide)(uint64_t)g->burst - 1) / (wide)(uint64_t)g->burst;
		owed = spent > room ? spent - room : 0;
	} else if (keep == NEAP_KEEP_NOTHING) {
		spent = owed = 0;
	}
	wide tat = (wide)(uint64_t)clock_at(fresh, now) + (spent < room ? spent : room) + owed;
	return tat < INT64_MAX ? (int64_t)tat : INT64_MAX;
}

int neap_gcra_change(struct neap_gcra *g, int64_t amount, neap_ns period_ns, int64_t burst,
		     int keep, neap_ns now)
{
	struct neap_gcra fresh;
	if (neap_gcra_init(&fresh, amount, period_ns, burst))
		return NEAP_ERANGE;
	fresh.tat = neap_gcra_carry(g, &fresh, keep, now);
	fresh.robust = g->robust;
	fresh.stands = clock_at(&fresh, now);
	fresh.held = g->held;
	*g = fresh;
	return NEAP_OK;
}
