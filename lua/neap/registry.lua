--- A registry: one of a kind for every name, there when it is first asked for. What neap.breakers
--- and neap.dispatches are.
---
--- There is a bound on how many are kept, for names come from outside. Who meets it makes room by
--- letting go of one that equals a new one. One that does not is never let go; when there are none
--- but such, the newcomer is refused. Up to 256 are looked at for a newcomer, in turn. One that was
--- let go, and that somebody still has, is found again as long as they do, and kept again.
---
---     kept    by name, at most `most`; names is their list, and hand where to look next
---     made    by name, all that somebody has; weak
local limiter = require "neap.limiter"

local error, ipairs, pairs, pcall = error, ipairs, pairs, pcall
local setmetatable, tostring, type = setmetatable, tostring, type
local min, sort = math.min, table.sort

local MOST, MOST_EVER = 10000, 2 ^ 24
local LOOK = 256

---@class neap.Registry
---@field most integer
---@field kept table<any, any>
---@field names any[]
---@field place table<any, integer>   of a name in names
---@field hand integer
---@field made table<any, any>
---@field make fun(options: table): any
---@field is_new fun(one: any): boolean
local registry = {}
registry.__index = registry

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

--- Is there room for one more, or can there be?
local function make_room(self)
  local names = self.names
  if #names < self.most then return true end
  for _ = 1, min(#names, LOOK) do
    self.hand = self.hand % #names + 1
    local name = names[self.hand]
    if self.is_new(self.kept[name]) then
      let_go(self, name)
      return true
    end
  end
  return false
end

local function new(self, name, options, level)
  local given = options
  if type(options) == "table" or options == nil then
    given = { name = tostring(name) }
    for key, value in pairs(options or {}) do given[key] = value end
  end
  local ok, made = pcall(self.make, given)
  if not ok then error((tostring(made):gsub("^.-:%d+: ", "", 1)), level + 1) end
  return made
end

-- ---- for the kinds ----------------------------------------------------------------------------

--- The one of a name, nil when there is no room for it.
---@package
---@param name any
---@param options table?
---@param verb string
---@param level integer
---@return any?
function registry:find(name, options, verb, level)
  check(name, verb, level + 1)
  local one = self.kept[name]
  if one then return one end
  one = self.made[name]
  local room = make_room(self)
  if not room and not one then return nil end
  one = one or new(self, name, options, level + 1)
  if room then keep(self, name, one) end
  self.made[name] = one
  return one
end

--- The one of a name, if somebody has asked for it.
---@package
---@return any?
function registry:known(name, verb, level)
  check(name, verb, level + 1)
  return self.kept[name] or self.made[name]
end

-- ---- verbs ------------------------------------------------------------------------------------

--- The one of a name. Its options count when it is made; later ones are not looked at.
---
---     local breakers = neap.breakers { most = 1000 }
---     breakers:of(host, { failures = 3 }) == breakers:of(host)   --> true
---
---@param name any
---@param options? table  as for the constructor, when it is made
---@return any? one
---@return "full"? why  as many as can be are kept, and none of them can be forgotten
function registry:of(name, options)
  local one = self:find(name, options, "of", 2)
  if not one then return nil, "full" end
  return one
end

--- Forget it, whatever it says: the next one of that name is new. Who has it keeps it.
---
---     breakers:delete(host)
---
---@param name any
function registry:delete(name)
  check(name, "delete", 2)
  let_go(self, name)
  self.made[name] = nil
end

--- The names of those that are kept, in order.
---
---     breakers:of "b"
---     breakers:of "a"
---     breakers:list()   --> { "a", "b" }
---
---@return any[]
function registry:list()
  local list = {}
  for i, name in ipairs(self.names) do list[i] = name end
  sort(list, function (a, b) return tostring(a) < tostring(b) end)
  return list
end

--- A kind of registry: a table of methods that starts with these.
---@package
---@return table
function registry.class()
  local class = {}
  for name, method in pairs(registry) do class[name] = method end
  class.__index = class
  return class
end

--- What makes registries of a class.
---@package
---@param class table
---@param what string                      for messages
---@param make fun(options: table): any
---@param is_new fun(one: any): boolean    it equals a new one, and may be let go
---@return fun(options: { most: integer? }?): table
function registry.maker(class, what, make, is_new)
  return function (options)
    limiter.name_of(options, what, { most = true }, 2)
    local most = options and options.most
    if most == nil then most = MOST end
    if type(most) ~= "number" or not (most >= 1 and most <= MOST_EVER) or most % 1 ~= 0 then
      error(("%s: most: a whole number from 1 to 2^24 expected, got %s"):format(what,
        tostring(most)), 2)
    end
    return setmetatable({
      most = most, kept = {}, names = {}, place = {}, hand = 0, make = make, is_new = is_new,
      made = setmetatable({}, { __mode = "v" }),
    }, class)
  end
end

return registry
