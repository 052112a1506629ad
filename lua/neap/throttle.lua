--- A throttle: how fast. "100/min burst 20", "10/s smooth", "5/10s sliding".
---
---     local github = neap.throttle("5000/h burst 100")
---     local permit, why, wait_s = github:try_acquire()
---
--- It starts full, and what flows in beyond the burst is lost. A sliding one is exact in every
--- window instead: what was taken comes back one window later, all of it at once.
---
---     neap.throttle("5/10s sliding"):capacity()   --> 5
local ffi = require "ffi"
local C = require "neap.engine"
local cost = require "neap.cost"
local events = require "neap.events"
local leaves = require "neap.leaf"
local limiter = require "neap.limiter"
local notation = require "neap.notation"
local window = require "neap.window"

local error, tostring, type = error, tostring, type

local leaf_t = ffi.typeof "struct neap_limiter"
local OPTIONS = { initial = true, log = true }
local zero, back = ffi.new "int64_t[8]", ffi.new "struct neap_request"

---@class neap.Throttle: neap.Limiter
---@field limit neap.limit
---@field leaf ffi.cdata*?   nil: unlimited
---@field memory { log: ffi.cdata* }?  of a sliding one; shared by all that use the leaf
---@field entries integer?    in the log
---@field bounded boolean?    how many was asked for
local throttle = limiter.class()

-- ---- reading limits ---------------------------------------------------------------------------

local function whole(value, what, most, level)
  if type(value) ~= "number" or not (value >= 1) or value % 1 ~= 0 or value > most then
    error(("throttle: %s: a whole number from 1 expected, got %s"):format(what, tostring(value)),
      level + 1)
  end
end

--- A limit as a value, whichever way it was written.
---@param limit string|neap.limit
---@param level integer
---@return neap.limit
local function read_limit(limit, level)
  local value = limit
  if type(limit) ~= "table" then
    local message
    value, message = notation.limit(limit)
    if not value then
      error(("throttle: bad limit %s: %s"):format(
        type(limit) == "string" and ("%q"):format(notation.show(limit)) or tostring(limit),
        message), level + 1)
    end
  end
  if value.kind == "unlimited" or value.kind == "closed" then return value end
  if value.kind == "in_flight" then
    error(("throttle: %q is a semaphore's: write neap.semaphore(%d)"):format(
      notation.format(value), value.amount), level + 1)
  elseif value.kind ~= "rate" then
    error("throttle: a limit such as \"100/min burst 20\" expected, got a table of kind "
      .. tostring(value.kind), level + 1)
  end
  whole(value.burst, "burst", 2 ^ 53, level + 1)
  whole(value.amount, "amount", 2 ^ 53, level + 1)
  whole(value.per_ns, "period in ns", 2 ^ 53, level + 1)
  if value.mode == "fixed" then
    error(("throttle: %q: fixed windows start when the server says, which nobody here knows; "
      .. "write \"sliding\", which keeps within any of them"):format(notation.format(value)),
      level + 1)
  end
  return value
end

local function too_fast(value, level)
  error(("throttle: %q does not fit: at most 6 tokens per ns, and a burst below 2^59"):format(
    notation.format(value)), level + 1)
end

-- ---- verbs of its own -------------------------------------------------------------------------

--- The leaf, once all that was due is done; nothing else changes it behind the engine's back.
local function at_rest(self, verb, level)
  if verb == "drain" or verb == "refill" then limiter.alone(self, verb, level + 1) end
  if self.limit.kind ~= "rate" then
    error(("%s: %s has nothing to %s"):format(verb, self.name, verb), level + 1)
  end
  local now, rt = limiter.present()
  return self.leaf, now, rt
end

local function slides(self) return self.limit.mode == "sliding" end

--- Spend all there is.
---
---     github:drain()
---     github:available()        --> 0
---
function throttle:drain()
  local leaf, now = at_rest(self, "drain", 2)
  if slides(self) then
    local left = C.neap_window_available(leaf.as.window, now)
    if left > 0 then C.neap_window_take(leaf.as.window, left, now) end
  else
    C.neap_gcra_fill(leaf.as.gcra, 0, now)
  end
end

--- Make it full again, as when it was new. Those who wait may go.
---
---     github:refill()
---
function throttle:refill()
  local leaf, now, rt = at_rest(self, "refill", 2)
  if slides(self) then
    leaves.init(leaf, self.limit, self.memory.log, self.entries)
  else
    C.neap_gcra_fill(leaf.as.gcra, self.limit.burst, now)
  end
  C.neap_engine_touch(rt.engine, leaf, now)
end

--- Is all of it there?
---
---     github:full()             --> true
---
---@return boolean
function throttle:full() return self:available() >= self:capacity() end

--- Put tokens back that were taken and never used, up to a full one. Who has the permit rather
--- settles that: `permit:settle(0)`.
---
---     github:try_acquire(10)
---     github:refund(4)
---     github:available()        --> 94
---
---@param n integer
function throttle:refund(n)
  cost.check(n, "refund", 2)
  local _, now, rt = at_rest(self, "refund", 2)
  if slides(self) then
    error("refund: " .. self.name .. " remembers when each token was taken: settle the permit", 2)
  end
  back.all, back.cost[0] = self.terms.all, n
  C.neap_engine_settle(rt.engine, back, zero, now, now)
end

-- ---- another limit in place -------------------------------------------------------------------

local KEEP = {
  keep = C.NEAP_KEEP_SPENT, balance = C.NEAP_KEEP_HELD, scale = C.NEAP_KEEP_RATIO,
  reset = C.NEAP_KEEP_NOTHING,
}

local function change_rate(self, value, mode, now)
  return C.neap_gcra_change(self.leaf.as.gcra, value.amount, value.per_ns, value.burst, KEEP[mode],
    now)
end

--- What was taken is remembered one by one, so it is kept or forgotten; a balance is not a list.
local function change_sliding(self, value, mode, now, level)
  if mode == "balance" or mode == "scale" then
    error(("reconfigure: \"%s\" would invent or forget grants, and %s remembers each: \"keep\" or "
      .. "\"reset\""):format(mode, self.name), level + 1)
  end
  local log, entries = self.memory.log, self.entries
  if value.amount > entries and not self.bounded then
    log, entries = window.log_for(value.amount, nil, level + 1)
  end
  local w = self.leaf.as.window
  local changed = mode == "reset"
    and C.neap_window_init(w, value.amount, value.per_ns, log, entries)
    or C.neap_window_change(w, value.amount, value.per_ns, log, entries, now)
  if changed == C.NEAP_OK then self.memory.log, self.entries = log, entries end
  return changed
end

--- In a segment it is asked for anew.
local function change_shared(self, value, mode, _, level)
  local like, log, entries = leaf_t(), nil, nil
  if slides(self) then log, entries = window.log_for(value.amount, nil, level + 1) end
  if not leaves.init(like, value, log, entries) then return C.NEAP_ERANGE end
  self.segment:change(self, like, KEEP[mode], level + 1)
  return C.NEAP_OK
end

--- Another limit from now on, for those in line, too. What of the old one is taken over:
---
---     "keep"     what was spent and has not come back stays spent; a larger burst is there at once
---     "balance"  what is there to take stays, up to the new burst; the rest has to flow in
---     "scale"    it is as full as it was, in proportion, and debt grows and shrinks likewise
---     "reset"    nothing: it is as new, and full
---
--- What was borrowed stays owed, but for the last two. A sliding limit knows "keep" and "reset".
--- What had left the old window by then is not remembered in a longer one.
---
---     local calls = neap.throttle "100/min"
---     calls:try_acquire(60)
---     calls:reconfigure("200/min", "keep")
---     calls:available()         --> 140
---
---@param limit string|neap.limit  of the same kind: a rate, or a sliding one
---@param mode? "keep"|"balance"|"scale"|"reset"  "keep" unless told
function throttle:reconfigure(limit, mode)
  mode = mode or "keep"
  if not KEEP[mode] then
    error("reconfigure: \"keep\", \"balance\", \"scale\" or \"reset\" expected, got "
      .. tostring(mode), 2)
  end
  local value = read_limit(limit, 2)
  local leaf, now, rt = at_rest(self, "reconfigure", 2)
  if value.kind ~= "rate" or slides(self) ~= (value.mode == "sliding") then
    error(("reconfigure: from %q to %q is another kind of limit: build a new one"):format(
      notation.format(self.limit), notation.format(value)), 2)
  end
  local change = self.segment and change_shared or slides(self) and change_sliding or change_rate
  if change(self, value, mode, now, 2) ~= C.NEAP_OK then too_fast(value, 2) end
  local from, to = notation.format(self.limit), notation.format(value)
  limiter.rename(self, leaf, from, to)
  self.limit = value
  C.neap_engine_touch(rt.engine, leaf, now)
  events.about("reconfigured", self, { from = from, to = to, mode = mode })
end

--- Make a throttle.
---@param limit string|neap.limit  "100/min burst 20", "10/s smooth", "5/10s sliding", "unlimited"
---@param options? { name: string?, initial: integer?, log: integer? }
---  name: what it is called when it refuses; initial: tokens to start with, instead of all;
---  log: how many grants a sliding one remembers at most
---@return neap.Throttle
return function (limit, options)
  local value = read_limit(limit, 2)
  local self = { limit = value }
  self.name = limiter.name_of(options, notation.format(value), OPTIONS, 2)
  options = options or {}
  if options.initial ~= nil then
    cost.check(options.initial, "initial", 2)
    if value.kind ~= "rate" or value.mode == "sliding" then
      error("initial: only a rate has tokens to start with", 2)
    end
  end

  local parts = {}
  if value.kind ~= "unlimited" then
    self.leaf = leaf_t()
    if value.mode == "sliding" then
      local log
      log, self.entries = window.log_for(value.amount, options.log, 2)
      self.memory, self.bounded = { log = log }, options.log ~= nil
    elseif options.log then
      error("log: only a sliding limit has one", 2)
    end
    local log = self.memory and self.memory.log
    if not leaves.init(self.leaf, value, log, self.entries) then too_fast(value, 2) end
    if options.initial then
      C.neap_gcra_fill(self.leaf.as.gcra, options.initial, (limiter.present()))
    end
    parts[1] = {
      leaf = self.leaf, memory = self.memory, multiplier = leaves.multiplier(value), cost = false,
      label = self.name, word = "rate", closed = value.kind == "closed",
    }
  end
  return limiter.init(throttle, self, parts, 2)
end
