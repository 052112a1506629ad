--- Slots: a semaphore for every name, there when it is asked for and gone when nobody uses it.
---
---     local slots = neap.slots()
---     slots:of("api.example.com", 4):with(1, fetch, url)    -- at most 4 at once for that host
---
--- How many there are is said with every call, and the last word counts: a name is one pool,
--- however many its callers think it has, so none of them can corrupt the count of another.
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

local error, setmetatable, tostring, type = error, setmetatable, tostring, type

---@class neap.Slots
---@field made table<any, neap.Semaphore>  weak: permits and those in line keep theirs alive
local slots = {}
slots.__index = slots

--- The limiter of a name.
---@param name any
---@param most integer  how many places it has from now on; 0: it is closed
---@return neap.Semaphore
function slots:of(name, most)
  if name == nil or name ~= name then
    error("slots: a name expected, got " .. tostring(name), 2)
  end
  if type(most) ~= "number" or not (most >= 0 and most <= 2 ^ 53) or most % 1 ~= 0 then
    error("slots: a whole number of places expected, got " .. tostring(most), 2)
  end
  if most == 0 then return throttle("closed", { name = tostring(name) }) end
  local one = self.made[name]
  if not one then
    one = semaphore(most, { name = tostring(name) })
    self.made[name] = one
  elseif one:limit() ~= most then
    one:reconfigure(most)
  end
  return one
end

--- Places of a name that are taken. 0 for one that nobody uses.
---@param name any
---@return integer
function slots:count(name)
  local one = self.made[name]
  return one and one:in_use() or 0
end

--- Make slots, none of them taken.
---@return neap.Slots
return function ()
  return setmetatable({ made = setmetatable({}, { __mode = "v" }) }, slots)
end
