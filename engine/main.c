/* SPDX-License-Identifier: MIT */
/* main.c - the program `neap`: a Lua state, and the way to its modules.
 *
 * Everything the program does is Lua (neap/cli.lua); this file only makes that possible. It is
 * the one file that knows lua_State.
 *
 * The program belongs to a tree, installed or built, and looks for its modules in no other:
 *
 *     <prefix>/bin/neap                     this, wherever it was started from
 *     <prefix>/share/lua/5.1/neap/?.lua     first in package.path, before LUA_PATH
 *     <prefix>/lib/libneap.so               linked; the modules load the same file again
 *
 * Compiled code needs pages that were writable and become executable. Hardened services forbid
 * that, and LuaJIT's answer to it is to end the process; so one page is tried first, and when it
 * may not be, the compiler stays off.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <luajit.h>
#include <lualib.h>

struct invocation {
	int argc;
	char **argv;
	const char *prefix;
	int status;
};

/* The directory above the one this program is in; 0, or -1 and errno. */
static int find_prefix(char *path, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", path, size);
	if (n < 0)
		return -1;
	if ((size_t)n >= size) {
		errno = ENAMETOOLONG;
		return -1;
	}
	path[n] = '\0';
	for (int up = 0; up < 2; up++) {
		char *slash = strrchr(path, '/');
		if (!slash) {
			errno = ENOENT;
			return -1;
		}
		*slash = '\0';
	}
	return 0;
}

static int may_compile(void)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return 0;
	int may = mprotect(page, size, PROT_READ | PROT_EXEC) == 0;
	munmap(page, size);
	return may;
}

/* Our modules before all others, and none from where the program happens to be started. */
static void search_here(lua_State *L, const char *prefix)
{
	lua_getglobal(L, "package");
	lua_getfield(L, -1, "path");
	const char *path = luaL_gsub(L, lua_tostring(L, -1), "./?.lua;", "");
	lua_pushfstring(L, "%s/share/lua/5.1/?.lua;%s/share/lua/5.1/?/init.lua;%s",
			prefix, prefix, path);
	lua_setfield(L, -4, "path");
	lua_getfield(L, -3, "cpath");
	luaL_gsub(L, lua_tostring(L, -1), "./?.so;", "");
	lua_setfield(L, -5, "cpath");
	lua_pop(L, 4);
}

static int with_traceback(lua_State *L)
{
	const char *message = lua_tostring(L, 1);
	if (!message && !luaL_callmeta(L, 1, "__tostring"))
		lua_pushfstring(L, "an error that is a %s", luaL_typename(L, 1));
	message = lua_tostring(L, -1);
	luaL_traceback(L, L, message, 1);
	return 1;
}

/* In protected mode, so that running out of memory is an error message, too. */
static int protected_main(lua_State *L)
{
	struct invocation *run = lua_touserdata(L, 1);
	lua_gc(L, LUA_GCSTOP, 0);
	luaL_openlibs(L);   /* which turns the compiler on */
	lua_gc(L, LUA_GCRESTART, -1);
	if (!may_compile())
		luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
	search_here(L, run->prefix);

	lua_createtable(L, run->argc, 1);
	for (int i = 0; i < run->argc; i++) {
		lua_pushstring(L, run->argv[i]);
		lua_rawseti(L, -2, i);
	}
	lua_setglobal(L, "arg");

	lua_pushcfunction(L, with_traceback);
	int handler = lua_gettop(L);
	lua_getglobal(L, "require");
	lua_pushliteral(L, "neap.cli");
	if (lua_pcall(L, 1, 1, handler))
		return lua_error(L);
	lua_getfield(L, -1, "main");
	lua_getglobal(L, "arg");
	if (lua_pcall(L, 1, 1, handler))
		return lua_error(L);
	run->status = (int)lua_tointeger(L, -1);
	return 0;
}

int main(int argc, char **argv)
{
	char prefix[PATH_MAX];
	if (find_prefix(prefix, sizeof prefix)) {
		fprintf(stderr, "neap: where this program is cannot be told: %s\n", strerror(errno));
		return EXIT_FAILURE;
	}
	lua_State *L = luaL_newstate();
	if (!L) {
		fprintf(stderr, "neap: no memory for a Lua state\n");
		return EXIT_FAILURE;
	}
	struct invocation run = {argc, argv, prefix, EXIT_FAILURE};
	if (lua_cpcall(L, protected_main, &run)) {
		const char *message = lua_tostring(L, -1);
		fprintf(stderr, "neap: %s\n", message ? message : "an error without a message");
	}
	lua_close(L);
	if (fflush(stdout) && run.status == EXIT_SUCCESS) {
		fprintf(stderr, "neap: standard output: %s\n", strerror(errno));
		run.status = EXIT_FAILURE;
	}
	return run.status;
}
