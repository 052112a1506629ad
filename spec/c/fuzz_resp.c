/* SPDX-License-Identifier: MIT */
/* fuzz_resp.c - the parser and the reply writer on streams nobody would send.
 *
 *     fuzz_resp [streams]     default NEAP_FUZZ, or 100,000; the same NEAP_SEED, the same streams
 *
 * A stream is a few commands, well formed, then damaged: bytes flipped, dropped, doubled, numbers
 * changed to those where limits are, pieces of one spliced into another. It is parsed three times:
 * all at once, in random pieces as the server does it (asking only from 'need' bytes on), and in
 * random pieces asking each time. All three must tell the same story, command for command and
 * error for error. Each call sees a block of exactly as many bytes as there are, so a sanitizer
 * notices one byte too far. What was parsed is answered through the writer, in both protocols and
 * with a small limit at times: what it holds never exceeds the limit, and it measures its own
 * replies right. The damaged stream itself is measured, too, which must only not go wrong.
 */
#include "fuzz.h"
#include "neap.h"

#include <string.h>

enum { STORY = 4096 };

static void add(struct stream *s, const char *text, size_t size)
{
	if (s->size + size > STREAM)
		size = STREAM - s->size;
	memcpy(s->data + s->size, text, size);
	s->size += (uint32_t)size;
}

static const char *const words[] = {
	"PING", "ECHO", "CL.THROTTLE", "user:1", "15", "-1", "9223372036854775807", "", "\r\n",
	"a b", "\"q\"", "'", "\\x41", "*3\r\n$1\r\nx", "NEAP.ACQUIRE", "BLOCK", "\x16\x03\x01", "#",
};
static const char *const numbers[] = {
	"0", "1", "-1", "2", "10", "11", "256", "257", "16384", "16385", "65536", "65537", "1048576",
	"2147483648", "9223372036854775808", "-0", "01", "+1", "abc", "", " 1", "1 ", "4294967297",
};
static const char *const lines[] = {
	"PING\r\n", "SET a 'b c' \"d\\x41\\n\"\n", "\r\n", "\n", "\"unbalanced\r\n", "'a'b\r\n", "   \r\n",
	"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "echo \"a\\\"b\" 'it\\'s'\r\n", "a\"b\"\tc\r\n",
};

static void add_command(struct stream *s)
{
	char text[64];
	if (below(5) == 0) {
		const char *line = ONE_OF(lines);
		add(s, line, strlen(line));
		return;
	}
	uint32_t argc = below(30) ? 1 + below(6) : below(260);
	add(s, text, (size_t)snprintf(text, sizeof text, "*%u\r\n", argc));
	for (uint32_t i = 0; i < argc; i++) {
		const char *word = ONE_OF(words);
		uint32_t big = below(2000) ? 0 : 65530 + below(12);
		size_t size = big ? big : strlen(word);
		add(s, text, (size_t)snprintf(text, sizeof text, "$%zu\r\n", size));
		for (; big; big--)
			add(s, "z", 1);
		add(s, word, size == strlen(word) ? size : 0);
		add(s, "\r\n", 2);
	}
}

static void damage(struct stream *s)
{
	if (!s->size)
		return;
	uint32_t at = below(s->size), left = s->size - at;
	uint32_t some = 1 + below(left < 20 ? left : 20);
	static const char telling[] = "*$\r\n\"'\\ 0-:x\0\xff";
	const char *number = ONE_OF(numbers);
	switch (below(7)) {
	case 0:
		s->data[at] = (char)dice();
		break;
	case 1:
		s->data[at] = telling[below(sizeof telling)];
		break;
	case 2:
		memmove(s->data + at, s->data + at + some, left - some);
		s->size -= some;
		break;
	case 3:
		s->size = at;
		break;
	case 4:
		if (s->size + some <= STREAM) {
			memmove(s->data + at + some, s->data + at, left);
			s->size += some;
		}
		break;
	case 5: {   /* another number behind the next type byte */
		while (at < s->size && s->data[at] != '*' && s->data[at] != '$')
			at++;
		uint32_t end = at;
		while (end < s->size && s->data[end] != '\r')
			end++;
		size_t size = strlen(number);
		if (at == s->size || end - at > 30 || s->size + size > STREAM)
			break;
		memmove(s->data + at + 1 + size, s->data + end, s->size - end);
		memcpy(s->data + at + 1, number, size);
		s->size = at + 1 + (uint32_t)size + (s->size - end);
		break;
	}
	default:
		memmove(s->data + below(s->size - some + 1), s->data + at, some);
	}
}

/* ---- telling what was parsed ---- */

struct story {
	uint64_t hash;
	uint32_t commands;
	int end;                    /* what the parser said last */
	char error[96];
};

static void tell(struct story *t, const void *data, size_t size)
{
	const unsigned char *p = data;
	for (size_t i = 0; i < size; i++)
		t->hash = (t->hash ^ p[i]) * UINT64_C(1099511628211);
	t->hash = (t->hash ^ size) * UINT64_C(1099511628211);
}

static void answer(const struct neap_parse *p, struct neap_reply *r)
{
	neap_reply_map(r, 1);
	neap_reply_status(r, p->argv[0].data, p->argv[0].size);
	neap_reply_array(r, p->argc);
	for (uint32_t i = 0; i < p->argc; i++)
		neap_reply_bulk(r, p->argv[i].data, p->argv[i].size);
	neap_reply_double(r, (double)p->argc / 3);
	neap_reply_error(r, p->argv[0].data, p->argv[0].size);
	neap_reply_null(r);
	neap_reply_verbatim(r, p->argv[0].data, p->argv[0].size);
	neap_reply_set(r, 1);
	neap_reply_bool(r, 1);
}

/* What the writer holds is within its limit and made of whole replies: 6 per command. */
static void weigh(const struct neap_reply *r, uint32_t commands)
{
	uint32_t at = r->head;
	if (r->tail - r->head > r->limit)
		die("more replies than the limit");
	for (uint32_t i = 0; i < commands * 6 && !r->failed; i++) {
		int64_t size = neap_reply_measure(r->data + at, r->tail - at);
		if (size <= 0 || neap_reply_measure(r->data + at, (size_t)size - 1) != 0)
			die("a reply measured wrong");
		at += (uint32_t)size;
	}
	if (!r->failed && at != r->tail)
		die("replies nobody wrote");
}

enum how { WHOLE, AS_THE_SERVER, ASKING_ALWAYS };

static struct story read_stream(const struct stream *s, enum how how, uint32_t login)
{
	static struct neap_parse p;
	struct story t = {.hash = UINT64_C(14695981039346656037)};
	struct neap_reply r = {.limit = below(4) ? NEAP_REPLY_BYTES : below(500),
			       .proto = (uint8_t)(2 + below(2))};
	uint32_t used = 0, fed = how == WHOLE ? s->size : 0, need = 1;
	neap_parse_init(&p);
	p.login = login;
	for (;;) {
		int got = 0;
		if (how == ASKING_ALWAYS || fed - used >= need) {
			char *bytes = malloc(fed - used + (fed == used));
			if (!bytes)
				die("no memory");
			memcpy(bytes, s->data + used, fed - used);
			got = neap_parse(&p, bytes, fed - used);
			need = got ? 1 : p.need;
			if (!got && need <= fed - used && how == AS_THE_SERVER)
				die("needs what it has");
			if (got > 0 && (p.used == 0 || p.used > fed - used || p.argc > NEAP_ARGS))
				die("a command of impossible size");
			if (got > 0 && p.argc) {
				for (uint32_t i = 0; i < p.argc; i++)
					tell(&t, p.argv[i].data, p.argv[i].size);
				tell(&t, "", 0);
				t.commands++;
				answer(&p, &r);
			}
			free(bytes);
		}
		t.end = got;
		if (got < 0)
			break;
		if (got > 0)
			used += p.used;
		else if (fed == s->size)
			break;
		else
			fed += 1 + below(below(3) ? 8 : s->size - fed);
		fed = fed > s->size ? s->size : fed;
	}
	if (t.end < 0)
		memcpy(t.error, p.error, sizeof t.error);
	weigh(&r, t.commands);
	free(r.data);
	return t;
}

static int same(const struct story *a, const struct story *b)
{
	return a->hash == b->hash && a->commands == b->commands && a->end == b->end &&
		!strcmp(a->error, b->error);
}

int main(int argc, char **argv)
{
	static struct stream s;
	uint64_t streams = streams_of(argc, argv);
	uint64_t commands = 0, errors = 0;
	plant();
	for (stream_number = 0; stream_number < streams; stream_number++) {
		state = seed + stream_number * UINT64_C(0x632be59bd9b4e019);
		s.size = 0;
		for (uint32_t i = 1 + below(5); i; i--)
			add_command(&s);
		for (uint32_t i = below(8); i; i--)
			damage(&s);
		uint32_t login = below(4) == 0;
		struct story whole = read_stream(&s, WHOLE, login);
		struct story served = read_stream(&s, AS_THE_SERVER, login);
		struct story asked = read_stream(&s, ASKING_ALWAYS, login);
		if (!same(&whole, &served) || !same(&whole, &asked)) {
			printf("# %u %d %s / %u %d %s / %u %d %s\n", whole.commands, whole.end,
			       whole.error, served.commands, served.end, served.error, asked.commands,
			       asked.end, asked.error);
			die("split feeds tell another story");
		}
		neap_reply_measure(s.data, s.size);
		commands += whole.commands;
		errors += whole.end < 0;
	}
	printf("ok - %" PRIu64 " streams, %" PRIu64 " commands, %" PRIu64 " protocol errors\n",
	       streams, commands, errors);
	return 0;
}
