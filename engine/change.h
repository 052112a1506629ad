/* SPDX-License-Identifier: MIT */
/* change.h - a take that is planned before it is made. Private to the core.
 *
 * All-of must take every word or none. So each limiter first says what it would do to its word,
 * from which value to which; when all agree the words are held, and written. word.c says what a
 * hold is, all.c how several are taken.
 */
#ifndef NEAP_CHANGE_H
#define NEAP_CHANGE_H

#include "neap.h"

#include <assert.h>

struct neap_change { int64_t from, to; };   /* values, without the bit of one who holds the word */

/* The value of a word once nobody holds it. */
int64_t neap_word_wait(int64_t *word, int robust) __attribute__((cold, noinline));

static inline int64_t neap_word_free(int64_t *word, int robust)
{
	int64_t value = __atomic_load_n(word, __ATOMIC_RELAXED);
	return value < 0 ? neap_word_wait(word, robust) : value;
}

/* The value of a word, held or not. */
static inline int64_t neap_word_value(const int64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_RELAXED) & INT64_MAX;
}

/* Write 'to' if the word is what was seen, else see what it is. */
static inline int neap_word_swap(int64_t *word, int64_t *seen, int64_t to)
{
	/* acquire: what the last holder of a permit wrote is seen by the next */
	return __atomic_compare_exchange_n(word, seen, to, 1, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* As _when; when the answer is up to 'at', the take in *change. */
neap_ns neap_gcra_plan(struct neap_gcra *g, int64_t cost, neap_ns at, struct neap_change *change);
/* Correct a take, planned at 'at', of one who waited for it: if it did not conform 1 ns before, the
 * token came between two readings of the clock, and is charged at the moment it came. */
void neap_gcra_backdate(const struct neap_gcra *g, int64_t cost, neap_ns at,
			struct neap_change *change);
/* Where the clock stands at 'now', in units; and the first instant at which it has come to 'units'. */
int64_t neap_gcra_clock(const struct neap_gcra *g, neap_ns now);
neap_ns neap_gcra_reaches(const struct neap_gcra *g, int64_t units);
/* The tat that 'fresh' has to begin with at 'now', to go on from g: what NEAP_KEEP_... says stays. */
int64_t neap_gcra_carry(const struct neap_gcra *g, const struct neap_gcra *fresh, int keep,
			neap_ns now);
/* Where tat is after a take at 'at', if it is 'base' until then. */
int64_t neap_gcra_then(const struct neap_gcra *g, int64_t base, int64_t cost, neap_ns at);
/* The first instant from which 'cost' can be charged for 'at' and turns nobody away who would find
 * something there. */
neap_ns neap_gcra_book_when(const struct neap_gcra *g, int64_t cost, neap_ns at, neap_ns now);
/* When 'cost' would conform after 'ahead' more tokens were granted as early as possible. */
neap_ns neap_gcra_after(const struct neap_gcra *g, int64_t ahead, int64_t cost, neap_ns now);
neap_ns neap_window_after(const struct neap_window *w, int64_t ahead, int64_t cost, neap_ns now);
neap_ns neap_semaphore_plan(struct neap_semaphore *s, int64_t cost, neap_ns at,
			    struct neap_change *change);
/* Take without asking: what a call turned out to hold. */
void neap_semaphore_add(struct neap_semaphore *s, int64_t cost);

/* The instant up to which a pause of it is on; or 'now'. */
static inline neap_ns neap_conditional_ends(const struct neap_conditional *c, neap_ns now)
{
	neap_ns ends = neap_pause_when(c->pause[0], now);
	neap_ns other = c->pause[1] ? neap_pause_when(c->pause[1], now) : now;
	return other > ends ? other : ends;
}

/* A sum of costs, each up to 2^59 and so never near the end when there are few; more saturate. */
static inline int64_t neap_plus(int64_t a, int64_t b)
{
	return a < INT64_MAX - b ? a + b : INT64_MAX;
}

static inline int64_t neap_term_cost(const struct neap_term *t, const int64_t *cost)
{
	assert(cost[t->cost] >= 0 && cost[t->cost] <= INT64_C(1) << 59);
	int64_t sum;
	return __builtin_mul_overflow(cost[t->cost], t->multiplier, &sum) ? INT64_MAX : sum;
}

/* The cost of the terms from i on that share a limiter; *next is the first that does not. */
static inline int64_t neap_all_cost(const struct neap_all *all, const int64_t *cost, int32_t i,
				    int32_t *next)
{
	const struct neap_term *t = &all->terms[i];
	int64_t sum = neap_term_cost(t, cost);
	for (i++; i < all->count && t[1].limiter == t->limiter; i++)
		sum = neap_plus(sum, neap_term_cost(++t, cost));
	*next = i;
	return sum;
}

#endif
