--- Requests at once by key, with a delay for those beyond: the calls of resty.limit.conn, for code
--- that uses them.
---
---     local lim = limit_conn.new("my_store", 200, 100, 0.5)   -- 200, up to 100 more are delayed
---     local delay, conn = lim:incoming(key, true)             -- or nil, "rejected"
---     lim:leaving(key, latency)                               -- in the log phase
---
--- The delay is a guess: how often 200 have to leave before, times how long one takes, the mean of
--- what was thought and what was last seen. Who knows it better waits: neap.semaphore, in order.
---
--- All workers count together (see neap.ngx.store). What a worker held that was killed comes back
--- within a second of somebody's asking, where the shared dictionary would count it for ever.
local store = require "neap.ngx.store"

local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local floor = math.floor

---@class neap.ngx.LimitConn
---@field package store neap.ngx.Store
---@field package conn integer
---@field package burst integer
---@field package unit_delay number   seconds
---@field package committed boolean
local conn = {}
conn.__index = conn

local module = {}

--- Instances of one store share its keys.
---@param name string    of the store, a shared dictionary elsewhere
---@param limit integer  requests at once
---@param burst integer  requests beyond that may be delayed
---@param delay number   seconds that one takes, to begin with
---@return neap.ngx.LimitConn?
---@return string? message
function module.new(name, limit, burst, delay)
  local keys, message = store.open("conn", name)
  if not keys then return nil, message end
  if type(limit) ~= "number" or not (limit > 0) then
    return nil, "conn: a number above 0 expected, got " .. tostring(limit)
  elseif type(burst) ~= "number" or not (burst >= 0) then
    return nil, "burst: a number from 0 expected, got " .. tostring(burst)
  elseif type(delay) ~= "number" or not (delay >= 0) then
    return nil, "default_conn_delay: seconds from 0 expected, got " .. tostring(delay)
  end
  return setmetatable({ store = keys, conn = limit, burst = burst, unit_delay = delay,
    committed = false }, conn)
end

---@param limit integer
function conn:set_conn(limit) self.conn = limit end

---@param burst integer
function conn:set_burst(burst) self.burst = burst end

--- A request comes.
---@param key string
---@param commit? boolean  true: it counts until it leaves; else this only looks
---@return number? delay_s     0 when it may go now
---@return integer|string now  how many there are with it, or "rejected", or a message
function conn:incoming(key, commit)
  self.committed = false
  local hash, message = store.hash(self.store, key)
  if not hash then return nil, message end
  store.reap(self.store)
  local count, kept
  repeat
    local word = store.get(self.store, hash, 0)
    count = tonumber(word) + 1
    if count > self.conn + self.burst then return nil, "rejected" end
    if not commit then break end
    kept, message = store.swap(self.store, hash, 0, word, count)
    if kept == nil then return nil, message end
  until kept
  self.committed = commit and true or false
  return floor((count - 1) / self.conn) * self.unit_delay, count
end

--- Did the last `incoming` count? Then it has to leave.
---@return boolean
function conn:is_committed() return self.committed end

--- A request is done, in the worker it came to.
---@param key string
---@param latency? number  seconds it took
---@return integer? now  how many there are without it
---@return string? message
function conn:leaving(key, latency)
  local hash, message = store.hash(self.store, key)
  if not hash then return nil, message end
  local count, kept
  repeat
    local word = store.get(self.store, hash, 0)
    count = tonumber(word)
    if count == 0 then break end
    kept = store.swap(self.store, hash, 0, word, count - 1)
  until kept ~= false
  if kept then count = count - 1 end   -- else none of them is this worker's
  if latency then self.unit_delay = (self.unit_delay + latency) / 2 end
  return count
end

--- As if it had not come.
---@param key string
---@return integer? now
---@return string? message
function conn:uncommit(key) return self:leaving(key) end

return module
