--- Trees of limiters, twice: as neap has them, and as lists of what a call on them asks.
---
--- A world is data, so that a failure can be printed and made smaller: a list of nodes, each a
--- limit, a limit per key, or a composite of nodes before it, which may be in several of them, or
--- in one twice. Any node may be called.
---
---     { limit = { kind = "rate", amount = 3, per_ns = 1000, burst = 2 } }
---     { per_key = { limit, … }, by = "u" }
---     { hybrid = { 1, 2, 2, a = 3 } }         of nodes 1 and 2, twice, and 3 under the name a
---     { multi = { a = 1, b = 4 } }
---     { layered = { global = { 1 }, u = 5 } }
local hybrid = require "neap.hybrid"
local layered = require "neap.layered"
local leaves = require "spec.model.leaves"
local multi = require "neap.multi"
local pause = require "neap.pause"
local per_key = require "neap.per_key"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

local concat, sort = table.concat, table.sort

local trees = {}

--- A limit as neap is told.
function trees.told(limit)
  if limit.kind == "in_flight" then return { kind = "in_flight", amount = limit.amount } end
  return {
    kind = "rate", mode = limit.kind == "sliding" and "sliding" or "burst", amount = limit.amount,
    per_ns = limit.per_ns, burst = limit.burst or limit.amount,
  }
end

local function names_of(list)
  local names = {}
  for name in pairs(list) do
    if type(name) == "string" then names[#names + 1] = name end
  end
  sort(names)
  return names
end

-- ---- as lists ---------------------------------------------------------------------------------

-- Parts { node, limit, cost = name or false }, in the order in which neap has them.
local parts_of

local function add(parts, nodes, item, name)
  for _, part in ipairs(parts_of(nodes, nodes[item])) do
    parts[#parts + 1] = { node = part.node, limit = part.limit, cost = part.cost or name or false }
  end
end

function parts_of(nodes, node)
  local parts = {}
  if node.limit then return { { node = node, limit = 1, cost = false } } end
  for i in ipairs(node.per_key or {}) do parts[i] = { node = node, limit = i, cost = false } end
  local scopes = node.layered
  for _, item in ipairs(scopes and scopes.global or {}) do add(parts, nodes, item) end
  for _, name in ipairs(names_of(scopes or {})) do
    if name ~= "global" then add(parts, nodes, scopes[name]) end
  end
  local list = node.hybrid or node.multi or {}
  for _, item in ipairs(list) do add(parts, nodes, item) end
  for _, name in ipairs(names_of(list)) do add(parts, nodes, list[name], name) end
  return parts
end

--- The limit a part is, for these keys.
local function leaf_of(part, keys)
  local node = part.node
  if node.limit then return node.leaf end
  local key = node.by and keys[node.by]
  local mine = node.leaf[key] or {}
  node.leaf[key] = mine
  mine[part.limit] = mine[part.limit] or leaves.new(node.per_key[part.limit])
  return mine[part.limit]
end

--- What a call asks: `costs` by name, false for what has none.
function trees.call(node, costs, keys)
  local sums, of, used = {}, {}, {}
  for _, part in ipairs(node.parts) do
    local leaf, n = leaf_of(part, keys), costs[part.cost]
    local sum = of[leaf]
    if not sum then
      sum = { leaf = leaf, n = 0 }
      sums[#sums + 1], of[leaf] = sum, sum
    end
    sum.n = sum.n + n
    if n > 0 then used[tostring(part.cost)] = true end
  end
  local asked, all = {}, {}
  for _, sum in ipairs(sums) do
    all[#all + 1] = sum.leaf
    if sum.n > 0 then asked[#asked + 1] = sum end
  end
  local line = names_of(used)
  for _, by in ipairs(node.keys) do line[#line + 1] = by .. "=" .. keys[by] end
  return { sums = asked, all = all, line = node.index .. ":" .. concat(line, ",") }
end

-- ---- as limiters ------------------------------------------------------------------------------

local function build(nodes, node)
  local limit = node.limit
  local function made(list)
    local copy = {}
    for name, item in pairs(list) do copy[name] = nodes[item].limiter end
    return copy
  end
  if node.per_key then
    local told = {}
    for i, each in ipairs(node.per_key) do told[i] = trees.told(each) end
    return per_key(told, { by = node.by })
  elseif node.hybrid then
    return hybrid(made(node.hybrid))
  elseif node.multi then
    return multi(made(node.multi))
  elseif node.layered then
    local scopes = made((function ()
      local rest = {}
      for name, item in pairs(node.layered) do
        if name ~= "global" then rest[name] = item end
      end
      return rest
    end)())
    scopes.global = node.layered.global and made(node.layered.global)
    return layered(scopes)
  elseif limit.kind == "in_flight" then
    return semaphore(limit.amount, { overdraw = limit.overdraw })
  elseif limit.kind == "pause" then
    return pause()
  end
  return throttle(trees.told(limit))
end

--- Nodes that are alive: with a `limiter`, and as lists. nil: neap cannot have such a tree.
---@param world table[]
function trees.grow(world)
  local nodes = {}
  for i, shape in ipairs(world) do
    local node = setmetatable({ index = i, leaf = {} }, { __index = shape })
    if node.limit then node.leaf = leaves.new(node.limit) end
    nodes[i] = node
    node.parts = parts_of(nodes, node)
    node.names, node.keys, node.holds = {}, {}, false
    local seen = {}
    for _, part in ipairs(node.parts) do
      local kind = part.node.limit and part.node.limit.kind or part.node.per_key[part.limit].kind
      node.holds = node.holds or kind == "in_flight"
      if part.cost and not seen[part.cost] then node.names[#node.names + 1] = part.cost end
      if part.node.by and not seen[part.node.by] then node.keys[#node.keys + 1] = part.node.by end
      seen[part.cost], seen[part.node.by or false] = true, true
    end
    if #node.parts > 64 then return nil end
    node.limiter = build(nodes, node)
  end
  return nodes
end

-- ---- for people -------------------------------------------------------------------------------

--- A value as a reader of Lua would write it.
local function show(value)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" then return tostring(value) end
  local items, listed = {}, #value
  for _, item in ipairs(value) do items[#items + 1] = show(item) end
  for _, name in ipairs(names_of(value)) do
    items[#items + 1] = name .. " = " .. show(value[name])
  end
  return listed + #items == 0 and "{}" or "{ " .. concat(items, ", ") .. " }"
end

trees.show = show

return trees
