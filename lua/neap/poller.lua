--- Polling: ask again until it is done, with pauses between, for as long as makes sense.
---
---     local poller = neap.poller { backoff = "500ms x1.5 cap 10s", timeout = "5m" }
---     local report, err = poller:run(function (try)
---       local job, err = fetch_job(id, try:remaining())
---       if not job then return nil, err end                        -- an error: that is the end
---       if not job.done then return "retry", job.state end         -- not yet
---       return job.report                                          -- anything else: done
---     end)
---     print(report, neap.now())                                    --> "hello", 1.25
---
--- A step that answers the word "retry" is called again, after the back-off's delay. It may say
--- why, and when, in the order in which refusals do (nil, why, wait_s):
---
---     return "retry"                      return "retry", "queued"
---     return "retry", "queued", 2         return "retry", nil, "250ms"
---
--- What stands second is a reason, whatever it is: 404 there is no delay. What stands third is the
--- delay, in place of the back-off's unless it is below 0. nil or false with an error ends it, and
--- so does an error that a step raises; calls that fail now and then are for neap.retry, inside of
--- the step. All else is success, nothing at all included, and is what run answers. (A result that
--- could be the text "retry" goes into a table.)
---
---     |-- step --|   500 ms   |-- step --|     750 ms     |-- step --|       deadline
---             "retry"                 "retry"                    done
---
--- A step may begin at the deadline, not later: when the next could not, that is told at once, not
--- then. One that hangs is cut off at the deadline. A step is a task: when it is cut off, or
--- whoever polls is cancelled, it hears it where it waits, and what it answers then is dropped.
--- Without a back-off there is no pause, but others get their turn between any two steps.
---
--- Events (neap.events), with attempt, name and the run's fields: "poller.start"; "poller.retry"
--- with duration, delay and reason; "poller.stop" with duration; "poller.failed" with why, error,
--- trace and, after a step, duration. Durations are seconds.
local C = require "neap.engine"
local backoff = require "neap.backoff"
local events = require "neap.events"
local grammar = require "neap.grammar"
local limiter = require "neap.limiter"
local outcomes = require "neap.retry.outcome"
local runtime = require "neap.runtime"
local state = require "neap.retry.state"

local error, select, setmetatable = error, select, setmetatable
local tonumber, tostring, type, unpack = tonumber, tostring, type, unpack
local huge = math.huge
local current = runtime.current

local NEVER, HORIZON = C.neap_never, C.neap_horizon
local MOST = 2 ^ 53
local OPTIONS = { "name", "backoff", "timeout", "max_attempts", "exceptions" }
local RUN = { "timeout", "deadline", "fields" }

---@class neap.Poller
---@field name string
---@field backoff neap.Backoff|(fun(attempt: integer): number|string)|nil  nil: no pauses
---@field timeout number|string|nil
---@field max_attempts number   steps; math.huge: no limit
---@field exceptions "return"|"raise"|fun(exception: neap.Exception): any
local poller = {}
poller.__index = poller

--- What a step gets.
---@class neap.poller.Try
---@field attempt integer       the number of the step, from 0
---@field reason any            why the one before was not the last
---@field began ffi.cdata*      ns
---@field deadline ffi.cdata*   ns, for limiters
---@field fields table?         for events
---@field previous number?      the back-off's last delay, seconds
---@field remaining fun(self): number  seconds until the deadline; math.huge when there is none
---@field elapsed fun(self): number    seconds since it began
local try_class = {}
try_class.__index = try_class
try_class.remaining, try_class.elapsed = state.remaining, state.elapsed

-- ---- reading ----------------------------------------------------------------------------------

local function refuse(text, level) error("poller: " .. text, level + 1) end

local function of_type(options, name, kind, level)
  return grammar.check_type("poller", options, name, kind, level)
end

local function read_backoff(given, level)
  if given == nil or given == "none" then return nil end
  if type(given) == "function" then return given end
  local made = backoff.of(given, level + 1)
  return made
end

local function read_timeout(given, level)
  if given == nil then return nil end
  limiter.ns_of(given, "poller: timeout", level + 1)
  return given
end

local function read_max_attempts(n, level)
  if n == nil or n == huge then return huge end
  if type(n) ~= "number" or n % 1 ~= 0 or not (n >= 0 and n <= MOST) then
    refuse("max_attempts: a whole number from 0 expected, got " .. tostring(n), level + 1)
  end
  return n
end

local function read_exceptions(given, level)
  if given == nil then return "return" end
  if type(given) ~= "function" and given ~= "return" and given ~= "raise" then
    refuse(("exceptions: 'return', 'raise' or a function expected, got %s"):format(
      tostring(given)), level + 1)
  end
  return given
end

--- A run that begins now.
---@return neap.poller.Try
local function begin(self, fn, given, what, level)
  if type(fn) ~= "function" then
    refuse(what .. ": a function expected, got " .. type(fn), level + 1)
  end
  if given == nil then given = {} end
  if type(given) ~= "table" then
    refuse(what .. ": a table expected, as in { timeout = \"1m\" }, got " .. type(given), level + 1)
  end
  grammar.check_names("poller", given, RUN, level + 1)
  of_type(given, "fields", "table", level + 1)
  local timeout = given.timeout
  if timeout == nil then timeout = self.timeout end
  local now = current().now_ns()
  return setmetatable({ attempt = 0, began = now, fields = given.fields,
    deadline = limiter.deadline_of({ timeout = timeout, deadline = given.deadline }, now,
      level + 1) }, try_class)
end

-- ---- telling ----------------------------------------------------------------------------------

local function tell(self, try, kind, fields)
  fields.attempt = try.attempt
  events.of_run("poller", kind, self.name, try.fields, fields)
end

-- ---- waiting ----------------------------------------------------------------------------------

--- Wait for the end of a task that answers something, until `at` and no longer. One that is woken
--- at that very instant, and ends then, has ended.
---@param rt neap.Runtime
---@param task neap.Task
---@param at ffi.cdata*
---@return any? answer
---@return "timeout"|"cancelled"|nil why  "cancelled": the one who waits was, or the task
local function join_until(rt, task, at)
  if at == NEVER or task.ended then
    local answer = task:join()
    return answer, answer == nil and "cancelled" or nil
  end
  local rang = false
  local waiter = rt.spawn("poller waits", task.join, task)
  local alarm = rt.spawn("poller alarm", function ()
    if rt.sleep(tonumber(at - rt.now_ns()) / 1e9) then
      rang = true
      waiter:cancel()
    end
  end)
  local answer = waiter:join()
  alarm:cancel()
  waiter:cancel()
  if answer == nil and rang and task.ended then answer = task:join() end
  return answer, answer == nil and (rang and "timeout" or "cancelled") or nil
end

--- One step, which is a task.
local function step(fn, try, exceptions)
  local outcome = outcomes.call(fn, try)
  if outcome.raised and type(exceptions) == "function" then
    return outcomes.call(exceptions, select(2, outcome:unpack(true)))
  end
  return outcome
end

--- How long to wait: what the step says, or the back-off.
---@return ffi.cdata*  ns
local function delay_of(self, try, own)
  if own ~= nil and not (type(own) == "number" and own < 0) then
    return limiter.ns_of(own, "poller: a step's delay", 0)
  end
  local curve = self.backoff
  if not curve then return 0LL end
  if type(curve) == "function" then
    return limiter.ns_of(curve(try.attempt), "poller: backoff", 0)
  end
  try.previous = curve:delay(try.attempt, try.previous)
  return limiter.ns_of(try.previous, "poller: backoff", 0)
end

-- ---- running ----------------------------------------------------------------------------------

--- What a step with this number would break at this instant.
local function broken(self, try, attempt, at)
  return at > try.deadline and "timeout" or attempt >= self.max_attempts and "max_attempts" or nil
end

--- It is over: what run answers.
local function finish(self, try, why, outcome, took)
  if outcome and outcome.ok then
    tell(self, try, "stop", { duration = took })
  else
    tell(self, try, "failed", { why = why, duration = took, error = outcome and outcome.err,
      trace = outcome and outcome.trace })
  end
  if not outcome then return nil, why, try.reason end
  return outcome:unpack(self.exceptions ~= "raise")
end

local function poll(self, rt, fn, try)
  while true do
    local began = rt.now_ns()
    local over = broken(self, try, try.attempt, began)
    if over then return finish(self, try, over) end
    tell(self, try, "start", {})
    local task = rt.spawn("poller step", step, fn, try, self.exceptions)
    local outcome, cut_off = join_until(rt, task, try.deadline)
    local now = rt.now_ns()
    local took = tonumber(now - began) / 1e9
    if not outcome then
      task:cancel()
      return finish(self, try, cut_off, nil, took)
    elseif outcome.value ~= "retry" then
      return finish(self, try, "error", outcome, took)
    end
    try.reason = outcome[2]
    local delay = delay_of(self, try, outcome[3])
    over = broken(self, try, try.attempt + 1, now + delay)
    if over then return finish(self, try, over, nil, took) end
    local delay_s = tonumber(delay) / 1e9
    tell(self, try, "retry", { duration = took, delay = delay_s, reason = try.reason })
    try.attempt = try.attempt + 1
    if not rt.sleep(delay_s) then return finish(self, try, "cancelled") end
  end
end

--- Call `fn(try)` until it answers something else than "retry", or it makes no sense any more.
---
---     local function step() return "retry", "queued" end
---     poller:run(step, { timeout = "2s" })   --> nil, "timeout", "queued"
---
---@param fn fun(try: neap.poller.Try): ...
---@param given? table
---   timeout    of all steps and the pauses between them, instead of the poller's own: seconds, or
---              "5m"
---   deadline   an instant, as neap.now() gives it; the earlier of both counts
---   fields     for the events
---@return any ...  what the last step answered: its values, or nil and its error; or nil and
---"timeout", "max_attempts" or "cancelled", and the last reason
function poller:run(fn, given)
  local try = begin(self, fn, given, "run", 2)
  return poll(self, current(), fn, try)
end

-- ---- in the background ------------------------------------------------------------------------

--- A run in the background.
---@class neap.Poll
---@field package task neap.Task
---@field package rt neap.Runtime
local background = {}
background.__index = background

local function pack(...) return { n = select("#", ...), ... } end

--- The same as run, as a task. It begins when its caller waits, and its time now.
---
---     local polling = poller:start(step)
---
---@param fn fun(try: neap.poller.Try): ...
---@param given? table  as for run
---@return neap.Poll
function poller:start(fn, given)
  local try, rt = begin(self, fn, given, "start", 2), current()
  return setmetatable({ rt = rt, task = rt.spawn(self.name, function ()
    return pack(poll(self, rt, fn, try))
  end) }, background)
end

--- Wait for its end. When that takes longer than the timeout it is cancelled.
---
---     polling:await "10s"                    --> nil, "timeout"
---
---@param timeout? number|string  seconds, or "5s"; for ever unless told
---@return any ...  as run; nil, "timeout"; nil, "cancelled" also when the one who waits was
---cancelled, and then it goes on
function background:await(timeout)
  local rt, at = self.rt, NEVER
  if timeout ~= nil then
    local ns = limiter.ns_of(timeout, "poller: await", 2)
    if ns < HORIZON then at = rt.now_ns() + ns end
  end
  local answer, why = join_until(rt, self.task, at)
  if answer then return unpack(answer, 1, answer.n) end
  if why == "timeout" then self.task:cancel() end
  return nil, why
end

--- End it, and the step that it is in: it answers nil, "cancelled".
---
---     local other = poller:start(step)
---     other:cancel()                         --> true
---     other:await()                          --> nil, "cancelled"
---
---@return boolean cancelled  false when it has ended already
function background:cancel() return self.task:cancel() end

--- Has it ended?
---
---     other:ended()                          --> true
---
---@return boolean
function background:ended() return self.task.ended or false end

-- ---- making -----------------------------------------------------------------------------------

local function make(options, level)
  if options == nil then options = {} end
  if type(options) ~= "table" then
    refuse("a table expected, as in { backoff = \"500ms x2\", timeout = \"5m\" }, got " ..
      type(options), level + 1)
  end
  grammar.check_names("poller", options, OPTIONS, level + 1)
  return setmetatable({
    name = of_type(options, "name", "string", level + 1) or "poller",
    backoff = read_backoff(options.backoff, level + 1),
    timeout = read_timeout(options.timeout, level + 1),
    max_attempts = read_max_attempts(options.max_attempts, level + 1),
    exceptions = read_exceptions(options.exceptions, level + 1),
  }, poller)
end

--- Make a poller.
---
---   backoff       the pauses: as for neap.backoff; or fn(attempt), which answers a duration;
---                 "none" unless told
---   timeout       of a run, from its beginning: seconds, or "5m"; no limit unless told
---   max_attempts  steps of a run, from 0; no limit unless told
---   exceptions    an error that a step raises is "return"ed (unless told): nil and a value with
---                 its traceback; or "raise"d again; or fn(exception): what that answers counts as
---                 the step's answer, "retry" included
---   name          in events
---@param options? table
---@return neap.Poller
return function (options)
  local made = make(options, 2)
  return made
end
