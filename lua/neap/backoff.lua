--- Back-off: how long to wait before the next attempt.
---
---     local backoff = neap.backoff "200ms x2 cap 20s jitter decorrelated"
---     for delay in backoff:sequence() do              -- 0.2 to 0.6 s, and so on, without end
---       if delay > 10 then break end
---     end
---     print(backoff:delay(1000000))                   -- or of any attempt by itself, from 0
---
---     neap.backoff { base = "200ms", factor = 2, cap = "20s", jitter = "decorrelated" }
---     neap.backoff { preset = "foundation_http", cap = "1m" }
---
--- An attempt's delay is the curve's (`base`; plus `step` with each attempt, or times `factor`), no
--- longer than the cap, and then jitter: a draw, from 0 to 1 times the delay ("full"), 0.5 to 1
--- ("equal"), 1 - j to 1 ({ "factor", j }), 1 to 1 + j ({ "additive", j }), a to b ({ "range", a,
--- b }); or, whatever the curve, from the base to three times the delay before ("decorrelated").
--- What jitter adds is not above the cap either, and is not clipped there: at least half of the
--- width that is drawn from lies below it (engine/backoff.c).
local ffi = require "ffi"
local C = require "neap.engine"
local grammar = require "neap.grammar"
local key = require "neap.key"
local rounds = require "neap.runtime.rounds"
local text = require "neap.backoff.text"

local assert, error, getmetatable, ipairs = assert, error, getmetatable, ipairs
local pairs, setmetatable = pairs, setmetatable
local tonumber, tostring, type = tonumber, tostring, type
local huge, max, min = math.huge, math.max, math.min

local policy_t = ffi.typeof "struct neap_backoff"
local random_t = ffi.typeof "struct neap_random"

local HORIZON = C.neap_horizon
local MOST = 2 ^ 53
local LAST_ATTEMPT = 2 ^ 53
local CURVES = {
  constant = C.NEAP_CONSTANT, linear = C.NEAP_LINEAR, exponential = C.NEAP_EXPONENTIAL,
}
local OPTIONS = { "preset", "curve", "base", "step", "factor", "cap", "jitter", "grid", "strict",
  "seed", "random" }

--- What other systems do, under their names.
local PRESETS = {
  throttle_net = "100ms x2 jitter decorrelated",                             -- its default policy
  foundation_policy = "1s x2 cap 10s grid 1ms",                              -- Backoff.Policy
  foundation_handler = "500ms x2 cap 10s jitter range 0.75..1.25 grid 1ms",  -- Retry.Handler
  foundation_http = "500ms x2 cap 10s jitter factor 0.25 grid 1ms",          -- Retry.HTTP
  botocore = "1s x2 cap 20s jitter full",                                    -- its standard mode
}

---@class neap.Backoff
---@field value neap.backoff.Value
---@field policy ffi.cdata*   struct neap_backoff
---@field source ffi.cdata*   struct neap_random: seeds sequences, and draws where there is none
---@field draw function?      instead of the generator
local backoff = {}
backoff.__index = backoff

-- ---- reading ----------------------------------------------------------------------------------

local function refuse(what, level) error("backoff: " .. what, level + 1) end

--- A duration in whole ns; math.huge: for ever.
local function duration(options, name, level)
  local given = options[name]
  if given == nil then return nil end
  if given == huge then return huge end
  if type(given) == "number" and given < 0 then
    refuse(("%s: 0 and more expected, got %s"):format(name, tostring(given)), level + 1)
  end
  local ns = tonumber(rounds.ns(given, level + 1))
  if ns > MOST then
    refuse(("%s: up to 104 days expected, or math.huge, got %s"):format(name, tostring(given)),
      level + 1)
  end
  return ns
end

local function share(n, what, level)
  if type(n) ~= "number" or not (n >= 0 and n <= text.MOST) then
    refuse(("%s: a number from 0 to 1e9 expected, got %s"):format(what, tostring(n)), level + 1)
  end
  return n
end

--- Jitter: a text, or { "factor", 0.25 }, { "range", 0.5, 1.5 }, { "full" }.
local function read_jitter(value, given, level)
  value.amount, value.low, value.high = nil, nil, nil
  if type(given) == "string" then
    local read, message = text.jitter(given)
    if not read then
      refuse(("bad jitter %q: %s"):format(grammar.show(given), message), level + 1)
    end
    for name, part in pairs(read) do value[name] = part end
    return
  elseif type(given) ~= "table" or type(given[1]) ~= "string" then
    refuse("jitter: a text such as \"full\", or { \"factor\", 0.25 }, expected, got " ..
      tostring(given), level + 1)
  end
  value.jitter = given[1]
  if value.jitter == "factor" or value.jitter == "additive" then
    value.amount = share(given[2], "jitter " .. value.jitter, level + 1)
  elseif value.jitter == "range" then
    value.low = share(given[2], "jitter range", level + 1)
    value.high = share(given[3], "jitter range", level + 1)
    if value.low > value.high then
      refuse("jitter: a range goes from the smaller number to the larger one", level + 1)
    end
  else
    local read, message = text.jitter(value.jitter)
    if not read then refuse("jitter: " .. message, level + 1) end
  end
end

local function read_curve(value, options, level)
  local curve = options.curve or options.factor and "exponential" or options.step and "linear"
    or value.curve or "constant"
  if not CURVES[curve] then
    refuse((grammar.suggest(("no curve '%s': there are constant, linear and exponential"):format(
      tostring(curve)), tostring(curve), { "constant", "linear", "exponential" })), level + 1)
  end
  value.curve = curve
  local stray = options.step ~= nil and curve ~= "linear" and "step"
    or options.factor ~= nil and curve ~= "exponential" and "factor"
  if stray then refuse(("%s curves have no %s"):format(curve, stray), level + 1) end
  value.step_ns = curve == "linear" and (duration(options, "step", level + 1) or value.step_ns
    or value.base_ns) or nil
  value.factor = curve == "exponential" and share(options.factor or value.factor or 2, "factor",
    level + 1) or nil
end

local function read_preset(name, level)
  if PRESETS[name] then return text.read(PRESETS[name]) end
  local names = {}
  for each in pairs(PRESETS) do names[#names + 1] = each end
  table.sort(names)
  refuse((grammar.suggest(("no preset '%s': there are %s"):format(tostring(name),
    table.concat(names, ", ")), tostring(name), names)), level + 1)
end

local function check_strictly(value, strict, level)
  if type(strict) ~= "boolean" then
    refuse("strict: true or false expected, got " .. tostring(strict), level + 1)
  end
  for _, name in ipairs { "base", "step", "cap" } do
    local ns = value[name .. "_ns"]
    if strict and value.grid_ns and ns and ns ~= huge and ns % value.grid_ns ~= 0 then
      refuse(name .. ": a multiple of the grid expected", level + 1)
    end
  end
  if strict and value.cap_ns < value.base_ns then
    refuse("cap: not less than the base expected", level + 1)
  end
end

---@return neap.backoff.Value
local function read_options(options, level)
  grammar.check_names("backoff", options, OPTIONS, level + 1)
  local value = options.preset ~= nil and read_preset(options.preset, level + 1)
    or { jitter = "none" }
  value.base_ns = duration(options, "base", level + 1) or value.base_ns
  if not value.base_ns then
    refuse("base: the first delay is missing, as in { base = \"200ms\" }", level + 1)
  end
  read_curve(value, options, level + 1)
  if options.jitter ~= nil then read_jitter(value, options.jitter, level + 1) end
  value.cap_ns = duration(options, "cap", level + 1) or value.cap_ns or text.usual_cap(value)
  value.grid_ns = duration(options, "grid", level + 1) or value.grid_ns
  if value.grid_ns == 0 or value.grid_ns == huge then
    refuse("grid: a duration above 0 expected", level + 1)
  end
  if options.strict ~= nil then check_strictly(value, options.strict, level + 1) end
  return value
end

-- ---- as the engine has it ---------------------------------------------------------------------

-- What jitter multiplies by.
local RANGES = {
  full = function () return 0, 1 end,
  equal = function () return 0.5, 1 end,
  factor = function (value) return max(1 - value.amount, 0), 1 end,
  additive = function (value) return 1, min(1 + value.amount, text.MOST) end,
  range = function (value) return value.low, value.high end,
}

local function ns_of(ns) return ns == huge and HORIZON or ns end

---@param value neap.backoff.Value
---@return ffi.cdata*  struct neap_backoff
local function compile(value)
  local policy = policy_t()
  policy.curve, policy.grid_ns = CURVES[value.curve], value.grid_ns or 1
  policy.base_ns, policy.step_ns = ns_of(value.base_ns), ns_of(value.step_ns or 0)
  policy.cap_ns, policy.factor = ns_of(value.cap_ns), value.factor or 0
  local range = RANGES[value.jitter]
  policy.jitter = range and C.NEAP_SPREAD or value.jitter == "decorrelated" and C.NEAP_DECORRELATED
    or C.NEAP_NO_JITTER
  if range then policy.low, policy.high = range(value) end
  assert(C.neap_backoff_check(policy) == C.NEAP_OK)
  return policy
end

-- ---- delays -----------------------------------------------------------------------------------

--- One draw, from 0 to 1.
local function draw(self, source)
  if not self.draw then return C.neap_random_unit(source) end
  local unit = self.draw()
  if type(unit) ~= "number" or not (unit >= 0 and unit <= 1) then
    error("backoff: random: a number from 0 to 1 expected, got " .. tostring(unit), 0)
  end
  return unit
end

--- The delay after attempt number `attempt`, in seconds. Without a delay before it, decorrelated
--- jitter draws from all that could come after so many attempts.
---
---     neap.backoff("200ms x2 cap 20s"):delay(3)       --> 1.6
---
---@param attempt integer            from 0
---@param previous? number|string    the delay before this one in seconds, if there was one
---@return number  seconds
function backoff:delay(attempt, previous)
  if type(attempt) ~= "number" or attempt % 1 ~= 0 or not (attempt >= 0 and attempt <= LAST_ATTEMPT)
  then
    error("backoff: attempt: a whole number from 0 expected, got " .. tostring(attempt), 2)
  end
  local before = previous ~= nil and rounds.ns(previous, 2) or 0
  local unit = draw(self, self.source)
  return tonumber(C.neap_backoff_delay(self.policy, attempt, before, unit)) / 1e9
end

--- A run of attempts: each call answers the next delay, in seconds. It has no end.
---@class neap.backoff.Sequence
---@field backoff neap.Backoff
---@field attempt integer     the one whose delay is next
---@field package previous ffi.cdata*|integer
---@field package random ffi.cdata*
local sequence = {}
sequence.__index = sequence

--- The next delay; calling the sequence does the same.
---
---     local delays = neap.backoff("200ms x2"):sequence()
---     print(delays:next(), delays:next(), delays())   --> 0.2, 0.4, 0.8
---
---@return number  seconds
function sequence:next()
  local backoff_of, attempt = self.backoff, self.attempt
  local unit = draw(backoff_of, self.random)
  self.previous = C.neap_backoff_delay(backoff_of.policy, attempt, self.previous, unit)
  self.attempt = attempt + 1
  return tonumber(self.previous) / 1e9
end

sequence.__call = sequence.next

--- Begin with the first delay again; other draws follow.
---
---     delays:reset()
---     delays:next()                                   --> 0.2
---
function sequence:reset()
  self.attempt, self.previous = 0, 0
end

local function check_seed(seed, level)
  if type(seed) ~= "number" or seed % 1 ~= 0 or not (seed >= 0 and seed <= MOST) then
    refuse("seed: a whole number from 0 to 2^53 expected, got " .. tostring(seed), level + 1)
  end
  return seed
end

--- Delays one after the other: call it, or loop over it. One seed is one sequence.
---
---     backoff:sequence(42):next() == backoff:sequence(42):next()   --> true
---
---@param seed? integer  drawn unless told: no two sequences are alike
---@return neap.backoff.Sequence
function backoff:sequence(seed)
  local random = random_t()
  random.state = seed ~= nil and check_seed(seed, 2) or C.neap_random_next(self.source)
  return setmetatable({ backoff = self, attempt = 0, previous = 0, random = random }, sequence)
end

--- In canonical form, as neap.backoff reads it; seed and random are not said.
---
---     tostring(neap.backoff { base = 0.2, factor = 2 })   --> "200ms x2"
---
---@return string
function backoff:__tostring() return text.format(self.value) end

-- ---- making -----------------------------------------------------------------------------------

-- Seeds those that have no seed. It is of the process's secret, and does not show it.
local entropy = random_t()
entropy.state = C.neap_hash_integer(key.secret, 0)

--- For other constructors.
---@package
---@param given string|table|neap.Backoff|nil
---@param level integer  whose mistake it is, as for error()
---@return neap.Backoff
local function make(given, level)
  if getmetatable(given) == backoff then return given end
  if given == nil then given = { preset = "throttle_net" } end
  local value
  if type(given) == "string" then
    local message
    value, message = text.read(given)
    if not value then
      refuse(("bad text %q: %s"):format(grammar.show(given), message), level + 1)
    end
    given = {}
  elseif type(given) == "table" then
    value = read_options(given, level + 1)
  else
    refuse("a text such as \"200ms x2\", or a table, expected, got " .. type(given), level + 1)
  end
  if given.random ~= nil and type(given.random) ~= "function" then
    refuse("random: a function expected, got " .. type(given.random), level + 1)
  end
  local source = entropy
  if given.seed ~= nil then
    source = random_t()
    source.state = check_seed(given.seed, level + 1)
  end
  return setmetatable({
    value = value, policy = compile(value), source = source, draw = given.random,
  }, backoff)
end

--- Make a back-off of a text, of options, or the default: "100ms x2 jitter decorrelated".
---
---   preset   throttle_net, foundation_policy, foundation_handler, foundation_http or botocore:
---            what it does; the other options change that
---   curve    "constant", "linear" or "exponential"; what step or factor say unless told
---   base     the first delay, seconds or "200ms"; math.huge: for ever
---   step     linear: what each attempt adds; the base unless told
---   factor   exponential: from 0; 2 unless told
---   cap      no delay is longer, jitter included; 30 s unless told, math.huge: none. A constant
---            has none unless told, or with decorrelated jitter itself
---   jitter   see above; "none" unless told
---   grid     delays are multiples of it, half of it rounded up
---   strict   true: a cap below the base, and what is no multiple of the grid, are mistakes
---   seed     a whole number: all draws can be had again, in the same order
---   random   fn(): a draw from 0 to 1, in place of the generator
---
--- Refuses what it does not know, and numbers out of range.
---@overload fun(given?: string|table): neap.Backoff
local module = {
  of = make,
  presets = PRESETS,   ---@type table<string, string>  by name, as texts
}

--- After a fork, in the child: or it would draw what its parent and its siblings draw.
---@package
---@param id integer  that others do not have, such as its process id
function module.forked(id) entropy.state = C.neap_hash_integer(key.secret, id) end

return setmetatable(module, {
  __call = function (_, given)
    local made = make(given, 2)   -- no tail call, or the mistake would be somebody else's
    return made
  end,
})
