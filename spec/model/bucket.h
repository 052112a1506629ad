/* SPDX-License-Identifier: MIT */
/* bucket.h - the oracle of gcra: a token bucket in exact fractions. bucket.c has the essay. */
#ifndef BUCKET_H
#define BUCKET_H

#include "neap.h"

__extension__ typedef __int128 ticks;

struct bucket {
	ticks num, den;   /* the clock stands at floor(now * num / den) ticks */
	ticks token;      /* ticks that make one token */
	ticks full;       /* ticks the bucket holds */
	ticks level;      /* ticks that were in it when the clock stood at 'since' */
	ticks since;
};

/* Full, on a clock of 1/period_ns of a token, which rounds nothing... */
struct bucket bucket_ideal(int64_t amount, neap_ns period_ns, int64_t burst);
/* ... and on the engine's, whose readings are rounded down to 2^-shift of a token. */
struct bucket bucket_ticking(int64_t amount, neap_ns period_ns, int64_t burst, int shift);

ticks bucket_level(const struct bucket *b, neap_ns now);
int64_t bucket_tokens(const struct bucket *b, neap_ns now);
/* The first instant from 'now' on with 'cost' in the bucket; neap_horizon when it is not before. */
neap_ns bucket_when(const struct bucket *b, int64_t cost, neap_ns now);
/* Spend, whether it is there or not. */
void bucket_take(struct bucket *b, int64_t cost, neap_ns now);
/* Spend at the very moment 'cost' was there, between two nanoseconds. */
void bucket_claim(struct bucket *b, int64_t cost);
void bucket_settle(struct bucket *b, int64_t cost, int64_t used, neap_ns now);
void bucket_fill(struct bucket *b, int64_t tokens, neap_ns now);

#endif
