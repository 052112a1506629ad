--- Semaphores: by name (slots), one per key (the same), and weighted ones.
local clock = require "spec.vectors.clock"
local decisions = require "spec.vectors.decisions"
local harness = require "spec.vectors.harness"
local limiters = require "spec.vectors.limiters"
local slots = require "neap.slots"

local suite = {}

-- ---- by name ----------------------------------------------------------------------------------

--- The slots of a registry and the permits that steps took, by name.
local function registry() return { slots = slots(), held = {} } end

--- Names may be lists of a key and a maximum: the maximum is not part of ours.
local function name_of(step)
  local name = step.name or step.key or "default"
  return type(name) == "table" and name[1] or name
end

local function keep(r, step, held)
  local list = r.held[name_of(step)] or {}
  r.held[name_of(step)] = list
  list[#list + 1] = held
  return held
end

--- What a protected call does, as the case says.
local function body(step, inside)
  local result = step.result or "ok"
  return function ()
    inside()
    if type(result) == "table" then
      if result.exception then error(result.exception, 0) end
      if result.throw then error({ thrown = result.throw }, 0) end
    end
    return result
  end
end

--- Run it with a place held, and tell how it ended.
local function protected(r, step, given)
  local executed, count_inside = false, nil
  local ran, result, why = pcall(function ()
    local one = r.slots:of(name_of(step), step.max)
    return one:with(given, body(step, function ()
      executed, count_inside = true, r.slots:count(name_of(step))
    end))
  end)
  local answer = { executed = executed, count_inside = count_inside }
  if not ran then
    if type(result) == "table" and result.thrown then answer.thrown = result.thrown
    else answer.raised = result end
  elseif not executed then
    answer.error = (why == "timeout" or why == "closed") and "max" or why
  elseif type(result) == "table" then
    for key, value in pairs(result) do answer[key] = value end
  else
    answer.result = result
  end
  return answer
end

local by_name = {}

--- A maximum that makes no sense is a mistake here, and "no place" in the vectors.
function by_name.acquire(r, step)
  local ok, held = pcall(function ()
    return r.slots:of(name_of(step), step.max):try_acquire(step.cost)
  end)
  if not ok or not held then return false end
  keep(r, step, held)
  return true
end

function by_name.release(r, step)
  local list = r.held[name_of(step)] or {}
  if not list[1] and step.expect and step.expect ~= "ok" then harness.skip(decisions.by_permit) end
  local held = table.remove(list)
  if held then held:release() end
  return "ok"
end

function by_name.count(r, step) return r.slots:count(name_of(step)) end
function by_name.with_acquire(r, step) return protected(r, step, { timeout = 0 }) end

--- Here the maximum is how the caller means the limit to be from now on.
function by_name.with_semaphore(r, step)
  if step.max and step.max > 0 then r.slots:change(name_of(step), step.max) end
  return protected(r, step, 1)
end

function by_name.acquire_blocking(r, step, world)
  local before = world.rt.now_ns()
  local one = r.slots:of(name_of(step), step.max)
  local timeout = step.timeout_ms and step.timeout_ms / 1e3
  local held, why = limiters.call(one, "acquire", { timeout = timeout })
  if not held or held.error then return held or { error = why } end
  keep(r, step, held)
  local waited = tonumber(world.rt.now_ns() - before) / 1e6
  return { ok = true, sleeps = waited > 0 and 1 or 0, waited_ms = waited }
end

--- A task that takes a place, never gives it back by itself, and does something long.
local function hold_in_task(limiter, step, world)
  world.tasks[step.as] = world.rt.spawn(function ()
    local held = limiter:acquire(step.weight)
    world.state[step.as] = held and "acquired"
    world.rt.sleep(1e6)
    return held ~= nil
  end)
  clock.settle(world.rt)
end

--- A task ends before its time, and its permit with it.
local function kill(_, step, world)
  world.tasks[step.as]:cancel()
  clock.settle(world.rt)
  world.tasks[step.as] = nil
  collectgarbage()
  collectgarbage()
  clock.settle(world.rt)
end

function by_name.spawn_hold(r, step, world)
  hold_in_task(r.slots:of(name_of(step), step.max), step, world)
end
by_name.kill = kill

-- ---- weighted ---------------------------------------------------------------------------------

local weighted = {}

local function given_of(step)
  return { cost = step.weight or step.cost, timeout = step.timeout_ms and step.timeout_ms / 1e3 }
end

local function hold(w, permit, weight, as)
  w.held[#w.held + 1] = { permit = permit, weight = weight or 1, as = as }
end

function weighted.try_acquire(w, step)
  local held, why = limiters.call(w.semaphore, "try_acquire", step.weight)
  if not held then
    local later = why == "busy" or why == "line"
    return later and "unavailable" or limiters.refused(w.semaphore, step.weight, why)
  end
  if held.error then return held end
  hold(w, held, step.weight)
  return "ok"
end

function weighted.acquire(w, step, world)
  local before = world.rt.now_ns()
  local held, why = limiters.call(w.semaphore, "acquire", given_of(step))
  if not held then return limiters.refused(w.semaphore, step.weight, why) end
  if held.error then return held end
  hold(w, held, step.weight)
  local waited_ms = tonumber(world.rt.now_ns() - before) / 1e6
  return { waited = waited_ms > 0, waited_ms = waited_ms }
end

function weighted.acquire_begin(w, step, world)
  world.state[step.as] = "waiting"
  world.tasks[step.as] = world.rt.spawn(function ()
    local held, why = w.semaphore:acquire(given_of(step))
    world.state[step.as] = held and "acquired" or why
    if held then hold(w, held, step.weight, step.as) end
  end)
  clock.settle(world.rt)
end

function weighted.spawn_hold(w, step, world) hold_in_task(w.semaphore, step, world) end

function weighted.probe(_, step, world) return world.state[step.as] end

function weighted.cancel(_, step, world)
  world.tasks[step.as]:cancel()
  clock.settle(world.rt)
end

--- Whoever dies takes its permits along.
function weighted.kill(w, step, world)
  for i = #w.held, 1, -1 do
    if w.held[i].as == step.as then table.remove(w.held, i) end
  end
  kill(w, step, world)
end

--- Give a weight back, out of the permits in the order they were taken. What nobody holds cannot be
--- given back.
function weighted.release(w, step, world)
  local left = step.weight or 1
  while left > 0 and w.held[1] do
    local first = w.held[1]
    local part = math.min(left, first.weight)
    if part == first.weight then
      first.permit:release()
      table.remove(w.held, 1)
    else
      first.permit:settle(first.weight - part)
      first.weight = first.weight - part
    end
    left = left - part
  end
  clock.settle(world.rt)
  return "ok"
end

function weighted.level(w) return w.semaphore:available() end

function weighted.with_acquire(w, step)
  local executed = false
  local ran, result, why = pcall(function ()
    return w.semaphore:with(given_of(step), body(step, function () executed = true end))
  end)
  if not ran then return { raised = result, executed = executed } end
  if not executed then return { error = why, executed = false } end
  return type(result) == "table" and result or { result = result }
end

-- ---- playing ----------------------------------------------------------------------------------

local function make(case_make, world)
  if case_make.kind == "counting_registry" or case_make.kind == "keyed_limiter" then
    return { ops = by_name, on = registry() }
  elseif case_make.kind == "group" then
    for name, each in pairs(case_make.of) do world.named[name] = make(each, world) end
    return {}
  end
  local one = limiters.make(case_make, world)
  return { ops = weighted, on = { semaphore = one, held = {} } }
end

function suite.run(case)
  if case.fields and not case.steps then
    harness.skip(decisions.no_polling)
  end
  local world = { rt = clock.new(), named = {}, tasks = {}, state = {} }
  local main = harness.build(case, function () return make(case.make, world) end,
    limiters.error_kind)
  for i, step in ipairs(main and case.steps or {}) do
    clock.step(world.rt, step)
    if step.op then
      local subject = step.on and world.named[step.on] or main
      local op = subject.ops and subject.ops[step.op]
        or harness.skip("no operation '" .. step.op .. "'")
      local answer = op(subject.on, step, world)
      if step.expect ~= nil then
        harness.expect(("step %d (%s)"):format(i, step.op), step.expect, answer)
      end
    end
  end
end

return suite
