--- Simulated events, of 100 clients that wait for a hybrid of two limits: they come, are let go,
--- and are answered. Against a compiled loop that only takes of the same two limits.
local ffi = require "ffi"
local C = require "neap.engine"
local gates = require "neap.sim.gates"
local neap = require "neap"
local race = require "spec.bench.race"
local world = require "neap.sim.world"

local CLIENTS, SECONDS, TAKES, ROUNDS = 100, 200, 100000, 21

local function limits()
  return neap.hybrid { requests = "8000/s burst 100", calls = "90 in flight" }
end

local made = world.new {
  closed = { clients = CLIENTS, think = { kind = "exp", mean = 5e6 } },
  service = { kind = "exp", mean = 10e6 }, gate = function () return gates.of(limits()) end,
}
local tally = made.begin(1, SECONDS * 1e9, 1)
local past, events = 0, {}

local takes = neap.hybrid { requests = "1000000000/s burst 1000000000", calls = "1G in flight" }
local all, cost = takes.terms.all, ffi.new("int64_t[8]", { 1, 1 })

local times = race.run(ROUNDS, {
  sim = function ()
    local before = tally.counts.events
    past = past + SECONDS * 1e9 / ROUNDS
    made.run(past)
    events[#events + 1] = tally.counts.events - before
  end,
  takes = function ()
    local granted = 0
    for at = 1, TAKES do
      if C.neap_all_take(all, cost, at, nil) <= at then granted = granted + 1 end
    end
    assert(granted == TAKES)
  end,
})

local rates, ratios = {}, {}
for i = 1, ROUNDS do
  rates[i] = events[i] / times.sim[i]
  ratios[i] = rates[i] / (TAKES / times.takes[i])
end
race.line("sim", race.median(rates) / 1e6, "Mevents/s", race.median(ratios), "bare-takes", ">=0.1")
