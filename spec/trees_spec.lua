--- Random trees of limiters under random traffic, against people in a list (spec/model/crowd.lua).
---
--- Everything goes through the public Lua interface: whatever is nested, whoever waits, gives up,
--- is cancelled, settles or is closed, and whatever limit is changed meanwhile, the same calls are
--- granted at the same nanosecond, the others hear the same word and the same wait, and the engine
--- wakes as often as the rules say. What is left of every limit is what was not granted.
---
--- A failure is made smaller before it is shown, as the nodes of the world and the steps on them.
--- NEAP_SEED=n throws the same dice again; NEAP_OPS=n tries harder, 10,000,000 is what the suite
--- does.
local play = require "spec.model.play"
local seed = require "spec.seed"
local traffic = require "spec.model.traffic"
local trees = require "spec.model.trees"

local any, chance, one_of = traffic.any, traffic.chance, traffic.one_of
local floor, max, min = math.floor, math.max, math.min

local effort = (tonumber(os.getenv "NEAP_OPS") or 1e7) / 1e7

-- ---- trials -----------------------------------------------------------------------------------

--- Play the steps: nil, or what went wrong and at which step.
local function try(world, steps, places)
  local p = play.open(world, places)
  local at = 0
  local ok, err = xpcall(function ()
    for i, step in ipairs(steps) do
      at = i
      p:step(step)
    end
    at = #steps + 1
    p:end_well()
  end, function (e) return type(e) == "table" and e.what or debug.traceback(tostring(e), 2) end)
  p:close()
  return p, not ok and err or nil, at
end

--- Leave out what is not needed to fail.
local function shrink(world, steps, places, at)
  local function cut(first, count)
    local rest = {}
    for i, step in ipairs(steps) do
      if i < first or i >= first + count then rest[#rest + 1] = step end
    end
    local _, err = try(world, rest, places)
    if err then steps = rest end
    return err
  end
  cut(at + 1, #steps)
  local size = floor(#steps / 2)
  while size >= 1 do
    local first = 1
    while first <= #steps do
      if not cut(first, size) then first = first + size end
    end
    size = floor(size / 2)
  end
  return steps
end

local function report(world, steps, places, trial_seed, err, at)
  local lines = { ("trial seed %d: %s"):format(trial_seed, err) }
  steps = shrink(world, steps, places, at)
  local p, again, last = try(world, steps, places)
  lines[#lines + 1] = ("smaller, and at its step %d: %s"):format(last, tostring(again))
  lines[#lines + 1] = ("places to wait: %d"):format(places)
  for i, node in ipairs(world) do
    lines[#lines + 1] = ("node %d = %s"):format(i, trees.show(node))
  end
  for i, step in ipairs(steps) do
    local about = ("of node %d"):format(floor(step.on * #p.nodes) + 1)
    lines[#lines + 1] = ("step %d %s: %s"):format(i, about, trees.show(step))
  end
  error(table.concat(lines, "\n"), 0)
end

describe("trees of limiters", function ()
  it("grant, refuse and wake as a list of people would", function ()
    for trial = 1, max(1, floor(100 * effort)) do
      local trial_seed = (seed * 1000003 + trial) % 2 ^ 31
      math.randomseed(trial_seed)
      local world = traffic.world()
      local steps, places = traffic.steps(), any(3, 25)
      local p, err, at = try(world, steps, places)
      if err then report(world, steps, places, trial_seed, err, at) end
      -- what a wake-up leads to: someone ends, or moves, or has to stay
      local c = p.crowd
      assert.truthy(c.wakeups <= c.ends + c.moves + c.stays)
    end
  end)

  --- Whatever comes back is taken at once, by somebody who asks one limit alone, unless those who
  --- wait have it. So who asks several finds all of them together only when others leave them.
  local function overload(p, steps, waits)
    local urgents, before = 0, nil
    for _ = 1, steps do
      local c, to = p.crowd, p.crowd:next()
      for i = 1, 3 do
        local at = p.nodes[i].leaf:when(1, c.now)
        if at > c.now then to = min(to, at) end
      end
      p.rt.advance_to(to)
      c:advance(to)
      for _, e in ipairs(c.ended) do waits(e) end
      p:compare_ends()
      for i = 1, 3 do play.act.try(p, { n = 1, keys = {} }, p.nodes[i]) end
      if #c.people < 3 then play.act.acquire(p, { n = 1, keys = {} }, p.nodes[any(4, #p.nodes)]) end
      p:compare()
      urgents = urgents + (c.urgent and c.urgent ~= before and 1 or 0)
      before = c.urgent
    end
    return urgents
  end

  it("starve nobody who asks several limits, all of them wanted by others", function ()
    math.randomseed(seed)
    local urgents = 0
    for _ = 1, max(2, floor(10 * effort)) do
      local world, slowest = {}, 0
      for i = 1, 3 do
        world[i] = { limit = { kind = chance(3) and "sliding" or "rate", amount = 1, burst = 1,
          per_ns = one_of(traffic.periods) } }
        slowest = max(slowest, world[i].limit.per_ns)
      end
      world[4], world[5], world[6] = { hybrid = { 1, 2 } }, { multi = { a = 2, b = 3 } },
        { hybrid = { 4, a = 3 } }
      local p = play.open(world, 10)
      for i, at in ipairs { 0, 137, 371 } do   -- from then on no two come back at one instant
        p.rt.advance_to(at)
        p.crowd:advance(at)
        play.act.try(p, { n = 1, keys = {} }, p.nodes[i])
      end
      -- in turn it and those before it: 8 moves, then each limit once more, at a limit's pace
      local function waited(who, till)
        local periods = who.since and (till - who.since) / slowest or 0
        assert.truthy(periods <= ((who.before or 0) + 1) * (8 + 3), periods .. " periods")
      end
      urgents = urgents + overload(p, 500, function (e) waited(e.who, e.at) end)
      for _, who in ipairs(p.crowd.people) do waited(who, p.crowd.now) end
      p:close()
    end
    assert.truthy(effort < 1 or urgents > 5, urgents .. " were urgent")
  end)
end)
