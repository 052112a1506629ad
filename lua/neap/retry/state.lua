--- The state of one run of a retry: how far it is, and whether it goes on.
---
--- Whoever runs calls by himself goes by steps; nothing here waits:
---
---     local retry = neap.retry { backoff = "1s x2", max_elapsed = "20s" }
---     local try = retry:begin()
---     while true do
---       local outcome = neap.retry.outcome(fetch(url))        -- or neap.retry.raised(err, trace)
---       local delay, why = retry:step(try, outcome)
---       if not delay then break end                           -- why: see below
---       neap.sleep(delay)                                     -- or as the host's own loop does it
---     end
---
--- Limits are looked at before a wait, not after: who could not call again in time is told at once.
--- A success is a success, however late.
local ffi = require "ffi"
local C = require "neap.engine"
local classify = require "neap.classify"
local limiter = require "neap.limiter"
local rounds = require "neap.runtime.rounds"
local runtime = require "neap.runtime"

local error, setmetatable, tonumber = error, setmetatable, tonumber
local tostring, type = tostring, type
local max, min = math.max, math.min
local current = runtime.current

local NEVER = C.neap_never
local HORIZON_S = tonumber(C.neap_horizon) / 1e9
local instant = ffi.typeof "int64_t"

---@class neap.retry.State
---@field policy neap.Retry
---@field attempt integer        the number of the call, from 0
---@field began ffi.cdata*       ns: when the first call could go
---@field progressed ffi.cdata*  ns: when it last got anywhere
---@field gives_up_at ffi.cdata* ns: the overall deadline
---@field deadline ffi.cdata*    ns: that, or when max_elapsed is over; for limiters
---@field classify neap.Classifier
---@field previous number?       the delay before, without hints
---@field paid number?           what the budget took for this call
---@field fields table?          for events
---@field last neap.Outcome?
local state = {}
state.__index = state

local function earlier(a, b) return a < b and a or b end

--- An instant in ns: of the clock in use, or seconds that the host tells.
local function at_ns(now, level)
  if now == nil then return current().now_ns() end
  if ffi.istype("int64_t", now) then return now end
  if type(now) ~= "number" or not (now >= 0) then
    error("now: an instant expected, as neap.now() gives it, got " .. tostring(now), level + 1)
  end
  return rounds.ns(now, level + 1)
end

--- What retry:begin makes.
---@package
---@param policy neap.Retry
---@param given table?  timeout, deadline, classify, fields
---@param now any
---@param level integer
---@return neap.retry.State
function state.new(policy, given, now, level)
  now = at_ns(now, level + 1)
  policy.runs = policy.runs + 1
  if policy.budget then policy.budget:call() end
  local gives_up_at = limiter.deadline_of(given, now, level + 1)
  local over = policy.max_elapsed and now + policy.max_elapsed or NEVER
  return setmetatable({
    policy = policy, attempt = 0, began = now, progressed = now, gives_up_at = gives_up_at,
    deadline = earlier(gives_up_at, over), classify = given and given.classify or policy.classify,
    fields = given and given.fields,
  }, state)
end

--- It got somewhere: the progress timeout begins anew. For the call itself.
---
---     local slow = neap.retry { backoff = "8s", progress_timeout = "10s" }
---     slow:run(function (try)
---       if try.attempt < 3 then try:progress() end   -- else it would be over after the first wait
---       return nil, "broken off"
---     end)   --> nil, "progress_timeout", "broken off"
---
---@param now? number|ffi.cdata*  the host's clock, in seconds, when it is another one
function state:progress(now) self.progressed = at_ns(now, 2) end

--- Seconds until the deadline, for a call's own timeout; math.huge when there is none.
---
---     local first = slow:begin { timeout = "50s" }
---     neap.sleep "11s"
---     first:remaining()                                --> 39
---
---@param now? number|ffi.cdata*  seconds, as for progress
---@return number
function state:remaining(now)
  if self.deadline == NEVER then return math.huge end
  return max(tonumber(self.deadline - at_ns(now, 2)) / 1e9, 0)
end

--- Seconds since it began.
---
---     first:elapsed()                                  --> 11
---
---@param now? number|ffi.cdata*  seconds, as for progress
---@return number
function state:elapsed(now) return tonumber(at_ns(now, 2) - self.began) / 1e9 end

-- ---- limits -----------------------------------------------------------------------------------

--- Would a call at `at` come too late? What it would break.
local function broken(self, attempt, at)
  local policy = self.policy
  if policy.progress_timeout and at - self.progressed > policy.progress_timeout then
    return "progress_timeout"
  elseif policy.max_elapsed and at - self.began > policy.max_elapsed then
    return "max_elapsed"
  elseif attempt > 0 and at >= self.gives_up_at then
    return "timeout"
  end
end

--- Has it not got anywhere for longer than the progress timeout? Never during the first call.
---
---     first:stalled()                                  --> false
---
---@param now? number|ffi.cdata*  seconds, as for progress
---@return boolean
function state:stalled(now)
  local timeout = self.policy.progress_timeout
  return timeout and self.attempt > 0 and at_ns(now, 2) - self.progressed > timeout or false
end

--- What a call now would break, nil when it may go. It may have been woken late.
---
---     first:late()                                     --> "progress_timeout"
---
---@param now? number|ffi.cdata*  seconds, as for progress
---@return "progress_timeout"|"max_elapsed"|"timeout"|nil
function state:late(now) return broken(self, self.attempt, at_ns(now, 2)) end

-- ---- steps ------------------------------------------------------------------------------------

--- What the classifier says about an outcome; it is asked once.
---
---     try:judge(neap.retry.outcome(nil, "refused"))    --> "retry"
---
---@param outcome neap.Outcome
---@return "retry"|"stop"|nil
---@return number? hint  seconds
function state:judge(outcome)
  if not outcome.judged then
    outcome.judged = true
    outcome.verdict, outcome.hint = classify.read(self.classify(outcome))
  end
  return outcome.verdict, outcome.hint
end

--- How long to wait: the curve's delay, or what the other side says.
local function delay_of(self, hint)
  local policy = self.policy
  local curve = policy.backoff:delay(self.attempt, self.previous)
  self.previous = curve
  if not hint or policy.hint == "ignore" then return curve end
  hint = min(hint, policy.hint_max, curve + policy.hint_over)
  return policy.hint == "at_least" and max(hint, curve) or hint
end

--- Tell the budget how a call ended.
local function account(self, outcome, verdict)
  if verdict == "retry" then
    self.policy.budget:failed()
  elseif outcome.ok then
    self.policy.budget:success(self.paid)
  end
end

--- A call has ended: what now?
---
---     retry:begin():step(neap.retry.outcome(nil, "refused"))   --> 1
---
---@param outcome neap.Outcome
---@param now? number|ffi.cdata*  seconds, as for progress
---@return number? delay_s  until the next call; state.attempt is its number then
---@return string? why      "success"; "stop", by the classifier; "max_attempts"; "max_elapsed",
---"timeout" (the deadline), "progress_timeout": the next call would come too late; "budget";
---"cancelled"
function state:step(outcome, now)
  now = at_ns(now, 2)
  self.last = outcome
  outcome.attempt, outcome.elapsed = self.attempt, tonumber(now - self.began) / 1e9
  local policy, budget = self.policy, self.policy.budget
  if outcome.raised and policy.exceptions == "pass" then
    return nil, "stop"
  elseif outcome.err == "cancelled" and not outcome.raised then
    return nil, "cancelled"
  end
  local is_last = self.attempt + 1 >= policy.max_attempts
  if not is_last or budget then self:judge(outcome) end
  local verdict, hint = outcome.verdict, outcome.hint
  if budget then account(self, outcome, verdict) end
  if verdict ~= "retry" and (outcome.ok or not is_last) then
    return nil, outcome.ok and "success" or "stop"
  elseif is_last then
    return nil, "max_attempts"
  end
  local delay = delay_of(self, hint)
  local why = broken(self, self.attempt + 1, now + instant(min(delay, HORIZON_S) * 1e9 + 0.5))
  if why then return nil, why end
  if budget then
    self.paid = budget:take(outcome)
    if not self.paid then return nil, "budget" end
  end
  self.attempt, policy.repeats = self.attempt + 1, policy.repeats + 1
  return delay
end

return state
