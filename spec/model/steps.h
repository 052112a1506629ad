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
int64_t steps_sub(int64_t *word, int64_t by);

/* Run 'threads' bodies, each with its number, in every order that has up to 'switches' changes
 * of thread before a thread is done, at most 'orders' of them: 'begin' before each and 'end' after.
 * Answers how many there were. */
int64_t steps_every_order(int threads, int switches, int64_t orders, void (*begin)(void),
			  void (*body)(int thread), void (*end)(void));

#ifdef STEPS_INSTEAD
#define __atomic_load_n(word, order) steps_load(word)
#define __atomic_store_n(word, value, order) steps_store(word, value)
#define __atomic_compare_exchange_n(word, from, to, weak, yes, no) steps_swap(word, from, to)
#define __atomic_fetch_sub(word, by, order) steps_sub(word, by)
#endif

#endif
