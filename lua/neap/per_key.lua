--- A limit per key: the same limit for everyone, and to each his own.
---
---     local users = neap.per_key("10/s burst 20", { overrides = { vip = "100/s" } })
---     users:try_acquire("ann")                          -- one of ann's 20
---     users:acquire("bob", { cost = 3, timeout = "2s" })
---
---     local api = neap.hybrid { "1000/s", users }       -- inside others the key has a name
---     api:acquire { key = "ann", cost = 3 }             -- "key", or what `by` says
---
--- A rate or a number in flight takes 16 bytes for each key that has used it, and nothing for a key
--- that time has refilled, which is as good as new: so a million callers a day are no burden.
--- Several limits may be kept by the same key ({ "10/s", "500/h", "4 in flight" }), and a function
--- makes any other limiter for each new key; such a one lives in Lua, and takes what it takes.
---
--- There is a bound on the keys that are alive, `most`. When a new one meets it, one that is as
--- good as new makes room first. When there is none, `full` says what to do: "least_recent" forgets
--- the key that was seen least recently, debts and all; "refuse" turns the new one away ("full"),
--- so that nobody gets a fresh budget by pushing others out; with "shared" those who found no place
--- share one limit. `idle` forgets a key that was not seen for so long, and with `lossless` not
--- before time has refilled it. A key that has something in flight is never forgotten.
local ffi = require "ffi"
local C = require "neap.engine"
local events = require "neap.events"
local guest = require "neap.guest"
local keys = require "neap.key"
local limiter = require "neap.limiter"
local limits_of = require "neap.per_key.limits"
local makers = require "neap.per_key.makers"
local notation = require "neap.notation"
local stats = require "neap.stats"
local throttle = require "neap.throttle"

local error, ipairs, pairs = error, ipairs, pairs
local pcall, tonumber, tostring, type = pcall, tonumber, tostring, type

local leaf_t = ffi.typeof "struct neap_limiter"
local is_word, leaf_for, written = limits_of.is_word, limits_of.leaf_for, limits_of.written

local OPTIONS = { by = true, most = true, full = true, idle = true, lossless = true,
  overrides = true, segment = true }
local FULL = { refuse = C.NEAP_REFUSE, least_recent = C.NEAP_LEAST_RECENT, shared = C.NEAP_SHARED }
local MOST, MOST_EVER = 2 ^ 20, 2 ^ 30
local MOST_SHARED = 2 ^ 13   -- what a segment has room for, unless told to have more

---@class neap.PerKey: neap.Limiter
---@field by string              what a key is called in a table of costs
---@field most integer
---@field full "least_recent"|"refuse"|"shared"
---@field idle_ns ffi.cdata*?
---@field tables ffi.cdata*[]    struct neap_keyed, one per limit
---@field guards userdata[]      that close them
---@field gone { closed: boolean? }   they did
---@field values neap.limit[]?   as written; nil: a function makes them
---@field makers neap.Makers?    of limiters that are more than a word
---@field holds boolean          a permit has something to give back
---@field make function?         when there are makers
---@field segment neap.Segment?   where its one table is
---@field secret ffi.cdata*?      of that
local per_key = limiter.class()

-- ---- reading ----------------------------------------------------------------------------------

local function whole(options, name, otherwise, most, level)
  local n = options[name]
  if n == nil then return otherwise end
  if n == math.huge then return most end
  if type(n) ~= "number" or n < 0 or n % 1 ~= 0 or n > most then
    error(("%s: a whole number up to %d expected, got %s"):format(name, most, tostring(n)),
      level + 1)
  end
  return n > 1 and n or 1
end

-- ---- making -----------------------------------------------------------------------------------

--- A part with a table of its own, in which each key is like `like`; nil: as a maker says.
local function part_of(self, like, part, level)
  local idle_ns = not self.lossless and self.idle_ns or 0
  local table_
  if self.segment then
    part.segment, part.table = self.segment, limits_of.name_there(self.name, #self.tables + 1)
    part.owned = self.owned
    table_ = self.segment:keyed(part.table, like, self.most, FULL[self.full], idle_ns, level + 1)
  else
    table_ = C.neap_keyed_open(like, self.most, FULL[self.full], idle_ns, keys.secret)
  end
  if table_ == nil then error("per_key: no memory for " .. self.most .. " keys", level + 1) end
  self.tables[#self.tables + 1] = table_
  self.guards[#self.guards + 1] = limits_of.guard(table_, self.gone)
  local leaf = leaf_t()
  leaf.kind, leaf.as.keyed = C.NEAP_KEYED, table_
  part.leaf, part.memory, part.keyed, part.key = leaf, self, self, self.by
  part.shed = part.shed or "full"
  return part
end

--- The part of a limit that is one word.
local function word_part(self, value, label, level)
  local like = leaf_for(value, label, level + 1)
  self.holds = self.holds or value.kind == "in_flight"
  self.words[#self.tables + 1] = true
  return part_of(self, like, { multiplier = 1, cost = false, label = label, fresh = like,
    word = value.kind == "in_flight" and "busy" or "rate" }, level + 1)
end

--- The parts of limiters that a function makes.
local function made_parts(self, fn, parts, level)
  local template = fn("")
  if limiter.is(template) and template.guests or guest.is(template) then
    error("per_key: a limiter in Lua knows no keys, so there cannot be one for each: keep them by "
      .. "key yourself, or put one beside this", level + 1)
  elseif not limiter.is(template) then
    error("per_key: the function has to make a limiter for any key, got " .. tostring(template),
      level + 1)
  elseif template.room then
    error("per_key: a queue stands before limits per key, not in them: neap.queue(neap.per_key(…))",
      level + 1)
  end
  self.makers = self.makers or makers.new(self)
  self.makers:add(fn, #parts + 1, #template.terms.parts)
  self.templates[#self.templates + 1] = stats.hide(template)
  self.holds = self.holds or template.terms.holds
  for _, part in ipairs(template.terms.parts) do
    if part.keyed then error("per_key: one limit per key in another: list them both", level + 1) end
    if part.learner and part.learner.strategy then
      error("per_key: a strategy in Lua does not hear of calls by key: take one of neap's own",
        level + 1)
    end
    parts[#parts + 1] = part_of(self, nil, { multiplier = part.multiplier, cost = part.cost,
      label = part.label, word = part.word, shed = part.shed, closed = part.closed,
      abandoned = part.abandoned, fresh = part.leaf }, level + 1)
  end
end

--- Limits of a key's own, instead of those of all.
local function override(self, overrides, count, level)
  if type(overrides) ~= "table" then
    error("overrides: a table of keys and their limits expected, got " .. type(overrides),
      level + 1)
  end
  for key, limits in pairs(overrides) do
    local what = "overrides." .. tostring(key)
    if type(limits) ~= "table" or limits.kind then limits = { limits } end
    if #limits ~= count then
      error(("%s: %d limits expected, as all have, got %d"):format(what, count, #limits), level + 1)
    end
    local hash = keys.hash(key, "overrides", level + 1, self.secret)
    self.overridden = self.overridden + 1
    for i, limit in ipairs(limits) do
      local value = written(limit, what, level + 1)
      local leaf, log = leaf_for(value, what, level + 1)
      if self.segment and leaf.kind ~= C.NEAP_PAUSE then
        leaf = self.segment:leaf(limits_of.name_there(self.name, i, key), leaf, level + 1)
      end
      self.owned[#self.owned + 1] = { leaf, log, hash = hash, value = value, table = i }
      if C.neap_keyed_set(self.tables[i], hash, leaf) ~= C.NEAP_OK then
        error("per_key: no memory for the limits of " .. what, level + 1)
      end
      self.holds = self.holds or value.kind == "in_flight"
      if value.kind == "closed" then self.shut[tostring(hash)] = true end
    end
  end
end

-- ---- verbs: the key comes first ---------------------------------------------------------------

local function check(key, verb, level)
  if key == nil then error(verb .. ": a key expected, got nil", level + 1) end
end

--- Take now or not at all.
---
---     users:try_acquire("ann", 25)            --> nil, "cost"
---
---@param key string|integer
---@param given? integer|table  what it costs, 1 unless told
---@return neap.Permit? permit
---@return string? why
---@return number? wait_s
function per_key:try_acquire(key, given)
  check(key, "try_acquire", 2)
  return limiter.try_acquire(self, given, key)
end

--- Answer as try_acquire would, and take nothing.
---
---     users:peek("ann", 20)                   --> nil, "rate", 0.4
---
---@param key string|integer
---@param given? integer|table
---@return true? granted
---@return string? why
---@return number? wait_s
function per_key:peek(key, given)
  check(key, "peek", 2)
  return limiter.peek(self, given, key)
end

--- Take, and wait in the key's line for it.
---
---     users:acquire("ann", 20, "2s")
---
---@param key string|integer
---@param given? integer|table  as for any limiter
---@param wait? number|string|table  a timeout, seconds or "2s", or `{ deadline = at }`
---@return neap.Permit? permit
---@return string? why
---@return number? wait_s
function per_key:acquire(key, given, wait)
  check(key, "acquire", 2)
  return limiter.acquire(self, given, wait, key)
end

--- What stands in the way of a call, nil when nothing does.
---
---     users:why("ann").wait                   --> 0.1
---
---@param key string|integer
---@param given? integer|table
---@return neap.Reason?
function per_key:why(key, given)
  check(key, "why", 2)
  return limiter.why(self, given, key)
end

--- Acquire, call, give back; see limiter:with.
---
---     local answer = users:with("ann", 1, fetch, url)
---
---@param key string|integer
---@param given integer|table|nil
---@param fn function
---@param ... any
---@return any ...
function per_key:with(key, given, fn, ...)
  check(key, "with", 2)
  if type(fn) ~= "function" then error("with: a function expected, got " .. type(fn), 2) end
  local held, why, wait_s = limiter.acquire(self, given, nil, key)
  if not held then return nil, why, wait_s end
  return limiter.finish(held, pcall(fn, ...))
end

--- Whole tokens that a key has now; all of them for one that was never seen.
---
---     users:available "ann"                   --> 0
---     users:available "eve"                   --> 20
---
---@param key? string|integer
---@return number
function per_key:available(key)
  return limiter.available(self, nil, key ~= nil and { [self.by] = key } or nil)
end

--- The most a call could ever have, of all keys or of one.
---
---     users:capacity "vip"                    --> 100
---
---@param key? string|integer
---@return number
function per_key:capacity(key)
  return limiter.capacity(self, nil, key ~= nil and { [self.by] = key } or nil)
end

-- ---- looking and tending ----------------------------------------------------------------------

--- How many keys are alive: who has used something that time has not given back yet. Walks them.
---
---     users:len()                             --> 1
---
---@return integer
function per_key:len()
  local now, most = limiter.present(), 0
  for i, table_ in ipairs(self.tables) do
    local n = self.words[i] and tonumber(C.neap_keyed_count(table_, now)) - self.overridden or 0
    if n > most then most = n end
  end
  return self.makers and math.max(most, self.makers:len()) or most
end

---@class neap.KeyStats
---@field alive integer
---@field bytes integer    held by the engine
---@field refused integer  new keys that were turned away, ever
---@field evicted integer  keys forgotten to make room, ever
---@field shared integer   requests that had to share, ever

local function key_stats(self)
  local all = { bytes = 0, refused = 0, evicted = 0, shared = 0 }
  local one = ffi.new "struct neap_keyed_stats"
  for _, table_ in ipairs(self.tables) do
    C.neap_keyed_stats(table_, one)
    for name, n in pairs(all) do all[name] = n + tonumber(one[name]) end
  end
  if self.makers then
    all.refused, all.evicted = all.refused + self.makers.refused, all.evicted + self.makers.evicted
  end
  return all
end

--- What became of the keys.
---
---     users:key_stats().alive                 --> 1
---
---@return neap.KeyStats
function per_key:key_stats()
  local all = key_stats(self)
  all.alive = self:len()
  return all
end

--- As of any limiter, and `keys`, a neap.KeyStats.
---
---     users:stats().keys.evicted              --> 0
---
---@return neap.Stats
function per_key:stats()
  local all = limiter.stats(self)
  all.keys = self:key_stats()
  return all
end

--- Keys forgotten to make room since this was last asked; for events.
---@package
---@return integer
function per_key:newly_evicted()
  local evicted = key_stats(self).evicted
  local new = evicted - (self.told_evicted or 0)
  self.told_evicted = evicted
  return new
end

--- The limiter of a key, where a function makes them: for what only its kind can do.
---
---     local hosts = neap.per_key(function () return neap.breaker { failures = 3 } end)
---     hosts:of(host):state()                  --> "closed"
---
---@param key string|integer
---@return neap.Limiter?  nil: no room for another key
function per_key:of(key)
  if not self.makers then error("of: a key of " .. self.name .. " is no more than a word", 2) end
  self.makers:make(key, keys.hash(key, "of", 2))
  return self.makers:find(key)
end

--- Forget a key, as if it were new.
---
---     users:forget "ann"
---
---@param key string|integer
function per_key:forget(key)
  local hash = keys.hash(key, "forget", 2, self.secret)
  local now, rt = limiter.present()
  for i, table_ in ipairs(self.tables) do
    C.neap_keyed_forget(table_, hash)
    C.neap_engine_touch_key(rt.engine, self.terms.parts[i].leaf, hash, now)
  end
  if self.makers then self.makers:forget(key, hash) end
end

--- Other limits for all keys, also for those who wait; keys with limits of their own keep those.
--- Rates keep of each key what was spent ("keep"), what is left ("balance"), how full it is
--- ("scale"), or nothing ("reset").
---
---     users:reconfigure "20/s burst 40"
---     users:available "ann"                   --> 40
---
---@param limits string|neap.limit|(string|neap.limit)[]  as many as there are, each of its kind
---@param mode? "keep"|"balance"|"scale"|"reset"
function per_key:reconfigure(limits, mode)
  mode = mode or "keep"
  if not limits_of.KEEP[mode] then
    error("reconfigure: \"keep\", \"balance\", \"scale\" or \"reset\" expected, got "
      .. tostring(mode), 2)
  elseif not self.values then
    error("reconfigure: a function makes the limits of " .. self.name .. ": build a new one", 2)
  end
  if type(limits) ~= "table" or limits.kind then limits = { limits } end
  if #limits ~= #self.values then
    error(("reconfigure: %d limits expected, got %d"):format(#self.values, #limits), 2)
  end
  local values, likes = {}, {}
  for i, limit in ipairs(limits) do
    values[i] = written(limit, "limit " .. i, 2)
    limits_of.check_change(self.values[i], values[i], mode, 2)
    if is_word(values[i]) then likes[i] = leaf_for(values[i], "limit " .. i, 2) end
  end
  local now, rt = limiter.present()
  for i, value in ipairs(values) do
    local part = self.terms.parts[i]
    if likes[i] then
      local code = C.neap_keyed_change(self.tables[i], likes[i], limits_of.KEEP[mode], now)
      if code == C.NEAP_EFULL then
        error("reconfigure: keys of the last change have no place yet: try again later", 2)
      elseif code ~= C.NEAP_OK then
        error("per_key: no memory for another table", 2)
      end
      ffi.copy(part.fresh, likes[i], ffi.sizeof(leaf_t))
    else
      self.makers:reconfigure(i, value, mode)
    end
    local from, to = notation.format(self.values[i]), notation.format(value)
    limiter.rename(self, part.leaf, from, to)
    self.values[i] = value
    C.neap_engine_touch(rt.engine, part.leaf, now)
    events.about("reconfigured", self, { from = from, to = to, mode = mode })
  end
end

--- For refusals: is the key's limit "closed"?
---@package
---@param hash ffi.cdata*
---@return boolean
function per_key:is_closed(hash) return self.shut[tostring(hash)] or false end

--- Make a limit per key.
---@param limits string|neap.limit|(string|neap.limit)[]|fun(key): neap.Limiter
---  what each key has: a text, several of them, or a function that makes a limiter for a new key
---@param options? { name: string?, by: string?, most: integer?, full: string?,
---  idle: number|string|nil, lossless: boolean?, overrides: table? }
---  by: what the key is called in a table of costs, "key" unless told; most: keys alive at once,
---  2^20 unless told, 0 counts as 1; full: "least_recent" unless told, and "refuse" when it is
---  lossless; idle: forget keys not seen for so long; overrides: keys with limits of their own
---@return neap.PerKey
return function (limits, options)
  local self = { tables = {}, guards = {}, gone = {}, words = {}, owned = {}, overridden = 0,
    shut = {}, templates = {}, holds = false }
  local made = type(limits) == "function"
  if limits == nil or limiter.is(limits) then
    error("per_key: a limit such as \"10/s\", several, or a function that makes a limiter expected",
      2)
  end
  if not made and (type(limits) ~= "table" or limits.kind) then limits = { limits } end
  local values, names, slides = {}, {}, false
  for i, limit in ipairs(made and {} or limits) do
    values[i] = written(limit, "limit " .. i, 2)
    names[i] = notation.format(values[i])
    slides = slides or not is_word(values[i])
    if values[i].kind == "unlimited" then
      error("per_key: " .. names[i] .. " is no limit; leave it out", 2)
    end
  end
  if not made and #values == 0 then error("per_key: at least one limit expected", 2) end
  self.name = limiter.name_of(options, (names[1] and table.concat(names, " and ") or "limits")
    .. " per key", OPTIONS, 2)
  options = options or {}
  self.by = options.by or "key"
  if type(self.by) ~= "string" or self.by == "" then
    error("by: a name expected, got " .. tostring(self.by), 2)
  end
  self.segment = options.segment
  self.secret = self.segment and self.segment.secret
  self.most = whole(options, "most", self.segment and MOST_SHARED or MOST, MOST_EVER, 2)
  self.full = options.full or ((options.lossless or self.segment) and "refuse" or "least_recent")
  if not FULL[self.full] then
    error(("full: \"least_recent\", \"refuse\" or \"shared\" expected, got %s"):format(
      tostring(self.full)), 2)
  end
  self.lossless = options.lossless or false
  if type(self.lossless) ~= "boolean" then
    error("lossless: true or false expected, got " .. tostring(self.lossless), 2)
  end
  if options.idle ~= nil then
    self.idle_ns = limiter.ns_of(options.idle, "idle", 2)
  end

  if self.segment and (made or slides) then
    error("per_key: processes share what is one word for each key, a rate or a number in flight: a "
      .. "log is more, and what a function makes lives in one process", 2)
  end
  if self.full == "shared" and (made or slides) then
    error("full: \"shared\" is for rates and permits: they are one word, which others can share", 2)
  end

  local parts = {}
  if made then made_parts(self, limits, parts, 2) else self.values = values end
  for i, value in ipairs(values) do
    local label = options.name or names[i]
    if is_word(value) then
      parts[#parts + 1] = word_part(self, value, label, 2)
    else
      made_parts(self, function () return throttle(self.values[i], { name = label }) end, parts, 2)
    end
  end
  if self.makers then
    self.make = function (_, key, hash) self.makers:make(key, hash) end
  end
  if options.overrides then override(self, options.overrides, #parts, 2) end
  return limiter.init(per_key, self, parts, 2)
end
