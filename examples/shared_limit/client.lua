--- One of the main job's client processes: it wants so many calls served, one after the other.
--
--      luajit client.lua HTTP_PORT PATH CALLS [WORKER_PORT]
--
-- Without a worker it calls as fast as it can, and after a refusal tries again in a moment, as
-- loops without a plan do. With one, it asks before every call, and calls when it has the permit.
-- The permits of a mere rate are not given back, so there is nothing to do after the call.
local socket = require "socket"

local PAUSE = 0.04      -- seconds from a refusal to the next try
local PATIENCE = 40     -- seconds until a silent peer is given up; longer than BLOCK below

local function open(port)
  local s = assert(socket.connect("127.0.0.1", port))
  s:settimeout(PATIENCE)
  s:setoption("tcp-nodelay", true)
  return s
end

--- One GET on a connection that stays open. Returns the status.
local function call(s, path)
  assert(s:send(("GET %s HTTP/1.1\r\nHost: downstream\r\n\r\n"):format(path)))
  local status = assert(s:receive "*l"):match "^HTTP/1%.1 (%d+)"
  local length = 0
  for line in function () return assert(s:receive "*l") end do
    if line == "" then break end
    length = tonumber(line:lower():match "^content%-length: *(%d+)") or length
  end
  if length > 0 then assert(s:receive(length)) end
  return tonumber(status)
end

--- One RESP command, as every Redis client sends it.
local function command(s, ...)
  local parts = { ("*%d\r\n"):format(select("#", ...)) }
  for _, word in ipairs { ... } do parts[#parts + 1] = ("$%d\r\n%s\r\n"):format(#word, word) end
  assert(s:send(table.concat(parts)))
end

--- One RESP reply: text, a number, nil, or a list of them.
local function reply(s)
  local kind, rest = assert(s:receive "*l"):match "^(.)(.*)"
  local n = tonumber(rest)
  if kind == "+" then return rest end
  if kind == ":" then return n end
  if kind == "$" then return n >= 0 and assert(s:receive(n + 2)):sub(1, -3) or nil end
  if kind ~= "*" then error("the worker said: " .. rest, 0) end
  local list = {}
  for i = 1, n do list[i] = reply(s) end
  return list
end

local http_port, path, calls, worker_port = arg[1], arg[2], tonumber(arg[3]), arg[4]
local downstream = open(http_port)
local worker = worker_port and open(worker_port)
local served = 0

while served < calls do
  if worker then
    command(worker, "NEAP.ACQUIRE", "api", "BLOCK", "30000")
    local verdict = reply(worker)
    if verdict[1] ~= "GRANTED" then error("the worker answered " .. tostring(verdict[1]), 0) end
  end
  local status = call(downstream, path)
  if status == 204 then
    served = served + 1
  elseif status ~= 429 then
    error("the downstream answered " .. tostring(status), 0)
  else
    socket.sleep(PAUSE)
  end
end
