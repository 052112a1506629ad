--- Accounts: what the worker grants permits from. One per declared policy, under its name, which is
--- a live policy (neap.policy.live) and what its callers have of it; and one per key of NEAP.LIMIT
--- and of NEAP.SLOT, made by the first who asks and dropped once it is as good as new: when time
--- has refilled it, or all permits are back.
---
--- An account is a composite for the engine (struct neap_all) with the names of its limits beside
--- it: limit i is charged by cost i - 1, so any of them can be asked for its own amount. A policy
--- has one for each set of scopes that callers name; `all` is that of none.
local ffi = require "ffi"
local C = require "neap.engine"
local leaf_of = require "neap.leaf"
local glob = require "neap.worker.glob"
local live = require "neap.policy.live"
local notation = require "neap.notation"
local top = require "neap.worker.top"

local ipairs, next, setmetatable, tonumber = ipairs, next, setmetatable, tonumber

local leaves_t = ffi.typeof "struct neap_limiter[?]"
local terms_t = ffi.typeof "struct neap_term[?]"
local all_t = ffi.typeof "struct neap_all"
local costs_t = ffi.typeof "int64_t[8]"

local MOST_KEYS = 100000     -- of NEAP.LIMIT alive at once, and of SLOT; some 500 bytes each
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
---@field ones ffi.cdata*                int64_t[8]: what a call costs that says nothing
---@field held table<integer, boolean>   limits whose permits are given back as a whole
---@field scopes table<string, true>     names that callers can say
---@field expired integer                leases whose time was up, ever
---@field counts ffi.cdata*?             struct neap_stats of a policy, with `waits`
---@field waits ffi.cdata*?
---@field live neap.LivePolicy?          of a policy
---@field costs string[]?                of a policy: names by their number
---@field estimates boolean?             it has a hook that says what calls cost
---@field told boolean?                  it has no limits of its own
---@field queues boolean?                its callers wait in a queue
---@field tops table<string, neap.Top>?  of a policy: who used most, by scope
local account = {}
account.__index = account

local function no_verdicts() return { GRANTED = {}, RETRY = {}, NEVER = {}, SHED = {} } end

local function new(name, verdicts)
  return setmetatable({
    name = name, limits = {}, index = {}, bound = {}, waiting = 0, leases = 0, waited = 0,
    held = {}, scopes = {}, leased = false, ttl_ns = 60e9, verdicts = verdicts, expired = 0,
  }, account)
end

local ONE = costs_t(1, 0)

--- An account of one limit.
---@param name string
---@param value neap.limit
---@param verdicts table  where they are counted
---@return neap.Account?
---@return string? message  it does not fit the engine
local function of_limit(name, value, verdicts)
  local self = new(name, verdicts)
  local leaves, terms = leaves_t(1), terms_t(1)
  local entry = { name = "limit", text = notation.format(value), value = value, leaf = leaves[0] }
  if not leaf_of.init(entry.leaf, value) then
    return nil, ("limit 'limit' of '%s': %s does not fit: at most 6 tokens per ns, and a burst "
      .. "below 2^59"):format(name, entry.text)
  end
  terms[0].limiter, terms[0].multiplier = entry.leaf, 1
  self.limits[1], self.index.limit, self.bound[0], self.ones = entry, 1, "limit", ONE
  self.leaves, self.terms = leaves, terms   -- the composite points into them
  self.all = all_t()
  C.neap_all_init(self.all, terms, 1)
  return self
end

--- Which limits are held, not used up.
local function held_of(policy)
  local held = {}
  local function look(limits)
    for _, limit in ipairs(limits) do
      local index = policy.index[limit.name]
      held[index] = held[index] or limit.value.kind == "in_flight"
    end
  end
  look(policy.limits)
  for _, scope in ipairs(policy.scopes) do look(scope.limits) end
  return held
end

--- An account of a policy.
---@param declared neap.policy
---@param options table  as for neap.policy.live
---@return neap.Account?
---@return string? message  what the engine cannot hold to
local function of_policy(declared, options)
  local policy, message = live.new(declared, options)
  if not policy then return nil, message end
  local self = new(declared.name, no_verdicts())
  self.tops = {}
  self:adopt(policy)
  return self
end

--- Grant from this policy from now on. What was counted, who waits and what is out stays.
---@param policy neap.LivePolicy
function account:adopt(policy)
  local declared = policy.declared
  local none, all = policy:variant(0), policy:variant(2 ^ #policy.scopes - 1)
  self.live, self.doc, self.limits, self.index = policy, policy.doc, policy.limits, policy.index
  self.costs, self.ones, self.scopes = policy.costs, policy.ones, policy.names
  self.all, self.bound, self.terms = none.terms.all, none.bound, none.terms
  self.counts, self.waits, self.held = policy.counts, policy.waits, held_of(policy)
  self.queues = policy.queue ~= nil
  self.estimates, self.told = declared.estimate ~= nil, #policy.limits == 0
  self.ttl_ns = declared.lease.ttl_ns
  self.leased = all.terms.holds or #declared.lease.settle > 0
  local tops = {}
  for _, scope in ipairs(policy.scopes) do tops[scope.name] = self.tops[scope.name] or top.new() end
  self.tops = tops
end

--- What a call costs, where that takes more than its own words.
---@param options neap.AcquireOptions
---@return boolean? fine
---@return string? err
function account:charge(options)
  local fields, said = {}, options.said or {}
  for _, part in ipairs { options.by or {}, said } do
    for name, value in next, part do fields[name] = value end
  end
  local known = {}
  for name, n in next, said do
    if self.index[name] then known[name] = n end
  end
  local costs, message = self.live:costs_of(known, fields)
  if not costs then return nil, ("ERR %s in policy '%s'"):format(message, self.name) end
  for i, name in ipairs(self.costs) do options.cost[i - 1] = costs[name] end
  return true
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
  local capacity = C.neap_limiter_capacity(leaf)
  if leaf.kind == C.NEAP_ADAPTIVE then capacity = leaf.as.adaptive.limit end
  return tonumber(C.neap_limiter_available(leaf, now)), tonumber(capacity)
end

---@class neap.Accounts
---@field names string[]                      of the policies, in order
---@field policies table<string, neap.Account>
---@field verdicts table                      of the keys of both, all together
---@field limits neap.KeyedAccounts           of NEAP.LIMIT
---@field slots neap.KeyedAccounts            of NEAP.SLOT
local accounts = {}
accounts.__index = accounts

---@class neap.KeyedAccounts
---@field command string
---@field by_key table<string, neap.Account>
---@field ring neap.Account[]
---@field hand integer     where the next sweep goes on
---@field max integer
---@field refused integer  keys for which there was no room, ever

local function keyed(command, max)
  return { command = command, by_key = {}, ring = {}, hand = 0, max = max or MOST_KEYS,
    refused = 0 }
end

--- The accounts of a policy tree.
---@param tree neap.tree
---@param options? table  keys_max: keys of NEAP.LIMIT alive at once, and of NEAP.SLOT, 100,000
---  unless told; the others as for neap.policy.live
---@return neap.Accounts?
---@return string? message
function accounts.new(tree, options)
  options = options or {}
  local self = setmetatable({
    names = {}, policies = {},
    limits = keyed("NEAP.LIMIT", options.keys_max), slots = keyed("NEAP.SLOT", options.keys_max),
    texts = {}, texts_count = 0, verdicts = no_verdicts(),
  }, accounts)
  self.options = options
  for i, declared in ipairs(tree.policies) do
    local made, message = of_policy(declared, options)
    if not made then return nil, message end
    self.names[i], self.policies[declared.name] = declared.name, made
  end
  return self
end

--- An account of a policy that is not there yet.
---@param declared neap.policy
---@return neap.Account?
---@return string? message
function accounts:make(declared) return of_policy(declared, self.options) end

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
  return entry.waiting == 0 and C.neap_limiter_is_new(entry.limits[1].leaf, now) == 1
end

--- Drop some keys that are as good as new. Goes round all of them, a bounded way each time.
local function sweep(all, now)
  local ring = all.ring
  for _ = 1, SWEEP do
    all.hand = all.hand % #ring + 1
    local entry = ring[all.hand]
    if is_idle(entry, now) then
      all.by_key[entry.name] = nil
      ring[all.hand] = ring[#ring]
      ring[#ring] = nil
    end
    if #ring == 0 then return end
  end
end

--- A key that is new.
local function add(all, key, value, verdicts, now)
  if #all.ring >= all.max then sweep(all, now) end
  if #all.ring >= all.max then
    all.refused = all.refused + 1
    return nil, ("ERR all %d keys of %s are in use; try again later"):format(all.max, all.command)
  end
  local entry, message = of_limit(key, value, verdicts)
  if not entry then return nil, "ERR " .. message end
  all.by_key[key], all.ring[#all.ring + 1] = entry, entry
  return entry
end

--- The account of a key of NEAP.LIMIT, made or changed to what its caller says it is. Of a changed
--- one what was spent stays spent.
---@param engine ffi.cdata*
---@param key string
---@param text string
---@param now ffi.cdata*
---@return neap.Account?
---@return string? err
function accounts:key(engine, key, text, now)
  local value, err = read(self, text)
  if not value then return nil, err end
  local entry = self.limits.by_key[key]
  if not entry then return add(self.limits, key, value, self.verdicts, now) end
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

--- The account of a key of NEAP.SLOT, made, or with as many slots as its caller says from now on.
---@param engine ffi.cdata*
---@param key string
---@param n integer
---@param now ffi.cdata*
---@return neap.Account?
---@return string? err
function accounts:slot(engine, key, n, now)
  local entry = self.slots.by_key[key]
  if not entry then
    local err
    entry, err = add(self.slots, key, { kind = "in_flight", amount = n }, self.verdicts, now)
    if not entry then return nil, err end
    entry.leased, entry.held[1], entry.ids = true, true, "\0" .. key   -- no policy's name
    entry.bound, entry.costs = { [0] = "slot" }, { "slot" }
  end
  local limit = entry.limits[1]
  if limit.value.amount ~= n then
    limit.value = { kind = "in_flight", amount = n }
    limit.text, limit.leaf.as.semaphore.limit = notation.format(limit.value), n
    C.neap_engine_touch(engine, limit.leaf, now)
  end
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
