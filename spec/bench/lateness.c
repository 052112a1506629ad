/* SPDX-License-Identifier: MIT */
/* lateness.c - how late real waits end: fifty in flight, each 50 us to 10 ms, a new one for each
 * that is over.
 *
 *   neap           sleeps of the engine, its loop told when the next is due
 *   epoll_pwait2   the system call with a timeout in nanoseconds and nothing else to do
 *   timerfd        one timer descriptor in epoll, set for whichever is next
 *   libev          one ev_timer each, as libev comes
 *
 * Late is from the instant a wait was for to the moment its owner hears of it. Each has the machine
 * for a third of a second, in turn.
 */
#define _GNU_SOURCE
#include "neap.h"
#include "race.h"

#include <ev.h>

#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { ROUNDS = 7, IN_FLIGHT = 50, MOST = 200000 };

static const neap_ns SPELL_NS = 350000000;

static double late[MOST];   /* us */
static int64_t waits;
static uint64_t seed = 1;

static neap_ns clock_now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_BOOTTIME, &t);   /* as neap's loop */
	return (neap_ns)t.tv_sec * 1000000000 + t.tv_nsec;
}

static neap_ns some_time(void)
{
	return 50000 + (neap_ns)(race_random(&seed) % 9950000);
}

static void over(neap_ns due, neap_ns now)
{
	if (waits < MOST)
		late[waits++] = (double)(now - due) / 1000;
}

/* ---- neap ---- */

static void by_neap(neap_ns end)
{
	struct neap_loop *loop = neap_loop_open(0);
	neap_ns now = neap_loop_now(loop);
	struct neap_engine *engine = neap_engine_open(IN_FLIGHT, now);
	for (int i = 0; i < IN_FLIGHT; i++)
		neap_engine_sleep(engine, now + some_time(), now);
	while (now < end) {
		struct neap_completion done[IN_FLIGHT];
		now = neap_loop_turn(loop, neap_engine_next_due(engine));
		neap_engine_advance(engine, now);
		int64_t n = neap_engine_drain(engine, done, IN_FLIGHT);
		for (int64_t i = 0; i < n; i++) {
			over(done[i].at, now);
			neap_engine_sleep(engine, now + some_time(), now);
		}
	}
	neap_engine_close(engine);
	neap_loop_close(loop);
}

/* ---- the system alone: a list of instants, and one call that waits for the first ---- */

static neap_ns due[IN_FLIGHT];

static void by_list(neap_ns end, int epoll, void (*wait_until)(int epoll, neap_ns until))
{
	neap_ns now = clock_now();
	for (int i = 0; i < IN_FLIGHT; i++)
		due[i] = now + some_time();
	while (now < end) {
		neap_ns next = due[0];
		for (int i = 1; i < IN_FLIGHT; i++)
			next = due[i] < next ? due[i] : next;
		wait_until(epoll, next);
		now = clock_now();
		for (int i = 0; i < IN_FLIGHT; i++)
			if (due[i] <= now) {
				over(due[i], now);
				due[i] = now + some_time();
			}
	}
}

static void wait_call(int epoll, neap_ns until)
{
	struct epoll_event event;
	neap_ns left = until - clock_now();
	struct timespec t = {left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0};
	syscall(SYS_epoll_pwait2, epoll, &event, 1, &t, NULL, 0);
}

static void by_call(neap_ns end)
{
	int epoll = epoll_create1(0);
	by_list(end, epoll, wait_call);
	close(epoll);
}

static int timer;

static void wait_timer(int epoll, neap_ns until)
{
	struct epoll_event event;
	struct itimerspec t = {.it_value = {until / 1000000000, until % 1000000000}};
	timerfd_settime(timer, TFD_TIMER_ABSTIME, &t, NULL);
	epoll_wait(epoll, &event, 1, -1);
}

static void by_timer(neap_ns end)
{
	int epoll = epoll_create1(0);
	timer = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK);
	epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &(struct epoll_event){.events = EPOLLIN});
	by_list(end, epoll, wait_timer);
	close(timer);
	close(epoll);
}

/* ---- libev ---- */

static struct ev_timer alarm_clock[IN_FLIGHT];
static neap_ns closing_time;

static void start(struct ev_loop *loop, struct ev_timer *t)
{
	neap_ns wait_ns = some_time();
	ev_now_update(loop);
	due[t - alarm_clock] = clock_now() + wait_ns;
	ev_timer_set(t, (double)wait_ns * 1e-9, 0.);
	ev_timer_start(loop, t);
}

static void on_alarm(struct ev_loop *loop, struct ev_timer *t, int events)
{
	(void)events;
	neap_ns now = clock_now();
	over(due[t - alarm_clock], now);
	if (now < closing_time)
		start(loop, t);
	else
		ev_break(loop, EVBREAK_ALL);
}

static void by_libev(neap_ns end)
{
	struct ev_loop *loop = ev_loop_new(EVFLAG_AUTO);
	closing_time = end;
	for (int i = 0; i < IN_FLIGHT; i++) {
		ev_init(&alarm_clock[i], on_alarm);
		start(loop, &alarm_clock[i]);
	}
	ev_run(loop, 0);
	ev_loop_destroy(loop);
}

int main(void)
{
	static void (*const by[])(neap_ns) = {by_neap, by_call, by_timer, by_libev};
	static const char *const names[] = {"neap", "epoll_pwait2", "timerfd", "libev"};
	static const double shares[] = {0.5, 0.9, 0.99};
	static const char *const suffixes[] = {"", "_p90", "_p99"};
	static struct race race[3];
	for (int round = 0; round < ROUNDS; round++)
		for (int who = 0; who < 4; who++) {
			waits = 0;
			by[who](clock_now() + SPELL_NS);
			for (int i = 0; i < 3; i++)
				race[i].time[who][round] = race_quantile(late, waits, shares[i]);
		}
	for (int i = 0; i < 3; i++) {
		race[i].rounds = ROUNDS;
		for (int who = 1; who < 4; who++) {
			char name[32];
			snprintf(name, sizeof name, "lateness%s", suffixes[i]);
			race_report(&race[i], 0, name, "us", who, names[who],
				    i == 0 && who == 1 ? "<=1.3" : NULL);
		}
	}
	return 0;
}
