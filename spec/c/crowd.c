/* SPDX-License-Identifier: MIT */
/* crowd.c - how the server treats many, slow, silent or greedy clients, and where it listens. */
#define _GNU_SOURCE
#include "peer.h"

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
	test_turns();
	test_slow_reader();
	test_limits();
	test_listening();
	test_many();
	return finish();
}
