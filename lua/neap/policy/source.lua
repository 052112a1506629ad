--- A policy file's text as a map: where every declaration, and every field in it, stands.
--
-- The virtual machine knows the line of a call and forgets the rest: a table has no lines, a key
-- no column, and `pairs` no order. All of it is still in the text. So the text is cut into tokens
-- once, every table constructor becomes a node, and every `policy "x" {` a site that knows its
-- node. What ran is then found again by noun, line and name; a table that was made elsewhere
-- (`limits = plans.free`) is found by its contents.
--
--     policy "openai" {                 site { noun, name, at, name_at, line, node }
--       limits = { input = "5/s" },     node { at, stop, fields, named, source }
--     }                                 field { key, key_at, at, token?, node? }
--
-- Positions are byte positions in the text. Tokens live in three parallel arrays.
local lpeg = require "lpeg"

local P, R, S = lpeg.P, lpeg.R, lpeg.S
local C, Cc, Cmt, Cp, Ct = lpeg.C, lpeg.Cc, lpeg.Cmt, lpeg.Cp, lpeg.Ct
local ipairs, loadstring, pairs = ipairs, loadstring, pairs
local setmetatable, type = setmetatable, type
local ceil, floor = math.ceil, math.floor

---@class neap.field
---@field key string|integer|nil   nil when it was computed
---@field key_at integer           where the key, or the positional value, starts
---@field at integer               where the value starts
---@field token integer?           the value is this one string literal
---@field node neap.node?          the value is this one constructor

---@class neap.node
---@field at integer               of its opening brace
---@field stop integer             token index of its closing brace
---@field fields neap.field[]      in textual order
---@field named table<string|integer, neap.field>   the last one wins, as in Lua
---@field source neap.source

---@class neap.source
---@field file string
---@field rank integer   of files in messages
local source = {}
source.__index = source

-- ---- tokens -----------------------------------------------------------------------------------

local OPENS = { ["function"] = true, ["do"] = true, ["if"] = true, ["repeat"] = true }
local CLOSES = { ["end"] = true, ["until"] = true }

local any, digit = P(1), R "09"
local newline = P "\r\n" + "\n\r" + S "\r\n"

local long = Cmt("[" * C(P "=" ^ 0) * "[", function (text, at, level)
  local _, last = text:find("]" .. level .. "]", at, true)
  return (last or #text) + 1
end)

local function quoted(quote)
  local escape = "\\" * (P "z" * S " \t\r\n\f\v" ^ 0 + newline + any)
  return quote * (escape + (any - S "\r\n" - quote)) ^ 0 * quote
end

local space = S " \t\r\n\f\v" + "--" * (long + (any - S "\r\n") ^ 0)
local string = quoted '"' + quoted "'" + long
local number = (digit + "." * digit) * (S "eEpP" * S "+-" + R("09", "az", "AZ") + ".") ^ 0
local first = R("az", "AZ", "\128\255") + "_"
local name = first * (first + digit) ^ 0
local structure = P(false)
for word in pairs(OPENS) do structure = structure + C(word) end
for word in pairs(CLOSES) do structure = structure + C(word) end
local symbol = P "..." + ".." + "==" + "~=" + "<=" + ">=" + "::" + any

-- The kind of a token: a word for names, strings and numbers; itself for what gives structure.
local token = Cp() * (string * Cc "string" + number * Cc "number"
  + structure * -(first + digit) + name * Cc "name"
  + C(symbol)) * Cp()
local tokens = space ^ 0 * Ct((token * space ^ 0) ^ 0)
local lines = Ct(Cp() * ((any - newline) ^ 0 * newline * Cp()) ^ 0)

---@param text string
---@param nouns table<string, boolean>  declaration functions: true when a name goes first
---@param file string
---@param rank integer?
---@return neap.source
function source.new(text, nouns, file, rank)
  local self = setmetatable({ text = text, file = file, rank = rank or 1,
    starts = lines:match(text), nouns = nouns, at = {}, kind = {}, past = {}, values = {},
    node_of = {}, nodes = {}, by_line = {}, by_name = {} }, source)
  local flat = tokens:match(text)
  for i = 1, #flat, 3 do
    local n = #self.at + 1
    self.at[n], self.kind[n], self.past[n] = flat[i], flat[i + 1], flat[i + 2]
  end
  return self
end

--- The text of a token.
function source:word(i)
  return self.text:sub(self.at[i], self.past[i] - 1)
end

-- The value of a string or number token.
local function literal(self, i)
  if self.values[i] == nil then
    local word = self:word(i)
    local plain = word:match "^[\"']([^\\]*).$"   -- most are
    local chunk = not plain and loadstring("return " .. word)
    self.values[i] = plain or chunk and chunk()
  end
  return self.values[i]
end

-- The greatest index whose position is not beyond 'at'.
local function last_upto(positions, at)
  local low, high = 0, #positions
  while low < high do
    local middle = ceil((low + high) / 2)
    if positions[middle] <= at then low = middle else high = middle - 1 end
  end
  return low
end

--- Line and column, in bytes from 1, of a position.
---@return integer line, integer col
function source:place(at)
  local line = last_upto(self.starts, at)
  return line, at - self.starts[line] + 1
end

--- The text of a line, without its end; nil when there is no such line.
function source:line(n)
  local from = self.starts[n]
  if not from then return nil end
  return (self.text:sub(from, (self.starts[n + 1] or #self.text + 1) - 1):gsub("[\r\n]+$", ""))
end

-- The first and the last token that start on a line.
local function tokens_on(self, line)
  local from = self.starts[line] or #self.text + 1
  local to = self.starts[line + 1] or #self.text + 1
  return last_upto(self.at, from - 1) + 1, last_upto(self.at, to - 1)
end

-- ---- constructors -----------------------------------------------------------------------------

local FIELD_ENDS = { [","] = true, [";"] = true, ["}"] = true }
local BRACKET_ENDS = { ["]"] = true }
local PAREN_ENDS = { [")"] = true }
local NOWHERE = {}

-- The first token from i on whose kind is in 'ends', outside brackets, blocks and constructors.
local function skip(self, i, ends)
  local kind, depth = self.kind, 0
  while kind[i] do
    local k = kind[i]
    if depth == 0 and ends[k] then return i end
    if k == "{" then
      i = (self.node_of[i] or self:construct(i)).stop
    elseif k == "(" or k == "[" or OPENS[k] then
      depth = depth + 1
    elseif k == ")" or k == "]" or CLOSES[k] then
      depth = depth - 1
    end
    i = i + 1
  end
  return i
end

--- The constructor whose brace is token i. Lua has accepted the text: it nests 200 deep at most.
function source:construct(i)
  local kind, position = self.kind, 0
  local node = { at = self.at[i], fields = {}, named = {}, source = self }
  self.node_of[i] = node
  self.nodes[#self.nodes + 1] = node
  i = i + 1
  while kind[i] and kind[i] ~= "}" do
    local field = { key_at = self.at[i] }
    if kind[i] == "name" and kind[i + 1] == "=" then
      field.key, i = self:word(i), i + 2
    elseif kind[i] == "[" then
      local close = skip(self, i + 1, BRACKET_ENDS)
      local simple = close == i + 2 and (kind[i + 1] == "string" or kind[i + 1] == "number")
      if simple then field.key = literal(self, i + 1) end
      i = close + 2
    else
      position = position + 1
      field.key = position
    end
    field.at = self.at[i]
    local stop = skip(self, i, FIELD_ENDS)
    if kind[i] == "string" and stop == i + 1 then field.token = i end
    local inner = self.node_of[i]
    if inner and stop == inner.stop + 1 then field.node = inner end
    node.fields[#node.fields + 1] = field
    if field.key ~= nil then node.named[field.key] = field end
    i = kind[stop] == "}" and stop or stop + 1
  end
  node.stop = i
  return node
end

-- ---- sites ------------------------------------------------------------------------------------

-- The declaration whose noun is token i.
local function site_at(self, i)
  local kind, noun = self.kind, self:word(i)
  local site = { noun = noun, at = self.at[i], name_at = self.at[i] }
  i = i + 1
  if self.nouns[noun] then
    if kind[i] == "string" then
      site.name, site.name_at, i = literal(self, i), self.at[i], i + 1
    elseif kind[i] == "(" then
      local close = skip(self, i + 1, PAREN_ENDS)
      site.name_at = self.at[i + 1]
      if close == i + 2 and kind[i + 1] == "string" then site.name = literal(self, i + 1) end
      i = close + 1
    end
  end
  -- the machine's line of a call is that of the first token of its arguments
  site.line = self:place(self.at[i] or site.at)
  if kind[i] == "(" then i = i + 1 end
  site.node = self.node_of[i]
  return site
end

local function push(lists, key, value)
  local list = lists[key] or {}
  lists[key] = list
  list[#list + 1] = value
end

--- Find all constructors and declarations. Only for a text that Lua has accepted.
function source:survey()
  skip(self, 1, NOWHERE)
  for i, kind in ipairs(self.kind) do
    local before = self.kind[i - 1]
    if kind == "name" and self.nouns[self:word(i)] ~= nil and before ~= "." and before ~= ":"
      and self.kind[i + 1] ~= "=" then
      local site = site_at(self, i)
      push(self.by_line, site.line, site)
      if site.name then push(self.by_name, site.name, site) end
    end
  end
end

-- ---- finding again ----------------------------------------------------------------------------

-- What stands between the quotes of a string literal, and where. With an escape in it, this is
-- longer than the value.
local function spelled(self, i)
  local word = self:word(i)
  if word:sub(1, 1) ~= "[" then return word:sub(2, -2), self.at[i] + 1 end
  local opening, skipped, rest = word:match "^(%[=*%[)(\r?\n?)(.*)$"
  return rest:sub(1, -#opening - 1), self.at[i] + #opening + #skipped
end

--- Where byte 'offset' of a text value stands, if the field spells that text; else the field.
---@param field neap.field
---@param value string
---@param offset integer
---@return integer at
function source:inside(field, value, offset)
  if field.token then
    local text, from = spelled(self, field.token)
    if text == value then return from + offset - 1 end
  end
  return field.at
end

local function count(value)
  local n = 0
  for _ in pairs(value) do n = n + 1 end
  return n
end

-- Whether a constructor may have made this table: the same keys, and the same literals, all down.
local function made(self, node, value)
  if type(value) ~= "table" or not node or #node.fields ~= count(value) then return false end
  for key, field in pairs(node.named) do
    local actual = value[key]
    if actual == nil or field.token and literal(self, field.token) ~= actual
      or field.node and not made(self, field.node, actual) then
      return false
    end
  end
  return true
end

--- The site of a call that ran: on its line, by name if it spells one, or else by name alone. Of
--- several on a line, the one whose constructor may have made its table.
---@return table? site
function source:site(noun, line, called, body)
  local unnamed, named
  for _, site in ipairs(self.by_line[line] or NOWHERE) do
    if site.noun == noun and site.name == called then
      if named and made(self, named.node, body) then return named end
      named = site
    end
    if site.noun == noun and site.name == nil then unnamed = unnamed or site end
  end
  if named or unnamed then return named or unnamed end
  for _, site in ipairs(self.by_name[called] or NOWHERE) do
    if site.noun == noun then return site end
  end
end

--- The first constructor with the contents of a table, for one that no site has.
---@param value table
---@return neap.node?
function source:like(value)
  for _, node in ipairs(self.nodes) do
    if made(self, node, value) then return node end
  end
end

--- Where a name is used on a line.
---@return integer? at
function source:use(used, line)
  local from, to = tokens_on(self, line)
  for i = from, to do
    if self.kind[i] == "name" and self:word(i) == used then return self.at[i] end
  end
end

--- The token a syntax error on a line is about. The parser reads from left to right: the culprit
--- ends the shortest beginning of the text that is wrong in another way than by ending too soon.
---@return integer? at
function source:culprit(line)
  local function wrong(i)
    local _, message = loadstring(self.text:sub(1, self.past[i] - 1), "=culprit")
    return message and not message:find("near '<eof>'", 1, true)
  end
  local low, high = tokens_on(self, line)
  if low > high or not wrong(high) then return nil end
  while low < high do
    local middle = floor((low + high) / 2)
    if wrong(middle) then high = middle else low = middle + 1 end
  end
  return self.at[low]
end

return source
