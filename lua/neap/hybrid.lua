--- A hybrid: all of several limits, or none.
---
---     local api = neap.hybrid { "10/s", "500/min", neap.semaphore(8) }
---     local llm = neap.hybrid { requests = "500/min", tokens = "200k/min burst 40k" }
---     llm:acquire { requests = 1, tokens = 1500 }
---     llm:available "tokens"             --> 38500
---
--- A refused call charges nobody. A limit in the list is charged what the call costs, and one with
--- a name what the call says under it: nothing, when the call names only others. Hybrids nest: what
--- is inside keeps its names, and takes the name it is put under for what has none.
local all = require "neap.all"
local cost = require "neap.cost"
local guest = require "neap.guest"
local limiter = require "neap.limiter"
local notation = require "neap.notation"
local semaphore = require "neap.semaphore"
local stats = require "neap.stats"
local throttle = require "neap.throttle"

local concat, sort = table.concat, table.sort
local error, ipairs, pairs, pcall = error, ipairs, pairs, pcall
local setmetatable, tostring, type = setmetatable, tostring, type

---@class neap.Hybrid: neap.Limiter
---@field room neap.Room?       of the queue in it
---@field items neap.Limiter[]  what it is made of, so that who keeps them by name, weakly, does
local hybrid = limiter.class()

--- A limit that is written, as a limiter.
local function written(limit, name, where, level)
  local value = limit
  if type(limit) ~= "table" then
    local message
    value, message = notation.limit(limit)
    if not value then error(("hybrid: %s: %s"):format(where, message), level + 1) end
  end
  local make = value.kind == "in_flight" and semaphore or throttle
  local ok, made = pcall(make, value, { name = name })
  if not ok then
    error(("hybrid: %s: %s"):format(where, made:gsub("^.-:%d+: ", "")), level + 1)
  end
  return stats.hide(made)
end

--- One item of the list, into parts and guests.
local function add(self, item, name, where, level)
  if name and cost.reserved[name] then
    error(("hybrid: '%s' cannot be a name: it says something else in acquire { %s = … }"):format(
      name, name), level + 1)
  end
  if type(item) == "string" or type(item) == "table" and type(item.kind) == "string"
      and not limiter.is(item) and not guest.is(item) then
    item = written(item, name, where, level + 1)
  end
  if limiter.is(item) then
    self.items[#self.items + 1] = item
    if item.room and self.room and item.room ~= self.room then
      error(("hybrid: %s: a second queue, and nobody can stand in two"):format(where), level + 1)
    end
    self.room = self.room or item.room
    item.parents[self] = true
    self.closed = self.closed or item.closed
    for _, part in ipairs(item.terms.parts) do
      local renamed = name and not part.cost
      self.parts[#self.parts + 1] = all.with(part, renamed and { cost = name, label = name } or {})
    end
    for _, g in ipairs(item.guests or {}) do
      self.guests[#self.guests + 1] = all.with(g, { cost = g.cost or name or false })
    end
  elseif guest.is(item) then
    local label = name or item.name or "guest"
    self.guests[#self.guests + 1] = { limiter = item, cost = name or false, label = label }
  else
    error(("hybrid: %s: a limiter or a text such as \"10/s\" expected, got %s"):format(where,
      type(item) == "table" and "a table that has no peek and take" or tostring(item)), level + 1)
  end
end

--- A list item that is a pair of a name and a limit, for those to whom the order matters.
local function is_pair(item)
  return type(item) == "table" and type(item[1]) == "string" and item[2] ~= nil
    and not limiter.is(item)
end

--- What it is called without a name.
---@param parts neap.Part[]
---@param guests neap.Guest[]
local function description(parts, guests)
  local labels = {}
  for _, part in ipairs(parts) do labels[#labels + 1] = part.label end
  for _, g in ipairs(guests) do labels[#labels + 1] = g.label end
  return labels[1] and concat(labels, " and ") or "unlimited"
end

--- Make a hybrid. Nothing in it: no limit.
---@param limits table  a list of limiters, texts ("10/s", "8 in flight"), pairs { name, limit } and
---  tables with peek and take (see neap.guest); and any of them under a name, sorted by name
---@param options? { name: string? }
---@return neap.Hybrid
return function (limits, options)
  if type(limits) ~= "table" or limiter.is(limits) then
    error("hybrid: a list of limits expected, as in neap.hybrid { \"10/s\", … }", 2)
  end
  local self = { parts = {}, guests = {}, items = {} }
  local names = {}
  for key in pairs(limits) do
    if type(key) == "string" then
      names[#names + 1] = key
    elseif type(key) ~= "number" or key < 1 or key > #limits or key % 1 ~= 0 then
      error("hybrid: " .. tostring(key) .. " is neither a place in the list nor a name", 2)
    end
  end
  sort(names)
  self.parents = setmetatable({}, { __mode = "k" })
  for i, item in ipairs(limits) do
    if is_pair(item) then
      add(self, item[2], item[1], item[1], 2)
    else
      add(self, item, nil, "limit " .. i, 2)
    end
  end
  for _, name in ipairs(names) do add(self, limits[name], name, name, 2) end

  local parts, guests = self.parts, guest.ordered(self.guests, 2)
  self.parts, self.guests = nil, guests[1] and guests or nil
  self.name = limiter.name_of(options, description(parts, guests), {}, 2)
  return limiter.init(guests[1] and guest.host or hybrid, self, parts, 2, guests)
end
