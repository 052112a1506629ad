--- Coroutines that wait for one rate on the real loop: what of the rate they get, and what a wait
--- costs, from acquire to resumed.
---
---   waits_1000, waits_10000   grants a second by so many coroutines, of the 100,000 there are
---   waits_…_cpu               processor time of one grant, of the 10 us between two
local neap = require "neap"
local race = require "spec.bench.race"

local RATE, SECONDS = 100000, 2

local function bench(waiters)
  local throttle = neap.throttle(RATE .. "/s burst 1")
  local granted, start, cpu, took, used = 0, nil, nil, nil, nil
  neap.run(function ()
    local finish = neap.now() + SECONDS
    start, cpu = race.clock(), os.clock()
    for _ = 1, waiters do
      neap.spawn(function ()
        while neap.now() < finish do
          if throttle:acquire { deadline = finish } then granted = granted + 1 end
        end
      end)
    end
    neap.sleep(SECONDS)
    took, used = race.clock() - start, os.clock() - cpu
  end)
  local name = "waits_" .. waiters
  local rate = granted / took
  race.line(name, rate, "grants/s", rate / RATE, "the-rate-itself")
  race.line(name .. "_cpu", used / granted * 1e6, "us", used / took, "time-passed")
end

bench(1000)
bench(10000)
