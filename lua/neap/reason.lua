--- Why a call may not leave now, for people.
local ffi = require "ffi"
local C = require "neap.engine"
local notation = require "neap.notation"

local ipairs, setmetatable, tonumber = ipairs, setmetatable, tonumber
local band, rshift = bit.band, bit.rshift
local ceil, floor, huge, log10, max = math.ceil, math.floor, math.huge, math.log10, math.max

--- The answer of `limiter:why()`.
---@class neap.Reason
---@field word string        as in the refusal, see neap.errors
---@field limiter string     the limit that binds: its name, or how it is written
---@field cost integer       what is asked of it
---@field capacity number    what it can ever give at once; math.huge: no bound
---@field balance number     what it has now; below 0 after borrowing
---@field wait number?       seconds until the call could leave; nil when no clock can tell
---@field at number?         that instant, as neap.now() has it
---@field place integer      how many go first
---@field deadline number?   the instant that was asked for, if one was
local Reason = {}

local reason = {}

--- For reading, so three digits will do; rounded up, because early is worse than late.
---@param seconds number
---@return string
local function duration(seconds)
  local ns = seconds * 1e9
  local step = 10 ^ max(0, floor(log10(max(ns, 1))) - 2)
  ns = ceil(ns / step - 1e-6) * step
  return ns <= 2 ^ 53 and notation.format_duration(ns) or ("%dd"):format(ceil(ns / 86400e9))
end

---@param n number
---@return string
local function count(n)
  return n == huge and "any number" or ("%d"):format(n)
end

---@return string
function Reason:__tostring()
  local text = ("%s: needs %d of %s"):format(self.limiter, self.cost, count(self.capacity))
  if self.word == "closed" then return self.limiter .. ": closed" end
  if self.word == "full" then return self.limiter .. ": no room for another key" end
  if self.word == "cost" then return text .. ", more than there can be" end
  if self.word == "pause" then
    text = self.limiter .. ": paused"
  elseif self.word == "open" then
    text = self.limiter .. ": open"
    if not self.wait then return text .. " until told otherwise" end
  else
    text = text .. ", has " .. count(self.balance)
  end
  if self.wait then
    text = text .. "; free in " .. duration(self.wait)
  else
    text = text .. "; free when a permit comes back"
  end
  if self.word == "timeout" then text = text .. ", after the deadline" end
  return self.place > 0 and ("%s, %d ahead"):format(text, self.place) or text
end

local look = ffi.new "struct neap_limiter"

--- The limiter that a part is for these keys; nil when there is no room for another key.
---@param part neap.Part
---@param key ffi.cdata*?  uint64_t[]; nil: for a key that was never seen
---@param now ffi.cdata*
---@return ffi.cdata*?
function reason.leaf_of(part, key, now)
  if not part.keyed then return part.of or part.leaf end
  if not key then return part.fresh end
  local found = C.neap_keyed_look(part.leaf.as.keyed, key[part.key_index], now, look)
  return found == C.NEAP_OK and look or nil
end

local leaf_of = reason.leaf_of

local function unbounded(n)
  n = tonumber(n)
  return n < 2 ^ 62 and n or huge
end

---@param l ffi.cdata*  struct neap_limiter
---@param now ffi.cdata*
---@return number  whole tokens
function reason.balance(l, now) return unbounded(C.neap_limiter_available(l, now)) end

---@param l ffi.cdata*
---@return number
function reason.capacity(l) return unbounded(C.neap_limiter_capacity(l)) end

--- The smallest of `measure` over the limiters, in units of cost.
---@param terms neap.Terms
---@param measure fun(l: ffi.cdata*, now: ffi.cdata*): number
---@param key ffi.cdata*?  uint64_t[], where limits are kept by key
---@param now ffi.cdata*
---@return number
function reason.least(terms, measure, key, now)
  local smallest = huge
  for _, sum in ipairs(terms.sums) do
    local first = sum.parts[1]
    local leaf = first.of and first.leaf or leaf_of(first, key, now)   -- in what it asks now
    local n = leaf and measure(leaf, now) or 0
    if n ~= huge then n = floor(n / sum.multiplier) end
    if n < smallest then smallest = n end
  end
  return smallest
end

--- What term i asks of its limiter for each unit of cost.
local function multiplier(part, i, on)
  if not part.of then return part.multiplier end
  local held = band(rshift(on, i), 1) == 1
  local c = part.leaf.as.conditional
  return part.multiplier * tonumber(held and c.on or c.off)
end

--- What `answer` says about a call.
---@param terms neap.Terms
---@param answer ffi.cdata*   struct neap_answer
---@param request ffi.cdata*  struct neap_request
---@param word string
---@param wait number?
---@param now ffi.cdata*
---@param deadline ffi.cdata*  neap_never: none was asked for
---@return neap.Reason
function reason.new(terms, answer, request, word, wait, now, deadline)
  local part = terms.parts[answer.bound >= 0 and answer.bound + 1 or 1]
  local asked = 0
  for i, other in ipairs(terms.parts) do
    if other.leaf == part.leaf then
      asked = asked + multiplier(other, i - 1, answer.on)
        * tonumber(request.cost[terms.terms[i - 1].cost])
    end
  end
  local leaf = leaf_of(part, request.key, now)
  local fields = {
    word = word, limiter = part.label, cost = asked, capacity = leaf and reason.capacity(leaf) or 0,
    balance = leaf and reason.balance(leaf, now) or 0, wait = wait, place = tonumber(answer.ahead),
    at = wait and tonumber(answer.at) / 1e9,
  }
  if deadline < C.neap_horizon and answer.status ~= C.NEAP_NEVER then
    fields.deadline = tonumber(deadline) / 1e9
    local vain = deadline <= now or wait and answer.at > deadline
    if vain and answer.status == C.NEAP_REFUSED then fields.word = "timeout" end
  end
  if part.closed then   -- it asks for two of one, see neap.throttle
    fields.cost, fields.capacity, fields.balance = asked / 2, 0, 0
  end
  return setmetatable(fields, Reason)
end

--- One that somebody else found.
---@param fields neap.Reason
---@return neap.Reason
function reason.of(fields) return setmetatable(fields, Reason) end

--- About a limiter that was closed.
---@param limiter neap.Limiter
---@return neap.Reason
function reason.closed(limiter)
  local fields = { word = "closed", limiter = limiter.name, cost = 0, capacity = 0, balance = 0 }
  fields.place = 0
  return setmetatable(fields, Reason)
end

return reason
