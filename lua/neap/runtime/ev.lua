--- The runtime of programs that have no loop of their own: libev, and the machine's clock.
local C = require "neap.engine"
local ffi = require "ffi"
local rounds = require "neap.runtime.rounds"

local error, ipairs, pairs, tostring = error, ipairs, pairs, tostring

-- Turns that a timer ends are this far apart. With 50 waits in flight that is no later than without
-- it, with 500 a third of the CPU is saved for 7 us.
local SLACK = "20us"

local SIGNALS = { INT = C.NEAP_SIGINT, TERM = C.NEAP_SIGTERM, HUP = C.NEAP_SIGHUP }

local ev = {}

---@class neap.EvRuntime : neap.Runtime
---@field loop ffi.cdata*                       struct neap_loop *
---@field catch fun(names: string[])            "INT", "TERM", "HUP": signals() tells of them
---@field signals fun(): table<string, true>?   those that came since the last call

local OPTIONS = { waiters_max = true, slack = true }

--- Make one: neap does, when nobody says another. `slack`: turns that a timer ends are so far
--- apart, at least; seconds, or "20us" (unless told).
---
---     local rt = require("neap.runtime.ev").new { slack = "1ms" }
---
---@param options { waiters_max: integer?, slack: number|string? }?
---@return neap.EvRuntime
function ev.new(options)
  options = options or {}
  for name in pairs(options) do
    if not OPTIONS[name] then error("option '" .. tostring(name) .. "' is not known", 2) end
  end
  local slack_ns = rounds.ns(options.slack or SLACK, 2)
  if slack_ns > 1e9 then error("slack: up to 1 s expected", 2) end
  local loop = C.neap_loop_open(slack_ns)
  if loop == nil then error("the system refuses an event loop, error " .. ffi.errno(), 2) end

  local rt = { loop = loop }
  function rt.now_ns() return (C.neap_loop_now(loop)) end   -- in parentheses: see permit.new

  --- Have signals told by `signals` from now on, instead of what they do otherwise. One runtime of
  --- a process can.
  ---
  ---     rt.catch { "HUP" }
  ---
  ---@param names string[]  "INT", "TERM", "HUP"
  function rt.catch(names)
    local sum = 0
    for _, name in ipairs(names) do
      if not SIGNALS[name] then error("signal '" .. tostring(name) .. "' is not known", 2) end
      sum = sum + SIGNALS[name]
    end
    if C.neap_loop_catch(loop, sum) ~= C.NEAP_OK then
      error("another loop of this process catches signals", 2)
    end
  end

  --- The signals that came since the last call.
  ---
  ---     rt.signals()                     --> nil
  ---     rt.close()
  ---
  ---@return table<string, true>?
  function rt.signals()
    local sum = C.neap_loop_signals(loop)
    if sum == 0 then return nil end
    local seen = {}
    for name, one in pairs(SIGNALS) do
      if sum % (2 * one) >= one then seen[name] = true end
    end
    return seen
  end

  local function pass(until_ns)
    C.neap_engine_advance(rt.engine, C.neap_loop_turn(loop, until_ns))
  end

  local function close()
    C.neap_loop_close(loop)   -- and knows no rt: it is called by the collector, too
  end

  rounds.open(rt, pass, close, options.waiters_max, 2)
  return rt
end

return ev
