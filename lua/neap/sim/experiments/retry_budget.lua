--- Clients that repeat what failed, and what that adds to the load of a server that fails: as often
--- as they like, as a budget lets them, as a breaker lets them, and never.
---
--- The model and its figures are M. Brooker's (Fixing retries with token buckets and circuit
--- breakers, 2022; simulator mbrooker/simulator_example): 100 clients of 10 calls a second each,
--- for 30 s; a hop takes 10 ms at random; each client has a bucket of 5 tokens, to which a call
--- adds 0.1, and a repeat takes 1, while there is more than 1; or it repeats while no more than 10
--- % of its calls failed. The budget is the engine's. Repeats without one are known exactly.
local ffi = require "ffi"
local C = require "neap.engine"
local dice = require "neap.sim.dice"
local gates = require "neap.sim.gates"
local world = require "neap.sim.world"

local SECONDS, CLIENTS, RATE = 30, 100, 1000
local RUNS = 10

local retry_budget = {
  about = "100 clients, a server that fails at random, three repeats (M. Brooker 2022)",
  tolerance = "0.005 of exact shares and loads, 0.01 of simulated ones",
}

local function always(_) return { first = function () end, take = function () return true end } end

local function bucket(keys)
  local budgets = ffi.new("struct neap_budget[?]", keys)
  for i = 0, keys - 1 do
    assert(C.neap_budget_tokens(budgets + i, 5000, 1000) == C.NEAP_OK)
  end
  return {
    first = function (key) C.neap_budget_add(budgets + key, 100) end,
    take = function (key, now) return C.neap_budget_take(budgets + key, 1000, now) == 1 end,
  }
end

local function breaker(keys)
  local calls, failures = ffi.new("double[?]", keys), ffi.new("double[?]", keys)
  return {
    first = function (key) calls[key] = calls[key] + 1 end,
    take = function (key)
      failures[key] = failures[key] + 1
      return failures[key] <= 0.1 * calls[key]
    end,
  }
end

local function measure(trial, share, tries, budget)
  local made = world.new {
    arrivals = { { kind = "poisson", pieces = { { from = 0, rate = RATE } } } },
    keys = { count = CLIENTS, draw = function (stream) return dice.one_of(CLIENTS, 0, stream) end },
    wire = { kind = "exp", mean = 10e6 },
    fail = { { from = 0, rate = share } }, tries = tries, budget = budget, gate = gates.open,
  }
  local good, ended, sent, offered = 0, 0, 0, 0
  for run = 1, trial:of(RUNS) do
    local run_ns = SECONDS * 1e9
    local tally = made.begin(trial.seed * 1000 + run, run_ns, 1)
    made.run(run_ns)
    local counts = tally.counts
    good, ended = good + counts.good, ended + counts.good + counts.failed
    sent, offered = sent + counts.sent, offered + counts.offered
  end
  made.close()
  return good / ended, sent / offered
end

-- Of each share of failures: success and load with a bucket, and with a breaker.
local CASES = {
  { 0.05, 0.9998, 1.052, 0.996, 1.045 }, { 0.1, 0.987, 1.097, 0.933, 1.037 },
  { 0.3, 0.784, 1.113, 0.699, 1.000 }, { 0.5, 0.555, 1.114, 0.497, 1.000 },
}

function retry_budget.run(trial)
  for _, case in ipairs(CASES) do
    local f, bucket_success, bucket_load, breaker_success, breaker_load = unpack(case)
    local name = (", %g fail"):format(f)
    local function compare(way, tries, budget, success, load, amount)
      local got_success, got_load = measure(trial, f, tries, budget)
      trial:compare(("success, %s%s"):format(way, name), got_success, success, 0, amount)
      trial:compare(("load, %s%s"):format(way, name), got_load, load, 0, amount)
    end
    compare("3 repeats", 4, always, 1 - f ^ 4, 1 + f + f ^ 2 + f ^ 3, 0.005)
    compare("bucket", 4, bucket, bucket_success, bucket_load, 0.01)
    compare("breaker", 4, breaker, breaker_success, breaker_load, 0.01)
    compare("none", 1, nil, 1 - f, 1, 0.005)
  end
end

return retry_budget
