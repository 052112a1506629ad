--- How it would go on: who is granted when, and what limits will have. All of it is looked up in a
--- rehearsal (see neap.cli.clock), so the engine itself has said it.
local clock = require "neap.cli.clock"
local edit = require "neap.cli.edit"
local plot = require "neap.plot"
local show = require "neap.cli.show"
local views = require "neap.cli.views"

local concat, error, ipairs, max, min = table.concat, error, ipairs, math.max, math.min
local setmetatable, tonumber, tostring = setmetatable, tonumber, tostring

local DAY_NS = 86400e9
local SAMPLES = 240          -- of a plot
local HEIGHT = 5

local forecast = {}

-- ---- calls in line ----------------------------------------------------------------------------

local function in_line(bench)
  local list = {}
  for _, call in ipairs(bench.calls) do
    if not call.at then list[#list + 1] = call end
  end
  return list
end

--- Who of these ends when: "3 0.6 granted" a line, of those that end at all.
local function look_ahead(bench, calls, within_ns)
  local its_clock = bench.clock
  return clock.rehearse(its_clock, bench.signals, function ()
    local function over()
      for _, call in ipairs(calls) do
        if not call.at then return false end
      end
      return true
    end
    clock.run(its_clock, its_clock.rt.now_ns() + within_ns, over)
    local lines = {}
    for _, call in ipairs(calls) do
      if call.at then
        lines[#lines + 1] = ("%d %.17g %s\n"):format(call.n, call.at,
          call.permit and "granted" or call.why or "error")
      end
    end
    return concat(lines)
  end)
end

---@return table<integer, { at: number, granted: boolean, word: string }>
local function ends_of(bench, calls, within_ns)
  local ends = {}
  if not calls[1] then return ends end
  for n, at, word in look_ahead(bench, calls, within_ns):gmatch "(%d+) (%S+) (%S+)\n" do
    ends[tonumber(n)] = { at = tonumber(at), granted = word == "granted", word = word }
  end
  return ends
end

--- When a call in line ends; nil when no clock can tell.
---@param bench neap.Bench
---@param call neap.cli.Call
---@return { at: number, granted: boolean, word: string }?
function forecast.of(bench, call) return ends_of(bench, in_line(bench), DAY_NS)[call.n] end

local Timeline = {}
Timeline.__index = Timeline

function Timeline:__tostring()
  local rows = {}
  for i, entry in ipairs(self) do
    rows[i] = { entry.at and show.duration(entry.at) or "-", ("#%d %s"):format(entry.n, entry.of),
      entry.what }
  end
  return rows[1] and views.columns(rows) or "nobody is in line"
end

--- Those in line, in the order in which they will leave it.
---@param bench neap.Bench
---@param within_ns integer
---@return { n: integer, of: string, at: number?, what: string }[]
function forecast.timeline(bench, within_ns)
  local calls = in_line(bench)
  local ends = ends_of(bench, calls, within_ns)
  local list = setmetatable({}, Timeline)
  for i, call in ipairs(calls) do
    local found = ends[call.n]
    list[i] = { n = call.n, of = call.of, at = found and found.at,
      what = not found and "when a permit comes back"
        or (found.granted and "granted" or found.word)
        .. ", after " .. show.duration(found.at - call.began) }
  end
  table.sort(list, function (a, b)
    local x, y = a.at or math.huge, b.at or math.huge
    if x ~= y then return x < y end
    return a.n < b.n
  end)
  return list
end

-- ---- plots ------------------------------------------------------------------------------------

--- What is plotted: limits with a name each.
local function limits_in(bench, what)
  if views.is_limit(what) then return { what } end
  if type(what) == "string" then
    bench:of(what)
    what = bench.policies[what]
  end
  local list = {}
  if views.is_policy(what) then
    for _, limit in ipairs(what.limits) do
      if not limit.keyed then list[#list + 1] = limit end
    end
    if not list[1] then error("plot: its limits are all by key", 0) end
    return list
  end
  local of, name = bench:of(what)
  return { { label = name, limiter = of, text = tostring(of) } }
end

local Plot = {}
Plot.__index = Plot

function Plot:__tostring() return concat(self, "\n") end

local function drawn(limits, rows, within_ns)
  local series, lines = {}, setmetatable({}, Plot)
  local width = max(20, min(100, edit.width() - 12))
  for i, limit in ipairs(limits) do
    local x, y = {}, {}
    for k, row in ipairs(rows) do x[k], y[k] = row.at, row[i] end
    local top = max(1, unpack(y))
    local full = limit.limiter:capacity()
    series[i] = { name = ("%s: %s"):format(limit.label, limit.text), x = x, y = y }
    local panel = plot.lines({ series[i] }, { width = width, height = HEIGHT, from = 0,
      top = full < 2 ^ 53 and max(full, top) or top,
      to = within_ns / 1e9, x_text = function (s)
        return s == 0 and "now" or "+" .. show.duration(s)
      end })
    for _, line in ipairs(panel) do lines[#lines + 1] = line end
  end
  return lines
end

--- What limits will have, for so long from now on.
---@param bench neap.Bench
---@param what any        a policy, its name, one of its limits, or a limiter
---@param within_ns integer
---@return string[] lines
function forecast.plot(bench, what, within_ns)
  local limits, its_clock = limits_in(bench, what), bench.clock
  local text = clock.rehearse(its_clock, bench.signals, function ()
    local began, lines = its_clock.rt.now_ns(), {}
    for i = 0, SAMPLES do
      local passed = math.floor(within_ns * i / SAMPLES)
      if i > 0 then clock.run(its_clock, began + passed) end
      local cells = { ("%.17g"):format(passed / 1e9) }
      for k, limit in ipairs(limits) do
        cells[k + 1] = ("%.17g"):format(limit.limiter:available())
      end
      lines[#lines + 1] = concat(cells, " ")
    end
    return concat(lines, "\n") .. "\n"
  end)
  local rows = {}
  for line in text:gmatch "[^\n]+" do
    local row = {}
    for cell in line:gmatch "%S+" do
      if row.at then row[#row + 1] = tonumber(cell) else row.at = tonumber(cell) end
    end
    rows[#rows + 1] = row
  end
  return drawn(limits, rows, within_ns)
end

return forecast
