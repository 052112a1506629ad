--- The worker's life: begin, serve, drain, end; and what signals and a supervisor say meanwhile.
---
---     SIGTERM, SIGINT, SHUTDOWN   drain: nothing more is granted, who waits is told, who holds may
---                                 give back, until nobody holds anything or `drain` is over; a
---                                 second one ends it at once
---     SIGHUP                      reload
---     SIGQUIT                     a snapshot to the log
---     SIGUSR1                     open the log's file anew
---     SIGPIPE                     nothing: a reader that is gone is no reason to end
local bit = require "bit"
local ffi = require "ffi"
local C = require "neap.engine"
local log_of = require "neap.worker.log"
local notify_of = require "neap.worker.notify"
local pulse = require "neap.worker.pulse"
local renewal_of = require "neap.worker.renewal"
local runtime = require "neap.runtime"
local state_of = require "neap.worker.state"
local worker = require "neap.worker"

local ipairs, setmetatable, tonumber = ipairs, setmetatable, tonumber
local band, floor, huge, min = bit.band, math.floor, math.huge, math.min
local int64 = ffi.typeof "int64_t"

local DRAIN_NS = 30e9           -- for what is held to come back
local LAST_NS = 1000000000LL    -- for replies to be fetched after the last word
local SECOND_NS = 1000000000LL
local SLEPT_NS = 1000000000LL   -- of sleep are worth a line

-- A trace that calls what cannot be compiled otherwise goes on behind that call. While recording
-- that, LuaJIT (2.1 of January 2023) crashed in 20 of 353 runs of a crowd that hung up at once.
require "jit.opt".start "minstitch=32767"

local ENDS = C.NEAP_SIGINT + C.NEAP_SIGTERM
local CAUGHT = ENDS + C.NEAP_SIGHUP + C.NEAP_SIGQUIT + C.NEAP_SIGUSR1 + C.NEAP_SIGPIPE

---@class neap.Life
---@field worker neap.Worker
---@field log neap.Log
---@field notify neap.Notify
---@field works fun(): boolean   see neap.worker.pulse
---@field renewal neap.Renewal?  who reads the file anew
---@field state neap.State?      who writes down what is used
---@field asked integer          how often somebody said that it is to end
---@field asleep ffi.cdata*      ns that the machine had slept at the last look
local life = {}
life.__index = life

---@param one neap.Worker
---@param notify neap.Notify
---@return neap.Life
function life.new(one, notify)
  local self = setmetatable({
    worker = one, log = one.log, notify = notify, asked = 0, asleep = C.neap_loop_asleep(one.loop),
    works = pulse.of(one.engine, one.clock),
  }, life)
  one.shut_down = function () self.asked = self.asked + 1 end
  return self
end

-- ---- what is told -----------------------------------------------------------------------------

local function counted(n, one, many) return ("%d %s"):format(n, n == 1 and one or many) end

--- The worker in one line.
---@return string
function life:status()
  local stats = ffi.new "struct neap_engine_stats"
  C.neap_engine_stats(self.worker.engine, stats)
  local desk = self.worker.desk
  return ("%s%s, %d in flight, %d waiting"):format(desk.draining and "draining: " or "",
    counted(#desk.accounts.names, "policy", "policies"), desk.leases.count,
    tonumber(stats.waiting))
end

--- All of it, to the log.
function life:snapshot()
  local desk, log, now = self.worker.desk, self.log, self.worker.clock()
  local stats = ffi.new "struct neap_server_stats"
  C.neap_engine_advance(self.worker.engine, now)
  C.neap_server_stats(self.worker.server, stats)
  log:row("snapshot", "status", self:status(), "clients", tonumber(stats.clients),
    "commands", tonumber(stats.commands), "lua_kib", floor(collectgarbage "count"))
  for _, name in ipairs(desk.accounts.names) do
    local account = desk.accounts.policies[name]
    log:row("snapshot-policy", "policy", name, "waiting", account.waiting, "leases", account.leases)
    for i, limit in ipairs(account.limits) do
      local available, capacity = account:level(i, now)
      log:row("snapshot-limit", "policy", name, "limit", limit.name, "is", limit.text,
        "available", available or "unlimited", "capacity", capacity or "unlimited")
    end
  end
end

--- Read the policy file anew, see neap.worker.renewal.
function life:reload()
  if self.renewal then return self.renewal:ask() end
  self.log:warning("reload-ignored", "reason", "there is no policy file")
end

-- ---- turns ------------------------------------------------------------------------------------

local function heed(self, signals)
  if band(signals, ENDS) ~= 0 then self.asked = self.asked + 1 end
  if band(signals, C.NEAP_SIGHUP) ~= 0 then self:reload() end
  if band(signals, C.NEAP_SIGQUIT) ~= 0 then self:snapshot() end
  if band(signals, C.NEAP_SIGUSR1) ~= 0 then
    local fine, message = self.log:reopen()
    if fine then
      self.log:notice("log-reopened")
    else
      self.log:error("log-not-reopened", "reason", message)
    end
  end
end

--- What the machine slept counts for limits, so those who waited come due at once, each at its
--- instant; a person who reads the log is told why.
local function look_at_clocks(self)
  local asleep = C.neap_loop_asleep(self.worker.loop)
  if asleep - self.asleep > SLEPT_NS then
    self.log:notice("machine-slept", "seconds", tonumber((asleep - self.asleep) / SLEPT_NS))
  end
  self.asleep = asleep
end

--- One turn, until something happens or `until_ns`; then what is due beside the limits.
---@param until_ns ffi.cdata*
function life:turn(until_ns)
  local renewal = self.renewal
  local due = min(self.notify.next_ns, self.log.next_ns, tonumber(until_ns),
    renewal and renewal.due or huge, self.state and self.state.due or huge)
  worker.turn(self.worker, due < 9e18 and int64(due) or C.neap_never)
  heed(self, C.neap_loop_signals(self.worker.loop))
  look_at_clocks(self)
  if renewal and not self.worker.desk.draining then renewal:turn() end
  if self.state then self.state:turn() end
  self.log:tick()
  local now = C.neap_loop_now(self.worker.loop)
  if self.notify:tick(now, self.works, function () return self:status() end) then
    self.log:error("no-pulse", "reason", "the engine grants nothing; the watchdog is not told")
  end
end

--- Serve until somebody asks it to end.
function life:serve()
  while self.asked == 0 do self:turn(C.neap_never) end
end

-- ---- the end ----------------------------------------------------------------------------------

--- Is something written that a client has not fetched?
local function has_unsent(server)
  local client, info = 0, ffi.new "struct neap_client"
  repeat
    client = tonumber(C.neap_server_after(server, client))
    if client ~= 0 and C.neap_server_client(server, client, info) == 0 and info.out_bytes > 0 then
      return true
    end
  until client == 0
  return false
end

--- Grant nothing more; wait until nobody holds anything, `drain_ns` is over, or it is asked again.
---@param drain_ns number
function life:drain(drain_ns)
  local one, desk = self.worker, self.worker.desk
  local now = C.neap_loop_now(one.loop)
  local ends = now + int64(drain_ns)
  self.notify:stopping()
  C.neap_server_drain(one.server)
  local before = runtime.use(one.runtime)   -- hooks may hear of it
  desk:drain()
  runtime.use(before)
  self.log:flush()
  self.log:notice("draining", "held", desk.leases.count)
  while self.asked == 1 and desk.leases.count > 0 and now < ends do
    self.notify:extend()
    local soon = now + SECOND_NS
    self:turn(soon < ends and soon or ends)
    now = C.neap_loop_now(one.loop)
  end
  if desk.leases.count > 0 then
    self.log:warning("drained", "held", desk.leases.count, "reason",
      self.asked > 1 and "it was asked again" or "the time is over")
  end
end

--- Let those who are in fetch what is written to them, and close.
function life:finish()
  local one = self.worker
  local ends = C.neap_loop_now(one.loop) + LAST_NS
  worker.turn(one, 0LL)
  one.events:flush(C.neap_never)   -- there is no later
  one.stream:tick(one.clock())
  while has_unsent(one.server) and C.neap_loop_now(one.loop) < ends do worker.turn(one, ends) end
  self.log:flush()
  self.log:info("stopped")
  worker.close(one)
end

-- ---- all of it --------------------------------------------------------------------------------

local SAY = { debug = "debug", info = "info", warn = "warning", error = "error" }

--- Hooks are called while a thread looks on, which names one that does not come back, and ends the
--- process when it stays away: then the watchdog has had no word, either.
local function guarded()
  local watch
  return function (policy, hook, fn)
    watch = watch or require "neap.policy.watch" ()
    return watch:over(policy, hook, fn)
  end
end

--- Lend the file's hooks what they may call.
---@param host neap.policy.Host  what they were promised when the file was read
---@param one neap.Worker
local function lend(host, one)
  function host.now() return tonumber(one.clock()) / 1e9 end
  function host.emit(event, fields) one.events:emit("-", event, fields or {}) end
  function host.log(level, text) one.log[SAY[level]](one.log, "policy", "reason", text) end
end

---@class neap.RunOptions
---@field listen string[]?
---@field http string[]?
---@field verbose boolean?
---@field log string?           a file
---@field log_format "text"|"json"?
---@field drain_ns number?
---@field state string?         the folder of what outlives it
---@field save_every_ns number?
---@field policy string?        the file, where it can be read anew
---@field watch boolean?         read it anew when it changes
---@field virtual boolean?      time is what DEBUG CLOCK says
---@field host neap.policy.Host?  what the file's hooks were lent when it was read

--- Serve until it is asked to end, and then end.
---@param tree neap.tree
---@param options neap.RunOptions
---@return boolean ok
---@return string? message
function life.run(tree, options)
  local log, message = log_of.new {
    path = options.log, format = options.log_format, verbose = options.verbose,
  }
  if not log then return false, message end
  local sockets
  sockets, message = notify_of.sockets()
  if not sockets then return false, message end
  local saved, problem
  if options.state then saved, problem = state_of.read(options.state) end
  local one
  one, message = worker.open(tree, { listen = options.listen, http = options.http, log = log,
    sockets = sockets, virtual = options.virtual, guard = guarded() })
  if not one then return false, message end
  if options.host then lend(options.host, one) end
  if C.neap_loop_catch(one.loop, CAUGHT) ~= C.NEAP_OK then
    worker.close(one)
    return false, "another loop of this process catches signals"
  end
  for _, listener in ipairs(one.listeners) do
    log:row("listening", "address", listener.address, "protocol", listener.protocol)
  end
  if not jit.status() then
    log:notice("jit-off", "reason", "this process may not make pages executable")
  end
  log:debug("started", "version", ffi.string(C.neap_version), "pid",
    tonumber(C.neap_service_process()))
  local self = life.new(one, notify_of.new())
  state_of.begin(one, options.state, saved, problem)
  if options.state then
    self.state = state_of.new(one, { folder = options.state, every_ns = options.save_every_ns })
  end
  if options.policy then
    self.renewal = renewal_of.new(one, { path = options.policy, host = options.host,
      notify = self.notify, watch = options.watch })
  end
  self.notify:ready()
  self:serve()
  if self.renewal then self.renewal:close() end
  self:drain(options.drain_ns or DRAIN_NS)
  if self.state then self.state:finish() end
  self:finish()
  return true
end

return life
