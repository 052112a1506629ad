--- The runtime inside nginx: requests and timers of its Lua module wait on the module's own
--- semaphores, and nginx's loop goes on meanwhile.
---
---     request ── acquire ──> line         the driver, one light thread in each worker:
---        |                                   advance, collect, post to who was granted,
---        ╰─ semaphore <── post ──            sleep until the head of a line is due
---
--- The order is the engine's; a semaphore carries one wake-up to one waiter. The driver sleeps on
--- a semaphore, too, its bell. Whatever may change who goes next (a permit that comes back, a new
--- waiter, a limit that is moved) is an engine call, and every engine call is given the clock. So
--- reading the clock rings the bell, while anybody waits. The driver comes when the caller is done:
--- a post is an event for nginx's loop. When nobody has waited for a second it ends, and
--- the next one who waits starts another; so nothing runs in the master, and a worker that is told
--- to quit is not held up.
---
--- nginx ends requests whenever it likes: the client hangs up (lua_check_client_abort), another
--- light thread exits, kills. A thread that ended is off its semaphore, whose count says so: such a
--- waiter is taken out of its line once a second, or at once by `look`, and what it was granted
--- meanwhile goes back.
---
--- Limits that other workers share (neap.segment) change without an engine call here. So while
--- somebody waits for such a one the driver has its head asked anew: 1 ms after somebody went, at
--- last every 16 ms; and once a second it gives back what processes held that are dead.
---
--- nginx's timers count in whole ms of a clock that may be old: so it is made to look first, and
--- waits are rounded up. A grant has its exact instant all the same; the request hears of it 1 ms
--- later at most, as long as nginx is not busy. The clock is the one that every runtime and every
--- worker has. `clock = "cached"` reads it once per turn of nginx's loop.
---
--- Waiting is possible where nginx lets light threads yield: rewrite, access, content, timers, TLS
--- certificates. Elsewhere it is a mistake. A task is a light thread of the request that spawned
--- it, and ends with that; spawned where there can be none, as in init_worker, it is a timer.
local C = require "neap.engine"
local rounds = require "neap.runtime.rounds"
local semaphore = require "ngx.semaphore"

local ngx = ngx
local error, ipairs, next, pairs, pcall = error, ipairs, next, pairs, pcall
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local ceil, min, max = math.ceil, math.min, math.max
local co_running = coroutine.running
local now_cached, update_time = ngx.now, ngx.update_time

local CANCELLED, GRANTED = C.NEAP_CANCELLED, C.NEAP_GRANTED
local NEVER = C.neap_never

local LOOK_S = 1          -- those who are gone are looked for this often, while anybody waits
local PATIENCE_S = 10     -- who waits longer than this looks whether there is a driver
local ALONE_S = 0.005     -- when nginx refuses a driver, waiters look themselves, this often
local SOON_NS, LATE_NS = 1e6, 16e6   -- between two looks at what others do
local BATCH = 256
local POOL_MAX = 1024     -- idle semaphores kept

---@class neap.NgxRounds : neap.Rounds
---@field bell table               what the driver sleeps on
---@field driving boolean?         there is one, or a timer that will be
---@field rung boolean?            and its bell has been rung
---@field count integer            who waits, or was posted to and has not come back yet
---@field posted table[]           those last ones, if they were granted something
---@field looked ffi.cdata*        when those who are gone were last looked for
---@field others table?             what others share and somebody waits for; `asked` when it was
---  last asked, next after `step` ns; `reaped` when what the dead held was last given back
---@field tasks table<thread, neap.Task>
---@field counts { sleeps: integer, turns: integer }
local light = setmetatable({}, { __index = rounds })
light.__index = light

local function clock() return (C.neap_loop_now(nil)) end   -- in parentheses: see permit.new

-- ---- semaphores --------------------------------------------------------------------------------

local function take_semaphore(self)
  local idle = self.idle
  local one = idle[#idle]
  if one then
    idle[#idle] = nil
    return one
  end
  local message
  one, message = semaphore.new(0)
  return one or error("no memory for a semaphore: " .. tostring(message), 0)
end

-- One that somebody else posted to meanwhile, or waits on, is not used again.
local function put_semaphore(self, one)
  local idle = self.idle
  if #idle < POOL_MAX and one:count() == 0 then idle[#idle + 1] = one end
end

--- Has its thread ended? A semaphore counts posts less those who wait. One that is not parked,
--- because it looks itself, is there.
local function is_gone(waiter)
  return not waiter.here and waiter.semaphore:count() >= (waiter.is_posted and 1 or 0)
end

-- ---- the driver --------------------------------------------------------------------------------

local function forget(self, waiter)
  self.count = self.count - 1
  if waiter.lost then
    local ok, message = pcall(waiter.lost, waiter.status, waiter.at, waiter.on)
    if not ok then self.rt.report("neap: " .. tostring(message)) end
  end
end

-- Its ticket has ended: let it know, if it is there.
local function hand_over(self, waiter)
  if waiter.here then return end   -- it sees by itself
  if is_gone(waiter) then return forget(self, waiter) end
  waiter.is_posted = true
  waiter.semaphore:post(1)
  local posted = self.posted
  posted[#posted + 1] = waiter
end

-- Those who ended between the post and their turn.
local function look_after_posted(self)
  local posted, kept = self.posted, 0
  for i = 1, #posted do
    local waiter = posted[i]
    posted[i] = nil
    if not waiter.taken then
      if is_gone(waiter) then
        forget(self, waiter)
      else
        kept = kept + 1
        posted[kept] = waiter
      end
    end
  end
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
      local is_early = not waiter
      if is_early then
        waiter = {}
        self.early[ticket] = waiter
      end
      waiter.status, waiter.at, waiter.bound = ended.status, ended.at, ended.bound
      waiter.on = ended.on ~= 0 and ended.on or nil
      if self.others and ended.status == GRANTED then self.others.step = SOON_NS end
      if not is_early then
        waiting[ticket] = nil
        hand_over(self, waiter)
      end
    end
  until count < BATCH
end

-- Out of the lines with those who are gone.
local function look(self, now)
  self.looked = now
  for ticket, waiter in pairs(self.waiting) do
    if is_gone(waiter) then C.neap_engine_cancel(self.rt.engine, ticket, now) end
  end
end

-- What has changed of limits that others share?
local function look_at_others(self, now)
  local others = self.others
  if not others or not next(others.of) then return end
  if now - others.reaped >= LOOK_S * 1e9 then
    others.reaped = now
    others.reap(others.of)
  end
  if now - others.asked >= others.step then
    others.asked, others.step = now, min(2 * others.step, LATE_NS)
    others.look(self.rt, others.of, now)
  end
end

--- Let time pass, and let those know whose turn it is. Does not wait.
function light:turn()
  look_after_posted(self)
  local now = clock()
  C.neap_engine_advance(self.rt.engine, now)
  if now - self.looked >= LOOK_S * 1e9 then look(self, now) end
  look_at_others(self, now)
  collect(self)
  self.turned = now
end

-- Until the next is due, in seconds that nginx neither cuts nor sees start in the past.
local function rest(self)
  if self.count == 0 then return LOOK_S end
  local due, others = C.neap_engine_next_due(self.rt.engine), self.others
  if others and next(others.of) and others.asked + others.step < due then
    due = others.asked + others.step
  end
  local ms = LOOK_S * 1000
  if due ~= NEVER then ms = min(ms, max(1, ceil(tonumber(due - clock()) / 1e6))) end
  update_time()
  return (ms + 0.5) / 1000
end

local function drive_until_idle(self)
  repeat
    self.rung = false   -- a turn may ring for another: what is given back there lets others go
    self.counts.turns = self.counts.turns + 1
    self:turn()
    local rung = self.bell:wait(rest(self))
  until not rung and self.count == 0
  self:turn()
end

local function drive(_, self)
  local ok, message = pcall(drive_until_idle, self)
  self.driving, self.rung = nil, nil
  if not ok then self.rt.report("neap: the driver failed: " .. tostring(message)) end
end

-- Let the driver come soon; false when nginx refuses one.
local function ring(self)
  if not self.driving then
    self.bell = self.bell or semaphore.new(0)
    self.driving, self.rung = true, true
    local ok, message = ngx.timer.at(0, drive, self)
    if not ok then
      self.driving, self.rung = nil, nil
      self.rt.report("neap: no driver, waiters look themselves: " .. tostring(message))
      return false
    end
  elseif not self.rung then
    self.rung = true
    self.bell:post(1)
  end
  return true
end

--- Whoever is gone leaves the lines now: for the log phase of a request that was ended.
function light:look()
  if self.count > 0 then
    self.looked = 0LL
    ring(self)
  end
end

--- Somebody waits for what others share: as long as something is in `of`, have it looked at.
---@param of table<any, any>
---@param look_again fun(rt: neap.Runtime, of: table, now: ffi.cdata*)
---@param reap fun(of: table)
function light:watch(of, look_again, reap)
  local now = clock()
  self.others = { of = of, look = look_again, reap = reap, asked = now, step = SOON_NS,
    reaped = self.others and self.others.reaped or now }
end

-- ---- waiting -----------------------------------------------------------------------------------

-- Nothing came for a long time. Timers may be scheduled and never run (lua_max_running_timers).
local function look_around(self, waiter)
  if self.driving and clock() - self.turned > PATIENCE_S * 1e9 then self.driving = nil end
  waiter.here = true
  self:turn()
  waiter.here = nil
end

local function park(self, waiter)
  local semaphore_ = waiter.semaphore
  while not waiter.status do
    self.counts.sleeps = self.counts.sleeps + 1
    local ok, why = semaphore_:wait(ring(self) and PATIENCE_S or ALONE_S)
    if not ok and not waiter.status then
      if why ~= "timeout" then return why end
      look_around(self, waiter)
    end
  end
end

--- As rounds.wait says.
---@param ticket integer
---@param lost? fun(status: integer, at: ffi.cdata*, on: ffi.cdata*?)  called when it ends and who
---waited is gone
function light:wait(ticket, lost)
  ticket = tonumber(ticket)
  local early = self.early[ticket]
  if early then
    self.early[ticket] = nil
    return early.status, early.at, early.bound, nil, early.on
  end
  local me = self:me()
  local waiter = { semaphore = take_semaphore(self), lost = lost }
  self.waiting[ticket] = waiter
  self.count = self.count + 1
  if me then
    me.ticket = ticket
    if me:take_cancelled() then me:cancel() end
  end
  local problem = park(self, waiter)
  waiter.taken = true
  self.count = self.count - 1
  put_semaphore(self, waiter.semaphore)
  if me then me.ticket = nil end
  if problem then
    self.waiting[ticket] = nil
    self:cancel(ticket)
    self:turn()
    local ended = self.early[ticket]
    self.early[ticket] = nil
    if lost then lost(ended.status, ended.at, ended.on) end
    error("neap: nothing can wait here: " .. problem, 0)
  end
  if me and me:take_late() then
    return CANCELLED, waiter.at, waiter.bound, waiter.status == GRANTED or nil, waiter.on
  end
  return waiter.status, waiter.at, waiter.bound, nil, waiter.on
end

--- As rounds.sleep says.
function light:sleep(duration)
  if rounds.ns(duration, 2) > 0 then return rounds.sleep(self, duration) end
  local me = self:me()
  if me and me:take_cancelled() then return nil, "cancelled" end
  ngx.sleep(0)
  return true
end

-- ---- tasks -------------------------------------------------------------------------------------

---@return neap.Task?
function light:me() return self.tasks[co_running()] end

local function pause(task)
  while not task.semaphore:wait(PATIENCE_S) do end   -- whoever joins waits as long as it takes
end

local function live(_, self, task)
  task:pause()
  if not task.ended then
    local co = co_running()
    self.tasks[co] = task
    task:run(co)
    self.tasks[co] = nil
  end
  put_semaphore(self, task.semaphore)
end

--- Make a task run: one that waits, or a new one.
---@param task neap.Task
function light:push(task)
  if not task.semaphore then
    task.semaphore, task.pause = take_semaphore(self), pause
    if not pcall(ngx.thread.spawn, live, false, self, task) then
      local ok, message = ngx.timer.at(0, live, self, task)
      if not ok then error("spawn: nginx refuses a timer: " .. tostring(message), 3) end
    end
  end
  task.semaphore:post(1)
end

--- Wait for the end of a task, outside of tasks.
---@param task neap.Task
function light:drive(task)
  local waiter = { semaphore = take_semaphore(self) }
  task.joiners = task.joiners or {}
  task.joiners[#task.joiners + 1] = waiter
  pause(waiter)
  put_semaphore(self, waiter.semaphore)
end

--- nginx runs already: call it.
function light:run(fn, ...)
  if type(fn) ~= "function" then error("run: a function expected, got " .. type(fn), 2) end
  return fn(...)
end

-- ---- opening -----------------------------------------------------------------------------------

local function to_error_log(text) ngx.log(ngx.ERR, text) end

-- nginx's own time moves once per turn of its loop; that is when this is read anew.
local function coarse_clock()
  local seen, at
  return function ()
    local cached = now_cached()
    if cached ~= seen then seen, at = cached, clock() end
    return at
  end
end

local CLOCKS = { exact = function () return clock end, cached = coarse_clock }
local OPTIONS = { waiters_max = true, clock = true }

local module = {}

---@class neap.NgxRuntime : neap.Runtime
---@field look fun()   out of the lines with waiters that nginx has ended
---@field counts { sleeps: integer, turns: integer }  how often somebody who waits was put to sleep,
---  and how often the driver came

--- Make one; in init_by_lua, so that every worker has its own.
---@param options { waiters_max: integer?, clock: "exact"|"cached"|nil }?
---@return neap.NgxRuntime
function module.new(options)
  options = options or {}
  for name in pairs(options) do
    if not OPTIONS[name] then error("option '" .. tostring(name) .. "' is not known", 2) end
  end
  local make = CLOCKS[options.clock or "exact"]
  if not make then
    error("clock: \"exact\" or \"cached\" expected, got " .. tostring(options.clock), 2)
  end
  local read = make()
  local self = { count = 0 }
  local rt = { loses = true }
  function rt.now_ns()
    if self.count > 0 then ring(self) end
    return read()
  end
  self = rounds.open(rt, light.turn, function () end, options.waiters_max, 2, light)
  self.count, self.idle, self.posted = 0, {}, {}
  self.counts = { sleeps = 0, turns = 0 }
  rt.counts = self.counts
  self.looked, self.turned = 0LL, 0LL
  self.tasks = setmetatable({}, { __mode = "k" })
  rt.outside, rt.report = true, to_error_log
  function rt.now() return tonumber(read()) / 1e9 end
  function rt.look() return self:look() end
  function rt.watch(...) return self:watch(...) end
  return rt
end

for _, fn in ipairs { drive_until_idle, park, pause, live } do jit.off(fn) end

return module
