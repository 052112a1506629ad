/* SPDX-License-Identifier: MIT */
/* policy.c - the server of game.c, whose limits are a Lua script's.
 *
 * The script (policy.lua) composes limiters and lends two of them to C; the frame is still the
 * server's. What every player asks in every frame C asks by itself: that costs what it cost without
 * Lua. What waits, saving, is a task of the script, and goes on in the frame's one call of tick:
 *
 *      tick(now)             Lua: tasks whose time has come; time passes for the engine of both
 *      neap_engine_try       C: moves and chats, of limiters that were written in Lua
 *      save()                Lua: another task, at a checkpoint
 *
 *      cc -O2 -o policy policy.c $(pkg-config --cflags --libs neap luajit)
 *      ./policy policy.lua 10000 600     frames come as fast as they are done; see game.c for a
 *                                        server that waits for them
 *
 * With a prefix the system does not look in, say so when it runs: LD_LIBRARY_PATH=<prefix>/lib
 * LUA_PATH="<prefix>/share/lua/5.1/?.lua;<prefix>/share/lua/5.1/?/init.lua;;"
 */
#include <neap.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { FRAME_RATE = 60 };

static const neap_ns SECOND = 1000000000;

struct tally { long long asked, granted; };

struct game {
	lua_State *lua;
	struct neap_engine *engine;         /* the script's */
	struct neap_request move, chat;     /* for limiters of the script */
	uint8_t secret[16];
	uint64_t *key;
	int players;
	struct tally moves, chats;
};

static void fail(const char *what)
{
	fprintf(stderr, "policy: %s\n", what);
	exit(1);
}

/* ---- what the script is asked for: its table is at the bottom of the stack ---- */

static void call(lua_State *lua, const char *name, int arguments, int results)
{
	lua_getfield(lua, 1, name);
	lua_insert(lua, -1 - arguments);
	if (lua_pcall(lua, arguments, results, 0))
		fail(lua_tostring(lua, -1));
}

static long long number(lua_State *lua, const char *name)
{
	lua_getfield(lua, 1, name);
	long long n = lua_tointeger(lua, -1);
	lua_pop(lua, 1);
	return n;
}

static void open_game(struct game *g, const char *script, int players)
{
	lua_State *lua = g->lua = luaL_newstate();
	luaL_openlibs(lua);
	if (luaL_dofile(lua, script))
		fail(lua_tostring(lua, -1));
	lua_pushlightuserdata(lua, &g->move);
	lua_pushlightuserdata(lua, &g->chat);
	call(lua, "lend", 2, 0);
	call(lua, "engine", 0, 1);
	g->engine = (struct neap_engine *)(uintptr_t)lua_tonumber(lua, -1);
	call(lua, "secret", 0, 1);
	memcpy(g->secret, lua_tostring(lua, -1), sizeof g->secret);
	lua_settop(lua, 1);
	g->players = players;
	g->key = calloc((size_t)players, sizeof *g->key);
	if (!g->key)
		fail("no memory");
	for (int i = 0; i < players; i++)
		g->key[i] = neap_hash_integer(g->secret, i);
	g->move.cost[0] = g->chat.cost[0] = 1;
}

/* ---- the frame ---- */

static void try(struct game *g, struct neap_request *r, int player, neap_ns now, struct tally *tally)
{
	struct neap_answer a;
	r->key[0] = g->key[player];
	neap_engine_try(g->engine, r, now, &a);
	tally->asked++;
	tally->granted += a.status == NEAP_GRANTED;
}

static void frame(struct game *g, int64_t number)
{
	neap_ns now = number * SECOND / FRAME_RATE;
	lua_pushnumber(g->lua, (lua_Number)now);
	call(g->lua, "tick", 1, 0);
	for (int i = 0; i < g->players; i++) {
		try(g, &g->move, i, now, &g->moves);
		if ((i + number) % 100 == 0)
			try(g, &g->chat, i, now, &g->chats);
		if (number % (10 * FRAME_RATE) == 0 && i % 25 == 0)   /* a checkpoint */
			call(g->lua, "save", 0, 0);
	}
}

static double cpu_s(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
	static struct game g;
	int players = argc > 2 ? atoi(argv[2]) : 10000;
	int frames = argc > 3 ? atoi(argv[3]) : 10 * FRAME_RATE;
	if (argc < 2 || players < 1 || frames < 1)
		fail("usage: policy policy.lua [players [frames]]");
	open_game(&g, argv[1], players);
	double began = cpu_s();
	for (int n = 0; n < frames; n++)
		frame(&g, n);
	double cpu = cpu_s() - began;
	printf("moves %lld of %lld\n", g.moves.granted, g.moves.asked);
	printf("chats %lld of %lld\n", g.chats.granted, g.chats.asked);
	printf("saves %lld, %lld too late\n", number(g.lua, "saved"), number(g.lua, "late"));
	printf("cpu %.2f %% of one core\n", 100 * cpu * FRAME_RATE / frames);
	free(g.key);
	lua_close(g.lua);
	return 0;
}
