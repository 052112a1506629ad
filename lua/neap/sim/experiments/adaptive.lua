--- A limit that is found out: where it settles, and that it follows.
---
--- A service has c slots and takes 100 ms; half as many calls again come as it can serve. Little's
--- law says that c in flight are enough: more only wait there. So a limit that learns has to come
--- to c, or to no more than twice that, and again within 30 s when c is halved (reference: Netflix
--- concurrency-limits, whose rules vegas and gradient are; aimd is told which calls are slow).
local adaptive = require "neap.adaptive"
local gates = require "neap.sim.gates"
local world = require "neap.sim.world"

local SLOTS, SERVICE_NS, HALVED_S, END_S = 20, 100e6, 60, 120
local WAIT_NS = 500e6

local experiment = {
  about = "An adaptive limit on a service of 20 slots, of 10 from 60 s on, at 1.5 times its load",
  tolerance = "the limit in c..2c, 30 s after each change; nine tenths of what can be served is",
}

local WAYS = {
  { "vegas", { preset = "vegas", ceiling = 200 } },
  { "aimd", { strategy = { "aimd", slow = "150ms", decrease = 0.8 }, one_cut = true,
    grow_when_used = true, ceiling = 200 } },
}

local function measure(trial, options)
  local limit
  local made = world.new {
    arrivals = { { kind = "poisson", pieces = {
      { from = 0, rate = 1.5 * SLOTS / (SERVICE_NS / 1e9) },
      { from = HALVED_S * 1e9, rate = 0.75 * SLOTS / (SERVICE_NS / 1e9) } } } },
    slots = { { from = 0, rate = SLOTS }, { from = HALVED_S * 1e9, rate = SLOTS / 2 } },
    service = { kind = "fixed", value = SERVICE_NS }, wait_ns = WAIT_NS,
    gate = function ()
      limit = adaptive(options)
      return gates.of(limit)
    end,
  }
  local tally = made.begin(trial.seed, END_S * 1e9, END_S)
  local sums = { 0, 0 }
  for second = 1, END_S do
    made.run(second * 1e9)
    local half = second > HALVED_S and 2 or 1
    if second > half * HALVED_S - 30 then sums[half] = sums[half] + limit:limit() / 30 end
  end
  made.close()
  local served = 0
  for i = HALVED_S + 30, END_S - 1 do served = served + tally.series.good[i] / 30 end
  return sums[1], sums[2], served, tally:results()
end

function experiment.run(trial)
  for _, way in ipairs(WAYS) do
    local name = way[1]
    local before, after, served, results = measure(trial, way[2])
    trial:holds(name .. ": the limit from 30 to 60 s, in 20..40", before >= SLOTS
      and before <= 2 * SLOTS, before)
    trial:holds(name .. ": from 90 to 120 s, in 10..20", after >= SLOTS / 2 and after <= SLOTS,
      after)
    trial:holds(name .. ": served a second from 90 s on, of 100, 90 and more", served >= 90, served)
    trial:holds(name .. ": 99 % of calls end within 1 s", results.p99_latency < 1,
      results.p99_latency)
  end
  local before, after = measure(trial, { preset = "gradient", ceiling = 200 })
  trial:note(("gradient, ceiling 200: %.0f from 30 to 60 s, %.0f from 90 to 120 s"):format(before,
    after))
end

return experiment
