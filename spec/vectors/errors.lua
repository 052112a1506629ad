--- Decisions as values, and words for errors with their advice.
local clock = require "spec.vectors.clock"
local harness = require "spec.vectors.harness"
local neap = require "neap"

local errors = neap.errors

-- The vectors' kinds that neap calls otherwise.
local WORDS = {
  cost_exceeds_capacity = "cost", circuit_open = "open", queue_full = "queue",
  deadline_exceeded = "timeout", max = "busy",
}
local NAMES = { granted = "acquired", retry = "retry", never = "impossible" }

--- A limiter's own answer that is such a decision.
local function answer_of(case)
  local one = neap.throttle "1/s"
  if case.decision == "acquired" then return one:peek() end
  if case.decision == "impossible" then return one:peek(2) end
  if case.after_ms == 0 then return nil, "rate", 0 end
  assert(one:try_acquire())
  neap.runtime.current().advance(1 - case.after_ms / 1e3)
  return one:peek()
end

local function ms(seconds) return seconds and seconds * 1e3 end

local suite = {}

function suite.run(case)
  clock.new()
  if case.decision then
    local d = errors.decision(answer_of(case))
    harness.expect("decision", case.decision, NAMES[d.decision])
    harness.expect("is_acquired", case.is_acquired, d.granted)
    harness.expect("retry_after_ms", case.retry_after_ms, ms(d.after))
    return
  end
  local word = WORDS[case.kind] or case.kind
  if not word then harness.skip "neither a decision nor a kind" end
  local kind = errors.kinds[word]
  if case.exists ~= nil then return harness.expect("exists", case.exists, kind ~= nil) end
  if not kind then harness.fail("kind", case.kind, "no such word") end
  if case.retryable ~= nil then harness.expect("retryable", case.retryable, kind.retryable) end
  if case.status ~= nil then harness.expect("status", case.status, kind.status) end
end

return suite
