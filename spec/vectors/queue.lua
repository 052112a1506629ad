--- Queues: timelines, as for waiting, in which those who enqueue have priorities and keys.
local harness = require "spec.vectors.harness"
local limiters = require "spec.vectors.limiters"
local waiting = require "spec.vectors.waiting"

local suite = {}

function suite.run(case)
  if not case.fields then return waiting.run(case) end
  local made = harness.build(case, function () return limiters.make(case.make, { named = {} }) end,
    limiters.error_kind)
  harness.expect("fields", case.fields, { capacity = made.places, overflow = made.room.overflow })
end

return suite
