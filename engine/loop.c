/* SPDX-License-Identifier: MIT */
/* loop.c - the clock, and waiting for the world.
 *
 * The engine says when something is due next; sockets say when somebody speaks. A turn waits for
 * whichever comes first, once, and returns:
 *
 *     until = neap_engine_next_due(e)              ...drain, resume, answer...
 *              |                                        ^
 *              v             timerfd --.                |
 *     neap_loop_turn(l, until)          >-- epoll --> now = what it returns;
 *                            sockets --'              neap_engine_advance(e, now)
 *
 * libev's own timers are not used: they wait in epoll_wait, which counts in milliseconds, so every
 * wait would be half of one late. One timerfd, an ordinary descriptor to libev, takes an absolute
 * instant of the very clock the engine is given, in nanoseconds. Setting it is a system call;
 * hence it is set only when the instant changes, and never read: setting it anew also makes it
 * unreadable again, and after it has fired it is always set anew before the next wait.
 *
 * Slack. With a hundred thousand grants a second there is one due every ten microseconds, and
 * waking for each costs more than the grant. So the timer ends turns at least slack_ns apart: the
 * next one is no sooner than that after the last. Grants keep their exact instants, the engine
 * sees to that; only their tasks hear of it up to slack_ns later. A lone wait meets no last turn.
 *
 * The clock is CLOCK_BOOTTIME, because the other side's minute passes while our laptop sleeps. It
 * costs what CLOCK_MONOTONIC costs. The timerfd is one of that clock, so what fell due while the
 * machine slept ends the first turn after that; libev's timers, of the other clock, only sweep.
 *
 * Signals interrupt, they do not call: a caught one is a bit until somebody asks. libev lets a
 * signal belong to one loop of a process, so the process knows which loop catches.
 */
#define _GNU_SOURCE
#include "loop.h"

#include <ev.h>

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { SIGNALS = 6, SECOND_NS = 1000000000 };

static const int numbers[SIGNALS] = {   /* of NEAP_SIGINT and so on */
	SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGPIPE,
};

static _Atomic(struct neap_loop *) catcher;

struct neap_loop {
	struct ev_loop *ev;
	struct ev_io timer;
	struct ev_async stop;
	struct ev_signal signal[SIGNALS];
	struct sigaction before[SIGNALS];   /* what a caught signal did until then */
	int caught, seen;                   /* sums of NEAP_SIG* */
	neap_ns slack_ns;
	neap_ns woke;                       /* when the timer last ended a turn */
	neap_ns armed;                      /* what it is set to; neap_never not at all; 0 it fired */
};

static neap_ns read_clock(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (neap_ns)t.tv_sec * SECOND_NS + t.tv_nsec;
}

static neap_ns clock_now(void) { return read_clock(CLOCK_BOOTTIME); }

static void on_timer(struct ev_loop *ev, struct ev_io *timer, int events)
{
	(void)ev, (void)events;
	struct neap_loop *l = timer->data;
	if (l->armed == 0)
		return;   /* a turn that did not wait meets it again, still readable */
	l->armed = 0;
	l->woke = clock_now();
}

static void on_stop(struct ev_loop *ev, struct ev_async *stop, int events)
{
	(void)ev, (void)stop, (void)events;   /* that it ended the turn is all */
}

static void on_signal(struct ev_loop *ev, struct ev_signal *signal, int events)
{
	(void)ev, (void)events;
	struct neap_loop *l = signal->data;
	l->seen |= 1 << (signal - l->signal);
}

static void arm(struct neap_loop *l, neap_ns until)
{
	if (l->armed == until)
		return;
	struct itimerspec t = {0};   /* all zero: not at all */
	if (until != neap_never) {
		t.it_value.tv_sec = until / SECOND_NS;
		t.it_value.tv_nsec = until % SECOND_NS;
	}
	int failed = timerfd_settime(l->timer.fd, TFD_TIMER_ABSTIME, &t, NULL);
	assert(!failed);
	(void)failed;
	l->armed = until;
}

struct neap_loop *neap_loop_open(neap_ns slack_ns)
{
	if (slack_ns < 0 || slack_ns > SECOND_NS) {
		errno = EINVAL;
		return NULL;
	}
	struct neap_loop *l = calloc(1, sizeof *l);
	if (!l)
		return NULL;
	int timer = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (timer < 0)
		goto no_timer;
	l->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	if (!l->ev)
		goto no_loop;
	l->slack_ns = slack_ns;
	l->armed = neap_never;
	ev_io_init(&l->timer, on_timer, timer, EV_READ);
	l->timer.data = l;
	ev_io_start(l->ev, &l->timer);
	ev_async_init(&l->stop, on_stop);
	ev_async_start(l->ev, &l->stop);
	for (int i = 0; i < SIGNALS; i++) {
		ev_signal_init(&l->signal[i], on_signal, numbers[i]);
		l->signal[i].data = l;
	}
	return l;
no_loop:
	close(timer);
no_timer:
	free(l);
	return NULL;
}

void neap_loop_close(struct neap_loop *l)
{
	if (!l)
		return;
	neap_loop_catch(l, 0);
	ev_async_stop(l->ev, &l->stop);
	ev_io_stop(l->ev, &l->timer);
	ev_loop_destroy(l->ev);
	close(l->timer.fd);
	free(l);
}

struct ev_loop *neap_loop_ev(struct neap_loop *l) { return l->ev; }

neap_ns neap_loop_now(const struct neap_loop *l)
{
	(void)l;   /* may be NULL */
	return clock_now();
}

neap_ns neap_loop_asleep(const struct neap_loop *l)
{
	(void)l;
	neap_ns awake = read_clock(CLOCK_MONOTONIC);   /* first: the difference is then never negative */
	return clock_now() - awake;
}

neap_ns neap_loop_turn(struct neap_loop *l, neap_ns until)
{
	assert(until >= 0);
	if (until > neap_horizon)
		until = neap_never;
	else if (until > 0 && until < l->woke + l->slack_ns)
		until = l->woke + l->slack_ns;
	int how = EVRUN_NOWAIT;
	if (until > clock_now()) {
		arm(l, until);
		how = EVRUN_ONCE;
	}
	ev_run(l->ev, how);
	return clock_now();
}

void neap_loop_stop(struct neap_loop *l) { ev_async_send(l->ev, &l->stop); }

int neap_loop_catch(struct neap_loop *l, int signals)
{
	assert(signals >= 0 && signals < 1 << SIGNALS);
	struct neap_loop *other = NULL;
	if (signals && !atomic_compare_exchange_strong(&catcher, &other, l) && other != l)
		return NEAP_EFULL;
	for (int i = 0; i < SIGNALS; i++) {
		int wanted = signals >> i & 1, has = l->caught >> i & 1;
		if (wanted && !has) {
			sigaction(numbers[i], NULL, &l->before[i]);
			ev_signal_start(l->ev, &l->signal[i]);
		} else if (has && !wanted) {
			ev_signal_stop(l->ev, &l->signal[i]);
			sigaction(numbers[i], &l->before[i], NULL);
		}
	}
	if (l->caught && !signals)
		atomic_store(&catcher, NULL);
	l->caught = signals;
	return NEAP_OK;
}

int neap_loop_signals(struct neap_loop *l)
{
	int seen = l->seen;
	l->seen = 0;
	return seen;
}
