--- The runtime inside a program that has a tick of its own: a game server, an audio engine, any C
--- program that embeds LuaJIT. Its frames are the clock: `tick(now)` runs what became due since the
--- last one, each task at its own instant, and returns. Nothing here waits, reads a clock, or moves
--- time: so what waits has to be a task, and a call that would wait outside of one is a mistake.
---
---     C: frame ──> tick(now) ──> tasks go on ──> back to C
---          └────> neap_engine_try(engine, &request, now, &answer)
---
--- What is asked many times in a frame is asked by C itself: `lend` fills in its request for a
--- limiter that was composed here, and the two are one, counts and reconfigure() included. C may
--- try, peek, settle and give. Acquires that wait are for tasks alone, as tick drains the engine.
---
---     local rt = require("neap.runtime.host").new { now = 0 }
---     local before = neap.runtime.use(rt)
---     local move = neap.per_key "20/s burst 40"
local ffi = require "ffi"
local C = require "neap.engine"
local key = require "neap.key"
local rounds = require "neap.runtime.rounds"

local error, pairs, tonumber, tostring, type = error, pairs, tonumber, tostring, type

local HORIZON = C.neap_horizon
local instant = ffi.typeof "int64_t"
local request_p = ffi.typeof "struct neap_request *"

local host = {}

---@class neap.HostRuntime : neap.Runtime
---@field tick fun(at: number|ffi.cdata*)
---@field lend fun(limiter: neap.Limiter, into: userdata|ffi.cdata*)
---@field address fun(): number
---@field secret fun(): string

local OPTIONS = { now = true, waiters_max = true }

--- May C ask it by a request alone?
local function check_lent(limiter)
  if not require "neap.limiter".is(limiter) then
    error("lend: a limiter expected, got " .. tostring(limiter), 3)
  elseif limiter.room or limiter.guests or limiter.makers then
    error(("lend: %s has a queue, limits in Lua, or limits made by a function; C cannot ask those")
      :format(limiter.name), 3)
  end
end

--- Make one. `now` is where time begins, in ns.
---
---     rt.now()                           --> 0
---
---@param options { now: number|ffi.cdata*|nil, waiters_max: integer? }?
---@return neap.HostRuntime
function host.new(options)
  options = options or {}
  for name in pairs(options) do
    if not OPTIONS[name] then error("option '" .. tostring(name) .. "' is not known", 2) end
  end
  local rt, lent = {}, {}

  local function instant_of(at, least)
    if type(at) ~= "number" and not ffi.istype("int64_t", at)
      or not (at >= least and at < HORIZON) then
      error(("now: an instant in ns from %s to 2^60 expected, got %s"):format(
        tostring(least), tostring(at)), 3)
    end
    return instant(at)
  end

  local now = instant_of(options.now or 0, 0)
  local frame = now   -- what time may move up to
  function rt.now_ns() return now end

  local function pass(until_ns)
    if until_ns > frame then
      error("only tasks can wait for the next tick: neap.spawn it", 0)
    end
    if until_ns > now then now = instant(until_ns) end
    C.neap_engine_advance(rt.engine, now)
  end

  local self
  --- A frame begins at `at`: let all happen that was due by then, each at its own instant. Tasks
  --- run until they wait or end.
  ---
  ---     local nap = neap.spawn(neap.sleep, "20ms")
  ---     rt.tick(16666667)
  ---     rt.tick(33333333)
  ---     nap.ended                        --> true
  ---
  ---@param at number|ffi.cdata*  ns, not before the last frame's
  function rt.tick(at)
    frame = instant_of(at, now)
    repeat rt.turn(frame) until now >= frame and self:is_idle()
  end

  --- Fill in a request of C's for this limiter: costs and keys are C's to write. The limiter is
  --- kept as long as this runtime is. C does not hear of its close().
  ---
  ---     local ffi = require "ffi"
  ---     local request = ffi.new "struct neap_request"   -- C's own, by lua_pushlightuserdata
  ---     rt.lend(move, request)
  ---     request.all.count                --> 1
  ---
  ---@param limiter neap.Limiter  without a queue, limits in Lua, or limits made by a function
  ---@param into userdata|ffi.cdata*  struct neap_request *
  function rt.lend(limiter, into)
    check_lent(limiter)
    ffi.cast(request_p, into).all = limiter.terms.all
    lent[#lent + 1] = limiter
  end

  --- Where the engine is, for C: `(struct neap_engine *)(uintptr_t)lua_tonumber(L, -1)`.
  ---
  ---     rt.address() > 0                 --> true
  ---
  ---@return number
  function rt.address() return tonumber(ffi.cast("uintptr_t", rt.engine)) end

  --- What C hashes keys with, so that 42 there and 42 here are one: neap_hash_integer(secret, 42).
  ---
  ---     #rt.secret()                     --> 16
  ---     neap.runtime.use(before)
  ---
  ---@return string  16 bytes
  function rt.secret() return ffi.string(key.secret, 16) end

  self = rounds.open(rt, pass, function () end, options.waiters_max, 2)
  return rt
end

return host
