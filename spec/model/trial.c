/* SPDX-License-Identifier: MIT */
/* trial.c - prints TAP as it happens, so that a program that dies has said in which trial.
 *
 * The dice are splitmix64 (Steele, Lea, Flood 2014): one word of state, any word is a good seed.
 */
#include "trial.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct {
	uint64_t seed;
	int seeded, count, failed;
	const char *sentence;
	jmp_buf end;
} trial;

uint64_t dice_throw(struct dice *d)
{
	uint64_t x = d->state += UINT64_C(0x9E3779B97F4A7C15);
	x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
	x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
	return x ^ x >> 31;
}

int64_t dice_between(struct dice *d, int64_t low, int64_t high)
{
	uint64_t span = (uint64_t)high - (uint64_t)low + 1;
	return span ? (int64_t)((uint64_t)low + dice_throw(d) % span) : (int64_t)dice_throw(d);
}

int64_t dice_any_size(struct dice *d, int64_t low, int64_t high)
{
	int least = 63 - __builtin_clzll((uint64_t)low), most = 63 - __builtin_clzll((uint64_t)high);
	int64_t base = INT64_C(1) << dice_between(d, least, most);
	int64_t top = base + (base - 1);
	return dice_between(d, base > low ? base : low, top < high ? top : high);
}

static void seed(void)
{
	const char *given = getenv("NEAP_SEED");
	trial.seeded = 1;
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (given)
		trial.seed = strtoull(given, NULL, 10);
	else if (getentropy(&trial.seed, sizeof trial.seed))
		perror("getentropy");
	printf("# NEAP_SEED=%llu\n", (unsigned long long)trial.seed);
}

void trial_run(const char *sentence, void (*body)(struct dice *d))
{
	if (!trial.seeded)
		seed();
	struct dice d = {trial.seed};
	for (const char *c = sentence; *c; c++)
		d.state = dice_throw(&d) ^ (uint64_t)*c;
	trial.sentence = sentence;
	printf("# in %s\n", sentence);
	trial.count++;
	if (setjmp(trial.end))
		return;
	body(&d);
	printf("ok %d - %s\n", trial.count, sentence);
}

void trial_fail(const char *format, ...)
{
	va_list args;
	trial.failed++;
	printf("not ok %d - %s\n# NEAP_SEED=%llu\n# ", trial.count, trial.sentence,
	       (unsigned long long)trial.seed);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n");
	longjmp(trial.end, 1);
}

int64_t trial_ops(int64_t usual)
{
	const char *given = getenv("NEAP_OPS");
	double scale = given ? strtod(given, NULL) / 1e7 : 1;
	int64_t ops = (int64_t)((double)usual * scale);
	return ops > 1 ? ops : 1;
}

double trial_seconds(void)
{
	const char *given = getenv("NEAP_SECONDS");
	return given ? strtod(given, NULL) : 1;
}

int trial_verdict(void)
{
	printf("1..%d\n", trial.count);
	return trial.failed != 0;
}
