--- Runs: a scenario under a policy, as often as it says, and what that comes to.
---
--- Run i has the seed `seed` and the number i, whatever policy it is: so two policies meet the same
--- arrivals, and their difference is taken run by run, where most of chance cancels out. Intervals
--- are of 95 %, by Student's t.
local parallel = require "neap.sim.parallel"
local scenario = require "neap.sim.scenario"
local tally = require "neap.sim.tally"
local world = require "neap.sim.world"

local concat, sort = table.concat, table.sort
local floor, max, min, sqrt = math.floor, math.max, math.min, math.sqrt
local ipairs, pairs, tonumber = ipairs, pairs, tonumber

local MOST_BINS = 300
local STEPS = 200        -- of one run, between which its progress is told
local SEEDS = 100003     -- seeds of one run and the next

local runs = {}

---@class neap.sim.Result
---@field times integer
---@field mean table<string, number>      by name, see neap.sim.tally
---@field half table<string, number>?     half of the interval, of several runs
---@field each table<string, number>[]    of each run
---@field bins integer
---@field bin_s number
---@field series table<string, number[]>  a second, mean of all runs
---@field told table<string, number>      events of a run, mean

local function sorted(of)
  local names = {}
  for name in pairs(of) do names[#names + 1] = name end
  sort(names)
  return names
end

--- So many bins for a run: seconds, when there are not too many.
function runs.bins(run_ns)
  return max(min(floor(run_ns / 1e9), MOST_BINS), 1)
end

--- One run, as text: numbers in full.
local function run_one(of, declared, file, seed, i, progress)
  local told, bins = {}, runs.bins(of.run_ns)
  local made = world.new(scenario.model(of, declared, told, { file = file }))
  local counted = made.begin(seed * SEEDS + i, of.run_ns, bins)
  for step = 1, STEPS do
    made.run(floor(of.run_ns * step / STEPS))
    if progress then progress(step / STEPS) end
  end
  made.close()
  local lines = {}
  local results = counted:results()
  for _, name in ipairs(sorted(results)) do
    lines[#lines + 1] = ("r %s %.17g"):format(name, results[name])
  end
  for _, name in ipairs(tally.SERIES) do
    local values, of_name = {}, counted.series[name]
    for k = 0, bins - 1 do values[k + 1] = ("%.17g"):format(of_name[k]) end
    lines[#lines + 1] = ("s %s %s"):format(name, concat(values, " "))
  end
  for _, name in ipairs(sorted(told)) do
    lines[#lines + 1] = ("e %s %d"):format(name, told[name])
  end
  return concat(lines, "\n")
end

local function parse(text)
  local one = { results = {}, series = {}, told = {} }
  for kind, name, rest in text:gmatch "(%a) (%S+) ([^\n]*)" do
    if kind == "r" then
      one.results[name] = tonumber(rest)
    elseif kind == "e" then
      one.told[name] = tonumber(rest)
    else
      local values = {}
      for value in rest:gmatch "%S+" do values[#values + 1] = tonumber(value) end
      one.series[name] = values
    end
  end
  return one
end

--- What 97.5 % of Student's t with n degrees of freedom lie below: exact for 1 and 2, then by
--- G. W. Hill's expansion (Algorithm 396, 1970), right to 1e-3.
---@param n integer
---@return number
function runs.t(n)
  if n == 1 then return 12.706 elseif n == 2 then return 4.303 end
  local z = 1.959964
  local g1 = (z ^ 3 + z) / 4
  local g2 = (5 * z ^ 5 + 16 * z ^ 3 + 3 * z) / 96
  local g3 = (3 * z ^ 7 + 19 * z ^ 5 + 17 * z ^ 3 - 15 * z) / 384
  local g4 = (79 * z ^ 9 + 776 * z ^ 7 + 1482 * z ^ 5 - 1920 * z ^ 3 - 945 * z) / 92160
  return z + g1 / n + g2 / n ^ 2 + g3 / n ^ 3 + g4 / n ^ 4
end

--- Mean of values, and half of its interval; nil of one.
---@param values number[]
---@return number mean
---@return number? half
function runs.interval(values)
  local n, sum, squares = #values, 0, 0
  for _, value in ipairs(values) do sum = sum + value end
  local mean = sum / n
  if n < 2 then return mean end
  for _, value in ipairs(values) do squares = squares + (value - mean) ^ 2 end
  return mean, runs.t(n - 1) * sqrt(squares / (n - 1) / n)
end

local function mean_series(list, bins, bin_s)
  local series = {}
  for _, name in ipairs(tally.SERIES) do
    local means = {}
    for k = 1, bins do
      local sum = 0
      for _, one in ipairs(list) do sum = sum + one.series[name][k] end
      means[k] = sum / #list / bin_s
    end
    series[name] = means
  end
  return series
end

--- Run all.
---@param of neap.sim.Scenario
---@param declared neap.policy
---@param options { file: string?, seed: integer, processes: integer?,
---  progress: fun(share: number)? }
---@return neap.sim.Result
function runs.all(of, declared, options)
  local progress = options.progress or function () end
  local processes = options.processes or parallel.processors()
  local alone = of.times == 1
  local texts = parallel.map(of.times, processes, function (i)
    return run_one(of, declared, options.file, options.seed, i, alone and progress or nil)
  end, function (done) progress(done / of.times) end)
  local list = {}
  for i, text in ipairs(texts) do list[i] = parse(text) end
  local bins = runs.bins(of.run_ns)
  local result = { times = of.times, mean = {}, half = of.times > 1 and {} or nil, each = {},
    bins = bins, bin_s = of.run_ns / bins / 1e9, told = {} }
  for i, one in ipairs(list) do result.each[i] = one.results end
  for name in pairs(list[1].results) do
    local values = {}
    for i, one in ipairs(list) do values[i] = one.results[name] end
    local mean, half = runs.interval(values)
    result.mean[name] = mean
    if half then result.half[name] = half end
  end
  for _, one in ipairs(list) do
    for name, n in pairs(one.told) do
      result.told[name] = (result.told[name] or 0) + n / of.times
    end
  end
  result.series = mean_series(list, bins, result.bin_s)
  return result
end

--- Run by run, the other less this: mean and half of its interval.
---@param this neap.sim.Result
---@param other neap.sim.Result
---@param name string
---@return number mean
---@return number? half
function runs.difference(this, other, name)
  local values = {}
  for i, each in ipairs(this.each) do values[i] = other.each[i][name] - each[name] end
  return runs.interval(values)
end

return runs
