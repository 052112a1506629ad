/* SPDX-License-Identifier: MIT */
/* gcra.c - one take, against the floor of anything that threads share: a word that is read, added
 * to, and swapped in if nobody was faster.
 *
 *   gcra        a take that is granted; the bucket is drawn down, so each builds on the one before
 *   gcra_deny   a take that is refused, which says when instead and writes nothing
 *   contended   granted takes, two threads on one word
 *
 * The loop is compiled into this program, the take is called in the shared library: as a user has
 * them. Bursts are short, so that the scheduler interrupts few of them.
 */
#define _GNU_SOURCE
#include "neap.h"
#include "race.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

enum { ROUNDS = 301, CALLS = 50000 };

struct work { void (*run)(int64_t calls); };

static _Alignas(64) struct neap_gcra wide_open;
static _Alignas(64) struct neap_gcra empty;
static _Alignas(64) int64_t word;

static void takes(int64_t calls)
{
	int64_t granted = 0;
	for (neap_ns now = 0; now < calls; now++)
		granted += neap_gcra_take(&wide_open, 1, now) <= now;
	if (granted != calls)
		abort();
}

static void refusals(int64_t calls)
{
	int64_t refused = 0;
	for (neap_ns now = 0; now < calls; now++)
		refused += neap_gcra_take(&empty, 1, now) > now;
	if (refused != calls)
		abort();
}

static void swaps(int64_t calls)
{
	for (int64_t i = 0; i < calls; i++) {
		int64_t old = __atomic_load_n(&word, __ATOMIC_RELAXED);
		while (!__atomic_compare_exchange_n(&word, &old, old + 1, 1, __ATOMIC_RELAXED,
						    __ATOMIC_RELAXED))
			;
	}
}

static double timed(struct work work)
{
	int64_t start = race_clock();
	work.run(CALLS);
	return (double)(race_clock() - start) / CALLS;
}

/* ---- two at once, each on a processor of its own ---- */

static _Alignas(64) int arrived;

static void pin(unsigned processor)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(processor, &set);
	pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

/* Until both have arrived, and are awake. */
static void line_up(void)
{
	__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&arrived, __ATOMIC_SEQ_CST) < 2)
		sched_yield();
}

/* 1 when nobody else had this thread's processor meanwhile. */
static int undisturbed(struct work work)
{
	struct rusage before, after;
	getrusage(RUSAGE_THREAD, &before);
	work.run(CALLS);
	getrusage(RUSAGE_THREAD, &after);
	return before.ru_nivcsw == after.ru_nivcsw;
}

static int second_undisturbed;

static void *second(void *arg)
{
	const struct work *work = arg;
	pin(1);
	line_up();
	second_undisturbed = undisturbed(*work);
	return NULL;
}

/* One of two that waits for a processor leaves the other without contention: try again then. */
static double timed_by_two(struct work work)
{
	double time = 0;
	int fine = 0;
	for (int i = 0; i < 10 && !fine; i++) {
		pthread_t thread;
		arrived = 0;
		if (pthread_create(&thread, NULL, second, &work))
			abort();
		line_up();
		int64_t start = race_clock();
		fine = undisturbed(work);
		time = (double)(race_clock() - start) / (2 * CALLS);
		pthread_join(thread, NULL);
		fine &= second_undisturbed;
	}
	return time;
}

int main(void)
{
	static struct race alone, together;
	const struct work take = {takes}, refuse = {refusals}, swap = {swaps};
	neap_gcra_init(&wide_open, 500000000, 1000000000, INT64_C(1) << 50);
	neap_gcra_init(&empty, 1, 1000000000, 1);
	neap_gcra_fill(&empty, 0, 1000000000);
	pin(0);
	for (int i = 0; i < ROUNDS; i++) {
		alone.time[0][i] = timed(take);
		alone.time[1][i] = timed(swap);
		alone.time[2][i] = timed(refuse);
		together.time[0][i] = timed_by_two(take);
		together.time[1][i] = timed_by_two(swap);
	}
	alone.rounds = together.rounds = ROUNDS;
	race_report(&alone, 0, "gcra", "ns", 1, "compare-and-swap", "<=1.4");
	race_report(&alone, 2, "gcra_deny", "ns", 1, "compare-and-swap", "<=1.4");
	race_report(&together, 0, "contended", "ns", 1, "compare-and-swap,2-threads", "<=1.2");
	return 0;
}
