/* SPDX-License-Identifier: MIT */
/* word.c - a word that several share, and that one of them may hold for a moment.
 *
 * A rate and a semaphore are one word each, never negative, and most of what happens to them is one
 * compare-and-swap. Only a take of several words at once needs them to stand still: it sets the
 * sign bit of each, and its final store, of a value without the bit, lets go.
 *
 *      63 62                                     0
 *     +--+----------------------------------------+
 *     | 1|  the value, as it was before the hold  |      held: readers mask the bit, writers wait
 *     +--+----------------------------------------+
 *
 * A hold lasts some ten instructions per word, and its owner never waits meanwhile. So whoever
 * meets the bit asks again until it is gone: no system call, no queue. That is a lock like any
 * other: an owner without a processor keeps the others waiting until it has one.
 *
 * Threads do not die in the middle of a take; processes do. The value under the bit is intact. So in
 * a word made 'robust', for memory that processes share, who has waited PATIENCE times, some 10 to
 * 200 ms, takes the bit away. Its owner may be alive after all, only stopped, and would write over
 * what others did since: so in a robust word the owner lets go by compare-and-swap, too, and learns
 * that it lost its hold (all.c). Other words are spared that price, and never lose their owner.
 */
#include "change.h"

#ifndef NEAP_PATIENCE   /* a test, of many deaths, has less */
#define NEAP_PATIENCE (1 << 22)
#endif

enum { PATIENCE = NEAP_PATIENCE };

/* Leave the processor's other half, and the memory bus, to those who do something. */
#if defined __x86_64__ || defined __i386__
static void rest(void) { __builtin_ia32_pause(); }
#else
static void rest(void) { __atomic_signal_fence(__ATOMIC_SEQ_CST); }
#endif

int64_t neap_word_wait(int64_t *word, int robust)
{
	int64_t held = 0, seen;
	for (int left = PATIENCE; (seen = __atomic_load_n(word, __ATOMIC_ACQUIRE)) < 0; left--) {
		if (seen != held) {   /* another hold: patience begins anew */
			held = seen;
			left = PATIENCE;
		}
		if (robust && left <= 0)
			__atomic_compare_exchange_n(word, &seen, seen & INT64_MAX, 0,
						    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
		rest();
	}
	return seen;
}
