/* SPDX-License-Identifier: MIT */
/* adaptive.c - a call under a rate and an adaptive limit: taken, all or none, and given back.
 *
 *   adaptive           take and give of both as one all-of, against taking from each and giving
 *                      back to each by itself
 *   adaptive_direct    the same, against the functions of both kinds, called by name
 *   adaptive_vegas     a take and a give of the adaptive limit, against those of a semaphore
 *   adaptive_gradient
 */
#include "neap.h"
#include "race.h"

enum { ROUNDS = 301, CALLS = 30000 };

static _Alignas(64) struct neap_limiter rate, aimd, vegas, gradient, slots;
static const struct neap_term terms[] = {{&rate, 1, 0, 0}, {&aimd, 1, 0, 0}};
static const int64_t cost[NEAP_COSTS] = {1};
static struct neap_all both;

static void together(int64_t calls)
{
	int32_t bound;
	for (neap_ns now = 0; now < calls; now++) {
		if (neap_all_take(&both, cost, now, &bound) > now)
			abort();
		neap_all_give(&both, cost, NEAP_SUCCESS, now, now + 1);
	}
}

static void apart(int64_t calls)
{
	for (neap_ns now = 0; now < calls; now++) {
		if (neap_limiter_take(&rate, 1, now) > now || neap_limiter_take(&aimd, 1, now) > now)
			abort();
		neap_limiter_give(&rate, 1, NEAP_SUCCESS, now, now + 1);
		neap_limiter_give(&aimd, 1, NEAP_SUCCESS, now, now + 1);
	}
}

static void by_name(int64_t calls)
{
	for (neap_ns now = 0; now < calls; now++) {
		if (neap_gcra_take(&rate.as.gcra, 1, now) > now ||
		    neap_adaptive_take(&aimd.as.adaptive, 1, now) > now)
			abort();
		neap_adaptive_give(&aimd.as.adaptive, 1, NEAP_SUCCESS, now, now + 1);
	}
}

static void calls_under(struct neap_limiter *l, int64_t calls)
{
	for (neap_ns now = 0; now < calls; now++) {
		if (neap_limiter_take(l, 1, now) > now)
			abort();
		neap_limiter_give(l, 1, NEAP_SUCCESS, now, now + 1 + now % 7);
	}
}

static void under_vegas(int64_t calls) { calls_under(&vegas, calls); }
static void under_gradient(int64_t calls) { calls_under(&gradient, calls); }
static void under_slots(int64_t calls) { calls_under(&slots, calls); }

static double timed(void (*run)(int64_t))
{
	int64_t start = race_clock();
	run(CALLS);
	return (double)(race_clock() - start) / CALLS;
}

static void adaptive(struct neap_limiter *l, int kind)
{
	struct neap_strategy s;
	neap_strategy_init(&s, kind);
	s.options = NEAP_ONE_CUT | NEAP_GROW_WHEN_USED;
	l->kind = NEAP_ADAPTIVE;
	neap_adaptive_init(&l->as.adaptive, &s, 1, 100, 20);
}

int main(void)
{
	static struct race race = {.rounds = ROUNDS};
	rate.kind = NEAP_GCRA;
	neap_gcra_init(&rate.as.gcra, 500000000, 1000000000, INT64_C(1) << 50);
	slots.kind = NEAP_SEMAPHORE;
	neap_semaphore_init(&slots.as.semaphore, 20, 0);
	adaptive(&aimd, NEAP_AIMD);
	adaptive(&vegas, NEAP_VEGAS);
	adaptive(&gradient, NEAP_GRADIENT);
	if (neap_all_init(&both, terms, 2))
		abort();
	for (int i = 0; i < ROUNDS; i++) {
		race.time[0][i] = timed(together);
		race.time[1][i] = timed(apart);
		race.time[2][i] = timed(under_vegas);
		race.time[3][i] = timed(under_gradient);
		race.time[4][i] = timed(under_slots);
		race.time[5][i] = timed(by_name);
	}
	race_report(&race, 0, "adaptive", "ns", 1, "sum-of-parts", "<=1.0");
	race_report(&race, 0, "adaptive_direct", "ns", 5, "sum-of-functions", NULL);
	race_report(&race, 2, "adaptive_vegas", "ns", 4, "semaphore", NULL);
	race_report(&race, 3, "adaptive_gradient", "ns", 4, "semaphore", NULL);
	return 0;
}
