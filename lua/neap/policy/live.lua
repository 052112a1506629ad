--- A live policy: what a file declares, as limiters that can be asked. A worker serves them; a game
--- server, or any program that has a loop of its own, opens them for itself:
---
---     local policies = neap.policy.open "examples/policies/game.lua"
---     local world = policies.world
---     local permit, why, wait_s = world:try_acquire { player = 7, move = 1 }
---
--- A call says what it costs, by name, and for whom, by the names of scopes. Of each of the
--- policy's own limits it is charged 1 unless told, or what `estimate` says; of what only scopes
--- have, what it is told (of a policy without limits of its own that is told nothing, 1). A scope
--- whose names it does not say has no part in it; "tenant, route" wants both. What is no limit and
--- no scope is a mistake, unless estimate looks at it.
---
--- So there is a list of terms for each set of scopes that calls name, made when one first does.
--- All of them share limits, counts and the queue, and a cost has the same index in each.
local ffi = require "ffi"
local bit = require "bit"
local C = require "neap.engine"
local estimate = require "neap.policy.estimate"
local feedback = require "neap.policy.feedback"
local key = require "neap.key"
local limiter = require "neap.limiter"
local notation = require "neap.notation"
local parts = require "neap.policy.parts"
local runtime = require "neap.runtime"
local stats = require "neap.stats"

local error, ipairs, next, pairs, pcall = error, ipairs, next, pairs, pcall
local setmetatable, tostring, type = setmetatable, tostring, type
local band, bor, lshift = bit.band, bit.bor, bit.lshift

local stats_t, waits_t = ffi.typeof "struct neap_stats", ffi.typeof "struct neap_waits"
local costs_t = ffi.typeof "int64_t[8]"
local answer = ffi.new "struct neap_answer"
local WAITS = { timeout = true, deadline = true, priority = true }

---@class neap.LivePolicy
---@field name string
---@field doc string?
---@field limits neap.PolicyLimit[]          its own, in order
---@field scopes neap.PolicyScope[]
---@field costs string[]                     names; index[name] is the place there
---@field index table<string, integer>
---@field ones ffi.cdata*                    int64_t[8]: what a call costs that says nothing
---@field names table<string, true>          what can be said of whom a call is for
---@field variants table<integer, neap.Limiter>   by the set of scopes, a bit each
---@field counts ffi.cdata*                  struct neap_stats of all calls
---@field breaker neap.Breaker?
---@field backoff neap.PolicyBackoff?
---@field queue neap.Queue?
---@field aside integer                      calls that wait in lines of keys, not in the queue
---@field declared neap.policy
local live = {}
live.__index = live
for name, method in pairs(feedback) do live[name] = method end
for name, method in pairs(estimate) do live[name] = method end

local variant_of = limiter.class()

-- ---- sets of scopes ---------------------------------------------------------------------------

--- What calls are asked that name these scopes.
---@package
---@param mask integer     bit i - 1 for scope i
---@param aside? boolean   without the queue
---@return neap.Limiter  `bound[i]` is what term i is called
function live:variant(mask, aside)
  local index = aside and mask + 2 ^ 16 or mask
  local found = self.variants[index]
  if found then return found end
  local list = {}
  if self.breaker then parts.always(list, self.breaker.terms.parts[1], self.costs) end
  if self.backoff then parts.always(list, self.backoff.window.terms.parts[1], self.costs) end
  for _, limit in ipairs(self.limits) do list[#list + 1] = limit.part end
  for _, part in ipairs(self.backoff and self.backoff.parts or {}) do list[#list + 1] = part end
  for i, scope in ipairs(self.scopes) do
    for _, limit in ipairs(band(mask, lshift(1, i - 1)) ~= 0 and scope.limits or {}) do
      list[#list + 1] = limit.part
    end
  end
  local made = limiter.init(variant_of, { name = self.name }, list, 2, nil, self.costs)
  stats.hide(made)
  made.counts, made.waits, made.terms.all.stats = self.counts, self.waits, self.counts
  made.room, made.closed, made.bound = self.queue and not aside and self.queue.room or nil,
    self.closed, {}
  made.mask, made.keyed = mask, {}
  for i, part in ipairs(made.terms.parts) do
    made.bound[i - 1] = part.label
    made.keyed[part.label] = part.keyed ~= nil
  end
  self.variants[index] = made
  return made
end

--- Does the key's own limit stand in the way of a request? Then it waits in the key's line, not in
--- the queue, whose first keeps all others waiting: what one tenant has used up holds up no other.
--- As many can wait there, of all keys, as in the queue.
---@package
---@param request ffi.cdata*  struct neap_request, as `enter` left it; its queue is changed
---@param variant neap.Limiter
---@param now ffi.cdata*      ns
---@return boolean aside
function live:stand_aside(request, variant, now)
  if not (self.queue and variant.terms.keys) then return false end
  request.queue = nil
  C.neap_engine_peek(runtime.current().engine, request, now, answer)
  local part = answer.status == C.NEAP_REFUSED and variant.terms.parts[answer.bound + 1]
  if part and part.keyed then return true end
  request.queue = self.queue.room.c
  return false
end

--- A key of several names, as one text that no others make.
local function joined(scope, by)
  local text = ""
  for _, name in ipairs(scope.by) do
    local value = by[name]
    if type(value) ~= "string" then value = "\0" .. tostring(value) end
    text = text .. #value .. ":" .. value
  end
  return text
end

--- The set of scopes that a call names, and their keys.
---@package
---@param by table<string, string|integer>
---@param into table<string, string|integer>  by the scope's name
---@return integer mask
function live:named(by, into)
  local mask = 0
  for i, scope in ipairs(self.scopes) do
    local all = true
    for _, name in ipairs(scope.by) do all = all and by[name] ~= nil end
    if all then
      mask = bor(mask, lshift(1, i - 1))
      into[scope.name] = scope.by[2] and joined(scope, by) or by[scope.by[1]]
    end
  end
  return mask
end

--- For whom a request is, for callers of the engine: its terms, its keys, and its place in the
--- queue.
---@package
---@param request ffi.cdata*  struct neap_request
---@param by table<string, string|integer>?
---@return neap.Limiter variant
---@return table<string, string|integer>? keys  by the names of scopes
function live:enter(request, by)
  local variant, keys
  request.flow = 0
  if by then
    keys = {}
    variant = self:variant(self:named(by, keys))
    for _, kind in ipairs(variant.terms.keys or {}) do
      key.set(request.key, kind, keys[kind.name], 2)
    end
    local fair = self.fair and by[self.fair]
    if fair ~= nil then request.flow = key.hash(fair, self.fair, 2) end
  else
    variant = self.variants[0]
  end
  request.all = variant.terms.all
  request.queue = self.queue and self.queue.room.c or nil
  return variant, keys
end

-- ---- priorities -------------------------------------------------------------------------------

--- What a call says of its priority, as a number: higher goes first. Of words the last one is 0,
--- and so is who says nothing.
---@package
---@param said string|integer|nil
---@return integer?
---@return string? message
function live:priority(said)
  if said == nil then return 0 end
  local declared = self.declared.queue
  local words = declared and declared.priority or {}
  for i, word in ipairs(words) do
    if word == said then return #words - i end
  end
  if not declared then return nil, "there is no queue, and so there are no priorities" end
  if type(said) == "number" and said % 1 == 0 and said >= -2 ^ 31 and said < 2 ^ 31 then
    return said
  end
  return nil, notation.suggest(("unknown priority '%s'"):format(notation.show(tostring(said))),
    type(said) == "string" and said or nil, words)
end

--- Is it so full that only those who are to be kept come in?
---@package
---@param priority integer
---@return boolean
function live:sheds(priority)
  local shed = self.shed
  if self.crowded and self.queue:len() >= self.queue.places then return true end
  return shed ~= nil and priority < shed.keep and self.queue:len() > shed.above
end

-- ---- verbs ------------------------------------------------------------------------------------

local function refuse(self, text, level)
  error(("policy '%s': %s"):format(self.name, text), level + 1)
end

--- What a call says, apart: costs, whom it is for, how it waits, and what is for estimate alone.
local function sorted(self, given, level)
  local said, by, waits, fields = {}, {}, {}, {}
  if type(given) == "number" then given = { [self.costs[1] or 1] = given } end
  if given ~= nil and type(given) ~= "table" then
    refuse(self, "a table expected, as in { tenant = \"42\", input = 900 }, got " .. type(given),
      level + 1)
  end
  for name, value in pairs(given or {}) do
    if WAITS[name] then
      waits[name] = value
    elseif self.names[name] then
      by[name], fields[name] = value, value
    elseif self.index[name] then
      said[name], fields[name] = value, value
    elseif type(name) == "string" and self.declared.estimate then
      fields[name] = value
    else
      refuse(self, self:unknown(name), level + 1)
    end
  end
  return said, by, waits, fields
end

--- How a call waits, for a limiter's acquire.
local function read_waits(self, call, waits, by, level)
  local priority, message = self:priority(waits.priority)
  if not priority then refuse(self, message, level + 1) end
  if self.queue then
    call.priority, call.flow = priority, self.fair and by[self.fair]
    local most = self.timeout_ns
    if waits.deadline == nil and most then
      local ns = waits.timeout ~= nil and limiter.ns_of(waits.timeout, "timeout", level + 1)
      if not ns or ns > most then waits.timeout = most / 1e9 end
    end
  end
  call.timeout, call.deadline = waits.timeout, waits.deadline
  return priority
end

--- A call as a limiter reads one, and the limiter.
local function read(self, given, may_wait, level)
  local said, by, waits, fields = sorted(self, given, level + 1)
  local cost, message = self:costs_of(said, fields)
  if not cost then refuse(self, message, level + 1) end
  local call = { cost = cost }
  local variant = self:variant(next(by) and self:named(by, call) or 0)
  local priority = 0
  if may_wait then
    priority = read_waits(self, call, waits, by, level + 1)
  elseif next(waits) and next(waits) ~= "priority" then
    refuse(self, next(waits) .. ": only acquire waits", level + 1)
  end
  return variant, call, priority
end

--- After a verb: what it brought about is told.
local function done(self, ...)
  self:notice()
  return ...
end

--- Take now or not at all.
---
---     print(world:try_acquire { player = 7, trade = 2 })      --> "permit of world"
---     world:try_acquire { player = 7, trade = 1 }             --> nil, "rate", 5
---
---@param given? integer|table  costs by name, keys by the names of scopes; a number is of the first
---@return neap.Permit? permit
---@return string? why
---@return number? wait_s
function live:try_acquire(given)
  local variant, call = read(self, given, false, 2)
  return done(self, limiter.try_acquire(variant, call))
end

--- Answer as try_acquire would, and take nothing.
---
---     world:peek { player = 7, trade = 3 }                    --> nil, "cost"
---
---@param given? integer|table
---@return true? granted
---@return string? why
---@return number? wait_s
function live:peek(given)
  local variant, call = read(self, given, false, 2)
  return limiter.peek(variant, call)
end

local function acquire_plain(_, variant, call) return limiter.acquire(variant, call) end

--- As stand_aside says, for a call that a limiter reads.
local function acquire_keyed(self, variant, call)
  local plain = {}
  for name, value in pairs(call) do plain[name] = value end
  plain.priority, plain.flow = nil, nil
  local aside = self:variant(variant.mask, true)
  local reason = limiter.why(aside, plain)
  if not (reason and variant.keyed[reason.limiter]) then return limiter.acquire(variant, call) end
  if self.aside >= self.queue.places then return nil, "queue" end
  self.aside = self.aside + 1
  local held, why, wait_s = limiter.acquire(aside, plain)
  self.aside = self.aside - 1
  return held, why, wait_s
end

--- Take, and wait in line for it: as long as `timeout` or `deadline` say, and no longer than the
--- policy's queue lets anybody wait.
---
---     world:acquire { player = 7, trade = 1, timeout = "2s" } --> nil, "timeout", 5
---
---@param given? integer|table  and `priority`, where there is a queue
---@return neap.Permit? permit
---@return string? why  as from any limiter; "queue" also when it sheds
---@return number? wait_s
function live:acquire(given)
  local variant, call, priority = read(self, given, true, 2)
  if self:sheds(priority) then
    self:emit("shed", { bound = "queue" })
    return nil, "queue"
  end
  local acquire = self.queue and variant.terms.keys and acquire_keyed or acquire_plain
  return done(self, acquire(self, variant, call))
end

--- Acquire, call `fn(...)`, give back.
---
---     world:with({ player = 7, chat = 1 }, function () return "hello" end)   --> "hello"
---
---@param given integer|table|nil
---@param fn function
---@param ... any
---@return any ...  its results; or nil, why, wait_s when there was no permit and it was not called
function live:with(given, fn, ...)
  if type(fn) ~= "function" then error("with: a function expected, got " .. type(fn), 2) end
  local held, why, wait_s = self:acquire(given)
  if not held then return nil, why, wait_s end
  return done(self, limiter.finish(held, pcall(fn, ...)))
end

--- What stands in the way of a call, nil when nothing does.
---
---     world:why { player = 7, trade = 1 }
---     --> "player.trade: needs 1 of 2, has 0; free in 5s"
---
---@param given? integer|table
---@return neap.Reason?
function live:why(given)
  local variant, call = read(self, given, true, 2)
  return limiter.why(variant, call)
end

--- Whole tokens that a call could have now: of a cost, or of all; for whom `by` says.
---
---     world:available("move", { player = 7 })                 --> 5
---
---@param name? string
---@param by? table<string, string|integer>
---@return number
function live:available(name, by)
  local keys = {}
  local mask = by and self:named(by, keys) or 0
  return limiter.available(self:variant(mask), name, by and keys or nil)
end

--- Refuse everything from now on, those in line first, with "closed".
---
---     world:close()
---     world:try_acquire { player = 7, move = 1 }              --> nil, "closed"
---
function live:close()
  self.closed = true
  for _, variant in pairs(self.variants) do limiter.close(variant) end
end

--- What it is called.
---
---     tostring(world)                                         --> "world"
---
---@return string
function live:__tostring() return self.name end

-- ---- making -----------------------------------------------------------------------------------

--- All names of costs: the limits' in order, then those that scopes alone have.
local function costs_of(self, declared)
  local function add(name)
    if self.index[name] then return end
    self.costs[#self.costs + 1] = name
    self.index[name] = #self.costs
  end
  for _, limit in ipairs(self.limits) do add(limit.name) end
  for _, name in ipairs(declared.costs or {}) do add(name) end
  for _, scope in ipairs(self.scopes) do
    for _, limit in ipairs(scope.limits) do add(limit.name) end
  end
  for _, limit in ipairs(self.backoff and self.backoff.throttled or {}) do add(limit.name) end
  for i = 1, #self.costs do
    self.ones[i - 1] = (i <= #self.limits or #self.limits == 0) and 1 or 0
  end
  if #self.costs < C.NEAP_COSTS then self.ones[#self.costs] = 1 end   -- what is always asked
end

local function open_queue(self, declared, from, waiting)
  local given = declared.queue
  if not given then return end
  self.queue, self.crowded = parts.queue(self:variant(0), given, from, waiting)
  self.variants[0].room = self.queue.room
  self.timeout_ns, self.fair = given.timeout_ns, given.fair
  if self.fair then self.names[self.fair] = true end
  local shed = declared.shed
  if shed then
    local kept = shed.keep and shed.keep.priority
    self.shed = { above = shed.when.share * self.queue.places,
      keep = kept and self:priority(kept) or 2 ^ 31 }
  end
end

local function build(declared, options)
  local self = setmetatable({
    name = declared.name, doc = declared.doc, declared = declared, file = options.file,
    log = options.log, listener = options.listener, costs = {}, index = {}, names = {},
    variants = {}, aside = 0, ones = costs_t(),
  }, live)
  local from = options.from
  self.counts, self.waits = from and from.counts or stats_t(), from and from.waits or waits_t()
  self.counts.waits = self.waits
  self.limits = parts.limits(declared, from and from.limits)
  self.scopes = parts.scopes(declared, from and from.scopes)
  self.breaker = parts.breaker(declared, from)
  self.backoff = parts.backoff(declared, self.limits, from and from.backoff)
  costs_of(self, declared)
  if #self.scopes > C.NEAP_KEYS then
    error(("per: %d scopes, at most %d are possible"):format(#self.scopes, C.NEAP_KEYS), 0)
  end
  for _, scope in ipairs(self.scopes) do
    for _, name in ipairs(scope.by) do
      if self.index[name] then error(("per: '%s' is the name of a limit, too"):format(name), 0) end
      self.names[name] = true
    end
  end
  self:variant(0)
  open_queue(self, declared, from, options.waiting)
  self:variant(2 ^ #self.scopes - 1)   -- too many terms or keys: better known now
  feedback.begin(self, options.guard, from)
  return self
end

--- Make a policy live, with everything as new, or as it was before.
---@package
---@param declared neap.policy
---@param options? { file: string?, log: fun(text: string)?,
---  listener: (fun(policy: string, event: string, fields: table, n: integer?))?,
---  from: neap.LivePolicy?, waiting: integer?,
---  guard: (fun(policy: string, hook: string, fn: function): fun(...): boolean, ...)? }
---  file: where it was declared, for messages; log: where errors of hooks go, stderr unless told;
---  listener: who is told of events; guard: what hooks are called by, pcall unless told;
---  from: the policy that it takes over from (neap.policy.carry), for which nobody may wait in the
---  engine then; waiting: how many did
---@return neap.LivePolicy?
---@return string? message  what the engine cannot hold to
function live.new(declared, options)
  local fine, made = pcall(build, declared, options or {})
  if fine then return made end
  return nil, ("policy '%s': %s"):format(declared.name, (tostring(made):gsub("^.-:%d+: ", "", 1)))
end

--- Open all policies of a file, or of a tree that was read.
---
---@param source string|neap.tree  a path, or what neap.policy.load gave
---@param options? table           as for live.new
---@return table<string, neap.LivePolicy>?  by name
---@return any? problem  what is wrong with it; as a text, for people
function live.open(source, options)
  local tree = source
  if type(source) == "string" then
    local mistakes
    tree, mistakes = require "neap.policy".load(source)
    if not tree then return nil, mistakes end
  elseif type(source) ~= "table" or type(source.policies) ~= "table" then
    error("open: a path, or what neap.policy.load gave, expected, got " .. tostring(source), 2)
  end
  local opened = {}
  for _, declared in ipairs(tree.policies) do
    local made, message = live.new(declared, options)
    if not made then return nil, message end
    opened[declared.name] = made
  end
  return opened
end

return live
