--- A semaphore: how many at once.
---
---     local calls = neap.semaphore(64)
---     local answer = calls:with(1, fetch, url)     -- waits for a place, and leaves it
---
--- A weighted one is the same with costs above 1: "5MB in flight". With `overdraw` a call goes
--- whenever nothing is owed, however heavy, and the next ones wait until that is paid off.
---
---     local bytes = neap.semaphore("5MB in flight", { overdraw = true })
local ffi = require "ffi"
local C = require "neap.engine"
local answers = require "neap.answers"
local events = require "neap.events"
local limiter = require "neap.limiter"
local notation = require "neap.notation"

local error, tonumber, tostring, type = error, tonumber, tostring, type

local leaf_t = ffi.typeof "struct neap_limiter"
local MOST = 2 ^ 53
local OPTIONS = { overdraw = true }

---@class neap.Semaphore: neap.Limiter
---@field leaf ffi.cdata*
local semaphore = limiter.class()

--- How many permits a limit allows.
---@param limit integer|string|neap.limit
---@param level integer
---@return integer
local function read_limit(limit, level)
  local value = limit
  if type(limit) == "string" then
    local message
    value, message = notation.limit(limit)
    if not value then
      error(("semaphore: bad limit %q: %s"):format(notation.show(limit), message), level + 1)
    end
  end
  if type(value) == "table" then
    if value.kind ~= "in_flight" then
      error("semaphore: a number of permits or \"64 in flight\" expected, got "
        .. (type(limit) == "string" and ("%q"):format(limit) or tostring(value.kind)), level + 1)
    end
    value = value.amount
  end
  if type(value) ~= "number" or not (value >= 1 and value <= MOST) or value % 1 ~= 0 then
    error(("semaphore: a whole number of permits from 1 expected, got %s"):format(tostring(value)),
      level + 1)
  end
  return value
end

local function name_for(permits)
  return notation.format { kind = "in_flight", amount = permits }
end

--- Permits that are out.
---
---     calls:in_use()            --> 0
---
---@return integer
function semaphore:in_use()
  local leaf = self.leaf   -- the word itself may be held by another thread
  return tonumber(leaf.as.semaphore.limit - C.neap_limiter_available(leaf, 0))
end

--- Permits there are.
---
---     calls:limit()             --> 64
---
---@return integer
function semaphore:limit() return tonumber(self.leaf.as.semaphore.limit) end

--- Another number of permits from now on. Raised, those in line may go; lowered, nobody is sent
--- away, and nobody follows until enough have come back. Permits that are out are what was spent,
--- and only who has them can give them back: so "keep" is the one mode there is.
---
---     calls:reconfigure(32)
---     calls:available()         --> 32
---
---@param limit integer|string|neap.limit
---@param mode? "keep"
function semaphore:reconfigure(limit, mode)
  if mode ~= nil and mode ~= "keep" then
    error("reconfigure: permits in flight stay in flight: \"keep\" expected, got "
      .. tostring(mode), 2)
  end
  local permits = read_limit(limit, 2)
  local now, rt = limiter.present()
  local s = self.leaf.as.semaphore
  local from, to = name_for(tonumber(s.limit)), name_for(permits)
  limiter.rename(self, self.leaf, from, to)
  if self.segment then
    local like = leaf_t()
    like.kind = C.NEAP_SEMAPHORE
    C.neap_semaphore_init(like.as.semaphore, permits, s.overdraw)
    self.segment:change(self, like, C.NEAP_KEEP_SPENT, 2)
  else
    s.limit = permits
  end
  C.neap_engine_touch(rt.engine, self.leaf, now)
  events.about("reconfigured", self, { from = from, to = to, mode = "keep" })
end

-- ---- one that may be overdrawn ----------------------------------------------------------------

-- The engine does not ask a limiter that is charged nothing. While more is out than there is, this
-- one lets nobody in all the same, so a call that costs nothing stands in for one that costs 1.
---@class neap.OverdrawnSemaphore: neap.Semaphore
local overdrawn = limiter.class(semaphore)

local function is_shut(self, given)
  local n = given
  if type(given) == "table" then n = given.cost end
  return n == 0 and self:available() < 0
end

--- As of any limiter, but that nobody goes while more is out than there is.
---
---     local heavy = bytes:try_acquire(8e6)
---     bytes:available()         --> -3000000
---
---@param given? integer|table
---@return neap.Permit? permit
---@return string? why
---@return number? wait_s
function overdrawn:try_acquire(given)
  if is_shut(self, given) then return answers.own(self, "busy", 0, given) end
  return semaphore.try_acquire(self, given)
end

--- Answer as try_acquire would, and take nothing.
---
---     bytes:peek(0)             --> nil, "busy"
---
---@param given? integer|table
---@return true? granted
---@return string? why
---@return number? wait_s
function overdrawn:peek(given)
  if is_shut(self, given) then return nil, "busy" end
  return semaphore.peek(self, given)
end

--- Take, and wait in line for it, as of any limiter.
---
---     heavy:release()
---     bytes:acquire(1000, "2s"):release()
---
---@param given? integer|table
---@param wait? number|string|table  a timeout, seconds or "2s", or `{ deadline = at }`
---@return neap.Permit? permit
---@return string? why
---@return number? wait_s
function overdrawn:acquire(given, wait)
  if wait ~= nil then given = limiter.joined(given, wait, 2) end
  if not is_shut(self, given) then return semaphore.acquire(self, given) end
  local options = type(given) == "table" and given or {}
  local held, why, wait_s = semaphore.acquire(self,
    { cost = 1, timeout = options.timeout, deadline = options.deadline })
  if not held then return nil, why, wait_s end
  held:settle(0)
  return held
end

-- -----------------------------------------------------------------------------------------------

--- Make a semaphore.
---@param limit integer|string|neap.limit  64, "64 in flight", "5MB in flight"
---@param options? { name: string?, overdraw: boolean? }
---@return neap.Semaphore
return function (limit, options)
  local permits = read_limit(limit, 2)
  local self = { leaf = leaf_t() }
  self.name = limiter.name_of(options, name_for(permits), OPTIONS, 2)
  local overdraw = options and options.overdraw
  if overdraw ~= nil and type(overdraw) ~= "boolean" then
    error("overdraw: true or false expected, got " .. tostring(overdraw), 2)
  end
  self.leaf.kind = C.NEAP_SEMAPHORE
  C.neap_semaphore_init(self.leaf.as.semaphore, permits, overdraw and 1 or 0)
  local part = { leaf = self.leaf, multiplier = 1, cost = false, label = self.name, word = "busy" }
  return limiter.init(overdraw and overdrawn or semaphore, self, { part }, 2)
end
