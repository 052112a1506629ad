--- An adaptive limit: how many at once, found out from how calls end.
---
---     local api = neap.adaptive "vegas"                  -- from 1 to 100 at once
---     local answer = api:with(1, fetch, url)             -- "failure" when it raises
---     local permit = api:acquire { timeout = "2s" }
---     local answer = fetch(url)
---     permit:give(answer and "success" or "failure")     -- or "ignore", which says nothing
---
--- It is a semaphore whose limit moves between `floor` and `ceiling`. Whatever gives a permit back
--- moves it, in a hybrid, too; a limit that rose lets those in line go at that instant, one that
--- sank takes no permit back. The rules and where they come from: engine/adaptive.c.
---
---     "aimd"       a success adds `increase`, if the limit was reached; a failure takes half
---     "vegas"      also slower calls lower it: what a call took longer than the fastest, it stood
---                  in a queue over there; at most `beta` of ours may stand in it
---     "gradient"   slower than usual, not than the fastest; for servers that are never even
---     function     your own: fn(limit, in_flight, outcome, rtt_s) answers the limit, which is cut
---                  to the bounds. `in_flight` still counts the call that ends. It must not wait
---
--- `strategy = "vegas"` is the strategy as its authors published it. "vegas" alone, or `preset =
--- "vegas"`, has what years of use have taught as well: failures of calls that were out when it was
--- cut do not cut again (`one_cut`), and a limit that nobody reached does not grow
--- (`grow_when_used`). In both the fastest call is forgotten after `memory`, half a minute.
local ffi = require "ffi"
local C = require "neap.engine"
local events = require "neap.events"
local limiter = require "neap.limiter"
local notation = require "neap.notation"

local error, pairs, pcall, tonumber, tostring = error, pairs, pcall, tonumber, tostring
local type = type
local bor, floor_of, huge, min = bit.bor, math.floor, math.huge, math.min
local concat, sort = table.concat, table.sort

local leaf_t = ffi.typeof "struct neap_limiter"
local strategy_t = ffi.typeof "struct neap_strategy"
local MOST = 2 ^ 53

---@class neap.Adaptive: neap.Limiter
---@field leaf ffi.cdata*
---@field strategy function?    one in Lua
---@field seen integer          changes of the limit that were noticed
---@field last integer          the limit then
---@field changed? fun(self: neap.Adaptive, before: integer, after: integer)  see notice
local adaptive = limiter.class()

-- ---- options ----------------------------------------------------------------------------------

local function refuse(text, level) error("adaptive: " .. text, level + 1) end

local function sorted_keys(of)
  local list = {}
  for key in pairs(of) do list[#list + 1] = key end
  sort(list)
  return list
end

--- Refuse a word that is none of `known`, and say which was probably meant.
local function check_word(what, word, known, level)
  if type(word) == "string" and known[word] then return end
  local words = sorted_keys(known)
  refuse((notation.suggest(("%s: %s is not known: there are %s"):format(what, tostring(word),
    concat(words, ", ")), type(word) == "string" and word or nil, words)), level + 1)
end

local function whole(name, n, level)
  if type(n) ~= "number" or not (n >= 0 and n <= MOST) or n % 1 ~= 0 then
    refuse(("%s: a whole number from 0 to 2^53 expected, got %s"):format(name, tostring(n)),
      level + 1)
  end
end

local function number(name, n, level)
  if type(n) ~= "number" or n ~= n or n == huge or n == -huge then
    refuse(("%s: a number expected, got %s"):format(name, tostring(n)), level + 1)
  end
  return n
end

local function duration(name, value, level)
  local ns = limiter.ns_of(value, "adaptive: " .. name, level + 1)
  if ns == 0 then refuse(name .. ": more than 0 expected", level + 1) end
  return ns
end

local function switch(name, value, level)
  if type(value) ~= "boolean" then
    refuse(("%s: true or false expected, got %s"):format(name, tostring(value)), level + 1)
  end
  return value
end

-- How an option of a strategy is read into the engine's. What is in the wrong range there, the
-- engine refuses.
local readers = {}
function readers.whole(s, name, value, level)
  whole(name, value, level + 1)
  s[name] = value
end

function readers.window(s, name, value, level)
  whole(name, value, level + 1)
  s.window = min(value, 2 ^ 31 - 1)
end

function readers.number(s, name, value, level) s[name] = number(name, value, level + 1) end
function readers.slow(s, _, value, level) s.slow_ns = duration("slow", value, level + 1) end
function readers.memory(s, _, value, level) s.memory_ns = duration("memory", value, level + 1) end

local function option(bit)
  return function (s, name, value, level)
    if switch(name, value, level + 1) then s.options = bor(s.options, bit) end
  end
end

local STRATEGIES = {
  aimd = { kind = C.NEAP_AIMD, increase = "whole" },
  vegas = {
    kind = C.NEAP_VEGAS, increase = "whole", alpha = "whole", beta = "whole", threshold = "whole",
    shrink = "number", memory = "memory", log10 = option(C.NEAP_LOG10),
    round_up = option(C.NEAP_ROUND_UP), best_holds = option(C.NEAP_BEST_HOLDS),
  },
  gradient = { kind = C.NEAP_GRADIENT, tolerance = "number", queue = "whole", window = "window" },
}
for _, known in pairs(STRATEGIES) do
  known.decrease, known.smoothing = "number", "number"
  known.use, known.slow = "whole", "slow"
end

local PRESETS = {}   -- each is its strategy with these
for name in pairs(STRATEGIES) do PRESETS[name] = { one_cut = true, grow_when_used = true } end

local OPTIONS = {
  strategy = true, preset = true, floor = true, ceiling = true, initial = true, name = true,
  one_cut = true, grow_when_used = true, abandoned = true,
}

---@param given string|table|function
---@return ffi.cdata*  struct neap_strategy
---@return function?
local function read_strategy(given, level)
  local s = strategy_t()
  if type(given) == "function" then
    C.neap_strategy_init(s, C.NEAP_STEERED)
    return s, given
  end
  local own = type(given) == "table" and given or { given }
  check_word("strategy", own[1], STRATEGIES, level + 1)
  local known = STRATEGIES[own[1]]
  C.neap_strategy_init(s, known.kind)
  for name, value in pairs(own) do
    if name ~= 1 then
      local names = { kind = false }
      for each in pairs(known) do names[each] = each ~= "kind" or nil end
      check_word("strategy " .. own[1], name, names, level + 1)
      local read = readers[known[name]] or known[name]
      read(s, name, value, level + 1)
    end
  end
  return s
end

--- A number of permits; `otherwise` when nothing is said.
local function bound(options, name, otherwise, level)
  local n = options[name]
  if n == nil then n = otherwise end
  whole(name, n, level + 1)
  return n
end

-- ---- looking ----------------------------------------------------------------------------------

local function state_of(self) return self.leaf.as.adaptive end

--- Permits there are just now.
---
---     neap.adaptive({ initial = 10 }):limit()            --> 10
---
---@return integer
function adaptive:limit() return tonumber(state_of(self).limit) end

--- Permits that are out; more than the limit after it sank.
---
---     api:in_flight()                                    --> 0
---
---@return integer
function adaptive:in_flight() return tonumber(state_of(self).in_use) end

--- The least it can be.
---
---     api:floor()                                        --> 1
---
---@return integer
function adaptive:floor() return tonumber(state_of(self).floor) end

--- The most.
---
---     api:ceiling()                                      --> 100
---
---@return integer
function adaptive:ceiling() return tonumber(state_of(self).ceiling) end

--- How often the limit moved, ever; and when it last did, as neap.now() has it: 0 when never.
---
---     neap.adaptive():changes()                          --> 0, 0
---
---@return integer count
---@return number at  seconds
function adaptive:changes()
  return tonumber(state_of(self).changes), tonumber(state_of(self).changed_at) / 1e9
end

-- ---- moving -----------------------------------------------------------------------------------

--- Where Lua notices that the limit moved: after each give, and after other bounds. Who sets
--- `changed` is told here, once for what one give did; it may do all but wait.
---@package
function adaptive:notice()
  local a = state_of(self)
  if a.changes == self.seen then return end
  local before, after = self.last, tonumber(a.limit)
  self.seen, self.last = a.changes, after
  events.about("adaptive", self, { from = before, to = after })
  if self.changed then self:changed(before, after) end
end

--- Other bounds from now on; the limit is cut to them. Those in line may go when it rises.
---
---     api:bounds(5, 50)
---     api:limit()                                        --> 5
---
---@param floor integer    0 counts as 1
---@param ceiling integer  raised to the floor
function adaptive:bounds(floor, ceiling)
  limiter.alone(self, "bounds", 2)
  whole("floor", floor, 2)
  whole("ceiling", ceiling, 2)
  local now, rt = limiter.present()
  C.neap_adaptive_bounds(state_of(self), floor, ceiling, now)
  C.neap_engine_touch(rt.engine, self.leaf, now)
  self:notice()
end

--- What a strategy in Lua makes of a call that ends, before it is given back. For permits.
---@package
---@param outcome "success"|"failure"
---@param rtt_s number
---@param now ffi.cdata*
---@return string? message  what was wrong with it; the limit is as it was
function adaptive:learn(outcome, rtt_s, now)
  local a = state_of(self)
  local limit = tonumber(a.limit)
  local ran, answer = pcall(self.strategy, limit, tonumber(a.in_use), outcome, rtt_s)
  if not ran then
    return ("adaptive: the strategy of %s: %s"):format(self.name, tostring(answer))
  elseif type(answer) ~= "number" or answer ~= answer then
    return ("adaptive: the strategy of %s: a limit expected, got %s; it stays at %d"):format(
      self.name, tostring(answer), limit)
  end
  local least, most = tonumber(a.floor), tonumber(a.ceiling)
  answer = answer < least and least or answer > most and most or answer
  C.neap_adaptive_move(a, floor_of(answer), now)
end

-- -----------------------------------------------------------------------------------------------

--- Make one.
---
---   floor      least permits, 1 unless told; 0 counts as 1
---   ceiling    most permits, 100 unless told; raised to the floor
---   initial    permits to begin with, the floor unless told; cut to the bounds
---   preset     "aimd", "vegas" or "gradient", with `one_cut` and `grow_when_used` on. "aimd"
---              unless there is a strategy
---   strategy   its name, a function, or { name, … } with numbers of its own:
---     all        decrease = 0.5   a failure leaves this share of the limit, rounded down
---                smoothing = 1    a success moves it by this share of the way (gradient: 0.2)
---                use              a success moves it only when in_flight * use reaches it: 1
---                                 (aimd), 2 (gradient); 0, however little is in use (vegas)
---                slow             a success that took longer counts as a failure
---     aimd       increase = 1
---     vegas      alpha = 3, beta = 6, increase = 1, memory = "30s" (math.huge: for ever)
---                threshold        up to such a queue it grows by beta at once
---                shrink           the share that is left above beta, instead of `increase` less
---                log10, round_up, best_holds   as Netflix has it: numbers times log10(limit),
---                                 queues rounded up, a new fastest call moves nothing
---     gradient   tolerance = 1.5, queue = 4, window = 600
---   one_cut, grow_when_used   true or false
---   abandoned  what a permit says that is lost to the collector: "ignore", unless "failure"
---
--- A call may cost more than 1, up to the ceiling: it holds as many permits, and when the limit is
--- below that it goes alone. With `strategy = fn` an error of fn, or what is no number, is an error
--- of the `give` that met it; the permit is back and the limit as it was.
---@param options? string|table  a text is a preset
---@return neap.Adaptive
return function (options)
  if options == nil then options = {} end
  if type(options) == "string" then options = { preset = options } end
  if type(options) ~= "table" then
    refuse("a preset or a table of options expected, got " .. tostring(options), 2)
  end
  for name in pairs(options) do check_word("option", name, OPTIONS, 2) end
  local name = options.preset
  if name == nil and options.strategy == nil then name = "aimd" end
  if name ~= nil then check_word("preset", name, PRESETS, 2) end
  local preset = name and PRESETS[name] or {}
  local strategy, fn = read_strategy(options.strategy or name, 2)
  for each, bit in pairs { one_cut = C.NEAP_ONE_CUT, grow_when_used = C.NEAP_GROW_WHEN_USED } do
    local on = options[each]
    if on == nil then on = preset[each] or false end
    if switch(each, on, 2) then strategy.options = bor(strategy.options, bit) end
  end
  local abandoned = options.abandoned
  if abandoned ~= nil and abandoned ~= "ignore" and abandoned ~= "failure" then
    refuse("abandoned: \"ignore\" or \"failure\" expected, got " .. tostring(abandoned), 2)
  end

  local self = { leaf = leaf_t(), strategy = fn, seen = 0 }
  self.name = limiter.name_of({ name = options.name }, "adaptive", {}, 2)
  self.leaf.kind = C.NEAP_ADAPTIVE
  local least = bound(options, "floor", 1, 2)
  if C.neap_adaptive_init(self.leaf.as.adaptive, strategy, least,
      bound(options, "ceiling", 100, 2), bound(options, "initial", least, 2)) ~= C.NEAP_OK then
    refuse("a number of the strategy is out of range: smoothing is above 0 and up to 1, shrink "
      .. "0 to 1, tolerance above 0, window 1 and more, and no other is above 2^40", 2)
  end
  self.last = tonumber(self.leaf.as.adaptive.limit)
  return limiter.init(adaptive, self, { {
    leaf = self.leaf, multiplier = 1, cost = false, label = self.name, word = "busy",
    abandoned = abandoned == "failure" and abandoned or nil, learner = self,
  } }, 2)
end
