--- Clients that write one row, each at the version that it read: who lost tries again, after a
--- pause.
---
--- The model and its figures are M. Brooker's Exponential Backoff And Jitter (AWS Architecture
--- Blog, 2015; simulator aws-samples/aws-arch-backoff-simulator, run 600 times each, for 190
--- clients 40 to 150 times): a hop over the network takes |Normal(10, 2)| ms; base 5 ms, cap 2 s,
--- the first pause from 2 times the base; decorrelated is min(cap, U(base, 3 times the last)).
--- Pauses are drawn by the engine's back-off.
---
--- One more column than there: the row's own view. It is without capacity in the model, so that no
--- pause at all is done first; what it asks of the row meanwhile, writes a second, is in the notes.
local ffi = require "ffi"
local C = require "neap.engine"
local backoff = require "neap.backoff"
local dice = require "neap.sim.dice"

local abs, cos, log, max, min, sqrt = math.abs, math.cos, math.log, math.max, math.min, math.sqrt
local tonumber = tonumber

local CAP = 2e9
local MOST = 190

local aws = {
  about = "N clients, one versioned row, five ways to pause (M. Brooker 2015)",
  tolerance = "calls 2 %, times 4 % of 600 runs of the published simulator",
}

-- Of each way: milliseconds until all are done, writes tried; by N.
local NS, RUNS = { 10, 20, 50, 100, 190 }, { 6000, 3000, 1200, 600, 300 }
local WAYS = {
  { "exponential", "5ms x2 cap 2s", 1,
    { 3395, 14428, 36203, 63630, 101358 }, { 50.6, 150.4, 622, 1858, 5163 } },
  { "decorrelated", "5ms x2 cap none jitter decorrelated", 0,
    { 439, 821, 2212, 4632, 7850 }, { 37.8, 101.1, 375.3, 1001, 2433 } },
  { "equal", "5ms x2 cap 2s jitter equal", 1,
    { 709, 1643, 4253, 6665, 9445 }, { 42.3, 108.3, 347.3, 812.6, 1760 } },
  { "full", "5ms x2 cap 2s jitter full", 1,
    { 462, 1000, 2867, 4925, 7511 }, { 39.0, 100.0, 332.8, 795.6, 1774 } },
  { "none", "0s", 0,
    { 382, 600, 1141, 2027, 3538 }, { 51.1, 151.4, 691, 2421, 8006 } },
}

local wheel
local due = ffi.new "neap_ns[1]"
local version_read, tried = ffi.new("int32_t[?]", MOST), ffi.new("int32_t[?]", MOST)
local pause = ffi.new("double[?]", MOST)

-- Both of a pair by Box and Muller, for there are many hops.
local spare = ffi.new "double[2]"
local function hop(net)
  if spare[1] > 0 then
    spare[1] = 0
    return abs(10e6 + 2e6 * spare[0])
  end
  local r = sqrt(-2 * log(1 - C.neap_random_unit(net)))
  local turn = 2 * math.pi * C.neap_random_unit(net)
  spare[0], spare[1] = r * math.sin(turn), 1
  return abs(10e6 + 2e6 * r * cos(turn))
end

-- A timer is a client's next event at the row: its read, then its write. Answers when the last
-- client heard of its success, ns, and how many writes there were.
local function run(n, way, first, start, net, draws)
  local version, writes, last = 0, 0, 0
  for i = 0, n - 1 do
    version_read[i], tried[i], pause[i] = -1, first, 0
    C.neap_wheel_set(wheel, i, start + hop(net))
  end
  while true do
    local i = tonumber(C.neap_wheel_pop(wheel, C.neap_horizon, due))
    if i < 0 then break end
    local now = tonumber(due[0])
    if version_read[i] < 0 then
      version_read[i] = version
      C.neap_wheel_set(wheel, i, now + hop(net) + hop(net))
    else
      local back = now + hop(net)
      writes = writes + 1
      if version_read[i] == version then
        version = version + 1
        last = max(last, back)
      else
        local delay = tonumber(C.neap_backoff_delay(way, tried[i], pause[i],
          C.neap_random_unit(draws)))
        pause[i], tried[i] = min(delay, CAP), tried[i] + 1
        C.neap_wheel_set(wheel, i, back + pause[i] + hop(net))
      end
      version_read[i] = -1
    end
  end
  return last, writes
end

local function measure(trial, way, n, runs)
  local policy = backoff(way[2]).policy
  local net, draws = dice.stream(trial.seed, n), dice.stream(trial.seed, n + 1000)
  local time, writes, start = 0, 0, 0
  spare[1] = 0
  for _ = 1, runs do
    local last, count = run(n, policy, way[3], start, net, draws)
    time, writes, start = time + last - start, writes + count, last
  end
  return time / runs / 1e6, writes / runs
end

function aws.run(trial)
  wheel = C.neap_wheel_open(MOST, 0)
  local times, calls = {}, {}
  for k, n in ipairs(NS) do
    local runs = trial:of(RUNS[k])
    local seen = {}
    for _, way in ipairs(WAYS) do
      local name = way[1]
      local ms, writes = measure(trial, way, n, runs)
      trial:compare(("ms, %d %s"):format(n, name), ms, way[4][k], 0.04)
      trial:compare(("calls, %d %s"):format(n, name), writes, way[5][k], 0.02)
      times[name], calls[name] = ms, writes
      seen[#seen + 1] = ("%s %.0f"):format(name, writes / ms * 1000)
    end
    trial:note(("%d clients, writes a second at the row: %s"):format(n, table.concat(seen, ", ")))
    if n == 100 then
      trial:holds("100: calls full < equal < decorrelated < exponential < none", calls.full
        < calls.equal and calls.equal < calls.decorrelated and calls.decorrelated
        < calls.exponential and calls.exponential < calls.none)
      trial:holds("100: times decorrelated < full < equal < exponential / 5", times.decorrelated
        < times.full and times.full < times.equal and times.equal < times.exponential / 5)
    end
  end
  C.neap_wheel_close(wheel)
end

return aws
