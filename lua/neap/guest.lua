--- Guests: limiters that users write in Lua, as parts of a hybrid.
---
---     local quota = { peek = …, take = …, give = … }
---     local api = neap.hybrid { "10/s", quota }
---
--- The engine knows nothing of them, so here the hybrid does what it does for its own: ask all,
--- take from all or none, and put back exactly what was taken when the last one says no. That is
--- slower, and a guest may change its mind between the two questions.
local ffi = require "ffi"
local answers = require "neap.answers"
local events = require "neap.events"
local limiter = require "neap.limiter"
local reason = require "neap.reason"
local runtime = require "neap.runtime"
local stats = require "neap.stats"

local error, ipairs, next, pairs, pcall = error, ipairs, next, pairs, pcall
local tonumber, type = tonumber, type
local huge, min = math.huge, math.min
local current = runtime.current

local costs_t = ffi.typeof "int64_t[8]"

--- What a guest must and may have. `cost` is a whole number above 0, and no method may wait.
---@class neap.GuestLimiter
---@field name string?
---@field peek fun(self, cost: integer): true|nil, string?, number?  would it? else why and wait_s
---@field take fun(self, cost: integer): true|nil, string?, number?  the same, and acts
---@field give nil|fun(self, cost: integer, outcome: string)   a permit came back
---@field settle nil|fun(self, cost: integer, used: integer)  `cost` was taken, `used` was needed; 0
---  undoes the take. Without it a take is undone by give(cost, "ignore"). One guest in a hybrid may
---  have neither: it is asked last.
---@field available nil|fun(self): number   math.huge when it has no such thing
---@field capacity nil|fun(self): number

---@class neap.Guest
---@field limiter neap.GuestLimiter
---@field cost string|false
---@field label string
---@field index integer

local guest = {}

--- Is it a limiter that a user wrote?
---@param x any
---@return boolean
function guest.is(x)
  return type(x) == "table" and type(x.peek) == "function" and type(x.take) == "function"
end

local function undoable(g) return g.limiter.settle or g.limiter.give end

--- The order they are taken in: who cannot undo comes last, and there is one of them at most.
---@param guests neap.Guest[]
---@param level integer
---@return neap.Guest[]
function guest.ordered(guests, level)
  local order, last = {}, nil
  for _, g in ipairs(guests) do
    if undoable(g) then
      order[#order + 1] = g
    elseif last then
      error(("hybrid: %s and %s have neither settle nor give, so what one takes cannot be put back "
        .. "when the other refuses"):format(last.label, g.label), level + 1)
    else
      last = g
    end
  end
  order[#order + 1] = last
  for _, g in ipairs(order) do order.hold = order.hold or g.limiter.give ~= nil end
  return order
end

-- ---- asking all, taking all or none -----------------------------------------------------------

local FINAL = { cost = true, closed = true }

--- The worse of two refusals: one that is for good, or else the longer wait.
local function worse(why, wait, other_why, other_wait)
  if not other_why or FINAL[why] then return why, wait end
  if not why or FINAL[other_why] or (other_wait or huge) > (wait or huge) then
    return other_why, other_wait
  end
  return why, wait
end

--- Do `fn(g)` for guests from..to, whatever some of them throw; the first of that is thrown then.
local function each(guests, from, to, fn)
  local ran, thrown = true, nil
  for i = from, to, from <= to and 1 or -1 do
    local ok, what = pcall(fn, guests[i])
    if not ok and ran then ran, thrown = false, what end
  end
  if not ran then error(thrown, 0) end
end

local function ask_each(self, costs)
  local why, wait, binds
  for _, g in ipairs(self.guests) do
    local n = tonumber(costs[g.index])
    if n > 0 then
      local ok, word, after = g.limiter:peek(n)
      if not ok then
        local worse_why, worse_wait = worse(why, wait, word or "busy", after)
        if worse_why ~= why or worse_wait ~= wait then binds = g end
        why, wait = worse_why, worse_wait
      end
    end
  end
  return why, wait, binds
end

--- Ask every guest. One that asks the hybrid in turn would go round in circles.
---@return string? why  nil: all would
---@return number? wait_s
---@return neap.Guest? binds
local function ask(self, costs)
  if self.asking then
    error(("%s: a guest of it asks it, or waits, while it is asked itself"):format(self.name), 0)
  end
  self.asking = true
  local ran, why, wait, binds = pcall(ask_each, self, costs)
  self.asking = nil
  if not ran then error(why, 0) end
  return why, wait, binds
end

local function undo(g, n)
  if g.limiter.settle then
    g.limiter:settle(n, 0)
  elseif g.limiter.give then
    g.limiter:give(n, "ignore")
  end
end

--- Put back what the guests before i took, and what the engine granted.
local function undo_before(self, i, costs, held)
  held:undo()
  if i > 1 then
    each(self.guests, i - 1, 1, function (g)
      local n = tonumber(costs[g.index])
      if n > 0 then undo(g, n) end
    end)
  end
end

--- Take from every guest or from none.
---@return true? taken
---@return string? why
---@return number? wait_s
local function take(self, costs, held)
  for i, g in ipairs(self.guests) do
    local n = tonumber(costs[g.index])
    if n > 0 then
      local ran, ok, why, wait = pcall(g.limiter.take, g.limiter, n)
      if not (ran and ok) then
        local undone, thrown = pcall(undo_before, self, i, costs, held)
        if not ran then error(ok, 0) end
        if not undone then error(thrown, 0) end
        return nil, why or "busy", wait
      end
    end
  end
  held.guests = costs
  return true
end

-- ---- a hybrid with guests ---------------------------------------------------------------------

---@class neap.Host: neap.Limiter
---@field guests neap.Guest[]
local host = limiter.class()
guest.host = host

--- Read what is asked for.
---@return ffi.cdata* costs
---@return integer? n
local function read(self, given, waits, level)
  local n = limiter.read(self, given, waits, level + 1)
  return costs_t(answers.request.cost), n
end

--- The end of a verb: whoever listens is told.
local function ended(self, held, why, wait, fields, began)
  if began and next(events.wanted) then
    fields.waited = tonumber(current().now_ns() - began) / 1e9
  end
  if held then
    events.about("granted", self, fields)
    return held
  end
  if events.wanted[why] or events.wanted.refused or events.wanted.overflow then
    answers.tell(self, why, wait, fields)
  end
  return nil, why, wait
end

function host:try_acquire(given)
  local costs, n = read(self, given, false, 2)
  if self.closed then return answers.own(self, "closed", n, given) end
  local fields = answers.fields(self, costs, n, given)
  local why, wait = ask(self, costs)
  if why then
    local _, own_why, own_wait = limiter.peek(self, given)
    why, wait = worse(why, wait, own_why, own_wait)
    stats.refused(self, why)
    return ended(self, nil, why, wait, fields)
  end
  local held, own_why, own_wait = limiter.try_acquire(self, given)
  if not held then return ended(self, nil, own_why, own_wait, fields) end
  local ok
  ok, why, wait = take(self, costs, held)
  if ok then return ended(self, held, nil, nil, fields) end
  stats.refused(self, why)
  return ended(self, nil, why, wait, fields)
end

function host:peek(given)
  local costs = read(self, given, false, 2)
  if self.closed then return nil, "closed" end
  local ok, own_why, own_wait = limiter.peek(self, given)
  local why, wait = ask(self, costs)
  if ok and not why then return true end
  return nil, worse(own_why, own_wait, why, wait)
end

--- What is asked for, and until when, as one table.
local function until_deadline(given, deadline)
  local options = { deadline = deadline }
  if type(given) ~= "table" or next(given) == nil then   -- an empty one says something, see cost
    options.cost = given
    return options
  end
  for name, value in pairs(given) do
    if name ~= "timeout" and name ~= "deadline" then options[name] = value end
  end
  return options
end

--- As for any limiter. The guests have no lines: who waits for one asks again when it said so; when
--- it did not say, its word comes back at once.
function host:acquire(given, wait)
  if wait ~= nil then given = limiter.joined(given, wait, 2) end
  local costs, n = read(self, given, true, 2)
  local rt = current()
  local began = rt.now_ns()
  local deadline = limiter.deadline_of(given, began, 2)
  if self.closed then return answers.own(self, "closed", n, given) end
  local fields = answers.fields(self, costs, n, given)
  local options = until_deadline(given, deadline)
  while true do
    local why, wait_s = ask(self, costs)
    if not why then
      local held, own_why, own_wait = limiter.acquire(self, options)
      if not held then return ended(self, nil, own_why, own_wait, fields, began) end
      local ok
      ok, why, wait_s = take(self, costs, held)
      if ok then return ended(self, held, nil, nil, fields, began) end
    end
    if self.closed then
      why, wait_s = "closed", nil
    elseif not FINAL[why] and wait_s and wait_s > 0 and wait_s < huge then
      if rt.now_ns() + limiter.ns_of(wait_s, "wait", 1) > deadline then
        why = "timeout"
      elseif rt.sleep(wait_s) then
        why = nil
      else
        why, wait_s = "cancelled", nil
      end
    end
    if why then
      stats.refused(self, why)
      return ended(self, nil, why, wait_s, fields, began)
    end
  end
end

function host:why(given)
  local costs = read(self, given, true, 2)
  local own = limiter.why(self, given)
  local why, wait, binds = ask(self, costs)
  if not why or own and worse(own.word, own.wait, why, wait) == own.word then return own end
  local l = binds.limiter
  return reason.of {
    word = why, limiter = binds.label, cost = tonumber(costs[binds.index]), wait = wait, place = 0,
    at = wait and tonumber(current().now_ns()) / 1e9 + wait,
    capacity = l.capacity and l:capacity() or huge, balance = l.available and l:available() or huge,
  }
end

--- The least of a number that guests may know.
local function least(self, method, name, n)
  for _, g in ipairs(self.guests) do
    local ask_it = g.limiter[method]
    if ask_it and (name == nil or g.cost == name) then n = min(n, ask_it(g.limiter)) end
  end
  return n
end

function host:available(name)
  return least(self, "available", name, limiter.available(self, name))
end

function host:capacity(name)
  return least(self, "capacity", name, limiter.capacity(self, name))
end

--- For permits: what came back, with its outcome, for everyone.
function host:give_guests(costs, outcome)
  each(self.guests, 1, #self.guests, function (g)
    local n = tonumber(costs[g.index])
    if n > 0 and g.limiter.give then g.limiter:give(n, outcome) end
  end)
end

--- The same from a finalizer, which is no place to call what users wrote: a task does it.
function host:give_guests_later(costs)
  local copy = costs_t(costs)
  current().spawn(function () self:give_guests(copy, self.terms.abandoned) end)
end

--- @param costs ffi.cdata*  what was charged, and then what was used
function host:settle_guests(costs, used)
  local was = costs_t(costs)
  ffi.copy(costs, used, ffi.sizeof(costs))
  each(self.guests, 1, #self.guests, function (g)
    local n, actual = tonumber(was[g.index]), tonumber(used[g.index])
    if n ~= actual and g.limiter.settle then g.limiter:settle(n, actual) end
  end)
end

return guest
