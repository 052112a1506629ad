--- Words: how scenarios say what comes, what it meets, and who repeats it.
---
---     arrive     = "poisson" pieces | "constant" pieces | "ramp" rate "to" rate "over" time
---                  { "," "to" rate "over" time } | "burst" n "every" time
---                | "closed" n "clients think" spread | "trace" file
---     pieces     = rate { "," rate "from" time [ "to" time ] }     rate = 40/s, 500/min
---     downstream = part { "," part }
---     part       = [ "delay" ] spread [ "+" time "per in flight" ] | "wire" spread
---                | "slots" n [ "queue" n ] | "slots" n "from" time [ "to" time ]
---                | "fail" share [ "from" time [ "to" time ] ]
---                | "limit" '"' limit '"' [ "reply 429" ]
---     spread     = time | "exp" time | "uniform" time "to" time | "normal" time "sd" time
---                | "lognormal" time "p99" time                            the first is the median
---     retry      = n "tries" { "," ( "budget" share | "ignore retry-after" | back-off ) }
---     run        = time [ "," n "times" ]
---     whose      = n [ "zipf" number ] | name number { "," name number }
---
--- Of a cost, a spread is of numbers.
local lpeg = require "lpeg"
local backoff_text = require "neap.backoff.text"
local grammar = require "neap.grammar"
local notation = require "neap.notation"

local P, R, S = lpeg.P, lpeg.R, lpeg.S
local C, Cc, Cg, Cp, Ct = lpeg.C, lpeg.Cc, lpeg.Cg, lpeg.Cp, lpeg.Ct
local huge = math.huge
local ipairs, pairs, sort, tonumber, type = ipairs, pairs, table.sort, tonumber, type

local fault, oops, word, named = grammar.fault, grammar.oops, grammar.word, grammar.named
local blank = grammar.blank

local words = {}

local FASTEST = 1e7        -- calls a second
local CLIENTS = 2 ^ 19

-- ---- values -----------------------------------------------------------------------------------

--- Whatever neap.notation reads, at its place in the text.
local function by(read)
  return function (at, text)
    local value, message, where, hint = read(text)
    if not value then fault(at + (where or 1) - 1, message, hint) end
    return value
  end
end

local to_ns = by(notation.duration)

local function to_rate(at, count, _, per)
  local ns = to_ns(at, per:find "^%d" and per or "1" .. per)
  if ns == 0 then fault(at, "a rate of no time") end
  local a_second = tonumber(count) * 1e9 / ns
  if a_second > FASTEST then fault(at, "at most 1e7 calls a second") end
  return a_second
end

local function to_uniform(at, low, high)
  if low > high then fault(at, "a range goes from the smaller number to the larger one") end
  return { kind = "uniform", low = low, high = high }
end

local function to_lognormal(at, median, p99)
  if not (median > 0 and p99 >= median) then fault(at, "the median is above 0, p99 above it") end
  return { kind = "lognormal", median = median, p99 = p99 }
end

local function to_burst(at, count, every)
  if count < 1 or every <= 0 then fault(at, "at least 1 call, and not all at one instant") end
  return { kind = "burst", count = count, every = every }
end

local function to_ramp(of)
  local at, points = 0, { { from = 0, rate = of[1] } }
  for i = 2, #of, 2 do
    at = at + of[i + 1]
    points[#points + 1] = { from = at, rate = of[i] }
  end
  return { kind = "ramp", points = points }
end

--- Clients that never pause would, when they are turned away, come again at that very instant.
local function to_closed(at, clients, think)
  local longest = think.value or think.mean or think.high or think.median
  if longest <= 0 then fault(at, "clients have to think for longer than 0s") end
  if clients < 1 or clients > CLIENTS then fault(at, "from 1 to 524288 clients expected") end
  return { kind = "closed", clients = clients, think = think }
end

--- What holds by time: the first from the beginning, the others in their times, later ones above.
---@return neap.sim.Piece[]
local function laid(otherwise, list)
  local edges, set = {}, {}
  local function edge(at)
    if at < huge and not set[at] then edges[#edges + 1], set[at] = at, true end
  end
  edge(0)
  for _, each in ipairs(list) do
    edge(each.from)
    edge(each.to)
  end
  sort(edges)
  local pieces = {}
  for i, at in ipairs(edges) do
    local value = otherwise
    for _, each in ipairs(list) do
      if each.from <= at and at < each.to then value = each.value end
    end
    pieces[i] = { from = at, rate = value }
  end
  return pieces
end

local function check_spans(at, list)
  for _, each in ipairs(list) do
    if each.to <= each.from then fault(at, "'to' before 'from'") end
  end
  return list
end

-- ---- the grammar ------------------------------------------------------------------------------

local digit = R "09"
local decimal = digit ^ 1 * (P "." * digit ^ 1) ^ -1
local comma = blank * P "," * blank
local count = blank * (C(digit ^ 1) / tonumber + oops "a whole number")
local number = blank * (C(decimal) / tonumber + oops "a number")
local share = blank * (Cp() * C(decimal * blank * P "%") / by(notation.share)
  + oops "a share such as 10%")
-- "1m30s", "1 min"
local unit = grammar.letter ^ 1
local time_text = decimal * (blank * unit) ^ -1 * (decimal * unit) ^ 0
local time = blank * (Cp() * C(time_text) / to_ns + oops 'a duration such as "2s"')
local rate = blank * (Cp() * C(decimal) * C(blank * P "/" * blank) * C(decimal ^ -1
  * grammar.letter ^ 1) / to_rate + oops 'a rate such as "40/s"')

local function key(text) return blank * word(text) end
local function must(text) return blank * (word(text) + oops('"' .. text .. '"')) end

local span = key "from" * time * (key "to" * time + Cc(huge))

local function spread_of(quantity)
  return blank * (word "exp" * quantity / named "mean" / function (of)
      of.kind = "exp"
      return of
    end
    + word "uniform" * Cp() * quantity * must "to" * quantity / to_uniform
    + word "normal" * quantity * must "sd" * quantity / function (mean, sd)
      return { kind = "normal", mean = mean, sd = sd }
    end
    + word "lognormal" * Cp() * quantity * blank * (P "p99" + oops '"p99"') * quantity
      / to_lognormal
    + quantity / function (value) return { kind = "fixed", value = value } end)
end

local spread = spread_of(time)
local amounts = spread_of(number)

local function piecewise(value)
  return value * (Cp() * Ct((comma * (value * span / named("value", "from", "to"))) ^ 0)
    / check_spans) / laid
end

local KINDS = { "poisson", "constant", "ramp", "burst", "closed", "trace" }

local leg = must "to" * rate * must "over" * time

local arrive = blank * (
  C(word "poisson" + word "constant") * piecewise(rate) / named("kind", "pieces")
  + word "ramp" * Ct(rate * leg * (comma * leg) ^ 0) / to_ramp
  + word "burst" * Cp() * count * must "every" * time / to_burst
  + word "closed" * Cp() * count * must "clients" * must "think" * spread / to_closed
  + word "trace" * Cc "trace" * blank * (C(P(1) ^ 1) + oops "a file") / named("kind", "file")
  + oops('"poisson", "constant", "ramp", "burst", "closed" or "trace"', KINDS))

local PARTS = { "delay", "wire", "slots", "fail", "limit", "exp", "uniform", "normal", "lognormal" }

local part = blank * Ct(
  word "wire" * Cg(spread, "wire")
  + word "slots" * Cg(count, "slots") * (span * Cc "span" / function (from, to)
      return { from = from, to = to }
    end * Cg(Cc(true), "later") + key "queue" * Cg(count, "places") + Cc(nil))
  + word "fail" * Cg(share, "fail") * (span / named("from", "to")) ^ -1
  + word "limit" * blank * P '"' * Cg(Cp() * C((1 - S '"') ^ 1) / by(notation.limit), "limit")
    * P '"' * (key "reply" * blank * P "429") ^ -1
  + (word "delay" * blank) ^ -1 * #(digit + word "exp" + word "uniform" + word "normal"
      + word "lognormal")
    * Cg(spread, "service") * (blank * P "+" * Cg(time, "per_call_ns") * key "per" * key "in"
      * key "flight") ^ -1
  + oops("a part of a downstream", PARTS))

local retry = count * (key "try" + must "tries") * Ct((comma * (
    word "budget" * share / named "budget"
    + P "ignore retry-after" * Cc(true) / named "ignores"
    + Cp() * C((1 - P ",") ^ 1) / by(backoff_text.read) / named "backoff")) ^ 0)

local run = time * (comma * count * must "times" + Cc(1))

local name = C(grammar.letter * (grammar.letter + digit + S "_-.") ^ 0)
local weight = blank * name * number * (blank * P "%") ^ -1 / named("name", "weight")
local whose = blank * (#digit * count * (key "zipf" * number + Cc(0)) / named("count", "zipf")
  + Ct(weight * (comma * weight) ^ 0) / named "names"
  + oops "a number of keys, or names with their weights")

local function reader(rule)
  local pattern = grammar.whole(rule)
  return function (text)
    if type(text) == "number" then text = ("%.14g"):format(text) end
    if type(text) ~= "string" then return nil, "text expected, got " .. type(text), 1 end
    return grammar.read(pattern, text)
  end
end

words.whose, words.amounts = reader(whose), reader(amounts)

-- ---- what they come to ------------------------------------------------------------------------

words.arrive = reader(arrive)

--- All parts as a model has them (neap.sim.world); limit is a notation's value.
local function to_downstream(parts)
  local model, slots, fails = {}, {}, {}
  for _, each in ipairs(parts) do
    local from, to = each[1] and each[1].from or 0, each[1] and each[1].to or huge
    if each.slots then slots[#slots + 1] = { from = from, to = to, value = each.slots } end
    if each.fail then fails[#fails + 1] = { from = from, to = to, value = each.fail } end
    for _, field in ipairs { "wire", "service", "per_call_ns", "places", "limit" } do
      model[field] = each[field] or model[field]
    end
  end
  if slots[1] then model.slots = laid(huge, slots) end
  if fails[1] then model.fail = laid(0, fails) end
  return model
end

words.downstream = reader(Ct(part * (comma * part) ^ 0) / to_downstream)

words.retry = reader(retry / function (tries, parts)
  local of = { tries = tries }
  for _, each in ipairs(parts) do
    for field, value in pairs(each) do of[field] = value end
  end
  return of
end)

words.run = reader(run / named("run_ns", "times"))

return words
