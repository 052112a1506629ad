/* SPDX-License-Identifier: MIT */
/* hybrid3.c - one take from three limits at once, all or none, against taking from each by itself.
 *
 *   hybrid3        against three calls of neap_gcra_take
 *   hybrid3_terms  the same, against three calls of neap_limiter_take, which look at the kind first
 *   hybrid3_deny   the last of the three refuses, so nothing may be spent
 */
#include "neap.h"
#include "race.h"

enum { ROUNDS = 301, CALLS = 30000 };

static _Alignas(64) struct neap_limiter limiter[3], empty;
static const struct neap_term terms[] = {
	{&limiter[0], 1, 0, 0}, {&limiter[1], 1, 0, 0}, {&limiter[2], 1, 0, 0}};
static const struct neap_term denied[] = {
	{&limiter[0], 1, 0, 0}, {&limiter[1], 1, 0, 0}, {&empty, 1, 0, 0}};
static const int64_t cost[NEAP_COSTS] = {1};

static void together(int64_t calls)
{
	const struct neap_all all = {terms, 3, 0, NULL};
	int32_t bound;
	for (neap_ns now = 0; now < calls; now++)
		if (neap_all_take(&all, cost, now, &bound) > now)
			abort();
}

static void none(int64_t calls)
{
	const struct neap_all all = {denied, 3, 0, NULL};
	int32_t bound;
	for (neap_ns now = 0; now < calls; now++)
		if (neap_all_take(&all, cost, now, &bound) <= now)
			abort();
}

static void gcras(int64_t calls)
{
	for (neap_ns now = 0; now < calls; now++)
		for (int i = 0; i < 3; i++)
			if (neap_gcra_take(&limiter[i].as.gcra, 1, now) > now)
				abort();
}

static void limiters(int64_t calls)
{
	for (neap_ns now = 0; now < calls; now++)
		for (int i = 0; i < 3; i++)
			if (neap_limiter_take(&limiter[i], 1, now) > now)
				abort();
}

static double timed(void (*run)(int64_t))
{
	int64_t start = race_clock();
	run(CALLS);
	return (double)(race_clock() - start) / CALLS;
}

int main(void)
{
	static struct race race = {.rounds = ROUNDS};
	for (int i = 0; i < 3; i++) {
		limiter[i].kind = NEAP_GCRA;
		neap_gcra_init(&limiter[i].as.gcra, 500000000 >> i, 1000000000, INT64_C(1) << 50);
	}
	empty.kind = NEAP_GCRA;
	neap_gcra_init(&empty.as.gcra, 1, 1000000000, 1);
	neap_gcra_fill(&empty.as.gcra, 0, 1000000000);
	for (int i = 0; i < ROUNDS; i++) {
		race.time[0][i] = timed(together);
		race.time[1][i] = timed(gcras);
		race.time[2][i] = timed(limiters);
		race.time[3][i] = timed(none);
	}
	race_report(&race, 0, "hybrid3", "ns", 1, "3-gcra-takes", "<=1.0");
	race_report(&race, 0, "hybrid3_terms", "ns", 2, "3-limiter-takes", NULL);
	race_report(&race, 3, "hybrid3_deny", "ns", 1, "3-gcra-takes", NULL);
	return 0;
}
