/* SPDX-License-Identifier: MIT */
/* server.c - what the server answers: to nonsense, to CL.THROTTLE, to those parked or not let in. */
#define _GNU_SOURCE
#include "peer.h"

/* Each malformed row: what is sent, the answer, whether the connection is then closed. */
static const struct { const char *sent, *answer; int closed; } rows[] = {
	{"*1\r\n$-1\r\n", "-ERR Protocol error: invalid bulk length\r\n", 1},
	{"*1\r\n$-5\r\n", "-ERR Protocol error: invalid bulk length\r\n", 1},
	{"*1\r\n$abc\r\n", "-ERR Protocol error: invalid bulk length\r\n", 1},
	{"*1\r\n$536870913\r\n", "-ERR Protocol error: invalid bulk length\r\n", 1},
	{"*1\r\n:1", "-ERR Protocol error: expected '$', got ':'\r\n", 1},
	{"*abc\r\n", "-ERR Protocol error: invalid multibulk length\r\n", 1},
	{"*2147483648\r\n", "-ERR Protocol error: invalid multibulk length\r\n", 1},
	{"*-1\r\n*1\r\n$4\r\nPING\r\n", "+PONG\r\n", 0},
	{"*0\r\nPING\r\n", "+PONG\r\n", 0},
	{"\r\nPING\r\n", "+PONG\r\n", 0},
	{"echo 'a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n", 1},
	{"POST / HTTP/1.1\r\n", "", 1},
	{"GET / HTTP/1.1\r\n", "", 1},
	{"Host: x\r\n", "", 1},
	{"\x16\x03\x01", "", 1},
	{"*2\r\n$4\r\nECHO\r\n$1\r\nabc\r\n", "-ERR Protocol error: expected CRLF after bulk\r\n", 1},
	{"FOO\r\n", "-ERR unknown command 'FOO', with args beginning with: \r\n", 0},
	{"*3\r\n$3\r\nFOO\r\n$3\r\na\r\n\r\n$1\r\nb\r\n",
	 "-ERR unknown command 'FOO', with args beginning with: 'a  ' 'b' \r\n", 0},
	{"ECHO\r\n", "-ERR wrong number of arguments for 'echo' command\r\n", 0},
	{"PING a b\r\n", "-ERR wrong number of arguments for 'ping' command\r\n", 0},
	{"PING a\r\nping\r\n", "$1\r\na\r\n+PONG\r\n", 0},
	{"PING\r\n*x\r\nPING\r\n", "+PONG\r\n-ERR Protocol error: invalid multibulk length\r\n", 1},
};

static void test_rows(void)
{
	open_server(10, 0);
	int fd = listen_dial();
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		close(fd);
		fd = dial(port_of(0));
		note = "";
		check(expect(fd, rows[i].sent, rows[i].answer, rows[i].closed), "malformed row %zu", i);
		check(!!strstr(note, "at the RESP port") == !rows[i].answer[0], "the log hears: %s", note);
	}
	close(fd);

	static char many[71001];
	memset(many, 'x', sizeof many - 1);
	fd = dial(port_of(0));
	check(expect(fd, many, "-ERR Protocol error: too big inline request\r\n", 1), "70 KB, no line");
	close(fd);
	many[0] = '*';
	fd = dial(port_of(0));
	check(expect(fd, many, "-ERR Protocol error: too big mbulk count string\r\n", 1),
	      "70 KB of a number");
	close(fd);

	settle();
	struct neap_server_stats stats;
	neap_server_stats(server, &stats);
	check(stats.clients == 0 && closed_count == stats.accepted, "each end is told once");
	close_server();
}

static void test_throttle(void)
{
	open_server(10, 0);
	int fd = listen_dial();
	now = 1000000000000;
	check(expect(fd, "CL.THROTTLE user123 15 30 60\r\n", "*5\r\n:0\r\n:16\r\n:15\r\n:-1\r\n:2\r\n", 0),
	      "CL.THROTTLE");
	check(expect(fd, "cl.throttle user123 15 30 60 16\r\n",
		     "*5\r\n:1\r\n:16\r\n:15\r\n:2\r\n:2\r\n", 0), "a refusal says when");
	check(expect(fd, "GCRA k 10 5 0.5\r\n", "*5\r\n:0\r\n:11\r\n:10\r\n:-1\r\n:1\r\n", 0), "GCRA");
	check(expect(fd, "GCRA k 10 5 0.5 tokens 3\r\n", "*5\r\n:0\r\n:11\r\n:7\r\n:-1\r\n:1\r\n", 0),
	      "GCRA with TOKENS");
	static const struct { const char *sent, *answer; } odd[] = {
		{"CL.THROTTLE k 1 1", "wrong number of arguments for 'cl.throttle' command"},
		{"CL.THROTTLE k 1 1 1 1 1", "wrong number of arguments for 'cl.throttle' command"},
		{"CL.THROTTLE k a 1 1", "value is not an integer or out of range"},
		{"CL.THROTTLE k 1 1 1.5", "value is not an integer or out of range"},
		{"CL.THROTTLE k 1 1 1 9223372036854775808", "value is not an integer or out of range"},
		{"CL.THROTTLE k 1 1 1 -1", "quantity must be >= 0"},
		{"CL.THROTTLE k -1 1 1", "max_burst is out of range"},
		{"CL.THROTTLE k -2 1 1", "max_burst is out of range"},
		{"CL.THROTTLE k 9223372036854775807 1 1", "max_burst is out of range"},
		{"CL.THROTTLE k 9223372036854775806 1 1", "max_burst at this rate would overflow"},
		{"CL.THROTTLE k 1 0 1", "count and period must be > 0"},
		{"CL.THROTTLE k 1 1 0", "count and period must be > 0"},
		{"CL.THROTTLE k 1 1 -9223372036854775808", "count and period must be > 0"},
		{"CL.THROTTLE k 1 1 9223372037", "period would overflow"},
		{"CL.THROTTLE k 1 3000000000 1", "rates above 1000000000 per second are not supported"},
		{"GCRA k 1 1", "wrong number of arguments for 'gcra' command"},
		{"GCRA k 1 1 1 TOKENS", "syntax error"},
		{"GCRA k 1 1 1 COUNT 1", "syntax error"},
		{"GCRA k 1 1 1 TOKENS 0", "TOKENS must be >= 1"},
		{"GCRA k 1 1 x", "value is not a valid float"},
		{"GCRA k 1 1 nan", "value is not a valid float"},
		{"GCRA k 1 1 0", "count and period must be > 0"},
	};
	for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
		char sent[128], answer[128];
		snprintf(sent, sizeof sent, "%s\r\n", odd[i].sent);
		snprintf(answer, sizeof answer, "-ERR %s\r\n", odd[i].answer);
		check(expect(fd, sent, answer, 0), "%s", odd[i].sent);
	}
	int full = 0;
	for (int i = 0; i < 2000 && !full; i++) {
		char sent[64], text[256];
		int ended;
		snprintf(sent, sizeof sent, "CL.THROTTLE many%d 1 1 100\r\n", i);
		say(fd, sent, strlen(sent));
		turns(1);
		hear(fd, text, sizeof text, &ended);
		full = !strcmp(text, "-OOM too many keys are in use\r\n");
		full = full && i >= 990;
	}
	check(full, "a full table says so");
	check(expect(fd, "CL.THROTTLE another 1 1 100 0\r\n", "*5\r\n:0\r\n:2\r\n:2\r\n:-1\r\n:0\r\n", 0),
	      "and can still be looked at");
	neap_server_throttle(server, NULL);
	check(expect(fd, "CL.THROTTLE k 1 1 1\r\n", "+UP\r\n", 0), "without a table it is handed up");
	close(fd);
	close_server();
}

static void test_parking(void)
{
	open_server(10, 0);
	int fd = listen_dial();
	check(expect(fd, "PARK\r\nPING\r\n", "", 0), "what is behind a parked command waits");
	neap_reply_integer(neap_server_reply(server, parked), 7);
	check(expect(fd, "", ":7\r\n", 0), "a parked client can be answered");
	neap_server_resume(server, parked);
	check(expect(fd, "", "+PONG\r\n", 0), "and goes on when it is resumed");

	int64_t before = closed_count;
	check(expect(fd, "PARK\r\n", "", 0), "parks again");
	close(fd);
	settle();
	check(closed_count == before + 1, "that a parked client hangs up is seen at once");
	check(neap_server_resume(server, parked) == NEAP_ERANGE, "its number names nobody then");
	struct neap_reply *sink = neap_server_reply(server, parked);
	neap_reply_integer(sink, 1);
	check(sink->tail == 0, "and its replies go nowhere");

	fd = dial(port_of(0));
	static char block[70000];
	memset(block, '\n', sizeof block);
	expect(fd, "PARK\r\n", "", 0);
	before = closed_count;
	for (int i = 0; i < 40 && closed_count == before; i++)
		say(fd, block, sizeof block);
	check(closed_count == before + 1 && note && strstr(note, "ahead"),
	      "one that floods while parked is cut");
	close(fd);
	close_server();
}

static void test_login(void)
{
	open_server(10, 1);
	int fd = listen_dial();
	check(expect(fd, "PING\r\n", "-NOAUTH Authentication required.\r\n", 0), "NOAUTH");
	check(expect(fd, "AUTH x\r\nPING\r\n", "+OK\r\n+PONG\r\n", 0), "logged in");
	check(expect(fd, "GET a\r\n", "+UP\r\n", 0), "what is allowed goes");
	check(expect(fd, "CL.THROTTLE a 1 1 1\r\n",
		     "-NOPERM this user has no permissions to run the 'cl.throttle' command\r\n", 0),
	      "what is not does not");
	close(fd);
	fd = dial(port_of(0));
	check(expect(fd, "*11\r\n", "-ERR Protocol error: unauthenticated multibulk length\r\n", 1),
	      "11 words before login");
	close(fd);
	fd = dial(port_of(0));
	check(expect(fd, "*2\r\n$4\r\nAUTH\r\n$16385\r\n",
		     "-ERR Protocol error: unauthenticated bulk length\r\n", 1), "16 KiB before login");
	close(fd);
	close_server();
}

int main(void)
{
	test_rows();
	test_throttle();
	test_parking();
	test_login();
	return finish();
}
