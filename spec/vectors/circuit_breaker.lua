--- Circuit breakers and their registry. One system takes a permit that is dropped for a failure,
--- has a failure that is exactly one period old still there, and says open until somebody calls. A
--- case says which system it is of, and gets the options for that.
local clock = require "spec.vectors.clock"
local harness = require "spec.vectors.harness"
local limiters = require "spec.vectors.limiters"
local breaker = require "neap.breaker"
local breakers = require "neap.breakers"
local hybrid = require "neap.hybrid"

local suite = {}

-- ---- making -----------------------------------------------------------------------------------

local rules = {}

function rules.consecutive(trip) return { failures = trip.failures } end

function rules.ratio(trip)
  return {
    ratio = trip.ratio == "nan" and 0 / 0 or trip.ratio, of = trip.window, min = trip.min_calls,
  }
end

--- What is exactly one period old has left here; there it has not, which is 1 ns more.
function rules.windowed(trip, seeds)
  local period_ns = trip.period_ms * 1e6 + (seeds and 1 or 0)
  return { failures = trip.failures, within = ("%dns"):format(period_ns) }
end

local CLASSIFIERS = {
  ignore = function () return "ignore" end,
  status_below_500_is_success = function (value, err) return (value or err) < 500 end,
}
local ANSWERS = { ["true"] = true, ["false"] = false }

local function options_of(make, case)
  make = make or {}
  local half = make.half_open or {}
  local rule = make.trip and (rules[make.trip.kind] or harness.skip("no rule " .. make.trip.kind))
  local seeds = case.dialect == "throttle-net" and case.class ~= "improve"
  local options = rule and rule(make.trip, seeds) or {}
  options.cooldown = make.cooldown_ms and make.cooldown_ms / 1e3
  options.trials, options.required = half.trials, half.required
  options.name = make.name
  if seeds then
    options.abandoned, options.lazy = "failure", case.class == "conflict"
  end
  return options
end

--- What a step of a call says about judging; the breaker asks when the call is over.
local function classify(world)
  return function (...)
    local step = world.calling
    if step.classifier_returns ~= nil then
      local word = step.classifier_returns
      local answer = ANSWERS[word]
      if answer == nil then answer = word end
      return answer
    end
    return CLASSIFIERS[step.classify](...)
  end
end

local function judges(case)
  for _, step in ipairs(case.steps or {}) do
    if step.classify or step.classifier_returns ~= nil then return true end
  end
end

local function make(case, world)
  local spec = case.make
  if spec.kind == "breaker_registry" then
    world.breakers = breakers()
    return true
  end
  local options = options_of(spec, case)
  if judges(case) then options.classify = classify(world) end
  world.breaker = breaker(options)
  world.front = world.breaker
  if spec.limiter then
    world.behind = limiters.make(spec.limiter, world)
    world.front = hybrid { world.breaker, world.behind }
  end
  return true
end

-- ---- answers ----------------------------------------------------------------------------------

local STATES = { closed = "closed", open = "open", ["half-open"] = "half_open" }

local function ms(seconds) return seconds and seconds * 1e3 end

--- What a call does, as the case says; noted when it runs.
local function body(step, answer)
  local result = step.result or { ok = true }
  return function ()
    answer.executed = true
    if result.exception then error(result.exception, 0) end
    if result.throw then error({ thrown = result.throw }, 0) end
    if result.err ~= nil then return nil, result.err end
    if result.ok ~= nil then return result.ok end
    return result.value
  end
end

--- Run it under a breaker, and tell how it ended.
local function protected(step, answer, call)
  local ran, first, second, third = pcall(call, body(step, answer))
  if not ran then
    if type(first) == "table" and first.thrown then
      answer.thrown = first.thrown
    else
      answer.raised = first
    end
  elseif not answer.executed then
    answer.error = second == "open" and "circuit_open" or second
    answer.retry_after_ms = ms(third)
  else
    answer.result = step.result
  end
  return answer
end

-- ---- one breaker ------------------------------------------------------------------------------

local ops = {}

function ops.success(world) world.breaker:success() end
function ops.failure(world) world.breaker:failure() end
function ops.ignore(world) world.breaker:ignore() end
function ops.reset(world) world.breaker:reset() end
function ops.open(world) world.breaker:open() end
function ops.close(world) world.breaker:close() end
function ops.state(world) return STATES[world.breaker:state()] end
function ops.failure_count(world) return world.breaker:failures() end

function ops.try(world, step)
  local held, why, wait_s = world.front:try_acquire(step.cost)
  if held then
    world.permits[step.as or "?"] = held
    return "admitted"
  elseif why == "open" then
    return { shed = true, retry_after_ms = ms(wait_s) }
  end
  local answer = limiters.refused(world.front, step.cost, why)
  return answer.error == "cost_exceeds_capacity" and answer or "limited"
end

function ops.settle(world, step)
  world.permits[step.permit]:give(step.outcome)
  world.permits[step.permit] = nil
end

local function collect(world)
  collectgarbage()
  collectgarbage()
  clock.settle(world.rt)
end

function ops.drop(world, step)
  world.permits[step.permit] = nil
  collect(world)
end

local function acquired(world, step, before, held, why, wait_s)
  local waited_ms = tonumber(world.rt.now_ns() - before) / 1e6
  if held then
    world.permits[step.as or "?"] = held
    return { waited_ms = waited_ms }
  end
  return {
    error = why == "open" and "circuit_open" or why, retry_after_ms = ms(wait_s),
    waited_ms = waited_ms,
  }
end

local function given_of(step)
  return { cost = step.cost, timeout = step.timeout_ms and step.timeout_ms / 1e3 }
end

function ops.acquire(world, step)
  local before = world.rt.now_ns()
  return acquired(world, step, before, world.front:acquire(given_of(step)))
end

function ops.acquire_begin(world, step)
  local before = world.rt.now_ns()
  world.tasks[step.as] = world.rt.spawn(function ()
    local answer = acquired(world, step, before, world.front:acquire(given_of(step)))
    world.results[step.as] = answer
  end)
  clock.settle(world.rt)
end

function ops.acquire_result(world, step) return world.results[step.as] or "waiting" end

function ops.cancel(world, step)
  world.tasks[step.as]:cancel()
  clock.settle(world.rt)
end

function ops.call(world, step)
  world.calling = step
  return protected(step, { executed = false }, function (fn) return world.breaker:call(fn) end)
end

function ops.available(world, step)
  if step.on == "limiter" then return world.behind:available() end
  return (world.named[step.on] or world.front):available()
end

-- ---- by name ----------------------------------------------------------------------------------

local by_name = {}

local function named_options(step, case) return step.options and options_of(step.options, case) end

function by_name.call(world, step, case)
  local options = named_options(step, case)
  return protected(step, { executed = false }, function (fn)
    return world.breakers:call(step.name, options, fn)
  end)
end

--- A call that goes on until it is finished, or its task dies.
function by_name.begin(world, step, case)
  local answer, finish = {}, nil
  local options = named_options(step, case)
  world.tasks[step.as] = world.rt.spawn(function ()
    protected(step, answer, function ()
      return world.breakers:call(step.name, options, function ()
        answer.executed = true
        world.rt.sleep(1e6)
        return body(finish, answer)()
      end)
    end)
  end)
  world.finish[step.as] = function (how) finish = how end
  clock.settle(world.rt)
  answer.admitted = answer.executed or false
  return answer
end

--- Its task wakes and returns what the case says.
function by_name.finish(world, step)
  world.finish[step.as](step)
  world.tasks[step.as]:cancel()
  clock.settle(world.rt)
end

--- Nobody runs it any more, and what it held is forgotten.
function by_name.kill(world, step)
  world.finish[step.as] { result = { err = "cancelled" } }
  world.tasks[step.as]:cancel()
  world.tasks[step.as], world.finish[step.as] = nil, nil
  collect(world)
end

function by_name.state(world, step) return STATES[world.breakers:state(step.name)] end
function by_name.reset(world, step) world.breakers:reset(step.name) end
function by_name.delete(world, step) world.breakers:delete(step.name) end
function by_name.list(world) return world.breakers:list() end

-- ---- playing ----------------------------------------------------------------------------------

--- What a new one says of itself.
local function fields(b)
  local c = b.leaf.as.breaker
  return {
    trip = { kind = "consecutive", failures = c.trip.failures },
    cooldown_ms = tonumber(c.cooldown_ns) / 1e6,
    half_open = { trials = c.trials, required = c.required },
    failure_count = b:failures(), state = STATES[b:state()],
  }
end

function suite.run(case)
  local world = {
    rt = clock.new(), named = {}, permits = {}, tasks = {}, results = {}, finish = {},
  }
  local built = harness.build(case, function () return make(case, world) end,
    limiters.error_kind)
  if case.fields then harness.expect("fields", case.fields, fields(world.breaker)) end
  local known = world.breakers and by_name or ops
  for i, step in ipairs(built and case.steps or {}) do
    clock.step(world.rt, step)
    if step.op then
      local op = known[step.op] or harness.skip("no operation '" .. step.op .. "'")
      local answer = op(world, step, case)
      if step.expect ~= nil then
        harness.expect(("step %d (%s)"):format(i, step.op), step.expect, answer)
      end
    end
  end
end

return suite
