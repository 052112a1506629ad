/* SPDX-License-Identifier: MIT */
/* bucket.c - a token bucket as the books draw it: a level, and when it was true.
 *
 * It is kept in ticks, whole fractions of a token, 128 bits of them. Two buckets differ only in
 * their clock. The ideal one ticks 'amount' times per nanosecond, period_ns ticks to a token, and
 * so is exact at every nanosecond; the ticking one reads the engine's clock, by a division.
 *
 *     level(now) = min(full, level + clock(now) - since)
 *
 * That also says what a clock that steps back sees: what had not yet dripped in by then, if
 * need be a level below zero.
 */
#include "bucket.h"

struct bucket bucket_ideal(int64_t amount, neap_ns period_ns, int64_t burst)
{
	ticks full = (ticks)burst * period_ns;
	return (struct bucket){amount, 1, period_ns, full, full, 0};
}

struct bucket bucket_ticking(int64_t amount, neap_ns period_ns, int64_t burst, int shift)
{
	ticks token = (ticks)1 << shift;
	return (struct bucket){amount * token, period_ns, token, burst * token, burst * token, 0};
}

static ticks clock_at(const struct bucket *b, neap_ns now)
{
	return b->den == 1 ? now * b->num : now * b->num / b->den;
}

ticks bucket_level(const struct bucket *b, neap_ns now)
{
	ticks level = b->level + clock_at(b, now) - b->since;
	return level < b->full ? level : b->full;
}

int64_t bucket_tokens(const struct bucket *b, neap_ns now)
{
	ticks level = bucket_level(b, now), tokens = level / b->token;
	return (int64_t)(tokens * b->token > level ? tokens - 1 : tokens);
}

neap_ns bucket_when(const struct bucket *b, int64_t cost, neap_ns now)
{
	if (bucket_level(b, now) >= cost * b->token)
		return now;
	ticks at = cost * b->token - b->level + b->since;   /* where the clock must stand */
	ticks first = (at * b->den + b->num - 1) / b->num;
	return first < neap_horizon ? (neap_ns)first : neap_horizon;
}

void bucket_take(struct bucket *b, int64_t cost, neap_ns now)
{
	b->level = bucket_level(b, now) - cost * b->token;
	b->since = clock_at(b, now);
}

void bucket_claim(struct bucket *b, int64_t cost)
{
	b->level -= cost * b->token;   /* it was below 'cost' a moment ago, so nothing had spilled */
}

void bucket_settle(struct bucket *b, int64_t cost, int64_t used, neap_ns now)
{
	if (used > cost)
		bucket_take(b, used - cost, now);
	else
		b->level += (cost - used) * b->token;
}

void bucket_fill(struct bucket *b, int64_t tokens, neap_ns now)
{
	b->level = tokens * b->token;
	b->since = clock_at(b, now);
}
