/* SPDX-License-Identifier: MIT */
/* threads_wait.c - threads that block: an engine each, limiters of all, and a bell.
 *
 * That nobody goes before an instant is checked against the instants themselves. That no ring is
 * lost shows in time: a sleeper that misses one looks at the clock a second later, and is right
 * again. So many thousand times a permit is given just when somebody is about to sleep, and hardly
 * ever may that take so long. Waits have a deadline far off, so that what hangs fails.
 */
#include "neap.h"
#include "trial.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HANDS = 4, RATE_TAKES = 100, HOLDS = 3000, PASSES = 20000, STALLS_MOST = 2 };

static const neap_ns SECOND = 1000000000, PATIENCE = INT64_C(60000000000);

static neap_ns clock_now(void) { return neap_loop_now(NULL); }

struct hand {
	const struct neap_all *all;
	struct neap_bell *bell;
	struct dice *dice;
	int64_t *holding;                    /* by all hands, counted by themselves */
	int64_t *passes;                     /* done by the one who waits */
	int64_t limit;
	int stalls;
	const char *wrong;                   /* NULL: nothing was; the thread's last word */
	neap_ns at[RATE_TAKES];
};

static struct neap_request request(const struct neap_all *all, int64_t cost, neap_ns deadline)
{
	return (struct neap_request){.all = all, .cost = {cost}, .deadline = deadline};
}

static void all_hands(void *(*body)(void *), struct hand *hand, int hands)
{
	pthread_t thread[HANDS];
	for (int i = 0; i < hands; i++)
		if (pthread_create(&thread[i], NULL, body, &hand[i]))
			trial_fail("no thread");
	for (int i = 0; i < hands; i++)
		pthread_join(thread[i], NULL);
	for (int i = 0; i < hands; i++)
		if (hand[i].wrong)
			trial_fail("%s", hand[i].wrong);
}

/* Wait, on this hand's engine: when it was granted, which is not before its instant. */
static neap_ns granted(struct neap_engine *e, struct hand *h, struct neap_bell *bell)
{
	struct neap_request r = request(h->all, 1, clock_now() + PATIENCE);
	struct neap_answer a;
	if (neap_wait(e, &r, bell, &a) || a.status != NEAP_GRANTED)
		h->wrong = "a wait is not granted";
	else if (a.at > clock_now())
		h->wrong = "a wait ends before its instant";
	return a.at;
}

/* ---- a rate ---- */

static void *take_all(void *arg)
{
	struct hand *h = arg;
	struct neap_engine *e = neap_engine_open(1, clock_now());
	for (int i = 0; i < RATE_TAKES && !h->wrong; i++)
		h->at[i] = granted(e, h, i % 2 ? h->bell : NULL);
	neap_engine_close(e);
	return NULL;
}

static int earlier(const void *a, const void *b)
{
	neap_ns x = *(const neap_ns *)a, y = *(const neap_ns *)b;
	return (x > y) - (x < y);
}

static void one_rate(struct dice *d)
{
	struct neap_limiter rate = {.kind = NEAP_GCRA};
	struct neap_term term = {&rate, 1, 0, 0};
	struct neap_all all;
	struct neap_bell bell = {0, 0};
	struct hand hand[HANDS];
	neap_ns at[HANDS * RATE_TAKES];
	int64_t burst = dice_between(d, 1, 5);
	neap_gcra_init(&rate.as.gcra, 2000, SECOND, burst);
	neap_all_init(&all, &term, 1);
	for (int i = 0; i < HANDS; i++)
		hand[i] = (struct hand){.all = &all, .bell = &bell};
	all_hands(take_all, hand, HANDS);
	for (int i = 0; i < HANDS; i++)
		memcpy(at + i * RATE_TAKES, hand[i].at, sizeof hand[i].at);
	qsort(at, HANDS * RATE_TAKES, sizeof *at, earlier);
	for (int64_t i = burst; i < HANDS * RATE_TAKES; i++)
		if (at[i] - at[i - burst] < SECOND / 2000 - 1)
			trial_fail("%ld ns for %ld", (long)(at[i] - at[i - burst]), (long)burst);
}

/* ---- permits ---- */

static void give(struct neap_engine *e, const struct neap_all *all, struct neap_bell *bell)
{
	struct neap_request r = request(all, 1, neap_never);
	neap_engine_give(e, &r, NEAP_SUCCESS, 0, clock_now());
	neap_ring(bell);
}

static void *hold_for_a_moment(void *arg)
{
	struct hand *h = arg;
	struct neap_engine *e = neap_engine_open(1, clock_now());
	for (int i = 0; i < HOLDS && !h->wrong; i++) {
		granted(e, h, h->bell);
		if (h->wrong)
			break;
		if (__atomic_add_fetch(h->holding, 1, __ATOMIC_SEQ_CST) > h->limit)
			h->wrong = "more hold a permit than there are";
		__atomic_sub_fetch(h->holding, 1, __ATOMIC_SEQ_CST);
		give(e, h->all, h->bell);
	}
	neap_engine_close(e);
	return NULL;
}

static void permits(struct dice *d)
{
	struct neap_limiter room = {.kind = NEAP_SEMAPHORE}, rate = {.kind = NEAP_GCRA};
	struct neap_term term[] = {{&rate, 1, 0, 0}, {&room, 1, 0, 0}};
	struct neap_all all;
	struct neap_bell bell = {0, 0};
	struct hand hand[HANDS];
	int64_t holding = 0, limit = dice_between(d, 1, HANDS - 1);
	neap_semaphore_init(&room.as.semaphore, limit, 0);
	neap_gcra_init(&rate.as.gcra, 100000, SECOND, 10);
	neap_all_init(&all, term, 2);
	for (int i = 0; i < HANDS; i++)
		hand[i] = (struct hand){
			.all = &all, .bell = &bell, .holding = &holding, .limit = limit};
	all_hands(hold_for_a_moment, hand, HANDS);
	if (room.as.semaphore.in_use || bell.asleep)
		trial_fail("%ld out, %u asleep", (long)room.as.semaphore.in_use, bell.asleep);
}

static int64_t count(const int64_t *n) { return __atomic_load_n(n, __ATOMIC_SEQ_CST); }

static void *wait_again_and_again(void *arg)
{
	struct hand *h = arg;
	struct neap_engine *e = neap_engine_open(1, clock_now());
	for (int i = 1; i <= PASSES && !h->wrong; i++) {
		neap_ns began = clock_now();
		granted(e, h, h->bell);
		h->stalls += clock_now() - began > 9 * SECOND / 10;
		if (h->stalls > STALLS_MOST)
			h->wrong = "a wait takes a second, again and again";
		__atomic_store_n(h->passes, h->wrong ? PASSES : i, __ATOMIC_SEQ_CST);
	}
	neap_engine_close(e);
	return NULL;
}

/* Just when the other looks for the first time, or is about to sleep. */
static void *give_at_the_worst_time(void *arg)
{
	struct hand *h = arg;
	for (int i = 0; i < PASSES && count(h->passes) == i; i++) {
		int at_once = (int)dice_between(h->dice, 0, 1);
		int64_t delay = dice_between(h->dice, 0, at_once ? 2000 : 200);
		while (!at_once && !__atomic_load_n(&h->bell->asleep, __ATOMIC_SEQ_CST))
			;
		for (; delay; delay--)
			__atomic_signal_fence(__ATOMIC_SEQ_CST);
		neap_semaphore_give(&h->all->terms->limiter->as.semaphore, 1);
		neap_ring(h->bell);
		while (count(h->passes) <= i)
			;
	}
	return NULL;
}

static void *either(void *arg)
{
	struct hand *h = arg;
	return h->dice ? give_at_the_worst_time(h) : wait_again_and_again(h);
}

static void no_ring_is_lost(struct dice *d)
{
	struct neap_limiter room = {.kind = NEAP_SEMAPHORE};
	struct neap_term term = {&room, 1, 0, 0};
	struct neap_all all;
	struct neap_bell bell = {0, 0};
	int64_t passes = 0;
	neap_semaphore_init(&room.as.semaphore, 1, 0);
	neap_semaphore_take(&room.as.semaphore, 1, 0);
	neap_all_init(&all, &term, 1);
	struct hand hand[2] = {{.all = &all, .bell = &bell, .passes = &passes}};
	hand[1] = hand[0];
	hand[1].dice = d;
	all_hands(either, hand, 2);
}

/* ---- refusals, and another process ---- */

static void refusals(struct dice *d)
{
	(void)d;
	struct neap_limiter room = {.kind = NEAP_SEMAPHORE};
	struct neap_term term = {&room, 1, 0, 0};
	struct neap_all all;
	struct neap_bell bell = {0, 0};
	struct neap_answer a;
	struct neap_engine *e = neap_engine_open(1, clock_now());
	neap_semaphore_init(&room.as.semaphore, 2, 0);
	neap_all_init(&all, &term, 1);
	neap_semaphore_take(&room.as.semaphore, 1, 0);
	struct neap_request r = request(&all, 3, neap_never);
	if (neap_wait(e, &r, &bell, &a) || a.status != NEAP_NEVER)
		trial_fail("more than there are: %d", a.status);
	for (int i = 0; i < 2; i++) {
		r = request(&all, 2, clock_now() + SECOND / 100);
		if (neap_wait(e, &r, i ? &bell : NULL, &a) || a.status != NEAP_TIMEOUT ||
		    a.at != r.deadline || clock_now() < a.at)
			trial_fail("in vain: %d", a.status);
	}
	if (bell.asleep || room.as.semaphore.in_use != 1)
		trial_fail("traces are left");
	neap_engine_close(e);
}

struct shared {
	struct neap_limiter room;
	struct neap_bell bell;
};

static void another_process(struct dice *d)
{
	(void)d;
	struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE,
				MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct neap_term term = {&s->room, 1, 0, 0};
	struct neap_all all;
	int status;
	s->room.kind = NEAP_SEMAPHORE;
	neap_semaphore_init(&s->room.as.semaphore, 1, 0);
	neap_limiter_share(&s->room);
	neap_all_init(&all, &term, 1);
	neap_semaphore_take(&s->room.as.semaphore, 1, 0);
	pid_t child = fork();
	if (child == 0) {
		struct neap_engine *e = neap_engine_open(1, clock_now());
		struct neap_request r = request(&all, 1, clock_now() + PATIENCE);
		struct neap_answer a;
		_exit(neap_wait(e, &r, &s->bell, &a) || a.status != NEAP_GRANTED);
	}
	while (!__atomic_load_n(&s->bell.asleep, __ATOMIC_SEQ_CST))
		usleep(1000);
	neap_semaphore_give(&s->room.as.semaphore, 1);
	neap_ring(&s->bell);
	waitpid(child, &status, 0);
	munmap(s, sizeof *s);
	if (status)
		trial_fail("the child ended with %d", status);
}

int main(void)
{
	trial_run("threads that wait for a rate never go faster", one_rate);
	trial_run("threads that wait for permits never hold more than there are", permits);
	trial_run("no ring is lost", no_ring_is_lost);
	trial_run("a wait in vain ends at once, or at its deadline", refusals);
	trial_run("a bell in shared memory is heard by another process", another_process);
	return trial_verdict();
}
