--- What a simulation says, as text.
local notation = require "neap.notation"
local plot = require "neap.plot"
local runs = require "neap.sim.runs"
local tally = require "neap.sim.tally"

local ipairs, pairs, unpack = ipairs, pairs, unpack
local abs, floor, max = math.abs, math.floor, math.max
local concat, sort = table.concat, table.sort

local report = {}

--- Characters that a terminal shows for UTF-8 text without wide ones.
local function width(text) return select(2, text:gsub("[^\128-\191]", "")) end

--- Lines of aligned columns: the first to the left, the others to the right unless told.
---@param rows string[][]
---@param left table<integer, true>?  more columns that go to the left
---@return string
function report.columns(rows, left)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = max(widths[i] or 0, width(cell)) end
  end
  for k, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do
      local blanks = (" "):rep(widths[i] - width(cell))
      cells[i] = (i == 1 or left and left[i]) and cell .. blanks or blanks .. cell
    end
    lines[k] = (concat(cells, "  "):gsub(" +$", ""))
  end
  return concat(lines, "\n") .. "\n"
end

--- A number with six digits that count.
---@param n number
---@return string
function report.number(n) return n == 0 and "0" or ("%.6g"):format(n) end

--- An experiment's outcome.
---@param outcome neap.sim.Outcome
---@param seed integer
---@return string
function report.experiment(outcome, seed)
  local rows = { { "", "measured", "reference", "of tolerance", "" } }
  for _, row in ipairs(outcome.rows) do
    rows[#rows + 1] = { row.what, row.got and report.number(row.got) or "",
      row.wanted and report.number(row.wanted) or "",
      row.off and ("%.0f %%"):format(row.off * 100) or "", row.fine and "ok" or "OFF" }
  end
  local text = { outcome.name, ": ", outcome.about, "\nwithin ", outcome.tolerance, "; seed ",
    ("%d"):format(seed), "\n\n", report.columns(rows, { [5] = true }) }
  for _, note in ipairs(outcome.notes) do text[#text + 1] = note .. "\n" end
  text[#text + 1] = outcome.fine and "\nok\n"
    or "\nOFF: what is measured is not what it should be\n"
  return concat(text)
end

-- ---- scenarios ---------------------------------------------------------------------------------

-- What is told, in order: name in the results, words, and how it is written.
local function count(n) return ("%.0f"):format(n) end
local function rate(n) return report.number(n) .. "/s" end
local function percent(n) return ("%.4g"):format(n * 100) .. " %" end
local function times(n) return ("%.4g"):format(n) .. " x" end
local function duration(s)
  if s == 0 then return "0 s" end
  if s < 1e-3 then return ("%.4g us"):format(s * 1e6) end
  return s < 1 and ("%.4g ms"):format(s * 1e3) or ("%.4g s"):format(s)
end
local function plain(n) return ("%.4g"):format(n) end

report.ROWS = {
  { "offered", "calls that came", count }, { "good", "ended well", count },
  { "failed", "did not", count }, { "success", "share that ended well", percent },
  { "goodput", "ended well, a second", rate },
  { "p50_latency", "they took, median", duration }, { "p99_latency", "99 % of them", duration },
  { "asked", "attempts at the limiter", count }, { "granted", "let go", count },
  { "refused", "turned away", count }, { "expired", "of these, after waiting in vain", count },
  { "refused_share", "share turned away", percent },
  { "at_once", "of those let go, at once", percent }, { "mean_wait", "waited, mean", duration },
  { "p50_wait", "median", duration }, { "p99_wait", "99 % of them", duration },
  { "max_wait", "longest", duration },
  { "sent", "sent downstream", count }, { "load", "for each call", times },
  { "throttled", "answered 429", count }, { "broken", "failed there", count },
  { "timeouts", "given up by clients", count },
  { "fairness", "fairness between keys (Jain)", plain },
}

local function interval(text, half, write)
  return half and half > 1e-9 and text .. " ± " .. write(half) or text
end

local function told_of(result)
  local list = {}
  for name in pairs(result.told) do list[#list + 1] = name end
  sort(list)
  for i, name in ipairs(list) do list[i] = name .. " " .. report.number(result.told[name]) end
  return list[1] and "events: " .. concat(list, ", ") .. "\n" or ""
end

--- What a scenario came to.
---@param title string
---@param result neap.sim.Result
---@return string
function report.scenario(title, result)
  local rows = {}
  for i, row in ipairs(report.ROWS) do
    local name, words, write = unpack(row)
    rows[i] = { name, interval(write(result.mean[name]), result.half and result.half[name], write),
      words }
  end
  return title .. "\n\n" .. report.columns(rows, { [3] = true }) .. told_of(result)
end

--- Two policies in one scenario, and how they differ.
---@param title string
---@param names string[]     of both
---@param this neap.sim.Result
---@param other neap.sim.Result
---@return string
function report.against(title, names, this, other)
  local rows = { { "", names[1], names[2], "difference", "" } }
  for _, row in ipairs(report.ROWS) do
    local name, words, write = unpack(row)
    local mean, half = runs.difference(this, other, name)
    local sign = mean < 0 and "-" or "+"
    local text = mean == 0 and not (half and half > 0) and "0" or sign .. write(abs(mean))
    rows[#rows + 1] = { name, write(this.mean[name]), write(other.mean[name]),
      interval(text, half, write), words }
  end
  return title .. "\n\n" .. report.columns(rows, { [5] = true })
    .. names[1] .. " " .. told_of(this) .. names[2] .. " " .. told_of(other)
end

local function clock(s) return notation.format_duration(floor(s * 10 + 0.5) * 1e8) end

local SHOWN = { "offered", "granted", "good" }

--- How it went by time, for a terminal.
---@param result neap.sim.Result
---@param across integer   characters
---@return string
function report.plot(result, across)
  local series = {}
  for i, name in ipairs(SHOWN) do
    local x = {}
    for k = 1, result.bins do x[k] = (k - 1) * result.bin_s end
    series[i] = { name = name .. ", a second", x = x, y = result.series[name], stair = true }
  end
  return concat(plot.lines(series, { width = across, height = 4,
    to = result.bins * result.bin_s, x_text = clock,
    y_text = function (y) return ("%.4g"):format(y) end }), "\n") .. "\n"
end

--- By time, as comma-separated values: the second in which a bin begins, and counts a second in it.
---@param result neap.sim.Result
---@return string
function report.csv(result)
  local lines = { "t," .. concat(tally.SERIES, ",") }
  for k = 1, result.bins do
    local cells = { report.number((k - 1) * result.bin_s) }
    for i, name in ipairs(tally.SERIES) do cells[i + 1] = report.number(result.series[name][k]) end
    lines[k + 1] = concat(cells, ",")
  end
  return concat(lines, "\n") .. "\n"
end

return report
