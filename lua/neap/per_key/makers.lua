--- Makers: limits per key that are more than a word, a limiter in Lua for each key.
---
--- The engine knows them by the key's hash (neap_keyed_set), and they are kept here, most recently
--- seen first. At the bound one that is as good as new goes first; one that has something in flight
--- never does.
local ffi = require "ffi"
local C = require "neap.engine"
local limiter = require "neap.limiter"
local stats = require "neap.stats"

local error, ipairs, pairs, setmetatable = error, ipairs, pairs, setmetatable

local LOOKS = 64   -- at how many of the least recently seen one looks for room

---@class neap.Made
---@field key string|integer
---@field hash ffi.cdata*
---@field limiters neap.Limiter[]
---@field seen ffi.cdata*    ns
---@field pins integer        those who wait and will ask for it
---@field newer neap.Made?
---@field older neap.Made?

---@class neap.Makers
---@field refused integer
---@field evicted integer
---@field count integer
---@field counts integer[]  of parts that each function makes
local makers = {}
makers.__index = makers

---@param owner neap.PerKey  its tables get the limiters
---@return neap.Makers
function makers.new(owner)
  return setmetatable({ owner = owner, fns = {}, places = {}, counts = {}, kept = {}, count = 0,
    refused = 0, evicted = 0 }, makers)
end

--- One more kind of limiter for each key.
---@param fn fun(key): neap.Limiter
---@param place integer  the number of the first table that is its
---@param count integer  how many parts it has
function makers:add(fn, place, count)
  local n = #self.fns + 1
  self.fns[n], self.places[n], self.counts[n] = fn, place, count
end

-- ---- by when they were seen -------------------------------------------------------------------

local function unlink(self, one)
  if one.newer then one.newer.older = one.older else self.newest = one.older end
  if one.older then one.older.newer = one.newer else self.oldest = one.newer end
  one.newer, one.older = nil, nil
end

local function link(self, one)
  one.older = self.newest
  if self.newest then self.newest.newer = one else self.oldest = one end
  self.newest = one
end

local function each_leaf(self, one, fn)
  for i, made in ipairs(one.limiters) do
    for j, part in ipairs(made.terms.parts) do fn(self.places[i] + j - 1, part.leaf) end
  end
end

local function every(one, asks, now)
  for _, made in ipairs(one.limiters) do
    for _, part in ipairs(made.terms.parts) do
      if asks(part.leaf, now) == 0 then return false end
    end
  end
  return true
end

local function is_new(one, now)
  return one.pins == 0 and every(one, C.neap_limiter_is_new, now)
end

-- Nothing comes back to it that it would have to know of.
local function is_free(one)
  return one.pins == 0 and every(one, function (leaf)
    return (leaf.kind ~= C.NEAP_SEMAPHORE or leaf.as.semaphore.in_use == 0)
      and (leaf.kind ~= C.NEAP_ADAPTIVE or leaf.as.adaptive.in_use == 0) and 1 or 0
  end)
end

local function drop(self, one)
  unlink(self, one)
  self.kept[one.key] = nil
  self.count = self.count - 1
  each_leaf(self, one, function (place)
    C.neap_keyed_set(self.owner.tables[place], one.hash, nil)
  end)
end

-- ---- tending ----------------------------------------------------------------------------------

--- Drop those that were not seen for too long, the least recent first.
local function drop_idle(self, now)
  local idle_ns = not self.owner.lossless and self.owner.idle_ns
  for _ = 1, 2 do
    local one = idle_ns and self.oldest
    if not one or now - one.seen < idle_ns or not is_free(one) then return end
    drop(self, one)
  end
end

--- Room for one more.
---@return boolean
local function make_room(self, now)
  drop_idle(self, now)
  if self.count < self.owner.most then return true end
  local one, spent = self.oldest, nil
  for _ = 1, LOOKS do
    if not one then break end
    if is_new(one, now) then
      drop(self, one)
      return true
    end
    if not spent and is_free(one) then spent = one end
    one = one.newer
  end
  if self.owner.full ~= "least_recent" or not spent then
    self.refused = self.refused + 1
    return false
  end
  drop(self, spent)
  self.evicted = self.evicted + 1
  return true
end

--- A limiter for the key, if it has none yet and there is room.
---@param key string|integer
---@param hash ffi.cdata*
function makers:make(key, hash)
  local now = limiter.present()
  local one = self.kept[key]
  self.last = one
  if one then
    one.seen = now
    if self.newest ~= one then
      unlink(self, one)
      link(self, one)
    end
    return
  end
  if not make_room(self, now) then return end
  one = { key = key, hash = ffi.new("uint64_t", hash), limiters = {}, seen = now, pins = 0 }
  for i, fn in ipairs(self.fns) do
    local made = fn(key)
    if not limiter.is(made) or #made.terms.parts ~= self.counts[i] or made.terms.keys
        or made.guests then
      error("per_key: the function has to make limiters of one form, for any key", 0)
    end
    one.limiters[i] = stats.hide(made)
  end
  self.kept[key], self.last = one, one
  self.count = self.count + 1
  link(self, one)
  each_leaf(self, one, function (place, leaf)
    if C.neap_keyed_set(self.owner.tables[place], hash, leaf) ~= C.NEAP_OK then
      drop(self, one)
      error("per_key: no memory for another key", 0)
    end
  end)
end

--- Forget a key: whoever waits for it finds a new one.
---@param key string|integer
---@param hash ffi.cdata*
function makers:forget(key, hash)
  local one = self.kept[key]
  if not one then return end
  drop(self, one)
  if one.pins == 0 then return end
  self:make(key, hash)
  self.kept[key].pins, one.pins = one.pins, 0
  local now, rt = limiter.present()
  each_leaf(self, one, function (_, leaf) C.neap_engine_touch(rt.engine, leaf, now) end)
end

--- Another limit for all that the function of this table made.
---@param place integer
---@param value neap.limit
---@param mode string
function makers:reconfigure(place, value, mode)
  local n
  for i, first in ipairs(self.places) do
    if first == place then n = i end
  end
  self.owner.templates[n]:reconfigure(value, mode)
  for _, one in pairs(self.kept) do one.limiters[n]:reconfigure(value, mode) end
end

--- Somebody is going to wait for what was asked for last, and it is to stay.
---@return neap.Made?
function makers:pin()
  local one = self.last
  if one then one.pins = one.pins + 1 end
  return one
end

--- They wait no more.
---@param key string|integer
function makers:unpin(key)
  local one = self.kept[key]
  if one and one.pins > 0 then one.pins = one.pins - 1 end
end

--- How many are not as good as new.
---@return integer
function makers:len()
  local now = limiter.present()
  drop_idle(self, now)
  local n = 0
  for _, one in pairs(self.kept) do
    if not is_new(one, now) and not (self.owner.idle_ns and not self.owner.lossless
        and now - one.seen >= self.owner.idle_ns) then
      n = n + 1
    end
  end
  return n
end

--- The limiter a key has, if it has one.
---@param key string|integer
---@return neap.Limiter?
function makers:find(key)
  local one = self.kept[key]
  return one and one.limiters[1]
end

return makers
