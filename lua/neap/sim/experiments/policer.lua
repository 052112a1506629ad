--- Calls that come at random and are refused when the bucket is empty: what share of them is.
---
--- A bucket of K tokens is a queue with K places and one server that takes 1/rate for each: a token
--- that is out is a customer there, and who finds no token is lost. With Poisson arrivals that is
--- M/D/1/K, whose loss is known exactly.
---
--- Loss of M/D/1/K by the embedded chain: let a_j be the chance of j arrivals in one service, and
--- q_0 = 1, q_1, ... in proportion the chances to leave 0, 1, ... behind in M/D/1, from q_(j+1) =
--- (q_j - q_0 a_j - sum of q_i a_(j+1-i), i = 1..j) / a_0. With S the sum of the first K of them,
--- the loss is 1 - S / (1 + rho S). See H. C. Tijms, A First Course in Stochastic Models (2003),
--- 9.6.
local gates = require "neap.sim.gates"
local throttle = require "neap.throttle"
local world = require "neap.sim.world"

local exp = math.exp

local RATE = 10

local policer = {
  about = "Poisson calls on '10/s burst K', refused when it is empty: the loss of M/D/1/K",
  tolerance = "1 % of the exact share, or 0.001",
}

--- The exact loss.
---@param rho number   arrivals in the time of one token
---@param k integer
---@return number
function policer.loss(rho, k)
  local a, q, sum = { [0] = exp(-rho) }, { [0] = 1 }, 1
  for j = 1, k do a[j] = a[j - 1] * rho / j end
  for j = 0, k - 2 do
    local x = q[j] - q[0] * a[j]
    for i = 1, j do x = x - q[i] * a[j + 1 - i] end
    q[j + 1] = x / a[0]
    sum = sum + q[j + 1]
  end
  return 1 - sum / (1 + rho * sum)
end

local CASES = {
  { 10, { 1, 2, 5, 10, 20 } }, { 8, { 1, 2, 5, 10 } }, { 20, { 1, 2, 5, 10 } },
}

function policer.run(trial)
  for _, case in ipairs(CASES) do
    local rate = case[1]
    for _, k in ipairs(case[2]) do
      local run_ns = trial:of(1e6) / rate * 1e9
      local made = world.new {
        arrivals = { { kind = "poisson", pieces = { { from = 0, rate = rate } } } },
        wait_ns = 0,
        gate = function () return gates.of(throttle(("%d/s burst %d"):format(RATE, k))) end,
      }
      local tally = made.begin(trial.seed, run_ns, 1)
      made.run(run_ns)
      made.close()
      trial:compare(("%d/s on burst %d"):format(rate, k), tally:results().refused_share,
        policer.loss(rate / RATE, k), 0.01, 0.001)
    end
  end
end

return policer
