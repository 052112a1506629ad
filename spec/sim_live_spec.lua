-- One policy twice: live before a real nginx on the real clock, and in a world with the arrivals
-- and times of service that were recorded there. It has to grant the same calls in the same order,
-- at the same instants.
--
-- Instants are those of the clock, which the world begins with, too: a bucket rounds by them. What
-- a verb reads of the clock is fixed while it begins, so that what is recorded is what the engine
-- was told.
local downstream = require "spec.downstream"
local live = require "neap.policy.live"
local neap = require "neap"
local policy = require "neap.policy"
local runtime = require "neap.runtime"
local scenario = require "neap.sim.scenario"
local world = require "neap.sim.world"
local ev = require "neap.runtime.ev"

local CALLS, GAP_S = 80, 0.006
local NAMES = { "a", "b", "c" }

local POLICY = [[
policy "p" {
  limits = { requests = "80/s burst 10", calls = "3 in flight" },
  per "tenant" { requests = "30/s burst 3" },
  queue = { max = 100, timeout = "20s", fair = "tenant" },
}]]

local function parse() return assert(policy.parse(POLICY, "p.lua")).policies[1] end

-- What happened, in order of arrival; times in ns.
local function live_run(server, paths)
  local rt = ev.new()
  local before = runtime.use(rt)
  local real, wait, fixed = rt.now_ns, rt.wait, nil
  function rt.now_ns() return fixed or real() end
  function rt.wait(...)
    fixed = nil
    return wait(...)
  end
  local one, calls = assert(live.new(parse())), {}
  local function call(i)
    local record = { name = NAMES[i * i % 7 % 3 + 1] }
    fixed = real()
    record.asked = tonumber(fixed)
    calls[#calls + 1] = record
    local permit = assert(one:acquire { tenant = record.name })
    fixed = nil
    record.granted = tonumber(permit.at)
    local answer = server:call("GET", paths(i % 3 .. "/" .. i))
    assert.equal(200, answer.status)
    fixed = real()
    record.over = tonumber(fixed)
    permit:give "success"
    fixed = nil
  end
  neap.run(function ()
    for i = 1, CALLS do
      neap.spawn(call, i)
      neap.sleep(GAP_S)
    end
  end)
  runtime.use(before)
  rt.close()
  return calls
end

local function in_order(calls, field)
  local list = {}
  for i, each in ipairs(calls) do list[i] = each end
  table.sort(list, function (a, b) return a[field] < b[field] end)
  return list
end

local function world_run(calls)
  local times, services, keys = {}, {}, {}
  for i, each in ipairs(calls) do
    times[i], keys[i] = each.asked, each.name:byte() - 97
  end
  for i, each in ipairs(in_order(calls, "granted")) do services[i] = each.over - each.granted end
  local model = scenario.model({ arrivals = { { kind = "trace", times = times } },
    call = { costs = {}, whose = { { name = "tenant", names = NAMES } } },
    keys = { count = 3, draw = function ()
      local i = 0
      return function ()
        i = i + 1
        return keys[i]
      end
    end }, downstream = { service = { kind = "list", values = services } } }, parse(), {}, {})
  local granted, gate_of = {}, model.gate
  function model.gate(seed)
    local gate = gate_of(seed)
    local over = gate.over
    function gate.over(request, how, retry_ns, at)
      granted[#granted + 1] = tonumber(at)
      return over(request, how, retry_ns, at)
    end
    return gate
  end
  local made = world.new(model)
  local ends = calls[1].asked + 60e9
  made.begin(1, ends, 1)
  made.run(ends)
  made.close()
  return granted
end

describe("a policy before a real nginx", function ()
  local there = downstream.is_there()

  it("grants as it does in a world", function ()
    if not there then return pending "no nginx with Lua" end
    local server = downstream.start()
    local calls = live_run(server, server:script "200/30ms")
    assert.equal("", server:stop())
    assert.equal(CALLS, #calls)
    if calls[1].asked > 2 ^ 53 - 1e12 then return pending "worlds have no instants that late" end
    local waited, expected, seen = 0, {}, {}
    for _, each in ipairs(calls) do
      if each.granted > each.asked then waited = waited + 1 end
    end
    assert.is_true(waited > 10)
    for i, each in ipairs(in_order(calls, "over")) do expected[i] = each.granted end
    for i, at in ipairs(world_run(calls)) do seen[i] = at end
    assert.same(expected, seen)
  end)
end)
