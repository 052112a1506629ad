--- A spike of five seconds from which a service does not recover, and a limit from which it does.
---
--- The model is M. Brooker's (Metastability and Distributed Systems, 2021; simulator
--- mbrooker/simulator_example): 40 calls a second, 80 for 5 s; a hop takes 100 ms at random; a call
--- takes 1 s, and 10 ms for each in flight; clients give up after 3 s and try three times, at once.
--- What the server still does for those who gave up keeps it too slow for those who come: most runs
--- stay stuck for good. Pauses with jitter help here, but not where the load rises slowly.
---
--- The cure is a policy: it leaves clients as bad as they are, and lets 80 calls in flight, others
--- wait for half a second at most. Who is let go is answered in time.
local backoff = require "neap.backoff"
local gates = require "neap.sim.gates"
local policies = require "neap.sim.policies"
local policy = require "neap.policy"
local world = require "neap.sim.world"

local RUNS, RUN_NS = 600, 80e9
local STUCK, WELL = 0.05 * 40, 0.8 * 40   -- goodput a second in the last ten

local metastable = {
  about = "40 calls a second, five seconds of 80, clients that try three times (M. Brooker 2021)",
  tolerance = "0.13 of the published share stuck (2.5 of its errors), none cured; goodput 5 %",
}

local SPIKE = { kind = "poisson",
  pieces = { { from = 0, rate = 40 }, { from = 20e9, rate = 80 }, { from = 25e9, rate = 40 } } }
local RAMP = { kind = "ramp",
  points = { { from = 0, rate = 40 }, { from = 25e9, rate = 80 }, { from = 75e9, rate = 0 } } }

local CURE = [[
policy "front" {
  limits = { calls = "80 in flight" },
  queue = { max = 1000, timeout = "500ms" },
}]]

--- The gate of the cure, new for each run.
local function cured()
  local tree, mistakes = policy.parse(CURE, "the cure", { host = policies.host() })
  local declared = assert(tree, mistakes and tostring(mistakes[1])).policies[1]
  local call = { costs = {}, whose = {} }
  return function (seed) return policies.gate(declared, call, seed, {}, {}) end
end

local function mean_of(series, from, to)
  local sum = 0
  for i = from, to - 1 do sum = sum + series[i] end
  return sum / (to - from)
end

--- Of runs: the shares that end stuck, and neither stuck nor well; mean goodput before, in the
--- spike, and from 35 s after it to the end.
local function measure(trial, runs, given, change)
  local model = {
    arrivals = { given }, wire = { kind = "exp", mean = 100e6 },
    service = { kind = "fixed", value = 1e9 }, per_call_ns = 10e6, timeout_ns = 3e9, tries = 3,
    gate = gates.open,
  }
  for name, value in pairs(change) do model[name] = value end
  local made = world.new(model)
  local stuck, between, before, spike, after = 0, 0, 0, 0, 0
  for run = 1, runs do
    local tally = made.begin(trial.seed * 1000 + run, RUN_NS, 80)
    made.run(RUN_NS)
    local series = tally.series.good
    local last = mean_of(series, 70, 80)
    if last < STUCK then stuck = stuck + 1 elseif last < WELL then between = between + 1 end
    before = before + mean_of(series, 10, 20) / runs
    spike = spike + mean_of(series, 20, 25) / runs
    after = after + mean_of(series, 60, 80) / runs
  end
  made.close()
  return { stuck = stuck / runs, between = between / runs, before = before, spike = spike,
    after = after }
end

function metastable.run(trial)
  local runs, few = trial:of(RUNS), trial:of(60)
  local jitter = { backoff = backoff("20s x2 cap none jitter full").policy }
  local cure = { gate = cured() }

  local seen = measure(trial, runs, SPIKE, {})
  trial:compare("spike, no pause: share of runs that stay stuck", seen.stuck, 55 / 80, 0, 0.13)
  trial:holds("spike, no pause: under 5 % between stuck and well",
    seen.between < 0.05 / math.sqrt(trial.effort), seen.between)
  trial:compare("spike, no pause: goodput before", seen.before, 40, 0.02)
  trial:compare("spike, no pause: in the spike", seen.spike, 51.4, 0.05)
  trial:compare("spike, no pause: the last 20 s", seen.after, 14, 0, 7)

  seen = measure(trial, few, SPIKE, jitter)
  trial:holds("spike, jitter: no run stays stuck", seen.stuck == 0, seen.stuck)
  trial:compare("spike, jitter: in the spike", seen.spike, 50.8, 0.05)
  trial:compare("spike, jitter: the last 20 s", seen.after, 40, 0.03)

  seen = measure(trial, runs, SPIKE, cure)
  trial:holds("spike, the policy: no run stays stuck", seen.stuck == 0, seen.stuck)
  trial:holds("spike, the policy: nor between", seen.between < 0.05, seen.between)
  trial:compare("spike, the policy: goodput before", seen.before, 40, 0.03)
  trial:compare("spike, the policy: the last 20 s", seen.after, 40, 0.03)

  seen = measure(trial, few, RAMP, jitter)
  trial:compare("ramp, jitter: the last 20 s", seen.after, 0, 0, 1)
  seen = measure(trial, few, RAMP, cure)
  trial:holds("ramp, the policy: the last 20 s are above 0", seen.after > 1, seen.after)
end

return metastable
