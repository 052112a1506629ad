--- A pause: nobody leaves before an instant. What a server's "Retry-After" is for.
---
---     local pause = neap.pause()
---     local api = neap.hybrid { "10/s", pause }
---     pause:extend "30s"                 -- everything in line waits at least that long
---     api:try_acquire()                  --> nil, "pause", 30
local ffi = require "ffi"
local C = require "neap.engine"
local events = require "neap.events"
local limiter = require "neap.limiter"

local tonumber = tonumber

local leaf_t = ffi.typeof "struct neap_limiter"

---@class neap.Pause: neap.Limiter
---@field leaf ffi.cdata*
local pause = limiter.class()

local function seconds(at, now) return at > now and tonumber(at - now) / 1e9 or 0 end

--- It ends at another instant than before: those in line are asked anew, and who listens is told.
local function moved(self, before, now, rt)
  local ends = self.leaf.as.pause.ends
  C.neap_engine_touch(rt.engine, self.leaf, now)
  local from, to = seconds(before, now), seconds(ends, now)
  if from ~= to then events.about("pause", self, { from = from, to = to }) end
end

--- Nobody leaves before an instant, up to the horizon. For those who reckon in instants.
---@package
---@param ends ffi.cdata*  ns
---@param now ffi.cdata*   ns, from limiter.present()
---@param rt neap.Runtime
---@return ffi.cdata*  the instant in force
function pause:extend_to(ends, now, rt)
  local before = self.leaf.as.pause.ends
  local force = C.neap_pause_extend(self.leaf.as.pause, ends)
  moved(self, before, now, rt)
  return force
end

--- Nobody leaves for so long from now. A longer pause that is on stays.
---
---     pause:extend(10)                   --> 30
---
---@param duration number|string  seconds, or "1m30s"; math.huge: until clear
---@return number  seconds the pause now lasts
function pause:extend(duration)
  local ns = limiter.ns_of(duration, "extend", 2)
  local now, rt = limiter.present()
  local ends = now + ns
  if ends > C.neap_horizon then ends = C.neap_horizon end
  return seconds(self:extend_to(ends, now, rt), now)
end

--- End it now. Those in line may go.
---
---     pause:clear()
---
function pause:clear()
  local now, rt = limiter.present()
  local before = self.leaf.as.pause.ends
  C.neap_pause_clear(self.leaf.as.pause)
  moved(self, before, now, rt)
end

--- Seconds it still lasts; 0 when there is none.
---
---     pause:left()                       --> 0
---
---@return number
function pause:left()
  local now = limiter.present()
  return seconds(C.neap_pause_when(self.leaf.as.pause, now), now)
end

--- Is it on?
---
---     pause:active()                     --> false
---
---@return boolean
function pause:active() return self:left() > 0 end

--- Make a pause, not on yet.
---@param options? { name: string? }
---@return neap.Pause
return function (options)
  local self = { leaf = leaf_t() }
  self.name = limiter.name_of(options, "pause", {}, 2)
  self.leaf.kind = C.NEAP_PAUSE
  C.neap_pause_init(self.leaf.as.pause)
  local part = { leaf = self.leaf, multiplier = 1, cost = false, label = self.name, word = "pause",
    pause = self }
  return limiter.init(pause, self, { part }, 2)
end
