--- Rows of cells as lines, the columns aligned; the last cell of a row has no column.
local ipairs, max, concat = ipairs, math.max, table.concat

---@param rows string[][]
---@return string[] lines  each two blanks in
return function (rows)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i = 1, #row - 1 do widths[i] = max(widths[i] or 0, #row[i]) end
  end
  for n, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do cells[i] = cell .. (" "):rep((widths[i] or 0) - #cell) end
    lines[n] = ("  " .. concat(cells, "  ")):gsub(" +$", "")
  end
  return lines
end
