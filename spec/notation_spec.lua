local notation = require "neap.notation"
local seed = require "spec.seed"

local S, MIN, DAY = 1e9, 60e9, 86400e9
local MOST = 2 ^ 53

local function random()
  local state = 1 + seed % 2147483646
  return function (low, high)
    state = state * 16807 % 2147483647
    return low + math.floor(state / 2147483647 * (high - low + 1))
  end
end

local function rate(amount, per_ns, burst, mode)
  return { kind = "rate", amount = amount, per_ns = per_ns, burst = burst or amount,
    mode = mode or "burst" }
end

-- A row: text, the value, and its canonical form when that is another text.
local function reads(read, format, rows)
  for _, row in ipairs(rows) do
    local text, value, canonical = row[1], row[2], row[3] or row[1]
    local got, message = read(text)
    assert.same({ value }, { got, message }, text)
    assert.equal(canonical, format(value), text)
    assert.same(value, read(canonical), canonical)
  end
end

-- A row: text, position, message, hint.
local function refuses(read, rows)
  for _, row in ipairs(rows) do
    local value, message, at, hint = read(row[1])
    assert.is_nil(value, row[1])
    assert.same({ row[2], row[3], row[4] }, { at, message, hint }, row[1])
  end
end

describe("a rate", function ()
  it("is an amount per span, and its burst is the amount", function ()
    reads(notation.limit, notation.format, {
      { "500/min",              rate(500, MIN) },
      { "500 / min",            rate(500, MIN),            "500/min" },
      { " 500/min\n",           rate(500, MIN),            "500/min" },
      { "500 per minute",       rate(500, MIN),            "500/min" },
      { "5per s",               rate(5, S),                "5/s" },
      { "1/2s",                 rate(1, 2 * S) },
      { "1 per 30 days",        rate(1, 30 * DAY),         "1/30d" },
      { "1/week",               rate(1, 7 * DAY),          "1/7d" },
      { "7/90s",                rate(7, 90 * S) },
      { "1/1.5s",               rate(1, 1.5 * S),          "1/1500ms" },
      { "1/60s",                rate(1, MIN),              "1/min" },
      { "5GB/s",                rate(5e9, S),              "5G/s" },
      { "3/ns",                 rate(3, 1) },
    })
  end)

  it("knows every unit by its synonyms", function ()
    for ns, names in pairs {
      [1] = "ns nanosecond nanoseconds", [1e3] = "us µs microsecond microseconds",
      [1e6] = "ms millisecond milliseconds", [S] = "s sec secs second seconds",
      [MIN] = "m min mins minute minutes", [60 * MIN] = "h hr hrs hour hours",
      [DAY] = "d day days", [7 * DAY] = "w week weeks",
    } do
      for name in names:gmatch "%S+" do
        assert.same(rate(3, ns), notation.limit("3/" .. name), name)
        assert.same(rate(3, ns), notation.limit("3 per 1 " .. name), name)
        assert.equal(ns, notation.duration("1" .. name), name)
      end
    end
  end)

  it("takes one modifier", function ()
    reads(notation.limit, notation.format, {
      { "500/min burst 60",     rate(500, MIN, 60) },
      { "500/min burst 500",    rate(500, MIN),            "500/min" },
      { "200k/min burst 40k",   rate(2e5, MIN, 4e4) },
      { "1/s burst 1",          rate(1, S),                "1/s" },
      { "90/min smooth",        rate(90, MIN, 1, "smooth") },
      { "1/s smooth",           rate(1, S, 1, "smooth") },
      { "90/min sliding",       rate(90, MIN, 90, "sliding") },
      { "90/min fixed",         rate(90, MIN, 90, "fixed") },
    })
    refuses(notation.limit, {
      { "1/s smooth smooth",     12, "'smooth' twice" },
      { "1/s burst 2 burst 3",   13, "'burst' twice" },
      { "100/s smooth burst 3",  14, "'burst' after 'smooth': a rate takes one of them" },
      { "1/s fixed at 00:00",    11, "'fixed at' is not supported by this version" },
      { "100/s burst",           12, "expected a number, got nothing" },
      { "1/s burst 0",           11, "0 is not positive" },
      { "1/s burst 1.5",         11, "1.5 is not a whole number" },
      { "100/s brust 5", 7, [[expected "burst", "smooth", "sliding" or "fixed", got 'brust']]
        .. " (did you mean 'burst'?)", "burst" },
      { "1/s;",          4, [[expected "burst", "smooth", "sliding" or "fixed", got ';']] },
    })
  end)

  it("is refused when it is not whole, with the rate that would be", function ()
    refuses(notation.limit, {
      { "0.5/s",        1, "0.5 is not a whole number: write 1/2s" },
      { "1.5/min",      1, "1.5 is not a whole number: write 3/2min" },
      { "0.0001k/s",    1, "0.0001 is not a whole number: write 1/10s" },
      { "0.01/60d",     1, "0.01 is not a whole number" },
      { "1/0.5ns",      3, "0.5ns is not a whole number of ns" },
    })
    assert.same(rate(1500, S), notation.limit "1.5k/s")
  end)

  it("names the unit that was meant", function ()
    refuses(notation.limit, {
      { "500/mn",    5, "unknown time unit 'mn' (did you mean 'min'?)", "min" },
      { "500/Min",   5, "unknown time unit 'Min' (did you mean 'min'?)", "min" },
      { "5/sceond",  3, "unknown time unit 'sceond' (did you mean 'second'?)", "second" },
      { "5/parsec",  3, "unknown time unit 'parsec'" },
      { "500/",      5, [[expected a time unit such as "s" or "min", got nothing]] },
      { "1/month",   3, [[a month has no fixed length: write "30 days"]] },
      { "1/0s",      3, "0 is not positive" },
      { "0/s",       1, [[a rate of nothing: write "closed"]] },
      { "1/200d",    3, "200 is too large (at most 2^53 ns, 104 days)" },
    })
  end)

  it("is all that 'rate' reads", function ()
    assert.same(rate(5, S), notation.rate "5/s")
    refuses(notation.rate, {
      { "5 in flight",  3, [[expected "/s", "/min"…, got 'in']] },
      { "5",            2, [[a bare number needs "/s", "/min"…]] },
      { "unlimited",    1, [[expected a number, got 'unlimited']] },
    })
  end)
end)

describe("a limit", function ()
  it("is also slots in flight, or none, or no call at all", function ()
    reads(notation.limit, notation.format, {
      { "64 in flight",    { kind = "in_flight", amount = 64 } },
      { "64in-flight",     { kind = "in_flight", amount = 64 },           "64 in flight" },
      { "64 in_flight",    { kind = "in_flight", amount = 64 },           "64 in flight" },
      { "5MB in flight",   { kind = "in_flight", amount = 5e6 },          "5M in flight" },
      { "5 MiB in flight", { kind = "in_flight", amount = 5 * 2 ^ 20 },   "5Mi in flight" },
      { "unlimited",       { kind = "unlimited" } },
      { " closed ",        { kind = "closed" },                           "closed" },
    })
  end)

  it("says what was expected, what came, and where", function ()
    refuses(notation.limit, {
      { "",            1, [[expected a number, "unlimited" or "closed", got nothing]] },
      { "unlimted",    1, [[expected a number, "unlimited" or "closed", got 'unlimted']]
        .. " (did you mean 'unlimited'?)", "unlimited" },
      { "unlimited x", 11, "expected nothing more, got 'x'" },
      { "-5/s",        1, [[expected a number, "unlimited" or "closed", got '-']] },
      { "40",          3, [[a bare number needs "/s", "/min"… or "in flight"]] },
      { "64 inflight", 4, [[expected "/s", "/min"… or "in flight", got 'inflight']]
        .. " (did you mean 'in flight'?)", "in flight" },
      { "64 in fligt", 7, [[expected "flight", got 'fligt' (did you mean 'flight'?)]], "flight" },
      { "64 in",       6, [[expected "flight", got nothing]] },
      { "0 in flight", 1, [[nothing in flight: write "closed"]] },
      { "2.5 in flight", 1, "2.5 is not a whole number" },
      { "5\27/s",      2, [[expected "/s", "/min"… or "in flight", got '\27']] },
      { "5 \195\164/s", 3, [[expected "/s", "/min"… or "in flight", got 'ä']] },
    })
  end)

  it("is text", function ()
    refuses(notation.limit, {
      { 40, 1, [[bare number 40: a bare number needs "/s", "/min"… or "in flight"]] },
      { {}, 1, "text expected, got table" },
    })
    assert.same({ nil, "text expected, got nil", 1 }, { notation.limit(nil) })
  end)
end)

describe("an amount", function ()
  it("has decimal and binary suffixes, a fraction and grouped digits", function ()
    reads(notation.amount, notation.format_amount, {
      { "0",         0 },
      { "1500",      1500 },
      { "1_000",     1000,           "1k" },
      { "1.5k",      1500,           "1500" },
      { "1.50M",     1500000,        "1500k" },
      { "5MB",       5e6,            "5M" },
      { "5 MB",      5e6,            "5M" },
      { "5MiB",      5 * 2 ^ 20,     "5Mi" },
      { "64Ki",      65536,          "65536" },
      { "0.5Gi",     2 ^ 29,         "512Mi" },
      { "3G",        3e9 },
      { "7B",        7,              "7" },
      { "9007199254740992",      MOST, "8388608Gi" },
      { "9007199.254740992G",    MOST, "8388608Gi" },
    })
  end)

  it("is exact, or refused", function ()
    refuses(notation.size, {
      { "9007199254740993",  1, "9007199254740993 has more digits than neap keeps exactly (2^53)" },
      { "9007199254740992k", 1, "9007199254740992 is too large (at most 2^53)" },
      { "8388608.5Gi",       1, "8388608.5 is too large (at most 2^53)" },
      { "0.0000000000000001", 1,
        "0.0000000000000001 has more digits than neap keeps exactly (2^53)" },
      { "1.5",     1, "1.5 is not a whole number" },
      { "1.0001k", 1, "1.0001 is not a whole number" },
      { "5m",      2, "unknown suffix 'm' (did you mean 'M'?)", "M" },
      { "5K",      2, "unknown suffix 'K' (did you mean 'k'?)", "k" },
      { "5mb",     2, "unknown suffix 'mb' (did you mean 'MB'?)", "MB" },
      { "5KiBs",   2, "unknown suffix 'KiBs' (did you mean 'KiB'?)", "KiB" },
      { "1__0",    2, "expected a digit, got '_'" },
      { "1_",      2, "expected a digit, got '_'" },
      { "1.",      3, "expected a digit, got nothing" },
      { "1.2.3",   4, "expected a digit, got '.'" },
      { "1,000",   2, "digits are grouped with '_', as in 1_000" },
      { "",        1, "expected a number, got nothing" },
      { 5,         1, "bare number 5: write it as text, with its unit" },
    })
    assert.equal(8388607.5 * 2 ^ 30, notation.size "8388607.5Gi")
  end)
end)

describe("a duration", function ()
  it("is a sum of parts, larger units first", function ()
    reads(notation.duration, notation.format_duration, {
      { "250ms",     250e6 },
      { "45s",       45 * S },
      { "1m30s",     90 * S },
      { "1m 30s",    90 * S,          "1m30s" },
      { "90s",       90 * S,          "1m30s" },
      { "10min",     10 * MIN,        "10m" },
      { "1.5s",      1.5 * S,         "1s500ms" },
      { "1w",        7 * DAY,         "7d" },
      { "1d1h1m1s1ms1us1ns", 90061001001001 },
      { "0s",        0 },
      { "0.000000001s", 1,            "1ns" },
    })
    refuses(notation.duration, {
      { "",       1, [[expected a duration such as "250ms" or "1m30s", got nothing]] },
      { "soon",   1, [[expected a duration such as "250ms" or "1m30s", got 'soon']] },
      { "45",     3, [[expected a time unit such as "s" or "min", got nothing]] },
      { "1mn",    2, "unknown time unit 'mn' (did you mean 'min'?)", "min" },
      { "30s1m",  4, "'1m' after '30s': larger units come first, each once" },
      { "1s1s",   3, "'1s' after '1s': larger units come first, each once" },
      { "1.5ns",  1, "1.5ns is not a whole number of ns" },
      { "200d",   1, "200 is too large (at most 2^53 ns, 104 days)" },
      { "104d23h", 5, "the sum is too large (at most 2^53 ns, 104 days)" },
      { "1s!",    3, "expected nothing more, got '!'" },
    })
  end)
end)

describe("a text of a policy", function ()
  it("is read, and printed in its canonical form", function ()
    reads(notation.trip, notation.format_trip, {
      { "5 consecutive", { kind = "consecutive", count = 5 } },
      { "1_000   consecutive", { kind = "consecutive", count = 1000 }, "1k consecutive" },
      { "50% of 20", { kind = "share", share = 0.5, of = 20 } },
      { "0.5 % of 2k in 1min30s", { kind = "share", share = 0.005, of = 2000, in_ns = 90e9 },
        "0.5% of 2k in 1m30s" },
    })
    reads(notation.keep, notation.format_keep, {
      { "100k keys", { keys = 100000 } },
      { "500000 keys , idle 10min", { keys = 500000, idle_ns = 600e9 }, "500k keys, idle 10m" },
    })
    reads(notation.adaptive, notation.format_adaptive, {
      { "gradient from 20 to 300", { kind = "gradient", from = 20, to = 300 } },
      { "aimd  from 1 to 1", { kind = "aimd", from = 1, to = 1 }, "aimd from 1 to 1" },
    })
    reads(notation.pressure, notation.format_pressure, {
      { "queue > 80%", { what = "queue", share = 0.8 } },
      { "queue>0.01%", { what = "queue", share = 0.0001 }, "queue > 0.01%" },
    })
    reads(notation.share, notation.format_share, {
      { "10%", 0.1 }, { "100.00 %", 1, "100%" }, { "33.33%", 0.3333 }, { "0.07%", 0.0007 },
    })
  end)

  it("is refused at the byte that is wrong", function ()
    for _, row in ipairs {
      { "trip", "5", 2, 'expected "consecutive" or "% of", got nothing' },
      { "trip", "50%", 4, 'expected "of", got nothing' },
      { "trip", "50% off 9", 5, "expected \"of\", got 'off' (did you mean 'of'?)" },
      { "trip", "0 consecutive", 1, "0 is not positive" },
      { "trip", "5% of 9 in 0s", 12, "0 is not positive" },
      { "trip", "5% of 9 in", 11, 'expected a duration such as "250ms" or "1m30s", got nothing' },
      { "trip", "5% of 9 on 1s", 9, "expected nothing more, got 'on'" },
      { "keep", "9 key", 3, "expected \"keys\", got 'key' (did you mean 'keys'?)" },
      { "keep", "9 keys idle 1s", 8, "expected \", idle\" and a duration, got 'idle'" },
      { "keep", "1.5 keys", 1, "1.5 is not a whole number" },
      { "adaptive", "vega from 1 to 2", 1, "unknown way 'vega' (did you mean 'vegas'?)" },
      { "adaptive", "vegas 1 to 2", 7, "expected \"from\", got '1'" },
      { "adaptive", "vegas from 3 to 2", 17, "it goes from the smaller number to the larger one" },
      { "pressure", "queue < 5%", 7, "expected \">\", got '<'" },
      { "pressure", "queue > 80", 11, 'expected "%", got nothing' },
      { "share", "10", 3, 'expected "%", got nothing' },
      { "share", "0%", 1, "0% is outside 0.01% to 100%, in steps of 0.01%" },
      { "share", "100.01%", 1, "100.01% is outside 0.01% to 100%, in steps of 0.01%" },
      { "share", "0.001%", 1, "0.001% is outside 0.01% to 100%, in steps of 0.01%" },
      { "share", 0.1, 1, "bare number 0.1: write it as text, with its unit" },
    } do
      local value, message, at = notation[row[1]](row[2])
      assert.same({ nil, row[3], row[4] }, { value, at, message }, row[2])
    end
  end)
end)

describe("printing", function ()
  local ROUNDS = 20000

  local function some_amount(draw, least)
    local shape = draw(1, 4)
    if shape == 1 then return draw(least, 9) end
    if shape == 2 then return draw(1, 999) * 10 ^ draw(0, 12) end
    if shape == 3 then return draw(1, 999) * 2 ^ (10 * draw(0, 4)) end
    return draw(1, 2 ^ 21) * 2 ^ 32 - draw(0, 2 ^ 31)
  end

  local function some_limit(draw)
    local kind = draw(1, 8)
    if kind == 1 then return { kind = "unlimited" } end
    if kind == 2 then return { kind = "closed" } end
    if kind == 3 then return { kind = "in_flight", amount = some_amount(draw, 1) } end
    local mode = ({ "burst", "burst", "smooth", "sliding", "fixed" })[draw(1, 5)]
    local amount = some_amount(draw, 1)
    local burst = mode == "smooth" and 1
      or mode == "burst" and draw(1, 2) == 1 and some_amount(draw, 1) or amount
    return rate(amount, some_amount(draw, 1), burst, mode)
  end

  it("is undone by reading", function ()
    local draw = random()
    for _ = 1, ROUNDS do
      local limit, amount, ns = some_limit(draw), some_amount(draw, 0), some_amount(draw, 0)
      assert.same(limit, (notation.limit(notation.format(limit))))
      assert.equal(amount, (notation.amount(notation.format_amount(amount))))
      assert.equal(ns, (notation.duration(notation.format_duration(ns))))
    end
  end)

  it("is the same whatever was written, and never fails", function ()
    local pieces = { "1", "0", "5", "12", "1_000", ".5", "1.5", "k", "M", "Ki", "MB", "m", "/",
      "per", "s", "min", "30 days", "ns", "burst", "smooth", "fixed", "in flight", "closed", " ",
      " ", "x" }
    local draw, read = random(), 0
    for _ = 1, ROUNDS do
      local text = {}
      for i = 1, draw(1, 7) do text[i] = pieces[draw(1, #pieces)] end
      text = table.concat(text)
      for name, format in pairs { limit = "format", amount = "format_amount",
        duration = "format_duration" } do
        local value, message, at = notation[name](text)
        if value then
          local canonical = notation[format](value)
          assert.equal(canonical, notation[format](notation[name](canonical)), text)
          read = read + 1
        else
          assert.is_string(message, text)
          assert.is_true(at >= 1 and at <= #text + 1, text)
        end
      end
    end
    assert.is_true(read > 500, "too few texts were read: " .. read)
  end)

  it("refuses what is no value", function ()
    for _, value in ipairs { {}, { kind = "rate" }, { kind = "in_flight", amount = 0 },
      { kind = "in_flight", amount = 1.5 }, { kind = "in_flight", amount = 2 ^ 53 + 2 },
      rate(1, 1, 0), rate(1, 0), { kind = "rate", amount = 1, per_ns = 1, burst = 1 } } do
      assert.has_error(function () notation.format(value) end)
    end
    assert.has_error(function () notation.format_amount(-1) end,
      "amount: whole number from 0 to 2^53 expected")
    assert.has_error(function () notation.format_duration(0 / 0) end)
    assert.has_error(function () notation.format "5/s" end, "limit: table expected, got string")
  end)
end)

describe("the nearest word", function ()
  it("is the likeliest slip of the hand, or none", function ()
    local words = { "limits", "lease", "doc", "breaker", "backoff", "min", "ms", "m" }
    for typed, meant in pairs { limit = "limits", brekaer = "breaker", laese = "lease", DOC = "doc",
      mn = "min", back_off = "backoff", bracker = "breaker" } do
      assert.equal(meant, notation.nearest(typed, words), typed)
    end
    assert.equal("ms", notation.nearest("sm", { "week", "ms" }))
    for _, typed in ipairs { "zebra", "", ("limits"):rep(10) } do
      assert.is_nil(notation.nearest(typed, words), typed)
    end
  end)
end)
