--- Times things against each other, in one run: what race.h says, for benchmarks in Lua.
local C = require "neap.engine"

local loop = C.neap_loop_open(0)

local race = {}

---@return number  seconds
function race.clock()
  return tonumber(C.neap_loop_now(loop)) / 1e9
end

---@param values number[]
---@return number
function race.median(values)
  local sorted = { unpack(values) }
  table.sort(sorted)
  return sorted[math.floor(#sorted / 2) + 1]
end

--- Four digits, or a whole number.
---@param value number
---@return string
function race.number(value)
  return (value < 10000 and "%.4g" or "%.0f"):format(value)
end

--- One line. The target is "<=1.1" or ">=0.9", or nil for what is only good to know.
---@param name string
---@param value number
---@param unit string
---@param ratio number
---@param vs string  what the ratio is to, of the same run
---@param target string?
function race.line(name, value, unit, ratio, vs, target)
  local line = ("bench %-18s %10s %-9s ratio=%-6.3g vs=%s")
    :format(name, race.number(value), unit, ratio, vs)
  if target then
    local bar = tonumber(target:sub(3))
    local met = ratio <= bar
    if target:sub(1, 1) == ">" then met = ratio >= bar end
    line = line .. " target=" .. target .. (met and " ok" or " missed")
  end
  print(line)
  io.flush()
end

--- Run each runner once a round, turn and turn about; then their times, by name, in seconds.
---@param rounds integer
---@param runners table<string, function>
---@return table<string, number[]>
function race.run(rounds, runners)
  local names, times = {}, {}
  for name in pairs(runners) do
    names[#names + 1] = name
    times[name] = {}
  end
  table.sort(names)
  for round = 1, rounds do
    for _, name in ipairs(names) do
      local start = race.clock()
      runners[name]()
      times[name][round] = race.clock() - start
    end
  end
  return times
end

--- The medians: of the subject's times, each divided by `calls`, in ns, and of the ratios.
---@param times table<string, number[]>
---@param calls integer
---@param subject string
---@param reference string
---@param name string
---@param vs string
---@param target string?
function race.report(times, calls, subject, reference, name, vs, target)
  local ratios = {}
  for i, time in ipairs(times[subject]) do ratios[i] = time / times[reference][i] end
  race.line(name, race.median(times[subject]) / calls * 1e9, "ns", race.median(ratios), vs, target)
end

return race
