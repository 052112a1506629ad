--- The downstream for machines without nginx: the same answers, the same log, the same rule.
--
--      luajit server.lua PORT RATE BURST LOG
--
-- The rule is nginx's limit_req with nodelay. `owed` counts the calls let through; it drains with
-- the rate, and a call that would leave more than BURST + 1 of them owed is refused.
local socket = require "socket"

local rate, burst = tonumber(arg[2]), tonumber(arg[3])
local log = assert(io.open(arg[4], "a"))
local listener = assert(socket.bind("127.0.0.1", arg[1]))
listener:settimeout(0)

local ANSWERS = {
  [204] = "HTTP/1.1 204 No Content\r\n\r\n",
  [429] = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
}

local owed, since = 0, 0

local function judge(now)
  owed = math.max(0, owed - rate * math.max(0, now - since))
  since = math.max(since, now)
  if owed > burst then return 429 end
  owed = owed + 1
  return 204
end

local sockets = { listener }
local heads = {}        -- per connection: the lines of a request, until its empty line

local function leave(s)
  s:close()
  heads[s] = nil
  for i, other in ipairs(sockets) do
    if other == s then table.remove(sockets, i) end
  end
end

--- Take the lines that are there. What remains of an unfinished one is handed back to the socket's
--- buffer as a prefix by the next receive.
local function serve(s)
  local head = heads[s]
  while true do
    local line, why, part = s:receive("*l", head.rest)
    head.rest = part
    if not line then
      if why ~= "timeout" then leave(s) end
      return
    elseif line ~= "" then
      head.path = head.path or line:match "^GET (%S+) HTTP/1%.1$" or "-"
    else
      local now = socket.gettime()
      local status = judge(now)
      log:write(("%.3f %d %s\n"):format(now, status, head.path))
      log:flush()
      head.path = nil
      s:send(ANSWERS[status])
    end
  end
end

while true do
  for _, s in ipairs((socket.select(sockets))) do
    if s == listener then
      local new = listener:accept()
      if new then
        new:settimeout(0)
        new:setoption("tcp-nodelay", true)
        sockets[#sockets + 1] = new
        heads[new] = {}
      end
    else
      serve(s)
    end
  end
end
