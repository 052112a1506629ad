--- Metrics: what limiters count, as text for a scraper.
---
---     local api = neap.throttle("10/s", { name = "api" })
---     api:try_acquire()
---     local text = neap.metrics.prometheus { only = { api } }   -- all limiters, unless told
---     answer.headers["content-type"] = neap.metrics.types.prometheus
---     print(text:match "\nneap_granted_total.- (%d+)\n")       --> "1"
---
--- The counters are those that are kept anyway (neap.stats), so a limiter pays nothing for being
--- shown; they are read when somebody asks. Nobody's code is called: what guests know (neap.guest)
--- is not shown, and neither is any one key of a limit per key.
---
--- Every series has the labels `limiter`, its name, and `id`, its number, so two of one name stay
--- apart. Gauges of what there is to take have a `cost`, too, where costs have names. What an
--- event of neap.events tells, and what it adds up to here:
---
---     granted                 neap_granted_total, neap_waited_total, neap_wait_seconds
---     refused                 neap_refused_total{why}
---     timeout, cancelled      neap_expired_total, neap_cancelled_total
---     overflow                neap_queue_full_total; neap_queue_dropped_total who made room
---     settled, leaked         neap_settled_total{direction}, neap_undone_total, neap_leaked_total
---     evicted                 neap_keys_evicted_total
---     breaker                 neap_breaker_state: 0 closed, 1 half-open, 2 open
---     adaptive                neap_adaptive_limit
---     pause                   neap_pause_seconds; neap_throttled_seconds of a dispatch
---     waiting                 neap_waiting, neap_queue_depth
---     retry.*                 neap_retry_runs_total, …_repeats_total, …_failed_total
---     hedge.*                 neap_hedge_runs_total, …_extra_total, …_failed_total
---
--- Who comes from throttle-net finds here what its signals are called:
---
---     throttle_acquired_total       neap_granted_total: of every kind of limiter, waiting or not
---     throttle_wait_duration        neap_wait_seconds
---     throttle_queue_depth          neap_queue_depth
---     throttle_circuit_state        neap_breaker_state
---     throttle_rate_current         neap_adaptive_limit
---     event acquire                 granted; refused, timeout, cancelled, overflow, with why;
---                                   wait_secs is waited
---     breaker transition            breaker
---     limit changed                 adaptive, reconfigured; old and new are from and to
---     queue overflow                overflow; the policy drop_lowest_priority is drop_lowest
---     queue waiter deadline exceeded   timeout
---
--- and from Foundation, in neap.events: execute is emit, measure is measure, and start_reporter,
--- log, attach_reporter and detach_reporter are the verbs of neap.events.reporter.
---
--- A limiter takes some 50 lines, and there can be one for each host that was ever called. So there
--- is a bound, `most`: with more than that the oldest are shown, and neap_limiters_hidden says how
--- many are not.
local ffi = require "ffi"
local C = require "neap.engine"
local limiter = require "neap.limiter"
local reason = require "neap.reason"
local stats = require "neap.stats"
local text = require "neap.metrics.text"

local error, ipairs, pairs = error, ipairs, pairs
local next, tonumber, tostring, type = next, tonumber, tostring, type
local floor, huge = math.floor, math.huge
local concat, sort = table.concat, table.sort

local label, seconds = text.label, text.seconds

local MOST = 1000   -- limiters shown, unless told
local STATES = { closed = 0, ["half-open"] = 1, open = 2 }

local metrics = {
  --- What to say in Content-Type.
  types = text.types,
}

-- ---- what there is ----------------------------------------------------------------------------

local WHYS = {}
for word, cause in pairs(stats.causes) do
  WHYS[#WHYS + 1] = { label = label("why", word), cause = cause }
end
sort(WHYS, function (a, b) return a.label < b.label end)

---@class neap.metrics.Shown
---@field of any           a limiter, or what else is shown
---@field labels string?
---@field now ffi.cdata*?
---@field costs table[]?   of a limiter, see read_costs
---@field keys neap.KeyStats?

local function less(n, old) return (not old or n < old) and n or old end
local function more(n, old) return (not old or n > old) and n or old end

--- Permits that are out.
local function in_flight(leaf, now)
  if leaf.kind == C.NEAP_ADAPTIVE then return tonumber(leaf.as.adaptive.in_use) end
  if leaf.kind ~= C.NEAP_SEMAPHORE then return nil end
  return tonumber(leaf.as.semaphore.limit - C.neap_limiter_available(leaf, now))
end

--- Of each cost: what is available, at most, and in flight. Limits per key have no such numbers.
local function read_costs(self, now)
  local list, of = {}, {}
  for _, sum in ipairs(self.terms.sums) do
    for _, part in ipairs(not sum.parts[1].keyed and sum.parts or {}) do
      local cost = of[part.cost]
      if not cost then
        cost = { name = part.cost or "" }
        list[#list + 1], of[part.cost] = cost, cost
      end
      local left, most = reason.balance(sum.leaf, now), reason.capacity(sum.leaf)
      cost.available = less(left == huge and left or floor(left / part.multiplier), cost.available)
      cost.capacity = less(most == huge and most or floor(most / part.multiplier), cost.capacity)
      local out = in_flight(part.of or sum.leaf, now)
      if out then cost.in_flight = more(out, cost.in_flight) end
    end
  end
  sort(list, function (a, b) return a.name < b.name end)
  return list
end

local function of_cost(field)
  return function (one, put)
    for _, cost in ipairs(one.costs) do
      if cost[field] then put(cost[field], cost.name ~= "" and label("cost", cost.name)) end
    end
  end
end

local function counter(field)
  return function (one, put) put(one.of.counts[field]) end
end

local function leaf_of_kind(kind, read)
  return function (one, put)
    local leaf = one.of.leaf
    if leaf and leaf.kind == kind then put(read(one.of, leaf, one.now)) end
  end
end

local function of_queue(field)
  local queue = ffi.new "struct neap_queue_stats"
  return function (one, put)
    if not one.of.places then return end
    C.neap_queue_stats(one.of.room.c, queue)
    put(queue[field])
  end
end

local function of_keys(field)
  return function (one, put)
    if one.keys then put(one.keys[field]) end
  end
end

local function refusals(one, put)
  for _, why in ipairs(WHYS) do put(one.of.counts.refused[why.cause], why.label) end
end

local function settlements(one, put)
  put(one.of.counts.settled_down, "direction=\"down\"")
  put(one.of.counts.settled_up, "direction=\"up\"")
end

local function waiting(one, put)
  local n = 0
  for _ in next, one.of.waiting do n = n + 1 end
  put(n)
end

local function left_of(pause, now)
  local ends = pause.ends
  return ends >= C.neap_horizon and huge or ends > now and seconds(ends - now) or 0
end

local function paused(_, leaf, now) return left_of(leaf.as.pause, now) end

--- Of a dispatch: how long it knows of what the server said.
local function throttled(one, put)
  local recent = one.of.on_backoff and one.of.recent
  if recent then put(left_of(recent.leaf.as.pause, one.now)) end
end

-- Of limiters, in the order in which they are shown: name, type, what it is, and how it is read.
local LIMITERS = {
  { "neap_granted", "counter", "Calls granted, at once or in the end.", counter "granted" },
  { "neap_waited", "counter", "Of the calls granted, those that stood in line.",
    counter "waited" },
  { "neap_refused", "counter", "Calls refused, by why.", refusals },
  { "neap_expired", "counter", "Calls whose deadline came, or could not be met.",
    counter "expired" },
  { "neap_cancelled", "counter", "Waits that were cancelled.", counter "cancelled" },
  { "neap_queue_full", "counter", "Calls that found no place to wait, or lost theirs.",
    counter "queue_full" },
  { "neap_settled", "counter", "Calls settled for more or less than was granted.", settlements },
  { "neap_undone", "counter", "Of the calls granted, those settled with nothing used.",
    counter "undone" },
  { "neap_leaked", "counter", "Permits that were lost, and came back through the collector.",
    counter "leaked" },
  { "neap_wait_seconds", "histogram", "How long calls that may wait took until they were answered.",
    text.waits },
  { "neap_waiting", "gauge", "Calls that stand in line.", waiting },
  { "neap_available", "gauge", "Tokens or permits that a call could have now.",
    of_cost "available" },
  { "neap_capacity", "gauge", "The most that one call could ever have.", of_cost "capacity" },
  { "neap_in_flight", "gauge", "Permits that are out.", of_cost "in_flight" },
  { "neap_queue_depth", "gauge", "Calls that wait in the queue.", of_queue "waiting" },
  { "neap_queue_places", "gauge", "Calls that can wait in the queue.", of_queue "capacity" },
  { "neap_queue_dropped", "counter", "Calls that had to make room for others in the queue.",
    of_queue "dropped" },
  { "neap_breaker_state", "gauge", "0: closed, 1: half-open, 2: open.",
    leaf_of_kind(C.NEAP_BREAKER, function (l) return STATES[l:state()] end) },
  { "neap_breaker_changes", "counter", "Changes of the breaker's state.",
    leaf_of_kind(C.NEAP_BREAKER, function (l) return (l:changes()) end) },
  { "neap_adaptive_limit", "gauge", "Permits that there are just now.",
    leaf_of_kind(C.NEAP_ADAPTIVE, function (_, leaf) return leaf.as.adaptive.limit end) },
  { "neap_adaptive_changes", "counter", "Changes of the adaptive limit.",
    leaf_of_kind(C.NEAP_ADAPTIVE, function (_, leaf) return leaf.as.adaptive.changes end) },
  { "neap_pause_seconds", "gauge", "How long nobody leaves yet.",
    leaf_of_kind(C.NEAP_PAUSE, paused) },
  { "neap_throttled_seconds", "gauge", "How long a dispatch is still throttled.", throttled },
  { "neap_keys", "gauge", "Keys that are alive.", of_keys "alive" },
  { "neap_keys_evicted", "counter", "Keys forgotten to make room for others.", of_keys "evicted" },
  { "neap_keys_refused", "counter", "New keys that were turned away.", of_keys "refused" },
  { "neap_keys_shared", "counter", "Requests whose key had to share.", of_keys "shared" },
  { "neap_keys_bytes", "gauge", "Memory that keys take.", of_keys "bytes" },
}

local own = text.own

-- Of others that count.
local RETRIES = {
  { "neap_retry_runs", "counter", "Runs of a retry that began.", own "runs" },
  { "neap_retry_repeats", "counter", "Calls besides the first of each run.", own "repeats" },
  { "neap_retry_failed", "counter", "Runs that ended without a success.", own "failed" },
}
local HEDGES = {
  { "neap_hedge_runs", "counter", "Runs of a hedge that began.", own "runs" },
  { "neap_hedge_extra", "counter", "Calls besides the first of each run.", own "extra" },
  { "neap_hedge_failed", "counter", "Runs that ended without a success.", own "failed" },
}
local BUDGETS = {
  { "neap_budget_left", "gauge", "Tokens that there are, or attempts that there may be now.",
    function (one, put) put(one.of:left()) end },
  { "neap_budget_refused", "counter", "Attempts that the budget did not let begin.",
    own "refused" },
}
local HIDDEN = {
  { "neap_limiters_hidden", "gauge", "Limiters beyond those that are shown.", own "hidden" },
}
-- ---- who is shown -----------------------------------------------------------------------------

local function read_only(only, level)
  if only == nil then return function () return true end end
  if type(only) == "function" then return only end
  if type(only) ~= "table" or limiter.is(only) then
    error("metrics: only: a list of limiters and names, or a function, expected, got "
      .. tostring(only), level + 1)
  end
  local wanted = {}
  for key, one in pairs(only) do
    if type(key) ~= "number" or type(one) ~= "string" and not limiter.is(one) then
      error(("metrics: only: a limiter or a name expected, got %s"):format(tostring(one)),
        level + 1)
    end
    wanted[one] = true
  end
  return function (one) return wanted[one] or wanted[one.name] end
end

local function read_options(options, level)
  if options == nil then options = {} end
  if type(options) ~= "table" then
    error("metrics: a table of options expected, got " .. tostring(options), level + 1)
  end
  for name in pairs(options) do
    if name ~= "only" and name ~= "most" then
      error(("metrics: option '%s' is not known: there are only, most"):format(tostring(name)),
        level + 1)
    end
  end
  local most = options.most
  if most == nil then most = MOST end
  if type(most) ~= "number" or not (most >= 0) then
    error("metrics: most: a number of limiters expected, got " .. tostring(most), level + 1)
  end
  return read_only(options.only, level + 1), most
end

---@return neap.metrics.Shown[]
---@return integer hidden  those who would be shown, too, beyond `most`
local function shown(wants, most, now)
  local list, hidden = {}, 0
  for one in stats.each() do
    if wants(one) and #list < most then
      list[#list + 1] = { of = one, now = now, costs = read_costs(one, now),
        keys = one.key_stats and one:key_stats(),
        labels = label("limiter", one.name) .. "," .. label("id", tostring(one.id)) }
    elseif wants(one) then
      hidden = hidden + 1
    end
  end
  return list, hidden
end

--- Retries and the like.
---@return neap.metrics.Shown[]
local function shown_of(kind, most)
  local list = {}
  for one in stats.each_of(kind) do
    if #list >= most then break end
    local id = label("id", tostring(one.id))
    list[#list + 1] = { of = one, labels = one.name and label(kind, one.name) .. "," .. id or id }
  end
  return list
end

-- ---- writing ----------------------------------------------------------------------------------

local function all_of(open, options, level)
  local wants, most = read_options(options, level + 1)
  local now, rt = limiter.present()
  local list, hidden = shown(wants, most, now)
  local engine, out = ffi.new "struct neap_engine_stats", {}
  C.neap_engine_stats(rt.engine, engine)
  for _, group in ipairs {
    { LIMITERS, list }, { HIDDEN, { { of = { hidden = hidden } } } },
    { RETRIES, shown_of("retry", most) }, { HEDGES, shown_of("hedge", most) },
    { BUDGETS, shown_of("budget", most) }, { text.engine, { { of = engine } } },
  } do
    for _, family in ipairs(group[1]) do text.write(out, open, family, group[2]) end
  end
  if open then out[#out + 1] = "# EOF\n" end
  return concat(out)
end

--- Everything, in Prometheus' text exposition format 0.0.4: in the order of families and, in each,
--- of limiters as they were made.
---@param options? { only: (neap.Limiter|string)[]|fun(limiter: neap.Limiter): (boolean?)?,
---  most: number? }
---  only: the limiters to show and names of such, or a function that says whether; all of
---  neap.limiters() unless told. most: how many are shown, 1000 unless told
---@return string
function metrics.prometheus(options)
  local all = all_of(false, options, 2)
  return all
end

--- The same in OpenMetrics 1.0.
---
---     print(neap.metrics.openmetrics { only = { "api" } }:match "[^\n]*\n$")   --> "# EOF\n"
---
---@param options? table  as for prometheus
---@return string
function metrics.openmetrics(options)
  local all = all_of(true, options, 2)
  return all
end

return metrics
