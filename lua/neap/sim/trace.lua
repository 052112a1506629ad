--- Traces: when calls came, as a file has it. Either a number of seconds begins each line (and what
--- follows a comma or a blank is not looked at), or it is a web server's access log, whose times
--- are in brackets or in ISO form:
---
---     0.25,tenant-1
---     127.0.0.1 - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.0" 200 2326
---     2024-05-01T12:00:00.123Z GET /
---
--- Time begins with the first line's. A log has whole seconds: its calls are spread evenly over
--- each.
local tonumber = tonumber
local sort = table.sort

local trace = {}

local MOST = 2 ^ 24
local MONTHS = {}
for i, name in ipairs { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov",
  "Dec" } do MONTHS[name] = i end

--- Days since 1970, of the Gregorian calendar.
local function days(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * month - 457) / 5) + day - 719469
end

local function seconds(year, month, day, hour, minute, second)
  return days(tonumber(year), month, tonumber(day)) * 86400 + hour * 3600 + minute * 60
    + tonumber(second)
end

local function zone(sign, hours, minutes)
  if not hours then return 0 end
  return (sign == "-" and -1 or 1) * (hours * 3600 + minutes * 60)
end

--- The instant that a line has, in seconds, and whether that is whole seconds of a log.
local function instant_of(line)
  local n = (line .. ","):match "^%s*(%d+%.?%d*[eE]?[+-]?%d*)[%s,]"
  if n and tonumber(n) then return tonumber(n), false end
  local day, month, year, h, m, s, sign, zh, zm =
    line:match "%[(%d%d?)/(%a%a%a)/(%d%d%d%d):(%d%d):(%d%d):(%d%d) ?([+-]?)(%d?%d?)(%d?%d?)%]"
  if day and MONTHS[month] then
    return seconds(year, MONTHS[month], day, h, m, s)
      - zone(sign, tonumber(zh), tonumber(zm)), true
  end
  year, month, day, h, m, s = line:match "(%d%d%d%d)-(%d%d)-(%d%d)[T ](%d%d):(%d%d):(%d%d%.?%d*)"
  if year then
    return seconds(year, tonumber(month), day, h, m, s), not s:find(".", 1, true)
  end
end

--- Calls of one whole second, spread over it.
local function spread(times)
  local i = 1
  while i <= #times do
    local j = i
    while times[j + 1] == times[i] do j = j + 1 end
    local n, base = j - i + 1, times[i]
    for k = i, j do times[k] = base + (k - i) / n end
    i = j + 1
  end
end

--- The instants of a trace, in ns from its first.
---@param path string      relative to the folder of `beside`
---@param beside string?
---@return number[]?
---@return string? message
function trace.read(path, beside)
  local folder = beside and path:sub(1, 1) ~= "/" and beside:match "^(.*/)" or ""
  local file, problem = io.open(folder .. path, "rb")
  if not file then return nil, problem end
  local times, whole, number = {}, false, 0
  for line in file:lines() do
    number = number + 1
    if line:find "%S" and not line:find "^%s*#" then
      local at, is_whole = instant_of(line)
      if not at and number > 1 then
        file:close()
        return nil, ("%s:%d: no time in this line"):format(path, number)
      elseif at then   -- a first line may name columns
        times[#times + 1], whole = at, whole or is_whole
      end
      if #times > MOST then
        file:close()
        return nil, path .. ": more than 2^24 calls"
      end
    end
  end
  file:close()
  if not times[1] then return nil, path .. ": no calls" end
  sort(times)
  if whole then spread(times) end
  local first = times[1]
  for i = 1, #times do times[i] = (times[i] - first) * 1e9 end
  return times
end

return trace
