--- Back-off windows: "do not call before" for every key, shared by all who call.
---
---     local windows = neap.backoff_window()
---     windows:set(host, "20s")                      -- somebody was told to wait
---     windows:should_backoff(host)                  --> true, 20
---     windows:wait(host, "30s")                     -- everybody may wait until it is over
---     local api = neap.hybrid { "10/s", windows:of(host) }   -- or have it stand in the way
---
--- A key's window is a pause (see neap.pause), and there is one for a key, whoever asks: it grows,
--- never shrinks, and ends by itself, at an instant that is not in it any more. No instant and no
--- length is special: a window of zero has ended when it begins.
---
--- A key costs memory only while its window is on. What has ended equals what never was, so it is
--- forgotten; `of` alone makes others remember, as long as they do. There is a bound on the windows
--- that are on, too. Who meets it is refused, for to forget one that is on, or to end it early, is
--- to call a server that asked us not to; and who is refused can still wait by itself. A window
--- takes about 2 KB.
---
---     kept    by key, those that were on when last looked at; at most `most`
---     soonest the same ones, as a heap: [1] ends first, and [i] not before [i / 2]
---     made    by key, those that somebody may have from `of`; weak
---
--- For each window that comes up to two that have ended go, so what ended does not add up, and no
--- call has to look at all.
local C = require "neap.engine"
local heaps = require "neap.heap"
local limiter = require "neap.limiter"
local pause = require "neap.pause"

local error, getmetatable, setmetatable = error, getmetatable, setmetatable
local tonumber, tostring, type = tonumber, tostring, type

local OPTIONS = { most = true }
local MOST, MOST_EVER = 10000, 2 ^ 24

---@class neap.BackoffWindows
---@field name string
---@field most integer
---@field kept table<any, neap.Window>
---@field soonest neap.Window[]
---@field made table<any, neap.Window>
local windows = {}
windows.__index = windows

local base = getmetatable(pause())

---@class neap.Window: neap.Pause
---@field windows neap.BackoffWindows
---@field key any
---@field place integer?   in the heap
local window = limiter.class(base)

-- What lasts and ends is kept by key, whichever way that is said.

--- As windows:set does it.
---
---     windows:of(host):extend "5s"                  --> 5
---
---@param duration number|string  seconds, or "1m30s"
---@return number?
---@return "full"? why
---@return number? wait_s
function window:extend(duration) return self.windows:set(self.key, duration) end

--- As windows:clear does it.
---
---     windows:of(host):clear()
---
function window:clear() self.windows:clear(self.key) end

local function check(key, verb, level)
  if key == nil or key ~= key then
    error(("%s: a key expected, got %s"):format(verb, tostring(key)), level + 1)
  end
end

-- ---- which ends first -------------------------------------------------------------------------

local function ends(one) return one.leaf.as.pause.ends end

local by_end = heaps.of(ends)
local put, rise, sink = by_end.put, by_end.rise, by_end.sink

local function keep(self, one)
  local heap = self.soonest
  self.kept[one.key] = one
  put(heap, #heap + 1, one)
  rise(heap, one)
end

local function forget(self, one)
  local heap, place = self.soonest, one.place
  local last = heap[#heap]
  heap[#heap], one.place, self.kept[one.key] = nil, nil, nil
  if last ~= one then
    put(heap, place, last)
    rise(heap, last)
    sink(heap, last)
  end
end

--- Forget what has ended, the first to end first.
---@param most number  so many at most
local function forget_ended(self, now, most)
  while most > 0 do
    local first = self.soonest[1]
    if not first or ends(first) > now then return end
    forget(self, first)
    most = most - 1
  end
end

-- ---- verbs ------------------------------------------------------------------------------------

local function new(self, key)
  local one = pause { name = ("%s %s"):format(self.name, tostring(key)) }
  one.windows, one.key = self, key
  return setmetatable(one, window)
end

--- Until an instant. Answers the one in force, or nil and when the first of those that are on ends.
local function set_to(self, key, ends_at, now, rt)
  local one = self.kept[key]
  if one then
    local force = base.extend_to(one, ends_at, now, rt)
    sink(self.soonest, one)
    return force
  end
  forget_ended(self, now, 2)
  if #self.soonest >= self.most then return nil, ends(self.soonest[1]) end
  one = self.made[key] or new(self, key)
  local force = base.extend_to(one, ends_at, now, rt)
  keep(self, one)
  return force
end

--- Nobody calls for so long from now. A longer window that is on stays.
---
---     windows:set(host, "1m")                       --> 60
---     windows:set(host, 5)                          --> 60
---
---@param key any
---@param duration number|string  seconds, or "1m30s"; math.huge: until clear
---@return number?  seconds the window now lasts
---@return "full"? why  as many as there may be are on, and this is not one of them
---@return number? wait_s  until the first of them ends; nil when no clock can tell
function windows:set(key, duration)
  check(key, "set", 2)
  local ns = limiter.ns_of(duration, "set", 2)
  local now, rt = limiter.present()
  local ends_at = now + ns
  if ends_at > C.neap_horizon then ends_at = C.neap_horizon end
  local force, first = set_to(self, key, ends_at, now, rt)
  if force then return force > now and tonumber(force - now) / 1e9 or 0 end
  return nil, "full", first < C.neap_horizon and tonumber(first - now) / 1e9 or nil
end

--- Whoever has a window and an instant: it holds also when there is no room to remember it by key.
---@package
---@param ends_at ffi.cdata*  ns
---@param now ffi.cdata*      ns, from limiter.present()
---@param rt neap.Runtime
---@return ffi.cdata*  the instant in force
function window:extend_to(ends_at, now, rt)
  return set_to(self.windows, self.key, ends_at, now, rt)
    or base.extend_to(self, ends_at, now, rt)
end

--- End it now. Those who wait may go.
---
---     windows:clear(host)
---
---@param key any
function windows:clear(key)
  check(key, "clear", 2)
  local one = self.kept[key]
  if not one then return end
  forget(self, one)
  base.clear(one)
end

--- Is it on?
---
---     windows:should_backoff(host)                  --> false, 0
---
---@param key any
---@return boolean
---@return number left  seconds it still lasts; 0 when it is not on
function windows:should_backoff(key)
  check(key, "should_backoff", 2)
  local one = self.kept[key]
  if not one then return false, 0 end
  local left = one:left()
  if left > 0 then return true, left end
  forget(self, one)
  return false, 0
end

--- Wait until it is over, if it is on. Who wakes up looks again: it may have grown by then, or have
--- begun anew.
---
---     windows:wait(host, { deadline = neap.now() + 5 })   --> true
---
---@param key any
---@param wait? number|string|table  a timeout, seconds or "30s", or `{ deadline = at }`; for ever
---unless told
---@return true? over
---@return "timeout"|"cancelled"|string|nil why  as from acquire
---@return number? wait_s
function windows:wait(key, wait)
  check(key, "wait", 2)
  local given = wait ~= nil and limiter.joined(nil, wait, 2)
  local options = { deadline = limiter.deadline_of(given, limiter.present(), 2) }
  while self:should_backoff(key) do
    local over, why, wait_s = self.kept[key]:acquire(options)
    if not over then return nil, why, wait_s end
  end
  return true
end

--- The window of a key, as a limiter: what nobody passes while it is on.
---@param key any
---@return neap.Window  it has extend, clear, left and active, too
function windows:of(key)
  check(key, "of", 2)
  local one = self.kept[key] or self.made[key] or new(self, key)
  self.made[key] = one
  return one
end

--- How many are on.
---
---     windows:count()                               --> 0
---
---@return integer
function windows:count()
  forget_ended(self, limiter.present(), math.huge)
  return #self.soonest
end

--- Make windows, none of them on.
---@param options? { name: string?, most: integer? }
---  name: what they are called when they refuse, before the key; most: how many may be on at once,
---  10,000 unless told
---@return neap.BackoffWindows
return function (options)
  local self = { kept = {}, soonest = {}, made = setmetatable({}, { __mode = "v" }) }
  self.name = limiter.name_of(options, "back-off", OPTIONS, 2)
  self.most = options and options.most or MOST
  if type(self.most) ~= "number" or not (self.most >= 1 and self.most <= MOST_EVER)
      or self.most % 1 ~= 0 then
    error("most: a whole number from 1 to 2^24 expected, got " .. tostring(self.most), 2)
  end
  return setmetatable(self, windows)
end
