/* SPDX-License-Identifier: MIT */
/* server.c - turns, and the commands that are answered here.
 *
 * Nothing calls back. While the loop turns, sockets only mark their clients ready; afterwards the
 * layer above pulls commands, one at a time, until there are none:
 *
 *      loop turn             neap_server_next, until 0                      loop sleeps
 *     ----------->  ready: A C D --> read A, parse, hand out ... send A     --------->
 *      marks A C D                   read C, parse, PING answered here,     before: sends
 *                                    ... send C; D had 64, goes last        what is left
 *
 * One client at a time is current, from its read to its send: its bytes, its replies and its
 * commands are in the cache together, and a pipeline is one read and one write. A turn ends after
 * 64 commands per client and 16,384 in all, because timers must be served too; what is left is
 * done in the next one, which does not sleep (an idle watcher is on). Clients are served in the
 * order in which their bytes came, as far as the kernel tells: first come is first in line.
 *
 * CL.THROTTLE, GCRA, PING and ECHO never reach Lua: they need one word of state or none, and this
 * way 16 of them in a pipeline cost 16 look-ups and not 16 journeys. So do the refusals every
 * command shares: unknown, wrong number of words, not logged in, not allowed. Their order and
 * texts are Redis'. Of HTTP only what is no request is answered here.
 */
#define _GNU_SOURCE
#include "client.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- commands ---- */

static uint32_t name_hash(const char *name, size_t size)
{
	uint32_t h = 2166136261u;
	for (size_t i = 0; i < size; i++) {
		unsigned char c = (unsigned char)name[i];
		h = (h ^ (c >= 'A' && c <= 'Z' ? c | 0x20u : c)) * 16777619u;
	}
	return h;
}

/* The slot of a name: its kind is in there, or 0 and it may be put there. */
static uint8_t *slot_of(struct neap_server *s, const char *name, size_t size)
{
	for (uint32_t i = name_hash(name, size);; i++) {
		uint8_t *kind = &s->command_slot[i % COMMAND_SLOTS];
		const char *own = s->command[*kind ? *kind - 1 : 0].name;
		if (!*kind || (strncasecmp(own, name, size) == 0 && own[size] == 0))
			return kind;
	}
}

static const struct command *lookup(struct neap_server *s, const struct neap_span *name)
{
	if (name->size >= sizeof s->command[0].name)
		return NULL;
	uint8_t kind = *slot_of(s, name->data, name->size);
	return kind ? &s->command[kind - 1] : NULL;
}

static void say(struct neap_reply *r, const char *error)
{
	neap_reply_error(r, error, strlen(error));
}

static void hot_ping(struct neap_server *s, struct client *c)
{
	struct neap_parse *p = &s->parse;
	if (p->argc > 2) {
		say(client_reply(c), "ERR wrong number of arguments for 'ping' command");
	} else if (subscribed(c) && c->out.proto < 3) {   /* in the form of an event */
		neap_reply_array(client_reply(c), 2);
		neap_reply_bulk(client_reply(c), "pong", 4);
		if (p->argc == 2)
			neap_reply_bulk(client_reply(c), p->argv[1].data, p->argv[1].size);
		else
			neap_reply_bulk(client_reply(c), "", 0);
	} else if (p->argc == 2) {
		neap_reply_bulk(client_reply(c), p->argv[1].data, p->argv[1].size);
	} else {
		neap_reply_raw(client_reply(c), "+PONG\r\n", 7);
	}
}

static void hot_echo(struct neap_server *s, struct client *c)
{
	neap_reply_bulk(client_reply(c), s->parse.argv[1].data, s->parse.argv[1].size);
}

/* A whole number, as Redis reads them. */
static int whole(const struct neap_span *a, int64_t *out)
{
	int negative = a->size && a->data[0] == '-';
	uint32_t i = (uint32_t)negative;
	uint64_t value = 0;
	if (a->size - i > 19 || a->size == i || (a->data[i] == '0' && a->size > 1))
		return 0;
	for (; i < a->size; i++) {
		if (a->data[i] < '0' || a->data[i] > '9')
			return 0;
		value = value * 10 + (uint64_t)(a->data[i] - '0');
	}
	if (value > (uint64_t)INT64_MAX + (uint64_t)negative)
		return 0;
	*out = (int64_t)(negative ? 0 - value : value);
	return 1;
}

/* Seconds with a fraction, to the nearest ns; 0 when it is no such number. */
static int fractional(const struct neap_span *a, neap_ns *out)
{
	char text[48], *end;
	if (!a->size || a->size >= sizeof text || strspn(a->data, "0123456789.eE+-") < a->size)
		return 0;
	memcpy(text, a->data, a->size);
	text[a->size] = 0;
	double ns = strtod(text, &end) * 1e9;
	if (*end || !(ns < 9e18 && ns > -9e18))
		return 0;
	*out = llround(ns);
	return 1;
}

/* argv is key, max_burst, count; the rest is read already. */
static void throttle(struct neap_server *s, struct client *c, neap_ns period_ns, int64_t quantity)
{
	struct neap_reply *out = client_reply(c);
	const struct neap_span *key = &s->parse.argv[1];
	int64_t max_burst, count;
	struct neap_cell cell;
	if (!whole(&s->parse.argv[2], &max_burst) || !whole(&s->parse.argv[3], &count)) {
		say(out, "ERR value is not an integer or out of range");
		return;
	}
	if (neap_cell_init(&cell, max_burst, count, period_ns)) {
		char text[96];
		snprintf(text, sizeof text, "ERR %s", neap_cell_why(max_burst, count, period_ns));
		say(out, text);
		return;
	}
	neap_ns now = s->now < neap_horizon ? s->now : neap_horizon, none = 0;
	uint64_t hash = neap_keys_hash(s->keys, key->data, key->size);
	int64_t *word = neap_keys_at(s->keys, hash, now);
	if (!word && quantity == 0)
		word = &none;   /* only looks, so that there is no room does not matter */
	if (!word) {
		say(out, "OOM too many keys are in use");
		return;
	}
	struct neap_cell_reply r;
	neap_cell_take(&cell, *word, quantity, now, &r);
	*word = r.tat;
	neap_reply_array(out, 5);
	neap_reply_integer(out, r.limited);
	neap_reply_integer(out, r.limit);
	neap_reply_integer(out, r.remaining);
	neap_reply_integer(out, r.retry_s);
	neap_reply_integer(out, r.reset_s);
}

/* CL.THROTTLE key max_burst count period [quantity] */
static void hot_throttle(struct neap_server *s, struct client *c)
{
	const struct neap_span *argv = s->parse.argv;
	int64_t period_s, quantity = 1;
	if (s->parse.argc > 6)
		say(client_reply(c), "ERR wrong number of arguments for 'cl.throttle' command");
	else if (!whole(&argv[4], &period_s) || (s->parse.argc == 6 && !whole(&argv[5], &quantity)))
		say(client_reply(c), "ERR value is not an integer or out of range");
	else if (period_s > INT64_MAX / 1000000000)
		say(client_reply(c), "ERR period would overflow");
	else if (quantity < 0)
		say(client_reply(c), "ERR quantity must be >= 0");
	else
		throttle(s, c, period_s < 0 ? 0 : period_s * 1000000000, quantity);
}

/* GCRA key max_burst tokens_per_period period [TOKENS n] */
static void hot_gcra(struct neap_server *s, struct client *c)
{
	const struct neap_span *argv = s->parse.argv;
	int64_t quantity = 1;
	neap_ns period_ns;
	if (s->parse.argc != 5 && (s->parse.argc != 7 || argv[5].size != 6 ||
				   strncasecmp(argv[5].data, "TOKENS", 6) != 0))
		say(client_reply(c), "ERR syntax error");
	else if (!fractional(&argv[4], &period_ns))
		say(client_reply(c), "ERR value is not a valid float");
	else if (s->parse.argc == 7 && !whole(&argv[6], &quantity))
		say(client_reply(c), "ERR value is not an integer or out of range");
	else if (quantity < 1)
		say(client_reply(c), "ERR TOKENS must be >= 1");
	else
		throttle(s, c, period_ns, quantity);
}

static const struct {
	const char *name;
	void (*run)(struct neap_server *s, struct client *c);
	int needs_keys;
} hot[] = {
	{"", NULL, 0},
	{"ping", hot_ping, 0},
	{"echo", hot_echo, 0},
	{"cl.throttle", hot_throttle, 1},
	{"gcra", hot_gcra, 1},
};

int neap_server_define(struct neap_server *s, const char *name, int arity, uint32_t need)
{
	size_t size = strlen(name);
	if (!size || size >= sizeof s->command[0].name || !arity)
		return NEAP_ERANGE;
	uint8_t *kind = slot_of(s, name, size);
	if (!*kind) {
		if (s->commands == COMMANDS)
			return NEAP_EFULL;
		*kind = (uint8_t)++s->commands;
	}
	struct command *c = &s->command[*kind - 1];
	for (size_t i = 0; i <= size; i++)
		c->name[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] | 0x20 : name[i]);
	c->arity = arity;
	c->need = need;
	c->hot = sizeof hot / sizeof *hot - 1;
	while (c->hot && strcmp(hot[c->hot].name, c->name) != 0)
		c->hot--;
	return *kind;
}

void neap_server_throttle(struct neap_server *s, struct neap_keys *keys) { s->keys = keys; }

/* As Redis has it: the name and the first words, 128 bytes of each. */
static void unknown(struct neap_server *s, struct client *c)
{
	const struct neap_parse *p = &s->parse;
	char words[160], text[400];
	size_t size = 0;
	words[0] = 0;
	for (uint32_t i = 1; i < p->argc && size < 128; i++) {
		int most = 128 - (int)size, has = (int)strnlen(p->argv[i].data, p->argv[i].size);
		size += (size_t)snprintf(words + size, sizeof words - size, "'%.*s' ",
					 has < most ? has : most, p->argv[i].data);
	}
	int name = (int)strnlen(p->argv[0].data, p->argv[0].size);
	snprintf(text, sizeof text, "ERR unknown command '%.*s', with args beginning with: %s",
		 name < 128 ? name : 128, p->argv[0].data, words);
	say(client_reply(c), text);
}

/* Somebody's browser, or a client set to TLS: what it is, for the log. NULL: it is neither. */
static const char *mistaken(const struct neap_parse *p, const char *data)
{
	static const char *const verbs[] = {"POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH",
					    "CONNECT", "TRACE", "HOST:"};
	if (data[0] == 0x16)
		return "a TLS hello at the RESP port; neap speaks no TLS";
	if (data[0] == '*' || !p->argc)
		return NULL;
	int http = p->argc > 2 && p->argv[2].size > 5 && !memcmp(p->argv[2].data, "HTTP/", 5);
	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
		http |= p->argv[0].size == strlen(verbs[i]) &&
			!strncasecmp(p->argv[0].data, verbs[i], p->argv[0].size);
	return http ? "an HTTP request at the RESP port" : NULL;
}

/* The refusals all commands share. NULL: it was answered. */
static const struct command *admitted(struct neap_server *s, struct client *c)
{
	const struct neap_parse *p = &s->parse;
	const struct command *cmd = lookup(s, &p->argv[0]);
	char text[160];
	if (!cmd) {
		unknown(s, c);
		return NULL;
	}
	int argc = (int)p->argc;
	if (cmd->arity > 0 ? argc != cmd->arity : argc < -cmd->arity) {
		snprintf(text, sizeof text, "ERR wrong number of arguments for '%s' command", cmd->name);
		say(client_reply(c), text);
		return NULL;
	}
	int anybody = (cmd->need & NEAP_BEFORE_LOGIN) != 0;
	if (!anybody && !c->admitted) {
		say(client_reply(c), "NOAUTH Authentication required.");
		return NULL;
	}
	if (!anybody && cmd->need & NEAP_ALLOW_ALL & ~c->allow) {
		snprintf(text, sizeof text,
			 "NOPERM this user has no permissions to run the '%s' command", cmd->name);
		say(client_reply(c), text);
		return NULL;
	}
	if (subscribed(c) && c->out.proto < 3 && !(cmd->need & NEAP_WHILE_SUBSCRIBED)) {
		snprintf(text, sizeof text, "ERR Can't execute '%s': only (P|S)SUBSCRIBE / "
			 "(P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context", cmd->name);
		say(client_reply(c), text);
		return NULL;
	}
	return cmd;
}

/* ---- turns ---- */

/* One command of the current client into s->parse: 1, or 0 when it has none now. */
static int parse(struct neap_server *s, struct client *c)
{
	struct neap_parse *p = &s->parse;
	while (c->tail - c->head >= c->need) {
		char *data = c->in + c->head;
		p->login = !c->admitted;
		int got = neap_parse(p, data, c->tail - c->head);
		const char *note = got >= 0 && (!got || p->argc) ? mistaken(p, data) : NULL;
		if (note) {
			client_cut(c, note);
			return 0;
		}
		if (got < 0) {
			char text[128];
			snprintf(text, sizeof text, "ERR %s", p->error);
			say(client_reply(c), text);
			c->note = "sent what is no command";
			s->stats.cut++;
			client_finish(c);
			return 0;
		}
		c->need = got ? 1 : p->need;
		if (!got)
			return 0;
		c->head += p->used;
		c->partial = 0;
		if (p->argc)
			return 1;
	}
	return 0;
}

static void hand_out(struct neap_server *s, const struct client *c, const struct command *cmd,
		     struct neap_command *out)
{
	out->client = c->id;
	out->kind = (int32_t)(cmd - s->command) + 1;
	out->argc = s->parse.argc;
	out->allow = c->allow;
	out->proto = c->out.proto;
	out->note = NULL;
	memcpy(out->argv, s->parse.argv, out->argc * sizeof *out->argv);
}

/* The same for HTTP: a request of the current client into s->web. */
static int parse_request(struct neap_server *s, struct client *c)
{
	struct neap_http *p = &s->web;
	if (c->tail - c->head < c->need)
		return 0;
	p->seen = c->seen;
	p->line = c->line;
	int got = neap_http_parse(p, c->in + c->head, c->tail - c->head);
	c->seen = p->seen;
	c->line = p->line;
	c->need = got > 0 ? 1 : p->need;
	if (got > 0) {
		c->head += p->used;
		c->partial = 0;
	} else if (got < 0) {
		struct neap_reply *r = client_reply(c);
		neap_http_status(r, p->status, p->how);
		neap_http_field(r, "Content-Type", "text/plain", 10);
		neap_http_body(r, p->error, strlen(p->error), p->how);
		c->note = p->error;
		s->stats.cut++;
		client_finish(c);
	}
	return got > 0;
}

static void hand_out_request(struct neap_server *s, const struct client *c,
			     struct neap_command *out)
{
	const struct neap_http *p = &s->web;
	*out = (struct neap_command){
		.client = c->id, .kind = NEAP_REQUEST, .argc = 3 + 2 * p->fields,
		.allow = c->allow, .how = p->how, .argv = {p->verb, p->target, p->body},
	};
	for (uint32_t i = 0; i < p->fields; i++) {
		out->argv[3 + 2 * i] = p->field[i].name;
		out->argv[4 + 2 * i] = p->field[i].value;
	}
}

/* The current client's next command that is not answered here: 1. 0: it has no more this turn. */
static int serve(struct neap_server *s, struct client *c, struct neap_command *out)
{
	while (!c->parked && !c->closing && !c->stuck && s->client_left && s->turn_left) {
		if (c->out.tail - c->out.head >= SEND_EARLY) {
			client_flush(c);   /* the peer may take it: the bound is for what it does not */
			if (s->current != c)
				return 0;
			continue;
		}
		if (!(c->http ? parse_request(s, c) : parse(s, c)))
			return 0;
		s->client_left--;
		s->turn_left--;
		s->stats.commands++;
		c->commands++;
		c->last = s->now;
		if (c->http) {
			hand_out_request(s, c, out);
			return 1;
		}
		if (c->mute >= NEAP_MUTE_ONE)
			c->mute = c->mute == MUTING ? NEAP_HEAR : MUTING;
		const struct command *cmd = admitted(s, c);
		c->command = cmd ? cmd : c->command;
		if (cmd && hot[cmd->hot].run && (s->keys || !hot[cmd->hot].needs_keys)) {
			hot[cmd->hot].run(s, c);
		} else if (cmd) {
			hand_out(s, c, cmd, out);
			return 1;
		}
	}
	return 0;
}

/* Take the next ready client and read it. NULL: none is left this turn. */
static struct client *pick(struct neap_server *s)
{
	if (!linked(&s->ready) || !s->turn_left)
		return NULL;
	struct client *c = client_of(s->ready.next, ready);
	link_take(&c->ready);
	s->current = c;
	s->client_left = CLIENT_TURN;
	if (c->readable && !c->closing && (c->parked || c->tail - c->head < c->need))
		client_read(c);
	return s->current;
}

/* Those who came while the loop turned came now: the loop's clock is not ours to read. */
static void welcome(struct neap_server *s)
{
	for (struct link *l = s->ages.prev; l != &s->ages && client_of(l, age)->since < 0; l = l->prev)
		client_of(l, age)->since = client_of(l, age)->last = s->now;
}

/* All of one list, in its order, to the end of another. */
static void move(struct link *to, struct link *from)
{
	while (linked(from)) {
		struct link *l = from->next;
		link_take(l);
		link_last(to, l);
	}
}

static int end_turn(struct neap_server *s)
{
	move(&s->ready, &s->later);
	s->turn_left = TURN;
	if (linked(&s->ready))
		ev_idle_start(s->ev, &s->awake);
	else
		ev_idle_stop(s->ev, &s->awake);
	return 0;
}

int neap_server_next(struct neap_server *s, neap_ns now, struct neap_command *out)
{
	s->now = now > s->now ? now : s->now;
	welcome(s);
	move(&s->ready, &s->heard);
	for (;;) {
		if (linked(&s->gone)) {
			struct client *c = client_of(s->gone.next, age);
			*out = (struct neap_command){
				.client = c->id, .kind = NEAP_CLOSED, .proto = 2, .note = c->note,
			};
			client_free(c);
			return 1;
		}
		struct client *c = s->current ? s->current : pick(s);
		if (!c && !linked(&s->gone))
			return end_turn(s);
		if (!c)
			continue;
		if (serve(s, c, out))
			return 1;
		if (s->current != c)
			continue;
		if (!c->parked && !c->stuck && !c->closing && c->tail - c->head >= c->need &&
		    !linked(&c->ready))
			link_last(&s->later, &c->ready);
		client_leave(c);
	}
}
