/* SPDX-License-Identifier: MIT */
/* fuzz.h - what the fuzzers share: dice that can be thrown again, streams, and how one ends badly. */
#ifndef FUZZ_H
#define FUZZ_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { STREAM = 300000 };

static uint64_t seed = 1;   /* or NEAP_SEED */
static uint64_t state;
static uint64_t stream_number;

static uint64_t dice(void)   /* splitmix64, by Sebastiano Vigna */
{
	uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint32_t below(uint32_t n) { return (uint32_t)(dice() % n); }

static void plant(void)
{
	const char *given = getenv("NEAP_SEED");
	if (given)
		seed = strtoull(given, NULL, 10);
	state = seed;
}

static uint64_t streams_of(int argc, char **argv)
{
	const char *given = argc > 1 ? argv[1] : getenv("NEAP_FUZZ");
	return given ? strtoull(given, NULL, 10) : 100000;
}

static void die(const char *what)
{
	printf("not ok - %s, in stream %" PRIu64 "\n# NEAP_SEED=%" PRIu64 "\n", what, stream_number,
	       seed);
	exit(1);
}

/* ---- streams ---- */

struct stream {
	uint32_t size;
	char data[STREAM];
};

#define ONE_OF(list) list[below(sizeof list / sizeof *list)]

#endif
