--- Waiting, as timelines: each event begins at its instant, and who waits is a task.
local ffi = require "ffi"
local C = require "neap.engine"
local clock = require "spec.vectors.clock"
local harness = require "spec.vectors.harness"
local limiters = require "spec.vectors.limiters"

local TOLERANCE_MS = 1

local RESULTS = { cost = "cost_exceeds_capacity", timeout = "timeout", queue = "queue_full" }

local function stats(rt)
  local s = ffi.new "struct neap_engine_stats"
  C.neap_engine_stats(rt.engine, s)
  return s
end

-- ---- events -----------------------------------------------------------------------------------

local function note(world, as, result)
  world.outcomes[as] = { result = result, at_ms = clock.ms(world.rt) }
  if world.served[result] then world.order[#world.order + 1] = as end
end

local events = {}

local function begin(world, as, result, timeout_result, given)
  world.outcomes[as] = { result = "still_waiting" }
  world.tasks[as] = world.rt.spawn(function ()
    local held, why = world.limiter:acquire(given)
    if held then
      world.permits[as] = held
      note(world, as, result)
    else
      if why == "closed" and not world.limiter.closed then why = "cost" end   -- a limit of 0
      note(world, as, why == "timeout" and timeout_result or RESULTS[why] or why)
    end
  end)
end

local function seconds(ms) return ms and ms / 1e3 end

function events.acquire(world, event)
  local given = { cost = event.cost, timeout = seconds(event.timeout_ms or event.deadline_ms) }
  for i = 1, event.count or 1 do
    begin(world, event.count and event.as .. i or event.as, "acquired", "timeout", given)
  end
end

function events.enqueue(world, event)
  local given = { cost = event.cost, timeout = seconds(event.deadline_ms) }
  if world.limiter.room then given.priority, given.flow = event.priority, event.key end
  begin(world, event.as, "served", "deadline_exceeded", given)
end

function events.wait(world, event)
  begin(world, event.as, "released", "timeout", { timeout = seconds(event.timeout_ms) })
end

function events.try(world, event)
  local as = event.as or "try"
  local held, why = world.limiter:try_acquire(event.cost)
  if held then
    world.permits[as] = held
    note(world, as, "acquired")
  else
    note(world, as, RESULTS[why] or "refused")
  end
end

function events.cancel(world, event) world.tasks[event.as]:cancel() end

function events.release(world, event)
  local permit = world.permits[event.as]
  if permit then permit:release() end
end

function events.set(world, event) world.limiter:extend(event.duration_ms / 1e3) end
function events.clear(world) world.limiter:clear() end
function events.close(world) world.limiter:close() end
function events.drain(world) world.limiter:drain() end
function events.reset(world) world.limiter:refill() end
function events.set_rate(world, event) world.limiter:reconfigure(limiters.rate(event)) end

function events.probe(world, event, where)
  local answer = {
    len = tonumber(stats(world.rt).waiting), available = world.limiter:available(),
    limiter_available = world.limiter:available(),
  }
  if event.as then answer = world.outcomes[event.as] and world.outcomes[event.as].result end
  if answer == "still_waiting" and event.expect == "waiting" then answer = "waiting" end
  if event.expect ~= nil then harness.expect(where, event.expect, answer) end
end

-- ---- comparing --------------------------------------------------------------------------------

local function expect_time(where, expected, got)
  local near = type(expected) == "number" and type(got) == "number"
    and math.abs(expected - got) <= TOLERANCE_MS
  if not near then harness.expect(where, expected, got) end
end

local function expect_outcomes(expected, outcomes)
  for as, one in pairs(expected) do
    local got = outcomes[as] or {}
    harness.expect(as .. "'s result", one.result, got.result)
    if one.at_ms then expect_time(as .. "'s at_ms", one.at_ms, got.at_ms) end
  end
end

local function expect_times(expected, world)
  local times = {}
  for i, as in ipairs(world.order) do times[i] = world.outcomes[as].at_ms end
  table.sort(times)
  harness.expect("number of outcomes", #expected, #times)
  for i, at in ipairs(expected) do expect_time("outcome " .. i, at, times[i]) end
end

local function compare(expected, world)
  local known = {
    outcomes = function (outcomes) expect_outcomes(outcomes, world.outcomes) end,
    outcome_times = function (times) expect_times(times, world) end,
    order = function (order) harness.expect("order", order, world.order) end,
    served = function (n) harness.expect("served", n, #world.order) end,
    len = function (n) harness.expect("len", n, tonumber(stats(world.rt).waiting)) end,
    limiter_available = function (n)
      harness.expect("limiter_available", n, world.limiter:available())
    end,
    wakeups = function (n)
      harness.expect("wakeups", n, tonumber(stats(world.rt).wakeups))
    end,
  }
  for what, value in pairs(expected) do
    local check = known[what] or harness.skip("no expectation '" .. what .. "'")
    check(value)
  end
end

local suite = {}

function suite.run(case)
  local world = {
    rt = clock.new(), named = {}, tasks = {}, permits = {}, outcomes = {}, order = {},
    served = { acquired = true, served = true, released = true },
  }
  world.limiter = harness.build(case, function () return limiters.make(case.make, world) end,
    limiters.error_kind)
  if not world.limiter then return end
  if case.prefill and case.prefill > 0 then assert(world.limiter:try_acquire(case.prefill)) end

  for i, event in ipairs(case.events) do
    clock.step(world.rt, { at_ms = event.at_ms })
    local act = events[event.op] or harness.skip("no event '" .. tostring(event.op) .. "'")
    act(world, event, ("event %d (%s)"):format(i, event.op))
    clock.settle(world.rt)
  end
  if case.until_ms then clock.step(world.rt, { at_ms = case.until_ms }) end
  compare(case.expect, world)
end

return suite
