/* SPDX-License-Identifier: MIT */
/* resp.c - Redis' protocol, without sockets: commands in, replies out.
 *
 * A command is an array of bulk strings, or one line of words for people:
 *
 *     *2\r\n$4\r\nECHO\r\n$5\r\nhello\r\n          echo "hello"\r\n
 *
 * The parser keeps no state between calls. A caller that has part of a command comes back with
 * more bytes, and the parser walks over the front again: a step per word, never a byte per byte,
 * since a bulk says how long it is. 'need' spares even that: it is the least size at which the
 * walk could get further, so 64 KiB that arrive in single bytes are walked over once. What this
 * buys is the absence of a state machine: there is one way through a command, whatever the
 * split, and no half-read command to keep per client.
 *
 * Texts are Redis 7's, with three differences. Lines and bulks must end where they say (Redis
 * skips two bytes unseen). Limits are tighter, for there are no giant values here. And nothing is
 * waited for that is already decided: a type byte but '$' is refused before its line ends.
 *
 * Replies are written once, in the protocol the client speaks; the fall-backs to RESP2 are those
 * of Redis' own commands. The buffer doubles as it must, and at its limit fails for good: half a reply
 * would leave a client out of step.
 */
#include "neap.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LOGIN_ARGS = 10, LOGIN_BULK = 16384, LINE_MAX_BYTES = NEAP_BULK_BYTES };

void neap_parse_init(struct neap_parse *p)
{
	memset(p, 0, offsetof(struct neap_parse, argv));
	p->args_max = NEAP_ARGS;
	p->bulk_max = NEAP_BULK_BYTES;
	p->error[0] = 0;
}

__attribute__((format(printf, 2, 3)))
static int refuse(struct neap_parse *p, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	size_t size = (size_t)snprintf(p->error, sizeof p->error, "Protocol error: ");
	vsnprintf(p->error + size, sizeof p->error - size, format, args);
	va_end(args);
	return NEAP_ERANGE;
}

static int wait_for(struct neap_parse *p, uint32_t size)
{
	if (size > NEAP_QUERY_BYTES)
		return refuse(p, "too big request");
	p->need = size;
	return 0;
}

/* A whole number as Redis wants it, no sign but '-', no zero in front: 1, or 0. */
static int number(const char *text, uint32_t size, int64_t *out)
{
	uint32_t i = size && text[0] == '-';
	int64_t value = 0;
	if (size == i || size - i > 18 || (text[i] == '0' && size > 1))
		return 0;
	for (; i < size; i++) {
		if (text[i] < '0' || text[i] > '9')
			return 0;
		value = value * 10 + (text[i] - '0');
	}
	*out = text[0] == '-' ? -value : value;
	return 1;
}

/* The same for the usual line, at most five digits, without looking for its end first. */
static int usual(const char *data, uint32_t size, uint32_t *from, int64_t *out)
{
	uint32_t first = *from + 1, at = first;
	int64_t value = 0;
	while (at < size && at - first < 5 && data[at] >= '0' && data[at] <= '9')
		value = value * 10 + (data[at++] - '0');
	if (at == first || size - at < 2 || data[at] != '\r' || data[at + 1] != '\n')
		return 0;
	if (data[first] == '0' && at > first + 1)
		return 0;
	*out = value;
	*from = at + 2;
	return 1;
}

/* The number in the line that starts at 'from' with its type byte; *from is then the next line.
 * 1, 0 for more, NEAP_ERANGE. */
static int header(struct neap_parse *p, const char *data, uint32_t size, uint32_t *from,
		  const char *what, int64_t *out)
{
	if (usual(data, size, from, out))
		return 1;
	const char *end = memchr(data + *from, '\r', size - *from);
	if ((end ? (uint32_t)(end - data) : size) - *from > LINE_MAX_BYTES)
		return refuse(p, "too big %s count string", what);
	if (!end || end + 1 == data + size)
		return wait_for(p, size + 1);
	uint32_t at = (uint32_t)(end - data);
	if (end[1] != '\n' || !number(data + *from + 1, at - *from - 1, out))
		return refuse(p, "invalid %s length", *what == 'm' ? "multibulk" : what);
	*from = at + 2;
	return 1;
}

/* A byte that may stand in an error line. */
static char shown(char c)
{
	return (unsigned char)c < ' ' || c == 127 ? ' ' : c;
}

/* "*<n>\r\n", then n times "$<size>\r\n<bytes>\r\n". */
static int array(struct neap_parse *p, const char *data, uint32_t size)
{
	uint32_t from = 0;
	int64_t count = 0, bulk = 0;
	int ok = header(p, data, size, &from, "mbulk", &count);
	if (ok <= 0)
		return ok;
	if (count > p->args_max)
		return refuse(p, "invalid multibulk length");
	if (p->login && count > LOGIN_ARGS)
		return refuse(p, "unauthenticated multibulk length");
	for (uint32_t i = 0; i < count; i++) {
		if (from == size)
			return wait_for(p, size + 1);
		if (data[from] != '$')
			return refuse(p, "expected '$', got '%c'", shown(data[from]));
		ok = header(p, data, size, &from, "bulk", &bulk);
		if (ok <= 0)
			return ok;
		if (bulk < 0 || bulk > p->bulk_max)
			return refuse(p, "invalid bulk length");
		if (p->login && bulk > LOGIN_BULK)
			return refuse(p, "unauthenticated bulk length");
		uint32_t end = from + (uint32_t)bulk;
		if (size <= end || (size == end + 1 && data[end] == '\r'))
			return wait_for(p, size < end + 1 ? end + 1 : end + 2);
		if (data[end] != '\r' || data[end + 1] != '\n')
			return refuse(p, "expected CRLF after bulk");
		p->argv[i] = (struct neap_span){data + from, (uint32_t)bulk};
		from = end + 2;
	}
	p->used = from;
	p->argc = count > 0 ? (uint32_t)count : 0;
	return 1;
}

static int blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r') || c == 0;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* What a backslash in double quotes stands for; *at is the byte after it, then the last used. */
static char escaped(const char *data, uint32_t end, uint32_t *at)
{
	char c = data[*at];
	if (c == 'x' && *at + 2 < end && hex(data[*at + 1]) >= 0 && hex(data[*at + 2]) >= 0) {
		*at += 2;
		return (char)(hex(data[*at - 1]) * 16 + hex(data[*at]));
	}
	switch (c) {
	case 'n': return '\n';
	case 'r': return '\r';
	case 't': return '\t';
	case 'b': return '\b';
	case 'a': return '\a';
	default: return c;
	}
}

/* One word from 'at' on, its quotes resolved in place (a word never grows). Where it ends, or 0
 * for unbalanced quotes. */
static uint32_t word(char *data, uint32_t at, uint32_t end, struct neap_span *out)
{
	char quote = 0, *to = data + at;
	out->data = to;
	for (; at < end && (quote || !blank(data[at])); at++) {
		char c = data[at];
		if (quote && c == quote) {
			if (at + 1 < end && !blank(data[at + 1]))
				return 0;
			quote = 0;
		} else if (!quote && (c == '"' || c == '\'')) {
			quote = c;
		} else if (quote == '"' && c == '\\' && at + 1 < end) {
			at++;
			*to++ = escaped(data, end, &at);
		} else if (quote == '\'' && c == '\\' && at + 1 < end && data[at + 1] == '\'') {
			at++;
			*to++ = '\'';
		} else {
			*to++ = c;
		}
	}
	out->size = (uint32_t)(to - out->data);
	return quote ? 0 : at;
}

static int line(struct neap_parse *p, char *data, uint32_t size)
{
	const char *feed = memchr(data, '\n', size);
	uint32_t end = feed ? (uint32_t)(feed - data) : size;
	if (end > LINE_MAX_BYTES)
		return refuse(p, "too big inline request");
	if (!feed)
		return wait_for(p, size + 1);
	p->used = end + 1;
	if (end && data[end - 1] == '\r')
		end--;
	uint32_t count = 0, at = 0;
	for (;;) {
		while (at < end && blank(data[at]))
			at++;
		if (at == end)
			break;
		if (p->login && count == LOGIN_ARGS)
			return refuse(p, "unauthenticated multibulk length");
		if (count == p->args_max)
			return refuse(p, "too big inline request");
		at = word(data, at, end, &p->argv[count]);
		if (!at)
			return refuse(p, "unbalanced quotes in request");
		if (p->login && p->argv[count].size > LOGIN_BULK)
			return refuse(p, "unauthenticated bulk length");
		count++;
	}
	p->argc = count;
	return 1;
}

int neap_parse(struct neap_parse *p, char *data, uint32_t size)
{
	p->argc = p->used = 0;
	p->need = 1;
	if (!size)
		return 0;
	return data[0] == '*' ? array(p, data, size) : line(p, data, size);
}

/* ---- replies ---- */

/* Make room for 'size' bytes and say where, or NULL. */
static char *room(struct neap_reply *r, size_t size)
{
	size_t held = r->tail - r->head;
	if (r->failed || held > r->limit || size > r->limit - held)
		goto fail;
	if (r->room - r->tail >= size)
		return r->data + r->tail;
	if (r->head) {
		memmove(r->data, r->data + r->head, held);
		r->head = 0;
		r->tail = (uint32_t)held;
	}
	size_t want = r->room ? r->room : 256;
	while (want < held + size)
		want *= 2;
	if (want > r->room) {
		char *data = realloc(r->data, want);
		if (!data)
			goto fail;
		r->data = data;
		r->room = (uint32_t)want;
	}
	return r->data + r->tail;
fail:
	r->failed = 1;
	return NULL;
}

void neap_reply_raw(struct neap_reply *r, const char *data, size_t size)
{
	char *to = room(r, size);
	if (!to)
		return;
	memcpy(to, data, size);
	r->tail += (uint32_t)size;
}

void neap_reply_free(struct neap_reply *r)
{
	free(r->data);
	r->data = NULL;
	r->head = r->tail = r->room = 0;
	r->failed = 0;
}

/* <type><number>\r\n in front of 'more' bytes that are sure to fit. */
static char *head(struct neap_reply *r, char type, int64_t value, size_t more)
{
	char digits[24], *at = digits + sizeof digits;
	char *to = room(r, sizeof digits + 3 + more);
	if (!to)
		return NULL;
	if (value >= 0 && value < 10) {   /* most are */
		memcpy(to, (char[]){type, (char)('0' + value), '\r', '\n'}, 4);
		r->tail += 4;
		return to + 4;
	}
	uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
	do
		*--at = (char)('0' + left % 10);
	while (left /= 10);
	if (value < 0)
		*--at = '-';
	size_t size = (size_t)(digits + sizeof digits - at);
	*to = type;
	memcpy(to + 1, at, size);
	memcpy(to + 1 + size, "\r\n", 2);
	r->tail += (uint32_t)size + 3;
	return r->data + r->tail;
}

static void text_line(struct neap_reply *r, char type, const char *text, size_t size)
{
	char *to = room(r, size + 3);
	if (!to)
		return;
	*to++ = type;
	for (size_t i = 0; i < size; i++)
		*to++ = shown(text[i]);
	memcpy(to, "\r\n", 2);
	r->tail += (uint32_t)size + 3;
}

void neap_reply_status(struct neap_reply *r, const char *text, size_t size)
{
	text_line(r, '+', text, size);
}

void neap_reply_error(struct neap_reply *r, const char *text, size_t size)
{
	text_line(r, '-', text, size);
}

void neap_reply_integer(struct neap_reply *r, int64_t value)
{
	head(r, ':', value, 0);
}

void neap_reply_bulk(struct neap_reply *r, const char *data, size_t size)
{
	char *to = head(r, '$', (int64_t)size, size + 2);
	if (!to)
		return;
	memcpy(to, data, size);
	memcpy(to + size, "\r\n", 2);
	r->tail += (uint32_t)size + 2;
}

void neap_reply_verbatim(struct neap_reply *r, const char *data, size_t size)
{
	if (r->proto < 3) {
		neap_reply_bulk(r, data, size);
		return;
	}
	char *to = head(r, '=', (int64_t)size + 4, size + 6);
	if (!to)
		return;
	memcpy(to, "txt:", 4);
	memcpy(to + 4, data, size);
	memcpy(to + 4 + size, "\r\n", 2);
	r->tail += (uint32_t)size + 6;
}

void neap_reply_double(struct neap_reply *r, double value)
{
	char text[40];
	int size = 0;
	if (isnan(value))
		size = snprintf(text, sizeof text, "nan");
	else if (isinf(value))
		size = snprintf(text, sizeof text, value < 0 ? "-inf" : "inf");
	else   /* the shortest that reads back as the same */
		for (int digits = 15; digits <= 17; digits++) {
			size = snprintf(text, sizeof text, "%.*g", digits, value);
			if (strtod(text, NULL) == value)
				break;
		}
	if (r->proto < 3)
		neap_reply_bulk(r, text, (size_t)size);
	else
		text_line(r, ',', text, (size_t)size);
}

void neap_reply_bool(struct neap_reply *r, int value)
{
	if (r->proto < 3)
		neap_reply_integer(r, value != 0);
	else
		neap_reply_raw(r, value ? "#t\r\n" : "#f\r\n", 4);
}

void neap_reply_null(struct neap_reply *r)
{
	if (r->proto < 3)
		neap_reply_raw(r, "$-1\r\n", 5);
	else
		neap_reply_raw(r, "_\r\n", 3);
}

void neap_reply_null_array(struct neap_reply *r)
{
	if (r->proto < 3)
		neap_reply_raw(r, "*-1\r\n", 5);
	else
		neap_reply_raw(r, "_\r\n", 3);
}

void neap_reply_array(struct neap_reply *r, uint32_t count)
{
	head(r, '*', count, 0);
}

void neap_reply_map(struct neap_reply *r, uint32_t count)
{
	if (r->proto < 3)
		head(r, '*', (int64_t)count * 2, 0);
	else
		head(r, '%', count, 0);
}

void neap_reply_set(struct neap_reply *r, uint32_t count)
{
	head(r, r->proto < 3 ? '*' : '~', count, 0);
}

void neap_reply_push(struct neap_reply *r, uint32_t count)
{
	head(r, r->proto < 3 ? '*' : '>', count, 0);
}

/* Each reply takes one from 'left'; an array of n adds n, a map twice that. */
int64_t neap_reply_measure(const char *data, size_t size)
{
	static const char types[] = "+-:_#,($!=*~>%|", bulks[] = "$!=", arrays[] = "*~>";
	size_t at = 0;
	for (int64_t left = 1; left > 0; left--) {
		if (at >= size)
			return 0;
		char type = data[at];
		if (!memchr(types, type, sizeof types - 1))
			return NEAP_ERANGE;
		const char *end = memchr(data + at, '\r', size - at);
		if (!end || end + 1 == data + size)
			return 0;
		if (end[1] != '\n')
			return NEAP_ERANGE;
		const char *digits = data + at + 1;
		at = (size_t)(end - data) + 2;
		if (memchr(types, type, 7))
			continue;
		int64_t count;
		if (end - digits > 10 || !number(digits, (uint32_t)(end - digits), &count))
			return NEAP_ERANGE;
		if (count < 0 && (count != -1 || (type != '$' && type != '*')))
			return NEAP_ERANGE;
		if (count < 0)
			continue;
		if (memchr(bulks, type, 3))
			at += (size_t)count + 2;
		else if (memchr(arrays, type, 3))
			left += count;
		else
			left += 2 * count + (type == '|');   /* attributes come before a reply */
	}
	return at <= size ? (int64_t)at : 0;
}
