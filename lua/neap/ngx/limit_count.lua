--- So many requests per window by key: the calls of resty.limit.count, for code that uses them.
---
---     local lim = limit_count.new("my_store", 5000, 3600)
---     local delay, remaining = lim:incoming(key, true)        -- 0, or nil, "rejected"
---
--- A key's window begins with its first request and ends `time_window` later, whatever comes
--- meanwhile: so twice as many may pass around its end. "5000/h sliding" lets no hour have more.
---
--- All workers count together (see neap.ngx.store). The word of a key is the end of its window in
--- ms, and below it, in 24 bits, what was used.
local runtime = require "neap.runtime"
local store = require "neap.ngx.store"

local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local ceil = math.ceil
local current = runtime.current

local ONE_MS = 16777216LL   -- 2^24
local MOST = 2 ^ 24 - 1

---@class neap.ngx.LimitCount
---@field package store neap.ngx.Store
---@field package limit integer
---@field package window_ms integer
local count = {}
count.__index = count

local module = {}

--- Instances of one store share its keys.
---@param name string         of the store, a shared dictionary elsewhere
---@param limit integer       requests
---@param time_window number  seconds
---@return neap.ngx.LimitCount?
---@return string? message
function module.new(name, limit, time_window)
  local keys, message = store.open("count", name)
  if not keys then return nil, message end
  if type(limit) ~= "number" or not (limit > 0 and limit <= MOST) then
    return nil, "count: a number above 0, below 2^24, expected, got " .. tostring(limit)
  elseif type(time_window) ~= "number" or not (time_window > 0 and time_window <= 1e9) then
    return nil, "time_window: seconds above 0, up to 1e9, expected, got " .. tostring(time_window)
  end
  return setmetatable({ store = keys, limit = limit, window_ms = ceil(time_window * 1000) }, count)
end

-- The words that have ended are those up to `clock`, that of a window that ends now included.
local function when(self)
  local ms = current().now_ns() / 1000000
  return (ms + 1) * ONE_MS - 1, (ms + self.window_ms) * ONE_MS
end

--- A request comes.
---@param key string
---@param commit? boolean  true: it counts; else this only looks
---@return number? delay_s          0
---@return integer|string remaining  in this window after it, or "rejected", or a message
function count:incoming(key, commit)
  local hash, message = store.hash(self.store, key)
  if not hash then return nil, message end
  local clock, fresh = when(self)
  local used, kept
  repeat
    local word = store.get(self.store, hash, clock)
    local is = word == 0 and fresh or word
    used = tonumber(is % ONE_MS)
    if used + 1 > self.limit then return nil, "rejected" end
    if not commit then break end
    kept, message = store.swap(self.store, hash, clock, word, is + 1)
    if kept == nil then return nil, message end
  until kept
  return 0, self.limit - used - 1
end

--- As if it had not come.
---@param key string
---@return integer? remaining
---@return string? message
function count:uncommit(key)
  local hash, message = store.hash(self.store, key)
  if not hash then return nil, message end
  local clock = when(self)
  local used, kept
  repeat
    local word = store.get(self.store, hash, clock)
    used = tonumber(word % ONE_MS)
    if used == 0 then return self.limit end
    kept = store.swap(self.store, hash, clock, word, word - 1)
  until kept ~= false
  return self.limit - used + 1
end

return module
