--- Why a call may not leave now, for people.
local C = require "neap.engine"
local notation = require "neap.notation"

local ipairs, setmetatable, tonumber = ipairs, setmetatable, tonumber
local ceil, floor, huge, log10, max = math.ceil, math.floor, math.huge, math.log10, math.max

--- The answer of `limiter:why()`.
---@class neap.Reason
---@field word string        as in the refusal: "rate", "busy", "line", "cost", "pause", "closed"
---@field limiter string     the limit that binds: its name, or how it is written
---@field cost integer       what is asked of it
---@field capacity number    what it can ever give at once; math.huge: no bound
---@field balance number     what it has now; below 0 after borrowing
---@field wait number?       seconds until the call could leave; nil when no clock can tell
---@field place integer      how many go first
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
  if self.word == "cost" then return text .. ", more than there can be" end
  if self.word == "pause" then
    text = self.limiter .. ": paused"
  else
    text = text .. ", has " .. count(self.balance)
  end
  if self.wait then
    text = text .. "; free in " .. duration(self.wait)
  else
    text = text .. "; free when a permit comes back"
  end
  return self.place > 0 and ("%s, %d ahead"):format(text, self.place) or text
end

---@param l ffi.cdata*  struct neap_limiter
---@param now ffi.cdata*
---@return number  whole tokens
function reason.balance(l, now)
  local n = tonumber(C.neap_limiter_available(l, now))
  return n < 2 ^ 62 and n or huge
end

---@param l ffi.cdata*
---@return number
function reason.capacity(l)
  local n = tonumber(C.neap_limiter_capacity(l))
  return n < 2 ^ 62 and n or huge
end

--- The smallest of `measure` over the limiters, in units of cost.
---@param terms neap.Terms
---@param measure fun(l: ffi.cdata*, now: ffi.cdata*?): number
---@param now ffi.cdata*?
---@return number
function reason.least(terms, measure, now)
  local smallest = huge
  for _, sum in ipairs(terms.sums) do
    local n = measure(sum.leaf, now)
    if n ~= huge then n = floor(n / sum.multiplier) end
    if n < smallest then smallest = n end
  end
  return smallest
end

--- What `answer` says about a call that costs `costs`.
---@param terms neap.Terms
---@param answer ffi.cdata*  struct neap_answer
---@param costs ffi.cdata*   int64_t[]
---@param word string
---@param wait number?
---@param now ffi.cdata*
---@return neap.Reason
function reason.new(terms, answer, costs, word, wait, now)
  local part = terms.parts[answer.bound >= 0 and answer.bound + 1 or 1]
  local asked = 0
  for i, other in ipairs(terms.parts) do
    if other.leaf == part.leaf then
      asked = asked + other.multiplier * tonumber(costs[terms.terms[i - 1].cost])
    end
  end
  local fields = {
    word = word, limiter = part.label, cost = asked, capacity = reason.capacity(part.leaf),
    balance = reason.balance(part.leaf, now), wait = wait, place = tonumber(answer.ahead),
  }
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
