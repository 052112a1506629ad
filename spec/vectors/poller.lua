--- Polling loops as scripts: what each step answers, and what is then done. One system counts whole
--- ms; what is a fraction of its unit is said as that of ours.
local backoffs = require "spec.vectors.backoff"
local cjson = require "cjson"
local clock = require "spec.vectors.clock"
local harness = require "spec.vectors.harness"
local poller = require "neap.poller"

local huge = math.huge
local NULL = cjson.null

local suite = {}

local function present(value) if value ~= NULL and value ~= "infinity" then return value end end

local function duration(ms)
  ms = present(ms)
  if type(ms) ~= "number" then return ms end
  return ms % 1 == 0 and ms / 1e3 or ms .. "ns"
end

-- ---- making -----------------------------------------------------------------------------------

local function backoff_of(given)
  given = present(given)
  if type(given) ~= "table" then return given end
  if given[1] then
    local what = { curve = given[1], base_ms = given[2], max_ms = given[3] }
    return backoffs.make(what, "foundation")
  elseif given.per_attempt_ms then
    local most = given.max_ms or huge
    return function (attempt) return math.min(attempt * given.per_attempt_ms, most) / 1e3 end
  end
  return backoffs.make(given, "foundation")
end

--- What a step of ours answers for one of the case's.
local function play(world, answer)
  if answer == "retry" then return "retry" end
  if type(answer) ~= "table" then return answer end
  if answer.takes_ms then world.rt.sleep(answer.takes_ms / 1e3) end
  if answer.hang then return world.rt.sleep(huge) end
  if answer.exception ~= nil then error(answer.exception, 0) end
  if answer.error ~= nil then return nil, answer.error end
  if answer.retry ~= nil then
    return "retry", present(answer.retry), answer.delay_ms and answer.delay_ms / 1e3
  end
  if answer.ok ~= nil then return present(answer.ok) end
  return present(answer.value)
end

--- The cases have more than one name for the handler.
local function exceptions_of(options, world)
  local answer = options.exception_handler or options.on_exception or options.exception_returns
  if answer == nil then return nil end
  return function () return play(world, answer) end
end

local function make(options, world)
  return poller {
    backoff = backoff_of(options.backoff), timeout = duration(options.timeout_ms),
    max_attempts = present(options.max_attempts), exceptions = exceptions_of(options, world),
  }
end

-- ---- playing ----------------------------------------------------------------------------------

--- The script, its repetitions written out.
local function written_out(script)
  local list = {}
  for _, answer in ipairs(script) do
    local many = type(answer) == "table" and answer["repeat"]
    for _ = 1, many or 1 do list[#list + 1] = many and answer.answer or answer end
  end
  return list
end

--- Pauses are seen from outside: from the end of a step to the beginning of the next, or the end.
local function note_pause(world)
  local now = tonumber(world.rt.real_now_ns()) / 1e6
  if world.last and now > world.last then world.sleeps[#world.sleeps + 1] = now - world.last end
  world.last = nil
end

local function player(script, world)
  local function back(ok, ...)
    world.last = tonumber(world.rt.real_now_ns()) / 1e6
    if not ok then error((...), 0) end
    return ...
  end
  return function (try)
    note_pause(world)
    world.calls = world.calls + 1
    world.seen[world.calls] = try.attempt
    return back(pcall(play, world, script[math.min(world.calls, #script)]))
  end
end

local function watch(options, world)
  local rt, steps = world.rt, 0
  local sleep, now_ns = rt.sleep, rt.now_ns
  function rt.sleep(delay)
    if delay == 0 then world.yields = world.yields + 1 end
    return sleep(delay)
  end
  if options.clock_step_ms then
    function rt.now_ns()
      steps = steps + 1
      return now_ns() + steps * options.clock_step_ms * 1000000LL
    end
  end
end

local OWN = { timeout = true, max_attempts = true, cancelled = true }

local function result_of(ok, value, err)
  if not ok then return { raised = value } end
  if value ~= nil or err == nil then return { ok = value } end
  if type(err) == "table" and err.trace then
    return { exception = err.value, err = { exception = err.value },
      error = { exception = err.value } }
  end
  return { error = err, err = not OWN[err] and err or nil }
end

local function poll(policy, fn, options)
  local given = { deadline = options.deadline_ms and options.deadline_ms / 1e3 }
  if not options.background then return policy:run(fn, given) end
  return policy:start(fn, given):await(duration(options.await_timeout_ms))
end

local function run(case, policy, world)
  local options, rt, result = case.options or {}, world.rt, nil
  local fn = player(written_out(case.script), world)
  watch(options, world)
  rt.run(function ()
    local task = rt.spawn(function ()
      result = result_of(pcall(poll, policy, fn, options))
      note_pause(world)
    end)
    if options.cancel_at_ms then
      rt.sleep(options.cancel_at_ms / 1e3)
      task:cancel()
    end
    task:join()
  end)
  return result
end

function suite.run(case)
  local world = { rt = clock.new(), calls = 0, yields = 0, sleeps = {}, seen = {} }
  local ok, policy = pcall(make, case.options or {}, world)
  if case.make_error then
    return harness.expect("make", case.make_error, not ok and "invalid_argument" or nil)
  end
  local result = ok and run(case, policy, world) or { error = "invalid_argument" }
  harness.expect("expect", case.expect, { calls = world.calls, sleeps_ms = world.sleeps,
    result = result, attempts_seen = world.seen, yields = world.yields })
end

return suite
