/* SPDX-License-Identifier: MIT */
/* peer.h - both ends of a socket in one thread, for the tests of the server.
 *
 * A client here is a blocking socket with a short patience. Between what it sends and what it reads
 * the server has its turns; 'settle' runs them until nothing moves. The layer above is 'above',
 * a few commands that park, resume, hang up and log in. Time is given, except that sockets are
 * real. Prints TAP.
 */
#ifndef PEER_H
#define PEER_H

#include "neap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct neap_loop *loop;
static struct neap_server *server;
static struct neap_keys *keys;
static struct neap_command cmd;
static int ping, echo, park, bye, login, big, skip, cl_throttle, gcra;
static neap_ns now = 1;
static int64_t parked, closed_count, up_count;
static const char *note;
static int number, failures;

__attribute__((format(printf, 2, 3)))
static int check(int ok, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	printf("%s %d - ", ok ? "ok" : "not ok", ++number);
	vprintf(format, args);
	putchar('\n');
	va_end(args);
	failures += !ok;
	return ok;
}

/* ---- the layer above ---- */

/* A request of HTTP: "/park" parks, "/big" is answered at length, others with what was asked. */
static void above_http(struct neap_reply *r)
{
	static const char block[200000];
	const struct neap_span *target = &cmd.argv[1], *body = &cmd.argv[2];
	char text[256];
	int size = snprintf(text, sizeof text, "%.*s %.*s %.*s %u\n", (int)cmd.argv[0].size,
			    cmd.argv[0].data, (int)target->size, target->data, (int)body->size,
			    body->data, (cmd.argc - 3) / 2);
	if (target->size == 5 && !memcmp(target->data, "/park", 5)) {
		parked = cmd.client;
		neap_server_park(server, cmd.client);
		return;
	}
	int is_big = target->size == 4 && !memcmp(target->data, "/big", 4);
	neap_http_status(r, 200, cmd.how);
	neap_http_body(r, is_big ? block : text, is_big ? sizeof block : (size_t)size, cmd.how);
	if (cmd.how & NEAP_HTTP_CLOSES)
		neap_server_hang_up(server, cmd.client);
}

static void above(void)
{
	struct neap_reply *r = neap_server_reply(server, cmd.client);
	up_count++;
	if (cmd.kind == NEAP_CLOSED) {
		closed_count++;
		note = cmd.note ? cmd.note : note;
	} else if (cmd.kind == NEAP_REQUEST) {
		above_http(r);
	} else if (cmd.kind == park) {
		parked = cmd.client;
		neap_server_park(server, cmd.client);
	} else if (cmd.kind == bye) {
		neap_reply_status(r, "OK", 2);
		neap_server_hang_up(server, cmd.client);
	} else if (cmd.kind == login) {
		neap_server_login(server, cmd.client, "app", NEAP_ALLOW_READ);
		neap_reply_status(r, "OK", 2);
	} else if (cmd.kind == big) {
		static const char block[60000];
		for (int i = 0; i < 16; i++)
			neap_reply_bulk(r, block, sizeof block);
	} else if (cmd.kind == skip) {
		neap_server_mute(server, cmd.client, NEAP_MUTE_ONE);
	} else {
		neap_reply_status(r, "UP", 2);
	}
}

static void turns(int count)
{
	while (count--) {
		neap_loop_turn(loop, 0);
		while (neap_server_next(server, now, &cmd))
			above();
	}
}

static void settle(void)
{
	turns(20);
}

static void open_server(uint32_t clients_max, int guarded)
{
	uint8_t secret[16] = {42};
	loop = neap_loop_open(0);
	server = loop ? neap_server_open(loop, clients_max) : NULL;
	keys = neap_keys_open(1000, secret);
	if (!server || !keys)
		exit(2);
	if (guarded)
		neap_server_guard(server);
	ping = neap_server_define(server, "PING", -1, 0);
	echo = neap_server_define(server, "ECHO", 2, 0);
	park = neap_server_define(server, "PARK", 1, 0);
	bye = neap_server_define(server, "QUIT", -1, NEAP_BEFORE_LOGIN);
	login = neap_server_define(server, "AUTH", -2, NEAP_BEFORE_LOGIN);
	big = neap_server_define(server, "BIG", 1, 0);
	skip = neap_server_define(server, "SKIP", 1, 0);
	cl_throttle = neap_server_define(server, "CL.THROTTLE", -5, NEAP_ALLOW_ACQUIRE);
	gcra = neap_server_define(server, "GCRA", -5, NEAP_ALLOW_ACQUIRE);
	neap_server_define(server, "GET", 2, NEAP_ALLOW_READ);
	neap_server_throttle(server, keys);
	parked = closed_count = up_count = 0;
	note = NULL;
}

static void close_server(void)
{
	neap_server_close(server);
	neap_loop_close(loop);
	neap_keys_close(keys);
}

/* ---- the other end ---- */

static int port_of(int listener)
{
	return atoi(strrchr(neap_server_address(server, listener), ':') + 1);
}

static int dial(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct timeval patience = {.tv_usec = 200000};
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
		return -1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);   /* each piece arrives as one */
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	settle();
	return fd;
}

/* Have the server listen, and connect. */
static int listen_dial_on(int (*how)(struct neap_server *s, const char *address, char *error,
					size_t size))
{
	char error[128];
	if (how(server, "127.0.0.1:0", error, sizeof error)) {
		printf("# %s\n", error);
		exit(2);
	}
	return dial(port_of(0));
}

static inline int listen_dial(void) { return listen_dial_on(neap_server_listen); }

static void say(int fd, const char *text, size_t size)
{
	while (size) {
		ssize_t sent = send(fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent > 0) {
			text += sent;
			size -= (size_t)sent;
		} else if (sent < 0 && errno != EAGAIN) {
			return;
		}
		settle();
	}
}

/* All that comes, up to the end (then *ended) or until nothing does; NUL-terminated. */
static size_t hear(int fd, char *text, size_t room, int *ended)
{
	size_t size = 0;
	*ended = 0;
	settle();
	for (;;) {
		ssize_t got = recv(fd, text + size, room - 1 - size, MSG_DONTWAIT);
		if (got == 0 || (got < 0 && errno != EAGAIN))
			*ended = 1;
		if (got <= 0)
			break;
		size += (size_t)got;
		settle();
	}
	text[size] = 0;
	return size;
}

static int expect(int fd, const char *sent, const char *expected, int then_closed)
{
	static char text[1 << 21];
	int ended;
	say(fd, sent, strlen(sent));
	hear(fd, text, sizeof text, &ended);
	int ok = !strcmp(text, expected) && ended == then_closed;
	if (!ok)
		printf("# got '%.200s', %s\n", text, ended ? "closed" : "open");
	return ok;
}

static int finish(void)
{
	printf("1..%d\n", number);
	return failures != 0;
}

#endif
