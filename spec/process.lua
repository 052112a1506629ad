--- Programs started for a spec: a worker, and whoever talks to it. Real processes, real sockets.
---
--- What a worker says is read through one pipe, its exit status comes last in it. Children inherit
--- our sockets, so a peer hangs up by shutting its socket down: closing it would not be enough.
local socket = require "socket"
local unix = require "socket.unix"

local assert, concat, ipairs, pairs = assert, table.concat, ipairs, pairs
local setmetatable, tonumber, tostring = setmetatable, tonumber, tostring

local BIN = (os.getenv "NEAP_BUILD" or "build") .. "/bin/neap"
local PATIENCE_S = 20   -- for anything at all; sanitizers are slow

local process = {}

function process.quoted(word) return "'" .. tostring(word):gsub("'", "'\\''") .. "'" end

local function quoted_all(words)
  local list = {}
  for i, word in ipairs(words) do list[i] = process.quoted(word) end
  return concat(list, " ")
end

--- A file with this text, under a name of its own.
function process.file(text)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  return path
end

--- A name under /tmp that nothing has.
function process.unused_path()
  local path = os.tmpname()
  os.remove(path)
  return path
end

--- What a shell command says, on both streams; and its exit status.
---@return string text, integer status
function process.output(command)
  local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1; echo \" $?\""))
  local text, status = pipe:read "*a":match "^(.*) (%d+)\n$"
  pipe:close()
  return text, tonumber(status)
end

--- What `neap …` says on standard output, what on standard error; and its exit status.
---@return string out, string err, integer status
function process.neap(...)
  local errors = os.tmpname()
  local pipe = assert(io.popen(("%s %s 2>%s; echo $?"):format(process.quoted(BIN),
    quoted_all { ... }, errors)))
  local out, status = pipe:read "*a":match "^(.-)(%d+)\n$"
  pipe:close()
  local file = assert(io.open(errors))
  local err = file:read "*a"
  file:close()
  os.remove(errors)
  return out, err, tonumber(status)
end

-- ---- a process in the background ---------------------------------------------------------------

local running = {}
running.__index = running

local started = {}   -- and not waited for

--- Start a program, its words given.
function process.start(words)
  local command = ("{ sh -c 'echo $$; exec \"$@\" 2>&1' sh %s; echo \" $?\"; } 2>/dev/null"):format(
    quoted_all(words))
  local pipe = assert(io.popen(command))
  local self = setmetatable({ pipe = pipe, pid = pipe:read "*l" }, running)
  started[self] = true
  return self
end

function running:line() return self.pipe:read "*l" end

function running:signal(name) os.execute(("kill -%s %s 2>/dev/null"):format(name, self.pid)) end

--- Wait for its end: all it still said, and its exit status (128 and more: the signal's).
function running:finish()
  local text, status = self.pipe:read "*a":match "^(.-) (%d+)\n$"
  self.pipe:close()
  started[self] = nil
  text = text:gsub("^notice jit%-off [^\n]+\n", "")   -- where spec/unjitted_spec.lua runs a suite
  return text, tonumber(status)
end

--- Send it a signal, TERM unless told, and wait. A worker's words that it ends are left out.
function running:stop(name)
  self:signal(name or "TERM")
  local text, status = self:finish()
  text = text:gsub("info stopped\n$", ""):gsub("warning drained [^\n]+\n$", "")
  return (text:gsub("notice draining held=%d+\n$", "")), status
end

--- End what a spec that failed left running, but for one; for after_each.
function process.sweep(but)
  for one in pairs(started) do
    if one ~= but then one:stop "KILL" end
  end
end

--- `neap run` with this policy, listening on any port of the loopback interface or where told, with
--- these words more. It does not wait for what is held at its end, unless told. Its `port` and
--- `address` are set once it listens; without one it ended, and finish() says why.
---@param listen string?
---@param ... string
function process.worker(policy, listen, ...)
  local path = process.file(policy)
  local self = process.start { BIN, "run", "--listen", listen or "127.0.0.1:0", "--drain", "1ms",
    path, ... }
  local line = self:line()
  os.remove(path)
  self.address = line:match "^info listening address=(%S+) protocol=resp$"
  assert(self.address, line)
  self.port = self.address:match ":(%d+)$"
  return self
end

-- ---- a peer: RESP over a socket ----------------------------------------------------------------

local peer = {}
peer.__index = peer

---@param address string  "127.0.0.1:6390", "unix:/path"
function process.dial(address)
  local path = address:match "^unix:(.*)"
  local wire
  if path then
    wire = unix()
    assert(wire:connect(path))
  else
    local host, port = address:match "^(.*):(%d+)$"
    wire = assert(socket.connect(host, tonumber(port)))
    wire:setoption("tcp-nodelay", true)
  end
  wire:settimeout(PATIENCE_S)
  return setmetatable({ wire = wire }, peer)
end

function peer:send(...)
  local words = { ... }
  local parts = { ("*%d\r\n"):format(#words) }
  for i, word in ipairs(words) do
    word = tostring(word)
    parts[i + 1] = ("$%d\r\n%s\r\n"):format(#word, word)
  end
  assert(self.wire:send(concat(parts)))
end

process.null = setmetatable({}, { __tostring = function () return "null" end })

--- The next reply: RESP2's, and of RESP3 null and maps (as flat lists). An error is { err = … }.
function peer:receive()
  local line = assert(self.wire:receive "*l")
  local kind, rest = line:sub(1, 1), line:sub(2)
  if kind == "+" then return rest end
  if kind == "-" then return { err = rest } end
  if kind == ":" then return tonumber(rest) end
  if kind == "_" or rest == "-1" then return process.null end
  if kind == "$" then return (assert(self.wire:receive(tonumber(rest) + 2)):sub(1, -3)) end
  assert(kind == "*" or kind == "%", line)
  local list = {}
  for i = 1, tonumber(rest) * (kind == "%" and 2 or 1) do list[i] = self:receive() end
  return list
end

function peer:ask(...)
  self:send(...)
  return self:receive()
end

--- Send these bytes, as they are; a peer that has hung up meanwhile hears what it can.
function peer:say(bytes) self.wire:send(bytes) end

--- All that comes until the other side hangs up, or until `expected` bytes are there.
---@return string bytes, boolean closed
function peer:hear(expected)
  local bytes, problem, part = self.wire:receive(expected or "*a")
  return bytes or part, problem == "closed" or not expected
end

function peer:hang_up()
  self.wire:shutdown "both"
  self.wire:close()
end

--- Ask `question()` until it says yes; an error after too long.
function process.eventually(question)
  local give_up = socket.gettime() + PATIENCE_S
  while not question() do
    if socket.gettime() >= give_up then error("it never came to that", 2) end
    socket.sleep(0.005)
  end
end

return process
