/* SPDX-License-Identifier: MIT */
/* breaker.c - a breaker, a rate and a semaphore, taken and given back at once, all or none, against
 * taking from each and giving back to each by itself.
 *
 *   breaker        closed, every call a success: what nearly all calls are
 *   breaker_ratio  one that remembers the last 100 calls, and a quarter of them fail
 *   breaker_open   it refuses, so nothing may be spent
 */
#include "neap.h"
#include "race.h"

enum { ROUNDS = 301, CALLS = 30000 };

static _Alignas(64) struct neap_limiter breaker, ratio, open, rate, permits;
static const struct neap_term closed_terms[] = {
	{&breaker, 1, 0, 0}, {&rate, 1, 0, 0}, {&permits, 1, 0, 0}};
static const struct neap_term ratio_terms[] = {
	{&ratio, 1, 0, 0}, {&rate, 1, 0, 0}, {&permits, 1, 0, 0}};
static const struct neap_term open_terms[] = {
	{&rate, 1, 0, 0}, {&permits, 1, 0, 0}, {&open, 1, 0, 0}};
static const int64_t cost[NEAP_COSTS] = {1};

/* The outcome of the n-th call. */
static int succeeds(neap_ns n) { return (void)n, NEAP_SUCCESS; }
static int may_fail(neap_ns n) { return n & 3 ? NEAP_SUCCESS : NEAP_FAILURE; }

static inline void together(const struct neap_term *terms, int (*outcome)(neap_ns), int64_t calls)
{
	struct neap_all all;
	int32_t bound;
	if (neap_all_init(&all, terms, 3))
		abort();
	for (neap_ns now = 0; now < calls; now++) {
		if (neap_all_take(&all, cost, now, &bound) > now)
			abort();
		neap_all_give(&all, cost, outcome(now), now, now);
	}
}

static inline void apart(struct neap_limiter *first, int (*outcome)(neap_ns), int64_t calls)
{
	struct neap_limiter *each[] = {first, &rate, &permits};
	for (neap_ns now = 0; now < calls; now++) {
		for (int i = 0; i < 3; i++)
			if (neap_limiter_take(each[i], 1, now) > now)
				abort();
		for (int i = 0; i < 3; i++)
			neap_limiter_give(each[i], 1, outcome(now), now, now);
	}
}

static void all_closed(int64_t calls) { together(closed_terms, succeeds, calls); }
static void each_closed(int64_t calls) { apart(&breaker, succeeds, calls); }
static void all_ratio(int64_t calls) { together(ratio_terms, may_fail, calls); }
static void each_ratio(int64_t calls) { apart(&ratio, may_fail, calls); }

static void refused(int64_t calls)
{
	struct neap_all all;
	int32_t bound;
	if (neap_all_init(&all, open_terms, 3))
		abort();
	for (neap_ns now = 0; now < calls; now++)
		if (neap_all_take(&all, cost, now, &bound) <= now)
			abort();
}

static double timed(void (*run)(int64_t))
{
	int64_t start = race_clock();
	run(CALLS);
	return (double)(race_clock() - start) / CALLS;
}

static void make(struct neap_limiter *l, const struct neap_trip *trip, int64_t *memory)
{
	l->kind = NEAP_BREAKER;
	if (neap_breaker_init(&l->as.breaker, trip, memory, 1000000000, 1, 1))
		abort();
}

int main(void)
{
	static struct race race = {.rounds = ROUNDS};
	static int64_t memory[2];
	make(&breaker, &(struct neap_trip){.rule = NEAP_TRIP_ROW, .failures = 5}, NULL);
	make(&open, &(struct neap_trip){.rule = NEAP_TRIP_ROW, .failures = 5}, NULL);
	make(&ratio, &(struct neap_trip){.rule = NEAP_TRIP_RATIO, .calls = 100, .least = 50, .ratio = 0.5},
	     memory);
	neap_breaker_open(&open.as.breaker, neap_never, 0);
	rate.kind = NEAP_GCRA;
	neap_gcra_init(&rate.as.gcra, 500000000, 1000000000, INT64_C(1) << 50);
	permits.kind = NEAP_SEMAPHORE;
	neap_semaphore_init(&permits.as.semaphore, 64, 0);
	for (int i = 0; i < ROUNDS; i++) {
		race.time[0][i] = timed(all_closed);
		race.time[1][i] = timed(each_closed);
		race.time[2][i] = timed(all_ratio);
		race.time[3][i] = timed(each_ratio);
		race.time[4][i] = timed(refused);
	}
	race_report(&race, 0, "breaker", "ns", 1, "sum-of-parts", "<=1.0");
	race_report(&race, 2, "breaker_ratio", "ns", 3, "sum-of-parts", "<=1.0");
	race_report(&race, 4, "breaker_open", "ns", 1, "sum-of-parts", NULL);
	return 0;
}
