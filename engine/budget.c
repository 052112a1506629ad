/* SPDX-License-Identifier: MIT */
/* budget.c - how many attempts there may be besides the first.
 *
 * Retries are load that nobody asked for. When one call in a hundred fails they are what makes it
 * work; when all fail they multiply the load on a server that cannot bear what it has. A limit on
 * the attempts of one call does not see that: it is the same for both. A budget is shared by all
 * calls and sees how many others are at it. Two are in use, and both are here.
 *
 * TOKENS: a purse that failures or retries empty and successes fill. It knows no time, so one that
 * was emptied in an outage stays so until calls succeed again.
 *
 * SHARE: in any period, so many extra attempts for each first call, and a few more for those who
 * call rarely. Time is cut in slices, and the newest has begun but not ended:
 *
 *        |<-------------- period --------------->|
 *     ---|---|---|---|---|---|---|---|---|---|---|-> now
 *     |   |   |   |   |   |   |   |   |   |   |
 *     |   |<- calls of these slices count ------>|
 *     |<- extra attempts of these count -------->|
 *
 * No slice in which calls count is older than a period, and none in which attempts count is left
 * out: it may refuse a little early, and never admits more than its share.
 *
 * Sources: gRPC proposal A6, "Throttling Retry Attempts"; botocore's retry quota; Finagle's
 * RetryBudget for the share.
 *
 * Invariants: 0 <= tokens <= most. Slices older than those that count are 0 when they are reused.
 */
#include "neap.h"

#include <assert.h>

enum { CUTS = NEAP_SLICES - 1 };   /* slices in a period */

static const int64_t MOST = INT64_C(1) << 50;

int neap_budget_tokens(struct neap_budget *b, int64_t most, int64_t above)
{
	if (most < 0 || most > MOST || above < 0 || above > most)
		return NEAP_ERANGE;
	*b = (struct neap_budget){.rule = NEAP_TOKENS, .tokens = most, .most = most, .above = above};
	return NEAP_OK;
}

int neap_budget_share(struct neap_budget *b, double share, int64_t least, neap_ns period_ns)
{
	if (!(share >= 0 && share <= 1e6) || least < 0 || least > MOST || period_ns < 1 ||
	    period_ns > neap_horizon)
		return NEAP_ERANGE;
	*b = (struct neap_budget){.rule = NEAP_SHARE, .share = share, .least = least,
				  .slice_ns = (period_ns + CUTS - 1) / CUTS};
	return NEAP_OK;
}

/* Come to the slice that 'now' is in, and empty those that are new. A clock that steps back stays
 * in the newest. */
static void advance(struct neap_budget *b, neap_ns now)
{
	int64_t slice = now / b->slice_ns, steps = slice - b->newest;
	for (int64_t i = 0; i < steps && i < NEAP_SLICES; i++) {
		b->calls[(slice - i) % NEAP_SLICES] = 0;
		b->extras[(slice - i) % NEAP_SLICES] = 0;
	}
	if (steps > 0)
		b->newest = slice;
}

/* How many more there may be; below 0 when calls have left since. */
static double left(struct neap_budget *b, neap_ns now)
{
	int64_t calls = 0, extras = 0;
	advance(b, now);
	for (int i = 0; i < NEAP_SLICES; i++) {
		calls += b->calls[i];
		extras += b->extras[i];
	}
	calls -= b->calls[(b->newest + 1) % NEAP_SLICES];   /* the oldest */
	return (double)b->least + b->share * (double)calls - (double)extras;
}

void neap_budget_call(struct neap_budget *b, neap_ns now)
{
	if (b->rule != NEAP_SHARE)
		return;
	advance(b, now);
	b->calls[b->newest % NEAP_SLICES]++;
}

int neap_budget_take(struct neap_budget *b, int64_t cost, neap_ns now)
{
	assert(cost >= 0 && now >= 0);
	if (b->rule == NEAP_TOKENS) {
		if (b->tokens < cost || b->tokens <= b->above)
			return 0;
		b->tokens -= cost;
		return 1;
	}
	if (left(b, now) < 1)
		return 0;
	b->extras[b->newest % NEAP_SLICES]++;
	return 1;
}

void neap_budget_add(struct neap_budget *b, int64_t amount)
{
	assert(amount >= -MOST && amount <= MOST);
	if (b->rule != NEAP_TOKENS)
		return;
	int64_t tokens = b->tokens + amount;
	b->tokens = tokens < 0 ? 0 : tokens > b->most ? b->most : tokens;
}

int64_t neap_budget_left(struct neap_budget *b, neap_ns now)
{
	if (b->rule == NEAP_TOKENS)
		return b->tokens;
	double extras = left(b, now);
	return extras > 0 ? extras < (double)INT64_MAX ? (int64_t)extras : INT64_MAX : 0;
}
