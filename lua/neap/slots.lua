--- Slots: a semaphore for every name, there when it is asked for and gone when nobody uses it.
---
---     local slots = neap.slots()
---     slots:with("api.example.com", 4, fetch, url)    -- at most 4 at once for that host
---
--- How many there are is said with every call, and the last word counts: a name is one pool,
--- however many its callers think it has, so none of them can corrupt the count of another.
local semaphore = require "neap.semaphore"

local error, setmetatable, tostring, type = error, setmetatable, tostring, type

---@class neap.Slots
---@field of table<any, neap.Semaphore>  weak: permits and those in line keep theirs alive
local slots = {}
slots.__index = slots

--- The semaphore of a name, with `most` permits; nil when there are none.
---@param self neap.Slots
---@param name any
---@param most integer
---@param level integer
---@return neap.Semaphore?
local function of(self, name, most, level)
  if name == nil or name ~= name then
    error("slots: a name expected, got " .. tostring(name), level + 1)
  end
  if type(most) ~= "number" or not (most >= 0 and most <= 2 ^ 53) or most % 1 ~= 0 then
    error(("slots: a whole number of permits expected, got %s"):format(tostring(most)), level + 1)
  end
  if most == 0 then return nil end
  local one = self.of[name]
  if not one then
    one = semaphore(most, { name = tostring(name) })
    self.of[name] = one
  elseif one:limit() ~= most then
    one:resize(most)
  end
  return one
end

--- Take a place, or not at all.
---@param name any
---@param most integer  how many places that name has; 0: none
---@param given? integer|table  as for any limiter
---@return neap.Permit? permit
---@return string? why
function slots:try_acquire(name, most, given)
  local one = of(self, name, most, 2)
  if not one then return nil, "closed" end
  return one:try_acquire(given)
end

--- Take a place, and wait for it.
---@param name any
---@param most integer
---@param given? integer|table  `{ timeout = 2 }`
---@return neap.Permit? permit
---@return string? why
---@return number? wait_s
function slots:acquire(name, most, given)
  local one = of(self, name, most, 2)
  if not one then return nil, "closed" end
  return one:acquire(given)
end

--- Wait for a place, call `fn(...)`, leave it.
---@param name any
---@param most integer
---@param fn function
---@param ... any
---@return any ...  its results; or nil, why, wait_s
function slots:with(name, most, fn, ...)
  local one = of(self, name, most, 2)
  if not one then return nil, "closed" end
  return one:with(1, fn, ...)
end

--- Places of a name that are taken. 0 for one that nobody uses.
---@param name any
---@return integer
function slots:count(name)
  local one = self.of[name]
  return one and one:in_use() or 0
end

--- Make slots, none of them taken.
---@return neap.Slots
return function ()
  return setmetatable({ of = setmetatable({}, { __mode = "v" }) }, slots)
end
