--- Structured fields, read step by step as RFC 9651 (section 4.2) tells it: what the grammars have
--- to agree with. It raises an error where the RFC says to fail.
local model = {}

local Input = {}
Input.__index = Input

local function fail() error({}, 0) end

function Input:peek() return self.text:sub(self.at, self.at) end
function Input:more() return self.at <= #self.text end

function Input:take()
  if not self:more() then fail() end
  self.at = self.at + 1
  return self.text:sub(self.at - 1, self.at - 1)
end

function Input:skip(set)
  while self:more() and self:peek():find(set) do self.at = self.at + 1 end
end

--- All that follows and is in the set.
function Input:while_in(set)
  local first = self.at
  self:skip(set)
  return self.text:sub(first, self.at - 1)
end

local function number(input)
  local sign = 1
  if input:peek() == "-" then sign = -1 input:take() end
  if not input:peek():find "%d" then fail() end
  local whole = input:while_in "%d"
  if input:peek() == "." then
    if #whole > 12 then fail() end
    input:take()
    local rest = input:while_in "%d"
    if #rest < 1 or #rest > 3 then fail() end
    return "decimal", sign * tonumber(whole .. "." .. rest)
  end
  if #whole > 15 then fail() end
  return "integer", sign * tonumber(whole) + 0
end

local function string_of(input)
  local text = ""
  input:take()
  while true do
    local c = input:take()
    if c == '"' then return "string", text end
    if c == "\\" then
      c = input:take()
      if c ~= '"' and c ~= "\\" then fail() end
    elseif not c:find "[ -~]" then
      fail()
    end
    text = text .. c
  end
end

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function binary(input)
  input:take()
  local text = input:while_in "[%w+/=]"
  if input:take() ~= ":" then fail() end
  local digits, padding = text:match "^([^=]*)(=*)$"
  local over = digits and #digits % 4
  local padded = padding ~= ""
  if not digits or over == 1 or padded and (over == 0 or over + #padding ~= 4) then fail() end
  local bits, count, bytes = 0, 0, ""
  for c in digits:gmatch "." do
    bits, count = bits * 64 + ALPHABET:find(c, 1, true) - 1, count + 6
    if count >= 8 then
      count = count - 8
      bytes, bits = bytes .. string.char(math.floor(bits / 2 ^ count)), bits % 2 ^ count
    end
  end
  return "binary", bytes
end

--- UTF-8 as it is defined: decoded, and encoded anew it must be the same.
local function is_utf8(text)
  local at = 1
  while at <= #text do
    local lead = text:byte(at)
    local more = lead < 0x80 and 0 or lead < 0xc0 and 9 or lead < 0xe0 and 1 or lead < 0xf0 and 2
      or lead < 0xf8 and 3 or 9
    if at + more > #text then return false end
    local code = more == 0 and lead or lead % 2 ^ (6 - more)
    for i = 1, more do
      local byte = text:byte(at + i)
      if byte < 0x80 or byte > 0xbf then return false end
      code = code * 64 + byte % 64
    end
    local least = ({ [0] = 0, 0x80, 0x800, 0x10000 })[more]
    if code < least or code > 0x10ffff or code >= 0xd800 and code <= 0xdfff then return false end
    at = at + more + 1
  end
  return true
end

local function display(input)
  input:take()
  if input:take() ~= '"' then fail() end
  local text = ""
  while true do
    local c = input:take()
    if c == '"' then
      if not is_utf8(text) then fail() end
      return "display", text
    elseif c == "%" then
      local code = input:take() .. input:take()
      if not code:find "^[%da-f][%da-f]$" then fail() end
      c = string.char(tonumber(code, 16))
    elseif not c:find "[ -~]" then
      fail()
    end
    text = text .. c
  end
end

local function bare(input)
  local c = input:peek()
  if c:find "[%d-]" then return number(input) end
  if c == '"' then return string_of(input) end
  if c:find "[%a*]" then return "token", input:while_in "[%w!#$%%&'*+%-.^_`|~:/]" end
  if c == ":" then return binary(input) end
  if c == "%" then return display(input) end
  if c == "?" then
    input:take()
    c = input:take()
    if c ~= "0" and c ~= "1" then fail() end
    return "boolean", c == "1"
  elseif c == "@" then
    input:take()
    local kind, value = number(input)
    if kind ~= "integer" then fail() end
    return "date", value
  end
  fail()
end

local function key(input)
  if not input:peek():find "[%l*]" then fail() end
  return input:while_in "[%l%d_%-.*]"
end

local function put(names, name, value)
  if names[name] == nil then names[#names + 1] = name end
  names[name] = value
end

local function params(input)
  local names = {}
  while input:peek() == ";" do
    input:take()
    input:skip " "
    local name = key(input)
    local kind, value = "boolean", true
    if input:peek() == "=" then
      input:take()
      kind, value = bare(input)
    end
    put(names, name, { type = kind, value = value })
  end
  return names
end

local function item(input)
  local kind, value = bare(input)
  return { type = kind, value = value, params = params(input) }
end

local function member(input)
  if input:peek() ~= "(" then return item(input) end
  input:take()
  local list = {}
  while true do
    input:skip " "
    if input:peek() == ")" then
      input:take()
      return { type = "list", value = list, params = params(input) }
    end
    list[#list + 1] = item(input)
    if not input:peek():find "[ )]" then fail() end
  end
end

--- What a list and a dictionary have in common: members, and commas between them.
local function several(input, one)
  while input:more() do
    one()
    input:skip "[ \t]"
    if not input:more() then return end
    if input:take() ~= "," then fail() end
    input:skip "[ \t]"
    if not input:more() then fail() end
  end
end

local readers = { item = item }

function readers.list(input)
  local list = {}
  several(input, function () list[#list + 1] = member(input) end)
  return list
end

function readers.dictionary(input)
  local names = {}
  several(input, function ()
    local name = key(input)
    if input:peek() == "=" then
      input:take()
      put(names, name, member(input))
    else
      put(names, name, { type = "boolean", value = true, params = params(input) })
    end
  end)
  return names
end

--- The value of a text, or nil.
---@param kind "item"|"list"|"dictionary"
---@param text string
---@return table?
function model.read(kind, text)
  local input = setmetatable({ text = text, at = 1 }, Input)
  local ok, value = pcall(function ()
    input:skip " "
    local value = readers[kind](input)
    input:skip " "
    if input:more() then fail() end
    return value
  end)
  if ok then return value end
  if type(value) ~= "table" then error(value, 0) end
end

return model
