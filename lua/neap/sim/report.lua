--- What a simulation says, as text.
local ipairs = ipairs
local max = math.max
local concat = table.concat

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

return report
