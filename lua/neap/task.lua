--- A task: a function that runs as a coroutine and may wait.
---
--- Tasks take turns: one runs until it waits or returns, and nobody runs in its middle. Coroutines
--- are pooled, because making one costs as much as waking six. Cancelling ends what a task waits
--- for, once: that wait answers nil, "cancelled", or the next one when the task does not wait now.
--- It is an answer like any other, and the task goes on from there.
---
--- An error ends a task. Whoever is in `join` then, or comes later, gets it raised; when nobody is,
--- it is also reported at once, with its traceback, and makes the run fail unless somebody joins.
---
---     local nap = neap.spawn("nap", neap.sleep, 60)
local co_create, co_resume, co_running = coroutine.create, coroutine.resume, coroutine.running
local co_yield = coroutine.yield
local error, ipairs, select, setmetatable, tostring = error, ipairs, select, setmetatable, tostring
local unpack, xpcall = unpack, xpcall
local getinfo, traceback = debug.getinfo, debug.traceback

local POOL_MAX = 1024       -- idle coroutines kept, about 1 KiB each
local IDLE, WAIT = {}, {}   -- what a coroutine of ours yields: done with its task, or waiting

---@class neap.Task
---@field package rounds neap.Rounds
---@field ended boolean?
---@field package failure { value: any, trace: string }?
---@field package ticket integer?     what it waits for; or
---@field package joining neap.Task?  whose end
---@field package joiners neap.Task[]?
---@field package cancelled boolean?  to be told at its next wait
---@field package late boolean?       cancelled, but what it waited for has ended already
local task = {}
task.__index = task

---@package
---@param rounds neap.Rounds
---@param id integer
---@param name string?
---@param fn function
---@return neap.Task
function task.new(rounds, id, name, fn, ...)
  local info = not name and getinfo(fn, "S")
  return setmetatable({
    rounds = rounds,
    id = id,
    name = name,
    origin = info and info.short_src .. ":" .. info.linedefined,
    fn = fn,
    count = select("#", ...),
    ...   -- its arguments, and later its results
  }, task)
end

--- What it is called in messages: the name it was given, or where its function is.
---
---     nap:label()                        --> "nap"
---
---@return string
function task:label()
  return self.name or ("task %d (%s)"):format(self.id, self.origin)
end

task.__tostring = task.label

-- ---- running -----------------------------------------------------------------------------------

local function with_trace(value)
  return { value = value, trace = traceback(tostring(value), 2) }
end

local function finish(self, ok, ...)
  self.ended = true
  if not ok then
    self.failure = ...
    self.count = 0
    return
  end
  self.count = select("#", ...)
  for i = 1, self.count do self[i] = select(i, ...) end
end

local function live(self)
  local fn = self.fn
  self.fn = nil
  finish(self, xpcall(fn, with_trace, unpack(self, 1, self.count)))
end

-- The task is in nobody's variable while the coroutine is idle, so that the pool keeps none alive.
local function body()
  while true do live(co_yield(IDLE)) end
end

local function new_coroutine()
  local co = co_create(body)
  co_resume(co)
  return co
end

-- Its end is known: wake those who wait for it.
local function announce(self, rounds)
  rounds:bury(self)
  self.co = nil
  local joiners = self.joiners or {}
  self.joiners = nil
  if self.failure and not joiners[1] and not self.heard then rounds:unheard(self) end
  for _, joiner in ipairs(joiners) do rounds:push(joiner) end
end

--- Run it until it waits or ends.
---@package
---@param rounds neap.Rounds
function task:wake(rounds)
  local co = self.co
  if not co then
    if self.ended then return end   -- cancelled before it began
    local pool = rounds.pool
    co = pool[#pool]
    if co then pool[#pool] = nil else co = new_coroutine() end
    self.co = co
  end
  local before = rounds.running
  rounds.running = self
  local _, why = co_resume(co, self)
  rounds.running = before
  if why == IDLE then
    local pool = rounds.pool
    if #pool < POOL_MAX then pool[#pool + 1] = co end
    announce(self, rounds)
  elseif why ~= WAIT then
    rounds:push(self)   -- a bare coroutine.yield() lets the others go first
  end
end

--- Run it to its end in the coroutine that calls this, which is somebody else's to resume.
---@package
---@param co thread
function task:run(co)
  self.co = co
  live(self)
  announce(self, self.rounds)
end

--- Is the caller this task, and not a coroutine that it made itself?
---@package
---@return boolean
function task:is_here()
  return self.co == co_running()
end

--- For the verbs that wait: let the others run, until somebody pushes this task.
---@package
function task:pause()
  co_yield(WAIT)
end

--- A cancellation that came while it did not wait, if any: tells of it once.
---@package
---@return boolean
function task:take_cancelled()
  local cancelled = self.cancelled
  self.cancelled = nil
  return cancelled or false
end

--- One that came too late to keep what it waited for from ending.
---@package
---@return boolean
function task:take_late()
  local late = self.late
  self.late = nil
  return late or false
end

-- ---- what others do with it --------------------------------------------------------------------

--- End what it waits for. When it has not begun yet, it never does.
---
---     neap.sleep(1)
---     nap:cancel()                       --> true
---
---@return boolean cancelled  false when it has ended already
function task:cancel()
  if self.ended then return false end
  local rounds = self.rounds
  if not self.co then
    finish(self, true, nil, "cancelled")
    announce(self, rounds)
  elseif self.ticket then
    self.late = not rounds:cancel(self.ticket)
  elseif self.joining then
    local joiners = self.joining.joiners or {}   -- none left: its end woke this one already
    for i, joiner in ipairs(joiners) do
      if joiner == self then
        table.remove(joiners, i)
        rounds:push(self)
        break
      end
    end
    self.late = true
  else
    self.cancelled = true
  end
  return true
end

-- In line for the end of `self`.
local function stand(self, me)
  local joiners = self.joiners or {}
  self.joiners = joiners
  joiners[#joiners + 1] = me
  me.joining = self
  me:pause()
  me.joining = nil
  return not me:take_late()
end

--- Wait until it has ended. Outside of tasks this drives the others until then.
---
---     nap:join()                         --> nil, "cancelled"
---     neap.spawn(fetch, url):join()      --> { status = 200, … }
---
---@return any ...  what its function returned, or nil, "cancelled" when the one who waits was
---cancelled; raises what it raised
function task:join()
  local rounds = self.rounds
  local me = rounds:me()
  if me == self then error("a task cannot wait for its own end", 2) end
  if self.ended then
    self.heard = true
  elseif not me then
    self.heard = true
    rounds:drive(self)
  elseif me:take_cancelled() then
    return nil, "cancelled"
  elseif stand(self, me) then
    self.heard = true
  else
    if self.failure and not self.heard then rounds:unheard(self) end
    return nil, "cancelled"
  end
  if self.failure then error(self.failure.value, 0) end
  return unpack(self, 1, self.count)
end

-- coroutine.resume ends every trace, and so do yields.
jit.off(task.wake)
jit.off(body)

return task
