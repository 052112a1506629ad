--- What providers say of their limits; limiters that go by it; and what their tiers allow.
local clock = require "spec.vectors.clock"
local harness = require "spec.vectors.harness"
local limiters = require "spec.vectors.limiters"
local multi = require "neap.multi"
local provider = require "neap.provider"
local notation = require "neap.notation"
local tiers = require "neap.provider.tiers"

local function window(reported)
  return reported and {
    limit = reported.limit, remaining = reported.remaining,
    reset_ms = reported.reset_s and reported.reset_s * 1000,
  }
end

local function parse(case)
  local seen = provider(case.profile):parse(case.headers, case.now)
  local got = { dimensions = {}, retry_after_ms = seen.retry_after_s and seen.retry_after_s * 1000 }
  for name, reported in pairs(seen) do
    if type(reported) == "table" then
      got[name], got.dimensions[name] = window(reported), window(reported)
    end
  end
  for name, expected in pairs(case.expect) do
    if type(expected) == "table" and expected.present then
      harness.expect(name, true, got[name] ~= nil)
    else
      harness.expect(name, expected, got[name])
    end
  end
end

--- A limiter's cost that a step is about; where there are no names it is requests.
local function sync(l, step)
  local name = step.dimension or "requests"
  local seen = { retry_after_s = step.retry_after_ms and step.retry_after_ms / 1000 }
  if step.remaining then
    seen[name] = { remaining = step.remaining, reset_s = step.reset_ms and step.reset_ms / 1000 }
  end
  return provider "rfc":apply(l, seen)[name]
end

local function play(l, steps, world)
  for i, step in ipairs(steps) do
    clock.step(world.rt, step)
    if step.op then
      local op = step.op == "sync" and sync or limiters.ops[step.op]
        or harness.skip("no operation '" .. step.op .. "'")
      local answer = op(l, step, world)
      if step.expect ~= nil then
        harness.expect(("step %d (%s)"):format(i, step.op), step.expect, answer)
      end
    end
  end
end

local suite = {}

function suite.run(case)
  if not case.area then return parse(case) end
  local world = { rt = clock.new(), named = {} }
  if case.area == "sync" then
    return play(limiters.make(case.make, world), case.steps, world)
  end
  local tier = tiers[case.preset] or harness.skip("no tier '" .. tostring(case.preset) .. "'")
  local l = multi(tier.limits)
  if case.steps then play(l, case.steps, world) end
  for name, amount in pairs(case.dimensions or {}) do
    local limit = notation.limit(tier.limits[name])
    harness.expect(name, amount, limit.amount)
    harness.expect(name .. " window", case.window_ms, limit.per_ns / 1e6)
    harness.expect(name .. " at once", amount, l:available(name))
  end
end

return suite
