--- A worker in this process, over real sockets of the loopback interface, on a clock of our own.
---
---     local wired = require "spec.wired"
---     local w = wired.open(tree)
---     local c = w:connect()
---     w:ask(c, "NEAP.ACQUIRE", "api")     --> { "GRANTED", … }, or "ERR …"
---     w:verdict(c, "NEAP.ACQUIRE", "api") --> "GRANTED lease 0 -1 "
---     w:pass(100)                          ms
---     w:close()
local assert = require "luassert"
local ffi = require "ffi"
local socket = require "socket"
local C = require "neap.engine"
local worker = require "neap.worker"

local MS = 1000000LL

local wired = {}
wired.__index = wired

wired.null = setmetatable({}, { __tostring = function () return "nil" end })

---@param tree neap.tree
function wired.open(tree)
  local self = setmetatable({ now = 1000 * MS, clients = {} }, wired)
  self.worker = assert(worker.open(tree, { listen = { "127.0.0.1:0" }, http = { "127.0.0.1:0" },
    clock = function () return self.now end }))
  return self
end

function wired:close()
  assert.equal(0, C.neap_engine_check(self.worker.engine))
  for _, client in ipairs(self.clients) do client.socket:close() end
  worker.close(self.worker)
end

function wired:turns(n)
  for _ = 1, n or 6 do worker.turn(self.worker, 0LL) end
end

--- Time passes, in steps, as a loop would see it.
function wired:pass(ms)
  self.now = self.now + ms * MS
  self:turns()
end

--- By the listener: 0 speaks RESP, 1 HTTP.
function wired:connect(listener)
  local address = ffi.string(C.neap_server_address(self.worker.server, listener or 0))
  local host, port = address:match "^(.*):(%d+)$"
  local client = { socket = assert(socket.connect(host, tonumber(port))), buffer = "" }
  client.socket:settimeout(0)
  self.clients[#self.clients + 1] = client
  self:turns()
  return client
end

function wired:send(client, ...)
  local parts, words = { ("*%d\r\n"):format(select("#", ...)) }, { ... }
  for _, word in ipairs(words) do
    word = tostring(word)
    parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#word, word)
  end
  assert(client.socket:send(table.concat(parts)))
  self:turns()
end

--- One reply of RESP2 out of a text: its value and what is left.
local function parse(text)
  local kind, line, rest = text:match "^(.)([^\r]*)\r\n(.*)$"
  if kind == ":" then return tonumber(line), rest end
  if kind == "$" and line == "-1" then return wired.null, rest end
  if kind == "$" then return rest:sub(1, line), rest:sub(line + 3) end
  if kind ~= "*" then return line, rest end
  local list = {}
  for i = 1, tonumber(line) do list[i], rest = parse(rest) end
  return list, rest
end

--- What there is to read.
function wired:bytes(client)
  self:turns()
  local all, _, part = client.socket:receive "*a"
  return all or part or ""
end

--- The next reply, or nil when there is none.
function wired:receive(client)
  client.buffer = client.buffer .. self:bytes(client)
  if client.buffer == "" then return nil end
  local value
  value, client.buffer = parse(client.buffer)
  return value
end

function wired:ask(client, ...)
  self:send(client, ...)
  return self:receive(client)
end

--- A reply of five elements as one line, whatever the lease is called; others as they are.
function wired.said(reply)
  if type(reply) ~= "table" or #reply ~= 5 then return reply end
  local words = { unpack(reply) }
  words[2] = words[2] == wired.null and "-" or "lease"
  return table.concat(words, " ")
end

function wired:verdict(client, ...) return self.said(self:ask(client, ...)) end

--- A lease's name.
function wired:lease(client, ...)
  local reply = self:ask(client, ...)
  assert.equal("GRANTED", reply[1], wired.said(reply))
  return reply[2]
end

--- A reply that is a map, by name; maps in lists too.
function wired.map(list)
  if type(list) ~= "table" or list == wired.null then return list end
  local map = {}
  for i = 1, #list, 2 do
    if type(list[i]) ~= "string" then
      for k, each in ipairs(list) do map[k] = wired.map(each) end
      return map
    end
    map[list[i]] = type(list[i + 1]) == "table" and wired.map(list[i + 1]) or list[i + 1]
  end
  return map
end

--- The answer to a request of HTTP: its status, its fields, its body.
function wired:get(client, path, verb)
  assert(client.socket:send(("%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n"):format(
    verb or "GET", path, verb == "POST" and "Content-Length: 0\r\n" or "")))
  local text = self:bytes(client)
  local head, body = text:match "^(.-)\r\n\r\n(.*)$"
  local fields = {}
  for name, value in head:gmatch "\r\n([^:]+): ([^\r]*)" do fields[name:lower()] = value end
  return tonumber(head:match " (%d+)"), fields, body
end

return wired
