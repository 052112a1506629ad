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
--- A hint holds for a day at most, unless told; what the server does not tell changes nothing. What
--- is said of one limit twice is taken at its strictest. Limits per key, in flight, and in Lua are
--- left as they are. (For what holding is, see neap_gcra_hold and neap_window_hold.)
local C = require "neap.engine"
local formats = require "neap.provider.formats"
local headers = require "neap.headers"
local ietf = require "neap.provider.ietf"
local limiter = require "neap.limiter"
local notation = require "neap.notation"
local profiles = require "neap.provider.profiles"

local error, ipairs, pairs = error, ipairs, pairs
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min

local DAY = 86400
local MOST = 2 ^ 53
local FIELDS = { limit = true, remaining = true, reset = true, reset_format = true }
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

--- That no more than so many units of a cost may go until an instant, noted for each limit.
---@param wanted table  in order, and by leaf: { leaf, tokens, ends, names }
---@param cost string|false|nil  nil: all there are
local function want(self, wanted, cost, remaining, ends, name)
  for _, part in ipairs(self.terms.parts) do
    if (cost == nil or part.cost == cost) and not part.closed then
      local address = tostring(part.leaf)
      local one = wanted[address]
      if not one then
        one = { leaf = part.leaf, tokens = MOST, ends = ends, names = {} }
        wanted[#wanted + 1], wanted[address] = one, one
      end
      one.tokens = min(one.tokens, floor(remaining) * part.multiplier)
      if ends > one.ends then one.ends = ends end
      if name then one.names[#one.names + 1] = name end
    end
  end
end

--- Do so.
---@return table<string, number> drained
local function hold(wanted, now, rt)
  local drained = {}
  for _, one in ipairs(wanted) do
    local before = tonumber(C.neap_limiter_available(one.leaf, now))
    if C.neap_limiter_hold(one.leaf, one.tokens, one.ends, now) == C.NEAP_OK then
      local left = tonumber(C.neap_limiter_available(one.leaf, now))
      for _, name in ipairs(one.names) do
        drained[name] = max(drained[name] or 0, before - left)
      end
      C.neap_engine_touch(rt.engine, one.leaf, now)
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
---@param options? { names: table<string, string>?, most: number? }  names: the limiter's dimension
---  for a reported one, where they differ; most: seconds a hint holds at most, 86400 unless told
---@return table<string, number> drained  tokens taken away, by the reported name
function provider:apply(given, seen, options)
  if not limiter.is(given) then
    error("sync: a limiter expected, got " .. tostring(given), 2)
  elseif type(seen) ~= "table" then
    error("sync: what was read expected, got " .. tostring(seen), 2)
  end
  options = options or {}
  local most = check("most", options.most, 2) or DAY
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
      want(given, wanted, cost, remaining, wait > now and now or ends, name)
    end
  end
  if wait > now and not pause(given, wait, now, rt) then want(given, wanted, nil, 0, wait) end
  return hold(wanted, now, rt)
end

--- Read headers, and have a limiter go by them.
---
---     own:sync(neap.throttle "500/min", { ["X-Left"] = "7" })   --> { requests = 493 }, { … }
---
---@param given neap.Limiter
---@param fields any
---@param options? { now: (number|fun(): number)?, names: table<string, string>?, most: number? }
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
  for field, header in pairs(dimension) do
    if not FIELDS[field] then
      error((notation.suggest(("provider: %s: '%s' is not known"):format(name, tostring(field)),
        type(field) == "string" and field or nil,
        { "limit", "remaining", "reset", "reset_format" })), level + 1)
    elseif type(header) ~= "string" or header == "" then
      error(("provider: %s: %s: a text expected, got %s"):format(name, field, tostring(header)),
        level + 1)
    end
  end
  local format = dimension.reset_format
  if format and not formats[format] then
    error((notation.suggest(("provider: %s: unknown format %s: there are %s"):format(name, format,
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
    found = profiles[profile] or error((notation.suggest(("provider: no profile '%s': there are %s")
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
