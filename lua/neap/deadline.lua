--- How long to wait, as a caller says it: a duration, a timeout, a deadline.
local ffi = require "ffi"
local C = require "neap.engine"
local rounds = require "neap.runtime.rounds"

local error, pairs, tostring, type = error, pairs, tostring, type
local NEVER, HORIZON = C.neap_never, C.neap_horizon

local deadline = {}

--- A duration in ns: seconds, or a text such as "250ms". The horizon, or math.huge, is for ever.
---@param duration number|string
---@param what string
---@param level integer
---@return ffi.cdata*  int64_t
function deadline.ns_of(duration, what, level)
  if type(duration) == "number" and duration < 0 then
    error(("%s: seconds from 0 expected, got %s"):format(what, tostring(duration)), level + 1)
  end
  return rounds.ns(duration, level)   -- a tail call, which has no level of its own
end

local function earlier(a, b) return a < b and a or b end

--- The instant given up at, from a table of options.
---@param given any
---@param now ffi.cdata*
---@param level integer
---@return ffi.cdata*
function deadline.of(given, now, level)
  if type(given) ~= "table" then return NEVER end
  local at = NEVER
  if given.timeout ~= nil then at = now + deadline.ns_of(given.timeout, "timeout", level + 1) end
  local given_at = given.deadline
  if type(given_at) == "number" and given_at == given_at then
    at = earlier(at, rounds.ns(given_at, level + 1))
  elseif ffi.istype("int64_t", given_at) then
    at = earlier(at, given_at < 0 and 0LL or given_at)
  elseif given_at ~= nil then
    error("deadline: an instant expected, as neap.now() gives it, got " .. tostring(given_at),
      level + 1)
  end
  return at < HORIZON and at or NEVER
end

--- `acquire(3, 2)`, `acquire({ input = 5 }, { deadline = at })`: how long to wait, said apart.
---@param given integer|table|nil
---@param wait number|string|table  a timeout, or a table of timeout and deadline
---@param level integer
---@return table
function deadline.joined(given, wait, level)
  if type(wait) ~= "table" then wait = { timeout = wait } end
  for name in pairs(wait) do
    if name ~= "timeout" and name ~= "deadline" then
      error(("acquire: how long to wait: timeout or deadline expected, got %s"):format(
        tostring(name)), level + 1)
    end
  end
  if type(given) == "table" and (given.timeout ~= nil or given.deadline ~= nil) then
    error("acquire: how long to wait is said twice", level + 1)
  end
  if type(given) == "table" and given.cost ~= nil then
    local both = {}
    for name, value in pairs(given) do both[name] = value end
    both.timeout, both.deadline = wait.timeout, wait.deadline
    return both
  end
  return { cost = given, timeout = wait.timeout, deadline = wait.deadline }
end

return deadline
