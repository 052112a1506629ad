--- What it costs that Lua calls: a compiled loop over the engine's functions, against one in C.
---
---   ffi       one take, `now` given, against C
---   ffi_all   one take of three limits at once, against C
---   ffi_three the same against three single takes, both from Lua
---   try_lua   throttle:try_acquire(), which has a permit to show and reads the clock, against ffi
local ffi = require "ffi"
local C = require "neap.engine"
local neap = require "neap"
local race = require "spec.bench.race"

local CALLS, ROUNDS = 100000, 101

local build = assert(os.getenv "NEAP_BUILD", "NEAP_BUILD: the build tree; spec/run sets it")
local in_c = assert(package.loadlib(build .. "/spec/bench/ffi_takes.so", "luaopen_ffi_takes"))()

local limiters = ffi.new "struct neap_limiter[3]"
local terms = ffi.new "struct neap_term[3]"
for i = 0, 2 do
  limiters[i].kind = C.NEAP_GCRA
  assert(C.neap_gcra_init(limiters[i].as.gcra, 5e8, 1e9, 2^50) == 0)
  terms[i].limiter, terms[i].multiplier = limiters + i, 1
end
local all = ffi.new("struct neap_all", terms, 3)
local cost = ffi.new("int64_t[8]", { 1 })
local first, second, third = limiters[0].as.gcra, limiters[1].as.gcra, limiters[2].as.gcra
local throttle = neap.throttle "1000000000/s burst 1000000000"

local function address(x) return ffi.cast("void *", x) end
local function check(granted) assert(granted == CALLS) end

local times = race.run(ROUNDS, {
  c_single = function () check(in_c.single(address(first), CALLS)) end,
  c_all = function () check(in_c.all(address(all), address(cost), CALLS)) end,
  lua_single = function ()
    local granted = 0
    for at = 0, CALLS - 1 do
      if C.neap_gcra_take(first, 1, at) <= at then granted = granted + 1 end
    end
    check(granted)
  end,
  lua_all = function ()
    local granted = 0
    for at = 0, CALLS - 1 do
      if C.neap_all_take(all, cost, at, nil) <= at then granted = granted + 1 end
    end
    check(granted)
  end,
  lua_three = function ()
    local granted = 0
    for at = 0, CALLS - 1 do
      if C.neap_gcra_take(first, 1, at) <= at and C.neap_gcra_take(second, 1, at) <= at
        and C.neap_gcra_take(third, 1, at) <= at then granted = granted + 1 end
    end
    check(granted)
  end,
  try = function ()
    local granted = 0
    for _ = 1, CALLS do
      if throttle:try_acquire() then granted = granted + 1 end
    end
    check(granted)
  end,
})

race.report(times, CALLS, "lua_single", "c_single", "ffi", "same-loop-in-C", "<=1.1")
race.report(times, CALLS, "lua_all", "c_all", "ffi_all", "same-loop-in-C")
race.report(times, CALLS, "lua_all", "lua_three", "ffi_three", "3-gcra-takes-from-Lua")
race.report(times, CALLS, "try", "lua_single", "try_lua", "ffi")
