/* SPDX-License-Identifier: MIT */
/* attach.c - the file of a segment, and the processes that use it. Ring 2, for files and processes
 * are the world; segment.c, in ring 1, knows memory alone.
 *
 * Any number of processes may start at once, and none must see a file that is half made, nor a
 * second one. So it is made whole under another name, and then linked to its own, which happens or
 * does not: who comes second finds the first one's.
 *
 *      open PATH --- there ---> is it ours? ----- yes ----> map
 *         |  ^                       |
 *         |  |                       | of a former start of the machine
 *      not there <--- unlink --- lock it, and see that PATH is still this one
 *         |  |
 *         v  | taken meanwhile
 *      make PATH.new.PID, all of it; link it to PATH
 *
 * The state of a former start says nothing: clocks have begun anew. It can only be seen on a disk,
 * and nobody has it open; of those who find it at once the one with the lock removes it, and the
 * lock is on the file itself, so it is void for whoever comes when that is gone. In any other case
 * the name stays: a second file beside the one that others have open would be a second limit.
 *
 * Space is taken when the file is made: a hole in a full tmpfs kills whoever writes into it first.
 *
 * A process is known by its pid and when it started, and is dead when there is no such pid, or one
 * that started at another time, or a zombie whose threads are all gone. What cannot be seen (/proc
 * may hide others) is taken to be alive: then permits stay out, and that is all.
 *
 * A process maps a file once, however often it is opened there: the master of a server opens it anew
 * at each reload. So those who open it are counted, and the last to close unmaps it.
 *
 * A child made by fork has its parent's memory, what the parent knows of itself included. That is
 * set right in the child before fork answers.
 */
#define _GNU_SOURCE
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 1024, TRIES = 1000, STAT_BYTES = 1024 };

/* An open under way. */
struct attempt {
	char path[PATH_BYTES];
	struct neap_segment_options options, asked;
	int64_t bytes;            /* of one that is made */
	char boot[40];
	uint64_t pid_space;
	char *error;
	size_t size;
};

__attribute__((format(printf, 3, 4)))
static int complain(const struct attempt *a, int code, const char *format, ...)
{
	int saved = errno, used = snprintf(a->error, a->size, "%s: ", a->path);
	if (used >= 0 && (size_t)used < a->size) {
		va_list args;
		va_start(args, format);
		vsnprintf(a->error + used, a->size - (size_t)used, format, args);
		va_end(args);
	}
	errno = saved;
	return code;
}

/* ---- processes ---- */

/* The beginning of a small file, as a text; how many bytes, or -1. */
static ssize_t read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t got = read(fd, text, size - 1);
	close(fd);
	text[got > 0 ? got : 0] = '\0';
	return got;
}

/* When a process started, in ticks; 0: that cannot be seen. *gone: 1 when it is a zombie. */
static uint64_t started(const char *path, int *gone)
{
	char text[STAT_BYTES], state = 0;
	long threads = 0;
	unsigned long long ticks = 0;
	if (read_text(path, text, sizeof text) <= 0)
		return 0;
	const char *after = strrchr(text, ')');   /* the name before may hold anything */
	if (!after || sscanf(after + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d "
			     "%*d %*d %ld %*d %llu", &state, &threads, &ticks) != 3)
		return 0;
	*gone = (state == 'Z' || state == 'X') && threads <= 1;
	return ticks;
}

static int is_dead(const struct neap_process *p)
{
	char path[32];
	int gone = 0;
	if (kill(p->pid, 0) && errno == ESRCH)
		return 1;
	snprintf(path, sizeof path, "/proc/%d/stat", p->pid);
	uint64_t since = started(path, &gone);
	return since && (since != p->started || gone);
}

int64_t neap_header_reap(struct neap_header *h)
{
	int64_t back = 0;
	for (int32_t i = 1; i <= h->processes_max; i++) {
		if (!__atomic_load_n(&h->process[i].used, __ATOMIC_RELAXED))
			continue;
		struct neap_process p = neap_guard_process(h, i);
		if (!p.used || !is_dead(&p))
			continue;
		back += neap_stripes_reap(h, i, &p);
		back += neap_guard_reap(h, i, &p);   /* last, for it frees the record */
	}
	return back;
}

int64_t neap_segment_reap(struct neap_segment *s)
{
	return s->read_only ? 0 : neap_header_reap(s->header);
}

/* ---- this process ---- */

static struct {
	pthread_mutex_t mutex;
	struct neap_segment *first;
	int watched;              /* 1: forks are seen to */
} opened = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static int say_who(struct neap_here *here)
{
	int gone;
	*here = (struct neap_here){.pid = getpid(), .started = started("/proc/self/stat", &gone)};
	return here->started != 0;
}

static void before_fork(void) { pthread_mutex_lock(&opened.mutex); }

static void after_fork(void) { pthread_mutex_unlock(&opened.mutex); }

static void in_child(void)
{
	for (struct neap_segment *s = opened.first; s; s = s->next) {
		struct neap_here *here = neap_here_of(s->header);
		if (!s->read_only && !say_who(here))
			here->asked = 1;   /* whoever it is: what it takes is nobody's */
	}
	pthread_mutex_unlock(&opened.mutex);
}

/* One of this process that is mapped already, in the same way. */
static struct neap_segment *find_open(const struct stat *st, int read_only)
{
	struct neap_segment *s = opened.first;
	while (s && !(s->inode == (int64_t)st->st_ino && s->device == (int64_t)st->st_dev &&
		      s->read_only == read_only))
		s = s->next;
	return s;
}

static int enlist(struct neap_segment *s)
{
	if (!opened.watched)
		opened.watched = pthread_atfork(before_fork, after_fork, in_child) == 0;
	if (opened.watched) {
		s->next = opened.first;
		opened.first = s;
	}
	return opened.watched;
}

/* Free its record, unless it holds something: who opens it again has that then. */
static void resign(const struct neap_segment *s)
{
	struct neap_header *h = s->header;
	const struct neap_here *here = neap_here_of(h);
	const struct neap_process own = {1, here->pid, here->started};
	if (!here->process)
		return;
	int64_t held = neap_stripes_hold(h, here->process);
	for (int32_t i = 0; i < h->count; i++)
		held |= neap_slot_at(h, i)->holding[here->process];
	if (!held)
		neap_guard_forget(h, here->process, &own);
}

/* 1: that was its last use. */
static int strike_off(struct neap_segment *s)
{
	pthread_mutex_lock(&opened.mutex);
	int last = --s->uses == 0;
	struct neap_segment **at = &opened.first;
	while (last && *at != s)
		at = &(*at)->next;
	if (last) {
		*at = s->next;
		resign(s);
	}
	pthread_mutex_unlock(&opened.mutex);
	return last;
}

/* ---- the file ---- */

/* Write what makes it a segment. */
static int fill(const struct attempt *a, int fd)
{
	struct neap_header *h = mmap(NULL, (size_t)a->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (h == MAP_FAILED)
		return complain(a, NEAP_ENOMEM, "no memory to map it");
	neap_segment_format(h, &a->options);
	memcpy(h->boot, a->boot, sizeof h->boot);
	h->pid_space = a->pid_space;
	h->bytes = a->bytes;
	ssize_t drawn = getrandom(&h->id, sizeof h->id, 0);
	ssize_t secret = getrandom(h->secret, sizeof h->secret, 0);
	munmap(h, (size_t)a->bytes);
	return drawn == sizeof h->id && secret == sizeof h->secret
		       ? NEAP_OK : complain(a, NEAP_ESYS, "no random number");
}

static int make_whole(const struct attempt *a, int fd)
{
	const struct neap_segment_options *o = &a->options;
	do   /* in a tmpfs a signal ends it, and takes all back */
		errno = posix_fallocate(fd, 0, a->bytes);
	while (errno == EINTR);
	if (errno)
		return complain(a, NEAP_ESYS, "no space for %ld bytes: %s", (long)a->bytes,
				strerror(errno));
	if ((o->uid || o->gid) && fchown(fd, o->uid ? (uid_t)o->uid : (uid_t)-1,
					 o->gid ? (gid_t)o->gid : (gid_t)-1))
		return complain(a, NEAP_ESYS, "cannot be given to uid %ld, gid %ld: %s", (long)o->uid,
				(long)o->gid, strerror(errno));
	if (fchmod(fd, (mode_t)o->mode))
		return complain(a, NEAP_ESYS, "mode %o: %s", (unsigned)o->mode, strerror(errno));
	return fill(a, fd);
}

/* NEAP_OK also when somebody else was faster. */
static int make(const struct attempt *a)
{
	char whole[PATH_BYTES + 48];
	snprintf(whole, sizeof whole, "%s.new.%d.%d", a->path, getpid(), gettid());
	unlink(whole);   /* who had this pid before was killed */
	int fd = open(whole, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return complain(a, NEAP_ESYS, "cannot be made: %s", strerror(errno));
	int status = make_whole(a, fd);
	if (!status && link(whole, a->path) && errno != EEXIST)
		status = complain(a, NEAP_ESYS, "cannot be linked: %s", strerror(errno));
	int saved = errno;
	close(fd);
	unlink(whole);
	errno = saved;
	return status;
}

/* Remove one of a former start, unless somebody else has. */
static void remove_stale(const struct attempt *a, int fd)
{
	struct stat own, there;
	if (!flock(fd, LOCK_EX) && !fstat(fd, &own) && !lstat(a->path, &there) &&
	    own.st_ino == there.st_ino && own.st_dev == there.st_dev)
		unlink(a->path);
}

static int is_consistent(const struct neap_header *h, int64_t size)
{
	struct neap_segment_options o = {.limiters_max = h->limiters_max,
					 .processes_max = h->processes_max,
					 .log_bytes = h->bytes - h->memory_at};
	return h->bytes == size && h->limiters_max > 0 && h->processes_max > 0 && o.log_bytes > 0 &&
	       neap_segment_measure(&o) == size;
}

enum { STALE = 1 };

/* Is it a segment, and for us? STALE: of a former start. */
static int examine(const struct attempt *a, int fd, struct neap_header *h, struct stat *st)
{
	if (fstat(fd, st))
		return complain(a, NEAP_ESYS, "%s", strerror(errno));
	if (!S_ISREG(st->st_mode))
		return complain(a, NEAP_EFOREIGN, "not a file");
	if (st->st_uid != geteuid() && st->st_uid != 0 && (int64_t)st->st_uid != a->options.uid)
		return complain(a, NEAP_EFOREIGN, "belongs to uid %u, who is not expected",
				(unsigned)st->st_uid);
	if (pread(fd, h, sizeof *h, 0) != (ssize_t)sizeof *h || memcmp(h->magic, "neapseg", 8) != 0)
		return complain(a, NEAP_EFOREIGN, "not a segment");
	if (memcmp(h->boot, a->boot, sizeof h->boot) != 0)
		return a->options.how == NEAP_MAKE
			       ? STALE
			       : complain(a, NEAP_EFOREIGN, "is of before the machine was started");
	if (h->layout != NEAP_LAYOUT)
		return complain(a, NEAP_EFOREIGN, "has layout %u, and this is layout %d", h->layout,
				NEAP_LAYOUT);
	if (h->made_of != neap_segment_made_of())
		return complain(a, NEAP_EFOREIGN, "was made by a build of other sizes");
	if (!is_consistent(h, st->st_size))
		return complain(a, NEAP_EFOREIGN, "has %ld bytes, not those it says",
				(long)st->st_size);
	if (h->pid_space != a->pid_space)
		return complain(a, NEAP_EFOREIGN, "was made in another pid namespace");
	if (h->limiters_max < a->asked.limiters_max || h->processes_max < a->asked.processes_max ||
	    h->bytes - h->memory_at < a->asked.log_bytes)
		return complain(a, NEAP_EFULL, "has room for %d limiters, %d processes, %ld bytes of "
				"logs: less than asked for", h->limiters_max, h->processes_max,
				(long)(h->bytes - h->memory_at));
	return NEAP_OK;
}

static int map(const struct attempt *a, int fd, int64_t bytes, struct neap_segment *s)
{
	s->page = (size_t)sysconf(_SC_PAGESIZE);
	char *all = mmap(NULL, s->page + (size_t)bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		return complain(a, NEAP_ENOMEM, "no memory to map it");
	s->header = (struct neap_header *)(void *)(all + s->page);
	if (mmap(s->header, (size_t)bytes, PROT_READ | (s->read_only ? 0 : PROT_WRITE),
		 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
		munmap(all, s->page + (size_t)bytes);
		return complain(a, NEAP_ENOMEM, "no memory to map it");
	}
	if (!say_who(neap_here_of(s->header)) || !enlist(s)) {
		munmap(all, s->page + (size_t)bytes);
		return complain(a, NEAP_ESYS, "/proc/self/stat cannot be read");
	}
	return NEAP_OK;
}

static int map_new(const struct attempt *a, int fd, int64_t bytes, const struct stat *st,
		   struct neap_segment **out)
{
	struct neap_segment *s = calloc(1, sizeof *s);
	if (!s)
		return complain(a, NEAP_ENOMEM, "no memory");
	*s = (struct neap_segment){.device = (int64_t)st->st_dev, .inode = (int64_t)st->st_ino,
				   .read_only = a->options.how == NEAP_INSPECT};
	int status = map(a, fd, bytes, s);
	if (status)
		free(s);
	else
		*out = s;
	return status;
}

/* Map it, but once: who reloads opens it again and again. */
static int use(const struct attempt *a, int fd, int64_t bytes, const struct stat *st,
	       struct neap_segment **out)
{
	pthread_mutex_lock(&opened.mutex);
	struct neap_segment *s = find_open(st, a->options.how == NEAP_INSPECT);
	int status = s ? NEAP_OK : map_new(a, fd, bytes, st, &s);
	if (!status) {
		s->uses++;
		*out = s;
	}
	pthread_mutex_unlock(&opened.mutex);
	return status;
}

/* Once: NEAP_OK, an error, or 1: look again. */
static int attach(const struct attempt *a, struct neap_segment **out)
{
	struct neap_header h = {.bytes = 0};
	struct stat st;
	int access = a->options.how == NEAP_INSPECT ? O_RDONLY : O_RDWR;
	int fd = open(a->path, access | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT && a->options.how == NEAP_MAKE) {
		int status = make(a);
		return status ? status : 1;
	}
	if (fd < 0)
		return complain(a, NEAP_ESYS, "cannot be opened: %s", strerror(errno));
	int status = examine(a, fd, &h, &st);
	if (status == STALE)
		remove_stale(a, fd);
	else if (!status)
		status = use(a, fd, h.bytes, &st, out);
	int saved = errno;
	close(fd);
	errno = saved;
	return status;
}

/* What has to be known of the machine. */
static int prepare(struct attempt *a, const char *name)
{
	struct stat st;
	int length = snprintf(a->path, sizeof a->path, "%s%s", strchr(name, '/') ? "" : "/dev/shm/",
			      name);
	a->bytes = neap_segment_measure(&a->options);
	if (!name[0] || length < 0 || (size_t)length >= sizeof a->path)
		return complain(a, NEAP_ERANGE, "a name has 1 to %d bytes", PATH_BYTES - 16);
	if (a->bytes < 0 || a->options.how < NEAP_MAKE || a->options.how > NEAP_INSPECT)
		return complain(a, NEAP_ERANGE, "an option is out of its range");
	if (read_text("/proc/sys/kernel/random/boot_id", a->boot, sizeof a->boot - 3) <= 0 ||
	    stat("/proc/self/ns/pid", &st))
		return complain(a, NEAP_ESYS, "/proc cannot be read: %s", strerror(errno));
	a->pid_space = st.st_ino;
	return NEAP_OK;
}

int neap_segment_open(const char *name, const struct neap_segment_options *options,
		      struct neap_segment **out, char *error, size_t size)
{
	struct attempt a = {.options = *options, .asked = *options, .error = error, .size = size};
	int status = prepare(&a, name);
	if (status)
		return status;
	status = 1;
	for (int left = TRIES; left && status > 0; left--)
		status = attach(&a, out);
	if (status > 0) {
		errno = EAGAIN;
		status = complain(&a, NEAP_ESYS, "is removed again and again");
	}
	return status;
}

void neap_segment_close(struct neap_segment *s)
{
	if (!s || !strike_off(s))
		return;
	munmap((char *)s->header - s->page, s->page + (size_t)s->header->bytes);
	free(s);
}
