--- Values as a prompt shows them: in the notation of policies, where there is one.
---
---     { wait_s = 0.6, limit = { kind = "rate", … } }   { wait_s = 600ms, limit = "10/s burst 20" }
---     nil, "rate", 0.6                                 refused: rate, tokens have yet to arrive;
---                                                      again in 600ms
local ffi = require "ffi"
local errors = require "neap.errors"
local notation = require "neap.notation"

local concat, floor, huge = table.concat, math.floor, math.huge
local getmetatable, ipairs, pairs, pcall = getmetatable, ipairs, pairs, pcall
local select, sort, tonumber, tostring, type = select, table.sort, tonumber, tostring, type

local WIDTH = 78         -- of a table on one line
local DEEP, LONG = 4, 40 -- nested so far, and so many entries, are shown

local show = {}

local KINDS = { rate = true, in_flight = true, unlimited = true, closed = true }
local SECONDS = { wait = true, timeout = true, cooldown = true, delay = true, p50 = true,
  p90 = true, p99 = true, p999 = true }
local STEPS = { { 1, "s" }, { 1e-3, "ms" }, { 1e-6, "us" }, { 1e-9, "ns" } }

--- A duration, to six digits: "600ms", "1.5s", "2m0.25s".
---@param s number  seconds
---@return string
function show.duration(s)
  if s ~= s or s == huge then return "never" end
  if s < 0 then return "-" .. show.duration(-s) end
  if s >= 60 then
    local whole = floor(s + 5e-7)
    local rest = s - whole
    local minutes = whole - whole % 60
    local text = notation.format_duration(minutes * 1e9)
    local left = whole % 60 + (rest >= 5e-7 and s < 86400 and rest or 0)
    return left > 0 and ("%s%ss"):format(text, ("%.6g"):format(left)) or text
  end
  for _, step in ipairs(STEPS) do
    if s >= step[1] * (1 - 1e-9) then return ("%.6g%s"):format(s / step[1], step[2]) end
  end
  return "0s"
end

local function number(n, key)
  if type(key) == "string" and n == n and n ~= huge then
    if key:find "_ns$" then return show.duration(n / 1e9) end
    if key:find "_s$" or SECONDS[key] then return show.duration(n) end
  end
  if n == huge then return "no bound" end
  return ("%.14g"):format(n)
end

local function whole_cdata(value)
  if not (ffi.istype("int64_t", value) or ffi.istype("uint64_t", value)) then return nil end
  return (tostring(value):gsub("U?LL$", ""))
end

local function place(fn)
  local info = debug.getinfo(fn, "S")
  if info.what == "C" then return "a function of C" end
  return ("a function, %s:%d"):format(info.short_src, info.linedefined)
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do
    if not (type(key) == "number" and key % 1 == 0 and key >= 1 and key <= #t) then
      keys[#keys + 1] = key
    end
  end
  sort(keys, function (a, b)
    if type(a) == type(b) and (type(a) == "string" or type(a) == "number") then return a < b end
    return tostring(a) < tostring(b)
  end)
  return keys
end

local function of_key(key)
  if type(key) == "string" and key:find "^[%a_][%w_]*$" then return key end
  return ("[%s]"):format(type(key) == "string" and ("%q"):format(key) or tostring(key))
end

local value_of

local function table_of(t, depth, seen)
  local fine, limit = pcall(notation.format, t)
  if KINDS[t.kind] and fine then return ("%q"):format(limit) end
  if seen[t] then return "{ itself }" end
  if depth > DEEP then return "{ … }" end
  seen[t] = true
  local parts = {}
  for i = 1, #t do parts[#parts + 1] = value_of(t[i], nil, depth + 1, seen) end
  for _, key in ipairs(sorted_keys(t)) do
    parts[#parts + 1] = of_key(key) .. " = " .. value_of(t[key], key, depth + 1, seen)
  end
  seen[t] = nil
  local more = #parts - LONG
  for i = #parts, LONG + 1, -1 do parts[i] = nil end
  if more > 0 then parts[#parts + 1] = ("… %d more"):format(more) end
  if not parts[1] then return "{}" end
  local line = "{ " .. concat(parts, ", ") .. " }"
  local indent = ("  "):rep(depth)
  if #line + #indent <= WIDTH and not line:find "\n" then return line end
  local inside = indent .. "  "
  return "{\n" .. inside .. concat(parts, ",\n" .. inside) .. ",\n" .. indent .. "}"
end

function value_of(value, key, depth, seen)
  local kind = type(value)
  if kind == "string" then return ("%q"):format(value) end
  if kind == "number" then return number(value, key) end
  if kind == "function" then return place(value) end
  if kind == "cdata" then return whole_cdata(value) or tostring(value) end
  local class = getmetatable(value)
  if kind ~= "table" or type(class) == "table" and class.__tostring then return tostring(value) end
  return table_of(value, depth, seen)
end

--- One value.
---@param value any
---@return string
function show.value(value) return value_of(value, nil, 0, {}) end

--- A refusal, in words.
---@param word string
---@param wait_s number?
---@return string
function show.refusal(word, wait_s)
  local kind = errors.kinds[word]
  local text = ("refused: %s, %s"):format(word, kind.means)
  if wait_s then return ("%s; again in %s"):format(text, show.duration(wait_s)) end
  return text
end

--- What an entry answered: its values, or the refusal that they are. Nil for no value at all.
---@param ... any
---@return string?
function show.results(...)
  local n = select("#", ...)
  if n == 0 then return nil end
  local first, why, wait_s = ...
  if first == nil and n > 1 and n <= 3 and type(why) == "string" then
    local wait = tonumber(wait_s)
    if errors.kinds[why] and (wait_s == nil or wait) then return show.refusal(why, wait) end
    if n == 2 then return "nil: " .. why end
  end
  local parts = {}
  for i = 1, n do
    local value = (select(i, ...))
    parts[i] = n == 1 and type(value) == "string" and value or show.value(value)
  end
  return concat(parts, ", ")
end

return show
