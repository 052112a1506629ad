--- Retries as scripts: what each call comes to, and what is then done. One system has three of them
--- (policy, runner, handler) and a table of options (config); here they are options of one.
local backoffs = require "spec.vectors.backoff"
local budget = require "neap.budget"
local cjson = require "cjson"
local clock = require "spec.vectors.clock"
local events = require "neap.events"
local harness = require "spec.vectors.harness"
local headers = require "neap.headers"
local retry = require "neap.retry"

local huge = math.huge
local NULL = cjson.null

local suite = {}

local function present(value) if value ~= NULL then return value end end
local function seconds(ms) return present(ms) and ms ~= "infinity" and ms / 1e3 or nil end
local function count(n) return n == "infinity" and huge or n end

-- ---- making -----------------------------------------------------------------------------------

local function never() return "stop" end

--- An error of a case may say when to come back, in a header, too.
local function hint_of(err)
  if type(err) ~= "table" then return nil end
  if err.header then return headers.retry_after(err.header) end
  return err.retry_after
end

--- Retries failures, with hints.
local function failures(outcome)
  if outcome.ok or outcome:field "retryable" == false then return "stop" end
  return "retry", hint_of(outcome.err)
end

local function always() return "retry" end

local function word(value) return type(value) == "table" and value.word or value end

--- What `retry_on` or `classify` of a case says.
local function classifier(given)
  local on = given.retry_on or given.classify
  if on == nil then return given.style == "policy" and never or failures end
  if on == "always" then return always end
  if on == "error" then return failures end
  return function (outcome)
    if on.ok_equals then return outcome.ok and outcome.value == on.ok_equals end
    if on.err_equals then return word(outcome.err) == on.err_equals end
    if on.give_up_after_attempt then
      return not outcome.ok and outcome.attempt + 1 < on.give_up_after_attempt
    end
    return on[word(outcome.err)] == "retry"
  end
end

--- The curve of a handler.
local function handler_backoff(given)
  local jitter = given.jitter or 0.25
  return {
    preset = "foundation_handler", base = seconds(given.base_ms), cap = seconds(given.max_ms),
    jitter = { "range", 1 - jitter, 1 + jitter }, strict = true,
  }
end

local function common(given, options)
  options.max_elapsed = seconds(given.max_elapsed_ms)
  if given.progress_timeout_ms ~= nil then
    local none = given.progress_timeout_ms == NULL or given.progress_timeout_ms == "infinity"
    options.progress_timeout = none and huge or seconds(given.progress_timeout_ms)
  end
  return options
end

local makers = {}

function makers.policy(given)
  local options = { preset = "foundation_policy", max_retries = count(given.max_retries) }
  options.backoff = given.backoff and backoffs.make(given.backoff, "foundation")
  return common(given, options)
end

function makers.handler(given)
  return common(given, { preset = "foundation_handler", max_retries = count(given.max_retries),
    backoff = handler_backoff(given) })
end

function makers.config(given)
  local options = makers.handler(given)
  options.preset = "foundation_config"
  options.in_flight, options.enabled = given.max_connections, given.enable_retry_logic
  return options
end

function makers.runner(given)
  local handler = given.handler or {}
  local options = common(given, makers.handler(handler))
  options.exceptions = given.rescue == false and "pass" or "return"
  return options
end

--- The other system's.
function makers.calls(given)
  return common(given, { max_attempts = given.max_attempts, hint_max = seconds(
    given.max_retry_after_ms), backoff = backoffs.make(given.backoff),
    hint = given.respect_retry_after == false and "ignore" or nil })
end

--- Tokens, of which each repeat takes some.
local function budget_of(given)
  if type(given) ~= "table" or not given.tokens then harness.skip "no such budget" end
  return budget { tokens = given.tokens, cost = given.cost }
end

local function make(given, world)
  local style = given.style or "calls"
  local maker = makers[style] or harness.skip("no style '" .. style .. "'")
  local options = maker(given)
  local classify = classifier(given)
  options.classify = function (outcome)
    world.asked = world.asked + 1
    local verdict, hint = classify(outcome)
    local own = present(given.retry_after_ms) or given.delay_ms
    return verdict, own and own / 1e3 or hint
  end
  options.budget = given.budget and budget_of(given.budget)
  function options.before(try) world.seen[#world.seen + 1] = try.attempt end
  return retry(options)
end

-- ---- scripts ----------------------------------------------------------------------------------

local function error_of(answer)
  if answer.retry_after_ms or answer.retry_after_header or answer.retryable ~= nil then
    return {
      word = answer.err, retryable = answer.retryable, header = answer.retry_after_header,
      retry_after = answer.retry_after_ms and answer.retry_after_ms / 1e3,
    }
  end
  return answer.err
end

--- A call that answers what the script says next.
local function player(case, world)
  return function (try)
    world.calls = world.calls + 1
    local answer = case.script[math.min(world.calls, #case.script)]
    if answer.takes_ms then world.rt.sleep(answer.takes_ms / 1e3) end
    if answer.reports_progress then try:progress() end
    if answer.exception then error(answer.exception, 0) end
    if answer.value == "error" then return nil, "error" end   -- how Lua says it
    if answer.err ~= nil then return nil, error_of(answer) end
    return answer.ok ~= nil and answer.ok or answer.value
  end
end

--- Count what is slept between calls; a case's clock may move with each reading.
local function watch(case, world)
  local rt, step_ms = world.rt, case.make.clock_step_ms
  local sleep, now_ns = rt.sleep, rt.now_ns
  function rt.sleep(delay)
    if not world.in_call then world.sleeps[#world.sleeps + 1] = delay * 1e3 end
    return sleep(delay)
  end
  if step_ms then
    local steps = 0
    function rt.now_ns()
      steps = steps + 1
      return now_ns() + steps * step_ms * 1000000LL
    end
  end
end

--- Words that are the run's, not the call's.
local OWN = { max_elapsed = true, progress_timeout = true, cancelled = true, timeout = true }

local function result_of(ok, value, err)
  if not ok then return { raised = value } end
  if value ~= nil or err == nil then return { ok = value } end
  if type(err) == "table" and err.trace then return { err = { exception = err.value } } end
  if OWN[err] then return { error = err } end
  return { err = word(err) }
end

local function run(case, policy, world)
  local fn, rt, sleep = player(case, world), world.rt, world.rt.sleep
  local result
  local function calls()
    watch(case, world)
    result = result_of(pcall(policy.run, policy, function (try)
      world.in_call = true
      local function back(ok, ...)
        world.in_call = false
        if not ok then error((...), 0) end
        return ...
      end
      return back(pcall(fn, try))
    end, { fields = case.make.metadata, timeout = seconds(case.make.deadline_ms) }))
  end
  rt.run(function ()
    local task = rt.spawn(calls)
    if case.make.cancel_at_ms then
      sleep(case.make.cancel_at_ms / 1e3)
      task:cancel()
    end
    task:join()
  end)
  return { calls = world.calls, sleeps_ms = world.sleeps, result = result }
end

-- ---- events -----------------------------------------------------------------------------------

--- What the cases call these.
local NAMES = { system_time = "at", delay_ms = "delay", exception = "error" }

local function result_word(event)
  if event.kind == "retry.stop" then return "ok" end
  return event.trace and "exception" or "failed"
end

local function listen(case, world)
  local kinds = {}
  for i, name in ipairs(case.make.events or {}) do kinds[i] = "retry." .. name end
  if not kinds[1] then return function () end end
  return events.tap(function (event) world.events[#world.events + 1] = event end, kinds)
end

local function check_events(expected, got)
  harness.expect("number of events", #expected, #got)
  for i, want in ipairs(expected) do
    local event = got[i]
    harness.expect("event " .. i, "retry." .. want.event, event.kind)
    for name, value in pairs(want) do
      if name == "has" then
        for _, field in ipairs(value) do
          if event[NAMES[field] or field] == nil then harness.fail("event " .. i, field, "none") end
        end
      elseif name == "result" then
        harness.expect("event " .. i, value, result_word(event))
      elseif name == "delay_ms" then
        harness.expect("event " .. i, value, event.delay * 1e3)
      elseif name ~= "event" then
        harness.expect(("event %d, %s"):format(i, name), value, event[name])
      end
    end
  end
end

-- ---- parts ------------------------------------------------------------------------------------

local function outcome_of(result)
  if result.exception then return retry.raised(result.exception) end
  if result.err ~= nil then return retry.outcome(nil, result.err) end
  return retry.outcome(result.ok)
end

local function steps(case, policy)
  for i, step in ipairs(case.step_calls) do
    local now = (step.now_ms or 0) / 1e3
    local state = policy:begin(nil, (step.start_ms or 0) / 1e3)
    state.attempt = step.attempt
    state:progress((step.last_progress_ms or step.now_ms or 0) / 1e3)
    local delay, why = policy:step(state, outcome_of(step.result), now)
    local got = delay and { retry_ms = delay * 1e3, attempt = state.attempt }
      or { halt = OWN[why] and { error = why } or step.result }
    harness.expect("step " .. i, step.expect, got)
  end
end

local handler = {}

handler["retry?"] = function (case, policy, expected)
  local state = policy:begin()
  state.attempt = case.make.attempt
  harness.expect("retry?", expected, policy:step(state, retry.outcome(nil, "x")) ~= nil)
end

handler["progress_timeout?"] = function (case, policy, expected, world)
  local state = policy:begin()
  state.attempt = case.make.attempt
  world.rt.advance(case.make.last_progress_age_ms / 1e3)
  harness.expect("progress_timeout?", expected, state:stalled())
end

function handler.delay_bounds_at(_, policy, expected)
  for _, row in ipairs(expected) do
    for _ = 1, 200 do
      harness.expect("attempt " .. row[1], { min = row[2], max = row[3] },
        policy.backoff:delay(row[1]) * 1e3)
    end
  end
end

local function ms_of(ns) return ns and tonumber(ns) / 1e6 end

local function fields_of(policy)
  local curve = policy.backoff.value
  return {
    max_attempts = policy.max_attempts, max_retries = policy.max_attempts == huge and "infinity"
      or policy.max_attempts - 1, respect_retry_after = policy.hint ~= "ignore",
    base_ms = curve.base_ns / 1e6, max_ms = curve.cap_ns / 1e6,
    jitter = curve.jitter == "range" and (curve.high - curve.low) / 2 or 0,
    progress_timeout_ms = ms_of(policy.progress_timeout), max_connections = policy.in_flight,
    enable_retry_logic = policy.enabled,
  }
end

-- ---- playing ----------------------------------------------------------------------------------

function suite.run(case)
  local world = { rt = clock.new(), calls = 0, asked = 0, sleeps = {}, seen = {}, events = {} }
  local policy = harness.build(case, function () return make(case.make, world) end,
    function () return "invalid_argument" end)
  if not policy then return end
  if case.step_calls then steps(case, policy) end
  if case.fields then harness.expect("fields", case.fields, fields_of(policy)) end
  if case.handler_options then
    harness.expect("options", case.handler_options, fields_of(policy))
  end
  for name, expected in pairs(case.handler or {}) do
    local check = handler[name] or harness.skip("no handler." .. name)
    check(case, policy, expected, world)
  end
  if case.script then
    local stop = listen(case, world)
    local got = run(case, policy, world)
    stop()
    harness.expect("expect", case.expect, got)
    if case.emitted then check_events(case.emitted, world.events) end
    if case.classifier_calls then
      harness.expect("classifier calls", case.classifier_calls, world.asked)
    end
    if case.attempts_seen then harness.expect("attempts", case.attempts_seen, world.seen) end
  end
end

return suite
