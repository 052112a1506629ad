/* SPDX-License-Identifier: MIT */
/* client.c - one connection: its bytes in, its bytes out, and its end.
 *
 *      socket --read--> in [half a command] --parse--> ... --reply--> out --send--> socket
 *
 * Most of the time a client owns no input buffer. It is read into the server's scratch, its
 * commands are parsed there and answered while they are warm, and only what is left over, half a
 * command or more than its share of a turn, moves to memory of its own. Ten thousand idle clients
 * cost their structs.
 *
 * Bounds, all without a queue that grows. A client is read again only when what it sent before is
 * used up: so it holds at most one command or one scratch of input. A client whose replies the
 * socket does not take is neither read nor parsed until it does: a slow reader slows itself. One
 * that is parked is still read, for that is how its end is noticed; what it sends meanwhile is
 * kept up to NEAP_QUERY_BYTES, and then it is cut. What a subscriber is told does not wait for it,
 * so it alone can fall behind, by NEAP_EVENT_BYTES and no more.
 *
 * The end comes in one way, client_drop: the socket is closed at once, the struct goes to the ring
 * 'gone' and lives until NEAP_CLOSED has been pulled. A half-closed peer (it sent, then said it
 * will send no more) gets its commands answered first; a parked one counts as gone.
 */
#define _GNU_SOURCE
#include "client.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)

enum { KEEP_OUT = 4096, READ_MIN = 4096, INDEX = 65536, KEEP_ALIVE_S = 60 };

static const neap_ns partial_max = 10 * SECOND, closing_max = 10 * SECOND, stuck_max = 60 * SECOND,
		     heavy_max = 60 * SECOND,
		     idle_max = 60 * SECOND;   /* HTTP's, whose clients do not say that they stay */

/* libev calls back for what the kernel tells in one piece from its last to its first. */
static void on_readable(struct ev_loop *ev, struct ev_io *reader, int events)
{
	(void)ev, (void)events;
	struct client *c = reader->data;
	c->readable = 1;
	if (!linked(&c->ready))
		link_first(&c->server->heard, &c->ready);
}

static void on_writable(struct ev_loop *ev, struct ev_io *writer, int events)
{
	(void)ev, (void)events;
	client_flush(writer->data);
}

/* The clock for "since then", which 0 must not be. */
static neap_ns stamp(const struct neap_server *s)
{
	return s->now ? s->now : 1;
}

static void watch_for_sloth(struct neap_server *s)
{
	if (!ev_is_active(&s->sweep))
		ev_timer_again(s->ev, &s->sweep);
}

struct client *client_open(const struct listener *l, int fd)
{
	struct neap_server *s = l->server;
	struct client *c = s->unused_count ? calloc(1, sizeof *c) : NULL;
	if (!c)
		return NULL;
	int on = 1, idle_s = KEEP_ALIVE_S;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);   /* a Unix socket says no: fine */
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
	uint32_t index = s->unused[--s->unused_count];
	s->slot[index] = c;
	c->server = s;
	c->id = ++s->serial * INDEX + index;
	c->fd = fd;
	c->http = (uint8_t)l->http;
	c->since = c->last = -1;
	c->need = 1;
	c->out.limit = l->http ? NEAP_HTTP_REPLY_BYTES : NEAP_REPLY_BYTES;
	c->out.proto = 2;
	c->admitted = !s->guarded;
	c->allow = s->guarded ? 0 : NEAP_ALLOW_ALL;
	link_init(&c->ready);
	link_init(&c->dirty);
	link_last(&s->ages, &c->age);
	ev_io_init(&c->reader, on_readable, fd, EV_READ);
	ev_io_init(&c->writer, on_writable, fd, EV_WRITE);
	c->reader.data = c->writer.data = c;
	ev_io_start(s->ev, &c->reader);
	s->stats.clients++;
	s->stats.accepted++;
	if (c->http)
		watch_for_sloth(s);
	return c;
}

struct client *client_find(const struct neap_server *s, int64_t id)
{
	uint32_t index = (uint32_t)(id % INDEX);
	if (id <= 0 || index >= s->stats.clients_max)
		return NULL;
	struct client *c = s->slot[index];
	return c && c->id == id && c->fd >= 0 ? c : NULL;
}

static void set_parked(struct client *c, uint8_t parked)
{
	c->server->stats.parked += parked - c->parked;
	c->parked = parked;
}

static void forget_input(struct client *c)
{
	if (c->in != c->server->scratch)
		free(c->in);
	c->in = NULL;
	c->head = c->tail = c->room = 0;
	c->need = 1;
}

void client_drop(struct client *c, const char *note)
{
	struct neap_server *s = c->server;
	assert(c->fd >= 0);
	ev_io_stop(s->ev, &c->reader);
	ev_io_stop(s->ev, &c->writer);
	close(c->fd);
	c->fd = -1;
	c->note = note;
	set_parked(c, 0);
	s->stats.subscribers -= subscribed(c);
	c->channels = c->patterns = 0;
	forget_input(c);
	free(c->out.data);
	c->out = (struct neap_reply){0};
	link_take(&c->ready);
	link_take(&c->dirty);
	link_take(&c->age);
	link_last(&s->gone, &c->age);
	s->stats.clients--;
	if (s->current == c)
		s->current = NULL;
	ev_idle_start(s->ev, &s->awake);
}

void client_cut(struct client *c, const char *note)
{
	c->server->stats.cut++;
	client_drop(c, note);
}

void client_free(struct client *c)
{
	struct neap_server *s = c->server;
	uint32_t index = (uint32_t)(c->id % INDEX);
	link_take(&c->age);
	s->slot[index] = NULL;
	s->unused[s->unused_count++] = index;
	free(c);
}

void client_wake(struct client *c)
{
	if (!linked(&c->ready))
		link_last(&c->server->ready, &c->ready);
	ev_idle_start(c->server->ev, &c->server->awake);
}

/* Room in the client's own buffer to read into, at least READ_MIN and what 'need' asks, unless
 * that goes beyond NEAP_QUERY_BYTES. 0 without memory. */
static int make_room(struct client *c)
{
	uint32_t held = c->tail - c->head;
	if (c->head) {
		memmove(c->in, c->in + c->head, held);
		c->head = 0;
		c->tail = held;
	}
	uint32_t want = c->need > held + READ_MIN ? c->need : held + READ_MIN;
	if (want > NEAP_QUERY_BYTES)
		want = NEAP_QUERY_BYTES;
	if (want <= c->room)
		return 1;
	if (want < c->room * 2)
		want = c->room * 2 < NEAP_QUERY_BYTES ? c->room * 2 : NEAP_QUERY_BYTES;
	char *in = realloc(c->in, want);
	if (!in)
		return 0;
	c->in = in;
	c->room = want;
	return 1;
}

void client_read(struct client *c)
{
	struct neap_server *s = c->server;
	c->readable = 0;
	if (!c->in) {
		c->in = s->scratch;
		c->room = SCRATCH;
	} else if (c->tail - c->head >= NEAP_QUERY_BYTES) {
		client_cut(c, "sent 1 MiB ahead while its command waits");
		return;
	} else if (!make_room(c)) {
		client_cut(c, "no memory for what it sent");
		return;
	}
	ssize_t got = recv(c->fd, c->in + c->tail, c->room - c->tail, 0);
	if (got > 0) {
		c->tail += (uint32_t)got;
		s->stats.in_bytes += got;
	} else if (got == 0) {
		c->ended = 1;
		ev_io_stop(s->ev, &c->reader);
	} else if (errno != EAGAIN && errno != EINTR) {
		client_drop(c, NULL);
	}
}

/* Scratch is lent for the time a client is the current one. 0 without memory. */
static int keep_input(struct client *c)
{
	uint32_t held = c->tail - c->head;
	if (!held) {
		uint32_t need = c->need;
		forget_input(c);
		c->need = need;
		return 1;
	}
	if (c->in != c->server->scratch)
		return 1;
	uint32_t room = c->need > held ? c->need : held;
	char *in = malloc(room);
	if (!in)
		return 0;
	memcpy(in, c->in + c->head, held);
	c->in = in;
	c->head = 0;
	c->tail = held;
	c->room = room;
	return 1;
}

void client_leave(struct client *c)
{
	struct neap_server *s = c->server;
	s->current = NULL;
	if (!keep_input(c)) {
		client_cut(c, "no memory for what it sent");
		return;
	}
	uint32_t held = c->tail - c->head;
	if (c->ended && c->parked) {
		client_drop(c, NULL);
		return;
	}
	if (c->ended && held < c->need && !c->closing)
		client_finish(c);
	if (held && held < c->need && !c->parked && !c->closing) {
		if (!c->partial)
			c->partial = stamp(s);
		watch_for_sloth(s);
	}
	client_flush(c);
}

/* The peer hears a reset, and perhaps not our last words, if we close with something unread. */
static void last_words(struct client *c)
{
	shutdown(c->fd, SHUT_WR);
	for (int i = 0; i < 16 && recv(c->fd, c->server->scratch, SCRATCH, 0) > 0; i++)
		;
}

/* Everything is with the socket. */
static void flushed(struct client *c)
{
	struct neap_server *s = c->server;
	c->out.head = c->out.tail = 0;
	if (c->out.room > KEEP_OUT) {
		free(c->out.data);
		c->out.data = NULL;
		c->out.room = 0;
	}
	if (c->closing) {
		last_words(c);
		client_drop(c, c->note);
		return;
	}
	if (!c->stuck)
		return;
	c->stuck = 0;
	ev_io_stop(s->ev, &c->writer);
	if (!c->ended)
		ev_io_start(s->ev, &c->reader);
	if (c->tail - c->head >= c->need || c->ended)
		client_wake(c);
}

void client_flush(struct client *c)
{
	struct neap_server *s = c->server;
	link_take(&c->dirty);
	if (c->out.failed) {
		client_cut(c, "did not fetch its replies");
		return;
	}
	uint32_t size = c->out.tail - c->out.head;
	ssize_t sent = size ? send(c->fd, c->out.data + c->out.head, size, MSG_NOSIGNAL) : 0;
	if (sent < 0 && errno != EAGAIN && errno != EINTR) {
		client_drop(c, c->note);
		return;
	}
	if (sent > 0) {
		c->out.head += (uint32_t)sent;
		s->stats.out_bytes += sent;
		if (c->stuck)
			c->stuck = stamp(s);
	}
	if (c->out.head == c->out.tail) {
		flushed(c);
	} else if (!c->stuck) {
		c->stuck = stamp(s);
		ev_io_start(s->ev, &c->writer);
		if (!c->parked)
			ev_io_stop(s->ev, &c->reader);
		watch_for_sloth(s);
	}
}

void client_finish(struct client *c)
{
	struct neap_server *s = c->server;
	if (c->closing)
		return;
	c->closing = stamp(s);
	set_parked(c, 0);
	ev_io_stop(s->ev, &c->reader);
	if (!linked(&c->dirty))
		link_last(&s->dirty, &c->dirty);
	watch_for_sloth(s);
}

struct neap_reply *client_push(struct client *c)
{
	if (!linked(&c->dirty))
		link_last(&c->server->dirty, &c->dirty);
	return &c->out;
}

struct neap_reply *client_reply(struct client *c)
{
	return c->mute == NEAP_MUTE || c->mute == MUTING ? &c->server->sink : client_push(c);
}

/* A subscriber that stays far behind, though it fetches some, has no use for what it gets. */
static int too_heavy(struct client *c)
{
	if (!subscribed(c) || c->out.tail - c->out.head < NEAP_EVENT_SOFT_BYTES)
		c->heavy = 0;
	else if (!c->heavy)
		c->heavy = stamp(c->server);
	return c->heavy && c->server->now - c->heavy > heavy_max;
}

int clients_sweep(struct neap_server *s)
{
	int watched = 0;
	for (struct link *l = s->ages.next, *next; l != &s->ages; l = next) {
		struct client *c = client_of(l, age);
		next = l->next;
		if (c->closing && s->now - c->closing > closing_max)
			client_drop(c, c->note);
		else if (c->partial && s->now - c->partial > partial_max)
			client_cut(c, "took more than 10 s for one command");
		else if (c->stuck && s->now - c->stuck > stuck_max)
			client_cut(c, "took no replies for 60 s");
		else if (too_heavy(c))
			client_cut(c, "was 8 MiB behind for 60 s");
		else if (c->http && !c->parked && !c->partial && !c->stuck && c->last >= 0 &&
			 s->now - c->last > idle_max)
			client_drop(c, NULL);
		else
			watched |= c->closing || c->partial || c->stuck || c->http;
	}
	return watched;
}

/* ---- verbs on a client, by its number ---- */

int neap_server_park(struct neap_server *s, int64_t client)
{
	struct client *c = client_find(s, client);
	if (!c || c->closing)
		return NEAP_ERANGE;
	set_parked(c, 1);
	if (c->stuck && !c->ended)
		ev_io_start(s->ev, &c->reader);
	return NEAP_OK;
}

int neap_server_resume(struct neap_server *s, int64_t client)
{
	struct client *c = client_find(s, client);
	if (!c)
		return NEAP_ERANGE;
	set_parked(c, 0);
	if (c->stuck)
		ev_io_stop(s->ev, &c->reader);
	else if (c->tail != c->head && s->current != c)
		client_wake(c);
	return NEAP_OK;
}

int neap_server_hang_up(struct neap_server *s, int64_t client)
{
	struct client *c = client_find(s, client);
	if (!c)
		return NEAP_ERANGE;
	client_finish(c);
	return NEAP_OK;
}

int neap_server_login(struct neap_server *s, int64_t client, const char *user, uint32_t allow)
{
	struct client *c = client_find(s, client);
	if (!c || strlen(user) >= sizeof c->user || allow > NEAP_ALLOW_ALL)
		return NEAP_ERANGE;
	strcpy(c->user, user);
	c->allow = allow;
	c->admitted = 1;
	return NEAP_OK;
}

int neap_server_logout(struct neap_server *s, int64_t client)
{
	struct client *c = client_find(s, client);
	if (!c)
		return NEAP_ERANGE;
	c->user[0] = 0;
	c->admitted = !s->guarded;
	c->allow = s->guarded ? 0 : NEAP_ALLOW_ALL;
	return NEAP_OK;
}

int neap_server_speak(struct neap_server *s, int64_t client, int proto)
{
	struct client *c = client_find(s, client);
	if (!c || proto < 2 || proto > 3)
		return NEAP_ERANGE;
	c->out.proto = (uint8_t)proto;
	return NEAP_OK;
}

int neap_server_mute(struct neap_server *s, int64_t client, int how)
{
	struct client *c = client_find(s, client);
	if (!c || how < NEAP_HEAR || how > NEAP_MUTE_ONE)
		return NEAP_ERANGE;
	c->mute = (uint8_t)how;
	return NEAP_OK;
}

int neap_server_subscribe(struct neap_server *s, int64_t client, int32_t channels,
			  int32_t patterns)
{
	struct client *c = client_find(s, client);
	if (!c || channels < 0 || patterns < 0)
		return NEAP_ERANGE;
	s->stats.subscribers -= subscribed(c);
	c->channels = channels;
	c->patterns = patterns;
	s->stats.subscribers += subscribed(c);
	if (!c->http)
		c->out.limit = subscribed(c) ? NEAP_EVENT_BYTES : NEAP_REPLY_BYTES;
	return NEAP_OK;
}

int neap_server_label(struct neap_server *s, int64_t client, int which, const char *text)
{
	struct client *c = client_find(s, client);
	if (!c || which < NEAP_NAME || which > NEAP_LIB_VERSION)
		return NEAP_ERANGE;
	char *to = which == NEAP_NAME ? c->name :
		   which == NEAP_LIB_NAME ? c->lib_name : c->lib_version;
	if (strlen(text) >= (which == NEAP_NAME ? sizeof c->name : sizeof c->lib_name))
		return NEAP_ERANGE;
	strcpy(to, text);
	return NEAP_OK;
}
