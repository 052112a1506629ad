--- What is right in a policy, and yet hardly meant: warnings, which --strict makes mistakes.
local look = require "neap.policy.look"
local notation = require "neap.notation"

local ipairs = ipairs
local concat = table.concat

local warn = {}

local MINUTE_NS = 60e9
local QUICK_S = 0.1      -- calls to servers of others seldom come back sooner

local function per_s(value) return value.amount / value.per_ns * 1e9 end

-- Of the same kind, and more.
local function is_more(one, other)
  return one.kind == other.kind and (one.kind == "rate" and per_s(one) > per_s(other)
    or one.kind == "in_flight" and one.amount > other.amount)
end

-- Where a limit of the policy, or of a scope, stands.
local function place_of(spot, name)
  if spot.node and spot.node.named[name] then return look.place_of(spot, name) end
  local field = spot.node and spot.node.named.limits
  local node = field and field.node
  if node and node.named[name] then return { at = node.named[name].at, source = node.source } end
  return look.place_of(spot, "limits")
end

-- A burst beyond the amount and beyond a minute of its rate is seldom what a provider allows.
local function check_bursts(reading, spot, list, path)
  for _, limit in ipairs(list) do
    local value = limit.notation
    if value.kind == "rate" and value.mode == "burst" and value.burst > value.amount
      and value.burst > value.amount / value.per_ns * MINUTE_NS then
      reading.report:warn(place_of(spot, limit.name), path .. limit.name,
        ("a burst of %s is more than a minute of %s"):format(
          notation.format_amount(value.burst), notation.format { kind = "rate", mode = "burst",
            amount = value.amount, per_ns = value.per_ns, burst = value.amount }))
    end
  end
end

-- So many in flight let the rate through only when calls come back soon (Little's law).
local function check_flight(reading, spot, list, path)
  local rate = list[1] and list[1].notation
  if not rate or rate.kind ~= "rate" then return end
  for _, limit in ipairs(list) do
    local back_s = limit.notation.kind == "in_flight" and limit.notation.amount / per_s(rate)
    if back_s and back_s < QUICK_S then
      reading.report:warn(place_of(spot, limit.name), path .. limit.name,
        ("%s lets %s of %s through only when calls take %.3g ms or less"):format(
          notation.format(limit.notation), notation.format(rate), list[1].name, back_s * 1000))
    end
  end
end

-- More for one than for all together.
local function check_share(reading, declared, scope)
  local spot, all = reading.spots[scope], {}
  local by = concat(scope.by, ", ")
  for _, limit in ipairs(declared.limits) do all[limit.name] = limit.notation end
  local function compare(list, at, path)
    for _, limit in ipairs(list) do
      local one, whole = limit.notation, all[limit.name]
      if whole and is_more(one, whole) then
        reading.report:warn(at and place_of(at, limit.name) or spot, path .. limit.name,
          ("%s is more than all have together, %s"):format(notation.format(one),
            notation.format(whole)))
      end
    end
  end
  local path = ('per "%s".'):format(by)
  compare(scope.limits, spot, path)
  for _, override in ipairs(scope.override) do
    compare(override.limits, nil, ("%soverride.%s."):format(path, override.name))
  end
end

-- The names that a hook's text has.
local function words_in(reading, hook)
  local from, found = reading.spots[hook.fn], {}
  for i = from.from, from.to do
    for word in (from.source:line(i) or ""):gmatch "[%w_-]+" do found[word] = true end
    for word in (from.source:line(i) or ""):gmatch "[%w_]+" do found[word] = true end
  end
  return found
end

local function check_estimate(reading, declared)
  if not declared.estimate then return end
  local own, named = {}, words_in(reading, declared.estimate)
  for _, limit in ipairs(declared.limits) do own[limit.name] = true end
  for _, scope in ipairs(declared.per) do
    for _, limit in ipairs(scope.limits) do
      if not own[limit.name] and not named[limit.name] then
        reading.report:warn(place_of(reading.spots[scope], limit.name),
          ('per "%s".%s'):format(concat(scope.by, ", "), limit.name),
          ("the estimate of policy '%s' never names '%s'"):format(look.show(declared.name),
            limit.name))
      end
    end
  end
end

-- The place of a field in a field that is a table.
local function place_in(spot, key, field)
  local outer = spot.node and spot.node.named[key]
  local node = outer and outer.node
  if node and node.named[field] then return { at = node.named[field].at, source = node.source } end
  return look.place_of(spot, key)
end

local function check_queue(reading, spot, declared)
  local queue = declared.queue
  if not queue then return end
  if queue.timeout_ns and queue.timeout_ns > declared.lease.ttl_ns then
    reading.report:warn(place_in(spot, "queue", "timeout"), "queue.timeout",
      ("waiting up to %s is longer than a lease lives, %s"):format(
        notation.format_duration(queue.timeout_ns),
        notation.format_duration(declared.lease.ttl_ns)))
  end
  local keep = declared.shed and declared.shed.keep
  if keep and not queue.priority then
    reading.report:warn(place_in(spot, "shed", "keep"), "shed.keep",
      ("the queue has no priorities: add priority = { \"%s\", … }"):format(keep.priority))
  end
  if not queue.fair or not declared.per[1] then return end
  local parts = {}
  for _, scope in ipairs(declared.per) do
    for _, part in ipairs(scope.by) do parts[part] = true end
  end
  if not parts[queue.fair] then
    reading.report:warn(place_in(spot, "queue", "fair"), "queue.fair", (notation.suggest(
      ("no scope of the policy is per '%s'"):format(queue.fair), queue.fair, look.list_of(parts))))
  end
end

local function check_breaker(reading, spot, declared)
  local trip = declared.breaker and declared.breaker.trip
  local rate = declared.limits[1] and declared.limits[1].notation
  if not trip or not trip.in_ns or not rate or rate.kind ~= "rate" then return end
  local most = rate.burst + rate.amount / rate.per_ns * trip.in_ns
  if most < trip.of then
    reading.report:warn(place_in(spot, "breaker", "trip"), "breaker.trip",
      ("%s of %s lets at most %d calls go in %s, so %d are never seen"):format(
        notation.format(rate), declared.limits[1].name, most, notation.format_duration(trip.in_ns),
        trip.of))
  end
end

local function check_moves(reading, spot, declared)
  local normal = {}
  for _, limit in ipairs(declared.limits) do normal[limit.name] = limit.notation end
  for _, move in ipairs(declared.adaptive or {}) do
    local limit = normal[move.name]
    if limit and limit.kind == "in_flight" and move.notation.to > limit.amount then
      reading.report:warn(place_in(spot, "adaptive", move.name), "adaptive." .. move.name,
        ("it never gets to %d: the limit is %s"):format(move.notation.to, notation.format(limit)))
    end
  end
  for _, limit in ipairs(declared.backoff and declared.backoff.throttled or {}) do
    local usual, less = normal[limit.name], limit.notation
    if usual and is_more(less, usual) then
      reading.report:warn(place_in(spot, "backoff", "throttled"), "backoff.throttled."
        .. limit.name, ("%s is more than is usual, %s"):format(notation.format(less),
          notation.format(usual)))
    end
  end
end

--- Look at a policy that was read.
---@param reading table
---@param spot neap.spot
---@param declared neap.policy
function warn.policy(reading, spot, declared)
  check_bursts(reading, spot, declared.limits, "limits.")
  check_flight(reading, spot, declared.limits, "limits.")
  for _, scope in ipairs(declared.per) do
    local path, at = ('per "%s".'):format(concat(scope.by, ", ")), reading.spots[scope]
    check_bursts(reading, at, scope.limits, path)
    check_flight(reading, at, scope.limits, path)
    check_share(reading, declared, scope)
  end
  check_estimate(reading, declared)
  check_queue(reading, spot, declared)
  check_breaker(reading, spot, declared)
  check_moves(reading, spot, declared)
  if declared.retry and not declared.retry.budget then
    reading.report:warn(look.place_of(spot, "retry"), "retry",
      'without a budget retries can finish off a server that is down: add budget = "10%"')
  end
end

return warn
