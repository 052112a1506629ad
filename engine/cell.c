/* SPDX-License-Identifier: MIT */
/* cell.c - the arithmetic of redis-cell, reply for reply.
 *
 * Clients of CL.THROTTLE expect five numbers that follow from one module's choices: GCRA kept in
 * time space, with a whole number of nanoseconds per token,
 *
 *          now            tat         now + tolerance
 *     ------|--------------|---------------|---------> ns
 *           |<--- debt --->|<--- room ---->|
 *
 * and three ways of rounding for three of the numbers. gcra.c is the better algorithm (it keeps
 * the fraction that is lost here: 7 per 3 s is 428,571,428 ns a token) and what neap's own limits
 * use; this one is a contract with the outside. So:
 *
 *   remaining  room / interval, both cut to microseconds first. The module divides doubles and
 *              truncates. Below 2^53 us the quotient of integers is that very number: a double
 *              would have to round a proper fraction up to a whole one, and 1/interval is wider
 *              than the gap between doubles there. An interval below 1 us has no microseconds;
 *              the module then says 2^63 - 1, and we divide nanoseconds.
 *   retry, reset   whole seconds, one more if the millisecond part is above 0: a rest below a
 *              millisecond is dropped, and "retry in 0" may be early by that much.
 *
 * What the module gets wrong it does so on overflow or nonsense, and there we refuse instead:
 * neap_cell_why has the sentences.
 *
 * No sum overflows: now <= neap_horizon (2^60), tolerance <= 2^62, so a stored tat is at most
 * 2^60 + 2^62, and a quantity is multiplied only once it is known to be within the limit.
 */
#include "neap.h"

#include <assert.h>

#define TOLERANCE_MAX (INT64_C(1) << 62)

/* Whole seconds, a started millisecond counts as one. */
static int64_t seconds(neap_ns span)
{
	return span / 1000000000 + (span % 1000000000 >= 1000000);
}

const char *neap_cell_why(int64_t max_burst, int64_t count, neap_ns period_ns)
{
	if (max_burst < 0 || max_burst == INT64_MAX)
		return "max_burst is out of range";
	if (count < 1 || period_ns < 1)
		return "count and period must be > 0";
	if (period_ns < count)
		return "rates above 1000000000 per second are not supported";
	if (period_ns / count > TOLERANCE_MAX / (max_burst + 1))
		return "max_burst at this rate would overflow";
	return NULL;
}

int neap_cell_init(struct neap_cell *c, int64_t max_burst, int64_t count, neap_ns period_ns)
{
	if (neap_cell_why(max_burst, count, period_ns))
		return NEAP_ERANGE;
	neap_ns interval_ns = period_ns / count;
	*c = (struct neap_cell){interval_ns, interval_ns * (max_burst + 1), max_burst + 1};
	return NEAP_OK;
}

/* Tokens in 'room' ns, which may be negative when the word was written under a larger limit. */
static int64_t tokens(const struct neap_cell *c, neap_ns room)
{
	if (room <= 0)
		return 0;
	if (c->interval_ns < 1000)
		return room / c->interval_ns;
	return room / 1000 / (c->interval_ns / 1000);
}

void neap_cell_take(const struct neap_cell *c, neap_ns tat, int64_t quantity, neap_ns now,
		    struct neap_cell_reply *r)
{
	assert(quantity >= 0 && now >= 0 && now <= neap_horizon);
	int possible = quantity <= c->limit;
	neap_ns cost = possible ? quantity * c->interval_ns : 0;
	neap_ns debt = tat > now ? tat - now : 0;
	neap_ns early = debt - (c->tolerance_ns - cost);
	int limited = !possible || early > 0;
	if (!limited)
		debt += cost;
	*r = (struct neap_cell_reply){
		.limited = limited,
		.limit = c->limit,
		.remaining = tokens(c, c->tolerance_ns - debt),
		.retry_s = limited && possible ? seconds(early) : -1,
		.reset_s = seconds(debt),
		.tat = limited || quantity == 0 ? tat : now + debt,
	};
}
