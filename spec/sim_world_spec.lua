-- Worlds in virtual time: small ones, checked with a finger, and what any of them must keep to.
local backoff = require "neap.backoff"
local ffi = require "ffi"
local arrivals = require "neap.sim.arrivals"
local dice = require "neap.sim.dice"
local neap = require "neap"
local gates = require "neap.sim.gates"
local world = require "neap.sim.world"

local S = 1e9

-- A model with calls at these seconds, and what came of it.
local function run(change, seconds, seed)
  local model = { gate = gates.open }
  for name, value in pairs(change) do model[name] = value end
  if model.at then
    local times = {}
    for i, at in ipairs(model.at) do times[i] = at * S end
    model.arrivals, model.at = { { kind = "trace", times = times } }, nil
  end
  local made = world.new(model)
  local tally = made.begin(seed or 1, seconds * S, seconds)
  made.run(seconds * S)
  made.close()
  return tally:results(), tally
end

local function limit(text) return function () return gates.of(neap.throttle(text)) end end

local function fixed(s) return { kind = "fixed", value = s * S } end

local function series(tally, name)
  local list = {}
  for i = 0, tally.bins - 1 do list[i + 1] = tally.series[name][i] end
  return list
end

describe("a world", function ()
  it("lets calls go as the limiter does, and no call twice", function ()
    local results, tally = run({ at = { 0, 0, 0, 1.5, 1.6 }, gate = limit "1/s burst 2",
      wait_ns = 0 }, 3)
    assert.same({ 5, 3, 2, 3 }, { results.offered, results.granted, results.refused, results.good })
    assert.same({ 2, 1, 0 }, series(tally, "granted"))
    assert.same({ 1, 1, 0 }, series(tally, "refused"))
  end)

  it("keeps those who wait in line until their instant", function ()
    local results, tally = run({ at = { 0, 0, 0, 0.5 }, gate = limit "1/s smooth" }, 4)
    assert.same({ 1, 1, 1, 1 }, series(tally, "granted"))
    assert.same({ 3, 0.25, 2.5 }, { results.waited, results.at_once, results.max_wait })
    assert.equal((0 + 1 + 2 + 2.5) / 4, results.mean_wait)
  end)

  it("turns away who cannot be let go in time", function ()
    local results = run({ at = { 0, 0, 0 }, gate = limit "1/s smooth", wait_ns = 1.5 * S }, 4)
    assert.same({ 2, 1, 1 }, { results.granted, results.refused, results.expired })
  end)

  it("serves so many at once, others after them, and none beyond its places", function ()
    local results, tally = run({ at = { 0, 0, 0, 0, 0 }, slots = { { from = 0, rate = 2 } },
      places = 2, service = fixed(1.25) }, 4)
    assert.same({ 0, 2, 2, 0 }, series(tally, "good"))
    assert.same({ 1, 0, 0, 0 }, series(tally, "failed"))
    assert.equal(1, results.broken)
  end)

  it("has other slots from an instant on, for those in line first", function ()
    local results, tally = run({ at = { 0, 0, 0, 3, 4 }, slots = { { from = 0, rate = 1 },
      { from = 1 * S, rate = 0 }, { from = 4 * S, rate = 2 } }, service = fixed(1.5) }, 9)
    assert.same({ 0, 1, 0, 0, 0, 2, 0, 2, 0 }, series(tally, "good"))
    assert.equal(5, results.good)
    assert.near(5.5, results.p99_latency, 0.06)   -- who came second, not who came third
  end)

  it("takes longer for each call in flight", function ()
    local results = run({ at = { 0, 0 }, service = fixed(1), per_call_ns = S }, 9)
    assert.equal(2.5, results.mean_latency)   -- 2 for the first, 3 for the other
  end)

  it("goes on with what clients gave up, and does not hear of it", function ()
    local results, tally = run({ at = { 0 }, service = fixed(2.5), timeout_ns = S, tries = 2,
      slots = { { from = 0, rate = 1 } } }, 9)
    assert.same({ 1, 2, 2, 0, 1 }, { results.offered, results.sent, results.timeouts, results.good,
      results.failed })
    assert.same({ 0, 0, 1, 0, 0, 0, 0, 0, 0 }, series(tally, "failed"))
    -- its slot is busy with that until 2.5
    results = run({ at = { 0, 1.5 }, service = fixed(1.4), timeout_ns = S * 1.2,
      slots = { { from = 0, rate = 1 } } }, 9)
    assert.same({ 0, 2 }, { results.good, results.timeouts })
  end)

  it("gives permits back when the client gives up", function ()
    local gate = function () return gates.of(neap.semaphore(1)) end
    local results = run({ at = { 0, 1.5 }, service = fixed(3), timeout_ns = S, wait_ns = 0,
      gate = gate }, 9)
    assert.same({ 2, 0 }, { results.granted, results.refused })
  end)

  it("repeats what failed after the pauses of the back-off", function ()
    local results, tally = run({ at = { 0 }, fail = { { from = 0, rate = 1 } }, tries = 4,
      backoff = backoff("1s x2 cap none").policy }, 9)
    assert.same({ 1, 1, 0, 1, 0, 0, 0, 1, 0 }, series(tally, "sent"))
    assert.same({ 4, 4, 1 }, { results.sent, results.broken, results.failed })
  end)

  it("waits as long as a 429 asks, when clients obey", function ()
    local own = limit "1/4s burst 1"
    local _, tally = run({ at = { 0, 1 }, limit = own, tries = 3, obeys = true }, 9)
    assert.same({ 1, 1, 0, 0, 1, 0, 0, 0, 0 }, series(tally, "sent"))
    local results
    results, tally = run({ at = { 0, 1 }, limit = own, tries = 3 }, 9)
    assert.same({ 1, 3, 0, 0, 0, 0, 0, 0, 0 }, series(tally, "sent"))
    assert.same({ 3, 1, 1 }, { results.throttled, results.good, results.failed })
  end)

  it("has clients that come again after they thought", function ()
    local results = run({ closed = { clients = 3, think = fixed(1) }, service = fixed(0.5) }, 9)
    assert.same({ 18, 18 }, { results.offered, results.good })   -- at 1, 2.5, 4, 5.5, 7, 8.5
  end)

  it("says the same for the same seed, and only then", function ()
    local model = { arrivals = { { kind = "poisson", pieces = { { from = 0, rate = 50 } } } },
      keys = { count = 5, draw = function (stream) return dice.one_of(5, 1, stream) end },
      service = { kind = "lognormal", median = 1e8, p99 = 1e9 },
      gate = function () return gates.of(neap.hybrid { calls = "5 in flight",
        requests = "40/s" }) end, fail = { { from = 0, rate = 0.1 } }, tries = 2, wait_ns = S,
      backoff = backoff("100ms x2 jitter full").policy }
    local first, again, other = run(model, 60), run(model, 60), run(model, 60, 2)
    assert.same(first, again)
    assert.not_same(first, other)
  end)

  it("may begin again and is as new", function ()
    local made = world.new {
      arrivals = { { kind = "poisson", pieces = { { from = 0, rate = 9 } } } },
      gate = limit "10/s", wait_ns = S }
    local function once()
      local tally = made.begin(7, 100 * S, 10)
      made.run(50 * S)
      made.run(100 * S)
      return tally:results()
    end
    local first = once()
    made.begin(8, 3 * S, 1)
    made.run(3 * S)
    assert.same(first, once())
    made.close()
  end)

  it("loses no call: each is good, failed, or still there", function ()
    for seed = 1, 20 do
      local random = dice.stream(seed, 99)
      local pick = function (n) return dice.one_of(n, 0, random)() end
      local results = run({ arrivals = { { kind = "poisson",
          pieces = { { from = 0, rate = 20 }, { from = 30 * S, rate = 0 } } } },
        service = { kind = "exp", mean = 3e8 }, wire = pick(2) == 1 and fixed(0.01) or nil,
        slots = pick(2) == 1 and { { from = 0, rate = 1 + pick(9) } } or nil, places = pick(20),
        timeout_ns = pick(2) == 1 and S or nil, tries = 1 + pick(3),
        fail = { { from = 0, rate = pick(10) / 20 } }, wait_ns = pick(3) * S / 2,
        limit = pick(2) == 1 and limit "15/s burst 3" or nil, obeys = pick(2) == 1,
        gate = function () return gates.of(neap.hybrid { calls = 1 + pick(9) .. " in flight",
          requests = "15/s burst 4" }) end }, 600, seed)
      local why = "seed " .. seed
      assert.equal(results.offered, results.good + results.failed, why)
      assert.equal(results.asked, results.granted + results.refused, why)
      assert.equal(results.sent, results.good + results.broken + results.throttled
        + results.timeouts, why)
    end
  end)

  it("has room for many more than it began with", function ()
    local results = run({ arrivals = { { kind = "burst", count = 5000, every = 100 * S } },
      gate = limit "1000/s burst 1" }, 6)
    assert.same({ 5000, 5000, 0 }, { results.offered, results.granted, results.refused })
    assert.near(2.4995, results.mean_wait, 1e-6)
  end)
end)

describe("arrivals", function ()
  local function until_s(given, seconds, seed)
    local source, list = arrivals.source(given, dice.stream(seed or 1, 1)), {}
    local at = source(0)
    while at <= seconds * S do
      list[#list + 1] = at / S
      at = source(at)
    end
    return list
  end

  it("are even at a constant rate, whatever it changes to", function ()
    assert.same({ 1, 2, 2.75, 3.25 }, until_s({ kind = "constant",
      pieces = { { from = 0, rate = 1 }, { from = 2.5 * S, rate = 2 } } }, 3.5))
  end)

  it("come in bursts", function ()
    assert.same({ 0, 0, 2, 2 }, until_s({ kind = "burst", count = 2, every = 2 * S }, 3))
  end)

  it("are so many in each piece, and along a ramp", function ()
    local n = { 0, 0, 0 }
    for _, at in ipairs(until_s({ kind = "poisson", pieces = { { from = 0, rate = 100 },
      { from = 100 * S, rate = 0 }, { from = 200 * S, rate = 300 } } }, 299.999)) do
      n[math.floor(at / 100) + 1] = n[math.floor(at / 100) + 1] + 1
    end
    assert.near(10000, n[1], 400)
    assert.equal(0, n[2])
    assert.near(30000, n[3], 700)
    n = { 0, 0 }
    for _, at in ipairs(until_s({ kind = "ramp", points = { { from = 0, rate = 0 },
      { from = 100 * S, rate = 200 } } }, 199.999)) do
      n[math.floor(at / 100) + 1] = n[math.floor(at / 100) + 1] + 1
    end
    assert.near(10000, n[1], 400)
    assert.near(20000, n[2], 600)
  end)
end)

describe("dice", function ()
  local function mean_and_p99(of)
    local draw, values, sum = dice.draw(of, dice.stream(3, 1)), {}, 0
    for i = 1, 20000 do
      values[i] = draw()
      sum = sum + values[i]
    end
    table.sort(values)
    return sum / 20000, values[19800], values[10000]
  end

  it("are as their distribution says", function ()
    local mean, p99 = mean_and_p99 { kind = "exp", mean = 2 }
    assert.near(2, mean, 0.06)
    assert.near(2 * math.log(100), p99, 0.6)
    mean = mean_and_p99 { kind = "uniform", low = 1, high = 3 }
    assert.near(2, mean, 0.03)
    mean, p99 = mean_and_p99 { kind = "normal", mean = 10, sd = 2 }
    assert.near(10, mean, 0.06)
    assert.near(10 + 2 * 2.326, p99, 0.2)
    local _, high, median = mean_and_p99 { kind = "lognormal", median = 200, p99 = 900 }
    assert.near(200, median, 6)
    assert.near(900, high, 60)
  end)

  it("are one sequence for a seed and a number", function ()
    local a, b, c = dice.stream(1, 1), dice.stream(1, 2), dice.stream(2, 1)
    assert.not_equal(tonumber(a.state), tonumber(b.state))
    assert.not_equal(tonumber(a.state), tonumber(c.state))
    assert.equal(tonumber(a.state), tonumber(dice.stream(1, 1).state))
    assert.is_true(ffi.istype("struct neap_random", a))
  end)
end)
