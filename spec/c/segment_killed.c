/* SPDX-License-Identifier: MIT */
/* segment_killed.c - processes that use a segment together, and are killed all the time.
 *
 * Children take, settle, give back, ask for other configurations and look after the dead, on
 * limiters of each kind, one at a time and all at once; a parent kills them with SIGKILL, stops and
 * continues them, and starts others. After each death every invariant is proved.
 *
 * Whether more permits are out than there are is seen from outside: who has taken sits down, in one
 * seat for each permit, and stands up before it gives back. There are as many seats as permits. Seats
 * of the dead are free from when they were doomed; so to find none is to be one too many.
 */
#define _GNU_SOURCE
#include "shared.h"
#include "trial.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { CHILDREN = 6, KILLS = 200, SEATS = 7, KINDS = 5, SERIALS = 1 << 16 };

static const int kinds[KINDS] = {NEAP_SEMAPHORE, NEAP_GCRA, NEAP_WINDOW, NEAP_BREAKER, NEAP_ADAPTIVE};
static const char *const names[KINDS] = {"permits", "rate", "log", "breaker", "found"};

struct shared {
	int32_t seat[SEATS];        /* whose it is: a serial number from 1; 0: free */
	int8_t doomed[SERIALS];
	int64_t granted, calls;     /* of the rate, by those who came to count them */
	int64_t crowded;            /* no seat was found */
};

struct child {
	struct shared *shared;
	struct neap_segment *segment;
	struct neap_limiter *limiter[KINDS];
	struct dice dice;
	int32_t serial;
	int reaps;
};

static neap_ns clock_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* ---- a child ---- */

static int sit(struct child *c)
{
	for (int i = 0; i < SEATS; i++) {
		int32_t who = __atomic_load_n(&c->shared->seat[i], __ATOMIC_ACQUIRE);
		if ((!who || __atomic_load_n(&c->shared->doomed[who], __ATOMIC_ACQUIRE)) &&
		    __atomic_compare_exchange_n(&c->shared->seat[i], &who, c->serial, 0,
						__ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
			return i;
	}
	__atomic_add_fetch(&c->shared->crowded, 1, __ATOMIC_RELAXED);
	return -1;
}

static void stand_up(struct child *c, const int *seats, int64_t count)
{
	for (int i = 0; i < count; i++)
		if (seats[i] >= 0)
			__atomic_store_n(&c->shared->seat[seats[i]], 0, __ATOMIC_RELEASE);
}

static void linger(struct child *c)
{
	for (volatile int64_t n = dice_between(&c->dice, 0, 3000); n > 0; n--)
		;
}

/* Take permits, alone or with all the others; perhaps of fewer than were asked for; give back. */
static void call(struct child *c)
{
	struct neap_term term[KINDS];
	struct neap_all all;
	int together = (int)dice_between(&c->dice, 0, 1), seats[SEATS];
	int64_t cost = dice_between(&c->dice, 1, 3);
	for (int k = 0; k < KINDS; k++)
		term[k] = (struct neap_term){c->limiter[(k + c->serial) % KINDS], 1, 0, 0};
	if (!together)
		term[0].limiter = c->limiter[0];
	neap_all_init(&all, term, together ? KINDS : 1);
	int64_t costs[NEAP_COSTS] = {cost}, used[NEAP_COSTS] = {dice_between(&c->dice, 1, cost)};
	neap_ns at = clock_now();
	if (neap_all_take(&all, costs, at, NULL) > at)
		return;
	for (int i = 0; i < cost; i++)
		seats[i] = sit(c);
	if (together)
		__atomic_add_fetch(&c->shared->granted, cost, __ATOMIC_RELAXED);
	linger(c);
	if (!together && used[0] < cost) {
		stand_up(c, seats + used[0], cost - used[0]);
		neap_all_settle(&all, costs, used, at, clock_now());
		costs[0] = used[0];
	}
	stand_up(c, seats, costs[0]);
	neap_all_give(&all, costs, (int)dice_between(&c->dice, NEAP_SUCCESS, NEAP_IGNORE), at,
		      clock_now());
	__atomic_add_fetch(&c->shared->calls, 1, __ATOMIC_RELAXED);
}

/* Something other than a call; of the permits the number stays, for there are so many seats. */
static void meddle(struct child *c)
{
	int k = (int)dice_between(&c->dice, 0, KINDS - 1);
	int64_t limit = k ? dice_between(&c->dice, 40, 50) : SEATS;
	struct neap_limiter like = shared_like(kinds[k], limit), *l;
	if (kinds[k] == NEAP_GCRA)
		neap_gcra_init(&like.as.gcra, dice_between(&c->dice, 1, 2), neap_horizon / 2, 1 << 28);
	if (neap_segment_add(c->segment, names[k], &like, NEAP_KEEP_SPENT, 0, clock_now(), &l) < 0)
		_exit(2);
	if (k == 2 && dice_between(&c->dice, 0, 1))
		neap_limiter_hold(l, 40, clock_now() + 1000, clock_now());
	if (c->reaps)
		neap_segment_reap(c->segment);
}

static void live(struct child *c, uint64_t seed)
{
	c->dice = (struct dice){seed};
	c->segment = shared_open(NULL);
	for (int k = 0; k < KINDS; k++)
		c->limiter[k] = neap_segment_find(c->segment, names[k]);
	for (;;) {
		if (dice_between(&c->dice, 0, 15))
			call(c);
		else
			meddle(c);
	}
}

/* ---- the parent ---- */

static pid_t start(struct dice *d, struct child *c)
{
	uint64_t seed = dice_throw(d);
	c->serial++;
	if (c->serial == SERIALS)
		trial_fail("no more numbers");
	pid_t pid = shared_fork();
	if (!pid)
		live(c, seed);
	return pid;
}

static void doze(struct dice *d, int64_t most)
{
	const struct timespec nap = {0, dice_between(d, 1, most)};
	nanosleep(&nap, NULL);
}

static void end(struct child *c, pid_t pid, int32_t serial)
{
	__atomic_store_n(&c->shared->doomed[serial], 1, __ATOMIC_RELEASE);
	if (shared_kill(pid) != 128 + SIGKILL)
		trial_fail("a child ended by itself");
	if (!c->reaps)
		for (int i = 0; i < SEATS; i++)
			__atomic_compare_exchange_n(&c->shared->seat[i], &(int32_t){serial}, 0, 0,
						    __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

static void prove(struct child *c)
{
	if (neap_segment_check(c->segment))
		trial_fail("an invariant does not hold");
	if (c->shared->crowded)
		trial_fail("more permits are out than there are");
}

static void nothing_is_out(const struct child *c, int64_t deaths)
{
	for (int k = 0; k < KINDS; k += KINDS - 1) {
		const struct neap_limiter *l = c->limiter[k];
		int64_t in_use = k ? l->as.adaptive.in_use : l->as.semaphore.in_use;
		if (in_use)
			trial_fail("%ld of %s are out, and nobody has them", in_use, names[k]);
	}
	int64_t spent = neap_limiter_capacity(c->limiter[1]) -
			neap_limiter_available(c->limiter[1], clock_now());
	if (spent < c->shared->granted || spent > c->shared->granted + 3 * deaths + 1)
		trial_fail("%ld spent, %ld granted", spent, c->shared->granted);
}

static void killed(struct dice *d, int reaps)
{
	unlink(shared_path());
	struct child c = {.reaps = reaps};
	pid_t pid[CHILDREN];
	int32_t serial[CHILDREN];
	int64_t kills = trial_ops(KILLS);
	c.shared = mmap(NULL, sizeof *c.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	c.segment = shared_open(NULL);
	for (int k = 0; k < KINDS; k++)
		c.limiter[k] = shared_add(c.segment, names[k], kinds[k], k ? 50 : SEATS);
	struct neap_limiter like = shared_like(NEAP_GCRA, 1);
	neap_gcra_init(&like.as.gcra, 1, neap_horizon / 2, 1 << 28);
	neap_segment_add(c.segment, "rate", &like, NEAP_KEEP_NOTHING, 0, clock_now(), &c.limiter[1]);
	for (int i = 0; i < CHILDREN; i++) {
		pid[i] = start(d, &c);
		serial[i] = c.serial;
	}
	for (int64_t n = 0; n < kills; n++) {
		int i = (int)dice_between(d, 0, CHILDREN - 1);
		int j = (int)dice_between(d, 0, CHILDREN - 1);
		kill(pid[j], SIGSTOP);
		doze(d, 200000);
		kill(pid[j], SIGCONT);
		doze(d, 4000000);
		end(&c, pid[i], serial[i]);
		prove(&c);
		neap_segment_reap(c.segment);
		prove(&c);
		pid[i] = start(d, &c);
		serial[i] = c.serial;
	}
	int64_t before = c.shared->calls;
	int64_t *calls = &c.shared->calls;
	for (int tries = 0; __atomic_load_n(calls, __ATOMIC_RELAXED) < before + 100; tries++) {
		doze(d, 2000000);
		neap_segment_reap(c.segment);
		if (tries == 20000)
			trial_fail("those who are left get nothing");
	}
	for (int i = 0; i < CHILDREN; i++)
		end(&c, pid[i], serial[i]);
	neap_segment_reap(c.segment);
	prove(&c);
	nothing_is_out(&c, kills + CHILDREN);
	neap_segment_close(c.segment);
	munmap(c.shared, sizeof *c.shared);
}

static void parent_reaps(struct dice *d) { killed(d, 0); }

static void all_reap(struct dice *d) { killed(d, 1); }

/* ---- a rate that becomes another ---- */

/* Two rates, whose units differ by half; clocks are late, so that a mixture of them shows. */
static const int64_t amounts[2] = {3000, 4100};
enum { BURST = 50, TURNS = 500000 };

static neap_ns late_now(void) { return clock_now() + (INT64_C(1) << 55); }

static void take_on(struct neap_limiter *l, int64_t *granted, const int32_t *over)
{
	for (neap_ns at = late_now(), now = at; !__atomic_load_n(over, __ATOMIC_RELAXED);) {
		const struct neap_term term = {l, 1, 0, 0};
		const int64_t cost[NEAP_COSTS] = {1};
		struct neap_all all;
		neap_all_init(&all, &term, 1);
		now = late_now();
		at = now & 1 ? neap_limiter_take(l, 1, now) : neap_all_take(&all, cost, now, NULL);
		if (at <= now)
			__atomic_add_fetch(granted, 1, __ATOMIC_RELAXED);
		if (at > now + 1000000000 || neap_limiter_when(l, 1, now) > now + 1000000000)
			_exit(3);
	}
	_exit(0);
}

static void turned(struct dice *d)
{
	(void)d;
	unlink(shared_path());
	struct { int64_t granted; int32_t over; } *s =
		mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct neap_segment *segment = shared_open(NULL);
	struct neap_limiter like = shared_like(NEAP_GCRA, 1), *l;
	pid_t pid[2] = {0};
	neap_ns begin = late_now();
	for (int64_t i = trial_ops(TURNS); i >= 0; i--) {
		neap_gcra_init(&like.as.gcra, amounts[i & 1], 1000000000, BURST);
		if (neap_segment_add(segment, "rate", &like, NEAP_KEEP_SPENT, 0, late_now(), &l))
			trial_fail("add");
		for (int c = 0; c < 2 && i == trial_ops(TURNS); c++) {
			pid[c] = shared_fork();
			if (!pid[c])
				take_on(l, &s->granted, &s->over);
		}
	}
	s->over = 1;
	for (int c = 0; c < 2; c++)
		if (shared_wait(pid[c]))
			trial_fail("somebody is told to wait for a rate there never was");
	double most = BURST + (double)(late_now() - begin) * 1e-9 * (double)amounts[1];
	if ((double)s->granted > most)
		trial_fail("%ld granted, of %.0f", s->granted, most);
	neap_segment_close(segment);
	munmap(s, sizeof *s);
}

int main(void)
{
	trial_run("killed at any moment, nobody leaves a permit out or half a change", parent_reaps);
	trial_run("the same when those who are left look after the dead", all_reap);
	trial_run("a rate that becomes another is the one or the other", turned);
	return trial_verdict();
}
