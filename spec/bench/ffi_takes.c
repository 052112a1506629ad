/* SPDX-License-Identifier: MIT */
/* ffi_takes.c - the loops of ffi.lua once more, in C, as a module that ffi.lua loads: calls into
 * the same library, and no compiler may look into them.
 *
 *   single(gcra, calls)       neap_gcra_take, one by one, 'now' counting up
 *   all(all, cost, calls)     neap_all_take
 *
 * Both answer how many were granted. Pointers come as cdata of type void *.
 */
#include "neap.h"

#include <lua.h>

static void *pointer(lua_State *L, int argument)
{
	void *const *cdata = lua_topointer(L, argument);
	return *cdata;
}

static int single(lua_State *L)
{
	struct neap_gcra *g = pointer(L, 1);
	int64_t calls = lua_tointeger(L, 2), granted = 0;
	for (neap_ns now = 0; now < calls; now++)
		granted += neap_gcra_take(g, 1, now) <= now;
	lua_pushinteger(L, granted);
	return 1;
}

static int all(lua_State *L)
{
	const struct neap_all *a = pointer(L, 1);
	const int64_t *cost = pointer(L, 2);
	int64_t calls = lua_tointeger(L, 3), granted = 0;
	for (neap_ns now = 0; now < calls; now++)
		granted += neap_all_take(a, cost, now, NULL) <= now;
	lua_pushinteger(L, granted);
	return 1;
}

__attribute__((visibility("default"))) int luaopen_ffi_takes(lua_State *L);

int luaopen_ffi_takes(lua_State *L)
{
	lua_createtable(L, 0, 2);
	lua_pushcfunction(L, single);
	lua_setfield(L, -2, "single");
	lua_pushcfunction(L, all);
	lua_setfield(L, -2, "all");
	return 1;
}
