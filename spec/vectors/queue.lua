--- Queues: timelines, as for waiting, in which those who enqueue have priorities and keys.
local harness = require "spec.vectors.harness"
local limiters = require "spec.vectors.limiters"
local waiting = require "spec.vectors.waiting"

local suite = {}

--- Cases say after how long the lowest priority is no lower than the highest; a queue, how long it
--- takes to rise by one.
local function set_ageing(case)
  local least, most = math.huge, -math.huge
  for _, event in ipairs(case.events) do
    least, most = math.min(least, event.priority or 0), math.max(most, event.priority or 0)
  end
  case.make.ageing_ms = case.make.ageing_ms / math.max(most - least, 1)
end

function suite.run(case)
  if case.make.ageing_ms then set_ageing(case) end
  if not case.fields then return waiting.run(case) end
  local made = harness.build(case, function () return limiters.make(case.make, { named = {} }) end,
    limiters.error_kind)
  harness.expect("fields", case.fields, { capacity = made.places, overflow = made.room.overflow })
end

return suite
