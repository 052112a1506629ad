--- What Netflix's concurrency-limits publishes about its limits, played by ours: the same numbers
--- where options ask for them, and where neap answers otherwise, both and why.
local adaptive = require "neap.adaptive"
local clock = require "spec.vectors.clock"
local netflix = require "spec.published.netflix_limits"
local player = require "spec.published.player"

local huge, max = math.huge, math.max

-- ---- their options, as ours -------------------------------------------------------------------

-- Theirs may be functions of the limit, written as such in the tables: all of log10, or none.
local function times_log10(value)
  return type(value) == "string" and (tonumber(value:match "^%d+") or 1) or value
end

local strategies = {}

function strategies.vegas(o)
  return {
    "vegas", log10 = true, round_up = true, best_holds = true, use = 2, memory = huge,
    alpha = times_log10(o.alpha), beta = times_log10(o.beta), threshold = times_log10(o.threshold),
    increase = times_log10(o.increase), shrink = o.decrease == "half" and 0.5 or nil,
    smoothing = o.smoothing,
  }
end

function strategies.aimd(o)
  return { "aimd", use = 2, decrease = o.ratio, slow = ("%.6fms"):format(o.timeout_ms) }
end

function strategies.gradient2(o)
  return {
    "gradient", smoothing = o.smoothing, queue = o.queue, tolerance = o.tolerance,
    window = o.window,
  }
end

local function made(kind, own)
  local o = {}
  for name, value in pairs(netflix.defaults[kind]) do o[name] = value end
  for name, value in pairs(own) do o[name] = value end
  return adaptive {
    strategy = strategies[kind](o), floor = o.floor, ceiling = o.ceiling, initial = o.initial,
  }
end

--- One call that ends among as many in flight, and the limit after it.
local function sample(l, rt, rtt_ms, in_flight, dropped)
  local permit, others = assert(l:try_acquire()), nil
  if in_flight > 1 then
    others = assert(l:try_acquire())
    others:settle(in_flight - 1)
  end
  clock.step(rt, { advance_ns = rtt_ms * 1e6 })
  permit:give(dropped and "failure" or "success")
  if others then others:give "ignore" end
  return l:limit()
end

for kind, name in pairs { vegas = "Vegas", aimd = "AIMD", gradient2 = "Gradient2" } do
  describe("an adaptive limit, as published by Netflix for " .. name, function ()
    for _, case in ipairs(netflix[kind]) do
      it(case[1], player.test(function (rt)
        local l = made(kind, case[2])
        assert.equal(case[2].initial, l:limit())
        for i, row in ipairs(case[3]) do
          local rtt_ms, in_flight, limit, dropped = unpack(row)
          assert.equal(limit, sample(l, rt, rtt_ms, in_flight, dropped), "sample " .. i)
        end
      end))
    end
  end)
end

describe("what Netflix's limits are made of", function ()
  it("is a mean that is plain while it warms up", player.test(function (rt)
    local l = adaptive { strategy = { "gradient", window = netflix.moving_mean.window } }
    for i, row in ipairs(netflix.moving_mean[1]) do
      sample(l, rt, row[1], 1)
      local near = row[1] == 100 and 0.1 or 0.01
      local mean = l.leaf.as.adaptive.mean / 1e6
      assert.is_true(math.abs(mean - row[2]) <= near, ("sample %d: %g"):format(i, mean))
    end
    assert.equal(netflix.moving_mean.warmup, l.leaf.as.adaptive.samples)
  end))

  it("is a root that is 1 and more, by which a large limit moves", player.test(function (rt)
    for _, row in ipairs(netflix.log10) do
      local limit = max(row[1], 1)
      local l = adaptive { strategy = { "vegas", log10 = true }, initial = limit, ceiling = 20000 }
      assert.equal(limit + row[2], sample(l, rt, 10, 1))
    end
  end))
end)

describe("where neap answers otherwise than Netflix", function ()
  local function after(strategy, rows)
    local limits = {}
    player.test(function (rt)
      local l = adaptive { strategy = strategy, initial = 10, ceiling = 20 }
      for i, row in ipairs(rows) do limits[i] = sample(l, rt, unpack(row)) end
    end)()
    return limits
  end

  it("is Vegas' first call: it stands in no queue as far as anybody knows", function ()
    local theirs = { "vegas", use = 2, threshold = 1, best_holds = true }
    assert.same({ 10, 16 }, after(theirs, { { 10, 10 }, { 10, 11 } }))   -- as published
    assert.same({ 11, 12 }, after("vegas", { { 10, 10 }, { 10, 11 } }))
  end)

  it("is a queue: part of a call is none, for ours is rounded down", function ()
    local rows = { { 10, 10 }, { 14, 14 } }        -- 10 * 4 / 14 = 2.86, and alpha is 3
    local theirs = { "vegas", use = 2, round_up = true, best_holds = true }
    assert.same({ 10, 10 }, after(theirs, rows))   -- as published
    assert.same({ 10, 11 }, after({ "vegas", use = 2, best_holds = true }, rows))
  end)

  it("is a drop: it halves, whatever else calls say, for it is the clearest word", function ()
    local rows = { { 10, 10, true } }
    assert.same({ 5 }, after("vegas", rows))       -- theirs takes log10(10) off: 9
    assert.same({ 9 }, after({ "vegas", decrease = 0.9 }, rows))
    assert.same({ 5 }, after("gradient", rows))    -- theirs does not look: 10.8, as for any call
  end)

  it("is AIMD's growth: when the limit is reached, not when half of it is", function ()
    assert.same({ 11 }, after({ "aimd", use = 2 }, { { 1, 5 } }))        -- as published
    assert.same({ 10, 11 }, after("aimd", { { 1, 5 }, { 1, 10 } }))
  end)

  it("is the way back to a fast server: a minimum forgets by time, not after 30 * limit calls",
    player.test(function (rt)
      local l = adaptive { strategy = { "vegas", memory = "30s" }, initial = 10 }
      local best = l.leaf.as.adaptive.best
      sample(l, rt, 10, 10)
      for _ = 1, 29 do sample(l, rt, 1000, 10) end
      assert.equal(10, tonumber(best[0]) / 1e6)
      sample(l, rt, 1000, 10)
      assert.equal(1000, tonumber(best[0]) / 1e6)
    end))
end)
