--- Calls that come at random and wait for their turn at an even pace: how long.
---
--- One every T is the M/D/1 queue: a mean wait of rho / 2 (1 - rho) intervals; 1 - rho is the share
--- that does not wait (Pollaczek and Khinchine). With a burst of b the wait is what of that queue's
--- work is left above b - 1 intervals; those means were simulated, with 2e7 arrivals.
---
--- In heavy traffic chance dies slowly: 1 % of the wait at rho = 0.95 takes 1e8 calls. So the same
--- arrivals go through Lindley's recursion, whose mean is known: what chance did to it is taken
--- off (a control variate), and what is left is the engine's. And call for call the two are one.
local arrivals = require "neap.sim.arrivals"
local dice = require "neap.sim.dice"
local gates = require "neap.sim.gates"
local throttle = require "neap.throttle"
local world = require "neap.sim.world"

local max = math.max

local RATE = 10
local T = 1e9 / RATE

local md1 = {
  about = "Poisson calls that wait for '10/s smooth', and for bursts: the wait of M/D/1",
  tolerance = "0.1 % of the exact wait less chance, 5 % as it came, 15 % of the simulated",
}

local function measure(seed, given, burst, run_ns)
  local made = world.new {
    arrivals = { given },
    gate = function () return gates.of(throttle(("%d/s burst %d"):format(RATE, burst))) end,
  }
  local tally = made.begin(seed, run_ns, 1)
  made.run(run_ns)
  made.close()
  local results = tally:results()
  return results.mean_wait * RATE, results.at_once
end

--- What the same calls wait by the recursion W = max(W + T - gap, 0), above b - 1 intervals, and
--- the share that does not: of those that were granted by the end.
local function recursion(seed, given, burst, run_ns)
  local source = arrivals.source(given, dice.stream(seed, world.ARRIVALS))
  local work, before, sum, at_once, count = -T, 0, 0, 0, 0
  local at = source(0)
  while at <= run_ns do
    work = max(work + T - (at - before), 0)
    before = at
    local wait = max(work - (burst - 1) * T, 0)
    if at + wait <= run_ns then
      sum, count = sum + wait, count + 1
      if wait < 1 then at_once = at_once + 1 end
    end
    at = source(at)
  end
  return sum / count / T, at_once / count
end

-- burst, mean wait in intervals, share that does not wait.
local BURSTS = {
  { 2, 3.68, 0.25 }, { 5, 1.97, 0.59 }, { 10, 0.682, 0.857 }, { 20, 0.085, 0.982 },
  { 50, 0.001, 0.9999 },
}

local function smooth(trial, rho, calls)
  local rate = rho * RATE
  local given = { kind = "poisson", pieces = { { from = 0, rate = rate } } }
  local run_ns, name = trial:of(calls) / rate * 1e9, (", rho %g"):format(rho)
  local wait, at_once = measure(trial.seed, given, 1, run_ns)
  local same, same_at_once = recursion(trial.seed, given, 1, run_ns)
  local exact = rho / (2 * (1 - rho))
  trial:compare("wait" .. name .. ", as it came", wait, exact, 0.05, 0.001)
  trial:compare("wait" .. name .. ", less chance", wait - (same - exact), exact, 0.001)
  trial:compare("at once" .. name, at_once, 1 - rho, 0.01, 0.001)
  trial:compare("at once" .. name .. ", less chance", at_once - (same_at_once - 1 + rho), 1 - rho,
    0.001)
end

local function bursty(trial, burst, simulated, simulated_at_once)
  local given = { kind = "poisson", pieces = { { from = 0, rate = 0.9 * RATE } } }
  local run_ns, name = trial:of(2e6) / (0.9 * RATE) * 1e9, (", burst %d"):format(burst)
  local wait, at_once = measure(trial.seed, given, burst, run_ns)
  local same, same_at_once = recursion(trial.seed, given, burst, run_ns)
  trial:compare("wait" .. name, wait, simulated, 0.15, 0.03)
  trial:compare("wait" .. name .. ", by the recursion", wait, same, 0.001, 1e-6)
  trial:compare("at once" .. name, at_once, simulated_at_once, 0.01, 0.01)
  trial:compare("at once" .. name .. ", by the recursion", at_once, same_at_once, 0.001)
end

function md1.run(trial)
  for _, case in ipairs { { 0.5, 1e6 }, { 0.8, 2e6 }, { 0.9, 3e6 }, { 0.95, 5e6 } } do
    smooth(trial, unpack(case))
  end
  for _, case in ipairs(BURSTS) do bursty(trial, unpack(case)) end
end

return md1
