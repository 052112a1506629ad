--- The table of commands: what there is, who may, what it says about itself, what it does.
---
--- A command is declared once, as a table, and everything follows from it: the server's checks of
--- its words and rights, COMMAND and COMMAND DOCS (which redis-cli turns into help and hints), and
--- where it is dispatched to. `run` gets the writer of the reply, the words after the name, the
--- worker and the raw command, and writes one reply, or parks the client.
local ffi = require "ffi"
local bit = require "bit"
local C = require "neap.engine"
local reply = require "neap.worker.reply"

local error, ipairs, setmetatable, tonumber = error, ipairs, setmetatable, tonumber
local concat, max = table.concat, math.max
local tostring, xpcall, traceback = tostring, xpcall, debug.traceback
local map, set, status = reply.map, reply.set, reply.status

local RIGHTS = {
  acquire = C.NEAP_ALLOW_ACQUIRE, read = C.NEAP_ALLOW_READ, events = C.NEAP_ALLOW_EVENTS,
  admin = C.NEAP_ALLOW_ADMIN, before_login = C.NEAP_BEFORE_LOGIN,
}

---@class neap.Argument
---@field [1] string             name
---@field [2] string             "string", "integer", "double", "key", "pattern", "pure-token",
---                              "oneof" or "block"
---@field token string?          the word before it
---@field optional boolean?
---@field multiple boolean?      with its token, if it has one, each time
---@field of neap.Argument[]?    for "oneof" and "block"

---@class neap.Command
---@field name string
---@field arity integer          words with the name; -n: n or more
---@field need string?           "acquire" "read" "events" "admin" "before_login"; nil: to be let in
---@field group string           "connection", "server", "generic", "pubsub" or "neap"
---@field while_subscribed boolean?  a subscriber may say it in RESP2, too
---@field summary string
---@field since string?
---@field complexity string?
---@field keys integer[]?        first, last, step: which words are keys
---@field flags string[]?        as COMMAND has them
---@field arguments neap.Argument[]?
---@field helps boolean?        it answers HELP; see commands.with_help
---@field run fun(to: ffi.cdata*, words: string[], worker: table, command: ffi.cdata*)

---@class neap.Commands
---@field server ffi.cdata*
---@field list neap.Command[]              in the order they were defined
---@field by_name table<string, neap.Command>
---@field by_kind table<integer, neap.Command>
local commands = {}
commands.__index = commands

---@param server ffi.cdata*  struct neap_server
---@return neap.Commands
function commands.new(server)
  return setmetatable({ server = server, list = {}, by_name = {}, by_kind = {} }, commands)
end

---@param declared neap.Command[]
function commands:define(declared)
  for _, command in ipairs(declared) do
    local need = command.need and RIGHTS[command.need] or 0
    if command.while_subscribed then need = need + C.NEAP_WHILE_SUBSCRIBED end
    local arity = command.helps and max(-2, command.arity) or command.arity
    if command.helps and arity > 0 then arity = -2 end
    local kind = C.neap_server_define(self.server, command.name, arity, need)
    if kind < 1 then error("command " .. tostring(command.name) .. " does not fit", 2) end
    self.list[#self.list + 1] = command
    self.by_name[command.name:lower()] = command
    self.by_kind[kind] = command
  end
end

--- Rights as a sum, from words.
---@param words string[]
---@return integer
function commands.rights(words)
  local sum = 0
  for _, word in ipairs(words) do sum = bit.bor(sum, RIGHTS[word]) end
  return sum
end

--- May this client use a right that only some forms of a command need? If not, it was told.
---@return boolean
function commands.may(to, command, right, what)
  if bit.band(command.allow, RIGHTS[right]) ~= 0 then return true end
  reply.fail(to, "NOPERM this user has no permissions to run the '" .. what .. "' command")
  return false
end

--- The words after the name.
---@return string[]
function commands.words(command)
  local words = {}
  for i = 1, command.argc - 1 do
    words[i] = ffi.string(command.argv[i].data, command.argv[i].size)
  end
  return words
end

--- A whole number as Redis reads one, or nil.
---@return integer?
function commands.integer(word)
  if word == "0" or word:find "^%-?[1-9]%d*$" then
    local n = tonumber(word)
    if n >= -2^53 and n <= 2^53 then return n end
  end
end

--- The verbs of a family ("CLIENT ID"): a table from verb to { words it takes, run }.
function commands.family(name, verbs)
  local lower = name:lower()
  return function (to, words, worker, command)
    local verb = verbs[words[1]:upper()]
    if not verb then
      return reply.fail(to, ("ERR unknown subcommand '%s'. Try %s HELP."):format(
        words[1]:sub(1, 128), name))
    end
    local least, most = verb[1], verb[2]
    if #words - 1 < least or #words - 1 > most then
      return reply.fail(to, ("ERR wrong number of arguments for '%s|%s' command"):format(
        lower, words[1]:lower()))
    end
    return verb[3](to, words, worker, command)
  end
end

--- Run what was pulled. A handler that fails is our bug: its client is told and sent away, because
--- half a reply may be written, and the others go on. Answers the message for the log then.
---@return string? bug
function commands:dispatch(worker, command)
  local entry = self.by_kind[command.kind]
  local client = tonumber(command.client)
  local to = C.neap_server_reply(self.server, client)
  local fine, bug = xpcall(entry.run, traceback, to, commands.words(command),
    worker, command)
  if fine then return end
  reply.fail(C.neap_server_reply(self.server, client), "ERR internal error, see the worker's log")
  C.neap_server_hang_up(self.server, client)
  return entry.name .. ": " .. tostring(bug)
end

-- ---- what a command says about itself ----------------------------------------------------------

local function flags_of(command)
  local flags = {}
  for i, flag in ipairs(command.flags or {}) do flags[i] = status(flag) end
  if command.need == "before_login" then flags[#flags + 1] = status "no_auth" end
  return set(flags)
end

--- One entry of COMMAND.
function commands.info(command)
  local keys = command.keys or { 0, 0, 0 }
  local category = command.need and command.need ~= "before_login" and command.need or "connection"
  return { command.name:lower(), command.arity, flags_of(command), keys[1], keys[2], keys[3],
    set { status("@" .. category) }, {}, {}, {} }
end

local function argument_docs(argument)
  local fields, flags = { { "name", argument[1] }, { "type", argument[2] } }, {}
  if argument[2] == "key" then fields[#fields + 1] = { "key_spec_index", 0 } end
  if argument.token then fields[#fields + 1] = { "token", argument.token } end
  if argument.optional then flags[#flags + 1] = status "optional" end
  if argument.multiple then flags[#flags + 1] = status "multiple" end
  if argument.multiple and argument.token then flags[#flags + 1] = status "multiple_token" end
  if #flags > 0 then fields[#fields + 1] = { "flags", set(flags) } end
  if argument.of then
    local inner = {}
    for i, part in ipairs(argument.of) do inner[i] = argument_docs(part) end
    fields[#fields + 1] = { "arguments", inner }
  end
  return map(fields)
end

-- ---- HELP --------------------------------------------------------------------------------------

local usage_of

--- All of a list, with a space between.
local function usages(list, between)
  local words = {}
  for i, argument in ipairs(list) do words[i] = usage_of(argument) end
  return concat(words, between or " ")
end

--- An argument as redis-cli shows it: "[COST [limit] n]...".
function usage_of(argument)
  local kind, text = argument[2], argument[1]
  if kind == "oneof" then
    text = usages(argument.of, "|")
  elseif kind == "block" then
    text = usages(argument.of)
  elseif kind == "pure-token" then
    text = ""
  end
  if argument.token then text = argument.token .. (text ~= "" and " " .. text or "") end
  if argument.multiple then text = text .. " ..." end
  return argument.optional and "[" .. text .. "]" or text
end

--- What a command is called with.
---@param command neap.Command
---@return string
function commands.usage(command)
  return command.name .. " " .. usages(command.arguments or {})
end

--- A command that is declared without `run`, and also answers HELP as its only word.
---@param declared neap.Command
---@param run fun(to: ffi.cdata*, words: string[], worker: table, command: ffi.cdata*)
---@return neap.Command
function commands.with_help(declared, run)
  local arity = declared.arity
  local lines = { status(commands.usage(declared)), status(declared.summary) }
  local wrong = ("ERR wrong number of arguments for '%s' command"):format(declared.name:lower())
  return setmetatable({ helps = true, run = function (to, words, worker, command)
    if (words[1] == "HELP" or words[1] == "help") and not words[2] then
      return reply.write(to, lines)
    end
    local n = #words + 1
    if n < arity or n < -arity or arity > 0 and n > arity then return reply.fail(to, wrong) end
    run(to, words, worker, command)
  end }, { __index = declared })
end

--- One entry of COMMAND DOCS.
function commands.docs(command)
  local fields = {
    { "summary", command.summary }, { "since", command.since or "0.1.0" },
    { "group", command.group }, { "complexity", command.complexity or "O(1)" },
  }
  if command.arguments then
    local list = {}
    for i, argument in ipairs(command.arguments) do list[i] = argument_docs(argument) end
    fields[#fields + 1] = { "arguments", list }
  end
  return map(fields)
end

return commands
