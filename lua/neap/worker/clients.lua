--- CLIENT: who is connected, under which name, and sending them away.
local ffi = require "ffi"
local C = require "neap.engine"
local commands = require "neap.worker.commands"
local reply = require "neap.worker.reply"

local concat, ipairs, tonumber, tostring = table.concat, ipairs, tonumber, tostring
local fail, ok, status, write = reply.fail, reply.ok, reply.status, reply.write

local clients = {}

clients.BAD_NAME =
  "ERR Client names cannot contain spaces, newlines or special characters, nor have over 127 bytes."

local LIST_BYTES = 512 * 1024   -- well within what a client may leave unfetched

local TYPES = { normal = true, master = true, replica = true, slave = true, pubsub = true }

local facts = ffi.new "struct neap_client"

--- What is known of a client; holds until the next call. nil when it is gone.
function clients.facts(server, client)
  if C.neap_server_client(server, client, facts) == 0 then return facts end
end

function clients.is_name(name) return #name <= 127 and not name:find "[^!-~]" end

--- Every client's number, oldest first.
local function each(server)
  return function (_, last)
    local id = C.neap_server_after(server, last)
    if id ~= 0 then return tonumber(id) end
  end, nil, 0
end

local function seconds(from, now) return tonumber((now - from) / 1000000000LL) end

local function user_of(f)
  local user = ffi.string(f.user)
  return user ~= "" and user or f.admitted ~= 0 and "default" or "(none)"
end

local function listens(f) return f.channels + f.patterns > 0 end

--- A client on one line, with the fields Redis has that mean something here.
local function line(f, now)
  local flags = f.parked ~= 0 and "b" or f.closing ~= 0 and "c" or listens(f) and "P" or "N"
  return concat {
    "id=", tostring(tonumber(f.id)), " addr=", ffi.string(f.addr), " laddr=", ffi.string(f.laddr),
    " fd=", tostring(f.fd), " name=", ffi.string(f.name), " age=", tostring(seconds(f.since, now)),
    " idle=", tostring(seconds(f.last, now)), " flags=", flags,
    " db=0 sub=", tostring(f.channels), " psub=", tostring(f.patterns),
    " ssub=0 multi=-1 qbuf=", tostring(f.in_bytes), " qbuf-free=0",
    " obl=", tostring(f.out_bytes), " oll=0 omem=0 events=r",
    " cmd=", ffi.string(f.command), " user=", user_of(f), " redir=-1",
    " resp=", tostring(f.proto), " lib-name=", ffi.string(f.lib_name),
    " lib-ver=", ffi.string(f.lib_version), "\n",
  }
end

local function info(to, _, worker, command)
  write(to, reply.verbatim(line(clients.facts(worker.server, command.client), worker.now())))
end

--- The filters of LIST and KILL: a function of facts, or nil and what is wrong.
local function filter(words, from)
  local tests, skip_me, i = {}, nil, from
  while i <= #words do
    local name, value = words[i]:upper(), words[i + 1]
    if not value then return nil, "ERR syntax error" end
    if name == "ID" then
      local ids, any = {}, false
      while words[i + 1] and commands.integer(words[i + 1]) do
        ids[tonumber(words[i + 1])], any, i = true, true, i + 1
      end
      if not any then return nil, "ERR client-id should be greater than 0" end
      tests[#tests + 1] = function (f) return ids[tonumber(f.id)] end
      i = i + 1
    elseif name == "ADDR" or name == "LADDR" then
      local field = name:lower()
      tests[#tests + 1] = function (f) return ffi.string(f[field]) == value end
      i = i + 2
    elseif name == "USER" then
      tests[#tests + 1] = function (f) return user_of(f) == value end
      i = i + 2
    elseif name == "TYPE" then
      local type = value:lower()
      if not TYPES[type] then
        return nil, ("ERR Unknown client type '%s'"):format(value:sub(1, 64))
      end
      tests[#tests + 1] = function (f) return type == (listens(f) and "pubsub" or "normal") end
      i = i + 2
    elseif name == "SKIPME" and (value:lower() == "yes" or value:lower() == "no") then
      skip_me, i = value:lower() == "yes", i + 2
    else
      return nil, "ERR syntax error"
    end
  end
  return function (f)
    for _, test in ipairs(tests) do if not test(f) then return false end end
    return true
  end, skip_me
end

local function list(to, words, worker, command)
  if not commands.may(to, command, "read", "client|list") then return end
  local wanted, problem = filter(words, 2)
  if not wanted then return fail(to, problem) end
  local lines, bytes, now = {}, 0, worker.now()
  for id in each(worker.server) do
    local f = clients.facts(worker.server, id)
    if wanted(f) then
      local text = line(f, now)
      lines[#lines + 1], bytes = text, bytes + #text
      if bytes > LIST_BYTES then
        return fail(to, "ERR too many clients for one reply: name some by ID")
      end
    end
  end
  write(C.neap_server_reply(worker.server, command.client), reply.verbatim(concat(lines)))
end

local function kill(to, words, worker, command)
  if not commands.may(to, command, "admin", "client|kill") then return end
  local own, old_form = tonumber(command.client), #words == 2
  local wanted, skip_me = filter(old_form and { "ADDR", words[2] } or words, old_form and 1 or 2)
  if not wanted then return fail(to, skip_me) end
  if skip_me == nil then skip_me = not old_form end
  local doomed = {}
  for id in each(worker.server) do
    if wanted(clients.facts(worker.server, id)) and not (skip_me and id == own) then
      doomed[#doomed + 1] = id
    end
  end
  to = C.neap_server_reply(worker.server, command.client)
  if not old_form then
    write(to, #doomed)
  elseif doomed[1] then
    ok(to)
  else
    fail(to, "ERR No such client")
  end
  for _, id in ipairs(doomed) do C.neap_server_hang_up(worker.server, id) end
end

local function id(to, _, _, command) write(to, tonumber(command.client)) end

local function set_name(to, words, worker, command)
  if not clients.is_name(words[2]) then return fail(to, clients.BAD_NAME) end
  C.neap_server_label(worker.server, command.client, C.NEAP_NAME, words[2])
  ok(to)
end

local function get_name(to, _, worker, command)
  local name = ffi.string(clients.facts(worker.server, command.client).name)
  write(to, name ~= "" and name or reply.null)
end

local LABELS = { ["LIB-NAME"] = C.NEAP_LIB_NAME, ["LIB-VER"] = C.NEAP_LIB_VERSION }

local function set_info(to, words, worker, command)
  local which = LABELS[words[2]:upper()]
  if not which then
    return fail(to, ("ERR Unrecognized option '%s'"):format(words[2]:sub(1, 64)))
  end
  if words[3]:find "[^!-~]" or #words[3] > 63 then
    return fail(to, ("ERR %s cannot contain spaces, newlines or special characters, nor have " ..
      "over 63 bytes."):format(words[2]:lower()))
  end
  C.neap_server_label(worker.server, command.client, which, words[3])
  ok(to)
end

local function unblock(to, words, worker, command)
  if not commands.may(to, command, "admin", "client|unblock") then return end
  local client = commands.integer(words[2])
  if not client then return fail(to, "ERR value is not an integer or out of range") end
  local how = (words[3] or "TIMEOUT"):upper()
  if how ~= "TIMEOUT" and how ~= "ERROR" then
    return fail(to, "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
  end
  write(to, worker.unblock and worker.unblock(client, how == "ERROR") and 1 or 0)
end

local MUTES = { ON = C.NEAP_HEAR, OFF = C.NEAP_MUTE, SKIP = C.NEAP_MUTE_ONE }

local function mute(to, words, worker, command)
  local how = words[2]:upper()
  if not MUTES[how] then return fail(to, "ERR syntax error") end
  C.neap_server_mute(worker.server, command.client, MUTES[how])
  if how == "ON" then ok(C.neap_server_reply(worker.server, command.client)) end
end

local function on_or_off(to, words)
  local word = words[2]:lower()
  if word ~= "on" and word ~= "off" then return fail(to, "ERR syntax error") end
  ok(to)
end

local function help(to)
  write(to, { status "CLIENT <subcommand> [<arg> ...]. Subcommands are:",
    status "ID, INFO, GETNAME, SETNAME name, SETINFO LIB-NAME|LIB-VER text,",
    status "LIST [ID id ...] [TYPE type] [USER name] [ADDR address],",
    status "KILL address | filters as in LIST [SKIPME yes|no], UNBLOCK id,",
    status "REPLY ON|OFF|SKIP, NO-EVICT ON|OFF, NO-TOUCH ON|OFF" })
end

local run = commands.family("CLIENT", {   -- least and most words after the verb, and what it does
  ID = { 0, 0, id }, INFO = { 0, 0, info }, LIST = { 0, 255, list }, KILL = { 1, 255, kill },
  SETNAME = { 1, 1, set_name }, GETNAME = { 0, 0, get_name }, SETINFO = { 2, 2, set_info },
  UNBLOCK = { 1, 2, unblock }, REPLY = { 1, 1, mute },
  ["NO-EVICT"] = { 1, 1, on_or_off }, ["NO-TOUCH"] = { 1, 1, on_or_off },
  GETREDIR = { 0, 0, function (to) write(to, -1) end }, HELP = { 0, 0, help },
})

---@type neap.Command[]
clients.list = {
  { name = "CLIENT", arity = -2, group = "connection", run = run, complexity = "O(N) in clients",
    summary = "Who is connected, under which name; send away or unblock them.",
    arguments = { { "subcommand", "oneof", of = {
      { "id", "pure-token", token = "ID" }, { "info", "pure-token", token = "INFO" },
      { "list", "pure-token", token = "LIST" }, { "getname", "pure-token", token = "GETNAME" },
      { "name", "string", token = "SETNAME" }, { "filter", "string", token = "KILL" },
      { "client-id", "integer", token = "UNBLOCK" }, { "mode", "string", token = "REPLY" } } } } },
}

return clients
