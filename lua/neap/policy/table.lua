--- A policy as rows for people: what, and how much of it, in canonical form.
local backoff_text = require "neap.backoff.text"
local notation = require "neap.notation"

local ipairs, pairs = ipairs, pairs
local concat, sort = table.concat, table.sort

local duration, show = notation.format_duration, notation.show

local rows = {}

local function limits(put, list, prefix)
  for _, limit in ipairs(list) do
    put(prefix .. show(limit.name, 128), notation.format(limit.notation)
      .. (limit.on_change and ", on change " .. limit.on_change or ""))
  end
end

local function scopes(put, declared)
  for _, scope in ipairs(declared.per) do
    local prefix = ('per "%s" '):format(concat(scope.by, ", "))
    limits(put, scope.limits, prefix)
    for _, override in ipairs(scope.override) do
      limits(put, override.limits, prefix .. show(override.name, 128) .. " ")
    end
    put(prefix .. "keep", notation.format_keep(scope.keep))
  end
end

-- A list in words that may have blanks, without those that are nil.
local function line(...)
  local parts = {}
  for i = 1, select("#", ...) do
    local part = select(i, ...)
    if part then parts[#parts + 1] = part end
  end
  return concat(parts, ", ")
end

local function statuses(list)
  return list and "on " .. concat(list, " ")
end

local function waiting(put, declared)
  local queue, retry, shed = declared.queue, declared.retry, declared.shed
  if queue then
    put("queue", line("max " .. notation.format_amount(queue.max),
      queue.timeout_ns and "timeout " .. duration(queue.timeout_ns),
      queue.fair and "fair " .. queue.fair,
      queue.priority and "priority " .. concat(queue.priority, " > "),
      queue.ageing_ns and "ageing " .. duration(queue.ageing_ns), "overflow " .. queue.overflow))
  end
  if shed then
    put("shed", line(notation.format_pressure(shed.when),
      shed.keep and "keep priority " .. shed.keep.priority))
  end
  if retry then
    put("retry", line(retry.attempts .. " attempts", backoff_text.format(retry.backoff),
      retry.budget and "budget " .. notation.format_share(retry.budget)))
  end
end

local function holding_back(put, declared)
  local backoff, breaker = declared.backoff, declared.breaker
  if backoff then
    put("backoff", line(statuses(backoff.on), "window " .. duration(backoff.window_ns),
      backoff.from[1] and "from " .. concat(backoff.from, " ")))
    limits(put, backoff.throttled, "throttled ")
    for _, penalty in ipairs(backoff.penalty) do
      put("penalty " .. penalty.name, "x" .. notation.format_amount(penalty.count))
    end
  end
  if breaker then
    put("breaker", line(notation.format_trip(breaker.trip),
      "cooldown " .. duration(breaker.cooldown_ns), "probes " .. breaker.probes,
      statuses(breaker.on)))
  end
  for _, move in ipairs(declared.adaptive or {}) do
    put("adaptive " .. move.name, notation.format_adaptive(move.notation))
  end
end

local function hooks(put, declared)
  local function place(hook) return ("%s:%d"):format(show(hook.file, 200), hook.line) end
  if declared.estimate then put("estimate", place(declared.estimate)) end
  local events = {}
  for event in pairs(declared.on) do events[#events + 1] = event end
  sort(events)
  for _, event in ipairs(events) do put("on " .. event, place(declared.on[event])) end
end

-- What a policy does besides limiting.
local function parts(put, declared)
  local settle = declared.lease.settle
  put("lease", duration(declared.lease.ttl_ns)
    .. (settle[1] and ", settles " .. concat(settle, ", ") or ""))
  waiting(put, declared)
  holding_back(put, declared)
  if declared.start then put("start", declared.start) end
  if declared.on_change then put("on change", declared.on_change) end
end

--- The rows of a policy: its name in the first, then what and how much.
---@param declared neap.policy
---@return string[][]
function rows.of(declared)
  local list = {}
  local function put(what, text)
    list[#list + 1] = { list[1] and "" or show(declared.name, 128), what, text }
  end
  limits(put, declared.limits, "")
  scopes(put, declared)
  parts(put, declared)
  hooks(put, declared)
  return list
end

--- What a policy does besides limiting: what, and how much.
---@param declared neap.policy
---@return string[][]
function rows.parts_of(declared)
  local list = {}
  local function put(what, text) list[#list + 1] = { what, text } end
  for _, scope in ipairs(declared.per) do
    put(('per "%s" keep'):format(concat(scope.by, ", ")), notation.format_keep(scope.keep))
  end
  parts(put, declared)
  return list
end

return rows
