/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "shared.h"
#include "trial.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[64];
static pid_t owner;

static void remove_it(void)
{
	if (getpid() == owner)
		unlink(path);
}

const char *shared_path(void)
{
	if (!owner) {
		owner = getpid();
		snprintf(path, sizeof path, "/dev/shm/neap-spec-%d", owner);
		atexit(remove_it);
	}
	return path;
}

struct neap_segment *shared_open(const struct neap_segment_options *options)
{
	const struct neap_segment_options usual = {0};
	struct neap_segment *s = NULL;
	char error[256] = "";
	int status = neap_segment_open(shared_path(), options ? options : &usual, &s, error,
				       sizeof error);
	if (status)
		trial_fail("open: %d, %s", status, error);
	return s;
}

struct neap_limiter shared_like(int kind, int64_t limit)
{
	static struct neap_stamp log[1];
	static int64_t memory[1];
	struct neap_limiter l;
	struct neap_strategy s;
	int bad = 0;
	memset(&l, 0, sizeof l);
	l.kind = kind;
	switch (kind) {
	case NEAP_GCRA:
		bad = neap_gcra_init(&l.as.gcra, limit, 1000000000, limit);
		break;
	case NEAP_SEMAPHORE:
		bad = neap_semaphore_init(&l.as.semaphore, limit, 0);
		break;
	case NEAP_WINDOW:
		bad = neap_window_init(&l.as.window, limit, 1000000000, log, (uint32_t)limit);
		break;
	case NEAP_BREAKER: {
		const struct neap_trip trip = {
			.rule = NEAP_TRIP_RATIO_WITHIN, .least = (int32_t)limit, .slices = 4,
			.period_ns = 1000000000, .ratio = 0.5,
		};
		bad = neap_breaker_init(&l.as.breaker, &trip, memory, 1000, 2, 2);
		break;
	}
	case NEAP_ADAPTIVE:
		neap_strategy_init(&s, NEAP_AIMD);
		bad = neap_adaptive_init(&l.as.adaptive, &s, 1, limit, limit);
		break;
	}
	if (bad)
		trial_fail("no such limiter");
	return l;
}

struct neap_limiter *shared_add(struct neap_segment *s, const char *name, int kind, int64_t limit)
{
	struct neap_limiter like = shared_like(kind, limit), *l = NULL;
	int status = neap_segment_add(s, name, &like, NEAP_KEEP_SPENT, 0, 0, &l);
	if (status)
		trial_fail("add %s: %d", name, status);
	return l;
}

struct neap_segment *shared_fresh(int64_t log_bytes)
{
	unlink(shared_path());
	return shared_open(&(struct neap_segment_options){.log_bytes = log_bytes});
}

struct neap_limiter shared_rate(int64_t amount, neap_ns period_ns, int64_t burst)
{
	struct neap_limiter l = {.kind = NEAP_GCRA};
	if (neap_gcra_init(&l.as.gcra, amount, period_ns, burst))
		trial_fail("no such rate");
	return l;
}

struct neap_keyed *shared_keyed(struct neap_segment *s, const char *name,
				const struct neap_limiter *like, int64_t count_max, int full,
				int64_t generation)
{
	struct neap_keyed *k = NULL;
	int status = neap_segment_keyed(s, name, like, count_max, full, NEAP_KEEP_SPENT, generation, 0,
					&k);
	if (status < 0)
		trial_fail("keyed %s: %d", name, status);
	return k;
}

uint64_t shared_key(int64_t n)
{
	const uint8_t secret[16] = {7};
	return neap_hash_integer(secret, n);
}

void shared_told(const char *what, int64_t is, int64_t should)
{
	if (is != should)
		trial_fail("%s: %ld instead of %ld", what, is, should);
}

void shared_whole(struct neap_segment *s)
{
	if (neap_segment_check(s))
		trial_fail("an invariant does not hold");
}

pid_t shared_fork(void)
{
	fflush(stdout);
	pid_t parent = getpid(), pid = fork();
	if (pid < 0)
		trial_fail("no process");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(99);
	}
	return pid;
}

int shared_wait(pid_t child)
{
	int status;
	if (waitpid(child, &status, 0) != child)
		trial_fail("no such child");
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int shared_kill(pid_t child)
{
	kill(child, SIGKILL);
	return shared_wait(child);
}
