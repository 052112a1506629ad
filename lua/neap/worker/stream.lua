--- /v1/events: what happens, as it happens (server-sent events, as browsers read them), and how it
--- stands, once a second, for who asks for that.
---
---     GET /v1/events?policy=openai&policy=-&last=20&state=1
---
---     retry: 1000                       try again a second after the line is lost
---
---     id: 5f00a1c4-17                   an event; the newest `last` of those kept come first
---     data: {"policy":"openai","event":"open",...}
---
---     event: state                      the same as /v1/snapshot
---     data: {"worker":{...},"policies":[...]}
---
--- A client that comes back says in Last-Event-ID what it heard last, and hears what it missed, as
--- far as that is kept. Events need the right `events`, states `read`; who has one of them hears
--- that much.
---
--- The response has no end: the client is parked for good, so nothing more is read from it and its
--- hanging up is seen. It takes at most as much memory as any response: a state is only written for
--- one who is not behind, and one who fetches no events is cut like any slow reader.
local bit = require "bit"
local C = require "neap.engine"
local uri = require "neap.worker.uri"
local snapshot = require "neap.worker.snapshot"

local ipairs, next, pairs, setmetatable, tonumber = ipairs, next, pairs, setmetatable, tonumber
local band = bit.band

local MOST = 64                     -- at once
local TICK_NS = 1000000000LL        -- between states
local STILL_TICKS = 15              -- then a comment says that somebody is there
local LARGEST = 3 * 2 ^ 20          -- bytes of a state; a response may have one more MiB
local BEHIND = 65536                -- bytes unfetched
local RETRY = "retry: 1000\n\n"

---@class neap.Listener
---@field policies table<string, true>?   nil: all
---@field events boolean
---@field state boolean
---@field still integer   ticks since it was told anything

---@class neap.Stream
---@field worker neap.Worker
---@field listeners table<integer, neap.Listener>   by client
---@field count integer
---@field due ffi.cdata*   ns: of the next tick
local stream = {}
stream.__index = stream

---@param worker neap.Worker
---@return neap.Stream
function stream.new(worker)
  local self = setmetatable({ worker = worker, server = worker.server, listeners = {}, count = 0,
    due = C.neap_never }, stream)
  worker.events:listen(function (message) self:tell(message) end)
  return self
end

local function put(self, client, text)
  local to = C.neap_server_push(self.server, client)
  C.neap_reply_raw(to, text, #text)
  self.listeners[client].still = 0
end

local function hears(listener, message)
  return listener.events and (not listener.policies or listener.policies[message.policy])
end

local function state_of(self)
  return ("event: state\ndata: %s\n\n"):format(snapshot.write(self.worker))
end

local function text_of(message) return ("id: %s\ndata: %s\n\n"):format(message.id, message.text) end

--- Tell an event to those who want to hear of it.
---@param message neap.EventMessage
function stream:tell(message)
  local text
  for client, listener in pairs(self.listeners) do
    if hears(listener, message) then
      text = text or text_of(message)
      put(self, client, text)
    end
  end
  if message.event == "drain" then self.due = next(self.listeners) and 0LL or self.due end
end

--- Has it left so much unfetched that a state would only add to it?
local function is_behind(self, client)
  local to = C.neap_server_push(self.server, client)
  return to.tail - to.head >= BEHIND
end

--- Tell how it stands. To be called when `due` has come.
---@param now ffi.cdata*  ns
function stream:tick(now)
  if now < self.due then return end
  self.due = self.count > 0 and now + TICK_NS or C.neap_never
  local text
  for client, listener in pairs(self.listeners) do
    listener.still = listener.still + 1
    if listener.state then
      text = text or state_of(self)
      if not is_behind(self, client) then put(self, client, text) end
    elseif listener.still >= STILL_TICKS then
      put(self, client, ":\n\n")
    end
  end
end

--- A client is gone.
---@param client integer
function stream:closed(client)
  if not self.listeners[client] then return end
  self.listeners[client] = nil
  self.count = self.count - 1
  if self.count == 0 then self.due = C.neap_never end
end

-- ---- requests ---------------------------------------------------------------------------------

--- What is asked for, or nil and what is wrong, with its status.
local function read(self, request)
  local parameters = uri.query(request.query or "")
  if not parameters then return nil, "the query is malformed", 400 end
  local asked = { last = 0 }
  for _, parameter in ipairs(parameters) do
    local name, given = parameter[1], parameter[2]
    if name == "policy" then
      asked.policies = asked.policies or {}
      if given ~= "-" then
        local found, err = self.worker.desk.accounts:policy(given)
        if not found then return nil, (err:gsub("^%u+ ", "")), 404 end
      end
      asked.policies[given] = true
    elseif name == "last" and given:find "^%d%d?%d?$" then
      asked.last = tonumber(given)
    elseif name == "state" and (given == "1" or given == "0") then
      asked.state = given == "1"
    else
      return nil, "the parameters are policy=NAME, last=0 to 999 and state=0 or 1", 400
    end
  end
  return asked
end

--- Answer a request with a stream.
---@param http neap.Http
---@param request neap.HttpRequest
function stream.run(http, request)
  local self, client = http.worker.stream, request.client
  local asked, problem, status = read(self, request)
  if not asked then return http:say(request, status, problem) end
  local state = asked.state and state_of(self)
  if state and #state > LARGEST then
    return http:say(request, 500, "the state is larger than 3 MiB")
  elseif self.count >= MOST then
    return http:say(request, 503, "as many as can be listen already", { { "Retry-After", "5" } })
  end
  request.how = bit.bor(request.how, C.NEAP_HTTP_CLOSES)
  http:open(request, "text/event-stream; charset=utf-8")
  if band(request.how, C.NEAP_HTTP_BARE) ~= 0 then
    return C.neap_server_hang_up(self.server, client)
  end
  local rights = request.rights
  local listener = { policies = asked.policies, still = 0,
    events = band(rights, C.NEAP_ALLOW_EVENTS) ~= 0,
    state = asked.state and band(rights, C.NEAP_ALLOW_READ) ~= 0 }
  self.listeners[client], self.count = listener, self.count + 1
  C.neap_server_park(self.server, client)
  C.neap_server_subscribe(self.server, client, 1, 0)
  put(self, client, RETRY)
  for _, message in ipairs(self.worker.events:since(request.fields["last-event-id"], asked.last)) do
    if hears(listener, message) then put(self, client, text_of(message)) end
  end
  if listener.state then put(self, client, state) end
  if self.due == C.neap_never then self.due = self.worker.clock() + TICK_NS end
end

return stream
