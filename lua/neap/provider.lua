--- Provider: what a server says of its own limits, and limiters that go by it.
---
---     local openai = neap.provider "openai"
---     local llm = neap.multi { requests = "500/min", tokens = "30k/min" }
---     local fields = { ["x-ratelimit-remaining-requests"] = "42",
---       ["x-ratelimit-reset-requests"] = "7.66s", ["retry-after"] = "2" }
---     openai:sync(llm, fields)          -- as they came with an answer
---
--- A profile says which headers mean what: openai, anthropic, github, stripe, aws, rfc, ietf, or
--- one of yours (see neap.provider.profiles):
---
---     local own = neap.provider {
---       requests = { limit = "X-Quota", remaining = "X-Left", reset = "X-Again",
---                    reset_format = "unix_ms" },
---       retry_after = "X-Wait",
---     }
---
--- Whatever it is, what it reads has one shape, a window for each dimension that was told of, and
--- nil for what was not:
---
---     local seen = openai:parse(fields)
---     print(seen.requests)              --> { remaining = 42, reset_s = 7.66 }
---     print(seen.retry_after_s)         --> 2
---
--- A limiter is synchronised dimension by dimension, by name. The rules:
---
---     down      at once: no more is there than the server says remains
---     held      until the reset it reports no more than that goes, whatever flows in meanwhile
---     up        what the limiter's own rate brought in, as far as the server says it is there: at
---               the next answer, and all of it at the reset. Never above the limiter's own limit,
---               and never because a server says so alone
---     wait      Retry-After, in whatever form: nothing goes before, of any dimension, and resets
---               are not looked at. A pause in the limiter does that, and keeps what is there, or a
---               dispatch in its own way; without one all dimensions are drained and held
---
--- Limits per key go by what is said of the key that is named, and no other key does:
---
---     local users = neap.per_key "500/min"
---     openai:sync(users, fields, { key = "ann" })      -- or, of several kinds, by name: see apply
---     print(users:available "ann")      --> 0
---     print(users:available "bob")      --> 500
---
--- Of a dimension that has limits for these keys those alone are meant, and so they are by
--- Retry-After; limits for all are meant where there are none, and those of other kinds of keys are
--- not meant at all.
---
--- A hint holds for a day at most, unless told; what the server does not tell changes nothing. What
--- is said of one limit twice is taken at its strictest. (For what holding is, see neap_gcra_hold,
--- neap_window_hold and neap_keyed_hold.) As many keys are held at once as may be alive; one more
--- is left as it is, as are limits in Lua, and those by key in a segment.
---
--- Limits in flight are, too. What is in flight ends when it comes back, not at a reset, and with
--- calls that began or ended while the answer was under way what remains is not what was told: so
--- there is nothing to hold, and no end to it. What lasts is how many a server allows at once:
--- calls:reconfigure(seen.concurrent_requests.limit), where that is told; or see neap.adaptive.
local ffi = require "ffi"
local C = require "neap.engine"
local formats = require "neap.provider.formats"
local grammar = require "neap.grammar"
local headers = require "neap.headers"
local ietf = require "neap.provider.ietf"
local keys = require "neap.key"
local limiter = require "neap.limiter"
local profiles = require "neap.provider.profiles"

local error, ipairs, pairs = error, ipairs, pairs
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min

local DAY = 86400
local MOST = 2 ^ 53
local FIELDS = { "limit", "remaining", "reset", "reset_format" }
local FORMATS = {}
for name in pairs(formats) do FORMATS[#FORMATS + 1] = name end
table.sort(FORMATS)

---@class neap.Reported
---@field limit number?      in the server's window
---@field remaining number?  of it
---@field reset_s number?    until all of it is there again

---@class neap.Provider
---@field profile table
local provider = {}
provider.__index = provider

-- ---- reading ----------------------------------------------------------------------------------

local function read_window(fields, dimension, now)
  local function read(name, format)
    local text = name and headers.get(fields, name)
    return text and format(text, now)
  end
  local window = {
    limit = read(dimension.limit, headers.count),
    remaining = read(dimension.remaining, headers.count),
    reset_s = read(dimension.reset, formats[dimension.reset_format or "seconds"]),
  }
  return (window.limit or window.remaining or window.reset_s) and window
end

--- What headers say. Never raises an error about them.
---
---     own:parse { ["X-Left"] = "7", ["X-Wait"] = "soon" }   --> { requests = { remaining = 7 } }
---
---@param fields any  headers, as neap.headers takes them
---@param now? number|fun(): number  seconds since 1970; the system's clock unless told
---@return table  neap.Reported under their names, and retry_after_s
function provider:parse(fields, now)
  now = headers.time_of_day(now)
  local seen = {}
  for name, dimension in pairs(self.profile) do
    if type(dimension) == "table" then seen[name] = read_window(fields, dimension, now) end
  end
  if self.profile.structured then ietf(fields, seen) end
  local own = self.profile.retry_after
  seen.retry_after_s = own and headers.retry_after(headers.get(fields, own), { now = now })
    or headers.delay(fields, { now = now })
  return seen
end

-- ---- synchronising ----------------------------------------------------------------------------

--- The cost that a reported name is about: its own, or for requests the one without a name; nil:
--- none.
local function cost_of(self, name)
  if self.terms.names[name] then return name end
  if name == "requests" and self.terms.unnamed then return false end
end

local named = ffi.new "uint64_t[4]"

--- The hashes of the keys that are named, by what such keys are called.
---@return table<string, ffi.cdata*>
local function hashes_of(self, given, level)
  local hashes, known = {}, {}
  if given == nil then return hashes end
  for _, kind in ipairs(self.terms.keys or {}) do known[#known + 1] = kind.name end
  if type(given) ~= "table" then
    if #known ~= 1 then
      error(#known == 0 and "sync: key: no limit here is kept by key"
        or ('sync: key: keys by name expected, as in { %s = "…" }'):format(known[1]), level + 1)
    end
    given = { [known[1]] = given }
  end
  for _, kind in ipairs(self.terms.keys or {}) do
    if given[kind.name] ~= nil then
      keys.set(named, kind, given[kind.name], level + 1)
      hashes[kind.name] = named[kind.index]
    end
  end
  for name in pairs(given) do
    if not hashes[name] then
      name = tostring(name)
      error((grammar.suggest(("sync: key: no limit here is kept by '%s'"):format(name), name,
        known)), level + 1)
    end
  end
  return hashes
end

--- The limits that are meant.
---@param cost string|false|nil  nil: all there are
---@return neap.Part[]
---@return boolean by_key
local function parts_of(self, cost, hashes)
  local for_all, for_keys = {}, {}
  for _, part in ipairs(self.terms.parts) do
    if (cost == nil or part.cost == cost) and not part.closed then
      if not part.keyed then
        for_all[#for_all + 1] = part
      elseif hashes[part.key] then
        for_keys[#for_keys + 1] = part
      end
    end
  end
  if for_keys[1] then return for_keys, true end
  return for_all, false
end

--- That no more than so many units of a cost may go until an instant, noted for each limit.
---@param wanted table  in order, and by leaf: { part, hash, tokens, ends, names }
---@param parts neap.Part[]
local function want(wanted, parts, hashes, remaining, ends, name)
  for _, part in ipairs(parts) do
    local address = tostring(part.leaf)
    local one = wanted[address]
    if not one then
      one = { part = part, hash = part.keyed and hashes[part.key], tokens = MOST, ends = ends,
        names = {} }
      wanted[#wanted + 1], wanted[address] = one, one
    end
    one.tokens = min(one.tokens, floor(remaining) * part.multiplier)
    if ends > one.ends then one.ends = ends end
    if name then one.names[#one.names + 1] = name end
  end
end

local look = ffi.new "struct neap_limiter"

local function available(one, now)
  local leaf = one.part.leaf
  if one.hash then
    local found = C.neap_keyed_look(leaf.as.keyed, one.hash, now, look) == C.NEAP_OK
    leaf = found and look or one.part.fresh
  end
  return tonumber(C.neap_limiter_available(leaf, now))
end

--- Do so.
---@return table<string, number> drained
local function hold(wanted, now, rt)
  local drained = {}
  for _, one in ipairs(wanted) do
    local leaf, before = one.part.leaf, available(one, now)
    local code
    if one.hash then
      code = C.neap_keyed_hold(leaf.as.keyed, one.hash, one.tokens, one.ends, now)
    else
      code = C.neap_limiter_hold(leaf, one.tokens, one.ends, now)
    end
    if code == C.NEAP_OK then
      local left = available(one, now)
      for _, name in ipairs(one.names) do
        drained[name] = max(drained[name] or 0, before - left)
      end
      if one.hash then
        C.neap_engine_touch_key(rt.engine, leaf, one.hash, now)
      else
        C.neap_engine_touch(rt.engine, leaf, now)
      end
    end
  end
  return drained
end

--- Extend every pause there is, and tell every dispatch.
---@return boolean any
local function pause(self, ends, now, rt)
  local any, told = false, {}
  for _, part in ipairs(self.terms.parts) do
    local dispatch = part.dispatch
    if dispatch then
      any = true
      if not told[dispatch] then dispatch:set_backoff(tonumber(ends - now) / 1e9) end
      told[dispatch] = true
    elseif part.pause then
      any = true
      part.pause:extend_to(ends, now, rt)
    end
  end
  return any
end

local function check(what, value, level)
  if value ~= nil and not (type(value) == "number" and value >= 0) then
    error(("%s: a number from 0 expected, got %s"):format(what, tostring(value)), level + 1)
  end
  return value
end

--- Have a limiter go by what was read.
---
---     local calls = neap.multi { calls = "100/min" }
---     openai:apply(calls, { requests = { remaining = 42 } }, { names = { requests = "calls" } })
---     calls:available "calls"           --> 42
---
---@param given neap.Limiter  a throttle, multi, hybrid, layered; what is in others goes with them
---@param seen table          as parse gives it
---@param options? { key: any, names: table<string, string>?, most: number? }
---  key: whom it is about, "ann" or { user = "ann", endpoint = "/v1" }; names: the limiter's
---  dimension for a reported one, where they differ; most: seconds a hint holds at most, 86400
---  unless told
---@return table<string, number> drained  tokens taken away, by the reported name
function provider:apply(given, seen, options)
  if not limiter.is(given) then
    error("sync: a limiter expected, got " .. tostring(given), 2)
  elseif type(seen) ~= "table" then
    error("sync: what was read expected, got " .. tostring(seen), 2)
  end
  options = options or {}
  local most = check("most", options.most, 2) or DAY
  local hashes = hashes_of(given, options.key, 2)
  local now, rt = limiter.present()
  local function instant(what, seconds)   -- late rather than early
    seconds = min(check(what, seconds, 3), most)
    local ends = now + limiter.ns_of(ceil(seconds * 1e9) / 1e9, "sync", 3)
    return ends < C.neap_horizon and ends or C.neap_horizon
  end
  local wanted = {}
  local wait = seen.retry_after_s and instant("retry_after_s", seen.retry_after_s) or now
  for name, window in pairs(seen) do
    local remaining = type(window) == "table" and check("remaining", window.remaining, 2)
    local cost = cost_of(given, options.names and options.names[name] or name)
    if remaining and cost ~= nil then
      local ends = window.reset_s and instant("reset_s", window.reset_s) or now
      want(wanted, parts_of(given, cost, hashes), hashes, remaining, wait > now and now or ends,
        name)
    end
  end
  if wait > now then
    local parts, by_key = parts_of(given, nil, hashes)
    if by_key or not pause(given, wait, now, rt) then want(wanted, parts, hashes, 0, wait) end
  end
  return hold(wanted, now, rt)
end

--- Read headers, and have a limiter go by them.
---
---     own:sync(neap.throttle "500/min", { ["X-Left"] = "7" })   --> { requests = 493 }, { … }
---
---@param given neap.Limiter
---@param fields any
---@param options? { now: (number|fun(): number)?, key: any, names: table<string, string>?,
---  most: number? }
---@return table<string, number> drained
---@return table seen  what was read
function provider:sync(given, fields, options)
  local seen = self:parse(fields, options and options.now)
  return self:apply(given, seen, options), seen
end

-- ---- making -----------------------------------------------------------------------------------

local function check_dimension(name, dimension, level)
  if name == "retry_after_s" then
    error("provider: a dimension cannot be called retry_after_s", level + 1)
  elseif type(dimension) ~= "table" then
    error(("provider: %s: names of headers expected, as in { remaining = \"X-Left\" }, got %s")
      :format(name, tostring(dimension)), level + 1)
  end
  grammar.check_names("provider: " .. name, dimension, FIELDS, level + 1)
  for field, header in pairs(dimension) do
    if type(header) ~= "string" or header == "" then
      error(("provider: %s: %s: a text expected, got %s"):format(name, field, tostring(header)),
        level + 1)
    end
  end
  local format = dimension.reset_format
  if format and not formats[format] then
    error((grammar.suggest(("provider: %s: unknown format %s: there are %s"):format(name, format,
      table.concat(FORMATS, ", ")), format, FORMATS)), level + 1)
  end
end

local names = {}
for name in pairs(profiles) do names[#names + 1] = name end
table.sort(names)

--- Make one.
---@param profile string|table  its name, or dimensions under their names: { limit, remaining,
---  reset: names of headers; reset_format: see neap.provider.formats, "seconds" unless told }; and
---  retry_after: the name of a header; structured = true: the fields of neap.provider.ietf
---@return neap.Provider
return function (profile)
  local found = profile
  if type(profile) == "string" then
    found = profiles[profile] or error((grammar.suggest(("provider: no profile '%s': there are %s")
      :format(profile, table.concat(names, ", ")), profile, names)), 2)
  elseif type(profile) ~= "table" then
    error("provider: a name or a table of dimensions expected, got " .. tostring(profile), 2)
  end
  local own = {}
  for name, dimension in pairs(found) do
    if type(name) ~= "string" then
      error("provider: dimensions have names, got " .. tostring(name), 2)
    elseif name == "retry_after" then
      if type(dimension) ~= "string" or dimension == "" then
        error("provider: retry_after: a text expected, got " .. tostring(dimension), 2)
      end
    elseif name == "structured" then
      if dimension ~= true then error("provider: structured: true expected", 2) end
    else
      check_dimension(name, dimension, 2)
    end
    own[name] = dimension
  end
  return setmetatable({ profile = own }, provider)
end
