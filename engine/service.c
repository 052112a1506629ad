/* SPDX-License-Identifier: MIT */
/* service.c - what a process and its supervisor tell each other.
 *
 * systemd's protocol is a datagram of lines, NAME=value, to a Unix socket whose name comes in the
 * environment (sd_notify(3)); its library would be a dependency for these few lines. A name that
 * begins with @ is in the abstract namespace, where a 0 stands for the @.
 *
 * It is sent without waiting. A supervisor that does not read must not stop a worker; the next
 * word comes a moment later.
 */
#define _GNU_SOURCE
#include "neap.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int neap_service_tell(const char *socket_name, const char *text, size_t size)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	size_t length = strlen(socket_name);
	if ((*socket_name != '/' && *socket_name != '@') || length < 2 || length >= sizeof a.sun_path)
		return NEAP_ERANGE;
	memcpy(a.sun_path, socket_name, length);
	if (*socket_name == '@')
		a.sun_path[0] = 0;
	else
		length++;   /* a path with its 0 */
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return NEAP_ESYS;
	ssize_t sent = sendto(fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&a,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
	close(fd);
	return sent == (ssize_t)size ? NEAP_OK : NEAP_ESYS;
}

int neap_service_is(int fd, uint64_t device, uint64_t inode)
{
	struct stat st;
	return !fstat(fd, &st) && st.st_dev == device && st.st_ino == inode;
}

int64_t neap_service_process(void) { return getpid(); }

/* What differs when the file does: numbers are mixed as by FNV-1a, with words for bytes. */
int64_t neap_service_stamp(const char *path)
{
	struct stat st;
	if (stat(path, &st))
		return 0;
	uint64_t part[] = {st.st_dev, st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec,
			   (uint64_t)st.st_mtim.tv_nsec};
	uint64_t stamp = 14695981039346656037u;
	for (size_t i = 0; i < sizeof part / sizeof *part; i++)
		stamp = (stamp ^ part[i]) * 1099511628211u;
	return (int64_t)(stamp >> 2 | 1);
}
