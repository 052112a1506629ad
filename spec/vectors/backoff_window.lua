--- Back-off windows, by key. Cases may begin before clock reading 0, so theirs starts later.
local backoff_window = require "neap.backoff_window"
local clock = require "spec.vectors.clock"
local harness = require "spec.vectors.harness"
local limiters = require "spec.vectors.limiters"

local BASE_MS = 1e9

-- Where a case knows of one window only, it is this key's.
local function key_of(step) return step.key or "the one" end

local ops = {}

function ops.set(w, step)
  local answer, why = limiters.call(w, "set", key_of(step), step.duration_ms / 1e3)
  return type(answer) == "table" and answer or why or "ok"
end

function ops.set_many(w, step)
  for i = 1, step.keys do assert(w:set("key " .. i, step.duration_ms / 1e3)) end
end

function ops.active(w, step) return (w:should_backoff(key_of(step))) end
function ops.clear(w, step) w:clear(key_of(step)) end
function ops.same(w, step) return w:of(step.keys[1]) == w:of(step.keys[2]) end
function ops.entries(w) return w:count() end

--- Waits, while others do what the case says, and tells each time that it slept. What others do at
--- the instant it wakes they do first: a case says that it happened while the waiter slept.
function ops.wait(w, step, rt)
  for _, other in ipairs(step.during_sleep or {}) do
    rt.spawn(function ()
      rt.sleep((other.at_ms - clock.ms(rt)) / 1e3)
      ops[other.op](w, other, rt)
    end)
  end
  local began = clock.ms(rt)
  local sleeps, wait = {}, rt.wait
  function rt.wait(ticket)
    local before = clock.ms(rt)
    local ended = { wait(ticket) }
    sleeps[#sleeps + 1] = clock.ms(rt) - before
    rt.sleep(0)
    return unpack(ended)
  end
  local waiter = rt.spawn(function () return assert(w:wait(key_of(step))) end)
  waiter:join()
  rt.wait = wait
  return { sleeps_ms = sleeps, waited_ms = clock.ms(rt) - began }
end

local suite = {}

function suite.run(case)
  local known = case.make.kind == "backoff_window" or case.make.kind == "backoff_window_registry"
  if not known then harness.skip("no kind '" .. tostring(case.make.kind) .. "'") end
  local rt = clock.new(BASE_MS)
  local w = backoff_window()
  for i, step in ipairs(case.steps) do
    clock.step(rt, step)
    if step.op then
      local op = ops[step.op] or harness.skip("no operation '" .. step.op .. "'")
      local answer = op(w, step, rt)
      if step.expect ~= nil then
        harness.expect(("step %d (%s)"):format(i, step.op), step.expect, answer)
      end
    end
  end
end

return suite
