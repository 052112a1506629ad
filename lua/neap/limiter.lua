--- What every limiter can do: say when, take, wait in line, and explain itself.
---
--- A limiter is a list of terms (see neap.all) and one engine call decides over all of them. This
--- module writes the call and reads the answer; the arithmetic, the lines and the clock are the
--- engine's. A verb that may not leave now answers `nil, why, wait_s`, where `why` is one of
---
---     "rate"   tokens have yet to arrive        "busy"   permits have yet to come back
---     "line"   others wait and go first         "pause"  nobody leaves for a while
---     "cost"   more than there can ever be      "closed" it refuses everything
---     "open"   a breaker turns calls away       "full"   no room for another key
---
--- and from acquire also "timeout", "cancelled", and "queue" when all places to wait are taken.
--- `wait_s` is how long until it could leave, nil when no clock can tell.
---
---     local api = neap.hybrid { requests = "10/s", input = "1000/min", calls = "8 in flight" }
local ffi = require "ffi"
local C = require "neap.engine"
local all = require "neap.all"
local answers = require "neap.answers"
local cost = require "neap.cost"
local deadlines = require "neap.deadline"
local events = require "neap.events"
local grammar = require "neap.grammar"
local keys = require "neap.key"
local permit = require "neap.permit"
local reason = require "neap.reason"
local runtime = require "neap.runtime"
local stats = require "neap.stats"

local error, getmetatable, ipairs, pairs, pcall = error, getmetatable, ipairs, pairs, pcall
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local current, read = runtime.current, cost.read
local GRANTED, WAITING, NEVER_GRANTED = C.NEAP_GRANTED, C.NEAP_WAITING, C.NEAP_NEVER
local CANCELLED, SHED, FULL = C.NEAP_CANCELLED, C.NEAP_SHED, C.NEAP_QUEUE_FULL
local OK = C.NEAP_OK

local request, answer = answers.request, answers.answer
local wait_until, binding, refusal = answers.wait_until, answers.binding, answers.refusal
local costs = request.cost
local request_t = ffi.typeof(request)

---@class neap.Limiter
---@field terms neap.Terms
---@field name string
---@field closed boolean?   by close()
---@field waiting table<integer, neap.Runtime>  tickets in line here
---@field parents table<neap.Limiter, true>     those that contain it, weak
---@field reclaim function?  when permits of it have something to give back
---@field segment neap.Segment?  it is shared by processes
---@field room neap.Room?    of the queue in it, where those who ask it wait
local limiter = {}
limiter.__index = limiter

-- ---- making -----------------------------------------------------------------------------------

--- A kind of limiter: a table of methods that starts with these, or with another kind's.
---@package
---@param kind table?
---@return table
function limiter.class(kind)
  local class = {}
  for name, value in pairs(kind or limiter) do class[name] = value end
  class.__index = class
  return class
end

--- Is it one of ours?
---@package
---@param x any
---@return boolean
function limiter.is(x)
  local class = type(x) == "table" and getmetatable(x)
  return class and class.try_acquire ~= nil and x.terms ~= nil or false
end

--- Make `self` a limiter of these parts.
---@package
---@generic T
---@param class T
---@param self table
---@param parts neap.Part[]
---@param level integer
---@param guests neap.Guest[]?  see neap.guest
---@param first string[]?        see neap.all
---@return T
function limiter.init(class, self, parts, level, guests, first)
  self.terms = all.build(parts, level + 1, guests, first)
  self.waiting = {}
  self.parents = setmetatable({}, { __mode = "k" })
  if self.terms.holds or guests and guests.hold then self.reclaim = permit.reclaimer(self) end
  stats.begin(self)
  return setmetatable(self, class)
end

--- A name from options, or what it is called otherwise.
---@package
---@param options table?
---@param otherwise string
---@param known table<string, true>  the options there are besides name
---@param level integer
---@return string
function limiter.name_of(options, otherwise, known, level)
  if options == nil then return otherwise end
  if type(options) ~= "table" then
    error("options: a table expected, got " .. type(options), level + 1)
  end
  local names = { "name" }
  for name in pairs(known) do names[#names + 1] = name end
  grammar.check_names(nil, options, names, level + 1)
  local name = options.name
  if name ~= nil and (type(name) ~= "string" or name == "") then
    error("name: a text expected, got " .. tostring(name), level + 1)
  end
  return name or otherwise
end

--- The leaf has another limit now: say so where it is called by the old one, also in whatever
--- contains it.
---@package
---@param self neap.Limiter
---@param leaf ffi.cdata*
---@param old string
---@param new string
function limiter.rename(self, leaf, old, new)
  if self.name == old then self.name = new end
  for _, part in ipairs(self.terms.parts) do
    if part.leaf == leaf and part.label == old then part.label = new end
  end
  for parent in pairs(self.parents) do limiter.rename(parent, leaf, old, new) end
end

-- ---- time -------------------------------------------------------------------------------------

local nothing = { all = ffi.new "struct neap_all" }
nothing.request = ffi.new("struct neap_request", nothing)

--- The engine's present, with all that was due before it done: the clock, or the latest that the
--- engine was told, when that steps back. It is where an empty request is granted.
---@package
---@return ffi.cdata* now
---@return neap.Runtime
function limiter.present()
  local rt = current()
  C.neap_engine_peek(rt.engine, nothing.request, rt.now_ns(), answer)
  return answer.at, rt
end

limiter.ns_of, limiter.deadline_of, limiter.joined = deadlines.ns_of, deadlines.of,
  deadlines.joined

-- ---- asking -----------------------------------------------------------------------------------

--- Who says how to wait in a queue, and asks what has none.
local function refuse_place(self, given, level)
  if given.priority ~= nil or given.flow ~= nil then
    error(("acquire: priority and flow are for a queue, and there is none in %s"):format(self.name),
      level + 1)
  end
end

--- Read what is asked for into `request`.
---@param given any
---@param waits boolean
---@param level integer
---@param key? string|integer  of a limit per key, said apart
---@return integer?  the cost, when all costs are that number
local function read_request(self, given, waits, level, key)
  local terms = self.terms
  local n = read(costs, terms, given, waits, level + 1)
  request.all = terms.all
  if key ~= nil then
    keys.set(request.key, terms.keys[1], key, level + 1)
  elseif terms.keys then
    keys.read(request.key, terms.keys, given, level + 1)
  end
  local room = self.room
  if room then
    room:write(request, given, level + 1)
  else
    request.queue = nil
    if waits and type(given) == "table" then refuse_place(self, given, level + 1) end
  end
  return n
end

limiter.read = read_request

-- ---- verbs ------------------------------------------------------------------------------------

-- In the verbs `key` is for limits per key alone, which say it first (neap.per_key). They tail-call
-- these, so that a mistake is their caller's, too.

--- Take now or not at all. Never overtakes those who wait for the same limit.
---
---     local permit, why, wait_s = api:try_acquire { requests = 1, input = 600 }
---     api:try_acquire { requests = 1, input = 600 }        --> nil, "rate", 12
---     api:try_acquire { requests = 11 }                    --> nil, "cost"
---
---@param given? integer|table<string, integer>  what it costs, 1 unless told, and keys by name
---@param key? string|integer
---@return neap.Permit? permit
---@return string? why
---@return number? wait_s
function limiter:try_acquire(given, key)
  local n = read_request(self, given, false, 2, key)
  if self.closed then return answers.own(self, "closed", n, given, key) end
  local rt = current()
  local now = rt.now_ns()
  C.neap_engine_try(rt.engine, request, now, answer)
  if answer.status == GRANTED then
    request.on = answer.on
    return answers.grant(self, request, n, answer.at, given, key)
  end
  return answers.refuse(self, now, n, given, key)
end

--- Answer as try_acquire would, and take nothing.
---
---     api:peek { requests = 1, input = 400 }               --> true
---
---@param given? integer|table<string, integer>
---@param key? string|integer
---@return true? granted
---@return string? why
---@return number? wait_s
function limiter:peek(given, key)
  read_request(self, given, false, 2, key)
  if self.closed then return nil, "closed" end
  local rt = current()
  local now = rt.now_ns()
  C.neap_engine_peek(rt.engine, request, now, answer)
  if answer.status == GRANTED then return true end
  return refusal(self, now)
end

local watch_begin, watch_over = nil, nil

--- Who sees to it that those in line hear of what other processes do (neap.segment).
---@package
---@param begin fun(rt: neap.Runtime, parts: neap.Part[])
---@param over fun(rt: neap.Runtime, parts: neap.Part[])
function limiter.watch(begin, over) watch_begin, watch_over = begin, over end

--- What a call gives as its cost, as any limiter reads it. Kinds may have a way of their own.
---@package
---@param given any
---@return any
function limiter:costs_of(given) return given end

--- What would change a limiter behind the backs of other processes is refused.
---@package
---@param self neap.Limiter
---@param verb string
---@param level integer
function limiter.alone(self, verb, level)
  if self.segment then
    error(("%s: %s is shared with other processes: only reconfigure changes it"):format(verb,
      self.name), level + 1)
  end
end

--- What is left to do when whoever waited is gone: nginx ends requests whenever it likes.
---@return fun(status: integer, at: ffi.cdata*, on: ffi.cdata*?)
local function loser(self, rt, ticket, kept, n, pinned)
  return function (status, at, on)
    kept.on = on or 0
    self.waiting[ticket] = nil
    if self.terms.shared then watch_over(rt, self.terms.shared) end
    if pinned then keys.unpin(pinned) end
    if status == GRANTED then
      permit.new(self, kept, n, at):undo()
      stats.refused(self, "cancelled")
    end
  end
end

--- In line under the ticket in `answer`, until it ends.
local function stand(self, rt, began, n, given, key)
  local ticket = tonumber(answer.ticket)
  local kept = request_t(request)   -- others use `request` meanwhile
  local pinned = self.terms.keys and keys.pin(self.terms.keys)
  self.waiting[ticket] = rt
  local fields = answers.waiting(self, began, n, given, key)
  local lost = rt.loses and loser(self, rt, ticket, kept, n, pinned) or nil
  local shared = self.terms.shared
  if shared then watch_begin(rt, shared) end
  local status, at, bound, late, on = rt.wait(ticket, lost)
  if shared then watch_over(rt, shared) end
  kept.on = on or 0
  self.waiting[ticket] = nil
  if pinned then keys.unpin(pinned) end
  local waited = at > began and tonumber(at - began) / 1e9 or 0
  if status == GRANTED then
    return answers.grant(self, kept, n, at, given, key, waited)
  elseif status == CANCELLED then
    if late then
      permit.new(self, kept, n, at):undo()
      stats.refused(self, "cancelled")
    end
    return answers.ended(self, self.closed and "closed" or "cancelled", nil, fields, waited)
  elseif status == NEVER_GRANTED then
    return answers.ended(self, "cost", nil, fields, waited)   -- the limit was lowered below it
  elseif status == FULL then
    return answers.ended(self, "queue", nil, fields, waited)   -- who came later has its place
  end
  local now = rt.now_ns()
  C.neap_engine_peek(rt.engine, kept, now, answer)
  local wait_s = answer.status == GRANTED and 0 or wait_until(answer.at, now)
  local why = status == SHED and binding(self, bound).shed or "timeout"
  return answers.ended(self, why, wait_s, fields, waited)
end

--- Take, and wait in line for it: for ever, or as long as `timeout` (a duration, 0: not at all) or
--- `deadline` (an instant) say. What cannot be met in time is refused at once.
---
---     api:acquire { input = 600, timeout = "5s" }          --> nil, "timeout", 12
---     api:acquire({ input = 600 }, "20s"):release()
---     neap.now()                                           --> 12
---
---@param given? integer|table  `{ input = 1500, timeout = 2 }`, `{ cost = 3, deadline = at }`
---@param wait? number|string|table  a timeout, seconds or "2s", or `{ deadline = at }`, if not in
---the table
---@param key? string|integer
---@return neap.Permit? permit
---@return string? why
---@return number? wait_s  after "timeout": until it could have been, asked anew
function limiter:acquire(given, wait, key)
  if wait ~= nil then given = limiter.joined(given, wait, 2) end
  local n = read_request(self, given, true, 2, key)
  local rt = current()
  local now = rt.now_ns()
  request.deadline = limiter.deadline_of(given, now, 2)
  if self.closed then return answers.own(self, "closed", n, given, key) end
  if C.neap_engine_acquire(rt.engine, request, now, answer) ~= OK then
    return nil, "memory"
  elseif answer.status == GRANTED then
    request.on = answer.on
    return answers.grant(self, request, n, answer.at, given, key)
  elseif answer.status == WAITING then
    return stand(self, rt, now, n, given, key)
  end
  return answers.refuse(self, now, n, given, key)
end

--- What stands in the way of a call, nil when nothing does. With a timeout or a deadline, as for
--- acquire, also whether it can be met: "timeout" when it cannot.
---
---     api:why { input = 600 }   --> "input: needs 600 of 1000, has 0; free in 36s"
---     api:why { input = 600, timeout = "5s" }.word         --> "timeout"
---
---@param given? integer|table<string, integer>
---@param key? string|integer
---@return neap.Reason?
function limiter:why(given, key)
  read_request(self, given, true, 2, key)
  local rt = current()
  local now = rt.now_ns()
  local deadline = limiter.deadline_of(given, now, 2)
  if self.closed then return reason.closed(self) end
  C.neap_engine_peek(rt.engine, request, now, answer)
  if answer.status == GRANTED then return nil end
  local _, word, wait = refusal(self, now)
  return reason.new(self.terms, answer, request, word, wait, now, deadline)
end

--- After a call: give back, and answer as it did.
local function finish(held, ok, ...)
  held:give(ok and "success" or "failure")
  if not ok then error((...), 0) end
  return ...
end

limiter.finish = finish

--- Acquire, call `fn(...)`, give back: "success" when it returns; "failure" when it raises, and
--- then its error goes on unchanged.
---
---     local answer = api:with({ requests = 1, timeout = "5s" }, fetch, url)
---
---@param given integer|table|nil  as for acquire
---@param fn function
---@param ... any  its arguments
---@return any ...  its results; or nil, why, wait_s when there was no permit and it was not called
function limiter:with(given, fn, ...)
  read(costs, self.terms, given, true, 2)
  if type(fn) ~= "function" then error("with: a function expected, got " .. type(fn), 2) end
  local held, why, wait_s = self:acquire(given)
  if not held then return nil, why, wait_s end
  return finish(held, pcall(fn, ...))
end

-- ---- looking ----------------------------------------------------------------------------------

--- The terms that a cost is charged to, as something `reason.least` can measure.
local function terms_of(self, name, level)
  if name == nil then return self.terms end
  if not self.terms.names[name] then
    cost.unknown(self.terms, name, level + 1)
  end
  local sums = {}
  for _, sum in ipairs(self.terms.sums) do
    for _, part in ipairs(sum.parts) do
      if part.cost == name then
        sums[#sums + 1] = { leaf = sum.leaf, multiplier = part.multiplier, parts = { part } }
      end
    end
  end
  return { sums = sums }
end

--- The keys a look is about; a key that is not said stands for one that was never seen.
local function keys_of(self, given, level)
  local kinds = self.terms.keys
  if not kinds or given == nil then return nil end
  keys.read(request.key, kinds, given, level + 1)
  return request.key
end

--- Whole tokens or permits that a call could have now, of every limit or of one cost; below 0
--- after borrowing. Those who wait are not counted. math.huge: no limit.
---
---     api:available "requests"                             --> 9
---
---@param name? string
---@param of? table<string, string|integer>  the keys, where limits are kept by key
---@return number
function limiter:available(name, of)
  local now = limiter.present()
  return reason.least(terms_of(self, name, 2), reason.balance, keys_of(self, of, 2), now)
end

--- The most that one call could ever have. math.huge: no limit.
---
---     api:capacity()                                       --> 8
---     api:capacity "input"                                 --> 1000
---
---@param name? string
---@param of? table<string, string|integer>
---@return number
function limiter:capacity(name, of)
  local now = limiter.present()
  return reason.least(terms_of(self, name, 2), reason.capacity, keys_of(self, of, 2), now)
end

--- What became of its calls, in counters, and how long they waited.
---
---     local s = api:stats()
---     print(s.granted, s.refused.rate, s.expired, s.wait.max)   --> 3, 1, 1, 12
---
---@return neap.Stats
function limiter:stats() return stats.read(self) end

-- ---- closing ----------------------------------------------------------------------------------

--- Refuse everything from now on, those in line first, with "closed"; also whatever contains it.
--- Permits that are out can still be given back.
---
---     api:close()
---     api:try_acquire { requests = 1 }                     --> nil, "closed"
---
function limiter:close()
  if self.closed then return end
  self.closed = true
  for ticket, rt in pairs(self.waiting) do
    if rt.cancel(ticket) then stats.closed(self) end
  end
  events.about("closed", self, {})
  for parent in pairs(self.parents) do limiter.close(parent) end
end

--- What it is called.
---
---     tostring(neap.throttle "100/min")                    --> "100/min"
---
---@return string
function limiter:__tostring() return self.name end

return limiter
