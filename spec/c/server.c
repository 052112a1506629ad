/* SPDX-License-Identifier: MIT */
/* server.c - the server over real sockets, both ends in this one thread.
 *
 * A client here is a blocking socket with a short patience. Between what it sends and what it reads
 * the server has its turns; 'settle' runs them until nothing moves. The layer above is 'above',
 * a few commands that park, resume, hang up and log in. Time is given, except that sockets are
 * real. Prints TAP.
 */
#define _GNU_SOURCE
#include "neap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct neap_loop *loop;
static struct neap_server *server;
static struct neap_keys *keys;
static struct neap_command cmd;
static int ping, echo, park, bye, login, big, skip, cl_throttle, gcra;
static neap_ns now = 1;
static int64_t parked, closed_count, up_count;
static const char *note;
static int number, failures;

__attribute__((format(printf, 2, 3)))
static int check(int ok, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	printf("%s %d - ", ok ? "ok" : "not ok", ++number);
	vprintf(format, args);
	putchar('\n');
	va_end(args);
	failures += !ok;
	return ok;
}

/* ---- the layer above ---- */

static void above(void)
{
	struct neap_reply *r = neap_server_reply(server, cmd.client);
	up_count++;
	if (cmd.kind == NEAP_CLOSED) {
		closed_count++;
		note = cmd.note ? cmd.note : note;
	} else if (cmd.kind == park) {
		parked = cmd.client;
		neap_server_park(server, cmd.client);
	} else if (cmd.kind == bye) {
		neap_reply_status(r, "OK", 2);
		neap_server_hang_up(server, cmd.client);
	} else if (cmd.kind == login) {
		neap_server_login(server, cmd.client, "app", NEAP_ALLOW_READ);
		neap_reply_status(r, "OK", 2);
	} else if (cmd.kind == big) {
		static const char block[60000];
		for (int i = 0; i < 16; i++)
			neap_reply_bulk(r, block, sizeof block);
	} else if (cmd.kind == skip) {
		neap_server_mute(server, cmd.client, NEAP_MUTE_ONE);
	} else {
		neap_reply_status(r, "UP", 2);
	}
}

static void turns(int count)
{
	while (count--) {
		neap_loop_turn(loop, 0);
		while (neap_server_next(server, now, &cmd))
			above();
	}
}

static void settle(void)
{
	turns(20);
}

static void open_server(uint32_t clients_max, int guarded)
{
	uint8_t secret[16] = {42};
	loop = neap_loop_open(0);
	server = loop ? neap_server_open(loop, clients_max) : NULL;
	keys = neap_keys_open(1000, secret);
	if (!server || !keys)
		exit(2);
	if (guarded)
		neap_server_guard(server);
	ping = neap_server_define(server, "PING", -1, 0);
	echo = neap_server_define(server, "ECHO", 2, 0);
	park = neap_server_define(server, "PARK", 1, 0);
	bye = neap_server_define(server, "QUIT", -1, NEAP_BEFORE_LOGIN);
	login = neap_server_define(server, "AUTH", -2, NEAP_BEFORE_LOGIN);
	big = neap_server_define(server, "BIG", 1, 0);
	skip = neap_server_define(server, "SKIP", 1, 0);
	cl_throttle = neap_server_define(server, "CL.THROTTLE", -5, NEAP_ALLOW_ACQUIRE);
	gcra = neap_server_define(server, "GCRA", -5, NEAP_ALLOW_ACQUIRE);
	neap_server_define(server, "GET", 2, NEAP_ALLOW_READ);
	neap_server_throttle(server, keys);
	parked = closed_count = up_count = 0;
	note = NULL;
}

static void close_server(void)
{
	neap_server_close(server);
	neap_loop_close(loop);
	neap_keys_close(keys);
}

/* ---- the other end ---- */

static int port_of(int listener)
{
	return atoi(strrchr(neap_server_address(server, listener), ':') + 1);
}

static int dial(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct timeval patience = {.tv_usec = 200000};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a))
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	settle();
	return fd;
}

static int listen_dial(void)
{
	char error[128];
	if (neap_server_listen(server, "127.0.0.1:0", error, sizeof error)) {
		printf("# %s\n", error);
		exit(2);
	}
	return dial(port_of(0));
}

static void say(int fd, const char *text, size_t size)
{
	while (size) {
		ssize_t sent = send(fd, text, size, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent > 0) {
			text += sent;
			size -= (size_t)sent;
		} else if (sent < 0 && errno != EAGAIN) {
			return;
		}
		settle();
	}
}

/* All that comes, up to the end (then *ended) or until nothing does; NUL-terminated. */
static size_t hear(int fd, char *text, size_t room, int *ended)
{
	size_t size = 0;
	*ended = 0;
	settle();
	for (;;) {
		ssize_t got = recv(fd, text + size, room - 1 - size, MSG_DONTWAIT);
		if (got == 0 || (got < 0 && errno != EAGAIN))
			*ended = 1;
		if (got <= 0)
			break;
		size += (size_t)got;
		settle();
	}
	text[size] = 0;
	return size;
}

static int expect(int fd, const char *sent, const char *expected, int then_closed)
{
	static char text[1 << 21];
	int ended;
	say(fd, sent, strlen(sent));
	hear(fd, text, sizeof text, &ended);
	int ok = !strcmp(text, expected) && ended == then_closed;
	if (!ok)
		printf("# got '%.200s', %s\n", text, ended ? "closed" : "open");
	return ok;
}

/* ---- tests ---- */

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

static void test_turns(void)
{
	open_server(10, 0);
	int a = listen_dial(), b = dial(port_of(0));
	static char flood[64 * 6 * 40 + 1], out[1 << 20];
	for (int i = 0; i < 64 * 40; i++)
		memcpy(flood + i * 6, "PING\r\n", 6);
	ssize_t sent = send(a, flood, sizeof flood - 1, 0);
	(void)sent;
	sent = send(b, "PING\r\n", 6, 0);
	usleep(1000);
	turns(1);
	struct neap_client facts;
	int64_t first = neap_server_after(server, 0);
	neap_server_client(server, first, &facts);
	int64_t commands = facts.commands;
	int ended;
	check(commands == 64 && recv(b, out, sizeof out, MSG_DONTWAIT) == 7,
	      "64 commands of one client, then the others");
	turns(100);
	check(hear(a, out, sizeof out, &ended) == (size_t)64 * 40 * 7, "the rest follows");
	check(expect(a, "SKIP\r\nPING\r\nPING\r\n", "+PONG\r\n", 0), "one reply skipped");
	check(expect(a, "QUIT\r\nPING\r\n", "+OK\r\n", 1), "nothing is read after QUIT");
	check(expect(b, "PING\r\nPI", "+PONG\r\n", 0), "half a command waits");
	now += 11000000000;
	for (int i = 0; i < 30 && (!note || !strstr(note, "10 s")); i++) {
		neap_loop_turn(loop, neap_loop_now(loop) + 100000000);
		turns(1);
	}
	settle();
	check(note && strstr(note, "10 s"), "but not for longer than 10 s");
	close(a);
	close(b);

	a = dial(port_of(0));
	sent = send(a, "PING\r\nPING\r\n", 12, 0);
	shutdown(a, SHUT_WR);
	check(expect(a, "", "+PONG\r\n+PONG\r\n", 1), "who says no more still hears the answer");
	close(a);
	close_server();
}

static void test_slow_reader(void)
{
	open_server(10, 0);
	int fd = listen_dial();
	static char out[1 << 16];
	for (int i = 0; i < 200; i++)
		if (send(fd, "BIG\r\n", 5, MSG_DONTWAIT) != 5)
			break;
	settle();
	int64_t handed = up_count;
	turns(50);
	struct neap_client facts;
	neap_server_client(server, neap_server_after(server, 0), &facts);
	check(handed < 200 && up_count == handed && facts.out_bytes <= NEAP_REPLY_BYTES,
	      "a slow reader slows itself, and holds no more than the bound");
	int64_t total = 0;
	for (int idle = 0; idle < 20 && total < INT64_C(200) * 16 * 60010;) {
		ssize_t got = recv(fd, out, sizeof out, MSG_DONTWAIT);
		total += got > 0 ? got : 0;
		idle = got > 0 ? 0 : idle + 1;
		turns(1);
	}
	check(total == INT64_C(200) * 16 * (8 + 60000 + 2), "and in the end has all of it: %" PRId64, total);
	close(fd);

	fd = dial(port_of(0));
	expect(fd, "PARK\r\n", "", 0);
	int64_t before = closed_count;
	for (int i = 0; i < 40; i++)
		neap_reply_bulk(neap_server_reply(server, parked), out, sizeof out);
	settle();
	check(closed_count == before + 1 && strstr(note, "fetch"), "more than the bound cuts it off");
	close(fd);
	close_server();
}

static void test_limits(void)
{
	open_server(2, 0);
	int a = listen_dial(), b = dial(port_of(0)), c = dial(port_of(0));
	check(expect(c, "", "-ERR max number of clients reached\r\n", 1), "max clients");
	check(expect(a, "PING\r\n", "+PONG\r\n", 0) && expect(b, "PING\r\n", "+PONG\r\n", 0),
	      "those who are in are unharmed");
	close(c);
	close(b);
	settle();
	b = dial(port_of(0));
	check(expect(b, "PING\r\n", "+PONG\r\n", 0), "a place is free again");
	close(a);
	close(b);
	close_server();

	open_server(1000, 0);
	a = listen_dial();
	struct rlimit was, few;
	getrlimit(RLIMIT_NOFILE, &was);
	int wall = dup(a);
	few = was;
	few.rlim_cur = (rlim_t)wall + 2;   /* one for the client, then none for the server */
	setrlimit(RLIMIT_NOFILE, &few);
	c = dial(port_of(0));
	check(c >= 0 && expect(c, "", "-ERR max number of clients reached\r\n", 1),
	      "no descriptor left: told so, and closed");
	check(expect(a, "PING\r\n", "+PONG\r\n", 0), "and the first client answers");
	setrlimit(RLIMIT_NOFILE, &was);
	close(a);
	close(c);
	close(wall);
	close_server();
}

static void test_listening(void)
{
	char error[128], path[64], address[80];
	snprintf(path, sizeof path, "/tmp/neap-spec-%d.sock", (int)getpid());
	snprintf(address, sizeof address, "unix:%s", path);
	open_server(10, 0);
	check(neap_server_listen(server, address, error, sizeof error) == 0, "a Unix socket");
	check(neap_server_listen(server, address, error, sizeof error) == NEAP_ESYS &&
	      strstr(error, "in use"), "is in use while somebody listens: %s", error);
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	strcpy(a.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	check(!connect(fd, (struct sockaddr *)&a, sizeof a) && expect(fd, "PING\r\n", "+PONG\r\n", 0),
	      "it answers");
	struct neap_client facts;
	neap_server_client(server, neap_server_after(server, 0), &facts);
	check(!strcmp(facts.addr, address) && !strcmp(facts.laddr, address), "it has an address");
	neap_server_drain(server);
	check(expect(fd, "PING\r\n", "+PONG\r\n", 0), "draining keeps those who are in");
	check(access(path, F_OK) && errno == ENOENT, "and removes the file");
	close(fd);

	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	int bound = !bind(fd, (struct sockaddr *)&a, sizeof a);
	close(fd);
	check(bound && neap_server_listen(server, address, error, sizeof error) == 1,
	      "a stale file is replaced");
	close_server();
	check(access(path, F_OK) && errno == ENOENT, "closing removes the file");

	open_server(10, 0);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	check(neap_server_listen(server, address, error, sizeof error) == NEAP_ESYS, "a file that is "
	      "no socket stays: %s", error);
	unlink(path);
	static const char *const wrong[] = {"", "6390", "localhost", "127.0.0.1:", "127.0.0.1:99999",
					    "[::1:6390", ":6390", "unix:", "0.0.0.0:0", "127.0.0.1:x"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		check(neap_server_listen(server, wrong[i], error, sizeof error) == NEAP_ERANGE, "%s",
		      error);
	check(neap_server_listen(server, "127.0.0.1:0", error, sizeof error) == 0, "any port");
	snprintf(address, sizeof address, "127.0.0.1:%d", port_of(0));
	check(neap_server_listen(server, address, error, sizeof error) == NEAP_ESYS, "%s", error);
	neap_server_guard(server);
	check(neap_server_listen(server, "0.0.0.0:0", error, sizeof error) == 1, "guarded: anywhere");
	close_server();
}

static void test_many(void)
{
	enum { MANY = 300 };
	static int fd[MANY];
	open_server(MANY, 0);
	fd[0] = listen_dial();
	for (int i = 1; i < MANY; i++)
		fd[i] = dial(port_of(0));
	int64_t last = 0, seen = 0;
	for (int64_t id = neap_server_after(server, 0); id; id = neap_server_after(server, id)) {
		seen += id > last;
		last = id;
	}
	check(seen == MANY, "clients are listed oldest first");
	for (int i = 0; i < MANY; i += 2)
		close(fd[i]);
	settle();
	int all = 1;
	for (int i = 1; i < MANY; i += 2)
		all &= expect(fd[i], "ECHO hello\r\n", "$5\r\nhello\r\n", 0);
	check(all && closed_count == MANY / 2, "half of them leave, the others stay");
	for (int i = 1; i < MANY; i += 2)
		close(fd[i]);
	close_server();   /* with sockets still open on this side */
}

int main(void)
{
	test_rows();
	test_throttle();
	test_parking();
	test_login();
	test_turns();
	test_slow_reader();
	test_limits();
	test_listening();
	test_many();
	printf("1..%d\n", number);
	return failures != 0;
}
