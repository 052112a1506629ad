--- A permit: what was granted, until it is given back.
---
--- Of a rate there is nothing to give back, time does that; but what was really used may be told
--- (`settle`), and a permit of a semaphore holds its place until it is released. Who forgets to is
--- helped by the collector: a permit that nobody can reach any more gives back what it holds, with
--- the outcome "ignore". That comes late and at no certain moment, so it is the net below, not the
--- way down: `limiter:with(cost, fn)` is.
---
---     local api = neap.hybrid { calls = "2 in flight", tokens = "1000/min" }
---     local permit = api:acquire { calls = 1, tokens = 600 }
local ffi = require "ffi"
local C = require "neap.engine"
local cost = require "neap.cost"
local events = require "neap.events"
local runtime = require "neap.runtime"
local stats = require "neap.stats"

local error, ipairs, pcall, setmetatable = error, ipairs, pcall, setmetatable
local tonumber, tostring = tonumber, tostring
local current = runtime.current

local request_t = ffi.typeof "struct neap_request"
local costs_t = ffi.typeof "int64_t[8]"
local SIZE, REQUEST_SIZE = C.NEAP_COSTS * ffi.sizeof "int64_t", ffi.sizeof(request_t)
local OUTCOMES = { success = C.NEAP_SUCCESS, failure = C.NEAP_FAILURE, ignore = C.NEAP_IGNORE }

--- Another of these, with the same in it. LuaJIT compiles no request_t(request).
local function copy_of(request)
  local own = request_t()
  ffi.copy(own, request, REQUEST_SIZE)
  return own
end

local spent = request_t()            -- scratch, never across a yield
local used, zero = costs_t(), costs_t()

---@class neap.Permit
---@field limiter neap.Limiter
---@field cost integer?          what every limit was charged; or by index + 1 each cost; or
---@field request ffi.cdata*?    struct neap_request: what each was charged, and in place of a
---  deadline the instant it was granted at; always when it holds
---@field at ffi.cdata*          ns: that instant
---@field over boolean?          given back
local permit = {}
permit.__index = permit

--- A permit for what `request` was granted at `at`. One that holds nothing and was charged few
--- costs is one small table, which compiled code does not even build when it is dropped. Each
--- setmetatable is in parentheses because LuaJIT gives up on a function that ends in the call of a
--- built-in one, and with it on every verb that ends here, unless a loop is around it.
---@package
---@param limiter neap.Limiter
---@param request ffi.cdata*   struct neap_request; copied where it is needed
---@param n integer?           the cost, when it is the same for all
---@param at ffi.cdata*
---@return neap.Permit
function permit.new(limiter, request, n, at)
  local reclaim = limiter.reclaim
  if reclaim then
    local own = ffi.gc(copy_of(request), reclaim)
    own.deadline = at
    return (setmetatable({ limiter = limiter, request = own, at = at }, permit))
  elseif limiter.terms.keys or limiter.terms.conditional then
    return (setmetatable({ limiter = limiter, request = copy_of(request), at = at }, permit))
  elseif n then
    return (setmetatable({ limiter = limiter, cost = n, at = at }, permit))
  elseif limiter.terms.costs <= 4 then
    local c = request.cost
    return (setmetatable({ tonumber(c[0]), tonumber(c[1]), tonumber(c[2]), tonumber(c[3]),
      limiter = limiter, at = at }, permit))
  end
  return (setmetatable({ limiter = limiter, request = copy_of(request), at = at }, permit))
end

--- Was any of a limit's parts charged?
local function is_charged(request, parts)
  for _, part in ipairs(parts) do
    if request.cost[part.index] > 0 then return true end
  end
end

--- Give back where limits learn in Lua. They move first, so that the give lets those go whom the
--- new limit lets go; what goes wrong there is told when all is given back.
---@return string? message
local function teach(learners, rt, request, outcome, at)
  local now, message = rt.now_ns(), nil
  C.neap_engine_advance(rt.engine, now)   -- what was due until now is under the old limit
  local rtt_s = now > at and tonumber(now - at) / 1e9 or 0
  for _, each in ipairs(outcome ~= "ignore" and learners or {}) do
    if each.of.strategy and is_charged(request, each.parts) then
      message = each.of:learn(outcome, rtt_s, now) or message
    end
  end
  ffi.gc(request, nil)
  C.neap_engine_give(rt.engine, request, OUTCOMES[outcome], at, now)
  for _, each in ipairs(learners) do
    local ran, err = pcall(each.of.notice, each.of)
    if not ran then message = message or tostring(err) end
  end
  return message
end

---@return string? message
local function give_back(terms, request, outcome, at)
  local rt = current()
  if terms.learners then return teach(terms.learners, rt, request, outcome, at) end
  ffi.gc(request, nil)
  C.neap_engine_give(rt.engine, request, OUTCOMES[outcome], at, rt.now_ns())
end

--- What the collector calls for a permit of `limiter` that was never given back. The finalizer
--- keeps its upvalues, and so the limiter's memory, alive until the last permit is gone.
---@package
---@param limiter neap.Limiter
---@return fun(request: ffi.cdata*)
function permit.reclaimer(limiter)
  local function reclaim(request)
    if not pcall(current) then   -- it is just being opened: next time
      ffi.gc(request_t(request), reclaim)
      return
    end
    events.hold()
    local message = give_back(limiter.terms, request, limiter.terms.abandoned, request.deadline)
    if message then current().report(message) end
    stats.leaked(limiter)
    if events.wanted.leaked then
      events.about("leaked", limiter, { cost = cost.written(limiter.terms, request.cost) })
    end
    events.go_on()
    if limiter.guests then limiter:give_guests_later(request.cost) end
  end
  return reclaim
end

--- Give back. The outcome tells limits that learn from it how the call went; an error of one that
--- learns in Lua is raised when all is given back.
---
---     permit:give "failure"     --> true
---     permit:give()             --> false
---
---@param outcome? "success"|"failure"|"ignore"  "success" unless told
---@return boolean  false when it was given back before, and nothing happens
function permit:give(outcome)
  outcome = outcome or "success"
  if not OUTCOMES[outcome] then
    error("outcome: \"success\", \"failure\" or \"ignore\" expected, got " .. tostring(outcome), 2)
  end
  if self.over then return false end
  self.over = true
  local limiter, message = self.limiter, nil
  if limiter.reclaim then
    message = give_back(limiter.terms, self.request, outcome, self.at)
    if events.wanted.breaker then
      for _, breaker in ipairs(limiter.terms.breakers or {}) do breaker:notice() end
    end
  end
  if self.guests then limiter:give_guests(self.guests, outcome) end
  if message then error(message, 2) end
  return true
end

--- `give "success"`.
---
---     api:acquire({ calls = 1 }):release()
---
---@return boolean
function permit:release() return self:give() end

--- What each cost was charged, as a request.
local function charged(self)
  if self.request then return self.request end
  local terms = self.limiter.terms
  spent.all = terms.all
  for i = 0, C.NEAP_COSTS - 1 do
    spent.cost[i] = i < terms.costs and (self.cost or self[i + 1]) or 0
  end
  return spent
end

--- As if it had never been granted, for one that nobody got to see.
---@package
function permit:undo()
  if self.request then ffi.gc(self.request, nil) end
  self.over = true
  local rt = current()
  C.neap_engine_settle(rt.engine, charged(self), zero, self.at, rt.now_ns())
end

--- Tell what was really used: what was too much goes back, what was too little is charged now, and
--- later calls wait for it. In flight, what is left stays held until the permit is given back.
---
---     local other = api:acquire { calls = 1, tokens = 400 }
---     other:settle { tokens = 100 }
---     api:available "tokens"    --> 300
---
---@param amount integer|table<string, integer>  a cost that the table does not name stays as it was
---@return boolean  false when the permit was given back before, and nothing happens
function permit:settle(amount)
  local limiter, request = self.limiter, self.request
  local was = charged(self)
  ffi.copy(used, was.cost, SIZE)
  local n = cost.read_used(used, limiter.terms, amount, 2)
  if self.over then return false end
  local told = events.wanted.settled and { cost = cost.written(limiter.terms, was.cost, self.cost),
    used = cost.written(limiter.terms, used, n) }
  local rt = current()
  C.neap_engine_settle(rt.engine, was, used, self.at, rt.now_ns())
  if not request and n then
    self.cost = n
  else
    request = request or request_t(was)
    ffi.copy(request.cost, used, SIZE)
    self.request, self.cost = request, nil
  end
  if told then events.about("settled", limiter, told) end
  if self.guests then limiter:settle_guests(self.guests, costs_t(used)) end
  return true
end

--- What it is of.
---
---     tostring(permit)          --> "permit of calls and tokens, given back"
---
---@return string
function permit:__tostring()
  return ("permit of %s%s"):format(self.limiter.name, self.over and ", given back" or "")
end

return permit
