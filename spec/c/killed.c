/* SPDX-License-Identifier: MIT */
/* killed.c - processes that share limiters, and are killed in the midst of what they do.
 *
 * Children take from several rates and permits at once, in memory that all of them map, and count
 * in that memory what they were granted; the parent kills one after the other with SIGKILL, and
 * starts others. Whatever they held, those who are left go on. In the end each word has what was
 * counted, and at most one call of each that died more: it was killed before it could count it.
 * Permits of the dead stay out: who they belonged to is not the limiter's to know.
 */
#define _GNU_SOURCE
#include "neap.h"
#include "trial.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORDS = 4, CHILDREN = 3, KILLS = 150 };

static const neap_ns NOW = 1000000000;

struct shared {
	struct neap_limiter limiter[WORDS];
	int64_t granted[WORDS];    /* calls, by those who came to count them */
	int64_t takes;
};

/* Until killed. Every word but one, so that each meets the others at some. */
static void child(struct shared *s, int skips)
{
	struct neap_term term[WORDS];
	struct neap_all all;
	int count = 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (int i = 0; i < WORDS; i++)
		if (i != skips)
			term[count++] = (struct neap_term){&s->limiter[i], 1, 0, 0};
	neap_all_init(&all, term, count);
	for (;;) {
		const int64_t cost[NEAP_COSTS] = {1};
		if (neap_all_take(&all, cost, NOW, NULL) > NOW)
			_exit(1);
		for (int i = 0; i < WORDS; i++)
			if (i != skips)
				__atomic_add_fetch(&s->granted[i], 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&s->takes, 1, __ATOMIC_RELAXED);
	}
}

static pid_t start(struct shared *s, int skips)
{
	pid_t pid = fork();
	if (pid < 0)
		trial_fail("no process");
	if (pid == 0)
		child(s, skips);
	return pid;
}

static void finish(pid_t pid)
{
	int status;
	kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status))
		trial_fail("a child was refused, or crashed: status %d", status);
}

static int64_t spent(const struct neap_limiter *l)
{
	return neap_limiter_capacity(l) - neap_limiter_available(l, NOW);
}

static void killed(struct dice *d)
{
	struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				-1, 0);
	if (s == MAP_FAILED)
		trial_fail("no memory");
	for (int i = 0; i < WORDS; i++) {
		struct neap_limiter *l = &s->limiter[i];
		l->kind = i == 1 ? NEAP_SEMAPHORE : NEAP_GCRA;
		if (i == 1)
			neap_semaphore_init(&l->as.semaphore, INT64_C(1) << 50, 0);
		else
			neap_gcra_init(&l->as.gcra, 1, NOW, INT64_C(1) << 28);
		neap_limiter_share(l);
	}
	pid_t pid[CHILDREN];
	int64_t kills = trial_ops(KILLS);
	for (int c = 0; c < CHILDREN; c++)
		pid[c] = start(s, c);
	for (int64_t n = 0; n < kills; n++) {
		int c = (int)dice_between(d, 0, CHILDREN - 1);
		const struct timespec nap = {0, dice_between(d, 1, 3000000)};
		nanosleep(&nap, NULL);
		finish(pid[c]);
		pid[c] = start(s, c);
	}
	int64_t before = s->takes;
	for (int tries = 0; __atomic_load_n(&s->takes, __ATOMIC_RELAXED) < before + 100; tries++) {
		const struct timespec nap = {0, 1000000};
		nanosleep(&nap, NULL);
		if (tries == 20000)
			trial_fail("those who are left get nothing");
	}
	for (int c = 0; c < CHILDREN; c++)
		finish(pid[c]);
	for (int i = 0; i < WORDS; i++) {
		int64_t over = spent(&s->limiter[i]) - s->granted[i];
		if (over < 0 || over > kills + CHILDREN)
			trial_fail("word %d: %ld spent, %ld granted", i, spent(&s->limiter[i]), s->granted[i]);
		if (neap_limiter_take(&s->limiter[i], 1, NOW) != NOW)
			trial_fail("word %d: nobody can take", i);
	}
	munmap(s, sizeof *s);
}

int main(void)
{
	trial_run("processes that are killed hold up nobody, and no charge is lost", killed);
	return trial_verdict();
}
