--- What became of the calls of each limiter, and which limiters there are.
---
--- The engine counts (see struct neap_stats in neap.h); this module gives each limiter the memory,
--- reads it as a table, and adds what the engine never gets to see. Calls count where they are
--- made: at the hybrid that was asked, not at the limits in it. The histogram of waits takes
--- 1.3 KB, so it comes when somebody waits for the first time.
local ffi = require "ffi"
local C = require "neap.engine"

local ipairs, pairs, setmetatable, tonumber = ipairs, pairs, setmetatable, tonumber
local sort = table.sort

local stats_t = ffi.typeof "struct neap_stats"
local waits_t = ffi.typeof "struct neap_waits"

local CAUSES = {
  rate = C.NEAP_BY_RATE, busy = C.NEAP_BY_BUSY, line = C.NEAP_BY_LINE, pause = C.NEAP_BY_PAUSE,
  open = C.NEAP_BY_OPEN, full = C.NEAP_BY_FULL, cost = C.NEAP_BY_COST,
  closed = C.NEAP_BY_CLOSED, other = C.NEAP_BY_OTHER,
}
local COUNTERS = { "granted", "waited", "undone", "expired", "cancelled", "queue_full",
  "settled_up", "settled_down", "leaked" }
local QUANTILES = { p50 = 500000, p90 = 900000, p99 = 990000, p999 = 999000 }

local stats = { causes = CAUSES }

local live = setmetatable({}, { __mode = "k" })
local others = {}   -- by kind: weak, too
local made = 0

--- Count what becomes of the calls of a limiter that is new.
---@package
---@param self neap.Limiter
function stats.begin(self)
  made = made + 1
  self.id = made
  self.counts = stats_t()
  self.terms.all.stats = self.counts
  live[self] = true
end

--- One that nobody asks by itself: neap.limiters() is to leave it out.
---@package
---@param self neap.Limiter
---@return neap.Limiter self
function stats.hide(self)
  live[self] = nil
  return self
end

--- Somebody waits: keep how long.
---@package
---@param self neap.Limiter
function stats.keep_waits(self)
  if self.waits then return end
  self.waits = waits_t()
  self.counts.waits = self.waits
end

--- Count a refusal that the engine had no part in.
---@package
---@param self neap.Limiter
---@param word string
function stats.refused(self, word)
  local counts = self.counts
  if word == "timeout" then
    counts.expired = counts.expired + 1
  elseif word == "cancelled" then
    counts.cancelled = counts.cancelled + 1
  else
    local cause = CAUSES[word] or CAUSES.other
    counts.refused[cause] = counts.refused[cause] + 1
  end
end

--- One that the engine takes for cancelled was closed.
---@package
---@param self neap.Limiter
function stats.closed(self)
  self.counts.cancelled = self.counts.cancelled - 1
  stats.refused(self, "closed")
end

--- A permit was lost.
---@package
---@param self neap.Limiter
function stats.leaked(self) self.counts.leaked = self.counts.leaked + 1 end

---@class neap.Stats
---@field name string
---@field id integer            of this limiter alone, in this process
---@field granted integer       at once or in the end
---@field waited integer        of these, those that stood in line
---@field undone integer        of these, those settled with nothing used
---@field refused table<string, integer>  by word: "rate", "busy", …; "other": what guests say
---@field shed integer          of these, those turned away: "open" and "full"
---@field expired integer       "timeout", at once or in line
---@field cancelled integer     while they waited
---@field queue_full integer    "queue"
---@field settled_up integer    settled for more than was granted, and
---@field settled_down integer  for less
---@field leaked integer        permits that were lost, and came back through the collector
---@field wait neap.Waits       of all calls of acquire

--- How long calls of acquire took, in seconds. Those that did not wait count as 0. What lies
--- between 1 us and 13 days is within an eighth.
---@class neap.Waits
---@field count integer
---@field sum number            exact
---@field max number            exact
---@field p50 number
---@field p90 number
---@field p99 number
---@field p999 number
---@field buckets { below: number, count: integer }[]  those that are not empty, shortest first; in
---  the first is who did not wait, too

local function read_waits(self)
  local counts, waits = self.counts, self.waits
  local at_once = tonumber(counts.at_once)
  local wait = { count = at_once, sum = 0, max = 0, buckets = {} }
  for name, per_million in pairs(QUANTILES) do
    wait[name] = tonumber(C.neap_stats_wait(counts, per_million)) / 1e9
  end
  if waits then
    wait.count = at_once + tonumber(waits.count)
    wait.sum, wait.max = tonumber(waits.sum_ns) / 1e9, tonumber(waits.max_ns) / 1e9
  end
  for i = 0, C.NEAP_WAIT_BUCKETS - 1 do
    local n = (waits and tonumber(waits.bucket[i]) or 0) + (i == 0 and at_once or 0)
    if n > 0 then
      local bound = C.neap_waits_bound(i)
      local below = bound < C.neap_never and tonumber(bound) / 1e9 or math.huge
      wait.buckets[#wait.buckets + 1] = { below = below, count = n }
    end
  end
  return wait
end

--- How many calls of acquire took no longer than each of `bounds`, for others that draw histograms.
---@package
---@param self neap.Limiter
---@param bounds { last: integer }[]  ascending; `last`: the last bucket up to there
---@return integer[] counts
---@return integer count     of all
---@return ffi.cdata* sum_ns
function stats.cumulate(self, bounds)
  local waits, at_once = self.waits, tonumber(self.counts.at_once)
  local counts, n, next_bucket = {}, at_once, 0
  for i, bound in ipairs(bounds) do
    for bucket = next_bucket, waits and bound.last or -1 do
      n = n + tonumber(waits.bucket[bucket])
    end
    counts[i], next_bucket = n, bound.last + 1
  end
  if not waits then return counts, at_once, 0LL end
  return counts, at_once + tonumber(waits.count), waits.sum_ns
end

--- All of it, as it is now, in a table of the caller's.
---@package
---@param self neap.Limiter
---@return neap.Stats
function stats.read(self)
  local counts = self.counts
  local all = { name = self.name, id = self.id, refused = {}, wait = read_waits(self) }
  for _, name in ipairs(COUNTERS) do all[name] = tonumber(counts[name]) end
  for word, cause in pairs(CAUSES) do all.refused[word] = tonumber(counts.refused[cause]) end
  all.shed = all.refused.open + all.refused.full
  return all
end

local function by_id(set)
  local list, i = {}, 0
  for one in pairs(set) do
    if not (one.gone and one.gone.closed) then list[#list + 1] = one end
  end
  sort(list, function (a, b) return a.id < b.id end)
  return function ()
    i = i + 1
    return list[i]
  end
end

--- One that is new and no limiter, and counts by itself: a retry, a hedge, a budget.
---@package
---@generic T
---@param kind string
---@param self T  it gets an id
---@return T self
function stats.join(kind, self)
  made = made + 1
  self.id = made
  others[kind] = others[kind] or setmetatable({}, { __mode = "k" })
  others[kind][self] = true
  return self
end

--- Those of a kind.
---@package
---@param kind string
---@return fun(): table?
function stats.each_of(kind) return by_id(others[kind] or {}) end

--- The limiters there are, in the order in which they were made. One is there as long as somebody
--- has it, and until the collector has come by.
---
---     local api, last = neap.throttle("10/s", { name = "api" }), nil
---     for one in neap.limiters() do last = one.name .. ": " .. one:stats().granted end
---     print(last)   --> "api: 0"
---
---@return fun(): neap.Limiter?
function stats.each() return by_id(live) end

return stats
