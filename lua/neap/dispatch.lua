--- Dispatch: calls to one API that says 429 now and then, and how they go on after that.
---
---     local api = neap.dispatch { concurrency = 400, throttled_concurrency = 10 }
---     local answer = api:with(#body, function ()   -- waits for a place and for bytes
---       local answer = post(url, body)
---       if answer.status == 429 then api:set_backoff(answer.retry_after) end
---       return answer
---     end)
---
--- Three limits in one: calls at once; bytes in flight; and, while the server has had enough, few
--- calls at once, whose bytes count many times. The server has had enough from `set_backoff` until
--- so long as it said, and `backoff_window` more: of several the latest end counts.
---
---                   set_backoff(5)          backoff_window, 10 s
---     -----------------|-----------------------|-----------------------|------->
---     "throttle"       |<---- throttled_concurrency, bytes x 20 ------>|
---     "block"          |<- nobody is let in -->|
---     "both"           |<- nobody is let in -->|<------ throttled ---->|
---
--- It is one list of ordinary terms, two of which depend on pauses (neap_conditional in neap.h). So
--- a call has all that it needs or nothing, and those in line feel a 429 the moment it comes: who
--- is let in after it is charged as after it, and gives back the same, whenever that is. First
--- come, first served; nobody polls. It is a limiter: it nests, has deadlines and a `why`, and a
--- queue can stand before it (neap.queue). Nested, a call says `bytes`:
---
---     neap.hybrid({ api, "10/s" }):acquire({ bytes = 1500, timeout = "5s" }):release()
---
--- Bytes may be overdrawn by one call, however heavy; then nobody goes until that is paid off, who
--- has no bytes to send among them (but for one who asks what contains it).
local ffi = require "ffi"
local C = require "neap.engine"
local grammar = require "neap.grammar"
local limiter = require "neap.limiter"
local pause = require "neap.pause"
local semaphore = require "neap.semaphore"
local stats = require "neap.stats"

local error, max, pairs, pcall = error, math.max, pairs, pcall
local tostring, type = tostring, type

local conditional_t = ffi.typeof "struct neap_conditional"
local leaf_t = ffi.typeof "struct neap_limiter"
local OPTIONS = { "name", "concurrency", "throttled_concurrency", "byte_budget",
  "byte_penalty_multiplier", "backoff_window", "on_backoff", "window", "timeout" }
local MODES = { throttle = true, block = true, both = true }
local PENALTY_MOST = 2 ^ 31 - 1

---@class neap.Dispatch: neap.Limiter
---@field concurrency neap.Semaphore
---@field throttled neap.Semaphore   how many at once while it is throttled
---@field bytes neap.Semaphore
---@field window neap.Pause          what the server asked for
---@field recent neap.Pause          the same, and backoff_window more
---@field penalty integer
---@field backoff_window ffi.cdata*  ns
---@field on_backoff "throttle"|"block"|"both"
---@field timeout (number|string)?
local dispatch = limiter.class()

-- ---- asking -----------------------------------------------------------------------------------

local function copy(from)
  local to = {}
  for name, value in pairs(from) do to[name] = value end
  return to
end

--- A mistake that was found further in, as the caller's.
local function as_theirs(err, level)
  error(type(err) == "string" and err:gsub("^.-:%d+: ", "", 1) or err, level + 1)
end

--- What a call says it needs, as costs: a number is bytes, and an estimate below 0 is none.
---@package
---@param given any
---@return any
function dispatch:costs_of(given)
  if given == nil or type(given) == "number" then return { bytes = max(given or 0, 0) } end
  if type(given) ~= "table" then return given end   -- the limiter will say what is wrong with it
  if type(given.cost) == "table" then
    local whole = copy(given)
    whole.cost = self:costs_of(given.cost)
    return whole
  elseif given[1] ~= nil then
    return given   -- pairs say it themselves
  end
  local costs = copy(given)
  local bytes = costs.bytes
  if bytes == nil or type(bytes) == "number" and bytes < 0 then costs.bytes = 0 end
  return costs
end

--- The engine asks no limit of one who charges nothing to it, but bytes that are overdrawn stop
--- everybody. So one without bytes asks for one, which is settled at once.
---@return table? costs  nil: there are bytes in it
local function with_a_byte(costs)
  if type(costs) ~= "table" then return nil end
  if type(costs.cost) == "table" then
    local inner = with_a_byte(costs.cost)
    if inner then costs.cost = inner end
    return inner and costs
  end
  if costs.bytes ~= 0 then return nil end
  costs.bytes = 1
  return costs
end

--- Mistakes are the caller's: a tail call has no level of its own, and the other hands them on.
local function asked(self, verb, given, wait)
  local costs = self:costs_of(given)
  local light = with_a_byte(costs)
  if not light then return limiter[verb](self, costs, wait) end
  local ok, held, why, wait_s = pcall(limiter[verb], self, light, wait)
  if not ok then as_theirs(held, 2) end
  if held and held ~= true then held:settle { bytes = 0 } end
  return held, why, wait_s
end

--- Let a call in, or not.
---
---     local permit, why, wait_s = api:try_acquire(#body)
---     permit:release()
---
---@param given? integer|table  bytes; or { bytes = … }
---@return neap.Permit? permit
---@return string? why
---@return number? wait_s
function dispatch:try_acquire(given)
  return asked(self, "try_acquire", given)
end

--- Answer as try_acquire would, and let nobody in.
---
---     api:peek { bytes = 5242881 }   --> true
---
---@param given? integer|table
---@return true? granted
---@return string? why
---@return number? wait_s
function dispatch:peek(given)
  return asked(self, "peek", given)
end

--- Wait until a call may go: for ever, or as long as the dispatch's own `timeout`, or the call's,
--- says.
---
---     api:acquire({ bytes = #body, timeout = "2s" }):give "success"
---
---@param given? integer|table  bytes; or { bytes = …, timeout = …, deadline = … }
---@param wait? number|string|table  a timeout, seconds or "2s", or { deadline = at }, if not in the
---table
---@return neap.Permit? permit
---@return string? why
---@return number? wait_s
function dispatch:acquire(given, wait)
  local says = type(given) == "table" and (given.timeout ~= nil or given.deadline ~= nil)
  if wait == nil and not says then wait = self.timeout end
  return asked(self, "acquire", given, wait)
end

--- What stands in the way of a call, nil when nothing does.
---
---     api:why(#body)                 --> nil
---
---@param given? integer|table
---@return neap.Reason?
function dispatch:why(given)
  local costs = self:costs_of(given)
  return limiter.why(self, with_a_byte(costs) or costs)
end

--- Wait until a call of so many bytes may go, call `fn(...)`, give back.
---
---     local answer = api:with({ bytes = #body, timeout = "30s" }, post, url, body)
---
---@param given integer|table|nil  as for acquire
---@param fn function
---@param ... any
---@return any ...  its results, or its error again; or nil, why, wait_s when it was not called
function dispatch:with(given, fn, ...)
  if type(fn) ~= "function" then error("with: a function expected, got " .. type(fn), 2) end
  local ok, held, why, wait_s = pcall(self.acquire, self, given)
  if not ok then as_theirs(held, 2) end
  if not held then return nil, why, wait_s end
  return limiter.finish(held, pcall(fn, ...))
end

-- ---- what the server says ---------------------------------------------------------------------

--- It has had enough, for so long from now. A longer one that is on stays. Those in line are under
--- it from now on.
---
---     api:set_backoff "5s"
---
---@param duration number|string  seconds from 0: 0 begins the backoff_window
function dispatch:set_backoff(duration)
  local ns = limiter.ns_of(duration, "set_backoff", 2)
  local now, rt = limiter.present()
  local ends = now + ns
  self.recent:extend_to(ends + self.backoff_window, now, rt)
  self.window:extend_to(ends, now, rt)
end

--- Is it throttled, or still remembers that it was?
---
---     api:backoff_active()           --> true
---
---@return boolean
function dispatch:backoff_active() return self.recent:active() or self.window:active() end

--- End it now: those in line go on as if there had been none.
---
---     api:clear_backoff()
---
function dispatch:clear_backoff()
  self.recent:clear()
  self.window:clear()
end

local function limits(self)
  return ("%d %d %d"):format(self.concurrency:limit(), self.throttled:limit(), self.bytes:limit())
end

--- Has one of its limits another number than it was made with?
---@package
---@return boolean
function dispatch:is_changed() return limits(self) ~= self.made_with end

--- How it stands.
---@class neap.DispatchSnapshot
---@field name string
---@field concurrency { limit: integer, in_use: integer }
---@field throttled { limit: integer, in_use: integer }
---@field bytes { limit: integer, level: integer }  level: what is left, below 0 when overdrawn
---@field multiplier integer          what bytes count now
---@field backoff { active: boolean, left: number, recent: number, mode: string }  seconds
---@field timeout (number|string)?    of calls that do not say theirs
---@field waiting integer             calls in line

--- How it stands now.
---
---     api:snapshot().bytes           --> { limit = 5242880, level = 5242880 }
---
---@return neap.DispatchSnapshot
function dispatch:snapshot()
  local active, waiting = self:backoff_active(), 0
  for _ in pairs(self.waiting) do waiting = waiting + 1 end
  local function slots(of) return { limit = of:limit(), in_use = of:in_use() } end
  return {
    name = self.name, concurrency = slots(self.concurrency), throttled = slots(self.throttled),
    bytes = { limit = self.bytes:limit(), level = self.bytes:available() },
    multiplier = active and self.on_backoff ~= "block" and self.penalty or 1,
    backoff = { active = active, left = self.window:left(), recent = self.recent:left(),
      mode = self.on_backoff },
    timeout = self.timeout, waiting = waiting,
  }
end

-- ---- making -----------------------------------------------------------------------------------

local function refuse(text, level) error("dispatch: " .. text, level + 1) end

--- One of its semaphores.
local function part_of(options, name, limit, label, overdraw, level)
  local given = options[name]
  if given == nil then given = limit end
  if type(given) == "string" and not given:find "flight" then given = given .. " in flight" end
  local ok, made = pcall(semaphore, given, { name = label, overdraw = overdraw })
  if not ok then refuse(name .. ": " .. made:gsub("^.-:%d+: ", ""), level + 1) end
  return stats.hide(made)
end

local function read_penalty(options, level)
  local n = options.byte_penalty_multiplier
  if n == nil then return 20 end
  if type(n) ~= "number" or n % 1 ~= 0 or not (n >= 1 and n <= PENALTY_MOST) then
    refuse("byte_penalty_multiplier: a whole number from 1 expected, got " .. tostring(n),
      level + 1)
  end
  return n
end

local function read_window(options, name, level)
  local given = options.window
  if given == nil then return stats.hide(pause { name = name }) end
  if not limiter.is(given) or not given.leaf or given.leaf.kind ~= C.NEAP_PAUSE then
    refuse("window: a pause, or a back-off window's :of(key), expected, got " .. tostring(given),
      level + 1)
  end
  return given
end

--- What is asked of a semaphore while there is a backoff, and while there is none.
local function under(self, of, on, off, cost)
  local leaf = leaf_t()
  local condition = conditional_t()
  condition.of, condition.on, condition.off = of.leaf, on, off
  condition.pause[0] = self.recent.leaf.as.pause
  condition.pause[1] = self.window.leaf.as.pause
  C.neap_conditional_init(leaf, condition)
  return { leaf = leaf, of = of.leaf, memory = { self.recent.leaf, self.window.leaf },
    multiplier = 1, cost = cost, label = of.name, word = "busy", dispatch = self }
end

local function parts_of(self)
  local parts = { { leaf = self.concurrency.leaf, multiplier = 1, cost = false,
    label = self.concurrency.name, word = "busy" } }
  if self.on_backoff ~= "block" then
    parts[#parts + 1] = under(self, self.throttled, 1, 0, false)
    parts[#parts + 1] = under(self, self.bytes, self.penalty, 1, "bytes")
  else
    parts[#parts + 1] = { leaf = self.bytes.leaf, multiplier = 1, cost = "bytes",
      label = self.bytes.name, word = "busy" }
  end
  if self.on_backoff ~= "throttle" then
    parts[#parts + 1] = { leaf = self.window.leaf, multiplier = 1, cost = false,
      label = self.window.name, word = "pause", dispatch = self }
  end
  return parts
end

--- Make one.
---
---   concurrency              calls at once, 400 unless told
---   throttled_concurrency    and of those let in during a backoff, 10
---   byte_budget              bytes in flight, 5242880; or a text, "5MB"
---   byte_penalty_multiplier  what a byte counts during a backoff, 20
---   backoff_window           how long it is throttled after what the server asked for, "10s"
---   on_backoff               "throttle" (unless told), "block", "both": see above
---   window                   a pause that others extend, too: neap.pause(), or windows:of(host)
---   timeout                  how long calls wait that do not say; for ever unless told
---   name                     "dispatch"
---@param options? table
---@return neap.Dispatch
return function (options)
  if options == nil then options = {} end
  if type(options) ~= "table" then
    refuse("a table expected, as in { concurrency = 64 }, got " .. type(options), 2)
  end
  grammar.check_names("dispatch", options, OPTIONS, 2)
  local self = { name = options.name == nil and "dispatch" or options.name }
  if type(self.name) ~= "string" or self.name == "" then
    refuse("name: a text expected, got " .. tostring(self.name), 2)
  end
  local name = self.name
  self.concurrency = part_of(options, "concurrency", 400, name .. " calls", false, 2)
  self.throttled = part_of(options, "throttled_concurrency", 10, name .. " throttled", false, 2)
  self.bytes = part_of(options, "byte_budget", 5242880, name .. " bytes", true, 2)
  self.penalty = read_penalty(options, 2)
  local recent = options.backoff_window == nil and "10s" or options.backoff_window
  self.backoff_window = limiter.ns_of(recent, "dispatch: backoff_window", 2)
  self.on_backoff = options.on_backoff == nil and "throttle" or options.on_backoff
  if not MODES[self.on_backoff] then
    refuse("on_backoff: \"throttle\", \"block\" or \"both\" expected, got "
      .. tostring(options.on_backoff), 2)
  end
  if options.timeout ~= nil then limiter.ns_of(options.timeout, "dispatch: timeout", 2) end
  self.timeout = options.timeout
  self.window = read_window(options, name .. " backoff", 2)
  self.recent = stats.hide(pause { name = name .. " recent" })
  self.made_with = limits(self)
  return limiter.init(dispatch, self, parts_of(self), 2)
end
