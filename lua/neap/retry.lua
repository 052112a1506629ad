--- Retry: call again what failed, as often and for as long as makes sense.
---
---     local retry = neap.retry { backoff = "200ms x2 cap 20s jitter full", max_attempts = 5 }
---     local answer, err = retry:run(function (try) return fetch(url, try:remaining()) end)
---
--- A call that answers nil or false and an error has failed, and so has one that raises an error.
--- A classifier says what to do about it (neap.classify); unless told, every failure is tried again
--- whose error does not say `retryable = false`, after its `retry_after`. In the end the last
--- outcome is what run answers, unchanged: a success, however late, or the last failure.
---
--- Who waits between calls is woken when its task is cancelled. Nobody waits for a call that would
--- come too late. The call gets its state (neap.retry.state): `try.attempt`, from 0;
--- `try.deadline`, for limiters; `try:remaining()`; `try:progress()`, when it got somewhere.
---
--- Events (neap.events), with attempt, name and the run's fields: "retry.start"; "retry.retry" with
--- duration, delay and error; "retry.stop" with duration; "retry.failed" with duration, why and
--- error. Durations are seconds.
local C = require "neap.engine"
local backoff = require "neap.backoff"
local budget = require "neap.budget"
local classify = require "neap.classify"
local events = require "neap.events"
local grammar = require "neap.grammar"
local hybrid = require "neap.hybrid"
local limiter = require "neap.limiter"
local outcomes = require "neap.retry.outcome"
local runtime = require "neap.runtime"
local semaphore = require "neap.semaphore"
local state = require "neap.retry.state"
local stats = require "neap.stats"

local error, ipairs, pairs, pcall, setmetatable = error, ipairs, pairs, pcall, setmetatable
local tonumber, tostring, type = tonumber, tostring, type
local huge, max = math.huge, math.max
local current = runtime.current

local OPTIONS = { "preset", "name", "backoff", "max_attempts", "max_retries", "max_elapsed",
  "progress_timeout", "hint", "hint_max", "hint_over", "classify", "exceptions", "before",
  "budget", "limiter", "in_flight", "enabled" }
local RUN = { "classify", "timeout", "deadline", "fields", "cost", "limiter" }
local HINTS = { "replace", "at_least", "ignore" }
local EXCEPTIONS = { "raise", "return", "pass" }
local CALLS = 5            -- unless told
local HINT_MAX_S = 300     -- unless told
local MOST = 2 ^ 53

--- What other systems do, under their names.
local PRESETS = {
  throttle_net = { backoff = { preset = "throttle_net" }, max_attempts = 5 },
  botocore = { backoff = { preset = "botocore" }, max_attempts = 3 },
  foundation_policy = { backoff = { preset = "foundation_policy" }, max_retries = 0,
    classify = classify.never },
  foundation_handler = { backoff = { preset = "foundation_handler" }, max_retries = huge,
    progress_timeout = "2h" },
  foundation_config = { backoff = { preset = "foundation_handler" }, max_retries = huge,
    progress_timeout = "2h", in_flight = 1000 },
}

---@class neap.Retry
---@field name string
---@field backoff neap.Backoff
---@field max_attempts number   calls, the first included; math.huge: no limit
---@field max_elapsed ffi.cdata*?       ns
---@field progress_timeout ffi.cdata*?  ns
---@field hint "replace"|"at_least"|"ignore"
---@field hint_max number               seconds
---@field hint_over number              seconds
---@field budget neap.Budget?
---@field classify neap.Classifier
---@field exceptions "raise"|"return"|"pass"
---@field before (fun(try: neap.retry.State))?
---@field limiter neap.Limiter?
---@field in_flight integer?
---@field enabled boolean
---@field runs integer                  that began, ever
---@field repeats integer               calls besides the first ones, ever
---@field failed integer                runs that ended without a success, ever
local retry = {}
retry.__index = retry

-- ---- reading ----------------------------------------------------------------------------------

local function refuse(text, level) error("retry: " .. text, level + 1) end

--- A whole number of calls, or math.huge.
local function count(options, name, least, level)
  local n = options[name]
  if n == nil or n == huge then return n end
  if type(n) ~= "number" or n % 1 ~= 0 or not (n >= least and n <= MOST) then
    refuse(("%s: a whole number from %d expected, got %s"):format(name, least, tostring(n)),
      level + 1)
  end
  return n
end

local function duration(options, name, least, level)
  local given = options[name]
  if given == nil or given == huge then return nil end
  local ns = limiter.ns_of(given, "retry: " .. name, level + 1)
  if ns < least then refuse(name .. ": more than 0 expected", level + 1) end
  return ns < C.neap_horizon and ns or nil
end

local function word(options, name, words, level)
  local given = options[name]
  if given == nil then return words[1] end
  for _, each in ipairs(words) do
    if each == given then return given end
  end
  refuse((grammar.suggest(("%s: '%s' expected, got %s"):format(name,
    table.concat(words, "', '"), tostring(given)), tostring(given), words)), level + 1)
end

local function of_type(options, name, kind, level)
  return grammar.check_type("retry", options, name, kind, level)
end

local function with_preset(options, level)
  local preset = options.preset
  if preset == nil then return options end
  if not PRESETS[preset] then
    local names = {}
    for name in pairs(PRESETS) do names[#names + 1] = name end
    table.sort(names)
    refuse((grammar.suggest(("no preset '%s': there are %s"):format(tostring(preset),
      table.concat(names, ", ")), tostring(preset), names)), level + 1)
  end
  local both = {}
  for name, value in pairs(PRESETS[preset]) do both[name] = value end
  if options.max_attempts ~= nil then both.max_retries = nil end
  if options.max_retries ~= nil then both.max_attempts = nil end
  for name, value in pairs(options) do both[name] = value end
  return both
end

local function read_calls(self, options, level)
  local calls = count(options, "max_attempts", 0, level + 1)
  local repeats = count(options, "max_retries", 0, level + 1)
  if calls and repeats then
    refuse("either max_attempts, which counts calls, or max_retries, which counts repeats, not "
      .. "both", level + 1)
  end
  self.max_attempts = max(repeats and repeats + 1 or calls or CALLS, 1)
  local enabled = of_type(options, "enabled", "boolean", level + 1)
  self.enabled = enabled ~= false
  if enabled == false then self.max_attempts = 1 end
end

--- Where calls wait for their turn: the limiter, and a place among those in flight.
local function read_limits(self, options, level)
  local given = options.limiter
  if given ~= nil and not limiter.is(given) then
    refuse("limiter: a limiter expected, got " .. tostring(given), level + 1)
  end
  self.in_flight = count(options, "in_flight", 1, level + 1)
  if self.in_flight == huge then self.in_flight = nil end
  local places = self.in_flight and semaphore(self.in_flight)
  local wrapped = given and (places or given.terms.keys)   -- keys go by name, with the cost
  self.limiter = wrapped and hybrid(places and { places, given } or { given }) or places or given
end

--- For other constructors.
---@package
---@param options table?
---@param level integer  whose mistake it is, as for error()
---@return neap.Retry
local function make(options, level)
  if options == nil then options = {} end
  if type(options) ~= "table" then
    refuse("a table expected, as in { backoff = \"200ms x2\", max_attempts = 5 }, got " ..
      type(options), level + 1)
  end
  grammar.check_names("retry", options, OPTIONS, level + 1)
  options = with_preset(options, level + 1)
  local self = { name = of_type(options, "name", "string", level + 1) or "retry" }
  self.backoff = backoff.of(options.backoff, level + 1)
  read_calls(self, options, level + 1)
  self.max_elapsed = duration(options, "max_elapsed", 0, level + 1)
  self.progress_timeout = duration(options, "progress_timeout", 1, level + 1)
  self.hint = word(options, "hint", HINTS, level + 1)
  local most, over = duration(options, "hint_max", 0, level + 1), duration(options, "hint_over", 0,
    level + 1)
  self.hint_max = most and tonumber(most) / 1e9 or options.hint_max and huge or HINT_MAX_S
  self.hint_over = over and tonumber(over) / 1e9 or huge
  self.classify = of_type(options, "classify", "function", level + 1) or classify.failure
  self.exceptions = word(options, "exceptions", EXCEPTIONS, level + 1)
  self.before = of_type(options, "before", "function", level + 1)
  self.budget = options.budget
  if options.budget ~= nil and not budget.is(options.budget) then
    refuse("budget: one made by neap.budget expected, got " .. tostring(options.budget), level + 1)
  end
  read_limits(self, options, level + 1)
  self.runs, self.repeats, self.failed = 0, 0, 0
  return setmetatable(stats.join("retry", self), retry)
end

-- ---- telling ----------------------------------------------------------------------------------

local function tell(self, try, kind, fields)
  events.of_run("retry", kind, self.name, try.fields, fields)
end

-- ---- running ----------------------------------------------------------------------------------

local function read_run(given, level)
  if type(given) == "function" then return { classify = given } end
  if given == nil then return nil end
  if type(given) ~= "table" then
    refuse("run: a classifier or a table expected, got " .. type(given), level + 1)
  end
  grammar.check_names("retry", given, RUN, level + 1)
  of_type(given, "classify", "function", level + 1)
  of_type(given, "fields", "table", level + 1)
  if given.limiter ~= nil and not limiter.is(given.limiter) then
    refuse("run: limiter: a limiter expected, got " .. tostring(given.limiter), level + 1)
  end
  return given
end

--- A run that is about to begin: for whoever goes by steps (neap.retry.state).
---
---     local try = neap.retry({ backoff = "1s x2" }):begin()
---
---@param given? neap.Classifier|table  classify, timeout, deadline, fields
---@param now? number|ffi.cdata*        the host's clock, in seconds, when it is another one
---@return neap.retry.State
function retry:begin(given, now)
  local made = state.new(self, read_run(given, 2), now, 2)
  return made
end

--- A call has ended: when to make the next one, or why not. See neap.retry.state.
---
---     retry:step(try, neap.retry.outcome(nil, "refused"))   --> 1
---     retry:step(try, neap.retry.outcome "hello")           --> nil, "success"
---
---@param try neap.retry.State
---@param outcome neap.Outcome  of neap.retry.outcome(results…) or neap.retry.raised(err, trace)
---@param now? number|ffi.cdata*  seconds, as for begin
---@return number? delay_s
---@return string? why
function retry:step(try, outcome, now)
  local delay, why = try:step(outcome, now)
  if not delay and why ~= "success" then self.failed = self.failed + 1 end
  return delay, why
end

--- Tell the limiter how a call ended.
local function give(try, held, outcome)
  local ran, verdict = pcall(try.judge, try, outcome)
  local bad = not outcome.ok or not ran or verdict == "retry"
  held:give(outcome.err == "cancelled" and "ignore" or bad and "failure" or "success")
  if not ran then error(verdict, 0) end
end

--- One call, in its turn. No outcome: the limiter refused.
---@return neap.Outcome?
---@return string? why
---@return number? wait_s
local function call(self, try, given, fn)
  if self.before then self.before(try) end
  local held, why, wait_s
  local line = given and given.limiter or self.limiter
  if line then
    held, why, wait_s = line:acquire(given and given.cost, { deadline = try.deadline })
    if not held then return nil, why, wait_s end
  end
  tell(self, try, "start", { attempt = try.attempt })
  local outcome = outcomes.call(fn, try, held)
  outcome.attempt, outcome.elapsed = try.attempt, try:elapsed()
  if held then give(try, held, outcome) end
  return outcome
end

--- It is over: what run answers.
local function finish(self, try, why, outcome, took)
  if why ~= "success" then self.failed = self.failed + 1 end
  tell(self, try, why == "success" and "stop" or "failed", { why = why, duration = took,
    attempt = outcome and outcome.attempt or try.attempt, error = outcome and outcome.err,
    trace = outcome and outcome.trace })
  if not outcome then return nil, why end
  if why == "progress_timeout" or why == "cancelled" and outcome.err ~= "cancelled" then
    return nil, why, outcome.err
  elseif outcome.raised and self.exceptions == "pass" then
    error(outcome.err, 0)
  end
  return outcome:unpack(self.exceptions == "return")
end

local function seconds_since(began) return tonumber(current().now_ns() - began) / 1e9 end

--- Call `fn(try, permit)` until it succeeds, or until it makes no sense any more. The permit is
--- what the limiter granted, to be settled; who gives it back says how the call ended.
---
---     retry:run(function (try)
---       if try.attempt < 2 then return nil, "refused" end
---       return "hello"
---     end, { timeout = "1m" })   --> "hello"
---
---@param fn fun(try: neap.retry.State, permit: neap.Permit?): ...
---@param given? neap.Classifier|table  a classifier; or a table of
---   classify, limiter   instead of the retry's own
---   timeout, deadline   of all calls and the waits between them, as for acquire; the first call
---              is made in any case
---   cost       what each call asks the limiter for, as for acquire
---   fields     for the events
---@return any ...  what the last call answered, or its error raised again; or nil and "cancelled",
---"progress_timeout" (then the last error), or what the limiter refused for; or nil, "max_elapsed"
---when not even the first call could be made
function retry:run(fn, given)
  if type(fn) ~= "function" then refuse("run: a function expected, got " .. type(fn), 2) end
  given = read_run(given, 2)
  local try = state.new(self, given, nil, 2)
  while true do
    local late = try:late()
    if late then return finish(self, try, late, try.last) end
    local began = current().now_ns()
    local outcome, refused, wait_s = call(self, try, given, fn)
    if not outcome then
      finish(self, try, refused)
      return nil, refused, wait_s
    end
    local took = seconds_since(began)
    local delay, why = try:step(outcome)
    if not delay then return finish(self, try, why, outcome, took) end
    tell(self, try, "retry", { attempt = outcome.attempt, duration = took, delay = delay,
      error = outcome.err })
    if not current().sleep(delay) then return finish(self, try, "cancelled", outcome, took) end
  end
end

--- Make a retry.
---
---   backoff       as for neap.backoff; "100ms x2 jitter decorrelated" unless told
---   max_attempts  calls, the first included; 5 unless told, 0 counts as 1, math.huge: no limit
---   max_retries   the same, counted in repeats: 0 is one call. One of the two
---   max_elapsed   no call begins later than so long after the first could
---   progress_timeout   nor when nothing moved for longer than this: see try:progress()
---   hint          what the other side says about when: "replace"s the curve's delay (unless told),
---                 "at_least" so long, or "ignore"
---   hint_max      and never longer than this: 300 s unless told, math.huge: no limit
---   hint_over     nor longer than the curve's delay and this; no limit unless told
---   classify      which outcomes are tried again: see neap.classify
---   exceptions    an error that a call raises is a failure, and in the end "raise"d again (unless
---                 told), or "return"ed: nil and a value with its traceback; "pass": it is the end
---   before        fn(try), before each call
---   budget        one of neap.budget, shared with others: without its leave no call is repeated
---   limiter       each call waits in its line, until the run's deadline, and tells how it ended
---   in_flight     at most so many calls at once, of all runs
---   enabled       false: one call
---   name          in events
---   preset        throttle_net, botocore, foundation_policy, foundation_handler or
---                 foundation_config: what it does; the other options change that
---@overload fun(options?: table): neap.Retry
local module = { of = make, outcome = outcomes.of, raised = outcomes.of_error, presets = PRESETS }

return setmetatable(module, {
  __call = function (_, options)
    local made = make(options, 2)
    return made
  end,
})
