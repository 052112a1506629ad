/* SPDX-License-Identifier: MIT */
/* server_http.c - the server's HTTP: requests by turns, what is none, the slow, the idle, the many. */
#define _GNU_SOURCE
#include "peer.h"

#define HEAD "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
#define OK_HEAD "HTTP/1.1 200 OK\r\n" HEAD
#define CLOSE_HEAD "HTTP/1.1 200 OK\r\nConnection: close\r\n" HEAD
#define SECOND INT64_C(1000000000)

static int dial_http(void) { return listen_dial_on(neap_server_listen_http); }

static void test_requests(void)
{
	open_server(10, 0);
	int fd = dial_http();
	static const char one[] = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
	check(expect(fd, one, OK_HEAD "Content-Length: 10\r\n\r\nGET /a  1\n", 0), "a request");
	for (size_t i = 0; i + 1 < sizeof one - 1; i++)
		say(fd, one + i, 1);
	check(expect(fd, "\n", OK_HEAD "Content-Length: 10\r\n\r\nGET /a  1\n", 0), "in single bytes");
	check(expect(fd, "POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhiHEAD /c HTTP/1.1\r\n"
		     "Host: h\r\n\r\n", OK_HEAD "Content-Length: 13\r\n\r\nPOST /b hi 2\n"
		     OK_HEAD "Content-Length: 11\r\n\r\n", 0), "two at once, one with a body");
	check(expect(fd, "GET /park HTTP/1.1\r\nHost: h\r\n\r\nGET /d HTTP/1.1\r\nHost: h\r\n\r\n", "", 0),
	      "what is behind a parked one waits");
	neap_http_status(neap_server_reply(server, parked), 204, 0);
	neap_http_no_body(neap_server_reply(server, parked));
	neap_server_resume(server, parked);
	check(expect(fd, "", "HTTP/1.1 204 No Content\r\n" HEAD "\r\n"
		     OK_HEAD "Content-Length: 10\r\n\r\nGET /d  1\n", 0), "and goes on when it is answered");
	int64_t before = up_count;
	check(expect(fd, "GET /e HTTP/1.0\r\n\r\nGET /f HTTP/1.0\r\n\r\n",
		     CLOSE_HEAD "Content-Length: 10\r\n\r\nGET /e  0\n", 1) && up_count == before + 2,
	      "the last one is the last that is read");
	close(fd);
	fd = dial(port_of(0));
	say(fd, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", 28);
	shutdown(fd, SHUT_WR);
	check(expect(fd, "", OK_HEAD "Content-Length: 10\r\n\r\nGET /a  1\n", 1),
	      "who has said all hears the answer");
	close(fd);
	close_server();
}

static void test_nonsense(void)
{
	static const struct { const char *sent, *status, *error; } rows[] = {
		{"*1\r\n$4\r\nPING\r\n", "400 Bad Request", "this is no HTTP request"},
		{"PING\r\n", "400 Bad Request", "this is no HTTP request"},
		{"\x16\x03\x01", "400 Bad Request", "a TLS hello; neap speaks no TLS"},
		{"GET / HTTP/1.1\n", "400 Bad Request", "a line does not end in CRLF"},
		{"GET / HTTP/3.0\r\n", "505 HTTP Version Not Supported", "HTTP/1.1 is spoken here"},
		{"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		 "411 Length Required", "a body comes with its Content-Length"},
	};
	open_server(10, 0);
	int fd = dial_http();
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char expected[300];
		close(fd);
		fd = dial(port_of(0));
		snprintf(expected, sizeof expected, "HTTP/1.1 %s\r\nConnection: close\r\n" HEAD
			 "Content-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%s", rows[i].status,
			 strlen(rows[i].error), rows[i].error);
		check(expect(fd, rows[i].sent, expected, 1), "%s", rows[i].status);
		check(note && !strcmp(note, rows[i].error), "the log hears of it");
	}
	close(fd);
	char error[128];
	check(neap_server_listen_http(server, "0.0.0.0:0", error, sizeof error) == NEAP_ERANGE,
	      "without users it is this machine's, too");
	close_server();
}

/* The sweep is the loop's own, once a second; what it goes by is the time it was given. */
static int cut_within(neap_ns step_ns, int seconds)
{
	int64_t before = closed_count;
	neap_ns until = neap_loop_now(loop) + seconds * SECOND;
	now += step_ns;
	while (closed_count == before && neap_loop_now(loop) < until) {
		neap_loop_turn(loop, neap_loop_now(loop) + SECOND / 10);
		turns(1);
	}
	return closed_count != before;
}

static void test_sloth(void)
{
	open_server(10, 0);
	int fd = dial_http();
	now += SECOND;
	say(fd, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf", 51);
	settle();
	check(!cut_within(9 * SECOND, 2), "half a request may take a while");
	check(cut_within(2 * SECOND, 20) && note && strstr(note, "10 s"), "but not for ever");
	close(fd);

	note = NULL;
	fd = dial(port_of(0));
	check(expect(fd, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
		     OK_HEAD "Content-Length: 10\r\n\r\nGET /a  1\n", 0), "one that asks");
	check(!cut_within(59 * SECOND, 2), "may be idle");
	check(cut_within(2 * SECOND, 20) && !note, "for a minute");
	close(fd);

	fd = dial(port_of(0));
	expect(fd, "GET /park HTTP/1.1\r\nHost: h\r\n\r\n", "", 0);
	check(!cut_within(3600 * SECOND, 2), "one that waits is not idle");
	int64_t before = closed_count;
	close(fd);
	settle();
	check(closed_count == before + 1, "and that it hangs up is seen at once");

	fd = dial(port_of(0));
	static const char big_one[] = "GET /big HTTP/1.1\r\nHost: h\r\n\r\n";
	before = up_count;
	for (int i = 0; i < 200; i++)
		say(fd, big_one, sizeof big_one - 1);
	struct neap_client c;
	neap_server_client(server, neap_server_after(server, 0), &c);
	check(up_count - before < 100 && c.out_bytes <= NEAP_REPLY_BYTES && c.http,
	      "a slow reader is not served ahead: %" PRId64 " of 200", up_count - before);
	check(cut_within(61 * SECOND, 20) && note && strstr(note, "60 s"), "and cut in the end");
	close(fd);
	close_server();
}

/* Tell it so many bytes, of its own accord. */
static void push(int64_t client, size_t size)
{
	static const char block[65536];
	for (; size >= sizeof block; size -= sizeof block)
		neap_reply_raw(neap_server_push(server, client), block, sizeof block);
	settle();
}

static uint32_t unsent(int64_t client)
{
	struct neap_client c = {.out_bytes = 0};
	neap_server_client(server, client, &c);
	return c.out_bytes;
}

/* Read until the server has less than that left to send; sockets hold some in between. */
static void fetch(int fd, int64_t client, uint32_t below)
{
	static char bytes[65536];
	ssize_t got = 1;
	while (unsent(client) >= below && (got > 0 || errno == EAGAIN)) {
		got = recv(fd, bytes, sizeof bytes, 0);
		turns(1);
	}
}

static void test_subscribers(void)
{
	open_server(10, 0);
	char error[128];
	struct neap_server_stats stats;
	neap_server_listen(server, "127.0.0.1:0", error, sizeof error);
	int behind = dial(port_of(0)), catches_up = dial(port_of(0));
	int64_t one = neap_server_after(server, 0), two = neap_server_after(server, one);
	check(neap_server_subscribe(server, one, 0, -1) == NEAP_ERANGE, "there is no less than none");
	neap_server_subscribe(server, one, INT32_MAX, INT32_MAX);
	neap_server_stats(server, &stats);
	check(stats.subscribers == 1, "there are never too many");
	neap_server_subscribe(server, one, 1, 1);
	neap_server_subscribe(server, two, 0, 1);
	push(one, 30 << 20);
	push(two, 30 << 20);
	check(!cut_within(1, 2), "subscribers may be far behind");
	fetch(behind, one, unsent(one));
	fetch(catches_up, two, 7 << 20);
	check(!cut_within(40 * SECOND, 2), "for a while");
	fetch(behind, one, unsent(one));
	fetch(catches_up, two, unsent(two));
	check(cut_within(25 * SECOND, 20) && note && strstr(note, "8 MiB behind"), "but not for ever");
	struct neap_client c;
	neap_server_stats(server, &stats);
	check(!neap_server_client(server, two, &c) && c.patterns == 1 && c.channels == 0 &&
	      stats.subscribers == 1, "the one that catches up stays");
	push(two, 64 << 20);
	neap_server_stats(server, &stats);
	check(stats.clients == 0 && stats.subscribers == 0, "beyond 32 MiB it is cut at once");
	close(behind);
	close(catches_up);
	close_server();
}

static void test_crowd(void)
{
	open_server(2, 0);
	int one = dial_http(), two = dial(port_of(0)), three = dial(port_of(0));
	char text[512];
	int ended;
	hear(three, text, sizeof text, &ended);
	check(ended && !strncmp(text, "HTTP/1.1 503 ", 13), "one too many is told so");
	close(one);
	settle();
	neap_server_drain(server);
	int four = dial(port_of(0));
	check(expect(four, "GET /a HTTP/1.1\r\nHost: h\r\n\r\n",
		     OK_HEAD "Content-Length: 10\r\n\r\nGET /a  1\n", 0), "while it drains it can be asked");
	close(two);
	close(three);
	close(four);
	close_server();
}

int main(void)
{
	test_requests();
	test_nonsense();
	test_sloth();
	test_subscribers();
	test_crowd();
	return finish();
}
