--- SUBSCRIBE and its family: the worker's events, for Redis' clients, told as Redis tells what was
--- published. A client hears only of what happens after its subscription was answered, in order;
--- one who does not fetch what it is told is cut (NEAP_EVENT_BYTES).
---
--- A message is written once for each protocol and copied to whoever listens. Who that is, is
--- remembered for each channel until somebody comes or goes: patterns are tried once, not once for
--- each message.
local C = require "neap.engine"
local commands = require "neap.worker.commands"
local glob = require "neap.worker.glob"
local reply = require "neap.worker.reply"

local ipairs, next, pairs, setmetatable, tonumber = ipairs, next, pairs, setmetatable, tonumber
local fail, status, write = reply.fail, reply.status, reply.write

local EACH = 1000        -- subscriptions of one client
local ALL = 100000       -- of all of them
local PATTERNS = 500     -- different ones, of all of them
local NAME_BYTES = 256   -- of a channel or a pattern
local MEMO = 4096        -- channels whose listeners are remembered

---@class neap.Subscriber
---@field channels table<string, true>
---@field patterns table<string, true>
---@field order { channels: string[], patterns: string[] }  as they came

---@class neap.PubSub
---@field server ffi.cdata*
---@field subscribers table<integer, neap.Subscriber>      by client
---@field channels table<string, table<integer, true>>     clients
---@field patterns table<string, table<integer, true>>
---@field count integer           subscriptions
---@field channel_count integer   different ones
---@field pattern_count integer
local pubsub = {}
pubsub.__index = pubsub

---@param server ffi.cdata*
---@param events neap.WorkerEvents
---@return neap.PubSub
function pubsub.new(server, events)
  local self = setmetatable({
    server = server, subscribers = {}, channels = {}, patterns = {},
    count = 0, channel_count = 0, pattern_count = 0, listeners = {}, remembered = 0,
  }, pubsub)
  events:listen(function (message) self:tell(message) end)
  return self
end

-- ---- telling ----------------------------------------------------------------------------------

--- Who hears a channel: { client, pattern or nil }, each once for its channel and for each pattern.
local function listeners_of(self, channel)
  local list = self.listeners[channel]
  if list then return list end
  if self.remembered >= MEMO then self.listeners, self.remembered = {}, 0 end
  list = {}
  for client in pairs(self.channels[channel] or {}) do list[#list + 1] = { client } end
  for pattern, clients in pairs(self.patterns) do
    if glob(pattern, channel) then
      for client in pairs(clients) do list[#list + 1] = { client, pattern } end
    end
  end
  self.listeners[channel], self.remembered = list, self.remembered + 1
  return list
end

local function bulk(text) return ("$%d\r\n%s\r\n"):format(#text, text) end

--- The bytes of a message behind what says that it is one, by pattern.
local function frame(pattern, rest)
  if not pattern then return "3\r\n$7\r\nmessage\r\n" .. rest end
  return "4\r\n$8\r\npmessage\r\n" .. bulk(pattern) .. rest
end

--- Tell a message to those who hear its channel.
---@param message neap.EventMessage
function pubsub:tell(message)
  if self.count == 0 then return end
  local rest, frames, last = nil, nil, nil
  for _, listener in ipairs(listeners_of(self, message.channel)) do
    local client, pattern = listener[1], listener[2]
    rest = rest or bulk(message.channel) .. bulk(message.text)
    if not frames or pattern ~= last then frames, last = frame(pattern, rest), pattern end
    local to = C.neap_server_push(self.server, client)
    C.neap_reply_raw(to, to.proto < 3 and "*" or ">", 1)
    C.neap_reply_raw(to, frames, #frames)
  end
end

-- ---- who listens ------------------------------------------------------------------------------

local function subscriber(self, client)
  local one = self.subscribers[client]
  if not one then
    one = { channels = {}, patterns = {}, order = { channels = {}, patterns = {} } }
    self.subscribers[client] = one
  end
  return one
end

local function total(one) return one and #one.order.channels + #one.order.patterns or 0 end

local COUNTS = { channels = "channel_count", patterns = "pattern_count" }

local function add(self, client, what, name)
  local one = subscriber(self, client)
  if one[what][name] then return end
  one[what][name] = true
  local order = one.order[what]
  order[#order + 1] = name
  local clients = self[what][name]
  if not clients then
    clients = {}
    self[what][name] = clients
    self[COUNTS[what]] = self[COUNTS[what]] + 1
  end
  clients[client] = true
  self.count, self.listeners, self.remembered = self.count + 1, {}, 0
end

local function take(self, client, what, name)
  local one = self.subscribers[client]
  if not one or not one[what][name] then return end
  one[what][name] = nil
  local order = one.order[what]
  for i, other in ipairs(order) do
    if other == name then
      table.remove(order, i)
      break
    end
  end
  local clients = self[what][name]
  clients[client] = nil
  if next(clients) == nil then
    self[what][name] = nil
    self[COUNTS[what]] = self[COUNTS[what]] - 1
  end
  self.count, self.listeners, self.remembered = self.count - 1, {}, 0
  if total(one) == 0 then self.subscribers[client] = nil end
end

local function tell_server(self, client)
  local one = self.subscribers[client]
  C.neap_server_subscribe(self.server, client, one and #one.order.channels or 0,
    one and #one.order.patterns or 0)
end

--- A client is gone, or as if just connected.
---@param client integer
function pubsub:closed(client)
  local one = self.subscribers[client]
  if not one then return end
  for what in pairs(COUNTS) do
    for i = #one.order[what], 1, -1 do take(self, client, what, one.order[what][i]) end
  end
  tell_server(self, client)
end

-- ---- commands ---------------------------------------------------------------------------------

--- Why these cannot be subscribed to, or nil.
local function excess(self, client, what, words)
  local one, new, new_here = self.subscribers[client], 0, 0
  for _, name in ipairs(words) do
    if #name > NAME_BYTES then
      return ("ERR a channel or a pattern has up to %d bytes, got %d"):format(NAME_BYTES, #name)
    end
    if not one or not one[what][name] then new = new + 1 end
    if not self[what][name] then new_here = new_here + 1 end
  end
  if total(one) + new > EACH then
    return ("ERR a client has up to %d subscriptions"):format(EACH)
  elseif self.count + new > ALL then
    return ("ERR all %d subscriptions are in use"):format(ALL)
  elseif what == "patterns" and self.pattern_count + new_here > PATTERNS then
    return ("ERR all %d patterns are in use"):format(PATTERNS)
  end
end

local function confirm(self, client, verb, name)
  local to = C.neap_server_push(self.server, client)
  C.neap_reply_push(to, 3)
  C.neap_reply_bulk(to, verb, #verb)
  if name then C.neap_reply_bulk(to, name, #name) else C.neap_reply_null(to) end
  C.neap_reply_integer(to, total(self.subscribers[client]))
end

local function subscribing(self, what, verb)
  return function (to, words, _, command)
    local client = tonumber(command.client)
    local problem = excess(self, client, what, words)
    if problem then return fail(to, problem) end
    for _, name in ipairs(words) do
      add(self, client, what, name)
      confirm(self, client, verb, name)
    end
    tell_server(self, client)
  end
end

local function unsubscribing(self, what, verb)
  return function (_, words, _, command)
    local client = tonumber(command.client)
    local one = self.subscribers[client]
    if #words == 0 then
      for i, name in ipairs(one and one.order[what] or {}) do words[i] = name end
    end
    for _, name in ipairs(words) do
      take(self, client, what, name)
      confirm(self, client, verb, name)
    end
    if #words == 0 then confirm(self, client, verb, nil) end
    tell_server(self, client)
  end
end

local function publish(to)
  fail(to, "ERR events are what happens here; nothing can be published")
end

local function family(self)
  return commands.family("PUBSUB", {
    CHANNELS = { 0, 1, function (to, words)
      local names = {}
      for name in pairs(self.channels) do
        if not words[2] or glob(words[2], name) then names[#names + 1] = name end
      end
      table.sort(names)
      write(to, names)
    end },
    NUMSUB = { 0, 255, function (to, words)
      local list = {}
      for i = 2, #words do
        local n = 0
        for _ in pairs(self.channels[words[i]] or {}) do n = n + 1 end
        list[#list + 1], list[#list + 2] = words[i], n
      end
      write(to, list)
    end },
    NUMPAT = { 0, 0, function (to) write(to, self.pattern_count) end },
    SHARDCHANNELS = { 0, 1, function (to) write(to, {}) end },
    SHARDNUMSUB = { 0, 255, function (to, words)
      local list = {}
      for i = 2, #words do list[#list + 1], list[#list + 2] = words[i], 0 end
      write(to, list)
    end },
    HELP = { 0, 0, function (to)
      write(to, { status "PUBSUB CHANNELS [pattern] | NUMSUB [channel ...] | NUMPAT",
        status "Channels are neap:POLICY:EVENT; the worker's own policy is '-'." })
    end },
  })
end

local CHANNELS = { { "channel", "string", multiple = true } }
local PATTERN_LIST = { { "pattern", "pattern", multiple = true } }

local function optional(argument)
  return { { argument[1][1], argument[1][2], multiple = true, optional = true } }
end

--- What the table of commands is to have.
---@return neap.Command[]
function pubsub:commands()
  local flags = { "pubsub", "loading", "stale" }
  local N = "O(N) in the words"
  return {
    { name = "SUBSCRIBE", arity = -2, group = "pubsub", need = "events", while_subscribed = true,
      flags = flags, complexity = N, arguments = CHANNELS, run = subscribing(self, "channels",
        "subscribe"), summary = "Hear of events: neap:POLICY:EVENT." },
    { name = "UNSUBSCRIBE", arity = -1, group = "pubsub", need = "events", while_subscribed = true,
      flags = flags, complexity = N, arguments = optional(CHANNELS),
      run = unsubscribing(self, "channels", "unsubscribe"),
      summary = "Hear no more of these channels, or of none." },
    { name = "PSUBSCRIBE", arity = -2, group = "pubsub", need = "events", while_subscribed = true,
      flags = flags, complexity = N, arguments = PATTERN_LIST, run = subscribing(self, "patterns",
        "psubscribe"), summary = "Hear of events whose channels match: neap:*:open." },
    { name = "PUNSUBSCRIBE", arity = -1, group = "pubsub", need = "events",
      while_subscribed = true, flags = flags, complexity = N, arguments = optional(PATTERN_LIST),
      run = unsubscribing(self, "patterns", "punsubscribe"),
      summary = "Hear no more of these patterns, or of none." },
    { name = "PUBSUB", arity = -2, group = "pubsub", need = "events", flags = flags,
      complexity = "O(N) in the channels", run = family(self),
      summary = "Who listens to what.", arguments = { { "subcommand", "string" } } },
    { name = "PUBLISH", arity = 3, group = "pubsub", need = "events", flags = flags, run = publish,
      summary = "Always an error: events come from the worker alone.",
      arguments = { { "channel", "string" }, { "message", "string" } } },
  }
end

return pubsub
