--- A leaf: one limit as the engine keeps it, set up from the value that notation reads.
local ffi = require "ffi"
local C = require "neap.engine"

local gcra_t = ffi.typeof "struct neap_gcra"

local set_up = {}

function set_up.in_flight(leaf, value)
  leaf.kind = C.NEAP_SEMAPHORE
  return C.neap_semaphore_init(leaf.as.semaphore, value.amount, 0)
end

-- A bucket of one token, of which each unit of cost needs two (see `multiplier`).
function set_up.closed(leaf)
  leaf.kind = C.NEAP_GCRA
  return C.neap_gcra_init(leaf.as.gcra, 1, 1, 1)
end

function set_up.rate(leaf, value)
  local gcra = gcra_t()
  local code = C.neap_gcra_init(gcra, value.amount, value.per_ns, value.burst)
  if code == C.NEAP_OK then leaf.kind, leaf.as.gcra = C.NEAP_GCRA, gcra end
  return code
end

function set_up.sliding(leaf, value, log, entries)
  leaf.kind = C.NEAP_WINDOW
  return C.neap_window_init(leaf.as.window, value.amount, value.per_ns, log, entries)
end

--- Begin, or begin again. False, and nothing is changed, when the engine cannot hold to such a
--- limit: more than 6 tokens per ns, or a burst of 2^59.
---@param leaf ffi.cdata*   struct neap_limiter
---@param value neap.limit  not an unlimited one, which needs no leaf
---@param log ffi.cdata*?   of a sliding one: struct neap_stamp[], kept alive by the caller
---@param entries integer?  in the log
---@return boolean
local function init(leaf, value, log, entries)
  local kind = value.mode == "sliding" and "sliding" or value.kind
  return set_up[kind](leaf, value, log, entries) == C.NEAP_OK
end

--- Tokens that a unit of cost takes.
---@param value neap.limit
---@return integer
local function multiplier(value) return value.kind == "closed" and 2 or 1 end

return { init = init, multiplier = multiplier }
