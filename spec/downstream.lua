--- A downstream for specs: a real nginx that refuses, as told or by a limit of its own.
---
---     local server = downstream.start()
---     local path = server:script "503 429:1 200"
---     server:call("GET", path "a/0")             -- { status = 503, headers = {}, … }
---     server:calls()                             -- what its log says: the witness
---     server:stop()
---
--- A script is what the first call is answered, the second, and so on; after that the last goes on.
---
---     503           a status; 444: no answer, the connection is closed
---     429:2         Retry-After: 2
---     429:250ms     Retry-After-Ms: 250
---     429:1date     Retry-After: the date in a second, which is a whole one
---     200/60ms      it takes so long
---
--- Paths of `limited` meet a limit of nginx itself: 5/s, 2 at once, and Retry-After-Ms: 500 for
--- who is refused. It has no port but a Unix socket, in a directory of its own. What it is to do is
--- written a second time, for virtual time, in spec/model/downstream.lua.
local process = require "spec.process"
local runtime = require "neap.runtime"
local socket = require "socket"
local unix = require "socket.unix"

local assert, ipairs, setmetatable, tonumber = assert, ipairs, setmetatable, tonumber
local floor, max = math.floor, math.max

local MODULES = "/usr/lib/nginx/modules"
local POLL_S = 0.001   -- who waits for an answer looks so often, and the others run meanwhile
local PATIENCE_S = 20

local downstream = {}
downstream.__index = downstream

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

--- Is there an nginx that knows Lua?
function downstream.is_there()
  local _, status = process.output(("PATH=$PATH:/usr/sbin; command -v nginx && test -f %s/%s")
    :format(MODULES, "ngx_http_lua_module.so"))
  return status == 0
end

function downstream.start()
  local dir = process.output "mktemp -d":match "%S+"
  local self = setmetatable({ dir = dir, scripts = 0, slowest = 0 }, downstream)
  local conf = assert(io.open(dir .. "/nginx.conf", "w"))
  conf:write((read "spec/downstream.conf":gsub("@(%l+)@", { dir = dir, modules = MODULES })))
  conf:close()
  self.nginx = process.start { "env", "PATH=" .. os.getenv "PATH" .. ":/usr/sbin", "nginx", "-p",
    dir, "-c", dir .. "/nginx.conf", "-e", "stderr" }
  process.eventually(function () return unix():connect(dir .. "/http") end)
  return self
end

--- End it. What it said besides its log: nothing, when all is well.
---@return string
function downstream:stop()
  local said = self.nginx:stop()
  os.execute("rm -rf " .. self.dir)
  return said
end

--- The paths of a new script, of which each caller makes its own.
---@param words string
---@return fun(name: string): string
function downstream:script(words)
  self.scripts = self.scripts + 1
  local prefix, query = ("/play/%d/"):format(self.scripts), "?" .. words:gsub(" ", ",")
  return function (name) return prefix .. name .. query end
end

--- The paths of a new bucket, in which nginx limits by itself.
---@return fun(name: string): string
function downstream:limited()
  self.scripts = self.scripts + 1
  local prefix = ("/limited/%d/"):format(self.scripts)
  return function (name) return prefix .. name end
end

-- ---- calling ----------------------------------------------------------------------------------

--- All that comes until the other side closes; the task waits in between.
local function hear(wire)
  local text, tries = "", 0
  while true do
    local rest, problem, part = wire:receive "*a"
    text = text .. (rest or part)
    if rest or problem ~= "timeout" then return text end
    tries = tries + 1
    assert(tries < PATIENCE_S / POLL_S, "no answer")
    local slept, why = runtime.sleep(POLL_S)
    if not slept then return nil, why end
  end
end

--- A call over a connection of its own, made from a task.
---@return { status: integer, headers: { [1]: string, [2]: string }[] }?
---@return string? why  "closed" without an answer, "cancelled"
function downstream:call(method, path)
  local wire, began = unix(), socket.gettime()
  assert(wire:connect(self.dir .. "/http"))
  wire:settimeout(0)
  assert(wire:send(("%s %s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"):format(method, path)))
  local text, why = hear(wire)
  wire:close()
  self.slowest = max(self.slowest, socket.gettime() - began)
  if not text then return nil, why end
  if text == "" then return nil, "closed" end
  local answer = { status = tonumber(text:match "^HTTP/1%.1 (%d+)"), headers = {} }
  for name, value in text:match "^(.-\r\n)\r\n":gmatch "\n([%w-]+): ([^\r]*)" do
    answer.headers[#answer.headers + 1] = { name, value }
  end
  return answer
end

local function milliseconds(text) return floor(text * 1000 + 0.5) end

--- What was logged since it was asked last, in order of arrival: `at` and `ends` are milliseconds
--- of the system's clock.
---@return { at: integer, ends: integer, nth: integer, at_once: integer, status: integer,
---  method: string, name: string }[]
function downstream:calls()
  self.log = self.log or assert(io.open(self.dir .. "/calls.log"))
  self.log:seek "cur"   -- an end of file that was met is forgotten
  local list = {}
  for line in self.log:lines() do
    local ends, took, nth, at_once, status, method, name = line:match
      "^(%S+) (%S+) (%d+) (%d+) (%d+) (%u+) /%l+/[%d/]*(%S+)$"
    ends = milliseconds(ends)
    list[#list + 1] = { at = ends - milliseconds(took), ends = ends, nth = tonumber(nth),
      at_once = tonumber(at_once), status = tonumber(status), method = method, name = name }
  end
  for i, call in ipairs(list) do call.line = i end
  table.sort(list, function (a, b)
    if a.nth ~= b.nth then return a.nth < b.nth end
    return a.line < b.line
  end)
  return list
end

return downstream
