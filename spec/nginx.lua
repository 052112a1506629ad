--- A real nginx for a spec, with its Lua module: on a Unix socket, in a directory of its own, and
--- gone with both when the spec is over. And requests to it, many at once.
local lfs = require "lfs"
local process = require "spec.process"
local socket = require "socket"
local unix = require "socket.unix"

local assert, concat, ipairs, pairs = assert, table.concat, ipairs, pairs
local setmetatable, tonumber, type = setmetatable, tonumber, type

local BUILD = assert(os.getenv "NEAP_BUILD", "NEAP_BUILD: the build tree; spec/run sets it")
local MODULES = "/usr/lib/nginx/modules/"
local PATIENCE_S = 20

local CONF = [[
daemon off;
user @user@;
worker_processes @workers@;
pid nginx.pid;
error_log error.log notice;
@modules@
@main@
events { worker_connections 2048; }
http {
	access_log off;
	client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3; uwsgi_temp_path t4;
	scgi_temp_path t5;
	lua_package_path "@build@/share/lua/5.1/?.lua;@build@/share/lua/5.1/?/init.lua;;";
	@http@
	server {
		listen unix:@dir@/s backlog=2048;
		@listen@
		@server@
	}
}
]]

-- It has itself replaced only if its parent is not the one that started it, which therefore ends.
local ORPHAN = [[
  "$(command -v nginx)" "$@" &
  while [ ! -s "$4/nginx.pid" ] && kill -0 $! 2>/dev/null; do sleep 0.01; done
]]

local nginx = {}
nginx.__index = nginx

--- Is it installed, with what it needs? Sanitized libraries cannot be loaded into it.
---@return boolean
function nginx.is_here()
  local has = lfs.attributes(MODULES .. "ngx_http_lua_module.so")
    and process.output "PATH=$PATH:/usr/sbin; command -v nginx" ~= ""
  return has and not BUILD:find "san" or false
end

--- A port of the loopback interface that nobody listens on, for programs without Unix sockets.
local function unused_port()
  local one = assert(socket.bind("127.0.0.1", 0))
  local _, port = one:getsockname()
  one:close()
  return port
end

--- Write its configuration: `http` and `server`, where those blocks go, and `main`, outside of
--- them; or `conf` is all of it, with the address it listens on. Once it runs, HUP has it read
--- that.
---@param options { workers: integer?, user: string?, main: string?, server: string?, conf: string?,
---  http: string|(fun(dir: string): string)|nil }
function nginx:configure(options)
  self.options = options
  local modules = {}
  for i, name in ipairs { "ndk_http", "ngx_http_lua" } do
    modules[i] = ("load_module %s%s_module.so;"):format(MODULES, name)
  end
  local http = options.http
  if type(http) == "function" then http = http(self.dir) end
  local with = { workers = options.workers or 1, user = options.user or "root",
    main = options.main or "", http = http, server = options.server, dir = self.dir, build = BUILD,
    modules = concat(modules, "\n"),
    listen = self.port and ("listen 127.0.0.1:%d reuseport;"):format(self.port) or "" }
  local file = assert(io.open(self.dir .. "/nginx.conf", "w"))
  file:write((options.conf and options.conf:gsub("127.0.0.1:%d+;", ("unix:%s/s;"):format(self.dir))
    or CONF:gsub("@(%w+)@", with)))
  file:close()
end

--- Start one, as `configure` says. `tcp`: it listens on a `port`, too, whose connections the kernel
--- spreads over its workers. `upgrades`: it is one that can be told to.
---@param options table
function nginx.start(options)
  local dir = process.unused_path()
  assert(lfs.mkdir(dir))
  local self = setmetatable({ dir = dir, port = options.tcp and unused_port() or nil }, nginx)
  self:configure(options)
  self.process = process.start { "env", "PATH=" .. os.getenv "PATH" .. ":/usr/sbin", "sh", "-c",
    options.upgrades and ORPHAN or "exec nginx \"$@\"", "sh",
    "-e", dir .. "/error.log", "-p", dir, "-c", "nginx.conf" }
  local give_up = socket.gettime() + PATIENCE_S
  while not pcall(function () self:dial():close() end) do
    if socket.gettime() > give_up or self:log():find "%[emerg%]" then
      error("nginx does not start: " .. self:log())
    end
    socket.sleep(0.01)
  end
  if options.upgrades then
    process.eventually(function () return self:master() end)   -- it listens before it writes that
    local parent = "/proc/" .. self.process.pid
    process.eventually(function () return not lfs.attributes(parent) end)
    self.process.pid = self:master()
  end
  return self
end

--- The pid of its master, as its file says; of the former one while there are two.
---@param former boolean?
---@return string?
function nginx:master(former)
  local file = io.open(self.dir .. (former and "/nginx.pid.oldbin" or "/nginx.pid"))
  local pid = file and file:read "*l"
  if file then file:close() end
  return pid
end

--- Have it start another master, with workers of its own, beside the old one; for `upgrades`.
function nginx:upgrade()
  local old = self.process.pid
  self:signal "USR2"
  process.eventually(function ()
    local new = self:master()
    return new and new ~= old and self:master(true) == old
  end)
  self.process.pid = self:master()
end

--- What it wrote to its error log.
---@param pattern string?  only lines with this
function nginx:log(pattern)
  local lines = {}
  local file = io.open(self.dir .. "/error.log")
  for line in file and file:lines() or function () end do
    if not pattern or line:find(pattern) then lines[#lines + 1] = line end
  end
  if file then file:close() end
  return concat(lines, "\n")
end

function nginx:signal(name) self.process:signal(name) end

--- Its workers, by pid; or those of another master.
---@param master string?
---@return integer[]
function nginx:workers(master)
  local pids, pid = {}, master or self.process.pid
  local file = assert(io.open(("/proc/%s/task/%s/children"):format(pid, pid)))
  for each in file:read "*a":gmatch "%d+" do pids[#pids + 1] = tonumber(each) end
  file:close()
  return pids
end

--- End it, and all that is left of it.
---@param how string?  a signal; QUIT lets requests finish
function nginx:stop(how)
  if not self.process then return end
  local former = self:master(true)
  if former then os.execute("kill -KILL " .. former .. " 2>/dev/null") end
  self.process:stop(how or "TERM")
  self.process = nil
  os.execute("rm -rf " .. process.quoted(self.dir))
end

-- ---- requests ----------------------------------------------------------------------------------

function nginx:dial()
  local wire = self.port and assert(socket.connect("127.0.0.1", self.port)) or unix()
  if not self.port then assert(wire:connect(self.dir .. "/s")) end
  wire:settimeout(PATIENCE_S)
  return wire
end

--- Send a request and do not wait for its answer.
---@return table request
function nginx:send(path)
  local request = { wire = self:dial(), sent = socket.gettime(), path = path }
  assert(request.wire:send(("GET %s HTTP/1.1\r\nHost: neap\r\nConnection: close\r\n\r\n"):format(
    path)))
  return request
end

local function parse(request, text)
  request.answered = socket.gettime()
  request.took = request.answered - request.sent
  request.status = tonumber(text:match "^HTTP/1.1 (%d+)")
  local head, body = text:match "^(.-)\r\n\r\n(.*)$"
  request.headers = {}
  for name, value in (head or ""):gmatch "\r\n([^:\r\n]+): ([^\r\n]*)" do
    request.headers[name:lower()] = value
  end
  if request.headers["transfer-encoding"] then
    body = body:gsub("%x+\r\n(.-)\r\n", "%1")
  end
  request.body = body
  request.wire:close()
  return request
end

--- The answers to these requests, in the order in which they come.
---@param requests table[]
---@return table[]
function nginx.answers(requests)
  local by_wire, wires, ended = {}, {}, {}
  for i, request in ipairs(requests) do
    by_wire[request.wire], wires[i] = request, request.wire
    request.parts = {}
    request.wire:settimeout(0)
  end
  while wires[1] do
    local ready = socket.select(wires, nil, PATIENCE_S)
    assert(ready[1], "no answer")
    for _, wire in ipairs(ready) do
      local request = by_wire[wire]
      local all, why, part = wire:receive "*a"
      request.parts[#request.parts + 1] = all or part
      if all or why ~= "timeout" then
        for i, one in pairs(wires) do
          if one == wire then
            table.remove(wires, i)
            break
          end
        end
        ended[#ended + 1] = parse(request, concat(request.parts))
      end
    end
  end
  return ended
end

--- The answer to one.
function nginx:get(path) return nginx.answers { self:send(path) }[1] end

return nginx
