/* SPDX-License-Identifier: MIT */
/* http.c - HTTP/1.0 and 1.1, without sockets: requests in, responses out.
 *
 *     GET /v1/check/api?cost=2 HTTP/1.1\r\n     the request line
 *     Host: 127.0.0.1:9390\r\n                  fields
 *     Content-Length: 2\r\n
 *     \r\n
 *     ok                                        the body, as long as was said
 *
 * Who stands between a client and us (RFC 9112, section 11.2) must see the same requests in the
 * same bytes as we do, or one client's bytes become another's request. So nothing is guessed and
 * nothing is mended; what two readers could read differently is refused, and the connection with
 * it: a line that ends in a bare LF, a blank before a colon, a folded line, a second
 * Content-Length (though it say the same), a length that is not digits alone, a length and a
 * transfer coding, two Hosts. A body comes with its length; chunked ones are refused.
 *
 * A head has no length, so the walk for its end remembers how far it came ('seen', and the 'line'
 * it is in): each byte is looked at once for its line's end, once for its line's form when that
 * is whole, and once more when the head is. The first line that is wrong is what is wrong with
 * the request, whatever pieces it came in; a line is too long when its bytes are there, not when
 * its end is.
 *
 * Responses are written by the same writer as Redis' (see resp.c).
 */
#include "neap.h"

#include <stdio.h>
#include <string.h>

enum { BODY_DIGITS = 18 };

void neap_http_init(struct neap_http *p)
{
	memset(p, 0, offsetof(struct neap_http, field));
	p->body_max = NEAP_HTTP_BODY_BYTES;
	p->error = "";
}

static int refuse(struct neap_http *p, int status, const char *error)
{
	p->status = status;
	p->error = error;
	p->how |= NEAP_HTTP_CLOSES;
	return NEAP_ERANGE;
}

/* ---- letters ---- */

/* What a method or a field's name is made of (RFC 9110, 5.6.2). */
static int token(unsigned char c)
{
	return ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || (c >= '0' && c <= '9') ||
		(c && strchr("!#$%&'*+-.^_`|~", c));
}

static int same(const struct neap_span *a, const char *lower)
{
	size_t size = strlen(lower);
	if (a->size != size)
		return 0;
	for (size_t i = 0; i < size; i++) {
		char c = a->data[i];
		if ((c >= 'A' && c <= 'Z' ? c | 0x20 : c) != lower[i])
			return 0;
	}
	return 1;
}

/* Without the blanks around it. */
static struct neap_span trimmed(const char *from, const char *end)
{
	while (from < end && (*from == ' ' || *from == '\t'))
		from++;
	while (end > from && (end[-1] == ' ' || end[-1] == '\t'))
		end--;
	return (struct neap_span){from, (uint32_t)(end - from)};
}

/* Is this word in a list with commas? */
static int lists(const struct neap_span *list, const char *lower)
{
	const char *from = list->data, *end = list->data + list->size;
	while (from < end) {
		const char *comma = memchr(from, ',', (size_t)(end - from));
		struct neap_span one = trimmed(from, comma ? comma : end);
		if (same(&one, lower))
			return 1;
		from = comma ? comma + 1 : end;
	}
	return 0;
}

/* ---- lines, each without its CRLF ---- */

/* "http://host/path?query" is asked for as "/path?query", whatever host that was. */
static int aim(struct neap_http *p, const char *from, const char *end)
{
	struct neap_span scheme = {from, 7};
	if (end - from > 7 && same(&scheme, "http://")) {
		from += 7;
		while (from < end && *from != '/' && *from != '?')
			from++;
		if (from == end)
			from = "/", end = from + 1;
	}
	p->target = (struct neap_span){from, (uint32_t)(end - from)};
	return *from == '/' || p->method == NEAP_HTTP_OTHER ? 1 :
		refuse(p, 400, "the target is no path");
}

static int method_of(const struct neap_span *verb)
{
	static const struct { const char *name; int method; } known[] = {
		{"GET", NEAP_HTTP_GET}, {"HEAD", NEAP_HTTP_HEAD}, {"POST", NEAP_HTTP_POST},
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (verb->size == strlen(known[i].name) &&
		    memcmp(verb->data, known[i].name, verb->size) == 0)
			return known[i].method;
	return NEAP_HTTP_OTHER;
}

/* "HTTP/1.1", or a later 1.x, which is to be treated as that; "HTTP/1.0". */
static int version(struct neap_http *p, const char *from, const char *end)
{
	if (end - from != 8 || memcmp(from, "HTTP/", 5) != 0 || from[5] < '0' || from[5] > '9' ||
	    from[6] != '.' || from[7] < '0' || from[7] > '9')
		return refuse(p, 400, "this is no HTTP request");
	if (from[5] != '1')
		return refuse(p, 505, "HTTP/1.1 is spoken here");
	p->minor = from[7] != '0';
	return 1;
}

static int request_line(struct neap_http *p, const char *from, const char *end)
{
	const char *at = from;
	while (at < end && token((unsigned char)*at))
		at++;
	p->verb = (struct neap_span){from, (uint32_t)(at - from)};
	p->method = method_of(&p->verb);
	if (at == from || at == end || *at != ' ')
		return refuse(p, 400, "this is no HTTP request");
	const char *target = ++at;
	while (at < end && *at > ' ' && *at < 127 && *at != '#')
		at++;
	if (at == target || at == end || *at != ' ')
		return refuse(p, 400, "this is no HTTP request");
	int ok = version(p, at + 1, end);
	return ok > 0 ? aim(p, target, at) : ok;
}

static int field_line(struct neap_http *p, const char *from, const char *end,
		      struct neap_field *out)
{
	const char *at = from;
	if (*at == ' ' || *at == '\t')
		return refuse(p, 400, "a field is folded over two lines");
	while (at < end && token((unsigned char)*at))
		at++;
	if (at == from || at == end || *at != ':')
		return refuse(p, 400, "a field has no name with a colon right after it");
	out->name = (struct neap_span){from, (uint32_t)(at - from)};
	out->value = trimmed(at + 1, end);
	for (at = out->value.data; at < out->value.data + out->value.size; at++)
		if (((unsigned char)*at < ' ' && *at != '\t') || *at == 127)
			return refuse(p, 400, "a control byte in a field's value");
	return 1;
}

/* ---- heads ---- */

/* Is what the line from 'line' on has so far, up to 'end' and with an LF to come, too much? */
static int bounded(struct neap_http *p, uint32_t line, uint32_t end)
{
	if (!p->line && end - line >= NEAP_HTTP_LINE_BYTES)
		return refuse(p, 414, "the request line is too long");
	if (end >= NEAP_HTTP_HEAD_BYTES)
		return refuse(p, 431, "the head is too large");
	return 1;
}

/* Walk on to the head's end, judging each line that is whole: 1 there, 0 not yet. */
static int walk(struct neap_http *p, const char *data, uint32_t size, uint32_t first)
{
	if (p->seen < first)
		p->seen = first;
	for (;;) {
		uint32_t line = p->line ? p->line : first;
		const char *feed = memchr(data + p->seen, '\n', size - p->seen);
		uint32_t end = feed ? (uint32_t)(feed - data) : size;
		int ok = bounded(p, line, end);
		if (ok < 0)
			return ok;
		if (!feed) {
			p->seen = size;
			return 0;
		}
		if (end == line || data[end - 1] != '\r')
			return refuse(p, 400, "a line does not end in CRLF");
		const char *from = data + line, *to = data + end - 1;
		struct neap_field ignored;
		if (from == to && p->line)
			return 1;
		ok = p->line ? field_line(p, from, to, &ignored) : request_line(p, from, to);
		if (ok < 0)
			return ok;
		p->line = p->seen = end + 1;
	}
}

static int length(struct neap_http *p, const struct neap_span *value)
{
	uint64_t bytes = 0;
	if (!value->size)
		return refuse(p, 400, "a Content-Length that is no number");
	for (uint32_t i = 0; i < value->size; i++) {
		if (value->data[i] < '0' || value->data[i] > '9')
			return refuse(p, 400, "a Content-Length that is no number");
		if (i < BODY_DIGITS)
			bytes = bytes * 10 + (uint64_t)(value->data[i] - '0');
	}
	if (value->size > BODY_DIGITS || bytes > p->body_max)
		return refuse(p, 413, "the body is too large");
	p->body.size = (uint32_t)bytes;
	return 1;
}

/* What the fields say about the request itself. */
static int heed(struct neap_http *p)
{
	uint32_t hosts = 0, lengths = 0, codings = 0, chunked = 0, closes = !p->minor, expects = 0;
	const struct neap_span *bytes = NULL;
	for (uint32_t i = 0; i < p->fields; i++) {
		const struct neap_span *name = &p->field[i].name, *value = &p->field[i].value;
		if (same(name, "host")) {
			hosts++;
		} else if (same(name, "content-length")) {
			lengths++;
			bytes = value;
		} else if (same(name, "transfer-encoding")) {
			codings++;
			chunked = (uint32_t)same(value, "chunked");
		} else if (same(name, "expect")) {
			expects = 1;
		} else if (same(name, "connection")) {
			if (lists(value, "close"))
				closes = 2;   /* for good */
			else if (lists(value, "keep-alive") && closes == 1)
				closes = 0;
		}
	}
	p->how = (closes ? NEAP_HTTP_CLOSES : 0u) | (p->minor ? 0u : NEAP_HTTP_OLD) |
		(p->method == NEAP_HTTP_HEAD ? NEAP_HTTP_BARE : 0u);
	if (hosts > 1 || (!hosts && p->minor))
		return refuse(p, 400, hosts ? "more than one Host" : "no Host");
	if (lengths > 1)
		return refuse(p, 400, "more than one Content-Length");
	if (codings && (lengths || !p->minor))
		return refuse(p, 400, lengths ? "a Content-Length and a Transfer-Encoding" :
			      "a Transfer-Encoding in HTTP/1.0");
	if (codings > 1 || (codings && !chunked))
		return refuse(p, 501, "a Transfer-Encoding that is not known");
	if (codings)
		return refuse(p, 411, "a body comes with its Content-Length");
	if (expects)
		return refuse(p, 417, "nothing is answered before the body");
	return bytes ? length(p, bytes) : 1;
}

/* The head is whole, its lines well formed: take it apart. */
static int take_apart(struct neap_http *p, const char *data, uint32_t first)
{
	const char *from = data + first, *empty = data + p->line;
	int ok = 1;
	for (uint32_t line = 0; ok > 0 && from < empty; line++) {
		const char *feed = memchr(from, '\n', (size_t)(empty - from));
		if (p->fields == NEAP_HTTP_FIELDS)
			return refuse(p, 431, "more fields than are read");
		ok = line ? field_line(p, from, feed - 1, &p->field[p->fields++]) :
			request_line(p, from, feed - 1);
		from = feed + 1;
	}
	p->body.data = empty + 2;
	return ok > 0 ? heed(p) : ok;
}

int neap_http_parse(struct neap_http *p, const char *data, uint32_t size)
{
	p->fields = p->used = p->body.size = 0;
	p->how = 0;
	p->need = size + 1;
	if (!size)
		return 0;
	/* one empty line may come first (RFC 9112, 2.2): old clients end a body so */
	uint32_t first = data[0] == '\r' && (size < 2 || data[1] == '\n') ? 2 : 0;
	if (size <= first)
		return 0;
	if (!token((unsigned char)data[first]))
		return refuse(p, 400, data[first] == 0x16 ? "a TLS hello; neap speaks no TLS" :
			      "this is no HTTP request");
	int ok = walk(p, data, size, first);
	if (ok > 0)
		ok = take_apart(p, data, first);
	if (ok <= 0)
		return ok;
	p->used = p->line + 2 + p->body.size;
	if (size < p->used) {
		p->need = p->used;
		return 0;
	}
	p->seen = p->line = 0;
	return 1;
}

/* ---- responses ---- */

static const char *phrase(int status)
{
	static const struct { int status; const char *text; } known[] = {
		{200, "OK"}, {204, "No Content"}, {304, "Not Modified"}, {400, "Bad Request"},
		{401, "Unauthorized"}, {403, "Forbidden"}, {404, "Not Found"},
		{405, "Method Not Allowed"}, {406, "Not Acceptable"}, {408, "Request Timeout"},
		{411, "Length Required"}, {413, "Content Too Large"}, {414, "URI Too Long"},
		{415, "Unsupported Media Type"}, {417, "Expectation Failed"},
		{421, "Misdirected Request"}, {429, "Too Many Requests"}, {431, "Request Header Fields Too Large"},
		{500, "Internal Server Error"}, {501, "Not Implemented"},
		{503, "Service Unavailable"}, {505, "HTTP Version Not Supported"},
	};
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (known[i].status == status)
			return known[i].text;
	return "";   /* may be left out (RFC 9112, 4) */
}

void neap_http_status(struct neap_reply *r, int status, uint32_t how)
{
	char text[256];
	const char *stay = how & NEAP_HTTP_CLOSES ? "Connection: close\r\n" :
		how & NEAP_HTTP_OLD ? "Connection: keep-alive\r\n" : "";
	int size = snprintf(text, sizeof text, "HTTP/1.1 %03d %s\r\n%sCache-Control: no-store\r\n"
			    "X-Content-Type-Options: nosniff\r\n", status, phrase(status), stay);
	neap_reply_raw(r, text, (size_t)size);
}

void neap_http_field(struct neap_reply *r, const char *name, const char *value, size_t size)
{
	char text[128];
	neap_reply_raw(r, name, strlen(name));
	neap_reply_raw(r, ": ", 2);
	while (size) {
		size_t some = size < sizeof text ? size : sizeof text;
		for (size_t i = 0; i < some; i++)   /* no value ends its line */
			text[i] = (unsigned char)value[i] < ' ' || value[i] == 127 ? ' ' : value[i];
		neap_reply_raw(r, text, some);
		value += some;
		size -= some;
	}
	neap_reply_raw(r, "\r\n", 2);
}

void neap_http_body(struct neap_reply *r, const char *data, size_t size, uint32_t how)
{
	char text[64];
	int digits = snprintf(text, sizeof text, "Content-Length: %zu\r\n\r\n", size);
	neap_reply_raw(r, text, (size_t)digits);
	if (!(how & NEAP_HTTP_BARE))
		neap_reply_raw(r, data, size);
}

void neap_http_no_body(struct neap_reply *r) { neap_reply_raw(r, "\r\n", 2); }
