--- Telemetry, end to end: each case of the vectors by its id, then what they leave open, signal by
--- signal: counters and waits of every kind of limiter, gauges with labels, events by pattern,
--- timers, and a reporter that may be missing.
local cjson = require "cjson"
local neap = require "neap"
local harness = require "spec.vectors.harness"
local manual = require "neap.runtime.manual"
local suite = require "spec.vectors.telemetry"

local events = neap.events
local heard, samples, total = suite.heard, suite.samples, suite.total

local function cases()
  local file = assert(io.open "spec/vectors/telemetry.json")
  local list = cjson.decode(file:read "*a").cases
  file:close()
  return list
end

--- What came, without when and whose number.
local function plain(list)
  for _, event in ipairs(list) do event.at, event.id = nil, nil end
  return list
end

describe("telemetry", function ()
  local rt, before

  before_each(function ()
    rt = manual.new()
    before = neap.runtime.use(rt)
  end)

  after_each(function () neap.runtime.use(before) end)

  local ids = {}
  for _, case in ipairs(cases()) do
    ids[#ids + 1] = case.id
    it(case.id .. ": " .. case.why, function ()
      local ok, err = pcall(suite.run, case)
      assert(ok, harness.shown(err))
    end)
  end

  it("has a test for every case", function ()
    assert.equal(17, #ids)
    for _, case in ipairs(cases()) do assert.is_true(suite.knows(case), case.id) end
    assert.is_false(suite.knows { id = "TE-999" })
    assert.is_false(suite.knows { id = "TE-999", event = "nothing" })
  end)

  it("tells a case that does not hold", function ()
    local wrong = {
      ["TE-002"] = { gauge_sequence = { throttle_circuit_state = { 2, 0, 0 } } },
      ["TE-004"] = { histogram = { throttle_wait_duration = { { min = 0.6 } } } },
      ["TE-021"] = { counter = { throttle_acquired_total = 2 } },
      ["TE-022"] = { counter = { throttle_acquired_total = 0 } },
    }
    for id, expect in pairs(wrong) do
      assert.is_false((pcall(suite.run, { id = id, expect = expect })), id)
    end
    assert.is_false((pcall(suite.run, { event = "acquire", fields = { "nobody" } })))
    assert.is_false((pcall(suite.run, { event = "queue overflow", fields = {},
      values = { policy = { "drop_newest" } } })))
  end)

  -- ---- counters and waits -----------------------------------------------------------------------

  it("counts grants and waits of every kind of limiter, and of a queue and a bucket", function ()
    local kinds = suite.each_kind()
    kinds[7] = { neap.queue "2/s burst 1" }
    kinds[8] = { neap.throttle "2/s burst 1" }
    for _, one in ipairs(kinds) do
      assert(one[1]:acquire(one[2]))
      assert(one[1]:acquire(one[2]))
      assert.equal(2, total("neap_granted_total", one[1]))
      assert.equal(1, total("neap_waited_total", one[1]))
      assert.equal(2, total("neap_wait_seconds_count", one[1]))
      assert.equal(0.5, total("neap_wait_seconds_sum", one[1]))
    end
  end)

  it("counts refusals, by why", function ()
    local api = neap.throttle "1/s"
    assert(api:try_acquire())
    api:try_acquire()
    api:try_acquire(2)
    local whys = {}
    for _, one in ipairs(samples("neap_refused_total", { api })) do
      whys[one.labels.why] = one.value > 0 and one.value or nil
    end
    assert.same({ rate = 1, cost = 1 }, whys)
  end)

  -- ---- gauges -----------------------------------------------------------------------------------

  it("has a gauge for each limiter: two of one name stay apart", function ()
    local function two(series, a, b)
      local list = samples(series, { a, b })
      assert.equal(2, #list)
      assert.not_equal(list[1].labels.id, list[2].labels.id)
      return { list[1].value, list[2].value }
    end
    local q = neap.queue("1 in flight", { name = "q" })
    local r = neap.queue("1 in flight", { name = "q" })
    local held = { q:try_acquire(), r:try_acquire() }
    for i = 1, 3 do rt.spawn(function () (i < 3 and q or r):acquire():release() end) end
    for _ = 1, 3 do rt.turn(0) end
    assert.same({ 2, 1 }, two("neap_queue_depth", q, r))
    held[1]:release()
    held[2]:release()
    for _ = 1, 5 do rt.turn(0) end
    assert.same({ 0, 0 }, two("neap_queue_depth", q, r))
    local a, b = neap.breaker { failures = 1 }, neap.breaker { failures = 1 }
    b:failure()
    assert.same({ 0, 2 }, two("neap_breaker_state", a, b))
    local c, d = neap.adaptive { initial = 8 }, neap.adaptive { initial = 9 }
    assert(d:acquire()):give "failure"
    assert.same({ 8, 4 }, two("neap_adaptive_limit", c, d))
  end)

  -- ---- events -----------------------------------------------------------------------------------

  it("tells events to patterns of kinds", function ()
    local function kinds_heard(patterns)
      local kinds = {}
      for i, event in ipairs(heard(patterns, function ()
        local retry = neap.retry { max_attempts = 2, backoff = "1s jitter none" }
        retry:run(function () return nil, "x" end)
        events.measure("http.call", nil, function () end)
        neap.throttle "1/s":try_acquire()
        events.emit "http.xstop"
      end)) do
        kinds[i] = event.kind
      end
      return table.concat(kinds, " ")
    end
    local all = "retry.start retry.retry retry.start retry.failed http.call.stop granted http.xstop"
    assert.equal(all, kinds_heard())
    assert.equal(all, kinds_heard { "*" })
    assert.equal("retry.start retry.retry retry.start retry.failed", kinds_heard { "retry.*" })
    assert.equal("http.call.stop", kinds_heard { "*.stop" })
    assert.equal("http.call.stop http.xstop", kinds_heard { "http.*stop" })
    assert.equal("http.call.stop granted", kinds_heard { "granted", "*.call.*" })
    assert.equal("granted", kinds_heard { "gr*d" })
    assert.equal("retry.start retry.start", kinds_heard { "*.start", "retry.start" })
    assert.equal("", kinds_heard { "retry*%" })
    assert.equal("", kinds_heard {})
  end)

  it("builds nothing for kinds that no pattern is about", function ()
    function rt.now() error "there is no need to know when" end
    local stop = events.tap(function () end, { "other.*" })
    assert.is_nil(events.wanted.granted)
    events.emit("http.call", { host = "x" })
    neap.throttle "1/s":try_acquire()
    stop()
    stop = events.tap(function () end, { "g*" })
    assert.is_true(events.wanted.granted)
    assert.is_nil(events.wanted.refused)
    stop()
    assert.is_nil(events.wanted.granted)
  end)

  it("hears of any number of kinds, and of changes of who listens", function ()
    local count = 0
    local stop = events.tap(function () count = count + 1 end, { "k*.x" })
    for i = 1, 3000 do events.emit("k" .. i .. ".x") end
    for i = 1, 3000 do events.emit("k" .. i .. ".y") end
    assert.equal(3000, count)
    local stop_all = events.tap(function () count = count + 1 end)
    events.emit "k1.x"
    events.emit "k1.y"
    stop()
    events.emit "k1.x"
    stop_all()
    events.emit "k1.x"
    assert.equal(3004, count)
  end)

  it("tells when a pause is extended or cleared, by whom ever", function ()
    local pause, windows = neap.pause { name = "p" }, neap.backoff_window()
    local api = neap.hybrid { "10/s", pause }
    assert.same({
      { kind = "pause", limiter = "p", from = 0, to = 2 },
      { kind = "pause", limiter = "p", from = 2, to = 5 },
      { kind = "pause", limiter = "p", from = 4, to = 9 },
      { kind = "pause", limiter = "p", from = 9, to = 0 },
      { kind = "pause", limiter = "back-off host", from = 0, to = 3 },
      { kind = "pause", limiter = "back-off host", from = 3, to = 0 },
    }, plain(heard({ "pause" }, function ()
      pause:extend(2)
      pause:extend(1)
      pause:extend(5)
      rt.advance(1)
      neap.provider "rfc":sync(api, { ["retry-after"] = "9" }, { now = 0 })
      pause:clear()
      pause:clear()
      windows:set("host", 3)
      windows:clear "host"
    end)))
    local loud = heard(nil, function () pause:extend(0) end)
    assert.same({}, loud)
  end)

  it("tells of a dispatch's backoff, and its window by key knows of it", function ()
    local windows = neap.backoff_window()
    local d = neap.dispatch { name = "d", on_backoff = "both", window = windows:of "host",
      backoff_window = 1 }
    local list = plain(heard({ "pause" }, function ()
      d:set_backoff(2)
      neap.provider "rfc":sync(d, { ["retry-after"] = "9" }, { now = 0 })
    end))
    assert.same({
      { kind = "pause", limiter = "d recent", from = 0, to = 3 },
      { kind = "pause", limiter = "back-off host", from = 0, to = 2 },
      { kind = "pause", limiter = "d recent", from = 3, to = 10 },
      { kind = "pause", limiter = "back-off host", from = 2, to = 9 },
    }, list)
    assert.same({ true, 9 }, { windows:should_backoff "host" })
  end)

  it("tells what a retry does, and changes of limits", function ()
    local llm = neap.throttle("9/s", { name = "llm" })
    local list = plain(heard({ "re*" }, function ()
      llm:reconfigure "10/s"
      local retry = neap.retry { name = "fetch", max_attempts = 2, backoff = "1s jitter none" }
      retry:run(function (try) return try.attempt == 1 or nil, "x" end)
    end))
    assert.same({ "reconfigured", "retry.start", "retry.retry" },
      { list[1].kind, list[2].kind, list[3].kind })
    assert.same({ "9/s", "10/s", 1, "x" },
      { list[1].from, list[1].to, list[3].delay, list[3].error })
  end)

  it("times what is no single call", function ()
    local fields = { host = "x", time_unit = "second" }
    assert.same({
      { kind = "http.call.exception", error = "boom", duration = 250000,
        time_unit = "microsecond" },
      { kind = "http.call.stop", host = "x", status = 200, duration = 0.5, time_unit = "second" },
      { kind = "http.call.exception", error = false, duration = 0, time_unit = "microsecond" },
    }, plain(heard({ "http.*" }, function ()
      local stop, other = events.timer("http.call", fields), events.timer "http.call"
      neap.sleep(0.25)
      other { error = "boom" }
      neap.sleep(0.25)
      stop { status = 200 }
      stop { status = 500 }
      events.timer "http.call" { error = false }
    end)))
    assert.same({ host = "x", time_unit = "second" }, fields)
    local stop = events.timer "http.call"
    assert.same({}, heard(nil, function () stop() end))   -- nobody listened when it began
    for text, call in pairs {
      ["a kind with a dot expected"] = function () events.timer "call" end,
      ["timer: a table of fields"] = function () events.timer("a.b", 1) end,
      ["timer: time_unit"] = function () events.timer("a.b", { time_unit = "week" }) end,
      ["stop: a table of fields"] = function ()
        heard(nil, function () events.timer "a.b" (1) end)
      end,
    } do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.truthy(message:find(text, 1, true), message)
      assert.truthy(message:find("telemetry_spec.lua", 1, true), message)
    end
  end)

  -- ---- reporters --------------------------------------------------------------------------------

  it("looks for a reporter until it is there, and tells one that is broken from none", function ()
    local reporter = events.reporter "spec.reporter_made_up"
    assert.is_false(reporter:is_there())
    assert.same({ nil, "missing_dependency" }, { reporter:start {} })
    package.preload["spec.reporter_made_up"] = function () error "does not load" end
    local ok, message = pcall(reporter.start, reporter)
    assert.is_false(ok)
    assert.truthy(message:find("does not load", 1, true))
    package.loaded["spec.reporter_made_up"] = nil
    package.preload["spec.reporter_made_up"] = function ()
      return { start = function (...) return select("#", ...), nil, "more" end }
    end
    assert.is_true(reporter:is_there())
    assert.same({ 2, nil, "more" }, { reporter:start(nil, nil) })
    assert.same({ nil, "missing_dependency" }, { reporter:log() })   -- it has no such verb
    package.preload["spec.reporter_made_up"], package.loaded["spec.reporter_made_up"] = nil, nil
    assert.is_false(neap.errors.of "missing_dependency".retryable)
    for _, what in ipairs { "", 7 } do
      ok, message = pcall(function () events.reporter(what) end)
      assert.is_false(ok)
      assert.truthy(message:find("telemetry_spec.lua:%d+: reporter: a module's name"), message)
    end
  end)

  it("can have a reporter that listens", function ()
    local sent = {}
    local function send(event) sent[#sent + 1] = event.kind end
    local reporter = events.reporter {
      attach = function (kinds) return events.tap(send, kinds) end,
      detach = function (stop) stop() end,
    }
    local id = reporter:attach { "*.stop" }
    events.measure("http.call", nil, function () end)
    reporter:detach(id)
    events.measure("http.call", nil, function () end)
    assert.same({ "http.call.stop" }, sent)
  end)
end)
