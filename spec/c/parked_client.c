/* SPDX-License-Identifier: MIT */
/* parked_client.c - a crowd of connections that wait at one worker for one permit.
 *
 *     parked_client HOST PORT COUNT PID
 *
 * The worker, process PID, has a policy "one", 1 in flight. All ask with BLOCK 0, one after the
 * other; who is granted gives back, and the next is granted. Meanwhile somebody else says PING again
 * and again. Prints what was seen: "count", "order" (grants out of turn), "bytes" (of memory that the
 * worker grew by, for each who waited), and "ping_p50_us", "ping_p99_us", "ping_max_us" of PINGs
 * while all wait and while grants go round.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PINGS = 2000, PATIENCE_MS = 60000 };

static struct sockaddr_in address = {.sin_family = AF_INET};
static int64_t ping_ns[2 * PINGS + 100000];
static int pings;

static void fail(const char *what)
{
	fprintf(stderr, "parked_client: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static int dial(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
		fail("connect");
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	return fd;
}

static void say(int fd, const char *line)
{
	if (send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
		fail("send");
}

/* Read until 'end' is there; what was read, ended by a zero. */
static const char *hear(int fd, const char *end)
{
	static char text[4096];
	size_t size = 0;
	do {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (poll(&p, 1, PATIENCE_MS) != 1) {
			errno = ETIMEDOUT;
			fail("nothing comes");
		}
		ssize_t n = recv(fd, text + size, sizeof text - 1 - size, 0);
		if (n <= 0)
			fail("recv");
		size += (size_t)n;
		text[size] = '\0';
	} while (!strstr(text, end));
	return text;
}

static void ping(int fd)
{
	int64_t began = now_ns();
	say(fd, "PING\r\n");
	hear(fd, "+PONG\r\n");
	ping_ns[pings++] = now_ns() - began;
}

/* Kilobytes of memory that a process has in use. */
static long memory(const char *pid)
{
	char path[64], line[256];
	long kb = -1;
	snprintf(path, sizeof path, "/proc/%s/status", pid);
	FILE *file = fopen(path, "r");
	if (!file)
		fail(path);
	while (fgets(line, sizeof line, file))
		if (sscanf(line, "VmRSS: %ld kB", &kb) == 1)
			break;
	fclose(file);
	return kb;
}

static int by_size(const void *x, const void *y)
{
	int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
	return (a > b) - (a < b);
}

/* How many wait, by the worker's own account. */
static long waiting(int fd)
{
	static const char name[] = "blocked_clients:";
	say(fd, "INFO clients\r\nPING\r\n");
	const char *at = strstr(hear(fd, "+PONG\r\n"), name);
	return at ? atol(at + sizeof name - 1) : -1;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	int count = atoi(argv[3]);
	inet_pton(AF_INET, argv[1], &address.sin_addr);
	address.sin_port = htons((uint16_t)atoi(argv[2]));
	struct rlimit files = {(rlim_t)count + 64, (rlim_t)count + 64};
	if (setrlimit(RLIMIT_NOFILE, &files) < 0)
		fail("too many connections");

	int holder = dial(), watcher = dial(), *crowd = malloc(sizeof(int) * (size_t)count);
	if (!crowd)
		fail("memory");
	for (int i = 0; i < 100; i++)   /* what the worker needs once, it has by then */
		ping(watcher);
	pings = 0;
	say(holder, "NEAP.ACQUIRE one\r\n");
	char lease[64] = "", line[128];
	if (sscanf(strstr(hear(holder, "\r\n$0\r\n"), "$16"), "$16 %16s", lease) != 1)
		fail("no lease");
	long before = memory(argv[4]);
	for (int i = 0; i < count; i++) {
		crowd[i] = dial();
		say(crowd[i], "NEAP.ACQUIRE one BLOCK 0\r\n");
		if (i % 64 == 63)
			ping(watcher);   /* it has seen those: they stand in this order */
	}
	for (int tries = 0; waiting(watcher) < count; tries++) {
		if (tries == PATIENCE_MS) {
			errno = ETIMEDOUT;
			fail("not all wait");
		}
		usleep(1000);
	}
	long after = memory(argv[4]);
	for (int i = 0; i < PINGS; i++)
		ping(watcher);

	int order = 0;
	for (int i = 0; i < count; i++) {
		snprintf(line, sizeof line, "NEAP.RELEASE %s\r\n", lease);
		say(i ? crowd[i - 1] : holder, line);
		const char *text = hear(crowd[i], "\r\n$0\r\n"), *at = strstr(text, "$16");
		order += !strstr(text, "GRANTED") || !at;
		if (!at || sscanf(at, "$16 %16s", lease) != 1)
			fail("no lease for the next in line");
		if (i % 8 == 0)
			ping(watcher);
	}
	qsort(ping_ns, (size_t)pings, sizeof *ping_ns, by_size);
	printf("count %d\norder %d\nbytes %ld\nping_p50_us %ld\nping_p99_us %ld\nping_max_us %ld\n",
	       count, order, (after - before) * 1024 / count, (long)(ping_ns[pings / 2] / 1000),
	       (long)(ping_ns[pings * 99 / 100] / 1000), (long)(ping_ns[pings - 1] / 1000));
	return 0;
}
