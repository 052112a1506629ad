/* SPDX-License-Identifier: MIT */
/* spread.h - counts what a wheel moves from a slot to finer ones: wheel.c, which prefetches the
 * next timer as it moves one, is compiled with this header put before it. */
#ifndef SPREAD_H
#define SPREAD_H

#include <stdint.h>

extern int64_t spread_count;

static inline void spread_counts(const void *timer, ...)
{
	(void)timer;
	spread_count++;
}

#define __builtin_prefetch(...) spread_counts(__VA_ARGS__)

#endif
