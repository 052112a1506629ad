--- Guests: limiters that users write in Lua, as parts of a hybrid.
---
---     local quota = { peek = …, take = …, give = … }
---     local api = neap.hybrid { "10/s", quota }
---
--- The engine knows nothing of them, so here the hybrid does what it does for its own: ask all,
--- take from all or none, and put back exactly what was taken when the last one says no. That is
--- slower, and a guest may change its mind between the two questions.
local ffi = require "ffi"
local cost = require "neap.cost"
local limiter = require "neap.limiter"
local reason = require "neap.reason"
local runtime = require "neap.runtime"

local error, ipairs, pcall, tonumber, type = error, ipairs, pcall, tonumber, type
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

--- Ask every guest.
---@return string? why  nil: all would
---@return number? wait_s
---@return neap.Guest? binds
local function ask(self, costs)
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

local function undo(g, n)
  if g.limiter.settle then
    g.limiter:settle(n, 0)
  elseif g.limiter.give then
    g.limiter:give(n, "ignore")
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
        for j = i - 1, 1, -1 do
          local other = self.guests[j]
          if costs[other.index] > 0 then undo(other, tonumber(costs[other.index])) end
        end
        held:undo()
        if not ran then error(ok, 0) end
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

function host:try_acquire(given)
  local costs = costs_t()
  cost.read(costs, self.terms, given, false, 2)
  local why, wait = ask(self, costs)
  if why then
    local _, own_why, own_wait = limiter.peek(self, given)
    return nil, worse(why, wait, own_why, own_wait)
  end
  local held, own_why, own_wait = limiter.try_acquire(self, given)
  if not held then return nil, own_why, own_wait end
  local ok
  ok, why, wait = take(self, costs, held)
  if not ok then return nil, why, wait end
  return held
end

function host:peek(given)
  local costs = costs_t()
  cost.read(costs, self.terms, given, false, 2)
  local ok, own_why, own_wait = limiter.peek(self, given)
  local why, wait = ask(self, costs)
  if ok and not why then return true end
  return nil, worse(own_why, own_wait, why, wait)
end

--- As for any limiter. The guests have no lines: who waits for one asks again when it said so; when
--- it did not say, its word comes back at once.
function host:acquire(given, wait)
  if wait ~= nil then given = limiter.joined(given, wait, 2) end
  local costs = costs_t()
  cost.read(costs, self.terms, given, true, 2)
  local rt = current()
  local deadline = limiter.deadline_of(given, rt.now_ns(), 2)
  local inner = type(given) == "table" and given.cost
  local options = { deadline = deadline, cost = type(inner) == "table" and inner or given }
  while true do
    local why, wait_s = ask(self, costs)
    if not why then
      local held, own_why, own_wait = limiter.acquire(self, options)
      if not held then return nil, own_why, own_wait end
      local ok
      ok, why, wait_s = take(self, costs, held)
      if ok then return held end
    end
    if FINAL[why] or not wait_s or not (wait_s > 0 and wait_s < huge) then
      return nil, why, wait_s
    elseif rt.now_ns() + limiter.ns_of(wait_s, "wait", 1) > deadline then
      return nil, "timeout", wait_s
    end
    if not rt.sleep(wait_s) then return nil, "cancelled" end
  end
end

function host:why(given)
  local costs = costs_t()
  cost.read(costs, self.terms, given, false, 2)
  local own = limiter.why(self, given)
  local why, wait, binds = ask(self, costs)
  if not why or own and worse(own.word, own.wait, why, wait) == own.word then return own end
  local l = binds.limiter
  return reason.of {
    word = why, limiter = binds.label, cost = tonumber(costs[binds.index]), wait = wait, place = 0,
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

--- For permits.
function host:give_guests(costs, outcome)
  for _, g in ipairs(self.guests) do
    local n = tonumber(costs[g.index])
    if n > 0 and g.limiter.give then g.limiter:give(n, outcome) end
  end
end

function host:settle_guests(costs, used)
  for _, g in ipairs(self.guests) do
    local n, actual = tonumber(costs[g.index]), tonumber(used[g.index])
    if n ~= actual and g.limiter.settle then g.limiter:settle(n, actual) end
    costs[g.index] = actual
  end
end

return guest
