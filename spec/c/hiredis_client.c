/* SPDX-License-Identifier: MIT */
/* hiredis_client.c - Debian's hiredis, synchronous, as a client of a worker.
 *
 *     hiredis_client HOST PORT | PATH
 *     hiredis_client --events HOST PORT
 *
 * The worker has a policy "one", 1 in flight, and "pair", 2/s burst 2. Run by spec/clients_spec.lua,
 * which reads the TAP. The other form is spec/worker_events_spec.lua's: it prints the first message
 * of neap:pool:*.
 */
#include <hiredis/hiredis.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *host, *port;
static int number, failures;

static void check(int ok, const char *what)
{
	printf("%s %d - %s\n", ok ? "ok" : "not ok", ++number, what);
	failures += !ok;
}

static redisContext *dial(void)
{
	struct timeval patience = {.tv_sec = 10};
	redisContext *c = port ? redisConnectWithTimeout(host, atoi(port), patience) :
				 redisConnectUnixWithTimeout(host, patience);
	if (!c || c->err) {
		printf("not ok - connect: %s\n", c ? c->errstr : "no memory");
		exit(1);
	}
	redisSetTimeout(c, patience);
	return c;
}

/* Does the reply read so? Integers as they are, strings quoted, nil, errors as !text, [lists]. */
static size_t print(char *to, size_t room, const redisReply *r)
{
	size_t size = 0;
	switch (r ? r->type : REDIS_REPLY_ERROR) {
	case REDIS_REPLY_INTEGER:
		return (size_t)snprintf(to, room, "%lld", r->integer);
	case REDIS_REPLY_STRING:
		return (size_t)snprintf(to, room, "'%s'", r->str);
	case REDIS_REPLY_STATUS:
		return (size_t)snprintf(to, room, "%s", r->str);
	case REDIS_REPLY_NIL:
		return (size_t)snprintf(to, room, "nil");
	case REDIS_REPLY_ARRAY:
		for (size_t i = 0; i < r->elements && size < room; i++) {
			size += (size_t)snprintf(to + size, room - size, i ? " " : "[");
			if (size < room)
				size += print(to + size, room - size, r->element[i]);
		}
		return size < room ? size + (size_t)snprintf(to + size, room - size, "]") : size;
	default:
		return (size_t)snprintf(to, room, "!%s", r ? r->str : "no reply");
	}
}

static void expect(redisReply *r, const char *expected)
{
	char text[1024] = "";
	print(text, sizeof text, r);
	check(!strcmp(text, expected), expected);
	if (strcmp(text, expected))
		printf("# got %s\n", text);
	if (r)
		freeReplyObject(r);
}

static void test_answers(redisContext *c)
{
	expect(redisCommand(c, "PING"), "PONG");
	expect(redisCommand(c, "ECHO %b", "a\0b", (size_t)3), "'a'");
	redisReply *r = redisCommand(c, "ECHO %b", "\r\n\0\xff", (size_t)4);
	check(r && r->len == 4 && !memcmp(r->str, "\r\n\0\xff", 4), "any bytes come back");
	if (r)
		freeReplyObject(r);
	expect(redisCommand(c, "CL.THROTTLE hiredis 15 30 60"), "[0 16 15 -1 2]");
	expect(redisCommand(c, "GCRA hiredis2 15 30 60 TOKENS 16"), "[0 16 0 -1 32]");
	expect(redisCommand(c, "GCRA hiredis2 15 30 60 TOKENS 16"), "[1 16 0 32 32]");
	expect(redisCommand(c, "NEAP.ACQUIRE pair COST 2"), "['GRANTED' nil 0 -1 '']");
	expect(redisCommand(c, "NEAP.ACQUIRE pair COST 3"), "['NEVER' nil 0 -1 'rate']");
	expect(redisCommand(c, "NEAP.ACQUIRE pear"),
	       "!NOPOLICY no policy 'pear' (did you mean 'pair'?)");
	check(!c->err, "errors are replies, the connection stays");
}

static void test_pipeline(redisContext *c)
{
	enum { MANY = 1000 };
	int granted = 0, in_order = 1;
	for (int i = 0; i < MANY; i++) {
		redisAppendCommand(c, "CL.THROTTLE pipe 99 1 1000");
		redisAppendCommand(c, "ECHO %d", i);
	}
	for (int i = 0; i < MANY; i++) {
		void *limited = NULL, *echo = NULL;
		if (redisGetReply(c, &limited) || redisGetReply(c, &echo)) {
			in_order = 0;
			break;
		}
		const redisReply *l = limited, *e = echo;
		granted += l->elements == 5 && l->element[0]->integer == 0;
		in_order &= e->type == REDIS_REPLY_STRING && atoi(e->str) == i;
		freeReplyObject(limited);
		freeReplyObject(echo);
	}
	check(granted == 100 && in_order, "2000 commands at once, each reply in its place");
}

static void test_leases(redisContext *c)
{
	redisContext *other = dial();
	redisReply *r = redisCommand(c, "NEAP.ACQUIRE one");
	int held = r && r->type == REDIS_REPLY_ARRAY && r->elements == 5 &&
		   r->element[1]->type == REDIS_REPLY_STRING;
	check(held, "a lease");
	expect(redisCommand(other, "NEAP.ACQUIRE one"), "['RETRY' nil 0 0 'calls']");
	redisAppendCommand(other, "NEAP.ACQUIRE one BLOCK 0");
	int done = 0;
	while (!done)
		redisBufferWrite(other, &done);
	expect(redisCommand(c, "NEAP.RELEASE %s", held ? r->element[1]->str : "?"), "1");
	void *waited = NULL;
	redisGetReply(other, &waited);
	const redisReply *w = waited;
	check(w && w->elements == 5 && !strcmp(w->element[0]->str, "GRANTED"), "who waited has it now");
	if (r)
		freeReplyObject(r);
	if (w)
		freeReplyObject(waited);
	redisFree(other);
}

/* The words of the first message, on one line. */
static int hear(redisContext *c)
{
	freeReplyObject(redisCommand(c, "PSUBSCRIBE neap:pool:*"));
	void *message = NULL;
	if (redisGetReply(c, &message))
		return 1;
	const redisReply *m = message;
	for (size_t i = 0; i < m->elements; i++)
		printf("%s%s", m->element[i]->str, i + 1 < m->elements ? " " : "\n");
	int failed = m->elements != 4;
	freeReplyObject(message);
	redisFree(c);
	return failed;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "--events")) {
		host = argv[2];
		port = argv[3];
		return hear(dial());
	}
	if (argc < 2 || argc > 3)
		return 2;
	host = argv[1];
	port = argv[2];
	redisContext *c = dial();
	test_answers(c);
	test_pipeline(c);
	test_leases(c);
	redisFree(c);
	return failures != 0;
}
