--- Requests per second by key, with a delay for those that come too soon: the calls of
--- resty.limit.req, for code that uses them.
---
---     local lim = limit_req.new("my_store", 200, 100)        -- 200/s, up to 100 more are delayed
---     local delay, excess = lim:incoming(key, true)          -- or nil, "rejected"
---
--- The state of a key is the instant at which what it owes is paid; a request owes 1/rate. It is
--- kept in nanoseconds of the engine's clock, where the other counts in ms of nginx's, and
--- `uncommit` takes back exactly what was committed. With `set_rate`, what is owed stays owed, in
--- time.
---
--- It says how long to wait and keeps no line; limiter:acquire() waits, in order. All workers have
--- one limit (see neap.ngx.store).
local ffi = require "ffi"
local runtime = require "neap.runtime"
local store = require "neap.ngx.store"

local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local current = runtime.current
local instant = ffi.typeof "int64_t"

---@class neap.ngx.LimitReq
---@field package store neap.ngx.Store
---@field package burst number
---@field package interval ffi.cdata*  ns between two
local req = {}
req.__index = req

local module = {}

--- Instances of one store share its keys.
---@param name string   of the store, a shared dictionary elsewhere
---@param rate number   requests per second
---@param burst number  requests beyond it that may be delayed
---@return neap.ngx.LimitReq?
---@return string? message
function module.new(name, rate, burst)
  local keys, message = store.open("req", name)
  if not keys then return nil, message end
  if type(rate) ~= "number" or not (rate > 0 and rate <= 1e9) then
    return nil, "rate: a number above 0, up to 1e9, expected, got " .. tostring(rate)
  elseif type(burst) ~= "number" or not (burst >= 0) then
    return nil, "burst: a number from 0 expected, got " .. tostring(burst)
  end
  local self = setmetatable({ store = keys, burst = burst }, req)
  self:set_rate(rate)
  return self
end

---@param rate number
function req:set_rate(rate) self.interval = instant(1e9 / rate + 0.5) end

---@param burst number
function req:set_burst(burst) self.burst = burst end

--- A request comes.
---@param key string
---@param commit? boolean  true: it counts; else this only looks
---@return number? delay_s       0 when it may go now
---@return number|string excess  requests beyond the rate, or "rejected", or a message
function req:incoming(key, commit)
  local hash, message = store.hash(self.store, key)
  if not hash then return nil, message end
  local now = current().now_ns()
  local paid, excess, kept
  repeat
    local word = store.get(self.store, hash, now)
    paid = word > now and word or now
    excess = tonumber(paid - now) / tonumber(self.interval)
    if excess > self.burst then return nil, "rejected" end
    if not commit then break end
    kept, message = store.swap(self.store, hash, now, word, paid + self.interval)
    if kept == nil then return nil, message end
  until kept
  return tonumber(paid - now) / 1e9, excess
end

--- As if the last one had not come.
---@param key string
---@return true? undone
---@return string? message
function req:uncommit(key)
  local hash, message = store.hash(self.store, key)
  if not hash then return nil, message end
  local now = current().now_ns()
  local kept
  repeat
    local word = store.get(self.store, hash, now)
    if word <= now then return true end
    local paid = word > self.interval and word - self.interval or 0
    kept, message = store.swap(self.store, hash, now, word, paid)
    if kept == nil then return nil, message end
  until kept
  return true
end

return module
