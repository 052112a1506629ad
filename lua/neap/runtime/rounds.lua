--- Rounds: how tasks and the engine take turns. Every runtime is this, and a clock.
---
---     engine ── completions ──> collect ──> ready ──> wake ──> wait(ticket) ──╮
---       ^                                     ^                               │
---       ╰── pass(until): time, sockets        ╰── spawn, sleep(0)   waiting <─╯
---
--- A round wakes what was ready when it began, then lets the world move on, then collects what
--- ended. Nothing is called from inside the engine or the loop; a batch of completions comes out of
--- one call and is read by compiled code.
---
--- What stands in `waiting` or `ready` is a waiter: it has `wake(self, rounds)`. A task is one. So
--- is a driver: the main chunk, or a coroutine of somebody else, cannot yield to us, so it drives
--- the rounds itself until it is woken.
---
--- Users have these as fields of a runtime: rt.sleep(1) is neap.sleep(1), on that one.
---
---     local rt = neap.runtime.current()
local ffi = require "ffi"
local C = require "neap.engine"
local task = require "neap.task"

local error, ipairs, next, pairs, pcall = error, ipairs, next, pairs, pcall
local getmetatable, setmetatable, unpack = getmetatable, setmetatable, unpack
local tonumber, tostring, type = tonumber, tostring, type
local floor = math.floor
local concat, sort = table.concat, table.sort
local getinfo = debug.getinfo

local CANCELLED, GRANTED = C.NEAP_CANCELLED, C.NEAP_GRANTED
local NEVER, HORIZON = C.neap_never, C.neap_horizon
local FOREVER = tonumber(HORIZON)

local BATCH = 256          -- completions fetched by one call
local LAST_ROUNDS = 64     -- what tasks get to clean up in when a run is given up
local WAITERS_MAX = 65536
local TEXTS = 256          -- durations remembered

local new_batch = ffi.typeof("struct neap_completion[?]")
local instant = ffi.typeof "int64_t"

---@class neap.Rounds
---@field rt neap.Runtime            whose rounds these are
---@field pass fun(until_ns: ffi.cdata*|integer)
---@field running neap.Task?
---@field waiting table<integer, table>   waiters by ticket
---@field early table<integer, table>     tickets that ended before anybody waited for them
---@field ready table                     a queue of waiters, from head to tail
---@field all table<neap.Task, true>      those that have not ended
local rounds = {}
rounds.__index = rounds

---@class neap.Runtime
---@field engine ffi.cdata*               struct neap_engine *
---@field waiters_max integer
---@field outside boolean                 others than tasks make things happen: nobody is stuck
---@field report fun(text: string)        where errors go that nobody hears of
---@field now_ns fun(): ffi.cdata*
---@field now fun(): number
---@field sleep fun(duration: number|string): true?, "cancelled"?
---@field spawn fun(...): neap.Task
---@field wait fun(ticket: integer, lost: function?): integer, ffi.cdata*, integer, true?,
---  ffi.cdata*?
---@field loses boolean?                  who waits may be gone before it ends: nginx ends requests.
---  Then `lost(status, at, on)` is called in its place
---@field cancel fun(ticket: integer): boolean
---@field run fun(fn: function, ...): any
---@field turn fun(until_ns: ffi.cdata*|integer|nil)
---@field close fun()

-- ---- the queue ---------------------------------------------------------------------------------

---@package
function rounds:push(waiter)
  local tail = self.tail + 1
  self.tail = tail
  self.ready[tail] = waiter
end

--- Nobody can run before something else happens.
---@package
---@return boolean
function rounds:is_idle()
  return self.head > self.tail
end

-- Never compiled: waking ends a trace, and an interrupt (Ctrl-C under luajit) is only noticed
-- between interpreted instructions.
local function wake_ready(self)
  local ready, last = self.ready, self.tail
  -- A driver that is nested in here takes from the queue, too, and may have begun it anew.
  while self.head <= last and not self:is_idle() do
    local head = self.head
    local waiter = ready[head]
    ready[head] = nil
    self.head = head + 1
    waiter:wake(self)
  end
  if self:is_idle() then self.head, self.tail = 1, 0 end
end

local function collect(self)
  local engine, batch, waiting = self.rt.engine, self.batch, self.waiting
  local count
  repeat
    count = tonumber(C.neap_engine_drain(engine, batch, BATCH))
    for i = 0, count - 1 do
      local ended = batch[i]
      local ticket = tonumber(ended.ticket)
      local waiter = waiting[ticket]
      if waiter then
        waiting[ticket] = nil
        self:push(waiter)
      else
        waiter = {}
        self.early[ticket] = waiter
      end
      waiter.status, waiter.at, waiter.bound = ended.status, ended.at, ended.bound
      waiter.on = ended.on ~= 0 and ended.on or nil
    end
  until count < BATCH
end

--- A waiter that is no task.
local driver = {}
driver.__index = driver

function driver:wake()
  self.ended = true
end

-- ---- waiting -----------------------------------------------------------------------------------

--- The task that calls this; nil outside, and in coroutines that are no tasks.
---@package
---@return neap.Task?
function rounds:me()
  local running = self.running
  return running and running:is_here() and running or nil
end

--- Wait for the end of a ticket of the engine. Each is waited for once.
---
---     local C = require "neap.engine"
---     local function nap(ns)
---       return C.neap_engine_sleep(rt.engine, rt.now_ns() + ns, rt.now_ns())
---     end
---     local status, at = rt.wait(nap(1e9))
---     print(status == C.NEAP_WOKEN, at)        --> true, 1e9
---
---@param ticket integer
---@return integer status    NEAP_GRANTED, NEAP_TIMEOUT, NEAP_CANCELLED or NEAP_WOKEN
---@return ffi.cdata* at
---@return integer bound
---@return true? late        NEAP_CANCELLED only: it was granted at `at` all the same, before the
---task was cancelled and without its having seen it; the caller has to undo that
---@return ffi.cdata*? on    the conditions it was granted under (neap_completion.on), if any held
function rounds:wait(ticket)
  ticket = tonumber(ticket)
  local early = self.early[ticket]
  if early then
    self.early[ticket] = nil
    return early.status, early.at, early.bound, nil, early.on
  end
  local me = self:me()
  if not me then
    local waiter = setmetatable({}, driver)
    self.waiting[ticket] = waiter
    local ok, why = pcall(self.drive, self, waiter)
    if not ok then
      self:cancel(ticket)   -- nobody will come back for it
      error(why, 0)
    end
    return waiter.status, waiter.at, waiter.bound, nil, waiter.on
  end
  self.waiting[ticket] = me
  me.ticket = ticket
  if me:take_cancelled() then me:cancel() end
  me:pause()
  me.ticket = nil
  local status = me.status
  if me:take_late() then return CANCELLED, me.at, me.bound, status == GRANTED or nil, me.on end
  return status, me.at, me.bound, nil, me.on
end

--- End a ticket as NEAP_CANCELLED; whoever waits for it hears that.
---
---     rt.cancel(nap(1e9))                      --> true
---
---@param ticket integer
---@return boolean cancelled  false when it has ended already
function rounds:cancel(ticket)
  return C.neap_engine_cancel(self.rt.engine, ticket, self.rt.now_ns()) == 1
end

-- A program knows few durations, and says them with every call.
local read_already, count = {}, 0

local function read_text(text, level)
  local ns, message = require "neap.notation".duration(text)
  if not ns then error(("bad duration %q: %s"):format(text, message), level + 1) end
  if count == TEXTS then read_already, count = {}, 0 end
  read_already[text], count = ns, count + 1
  return ns
end

--- A duration as nanoseconds.
---@package
---@param duration number|string  seconds, or "250ms"
---@param level integer           whose mistake it is, as for error()
---@return ffi.cdata*  int64_t, from 0 to the horizon
function rounds.ns(duration, level)
  local ns
  if type(duration) == "string" then
    ns = read_already[duration] or read_text(duration, level + 1)
  elseif type(duration) == "number" and duration == duration then
    ns = floor(duration * 1e9 + 0.5)
  else
    error(('a duration is seconds or a text such as "250ms", not %s'):format(tostring(duration)),
      level + 1)
  end
  return ns >= FOREVER and HORIZON or instant(ns > 0 and ns or 0)
end

--- Wait for a while; 0 only lets the others go first.
---
---     rt.sleep "250ms"                         --> true
---     rt.now()                                 --> 1.25
---
---@param duration number|string  seconds, or "250ms"
---@return true? slept
---@return "cancelled"? why
function rounds:sleep(duration)
  local ns = rounds.ns(duration, 2)
  local me = self:me()
  if ns == 0 and me then
    if me:take_cancelled() then return nil, "cancelled" end
    self:push(me)
    me:pause()
    return true
  end
  local now = self.rt.now_ns()
  local ticket = C.neap_engine_sleep(self.rt.engine, now + ns, now)
  if ticket == 0 then
    error(("queue: all %d places to wait are taken (waiters_max)"):format(self.rt.waiters_max), 2)
  end
  if self:wait(ticket) == CANCELLED then return nil, "cancelled" end
  return true
end

--- Start a task. It begins when its spawner waits.
---
---     local greeting = rt.spawn("greeter", function (whom) return "hello " .. whom end, customer)
---     greeting:join()                          --> "hello ann"
---
---@param name string?  for messages
---@param fn function
---@param ... any       its arguments
---@return neap.Task
function rounds:spawn(name, fn, ...)
  if type(name) ~= "string" then return self:spawn("", name, fn, ...) end
  if type(fn) ~= "function" then error("spawn: a function expected, got " .. type(fn), 2) end
  self.spawned = self.spawned + 1
  local new = task.new(self, self.spawned, name ~= "" and name or nil, fn, ...)
  self.all[new] = true
  self:push(new)
  return new
end

---@package
---@param ended neap.Task
function rounds:bury(ended)
  self.all[ended] = nil
end

--- A task failed, and nobody was there to hear.
---@package
---@param failed neap.Task
function rounds:unheard(failed)
  self.failures[#self.failures + 1] = failed
  self.rt.report(("neap: %s: %s"):format(failed:label(), failed.failure.trace))
end

-- ---- turning -----------------------------------------------------------------------------------

-- The first half of a round; answers until when the second half may wait.
local function begin(self)
  wake_ready(self)
  collect(self)   -- what the tasks granted and cancelled each other
  return self:is_idle() and C.neap_engine_next_due(self.rt.engine) or 0
end

local function pass_and_collect(self, until_ns)
  self.pass(until_ns)
  collect(self)
end

--- One round, for whoever has a loop of its own: wake what is ready, let time pass until something
--- is due or happens, collect what ended.
---
---     rt.turn(0)
---
---@param until_ns ffi.cdata*|integer|nil  wait until this instant (ns) at most; 0 does not wait
function rounds:turn(until_ns)
  local due = begin(self)
  pass_and_collect(self, until_ns and until_ns < due and until_ns or due)
end

-- Where a task waits: the first line of its stack that is not ours.
local OURS = getinfo(1, "S").source:match "^(@.*/)runtime/rounds%.lua$" or "@"
local function place(co)
  for level = 0, 100 do
    local info = getinfo(co, level, "Sl")
    if not info then break end
    if info.currentline > 0 and info.source:sub(1, #OURS) ~= OURS then
      return info.short_src .. ":" .. info.currentline
    end
  end
  return "?"
end

local function deadlock(self)
  local lines = {}
  for each in pairs(self.all) do lines[#lines + 1] = each end
  sort(lines, function (a, b) return a.id < b.id end)
  for i, each in ipairs(lines) do
    lines[i] = ("\n  %s, at %s%s"):format(each:label(), each.co and place(each.co) or "its start",
      each.joining and ", for the end of " .. each.joining:label() or "")
  end
  return "deadlock: nothing is due, and nobody is left to give a permit back" ..
    (#lines > 0 and "; these wait:" .. concat(lines) or "")
end

--- Turn until this waiter has ended.
---@package
function rounds:drive(waiter)
  while not waiter.ended do
    local due = begin(self)
    if waiter.ended then return end
    if due == NEVER and not self.rt.outside then error(deadlock(self), 0) end
    pass_and_collect(self, due)
  end
end

-- ---- running -----------------------------------------------------------------------------------

-- A run that failed ends its other tasks: each is cancelled and may clean up, without time passing;
-- who waits again after that is dropped.
local function give_up(self)
  for each in pairs(self.all) do each:cancel() end
  for _ = 1, LAST_ROUNDS do
    collect(self)
    wake_ready(self)
  end
  for each in pairs(self.all) do
    if each.ticket then self:cancel(each.ticket) end
    each.ended, each.count = true, 0
  end
  collect(self)
  self.all, self.ready, self.head, self.tail = {}, {}, 1, 0
end

local function finish_all(self, main)
  self:drive(main)
  while not main.failure and next(self.all) do self:drive((next(self.all))) end
end

--- Call `fn` as a task, and turn until it has returned and every task has ended. When it raises an
--- error the others are cancelled.
---
---     rt.run(function () return rt.sleep(1) end)   --> true
---
---@param fn function
---@param ... any
---@return any ...  what it returned; raises what it, or a task that nobody joined, raised
function rounds:run(fn, ...)
  if type(fn) ~= "function" then error("run: a function expected, got " .. type(fn), 2) end
  if self.main then error("run: it is running already; call the function, or spawn it", 2) end
  local main = self:spawn("main", fn, ...)
  main.heard = true
  self.main = main
  local ok, why = pcall(finish_all, self, main)
  if not ok or main.failure then give_up(self) end
  self.main = nil
  local failures = self.failures
  self.failures = {}

  if not ok then error(why, 0) end
  if main.failure then
    local value = main.failure.value
    error(type(value) == "string" and main.failure.trace or value, 0)
  end
  for _, failed in ipairs(failures) do
    if not failed.heard then error(failed.failure.value, 0) end
  end
  return unpack(main, 1, main.count)
end

-- ---- opening -----------------------------------------------------------------------------------

local function to_stderr(text)
  io.stderr:write(text, "\n")
end

local VERBS = { "wait", "cancel", "sleep", "spawn", "run", "turn" }

--- Make `rt`, which has now_ns() already, a runtime.
---@package
---@param rt table
---@param pass fun(until_ns: ffi.cdata*|integer)  let time pass and things happen, until then at
---most, or not at all when that is 0; then show the engine the time
---@param close fun()  give back what the clock needed
---@param waiters_max integer?
---@param level integer  whose mistake a bad option is
---@param class? table   rounds that wait in another way: a table that looks for the rest in these
---@return neap.Rounds
function rounds.open(rt, pass, close, waiters_max, level, class)
  local most = waiters_max or WAITERS_MAX
  if type(most) ~= "number" or most < 1 or most > 2 ^ 24 or most % 1 ~= 0 then
    error("waiters_max: a whole number from 1 to 2^24 expected, got " .. tostring(most), level + 1)
  end
  local engine = C.neap_engine_open(most, rt.now_ns())
  if engine == nil then error("no memory for " .. most .. " waiters", level + 1) end
  rt.engine = engine
  rt.waiters_max = most
  rt.outside = false
  rt.report = to_stderr
  function rt.now() return tonumber(rt.now_ns()) / 1e9 end

  local self = setmetatable({
    rt = rt, pass = pass, batch = new_batch(BATCH),
    waiting = {}, early = {}, ready = {}, head = 1, tail = 0,
    pool = {}, all = {}, spawned = 0, failures = {},
  }, class or rounds)
  for _, verb in ipairs(VERBS) do
    local method = self[verb]
    rt[verb] = function (...) return method(self, ...) end
  end

  -- Not ffi.gc: permits that the collector gives back at the very end still need the engine, and
  -- finalizers of userdata run after those of cdata. What a finalizer can reach lives through it:
  -- so this one does not know rt, whose tasks may have limiters that are finalized with it.
  local guard = newproxy(true)
  local function release()
    if not engine then return end
    C.neap_engine_close(engine)
    close()
    engine = nil
  end
  function rt.close()
    release()
    rt.engine, rt.loop = nil, nil
  end
  getmetatable(guard).__gc = release
  rt.guard = guard
  return self
end

for _, fn in ipairs { wake_ready, begin, rounds.turn, rounds.drive } do jit.off(fn) end

return rounds
