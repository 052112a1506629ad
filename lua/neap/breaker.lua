--- A circuit breaker: leave a server alone that fails, then see whether it is back.
---
---     local breaker = neap.breaker { failures = 5, cooldown = "30s" }
---     local answer, err = breaker:call(fetch, url)     -- nil, "open", 12.5 while it is open
---     local api = neap.hybrid { "10/s", breaker }      -- or it stands in the way of others
---
--- It opens, once one of these is met (judged at a failure, that one included), when
---
---     { failures = 5 }                                  so many in a row failed
---     { failures = 3, within = "5s" }                   so many failed in that time
---     { ratio = 0.5, of = 20, min = 10 }                half of the last 20, once there are 10
---     { ratio = 0.5, within = "10s", min = 20 }         half of those in that time, of 20 or more
---
--- When the cooldown is over it is half-open, by time alone: at most `trials` calls at once go, and
--- `required` successes close it, but one failure opens it for a full cooldown. What a permit says
--- when it is given back is how the call ended, in a hybrid, too. An outcome of a call that began
--- before the present state did counts for nothing: neither a late success nor a late failure from
--- before the outage says how the server is now. A trial that nobody reports comes back: when all
--- places are taken and for a whole cooldown nobody was let out, another is.
local ffi = require "ffi"
local C = require "neap.engine"
local events = require "neap.events"
local limiter = require "neap.limiter"
local runtime = require "neap.runtime"

local error, ipairs, pcall = error, ipairs, pcall
local max, min = math.max, math.min
local tonumber, tostring, type = tonumber, tostring, type

local leaf_t = ffi.typeof "struct neap_limiter"
local trip_t = ffi.typeof "struct neap_trip"
local memory_t = ffi.typeof "int64_t[?]"

local OPTIONS = {
  failures = true, ratio = true, of = true, min = true, within = true, cooldown = true,
  patience = true, trials = true, required = true, wait = true, abandoned = true, lazy = true,
  classify = true, over = true,
}
local STATES = {
  [C.NEAP_BREAKER_CLOSED] = "closed", [C.NEAP_BREAKER_OPEN] = "open",
  [C.NEAP_BREAKER_HALF_OPEN] = "half-open",
}
local OUTCOMES = { success = C.NEAP_SUCCESS, failure = C.NEAP_FAILURE, ignore = C.NEAP_IGNORE }
local SLICES = 64   -- of the time that a ratio looks at: outcomes leave up to one slice early
local MOST = 2 ^ 24

---@class neap.Breaker: neap.Limiter
---@field leaf ffi.cdata*
---@field memory { words: ffi.cdata* }
---@field lazy boolean?
---@field classify function?
---@field over neap.Limiter?
local breaker = limiter.class()

-- ---- options ----------------------------------------------------------------------------------

--- A whole number, of which 0 counts as 1.
local function whole(options, name, otherwise, level)
  local n = options[name]
  if n == nil then return otherwise end
  if type(n) ~= "number" or not (n >= 0 and n <= MOST) or n % 1 ~= 0 then
    error(("breaker: %s: a whole number expected, got %s"):format(name, tostring(n)), level + 1)
  end
  return max(n, 1)
end

local function one_of(options, name, check, expected, level)
  local value = options[name]
  if value ~= nil and not check(value) then
    error(("breaker: %s: %s expected, got %s"):format(name, expected, tostring(value)), level + 1)
  end
  return value
end

local function is_boolean(value) return type(value) == "boolean" end
local function is_function(value) return type(value) == "function" end
local function is_lost(value) return value == "ignore" or value == "failure" end
local function is_ratio(value) return type(value) == "number" and value >= 0 and value <= 1 end

--- A duration, above 0 unless told.
local function duration(options, name, least, level)
  if options[name] == nil then return nil end
  local ns = limiter.ns_of(options[name], "breaker: " .. name, level + 1)
  if ns < least then error(("breaker: %s: more than 0 expected"):format(name), level + 1) end
  return ns
end

local function refuse(text, level) error("breaker: " .. text, level + 1) end

--- When it opens.
---@return ffi.cdata*  struct neap_trip
local function read_rule(options, level)
  local trip = trip_t()
  local within = duration(options, "within", 1, level + 1)
  one_of(options, "ratio", is_ratio, "a part from 0 to 1", level + 1)
  if options.ratio == nil then
    if options.of ~= nil or options.min ~= nil then
      refuse("of and min are for a ratio: { ratio = 0.5, of = 20, min = 10 }", level + 1)
    end
    trip.rule = within and C.NEAP_TRIP_WITHIN or C.NEAP_TRIP_ROW
    trip.failures = whole(options, "failures", 5, level + 1)
    trip.period_ns = within or 0
    return trip
  end
  if options.failures ~= nil then refuse("either failures or a ratio, not both", level + 1) end
  if (options.of == nil) == (within == nil) then
    refuse("a ratio is of the last calls, of = 20, or of those within = \"10s\"", level + 1)
  end
  trip.ratio = options.ratio
  if within then
    if options.min == nil then
      refuse("min: how many calls there must be within that time is missing", level + 1)
    end
    trip.rule, trip.period_ns, trip.slices = C.NEAP_TRIP_RATIO_WITHIN, within, SLICES
    trip.least = whole(options, "min", nil, level + 1)
  else
    local of = whole(options, "of", nil, level + 1)
    trip.rule, trip.calls = C.NEAP_TRIP_RATIO, of
    trip.least = whole(options, "min", of, level + 1)
    if trip.least > of then
      refuse(("min: %d of the last %d calls there cannot be, so it would never open"):format(
        trip.least, of), level + 1)
    end
  end
  return trip
end

-- ---- looking ----------------------------------------------------------------------------------

local function state_of(self, now)
  local b = self.leaf.as.breaker
  local state = C.neap_breaker_state(b, now)
  if self.lazy and state == C.NEAP_BREAKER_HALF_OPEN and b.let_out < 0 then
    return C.NEAP_BREAKER_OPEN
  end
  return state
end

--- Where it is noticed that its state changed: when somebody asked it, told it how a call ended, or
--- changed it by hand. Whoever listens is told, since what it was told last.
---@package
function breaker:notice()
  if not events.wanted.breaker then return end
  local from, to = self.told or "closed", STATES[state_of(self, runtime.current().now_ns())]
  if from == to then return end
  self.told = to
  events.about("breaker", self, { from = from, to = to })
end

--- What it does now.
---
---     breaker:state()                                  --> "closed"
---
---@return "closed"|"open"|"half-open"
function breaker:state() return STATES[state_of(self, (limiter.present()))] end

--- Failures that count towards opening.
---
---     breaker:failures()                               --> 0
---
---@return integer
function breaker:failures()
  return tonumber(C.neap_breaker_failures(self.leaf.as.breaker, (limiter.present())))
end

--- How often its state changed, ever; and the instant of the last time, as neap.now() has it.
---
---     breaker:changes()                                --> 0, 0
---
---@return integer count
---@return number at  seconds
function breaker:changes()
  local now = limiter.present()
  local b = self.leaf.as.breaker
  local half = C.neap_breaker_state(b, now) == C.NEAP_BREAKER_HALF_OPEN
  return tonumber(b.changes) + (half and 1 or 0), tonumber(C.neap_breaker_since(b, now)) / 1e9
end

-- ---- by hand ----------------------------------------------------------------------------------

--- Nobody goes: until told otherwise, or for a while and then it is half-open.
---
---     breaker:open "10s"
---     breaker:call(fetch, url)                         --> nil, "open", 10
---
---@param while_s? number|string  seconds, or "30s"
function breaker:open(while_s)
  limiter.alone(self, "open", 2)
  local ns = while_s ~= nil and limiter.ns_of(while_s, "open", 2)
  local now, rt = limiter.present()
  C.neap_breaker_open(self.leaf.as.breaker, ns and now + ns or C.neap_never, now)
  C.neap_engine_touch(rt.engine, self.leaf, now)
  self:notice()
end

--- Everybody goes, and failures are forgotten, if it was not closed. (To shut the limiter for good,
--- close what it is in.)
---
---     breaker:close()
---     breaker:state()                                  --> "closed"
---
function breaker:close()
  limiter.alone(self, "close", 2)
  local now, rt = limiter.present()
  C.neap_breaker_close(self.leaf.as.breaker, now)
  C.neap_engine_touch(rt.engine, self.leaf, now)
  self:notice()
end

--- As new: closed, with no failures, and calls that are out count for nothing when they end.
---
---     breaker:reset()
---
function breaker:reset()
  limiter.alone(self, "reset", 2)
  local now, rt = limiter.present()
  C.neap_breaker_reset(self.leaf.as.breaker, now)
  C.neap_engine_touch(rt.engine, self.leaf, now)
  self:notice()
end

--- An outcome that no permit brings: of a trial that is out, or of one that took no time.
local function record(self, outcome)
  local now, rt = limiter.present()
  local b = self.leaf.as.breaker
  if b.out == 0 and b.lost == 0 then C.neap_limiter_take(self.leaf, 1, now) end
  C.neap_limiter_give(self.leaf, 1, outcome, now, now)
  C.neap_engine_touch(rt.engine, self.leaf, now)
  self:notice()
end

--- A call went well that had no permit.
---
---     breaker:success()
---
function breaker:success() record(self, OUTCOMES.success) end

--- One did not.
---
---     breaker:failure()
---     breaker:failures()                               --> 1
---
function breaker:failure() record(self, OUTCOMES.failure) end

--- One says nothing about the server.
---
---     breaker:ignore()
---
function breaker:ignore() record(self, OUTCOMES.ignore) end

-- ---- calls ------------------------------------------------------------------------------------

--- What results mean unless `classify` says it: nil or false and an error is a failure, and so is
--- false alone; a wait that was cancelled says nothing about a server.
local function judge(...)
  local first, err = ...
  if first then return "success" end
  if err == "cancelled" then return "ignore" end
  return (err ~= nil or first == false) and "failure" or "success"
end

--- The outcome for what `classify` answered.
local function outcome_of(answer)
  if answer == true or answer == "success" then return "success" end
  return answer == "ignore" and "ignore" or "failure"
end

local function finish(self, held, ok, ...)
  if not ok then
    held:give "failure"
    error((...), 0)
  elseif not self.classify then
    held:give(judge(...))
    return ...
  end
  local ran, answer = pcall(self.classify, ...)
  held:give(ran and outcome_of(answer) or "failure")
  if not ran then error(answer, 0) end
  return ...
end

--- Call `fn(...)` unless it is open, and tell from its results how it went: true and whatever else
--- is true is a success, nil and an error a failure; `classify` may know better. One that raises is
--- a failure, and its error goes on unchanged.
---
---     breaker:call(function () return nil, "refused" end)   --> nil, "refused"
---
---@param fn function
---@param ... any  its arguments
---@return any ...  its results; or nil, why, wait_s, and it was not called
function breaker:call(fn, ...)
  if type(fn) ~= "function" then error("call: a function expected, got " .. type(fn), 2) end
  local held, why, wait_s = self:acquire()
  if not held then return nil, why, wait_s end
  return finish(self, held, pcall(fn, ...))
end

-- -----------------------------------------------------------------------------------------------

--- The parts of what it is in front of, behind its own.
local function add_over(self, parts, over, level)
  if not limiter.is(over) or over.guests then
    error("breaker: over: a limiter expected, made of neap's own alone", level + 1)
  end
  for _, part in ipairs(over.terms.parts) do parts[#parts + 1] = part end
  self.over, self.closed = over, over.closed
end

--- Make a breaker, closed.
---
---   failures, ratio, of, min, within   when it opens, see above; 5 failures in a row unless told
---   cooldown   how long it is open, "30s" unless told; math.huge: until close() or reset()
---   trials     calls at once while it is half-open, 1 unless told
---   required   successes that close it, 1 unless told; more than `trials` counts as that many
---   patience   how long to wait for trials before another goes; the cooldown unless told
---   wait       true: acquire waits in line until it lets through, instead of answering "open"
---   abandoned  what a permit says that is lost to the collector: "ignore", unless "failure"
---   classify   fn(results of a call…): "success" or true, "ignore"; anything else is a failure
---   lazy       true: state() says "open" until a trial went, even if the cooldown is over
---   over       a limiter that it is in front of: both or none, as in neap.hybrid { this, over }
---
--- 0 failures, calls or trials count as 1. Memory: 8 bytes for each of `failures` within a time, a
--- bit for each call of a ratio, 1.5 KB for a ratio within a time, which is cut in 64: outcomes may
--- leave up to one of these early, never late.
---@param options? table  and name: what it is called when it refuses
---@return neap.Breaker
return function (options)
  local self = { name = limiter.name_of(options, "breaker", OPTIONS, 2) }
  options = options or {}
  local trip = read_rule(options, 2)
  local trials = whole(options, "trials", 1, 2)
  local required = min(whole(options, "required", 1, 2), trials)
  local cooldown = duration(options, "cooldown", 0, 2) or 30000000000LL
  local patience = duration(options, "patience", 1, 2)
  local waits = one_of(options, "wait", is_boolean, "true or false", 2)
  self.lazy = one_of(options, "lazy", is_boolean, "true or false", 2)
  self.classify = one_of(options, "classify", is_function, "a function", 2)
  local abandoned = one_of(options, "abandoned", is_lost, "\"ignore\" or \"failure\"", 2)

  self.memory = { words = memory_t(tonumber(C.neap_trip_words(trip))) }
  self.leaf = leaf_t()
  self.leaf.kind = C.NEAP_BREAKER
  local b = self.leaf.as.breaker
  if C.neap_breaker_init(b, trip, self.memory.words, cooldown, trials, required) ~= C.NEAP_OK then
    error("breaker: these numbers do not fit together", 2)
  end
  if patience then b.patience_ns = patience end
  b.sheds = waits and 0 or 1
  local parts = { {
    leaf = self.leaf, memory = self.memory, multiplier = 1, cost = false, label = self.name,
    word = "open", shed = "open", abandoned = abandoned == "failure" and abandoned or nil,
    breaker = self,
  } }
  if options.over ~= nil then add_over(self, parts, options.over, 2) end
  local made = limiter.init(breaker, self, parts, 2)
  if self.over then self.over.parents[made] = true end
  return made
end
