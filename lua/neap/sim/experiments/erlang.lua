--- Calls in flight: what share finds no slot (Erlang B), or has to wait for one, and how long
--- (Erlang C). Both are exact for Poisson arrivals and exponential service; B for any service.
---
--- Waits are compared less chance, as in md1: here the same calls go through the recursion of
--- Kiefer and Wolfowitz, which knows when each of n servers is free next.
local arrivals = require "neap.sim.arrivals"
local dice = require "neap.sim.dice"
local ffi = require "ffi"
local gates = require "neap.sim.gates"
local semaphore = require "neap.semaphore"
local world = require "neap.sim.world"

local max = math.max

local erlang = {
  about = "Poisson calls on 'n in flight': loss of M/M/n/n, waits of M/M/n",
  tolerance = "1 % of the exact share, or 0.001; of waits 0.1 % less chance, 5 % as they came",
}

--- The share that is lost: n slots, `offered` calls in the time of one service.
---@param n integer
---@param offered number
---@return number
function erlang.b(n, offered)
  local b = 1
  for i = 1, n do b = offered * b / (i + offered * b) end
  return b
end

--- The share that waits, and the mean wait in times of service.
---@param n integer
---@param offered number
---@return number waits
---@return number mean
function erlang.c(n, offered)
  local b = erlang.b(n, offered)
  local c = b / (1 - offered / n * (1 - b))
  return c, c / (n - offered)
end

local function measure(trial, n, offered, run_ns, wait_ns, kind)
  local made = world.new {
    arrivals = { { kind = "poisson", pieces = { { from = 0, rate = offered } } } },
    wait_ns = wait_ns, service = { kind = kind, mean = 1e9, value = 1e9 },
    gate = function () return gates.of(semaphore(n)) end,
  }
  local tally = made.begin(trial.seed, run_ns, 1)
  made.run(run_ns)
  made.close()
  return tally:results()
end

--- What the same calls wait, in times of service, and the share that does.
local function recursion(seed, n, offered, run_ns)
  local source = arrivals.source({ kind = "poisson", pieces = { { from = 0, rate = offered } } },
    dice.stream(seed, world.ARRIVALS))
  local service = dice.draw({ kind = "exp", mean = 1e9 }, dice.stream(seed, world.SERVICE))
  local free = ffi.new("double[?]", n + 1)   -- in order, when each is
  local sum, waited, count = 0, 0, 0
  local at = source(0)
  while at <= run_ns do
    local start = max(at, free[0])
    local done = start + service()
    local i = 0
    while i < n - 1 and free[i + 1] < done do
      free[i] = free[i + 1]
      i = i + 1
    end
    free[i] = done
    if start <= run_ns then
      sum, count = sum + start - at, count + 1
      if start > at then waited = waited + 1 end
    end
    at = source(at)
  end
  return sum / count / 1e9, waited / count
end

local function losses(trial, n, offered, calls, name)
  local lost = erlang.b(n, offered)
  for _, kind in ipairs { "exp", "fixed" } do
    local run_ns = trial:of(calls) / offered * 1e9
    trial:compare(("lost, %s, %s service"):format(name, kind),
      measure(trial, n, offered, run_ns, 0, kind).refused_share, lost, 0.01, 0.001)
  end
end

local function waits(trial, n, offered, calls, name)
  local share, mean = erlang.c(n, offered)
  local run_ns = trial:of(calls) / offered * 1e9
  local results = measure(trial, n, offered, run_ns, nil, "exp")
  local same, same_share = recursion(trial.seed, n, offered, run_ns)
  trial:compare("waits, " .. name .. ", as it came", 1 - results.at_once, share, 0.05, 0.001)
  trial:compare("waits, " .. name, 1 - results.at_once - (same_share - share), share, 0.001)
  trial:compare("mean wait, " .. name .. ", as it came", results.mean_wait, mean, 0.05, 0.001)
  trial:compare("mean wait, " .. name, results.mean_wait - (same - mean), mean, 0.001)
end

function erlang.run(trial)
  for _, case in ipairs { { 10, 8 }, { 5, 3 }, { 64, 51.2 } } do
    local n, offered = unpack(case)
    local name = ("%d slots, %g offered"):format(n, offered)
    losses(trial, n, offered, 2e6, name)
    waits(trial, n, offered, 2e6, name)
  end
end

return erlang
