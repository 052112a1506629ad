--- Back-off windows: a pause. Cases may begin before clock reading 0, so theirs starts later.
local clock = require "spec.vectors.clock"
local harness = require "spec.vectors.harness"
local limiters = require "spec.vectors.limiters"
local pause = require "neap.pause"

local BASE_MS = 1e9

local ops = {}

function ops.set(p, step)
  local answer = limiters.call(p, "extend", step.duration_ms / 1e3)
  return type(answer) == "table" and answer or "ok"
end

function ops.active(p) return p:active() end
function ops.clear(p) p:clear() end

function ops.wait(p, step, rt)
  if step.during_sleep then harness.skip "nobody sleeps and looks again" end
  local before = clock.ms(rt)
  assert(p:acquire())
  local waited = clock.ms(rt) - before
  return { sleeps_ms = waited > 0 and { waited } or {}, waited_ms = waited }
end

local suite = {}

function suite.run(case)
  if case.make.kind ~= "backoff_window" then harness.skip "there are no pauses by key" end
  local rt = clock.new(BASE_MS)
  local p = pause()
  for i, step in ipairs(case.steps) do
    clock.step(rt, step)
    if step.op then
      local op = ops[step.op] or harness.skip("no operation '" .. step.op .. "'")
      local answer = op(p, step, rt)
      if step.expect ~= nil then
        harness.expect(("step %d (%s)"):format(i, step.op), step.expect, answer)
      end
    end
  end
end

return suite
