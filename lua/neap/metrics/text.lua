--- The two formats that Prometheus reads: its own text format 0.0.4, and OpenMetrics 1.0.
---
--- A family is a table of its name, its type, what it means, and how it is read: a function that
--- gets one of those that are shown and `put(value, labels, suffix)`, to be called for each line.
--- One that puts nothing is left out.
---
--- A wait is counted by the engine in buckets of a quarter of an octave. Some of their bounds are
--- shown: each power of two ns from 1 ms to 69 s, three below and two above. There `le` is the last
--- nanosecond that is still inside, 0.001048575 and not 0.001048576, and so every count is exact.
local ffi = require "ffi"
local C = require "neap.engine"
local stats = require "neap.stats"

local ipairs, pairs, tonumber, tostring, type = ipairs, pairs, tonumber, tostring, type
local huge = math.huge
local concat = table.concat

local formats = {
  --- What to say in Content-Type.
  types = {
    prometheus = "text/plain; version=0.0.4; charset=utf-8",
    openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8",
  },
}

--- Seconds, to the last nanosecond.
---@param ns ffi.cdata*  from 0
local function seconds(ns)
  local text = ("%d.%09d"):format(tonumber(ns / 1000000000LL), tonumber(ns % 1000000000LL))
  return (text:gsub("%.?0+$", "", 1))
end

local function number(n)
  if type(n) == "string" then return n end
  if ffi.istype("int64_t", n) then return (tostring(n):gsub("LL$", "")) end
  if n ~= n then return "NaN" end
  if n == huge then return "+Inf" elseif n == -huge then return "-Inf" end
  return (n % 1 == 0 and n > -1e15 and n < 1e15) and ("%d"):format(n) or ("%.17g"):format(n)
end

-- Well-formed UTF-8 (RFC 3629): what may follow a first byte, and how many bytes follow it.
local FIRST = {
  { 0x00, 0x7F, "" }, { 0xC2, 0xDF, "[\128-\191]" },
  { 0xE0, 0xE0, "[\160-\191][\128-\191]" }, { 0xE1, 0xEC, "[\128-\191][\128-\191]" },
  { 0xED, 0xED, "[\128-\159][\128-\191]" }, { 0xEE, 0xEF, "[\128-\191][\128-\191]" },
  { 0xF0, 0xF0, "[\144-\191][\128-\191][\128-\191]" },
  { 0xF1, 0xF3, "[\128-\191][\128-\191][\128-\191]" },
  { 0xF4, 0xF4, "[\128-\143][\128-\191][\128-\191]" },
}
local REST = {}
for _, row in ipairs(FIRST) do
  for byte = row[1], row[2] do REST[byte] = "^" .. row[3] end
end

--- What is no UTF-8 becomes U+FFFD, byte by byte: names come from anywhere, and one bad byte would
--- cost the whole scrape.
local function as_utf8(text)
  if not text:find "[\128-\255]" then return text end
  local out, at = {}, 1
  while at <= #text do
    local rest, _, last = REST[text:byte(at)], nil, nil
    if rest then _, last = text:find(rest, at + 1) end
    out[#out + 1] = last and text:sub(at, last) or "\239\191\189"
    at = (last or at) + 1
  end
  return concat(out)
end

local ESCAPES = { ["\\"] = "\\\\", ["\""] = "\\\"", ["\n"] = "\\n" }

local function label(name, value)
  return ("%s=\"%s\""):format(name, (as_utf8(value):gsub("[\\\"\n]", ESCAPES)))
end

-- The bounds of waits that are shown: powers of two, in ns, and the engine's bucket that ends
-- there.
local BOUNDS = {}
do
  local shown = { [10] = true, [15] = true, [39] = true, [42] = true }
  for power = 20, 36 do shown[power] = true end
  for bucket = 0, C.NEAP_WAIT_BUCKETS - 2 do
    local bound = C.neap_waits_bound(bucket)
    for power in pairs(shown) do
      if bound == 2LL ^ power then
        BOUNDS[#BOUNDS + 1] = { last = bucket, le = label("le", seconds(bound - 1)) }
      end
    end
  end
end

--- A histogram's lines.
---@param waits { waits: ffi.cdata*?, counts: { at_once: ffi.cdata*|integer } }
---@param put fun(value: any, labels: string?, suffix: string)
local function histogram(waits, put)
  local counts, count, sum_ns = stats.cumulate(waits, BOUNDS)
  for i, bound in ipairs(BOUNDS) do put(counts[i], bound.le, "_bucket") end
  put(count, "le=\"+Inf\"", "_bucket")
  put(seconds(sum_ns), nil, "_sum")
  put(count, nil, "_count")
end

--- How to read one that keeps its waits itself, and one whose field is what is shown.
function formats.waits(one, put) histogram(one.of, put) end

function formats.own(field)
  return function (one, put) put(one.of[field]) end
end

local own = formats.own

--- Of struct neap_engine_stats.
formats.engine = {
  { "neap_engine_waiting", "gauge", "Tickets that stand in a line.", own "waiting" },
  { "neap_engine_sleeping", "gauge", "Tickets that sleep.", own "sleeping" },
  { "neap_engine_completed", "gauge", "Tickets that ended and were not fetched yet.",
    own "completed" },
  { "neap_engine_waiters_max", "gauge", "Tickets that there can be at once.", own "waiters_max" },
  { "neap_engine_lines", "gauge", "Lines in which somebody waits.", own "lines" },
  { "neap_engine_wakeups", "counter", "Times that the head of a line was asked.", own "wakeups" },
  { "neap_engine_granted", "counter", "Tickets granted.", own "granted" },
  { "neap_engine_bytes", "gauge", "Memory that the engine holds.", own "bytes" },
}

--- A family: its lines, after what they mean. One that has no series is left out.
---@param out string[]
---@param open boolean  as OpenMetrics has it
---@param family table
---@param subjects { of: any, labels: string? }[]
function formats.write(out, open, family, subjects)
  local name, kind = family[1], family[2]
  local begin, total = #out, kind == "counter" and "_total" or ""
  local title = open and name or name .. total
  out[begin + 1] = ("# HELP %s %s\n# TYPE %s %s\n"):format(title, family[3], title, kind)
  if open and name:find "_seconds$" then
    out[begin + 1] = out[begin + 1] .. ("# UNIT %s seconds\n"):format(title)
  end
  local first = #out
  for _, subject in ipairs(subjects) do
    family[4](subject, function (value, also, suffix)
      local labels = subject.labels
      if also then labels = labels and labels .. "," .. also or also end
      out[#out + 1] = name .. (suffix or total) .. (labels and "{" .. labels .. "} " or " ")
        .. number(value) .. "\n"
    end)
  end
  if #out == first then out[first] = nil end
end

formats.label, formats.seconds = label, seconds

return formats
