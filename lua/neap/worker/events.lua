--- Events of the worker: what happens to its policies, told to whoever listens. Over Redis'
--- protocol that is neap.worker.pubsub, over HTTP neap.worker.stream.
---
---     events:emit("openai", "open", { trips = 3 })
---
---     channel   neap:openai:open            "-" in place of a policy: the worker itself
---     message   {"policy":"openai","event":"open","at":1764108554,"count":1,"trips":3}
---
--- A channel says at most 10 messages in any second. What happens beyond that is folded: `count`
--- says for how many events a message stands, the newest of which it tells, so the sum of the
--- counts is how often it happened. A burst of ten is told one by one; the eleventh waits for its
--- turn and takes along what comes meanwhile, so that of thousands a second each costs little.
---
--- The last messages are kept, so that one who looks in late, or lost the line, hears of them. Each
--- has an id; those of another life of the worker begin otherwise.
local C = require "neap.engine"
local json = require "neap.policy.json"

local ipairs, pairs, setmetatable, type = ipairs, pairs, setmetatable, type
local max, min, remove, sort = math.max, math.min, table.remove, table.sort
local object, value = json.object, json.value

local MOST = 10               -- messages of a channel in WINDOW_NS
local WINDOW_NS = 1000000000LL
local KEPT = 100              -- messages, of all channels

---@class neap.EventMessage
---@field id string       "5f00a1c4-17": the worker's life, and which of its messages
---@field number integer  17
---@field policy string
---@field event string
---@field channel string
---@field text string     one line of JSON

---@class neap.EventChannel
---@field name string
---@field sent ffi.cdata*[]   when its last MOST messages were said, a ring
---@field slot integer        the oldest of them, from 1
---@field count integer       events that wait to be told, as one
---@field fields table?       of the newest of them

---@class neap.WorkerEvents
---@field clock fun(): ffi.cdata*   ns
---@field wall fun(): number        seconds since 1970
---@field life string               what its ids begin with
---@field number integer            messages ever
---@field happened integer          events ever
---@field recent neap.EventMessage[]   the last ones, oldest first
local events = {}
events.__index = events

---@param options { clock: (fun(): ffi.cdata*), wall: (fun(): number), life: string }
---@return neap.WorkerEvents
function events.new(options)
  return setmetatable({
    clock = options.clock, wall = options.wall, life = options.life,
    number = 0, happened = 0, recent = {},
    by_policy = {},      -- channels, by policy and event
    folded = {},         -- channels with events that wait to be told
    due = C.neap_never,  -- when the first of them may be
    ears = {},           -- never changed in place, for somebody may be walking it
  }, events)
end

--- Be told of every message.
---@param fn fun(message: neap.EventMessage)
---@return fun() stop
function events:listen(fn)
  local list = { fn }
  for i, ear in ipairs(self.ears) do list[i], list[i + 1] = ear, fn end
  self.ears = list
  return function ()
    local rest = {}
    for _, ear in ipairs(self.ears) do
      if ear ~= fn then rest[#rest + 1] = ear end
    end
    self.ears = rest
  end
end

local function channel_of(self, policy, event)
  local of = self.by_policy[policy]
  if not of then
    of = {}
    self.by_policy[policy] = of
  end
  local channel = of[event]
  if not channel then
    channel = { name = ("neap:%s:%s"):format(policy, event), policy = policy, event = event,
      sent = {}, slot = 1, count = 0 }
    of[event] = channel
  end
  return channel
end

--- When a channel may say its next message.
local function opens(channel)
  local oldest = channel.sent[channel.slot]
  return oldest and oldest + WINDOW_NS or 0LL
end

local function text_of(self, channel)
  local parts = { { "policy", value(channel.policy) }, { "event", value(channel.event) },
    { "at", value(self.wall()) }, { "count", value(channel.count) } }
  local names = {}
  for name in pairs(channel.fields or {}) do names[#names + 1] = name end
  sort(names)
  for _, name in ipairs(names) do
    local field = channel.fields[name]
    local whole = type(field) ~= "number" or field % 1 == 0
    parts[#parts + 1] = { name, whole and value(field) or ("%.6g"):format(field) }
  end
  return object(parts)
end

--- Say what waits.
local function say(self, channel, now)
  local number = self.number + 1
  self.number = number
  ---@type neap.EventMessage
  local message = {
    id = self.life .. "-" .. number, number = number, policy = channel.policy,
    event = channel.event, channel = channel.name, text = text_of(self, channel),
  }
  channel.count, channel.fields = 0, nil
  channel.sent[channel.slot] = now
  channel.slot = channel.slot % MOST + 1
  local recent = self.recent
  if #recent == KEPT then remove(recent, 1) end
  recent[#recent + 1] = message
  for _, ear in ipairs(self.ears) do ear(message) end
end

--- Something happened.
---@param policy string   "-": to the worker itself
---@param event string    open, half-open, close, backoff, backoff-end, limit, shed, expired,
---                       reload, reload-failed, drain, fault
---@param fields table<string, string|number|boolean>?  becomes the events'
---@param n integer?      times, 1 unless told
function events:emit(policy, event, fields, n)
  local channel = channel_of(self, policy, event)
  local waited = channel.count > 0
  n = n or 1
  self.happened = self.happened + n
  channel.count, channel.fields = channel.count + n, fields
  if waited then return end
  local now, at = self.clock(), opens(channel)
  if at <= now then return say(self, channel, now) end
  self.folded[#self.folded + 1] = channel
  if at < self.due then self.due = at end
end

--- Say what was folded and may be said by now. To be called when `due` has come.
---@param now ffi.cdata*  ns
function events:flush(now)
  if now < self.due then return end
  local waiting = self.folded
  self.folded, self.due = {}, C.neap_never
  for _, channel in ipairs(waiting) do
    local at = opens(channel)
    if at <= now then
      say(self, channel, now)
    else
      self.folded[#self.folded + 1] = channel
      if at < self.due then self.due = at end
    end
  end
end

--- The messages kept that came after one, or the newest `last`, oldest first.
---@param after string?   an id; of another life, or none: it is not known
---@param last integer?   0 unless told
---@return neap.EventMessage[]
function events:since(after, last)
  local life, number = (after or ""):match "^(%x+)%-(%d+)$"
  local recent = self.recent
  local first = #recent - min(last or 0, #recent) + 1
  if life == self.life and number + 0 <= self.number then
    first = max(#recent - (self.number - number) + 1, 1)
  end
  local list = {}
  for i = first, #recent do list[#list + 1] = recent[i] end
  return list
end

return events
