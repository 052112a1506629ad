--- Slots: a semaphore for every name, there when it is asked for and gone when nobody uses it.
---
---     local slots = neap.slots()
---     slots:of("api.example.com", 4):with(1, fetch, url)    -- at most 4 at once for that host
---
--- How many there are is said with every call, and all who use a name at the same time have to say
--- the same: a name is one pool, and that two disagree about it is a mistake of one of them. Who
--- means to change it says so (`change`).
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

local error, next, setmetatable, tostring, type = error, next, setmetatable, tostring, type

---@class neap.Slots
---@field made table<any, neap.Semaphore>  weak: permits and those in line keep theirs alive
local slots = {}
slots.__index = slots

local function check(name, most, level)
  if name == nil or name ~= name then
    error("slots: a name expected, got " .. tostring(name), level + 1)
  end
  if type(most) ~= "number" or not (most >= 0 and most <= 2 ^ 53) or most % 1 ~= 0 then
    error("slots: a whole number of places expected, got " .. tostring(most), level + 1)
  end
end

--- The limiter of a name.
---
---     local permit = slots:of(host, 4):acquire()
---
---@param name any
---@param most integer  how many places it has; 0: it is closed
---@return neap.Semaphore
function slots:of(name, most)
  check(name, most, 2)
  local one = self.made[name]
  if one and one:limit() ~= most and (one:in_use() > 0 or next(one.waiting)) then
    error(("slots: '%s' has %d places and is in use, so %d cannot be asked for; "
      .. "slots:change(name, %d) would make it so"):format(tostring(name), one:limit(), most, most),
      2)
  end
  if most == 0 then return throttle("closed", { name = tostring(name) }) end
  if not one then
    one = semaphore(most, { name = tostring(name) })
    self.made[name] = one
  elseif one:limit() ~= most then
    one:reconfigure(most)
  end
  return one
end

--- Another number of places from now on, for those who wait, too.
---
---     slots:change(host, 8)
---     slots:of(host, 8):limit()     --> 8
---
---@param name any
---@param most integer  1 and more
function slots:change(name, most)
  check(name, most, 2)
  local one = self.made[name]
  if one then one:reconfigure(most) end
end

--- Places of a name that are taken. 0 for one that nobody uses.
---
---     slots:count(host)             --> 1
---
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
