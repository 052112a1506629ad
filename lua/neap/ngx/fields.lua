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

local concat = table.concat
local ipairs, tonumber, type = ipairs, tonumber, type
local ceil, floor, huge, max, min = math.ceil, math.floor, math.huge, math.max, math.min

local MOST = 1e15 - 1   -- of an integer in a structured field

local probe = ffi.new "struct neap_limiter"
local hashes = ffi.new "uint64_t[4]"   -- NEAP_KEYS

local fields = {}

local function quoted(name)
  return '"' .. name:gsub("[^\32-\126]", "?"):gsub('[\\"]', "\\%0") .. '"'
end

local function seconds(ns) return min(MOST, ceil(tonumber(ns) / 1e9)) end

-- How long an empty one takes to be full.
local window_of = {
  [C.NEAP_GCRA] = function (leaf, now)
    ffi.copy(probe, leaf, ffi.sizeof(probe))
    probe.shared, probe.as.word = 0, 0   -- a limiter of our own, which nobody holds
    C.neap_gcra_fill(probe.as.gcra, 0, now)
    return C.neap_limiter_when(probe, C.neap_limiter_capacity(probe), now) - now
  end,
  [C.NEAP_WINDOW] = function (leaf) return leaf.as.window.window_ns end,
}

local function add(policies, states, part, multiplier, leaf, now)
  local capacity = reason.capacity(leaf)
  if capacity == huge then return end
  local name = quoted(part.label)
  local q = min(MOST, floor(capacity / multiplier))
  local r = min(MOST, max(0, floor(reason.balance(leaf, now) / multiplier)))
  local window = window_of[leaf.kind]
  if window then
    local full_at = C.neap_limiter_when(leaf, C.neap_limiter_capacity(leaf), now)
    policies[#policies + 1] = ("%s;q=%d;w=%d"):format(name, q, max(1, seconds(window(leaf, now))))
    states[#states + 1] = ("%s;r=%d;t=%d"):format(name, r, seconds(max(0, tonumber(full_at - now))))
  else
    policies[#policies + 1] = ('%s;q=%d;qu="concurrent-requests"'):format(name, q)
    states[#states + 1] = ("%s;r=%d"):format(name, r)
  end
end

--- What there is to tell about a limiter now.
---@param self neap.Limiter
---@param key? string|integer|table  the keys, as for access
---@return string policy  of RateLimit-Policy; empty when there is nothing to tell
---@return string state   of RateLimit
function fields.of(self, key)
  local now = limiter.present()
  for _, kind in ipairs(self.terms.keys or {}) do
    local value = type(key) == "table" and key[kind.name] or key
    hashes[kind.index] = keys.hash(value, kind.name, 2, kind.secret)
  end
  local policies, states = {}, {}
  for _, sum in ipairs(self.terms.sums) do
    local part = sum.parts[1]
    local leaf = not part.closed and reason.leaf_of(part, hashes, now)
    if leaf then add(policies, states, part, sum.multiplier, leaf, now) end
  end
  return concat(policies, ", "), concat(states, ", ")
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
