/* SPDX-License-Identifier: MIT */
/* client.h - what server.c and client.c share. Private to ring 2. */
#ifndef NEAP_CLIENT_H
#define NEAP_CLIENT_H

#include "neap.h"

#include <ev.h>

/* A ring of links with a head; a link outside of any ring points to itself. */
struct link {
	struct link *next, *prev;
};

struct listener {
	struct ev_io watch;      /* fd -1: closed */
	struct neap_server *server;
	int http;                /* what is spoken there, RESP unless 1 */
	char address[128];       /* "127.0.0.1:6390" or "unix:/path" */
	uint64_t device, inode;  /* of the Unix socket's file, so that we unlink only our own */
};

struct command {
	char name[32];           /* lower case */
	int arity;
	uint32_t need;
	int hot;                 /* answered in C: an index into server.c's list, 0 not */
};

struct client {
	struct link age;         /* in server.ages, oldest first; in server.gone when closed */
	struct link ready;       /* in server.ready: there may be something to read or parse */
	struct link dirty;       /* in server.dirty: there is something to send */
	struct neap_server *server;
	struct ev_io reader, writer;
	int64_t id;
	int fd;
	const char *note;        /* why it was closed, NULL when that is nothing special */
	neap_ns since, last;     /* since -1: came in the turn just over */
	neap_ns partial;         /* half a command lies here since then; 0: none does */
	neap_ns stuck;           /* the peer takes no replies since then; 0: it does */
	neap_ns closing;         /* closes when all is sent, since then; 0: not */
	neap_ns heavy;           /* a subscriber that left NEAP_EVENT_SOFT_BYTES unfetched since then */
	int64_t commands;
	const struct command *command;
	char *in;                /* bytes read, not parsed: in[head .. tail) of room */
	uint32_t head, tail, room;
	uint32_t need;           /* parsing is vain below so many bytes */
	uint32_t seen, line;     /* HTTP: how far the head is read, see neap_http_parse */
	struct neap_reply out;
	int32_t channels, patterns;   /* that it listens to: with any it is a subscriber */
	uint32_t allow;
	uint8_t admitted;        /* logged in, or let in without */
	uint8_t readable;        /* the loop said so */
	uint8_t ended;           /* the peer will send no more */
	uint8_t parked;
	uint8_t http;            /* speaks it */
	uint8_t mute;            /* NEAP_HEAR.., or MUTING: this command is the one */
	char user[64], name[128], lib_name[64], lib_version[64];
};

enum { MUTING = NEAP_MUTE_ONE + 1 };
enum { SCRATCH = 65536, LISTENERS = 16, COMMANDS = 128, COMMAND_SLOTS = 512 };
enum { CLIENT_TURN = 64, TURN = 16384 };   /* commands for one client, and for all, in a turn */
enum { SEND_EARLY = 65536 };               /* bytes of replies: send before the next command */

struct neap_server {
	struct ev_loop *ev;
	struct ev_prepare before_sleep;   /* sends what is dirty */
	struct ev_idle awake;             /* on while there is work left: the loop does not sleep */
	struct ev_timer sweep;            /* on while somebody is partial, stuck, closing or HTTP's */
	struct listener listener[LISTENERS];
	int listeners;
	int spare;                        /* a descriptor to give up when there is none for accept */
	int guarded;
	neap_ns now;                      /* of the last _next */
	struct link ages, ready, heard, later, dirty, gone;   /* heard: ready since this turn began */
	struct client *current;           /* whose commands _next hands out */
	uint32_t client_left, turn_left;  /* commands it, and this turn, may still have */
	struct client **slot;             /* by index, clients_max of them */
	uint32_t *unused, unused_count;   /* indices without a client */
	int64_t serial;                   /* of the youngest client */
	struct neap_keys *keys;
	struct command command[COMMANDS];
	int commands;
	uint8_t command_slot[COMMAND_SLOTS];   /* kind by hash of the name, 0 empty */
	struct neap_parse parse;
	struct neap_http web;
	struct neap_reply sink;           /* for those who are gone or asked for silence */
	struct neap_server_stats stats;
	char addr[128], laddr[128];       /* texts of the last _client */
	char scratch[SCRATCH];            /* what the current client sent, if it had nothing left */
};

static inline void link_init(struct link *l) { l->next = l->prev = l; }
static inline int linked(const struct link *l) { return l->next != l; }

static inline void link_take(struct link *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	link_init(l);
}

static inline void link_first(struct link *head, struct link *l)
{
	l->next = head->next;
	l->prev = head;
	head->next->prev = l;
	head->next = l;
}

static inline void link_last(struct link *head, struct link *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

#define client_of(link, member) \
	((struct client *)(void *)((char *)(link) - offsetof(struct client, member)))

/* A client for a connected, non-blocking socket of a listener: NULL when there is no memory (fd
 * stays open). */
struct client *client_open(const struct listener *l, int fd);
struct client *client_find(const struct neap_server *s, int64_t id);
/* Close the socket now; NEAP_CLOSED will say so. 'note' NULL: nothing worth a word. */
void client_drop(struct client *c, const char *note);
/* The same for one that misbehaved: counted. */
void client_cut(struct client *c, const char *note);
/* Forget one that was dropped, after NEAP_CLOSED was said. */
void client_free(struct client *c);
/* There may be something to do for it: the loop does not sleep until it was looked at. */
void client_wake(struct client *c);
/* Read once, into scratch when nothing is left over. It may be dropped by that. */
void client_read(struct client *c);
/* Done with it for this turn: keep what is left over, send what is written. */
void client_leave(struct client *c);
/* Send; what the socket does not take waits for it. May drop. */
void client_flush(struct client *c);
/* No more commands; close when all is sent. */
void client_finish(struct client *c);
struct neap_reply *client_reply(struct client *c);
struct neap_reply *client_push(struct client *c);   /* heard though it asked for silence */
static inline int subscribed(const struct client *c) { return c->channels || c->patterns; }
/* Cut those who took too long; answers whether somebody is still on the way to that. */
int clients_sweep(struct neap_server *s);

#endif
