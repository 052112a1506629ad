/* SPDX-License-Identifier: MIT */
/* listener.c - where clients come in, and the server's beginning and end.
 *
 * Accepting is bounded three ways: 64 a turn, so that a flood does not hold up those who are in;
 * clients_max, beyond which a connection is told so and closed; and descriptors. Running out of
 * those must not spin: accept fails, the connection stays in the kernel's queue and the listener
 * readable for ever. So one descriptor is kept in reserve, given up to accept the connection, tell
 * it so and close it, and taken again. If even that fails the system is short of more than
 * descriptors, and the listener rests until the next second.
 *
 * A Unix socket's file outlives its process. One in the way is tried first: if nobody answers, it
 * is stale and goes; if somebody does, the address is in use, as with a port. At the end we remove
 * the file only if it is still the one we made.
 *
 * Without users anybody who can connect may do anything, so then only this machine can connect.
 */
#define _GNU_SOURCE
#include "client.h"
#include "loop.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ACCEPTS = 64, BACKLOG = 511, OWN_DESCRIPTORS = 32, CLIENTS_MAX = 65536 };

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un local;
	struct sockaddr_storage storage;
};

static const char full[] = "-ERR max number of clients reached\r\n";
static const char busy[] = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
			   "Retry-After: 1\r\nContent-Length: 0\r\n\r\n";

/* ---- coming in ---- */

static void turn_away(struct listener *l, int fd)
{
	ssize_t sent = send(fd, l->http ? busy : full, (l->http ? sizeof busy : sizeof full) - 1,
			    MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)sent;   /* manners; that it may not arrive changes nothing */
	close(fd);
	l->server->stats.refused++;
}

static int spare_descriptor(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

/* No descriptor left: use the spare one. Says whether the connection is gone from the queue. */
static int turn_away_blind(struct listener *l)
{
	struct neap_server *s = l->server;
	if (s->spare >= 0)
		close(s->spare);
	int fd = accept4(l->watch.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd >= 0)
		turn_away(l, fd);
	s->spare = spare_descriptor();
	return fd >= 0;
}

static void on_connection(struct ev_loop *ev, struct ev_io *watch, int events)
{
	(void)events;
	struct listener *l = watch->data;
	struct neap_server *s = l->server;
	for (int i = 0; i < ACCEPTS; i++) {
		int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			if (s->stats.clients >= s->stats.clients_max || !client_open(l, fd))
				turn_away(l, fd);
		} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			if (turn_away_blind(l))
				continue;
			ev_io_stop(ev, watch);
			ev_timer_again(ev, &s->sweep);
			return;
		} else if (errno != ECONNABORTED && errno != EINTR && errno != EPROTO) {
			return;
		}
	}
}

static void on_sweep(struct ev_loop *ev, struct ev_timer *sweep, int events)
{
	(void)events;
	struct neap_server *s = sweep->data;
	for (int i = 0; i < s->listeners; i++)
		if (s->listener[i].watch.fd >= 0)
			ev_io_start(ev, &s->listener[i].watch);
	if (!clients_sweep(s))
		ev_timer_stop(ev, sweep);
}

static void on_before_sleep(struct ev_loop *ev, struct ev_prepare *before, int events)
{
	(void)ev, (void)events;
	struct neap_server *s = before->data;
	while (linked(&s->dirty))
		client_flush(client_of(s->dirty.next, dirty));
}

static void on_awake(struct ev_loop *ev, struct ev_idle *awake, int events)
{
	(void)ev, (void)awake, (void)events;   /* that the loop did not sleep is all */
}

/* ---- listening ---- */

__attribute__((format(printf, 4, 5)))
static int complain(char *error, size_t size, int code, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(error, size, format, args);
	va_end(args);
	return code;
}

static void describe(const union address *a, char *text, size_t size)
{
	char host[INET6_ADDRSTRLEN] = "";
	if (a->any.sa_family == AF_INET) {
		inet_ntop(AF_INET, &a->v4.sin_addr, host, sizeof host);
		snprintf(text, size, "%s:%d", host, ntohs(a->v4.sin_port));
	} else if (a->any.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &a->v6.sin6_addr, host, sizeof host);
		snprintf(text, size, "[%s]:%d", host, ntohs(a->v6.sin6_port));
	} else {
		snprintf(text, size, "unix:%.107s", a->any.sa_family == AF_UNIX ? a->local.sun_path : "");
	}
}

static int is_loopback(const struct sockaddr *a)
{
	const union address *u = (const union address *)(const void *)a;
	if (a->sa_family == AF_INET)
		return ntohl(u->v4.sin_addr.s_addr) >> 24 == 127;
	return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&u->v6.sin6_addr);
}

/* A bound and listening descriptor, or -1 with errno. */
static int bound(const struct sockaddr *a, socklen_t size)
{
	int on = 1, fd = socket(a->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (a->sa_family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (a->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
	if (bind(fd, a, size) || listen(fd, BACKLOG)) {
		int why = errno;
		close(fd);
		errno = why;
		return -1;
	}
	return fd;
}

/* Is a Unix socket's file left over from a process that is gone? */
static int is_stale(const struct sockaddr_un *a)
{
	struct stat st;
	if (lstat(a->sun_path, &st) || !S_ISSOCK(st.st_mode))
		return 0;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	int stale = connect(fd, (const struct sockaddr *)a, sizeof *a) && errno == ECONNREFUSED;
	close(fd);
	return stale;
}

static int listen_unix(const char *path, char *error, size_t size)
{
	union address a = {.local = {.sun_family = AF_UNIX}};
	if (!*path || strlen(path) >= sizeof a.local.sun_path)
		return complain(error, size, NEAP_ERANGE, "unix:%s: a path has 1 to %zu bytes", path,
				sizeof a.local.sun_path - 1);
	strcpy(a.local.sun_path, path);
	int fd = bound(&a.any, sizeof a.local);
	if (fd < 0 && errno == EADDRINUSE && is_stale(&a.local) && !unlink(path))
		fd = bound(&a.any, sizeof a.local);
	if (fd < 0)
		return complain(error, size, NEAP_ESYS, "unix:%s: %s", path, strerror(errno));
	return fd;
}

/* "host:port", "[v6]:port". NEAP_ERANGE when it reads wrong. */
static int split(const char *address, char *host, size_t size, const char **port)
{
	const char *colon = strrchr(address, ':');
	if (!colon || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1))
		return NEAP_ERANGE;
	const char *from = address, *end = colon;
	if (*from == '[') {
		if (end[-1] != ']')
			return NEAP_ERANGE;
		from++;
		end--;
	}
	if (end <= from || (size_t)(end - from) >= size || strtol(colon + 1, NULL, 10) > 65535)
		return NEAP_ERANGE;
	memcpy(host, from, (size_t)(end - from));
	host[end - from] = 0;
	*port = colon + 1;
	return NEAP_OK;
}

static int listen_tcp(const struct neap_server *s, const char *address, char *error, size_t size)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *found;
	char host[256];
	const char *port;
	if (split(address, host, sizeof host, &port))
		return complain(error, size, NEAP_ERANGE,
				"%s: expected host:port, [address]:port or unix:/path", address);
	int failed = getaddrinfo(strcmp(host, "*") ? host : NULL, port, &hints, &found);
	if (failed)
		return complain(error, size, NEAP_ESYS, "%s: %s", address, gai_strerror(failed));
	int fd = NEAP_ESYS;
	complain(error, size, 0, "%s: no address", address);
	for (struct addrinfo *a = found; a && fd < 0; a = a->ai_next) {
		if (!s->guarded && !is_loopback(a->ai_addr)) {
			fd = complain(error, size, NEAP_ERANGE,
				      "%s: without users only this machine may connect: "
				      "127.0.0.1, [::1] or unix:/path", address);
			continue;
		}
		fd = bound(a->ai_addr, a->ai_addrlen);
		if (fd < 0)
			fd = complain(error, size, NEAP_ESYS, "%s: %s", address, strerror(errno));
	}
	freeaddrinfo(found);
	return fd;
}

static struct listener *add_listener(struct neap_server *s, int fd, int http)
{
	struct listener *l = &s->listener[s->listeners++];
	union address own = {.any = {0}};
	socklen_t length = sizeof own;
	*l = (struct listener){.server = s, .http = http};
	if (!getsockname(fd, &own.any, &length))
		describe(&own, l->address, sizeof l->address);
	ev_io_init(&l->watch, on_connection, fd, EV_READ);
	l->watch.data = l;
	ev_io_start(s->ev, &l->watch);
	return l;
}

static int no_room(const char *name, char *error, size_t size)
{
	return complain(error, size, NEAP_EFULL, "%s: %d listeners are the most", name, LISTENERS);
}

static int listen_on(struct neap_server *s, int http, const char *address, char *error,
		     size_t size)
{
	if (s->listeners == LISTENERS)
		return no_room(address, error, size);
	int is_unix = strncmp(address, "unix:", 5) == 0;
	int fd = is_unix ? listen_unix(address + 5, error, size) : listen_tcp(s, address, error, size);
	if (fd < 0)
		return fd;
	struct listener *l = add_listener(s, fd, http);
	struct stat st;
	if (is_unix && !stat(address + 5, &st)) {
		l->device = st.st_dev;
		l->inode = st.st_ino;
	}
	return s->listeners - 1;
}

int neap_server_adopt(struct neap_server *s, int fd, int http, char *error, size_t size)
{
	int listens = 0, type = 0;
	socklen_t length = sizeof listens;
	union address own = {.any = {0}};
	char name[32];
	snprintf(name, sizeof name, "descriptor %d", fd);
	if (s->listeners == LISTENERS)
		return no_room(name, error, size);
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) ||
	    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length))
		return complain(error, size, NEAP_ESYS, "%s: %s", name, strerror(errno));
	if (!listens || type != SOCK_STREAM)
		return complain(error, size, NEAP_ERANGE, "%s: no stream socket that listens", name);
	length = sizeof own;
	if (getsockname(fd, &own.any, &length))
		return complain(error, size, NEAP_ESYS, "%s: %s", name, strerror(errno));
	if (!s->guarded && own.any.sa_family != AF_UNIX && !is_loopback(&own.any))
		return complain(error, size, NEAP_ERANGE,
				"%s: without users only this machine may connect", name);
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) ||
	    fcntl(fd, F_SETFD, fcntl(fd, F_GETFD) | FD_CLOEXEC))
		return complain(error, size, NEAP_ESYS, "%s: %s", name, strerror(errno));
	add_listener(s, fd, http);
	return s->listeners - 1;
}

int neap_server_listen(struct neap_server *s, const char *address, char *error, size_t size)
{
	return listen_on(s, 0, address, error, size);
}

int neap_server_listen_http(struct neap_server *s, const char *address, char *error, size_t size)
{
	return listen_on(s, 1, address, error, size);
}

const char *neap_server_address(const struct neap_server *s, int listener)
{
	return listener >= 0 && listener < s->listeners ? s->listener[listener].address : NULL;
}

static void stop_listening(struct listener *l)
{
	struct stat st;
	if (l->watch.fd < 0)
		return;
	ev_io_stop(l->server->ev, &l->watch);
	close(l->watch.fd);
	ev_io_set(&l->watch, -1, EV_READ);
	if (l->inode && !lstat(l->address + 5, &st) && st.st_dev == l->device &&
	    st.st_ino == l->inode)
		unlink(l->address + 5);
}

void neap_server_drain(struct neap_server *s)
{
	for (int i = 0; i < s->listeners; i++)
		if (!s->listener[i].http)
			stop_listening(&s->listener[i]);
}

void neap_server_guard(struct neap_server *s) { s->guarded = 1; }

/* ---- beginning and end ---- */

struct neap_server *neap_server_open(struct neap_loop *loop, uint32_t clients_max)
{
	struct rlimit files;
	if (clients_max < 1 || clients_max > CLIENTS_MAX)
		return NULL;
	if (!getrlimit(RLIMIT_NOFILE, &files) && files.rlim_cur < clients_max + OWN_DESCRIPTORS)
		clients_max = files.rlim_cur > OWN_DESCRIPTORS ?
			(uint32_t)files.rlim_cur - OWN_DESCRIPTORS : 1;
	struct neap_server *s = calloc(1, sizeof *s);
	if (!s)
		return NULL;
	s->slot = calloc(clients_max, sizeof(struct client *));
	s->unused = calloc(clients_max, sizeof *s->unused);
	if (!s->slot || !s->unused) {
		free(s->slot);
		free(s->unused);
		free(s);
		return NULL;
	}
	while (s->unused_count < clients_max) {
		s->unused[s->unused_count] = clients_max - 1 - s->unused_count;
		s->unused_count++;
	}
	s->stats.clients_max = clients_max;
	s->ev = neap_loop_ev(loop);
	s->spare = spare_descriptor();
	s->sink.proto = 2;
	s->turn_left = TURN;
	neap_parse_init(&s->parse);
	neap_http_init(&s->web);
	link_init(&s->ages);
	link_init(&s->ready);
	link_init(&s->heard);
	link_init(&s->later);
	link_init(&s->dirty);
	link_init(&s->gone);
	ev_prepare_init(&s->before_sleep, on_before_sleep);
	ev_idle_init(&s->awake, on_awake);
	ev_init(&s->sweep, on_sweep);
	s->sweep.repeat = 1;
	s->before_sleep.data = s->awake.data = s->sweep.data = s;
	ev_prepare_start(s->ev, &s->before_sleep);
	return s;
}

void neap_server_close(struct neap_server *s)
{
	if (!s)
		return;
	for (int i = 0; i < s->listeners; i++)
		stop_listening(&s->listener[i]);
	while (linked(&s->ages))
		client_drop(client_of(s->ages.next, age), NULL);
	while (linked(&s->gone))
		client_free(client_of(s->gone.next, age));
	ev_prepare_stop(s->ev, &s->before_sleep);
	ev_idle_stop(s->ev, &s->awake);
	ev_timer_stop(s->ev, &s->sweep);
	if (s->spare >= 0)
		close(s->spare);
	free(s->slot);
	free(s->unused);
	free(s);
}

/* ---- looking ---- */

struct neap_reply *neap_server_reply(struct neap_server *s, int64_t client)
{
	struct client *c = client_find(s, client);
	s->sink.failed = 0;
	return c ? client_reply(c) : &s->sink;
}

struct neap_reply *neap_server_push(struct neap_server *s, int64_t client)
{
	struct client *c = client_find(s, client);
	s->sink.failed = 0;
	return c ? client_push(c) : &s->sink;
}

int neap_server_client(struct neap_server *s, int64_t client, struct neap_client *out)
{
	struct client *c = client_find(s, client);
	if (!c)
		return NEAP_ERANGE;
	union address peer = {.any = {0}}, own = {.any = {0}};
	socklen_t peer_size = sizeof peer, own_size = sizeof own;
	s->addr[0] = s->laddr[0] = 0;
	if (!getsockname(c->fd, &own.any, &own_size))
		describe(&own, s->laddr, sizeof s->laddr);
	if (own.any.sa_family == AF_UNIX)
		memcpy(s->addr, s->laddr, sizeof s->addr);
	else if (!getpeername(c->fd, &peer.any, &peer_size))
		describe(&peer, s->addr, sizeof s->addr);
	*out = (struct neap_client){
		.id = c->id, .since = c->since, .last = c->last, .commands = c->commands,
		.addr = s->addr, .laddr = s->laddr, .user = c->user, .name = c->name,
		.lib_name = c->lib_name, .lib_version = c->lib_version,
		.command = c->command ? c->command->name : "",
		.fd = c->fd, .in_bytes = c->tail - c->head, .out_bytes = c->out.tail - c->out.head,
		.channels = c->channels, .patterns = c->patterns, .allow = c->allow, .proto = c->out.proto, .parked = c->parked,
		.closing = c->closing != 0, .admitted = c->admitted, .http = c->http,
	};
	return NEAP_OK;
}

int64_t neap_server_after(struct neap_server *s, int64_t client)
{
	struct client *c = client_find(s, client);
	struct link *l = c ? c->age.next : s->ages.next;
	while (l != &s->ages && client_of(l, age)->id <= client)
		l = l->next;
	return l == &s->ages ? 0 : client_of(l, age)->id;
}

void neap_server_stats(const struct neap_server *s, struct neap_server_stats *out)
{
	*out = s->stats;
}
