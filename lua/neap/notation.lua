--- Notation: how people write limits, sizes and times, and how neap writes them back.
--
--   limit    = "unlimited" | "closed" | amount "in flight" | rate
--   rate     = amount ("/" | "per") span {mod}          100/min burst 20, 1 per 30 days
--   amount   = number [k|M|G|Ki|Mi|Gi] [B]              1_000, 1.5M, 5MB = 5e6, 5MiB = 5 * 2^20
--   span     = [number] unit                            s, 2s, 30 days
--   mod      = "burst" amount | "smooth" | "sliding" | "fixed"
--   duration = number unit {number unit}                250ms, 1m30s
--
-- and, in policy files,
--
--   trip     = n "consecutive" | share "of" n ["in" duration]      50% of 20 in 30s
--   keep     = amount "keys" ["," "idle" duration]                 100k keys, idle 10min
--   adaptive = ("aimd" | "vegas" | "gradient") "from" n "to" n     gradient from 20 to 300
--   pressure = "queue" ">" share                                   queue > 80%
--   share    = number "%"                                          from 0.01% to 100%
--
-- Every value is a whole number up to 2^53, kept exactly: a decimal is a fraction of two integers
-- until its suffix made it whole, never a float. What is not whole or does not fit is refused.
--
-- Each answer is a value, or nil, message, position, hint (see neap.grammar).
local lpeg = require "lpeg"
local grammar = require "neap.grammar"

local P, R, S, V = lpeg.P, lpeg.R, lpeg.S, lpeg.V
local C, Cc, Cp, Ct = lpeg.C, lpeg.Cc, lpeg.Cp, lpeg.Ct
local error, ipairs, pairs = error, ipairs, pairs
local tonumber, type = tonumber, type
local floor = math.floor
local concat, sort = table.concat, table.sort

local notation = { show = grammar.show, nearest = grammar.nearest, suggest = grammar.suggest }

local fault, oops, say = grammar.fault, grammar.oops, grammar.say
local blank, letter, named, word = grammar.blank, grammar.letter, grammar.named, grammar.word

local MOST = 2 ^ 53           -- up to here a Lua number is an exact integer
local LONGEST = "2^53 ns, 104 days"
local MOST_FRACTION = 15      -- digits after the point: 10^15 is exact, too

local SCALES = { k = 1e3, M = 1e6, G = 1e9, Ki = 2 ^ 10, Mi = 2 ^ 20, Gi = 2 ^ 30 }
for _, name in ipairs { "k", "M", "G", "Ki", "Mi", "Gi" } do SCALES[name .. "B"] = SCALES[name] end
SCALES.B = 1

local UNITS = {}              -- name -> ns
for ns, names in pairs {
  [1]         = "ns nanosecond nanoseconds",
  [1e3]       = "us µs microsecond microseconds",
  [1e6]       = "ms millisecond milliseconds",
  [1e9]       = "s sec secs second seconds",
  [60e9]      = "m min mins minute minutes",
  [3600e9]    = "h hr hrs hour hours",
  [86400e9]   = "d day days",
  [7 * 86400e9] = "w week weeks",
} do
  for name in names:gmatch "%S+" do UNITS[name] = ns end
end

-- Spans and durations are printed in these, the largest that fits first.
local SPANS = { { "d", 86400e9 }, { "h", 3600e9 }, { "min", 60e9 }, { "s", 1e9 }, { "ms", 1e6 },
  { "us", 1e3 }, { "ns", 1 } }

local function keys(values)
  local names = {}
  for name in pairs(values) do names[#names + 1] = name end
  sort(names, function (a, b) return #a > #b or #a == #b and a < b end)
  return names
end

-- ---- numbers ----------------------------------------------------------------------------------

local function gcd(a, b)
  while b ~= 0 do a, b = b, a % b end
  return a
end

-- A decimal times a scale, as an exact fraction in lowest terms.
local function fraction(at, text, scale, most)
  local whole, rest = text:gsub("_", ""):match "^(%d+)%.?(%d*)$"
  rest = rest:gsub("0+$", "")
  local digits = (whole .. rest):gsub("^0+", "")
  if #rest > MOST_FRACTION or #digits > 16 or #digits == 16 and digits > "9007199254740992" then
    fault(at, notation.show(text) .. " has more digits than neap keeps exactly (2^53)")
  end
  local n, d = tonumber(digits) or 0, 10 ^ #rest
  local shared = gcd(scale, d)
  scale, d = scale / shared, d / shared
  shared = gcd(n, d)
  n, d = n / shared, d / shared
  if n > floor(MOST / scale) then
    fault(at, notation.show(text) .. " is too large (at most " .. (most or "2^53") .. ")")
  end
  return { n = n * scale, d = d, at = at, text = text }
end

local function whole(value)
  if value.d ~= 1 then fault(value.at, notation.show(value.text) .. " is not a whole number") end
  return value.n
end

local function positive(value)
  if value.n == 0 then fault(value.at, "0 is not positive") end
  return whole(value)
end

-- ---- values -----------------------------------------------------------------------------------

local function to_ns(at, text, unit)
  local value = fraction(at, text, UNITS[unit], LONGEST)
  if value.d ~= 1 then fault(at, notation.show(text .. unit) .. " is not a whole number of ns") end
  return value.n
end

local function to_span(at, text, unit)
  local ns = to_ns(at, text, unit)
  if ns == 0 then fault(at, "0 is not positive") end
  return ns
end

local function span_text(ns)
  for _, unit in ipairs(SPANS) do
    if ns % unit[2] == 0 then
      return (ns == unit[2] and "" or ("%d"):format(ns / unit[2])) .. unit[1]
    end
  end
end

local function to_rate(amount, per_ns, mods)
  if amount.n == 0 then fault(amount.at, 'a rate of nothing: write "closed"') end
  if amount.d ~= 1 then
    local slower = per_ns * amount.d
    fault(amount.at, notation.show(amount.text) .. " is not a whole number" ..
      (slower <= MOST and (": write %d/%s"):format(amount.n, span_text(slower)) or ""))
  end
  local value = { kind = "rate", amount = amount.n, per_ns = per_ns }
  value.burst, value.mode = amount.n, "burst"
  local first = mods[1]
  if mods[2] then
    local again = mods[2].word == first.word
    fault(mods[2].at, again and ("'%s' twice"):format(first.word) or
      ("'%s' after '%s': a rate takes one of them"):format(mods[2].word, first.word))
  elseif first then
    value.mode = first.word
    if first.word == "smooth" then value.burst = 1 end
    if first.word == "burst" then value.burst = positive(first.amount) end
  end
  return value
end

local function to_flight(amount)
  if amount.n == 0 then fault(amount.at, 'nothing in flight: write "closed"') end
  return { kind = "in_flight", amount = whole(amount) }
end

local function to_duration(parts)
  local total, last = 0, nil
  for _, part in ipairs(parts) do
    local unit = UNITS[part.unit]
    if last and unit >= UNITS[last.unit] then
      fault(part.at, ("'%s' after '%s': larger units come first, each once"):format(
        notation.show(part.text .. part.unit), notation.show(last.text .. last.unit)))
    end
    total, last = total + to_ns(part.at, part.text, part.unit), part
    if total > MOST then fault(part.at, "the sum is too large (at most " .. LONGEST .. ")") end
  end
  return total
end

-- Hundredths of a percent, so that a share is one exact number however it was written.
local function to_share(at, text)
  local value = fraction(at, text, 100)
  if value.d ~= 1 or value.n < 1 or value.n > 10000 then
    fault(at, notation.show(text) .. "% is outside 0.01% to 100%, in steps of 0.01%")
  end
  return value.n / 10000
end

local function to_keep(amount, idle_ns)
  return { keys = positive(amount), idle_ns = idle_ns }
end

local function to_adaptive(kind, from, at, to)
  from, to = positive(from), positive(to)
  if from > to then fault(at, "it goes from the smaller number to the larger one") end
  return { kind = kind, from = from, to = to }
end

local function to_count(kind)
  return function (amount) return { kind = kind, count = positive(amount) } end
end

local function to_window(share, amount, in_ns)
  return { kind = "share", share = share, of = positive(amount), in_ns = in_ns }
end

-- ---- the grammar ------------------------------------------------------------------------------

local digit = R "09"
local function one_of(values) return grammar.one_of(keys(values)) end

local unit_names = keys(UNITS)
local scale_names = keys(SCALES)
local after_amount = { "in flight", "in", "per", unpack(scale_names) }
local after_count = { "per", unpack(scale_names) }
local MODS = { "burst", "smooth", "sliding", "fixed" }
local WAYS = { "aimd", "vegas", "gradient" }
local PER = '"/s", "/min"…'
local EITHER = PER .. ' or "in flight"'
local NEEDS, PER_NEEDS = "a bare number needs " .. EITHER, "a bare number needs " .. PER

local rules = {
  limit    = C(word "unlimited" + word "closed") / named "kind"
           + (#digit + oops('a number, "unlimited" or "closed"', { "unlimited", "closed" }))
           * (V "slots" + V "pace" + V "amount" * blank * oops(EITHER, after_amount, nil, NEEDS)),

  rate     = V "pace" + V "amount" * blank * oops(PER, after_count, nil, PER_NEEDS),

  slots    = V "amount" * V "flight" / to_flight,
  pace     = V "amount" * V "per" * V "span" * V "mods" / to_rate,

  size     = V "amount" / whole,

  duration = Ct((V "part" * blank) ^ 1) / to_duration
           + oops('a duration such as "250ms" or "1m30s"'),
  part     = Cp() * C(V "number") * V "unit" / named("at", "text", "unit"),

  amount   = Cp() * C(V "number") * V "scale" / fraction + oops "a number",
  scale    = blank * one_of(SCALES) / SCALES
           + #letter * -(word "per" + word "in") * oops("a suffix", scale_names, "suffix")
           + Cc(1),

  flight   = blank * word "in" * S " \t-_" ^ 0 * (word "flight" + oops('"flight"', { "flight" })),
  per      = blank * (P "/" + word "per") * blank,
  span     = Cp() * (C(V "number") + Cc "1") * V "unit" / to_span,
  unit     = blank * (one_of(UNITS)
           + #word "month" * say "a month has no fixed length: write \"30 days\""
           + oops('a time unit such as "s" or "min"', unit_names, "time unit")),

  mods     = Ct((blank * V "mod") ^ 0) * blank
           * (-P(1) + oops('"burst", "smooth", "sliding" or "fixed"', MODS)),
  mod      = Cp() * C(word "burst") * blank * V "amount" / named("at", "word", "amount")
           + Cp() * C(word "smooth" + word "sliding") / named("at", "word")
           + Cp() * C(word "fixed") * (blank * #word "at"
           * say "'fixed at' is not supported by this version") ^ -1 / named("at", "word"),

  trip     = V "share" * blank * (word "of" + oops('"of"', { "of" })) * blank * V "amount"
           * (blank * word "in" * blank * V "lasting") ^ -1 / to_window
           + V "amount" * blank * (word "consecutive" + oops('"consecutive" or "% of"',
             { "consecutive" })) / to_count "consecutive",

  keep     = V "amount" * blank * (word "keys" + oops('"keys"', { "keys" }))
           * (blank * P "," * blank * (word "idle" + oops('"idle"', { "idle" })) * blank
              * V "lasting" + blank * (-P(1) + oops '", idle" and a duration')) / to_keep,

  adaptive = (C(word "aimd" + word "vegas" + word "gradient") + oops("a way to adapt", WAYS, "way"))
           * blank * (word "from" + oops('"from"', { "from" })) * blank * V "amount"
           * blank * (word "to" + oops('"to"', { "to" })) * blank * Cp() * V "amount" / to_adaptive,

  pressure = C(word "queue" + oops('"queue"', { "queue" })) * blank
           * (P ">" + oops '">"') * blank * V "percent" / named("what", "share"),

  share    = Cp() * C(V "number") * blank * "%" / to_share,
  percent  = V "share" + V "amount" * oops '"%"' + oops 'a share such as "10%"',
  lasting  = Cp() * V "duration" / function (at, ns)
               if ns == 0 then fault(at, "0 is not positive") end
               return ns
             end,

  number   = V "digits" * (P "." * (V "digits" + oops "a digit")) ^ -1
           * (#(P "," * digit) * say "digits are grouped with '_', as in 1_000"
           + #S "_." * oops "a digit") ^ -1,
  digits   = digit ^ 1 * (P "_" * digit ^ 1) ^ 0,
}

local function reader(start)
  rules[1] = start
  local pattern = grammar.whole(P(rules))

  return function (text)
    if type(text) == "number" then
      return nil, ("bare number %.14g: %s"):format(text, start == "limit" and NEEDS
        or "write it as text, with its unit"), 1
    elseif type(text) ~= "string" then
      return nil, "text expected, got " .. type(text), 1
    end
    return grammar.read(pattern, text)
  end
end

---@class neap.limit
---@field kind "rate"|"in_flight"|"unlimited"|"closed"
---@field amount integer?   tokens per period, or permits
---@field per_ns integer?   the period
---@field burst integer?    at most so many at once
---@field mode "burst"|"smooth"|"sliding"|"fixed"|nil

--- Each reader takes a text and gives a value, or nil, message, byte position, hint.
---
---     local notation = neap.notation
---     local limit = notation.limit "10/s burst 20"
---     print(limit)   --> { kind = "rate", amount = 10, per_ns = 1e9, burst = 20, mode = "burst" }
---     notation.limit "10/sec brust 20"      --> nil, "expected …", 8, "burst"
---     notation.rate "64 in flight"          --> nil, …
---     notation.amount "200k"                --> 200000
---     notation.size "5MB"                   --> 5000000
---     notation.duration "1m30s"             --> 90e9
---     notation.share "2.5%"                 --> 0.025
---     notation.trip "50% of 20"             --> { kind = "share", share = 0.5, of = 20 }
---     notation.trip "5 consecutive"         --> { kind = "consecutive", count = 5 }
---     notation.keep "100k keys, idle 1min"  --> { keys = 100000, idle_ns = 60e9 }
---     notation.adaptive "vegas from 4 to 64"    --> { kind = "vegas", from = 4, to = 64 }
---     notation.pressure "queue > 80%"       --> { what = "queue", share = 0.8 }
---
---@alias neap.reader fun(text: string): any, string?, integer?, string?

notation.limit = reader "limit"         ---@type neap.reader  a neap.limit
notation.rate = reader "rate"           ---@type neap.reader  a neap.limit of kind "rate"
notation.amount = reader "size"         ---@type neap.reader  an integer
notation.size = notation.amount         ---@type neap.reader  an integer, bytes
notation.duration = reader "duration"   ---@type neap.reader  an integer, ns
notation.share = reader "percent"       ---@type neap.reader  a number, up to 1
notation.trip = reader "trip"           ---@type neap.reader  when a breaker opens
notation.keep = reader "keep"           ---@type neap.reader  how many keys are kept, how long
notation.adaptive = reader "adaptive"   ---@type neap.reader  a way, and its bounds
notation.pressure = reader "pressure"   ---@type neap.reader  when calls are shed

-- ---- printing ---------------------------------------------------------------------------------

local function integer(value, least, what, level)
  if type(value) ~= "number" or value % 1 ~= 0 or value < least or value > MOST then
    error(what .. ": whole number from " .. least .. " to 2^53 expected", level + 1)
  end
  return value
end

--- An amount in its shortest form: 1500, 200k, 5Mi.
---
---     notation.format_amount(200000)        --> "200k"
---
---@param amount integer
---@return string
function notation.format_amount(amount)
  integer(amount, 0, "amount", 2)
  local best = ("%d"):format(amount)
  for _, name in ipairs { "k", "M", "G", "Mi", "Gi" } do
    local short = ("%d%s"):format(amount / SCALES[name], name)
    if amount > 0 and amount % SCALES[name] == 0 and #short < #best then best = short end
  end
  return best
end

--- A duration as one would say it: 250ms, 1m30s.
---
---     notation.format_duration(90e9)        --> "1m30s"
---
---@param ns integer
---@return string
function notation.format_duration(ns)
  integer(ns, 0, "duration", 2)
  local parts = {}
  for _, unit in ipairs(SPANS) do
    local n = floor(ns / unit[2])
    if n > 0 then parts[#parts + 1] = ("%d%s"):format(n, unit[1] == "min" and "m" or unit[1]) end
    ns = ns - n * unit[2]
  end
  return parts[1] and concat(parts) or "0s"
end

--- A limit in its canonical form; what `notation.limit` reads back as the same value.
---
---     notation.format(limit)                --> "10/s burst 20"
---
---@param value neap.limit
---@return string
function notation.format(value)
  if type(value) ~= "table" then error("limit: table expected, got " .. type(value), 2) end
  if value.kind == "unlimited" or value.kind == "closed" then
    return value.kind
  elseif value.kind == "in_flight" then
    return notation.format_amount(integer(value.amount, 1, "amount", 2)) .. " in flight"
  elseif value.kind ~= "rate" then
    error("limit: unknown kind", 2)
  end
  local text = notation.format_amount(integer(value.amount, 1, "amount", 2)) .. "/" ..
    span_text(integer(value.per_ns, 1, "per_ns", 2))
  integer(value.burst, 1, "burst", 2)
  if value.mode == "burst" then
    return value.burst == value.amount and text
      or text .. " burst " .. notation.format_amount(value.burst)
  elseif value.mode == "smooth" or value.mode == "sliding" or value.mode == "fixed" then
    return text .. " " .. value.mode
  end
  error("limit: unknown mode", 2)
end

--- A share as hundredths of a percent allow: "50%", "0.05%".
---
---     notation.format_share(0.025)          --> "2.5%"
---
---@param share number
---@return string
function notation.format_share(share)
  if type(share) ~= "number" or not (share > 0 and share <= 1) then
    error("share: a number above 0, up to 1, expected", 2)
  end
  return ("%.14g%%"):format(floor(share * 10000 + 0.5) / 100)
end

--- A trip in its canonical form.
---
---     notation.format_trip { kind = "share", share = 0.5, of = 20 }     --> "50% of 20"
---
---@param trip { kind: string, count: integer?, share: number?, of: integer?, in_ns: integer? }
---@return string
function notation.format_trip(trip)
  if trip.kind == "consecutive" then return notation.format_amount(trip.count) .. " consecutive" end
  local text = notation.format_share(trip.share) .. " of " .. notation.format_amount(trip.of)
  return trip.in_ns and text .. " in " .. notation.format_duration(trip.in_ns) or text
end

--- How many keys are kept, in canonical form.
---
---     notation.format_keep { keys = 100000, idle_ns = 600e9 }           --> "100k keys, idle 10m"
---
---@param keep { keys: integer, idle_ns: integer? }
---@return string
function notation.format_keep(keep)
  local text = notation.format_amount(keep.keys) .. " keys"
  return keep.idle_ns and text .. ", idle " .. notation.format_duration(keep.idle_ns) or text
end

--- A way to adapt, in canonical form.
---
---     notation.format_adaptive { kind = "aimd", from = 1, to = 50 }     --> "aimd from 1 to 50"
---
---@param value { kind: string, from: integer, to: integer }
---@return string
function notation.format_adaptive(value)
  return ("%s from %s to %s"):format(value.kind, notation.format_amount(value.from),
    notation.format_amount(value.to))
end

--- When calls are shed, in canonical form.
---
---     notation.format_pressure { what = "queue", share = 0.8 }          --> "queue > 80%"
---
---@param value { what: string, share: number }
---@return string
function notation.format_pressure(value)
  return value.what .. " > " .. notation.format_share(value.share)
end

return notation
