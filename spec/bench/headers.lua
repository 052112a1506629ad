--- What it costs to read a header, per byte, and that this does not grow with its length: each
--- grammar reads 1 KB and 1 MB of what it has to do most with, and of what it has to give up on at
--- the very end.
local date = require "neap.headers.date"
local headers = require "neap.headers"
local formats = require "neap.provider.formats"
local provider = require "neap.provider"
local race = require "spec.bench.race"
local structured = require "neap.headers.structured"

local KB, MB = 1024, 1024 * 1024
local ROUNDS = 7

local function filled(first, unit, last, size)
  return first .. unit:rep(math.floor((size - #first - #last) / #unit)) .. last
end

local function retry_after(text) return headers.retry_after(text, { now = 0 }) end
local function lenient(text)
  return headers.retry_after(text, { now = 0, dialect = "lenient" })
end
local ietf = provider "ietf"
local function rate_limit(text) return ietf:parse({ RateLimit = text }, 0) end
local function unix(text) return formats.unix(text, 0) end
local function http_date(text) return date.http(text, 0) end

-- Name, who reads it, and its beginning, what is repeated, its end.
local SUBJECTS = {
  { "seconds", retry_after, "", "0", "1" },
  { "seconds_bad", retry_after, "", "1", "x" },
  { "seconds_lenient", lenient, "", "1", "" },
  { "milliseconds", headers.retry_after_ms, "1.", "5", "" },
  { "should_retry", headers.says_retry, "true", " ", "" },
  { "date", http_date, "", " ", "Sun, 06 Nov 1994 08:49:37 GMT" },
  { "date_bad", http_date, "Sun, 06 Nov 1994 08:49:37 ", " ", "X" },
  { "rfc3339", date.rfc3339, "1994-11-06T08:49:37.", "0", "Z" },
  { "duration", formats.duration, "", "1m2.5s", "1h" },
  { "duration_bad", formats.duration, "", "1m2.5s", "1" },
  { "unix", unix, "", "0", "1" },
  { "rate_limit", rate_limit, "", '"default";r=50;t=30, ', '"a";r=1' },
  { "sf_string", structured.item, '"', "word ", '"' },
  { "sf_escapes", structured.item, '"', '\\"', '"' },
  { "sf_binary", structured.item, ":", "aGVs", ":" },
  { "sf_display", structured.item, '%"', "%e2%82%ac", '"' },
  { "sf_token", structured.item, "a", "b", "" },
  { "sf_list", structured.list, "", '"default";r=50;t=30, ', "a" },
  { "sf_list_bad", structured.list, "", '"default";r=50;t=30, ', "" },
  { "sf_inner", structured.list, "(", "1 ", ")" },
  { "sf_inner_bad", structured.list, "(", "1 ", "" },
  { "sf_dictionary", structured.dictionary, "", "abc=12;q=1.5, ", "a" },
  { "sf_params", structured.item, "a", ";abc=1", "" },
}

--- How long it takes to read a megabyte in texts like this. The collector stands still meanwhile:
--- what becomes of values once they are read is not a matter of reading.
local function time(read, text)
  local times = math.floor(MB / #text)
  collectgarbage()
  collectgarbage "stop"
  local start = race.clock()
  for _ = 1, times do read(text) end
  local took = race.clock() - start
  collectgarbage "restart"
  return took
end

for _, subject in ipairs(SUBJECTS) do
  local name, read, first, unit, last = unpack(subject)
  local short, long = filled(first, unit, last, KB), filled(first, unit, last, MB)
  local times = { short = {}, long = {} }
  for round = 1, ROUNDS do
    times.short[round], times.long[round] = time(read, short), time(read, long)
  end
  race.report(times, MB, "long", "short", name, "1KB", "<=1.5")
end
