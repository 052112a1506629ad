/* SPDX-License-Identifier: MIT */
/* change.h - a take that is planned before it is made. Private to the core.
 *
 * All-of must take every word or none. So each limiter first says what it would do to its word,
 * from which value to which; when all agree the words are swapped one after the other, and a word
 * that somebody moved meanwhile undoes the ones before it.
 */
#ifndef NEAP_CHANGE_H
#define NEAP_CHANGE_H

#include "neap.h"

struct neap_change {
	int64_t *word;   /* NULL: nothing to swap */
	int64_t from, to;
	int64_t by;      /* what the take itself adds; to - from when 'from' was not stale */
};

/* As _when; when the answer is up to 'at', the take in *change. 'since' is when the caller began to
 * stand in line: 'at' itself for one who did not wait. */
neap_ns neap_gcra_plan(struct neap_gcra *g, int64_t cost, neap_ns at, neap_ns since,
		       struct neap_change *change);
/* When 'cost' would conform after 'ahead' more tokens were granted as early as possible. */
neap_ns neap_gcra_after(const struct neap_gcra *g, int64_t ahead, int64_t cost, neap_ns now);
neap_ns neap_semaphore_plan(struct neap_semaphore *s, int64_t cost, neap_ns at,
			    struct neap_change *change);
/* Take without asking: what a call turned out to hold. in_use may pass the limit, up to 2^60. */
void neap_semaphore_add(struct neap_semaphore *s, int64_t cost);

/* The cost of the terms from i on that share a limiter; *next is the first that does not. */
int64_t neap_all_cost(const struct neap_all *all, const int64_t *cost, int32_t i, int32_t *next);

#endif
