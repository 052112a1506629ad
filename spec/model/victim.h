/* SPDX-License-Identifier: MIT */
/* victim.h - a child that does one thing to memory it shares, and is killed at a point of it.
 *
 * There are two kinds. One is traced, an instruction at a time, through the code as it is
 * (traced.c); the other kills itself, in code made for that (fault.c), a thousand times as fast. */
#ifndef VICTIM_H
#define VICTIM_H

#include <stddef.h>
#include <stdint.h>

struct victim {
	void (*before)(void);     /* done by the child, too, but not to be interrupted */
	void (*act)(void);
	const void *memory;       /* that is shared */
	size_t bytes;
};

/* After how many steps the memory is another than before: how many such points, 'most' at most. */
int victim_points(const struct victim *v, int *point, int most);
/* Let one act, and be killed after so many steps, if it makes more. */
void victim_killed(const struct victim *v, int64_t after);
/* How many points a suite that has to be short may try. */
extern const int64_t victim_samples;

#endif
