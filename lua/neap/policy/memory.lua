--- What a live policy has used, written down; and a policy that goes on from there.
---
--- Times are written as so many ns from the instant of writing, counted in whole ns as texts,
--- which no reader rounds. Read again, later and by another clock, they are shorter by what has
--- passed. What passed is never taken for less than nothing, and a limit is never fuller than it
--- was but for that.
---
---     a rate              how long until it is full again
---     a sliding limit     each grant, by its age
---     one that adapts     its limit
---     a breaker           how long it is open still; failures that it counts are forgotten
---     backoff             how long still
---     keys                a word each: neap_keyed_walk
---
--- Permits in flight are not: who holds them is (neap.worker.state).
local bit = require "bit"
local ffi = require "ffi"
local C = require "neap.engine"

local ipairs, next, pairs, tonumber = ipairs, next, pairs, tonumber
local int64, max = ffi.typeof "int64_t", math.max

local MINUTE_NS = 60e9
local BATCH = 512
local words_t = ffi.typeof "struct neap_word[?]"
local WORD = ffi.sizeof "struct neap_word"

local memory = {}

--- A whole number, for the JSON.
---@param x ffi.cdata*|number
---@return string
function memory.text(x) return ("%d"):format(tonumber(x)) end

local text = memory.text

--- A hash as a text, and back.
---@param hash ffi.cdata*
---@return string
function memory.hex(hash) return bit.tohex(hash) end

-- ---- leaves -----------------------------------------------------------------------------------

local function state_of(leaf, now)
  if leaf.kind == C.NEAP_GCRA then
    local full = C.neap_gcra_when(leaf.as.gcra, C.neap_limiter_capacity(leaf), now) - now
    return full > 0 and { full = text(full) } or nil
  elseif leaf.kind == C.NEAP_ADAPTIVE then
    return { limit = text(leaf.as.adaptive.limit) }
  elseif leaf.kind ~= C.NEAP_WINDOW then
    return nil
  end
  local w, log = leaf.as.window, {}
  for i = 0, w.count - 1 do
    local stamp = w.log[(w.first + i) % w.size]
    if stamp.at + w.window_ns > now then
      log[#log + 1] = { text(now - stamp.at), text(stamp.cost) }
    end
  end
  return log[1] and { log = log } or nil
end

local function restore(leaf, state, passed, now)
  if not state then return end
  if state.full and leaf.kind == C.NEAP_GCRA then
    local left = tonumber(state.full) - passed
    if left > 0 then C.neap_gcra_full_at(leaf.as.gcra, now + int64(left)) end
  elseif state.limit and leaf.kind == C.NEAP_ADAPTIVE then
    C.neap_adaptive_move(leaf.as.adaptive, tonumber(state.limit), now)
  elseif state.log and leaf.kind == C.NEAP_WINDOW then
    local w = leaf.as.window
    for _, stamp in ipairs(state.log) do
      local age = tonumber(stamp[1]) + passed
      if age < tonumber(w.window_ns) then
        local at = now - int64(age)
        C.neap_window_settle(w, 0, tonumber(stamp[2]), at > 0 and at or 0, now)
      end
    end
  end
end

--- Nothing is there.
local function empty(leaf, now)
  if leaf.kind == C.NEAP_GCRA then
    C.neap_gcra_fill(leaf.as.gcra, 0, now)
  elseif leaf.kind == C.NEAP_WINDOW then
    C.neap_window_settle(leaf.as.window, 0, C.neap_limiter_capacity(leaf), now, now)
  end
end

-- ---- policies ---------------------------------------------------------------------------------

local function plain_limits(policy)
  local list = {}
  for _, limit in ipairs(policy.limits) do list[#list + 1] = limit end
  for _, limit in ipairs(policy.backoff and policy.backoff.throttled or {}) do
    list[#list + 1] = limit
  end
  return list
end

local function keyed_limits(policy)
  local list = {}
  for _, scope in ipairs(policy.scopes) do
    for _, limit in ipairs(scope.limits) do list[#list + 1] = limit end
  end
  return list
end

--- All but the keys.
---@param policy neap.LivePolicy
---@param now ffi.cdata*
---@return table  for JSON
function memory.write(policy, now)
  local head = { limits = {}, own = {} }
  for _, limit in ipairs(plain_limits(policy)) do
    if limit.leaf then head.limits[limit.label] = state_of(limit.leaf, now) end
  end
  for _, limit in ipairs(keyed_limits(policy)) do
    for _, own in ipairs(limit.limiter.owned) do
      local state = state_of(own[1], now)
      if state then
        head.own[limit.label] = head.own[limit.label] or {}
        head.own[limit.label][memory.hex(own.hash)] = state
      end
    end
  end
  if policy.breaker then
    local b = policy.breaker.leaf.as.breaker
    if b.open == 1 then
      head.open = b.ends < C.neap_horizon and text(max(0, tonumber(b.ends - now))) or "never"
    end
  end
  if policy.backoff then
    for _, name in ipairs { "window", "recent" } do
      local left = tonumber(policy.backoff[name].leaf.as.pause.ends - now)
      if left > 0 then head[name] = text(left) end
    end
  end
  return head
end

--- The words of its keys, and their sliding limits, a few with each call of what it answers:
--- label, bytes; label, key, log; or nil, and that was all.
---@param policy neap.LivePolicy
---@param clock fun(): ffi.cdata*
---@return fun(): string?, any, any
function memory.keys(policy, clock)
  local limits, i, cursor, batch = keyed_limits(policy), 1, ffi.new "uint64_t[1]", words_t(BATCH)
  local made
  return function ()
    local limit = limits[i]
    if not limit then return nil end
    local now, per_key = clock(), limit.limiter
    local n
    if per_key.makers then
      local key, one = next(per_key.makers.kept, made)
      made = key
      if key ~= nil then
        local state = state_of(one.limiters[1].leaf, now)
        return limit.label, key, state and state.log or {}
      end
      n = -1
    else
      n = tonumber(C.neap_keyed_walk(per_key.tables[1], cursor, now, batch, BATCH))
    end
    if n < 0 then
      i, cursor, made = i + 1, ffi.new "uint64_t[1]", nil
      return ""
    end
    return limit.label, ffi.string(batch, n * WORD)
  end
end

--- Put back the words of keys.
---@param policy neap.LivePolicy
---@param label string
---@param bytes string
---@param passed number  ns
---@param now ffi.cdata*
function memory.put(policy, label, bytes, passed, now)
  for _, limit in ipairs(keyed_limits(policy)) do
    local table_ = limit.limiter.tables[1]
    if limit.label == label and not limit.limiter.makers and limit.kept.kind ~= "in_flight" then
      local words = ffi.cast("const struct neap_word *", bytes)
      for i = 0, #bytes / WORD - 1 do
        local left = tonumber(words[i].left) - passed
        if left > 0 then C.neap_keyed_put(table_, words[i].key, left, now) end
      end
    end
  end
end

--- Put back what a key's sliding limit remembers.
function memory.slide(policy, label, key, hash, log, passed, now)
  for _, limit in ipairs(keyed_limits(policy)) do
    local makers = limit.limiter.makers
    if limit.label == label and makers then
      makers:make(key, hash)
      local one = makers:find(key)
      if one then restore(one.leaf, { log = log }, passed, now) end
    end
  end
end

--- Go on from there, but for the keys.
---@param policy neap.LivePolicy   as the one was that was written down
---@param head table
---@param passed number            ns since then
---@param now ffi.cdata*
function memory.read(policy, head, passed, now)
  for _, limit in ipairs(plain_limits(policy)) do
    if limit.leaf then restore(limit.leaf, head.limits[limit.label], passed, now) end
  end
  for _, limit in ipairs(keyed_limits(policy)) do
    for _, own in ipairs(limit.limiter.owned) do
      local states = head.own[limit.label]
      restore(own[1], states and states[memory.hex(own.hash)], passed, now)
    end
  end
  if policy.breaker and head.open then
    local left = tonumber(head.open)   -- nil: "never"
    C.neap_breaker_open(policy.breaker.leaf.as.breaker,
      left and now + int64(max(0, left - passed)) or C.neap_never, now)
    policy.state = "open"
  end
  for name, pause in pairs(policy.backoff and { window = policy.backoff.window,
    recent = policy.backoff.recent } or {}) do
    local left = (tonumber(head[name]) or 0) - passed
    if left > 0 then
      C.neap_pause_extend(pause.leaf.as.pause, now + int64(left))
      policy.backing_off = true
    end
  end
end

--- Begin with nothing there: all limits, or those alone that take a minute or longer to fill.
---@param policy neap.LivePolicy
---@param slow boolean
---@param now ffi.cdata*
function memory.empty(policy, slow, now)
  for _, limit in ipairs(plain_limits(policy)) do
    local value = limit.value
    if limit.leaf and value.kind == "rate"
      and not (slow and value.burst / value.amount * value.per_ns < MINUTE_NS) then
      empty(limit.leaf, now)
    end
  end
end

return memory
