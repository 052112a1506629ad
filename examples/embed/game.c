/* SPDX-License-Identifier: MIT */
/* game.c - a game server that limits what its players do, in its own 60 Hz tick.
 *
 * It links neap's core alone: no loop, no clock, no thread, no Lua. The server's frame is the time,
 * so 'now' is the frame's number times 1/60 s, and a frame is three steps:
 *
 *      neap_engine_advance(engine, now)      let time pass: who waited is granted, or out of time
 *      neap_engine_drain(...)                and the frame hears of them, in a batch
 *      neap_engine_try / _acquire            what the players want now
 *
 * Three limits, in the three ways there are to keep one:
 *
 *      move   20/s burst 40   a struct in the player's own record, for what all do all the time: a
 *                             word and some arithmetic, no engine
 *      chat   5/10s           a limit per key, for what few do: who is silent takes no memory
 *      save   8 at once       one for all, and a line before it: two seconds at most
 *
 * From an installed neap (PKG_CONFIG_PATH=<prefix>/lib/pkgconfig if that is not /usr/local):
 *
 *      cc -O2 -o game game.c $(pkg-config --cflags --libs neap-core)
 *      ./game 10000 600         10,000 players, 600 frames; `./game 10000 600 fast` does not wait
 *                               for the frames and so is over at once, with the same result
 */
#include <neap.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>

enum { FRAME_RATE = 60, SAVERS = 8, LINE_MOST = 1024, BATCH = 64 };

static const neap_ns SECOND = 1000000000, SAVE_NS = 50000000;

struct player {
	uint64_t key;             /* a hash: who they are to a limit per key */
	struct neap_gcra move;
};

/* Somebody who saves, or waits to. */
struct save {
	int player;
	int64_t ticket;   /* 0: it is saving, since: */
	neap_ns at;
};

struct tally { int64_t asked, granted; };

struct game {
	struct neap_engine *engine;
	struct neap_limiter limit[2];
	struct neap_term term[2];
	struct neap_all all[2];
	struct neap_request request[2];   /* made once; who asks, and until when, is written in */
	struct player *player;
	int players;
	struct save save[LINE_MOST];
	int saves;
	uint64_t dice;
	struct tally moves, chats, saved;
	int64_t waited, late;
};

enum { CHAT, SAVE };

/* ---- set-up ---- */

static void fail(const char *what)
{
	fprintf(stderr, "game: %s\n", what);
	exit(1);
}

/* Nobody is ever forgotten: there is room for all. */
static struct neap_limiter chat_limit(int players, const uint8_t *secret)
{
	struct neap_limiter like = {.kind = NEAP_GCRA}, each = {.kind = NEAP_KEYED};
	neap_gcra_init(&like.as.gcra, 5, 10 * SECOND, 5);
	each.as.keyed = neap_keyed_open(&like, players, NEAP_REFUSE, 0, secret);
	if (!each.as.keyed)
		fail("no memory for the chat");
	return each;
}

static void open_game(struct game *g, int players)
{
	uint8_t secret[16];   /* so that nobody can pick a name that collides with another's */
	if (getrandom(secret, sizeof secret, 0) != sizeof secret)
		fail("no random bytes");
	*g = (struct game){.players = players, .dice = 1};
	g->engine = neap_engine_open(LINE_MOST, 0);
	g->player = calloc((size_t)players, sizeof *g->player);
	if (!g->engine || !g->player)
		fail("no memory");
	for (int i = 0; i < players; i++) {
		g->player[i].key = neap_hash_integer(secret, i);
		neap_gcra_init(&g->player[i].move, 20, SECOND, 40);
	}
	g->limit[CHAT] = chat_limit(players, secret);
	g->limit[SAVE].kind = NEAP_SEMAPHORE;
	neap_semaphore_init(&g->limit[SAVE].as.semaphore, SAVERS, 0);
	for (int i = CHAT; i <= SAVE; i++) {
		g->term[i] = (struct neap_term){.limiter = &g->limit[i], .multiplier = 1};
		neap_all_init(&g->all[i], &g->term[i], 1);
		g->request[i] = (struct neap_request){.all = &g->all[i], .cost = {1}};
	}
}

static void close_game(struct game *g)
{
	neap_engine_close(g->engine);
	neap_keyed_close(g->limit[CHAT].as.keyed);
	free(g->player);
}

/* ---- what players do ---- */

/* One in 'n', on average. */
static int chance(struct game *g, uint32_t n)
{
	g->dice = g->dice * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(g->dice >> 32) < UINT32_MAX / n;
}

/* Now or not at all: a move, or a line of chat, that is too much is dropped. */
static void move(struct game *g, struct player *p, neap_ns now)
{
	g->moves.asked++;
	g->moves.granted += neap_gcra_take(&p->move, 1, now) <= now;
}

static void chat(struct game *g, const struct player *p, neap_ns now)
{
	struct neap_request *r = &g->request[CHAT];
	struct neap_answer a;
	r->key[0] = p->key;
	neap_engine_try(g->engine, r, now, &a);
	g->chats.asked++;
	g->chats.granted += a.status == NEAP_GRANTED;
}

/* Now, or in line until the disk has time. */
static void want_to_save(struct game *g, int player, neap_ns now)
{
	struct neap_request *r = &g->request[SAVE];
	struct neap_answer a;
	r->deadline = now + 2 * SECOND;
	g->saved.asked++;
	if (g->saves == LINE_MOST || neap_engine_acquire(g->engine, r, now, &a))
		return;
	if (a.status == NEAP_GRANTED)
		g->saved.granted++;
	else if (a.status != NEAP_WAITING)
		return;
	g->save[g->saves++] = (struct save){player, a.ticket, now};
}

/* A ticket has ended. The line is short, so it is looked for by hand. */
static void hear(struct game *g, const struct neap_completion *end, neap_ns now)
{
	int i = 0;
	while (g->save[i].ticket != end->ticket)
		i++;
	if (end->status == NEAP_GRANTED) {
		g->save[i].ticket = 0;
		g->save[i].at = now;
		g->saved.granted++;
		g->waited++;
	} else {   /* NEAP_TIMEOUT */
		g->save[i] = g->save[--g->saves];
		g->late++;
	}
}

/* Saving takes a few frames; then the place goes to the next in line, in the next frame. */
static void finish_saves(struct game *g, neap_ns now)
{
	for (int i = g->saves - 1; i >= 0; i--)
		if (!g->save[i].ticket && now - g->save[i].at >= SAVE_NS) {
			neap_engine_give(g->engine, &g->request[SAVE], NEAP_SUCCESS, g->save[i].at,
					 now);
			g->save[i] = g->save[--g->saves];
		}
}

static void frame(struct game *g, int64_t number)
{
	neap_ns now = number * SECOND / FRAME_RATE;
	struct neap_completion end[BATCH];
	int64_t n;
	neap_engine_advance(g->engine, now);
	while ((n = neap_engine_drain(g->engine, end, BATCH)) > 0)
		for (int64_t i = 0; i < n; i++)
			hear(g, &end[i], now);
	finish_saves(g, now);
	for (int i = 0; i < g->players; i++) {
		move(g, &g->player[i], now);
		if (chance(g, 100))
			chat(g, &g->player[i], now);
		if (number % (10 * FRAME_RATE) == 0 && i % 25 == 0)   /* a checkpoint */
			want_to_save(g, i, now);
	}
}

/* ---- the server ---- */

static double cpu_s(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Sleep until a frame is due; one that is late begins at once. */
static void wait_for(const struct timespec *start, int64_t number)
{
	int64_t ns = start->tv_nsec + number * SECOND / FRAME_RATE;
	struct timespec due = {start->tv_sec + ns / SECOND, ns % SECOND};
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

int main(int argc, char **argv)
{
	static struct game g;
	struct timespec start;
	int players = argc > 1 ? atoi(argv[1]) : 10000;
	int frames = argc > 2 ? atoi(argv[2]) : 10 * FRAME_RATE;
	int fast = argc > 3 && !strcmp(argv[3], "fast");
	if (players < 1 || frames < 1)
		fail("usage: game [players [frames [fast]]]");
	open_game(&g, players);
	double began = cpu_s();
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (int number = 0; number < frames; number++) {
		if (!fast)
			wait_for(&start, number);
		frame(&g, number);
	}
	double cpu = cpu_s() - began;
	printf("moves %lld of %lld\n", (long long)g.moves.granted, (long long)g.moves.asked);
	printf("chats %lld of %lld\n", (long long)g.chats.granted, (long long)g.chats.asked);
	printf("saves %lld of %lld, %lld waited, %lld too late\n", (long long)g.saved.granted,
	       (long long)g.saved.asked, (long long)g.waited, (long long)g.late);
	printf("cpu %.2f %% of one core, %.0f ns per action\n", 100 * cpu * FRAME_RATE / frames,
	       1e9 * cpu / (double)(g.moves.asked + g.chats.asked + g.saved.asked));
	close_game(&g);
	return 0;
}
