--- What comes back: how calls went, what servers say, and who is told of what follows from it.
---
---     local discord = neap.policy.open("examples/policies/game.lua")["discord-webhook"]
---     local permit = discord:acquire()
---     permit:give(discord:report { status = 429, headers = { ["Retry-After"] = "20" } })
---
--- A status from 500 on is a failure; of those that `backoff` lists the others say nothing about
--- the server, but are a failure where a limit adapts, for then it was too high. What `breaker.on`
--- lists, and only that, is a failure where there is such a list.
---
--- A status that `backoff.on` lists begins a backoff, and so does whoever says how long. As long as
--- the server says, nobody is let in; where calls are throttled or penalised, they are from then on
--- until `window` is over, too, and where they are not and the server does not say, nobody is let
--- in for `window`. A day is the longest that a server is believed; one that is on is never cut.
local C = require "neap.engine"
local formats = require "neap.provider.formats"
local headers = require "neap.headers"
local limiter = require "neap.limiter"
local runtime = require "neap.runtime"

local ipairs, max, min, pairs, pcall = ipairs, math.max, math.min, pairs, pcall
local tonumber, tostring, type = tonumber, tostring, type

local LONGEST_S = 86400
local EPOCH_S, EPOCH_MS = 1e8, 1e11   -- numbers from here on are instants, not waits
local STATES = {
  [C.NEAP_BREAKER_CLOSED] = "closed", [C.NEAP_BREAKER_OPEN] = "open",
  [C.NEAP_BREAKER_HALF_OPEN] = "half-open",
}
local EVENTS = { closed = "close", open = "open", ["half-open"] = "half-open" }

local feedback = {}

-- ---- telling ----------------------------------------------------------------------------------

--- A hook failed.
---@package
---@param what string
---@param hook { fn: function, file: string?, line: integer }
---@param problem any
function feedback:fault(what, hook, problem)
  local text = tostring(problem):gsub("^%(policy%):(%d+): ", "")
  text = ("neap: %s:%d: %s of policy '%s': %s"):format(hook.file or self.file or "policy",
    hook.line or 0, what, self.name, text)
  if self.log then self.log(text) else io.stderr:write(text, "\n") end
  if self.listener then self.listener(self.name, "fault", { hook = what }) end
end

--- Tell of an event: whoever listens to the worker, and the policy's own hook.
---@package
---@param event string
---@param fields table
---@param n? integer  how often it happened, 1 unless told
function feedback:emit(event, fields, n)
  if self.listener then self.listener(self.name, event, fields, n) end
  self:hook(event, fields, n)
end

--- Call the policy's hook for an event, if it has one; one that fails is told of.
---@package
---@param event string
---@param fields table
---@param n? integer
function feedback:hook(event, fields, n)
  local call = self.hooks[event]
  if not call then return end
  local told = { policy = self.name, event = event, count = n or 1 }
  for name, value in pairs(fields) do told[name] = value end
  local ok, problem = call(told)
  if not ok then self:fault("on." .. event, self.declared.on[event], problem) end
end

--- Tell of what time and calls have brought about: another state of the breaker, a backoff that is
--- over, another limit.
---@package
function feedback:notice()
  if not self.watched then return end
  local now = runtime.current().now_ns()
  local breaker, backoff = self.breaker, self.backoff
  if breaker then
    local b = breaker.leaf.as.breaker
    local state = STATES[C.neap_breaker_state(b, now)]
    if state ~= self.state then
      self.state = state
      local failed = tonumber(b.failed)
      self:emit(EVENTS[state], { failed = failed, seen = max(tonumber(b.seen), failed) })
    end
  end
  if self.backing_off and now >= backoff.window.leaf.as.pause.ends
    and now >= backoff.recent.leaf.as.pause.ends then
    self.backing_off = false
    self:emit("backoff-end", {})
  end
  for _, limit in ipairs(self.adapting) do limit.limiter:notice() end
end

--- When time alone brings something about that is to be told; neap_never: it will not.
---@package
---@return ffi.cdata*
function feedback:next_change()
  local at = C.neap_never
  if self.breaker then
    local b = self.breaker.leaf.as.breaker
    if b.open == 1 and self.state == "open" and b.ends < C.neap_horizon then at = b.ends end
  end
  if self.backing_off then
    local shut, all = self.backoff.window.leaf.as.pause.ends, self.backoff.recent.leaf.as.pause.ends
    if shut > all then all = shut end
    if all < at then at = all end
  end
  return at
end

--- A call that was granted at an instant began at another: what limits that adapt know of since its
--- grant, they are to know of since it began.
---@package
---@param granted ffi.cdata*  ns
---@param began ffi.cdata*
function feedback:began_later(granted, began)
  for _, limit in ipairs(self.adapting) do
    local state = limit.leaf.as.adaptive
    if state.full_at >= granted and state.full_at < began then state.full_at = began end
  end
end

-- ---- backing off ------------------------------------------------------------------------------

--- Hold back for so long from now. A longer one that is on stays.
---
---     discord:back_off "30s"                                  --> 30
---
---@param duration number|string|nil  nil: `window`, as when a server does not say
---@return number left  seconds until all is as usual
function feedback:back_off(duration)
  local backoff = self.backoff
  if not backoff then return 0 end
  local now, rt = limiter.present()
  local ns = duration ~= nil and limiter.ns_of(duration, "back_off", 2)
    or backoff.throttles and 0 or backoff.window_ns
  local ends = now + ns
  if backoff.throttles then backoff.recent:extend_to(ends + backoff.window_ns, now, rt) end
  if ns > 0 then backoff.window:extend_to(ends, now, rt) end
  local left = self:backoff_left()
  if left > 0 then
    self.backing_off = true
    self:emit("backoff", { seconds = left })
  end
  return left
end

--- Seconds until nothing holds calls back any more, and until they are let in at all.
---
---     discord:backoff_left()                                  --> 30, 30
---
---@return number left
---@return number shut
function feedback:backoff_left()
  if not self.backoff then return 0, 0 end
  local shut = self.backoff.window:left()
  return max(shut, self.backoff.recent:left()), shut
end

--- End it now.
---
---     discord:clear_backoff()
---
function feedback:clear_backoff()
  if not self.backoff then return end
  self.backoff.window:clear()
  self.backoff.recent:clear()
  self:notice()
end

-- ---- what servers say -------------------------------------------------------------------------

--- How long a header says to wait, in seconds: a number, a duration, an instant or a date.
local function read_wait(name, text, now)
  if name == "retry-after-ms" then return headers.retry_after_ms(text) end
  local n = headers.count(text)
  if n then
    if n >= EPOCH_MS then return max(n / 1000 - now, 0) end
    return n >= EPOCH_S and max(n - now, 0) or n
  end
  return formats.duration(text) or headers.retry_after(text, { now = now, dialect = "lenient" })
end

--- The longest wait that an answer asks for, of the headers that `from` lists.
---@return number?  seconds
local function wait_of(self, answer)
  local now = headers.time_of_day(self.wall)
  local wait = answer.retry_after
  if type(wait) == "string" then wait = read_wait("retry-after", wait, now) end
  for _, name in ipairs(self.backoff.declared.from or { "retry-after" }) do
    local text = answer.headers and headers.get(answer.headers, name)
    local said = text and read_wait(name, text, now)
    if said and said > (wait or -1) then wait = said end
  end
  return wait and min(wait, LONGEST_S)
end

--- What a status says of a call.
---@package
---@param status integer?
---@return "success"|"failure"|"ignore"
function feedback:outcome_of(status)
  if not status then return "success" end
  if self.failing then return self.failing[status] and "failure"
    or self.throttling[status] and not self.adapting[1] and "ignore"
    or self.throttling[status] and "failure" or "success" end
  if status >= 500 then return "failure" end
  if not self.throttling[status] then return "success" end
  return self.adapting[1] and "failure" or "ignore"
end

--- Hear how a call went: begin a backoff if its server has had enough. Permits hear by themselves.
---
---     discord:report { status = 503 }                         --> "failure"
---     discord:report { status = 429, retry_after = 5 }        --> "ignore"
---
---@param answer { status: integer?, headers: any, retry_after: number|string|nil }
---@return "success"|"failure"|"ignore" outcome  for permit:give
function feedback:report(answer)
  local status = answer.status
  if self.backoff and (self.throttling[status or 0] or not status and answer.retry_after) then
    self:back_off(wait_of(self, answer))
  end
  return self:outcome_of(status)
end

-- -----------------------------------------------------------------------------------------------

local function set_of(list)
  local set = {}
  for _, one in ipairs(list or {}) do set[one] = true end
  return set
end

local function unwatched(_, _, fn)
  return function (...) return pcall(fn, ...) end
end

--- What a policy needs for all this, once it is built.
---@package
---@param guard function?
---@param from neap.LivePolicy?  the policy before this one
function feedback.begin(self, guard, from)
  local declared = self.declared
  self.hooks, guard = {}, guard or unwatched
  for event, hook in pairs(declared.on or {}) do
    self.hooks[event] = guard(self.name, "on." .. event, hook.fn)
  end
  local hook = declared.estimate
  self.guess = hook and guard(self.name, "estimate", hook.fn)
  self.throttling = set_of(declared.backoff and declared.backoff.on)
  self.failing = declared.breaker and declared.breaker.on and set_of(declared.breaker.on)
  self.state = from and self.breaker and from.breaker and from.state or "closed"
  self.backing_off, self.adapting = self.backoff ~= nil and from ~= nil and from.backing_off, {}
  if self.backoff then self.backoff.declared = declared.backoff end
  for _, limit in ipairs(self.limits) do
    if limit.limiter.learn then
      self.adapting[#self.adapting + 1] = limit
      limit.limiter.changed = function (_, before, after)
        self:emit("limit", { limit = limit.name, from = before, to = after })
      end
    end
  end
  self.watched = self.breaker ~= nil or self.backoff ~= nil or self.adapting[1] ~= nil
end

--- The same policy, read anew: only its hooks are others.
---@package
---@param declared neap.policy  the same but for hooks
---@param guard function?
function feedback:renew(declared, guard)
  self.declared, self.doc = declared, declared.doc
  feedback.begin(self, guard, self)
end

return feedback
