--- All-of: the flat list of terms that one call into the engine takes or leaves as a whole.
---
--- Whatever users nest is flattened here, once, when it is built. Terms of one limiter end up next
--- to each other, as the engine wants them (it charges their sum), and two that are alike become
--- one with the multipliers added: a limiter that is listed twice is charged twice.
local ffi = require "ffi"
local C = require "neap.engine"

local band, lshift = bit.band, bit.lshift
local error, ipairs, pairs = error, ipairs, pairs
local TERMS, COSTS, KEYS = C.NEAP_TERMS, C.NEAP_COSTS, C.NEAP_KEYS

-- The kinds whose permits have something to give back.
local HOLD = lshift(1, C.NEAP_SEMAPHORE) + lshift(1, C.NEAP_BREAKER) + lshift(1, C.NEAP_ADAPTIVE)

local all_t = ffi.typeof "struct neap_all"
local terms_t = ffi.typeof "struct neap_term[?]"

--- One limiter's part in a composite.
---@class neap.Part
---@field leaf ffi.cdata*      struct neap_limiter, where its state is
---@field memory table?        what the leaf points into, kept alive by it
---@field multiplier integer   tokens of this limiter per unit of cost
---@field cost string|false    the cost it is charged; false: the one without a name
---@field label string         what to call it when it refuses
---@field word string          what to answer when it refuses: "rate", "busy", "pause"
---@field shed string?         and when it turns away instead of letting wait: "full", "open"
---@field keyed neap.PerKey?   it is kept for a key
---@field key string?          what such keys are called
---@field fresh ffi.cdata*?    struct neap_limiter: what a key has that was never seen
---@field closed boolean?      it refuses everything, and "closed" is the word
---@field abandoned "failure"?  the outcome of a permit that is lost, instead of "ignore"
---@field learner neap.Adaptive?  it is to hear in Lua how calls end
---@field segment neap.Segment?  other processes share it
---@field table string?         and what its keys are called there
---@field owned table?          limits that keys have of their own: { leaf, what has to stay }
---@field dispatch neap.Dispatch?  whose part it is, and who hears what a server says
---@field of ffi.cdata*?       struct neap_limiter: what a conditional leaf is of
---@field pause neap.Pause?        whom to tell how long it lasts
---@field breaker neap.Breaker?    whose state may change when it is asked, or hears how calls end
---@field index integer?       of its cost, once it is built into a list of terms

--- What the engine is asked about, and what keeps that memory alive.
---@class neap.Terms
---@field all ffi.cdata*              struct neap_all
---@field terms ffi.cdata*            struct neap_term[]
---@field parts neap.Part[]           of terms[i - 1]
---@field sums { leaf: ffi.cdata*, multiplier: integer, parts: neap.Part[] }[]  by limiter
---@field names table<string, integer> index of each named cost
---@field unnamed integer?            index of the cost without a name, if a term has that
---@field keys neap.KeyKind[]?         the keys a request has to name, in the order of their index
---@field costs integer               how many costs there are, at least 1
---@field conditional boolean         what a term asks depends on a pause
---@field holds boolean               a permit has something to give back
---@field abandoned "ignore"|"failure"  the outcome of a permit that is lost
---@field breakers neap.Breaker[]?
---@field shared neap.Part[]?          by other processes, too
---@field learners { of: neap.Adaptive, parts: neap.Part[] }[]?  who is to hear how calls end

---@param part neap.Part
---@param change table
---@return neap.Part  a copy with `change`
local function with(part, change)
  local copy = {}
  for key, value in pairs(part) do copy[key] = value end
  for key, value in pairs(change) do copy[key] = value end
  return copy
end

--- The parts, grouped by limiter in the order of their first mention.
---@param parts neap.Part[]
local function grouped(parts)
  local sums, of = {}, {}
  for _, part in ipairs(parts) do
    local sum = of[part.leaf]
    if not sum then
      sum = { leaf = part.leaf, multiplier = 0, parts = {} }
      sums[#sums + 1], of[part.leaf] = sum, sum
    end
    sum.multiplier = sum.multiplier + part.multiplier
    local twin
    for i, other in ipairs(sum.parts) do
      if other.cost == part.cost and other.key == part.key then twin = i end
    end
    if twin then
      local both = sum.parts[twin].multiplier + part.multiplier
      sum.parts[twin] = with(sum.parts[twin], { multiplier = both })
    else
      sum.parts[#sum.parts + 1] = with(part, {})
    end
  end
  return sums
end

--- A kind of key, and who makes limiters for new ones.
---@class neap.KeyKind
---@field name string
---@field index integer         in the request
---@field makers neap.PerKey[]  those who make a limiter for each key
---@field secret ffi.cdata?     under which it is hashed; nil: this process's

--- A table that processes share is asked once by a request, however often it was opened.
local function check_shared(part, seen, level)
  local path, name = part.segment.path, part.table
  seen[path] = seen[path] or {}
  local other = seen[path][name]
  if other and other ~= part.leaf then
    error(("hybrid: %s of %s is in it twice: use one and the same"):format(name, path), level + 1)
  end
  seen[path][name] = part.leaf
end

--- The keys that parts ask for; each part gets the index of its own.
---@param flat neap.Part[]
---@param names table<string, integer>  of costs
---@param level integer
---@return neap.KeyKind[]?
local function kinds_of_key(flat, names, level)
  local kinds, of, seen = {}, {}, {}
  for _, part in ipairs(flat) do
    if part.keyed then
      local name = part.key
      if part.keyed.segment then check_shared(part, seen, level + 1) end
      if names[name] then
        error(("hybrid: '%s' is the name of a cost and of a key: call one otherwise"):format(name),
          level + 1)
      end
      local secret = part.keyed.secret
      of[name] = of[name] or {}
      local kind = of[name][secret or 1]
      if not kind then
        kind = { name = name, makers = {}, index = #kinds, secret = secret }
        kinds[#kinds + 1], of[name][secret or 1] = kind, kind
      end
      if part.keyed.make then kind.makers[#kind.makers + 1] = part.keyed end
      part.key_index = kind.index
    end
  end
  if #kinds > KEYS then
    error(("hybrid: %d kinds of keys, at most %d are possible"):format(#kinds, KEYS), level + 1)
  end
  return kinds[1] and kinds or nil
end

---@param parts neap.Part[]
---@param level integer  whose mistake it is when there are too many
---@param guests? { cost: string|false, index: integer }[]  limits in Lua; they get their index
---@param first? string[]  names that have the first indexes, whether a part is charged them or not
---@return neap.Terms
local function build(parts, level, guests, first)
  local sums = grouped(parts)
  local flat, names, unnamed, costs, holds, abandoned = {}, {}, nil, 0, false, "ignore"
  local learners, breakers, shared, conditional = {}, {}, {}, false
  local function index_of(name)
    local index = unnamed
    if name then index = names[name] end
    if index then return index end
    if name then names[name] = costs else unnamed = costs end
    costs = costs + 1
    return costs - 1
  end
  for _, name in ipairs(first or {}) do index_of(name) end
  for _, sum in ipairs(sums) do
    for _, part in ipairs(sum.parts) do
      flat[#flat + 1] = part
      part.index = index_of(part.cost)
      abandoned = part.abandoned or abandoned
    end
    breakers[#breakers + 1] = sum.parts[1].breaker
    shared[#shared + 1] = sum.parts[1].segment and sum.parts[1]
    local learner = sum.parts[1].learner
    if learner then learners[#learners + 1] = { of = learner, parts = sum.parts } end
  end
  for _, guest in ipairs(guests or {}) do guest.index = index_of(guest.cost) end
  if #flat > TERMS then
    error(("hybrid: %d limits, at most %d are possible"):format(#flat, TERMS), level + 1)
  end
  if costs > COSTS then
    error(("hybrid: %d different costs, at most %d are possible; let limits that are charged the "
      .. "same share a name"):format(costs, COSTS), level + 1)
  end

  local keys = kinds_of_key(flat, names, level + 1)
  local terms = terms_t(#flat)
  for i, part in ipairs(flat) do
    local term = terms[i - 1]
    term.limiter, term.multiplier, term.cost = part.leaf, part.multiplier, part.index
    term.key = part.key_index or 0
    conditional = conditional or part.of ~= nil
    local kind = (part.of or part.leaf).kind
    holds = holds or band(lshift(1, kind), HOLD) ~= 0 or part.keyed and part.keyed.holds
  end
  local all = all_t()
  if C.neap_all_init(all, terms, #flat) ~= C.NEAP_OK then
    error(conditional and "hybrid: a limit that a dispatch is made of is listed beside it: its own "
      .. "lines know nothing of others" or
      "hybrid: a limit per key is listed for two kinds of keys: make two of it", level + 1)
  end
  return {
    all = all, terms = terms, parts = flat, sums = sums,
    names = names, unnamed = unnamed, costs = costs > 0 and costs or 1,
    keys = keys, conditional = conditional, holds = holds, abandoned = abandoned,
    shared = shared[1] and shared, learners = learners[1] and learners or nil,
    breakers = breakers[1] and breakers or nil,
  }
end

return { build = build, with = with }
