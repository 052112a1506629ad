--- What the worker says about itself: INFO, COMMAND, CONFIG, and what tools ask before they trust.
local ffi = require "ffi"
local C = require "neap.engine"
local commands = require "neap.worker.commands"
local glob = require "neap.worker.glob"
local reply = require "neap.worker.reply"

local collectgarbage, ipairs, pairs, tonumber = collectgarbage, ipairs, pairs, tonumber
local tostring, unpack = tostring, unpack
local concat, floor, sort = table.concat, math.floor, table.sort
local fail, map, ok, status, write = reply.fail, reply.map, reply.ok, reply.status, reply.write

local about = {}

-- Clients choose what they send by the version they read; this one has HELLO and SETINFO.
about.SPOKEN_VERSION = "7.2.0"

local function server_stats(worker)
  local stats = ffi.new "struct neap_server_stats"
  C.neap_server_stats(worker.server, stats)
  return stats
end

local function key_bytes(worker)
  if not worker.keys then return 0 end
  local stats = ffi.new "struct neap_keys_stats"
  C.neap_keys_stats(worker.keys, stats)
  return tonumber(stats.bytes)
end

-- ---- INFO --------------------------------------------------------------------------------------

local SECTIONS = {}

function SECTIONS.server(worker)
  local up = tonumber((worker.now() - worker.started) / 1000000000LL)
  local address = C.neap_server_address(worker.server, 0)
  local port = address ~= nil and ffi.string(address):match ":(%d+)$" or "0"
  return {
    { "redis_version", about.SPOKEN_VERSION }, { "redis_mode", "standalone" },
    { "neap_version", worker.version }, { "os", jit.os }, { "arch_bits", "64" },
    { "multiplexing_api", "epoll" }, { "tcp_port", port }, { "uptime_in_seconds", up },
    { "uptime_in_days", floor(up / 86400) },
  }
end

function SECTIONS.clients(worker)
  local stats = server_stats(worker)
  return { { "connected_clients", stats.clients }, { "maxclients", stats.clients_max },
    { "blocked_clients", stats.parked }, { "pubsub_clients", stats.subscribers } }
end

function SECTIONS.memory(worker)
  local used = floor(collectgarbage "count" * 1024) + key_bytes(worker)
  return { { "used_memory", used }, { "used_memory_human", ("%.2fM"):format(used / 2^20) },
    { "maxmemory", 0 }, { "maxmemory_human", "0B" } }
end

function SECTIONS.persistence() return { { "loading", 0 }, { "async_loading", 0 } } end

function SECTIONS.stats(worker)
  local stats = server_stats(worker)
  return { { "total_connections_received", stats.accepted },
    { "total_commands_processed", stats.commands }, { "rejected_connections", stats.refused },
    { "total_net_input_bytes", stats.in_bytes }, { "total_net_output_bytes", stats.out_bytes },
    { "clients_cut", stats.cut },
    { "pubsub_channels", worker.pubsub and worker.pubsub.channel_count or 0 },
    { "pubsub_patterns", worker.pubsub and worker.pubsub.pattern_count or 0 } }
end

function SECTIONS.replication()
  return { { "role", "master" }, { "connected_slaves", 0 }, { "master_repl_offset", 0 } }
end

function SECTIONS.cluster() return { { "cluster_enabled", 0 } } end

function SECTIONS.keyspace(worker)
  local count = worker.keys and tonumber(C.neap_keys_count(worker.keys, worker.now())) or 0
  if count == 0 then return {} end
  return { { "db0", ("keys=%d,expires=%d,avg_ttl=0"):format(count, count) } }
end

local ORDER = { "server", "clients", "memory", "persistence", "stats", "replication", "cluster",
  "keyspace" }
local EVERYTHING = { all = true, default = true, everything = true }

local function info(to, words, worker)
  local wanted = {}
  for _, word in ipairs(words) do wanted[word:lower()] = true end
  local all = #words == 0
  for word in pairs(wanted) do all = all or EVERYTHING[word] end
  local order, text = {}, {}
  for i, name in ipairs(ORDER) do order[i] = { name, SECTIONS[name] } end
  for name, section in pairs(worker.sections or {}) do order[#order + 1] = { name, section } end
  for _, entry in ipairs(order) do
    local name, section = entry[1], entry[2]
    if all or wanted[name] then
      if #text > 0 then text[#text + 1] = "\r\n" end
      text[#text + 1] = "# " .. name:sub(1, 1):upper() .. name:sub(2) .. "\r\n"
      for _, field in ipairs(section(worker)) do
        local value = field[2]
        if ffi.istype("int64_t", value) then value = tonumber(value) end
        text[#text + 1] = field[1] .. ":" .. tostring(value) .. "\r\n"
      end
    end
  end
  write(to, reply.verbatim(concat(text)))
end

-- ---- COMMAND -----------------------------------------------------------------------------------

local function command_info(to, words, worker)
  local entries = {}
  if #words <= 1 then
    for i, command in ipairs(worker.commands.list) do entries[i] = commands.info(command) end
  end
  for i = 2, #words do
    local command = worker.commands.by_name[words[i]:lower()]
    entries[#entries + 1] = command and commands.info(command) or reply.null
  end
  write(to, entries)
end

local function command_docs(to, words, worker)
  local entries = {}
  if #words == 1 then
    for i, command in ipairs(worker.commands.list) do
      entries[i] = { command.name:lower(), commands.docs(command) }
    end
  end
  for i = 2, #words do
    local command = worker.commands.by_name[words[i]:lower()]
    if command then entries[#entries + 1] = { command.name:lower(), commands.docs(command) } end
  end
  write(to, map(entries))
end

local function command_list(to, words, worker)
  local pattern = "*"
  if #words > 1 then
    if #words ~= 4 or words[2]:upper() ~= "FILTERBY" or words[3]:upper() ~= "PATTERN" then
      return fail(to, "ERR syntax error")
    end
    pattern = words[4]:lower()
  end
  local names = {}
  for _, command in ipairs(worker.commands.list) do
    local name = command.name:lower()
    if glob(pattern, name) then names[#names + 1] = name end
  end
  write(to, names)
end

local function command_keys(to, words, worker)
  local command = worker.commands.by_name[words[2]:lower()]
  if not command then return fail(to, "ERR Invalid command specified") end
  local argc = #words - 1
  if command.arity > 0 and argc ~= command.arity or argc < -command.arity then
    return fail(to, "ERR Invalid number of arguments specified for command")
  end
  if not command.keys then return fail(to, "ERR The command has no key arguments") end
  local first, last, step = unpack(command.keys)
  local keys = {}
  for i = first, last < 0 and argc + last or last, step do keys[#keys + 1] = words[2 + i] end
  write(to, keys)
end

local function command_help(to)
  write(to, { status "COMMAND [COUNT | LIST | INFO | DOCS | GETKEYS] [<arg> ...]",
    status "What there is, and how it is used." })
end

local command_family = commands.family("COMMAND", {
  COUNT = { 0, 0, function (to, _, worker) write(to, #worker.commands.list) end },
  INFO = { 0, 255, command_info }, DOCS = { 0, 255, command_docs }, LIST = { 0, 3, command_list },
  GETKEYS = { 1, 255, command_keys }, HELP = { 0, 0, command_help },
})

local function command(to, words, worker, raw)
  if not words[1] then return command_info(to, words, worker) end
  return command_family(to, words, worker, raw)
end

-- ---- CONFIG and the rest -----------------------------------------------------------------------

local function settings(worker)
  return {
    { "save", "" }, { "appendonly", "no" }, { "databases", "1" }, { "timeout", "0" },
    { "maxclients", tostring(tonumber(server_stats(worker).clients_max)) }, { "maxmemory", "0" },
    { "slave-read-only", "yes" }, { "replica-read-only", "yes" }, { "proto-max-bulk-len", "65536" },
  }
end

local function config_get(to, words, worker)
  local found = {}
  for _, setting in ipairs(settings(worker)) do
    for i = 2, #words do
      if glob(words[i]:lower(), setting[1]) then
        found[#found + 1] = setting
        break
      end
    end
  end
  write(to, map(found))
end

local function config_set(to)
  fail(to, "ERR the policy file is the configuration; nothing can be set here")
end

local config = commands.family("CONFIG", {
  GET = { 1, 255, config_get }, SET = { 2, 255, config_set },
  RESETSTAT = { 0, 0, ok }, HELP = { 0, 0, function (to)
    write(to, { status "CONFIG GET pattern [pattern ...]" })
  end },
})

local function time(to, _, worker)
  local now = worker.wall()
  write(to, { ("%d"):format(now), ("%d"):format(now % 1 * 1e6) })
end

local function role(to) write(to, { "master", 0, {} }) end

local slowlog = commands.family("SLOWLOG", {
  GET = { 0, 1, function (to) write(to, {}) end }, LEN = { 0, 0, function (to) write(to, 0) end },
  RESET = { 0, 0, ok },
  HELP = { 0, 0, function (to) write(to, { status "SLOWLOG GET | LEN | RESET" }) end },
})

local function who(worker, raw)
  local facts = ffi.new "struct neap_client"
  local here = C.neap_server_client(worker.server, raw.client, facts) == 0
  local name = here and ffi.string(facts.user) or ""
  return name ~= "" and name or "default"
end

local acl = commands.family("ACL", {
  WHOAMI = { 0, 0, function (to, _, worker, raw) write(to, who(worker, raw)) end },
  LIST = { 0, 0, function (to, _, worker, raw)
    if not commands.may(to, raw, "admin", "acl|list") then return end
    local names = {}
    for name in pairs(worker.users or { default = true }) do
      names[#names + 1] = "user " .. name .. " on"
    end
    sort(names)
    write(to, names)
  end },
  CAT = { 0, 1, function (to) write(to, { "acquire", "read", "events", "admin" }) end },
  HELP = { 0, 0, function (to) write(to, { status "ACL WHOAMI | LIST | CAT" }) end },
})

local function shutdown(to, _, worker)
  if not worker.shut_down then return fail(to, "ERR this worker ends by signals only") end
  ok(to)
  worker.shut_down()
end

---@type neap.Command[]
about.list = {
  { name = "INFO", arity = -1, group = "server", need = "read", run = info,
    flags = { "loading", "stale" }, summary = "Versions, counters and states, as text.",
    arguments = { { "section", "string", optional = true, multiple = true } } },
  { name = "COMMAND", arity = -1, group = "server", run = command, flags = { "loading", "stale" },
    complexity = "O(N) in the number of commands", summary = "What commands there are.",
    arguments = { { "subcommand", "oneof", optional = true, of = {
      { "count", "pure-token", token = "COUNT" }, { "list", "pure-token", token = "LIST" },
      { "info", "block", token = "INFO", of = {
        { "command-name", "string", optional = true, multiple = true } } },
      { "docs", "block", token = "DOCS", of = {
        { "command-name", "string", optional = true, multiple = true } } },
      { "getkeys", "block", token = "GETKEYS", of = {
        { "command", "string" }, { "arg", "string", multiple = true } } } } } } },
  { name = "CONFIG", arity = -2, group = "server", need = "read", run = config, flags = { "admin" },
    summary = "A few settings tools ask for; to be read only.",
    arguments = { { "get", "block", token = "GET", of = {
      { "parameter", "pattern", multiple = true } } } } },
  { name = "TIME", arity = 1, group = "server", run = time, flags = { "fast" },
    summary = "Unix time: seconds and microseconds." },
  { name = "ROLE", arity = 1, group = "server", need = "read", run = role, flags = { "fast" },
    summary = "Always a master without replicas." },
  { name = "SLOWLOG", arity = -2, group = "server", need = "read", run = slowlog,
    summary = "Always empty.", arguments = { { "subcommand", "string" } } },
  { name = "ACL", arity = -2, group = "server", run = acl, summary = "Who is logged in, who may.",
    arguments = { { "subcommand", "string" } } },
  { name = "SHUTDOWN", arity = -1, group = "server", need = "admin", run = shutdown,
    flags = { "admin" }, summary = "Drain, then end.",
    arguments = { { "nosave", "pure-token", token = "NOSAVE", optional = true } } },
}

return about
