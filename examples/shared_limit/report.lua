--- What the main job shows: a line per client while it runs; in the end a table and a plot.
local floor, max, min = math.floor, math.max, math.min

local EIGHTHS = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", [0] = " " }
local FULL, UPPER = "█", "▀"
local COLUMNS = 100       -- of the plot, at most
local ROWS = 4            -- of each half of it, at most
local SILENCE = 2         -- seconds between progress lines where nothing can be redrawn

local is_tty = os.execute "test -t 1" == 0
local in_color = is_tty and not os.getenv "NO_COLOR"

local function color(code, text)
  return in_color and ("\27[%dm%s\27[0m"):format(code, text) or text
end

local function green(text) return color(32, text) end
local function red(text) return color(31, text) end

local function bar(share, width)
  local eighths = floor(share * width * 8)
  local full, rest = floor(eighths / 8), eighths % 8
  return FULL:rep(full) .. (rest > 0 and EIGHTHS[rest] or "") ..
    ("·"):rep(width - full - (rest > 0 and 1 or 0))
end

local function client_line(i, client, calls)
  local refused = ("%5d refused"):format(client.refused)
  return ("  client %d  %s %4d/%d served %s"):format(i,
    green(bar(client.served / calls, 30)), client.served, calls,
    client.refused > 0 and red(refused) or refused)
end

local report = {}

--- A function to call often with a tally (shared_limit.lua says what that is), and at last with
--- true as well.
---@param calls integer  wanted by each client
---@return fun(tally: table, seconds: number, at_last: true?)
function report.progress(calls)
  local drawn, spoken = false, 0
  return function (tally, seconds, at_last)
    if not is_tty and not at_last and seconds < spoken + SILENCE then return end
    spoken = seconds
    if is_tty and drawn then io.write(("\27[%dA"):format(#tally.clients)) end
    drawn = true
    for i, client in ipairs(tally.clients) do
      io.write(client_line(i, client, calls), is_tty and "\27[K" or ("  %4.1f s"):format(seconds),
        "\n")
    end
    io.flush()
  end
end

--- Print rows of a name and one text per tally.
---@param heads string[]
---@param rows string[][]
function report.table(heads, rows)
  local function line(row)
    io.write(("  %-32s"):format(row[1]))
    for i = 2, #row do io.write(("%16s"):format(row[i])) end
    io.write "\n"
  end
  line { "", unpack(heads) }
  for _, row in ipairs(rows) do line(row) end
end

-- ---- the plot ---------------------------------------------------------------------------------

--- How many of `times` fall in each column.
local function columns_of(times, first, width_s, count)
  local columns = {}
  for i = 1, count do columns[i] = 0 end
  for _, time in ipairs(times) do
    -- times are whole milliseconds; half of one keeps a boundary on its side
    local i = floor((time - first + 0.0005) / width_s) + 1
    columns[i] = columns[i] + 1
  end
  return columns
end

--- One line of the upper half, where calls `from` to `from + step` stand.
local function above(columns, from, step)
  local cells = {}
  for i, n in ipairs(columns) do
    local eighths = floor(max(0, min(1, (n - from) / step)) * 8 + 0.5)
    if eighths == 0 and n > from and from == 0 then eighths = 1 end   -- a call is never invisible
    cells[i] = eighths == 8 and FULL or EIGHTHS[eighths]
  end
  return green(table.concat(cells))
end

--- One line of the lower half, which hangs down: only half blocks exist for that.
local function below(columns, from, step)
  local cells = {}
  for i, n in ipairs(columns) do
    local share = (n - from) / step
    cells[i] = share > 0.5 and FULL or share > 0 and UPPER or " "
  end
  return red(table.concat(cells))
end

local function most(columns)
  local n = 0
  for _, value in ipairs(columns) do n = max(n, value) end
  return n
end

--- Served calls stand on the axis, refused ones hang from it; all plots have one scale.
---@param tallies table[]
---@param rate integer  calls per second that the downstream allows
function report.plot(tallies, rate)
  local longest, highest = 0, 0
  for _, tally in ipairs(tallies) do longest = max(longest, tally.last - tally.first) end
  local width_s = 0.1 * math.ceil((longest + 0.001) / 0.1 / COLUMNS)
  local halves = {}
  for i, tally in ipairs(tallies) do
    local count = floor((tally.last - tally.first + 0.0005) / width_s) + 1
    halves[i] = { columns_of(tally.served, tally.first, width_s, count),
      columns_of(tally.refused, tally.first, width_s, count) }
    highest = max(highest, most(halves[i][1]), most(halves[i][2]))
  end
  local step = rate * width_s / 2     -- two rows are what the rate allows
  while highest > step * ROWS do step = step * 2 end

  print(("calls per %d ms, served above the axis and refused below; the rate allows %d")
    :format(width_s * 1000, rate * width_s))
  for i, tally in ipairs(tallies) do
    local served, refused = halves[i][1], halves[i][2]
    print(("\n        %s, %.1f s"):format(tally.name, tally.last - tally.first))
    for row = math.ceil(most(served) / step), 1, -1 do
      print(("%5d ┤%s"):format(row * step, above(served, (row - 1) * step, step)))
    end
    print("    0 ┼" .. ("─"):rep(#served))
    for row = 1, math.ceil(most(refused) / step) do
      print(("%5d ┤%s"):format(row * step, below(refused, (row - 1) * step, step)))
    end
  end
end

return report
