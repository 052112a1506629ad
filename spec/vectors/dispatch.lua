--- Dispatch: calls are tasks, which hold what they were granted until a step says that they leave.
local backoff_window = require "neap.backoff_window"
local clock = require "spec.vectors.clock"
local dispatches = require "neap.dispatches"
local harness = require "spec.vectors.harness"

local WORDS = { cost = "cost_exceeds_capacity" }

local function seconds(ms) return ms and ms / 1e3 end

--- What a case calls an option, as neap does.
local function options_of(make)
  local mode = make.honour_retry_after and "both" or make.on_backoff
  return {
    concurrency = make.concurrency, throttled_concurrency = make.throttled_concurrency,
    byte_budget = make.byte_budget, byte_penalty_multiplier = make.byte_penalty_multiplier,
    backoff_window = seconds(make.backoff_window_ms), on_backoff = mode,
  }
end

--- All that a case makes: dispatches by name, and the calls on them.
local function world_of(case)
  local world = { rt = clock.new(), registry = dispatches(), windows = backoff_window(), calls = {},
    options = {} }
  local makes = case.make.of or { [case.make.name or "the one"] = case.make }
  for name, make in pairs(makes) do
    if make.kind ~= "dispatch" then harness.skip("no kind '" .. tostring(make.kind) .. "'") end
    world.options[name] = options_of(make)
    world.options[name].window = world.windows:of(make.key or name)
    world.registry:of(name, world.options[name])
    world.first = world.first or name
  end
  return world
end

--- A named dispatch is found by its name.
local function subject(world, step)
  local name = type(step.on) == "string" and step.on or world.first
  return world.registry:of(name, world.options[name])
end

local ops = {}

function ops.enter(world, step)
  local one, call = subject(world, step), { state = "waiting" }
  world.calls[step.as] = call
  call.task = world.rt.spawn(function ()
    local held, why = one:acquire { bytes = step.bytes, timeout = seconds(step.timeout_ms) }
    call.held = held
    call.state = held and "running" or { error = WORDS[why] or why }
  end)
  clock.settle(world.rt)
  return call.state
end

function ops.leave(world, step)
  world.calls[step.as].held:release()
  clock.settle(world.rt)
end

function ops.cancel(world, step)
  world.calls[step.as].task:cancel()
  clock.settle(world.rt)
  return world.calls[step.as].state
end

function ops.probe(world, step)
  clock.settle(world.rt)
  return world.calls[step.as].state
end

function ops.inside(world, step)
  local s = subject(world, step):snapshot()
  return { concurrency = s.concurrency.in_use, throttled = s.throttled.in_use,
    bytes = s.bytes.level, waiting = s.waiting }
end

function ops.snapshot(world, step)
  local s = subject(world, step):snapshot()
  return {
    concurrency = s.concurrency.limit, throttled_concurrency = s.throttled.limit,
    byte_budget = s.bytes.limit, byte_penalty_multiplier = s.multiplier,
    backoff_active = s.backoff.active,
  }
end

function ops.set_backoff(world, step)
  local ok, message = pcall(function ()
    subject(world, step):set_backoff(seconds(step.duration_ms))
  end)
  clock.settle(world.rt)
  return ok and "ok" or { error = "invalid_argument", message = message }
end

function ops.clear_backoff(world, step)
  subject(world, step):clear_backoff()
  clock.settle(world.rt)
end

function ops.backoff_active(world, step) return subject(world, step):backoff_active() end
function ops.window_active(world, step) return subject(world, step).window:active() end

--- Somebody else who shares the window says so.
function ops.window_set(world, step)
  subject(world, step).window:extend(seconds(step.duration_ms))
  clock.settle(world.rt)
end

ops["with"] = function (world, step)
  local result = step.result
  local ran, answer, why = pcall(function ()
    return subject(world, step):with(step.bytes or 0, function ()
      if type(result) == "table" and result.exception then error(result.exception, 0) end
      if type(result) == "table" and result.throw then error({ thrown = result.throw }, 0) end
      return result
    end)
  end)
  if not ran then
    if type(answer) == "table" then return answer end
    return { raised = answer }
  end
  return answer == nil and { error = why } or { result = answer }
end

local suite = {}

function suite.run(case)
  local ok, world = pcall(world_of, case)
  if not ok then
    if type(world) == "table" then error(world, 0) end
    return harness.expect("make", case.make_error or "to be built", "invalid_argument")
  end
  for i, step in ipairs(case.steps) do
    clock.step(world.rt, step)
    local op = ops[step.op] or harness.skip("no operation '" .. tostring(step.op) .. "'")
    local answer = op(world, step)
    if step.expect ~= nil then
      harness.expect(("step %d (%s)"):format(i, step.op), step.expect, answer)
    end
  end
end

return suite
