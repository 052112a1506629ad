/* SPDX-License-Identifier: MIT */
/* race.h - times things against each other, in one run.
 *
 * A time by itself says which machine one has and what else it was doing. So everything here is a
 * race: in each round every runner runs once, one after the other, and a round's ratio is made of
 * times a few milliseconds apart. What is reported are medians: of the subject's times, and of the
 * rounds' ratios. Time is that of this thread's own processor, unless said otherwise.
 *
 *      round   gcra   compare-and-swap   ratio
 *          1   4.31               3.52    1.22
 *          2   9.80               7.97    1.23     (a neighbour woke up)
 *          3   4.30               3.51    1.23  -> median
 */
#ifndef RACE_H
#define RACE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RUNNERS = 8, ROUNDS_MAX = 512 };

struct race {
	double time[RUNNERS][ROUNDS_MAX];   /* any unit, or anything else of which less is better */
	int rounds;
};

/* Splitmix64: what happens next is the same in every run. */
static inline uint64_t race_random(uint64_t *state)
{
	uint64_t x = *state += UINT64_C(0x9E3779B97F4A7C15);
	x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
	return x ^ x >> 31;
}

static inline int64_t race_clock(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int race_less(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* The value below which a share of n values lies; sorts them. */
static inline double race_quantile(double *value, int64_t n, double share)
{
	qsort(value, (size_t)n, sizeof *value, race_less);
	int64_t i = (int64_t)(share * (double)n);
	return value[i < n ? i : n - 1];
}

static inline double race_median(const struct race *r, int runner)
{
	double time[ROUNDS_MAX];
	memcpy(time, r->time[runner], sizeof time);
	return race_quantile(time, r->rounds, 0.5);
}

/* "<=1.4" or ">=0.9", or NULL for what is only good to know. */
static inline void race_line(const char *name, double value, const char *unit, double ratio,
			     const char *vs, const char *target)
{
	printf("bench %-18s %10.4g %-9s ratio=%-6.3g vs=%s", name, value, unit, ratio, vs);
	if (target) {
		double bar = strtod(target + 2, NULL);
		int met = *target == '<' ? ratio <= bar : ratio >= bar;
		printf(" target=%s %s", target, met ? "ok" : "missed");
	}
	putchar('\n');
	fflush(stdout);
}

static inline void race_report(const struct race *r, int subject, const char *name,
			       const char *unit, int reference, const char *vs, const char *target)
{
	double ratio[ROUNDS_MAX] = {0};
	for (int i = 0; i < r->rounds; i++)
		ratio[i] = r->time[subject][i] / r->time[reference][i];
	race_line(name, race_median(r, subject), unit, race_quantile(ratio, r->rounds, 0.5), vs,
		  target);
}

#endif
