--- What a word could become: variables, fields and methods; policies inside of quotes; what a call
--- can say inside of braces. Nothing is called to find out, but `__index` tables are looked into;
--- a class whose `__index` is a function has a table `names` beside it.
local ipairs, pairs, sort, type = ipairs, pairs, table.sort, type
local getmetatable, rawget = getmetatable, rawget

local KEYWORDS = { "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if",
  "in", "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while" }
local NAME = "^[%a_][%w_]*$"

local complete = {}

local function index_of(value)
  local class = getmetatable(value)
  local index = type(class) == "table" and rawget(class, "__index")
  return type(index) == "function" and rawget(class, "names") or index or nil
end

--- A field, without calling anything.
local function field(value, name)
  for _ = 1, 8 do
    if type(value) ~= "table" then return nil end
    local found = rawget(value, name)
    if found ~= nil then return found end
    value = index_of(value)
  end
end

local function add_names(value, found, only_functions)
  for _ = 1, 8 do
    if type(value) ~= "table" then return end
    for name, each in pairs(value) do
      if type(name) == "string" and name:find(NAME) and not name:find "^__"
          and (not only_functions or type(each) == "function") then
        found[name] = true
      end
    end
    value = index_of(value)
  end
end

local function matching(found, partial)
  local words = {}
  for name in pairs(found) do
    if name:sub(1, #partial) == partial then words[#words + 1] = name end
  end
  sort(words)
  return words
end

local function from_list(list, partial)
  local found = {}
  for _, name in ipairs(list) do found[name] = true end
  return matching(found, partial)
end

--- The text of a string that is not closed yet.
local function open_string(text)
  local quote, from
  local i = 1
  while i <= #text do
    local c = text:sub(i, i)
    if quote then
      if c == "\\" then i = i + 1 elseif c == quote then quote = nil end
    elseif c == '"' or c == "'" then
      quote, from = c, i + 1
    end
    i = i + 1
  end
  return quote and text:sub(from)
end

local function in_braces(text)
  local opened = select(2, text:gsub("{", ""))
  return opened > select(2, text:gsub("}", ""))
end

--- What follows the last of "a.b:" that can be looked into.
local function along(env, path)
  local value = env
  for name in path:gmatch "[%w_]+" do value = field(value, name) end
  return value
end

---@class neap.cli.Words
---@field env table                         the prompt's variables
---@field policies fun(): string[]          for inside of quotes
---@field said fun(): string[]              for inside of braces: costs and scopes
---@field commands string[]                 ":jit on"

--- The words for what stands before the cursor.
---@param known neap.cli.Words
---@param text string
---@return integer typed  bytes of the word that are there
---@return string[] words
function complete.of(known, text)
  if text:find "^:" then return #text, from_list(known.commands, text) end
  local inside = open_string(text)
  if inside then return #inside, from_list(known.policies(), inside) end
  local path, mark, partial = text:match "([%a_][%w_.:]*)([.:])([%w_]*)$"
  if path then
    local found = {}
    add_names(along(known.env, path), found, mark == ":")
    return #partial, matching(found, partial)
  end
  partial = text:match "[%a_][%w_]*$" or ""
  local found = {}
  if partial == "" and not in_braces(text) then return 0, {} end
  if in_braces(text) then
    for _, name in ipairs(known.said()) do found[name] = true end
  end
  if partial ~= "" then
    add_names(known.env, found)
    for _, name in ipairs(KEYWORDS) do found[name] = true end
  end
  return #partial, matching(found, partial)
end

return complete
