--- Random worlds and traffic for trees of limiters; math.random throws the dice.
local trees = require "spec.model.trees"

local traffic = { periods = { 256, 1000, 1024, 700, 3000, 4096, 9999 } }

local function any(low, high) return math.random(low, high) end
local function chance(n) return math.random(n) == 1 end
local function one_of(list) return list[math.random(#list)] end


-- In a tight world little fits, so that those who wait go from limit to limit.
local tight = false

local function any_limit()
  local kind = one_of { "rate", "rate", "rate", "sliding", "in_flight", "in_flight", "pause" }
  if kind == "in_flight" then
    return { kind = kind, amount = any(1, tight and 2 or 4), overdraw = chance(4) or nil }
  elseif kind == "pause" then
    return { kind = kind }
  end
  local limit = { kind = kind, amount = any(1, tight and 2 or 4), per_ns = one_of(traffic.periods) }
  if kind == "rate" then limit.burst = any(1, tight and 2 or 5) end
  return limit
end

local function any_word()
  local limit
  repeat limit = any_limit() until limit.kind == "rate" or limit.kind == "in_flight"
  limit.overdraw = nil
  return limit
end

local function any_composite(world)
  local list, kind = {}, one_of { "hybrid", "hybrid", "multi", "layered" }
  for _ = 1, any(1, 3) do
    local item = any(1, #world)
    if kind == "hybrid" and not chance(3) then
      list[#list + 1] = item
    else
      list[one_of { "a", "b", "c" }] = item
    end
  end
  if kind ~= "layered" then return { [kind] = list } end
  local scopes = { global = { any(1, #world) } }
  for i, node in ipairs(world) do
    if node.per_key and not chance(3) then scopes[node.by] = i end
  end
  return { layered = scopes }
end

--- The nodes of a world, see spec.model.trees; what follows is for it.
function traffic.world()
  local world
  tight = chance(2)
  repeat
    world = {}
    for i = 1, any(2, 4) do world[i] = { limit = any_limit() } end
    for _ = 1, any(0, 2) do
      world[#world + 1] = {
        per_key = chance(2) and { any_word() } or { any_word(), any_word() },
        by = one_of { "u", "v" },
      }
    end
    for _ = 1, any(2, 4) do world[#world + 1] = any_composite(world) end
  until trees.grow(world)
  return world
end

local VERBS = {
  "acquire", "acquire", "acquire", "acquire", "acquire", "try", "try", "peek", "give", "give",
  "give", "give", "settle", "cancel", "change",
}

local WAITS = { "none", "some", "some", "some", "some", "some", "some", "due", "due", "before" }

-- A step is data, too. What it is about is a fraction of what there is by then, so that steps
-- before it can be left out.
local function any_step()
  local step = {
    verb = one_of(VERBS), on = math.random(),
    n = any(0, 9) < (tight and 9 or 4) and 1 or any(0, 4),
    keys = { u = one_of { "x", "y" }, v = one_of { "x", "y" } },
    wait = one_of(WAITS), by = any(0, tight and 200 or 40),
  }
  if chance(tight and 200 or 30) then step.wait, step.by = "long", any(0, 30000) end
  if chance(3) then
    local most = tight and 1 or 2
    step.named = { a = any(0, most), b = any(0, most), c = any(0, most) }
  end
  if tight and step.verb == "acquire" then step.on = 1 - step.on * step.on end   -- composites
  if chance(4) then step.timeout = any(0, 9) < 8 and any(1, 6000) or 0 end
  if step.verb == "give" then step.outcome = one_of { "success", "failure", "ignore" } end
  if step.verb == "change" then
    step.limit, step.mode = any_limit(), one_of { "keep", "balance", "scale", "reset" }
    if chance(40) then step.verb = "close" end
  end
  return step
end

--- Steps on the world that was made last.
function traffic.steps()
  local steps = {}
  for i = 1, tight and 300 or 100 do steps[i] = any_step() end
  return steps
end

traffic.any, traffic.chance, traffic.one_of = any, chance, one_of

return traffic
