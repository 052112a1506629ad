--- The worker: a policy's limits, served to any Redis client, and by HTTP.
---
--- One thread and one loop. A turn of the loop brings bytes in and lets time pass; then what the
--- engine ended is told to those who waited, and what the clients sent is answered, until neither
--- has anything left. Replies leave when the loop goes to sleep. When it begins and ends is told in
--- neap.worker.life.
local bit = require "bit"
local ffi = require "ffi"
local C = require "neap.engine"
local accounts = require "neap.worker.accounts"
local adhoc = require "neap.worker.adhoc"
local commands = require "neap.worker.commands"
local desk = require "neap.worker.desk"
local eval = require "neap.worker.eval"
local events = require "neap.worker.events"
local floor = require "neap.worker.floor"
local held = require "neap.worker.held"
local http = require "neap.worker.http"
local log = require "neap.worker.log"
local look = require "neap.worker.look"
local manual = require "neap.worker.manual"
local papers = require "neap.worker.papers"
local pubsub = require "neap.worker.pubsub"
local reload = require "neap.worker.reload"
local report = require "neap.worker.report"
local runtime = require "neap.runtime"
local stream = require "neap.worker.stream"
local virtual = require "neap.worker.virtual"

local error, ipairs, tonumber = error, ipairs, tonumber

local WAITERS_MAX = 2 ^ 18      -- parked callers and leases at once; 32 MB when all are used
local CLIENTS_MAX = 2 ^ 14     -- or as many as it may have descriptors
local KEYS_MAX = 2 ^ 22         -- of CL.THROTTLE and GCRA; 84 MB when all are used
local SLACK_NS = 20000          -- see neap.runtime.ev
local BATCH = 256
local LATE_NS, GRACE_NS = 250000000LL, 1000000000LL   -- see neap_engine_late

local worker = {}

local DESK = {
  ["NEAP.ACQUIRE"] = desk.acquire,
  ["NEAP.RESERVE"] = desk.reserve,
  ["NEAP.LIMIT"] = adhoc.limit,
  ["NEAP.SLOT"] = adhoc.slot,
  ["NEAP.RENEW"] = held.renew,
  ["NEAP.LEASES"] = held.leases,
  ["NEAP.KILL"] = held.kill,
  ["NEAP.RELEASE"] = report.release,
  ["NEAP.REPORT"] = report.report,
  ["NEAP.BACKOFF"] = report.backoff,
  ["NEAP.BREAKER"] = report.breaker,
  ["NEAP.SNAPSHOT"] = look.snapshot,
  ["NEAP.EXPLAIN"] = look.explain,
  ["NEAP.TOP"] = look.top,
  ["NEAP.LIST"] = look.list,
  ["NEAP.POLICY"] = papers.run,
  ["NEAP.EVAL"] = eval.run,
}

--- The desk's commands and those about events, as the table of commands wants them.
---@return neap.Command[]
local function own_commands(self)
  local list, at = self.pubsub:commands(), self.desk
  for _, entry in ipairs(manual) do
    local act = DESK[entry.name]
    list[#list + 1] = commands.with_help(entry, function (_, words, _, command)
      act(at, tonumber(command.client), words, self)
    end)
  end
  return list
end

--- INFO: what a client can make grow, how much there may be, and what was turned away.
local function limits_of(self)
  return function ()
    local leases, books = self.desk.leases, self.desk.accounts
    local list = { { "places_max", WAITERS_MAX }, { "leases", leases.count },
      { "leases_detached", leases.detached }, { "leases_booked", leases.booked },
      { "leases_of_client_max", leases.max.of_client },
      { "leases_detached_max", leases.max.detached }, { "leases_booked_max", leases.max.booked },
      { "leases_refused", leases.refused } }
    for _, all in ipairs { books.limits, books.slots } do
      local name = all.command:lower():gsub("%.", "_")
      list[#list + 1] = { name .. "_keys", #all.ring }
      list[#list + 1] = { name .. "_keys_max", all.max }
      list[#list + 1] = { name .. "_keys_refused", all.refused }
    end
    return list
  end
end

--- What the library's modules see of a worker: an engine and a clock (see neap.runtime). Nothing
--- waits in a worker's turn but its clients.
local function runtime_of(self)
  local function never() error("nothing can wait in a worker", 0) end
  return { engine = self.engine, now_ns = self.clock, waiters_max = WAITERS_MAX,
    now = function () return tonumber(self.clock()) / 1e9 end,
    report = function (text) self.log:error("fault", "bug", text) end,
    wait = never, sleep = never, spawn = never, run = never,
    cancel = function (ticket)
      return C.neap_engine_cancel(self.engine, ticket, self.clock()) == 1
    end }
end

--- 16 bytes that strangers cannot know.
local function secret()
  local file, message = io.open("/dev/urandom", "rb")
  local bytes = file and file:read(16)
  if file then file:close() end
  if not bytes or #bytes < 16 then return nil, message or "/dev/urandom: too few bytes" end
  return ffi.new("uint8_t[16]", bytes)
end

---@class neap.Worker
---@field loop ffi.cdata*
---@field clock fun(): ffi.cdata*   ns; what limits and leases live by
---@field server ffi.cdata*
---@field engine ffi.cdata*
---@field desk neap.Desk
---@field http neap.Http
---@field events neap.WorkerEvents
---@field pubsub neap.PubSub
---@field stream neap.Stream
---@field tree neap.tree            what it serves
---@field renewal neap.Renewal?     who reads it anew
---@field reload fun(self: neap.Worker, tree: neap.tree): neap.Change[]?, any
---@field started ffi.cdata*        ns, of the loop's clock
---@field lag { waits: ffi.cdata*, counts: ffi.cdata* }  how late turns began that a timer ended
---@field log neap.Log
---@field shut_down fun()            what SHUTDOWN does
---@field listeners { address: string, protocol: "resp"|"http" }[]
---@field own_clock boolean          limits live by another clock than the loop
---@field handlers table<integer, fun(client: integer, command: ffi.cdata*)>  by kind

--- Listen wherever this protocol is wanted; what is in the way of that, or nil. Sockets that were
--- handed over stand in for addresses.
local function listen(self, protocol, addresses, sockets)
  local server, is_http, adopted = self.server, protocol == "http", false
  local line = ffi.new "char[256]"
  local function add(number)
    if number < 0 then return ffi.string(line) end
    local address = ffi.string(C.neap_server_address(server, number))
    self.listeners[#self.listeners + 1] = { address = address, protocol = protocol }
  end
  for _, one in ipairs(sockets or {}) do
    if one.http == is_http then
      local problem = add(C.neap_server_adopt(server, one.fd, is_http and 1 or 0, line, 256))
      if problem then return problem end
      adopted = true
    end
  end
  local how = is_http and C.neap_server_listen_http or C.neap_server_listen
  for _, address in ipairs(adopted and {} or addresses) do
    local problem = add(how(server, address, line, 256))
    if problem then return problem end
  end
end

--- Everything of a worker, listening; or nil and one line that says what is in the way.
---@param tree neap.tree
---@param options { listen: string[]?, http: string[]?, clock: (fun(): ffi.cdata*)?,
---  sockets: { fd: integer, http: boolean }[]?, log: neap.Log?, virtual: boolean? }
---  clock: the loop's unless told; virtual: it is what DEBUG CLOCK says
---@return neap.Worker?
---@return string? message
function worker.open(tree, options)
  local self
  local books, message = accounts.new(tree, {
    guard = options.guard,
    listener = function (...)
      if self then self.events:emit(...) end
    end,
    log = function (text)
      if self then self.log:error("fault", "bug", text) end
    end,
  })
  if not books then return nil, message end
  local random
  random, message = secret()
  if not random then return nil, message end
  local loop = C.neap_loop_open(SLACK_NS)
  if loop == nil then return nil, "the system refuses an event loop, error " .. ffi.errno() end
  local own = options.virtual and virtual.new() or nil
  local clock = options.clock or own and own.now or function () return C.neap_loop_now(loop) end
  self = {
    loop = loop, clock = clock, server = C.neap_server_open(loop, CLIENTS_MAX),
    engine = C.neap_engine_open(WAITERS_MAX, clock()),
    keys = C.neap_keys_open(KEYS_MAX, random), handlers = {},
    batch = ffi.new("struct neap_completion[?]", BATCH), command = ffi.new "struct neap_command",
    listeners = {}, log = options.log or log.new(), shut_down = function () end,
    own_clock = options.clock ~= nil or own ~= nil,
    started = C.neap_loop_now(loop),
    lag = { waits = ffi.new "struct neap_waits", counts = ffi.new "struct neap_stats" },
  }
  if self.server == nil or self.engine == nil or self.keys == nil then
    worker.close(self)
    return nil, "there is not enough memory"
  end
  self.runtime = runtime_of(self)
  self.reload = worker.reload
  if not self.own_clock then C.neap_engine_late(self.engine, LATE_NS, GRACE_NS) end
  if #tree.users > 0 then C.neap_server_guard(self.server) end
  C.neap_server_throttle(self.server, self.keys)
  self.events = events.new { clock = clock, wall = os.time,
    life = bit.tohex(C.neap_keys_hash(self.keys, "life", 4)) }
  self.pubsub = pubsub.new(self.server, self.events)
  self.forget = function (client) self.pubsub:closed(client) end
  self.desk = desk.new(self.server, self.engine, books, self.keys, clock, self.events)
  self.unblock = function (_, ...) return self.desk:unblock(...) end
  self.sections = { limits = limits_of(self) }
  local list = own_commands(self)
  list[#list + 1] = own and own.command(self)
  self.tree = tree
  self.floor = floor.define(self, tree, list)
  self.stream = stream.new(self)
  self.http = http.new(self, tree)
  self.handlers[C.NEAP_REQUEST] = function (_, command)
    local bug = self.http:request(command)
    if bug then self.log:error("bug", "bug", bug) end
  end

  message = listen(self, "resp", options.listen or tree.listen.resp, options.sockets)
    or listen(self, "http", options.http or tree.listen.http, options.sockets)
  if message then
    worker.close(self)
    return nil, message
  end
  return self
end

--- Free what there is of it.
---@param self neap.Worker
function worker.close(self)
  if self.server ~= nil then C.neap_server_close(self.server) end
  if self.engine ~= nil then C.neap_engine_close(self.engine) end
  if self.keys ~= nil then C.neap_keys_close(self.keys) end
  C.neap_loop_close(self.loop)
end

--- Tell those whose tickets ended. True when there were some.
local function tell(self)
  local engine, batch = self.engine, self.batch
  local now = self.clock()
  C.neap_engine_advance(engine, now)
  local n = tonumber(C.neap_engine_drain(engine, batch, BATCH))
  for i = 0, n - 1 do self.desk:completed(batch[i], now) end
  return n > 0
end

--- Answer what clients sent.
local function serve(self)
  local server, command, handlers = self.server, self.command, self.handlers
  local now = self.clock()
  while C.neap_server_next(server, now, command) == 1 do
    local client = tonumber(command.client)
    if command.kind == C.NEAP_CLOSED then
      if command.note ~= nil then
        self.log:warning("cut-off", "client", client, "reason", ffi.string(command.note))
      end
      self.desk:closed(client)
      self.pubsub:closed(client)
      self.stream:closed(client)
    else
      handlers[command.kind](client, command)
      if self.own_clock then now = self.clock() end   -- it may just have been set
    end
  end
end

--- Another tree from now on, or nothing happens: see neap.worker.reload.
---@param self neap.Worker
---@param tree neap.tree
---@return neap.Change[]? changes
---@return any why
function worker.reload(self, tree)
  return reload.apply(self, tree, function () while tell(self) do end end)
end

--- One turn: until something happens, or `until_ns`.
---@param self neap.Worker
---@param until_ns ffi.cdata*
function worker.turn(self, until_ns)
  local due = self.own_clock and C.neap_never or C.neap_engine_next_due(self.engine)
  for _, other in ipairs(self.own_clock and {} or { self.events.due, self.stream.due }) do
    if other < until_ns then until_ns = other end
  end
  C.neap_loop_turn(self.loop, due < until_ns and due or until_ns)
  local now = self.clock()
  if now > due and due > 0 then C.neap_waits_add(self.lag.waits, now - due) end
  local before = runtime.use(self.runtime)
  serve(self)                -- first: who has hung up is granted nothing
  while tell(self) do end
  now = self.clock()
  self.events:flush(now)
  self.stream:tick(now)
  runtime.use(before)
end

return worker
