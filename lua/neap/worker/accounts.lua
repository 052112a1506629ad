--- Accounts: what the worker grants permits from. One per declared policy, under its name; and one
--- per key of NEAP.LIMIT, made by the first who asks and dropped once time has refilled it.
---
--- An account is a composite for the engine (struct neap_all) with the names of its limits beside
--- it: limit i is charged by cost i - 1, so any of them can be asked for its own amount.
local ffi = require "ffi"
local C = require "neap.engine"
local leaf_of = require "neap.leaf"
local glob = require "neap.worker.glob"
local notation = require "neap.notation"
local window = require "neap.window"

local ipairs, setmetatable, tonumber = ipairs, setmetatable, tonumber

local leaves_t = ffi.typeof "struct neap_limiter[?]"
local terms_t = ffi.typeof "struct neap_term[?]"
local stats_t, waits_t = ffi.typeof "struct neap_stats", ffi.typeof "struct neap_waits"
local all_t = ffi.typeof "struct neap_all"

local MOST_KEYS = 100000     -- of NEAP.LIMIT alive at once; some 500 bytes each
local SWEEP = 64             -- entries looked at for each new key when there are as many
local MOST_TEXTS = 1000      -- limits read, kept by their text

---@class neap.Account
---@field name string
---@field doc string?
---@field limits { name: string, text: string, value: neap.limit, leaf: ffi.cdata*? }[]
---@field index table<string, integer>   limit's name to its number, from 1
---@field all ffi.cdata*                 struct neap_all
---@field bound table<integer, string>   term's number, from 0, to the name of its limit
---@field leased boolean                 every grant comes with a lease
---@field ttl_ns integer
---@field waiting integer                parked callers
---@field leases integer                 leases out
---@field waited integer                 callers granted after a wait, ever
---@field verdicts table<string, table<string, integer>>  how often each was said, by what bound
---@field counts ffi.cdata*?             struct neap_stats of a policy, with `waits`
---@field waits ffi.cdata*?
local account = {}
account.__index = account

local function no_verdicts() return { GRANTED = {}, RETRY = {}, NEVER = {}, SHED = {} } end

--- An account over named limits.
---@param name string
---@param limits { name: string, notation: neap.limit }[]  in order; the first is the default
---@param verdicts table  where they are counted
---@return neap.Account?
---@return string? message  which limit does not fit the engine
local function open(name, limits, verdicts)
  local self = setmetatable({
    name = name, limits = {}, index = {}, bound = {}, waiting = 0, leases = 0,
    waited = 0, leased = false, ttl_ns = 60e9, verdicts = verdicts,
  }, account)
  local leaves, terms = leaves_t(#limits), terms_t(#limits)
  local count = 0
  for i, limit in ipairs(limits) do
    local value = limit.notation
    local entry = { name = limit.name, text = notation.format(value), value = value }
    self.limits[i], self.index[limit.name] = entry, i
    if value.kind ~= "unlimited" then
      local leaf, term = leaves[count], terms[count]
      local entries
      if value.mode == "sliding" then entry.log, entries = window.log_for(value.amount, nil, 1) end
      if not leaf_of.init(leaf, value, entry.log, entries) then
        return nil, ("limit '%s' of '%s': %s does not fit: at most 6 tokens per ns, and a burst "
          .. "below 2^59"):format(limit.name, name, entry.text)
      end
      entry.leaf = leaf
      term.limiter, term.cost = leaf, i - 1
      term.multiplier = leaf_of.multiplier(value)
      self.bound[count] = limit.name
      count = count + 1
      self.leased = self.leased or value.kind == "in_flight"
    end
  end
  self.leaves, self.terms = leaves, terms   -- the composite points into them
  self.all = all_t()
  C.neap_all_init(self.all, terms, count)
  return self
end

--- Count what its callers are told.
---@param word "GRANTED"|"RETRY"|"NEVER"|"SHED"
---@param bound string
---@param n integer  callers
function account:tell(word, bound, n)
  local said = self.verdicts[word]
  said[bound] = (said[bound] or 0) + n
end

--- Whole tokens free and at most, of limit i; nil: no bound.
---@return number?, number?
function account:level(i, now)
  local leaf = self.limits[i].leaf
  if not leaf then return nil end
  if self.limits[i].value.kind == "closed" then return 0, 0 end
  return tonumber(C.neap_limiter_available(leaf, now)), tonumber(C.neap_limiter_capacity(leaf))
end

---@class neap.Accounts
---@field names string[]                      of the policies, in order
---@field policies table<string, neap.Account>
---@field verdicts table                      of the keys of NEAP.LIMIT, all together
local accounts = {}
accounts.__index = accounts

--- The accounts of a policy tree.
---@param tree neap.tree
---@param keys_max integer?  keys of NEAP.LIMIT alive at once, 100,000 unless told
---@return neap.Accounts?
---@return string? message
function accounts.new(tree, keys_max)
  local self = setmetatable({
    names = {}, policies = {}, keys = {}, ring = {}, hand = 0, keys_max = keys_max or MOST_KEYS,
    texts = {}, texts_count = 0, verdicts = no_verdicts(),
  }, accounts)
  for i, declared in ipairs(tree.policies) do
    local made, message = open(declared.name, declared.limits, no_verdicts())
    if not made then return nil, message end
    made.doc, made.counts, made.waits = declared.doc, stats_t(), waits_t()
    made.counts.waits, made.all.stats = made.waits, made.counts
    made.ttl_ns = declared.lease.ttl_ns
    made.leased = made.leased or #declared.lease.settle > 0
    self.names[i], self.policies[declared.name] = declared.name, made
  end
  return self
end

--- The policy of that name, or the error that says which might have been meant.
---@param name string
---@return neap.Account?
---@return string? err
function accounts:policy(name)
  local found = self.policies[name]
  if found then return found end
  local meant = notation.nearest(name, self.names)
  return nil, ("NOPOLICY no policy '%s'%s"):format(notation.show(name),
    meant and (" (did you mean '%s'?)"):format(meant) or "")
end

--- A limit from its text, read once.
local function read(self, text)
  local value = self.texts[text]
  if value then return value end
  local message
  value, message = notation.limit(text)
  if not value then
    return nil, ("ERR bad limit '%s': %s"):format(notation.show(text), message)
  elseif value.kind ~= "rate" or value.mode == "sliding" or value.mode == "fixed" then
    return nil, ("ERR NEAP.LIMIT takes a rate such as '10/s burst 20', got '%s'; declare a policy "
      .. "for other limits"):format(notation.show(text))
  end
  if self.texts_count >= MOST_TEXTS then self.texts, self.texts_count = {}, 0 end
  self.texts[text], self.texts_count = value, self.texts_count + 1
  return value
end

--- Nobody would notice if it were made anew.
local function is_idle(entry, now)
  return entry.waiting == 0
    and C.neap_limiter_available(entry.limits[1].leaf, now) >= entry.limits[1].value.burst
end

--- Drop some keys that time has refilled. Goes round all of them, a bounded way each time.
local function sweep(self, now)
  local ring = self.ring
  for _ = 1, SWEEP do
    self.hand = self.hand % #ring + 1
    local entry = ring[self.hand]
    if is_idle(entry, now) then
      self.keys[entry.name] = nil
      ring[self.hand] = ring[#ring]
      ring[#ring] = nil
    end
    if #ring == 0 then return end
  end
end

--- The account of a key, made or changed to what its caller says it is. Of a changed one what
--- was spent stays spent.
---@param engine ffi.cdata*
---@param key string
---@param text string
---@param now ffi.cdata*
---@return neap.Account?
---@return string? err
function accounts:key(engine, key, text, now)
  local value, err = read(self, text)
  if not value then return nil, err end
  local entry = self.keys[key]
  if entry then
    local limit = entry.limits[1]
    if limit.value ~= value then
      local changed = C.neap_gcra_change(limit.leaf.as.gcra, value.amount, value.per_ns,
        value.burst, C.NEAP_KEEP_SPENT, now)
      if changed ~= C.NEAP_OK then
        return nil, ("ERR limit '%s' does not fit the engine"):format(text)
      end
      limit.value, limit.text = value, notation.format(value)
      C.neap_engine_touch(engine, limit.leaf, now)
    end
    return entry
  end
  if #self.ring >= self.keys_max then sweep(self, now) end
  if #self.ring >= self.keys_max then
    return nil, ("ERR all %d keys of NEAP.LIMIT are in use; try again later"):format(
      self.keys_max)
  end
  local message
  entry, message = open(key, { { name = "limit", notation = value } }, self.verdicts)
  if not entry then return nil, "ERR " .. message end
  self.keys[key], self.ring[#self.ring + 1] = entry, entry
  return entry
end

--- The names that match a glob pattern.
---@param pattern string?
---@return string[]
function accounts:list(pattern)
  local found = {}
  for _, name in ipairs(self.names) do
    if not pattern or glob(pattern, name) then found[#found + 1] = name end
  end
  return found
end

return accounts
