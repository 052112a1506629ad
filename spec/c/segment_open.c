/* SPDX-License-Identifier: MIT */
/* segment_open.c - segments are made once, and only those that fit are opened.
 *
 * Processes that begin at one instant get the same segment, also while one of a former start of the
 * machine is in its place; whatever else lies there is refused, with what it is, and not touched.
 */
#define _GNU_SOURCE
#include "segment.h"
#include "shared.h"
#include "trial.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const neap_ns NOW = 1000000000;

/* ---- races ---- */

enum { MANY = 12, PERMITS = 5 };

/* What the children of a race share besides. */
struct start { int32_t ready, go, taken, both; };

/* A segment, but of another start. */
static void make_stale(void)
{
	unlink(shared_path());
	neap_segment_close(shared_open(NULL));
	int fd = open(shared_path(), O_RDWR);
	if (pwrite(fd, "x", 1, offsetof(struct neap_header, boot)) != 1)
		trial_fail("pwrite");
	close(fd);
}

static void race_once(struct dice *d, struct start *start, int stale)
{
	pid_t pid[MANY];
	*start = (struct start){0};
	unlink(shared_path());
	if (stale)
		make_stale();
	for (int i = 0; i < MANY; i++) {
		int64_t spin = dice_between(d, 0, 2000);
		pid[i] = shared_fork();
		if (pid[i])
			continue;
		__atomic_add_fetch(&start->ready, 1, __ATOMIC_SEQ_CST);
		while (!__atomic_load_n(&start->go, __ATOMIC_ACQUIRE))
			usleep(10);
		for (volatile int64_t n = spin; n > 0; n--)
			;
		struct neap_segment *s = shared_open(NULL);
		struct neap_limiter *l = shared_add(s, "permits", NEAP_SEMAPHORE, PERMITS);
		if (neap_limiter_take(l, 1, NOW) == NOW)
			__atomic_add_fetch(&start->taken, 1, __ATOMIC_SEQ_CST);
		/* nobody's permits come back before all have asked */
		__atomic_add_fetch(&start->ready, 1, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&start->ready, __ATOMIC_ACQUIRE) < 2 * MANY)
			usleep(10);
		_exit(0);
	}
	while (__atomic_load_n(&start->ready, __ATOMIC_ACQUIRE) < MANY)
		usleep(10);
	start->go = 1;
	for (int i = 0; i < MANY; i++)
		if (shared_wait(pid[i]))
			trial_fail("a child failed");
	if (start->taken != PERMITS)
		trial_fail("%d permits of %d were taken: not one segment", start->taken, PERMITS);
}

static void together(struct dice *d, int stale)
{
	struct start *start = mmap(NULL, sizeof *start, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int64_t i = trial_ops(25); i > 0; i--)
		race_once(d, start, stale);
	munmap(start, sizeof *start);
	unlink(shared_path());
}

static void made_once(struct dice *d) { together(d, 0); }

static void stale_once(struct dice *d) { together(d, 1); }

/* Who saw the stale one, and comes to the lock when another is in its place, leaves that there. */
static void stale_late(struct dice *d)
{
	(void)d;
	make_stale();
	int fd = open(shared_path(), O_RDWR);
	if (flock(fd, LOCK_EX))
		trial_fail("flock");
	pid_t pid = shared_fork();
	if (!pid) {
		close(fd);
		struct neap_limiter *l = neap_segment_find(shared_open(NULL), "it");
		_exit(l ? 0 : 1);
	}
	usleep(50000);   /* it waits for the lock by now; if not, this shows nothing */
	unlink(shared_path());
	struct neap_segment *s = shared_open(NULL);
	shared_add(s, "it", NEAP_PAUSE, 1);
	close(fd);
	if (shared_wait(pid))
		trial_fail("a second one was made");
	neap_segment_close(s);
	unlink(shared_path());
}

/* ---- what does not fit ---- */

static void refused(const struct neap_segment_options *o, int code, const char *text)
{
	struct neap_segment *s = NULL;
	char error[256] = "";
	int status = neap_segment_open(shared_path(), o, &s, error, sizeof error);
	if (status != code || s || !strstr(error, text))
		trial_fail("answered %d, \"%s\"; not %d, \"%s\"", status, error, code, text);
}

static void scribble(size_t at, uint32_t value)
{
	unlink(shared_path());
	neap_segment_close(shared_open(NULL));
	int fd = open(shared_path(), O_RDWR);
	if (pwrite(fd, &value, sizeof value, (off_t)at) != sizeof value)
		trial_fail("pwrite");
	close(fd);
}

static void foreign(struct dice *d)
{
	(void)d;
	const struct neap_segment_options usual = {0}, attach = {.how = NEAP_ATTACH};
	unlink(shared_path());
	refused(&attach, NEAP_ESYS, "cannot be opened: No such file");
	int fd = open(shared_path(), O_RDWR | O_CREAT | O_EXCL, 0600);
	refused(&usual, NEAP_EFOREIGN, "not a segment");
	if (write(fd, "hello", 5) != 5)
		trial_fail("write");
	refused(&usual, NEAP_EFOREIGN, "not a segment");
	struct stat st;
	if (fstat(fd, &st) || st.st_size != 5)
		trial_fail("a file of others was touched");
	close(fd);
	scribble(0, 1);
	refused(&usual, NEAP_EFOREIGN, "not a segment");
	scribble(offsetof(struct neap_header, layout), 77);
	refused(&usual, NEAP_EFOREIGN, "has layout 77, and this is layout 3");
	scribble(offsetof(struct neap_header, made_of), 77);
	refused(&usual, NEAP_EFOREIGN, "other sizes");
	scribble(offsetof(struct neap_header, pid_space), 77);
	refused(&usual, NEAP_EFOREIGN, "another pid namespace");
	scribble(offsetof(struct neap_header, limiters_max), 77);
	refused(&usual, NEAP_EFOREIGN, "not those it says");
	scribble(offsetof(struct neap_header, boot), 77);
	refused(&attach, NEAP_EFOREIGN, "before the machine was started");
	unlink(shared_path());
	neap_segment_close(shared_open(NULL));
	if (truncate(shared_path(), 65536))
		trial_fail("truncate");
	refused(&usual, NEAP_EFOREIGN, "has 65536 bytes");
	unlink(shared_path());
	if (symlink("/dev/null", shared_path()))
		trial_fail("symlink");
	refused(&usual, NEAP_ESYS, "symbolic links");
	unlink(shared_path());
	if (mkdir(shared_path(), 0700))
		trial_fail("mkdir");
	refused(&usual, NEAP_ESYS, "directory");
	rmdir(shared_path());
}

static void out_of_range(struct dice *d)
{
	(void)d;
	const struct neap_segment_options bad[] = {
		{.limiters_max = -1}, {.limiters_max = (1 << 16) + 1}, {.processes_max = -1},
		{.processes_max = 1025}, {.log_bytes = -1}, {.log_bytes = (INT64_C(1) << 36) + 1},
		{.mode = 0400}, {.mode = 01777}, {.uid = -2}, {.how = 3}, {.how = -1},
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		refused(&bad[i], NEAP_ERANGE, "out of its range");
	struct neap_segment *s;
	char error[64], name[2000];
	memset(name, 'a', sizeof name);
	name[sizeof name - 1] = 0;
	if (neap_segment_open(name, &(struct neap_segment_options){0}, &s, error, sizeof error) !=
		    NEAP_ERANGE ||
	    neap_segment_open("", &(struct neap_segment_options){0}, &s, error, sizeof error) !=
		    NEAP_ERANGE)
		trial_fail("a name too long, or none");
	neap_segment_close(shared_open(NULL));
	refused(&(struct neap_segment_options){.limiters_max = 65}, NEAP_EFULL, "less than asked for");
	refused(&(struct neap_segment_options){.processes_max = 65}, NEAP_EFULL, "less than");
	refused(&(struct neap_segment_options){.log_bytes = 1 << 20}, NEAP_EFULL, "less than");
	neap_segment_close(shared_open(&(struct neap_segment_options){.limiters_max = 64}));
	unlink(shared_path());
}

/* In a child, for it changes what a process may do. */
static void in_child(void (*body)(void))
{
	pid_t pid = shared_fork();
	if (!pid) {
		body();
		_exit(0);
	}
	if (shared_wait(pid))
		trial_fail("the child failed");
}

static void short_of_space(void)
{
	signal(SIGXFSZ, SIG_IGN);
	const struct rlimit limit = {100000, 100000};
	setrlimit(RLIMIT_FSIZE, &limit);
	refused(&(struct neap_segment_options){0}, NEAP_ESYS, "no space for ");
	struct stat st;
	if (!stat(shared_path(), &st))
		trial_fail("something was left");
}

static void as_nobody(void)
{
	if (setgid(65534) || setuid(65534))
		_exit(0);   /* not root: there is nobody else to be */
	refused(&(struct neap_segment_options){0}, NEAP_ESYS, "Permission denied");
	if (chdir("/"))
		_exit(1);
}

static void as_another(void)
{
	if (setgid(65534) || setuid(65534))
		_exit(0);
	refused(&(struct neap_segment_options){0}, NEAP_EFOREIGN, "who is not expected");
	neap_segment_close(shared_open(&(struct neap_segment_options){.uid = 65533}));
}

static void as_owner(void)
{
	if (setgid(65533) || setuid(65533))
		_exit(0);
	neap_segment_close(shared_open(NULL));
}

static void no_space(struct dice *d)
{
	(void)d;
	unlink(shared_path());
	in_child(short_of_space);
}

static void permissions(struct dice *d)
{
	(void)d;
	unlink(shared_path());
	struct stat st;
	umask(077);
	neap_segment_close(shared_open(NULL));
	if (stat(shared_path(), &st) || (st.st_mode & 0777) != 0600)
		trial_fail("mode %o", st.st_mode & 0777);
	in_child(as_nobody);
	unlink(shared_path());
	if (geteuid())
		return;
	struct neap_segment_options o = {.mode = 0666, .uid = 65533, .gid = 65532};
	neap_segment_close(shared_open(&o));
	if (stat(shared_path(), &st) || (st.st_mode & 0777) != 0666 || st.st_uid != 65533 ||
	    st.st_gid != 65532)
		trial_fail("mode %o, uid %u, gid %u", st.st_mode & 0777, st.st_uid, st.st_gid);
	in_child(as_another);
	in_child(as_owner);
	refused(&(struct neap_segment_options){0}, NEAP_EFOREIGN, "belongs to uid 65533");
	unlink(shared_path());
}

/* Killed while it makes the file, at any moment: nobody is hindered, and all of it is there. */
static void killed_while_making(struct dice *d)
{
	for (int64_t i = trial_ops(100); i > 0; i--) {
		unlink(shared_path());
		int pipe_to[2];
		char byte;
		if (pipe(pipe_to))
			trial_fail("pipe");
		pid_t pid = shared_fork();
		if (!pid) {
			if (write(pipe_to[1], "", 1) != 1)
				_exit(1);
			neap_segment_close(shared_open(NULL));
			pause();
		}
		if (read(pipe_to[0], &byte, 1) != 1)
			trial_fail("read");
		usleep((useconds_t)dice_between(d, 0, 400));
		shared_kill(pid);
		close(pipe_to[0]);
		close(pipe_to[1]);
		struct neap_segment *s = shared_open(NULL);
		shared_add(s, "any", NEAP_WINDOW, 10);
		if (neap_segment_check(s))
			trial_fail("corrupt");
		neap_segment_close(s);
		char whole[128];
		snprintf(whole, sizeof whole, "%s.new.%d.%d", shared_path(), pid, pid);
		unlink(whole);
	}
	unlink(shared_path());
}

int main(void)
{
	trial_run("processes that begin at once have one segment", made_once);
	trial_run("one of a former start is replaced once", stale_once);
	trial_run("who comes late does not replace what is new", stale_late);
	trial_run("what is no segment, or none for us, is refused and left alone", foreign);
	trial_run("numbers out of range, and bounds lower than asked for", out_of_range);
	trial_run("without space nothing is made", no_space);
	trial_run("owner and permissions are as told, and others are refused", permissions);
	trial_run("who is killed while making one hinders nobody", killed_while_making);
	return trial_verdict();
}
