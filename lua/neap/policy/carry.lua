--- What a policy that is read anew takes over from the one before it.
---
--- A limit is known by its policy, its scope and its name. One that is of the same kind as before
--- is the same limiter, changed in place: so what was spent stays spent, permits that are out come
--- back to it, and a lease need not know that anything happened. `on_change` says what of a rate
--- that changed is kept:
---
---     "keep used"      what was spent and has not come back stays spent (unless told)
---     "keep balance"   what is there stays there, up to the new burst
---     "scale"          it is as full as it was
---     "reset"          it is as new
---
--- Permits in flight are always kept, and a sliding limit knows the first and the last alone. One
--- of another kind begins as new. Keys that get a limit of their own, or lose it, keep what they
--- used likewise.
local ffi = require "ffi"
local C = require "neap.engine"
local limiter = require "neap.limiter"
local limits_of = require "neap.per_key.limits"
local key = require "neap.key"
local notation = require "neap.notation"

local copy, ipairs, max, min, pairs = ffi.copy, ipairs, math.max, math.min, pairs
local tonumber, tostring = tonumber, tostring

local leaf_t = ffi.typeof "struct neap_limiter"
local LEAF = ffi.sizeof(leaf_t)
local MODES = {
  ["keep used"] = "keep", ["keep balance"] = "balance", scale = "scale", reset = "reset",
}

local carry = {}

--- Limits of one kind can take each other's state.
local function kind_of(value) return value.mode == "sliding" and "sliding" or value.kind end

local function mode_of(value, on_change)
  local mode = MODES[on_change or "keep used"]
  if value.mode == "sliding" and mode ~= "reset" then return "keep" end
  return mode
end

local function is_same(a, b) return notation.format(a) == notation.format(b) end

--- By name.
---@generic T
---@param list T[]?
---@return table<string, T>
function carry.by_name(list)
  local found = {}
  for _, one in ipairs(list or {}) do found[one.name] = one end
  return found
end

--- The limiter of a limit of a policy's own, if it goes on.
---@param was neap.PolicyLimit?
---@param entry table             as declared
---@param strategy table?         of one that adapts
---@param on_change string?       the policy's word
---@return neap.Limiter?
function carry.limit(was, entry, strategy, on_change)
  local value = entry.notation
  if not (was and was.leaf) or kind_of(was.value) ~= kind_of(value)
    or was.strategy ~= (strategy and strategy.kind) then
    return nil
  elseif strategy then
    was.limiter:bounds(strategy.from, min(strategy.to, value.amount))
  elseif value.kind == "closed" then
    return nil
  elseif value.kind == "in_flight" then
    was.limiter:reconfigure(value)
  elseif not is_same(was.value, value) then
    was.limiter:reconfigure(value, mode_of(value, entry.on_change or on_change))
  end
  return was.limiter
end

-- ---- keys -------------------------------------------------------------------------------------

--- What a key has now, apart from what it is called.
local function look(table_, hash, now)
  local seen = leaf_t()
  if C.neap_keyed_look(table_, hash, now, seen) == C.NEAP_OK then return seen end
end

--- Let a leaf go on from another of its kind, which may lie elsewhere and be of another limit.
local function go_on(leaf, from, value, mode, now)
  if not from or from.kind ~= leaf.kind then return end
  if leaf.kind == C.NEAP_SEMAPHORE then
    leaf.as.semaphore.in_use = from.as.semaphore.in_use
  elseif leaf.kind == C.NEAP_GCRA then
    copy(leaf, from, LEAF)
    C.neap_gcra_change(leaf.as.gcra, value.amount, value.per_ns, value.burst,
      limits_of.KEEP[mode], now)
  elseif leaf.kind == C.NEAP_WINDOW and mode ~= "reset" then
    local w, old = leaf.as.window, from.as.window
    for i = 0, old.count - 1 do
      local stamp = old.log[(old.first + i) % old.size]
      C.neap_window_settle(w, 0, stamp.cost, stamp.at, now)
    end
  end
end

--- A key loses the limit that it had of its own: what it used, it used of what all have.
local function give_up(per_key, own, now)
  local table_, leaf = per_key.tables[own.table], own[1]
  C.neap_keyed_set(table_, own.hash, nil)
  local like = per_key.terms.parts[own.table].fresh
  if not like or leaf.kind ~= like.kind then return end
  local left
  if leaf.kind == C.NEAP_SEMAPHORE then
    left = leaf.as.semaphore.in_use
  else
    local value, rest = per_key.values[own.table], leaf_t()
    go_on(rest, nil)
    rest.kind = leaf.kind
    go_on(rest, leaf, value, "keep", now)
    left = C.neap_gcra_when(rest.as.gcra, value.burst, now) - now
  end
  C.neap_keyed_put(table_, own.hash, left, now)
end

--- A key has a limit of its own, new or another than before; what it used stays used.
local function own_of(per_key, place, hash, value, mode, now)
  local table_ = per_key.tables[place]
  local leaf, log = limits_of.leaf_for(value, per_key.name, 2)
  go_on(leaf, look(table_, hash, now), value, mode, now)
  C.neap_keyed_forget(table_, hash)
  if C.neap_keyed_set(table_, hash, leaf) ~= C.NEAP_OK then return nil end
  return { leaf, log, hash = hash, value = value, table = place }
end

--- Other limits of keys' own, by key.
---@param per_key neap.PerKey
---@param overrides table<string, neap.limit>?
---@param mode string
local function override(per_key, overrides, mode)
  local now = limiter.present()
  local wanted, kept = {}, {}
  for name, value in pairs(overrides or {}) do
    local hash = key.hash(name, "overrides", 2)
    wanted[tostring(hash)] = { hash = hash, value = value }
  end
  for _, own in ipairs(per_key.owned) do
    local want = wanted[tostring(own.hash)]
    if want and is_same(want.value, own.value) then
      kept[#kept + 1], wanted[tostring(own.hash)] = own, nil
    elseif not want then
      give_up(per_key, own, now)
    end
  end
  for _, want in pairs(wanted) do
    kept[#kept + 1] = own_of(per_key, 1, want.hash, want.value, mode_of(want.value, mode), now)
  end
  per_key.owned, per_key.overridden, per_key.shut = kept, #kept, {}
  for _, own in ipairs(kept) do
    if own.value.kind == "closed" then per_key.shut[tostring(own.hash)] = true end
    per_key.holds = per_key.holds or own.value.kind == "in_flight"
  end
end

--- The limiter of a limit of a scope, if it goes on.
---@param was neap.PolicyLimit?
---@param given { value: neap.limit, overrides: table?, keys: integer?, on_change: string? }
---  value: what keys have, as the table is to keep it
---@return neap.PerKey?
function carry.keyed(was, given)
  local value = given.value
  if not was or kind_of(was.kept) ~= kind_of(value) or value.kind == "closed" then return nil end
  local made, most = was.limiter, given.keys or 2 ^ 20
  if made.most ~= most then
    local now = limiter.present()
    made.most = most
    if not made.makers then C.neap_keyed_bound(made.tables[1], most, now) end
  end
  if not is_same(was.kept, value) then
    made:reconfigure(value, value.kind ~= "rate" and "keep" or mode_of(value, given.on_change))
  end
  override(made, given.overrides, given.on_change)
  return made
end

-- ---- the rest ---------------------------------------------------------------------------------

local function trips_alike(a, b)
  for _, name in ipairs { "kind", "count", "share", "of", "in_ns" } do
    if a.trip[name] ~= b.trip[name] then return false end
  end
  return a.probes == b.probes
end

--- The breaker, if it goes on; else it may still be open, as the one before was.
---@param was { breaker: neap.Breaker, declared: neap.policy }
---@param given table   what is declared now
---@return neap.Breaker?
function carry.breaker(was, given)
  if not trips_alike(was.declared.breaker, given) then return nil end
  local b, cooldown_ns = was.breaker.leaf.as.breaker, given.cooldown_ns or 30e9
  b.cooldown_ns, b.patience_ns = cooldown_ns, max(cooldown_ns, 1)
  return was.breaker
end

--- A new breaker begins as open as the old one is.
---@param from neap.Breaker
---@param to neap.Breaker
function carry.openness(from, to)
  local now = limiter.present()
  local b = from.leaf.as.breaker
  if b.open == 0 then return end
  C.neap_breaker_open(to.leaf.as.breaker, b.ends < C.neap_horizon and b.ends or C.neap_never, now)
end

--- May those who wait stay in the same queue?
---@param a table?
---@param b table?
---@return boolean
function carry.queues_alike(a, b)
  return a ~= nil and b ~= nil and tonumber(a.max) == tonumber(b.max)
    and (a.overflow or "refuse") == (b.overflow or "refuse") and a.ageing_ns == b.ageing_ns
end

return carry
