--- Expressions over what a simulation comes to, for who asserts it:
---
---     p99_wait < 2s and refused_share <= 1%
---     goodput > 0.9 * offered / run
---
---     or = and { "or" and }    and = not { "and" not }    not = [ "not" ] compare
---     compare = sum ( "<" | "<=" | ">" | ">=" | "==" | "~=" ) sum    | "(" or ")"
---     sum = product { ( "+" | "-" ) product }    product = value { ( "*" | "/" ) value }
---     value = number [ "%" ] | duration | name | "-" value | "(" sum ")"
---
--- A duration is in seconds.
local lpeg = require "lpeg"
local grammar = require "neap.grammar"
local notation = require "neap.notation"

local P, R, V = lpeg.P, lpeg.R, lpeg.V
local C, Cf, Cg, Cp = lpeg.C, lpeg.Cf, lpeg.Cg, lpeg.Cp
local pairs, tonumber = pairs, tonumber

local fault, oops = grammar.fault, grammar.oops

local expression = {}

local OPERATIONS = {
  ["+"] = function (a, b) return a + b end, ["-"] = function (a, b) return a - b end,
  ["*"] = function (a, b) return a * b end, ["/"] = function (a, b) return a / b end,
  ["<"] = function (a, b) return a < b end, ["<="] = function (a, b) return a <= b end,
  [">"] = function (a, b) return a > b end, [">="] = function (a, b) return a >= b end,
  ["=="] = function (a, b) return a == b end, ["~="] = function (a, b) return a ~= b end,
  ["and"] = function (a, b) return a and b end, ["or"] = function (a, b) return a or b end,
}

local blank = grammar.blank
local digit = R "09"
local decimal = digit ^ 1 * (P "." * digit ^ 1) ^ -1
local tail = R("az", "AZ", "09") + P "_"
local function token(text) return blank * C(P(text)) end
local function keyword(text) return blank * C(P(text)) * -tail end

-- A value is a function of the results.
local function constant(n) return function () return n end end
local function binary(a, operator, b)
  local apply = OPERATIONS[operator]
  return function (results) return apply(a(results), b(results)) end
end
local function negative(a) return function (results) return -a(results) end end
local function opposite(a) return function (results) return not a(results) end end

local function seconds(at, text)
  local ns, message = notation.duration(text)
  if not ns then fault(at, message) end
  return constant(ns / 1e9)
end

--- A grammar over these names.
local function grammar_of(known)
  local function field(at, name)
    if not known[name] then
      local names = {}
      for each in pairs(known) do names[#names + 1] = each end
      table.sort(names)
      fault(at, grammar.suggest(("unknown name '%s'"):format(name), name, names))
    end
    return function (results) return results[name] end
  end
  local comparison = token "<=" + token ">=" + token "==" + token "~=" + token "<" + token ">"
  return grammar.whole(P {
    "either",
    either  = Cf(V "both" * Cg(keyword "or" * V "both") ^ 0, binary),
    both    = Cf(V "one" * Cg(keyword "and" * V "one") ^ 0, binary),
    one     = blank * P "not" * -tail * V "one" / opposite + V "compare"
            + blank * P "(" * V "either" * blank * P ")",
    compare = V "sum" * comparison * V "sum" / binary,
    sum     = Cf(V "product" * Cg((token "+" + token "-") * V "product") ^ 0, binary),
    product = Cf(V "value" * Cg((token "*" + token "/") * V "value") ^ 0, binary),
    value   = blank * (Cp() * C((decimal * R("az", "AZ") ^ 1) ^ 1) / seconds
            + C(decimal) * P "%" / function (n) return constant(tonumber(n) / 100) end
            + C(decimal) / function (n) return constant(tonumber(n)) end
            + Cp() * (C(R("az", "AZ") * tail ^ 0) - (P "not" + P "and" + P "or") * -tail) / field
            + P "-" * V "value" / negative
            + P "(" * V "sum" * blank * P ")"),
  } + oops 'a comparison such as "p99_wait < 2s"')
end

--- Read one: a function of the results that answers whether it holds; or nil and what is wrong.
---@param text string
---@param known table<string, any>   what names there are
---@return (fun(results: table<string, number>): boolean)?
---@return string? message
---@return integer? at
function expression.read(text, known)
  return grammar.read(grammar_of(known), text)
end

return expression
