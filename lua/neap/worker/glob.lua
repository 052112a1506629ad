--- Redis' glob patterns: `*` any bytes, `?` one, `[a-c]` and `[^a]` one of a set, `\` the next as
--- it is. A set that does not close ends with the pattern.
---
--- A pattern is cut at its stars into pieces. Finding each piece at its first place after the one
--- before is enough, so no star is ever tried twice and no pattern runs for hours.
local lpeg = require "lpeg"

local P, R, V, C, Cc, Cf, Ct = lpeg.P, lpeg.R, lpeg.V, lpeg.C, lpeg.Cc, lpeg.Cf, lpeg.Ct

local LONGEST = 256   -- bytes; what is longer matches nothing

local function range(low, high) return low <= high and R(low .. high) or R(high .. low) end
local function either(a, b) return a + b end
local function both(a, b) return a * b end
local function but(set) return 1 - set end

local quoted = "\\" * C(1)
local member = quoted + C(1 - P "]")
local one_of = Cf(Cc(P(false)) * (member * "-" * member / range + member / P) ^ 0, either)
local set = ("[^" * one_of / but + "[" * one_of) * (P "]" + -1)
local one = P "?" * Cc(P(1)) + set + quoted / P + C(1 - P "*") / P
local piece = Cf(Cc(P(true)) * one ^ 0, both)
local pieces = Ct(piece * (P "*" ^ 1 * piece) ^ 0)

--- What finds out whether all of a text matches.
---@param pattern string
---@return lpeg.Pattern
local function compile(pattern)
  local list = pieces:match(pattern)
  local whole = P(true)
  for i, wanted in ipairs(list) do
    if i == #list then wanted = wanted * -1 end
    whole = whole * (i == 1 and wanted or P { wanted + 1 * V(1) })
  end
  return whole
end

local MEMO = 1024

local known, count = {}, 0   -- what was compiled, by pattern; with more it begins anew

---@param pattern string
---@param text string
---@return boolean  whether all of text matches
return function (pattern, text)
  local whole = known[pattern]
  if not whole then
    if count >= MEMO then known, count = {}, 0 end
    whole = #pattern <= LONGEST and compile(pattern) or P(false)
    known[pattern], count = whole, count + 1
  end
  return whole:match(text) ~= nil
end
