--- A figure: how a scenario went, as one SVG file that needs nothing else and follows the reader's
--- choice of light or dark.
---
--- Two panels over the same time: calls a second that came, were let go, and ended well; and those
--- that were turned away or failed. Below stand the numbers. Each line carries the values that it
--- was drawn from, as the CSV has them.
local report = require "neap.sim.report"

local ceil, floor, log10, max = math.ceil, math.floor, math.log10, math.max
local concat = table.concat
local ipairs, unpack = ipairs, unpack

local figure = {}

local WIDTH, LEFT, RIGHT = 760, 56, 16
local TOP, PANEL, GAP = 64, 190, 60
local FOOT_ROW = 18

-- Series, their words, and their class. Colours keep a contrast of 3 and more on either ground.
local PANELS = {
  { { "offered", "came", "a" }, { "granted", "let go", "b" }, { "good", "ended well", "c" } },
  { { "refused", "turned away", "d" }, { "failed", "calls that failed", "e" } },
}

local STYLE = [[
<style>
svg { --ground: #ffffff; --ink: #1f2328; --faint: #59636e; --rule: #d1d9e0;
  --a: #59636e; --b: #0969da; --c: #1a7f37; --d: #bc4c00; --e: #cf222e; }
@media (prefers-color-scheme: dark) {
  svg { --ground: #0d1117; --ink: #f0f6fc; --faint: #9198a1; --rule: #3d444d;
    --a: #9198a1; --b: #4493f8; --c: #3fb950; --d: #db6d28; --e: #f85149; }
}
.ground { fill: var(--ground); } .rule { stroke: var(--rule); fill: none; }
text { font: 12px system-ui, sans-serif; fill: var(--ink); font-variant-numeric: tabular-nums; }
.title { font-size: 16px; font-weight: 600; } .faint { fill: var(--faint); }
.line { fill: none; stroke-width: 1.75; stroke-linejoin: round; }
.a { stroke: var(--a); } .b { stroke: var(--b); } .c { stroke: var(--c); } .d { stroke: var(--d); }
.e { stroke: var(--e); } .dash { stroke-dasharray: 4 3; }
</style>
]]

local ESCAPES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }
local function escaped(text) return (text:gsub('[&<>"]', ESCAPES)) end

--- A step for marks of an axis: 1, 2 or 5 times a power of ten, about `parts` of them.
local function step_of(range, parts)
  local rough = range / parts
  local power = 10 ^ floor(log10(rough))
  local n = rough / power
  return (n <= 1 and 1 or n <= 2 and 2 or n <= 5 and 5 or 10) * power
end

local function text_at(x, y, text, anchor, class)
  return ('<text x="%.1f" y="%.1f"%s%s>%s</text>\n'):format(x, y,
    anchor and ' text-anchor="' .. anchor .. '"' or "", class and ' class="' .. class .. '"' or "",
    escaped(text))
end

local function points_of(values, x_of, y_of)
  local points = {}
  for k, value in ipairs(values) do
    points[#points + 1] = ("%.2f,%.2f"):format(x_of(k - 1), y_of(value))
    points[#points + 1] = ("%.2f,%.2f"):format(x_of(k), y_of(value))
  end
  return concat(points, " ")
end

local function panel(out, result, list, top)
  local most = 0
  for _, each in ipairs(list) do
    for _, value in ipairs(result.series[each[1]]) do most = max(most, value) end
  end
  local step = step_of(max(most, 1e-9), 4)
  most = max(ceil(most / step), 1) * step
  local inner = WIDTH - LEFT - RIGHT
  local end_s = result.bins * result.bin_s
  local function x_of(k) return LEFT + inner * k / result.bins end
  local function y_of(value) return top + PANEL * (1 - value / most) end
  for i = 0, floor(most / step + 0.5) do
    local y = y_of(i * step)
    out[#out + 1] = ('<path class="rule" d="M%d %.1fH%d"/>\n'):format(LEFT, y, WIDTH - RIGHT)
    out[#out + 1] = text_at(LEFT - 8, y + 4, report.number(i * step), "end", "faint")
  end
  local mark = step_of(end_s, 8)
  for i = 0, floor(end_s / mark + 1e-9) do
    out[#out + 1] = text_at(LEFT + inner * i * mark / end_s, top + PANEL + 18,
      report.number(i * mark) .. " s", i == 0 and "start" or i * mark > 0.97 * end_s and "end"
      or "middle", "faint")
  end
  local x = LEFT
  for i, each in ipairs(list) do
    local name, words, class = unpack(each)
    local values = {}
    for k, value in ipairs(result.series[name]) do values[k] = report.number(value) end
    local look = class .. (i == 1 and list[3] and " dash" or "")
    out[#out + 1] = ('<polyline class="line %s" data-series="%s" data-values="%s" points="%s"/>\n')
      :format(look, name, concat(values, " "), points_of(result.series[name], x_of, y_of))
    out[#out + 1] = ('<path class="line %s" d="M%d %dh22"/>\n'):format(look, x, top - 14)
    out[#out + 1] = text_at(x + 28, top - 10, words)
    x = x + 52 + 7 * #words
  end
  out[#out + 1] = text_at(WIDTH - RIGHT, top - 10, "calls a second", "end", "faint")
end

--- The figure of a scenario.
---@param title string
---@param result neap.sim.Result
---@return string  SVG
function figure.svg(title, result)
  local rows = ceil(#report.ROWS / 3)
  local foot = TOP + 2 * PANEL + GAP + 56
  local height = foot + rows * FOOT_ROW + 12
  local out = { ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" '
    .. 'height="%d" role="img" aria-label="%s">\n'):format(WIDTH, height, WIDTH, height,
    escaped(title)), STYLE,
    ('<rect class="ground" width="%d" height="%d"/>\n'):format(WIDTH, height),
    text_at(LEFT, 26, title, nil, "title") }
  for i, list in ipairs(PANELS) do panel(out, result, list, TOP + (i - 1) * (PANEL + GAP)) end
  local third = (WIDTH - LEFT - RIGHT) / 3
  for i, row in ipairs(report.ROWS) do
    local name, _, write = unpack(row)
    local column = floor((i - 1) / rows)
    local x, y = LEFT + column * third, foot + ((i - 1) % rows) * FOOT_ROW
    out[#out + 1] = text_at(x, y, name, nil, "faint")
    out[#out + 1] = text_at(x + third - 24, y, write(result.mean[name]), "end")
  end
  out[#out + 1] = "</svg>\n"
  return concat(out)
end

return figure
