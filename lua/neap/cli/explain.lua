--- What `help` says: of a function its comment, of an object what it is and what it can do.
---
--- Nothing is written twice for it. Functions know their file and line, and above that line stands
--- what it does, in words and as an example.
local show = require "neap.cli.show"

local concat, ipairs, pairs, sort = table.concat, ipairs, pairs, table.sort
local getmetatable, rawget, setmetatable = getmetatable, rawget, setmetatable
local tostring, type = tostring, type
local getinfo = debug.getinfo

local explain = {}

local stands_for = setmetatable({}, { __mode = "k" })

--- A function that only calls another one is explained as that one.
---@generic T
---@param wrapper T
---@param fn function
---@return T wrapper
function explain.as(wrapper, fn)
  stands_for[wrapper] = fn
  return wrapper
end

-- The comment above a line of a file.
local function above(path, line)
  local file = io.open(path)
  if not file then return nil end
  local block, n = {}, 0
  for text in file:lines() do
    n = n + 1
    if n >= line then break end
    local words = text:match "^%s*%-%-%- ?(.*)$"
    if not words then block = {} else block[#block + 1] = words end
  end
  file:close()
  return block[1] and block or nil
end

--- A comment as text: its types as what they are for people.
local function readable(block)
  local lines = {}
  for _, line in ipairs(block) do
    local name, rest = line:match "^@param ([%w_.?]+) (.*)$"
    if name then
      lines[#lines + 1] = ("  %s  %s"):format(name, rest)
    elseif line:find "^@return " then
      lines[#lines + 1] = "  answers  " .. line:match "^@return (.*)$"
    elseif not line:find "^@" then
      lines[#lines + 1] = line
    end
  end
  return concat(lines, "\n"):gsub("\n\n+", "\n\n"):gsub("%s+$", "")
end

--- What a function does; nil when nobody wrote that down.
---@param fn function
---@return string?
function explain.fn(fn)
  local info = getinfo(stands_for[fn] or fn, "S")
  local path = info.source:match "^@(.*)$"
  local block = path and above(path, info.linedefined)
  if not block or concat(block, "\n"):find "@package" then return nil end
  return (readable(block))
end

local function first_sentence(text)
  local line = text:gsub("\n", " ") .. " "
  return (line:match "^(.-)[.:;]%s" or line:gsub("%s+$", ""))
end

--- Names and first sentences of functions.
---@param functions table<string, function>
---@return string
function explain.list(functions)
  local names, widest, lines = {}, 0, {}
  for name, fn in pairs(functions) do
    if type(name) == "string" and type(fn) == "function" and not name:find "^_" then
      local text = explain.fn(fn)
      if text then
        names[#names + 1] = name
        widest = math.max(widest, #name)
      end
    end
  end
  sort(names)
  for i, name in ipairs(names) do
    lines[i] = ("  %s%s  %s"):format(name, (" "):rep(widest - #name),
      first_sentence(explain.fn(functions[name])))
  end
  return concat(lines, "\n")
end

--- Methods of an object, those of its class and what they come from.
local function methods_of(object)
  local methods, class = {}, getmetatable(object)
  local index = type(class) == "table" and rawget(class, "__index")
  for name, fn in pairs(type(index) == "table" and index or {}) do methods[name] = fn end
  return methods
end

--- Help on any value.
---@param value any
---@return string
function explain.value(value)
  if type(value) == "function" then return explain.fn(value) or show.value(value) end
  if type(value) ~= "table" then return show.value(value) end
  local class = getmetatable(value)
  local has_text = type(class) == "table" and class.__tostring
  local listed = explain.list(has_text and methods_of(value) or value)
  local head = has_text and tostring(value) or listed == "" and show.value(value) or nil
  return concat({ head or listed, head and listed ~= "" and listed or nil }, "\n")
end

return explain
