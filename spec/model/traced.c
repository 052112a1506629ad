/* SPDX-License-Identifier: MIT */
/* traced.c - a victim that goes step by step (ptrace), each an instruction of the code that others
 * use. Its parent compares the memory after each of them. */
#define _GNU_SOURCE
#include "shared.h"
#include "trial.h"
#include "victim.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STEPS_MOST = 1000000 };

const int64_t victim_samples = 4;

/* A child, stopped before it acts. */
static pid_t start(const struct victim *v)
{
	int status;
	pid_t pid = shared_fork();
	if (!pid) {
		v->before();
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(77);
		raise(SIGSTOP);
		v->act();
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		trial_fail("a child did not stop: status %d (77: it may not be traced)", status >> 8);
	return pid;
}

/* One instruction. 0: it has ended. */
static int step(pid_t pid)
{
	int status;
	if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) || waitpid(pid, &status, 0) != pid)
		trial_fail("no step");
	if (WIFEXITED(status) && WEXITSTATUS(status))
		trial_fail("a child failed: %d", WEXITSTATUS(status));
	return WIFSTOPPED(status);
}

int victim_points(const struct victim *v, int *point, int most)
{
	char *copy = malloc(v->bytes);
	pid_t pid = start(v);
	int count = 0;
	memcpy(copy, v->memory, v->bytes);
	for (int n = 1; step(pid); n++) {
		if (n > STEPS_MOST)
			trial_fail("too many steps");
		if (!memcmp(copy, v->memory, v->bytes))
			continue;
		memcpy(copy, v->memory, v->bytes);
		if (count < most)
			point[count++] = n;
	}
	free(copy);
	return count;
}

void victim_killed(const struct victim *v, int64_t after)
{
	pid_t pid = start(v);
	while (after-- > 0)
		if (!step(pid))
			return;
	shared_kill(pid);
}
