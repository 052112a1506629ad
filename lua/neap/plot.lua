--- A plot, as lines of text: for the prompt, for `neap sim`, for whoever has a terminal.
---
--- Each series has a panel of its own, one below the other, over the same stretch of x: what moves
--- together is then seen together, without colours. A character of a terminal is a grid of two by
--- four dots (Unicode's braille patterns, from U+2800), so a panel of 60 by 6 has 120 by 24.
---
---      60 ┤⠑⢄
---         │  ⠑⢄  ⢀⠔⠉⠉⠉⠉⠉
---       0 ┤    ⠉⠉⠁
---         └──────────────
---          0s          1m
---
--- A series is a line through its points, or a stair: what a limit has left, say, is what it was
--- until the next change. No point is lost, however many share a column: a peak is seen.
---
---     local plot = require "neap.plot"
---     local lines = plot.lines({ { name = "level", x = { 0, 1, 2 }, y = { 0, 4, 0 } } },
---       { width = 8, height = 2 })
---     lines[1]                                            --> "level"
local error, ipairs, pairs, tostring, type = error, ipairs, pairs, tostring, type
local abs, ceil, floor, huge = math.abs, math.ceil, math.floor, math.huge
local max, min = math.max, math.min
local char, concat = string.char, table.concat
local bor, rshift, band = bit.bor, bit.rshift, bit.band

local ACROSS, DOWN = 2, 4         -- dots of a character
local DOTS = { { 0x01, 0x02, 0x04, 0x40 }, { 0x08, 0x10, 0x20, 0x80 } }   -- by column, from above
local BLOCKS = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" }
local WIDTH, HEIGHT = 60, 6
local LEAST, MOST = 2, 1000       -- characters

local plot = {}

---@class neap.plot.Series
---@field name string?
---@field x number[]     never falling
---@field y number[]     as many
---@field stair boolean? y holds until the next point

---@class neap.plot.Options
---@field width integer?    characters of a panel's inside, 60 unless told
---@field height integer?   6 unless told
---@field x_text (fun(x: number): string)?   how numbers are written at the axes
---@field y_text (fun(y: number): string)?
---@field from number?      where x begins and ends; from the first point to the last unless told
---@field to number?
---@field bottom number?    where y does; 0 or less, and the largest of all series, unless told
---@field top number?

-- A braille pattern, in UTF-8: three bytes.
local function braille(dots)
  return char(0xe2, bor(0xa0, rshift(dots, 6)), bor(0x80, band(dots, 0x3f)))
end

-- Characters, not bytes.
local function length(text) return select(2, text:gsub("[^\128-\191]", "")) end

local function right(text, width) return (" "):rep(width - length(text)) .. text end

-- ---- the canvas --------------------------------------------------------------------------------

-- Dots, from the upper left one, each in its character.
local function dot(canvas, x, y)
  local row = canvas[floor(y / DOWN)]
  local column = floor(x / ACROSS)
  row[column] = bor(row[column], DOTS[x % ACROSS + 1][y % DOWN + 1])
end

local function line(canvas, x0, y0, x1, y1)
  local steps = max(abs(x1 - x0), abs(y1 - y0))
  for i = 0, steps do
    local part = steps > 0 and i / steps or 0
    dot(canvas, floor(x0 + (x1 - x0) * part + 0.5), floor(y0 + (y1 - y0) * part + 0.5))
  end
end

local function blank(width, height)
  local canvas = {}
  for r = 0, height - 1 do
    canvas[r] = {}
    for c = 0, width - 1 do canvas[r][c] = 0 end
  end
  return canvas
end

local function draw(canvas, one, range, width, height)
  local across, down = width * ACROSS - 1, height * DOWN - 1
  local function place(value, from, to, dots)
    value = min(max(value, from), to)
    return to > from and floor((value - from) / (to - from) * dots + 0.5) or 0
  end
  local x0, y0
  for i, x in ipairs(one.x) do
    if x >= range.from and x <= range.to then
      local x1 = place(x, range.from, range.to, across)
      local y1 = down - place(one.y[i], range.bottom, range.top, down)
      if x0 and one.stair then
        line(canvas, x0, y0, x1, y0)
        line(canvas, x1, y0, x1, y1)
      else
        line(canvas, x0 or x1, y0 or y1, x1, y1)
      end
      x0, y0 = x1, y1
    end
  end
  if x0 and one.stair then line(canvas, x0, y0, across, y0) end
end

-- ---- the axes ----------------------------------------------------------------------------------

local function range_of(series, options)
  local from, to, bottom, top = huge, -huge, 0, -huge
  for _, one in ipairs(series) do
    for i, x in ipairs(one.x) do
      local y = one.y[i]
      from, to = min(from, x), max(to, x)
      if y ~= huge and y ~= -huge then bottom, top = min(bottom, y), max(top, y) end
    end
  end
  if from > to then from, to = 0, 1 end
  from, to = options.from or from, options.to or to
  bottom, top = options.bottom or bottom, options.top or max(top, bottom)
  return { from = from, to = to > from and to or from + 1, bottom = bottom,
    top = top > bottom and top or bottom + 1 }
end

local function foot(range, width, left, text)
  local first, last = text(range.from), text(range.to)
  local middle = text((range.from + range.to) / 2)
  local inner = width - length(first) - length(last)
  local before = floor(width / 2 - length(middle) / 2) - length(first)
  if before < 2 or inner - before - length(middle) < 2 then
    middle, before = "", max(1, inner)
  end
  local after = middle ~= "" and inner - before - length(middle) or 0
  return (" "):rep(left + 2) .. first .. (" "):rep(before) .. middle .. (" "):rep(after) .. last
end

local function panel(lines, one, range, options)
  local width, height = options.width, options.height
  local canvas = blank(width, height)
  draw(canvas, one, range, width, height)
  if one.name then lines[#lines + 1] = one.name end
  for r = 0, height - 1 do
    local label = r == 0 and options.top_text or r == height - 1 and options.bottom_text or ""
    local cells = {}
    for c = 0, width - 1 do
      local dots = canvas[r][c]
      cells[c + 1] = dots == 0 and " " or braille(dots)
    end
    lines[#lines + 1] = (right(label, options.left) .. (label ~= "" and " ┤" or " │")
      .. concat(cells)):gsub(" +$", "")
  end
  lines[#lines + 1] = (" "):rep(options.left) .. " └" .. ("─"):rep(width)
end

-- ---- plots -------------------------------------------------------------------------------------

local function plain(n) return ("%.6g"):format(n) end

local function size(options, name, usual)
  local n = options[name] or usual
  if type(n) ~= "number" or n % 1 ~= 0 or n < LEAST or n > MOST then
    error(("%s: a whole number from %d to %d expected, got %s"):format(name, LEAST, MOST,
      tostring(n)), 3)
  end
  return n
end

--- Plot series, from above to below.
---
---     lines[2]                                            --> "4 ┤…"
---
---@param series neap.plot.Series[]
---@param options? neap.plot.Options
---@return string[] lines  as many as `height` and one for each series, its name, and x at the end
function plot.lines(series, options)
  if type(series) ~= "table" or type(series[1]) ~= "table" then
    error("lines: a list of series expected, as in { { x = { 0, 1 }, y = { 5, 7 } } }", 2)
  end
  for i, one in ipairs(series) do
    if type(one.x) ~= "table" or type(one.y) ~= "table" or #one.x ~= #one.y then
      error(("series %d: x and y expected, lists of the same length"):format(i), 2)
    end
  end
  local how = {}
  for name, value in pairs(options or {}) do how[name] = value end
  how.width, how.height = size(how, "width", WIDTH), size(how, "height", HEIGHT)
  local range, text = range_of(series, how), how.y_text or plain
  how.top_text, how.bottom_text = text(range.top), text(range.bottom)
  how.left = max(length(how.top_text), length(how.bottom_text))
  local lines = {}
  for _, one in ipairs(series) do panel(lines, one, range, how) end
  lines[#lines + 1] = foot(range, how.width, how.left, how.x_text or plain)
  return lines
end

--- One line of blocks for numbers, the largest of which is the tallest: "▁▃█".
---
---     plot.spark { 0, 2, 8 }                              --> " ▂█"
---
---@param values number[]
---@param top? number  the tallest; the largest of them unless told
---@return string
function plot.spark(values, top)
  local most, cells = top or 0, {}
  for _, value in ipairs(top and {} or values) do most = max(most, value) end
  for i, value in ipairs(values) do
    local level = most > 0 and ceil(min(max(value / most, 0), 1) * #BLOCKS - 1e-9) or 0
    cells[i] = BLOCKS[level] or " "
  end
  return concat(cells)
end

return plot
