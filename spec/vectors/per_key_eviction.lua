--- Limits per key: each step says its key, and some say many.
local harness = require "spec.vectors.harness"
local clock = require "spec.vectors.clock"
local limiters = require "spec.vectors.limiters"
local per_key = require "neap.per_key"

local suite, ops = {}, {}

--- The limiter of one key, as the steps of other suites know limiters.
local Bound = {}
Bound.__index = Bound

for _, verb in ipairs { "try_acquire", "acquire", "peek", "why" } do
  Bound[verb] = function (self, given)
    if type(given) == "table" and self.key ~= nil then
      return self.limiter[verb](self.limiter, self.key, given.cost, verb == "acquire"
        and { timeout = given.timeout } or nil)
    end
    return self.limiter[verb](self.limiter, self.key, given)
  end
end

function Bound:available() return self.limiter:available(self.key) end
function Bound:capacity() return self.limiter:capacity(self.key) end

local function bound(limiter, key) return setmetatable({ limiter = limiter, key = key }, Bound) end

function ops.len(l) return l:len() end

local function attempts(l, key, count)
  local granted = 0
  for _ = 1, count do
    if l:try_acquire(key) then granted = granted + 1 end
  end
  return granted
end

function ops.try_each(l, step) return ops.try_each_total(l, step) end

function ops.try_each_total(l, step)
  local granted = 0
  for key = step.keys_from, step.keys_to do
    granted = granted + attempts(l, key, step.count or 1)
  end
  return granted
end

function ops.hot_key_rounds(l, step)
  for round = 1, step.rounds do
    l:try_acquire(step.hot)
    l:try_acquire("new " .. round)
  end
end

function ops.alternate(l, step)
  local granted = {}
  for _ = 1, step.rounds do
    for _, key in ipairs(step.keys) do
      granted[key] = (granted[key] or 0) + attempts(l, key, 1)
    end
  end
  harness.expect("alternate", step.expect_granted, granted)
end

function ops.ttl_cycle(l, step, world)
  local granted = 0
  for _ = 1, step.cycles do
    granted = granted + attempts(l, step.key, step.attempts)
    clock.step(world.rt, { advance_ms = step.advance_ms })
    l:try_acquire(step.other)
    clock.step(world.rt, { advance_ms = step.advance_ms })
  end
  harness.expect("ttl_cycle", step.expect_granted, granted)
end

-- ---- policies ---------------------------------------------------------------------------------

local function policy(case)
  local given = case.policy
  local eviction = { idle_ms = given.idle_ms, max_keys = given.max_keys,
    unbounded = given.preset == "unbounded" }
  for _, change in ipairs(given["then"] or {}) do
    eviction.idle_ms = change.with_idle_ms or not change.without_idle and eviction.idle_ms or nil
    if change.with_capacity or change.without_capacity then
      eviction.max_keys, eviction.unbounded = change.with_capacity, change.without_capacity
    end
  end
  local made = per_key("1/s", limiters.eviction(eviction, {}))
  harness.expect("policy", case.expect, {
    max_keys = made.most < 2 ^ 30 and made.most or nil,
    idle_ms = made.idle_ns and tonumber(made.idle_ns) / 1e6,
  })
end

function suite.run(case)
  if case.policy then return policy(case) end
  local world = { rt = clock.new(), named = {} }
  local main = harness.build(case, function () return limiters.make(case.make, world) end,
    limiters.error_kind)
  for i, step in ipairs(main and case.steps or {}) do
    clock.step(world.rt, step)
    local op, l = ops[step.op], main
    if not op then
      op = limiters.ops[step.op] or harness.skip("no operation '" .. step.op .. "'")
      l = bound(main, step.key)
    end
    local answer = op(l, step, world)
    if step.expect ~= nil then
      harness.expect(("step %d (%s)"):format(i, step.op), step.expect, answer)
    end
  end
end

return suite
