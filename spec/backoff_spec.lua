local backoff = require "neap.backoff"
local seed = require "spec.seed"
local text = require "neap.backoff.text"

local huge = math.huge

--- Its first delays, in ms.
local function ms(policy, count, from)
  local sequence, list = policy:sequence(from), {}
  for i = 1, count do list[i] = sequence:next() * 1e3 end
  return list
end

local function at(unit) return function () return unit end end

describe("a back-off", function ()
  it("grows by its curve to its cap", function ()
    assert.same({ 200, 400, 800, 1000, 1000 }, ms(backoff "200ms x2 cap 1s", 5))
    assert.same({ 100, 150, 225, 337.5 }, ms(backoff { base = 0.1, factor = 1.5 }, 4))
    assert.same({ 100, 350, 600 }, ms(backoff { base = "100ms", step = "250ms" }, 3))
    assert.same({ 50, 50 }, ms(backoff { base = "50ms" }, 2))
    assert.same({ 100, 200, 300 }, ms(backoff { base = "100ms", curve = "linear" }, 3))
    assert.same({ 100, 200, 400 }, ms(backoff { base = "100ms", curve = "exponential" }, 3))
  end)

  it("is a function of the attempt, however late", function ()
    local gentle = backoff "100ms x1.01"
    assert.equal(0.1, gentle:delay(0))
    assert.equal(30, gentle:delay(600))
    assert.equal(30, gentle:delay(1e6))
    assert.near(0.1 * 1.01 ^ 64, gentle:delay(64), 1e-9)
    assert.equal(50, backoff("2s x2 cap 50s"):delay(2 ^ 53))
    assert.equal(0, backoff("2s x0.5"):delay(2 ^ 53))
    assert.equal(math.ldexp(1, 60) / 1e9, backoff("1s x2 cap none"):delay(1e6))
  end)

  it("draws from a window by the kind of jitter", function ()
    local windows = {
      none = { 1, 1 }, full = { 0, 1 }, equal = { 0.5, 1 }, ["factor 0.25"] = { 0.75, 1 },
      ["factor 2"] = { 0, 1 }, ["additive 0.1"] = { 1, 1.1 }, ["range 0.5..3"] = { 0.5, 3 },
    }
    for jitter, window in pairs(windows) do
      for unit = 0, 1, 0.25 do
        local policy = backoff { base = 1, jitter = jitter, random = at(unit) }
        assert.near(window[1] + (window[2] - window[1]) * unit, policy:delay(0), 1e-9, jitter)
      end
    end
  end)

  it("spreads below the cap, not at it", function ()
    local function edges(jitter)
      local options = { base = 1, cap = 1, jitter = jitter, random = at(0) }
      local low = backoff(options):delay(0)
      options.random = at(1)
      return { low, backoff(options):delay(0) }
    end
    assert.same({ 0.5, 1 }, edges "range 0.5..1.5")
    assert.same({ 0.95, 1 }, edges "additive 0.1")
    assert.same({ 0.75, 1 }, edges "range 0.75..1.25")
    assert.same({ 0, 1 }, edges "full")
  end)

  it("with decorrelated jitter goes from the base to three times the delay before", function ()
    local options = { base = "100ms", cap = "2s", jitter = "decorrelated", random = at(1) }
    assert.same({ 300, 900, 2000, 2000 }, ms(backoff(options), 4))
    options.random = at(0)
    assert.same({ 100, 100 }, ms(backoff(options), 2))
    options.random = at(0.5)
    local policy = backoff(options)
    assert.equal(0.2, policy:delay(7, 0.1))
    assert.equal(1.05, policy:delay(7, "1s"))      -- of 0.1 to 2, not to 3
    assert.equal(0.5, policy:delay(1))             -- of 0.1 to 0.9: all that could come
    assert.same({ 100, 100 }, ms(backoff "100ms jitter decorrelated", 2))
  end)

  it("draws the same again from the same seed", function ()
    local policy = backoff "10ms x2 jitter full"
    assert.same(ms(policy, 20, 7), ms(policy, 20, 7))
    assert.not_same(ms(policy, 20, 7), ms(policy, 20, 8))
    assert.not_same(ms(policy, 20), ms(policy, 20))
    local function all()
      local seeded = backoff { base = 1, jitter = "full", seed = 42 }
      return { ms(seeded, 3), ms(seeded, 3), seeded:delay(0) }
    end
    assert.same(all(), all())
  end)

  it("is a loop without end, and begins anew", function ()
    local sequence = backoff("1s x2"):sequence()
    local seen = {}
    for delay in sequence do
      seen[#seen + 1] = delay
      if delay > 3 then break end
    end
    assert.same({ { 1, 2, 4 }, 3 }, { seen, sequence.attempt })
    sequence:reset()
    assert.equal(1, sequence())
    sequence = backoff({ base = 1, cap = 9, jitter = "decorrelated", random = at(1) }):sequence()
    assert.same({ 3, 9, 9 }, { sequence(), sequence(), sequence() })
    sequence:reset()
    assert.equal(3, sequence())
  end)

  it("is a multiple of its grid", function ()
    local policy = backoff { base = "3ms", jitter = "range 0.5..0.5", grid = "1ms" }
    assert.equal(0.002, policy:delay(0))
    assert.equal(0.002, backoff { base = "1.5ms", grid = "1ms" }:delay(0))
    assert.equal(0.001, backoff { base = "1ms", jitter = "range 0.4..0.6", grid = "1ms",
      random = at(0.5) }:delay(0))
  end)

  it("does as others do under their names", function ()
    local texts = {
      throttle_net = "100ms x2 jitter decorrelated", foundation_policy = "1s x2 cap 10s grid 1ms",
      foundation_handler = "500ms x2 cap 10s jitter range 0.75..1.25 grid 1ms",
      foundation_http = "500ms x2 cap 10s jitter factor 0.25 grid 1ms",
      botocore = "1s x2 cap 20s jitter full",
    }
    for name, canonical in pairs(texts) do
      assert.equal(canonical, tostring(backoff { preset = name }))
    end
    assert.same(texts, backoff.presets)
    assert.equal(texts.throttle_net, tostring(backoff()))
    assert.equal("500ms x2 cap 1m jitter full grid 1ms",
      tostring(backoff { preset = "foundation_http", cap = "1m", jitter = "full" }))
  end)

  it("refuses what makes no sense, and says so", function ()
    local mistakes = {
      [7] = 'a text such as "200ms x2", or a table, expected, got number',
      [{}] = "base: the first delay is missing",
      [{ base = -1 }] = "base: 0 and more expected, got -1",
      [{ base = 0 / 0 }] = "a duration is seconds",
      [{ base = "200" }] = "bad duration",
      [{ base = 1e8 }] = "base: up to 104 days expected",
      [{ base = 1, factor = -2 }] = "factor: a number from 0 to 1e9 expected, got -2",
      [{ base = 1, factor = 0 / 0 }] = "factor: a number",
      [{ base = 1, factor = 2, curve = "linear" }] = "linear curves have no factor",
      [{ base = 1, step = 2, factor = 2 }] = "exponential curves have no step",
      [{ base = 1, curve = "exponental" }] = "did you mean 'exponential'?",
      [{ base = 1, jitter = "ful" }] = "did you mean 'full'?",
      [{ base = 1, jitter = { "factor" } }] = "jitter factor: a number from 0 to 1e9 expected",
      [{ base = 1, jitter = { "range", -0.1, 0.2 } }] = "jitter range: a number from 0",
      [{ base = 1, jitter = { "range", 2, 1 } }] = "from the smaller number to the larger",
      [{ base = 1, jitter = true }] = "jitter: a text",
      [{ base = 1, jiter = "full" }] = "did you mean 'jitter'?",
      [{ base = 1, seed = -1 }] = "seed: a whole number",
      [{ base = 1, random = 0.5 }] = "random: a function expected",
      [{ base = 0.0015, grid = "1ms", strict = true }] = "base: a multiple of the grid expected",
      [{ base = 2, cap = 1, strict = true }] = "cap: not less than the base expected",
      [{ base = 2, strict = 1 }] = "strict: true or false expected",
      [{ base = 1, grid = 0 }] = "grid: a duration above 0 expected",
      [{ preset = "botcore" }] = "did you mean 'botocore'?",
    }
    for given, message in pairs(mistakes) do
      local ok, err = pcall(function () return backoff(given), nil end)
      assert.is_false(ok, message)
      assert.truthy(err:find(message, 1, true), err)
      assert.truthy(err:find("^spec/backoff_spec.lua:"), err)
    end
    for _, attempt in ipairs { -1, 0.5, 0 / 0, huge, "1" } do
      assert.is_false(pcall(backoff().delay, backoff(), attempt))
    end
    assert.is_false(pcall(backoff().sequence, backoff(), 0.5))
    local liar = backoff { base = 1, jitter = "full", random = at(2) }
    assert.error_matches(function () liar:delay(0) end, "random: a number from 0 to 1 expected")
  end)
end)

describe("a back-off's text", function ()
  it("is written back in canonical form", function ()
    for given, canonical in pairs {
      ["200ms x2 cap 20s jitter decorrelated"] = "200ms x2 cap 20s jitter decorrelated",
      ["  .2s"] = false,
      ["0.2 s x 2.0 jitter equal cap 20 sec"] = "200ms x2 cap 20s jitter equal",
      ["1m30s"] = "1m30s",
      ["1s x2 cap 30s jitter none"] = "1s x2",
      ["1s + 500ms cap none"] = "1s +500ms cap none",
      ["1s cap none"] = "1s", ["1s cap 1s"] = "1s cap 1s",
      ["1s jitter decorrelated cap 1s"] = "1s jitter decorrelated",
      ["forever jitter full"] = "forever jitter full",
      ["1s jitter range 0.5..1.5 grid 1ms"] = "1s jitter range 0.5..1.5 grid 1ms",
      ["1s x1e3 jitter additive 0.1"] = "1s x1000 jitter additive 0.1",
    } do
      local value = text.read(given)
      if canonical then assert.equal(canonical, text.format(value)) else assert.is_nil(value) end
    end
  end)

  it("is read back as the same value", function ()
    math.randomseed(seed)
    local random = math.random
    local function ns() return random(9) == 1 and huge or random(0, 10 ^ random(0, 9)) * 1e3 end
    for _ = 1, 2000 do
      local value = { base_ns = ns(), cap_ns = ns(), jitter = ({ "none", "full", "equal",
        "decorrelated", "factor", "additive", "range" })[random(7)],
        curve = ({ "constant", "linear", "exponential" })[random(3)] }
      if value.curve == "linear" then value.step_ns = ns() end
      if value.curve == "exponential" then value.factor = random() * 10 ^ random(-6, 8) end
      if value.jitter == "factor" or value.jitter == "additive" then value.amount = random() end
      if value.jitter == "range" then value.low, value.high = random(), 1 + random() end
      if random(3) == 1 then value.grid_ns = random(1e9) end
      assert.same(value, text.read(text.format(value)))
    end
  end)

  it("may be anything: it is read, and then back as the same, or there is a message", function ()
    math.randomseed(seed)
    local random, parts = math.random, { "200ms", "1m30s", "x2", "x", "+1s", "+", "cap", "none",
      "jitter", "full", "decorrelated", "factor", "range", "0.5..1.5", "..", "0.1", "1e9", "1e-400",
      "grid", "1ms", "forever", "2", "s", "\0", "\255", "\xc3\xa9", "", "9007199254740993ns", "_" }
    for _ = 1, 20000 do
      local given = {}
      for i = 1, random(0, 8) do given[i] = parts[random(#parts)] end
      given = table.concat(given, random(4) == 1 and "" or " ")
      local value, message, where = text.read(given)
      local shown = ("%q"):format(given)
      if value then
        assert.same(value, text.read(text.format(value)), shown)
        assert.truthy(backoff(given):delay(3) >= 0, shown)
      else
        assert.truthy(#message > 0 and where >= 1 and where <= #given + 1, shown)
      end
    end
  end)

  it("says what is wrong with it, where, and what was meant", function ()
    local mistakes = {
      [""] = { 'expected a duration such as "200ms", got nothing', 1 },
      ["fast"] = { 'expected a duration such as "200ms", got \'fast\'', 1 },
      ["200"] = { 'expected a time unit such as "s" or "min", got nothing', 4 },
      ["200 x2"] = { 'expected a time unit such as "s" or "min", got nothing', 4 },
      ["200msec"] = { "unknown time unit 'msec' (did you mean 'sec'?)", 4 },
      ["1s 2m"] = { "'2m' after '1s': larger units come first, each once", 4 },
      ["1s x"] = { "expected a number, got nothing", 5 },
      ["1s x2 cpa 3s"] = { 'expected "x2", "+1s", "cap", "jitter" or "grid", got \'cpa\' '
        .. "(did you mean 'cap'?)", 7 },
      ["1s x2 cap"] = { 'expected a duration such as "200ms", got nothing', 10 },
      ["1s cap 1s cap 2s"] = { "'cap' twice", 11 },
      ["1s jitter decorelated"] = { "expected a kind of jitter such as \"full\" or "
        .. "\"decorrelated\", got 'decorelated' (did you mean 'decorrelated'?)", 11 },
      ["1s jitter factor"] = { "expected a number, got nothing", 17 },
      ["1s jitter range 2..1"] = { "a range goes from the smaller number to the larger one", 17 },
      ["1s jitter range 1"] = { 'expected ".." as in 0.5..1.5, got nothing', 18 },
      ["1s x1e10"] = { "1e10 is too large (at most 1e9)", 5 },
      ["1s grid 0s"] = { "a grid of 0 is none", 4 },
    }
    for given, expected in pairs(mistakes) do
      local value, message, where = text.read(given)
      assert.same({ nil, expected[1], expected[2] }, { value, message, where }, given)
    end
    local _, err = pcall(function () return backoff "1s x2 cpa 3s", nil end)
    assert.matches("^spec/backoff_spec.lua:%d+: backoff: bad text \"1s x2 cpa 3s\": expected", err)
  end)
end)
