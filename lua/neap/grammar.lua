--- Grammars: what the texts that people write have in common. Durations and limits (neap.notation)
--- and back-offs (neap.backoff) are such texts.
---
--- A grammar stops at the first byte that cannot be right: that is an 'oops', an alternative that
--- throws instead of matching. So each answer is a value, or nil, message, position, hint; and the
--- message says what was expected, what stands there, and what was probably meant.
local lpeg = require "lpeg"

local P, R, S = lpeg.P, lpeg.R, lpeg.S
local C, Cmt = lpeg.C, lpeg.Cmt
local error, getmetatable, ipairs, loadstring = error, getmetatable, ipairs, loadstring
local pcall, select, setmetatable = pcall, select, setmetatable
local min = math.min

local grammar = {}

local LONGEST_WORD = 40       -- nobody means a word by something longer

-- ---- words ------------------------------------------------------------------------------------

--- Text from outside as it may be shown: control bytes escaped, the far end cut off.
---@package
---@param text string
---@param most? integer  bytes, 60 unless told
---@return string
function grammar.show(text, most)
  most = most or 60
  if #text > most then text = text:sub(1, most):gsub("[\192-\255]?[\128-\191]*$", "") .. "…" end
  return (text:gsub("%c", function (c) return ("\\%d"):format(c:byte()) end))
end

-- What a slip of the hand costs. A letter left out is likelier than one too many, and both
-- likelier than a wrong one: so 'mn' is nearer to 'min' than to 'ms'.
local CASE, LEFT_OUT, SWAPPED, TOO_MANY, WRONG = 1, 2, 3, 3, 4

-- The weighted edit distance from what was typed to what could have been meant, swaps included.
local function distance(typed, meant)
  local before, row = nil, {}
  for j = 0, #meant do row[j] = j * LEFT_OUT end
  for i = 1, #typed do
    local a, last = typed:sub(i, i), row
    row = { [0] = i * TOO_MANY }
    for j = 1, #meant do
      local b = meant:sub(j, j)
      local change = a == b and 0 or a:lower() == b:lower() and CASE or WRONG
      row[j] = min(last[j - 1] + change, last[j] + TOO_MANY, row[j - 1] + LEFT_OUT)
      if before and a == meant:sub(j - 1, j - 1) and b == typed:sub(i - 1, i - 1) then
        row[j] = min(row[j], before[j - 2] + SWAPPED)
      end
    end
    before = last
  end
  return row[#meant]
end

--- The word that was probably meant, if any is near enough.
---@package
---@param typed string
---@param words string[]
---@return string?
function grammar.nearest(typed, words)
  if #typed > LONGEST_WORD then return nil end
  local best, least = nil, #typed + 2
  for _, word in ipairs(words) do
    local d = #word <= 2 * LONGEST_WORD and distance(typed, word) or least
    if d < least or d == least and best and word < best then best, least = word, d end
  end
  return best
end

--- A message, with the word that was probably meant, if any.
---@package
---@param message string
---@param typed string?
---@param words string[]?
---@return string message, string? hint
function grammar.suggest(message, typed, words)
  local hint = typed and words and grammar.nearest(typed, words)
  if not hint or hint == typed then return message end
  return ("%s (did you mean '%s'?)"):format(message, hint), hint
end

--- Raises when a table of options has a name that is none of these.
---@param what string?    whose options they are, if that is not plain to see
---@param given table
---@param known string[]
---@param level integer   1: the caller is who made the mistake
function grammar.check_names(what, given, known, level)
  for name in pairs(given) do
    local found = false
    for _, each in ipairs(known) do found = found or each == name end
    if not found then
      name = tostring(name)
      local message = ("%soption '%s' is not known"):format(what and what .. ": " or "", name)
      error((grammar.suggest(message, name, known)), level + 1)
    end
  end
end

--- Are all names in a table among these? check_names without a loop, around which LuaJIT would
--- compile nothing, for tables that come with every call: it is written out, once for each name
--- that there can be.
---@package
---@param known string[]
---@return fun(given: table): boolean
function grammar.all_in(known)
  local set = {}
  for _, name in ipairs(known) do set[name] = true end
  return loadstring(([[
local next, set = ...
return function (given)
  local name = next(given)
  STEPS
  return name == nil
end]]):gsub("STEPS", (([[
  if name == nil then return true end
  if not set[name] then return false end
  name = next(given, name)
]]):rep(#known))), "=all_in")(next, set)
end

-- ---- faults -----------------------------------------------------------------------------------

local Fault = {}

--- Give up at a byte of the text.
---@param at integer
---@param message string
---@param hint string?
local function fault(at, message, hint)
  error(setmetatable({ at = at, message = message, hint = hint }, Fault), 0)
end

local letter = R("az", "AZ", "\128\255")
local some_word = C(letter ^ 1)

-- What stands at 'at', for a message: a word, one character, or nothing.
local function found(subject, at)
  local word = some_word:match(subject, at)
  if word then return "'" .. grammar.show(word, LONGEST_WORD) .. "'", word end
  if at > #subject then return "nothing" end
  return "'" .. grammar.show(subject:sub(at, at)) .. "'"
end

--- A pattern for where nothing else can follow.
---@param want string       what could
---@param words string[]?   near misses to offer
---@param unknown string?   what a word at this place would have been
---@param at_end string?    the message when the text ends here
function grammar.oops(want, words, unknown, at_end)
  return Cmt(true, function (subject, at)
    local got, word = found(subject, at)
    if at > #subject and at_end then fault(at, at_end) end
    local message = word and unknown and "unknown " .. unknown .. " " .. got
      or "expected " .. want .. ", got " .. got
    fault(at, grammar.suggest(message, word, words))
  end)
end

--- A pattern for what is always a mistake.
---@param message string
function grammar.say(message)
  return Cmt(true, function (_, at) fault(at, message) end)
end

-- ---- patterns ---------------------------------------------------------------------------------

grammar.fault = fault
grammar.letter = letter
grammar.blank = S " \t\r\n" ^ 0

--- A word that is not the beginning of a longer one.
---@param text string
function grammar.word(text) return P(text) * -letter end

--- Any of these words.
---@param words string[]  longer ones before their beginnings
function grammar.one_of(words)
  local choice = P(false)
  for _, word in ipairs(words) do choice = choice + C(P(word)) * -letter end
  return choice
end

--- For captures: a record with these names.
function grammar.named(...)
  local names = { ... }
  return function (...)
    local record = {}
    for i, name in ipairs(names) do record[name] = (select(i, ...)) end
    return record
  end
end

--- Match all of a text.
---@param pattern any  its first capture is the value
---@param text string
---@return any value
---@return string? message
---@return integer? at     a byte
---@return string? hint    the word that was probably meant
function grammar.read(pattern, text)
  local ok, value = pcall(pattern.match, pattern, text)
  if ok then return value end
  if getmetatable(value) ~= Fault then error(value, 0) end
  return nil, value.message, value.at, value.hint
end

--- A pattern for a whole text.
---@param rule any
function grammar.whole(rule)
  return grammar.blank * rule * grammar.blank * (-P(1) + grammar.oops "nothing more")
end

--- An option that has to be of a type, or nil.
---@param what string    who reads it, for the message
---@param given table    the options
---@param name string
---@param kind string    as type() has it
---@param level integer  whose mistake it is, as for error()
---@return any
function grammar.check_type(what, given, name, kind, level)
  local value = given[name]
  if value ~= nil and type(value) ~= kind then
    error(("%s: %s: a %s expected, got %s"):format(what, name, kind, tostring(value)), level + 1)
  end
  return value
end

return grammar
