/* SPDX-License-Identifier: MIT */
/* fault.h - a process that ends, or stands still, before any of its writes to shared memory.
 *
 * The engine's sources are compiled once more with -fsanitize=thread, and linked with fault.c
 * instead of that sanitizer's library. So the compiler puts a call before each access to memory that
 * is not a function's own, and nothing in the sources knows. Writes to what is watched are counted,
 * and before a chosen one the process raises a signal. What the C library does for the engine
 * (copies, unlocking) is no access that the compiler sees, so that is counted apart.
 *
 * A value of several words is written by one access: who is killed at it leaves rubbish there.
 *
 * Calls keep the compiler from changing the order of writes. Whether the engine does, where it has
 * to, is seen by the other kind of victim alone, in the very code that others use (traced.c). */
#ifndef FAULT_H
#define FAULT_H

#include <pthread.h>
#include <stdint.h>
#include <string.h>

/* What is shared, as this process sees it. */
void fault_watch(const void *from, size_t bytes);
/* Raise it before the n-th write from now on; 0: never. */
void fault_before(int64_t n, int signal);
/* How many there were. */
int64_t fault_writes(void);

void *fault_copy(void *to, const void *from, size_t bytes);
void *fault_fill(void *to, int byte, size_t bytes);
int fault_unlock(pthread_mutex_t *m);

#ifdef FAULT_INSTEAD
#define memcpy(to, from, bytes) fault_copy(to, from, bytes)
#define memset(to, byte, bytes) fault_fill(to, byte, bytes)
#define pthread_mutex_unlock(m) fault_unlock(m)
#endif

#endif
