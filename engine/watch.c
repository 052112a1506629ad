/* SPDX-License-Identifier: MIT */
/* watch.c - a thread that notices when something does not come back.
 *
 * A hook of a policy runs where the loop runs, compiled and without a budget. One that never
 * returns holds up everybody, and nothing inside that thread can say so. So another one looks on:
 *
 *     the loop     enter ........ leave     enter .................................
 *     turns          1               2        3
 *     the watch    .     .     .     .     .     .     .     .     .     .     . abort
 *                                             |   late: says so once     | dead
 *
 * 'turns' counts entries and departures, so it is odd inside. Whoever looks twice and finds the
 * same odd number knows that one call has lasted since; no clock is read where it would cost, only
 * by the watch. It looks eight times in late_ns, so what it says is late by an eighth of that.
 *
 * A process that is stopped, or a machine that is, stops the watch as well, and the call is not to
 * blame: between two looks no more time than four usual ones have passes for it.
 *
 * It says the name that was entered, which must outlive the call. Dead, it ends the process with
 * SIGABRT, after its last line: a supervisor starts it again, and a core shows where it hung.
 */
#define _GNU_SOURCE
#include "neap.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { LOOKS = 8, MOST = 4, LINE_BYTES = 400, SECOND_NS = 1000000000, MS_NS = 1000000 };

struct neap_watch {
	_Atomic uint64_t turns;
	_Atomic(const char *) what;
	_Atomic int64_t late;      /* calls that were, ever */
	neap_ns late_ns, dead_ns;
	pthread_t thread;
	pthread_mutex_t mutex;     /* for closing, which cannot wait */
	pthread_cond_t over;
	int closing;
};

static neap_ns clock_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (neap_ns)t.tv_sec * SECOND_NS + t.tv_nsec;
}

/* A line on standard error, if there is room for it: who does not read must not keep it alive. */
static void say(const char *what, neap_ns lasted, const char *then)
{
	struct pollfd there = {.fd = STDERR_FILENO, .events = POLLOUT};
	char line[LINE_BYTES];
	int n = snprintf(line, sizeof line, "neap: %.300s has not returned for %lld ms%s\n",
			 what, (long long)(lasted / MS_NS), then);
	if (poll(&there, 1, 0) < 1 || write(STDERR_FILENO, line, (size_t)n) < 0)
		return;   /* nobody listens */
}

/* Sleep for a while, or until somebody closes; then true. */
static int rest(struct neap_watch *w, neap_ns while_ns)
{
	neap_ns until = clock_now() + while_ns;
	struct timespec t = {.tv_sec = until / SECOND_NS, .tv_nsec = until % SECOND_NS};
	int error = 0;
	pthread_mutex_lock(&w->mutex);
	while (!w->closing && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&w->over, &w->mutex, &t);
	int closing = w->closing;
	pthread_mutex_unlock(&w->mutex);
	return closing;
}

static void *look_on(void *given)
{
	struct neap_watch *w = given;
	uint64_t seen = 0;        /* an odd number of turns, which has lasted so long: */
	neap_ns lasted = 0, step = w->late_ns / LOOKS, last = clock_now();
	int told = 0;
	while (!rest(w, step)) {
		uint64_t turns = atomic_load(&w->turns);
		neap_ns now = clock_now(), since = now - last;
		last = now;
		lasted += since < MOST * step ? since : MOST * step;
		if (turns % 2 == 0 || turns != seen) {
			seen = turns;
			lasted = 0;
			told = 0;
		} else if (lasted >= w->dead_ns) {
			say(atomic_load(&w->what), lasted, ": the process ends");
			abort();
		} else if (lasted >= w->late_ns && !told) {
			say(atomic_load(&w->what), lasted, "");
			atomic_fetch_add(&w->late, 1);
			told = 1;
		}
	}
	return NULL;
}

/* The thread takes no signals: they are for whoever had them before. */
static int start(struct neap_watch *w)
{
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int error = pthread_create(&w->thread, NULL, look_on, w);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

struct neap_watch *neap_watch_open(neap_ns late_ns, neap_ns dead_ns)
{
	if (late_ns < LOOKS || dead_ns < late_ns)
		return NULL;
	struct neap_watch *w = calloc(1, sizeof *w);
	if (!w)
		return NULL;
	w->late_ns = late_ns;
	w->dead_ns = dead_ns;
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&w->over, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_mutex_init(&w->mutex, NULL);
	if (start(w)) {
		free(w);
		return NULL;
	}
	return w;
}

void neap_watch_close(struct neap_watch *w)
{
	pthread_mutex_lock(&w->mutex);
	w->closing = 1;
	pthread_cond_signal(&w->over);
	pthread_mutex_unlock(&w->mutex);
	pthread_join(w->thread, NULL);
	free(w);
}

void neap_watch_enter(struct neap_watch *w, const char *what)
{
	atomic_store_explicit(&w->what, what, memory_order_relaxed);
	uint64_t turns = atomic_load_explicit(&w->turns, memory_order_relaxed);
	atomic_store_explicit(&w->turns, turns + 1, memory_order_release);
}

void neap_watch_leave(struct neap_watch *w)
{
	uint64_t turns = atomic_load_explicit(&w->turns, memory_order_relaxed);
	atomic_store_explicit(&w->turns, turns + 1, memory_order_release);
}

int64_t neap_watch_late(const struct neap_watch *w)
{
	return atomic_load(&w->late);
}
