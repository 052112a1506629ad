/* SPDX-License-Identifier: MIT */
/* save.c - a file written aside while the loop goes on.
 *
 * To write some megabytes takes a moment, and to know that they are on the disk may take seconds;
 * so both are done by a thread, which has nothing but the bytes. It writes another file beside the
 * one there is, waits until it is on the disk, and renames it: whoever reads finds the old one or the
 * new one, whole. When that fails the old one stays as it is.
 *
 * Ahead of the bytes goes a line with their number and a hash of them. A file cut short, or changed
 * by something else, is known by it; it is no seal, for its key is in here for all to read.
 */
#include "neap.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint8_t KEY[16] = "neap state, 2026";

struct neap_save {
	char *data;
	int64_t size, room;
	char *path, *aside;
	int started, failed;      /* failed: an errno */
	int done;                 /* atomic */
	pthread_t thread;
};

uint64_t neap_save_hash(const char *data, int64_t size)
{
	return neap_hash(KEY, data, (size_t)size);
}

struct neap_save *neap_save_open(const char *path)
{
	struct neap_save *s = calloc(1, sizeof *s);
	size_t length = strlen(path);
	if (!s)
		return NULL;
	s->path = malloc(length + 1);
	s->aside = malloc(length + 5);
	if (!s->path || !s->aside) {
		neap_save_close(s);
		return NULL;
	}
	memcpy(s->path, path, length + 1);
	memcpy(s->aside, path, length);
	memcpy(s->aside + length, ".new", 5);
	return s;
}

int neap_save_put(struct neap_save *s, const char *data, int64_t size)
{
	assert(!s->started && size >= 0);
	if (s->size + size > s->room) {
		int64_t room = 2 * (s->size + size) + 4096;
		char *more = realloc(s->data, (size_t)room);
		if (!more)
			return NEAP_ENOMEM;
		s->data = more;
		s->room = room;
	}
	memcpy(s->data + s->size, data, (size_t)size);
	s->size += size;
	return NEAP_OK;
}

/* 0, or an errno. */
static int write_all(int fd, const char *data, int64_t size)
{
	while (size > 0) {
		ssize_t n = write(fd, data, (size_t)size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? errno : EIO;
		data += n;
		size -= n;
	}
	return 0;
}

static int write_aside(const struct neap_save *s)
{
	char line[64];
	int n = snprintf(line, sizeof line, "neap-state 1 %016" PRIx64 " %" PRId64 "\n",
			 neap_save_hash(s->data, s->size), s->size);
	int fd = open(s->aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	int problem = write_all(fd, line, n);
	if (!problem)
		problem = write_all(fd, s->data, s->size);
	if (!problem && fsync(fd))
		problem = errno;
	if (close(fd) && !problem)
		problem = errno;
	return problem;
}

/* The name in the folder is on the disk, too. */
static void sync_folder(char *path)
{
	int fd = open(dirname(path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	fsync(fd);
	close(fd);
}

static void *save(void *of)
{
	struct neap_save *s = of;
	s->failed = write_aside(s);
	if (!s->failed && rename(s->aside, s->path))
		s->failed = errno;
	if (s->failed)
		unlink(s->aside);
	else
		sync_folder(s->path);
	__atomic_store_n(&s->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

int neap_save_start(struct neap_save *s)
{
	assert(!s->started);
	sigset_t all, before;
	sigfillset(&all);   /* a file that may not grow is an error, not a signal */
	pthread_sigmask(SIG_SETMASK, &all, &before);
	s->started = !pthread_create(&s->thread, NULL, save, s);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return s->started ? NEAP_OK : NEAP_ENOMEM;
}

int neap_save_over(struct neap_save *s)
{
	return __atomic_load_n(&s->done, __ATOMIC_ACQUIRE);
}

const char *neap_save_problem(const struct neap_save *s)
{
	return s->failed ? strerror(s->failed) : NULL;
}

void neap_save_close(struct neap_save *s)
{
	if (!s)
		return;
	if (s->started)
		pthread_join(s->thread, NULL);
	free(s->data);
	free(s->path);
	free(s->aside);
	free(s);
}
