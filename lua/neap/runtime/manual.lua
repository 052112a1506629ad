--- The runtime of specs, simulations and the curious: time moves only when it is told to, or when
--- everybody waits for it, and then it jumps. Nothing sleeps, and every run is like the last.
---
---     local rt = require("neap.runtime.manual").new { now = 100 }
---     local before = neap.runtime.use(rt)
local C = require "neap.engine"
local ffi = require "ffi"
local rounds = require "neap.runtime.rounds"

local error, pairs, tostring, type = error, pairs, tostring, type

local NEVER, HORIZON = C.neap_never, C.neap_horizon
local instant = ffi.typeof "int64_t"

local manual = {}

---@class neap.ManualRuntime : neap.Runtime
---@field advance fun(duration: number|string)
---@field advance_ns fun(ns: integer|ffi.cdata*)
---@field advance_to fun(at: ffi.cdata*|integer)

local OPTIONS = { now = true, waiters_max = true }

--- Make one. `now` is where time begins: seconds, or an instant.
---
---     rt.now()                           --> 100
---
---@param options { now: number|ffi.cdata*|nil, waiters_max: integer? }?
---@return neap.ManualRuntime
function manual.new(options)
  options = options or {}
  for name in pairs(options) do
    if not OPTIONS[name] then error("option '" .. tostring(name) .. "' is not known", 2) end
  end
  local now = options.now or 0
  if not ffi.istype("int64_t", now) then now = rounds.ns(now, 2) end
  if now < 0 or now >= HORIZON then error("now: an instant from 0 to 2^60 ns expected", 2) end

  local rt = {}
  function rt.now_ns() return now end

  local function pass(until_ns)
    if until_ns > now and until_ns ~= NEVER then now = instant(until_ns) end
    C.neap_engine_advance(rt.engine, now)
  end

  local self
  --- Let time pass until `at`, in steps: who becomes due on the way runs at its own instant. Time
  --- stands as long as anybody can run.
  ---
  ---     local nap = neap.spawn(neap.sleep, 10)
  ---     rt.advance_to(109e9)
  ---     print(rt.now(), nap.ended)       --> 109, nil
  ---
  ---@param at integer|ffi.cdata*  ns
  function rt.advance_to(at)
    if not ffi.istype("int64_t", at) and type(at) ~= "number" then
      error("an instant expected, got " .. tostring(at), 2)
    end
    if at < now or at >= HORIZON then
      error(("time moves forward only, from %s to %s"):format(tostring(now), tostring(at)), 2)
    end
    repeat rt.turn(at) until now >= at and self:is_idle()
  end

  --- The same for so many nanoseconds.
  ---
  ---     rt.advance_ns(5e8)
  ---     rt.now()                         --> 109.5
  ---
  ---@param ns integer|ffi.cdata*
  ---@return nil
  function rt.advance_ns(ns)
    return rt.advance_to(now + ns)
  end

  --- The same for a duration.
  ---
  ---     rt.advance "500ms"
  ---     print(rt.now(), nap.ended)       --> 110, true
  ---     neap.runtime.use(before)
  ---
  ---@param duration number|string  seconds, or "250ms"
  ---@return nil
  function rt.advance(duration)
    return rt.advance_to(now + rounds.ns(duration, 2))
  end

  self = rounds.open(rt, pass, function () end, options.waiters_max, 2)
  return rt
end

return manual
