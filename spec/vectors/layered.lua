--- Layered limits: each step says its key and its endpoint.
local clock = require "spec.vectors.clock"
local harness = require "spec.vectors.harness"
local limiters = require "spec.vectors.limiters"

local suite = {}

--- The limits for one key and endpoint, as the steps of other suites know limiters.
local Bound = {}
Bound.__index = Bound

for _, verb in ipairs { "try_acquire", "acquire", "peek", "why" } do
  Bound[verb] = function (self, given)
    local asked = { per_key = self.key, per_endpoint = self.endpoint }
    if type(given) == "table" then
      asked.cost, asked.timeout = given.cost, given.timeout
    else
      asked.cost = given
    end
    for _, name in ipairs { "per_key", "per_endpoint" } do
      if not self.kinds[name] then asked[name] = nil end
    end
    return self.limiter[verb](self.limiter, asked)
  end
end

function Bound:capacity() return self.limiter:capacity() end

function suite.run(case)
  local world = { rt = clock.new(), named = {} }
  local main = harness.build(case, function () return limiters.make(case.make, world) end,
    limiters.error_kind)
  for i, step in ipairs(main and case.steps or {}) do
    clock.step(world.rt, step)
    local op = limiters.ops[step.op] or harness.skip("no operation '" .. step.op .. "'")
    local l = setmetatable({ limiter = main, key = step.key, endpoint = step.endpoint,
      kinds = case.make }, Bound)
    if step.on then l = world.named[step.on] end
    local answer = op(l, step, world)
    if step.expect ~= nil then
      harness.expect(("step %d (%s)"):format(i, step.op), step.expect, answer)
    end
  end
end

return suite
