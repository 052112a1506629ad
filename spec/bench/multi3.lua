--- What names cost: a multi of three, its costs in a table, against a hybrid of the same three.
---
---   multi3        a table written anew for each call
---   multi3_kept   one table for all calls
---   multi3_list   pairs in order
---   multi3_parts  the first, against three takes of single throttles
local neap = require "neap"
local race = require "spec.bench.race"

local CALLS, ROUNDS = 2000, 1001   -- short, so that few rounds are interrupted
local LIMIT = "1000000000/s burst 1000000000"

local multi = neap.multi { requests = LIMIT, input = LIMIT, output = LIMIT }
local hybrid = neap.hybrid { LIMIT, LIMIT, LIMIT }
local a, b, c = neap.throttle(LIMIT), neap.throttle(LIMIT), neap.throttle(LIMIT)
local kept = { requests = 1, input = 3, output = 2 }

-- Code of its own for each: a loop that all shared would be compiled for whoever runs it first.
local loop = [[
  local take, calls = ...
  return function ()
    local granted = 0
    for _ = 1, calls do
      if take() then granted = granted + 1 end
    end
    assert(granted == calls)
  end
]]
local function calls(take) return loadstring(loop)(take, CALLS) end

local times = race.run(ROUNDS, {
  hybrid = calls(function () return hybrid:try_acquire() end),
  multi = calls(function ()
    return multi:try_acquire { requests = 1, input = 3, output = 2 }
  end),
  kept = calls(function () return multi:try_acquire(kept) end),
  parts = calls(function ()
    return a:try_acquire() and b:try_acquire(3) and c:try_acquire(2)
  end),
})

race.report(times, CALLS, "multi", "hybrid", "multi3", "hybrid3-from-Lua", "<=2.0")
race.report(times, CALLS, "kept", "hybrid", "multi3_kept", "hybrid3-from-Lua")
race.report(times, CALLS, "multi", "parts", "multi3_parts", "3-takes-from-Lua")

-- By itself, and last: a list is read in loops, so this is not one trace, and what it calls while
-- it is interpreted is not compiled for others any more.
times = race.run(ROUNDS, {
  hybrid = calls(function () return hybrid:try_acquire() end),
  list = calls(function ()
    return multi:try_acquire { { "requests", 1 }, { "input", 3 }, { "output", 2 } }
  end),
})
race.report(times, CALLS, "list", "hybrid", "multi3_list", "hybrid3-from-Lua")
