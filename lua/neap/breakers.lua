--- Breakers by name: one for a name, whoever asks, there when it is first asked for.
---
---     local breakers = neap.breakers()
---     local result, err = breakers:call(host, { failures = 3, cooldown = "10s" }, fetch, url)
---     local api = neap.hybrid { "10/s", breakers:of(host) }
---
--- The options of a name count when its breaker is made; later ones are not looked at.
---
--- There is a bound on how many are kept, for names come from outside. Who meets it makes room by
--- letting go of one that is closed and has no failures, which equals a new one. One that is open,
--- or on its way there, is never let go; when there are none but such, the newcomer is refused, and
--- may call without. Up to 256 are looked at for a newcomer, in turn. One that was let go, and that
--- somebody still has, is found again as long as they do, and kept again.
---
---     kept    by name, at most `most`; names is their list, and hand where to look next
---     made    by name, all that somebody has; weak
local breaker = require "neap.breaker"
local limiter = require "neap.limiter"

local error, ipairs, pairs, pcall = error, ipairs, pairs, pcall
local setmetatable, tostring, type = setmetatable, tostring, type
local min, sort = math.min, table.sort

local MOST, MOST_EVER = 10000, 2 ^ 24
local LOOK = 256

---@class neap.Breakers
---@field most integer
---@field kept table<any, neap.Breaker>
---@field names any[]
---@field place table<any, integer>   of a name in names
---@field hand integer
---@field made table<any, neap.Breaker>
local breakers = {}
breakers.__index = breakers

local function check(name, verb, level)
  if name == nil or name ~= name then
    error(("%s: a name expected, got %s"):format(verb, tostring(name)), level + 1)
  end
end

-- ---- keeping ----------------------------------------------------------------------------------

local function keep(self, name, one)
  local names = self.names
  names[#names + 1] = name
  self.place[name], self.kept[name] = #names, one
end

local function let_go(self, name)
  local names, place = self.names, self.place[name]
  if not place then return end
  local last = names[#names]
  names[place], self.place[last] = last, place
  names[#names], self.place[name], self.kept[name] = nil, nil, nil
end

local function is_new(one) return one:state() == "closed" and one:failures() == 0 end

--- Is there room for one more, or can there be?
local function make_room(self)
  local names = self.names
  if #names < self.most then return true end
  for _ = 1, min(#names, LOOK) do
    self.hand = self.hand % #names + 1
    local name = names[self.hand]
    if is_new(self.kept[name]) then
      let_go(self, name)
      return true
    end
  end
  return false
end

local function new(name, options, level)
  local given = options
  if type(options) == "table" or options == nil then
    given = { name = tostring(name) }
    for key, value in pairs(options or {}) do given[key] = value end
  end
  local ok, made = pcall(breaker, given)
  if not ok then error(made:gsub("^.-:%d+: ", ""), level + 1) end
  return made
end

--- The breaker of a name, nil when there is no room for it.
local function find(self, name, options, level)
  local one = self.kept[name]
  if one then return one end
  one = self.made[name] or new(name, options, level + 1)
  if make_room(self) then
    keep(self, name, one)
  elseif not self.made[name] then
    return nil
  end
  self.made[name] = one
  return one
end

-- ---- verbs ------------------------------------------------------------------------------------

--- The breaker of a name.
---@param name any
---@param options? table  as for neap.breaker, when it is made
---@return neap.Breaker?
---@return "full"? why  as many as can be are kept, and none of them can be forgotten
function breakers:of(name, options)
  check(name, "of", 2)
  local one = find(self, name, options, 2)
  if not one then return nil, "full" end
  return one
end

--- Call `fn(...)` under the breaker of a name, as breaker:call does.
---@param name any
---@param options table?
---@param fn function
---@param ... any
---@return any ...
function breakers:call(name, options, fn, ...)
  check(name, "call", 2)
  if type(fn) ~= "function" then error("call: a function expected, got " .. type(fn), 2) end
  local one = find(self, name, options, 2)
  if not one then return nil, "full" end
  return one:call(fn, ...)
end

--- Its state. One that nobody asked for is closed.
---@param name any
---@return "closed"|"open"|"half-open"
function breakers:state(name)
  check(name, "state", 2)
  local one = self.kept[name] or self.made[name]
  return one and one:state() or "closed"
end

--- Close it and forget its failures. One that nobody asked for is as new already.
---@param name any
function breakers:reset(name)
  check(name, "reset", 2)
  local one = self.kept[name] or self.made[name]
  if one then one:reset() end
end

--- Forget it, whatever it says: the next one of that name is new. Who has it keeps it.
---@param name any
function breakers:delete(name)
  check(name, "delete", 2)
  let_go(self, name)
  self.made[name] = nil
end

--- The names of those that are kept, in order.
---@return any[]
function breakers:list()
  local list = {}
  for i, name in ipairs(self.names) do list[i] = name end
  sort(list, function (a, b) return tostring(a) < tostring(b) end)
  return list
end

--- Make a registry, with nobody in it.
---@param options? { most: integer? }  how many are kept at most, 10,000 unless told; 2 KB each
---@return neap.Breakers
return function (options)
  limiter.name_of(options, "breakers", { most = true }, 2)
  local most = options and options.most
  if most == nil then most = MOST end
  if type(most) ~= "number" or not (most >= 1 and most <= MOST_EVER) or most % 1 ~= 0 then
    error("breakers: most: a whole number from 1 to 2^24 expected, got " .. tostring(most), 2)
  end
  return setmetatable({
    most = most, kept = {}, names = {}, place = {}, hand = 0,
    made = setmetatable({}, { __mode = "v" }),
  }, breakers)
end
