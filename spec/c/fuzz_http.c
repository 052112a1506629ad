/* SPDX-License-Identifier: MIT */
/* fuzz_http.c - the reader of HTTP on streams nobody would send.
 *
 *     fuzz_http [streams]     default NEAP_FUZZ, or 100,000; the same NEAP_SEED, the same streams
 *
 * A stream is a few requests, well formed, then damaged: bytes flipped, dropped, doubled, telling
 * ones put in, lines that smuggle added. It is read three times: all at once, in random pieces as
 * the server does it (asking only from 'need' bytes on), and in random pieces asking each time. All
 * three must tell the same story, request for request and error for error. Each call sees a block
 * of exactly as many bytes as there are, so a sanitizer notices one byte too far.
 *
 * A second reader, written another way, watches what is taken: of each request it counts the CRLFs
 * up to the empty line, reads the length by itself, and must come to the same end. So no two
 * readers disagree about where a request ends, which is what smuggling lives on.
 */
#include "fuzz.h"
#include "neap.h"

#include <string.h>
#include <strings.h>

static void put(struct stream *s, uint32_t at, const char *text, size_t size)
{
	if (s->size + size > STREAM)
		return;
	memmove(s->data + at + size, s->data + at, s->size - at);
	memcpy(s->data + at, text, size);
	s->size += (uint32_t)size;
}

static void add(struct stream *s, const char *text) { put(s, s->size, text, strlen(text)); }

static const char *const firsts[] = {
	"GET / HTTP/1.1", "GET /metrics HTTP/1.1", "HEAD /healthz HTTP/1.0", "POST /a?b=c HTTP/1.1",
	"GET http://h/x HTTP/1.1", "DELETE /v1/check/p/q HTTP/1.1", "OPTIONS * HTTP/1.1",
	"GET / HTTP/2.0", "GET  / HTTP/1.1", "*1", "PRI * HTTP/2.0", "GET /", "GET /\xc3\xa4 HTTP/1.1",
};
static const char *const fields[] = {
	"Accept: */*", "Connection: close", "Connection: keep-alive, x", "X-Y:z", "User-Agent: \ta b ",
	"Content-Length: 5", "Content-Length: 05", "Content-Length: 5, 5", "Content-Length: +5",
	"Content-Length: 65536", "Content-Length: 65537", "Content-Length: 99999999999999999999",
	"Content-Length:", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked",
	"Transfer-Encoding : chunked", " folded", "Host: again", "Expect: 100-continue", ": x", "bad",
};
static const char *const telling[] = {
	"\r", "\n", "\r\n", "\r\n\r\n", "\n\n", " ", "\t", ":", "\xff", "HTTP/1.1", ",", "\x16\x03\x01",
};

static void add_request(struct stream *s)
{
	if (below(10) == 0)
		add(s, "\r\n");
	add(s, below(3) ? firsts[below(5)] : ONE_OF(firsts));
	add(s, "\r\n");
	if (below(20))
		add(s, "Host: h\r\n");
	for (uint32_t i = below(40) ? below(4) : 55 + below(12); i; i--) {
		add(s, below(4) ? fields[below(5)] : ONE_OF(fields));
		add(s, "\r\n");
	}
	uint32_t kind = below(6);
	if (kind == 0)
		add(s, "Content-Length: 5\r\n");
	for (uint32_t big = below(200) ? 0 : 7900 + below(9000); big; big--)
		add(s, "z");
	add(s, kind == 0 ? "\r\nhello" : "\r\n");
}

static void damage(struct stream *s)
{
	if (!s->size)
		return;
	uint32_t at = below(s->size), left = s->size - at;
	uint32_t some = 1 + below(left < 20 ? left : 20);
	const char *text = below(3) ? ONE_OF(telling) : ONE_OF(fields);
	switch (below(6)) {
	case 0:
		s->data[at] = (char)dice();
		break;
	case 1:
		s->data[at] = *ONE_OF(telling);
		break;
	case 2:
		memmove(s->data + at, s->data + at + some, left - some);
		s->size -= some;
		break;
	case 3:
		s->size = at;
		break;
	case 4:
		put(s, at, text, strlen(text));
		break;
	default: {   /* a line of its own */
		const char *feed = memchr(s->data + at, '\n', left);
		if (!feed)
			break;
		at = (uint32_t)(feed - s->data) + 1;
		put(s, at, "\r\n", 2);
		put(s, at, text, strlen(text));
	}
	}
}

/* ---- telling what was read ---- */

struct story {
	uint64_t hash;
	uint32_t requests;
	int end, status;            /* what the reader said last */
	const char *error;
};

static void tell(struct story *t, const struct neap_span *span)
{
	for (uint32_t i = 0; i < span->size; i++)
		t->hash = (t->hash ^ (unsigned char)span->data[i]) * UINT64_C(1099511628211);
	t->hash = (t->hash ^ span->size) * UINT64_C(1099511628211);
}

/* The second reader. */
static void watch(const struct neap_http *p, const char *data)
{
	static const char empty[] = "\r\n\r\n", length[] = "\r\nContent-Length:";
	uint32_t end = 0, body = 0, hosts = 0;
	while (end + 4 <= p->used && memcmp(data + end, empty, 4) != 0)
		end++;
	for (uint32_t i = 0; i < end; i++) {
		if ((data[i] == '\n') != (i && data[i - 1] == '\r'))
			die("a CR or an LF by itself was let through");
		if (i + sizeof length <= end && !strncasecmp(data + i, length, sizeof length - 1))
			body += (uint32_t)strtoul(data + i + sizeof length - 1, NULL, 10);
		hosts += i + 7 <= end && !strncasecmp(data + i, "\r\nHost:", 7);
		if (i + 20 <= end && !strncasecmp(data + i, "\r\nTransfer-Encoding:", 20))
			die("a transfer coding was let through");
	}
	if (end + 4 + body != p->used || body != p->body.size ||
	    p->body.data + p->body.size != data + p->used)
		die("two readers disagree about a request's end");
	if (hosts > 1 || (!hosts && p->minor))
		die("not one Host");
}

static void answer(const struct neap_http *p, struct neap_reply *r)
{
	static const char empty[] = "\r\n\r\n";
	uint32_t from = r->tail;
	neap_http_status(r, 200, p->how);
	neap_http_field(r, "X-Verb", p->verb.data, p->verb.size);
	for (uint32_t i = 0; i < p->fields; i++)
		neap_http_field(r, "X-Value", p->field[i].value.data, p->field[i].value.size);
	neap_http_body(r, p->body.data, p->body.size, p->how);
	if (r->failed)
		return;
	const char *head = r->data + from;
	uint32_t size = r->tail - from, body = p->how & NEAP_HTTP_BARE ? 0 : p->body.size, lines = 0;
	for (uint32_t i = 0; i < size - body; i++)
		lines += head[i] == '\n';
	uint32_t own = 5 + ((p->how & (NEAP_HTTP_CLOSES | NEAP_HTTP_OLD)) != 0);
	if (lines != own + 1 + p->fields || memcmp(head + size - body - 4, empty, 4) != 0)
		die("a response of other lines than were written");
	r->tail = from;
}

enum how { WHOLE, AS_THE_SERVER, ASKING_ALWAYS };

static struct story read_stream(const struct stream *s, enum how how, uint32_t body_max)
{
	static struct neap_http p;
	struct story t = {.hash = UINT64_C(14695981039346656037), .error = ""};
	struct neap_reply r = {.limit = below(4) ? NEAP_REPLY_BYTES : below(500), .proto = 2};
	uint32_t used = 0, fed = how == WHOLE ? s->size : 0, need = 1;
	neap_http_init(&p);
	p.body_max = body_max;
	for (;;) {
		int got = 0;
		if (how == ASKING_ALWAYS || fed - used >= need) {
			char *bytes = malloc(fed - used + (fed == used));
			if (!bytes)
				die("no memory");
			memcpy(bytes, s->data + used, fed - used);
			got = neap_http_parse(&p, bytes, fed - used);
			need = got ? 1 : p.need;
			if (!got && need <= fed - used)
				die("needs what it has");
			if (got > 0 && (p.used == 0 || p.used > fed - used || p.seen || p.line))
				die("a request of impossible size");
			if (got > 0) {
				tell(&t, &p.verb);
				tell(&t, &p.target);
				tell(&t, &p.body);
				for (uint32_t i = 0; i < p.fields; i++) {
					tell(&t, &p.field[i].name);
					tell(&t, &p.field[i].value);
				}
				t.hash += p.how + 8 * (uint32_t)p.method;
				t.requests++;
				watch(&p, bytes);
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
	if (t.end < 0) {
		t.status = p.status;
		t.error = p.error;
		t.hash += p.how;
		if (!(p.how & NEAP_HTTP_CLOSES))
			die("an error that does not close");
	}
	free(r.data);
	return t;
}

static int same(const struct story *a, const struct story *b)
{
	return a->hash == b->hash && a->requests == b->requests && a->end == b->end &&
		a->status == b->status && !strcmp(a->error, b->error);
}

int main(int argc, char **argv)
{
	static struct stream s;
	uint64_t streams = streams_of(argc, argv);
	uint64_t requests = 0, errors = 0;
	plant();
	for (stream_number = 1; stream_number <= streams; stream_number++) {
		s.size = 0;
		for (uint32_t i = 1 + below(5); i; i--)
			add_request(&s);
		for (uint32_t i = below(4); i; i--)
			damage(&s);
		uint32_t body_max = below(4) ? NEAP_HTTP_BODY_BYTES : below(10);
		struct story whole = read_stream(&s, WHOLE, body_max);
		struct story served = read_stream(&s, AS_THE_SERVER, body_max);
		struct story asked = read_stream(&s, ASKING_ALWAYS, body_max);
		if (!same(&whole, &served) || !same(&whole, &asked)) {
			printf("# %u %d %s / %u %d %s / %u %d %s\n", whole.requests, whole.end,
			       whole.error, served.requests, served.end, served.error, asked.requests,
			       asked.end, asked.error);
			die("split feeds tell another story");
		}
		requests += whole.requests;
		errors += whole.end < 0;
	}
	printf("ok - %" PRIu64 " streams, %" PRIu64 " requests, %" PRIu64 " errors\n", streams,
	       requests, errors);
	return 0;
}
