--- A tally: what is counted while a world goes by, and what it comes to.
---
--- Waits and latencies are histograms of 1 % wide buckets, so a percentile is within that of the
--- truth; sums are exact. What is counted by time goes into bins of one width.
local ffi = require "ffi"

local ipairs, setmetatable = ipairs, setmetatable
local ceil, exp, floor, log = math.ceil, math.exp, math.floor, math.log
local max, min = math.max, math.min

local tally = {}

local FINE = 1 / log(1.01)   -- buckets to an e-fold
local LEAST_NS = 1000        -- what is shorter is in the first bucket
local BUCKETS = 4096         -- up to 16 years

tally.KEYS = 4096            -- whose grants are counted apart
tally.SERIES = { "offered", "granted", "refused", "sent", "good", "failed" }

--- Counts of one run, plain numbers so that compiled code adds to them.
local counts_t = ffi.typeof [[struct {
  double events;                  // arrivals, grants in line, ends of service, timers
  double offered;                 // calls that came
  double asked;                   // attempts: of calls, to the limiter
  double granted, waited;         // attempts; and of these, who stood in line
  double refused;                 // attempts: not now
  double expired;                 // attempts: waited as long as they could
  double sent;                    // attempts that left for the downstream
  double throttled, broken;       // of these, answered 429; and failed
  double timeouts;                // attempts that the client gave up
  double good, failed;            // calls that ended
  double settled;                 // waits and latencies before this are not kept, ns
  double wait_sum, wait_count, wait_max, latency_sum;
  double at_once;                 // waits of 0
  double wait[4096], latency[4096];
  double key[4096];
}]]

local function bucket_of(ns)
  if ns <= LEAST_NS then return 0 end
  return min(1 + floor(log(ns / LEAST_NS) * FINE), BUCKETS - 1)
end

---@class neap.sim.Tally
---@field counts ffi.cdata*
---@field bin_ns number
---@field bins integer
---@field series table<string, ffi.cdata*>   double[bins], by the names of SERIES
local class = {}
class.__index = class

--- An empty one.
---@param run_ns number
---@param bins integer
---@return neap.sim.Tally
function tally.new(run_ns, bins)
  local self = setmetatable({ counts = counts_t(), bins = bins, bin_ns = run_ns / bins,
    run_ns = run_ns, series = {} }, class)
  for _, name in ipairs(tally.SERIES) do self.series[name] = ffi.new("double[?]", bins + 1) end
  return self
end

--- Put in a wait at the limiter.
---@param counts ffi.cdata*
---@param ns number
function tally.add_wait(counts, ns)
  counts.wait_count = counts.wait_count + 1
  if ns <= 0 then
    counts.at_once = counts.at_once + 1
    return
  end
  local i = bucket_of(ns)
  counts.wait[i] = counts.wait[i] + 1
  counts.wait_sum = counts.wait_sum + ns
  counts.wait_max = max(counts.wait_max, ns)
end

--- Put in how long a call took that ended well, from when it came.
---@param counts ffi.cdata*
---@param ns number
function tally.add_latency(counts, ns)
  local i = bucket_of(ns)
  counts.latency[i] = counts.latency[i] + 1
  counts.latency_sum = counts.latency_sum + ns
end

--- What `share` of a histogram does not exceed, in ns; `before` of them are 0.
local function percentile(histogram, before, total, share)
  local rank = ceil(total * share)
  if total == 0 or rank <= before then return 0 end
  local seen = before
  for i = 0, BUCKETS - 1 do
    seen = seen + histogram[i]
    if seen >= rank then
      return i == 0 and LEAST_NS or LEAST_NS * exp((i - 0.5) / FINE)
    end
  end
  return 0
end

--- Jain's index of what keys were granted: 1 when all had as much, 1/n when one of n had all.
local function fairness(key)
  local sum, squares, n = 0, 0, 0
  for i = 0, tally.KEYS - 1 do
    if key[i] > 0 then sum, squares, n = sum + key[i], squares + key[i] ^ 2, n + 1 end
  end
  return n > 0 and sum ^ 2 / (n * squares) or 1
end

local function share(part, whole) return whole > 0 and part / whole or 0 end

--- What it comes to, by name: counts, shares of 1, seconds, and per-second rates.
---@return table<string, number>
function class:results()
  local c = self.counts
  local run_s = self.run_ns / 1e9
  local function wait(p)
    return min(percentile(c.wait, c.at_once, c.wait_count, p), c.wait_max) / 1e9
  end
  local function latency(p) return percentile(c.latency, 0, c.good, p) / 1e9 end
  return {
    run = run_s, events = c.events, offered = c.offered, asked = c.asked, granted = c.granted,
    waited = c.waited, refused = c.refused + c.expired, expired = c.expired, sent = c.sent,
    throttled = c.throttled, broken = c.broken, timeouts = c.timeouts, good = c.good,
    failed = c.failed,
    mean_wait = share(c.wait_sum, c.wait_count) / 1e9, max_wait = c.wait_max / 1e9,
    p50_wait = wait(0.5), p90_wait = wait(0.9), p99_wait = wait(0.99),
    at_once = share(c.at_once, c.wait_count),
    mean_latency = share(c.latency_sum, c.good) / 1e9, p50_latency = latency(0.5),
    p99_latency = latency(0.99),
    goodput = c.good / run_s, success = share(c.good, c.offered), load = share(c.sent, c.offered),
    refused_share = share(c.refused + c.expired, c.asked), fairness = fairness(c.key),
  }
end

return tally
