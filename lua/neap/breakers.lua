--- Breakers by name: one for a name, whoever asks, there when it is first asked for.
---
---     local breakers = neap.breakers()
---     local answer, err = breakers:call(host, { failures = 3, cooldown = "10s" }, fetch, url)
---     local api = neap.hybrid { "10/s", breakers:of(host) }
---
--- The options of a name count when its breaker is made; later ones are not looked at. The number
--- of names is bounded (neap.registry): one that is closed and has no failures equals a new one and
--- may be let go; one that is open, or on its way there, never is. When there are none but such,
--- the newcomer is refused, and may call without.
local breaker = require "neap.breaker"
local registry = require "neap.registry"

local error, type = error, type

---@class neap.Breakers: neap.Registry
local breakers = registry.class()

--- Call `fn(...)` under the breaker of a name, as breaker:call does.
---@param name any
---@param options table?
---@param fn function
---@param ... any
---@return any ...
function breakers:call(name, options, fn, ...)
  if type(fn) ~= "function" then error("call: a function expected, got " .. type(fn), 2) end
  local one = self:find(name, options, "call", 2)
  if not one then return nil, "full" end
  return one:call(fn, ...)
end

--- Its state. One that nobody asked for is closed.
---
---     breakers:state(host)                             --> "closed"
---
---@param name any
---@return "closed"|"open"|"half-open"
function breakers:state(name)
  local one = self:known(name, "state", 2)
  return one and one:state() or "closed"
end

--- Close it and forget its failures. One that nobody asked for is as new already.
---
---     breakers:reset(host)
---
---@param name any
function breakers:reset(name)
  local one = self:known(name, "reset", 2)
  if one then one:reset() end
end

local function is_new(one) return one:state() == "closed" and one:failures() == 0 end

--- Make a registry, with nobody in it.
---@type fun(options?: { most: integer? }): neap.Breakers  most: how many are kept at most, 10,000
---  unless told; 2 KB each
return registry.maker(breakers, "breakers", breaker, is_new)
