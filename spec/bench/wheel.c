/* SPDX-License-Identifier: MIT */
/* wheel.c - the timing wheel against libev's timers, a heap.
 *
 * So many timers at once, at random within ten seconds. All are set, cancelled in random order, set
 * again, and time passes in turns in which about a hundred come due. What is timed is each
 * timer's share, and for the pause each turn by itself: what stands still while timers are moved
 * is the loop, at the very moment when something is due.
 *
 * libev asks the system for the time. So this program has a clock_gettime of its own, which the
 * library finds first, and both see the same ten seconds pass without waiting for them.
 */
#include "neap.h"
#include "race.h"

#include <ev.h>

#include <sys/syscall.h>
#include <unistd.h>

enum { SMALLEST = 3, LARGEST = 7, PER_TURN = 100 };

static const neap_ns SPAN_NS = INT64_C(10000000000);

/* ---- time ---- */

static neap_ns now = INT64_C(1000000000000);

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *t)
{
	if (clock == CLOCK_THREAD_CPUTIME_ID)   /* race.h's */
		return (int)syscall(SYS_clock_gettime, clock, t);
	t->tv_sec = now / 1000000000;
	t->tv_nsec = now % 1000000000;
	return 0;
}

/* ---- the two, by the same verbs ---- */

static uint32_t fired;

static struct neap_wheel *wheel;

static void wheel_open(uint32_t n)
{
	wheel = neap_wheel_open(n, now);
	if (!wheel)
		abort();
}

static void wheel_close(void) { neap_wheel_close(wheel); }
static void wheel_set(uint32_t id, neap_ns after) { neap_wheel_set(wheel, id, now + after); }
static void wheel_cancel(uint32_t id) { neap_wheel_cancel(wheel, id); }

static void wheel_turn(void)
{
	neap_ns due;
	while (neap_wheel_pop(wheel, now, &due) >= 0)
		fired++;
	neap_wheel_next(wheel);   /* for what a loop would be armed */
}

static struct ev_loop *loop;
static struct ev_timer *timer;

static void on_timer(struct ev_loop *l, struct ev_timer *t, int events)
{
	(void)l, (void)t, (void)events;
	fired++;
}

static void heap_open(uint32_t n)
{
	loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
	timer = calloc(n, sizeof *timer);
	if (!loop || !timer)
		abort();
	for (uint32_t i = 0; i < n; i++)
		ev_init(&timer[i], on_timer);
}

static void heap_close(void)
{
	ev_loop_destroy(loop);
	free(timer);
}

static void heap_set(uint32_t id, neap_ns after)
{
	ev_timer_set(&timer[id], (double)after * 1e-9, 0.);
	ev_timer_start(loop, &timer[id]);
}

static void heap_cancel(uint32_t id) { ev_timer_stop(loop, &timer[id]); }
static void heap_turn(void) { ev_run(loop, EVRUN_NOWAIT); }

struct kind {
	void (*open)(uint32_t n);
	void (*close)(void);
	void (*set)(uint32_t id, neap_ns after);
	void (*cancel)(uint32_t id);
	void (*turn)(void);
};

static const struct kind kinds[] = {
	{wheel_open, wheel_close, wheel_set, wheel_cancel, wheel_turn},
	{heap_open, heap_close, heap_set, heap_cancel, heap_turn},
};

/* ---- one round ---- */

static neap_ns *after;      /* [n] */
static uint32_t *order;     /* [n] a permutation */
static double *pause_ns;    /* [turns] */
static int64_t turns;

static double set_all(const struct kind *k, uint32_t n)
{
	int64_t start = race_clock();
	for (uint32_t i = 0; i < n; i++)
		k->set(i, after[i]);
	return (double)(race_clock() - start);
}

static double cancel_all(const struct kind *k, uint32_t n)
{
	int64_t start = race_clock();
	for (uint32_t i = 0; i < n; i++)
		k->cancel(order[i]);
	return (double)(race_clock() - start);
}

static double expire_all(const struct kind *k, uint32_t n)
{
	double sum = 0;
	fired = 0;
	for (int64_t i = 0; fired < n; i++) {
		if (i > 2 * (int64_t)n + 100)
			abort();   /* time does not pass for it */
		now += SPAN_NS * PER_TURN / n;
		int64_t start = race_clock();
		k->turn();
		double took = (double)(race_clock() - start);
		sum += took;
		if (i < turns)
			pause_ns[i] = took;
	}
	return sum;
}

static void race_at(int digit)
{
	static const char *const what[] = {"insert", "cancel", "expire"};
	static const char *const targets[] = {"<=0.75", "<=0.25", "<=0.4"};
	static struct race verbs[3], pause, longest;
	uint64_t seed = 1;
	uint32_t n = 1;
	for (int i = 0; i < digit; i++)
		n *= 10;
	int times = n < 200000 ? (int)(200000 / n) : 1;
	int rounds = digit == LARGEST ? 1 : digit == 6 ? 5 : 9;
	after = malloc(n * sizeof *after);
	order = malloc(n * sizeof *order);
	turns = n / PER_TURN;
	pause_ns = malloc((size_t)turns * sizeof *pause_ns);
	if (!after || !order || !pause_ns)
		abort();
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = (uint32_t)(race_random(&seed) % (i + 1));
		order[i] = order[j];
		order[j] = i;
		after[i] = (neap_ns)(race_random(&seed) % (uint64_t)SPAN_NS);
	}
	for (int k = 0; k < 2; k++) {
		kinds[k].open(n);
		set_all(&kinds[k], n);   /* all memory has been touched once */
		cancel_all(&kinds[k], n);
	}
	for (int round = 0; round < rounds; round++)
		for (int k = 0; k < 2; k++) {
			double sum[3] = {0};
			for (int i = 0; i < times; i++) {
				kinds[k].turn();   /* notice the time */
				sum[0] += set_all(&kinds[k], n);
				sum[1] += cancel_all(&kinds[k], n);
				set_all(&kinds[k], n);
				sum[2] += expire_all(&kinds[k], n);
			}
			for (int i = 0; i < 3; i++)
				verbs[i].time[k][round] = sum[i] / n / times;
			pause.time[k][round] = race_quantile(pause_ns, turns, 0.999) / 1000;
			longest.time[k][round] = pause_ns[turns - 1] / 1000;
		}
	for (int i = 0; i < 3; i++) {
		char name[32];
		snprintf(name, sizeof name, digit == 6 ? "wheel_%s" : "wheel_%s_1e%d", what[i], digit);
		verbs[i].rounds = rounds;
		race_report(&verbs[i], 0, name, "ns", 1, "ev_timer", digit == 6 ? targets[i] : NULL);
	}
	if (digit == 6) {
		pause.rounds = longest.rounds = rounds;
		race_report(&pause, 0, "wheel_pause", "us", 1, "ev_timer,p99.9", "<=1.0");
		race_report(&longest, 0, "wheel_pause_max", "us", 1, "ev_timer,max", NULL);
		race_line("wheel_bytes", (double)neap_wheel_bytes(wheel) / n, "bytes",
			  (double)neap_wheel_bytes(wheel) / n / (sizeof *timer + 16), "ev_timer",
			  NULL);
	}
	for (int k = 0; k < 2; k++)
		kinds[k].close();
	free(after);
	free(order);
	free(pause_ns);
}

int main(void)
{
	int64_t bytes = (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
	for (int digit = SMALLEST; digit <= LARGEST; digit++)
		if (digit < LARGEST || bytes > INT64_C(2000000000))
			race_at(digit);
		else
			puts("# 10^7 timers need 2 GB of free memory; left out");
	return 0;
}
