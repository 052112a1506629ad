--- What a policy declares, as limiters: each limit, each scope, the breaker, the pauses, and the
--- parts they have in a call (see neap.all).
---
---     limits     a throttle, a semaphore or, where it adapts, a neap.adaptive, under its name
---     scopes     a neap.per_key for each limit, charged what the limit of that name is charged,
---                and called "tenant.requests" when it is what refuses
---     breaker    a neap.breaker
---     backoff    two pauses, as a neap.dispatch has them: `window` while nobody is let in, and
---                `recent` while calls are throttled
---
--- What is asked of every call, whatever it costs, has a cost of its own without a name. Where
--- limits need all eight costs that there are, it is asked by each of them.
local ffi = require "ffi"
local C = require "neap.engine"
local adaptive = require "neap.adaptive"
local all = require "neap.all"
local breaker = require "neap.breaker"
local carry = require "neap.policy.carry"
local cost = require "neap.cost"
local notation = require "neap.notation"
local pause = require "neap.pause"
local per_key = require "neap.per_key"
local queue = require "neap.queue"
local semaphore = require "neap.semaphore"
local stats = require "neap.stats"
local throttle = require "neap.throttle"

local concat, error, ipairs, pairs = table.concat, error, ipairs, pairs
local max, min = math.max, math.min
local with = all.with

local conditional_t = ffi.typeof "struct neap_conditional"
local leaf_t = ffi.typeof "struct neap_limiter"

-- What "unlimited" is where a key has to have a limit: more than anybody can ask for.
local BOUNDLESS = { kind = "rate", mode = "burst", amount = 6, per_ns = 1, burst = 2 ^ 53 }

---@class neap.PolicyLimit
---@field name string             of the limit, and of the cost that it is charged
---@field text string             in the notation's own form
---@field value neap.limit
---@field label string            "requests", "tenant.requests"
---@field limiter neap.Limiter
---@field part neap.Part?         nil: unlimited
---@field leaf ffi.cdata*?        of a limit that is not kept by key

---@class neap.PolicyScope
---@field by string[]             the names that make up a key
---@field name string             "tenant", "tenant, route"
---@field limits neap.PolicyLimit[]
---@field keep { keys: integer?, idle_ns: integer? }?

local parts = {}

-- ---- limits -----------------------------------------------------------------------------------

--- How a limit that adapts does: the rule that moves it, and from where to where.
local function strategy_of(declared, name)
  for _, each in ipairs(declared.adaptive or {}) do
    if each.name == name then return each.notation end
  end
end

local function made_of(entry, strategy)
  local value = entry.notation
  if not strategy then
    local make = value.kind == "in_flight" and semaphore or throttle
    return make(value, { name = entry.name })
  elseif value.kind ~= "in_flight" then
    error(("adaptive.%s: '%s' is not a number in flight, so it cannot adapt"):format(entry.name,
      notation.format(value)), 0)
  end
  return adaptive { preset = strategy.kind, floor = strategy.from, initial = strategy.from,
    ceiling = min(strategy.to, value.amount), name = entry.name }
end

---@param declared neap.policy
---@param from? neap.PolicyLimit[]  those of the policy before this one
---@return neap.PolicyLimit[]
function parts.limits(declared, from)
  local list, was = {}, carry.by_name(from)
  for i, entry in ipairs(declared.limits or {}) do
    local name = entry.name
    if cost.reserved[name] then
      error(("limits.%s: the word has a meaning of its own in calls; take another"):format(name), 0)
    end
    local strategy = strategy_of(declared, name)
    local made = carry.limit(was[name], entry, strategy, declared.on_change)
      or stats.hide(made_of(entry, strategy))
    local part = made.terms.parts[1]
    list[i] = { name = name, label = name, text = notation.format(entry.notation),
      value = entry.notation, limiter = made, leaf = made.leaf,
      strategy = strategy and strategy.kind,
      part = part and with(part, { cost = name, label = name }) }
  end
  return list
end

--- The limits of its own that keys have for a limit of the scope.
local function overrides_of(scope, name)
  local found
  for _, override in ipairs(scope.override or {}) do
    for _, entry in ipairs(override.limits) do
      if entry.name == name then
        found = found or {}
        found[override.name] = entry.notation
      end
    end
  end
  return found
end

--- What keys have that have limits of their own, and the others have not.
local function only_overridden(scope)
  local names, seen = {}, {}
  for _, entry in ipairs(scope.limits) do seen[entry.name] = true end
  for _, override in ipairs(scope.override or {}) do
    for _, entry in ipairs(override.limits) do
      if not seen[entry.name] then
        names[#names + 1] = { name = entry.name, notation = { kind = "unlimited" } }
        seen[entry.name] = true
      end
    end
  end
  return names
end

local function keyed_of(scope, kind, entry, was, on_change)
  local label = kind .. "." .. entry.name
  local overrides, value = overrides_of(scope, entry.name), entry.notation
  if value.kind == "unlimited" then
    if not overrides then return nil end
    value = BOUNDLESS
  end
  local word = "rate"
  for _, each in pairs(overrides or { value }) do
    if each.kind == "in_flight" then word = "busy" end
  end
  local keep = scope.keep or {}
  local made = carry.keyed(was, { value = value, overrides = overrides, keys = keep.keys,
    on_change = entry.on_change or on_change })
  made = made or per_key(value, { name = label, by = kind, overrides = overrides, most = keep.keys,
    idle = keep.idle_ns and keep.idle_ns / 1e9, lossless = true, full = "refuse" })
  return { name = entry.name, label = label, value = entry.notation, limiter = stats.hide(made),
    kept = value,
    text = notation.format(entry.notation),
    part = with(made.terms.parts[1], { cost = entry.name, label = label, word = word }) }
end

--- Scopes, each with a table of keys per limit. A table that is full turns new keys away: what was
--- spent is forgiven to nobody, however many keys come. Keys that time has refilled take no place.
---@param declared neap.policy
---@param from? neap.PolicyScope[]
---@return neap.PolicyScope[]
function parts.scopes(declared, from)
  local list, before = {}, carry.by_name(from)
  for i, scope in ipairs(declared.per or {}) do
    local kind = concat(scope.by, ", ")
    local was = carry.by_name(before[kind] and before[kind].limits)
    local one = { by = scope.by, name = kind, limits = {}, keep = scope.keep, doc = scope.doc }
    for _, entries in ipairs { scope.limits, only_overridden(scope) } do
      for _, entry in ipairs(entries) do
        one.limits[#one.limits + 1] = keyed_of(scope, kind, entry, was[entry.name],
          declared.on_change)
      end
    end
    list[i] = one
  end
  return list
end

-- ---- the queue --------------------------------------------------------------------------------

local OVERFLOW = { refuse = "reject", ["drop oldest"] = "drop_oldest",
  ["drop lowest"] = "drop_lowest" }

--- The queue before a policy's limits. Who waits when it is made smaller has a place all the same,
--- and nobody comes in before they are fewer.
---@param limits neap.Limiter
---@param given table              as declared
---@param from? neap.LivePolicy    the policy before this one
---@param waiting? integer         how many wait there
---@return neap.Queue
---@return boolean? crowded        more may wait than `places` says
function parts.queue(limits, given, from, waiting)
  if from and carry.queues_alike(from.declared.queue, given) then
    return from.queue, from.crowded
  end
  local made = stats.hide(queue(limits, { capacity = max(given.max, waiting or 0),
    overflow = OVERFLOW[given.overflow or "refuse"], name = limits.name,
    ageing = given.ageing_ns and given.ageing_ns / 1e9 }))
  local crowded = made.places > max(given.max, 1)
  made.places = max(given.max, 1)
  return made, crowded
end

-- ---- what every call is asked for -------------------------------------------------------------

---@param declared neap.policy
---@param from? neap.LivePolicy   the policy before this one
---@return neap.Breaker?
function parts.breaker(declared, from)
  local given, was = declared.breaker, from and from.breaker
  if not given then return nil end
  local same = was and carry.breaker(from, given)
  if same then return same end
  local trip = given.trip
  local within = trip.in_ns and trip.in_ns / 1e9
  local options = { name = "breaker", cooldown = given.cooldown_ns and given.cooldown_ns / 1e9,
    trials = given.probes, required = given.probes }
  if trip.kind == "share" then
    options.ratio, options.within = trip.share, within
    options.min, options.of = within and trip.of, not within and trip.of or nil
  else
    options.failures, options.within = trip.count, within
  end
  local made = stats.hide(breaker(options))
  if was then carry.openness(was, made) end
  return made
end

--- Another multiple of a limit while there is a backoff.
local function under(pauses, part, on, off)
  local leaf, condition = leaf_t(), conditional_t()
  condition.of, condition.on, condition.off = part.leaf, on, off
  condition.pause[0], condition.pause[1] = pauses[1].leaf.as.pause, pauses[2].leaf.as.pause
  if C.neap_conditional_init(leaf, condition) ~= C.NEAP_OK then
    error(("backoff: %s cannot be %d times as much"):format(part.label, on), 0)
  end
  return with(part, { leaf = leaf, of = part.leaf, memory = { part, pauses } })
end

---@class neap.PolicyBackoff
---@field window neap.Pause          nobody is let in
---@field recent neap.Pause          and so long calls are throttled, if they are at all
---@field window_ns integer
---@field throttles boolean
---@field throttled neap.PolicyLimit[]
---@field parts neap.Part[]

--- Pauses, and what is asked while they are on. Of limits that are penalised the part changes.
---@param declared neap.policy
---@param limits neap.PolicyLimit[]
---@param from? neap.PolicyBackoff
---@return neap.PolicyBackoff?
function parts.backoff(declared, limits, from)
  local given = declared.backoff
  if not given then return nil end
  local self = { throttled = {}, parts = {}, window_ns = given.window_ns or 0,
    window = from and from.window or stats.hide(pause { name = "backoff" }),
    recent = from and from.recent or stats.hide(pause { name = "backoff" }) }
  local pauses = { self.recent, self.window }
  self.throttled = parts.limits({ limits = given.throttled, on_change = declared.on_change },
    from and from.throttled)
  for _, limit in ipairs(self.throttled) do
    limit.label = "backoff." .. limit.name
    if limit.part then
      self.parts[#self.parts + 1] = with(under(pauses, limit.part, 1, 0), { label = limit.label })
    end
  end
  local by_name = {}
  for _, limit in ipairs(limits) do by_name[limit.name] = limit end
  for _, penalty in ipairs(given.penalty or {}) do
    local limit = by_name[penalty.name]
    if limit and limit.part then limit.part = under(pauses, limit.part, penalty.count, 1) end
  end
  self.throttles = self.throttled[1] ~= nil or (given.penalty or {})[1] ~= nil
  return self
end

--- A part that every call has, as parts: one without a cost's name, or one for each cost.
---@param list neap.Part[]   they are added to
---@param part neap.Part
---@param costs string[]
function parts.always(list, part, costs)
  if #costs < C.NEAP_COSTS then
    list[#list + 1] = part
    return
  end
  for _, name in pairs(costs) do list[#list + 1] = with(part, { cost = name }) end
end

return parts
