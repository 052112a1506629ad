--- Where a worker listens: "127.0.0.1:6390", "[::1]:6390", "localhost:6390", "unix:/run/neap.sock".
--
-- Numbers only: a name that resolves today to loopback may resolve to the world tomorrow, and
-- whether an address is private decides whether a worker without users may serve it.
local tonumber, type = tonumber, type

local LONGEST_PATH = 107     -- what sun_path holds, less its zero

local address = {}

local function octets(host)
  local a, b, c, d = host:match "^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$"
  return a and tonumber(a) < 256 and tonumber(b) < 256 and tonumber(c) < 256 and tonumber(d) < 256
end

-- Up to eight groups of hex digits; "::" stands for at least one group, once.
local function groups(host)
  local rest, jump = host:gsub("::", ":!:")
  if jump > 1 or host:find ":::" or not host:find "^[%x:]+$" then return false end
  if host:find "^:[^:]" or host:find "[^:]:$" then return false end
  local count = 0
  for group in rest:gmatch "%x+" do
    if #group > 4 then return false end
    count = count + 1
  end
  return jump == 1 and count < 8 or jump == 0 and count == 8
end

---@class neap.address
---@field host string?
---@field port integer?
---@field path string?
---@field private boolean   reached from this machine only

--- Read an address.
---
---     neap.policy.address "[::1]:6390"     --> { host = "::1", port = 6390, private = true }
---     neap.policy.address "6390"            --> nil, "host:port or unix:/path expected, …", 1
---
---@param text string
---@return neap.address? address
---@return string? message
---@return integer? position
function address.parse(text)
  if type(text) ~= "string" then return nil, "text expected, got " .. type(text), 1 end
  local path = text:match "^unix:(.*)$"
  if path then
    if path == "" then return nil, "a path after 'unix:' expected", 6 end
    if #path > LONGEST_PATH then return nil, "a socket's path is at most 107 bytes", 6 end
    if path:find "%z" then return nil, "a socket's path has no zero byte", 6 end
    return { path = path, private = true }
  end

  local host, port = text:match "^%[(.*)%]:([^:]*)$"
  local six = host ~= nil
  if not six then host, port = text:match "^([^:]*):([^:]*)$" end
  if not host then
    return nil, 'host:port or unix:/path expected, as in "127.0.0.1:6390"', 1
  end
  local at = #text - #port + 1
  local number = port:find "^%d+$" and tonumber(port)
  if six and not groups(host) or not six and host ~= "localhost" and not octets(host) then
    local hint = host == "*" and ": write 0.0.0.0 for all addresses" or ""
    return nil, "an IP address or 'localhost' expected before the port" .. hint, six and 2 or 1
  elseif not number then
    return nil, "a port number expected", at
  elseif number < 1 or number > 65535 then
    return nil, ("port %s is outside 1 to 65535"):format(port:sub(1, 20)), at
  end
  local private = host == "localhost" or host:find "^127%." ~= nil
  if six then private = host:find "^[0:]*:0*1$" ~= nil end
  return { host = host, port = number, private = private }
end

return address
