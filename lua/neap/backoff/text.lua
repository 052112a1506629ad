--- Back-offs as people write them, and as neap writes them back.
---
---   backoff  = duration [growth] {mod}           200ms x2 cap 20s jitter decorrelated
---   growth   = "x" number | "+" duration         times 2, or 200ms more, with each attempt
---   mod      = "cap" ("none" | duration) | "jitter" jitter | "grid" duration
---   jitter   = "none" | "full" | "equal" | "decorrelated" | "factor" number | "additive" number
---            | "range" number ".." number
---   duration = "forever" | as neap.notation has it
---
--- No growth is a constant. Each mod stands once, in any order; "cap" is 30s unless told, but for a
--- constant, which has none, or itself when its jitter is decorrelated; jitter is none.
local lpeg = require "lpeg"
local grammar = require "neap.grammar"
local notation = require "neap.notation"

local P, R, S, V = lpeg.P, lpeg.R, lpeg.S, lpeg.V
local C, Cc, Cp, Ct = lpeg.C, lpeg.Cc, lpeg.Cp, lpeg.Ct
local error, ipairs, pairs = error, ipairs, pairs
local tonumber, tostring, type = tonumber, tostring, type
local huge = math.huge

local fault, oops = grammar.fault, grammar.oops
local blank, letter, named, word = grammar.blank, grammar.letter, grammar.named, grammar.word

local text = {}

text.MOST = 1e9             -- a factor, or a share of jitter
local CAP_NS = 30e9         -- unless told
local MODS = { "cap", "jitter", "grid" }
local JITTERS = { "none", "full", "equal", "decorrelated", "factor", "additive", "range" }

---@class neap.backoff.Value
---@field curve "constant"|"linear"|"exponential"
---@field base_ns number      whole, or math.huge: for ever
---@field step_ns number?     linear
---@field factor number?      exponential
---@field cap_ns number       math.huge: none
---@field jitter string
---@field amount number?      factor, additive
---@field low number?         range
---@field high number?
---@field grid_ns number?     delays are multiples of it

--- The cap that is not said.
---@param value neap.backoff.Value
---@return number ns
function text.usual_cap(value)
  if value.curve ~= "constant" then return CAP_NS end
  return value.jitter == "decorrelated" and value.base_ns or huge
end

-- ---- values -----------------------------------------------------------------------------------

local function to_ns(at, duration)
  local ns, message, where = notation.duration(duration)
  if not ns then fault(at + where - 1, message) end
  return ns
end

local function to_number(at, digits)
  local n = tonumber(digits)
  if n > text.MOST then fault(at, digits .. " is too large (at most 1e9)") end
  return n
end

local function to_range(at, low, high)
  if low > high then fault(at, "a range goes from the smaller number to the larger one") end
  return { jitter = "range", low = low, high = high }
end

local function to_value(base_ns, growth, mods)
  local value = { curve = growth.curve or "constant", base_ns = base_ns, step_ns = growth.step_ns,
    factor = growth.factor, jitter = "none" }
  local seen = {}
  for _, mod in ipairs(mods) do
    if seen[mod.word] then fault(mod.at, ("'%s' twice"):format(mod.word)) end
    seen[mod.word] = true
    if mod.word == "jitter" then
      for name, part in pairs(mod.value) do value[name] = part end
    else
      if mod.word == "grid" and mod.value == 0 then fault(mod.at, "a grid of 0 is none") end
      value[mod.word .. "_ns"] = mod.value
    end
  end
  value.cap_ns = value.cap_ns or text.usual_cap(value)
  return value
end

-- ---- the grammar ------------------------------------------------------------------------------

local digit = R "09"
local decimal = digit ^ 1 * (P "_" * digit ^ 1) ^ 0 * (P "." * digit ^ 1) ^ -1
-- "20s x2": what x2 begins with is no unit
local unit = blank * (letter - P "x" * blank * digit) * letter ^ 0
local part = decimal * unit ^ -1
local exponent = S "eE" * S "+-" ^ -1 * digit ^ 1

local rules = {
  "backoff",
  backoff  = V "duration" * blank * (V "growth" + Cc {}) * Ct((blank * V "mod") ^ 0) * blank
           * (-P(1) + oops('"x2", "+1s", "cap", "jitter" or "grid"', MODS)) / to_value,
  growth   = P "x" * blank * V "number" / function (n)
               return { curve = "exponential", factor = n }
             end
           + P "+" * blank * V "duration" / function (ns)
               return { curve = "linear", step_ns = ns }
             end,
  mod      = Cp() * C(word "cap") * blank * (word "none" * Cc(huge) + V "duration")
             / named("at", "word", "value")
           + Cp() * C(word "jitter") * blank * V "jitter" / named("at", "word", "value")
           + Cp() * C(word "grid") * blank * V "time" / named("at", "word", "value"),
  jitter   = C(word "none" + word "full" + word "equal" + word "decorrelated") / named "jitter"
           + C(word "factor" + word "additive") * blank * V "number" / named("jitter", "amount")
           + word "range" * blank * Cp() * V "number" * blank
             * (P ".." + oops '".." as in 0.5..1.5') * blank * V "number" / to_range
           + oops('a kind of jitter such as "full" or "decorrelated"', JITTERS),
  duration = word "forever" * Cc(huge) + V "time",
  time     = Cp() * C(part * (blank * part) ^ 0) / to_ns
           + oops('a duration such as "200ms"', { "forever", "none" }),
  number   = Cp() * C(digit ^ 1 * (P "." * digit ^ 1) ^ -1 * exponent ^ -1) / to_number
           + oops "a number",
}

local function reader(start)
  rules[1] = start
  local pattern = grammar.whole(P(rules))
  return function (given)
    if type(given) ~= "string" then return nil, "text expected, got " .. type(given), 1 end
    return grammar.read(pattern, given)
  end
end

--- A back-off: a value, or nil, message, byte, hint.
---@type fun(given: string): neap.backoff.Value?, string?, integer?, string?
text.read = reader "backoff"

--- A kind of jitter with its numbers: a table of jitter, amount, low, high; or the same.
---@type fun(given: string): table?, string?, integer?, string?
text.jitter = reader "jitter"

-- ---- printing ---------------------------------------------------------------------------------

local function duration(ns)
  return ns == huge and "forever" or notation.format_duration(ns)
end

--- The shortest digits that are read back as this number.
local function number(n)
  for digits = 14, 17 do
    local shown = ("%%.%dg"):format(digits):format(n)
    if tonumber(shown) == n then return shown end
  end
  error("a number expected, got " .. tostring(n), 0)
end

--- In canonical form: what is as usual is not said. `text.read` reads it back as the same value.
---@param value neap.backoff.Value
---@return string
function text.format(value)
  local words = { duration(value.base_ns) }
  if value.curve == "linear" then words[2] = "+" .. duration(value.step_ns) end
  if value.curve == "exponential" then words[2] = "x" .. number(value.factor) end
  if value.cap_ns ~= text.usual_cap(value) then
    words[#words + 1] = "cap " .. (value.cap_ns == huge and "none" or duration(value.cap_ns))
  end
  if value.jitter == "range" then
    words[#words + 1] = ("jitter range %s..%s"):format(number(value.low), number(value.high))
  elseif value.jitter ~= "none" then
    words[#words + 1] = "jitter " .. value.jitter
    if value.amount then words[#words + 1] = number(value.amount) end
  end
  if value.grid_ns then words[#words + 1] = "grid " .. duration(value.grid_ns) end
  return table.concat(words, " ")
end

return text
