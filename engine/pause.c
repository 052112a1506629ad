/* SPDX-License-Identifier: MIT */
/* pause.c - nobody before an instant: what a 429 with Retry-After asks for.
 *
 * Many callers learn about the same refusal at slightly different times and with different hints.
 * So a pause only grows (the latest hint wins, in whichever order they come), and ends by itself.
 * A pause has no cost and nothing to take: it is only asked.
 */
#include "neap.h"

#include <assert.h>

void neap_pause_init(struct neap_pause *p) { p->ends = 0; }

neap_ns neap_pause_when(const struct neap_pause *p, neap_ns now)
{
	neap_ns until = __atomic_load_n(&p->ends, __ATOMIC_RELAXED);
	return until > now ? until : now;
}

neap_ns neap_pause_extend(struct neap_pause *p, neap_ns until)
{
	assert(until >= 0);
	if (until > neap_horizon)
		until = neap_horizon;
	neap_ns was = __atomic_load_n(&p->ends, __ATOMIC_RELAXED);
	while (was < until)
		if (__atomic_compare_exchange_n(&p->ends, &was, until, 1, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED))
			return until;
	return was;
}

void neap_pause_clear(struct neap_pause *p) { __atomic_store_n(&p->ends, 0, __ATOMIC_RELAXED); }
