--- Examples in comments and pages, as programs that run.
---
--- In a doc comment an example is a block of lines that are indented by five:
---
---     local api = neap.throttle "10/s"
---     api:available()                 --> 10
---
--- So are tables and pictures. A block is code when its first line is a statement of Lua, or begins
--- one, or says what it answers. All the blocks of a file (or, fenced as ```lua, of a page) are one
--- program, in order, so later ones use what earlier ones made; a line keeps its number.
---
--- After --> a line says what its expression answers, or what the variables are that it sets: Lua
--- values, where … stands for what is left out: the rest of the answers, of a text, of a number's
--- decimals or of a table's fields. A text is also what an object says of itself as a text.
local lpeg = require "lpeg"

local P, R, S = lpeg.P, lpeg.R, lpeg.S
local C, Cs = lpeg.C, lpeg.Cs
local concat = table.concat

local literate = {}

-- ---- finding ----------------------------------------------------------------------------------

local function lines_of(path)
  local lines = {}
  for line in io.lines(path) do lines[#lines + 1] = line end
  return lines
end

local function split(line)
  local code, want = line:match "^(.-)%s*%-%->%s*(.+)$"
  return code or line, want
end

local function is_code(line)
  local code, want = split(line)
  if want then return true end
  local _, message = loadstring(code)
  return code:match "^%-%-" == nil and (not message or message:match "'<eof>'$" ~= nil)
end

--- The program in a Lua file's doc comments; lines that are none of it are empty.
---@param path string
---@return string[]
function literate.in_comments(path)
  local program, inside = {}, false
  for i, line in ipairs(lines_of(path)) do
    local first = line:match "^%s*%-%-%-     (%S.*)$"
    local more = line:match "^%s*%-%-%-     (.*)$"
    if not more then inside = false
    elseif inside == false then inside = first ~= nil and is_code(first) and "code" or "text" end
    program[i] = inside == "code" and more or ""
  end
  return program
end

--- The program in a page's fenced blocks.
---@param path string
---@return string[]
function literate.in_page(path)
  local program, inside = {}, false
  for i, line in ipairs(lines_of(path)) do
    if line:match "^```" then
      inside = line == "```lua"
      line = ""
    end
    program[i] = inside and line or ""
  end
  return program
end

-- ---- what is answered -------------------------------------------------------------------------

local MORE = setmetatable({}, { __tostring = function () return "…" end })

local about = {}
about.__index = about
about.__tostring = function (self) return self.digits .. "…" end

local function between(mark) return P(mark) * (P "\\" * 1 + 1 - P(mark)) ^ 0 * mark end
local quoted = between '"' + between "'"
local number = S "-" ^ -1 * R "09" ^ 1 * (P "." * R "09" ^ 0) ^ -1
local as_lua = Cs((quoted + C(number) * "…" / 'about "%1"' + P "…" / "more" + 1) ^ 0)

local function read(want, env)
  local chunk = assert(loadstring("return " .. as_lua:match(want)))
  setfenv(chunk, setmetatable({
    more = MORE, about = function (digits) return setmetatable({ digits = digits }, about) end,
  }, { __index = env }))
  local values = { n = 0 }
  local function keep(...) values = { n = select("#", ...), ... } end
  keep(chunk())
  return values
end

local function show(value, depth)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) == "number" then return ("%.14g"):format(value) end
  local class = getmetatable(value)
  if type(value) ~= "table" or class and class.__tostring or (depth or 0) > 3 then
    return tostring(value)
  end
  local fields, keys = {}, {}
  for i, each in ipairs(value) do fields[i] = show(each, (depth or 0) + 1) end
  for key in pairs(value) do if not fields[key] then keys[#keys + 1] = key end end
  table.sort(keys, function (a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    fields[#fields + 1] = tostring(key) .. " = " .. show(value[key], (depth or 0) + 1)
  end
  return fields[1] and "{ " .. concat(fields, ", ") .. " }" or "{}"
end

local function shorter_text(want, got)
  local first, last = want:match "^(.-)…(.*)$"
  if not first then return want == got end
  return #got >= #first + #last and got:sub(1, #first) == first
    and got:sub(#got - #last + 1) == last
end

local agrees

local function tables_agree(want, got)
  local rest = false
  for key, value in pairs(want) do
    if value == MORE then rest = true
    elseif not agrees(value, got[key]) then return false end
  end
  for key in pairs(rest and {} or got) do if want[key] == nil then return false end end
  return true
end

function agrees(want, got)
  if type(got) == "cdata" then got = tonumber(got) or tostring(got) end
  if getmetatable(want) == about then
    return type(got) == "number" and tostring(got):sub(1, #want.digits) == want.digits
  elseif type(want) == "number" and type(got) == "number" then
    return want == got or math.abs(want - got) <= 1e-9 * math.max(1, math.abs(want))
  elseif type(want) == "string" then
    local class = getmetatable(got)
    if type(got) == "table" and class and class.__tostring then got = tostring(got) end
    return type(got) == "string" and shorter_text(want, got)
  elseif type(want) == "table" and type(got) == "table" then
    return tables_agree(want, got)
  end
  return want == got
end

local function all_agree(want, count, ...)
  for i = 1, want.n do
    if want[i] == MORE then return true end
    if not agrees(want[i], (select(i, ...))) then return false end
  end
  for i = want.n + 1, count do if (select(i, ...)) ~= nil then return false end end
  return true
end

-- ---- running ----------------------------------------------------------------------------------

--- Have what a statement answers checked, which ends at line i and is the shortest that does.
local function check(program, i, name)
  local code, want = split(program[i])
  program[i] = code
  for first = i, 1, -1 do
    local text = concat(program, "\n", first, i)
    local head, set = program[first]:match "^%s*", text:match "^%s*local ([%w_, ]+)="
      or text:match "^%s*([%w_, ]+)=[^=]"
    if text:find "%S" and loadstring("return " .. text) then
      program[first] = ("%s%s(%d, "):format(head, name, i) .. program[first]:sub(#head + 1)
      program[i] = program[i] .. ")"
      return want
    elseif set and loadstring(text) then
      program[i] = ("%s; %s(%d, %s)"):format(code, name, i, set)
      return want
    end
  end
  error(("line %d: --> is not after an expression, nor after variables that are set"):format(i), 0)
end

--- Run a program, and look at all that it says of its answers. What disagrees is an error.
---@param path string
---@param lines string[]
---@param env table
---@return integer  how many answers it said
function literate.run(path, lines, env)
  local program, wants, count = {}, {}, 0
  for i, line in ipairs(lines) do
    program[i] = line
    if select(2, split(line)) then
      wants[i] = check(program, i, "_answers")
      count = count + 1
    end
  end
  env._answers = function (i, ...)
    if not all_agree(read(wants[i], env), select("#", ...), ...) then
      local got = {}
      for n = 1, select("#", ...) do got[n] = show((select(n, ...))) end
      error(("%s:%d: says %s, but is %s"):format(path, i, wants[i], concat(got, ", ")), 0)
    end
    return ...
  end
  local chunk = assert(loadstring(concat(program, "\n"), "@" .. path))
  setfenv(chunk, env)()
  return count
end

return literate
