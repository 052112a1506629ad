--- What a prompt has on its bench: policies to try, calls in line, and the verbs for both.
---
---     > try("openai", { input = 900 })     a permit, or why not
---     > acquire "openai"                   the same, in line
---     > why "openai"                       what stands in the way, and until when
---     > advance "30s"                      time moves, and tells what happened
---     > timeline()                         who would be granted when
---     > whatif(openai, { requests = "100/min burst 40" })
---
--- A permit that nobody keeps in a variable would be given back by the collector at some moment.
--- Here it stays until `release`: what a prompt shows does not change behind one's back.
local explain = require "neap.cli.explain"
local forecast = require "neap.cli.forecast"
local limiter = require "neap.limiter"
local live = require "neap.policy.live"
local notation = require "neap.notation"
local show = require "neap.cli.show"
local views = require "neap.cli.views"

local concat, error, floor = table.concat, error, math.floor
local getmetatable, ipairs, pairs, pcall = getmetatable, ipairs, pairs, pcall
local setmetatable, tostring, type = setmetatable, tostring, type
local remove = table.remove

local bench = {}

---@class neap.Bench
---@field clock neap.Clock
---@field policies table<string, neap.cli.Policy>
---@field names string[]             of policies, as in the file
---@field calls neap.cli.Call[]      that acquire began
---@field held neap.Permit[]
---@field copied neap.Permit[]      what copies have in flight, as their originals had
---@field changes table[]            what revert undoes, the latest last
---@field signals neap.Signals?
---@field told string[]              what happened and was not shown yet
local Bench = {}
Bench.__index = Bench

-- ---- calls in line ----------------------------------------------------------------------------

---@class neap.cli.Call
---@field n integer
---@field of string
---@field began number     s
---@field permit neap.Permit?
---@field why string?
---@field at number?       s: when it ended
local Call = {}
Call.__index = Call

local function ending(call)
  if call.permit then
    local waited = call.at - call.began
    return "granted" .. (waited > 0 and ", waited " .. show.duration(waited) or "")
  end
  return show.refusal(call.why, call.wait_s)
end

function Call:__tostring()
  local name = ("#%d %s: "):format(self.n, self.of)
  if self.at then return name .. ending(self) end
  local entry = forecast.of(self.bench, self)
  return name .. "in line; " .. (entry and ("%s at %s"):format(entry.granted and "granted"
    or entry.word, show.duration(entry.at)) or "waits for a permit to come back")
end

--- End its wait.
---
---     acquire("openai"):cancel()
---
---@return boolean
function Call:cancel()
  local cancelled = self.task:cancel()
  self.bench:settle()
  return cancelled
end

local function keep(self, permit)
  local holds = permit and permit.limiter and permit.limiter.reclaim
  if holds then self.held[#self.held + 1] = permit end
  return permit
end

local function wait_in_line(self, call, of, given)
  local fine, permit, why, wait_s = pcall(of.acquire, of, given)
  call.at = self.clock.rt.now()
  if not fine then
    call.failed = permit
    return
  end
  call.permit, call.why, call.wait_s = keep(self, permit), why, wait_s
  if call.told then
    self.told[#self.told + 1] = ("%s  #%d %s: %s"):format(show.duration(call.at), call.n, call.of,
      ending(call))
  end
end

local function stand(self, of, name, given)
  local call = setmetatable({ n = #self.calls + 1, of = name, bench = self,
    began = self.clock.rt.now() }, Call)
  call.task = self.clock.rt.spawn(("#%d %s"):format(call.n, name), wait_in_line, self, call, of,
    given)
  self:settle()
  if call.failed then error(tostring(call.failed), 0) end
  call.told = true
  self.calls[call.n] = call
  return call
end

-- ---- whom a verb means ------------------------------------------------------------------------

--- What is asked, and what it is called.
---@param what string|table
---@return table of
---@return string name
function Bench:of(what)
  if type(what) == "string" then
    local found = self.policies[what]
    if not found then
      error(notation.suggest(("no policy '%s'"):format(notation.show(what, 80)), what,
        self.names), 0)
    end
    return found.opened, what
  end
  if views.is_policy(what) then return what.opened, what.name end
  if views.is_limit(what) then return what.limiter, what.label end
  local class = type(what) == "table" and getmetatable(what)
  if limiter.is(what) or class == live then return what, tostring(what.name) end
  error("a policy, its name or a limiter expected, got " .. show.value(what), 0)
end

-- ---- verbs ------------------------------------------------------------------------------------

---@class neap.cli.Verbs
---@field [string] fun(...): any
local VERBS = {}

--- Take now or not at all: try("openai"), try("openai", { input = 900, tenant = "42" }).
function VERBS.try(self, what, given)
  local of = self:of(what)
  local permit, why, wait_s = of:try_acquire(given)
  if permit then return keep(self, permit) end
  return nil, why, wait_s
end

--- Take, in line: acquire("openai", { input = 900, timeout = "5s" }). In virtual time this answers
--- the call in line, for `timeline` and `advance`; else it waits.
function VERBS.acquire(self, what, given)
  local of, name = self:of(what)
  if self.clock.virtual then return stand(self, of, name, given) end
  local permit, why, wait_s = of:acquire(given)
  if permit then return keep(self, permit) end
  return nil, why, wait_s
end

--- What stands in the way of a call: the limit that binds, what it has, who is ahead, and when it
--- could leave: why("openai", { input = 900 }).
function VERBS.why(self, what, given)
  local reason = self:of(what):why(given)
  if not reason then return "nothing: it may leave now" end
  if reason.at and self.clock.virtual then
    return ("%s; at %s"):format(tostring(reason), show.duration(reason.at))
  end
  return tostring(reason)
end

--- Could it leave now, and if not, when: as try, but nothing is taken.
function VERBS.peek(self, what, given)
  local fine, why, wait_s = self:of(what):peek(given)
  if fine then return "it may leave now" end
  return nil, why, wait_s
end

--- Give a permit back, the latest that holds something unless told: release(p), release(p,
--- "failure"), release(p, "success", { input = 812 }) when it cost less or more.
function VERBS.release(self, permit, outcome, used)
  permit = permit or self.held[#self.held]
  if not permit then return "nothing is held" end
  if getmetatable(permit) == Call then permit = permit.permit end
  if type(permit) ~= "table" or not permit.give then
    error("release: a permit expected, got " .. show.value(permit), 0)
  end
  if used ~= nil then permit:settle(used) end
  local fine = permit:give(outcome)
  for i = #self.held, 1, -1 do
    if self.held[i] == permit then remove(self.held, i) end
  end
  self:settle()
  return fine and "given back" or "it was given back before"
end

--- The permits that hold something, the latest last: held().
function VERBS.held(self)
  return views.list(self.held, "nothing is held")
end

--- The calls that acquire began: calls().
function VERBS.calls(self)
  return views.list(self.calls, "no calls yet")
end

local function ns_of(self, duration)
  local ns
  if type(duration) == "number" then ns = floor(duration * 1e9 + 0.5) end
  if type(duration) == "string" then
    local problem
    ns, problem = notation.duration(duration)
    if not ns then error(("'%s': %s"):format(notation.show(duration, 40), problem), 0) end
  end
  if not ns or ns < 0 or not self then
    error('a duration expected, as in "30s", got ' .. show.value(duration), 0)
  end
  return ns
end

bench.ns_of = ns_of

local function only_virtual(self, verb)
  if not self.clock.virtual then
    error(verb .. ": time is the machine's here; start with --virtual", 0)
  end
end

--- Virtual time moves on, and what happens on the way is told: advance "30s".
function VERBS.advance(self, duration)
  only_virtual(self, "advance")
  self.clock.rt.advance_ns(ns_of(self, duration))
  return self:tell() or "now " .. show.duration(self.clock.rt.now())
end

--- Virtual time moves to an instant: at "12s". With a function, that is called then: at("12s",
--- function () print(try "openai") end).
function VERBS.at(self, instant, fn)
  only_virtual(self, "at")
  local rt, at = self.clock.rt, ns_of(self, instant)
  if at < rt.now_ns() then
    error(("time moves forward only, and it is %s"):format(show.duration(rt.now())), 0)
  end
  if fn ~= nil then
    if type(fn) ~= "function" then error("at: a function expected, got " .. show.value(fn), 0) end
    rt.spawn("at " .. show.duration(at / 1e9), function ()
      rt.sleep(tonumber(at - rt.now_ns()) / 1e9)
      fn()
    end)
    rt.turn(0)
    return "at " .. show.duration(at / 1e9)
  end
  rt.advance_to(at)
  return self:tell() or "now " .. show.duration(rt.now())
end

--- Who of those in line would be granted when, were nothing else to happen: timeline(), or
--- timeline "1h" to look so far (a day unless told).
function VERBS.timeline(self, within)
  return forecast.timeline(self, within and ns_of(self, within) or 86400e9)
end

--- How much a limit will have, as a plot: plot(openai, "1m"), plot(openai.limits.requests, "10s").
--- Nothing happens here for it: those in line go in a copy.
function VERBS.plot(self, what, within)
  local ns = ns_of(self, within or "1m")
  if ns == 0 then error("plot: 0s is no stretch of time", 0) end
  return forecast.plot(self, what, ns)
end

--- The same policy with other limits, as used up as this one is: w = whatif(openai, { requests =
--- "100/min burst 40" }), then try(w). What keys have used is not copied, nor who waits.
function VERBS.whatif(self, what, limits)
  self:of(what)
  local policy = type(what) == "string" and self.policies[what] or what
  if not views.is_policy(policy) then error("whatif: a policy expected", 0) end
  return views.what_if(self, policy, limits)
end

--- Another limit in place, for those in line, too: change(openai.limits.requests, "200/min"), or
--- with "keep" (what was spent, unless told), "balance", "scale", "reset".
function VERBS.change(self, limit, text, mode)
  if not views.is_limit(limit) then
    error("change: a limit expected, as in change(openai.limits.requests, \"200/min\")", 0)
  end
  local before = limit.text
  limit:reconfigure(text, mode)
  self.changes[#self.changes + 1] = { limit = limit, text = before }
  self:settle()
  return ("%s: %s, was %s"):format(limit.label, limit.text, before)
end

--- Undo the latest change: revert().
function VERBS.revert(self)
  local last = remove(self.changes)
  if not last then return "nothing was changed" end
  last.limit:reconfigure(last.text)
  self:settle()
  return ("%s: %s again"):format(last.limit.label, last.limit.text)
end

bench.VERBS = VERBS
views.give_verbs(VERBS)

-- ---- making -----------------------------------------------------------------------------------

--- Have those go on who may: who is let go in one round runs in the next.
function Bench:settle()
  self.clock.rt.turn(0)
  self.clock.rt.turn(0)
end

--- What happened since the last time, as lines; nil for nothing.
---@return string?
function Bench:tell()
  if not self.told[1] then return nil end
  local text = concat(self.told, "\n")
  self.told = {}
  return text
end

--- Put a policy on the bench.
---@param declared neap.policy
---@param options? table  for neap.policy.live
---@return neap.cli.Policy
function Bench:add(declared, options)
  local how = { listener = function (policy, event, fields)
    if event == "shed" then return end   -- who was turned away is told as a refusal
    local bound = fields and fields.bound
    self.told[#self.told + 1] = ("%s  %s: %s%s"):format(show.duration(self.clock.rt.now()), policy,
      event, bound and (" (%s)"):format(tostring(bound)) or "")
  end }
  for name, value in pairs(options or {}) do how[name] = value end
  local made, problem = live.new(declared, how)
  if not made then error(problem, 0) end
  return views.policy(self, made)
end

--- A bench with the policies of a tree.
---@param its_clock neap.Clock
---@param tree neap.tree?
---@param file string?
---@param signals neap.Signals?
---@return neap.Bench
function bench.new(its_clock, tree, file, signals)
  local self = setmetatable({ clock = its_clock, policies = views.policies(), names = {},
    calls = {}, held = {}, copied = {}, changes = {}, told = {}, signals = signals }, Bench)
  for i, declared in ipairs(tree and tree.policies or {}) do
    self.policies[declared.name] = self:add(declared, { file = file })
    self.names[i] = declared.name
  end
  return self
end

--- The verbs, for a prompt's variables.
---@param self neap.Bench
---@return table<string, fun(...): any>
function bench.verbs(self)
  local verbs = {}
  for name, verb in pairs(VERBS) do
    verbs[name] = explain.as(function (...) return verb(self, ...) end, verb)
  end
  return verbs
end

return bench
