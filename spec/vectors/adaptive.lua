--- Adaptive limits: the rule alone (`adjust`), and scripts of permits on the clock.
local ffi = require "ffi"
local C = require "neap.engine"
local adaptive = require "neap.adaptive"
local clock = require "spec.vectors.clock"
local harness = require "spec.vectors.harness"

local max = math.max
local UNBOUNDED = 2 ^ 32 - 1   -- what a limit can be in the cases

local suite = {}

-- ---- making -----------------------------------------------------------------------------------

-- Options of ours, under the names that cases have for them.
local SWITCHES = { one_cut_per_round_trip = "one_cut", grow_only_when_used = "grow_when_used" }
local KEYS = { kind = true, strategy = true, floor = true, ceiling = true, initial = true }

--- A case's strategy, which may have switches beside its numbers.
local function read_strategy(given, options)
  local own = { given.strategy }
  for name, value in pairs(given) do
    if SWITCHES[name] then options[SWITCHES[name]] = value
    elseif name ~= "strategy" then own[name] = value end
  end
  options.strategy = own
end

--- As cases have it, a permit that is dropped says failure.
local function make(given)
  local options = { abandoned = "failure" }
  for name, value in pairs(given) do
    if SWITCHES[name] then
      options[SWITCHES[name]] = value
    elseif not KEYS[name] then
      harness.skip("adaptive has no '" .. name .. "'")
    elseif name ~= "kind" and name ~= "strategy" then
      options[name] = value
    end
  end
  read_strategy(given.strategy, options)
  return adaptive(options)
end

-- ---- the rule alone ---------------------------------------------------------------------------

--- One call, all by itself.
local function sample(l, rt, rtt_ms, outcome)
  local permit = assert(l:try_acquire())
  clock.step(rt, { advance_ms = rtt_ms or 0 })
  permit:give(outcome)
end

--- The limit stands still while there were earlier samples, then is let go for one call among
--- those in flight, which may be more than it allows.
local function adjust(given)
  local rt, options = clock.new(), {}
  read_strategy(given.strategy, options)
  local l = adaptive(options)
  local current, in_flight = given.current, max(given.in_flight or 1, 1)
  l:bounds(current, current)
  for _, rtt_ms in ipairs(given.earlier_rtts_ms or {}) do sample(l, rt, rtt_ms, "success") end
  l:bounds(in_flight, in_flight)
  local permit = assert(l:try_acquire())
  local others = in_flight > 1 and assert(l:try_acquire(in_flight - 1))
  l:bounds(current, current)
  l:bounds(1, UNBOUNDED)
  assert(l:limit() == current and l:in_flight() == in_flight)
  clock.step(rt, { advance_ms = given.rtt_ms or 0 })
  permit:give(given.outcome)
  if others then others:give "ignore" end
  return l:limit()
end

-- ---- scripts ----------------------------------------------------------------------------------

local ops = {}

function ops.limit(l) return l:limit() end
function ops.in_flight(l) return l:in_flight() end
function ops.ceiling(l) return l:ceiling() end
function ops.floor(l) return l:floor() end

function ops.acquire(l, step, world)
  world.held[step.as] = l:try_acquire()
  return world.held[step.as] ~= nil
end

function ops.settle(_, step, world)
  local held = world.held[step.permit]
  world.held[step.permit] = nil
  return held:give(step.outcome)
end

function ops.drop(_, step, world)
  world.held[step.permit] = nil
  collectgarbage()
  collectgarbage()
end

--- Who waits holds what it gets.
function ops.acquire_begin(l, step, world)
  local timeout = step.timeout_ms and step.timeout_ms / 1e3
  world.waiting[step.as] = "waiting"
  world.rt.spawn(function ()
    local held, why = l:acquire { timeout = timeout }
    world.held[step.as], world.waiting[step.as] = held, held and "admitted" or why
  end)
end

function ops.acquire_result(_, step, world) return world.waiting[step.as] end

function ops.wakeups(_, _, world)
  local stats = ffi.new "struct neap_engine_stats"
  C.neap_engine_stats(world.rt.engine, stats)
  return tonumber(stats.wakeups)
end

--- As many calls as there may be, or as `count` says, all at once; all end with `outcome`.
local function together(l, step, world, outcome, count)
  local held = {}
  while #held < (count or math.huge) do
    local permit = l:try_acquire()
    if not permit then break end
    held[#held + 1] = permit
  end
  clock.step(world.rt, { advance_ms = step.rtt_ms or 0 })
  for _, permit in ipairs(held) do permit:give(outcome) end
end

local OUTCOMES = { S = "success", G = "success", F = "failure", B = "failure", I = "ignore" }

local function within(l, step)
  if not step.limit_between then return end
  local least, most = step.limit_between[1], step.limit_between[2]
  harness.expect("limit", { min = least, max = most }, l:limit())
end

--- A letter for each call, one after the other.
function ops.outcomes(l, step, world)
  for letter in step.sequence:gmatch "." do
    sample(l, world.rt, step.rtt_ms, OUTCOMES[letter])
    within(l, step)
  end
end

--- A letter for each round; or so many alike.
function ops.rounds(l, step, world)
  local letters = step.sequence
  if not letters then
    local letter = (step.outcome == "failure" or step.good == false) and "F" or "S"
    letters = letter:rep(step.rounds or step.count or 1)
  end
  for letter in letters:gmatch "." do
    together(l, step, world, OUTCOMES[letter])
    within(l, step)
  end
end

function ops.saturate_and_succeed(l, step, world)
  for _ = 1, step.rounds do together(l, step, world, "success") end
end

-- sequential_successes, saturated_failures, …: how calls come, and how they end.
local how = {}

function how.sequential(l, step, world, outcome)
  for _ = 1, step.count or 1 do sample(l, world.rt, step.rtt_ms, outcome) end
end

function how.saturated(l, step, world, outcome)
  for _ = 1, step.rounds or step.count or 1 do together(l, step, world, outcome) end
end

function how.concurrent(l, step, world, outcome)
  together(l, step, world, outcome, step.count)
end

for name, play in pairs(how) do
  ops[name .. "_successes"] = function (l, step, world) play(l, step, world, "success") end
  ops[name .. "_failures"] = function (l, step, world) play(l, step, world, "failure") end
end

-- ---- playing ----------------------------------------------------------------------------------

local function mistake() return "invalid_argument" end

function suite.run(case)
  if case.adjust then return harness.expect("adjust", case.expect, adjust(case.adjust)) end
  local world = { rt = clock.new(), held = {}, waiting = {} }
  if case.strategy_defaults then
    local a = adaptive { strategy = case.strategy_defaults }.leaf.as.adaptive.strategy
    for field, value in pairs(case.fields) do harness.expect(field, value, tonumber(a[field])) end
    return
  end
  local l = harness.build(case, function () return make(case.make) end, mistake)
  for i, step in ipairs(l and case.steps or {}) do
    clock.step(world.rt, step)
    local op = ops[step.op] or harness.skip("no operation '" .. step.op .. "'")
    local answer = op(l, step, world)
    clock.settle(world.rt)
    if step.expect ~= nil then
      harness.expect(("step %d (%s)"):format(i, step.op), step.expect, answer)
    end
  end
end

return suite
