--- How much can go in a window of time, wherever one looks: by a bucket, by a sliding log, and by
--- windows that begin on the minute.
---
--- A bucket lets burst + rate * T go in any T and no more; a sliding log exactly its limit; and who
--- counts from the minute lets twice as much go across its edge (which neap does not do: here it is
--- two lines).
local ffi = require "ffi"
local C = require "neap.engine"
local arrivals = require "neap.sim.arrivals"
local dice = require "neap.sim.dice"
local throttle = require "neap.throttle"

local LIMIT, WINDOW = 100, 10e9
local RATE = LIMIT / WINDOW
local STEP = 1e6      -- ns, between calls that never pause
local CALLS, LEAST = 1e6, 2e5   -- the worst has to come, too

local windows = {
  about = "The most that goes in any window: '100/10s' as a bucket, a sliding log, fixed windows",
  tolerance = "exact: never more, and as much is reached",
}

--- Every arrival in order, until there were `calls`: fn(at). By turns, as much at random, and the
--- worst: nothing for three windows, then all at once across an edge, and on without a pause.
local function each_call(trial, calls, fn)
  local random = arrivals.source({ kind = "poisson", pieces = { { from = 0, rate = 3e9 * RATE } } },
    dice.stream(trial.seed, 1))
  local at, left = 0, calls
  local function call(instant)
    at, left = instant, left - 1
    fn(at)
  end
  while left > 0 do
    local ends = at + 10 * WINDOW
    while left > 0 and at < ends do call(random(at)) end
    local edge = (math.floor(at / WINDOW) + 4) * WINDOW
    for i = 1, math.min(left, 4 * LIMIT) do call(i <= 2 * LIMIT and edge - 1 or edge) end
    for i = 1, math.min(left, 6.5 * WINDOW / STEP) do call(edge + i * STEP) end
  end
end

--- The most of `granted` (instants in order, n of them) in any half-open span.
local function most_in(granted, n, span)
  local most, first = 0, 0
  for last = 0, n - 1 do
    while granted[first] <= granted[last] - span do first = first + 1 end
    most = math.max(most, last - first + 1)
  end
  return most
end

--- When calls go, in order.
local function grants(trial, take)
  local calls = math.max(trial:of(CALLS), LEAST)
  local granted, n, now = ffi.new("double[?]", calls), 0, 0
  each_call(trial, calls, function (at)
    now = math.max(now, at)
    if take(now) then
      granted[n] = now
      n = n + 1
    end
  end)
  return granted, n
end

local cost = ffi.new("int64_t[8]", { 1 })

local function by_engine(limiter)
  return function (now) return C.neap_all_take(limiter.terms.all, cost, now, nil) <= now end
end

local function by_minute()
  local window, used = -1, 0
  return function (now)
    if math.floor(now / WINDOW) ~= window then window, used = math.floor(now / WINDOW), 0 end
    used = used + 1
    return used <= LIMIT
  end
end

function windows.run(trial)
  for _, burst in ipairs { 1, 20, 100 } do
    local granted, n = grants(trial, by_engine(throttle(("100/10s burst %d"):format(burst))))
    for _, span in ipairs { 0.1e9, 1e9, 10e9, 60e9 } do
      -- a span is open at one end, and what would come there is not in it
      local most = math.floor(burst + RATE * span + 0.5) - 1
      local seen = most_in(granted, n, span)
      trial:holds(("bucket, burst %d: %d in %g s"):format(burst, most, span / 1e9), seen == most,
        seen)
    end
  end
  local granted, n = grants(trial, by_engine(throttle "100/10s sliding"))
  local seen = most_in(granted, n, WINDOW)
  trial:holds("sliding log: exactly 100 in 10 s", seen == LIMIT, seen)
  granted, n = grants(trial, by_minute())
  seen = most_in(granted, n, WINDOW)
  trial:holds("fixed windows: 200 across an edge", seen == 2 * LIMIT, seen)
end

return windows
