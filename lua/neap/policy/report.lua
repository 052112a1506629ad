--- What is wrong with a policy file: all of it, in the order of the text.
--
--     bad.lua:3:15: limits.input: bad limit "5/mn": unknown time unit 'mn' (did you mean 'min'?)
--             input = "5/mn",
--                        ^
--
-- A mistake that a loop repeats is told once. Nothing from the file reaches a terminal raw.
local notation = require "neap.notation"

local ipairs, setmetatable, tostring = ipairs, setmetatable, tostring
local concat, sort = table.concat, table.sort
local max = math.max

local MOST = 100          -- mistakes told; the rest are counted
local LONGEST = 1000      -- bytes of a message
local WIDTH = 120         -- bytes of a source line shown
local INDENT = "    "

---@class neap.mistake
---@field file string
---@field line integer?
---@field col integer?      in bytes, from 1
---@field path string?      "limits.input"
---@field message string    with the hint, if there is one
---@field source string?    the line of the file
---@field hint string?      the word that was probably meant
---@field warning boolean?
local Mistake = {}

-- The part of the line around the column, and the caret under it. Characters, not bytes, are
-- counted before the caret; tabs stay tabs.
local function quote(line, col)
  local from = 1
  if #line > WIDTH then from = max(1, (col or 1) - WIDTH / 2) end
  while from > 1 and line:find("^[\128-\191]", from) do from = from - 1 end
  local shown = line:sub(from, from + WIDTH - 1)
  if #line > from + WIDTH - 1 then shown = shown:gsub("[\192-\255]?[\128-\191]*$", "") end
  local before = from > 1 and "…" or ""
  local after = #line > from + WIDTH - 1 and "…" or ""
  local text = INDENT .. before .. shown:gsub("[%z\1-\8\10-\31\127]", "?") .. after
  if not col then return text end
  local space = (before .. line:sub(from, col - 1)):gsub("[\128-\191]", ""):gsub("[^\t]", " ")
  return text .. "\n" .. INDENT .. space .. "^"
end

function Mistake:__tostring()
  local where = { self.file }
  where[#where + 1] = self.line
  where[#where + 1] = self.col
  local text = concat(where, ":") .. ": " .. (self.warning and "warning: " or "")
    .. (self.path and self.path .. ": " or "") .. self.message
  if not self.source or not self.source:find "%S" then return text end
  return text .. "\n" .. quote(self.source, self.col)
end

-- A file that could not be read has no place to point to.
local Unread = {}

function Unread:__tostring()
  return "neap: " .. self.message
end

local Mistakes = {}

function Mistakes:__tostring()
  local texts = {}
  for i, mistake in ipairs(self) do texts[i] = tostring(mistake) end
  return concat(texts, "\n")
end

---@class neap.report
local report = {}
report.__index = report

---@param file string
---@param source neap.source?   of places that do not say
---@param strict boolean?       warnings are mistakes, too
function report.new(file, source, strict)
  return setmetatable({ file = notation.show(file, 4096), source = source, told = {}, more = 0,
    mistakes = {}, warnings = {}, strict = strict }, report)
end

--- The one mistake of a file that is not there.
---@return neap.mistake[]
function report.unread(file, message)
  message = ("cannot read '%s': %s"):format(notation.show(file, 4096), message)
  local mistake = { file = file, message = message }
  return setmetatable({ setmetatable(mistake, Unread) }, Mistakes)
end

--- Whether one more would only be counted.
function report:full()
  return #self.mistakes >= MOST
end

-- A mistake at a place, for this list; nil when it was told before.
local function note(self, list, place, path, message)
  local line, col, source = place.line, nil, place.source or self.source
  if place.at then line, col = source:place(place.at) end
  message = notation.show(message, LONGEST)
  local file = source and notation.show(source.file, 4096) or self.file
  local key = concat({ file, line or 0, col or 0, path or "", message }, "\0")
  if self.told[key] then return nil end
  self.told[key] = true
  return setmetatable({ file = file, line = line, col = col, path = path, message = message,
    order = #list, rank = source and source.rank or 0,
    source = line and source and source:line(line) or nil }, Mistake)
end

--- Add a mistake at a place: a byte position, or a line, or neither.
---@param place { at: integer?, line: integer?, source: neap.source? }
---@param path string?
---@param message string
---@param hint string?   the word the message offers
function report:add(place, path, message, hint)
  local mistake = note(self, self.mistakes, place, path, message)
  if not mistake then return end
  if self:full() then
    self.more = self.more + 1
    return
  end
  mistake.hint = hint
  self.mistakes[#self.mistakes + 1] = mistake
end

--- Add what is right, and yet hardly meant; a mistake to those who are strict.
---@param place { at: integer?, line: integer?, source: neap.source? }
---@param path string?
---@param message string
function report:warn(place, path, message)
  if self.strict then return self:add(place, path, message) end
  if #self.warnings >= MOST then return end
  local warning = note(self, self.warnings, place, path, message)
  if not warning then return end
  warning.warning = true
  self.warnings[#self.warnings + 1] = warning
end

local function by_place(a, b)
  if a.rank ~= b.rank then return a.rank < b.rank end
  if a.line ~= b.line then return (a.line or 0) < (b.line or 0) end
  if a.col ~= b.col then return (a.col or 0) < (b.col or 0) end
  return a.order < b.order
end

local function in_order(list)
  sort(list, by_place)
  for _, mistake in ipairs(list) do mistake.order, mistake.rank = nil, nil end
  return setmetatable(list, Mistakes)
end

--- All mistakes by file, line and column, or nil when there are none; and the warnings.
---@return neap.mistake[]? mistakes, neap.mistake[] warnings
function report:finish()
  local mistakes, warnings = self.mistakes, in_order(self.warnings)
  if #mistakes == 0 then return nil, warnings end
  in_order(mistakes)
  if self.more > 0 then
    mistakes[#mistakes + 1] = setmetatable({ file = self.file,
      message = ("%d more mistakes"):format(self.more) }, Mistake)
  end
  return mistakes, warnings
end

return report
