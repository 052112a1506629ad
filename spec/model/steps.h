/* SPDX-License-Identifier: MIT */
/* steps.h - atomic operations that stop before they happen. Ring 0, compiled with this header put
 * before it, lets a scheduler decide who goes next; steps.c has the essay. */
#ifndef STEPS_H
#define STEPS_H

#include <stdint.h>

enum { STEPS_THREADS = 3 };

int64_t steps_load(const int64_t *word);
void steps_store(int64_t *word, int64_t value);
int steps_swap(int64_t *word, int64_t *from, int64_t to);

/* A machine with a fault, to see that it shows: one that does not hold words, and one that does not
 * let them go when that would change nothing but the hold. */
enum { STEPS_RIGHT = 0, STEPS_NEVER_HOLDS, STEPS_NEVER_BACK };

enum { STEPS_IN_TURN = -1 };   /* one order alone, in which each makes one step after the other */

struct steps_play {
	int threads;
	int switches;              /* changes of thread while it could go on; or STEPS_IN_TURN */
	int deaths;                /* threads that stop for ever, anywhere */
	int fault;
	int64_t orders;            /* at most so many */
	void (*begin)(void);       /* before each order */
	void (*body)(int thread);
	void (*end)(void);         /* after it */
};

/* Run the bodies, each with its number, in every order. Answers how many there were. */
int64_t steps_every_order(const struct steps_play *play);
/* What became of a thread: it came to its end; it waits for a word that nobody lets go, or goes
 * on and on; it died. */
enum { STEPS_DONE = 1, STEPS_STUCK, STEPS_DIED };
int steps_fate(int thread);

#ifdef STEPS_INSTEAD
#define __atomic_load_n(word, order) steps_load(word)
#define __atomic_store_n(word, value, order) steps_store(word, value)
#define __atomic_compare_exchange_n(word, from, to, weak, yes, no) steps_swap(word, from, to)
#endif

#endif
