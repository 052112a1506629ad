/* SPDX-License-Identifier: MIT */
/* child.c - a process that bounds itself, and one that starts it.
 *
 * What people wrote is read under budgets that Lua keeps (neap/policy/room.lua). Should one of
 * them have a hole, the kernel has none: a process that has used its processor time gets SIGXCPU,
 * and one that has its memory gets no more. So whoever reads says first how much is enough, and a
 * server has the reading rehearsed in a process of its own, which may die of it:
 *
 *     server   neap_child_start ----.                 .--> _read, _over: its verdict
 *                                    v                |
 *     child            neap_bound, read, say, end ----'
 *
 * The limit on time is soft, so that there is time for last words, which were written before: a
 * handler of signals may copy bytes, and hardly anything else. And only a soft one can be raised
 * again: each file that a process reads has its own time.
 *
 * The child is spawned, not forked: the address space of a large server is not copied, nor are its
 * threads' locks, and every descriptor here is closed by its exec. Nobody is told of its end by a
 * signal: it is asked for, so another reaper in the process does no harm.
 */
#define _GNU_SOURCE
#include "neap.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { WORDS_BYTES = 512, SANITIZED =
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	1   /* their shadow is larger than any bound */
#else
	0
#endif
};

static char last[WORDS_BYTES];   /* what is said when time is up */
static volatile sig_atomic_t last_bytes;

static void on_time_up(int signal)
{
	(void)signal;
	if (write(STDERR_FILENO, last, (size_t)last_bytes) < 0)
		_exit(2);
	_exit(1);
}

/* Seconds of processor time so far, rounded down. */
static rlim_t used_s(void)
{
	struct rusage usage;
	getrusage(RUSAGE_SELF, &usage);
	return (rlim_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec +
			(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000000);
}

/* Lower, and never raise. */
static int lower(int resource, rlim_t soft, rlim_t hard)
{
	struct rlimit limit;
	if (getrlimit(resource, &limit))
		return NEAP_ESYS;
	limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
	if (hard < limit.rlim_max)
		limit.rlim_max = hard;
	return setrlimit(resource, &limit) ? NEAP_ESYS : NEAP_OK;
}

int neap_bound(uint32_t cpu_s, int64_t memory_bytes, const char *last_words)
{
	if (!cpu_s || memory_bytes <= 0)
		return NEAP_ERANGE;
	size_t n = strlen(last_words);
	if (n > WORDS_BYTES)
		n = WORDS_BYTES;
	last_bytes = 0;
	memcpy(last, last_words, n);
	last_bytes = (sig_atomic_t)n;
	struct sigaction action = {.sa_handler = on_time_up};
	if (sigaction(SIGXCPU, &action, NULL))
		return NEAP_ESYS;
	int error = lower(RLIMIT_CPU, used_s() + cpu_s, RLIM_INFINITY);
	if (error || SANITIZED)
		return error;
	return lower(RLIMIT_AS, (rlim_t)memory_bytes, (rlim_t)memory_bytes);
}

/* ---- the other side ------------------------------------------------------------------------- */

/* What the child has for standard input, output and errors; signals as a new process has them. */
static int spawn(struct neap_child *c, const char *const *words, int out)
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t how;
	sigset_t none, all;
	if (posix_spawn_file_actions_init(&files))
		return NEAP_ENOMEM;
	if (posix_spawnattr_init(&how)) {
		posix_spawn_file_actions_destroy(&files);
		return NEAP_ENOMEM;
	}
	sigemptyset(&none);
	sigfillset(&all);
	posix_spawnattr_setsigmask(&how, &none);
	posix_spawnattr_setsigdefault(&how, &all);
	posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	int failed = posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0) ||
		     posix_spawn_file_actions_adddup2(&files, out, 1) ||
		     posix_spawn_file_actions_adddup2(&files, out, 2);
	pid_t pid = -1;
	int error = failed ? ENOMEM
			   : posix_spawn(&pid, words[0], &files, &how,
					 (char *const *)(uintptr_t)words, environ);
	posix_spawnattr_destroy(&how);
	posix_spawn_file_actions_destroy(&files);
	c->pid = pid;
	errno = error;
	return error ? NEAP_ESYS : NEAP_OK;
}

int neap_child_start(struct neap_child *c, const char *const *words)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC))
		return NEAP_ESYS;
	struct neap_child child = {.fd = ends[0], .status = -1};
	int error = fcntl(ends[0], F_SETFL, O_NONBLOCK) ? NEAP_ESYS : spawn(&child, words, ends[1]);
	int because = errno;
	close(ends[1]);
	if (error) {
		close(ends[0]);
		errno = because;
		return error;
	}
	*c = child;
	return NEAP_OK;
}

int64_t neap_child_read(struct neap_child *c, char *buffer, int64_t size)
{
	ssize_t n;
	do
		n = read(c->fd, buffer, (size_t)size);
	while (n < 0 && errno == EINTR);
	if (n > 0)
		return n;
	return n < 0 && errno == EAGAIN ? 0 : NEAP_ESYS;
}

int neap_child_over(struct neap_child *c)
{
	int status = 0;
	if (c->pid <= 0)
		return 1;
	pid_t ended;
	do
		ended = waitpid(c->pid, &status, WNOHANG);
	while (ended < 0 && errno == EINTR);
	if (ended == 0)
		return 0;
	if (ended == c->pid)
		c->status = WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
	c->pid = 0;
	return 1;
}

void neap_child_close(struct neap_child *c)
{
	if (!neap_child_over(c)) {
		int status;
		kill(c->pid, SIGKILL);
		while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
			;
		c->pid = 0;
	}
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}
