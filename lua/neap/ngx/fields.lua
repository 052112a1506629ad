--- RateLimit and RateLimit-Policy for those who ask, as draft-ietf-httpapi-ratelimit-headers-10 has
--- them: one member for each limit, under its name.
---
---     RateLimit-Policy: "api";q=20;w=12
---     RateLimit: "api";r=17;t=2
---
--- Of a rate q is what may go at once, w how long it takes to flow back, r what is there and t when
--- all of it will be. So who spends q per w is never refused, and r never exceeds q. Of calls in
--- flight there is q and r; no clock can tell more, and the unit says which kind it is. What has no
--- number (a breaker, a pause) is not told.
local ffi = require "ffi"
local C = require "neap.engine"
local keys = require "neap.key"
local limiter = require "neap.limiter"
local reason = require "neap.reason"

local setmetatable, tonumber, type = setmetatable, tonumber, type
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min

local MOST = 1e15 - 1   -- of an integer in a structured field
local UNBOUNDED = 2LL ^ 62

local probe = ffi.new "struct neap_limiter"
local hashes = ffi.new "uint64_t[4]"   -- NEAP_KEYS

local fields = {}

local function quoted(name)
  return '"' .. name:gsub("[^\32-\126]", "?"):gsub('[\\"]', "\\%0") .. '"'
end

local function seconds(ns) return min(MOST, ceil(tonumber(ns) / 1e9)) end

-- How long an empty one takes to be full.
local function window_of(leaf, capacity, now)
  if leaf.kind == C.NEAP_WINDOW then return leaf.as.window.window_ns end
  ffi.copy(probe, leaf, ffi.sizeof(probe))
  probe.shared, probe.as.word = 0, 0   -- a limiter of our own, which nobody holds
  C.neap_gcra_fill(probe.as.gcra, 0, now)
  return C.neap_limiter_when(probe, capacity, now) - now
end

local has_window = { [C.NEAP_GCRA] = true, [C.NEAP_WINDOW] = true }

-- What was told of each part last. Texts are made anew only when they say something else: a policy
-- hardly ever changes, and who is busy is asked many times in a second.
local told = setmetatable({}, { __mode = "k" })

local function is_still(last, part, capacity, leaf)
  if last.capacity ~= capacity or last.label ~= part.label then return false end
  if leaf.kind == C.NEAP_GCRA then
    local rate = leaf.as.gcra
    return last.speed == rate.speed and last.shift == rate.shift
  end
  return leaf.kind ~= C.NEAP_WINDOW or last.window_ns == leaf.as.window.window_ns
end

local function look_at(part, multiplier, capacity, leaf, now)
  local last = { capacity = capacity, label = part.label, name = quoted(part.label) }
  local q = min(MOST, floor(tonumber(capacity) / multiplier))
  if leaf.kind == C.NEAP_GCRA then
    last.speed, last.shift = leaf.as.gcra.speed, leaf.as.gcra.shift
  elseif leaf.kind == C.NEAP_WINDOW then
    last.window_ns = leaf.as.window.window_ns
  end
  if has_window[leaf.kind] then
    local w = max(1, seconds(window_of(leaf, capacity, now)))
    last.policy = ("%s;q=%d;w=%d"):format(last.name, q, w)
  else
    last.policy = ('%s;q=%d;qu="concurrent-requests"'):format(last.name, q)
  end
  told[part] = last
  return last
end

-- Of one limit; nothing when it has no bound.
local function member(part, multiplier, leaf, now)
  local capacity = C.neap_limiter_capacity(leaf)
  if capacity >= UNBOUNDED then return nil end
  local last = told[part]
  if not last or not is_still(last, part, capacity, leaf) then
    last = look_at(part, multiplier, capacity, leaf, now)
  end
  local r = min(MOST, max(0, floor(reason.balance(leaf, now) / multiplier)))
  local t = nil
  if has_window[leaf.kind] then
    local full_at = C.neap_limiter_when(leaf, capacity, now)
    t = seconds(max(0, tonumber(full_at - now)))
  end
  if r ~= last.r or t ~= last.t then
    last.r, last.t = r, t
    last.state = t and ("%s;r=%d;t=%d"):format(last.name, r, t) or ("%s;r=%d"):format(last.name, r)
  end
  return last.policy, last.state
end

--- What there is to tell about a limiter now.
---@param self neap.Limiter
---@param key? string|integer|table  the keys, as for access
---@return string policy  of RateLimit-Policy; empty when there is nothing to tell
---@return string state   of RateLimit
function fields.of(self, key)
  local now = limiter.present()
  local kinds, sums = self.terms.keys, self.terms.sums
  for i = 1, kinds and #kinds or 0 do
    local kind = kinds[i]
    local value = type(key) == "table" and key[kind.name] or key
    hashes[kind.index] = keys.hash(value, kind.name, 2, kind.secret)
  end
  local policies, states = "", ""
  for i = 1, #sums do
    local part = sums[i].parts[1]
    local leaf = not part.closed and reason.leaf_of(part, hashes, now)
    local policy, state
    if leaf then policy, state = member(part, sums[i].multiplier, leaf, now) end
    if policy then
      if policies ~= "" then policies, states = policies .. ", ", states .. ", " end
      policies, states = policies .. policy, states .. state
    end
  end
  return policies, states
end

--- Tell it in these headers.
---@param header table  ngx.header
---@param self neap.Limiter
---@param key? string|integer|table
function fields.send(header, self, key)
  local policy, state = fields.of(self, key)
  if policy ~= "" then header["RateLimit-Policy"], header["RateLimit"] = policy, state end
end

return fields
