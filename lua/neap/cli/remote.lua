--- A worker asked from Lua, one question at a time: a thin client over hiredis.
---
--- It blocks its caller, so it is for programs that have nothing else to do, such as `neap exec`;
--- inside a loop, any Redis client of that loop's does.
---
---     local worker = assert(remote.dial("127.0.0.1:6390"))
---     local verdict, err = worker:ask("NEAP.ACQUIRE", "openai", "BLOCK", "5000")
local ffi = require "ffi"
local address = require "neap.policy.address"
local system = require "neap.cli.system"

local assert, ipairs, pcall, setmetatable = assert, ipairs, pcall, setmetatable
local tonumber, tostring = tonumber, tostring

local FD_CLOEXEC, F_SETFD = 1, 2
local CONNECT_S = 5
local POLLIN = 1

-- File names, whose versions stay as long as the structs do; and the shape of its replies.
local LIBRARIES = {
  { "libhiredis.so.0.14", "struct neap_hiredis_reply_0 *" },
  { "libhiredis.so.1.1.0", "struct neap_hiredis_reply_1 *" },
}

-- Of its replies.
local TEXT, ARRAY, INTEGER, NIL, STATUS, ERROR = 1, 2, 3, 4, 5, 6

local library, reply_t

local function load()
  if library then return true end
  for _, one in ipairs(LIBRARIES) do
    local found, it = pcall(ffi.load, one[1])
    if found then
      library, reply_t = it, ffi.typeof(one[2])
      return true
    end
  end
  return nil, "hiredis is not installed (Debian: libhiredis0.14)"
end

---@class neap.Remote
---@field private wire ffi.cdata*
---@field address string
local remote = {}
remote.__index = remote

--- What stands for nil in a list.
remote.null = setmetatable({}, { __tostring = function () return "null" end })

local function value_of(reply)
  local kind = reply.type
  if kind == TEXT or kind == STATUS then return ffi.string(reply.text, reply.size) end
  if kind == INTEGER then return tonumber(reply.integer) end
  if kind == NIL then return remote.null end
  assert(kind == ARRAY, "a reply of kind " .. kind)
  local list = {}
  for i = 1, tonumber(reply.count) do list[i] = value_of(reply.element[i - 1]) end
  return list
end

--- Connect. Programs that are started later do not inherit the connection.
---@param where string  "127.0.0.1:6390", "[::1]:6390", "localhost:6390", "unix:/run/neap.sock"
---@return neap.Remote?
---@return string? message
function remote.dial(where)
  local parsed, problem = address.parse(where)
  if not parsed then return nil, ("address '%s': %s"):format(where, problem) end
  local there, missing = load()
  if not there then return nil, missing end
  local patience = ffi.new("struct neap_timeval", CONNECT_S, 0)
  local wire = parsed.path and library.redisConnectUnixWithTimeout(parsed.path, patience)
    or library.redisConnectWithTimeout(parsed.host, parsed.port, patience)
  if wire == nil then return nil, "there is not enough memory" end
  if wire.err ~= 0 then
    problem = ffi.string(wire.errstr)
    library.redisFree(wire)
    return nil, ("no worker at %s: %s"):format(where, problem)
  end
  system.fcntl(wire.fd, F_SETFD, ffi.cast("int", FD_CLOEXEC))
  return setmetatable({ wire = ffi.gc(wire, library.redisFree), address = where }, remote)
end

--- Ask, and wait for the answer: a text, a number, remote.null or a list of these. An answer that
--- is an error, or a connection that broke, is nil and a message; `lost` says that it broke.
---@param ... string|integer
---@return any answer
---@return string? message
---@return true? lost
function remote:ask(...)
  local words = { ... }
  local argv, size = ffi.new("const char *[?]", #words), ffi.new("size_t[?]", #words)
  for i, word in ipairs(words) do
    words[i] = tostring(word)
    argv[i - 1], size[i - 1] = words[i], #words[i]
  end
  local raw = library.redisCommandArgv(self.wire, #words, argv, size)
  if raw == nil then
    return nil, ("lost the worker at %s: %s"):format(self.address,
      ffi.string(self.wire.errstr)), true
  end
  local reply = ffi.cast(reply_t, raw)
  local answer, message
  if reply.type == ERROR then
    message = ffi.string(reply.text, reply.size)
  else
    answer = value_of(reply)
  end
  library.freeReplyObject(raw)
  return answer, message
end

--- Log in, when the environment has a password.
---@param user string?
---@return any
---@return string? message
function remote:log_in(user)
  local password = os.getenv "NEAP_PASSWORD"
  if not password then return true end
  if user then return self:ask("AUTH", user, password) end
  return self:ask("AUTH", password)
end

--- What comes by itself, after a SUBSCRIBE: the next of it, waited for at most so long.
---@param wait_ms integer
---@return any message    nil: none came
---@return string? lost   the connection broke
function remote:next(wait_ms)
  local raw = ffi.new "void *[1]"
  local fds = ffi.new("struct neap_pollfd[1]", { { self.wire.fd, POLLIN, 0 } })
  local fine = library.redisGetReplyFromReader(self.wire, raw) == 0
  if fine and raw[0] == nil then
    if system.poll(fds, 1, wait_ms) <= 0 then return nil end
    fine = library.redisBufferRead(self.wire) == 0
      and library.redisGetReplyFromReader(self.wire, raw) == 0
  end
  if not fine then
    return nil, ("lost the worker at %s: %s"):format(self.address, ffi.string(self.wire.errstr))
  end
  if raw[0] == nil then return nil end
  local message = value_of(ffi.cast(reply_t, raw[0]))
  library.freeReplyObject(raw[0])
  return message
end

--- Hang up.
function remote:close()
  library.redisFree(ffi.gc(self.wire, nil))
  self.wire = nil
end

return remote
