/* SPDX-License-Identifier: MIT */
/* semaphore.c - permits in flight, counted or weighted, in one word.
 *
 * A cost is how many permits a call holds until it gives them back; a counting semaphore is one
 * whose costs are 1. No instant can be computed here: a permit comes back when its holder says
 * so, hence neap_on_give.
 *
 * Overdraw is for weights that exceed what is left, or all there is: unless the level (limit -
 * in_use) is negative the heavy call goes and may leave it so, and then nobody follows, however
 * light, until it is back at 0. Without it such a call would starve, or could never run.
 *
 * Invariants, below the bit of one who holds the word (word.c):
 *   in_use >= 0; without overdraw in_use <= limit, unless the limit was lowered or a settle added
 *   in_use = 2^61 says that so many are out that they were not counted, and stays
 */
#include "change.h"

#include <assert.h>

static const int64_t COUNTLESS = INT64_C(1) << 61;

int neap_semaphore_init(struct neap_semaphore *s, int64_t limit, int overdraw)
{
	if (limit < 1 || limit > INT64_C(1) << 59 || (overdraw != 0 && overdraw != 1))
		return NEAP_ERANGE;
	*s = (struct neap_semaphore){.limit = limit, .in_use = 0, .overdraw = overdraw};
	return NEAP_OK;
}

neap_ns neap_semaphore_plan(struct neap_semaphore *s, int64_t cost, neap_ns at,
			    struct neap_change *change)
{
	assert(cost >= 0);
	int64_t in_use = neap_word_value(&s->in_use);
	if (cost < 0 || cost > (s->overdraw ? INT64_C(1) << 59 : s->limit))
		return neap_never;
	if (s->overdraw ? in_use > s->limit : cost && in_use > s->limit - cost)
		return neap_on_give;
	*change = (struct neap_change){in_use, in_use + cost};
	return at;
}

neap_ns neap_semaphore_when(const struct neap_semaphore *s, int64_t cost, neap_ns now)
{
	struct neap_change unused;
	return neap_semaphore_plan((struct neap_semaphore *)(uintptr_t)s, cost, now, &unused);
}

neap_ns neap_semaphore_take(struct neap_semaphore *s, int64_t cost, neap_ns now)
{
	struct neap_change change = {0};
	neap_ns at = neap_semaphore_plan(s, cost, now, &change);
	while (at <= now && !neap_word_swap(&s->in_use, &change.from, change.to)) {
		neap_word_free(&s->in_use, s->robust);
		at = neap_semaphore_plan(s, cost, now, &change);
	}
	return at;
}

void neap_semaphore_add(struct neap_semaphore *s, int64_t cost)
{
	int64_t in_use, sum;
	do {
		in_use = neap_word_free(&s->in_use, s->robust);
		sum = in_use < COUNTLESS - cost ? in_use + cost : COUNTLESS;
	} while (!neap_word_swap(&s->in_use, &in_use, sum));
}

void neap_semaphore_give(struct neap_semaphore *s, int64_t cost)
{
	assert(cost >= 0);
	int64_t in_use, left;
	do {
		in_use = neap_word_free(&s->in_use, s->robust);
		if (in_use == COUNTLESS)
			return;
		assert(cost <= in_use);
		left = cost < in_use ? in_use - cost : 0;
	} while (!neap_word_swap(&s->in_use, &in_use, left));
}
