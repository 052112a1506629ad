--- The floor: the commands every Redis client expects of whatever it connects to. They come to see
--- whether anybody is at home, who is asked for a password and which protocol is spoken; none of
--- them takes a permit.
---
--- What their handlers know of the worker:
---
---     server      struct neap_server       commands   neap.Commands
---     keys        struct neap_keys, or nil
---     users       neap.User by name, or nil when nobody needs to log in
---     now()       the clock the server is given, ns         wall()  seconds since 1970
---     started     when it began, ns                         version
---     forget(client)     it listens to nothing any more; nil: nobody listens
---     unblock(client, with_error)   let a parked caller go: whether there was one; nil: never
---     shut_down()        begin to end; nil: that cannot be asked for
---     sections           { [name] = function (floor) return { { field, value }, ... } end },
---                        more of INFO, or nil
local ffi = require "ffi"
local C = require "neap.engine"
local about = require "neap.worker.about"
local clients = require "neap.worker.clients"
local commands = require "neap.worker.commands"
local reply = require "neap.worker.reply"
local users = require "neap.worker.users"

local ipairs, pairs, tonumber = ipairs, pairs, tonumber
local fail, integer, map, ok, write = reply.fail, commands.integer, reply.map, reply.ok, reply.write

local SPOKEN_VERSION = about.SPOKEN_VERSION

local NO_USERS = "ERR AUTH <password> called without any password configured for the default " ..
  "user. Are you sure your configuration is correct?"
local HELLO_FIRST = "NOAUTH HELLO must be called with the client already authenticated, " ..
  "otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client " ..
  "and select the RESP protocol version at the same time"
local WRONG = "WRONGPASS invalid username-password pair or user is disabled."

--- Log a client in, or tell it why not.
local function log_in(to, worker, command, name, password)
  if not worker.users and name == "default" then return true end
  local user = worker.users and users.admit(worker.users, name, password)
  if not user then
    fail(to, WRONG)
    return false
  end
  C.neap_server_login(worker.server, command.client, name, user.rights)
  return true
end

local function auth(to, words, worker, command)
  if #words > 2 then return fail(to, "ERR syntax error") end
  if #words == 1 and not (worker.users and worker.users.default) then return fail(to, NO_USERS) end
  local name, password = words[2] and words[1] or "default", words[2] or words[1]
  if log_in(to, worker, command, name, password) then ok(to) end
end

--- The options of HELLO: name and password, or nil; the client's name, or nil. false: was told.
local function hello_options(to, words)
  local login, name
  local i = 2
  while i <= #words do
    local option = words[i]:upper()
    if option == "AUTH" and words[i + 2] then
      login, i = { words[i + 1], words[i + 2] }, i + 3
    elseif option == "SETNAME" and words[i + 1] then
      name, i = words[i + 1], i + 2
    else
      fail(to, ("ERR Syntax error in HELLO option '%s'"):format(words[i]:sub(1, 128)))
      return false
    end
  end
  return login, name
end

local function hello(to, words, worker, command)
  local proto = command.proto
  if words[1] then
    proto = integer(words[1])
    if not proto then return fail(to, "ERR Protocol version is not an integer or out of range") end
    if proto < 2 or proto > 3 then return fail(to, "NOPROTO unsupported protocol version") end
  end
  local login, name = hello_options(to, words)
  if login == false then return end
  if name and not clients.is_name(name) then return fail(to, clients.BAD_NAME) end
  if login and not log_in(to, worker, command, login[1], login[2]) then return end
  local facts = clients.facts(worker.server, command.client)
  if facts and facts.admitted == 0 then return fail(to, HELLO_FIRST) end
  if name then C.neap_server_label(worker.server, command.client, C.NEAP_NAME, name) end
  C.neap_server_speak(worker.server, command.client, proto)
  write(C.neap_server_reply(worker.server, command.client), map {
    { "server", "neap" }, { "version", SPOKEN_VERSION }, { "proto", proto },
    { "id", tonumber(command.client) }, { "mode", "standalone" }, { "role", "master" },
    { "modules", {} },
  })
end

local function reset(_, _, worker, command)
  local server, client = worker.server, command.client
  if worker.forget then worker.forget(tonumber(client)) end
  C.neap_server_mute(server, client, C.NEAP_HEAR)
  C.neap_server_speak(server, client, 2)
  C.neap_server_label(server, client, C.NEAP_NAME, "")
  C.neap_server_logout(server, client)
  local to = C.neap_server_reply(server, client)
  C.neap_reply_status(to, "RESET", 5)
end

local function quit(to, _, worker, command)
  ok(to)
  C.neap_server_hang_up(worker.server, command.client)
end

local function select_db(to, words)
  local db = integer(words[1])
  if not db then return fail(to, "ERR value is not an integer or out of range") end
  if db ~= 0 then return fail(to, "ERR DB index is out of range") end
  ok(to)
end

-- ---- keys: the words CL.THROTTLE and GCRA keep -------------------------------------------------

--- The word of a key that is alive, ns, or nil.
local function word_of(worker, key)
  if not worker.keys then return end
  local hash = C.neap_keys_hash(worker.keys, key, #key)
  local word = C.neap_keys_find(worker.keys, hash, worker.now())
  if word ~= nil then return word end
end

local function exists(to, words, worker)
  local count = 0
  for _, key in ipairs(words) do if word_of(worker, key) then count = count + 1 end end
  write(to, count)
end

local function delete(to, words, worker)
  local count = 0
  for _, key in ipairs(words) do
    local word = word_of(worker, key)
    if word then word[0], count = 0, count + 1 end
  end
  write(to, count)
end

local function key_type(to, words, worker)
  local name = word_of(worker, words[1]) and "gcra" or "none"
  C.neap_reply_status(to, name, #name)
end

local function time_left(unit_ns)
  return function (to, words, worker)
    local word = word_of(worker, words[1])
    write(to, word and (word[0] - worker.now() + unit_ns - 1) / unit_ns or -2)
  end
end

local function size(to, _, worker)
  write(to, worker.keys and C.neap_keys_count(worker.keys, worker.now()) or 0)
end

local function scan(to, words)
  if not words[1]:find "^%d+$" then return fail(to, "ERR invalid cursor") end
  write(to, { "0", {} })   -- keys are kept by their hashes: there is no name to list
end

local function nobody(to) write(to, reply.null) end

local function refuse(text) return function (to) fail(to, text) end end

local KEY, KEYS = { { "key", "key" } }, { { "key", "key", multiple = true } }

---@type neap.Command[]
local list = {
  { name = "PING", arity = -1, group = "connection", flags = { "fast" }, while_subscribed = true,
    summary = "Is anybody there: PONG, or the message back.",
    arguments = { { "message", "string", optional = true } } },
  { name = "ECHO", arity = 2, group = "connection", flags = { "fast" },
    summary = "The message back.", arguments = { { "message", "string" } } },
  { name = "HELLO", arity = -1, group = "connection", need = "before_login", run = hello,
    flags = { "fast" }, summary = "Choose the protocol, log in, take a name: one round trip.",
    arguments = { { "arguments", "block", optional = true, of = {
      { "protover", "integer" },
      { "auth", "block", token = "AUTH", optional = true, of = {
        { "username", "string" }, { "password", "string" } } },
      { "clientname", "string", token = "SETNAME", optional = true } } } } },
  { name = "AUTH", arity = -2, group = "connection", need = "before_login", run = auth,
    flags = { "fast" }, summary = "Log in.",
    arguments = { { "username", "string", optional = true }, { "password", "string" } } },
  { name = "QUIT", arity = -1, group = "connection", need = "before_login", run = quit,
    flags = { "fast" }, while_subscribed = true, summary = "Answer, then close the connection." },
  { name = "RESET", arity = 1, group = "connection", need = "before_login", run = reset,
    flags = { "fast" }, while_subscribed = true, summary = "As if just connected." },
  { name = "SELECT", arity = 2, group = "connection", run = select_db, flags = { "fast" },
    summary = "There is one database, 0.", arguments = { { "index", "integer" } } },
  { name = "EXISTS", arity = -2, group = "generic", need = "read", run = exists,
    keys = { 1, -1, 1 }, flags = { "readonly", "fast" }, complexity = "O(N) in the number of keys",
    summary = "How many of these keys are not as good as new.", arguments = KEYS },
  { name = "DEL", arity = -2, group = "generic", need = "admin", run = delete, keys = { 1, -1, 1 },
    flags = { "write" }, complexity = "O(N) in the number of keys",
    summary = "Forgive what these keys spent.", arguments = KEYS },
  { name = "UNLINK", arity = -2, group = "generic", need = "admin", run = delete,
    keys = { 1, -1, 1 }, flags = { "write", "fast" }, complexity = "O(N) in the number of keys",
    summary = "The same as DEL.", arguments = KEYS },
  { name = "TYPE", arity = 2, group = "generic", need = "read", run = key_type, keys = { 1, 1, 1 },
    flags = { "readonly", "fast" }, summary = "gcra, or none.", arguments = KEY },
  { name = "PTTL", arity = 2, group = "generic", need = "read", run = time_left(1000000LL),
    keys = { 1, 1, 1 }, flags = { "readonly", "fast" },
    summary = "Milliseconds until the key is as good as new, or -2.", arguments = KEY },
  { name = "TTL", arity = 2, group = "generic", need = "read", run = time_left(1000000000LL),
    keys = { 1, 1, 1 }, flags = { "readonly", "fast" },
    summary = "Seconds until the key is as good as new, or -2.", arguments = KEY },
  { name = "GET", arity = 2, group = "generic", need = "read", run = nobody, keys = { 1, 1, 1 },
    flags = { "readonly", "fast" }, summary = "Always nil: there are no values here.",
    arguments = KEY },
  { name = "DBSIZE", arity = 1, group = "server", need = "read", run = size, flags = { "readonly" },
    complexity = "O(N) in the size of the table", summary = "Keys that are not as good as new." },
  { name = "SCAN", arity = -2, group = "generic", need = "read", run = scan, flags = { "readonly" },
    summary = "Always empty: keys are kept by their hashes.",
    arguments = { { "cursor", "integer" },
      { "pattern", "pattern", token = "MATCH", optional = true },
      { "count", "integer", token = "COUNT", optional = true } } },
  { name = "CL.THROTTLE", arity = -5, group = "generic", need = "acquire", keys = { 1, 1, 1 },
    flags = { "write", "fast" }, run = refuse "ERR there is no table of keys",
    summary = "Take from a limit kept under a key, as the redis-cell module does.",
    arguments = { { "key", "key" }, { "max_burst", "integer" }, { "count", "integer" },
      { "period", "integer" }, { "quantity", "integer", optional = true } } },
  { name = "GCRA", arity = -5, group = "generic", need = "acquire", keys = { 1, 1, 1 },
    flags = { "write", "fast" }, run = refuse "ERR there is no table of keys",
    summary = "The same, with a period that may have a fraction.",
    arguments = { { "key", "key" }, { "max-burst", "integer" }, { "tokens-per-period", "integer" },
      { "period", "double" }, { "count", "integer", token = "TOKENS", optional = true } } },
  { name = "CLUSTER", arity = -2, group = "server", need = "read",
    run = refuse "ERR This instance has cluster support disabled",
    summary = "Always an error: there is no cluster.",
    arguments = { { "subcommand", "string" } } },
  { name = "SENTINEL", arity = -2, group = "server", need = "read",
    run = refuse "ERR This instance is no sentinel",
    summary = "Always an error: there is no sentinel.",
    arguments = { { "subcommand", "string" } } },
}

-- PING and ECHO never come this far.
for _, entry in ipairs(list) do
  entry.run = entry.run or refuse "ERR answered elsewhere"
end

local floor = {}

--- Make the floor's commands known to the worker's server, and handlers for them to the worker.
---@param worker neap.Worker  its server, loop, keys and handlers; unblock and shut_down, or not
---@param tree neap.tree      whose users may log in
---@param own neap.Command[]  the worker's, beside the floor's
---@return table              what the handlers know of it; `users` may be written
function floor.define(worker, tree, own)
  local now = worker.clock or function () return C.neap_loop_now(worker.loop) end
  local self = {
    server = worker.server, keys = worker.keys, users = users.of(tree), now = now, wall = os.time,
    started = now(), version = ffi.string(C.neap_version), sections = worker.sections,
    forget = worker.forget, pubsub = worker.pubsub,
    unblock = worker.unblock and function (...) return worker.unblock(worker, ...) end,
    shut_down = worker.shut_down and function () worker.shut_down() end,
    commands = commands.new(worker.server),
  }
  self.commands:define(list)
  self.commands:define(clients.list)
  self.commands:define(about.list)
  self.commands:define(own)
  for kind in pairs(self.commands.by_kind) do
    worker.handlers[kind] = function (_, command)
      local bug = self.commands:dispatch(self, command)
      if bug then worker.log:error("bug", "bug", bug) end
    end
  end
  return self
end

return floor
