--- Structured fields (RFC 9651, which takes the place of RFC 8941): headers that are items, lists
--- or dictionaries of typed values.
---
---     local structured = neap.headers.structured
---     local policies = structured.list '"burst";q=100;w=60, "daily";q=1000'
---     policies[2]   --> { type = "string", value = "daily", params = { "q", q = { … } } }
---
--- Each value says its type, because Lua cannot: a token is no string and 1.0 is no integer.
---
---     type       value                       written
---     integer    a whole number, 15 digits   42
---     decimal    a number, 12 digits and 3   4.5
---     string     printable ASCII             "hello"
---     token      a word                      foo/bar
---     binary     any bytes                   :aGVsbG8=:
---     boolean    true or false               ?1
---     date       seconds since 1970          @1659578233
---     display    UTF-8                       %"f%c3%bcr"
---     list       items, in an inner list     (1 2)
---
--- Items have `params`, too. Parameters and dictionaries are both a list of their names in order
--- and a table of what is under them. A name that comes twice keeps its place and its last value.
---
--- A grammar has no recursion and goes back over what it read at most once, so its time is linear
--- in the text, and so is what it keeps. Base64 is read without its padding and with bits to spare,
--- as the RFC allows; several lines of one field are one text, joined by ", ".
local lpeg = require "lpeg"
local new = require "table.new"

local P, R, S, V = lpeg.P, lpeg.R, lpeg.S, lpeg.V
local C, Cc, Cp, Cs, Ct = lpeg.C, lpeg.Cc, lpeg.Cp, lpeg.Cs, lpeg.Ct
local byte, char = string.byte, string.char
local concat = table.concat
local floor = math.floor
local error, ipairs, pcall, setmetatable = error, ipairs, pcall, setmetatable
local tonumber, tostring, type = tonumber, tostring, type

local structured = {}

---@class neap.StructuredItem
---@field type string   one of those above
---@field value any
---@field params table  names in order, and a type and a value under each

-- ---- base64 -----------------------------------------------------------------------------------

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local SIX = {}   -- byte -> six bits
for i = 1, 64 do SIX[byte(ALPHABET, i)] = i - 1 end

local function to_bytes(group)
  local a, b, c, d = byte(group, 1, 4)
  local bits = SIX[a] * 2 ^ 18 + SIX[b] * 2 ^ 12 + (c and SIX[c] or 0) * 64 + (d and SIX[d] or 0)
  local first, second = floor(bits / 65536), floor(bits / 256) % 256
  if not c then return char(first) end
  if not d then return char(first, second) end
  return char(first, second, bits % 256)
end

local function from_bytes(group)
  local a, b, c = byte(group, 1, 3)
  local bits = a * 65536 + (b or 0) * 256 + (c or 0)
  local text = ""
  for i = 0, #group do
    local six = floor(bits / 2 ^ (18 - 6 * i)) % 64
    text = text .. ALPHABET:sub(six + 1, six + 1)
  end
  return text .. ("="):rep(3 - #group)
end

-- ---- the grammar ------------------------------------------------------------------------------

-- What has no parameters shares these, as most values do.
local NONE = setmetatable({}, {
  __newindex = function () error("structured: give it params of its own first", 2) end,
})

local function item(kind, value, params) return { type = kind, value = value, params = params } end

local function integer(text) return "integer", tonumber(text) + 0 end
local function decimal(text) return "decimal", tonumber(text) end
local function boolean(text) return "boolean", text ~= "?0" end
local function date(text) return "date", tonumber(text:sub(2)) + 0 end
local function token(text) return "token", text end

local function add(names, count, name, value)
  if not names[name] then
    count = count + 1
    names[count] = name
  end
  names[name] = value
  return count
end

--- { "q", "integer", 1, "w", "token", "a" } as names and what is under them.
local function parameters(flat)
  local names, count = new(#flat / 3, #flat / 3), 0
  for i = 1, #flat, 3 do
    count = add(names, count, flat[i], { type = flat[i + 1], value = flat[i + 2] })
  end
  return names
end

--- { "a", item, "b", item } likewise.
local function entries(flat)
  local names, count = new(#flat / 2, #flat / 2), 0
  for i = 1, #flat, 2 do count = add(names, count, flat[i], flat[i + 1]) end
  return names
end

local digit, lower, upper = R "09", R "az", R "AZ"
local hex = R("09", "af")
local base64 = digit + lower + upper + S "+/"
local sp, ows = P " " ^ 0, S " \t" ^ 0
local function up_to(most, pattern) return pattern * pattern ^ (1 - most) end
local function percent(first, second) return P "%" * first * (second or hex) end
local tail = percent(S "89ab")
local whole_number = P "-" ^ -1 * up_to(15, digit)

local function to_character(text)
  return (text:gsub("%%(..)", function (code) return char(tonumber(code, 16)) end))
end

local plain = R(" !", "#[", "]~")

-- A bare value is two: its type, and itself. A capture that is the text it stands for takes less
-- room than one of a text in it, and of captures a long field has millions.
local grammar = {
  item       = V "bare" * V "params" / item,
  list       = Ct((V "member" * (V "comma" * V "member") ^ 0 * ows) ^ -1),
  dictionary = Ct((V "entry" * (V "comma" * V "entry") ^ 0 * ows) ^ -1) / entries,
  comma      = ows * "," * ows,

  member  = V "inner" + V "item",
  inner   = Cc "list" * Ct(P "(" * sp * (V "item" * (P " " ^ 1 * V "item") ^ 0) ^ -1 * sp * ")")
          * V "params" / item,
  entry   = V "key" * (P "=" * V "member" + V "yes" * V "params" / item),
  params  = #P ";" * Ct((P ";" * sp * V "key" * (P "=" * V "bare" + V "yes")) ^ 1) / parameters
          + Cc(NONE),
  yes     = Cc("boolean", true),
  key     = C((lower + "*") * (lower + digit + S "_-.*") ^ 0),

  bare    = V "number" + V "string" + V "token" + V "binary" + V "boolean" + V "date"
          + V "display",

  number  = (P "-" ^ -1 * up_to(12, digit) * "." * up_to(3, digit)) / decimal
          + whole_number / integer,
  string  = Cc "string" * P '"' * (C(plain ^ 0) * '"'
          + Cs((plain ^ 1 + P "\\" / "" * S '"\\') ^ 0) * '"'),
  token   = ((lower + upper + "*") * (lower + upper + digit + S "!#$%&'*+-.^_`|~:/") ^ 0) / token,
  binary  = Cc "binary" * P ":" * Cs(V "bytes" ^ 0) * ":",
  bytes   = (base64 * base64 * base64 * base64) / to_bytes
          + C(base64 * base64 * base64) * P "=" ^ -1 * #P ":" / to_bytes
          + C(base64 * base64) * P "==" ^ -1 * #P ":" / to_bytes,
  boolean = (P "?" * S "01") / boolean,
  date    = (P "@" * whole_number) / date,
  display = Cc "display" * P '%"' * Cs((R(" !", "#$", "&~") ^ 1 + V "utf8") ^ 0) * '"',

  -- Nothing but whole characters of UTF-8, each of the fewest bytes, no surrogates.
  utf8    = (percent(R "07") + percent("c", R("29", "af")) * tail + percent "d" * tail
          + P "%e0" * percent(S "ab") * tail + P "%ed" * percent(S "89") * tail
          + percent("e", R("19", "ac") + S "ef") * tail * tail
          + P "%f0" * percent(S "9ab") * tail * tail
          + percent("f", R "13") * tail * tail * tail + P "%f4" * percent "8" * tail * tail)
          / to_character,
}

local function shown(text, at)
  if at > #text then return "nothing" end
  local c = text:sub(at, at)
  return c:find "[%g ]" and "'" .. c .. "'" or ("byte %d"):format(c:byte())
end

--- A reader of one of the three kinds.
---@param kind "item"|"list"|"dictionary"
---@return fun(text: string): any, string?, integer?
local function reader(kind)
  grammar[1] = kind
  local pattern = sp * P(grammar) * sp * Cp()
  return function (text)
    if type(text) ~= "string" then return nil, "text expected, got " .. type(text), 1 end
    local value, at = pattern:match(text)
    if value and at > #text then return value end
    at = at or 1
    return nil, ("not a structured %s: did not expect %s at byte %d"):format(kind,
      shown(text, at), at), at
  end
end

--- Each takes a text and gives a value, or nil, what is wrong, and at which byte.
---
---     structured.item "4.5"               --> { type = "decimal", value = 4.5, params = {} }
---     structured.dictionary("u=1, b").u.value        --> 1
---     structured.item "4.5.6"             --> nil, "not a structured item: …", 4
---
structured.item = reader "item"              ---@type fun(text: string): neap.StructuredItem?
structured.list = reader "list"              ---@type fun(text: string): neap.StructuredItem[]?
structured.dictionary = reader "dictionary"  ---@type fun(text: string): table?

-- ---- writing ----------------------------------------------------------------------------------

local KEY, TOKEN = grammar.key * -P(1), grammar.token * -P(1)

local LARGEST = 999999999999.9995   -- from here on a decimal is rounded to 13 digits
local writers = {}

local function refuse(kind, value)
  error(("structured: %s is no %s"):format(tostring(value), kind), 0)
end

local function whole(kind, value, most)
  if type(value) ~= "number" or value % 1 ~= 0 or value > most or value < -most then
    refuse(kind, value)
  end
  return ("%.0f"):format(value + 0)
end

function writers.integer(value) return whole("integer of 15 digits", value, 1e15 - 1) end
function writers.date(value) return "@" .. whole("date", value, 1e15 - 1) end

--- To three places, ties to even; at least one.
function writers.decimal(value)
  if type(value) ~= "number" or not (value > -LARGEST and value < LARGEST) then
    refuse("decimal of 12 digits", value)
  end
  local thousandths = value < 0 and -value * 1000 or value * 1000
  local n = floor(thousandths + 0.5)
  if n % 2 == 1 and n == thousandths + 0.5 then n = n - 1 end
  local text = ("%.0f.%03d"):format(floor(n / 1000), n % 1000):gsub("0?0$", "")
  return value < 0 and n > 0 and "-" .. text or text
end

function writers.string(value)
  if type(value) ~= "string" or value:find "[^ -~]" then refuse("printable ASCII", value) end
  return '"' .. value:gsub('["\\]', "\\%0") .. '"'
end

function writers.token(value)
  if type(value) ~= "string" or not TOKEN:match(value) then refuse("token", value) end
  return value
end

function writers.binary(value)
  if type(value) ~= "string" then refuse("bytes", value) end
  return ":" .. value:gsub("..?.?", from_bytes) .. ":"
end

function writers.boolean(value)
  if type(value) ~= "boolean" then refuse("boolean", value) end
  return value and "?1" or "?0"
end

function writers.display(value)
  if type(value) ~= "string" then refuse("text", value) end
  local text = '%"' .. value:gsub('[%%"%c\127-\255]', function (c)
    return ("%%%02x"):format(byte(c))
  end) .. '"'
  if not structured.item(text) then refuse("UTF-8", value) end
  return text
end

local function write_bare(one)
  if type(one) ~= "table" or not writers[one.type] then
    refuse("value with a type", type(one) == "table" and one.type or one)
  end
  return writers[one.type](one.value)
end

local function is_true(one) return one.type == "boolean" and one.value == true end

local function write_params(params)
  local parts = {}
  for i, name in ipairs(params or {}) do
    if type(name) ~= "string" or not KEY:match(name) then refuse("parameter's name", name) end
    local value = write_bare(params[name])
    parts[i] = ";" .. name .. (is_true(params[name]) and "" or "=" .. value)
  end
  return concat(parts)
end

local function write_member(one)
  if type(one) ~= "table" or one.type ~= "list" then
    return write_bare(one) .. write_params(one.params)
  end
  local parts = {}
  for i, inner in ipairs(one.value) do
    parts[i] = write_bare(inner) .. write_params(inner.params)
  end
  return "(" .. concat(parts, " ") .. ")" .. write_params(one.params)
end

local write = {}

function write.item(value) return write_bare(value) .. write_params(value.params) end

function write.list(value)
  local parts = {}
  for i, one in ipairs(value) do parts[i] = write_member(one) end
  return concat(parts, ", ")
end

function write.dictionary(value)
  local parts = {}
  for i, name in ipairs(value) do
    if type(name) ~= "string" or not KEY:match(name) then refuse("name", name) end
    local one = value[name]
    if type(one) == "table" and is_true(one) then
      parts[i] = name .. write_params(one.params)
    else
      parts[i] = name .. "=" .. write_member(one)
    end
  end
  return concat(parts, ", ")
end

--- Write a value in its canonical form. What the RFC cannot say is a mistake: an integer of 16
--- digits, a token with a blank in it.
---
---     structured.format("list", policies)            --> '"burst";q=100;w=60, "daily";q=1000'
---     structured.format("item", { type = "date", value = 1659578233 })   --> "@1659578233"
---
---@param kind "item"|"list"|"dictionary"
---@param value table  as the reader of that kind gives it; `params` may be missing
---@return string  empty for an empty list or dictionary: then no field is to be sent
function structured.format(kind, value)
  if not write[kind] then
    error('structured: "item", "list" or "dictionary" expected, got ' .. tostring(kind), 2)
  elseif type(value) ~= "table" then
    error("structured: a table expected, got " .. type(value), 2)
  end
  local ok, text = pcall(write[kind], value)
  if not ok then error(text, 2) end
  return text
end

return structured
