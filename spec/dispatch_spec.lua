local breaker_of = require "neap.breaker"
local client_of = require "neap.client"
local dispatch = require "neap.dispatch"
local dispatches = require "neap.dispatches"
local hybrid = require "neap.hybrid"
local manual = require "neap.runtime.manual"
local neap_queue = require "neap.queue"
local provider = require "neap.provider"
local runtime = require "neap.runtime"
local seed = require "spec.seed"
local throttle = require "neap.throttle"
local windows_of = require "neap.backoff_window"

describe("dispatch", function ()
  local rt, before

  before_each(function ()
    rt = manual.new()
    before = runtime.use(rt)
  end)

  after_each(function () runtime.use(before) end)

  local function small(more)
    local options = { concurrency = 3, throttled_concurrency = 1, byte_budget = 100,
      byte_penalty_multiplier = 10, backoff_window = 10 }
    for name, value in pairs(more or {}) do options[name] = value end
    return dispatch(options)
  end

  --- A task that holds what it asks for so long.
  local function call(api, given, seconds, done)
    return rt.spawn(function ()
      local held, why = api:acquire(given)
      done(held and rt.now() or why)
      if not held then return end
      rt.sleep(seconds)
      held:release()
    end)
  end

  local function inside(api)
    local s = api:snapshot()
    return { s.concurrency.in_use, s.throttled.in_use, s.bytes.level }
  end

  it("has the numbers of the one it is named after, unless told", function ()
    local s = dispatch():snapshot()
    assert.same({ 400, 10, 5242880, 1, "throttle", 0, false }, { s.concurrency.limit,
      s.throttled.limit, s.bytes.limit, s.multiplier, s.backoff.mode, s.waiting, s.backoff.active })
    local busy = dispatch()
    busy:set_backoff(1)
    assert.equal(20, busy:snapshot().multiplier)
    assert.same({ true, 1, 11 }, { busy:backoff_active(), busy:snapshot().backoff.left,
      busy:snapshot().backoff.recent })
    rt.advance(10.999)
    assert.is_true(busy:backoff_active())
    rt.advance(0.001)
    assert.is_false(busy:backoff_active())
  end)

  it("charges what holds when a call is let in, and gives that back", function ()
    local api = small()
    local free = assert(api:try_acquire(5))
    assert.same({ 1, 0, 95 }, inside(api))
    api:set_backoff(1)
    local paid = assert(api:try_acquire { bytes = 4 })
    assert.same({ 2, 1, 55 }, inside(api))
    free:release()                                   -- let in before: 5 bytes, no slot
    assert.same({ 1, 1, 60 }, inside(api))
    rt.advance(20)
    paid:settle { bytes = 6 }                        -- let in under it: its bytes count ten times
    assert.same({ 1, 1, 40 }, inside(api))
    paid:release()
    assert.same({ 0, 0, 100 }, inside(api))
  end)

  it("lets those in line feel a 429 the moment it comes", function ()
    local api, order = small { concurrency = 1 }, {}
    for i = 1, 3 do call(api, 2, 1, function (at) order[#order + 1] = { i, at } end) end
    rt.advance(0.5)
    api:set_backoff(0.2)
    rt.advance(0.5)
    assert.same({ 1, 1, 80 }, inside(api))
    rt.advance(1)
    assert.same({ 1, 1, 80 }, inside(api))
    assert.same({ { 1, 0 }, { 2, 1 }, { 3, 2 } }, order)
  end)

  it("lets them go on when it is over, and when it is cleared", function ()
    local api, order = small(), {}
    api:set_backoff(0)
    for i = 1, 5 do call(api, 0, 100, function (at) order[i] = at end) end
    rt.advance(9.999)
    assert.same({ 0 }, order)
    rt.advance(1)
    assert.same({ 0, 10, 10 }, order)
    local other, went = small(), {}
    other:set_backoff(1000)
    for i = 1, 5 do call(other, 0, 100, function (at) went[i] = at end) end
    rt.advance(1)
    other:clear_backoff()
    rt.advance(0)
    local now = rt.now()
    assert.same({ now - 1, now, now }, went)
    assert.is_false(other:backoff_active())
  end)

  it("follows the latest end, and its window is shared", function ()
    local hosts = windows_of()
    local one, other = small { window = hosts:of "a" }, small { window = hosts:of "a" }
    one:set_backoff(5)
    one:set_backoff(0)
    assert.is_true(other:backoff_active())
    rt.advance(5)
    assert.same({ false, true }, { other:backoff_active(), one:backoff_active() })
    rt.advance(9.999)
    assert.is_true(one:backoff_active())
    hosts:set("a", 30)
    rt.advance(1)
    assert.is_true(one:backoff_active())
    assert.same({ true, 30 }, { hosts:should_backoff "a", 29 + 1 })
  end)

  it("blocks when told to, and then throttles or not", function ()
    for mode, expected in pairs {
      block = { 5, 5, 5 }, both = { 5, 6, 7 }, throttle = { 0, 1, 2 },
    } do
      local api, at, began = small { on_backoff = mode }, {}, rt.now()
      api:set_backoff(5)
      for i = 1, 3 do call(api, 1, 1, function (when) at[i] = when - began end) end
      rt.advance(0)
      assert.same({ nil, "line" }, { api:try_acquire(1) })
      rt.advance(50)
      assert.same(expected, at, mode)
    end
  end)

  it("says what holds a call up", function ()
    local api = small()
    api:set_backoff(1)
    assert(api:try_acquire(11))
    assert.equal("dispatch throttled: needs 1 of 1, has 0; free when a permit comes back",
      tostring(api:why(1)))
    api:clear_backoff()
    assert.equal("dispatch bytes: needs 7 of any number, has -10; free when a permit comes back",
      tostring(api:why(7)))
    assert.same({ nil, "busy" }, { api:try_acquire(0) })
    assert.same({ nil, "busy" }, { api:peek() })
    assert.equal(-10, api:available "bytes")
  end)

  it("takes no bytes of one who has none, and lets it in only when nothing is owed", function ()
    local api = small()
    local heavy = assert(api:try_acquire(101))
    local at
    call(api, 0, 1, function (when) at = when end)
    rt.advance(1)
    assert.is_nil(at)
    heavy:release()
    rt.advance(0)
    assert.equal(1, at)
    assert.same({ 1, 0, 100 }, inside(api))
    assert(api:try_acquire(-3))
    assert.same({ 2, 0, 100 }, inside(api))
  end)

  it("gives up at a deadline, and when it is cancelled, and leaves nothing", function ()
    local api, heard = small { concurrency = 1, timeout = 2 }, {}
    assert(api:try_acquire(1))
    call(api, 1, 1, function (why) heard.own = { why, rt.now() } end)
    call(api, { bytes = 1, timeout = 1 }, 1, function (why) heard.call = { why, rt.now() } end)
    local task = call(api, { bytes = 1, timeout = 9 }, 1, function (why) heard.cut = why end)
    rt.advance(0.5)
    task:cancel()
    rt.advance(10)
    assert.same({ own = { "timeout", 2 }, call = { "timeout", 1 }, cut = "cancelled" }, heard)
    assert.same({ 1, 0, 99 }, inside(api))
    assert.equal(0, api:snapshot().waiting)
  end)

  it("hands on what a call answers, and its errors, and gives back", function ()
    local api = small()
    assert.same({ 1, nil, 3 }, { api:with(10, function (...) return ... end, 1, nil, 3) })
    assert.has_error(function () api:with(10, error, { code = 1 }) end, { code = 1 })
    assert.same({ 0, 0, 100 }, inside(api))
    api:close()
    assert.same({ nil, "closed" }, { api:with(1, print) })
  end)

  it("nests, twice in one as well, and stands behind a queue", function ()
    local api = small()
    local both = hybrid { api, throttle "5/s", api }
    local held = assert(both:try_acquire { bytes = 3 })
    assert.same({ 2, 0, 94 }, inside(api))
    held:release()
    api:set_backoff(60)
    assert.same({ nil, "busy", 70 }, { both:try_acquire { bytes = 3 } })   -- two of one slot
    local line, order = neap_queue(small { concurrency = 1 }, { capacity = 2 }), {}
    for i, priority in ipairs { 0, 1, 2 } do
      call(line, { bytes = 1, priority = priority }, 1, function (at) order[i] = at end)
    end
    rt.advance(10)
    assert.same({ 0, 2, 1 }, { order[1] - rt.now() + 10, order[2] - rt.now() + 10,
      order[3] - rt.now() + 10 })
  end)

  it("reads costs as other limiters do, and blames who made a mistake", function ()
    local api = small()
    assert(api:acquire { cost = { bytes = 5 }, timeout = 1 })
    assert(api:acquire { { "bytes", 6 }, timeout = 1 })
    assert.same({ 2, 0, 89 }, inside(api))
    assert(api:acquire { cost = { bytes = 0 }, timeout = 1 })
    assert.same({ 3, 0, 89 }, inside(api))
    local line = debug.getinfo(1, "l").currentline
    for i, wrong in ipairs {
      function () api:try_acquire { byte = 1 } end,
      function () api:acquire({ bytes = 0 }, {}, 5, api:acquire { timeout = "soon" }) end,
      function () api:peek "5" end,
      function () api:with({ byte = 1 }, print) end,
    } do
      local _, message = pcall(wrong)
      assert.equal(("spec/dispatch_spec.lua:%d:"):format(line + 1 + i), message:match "^%S+")
    end
    assert.error_matches(function () hybrid { api, api.bytes } end, "that a dispatch is made of")
  end)

  it("reads a number as bytes for a client, too", function ()
    local api = small()
    local client = client_of { limiter = api, breaker = breaker_of {} }
    client:call(function () assert.same({ 1, 0, 40 }, inside(api)) return true end, { cost = 60 })
    client:call(function () assert.same({ 1, 0, 100 }, inside(api)) return true end)
  end)

  it("hears what a provider reads, wherever it is nested", function ()
    for _, mode in ipairs { "throttle", "block", "both" } do
      local api = small { on_backoff = mode }
      local rate = throttle "5/s"
      local both = hybrid { rate, api, api }
      local drained = provider "aws":sync(both, { ["Retry-After"] = "7" })
      assert.same({ {}, true, 7, 17 }, { drained, api:backoff_active(),
        api:snapshot().backoff.left, api:snapshot().backoff.recent })
      assert.equal(5, rate:available())
    end
  end)

  it("is there by name", function ()
    local all = dispatches { most = 2 }
    local one = all:of("a", { concurrency = 2 })
    assert.equal(one, all:of("a", { concurrency = 7 }))
    assert.equal("a", one.name)
    one:set_backoff(1)
    all:of("b"):set_backoff(2)
    assert.same({ nil, "full" }, { all:of "c" })
    rt.advance(11)
    one.concurrency:reconfigure(5)
    assert.same({ nil, "full" }, { all:of "c" })   -- one has changed, the other backs off
    one.concurrency:reconfigure(2)
    assert.equal("c", all:of("c").name)
    assert.same({ "b", "c" }, all:list())
  end)

  it("refuses what makes no sense", function ()
    for _, row in ipairs {
      { 5, "dispatch: a table expected, as in { concurrency = 64 }, got number" },
      { { concurency = 5 }, "did you mean 'concurrency'" },
      { { concurrency = 0 }, "dispatch: concurrency: semaphore: a whole number of permits from 1" },
      { { throttled_concurrency = 1.5 }, "dispatch: throttled_concurrency" },
      { { byte_budget = "5 MBs" }, "dispatch: byte_budget" },
      { { byte_penalty_multiplier = 0 }, "byte_penalty_multiplier: a whole number from 1" },
      { { backoff_window = -1 }, "dispatch: backoff_window: seconds from 0 expected" },
      { { on_backoff = "stop" }, "\"throttle\", \"block\" or \"both\" expected, got stop" },
      { { window = 5 }, "window: a pause, or a back-off window's :of(key), expected, got 5" },
      { { name = "" }, "name: a text expected" },
      { { timeout = {} }, "a duration is seconds" },
    } do
      local ok, message = pcall(dispatch, row[1])
      assert.is_false(ok)
      assert.truthy(message:find(row[2], 1, true), message)
    end
    local api = small()
    assert.has_error(function () api:set_backoff(-1) end)
    assert.has_error(function () api:acquire { byte = 1 } end)
    assert.has_error(function () api:acquire "5" end)
    assert.has_error(function () api:with(1) end)
    assert.equal(5000000, dispatch({ byte_budget = "5MB" }):snapshot().bytes.limit)
  end)
end)

-- A flood, in virtual time. The server says 429 midway. What must hold, whatever callers do:
--
--   after the 429 nobody is let in but under its rules, and those in line are in it
--   first come, first served
--   the level is what those inside were charged, at every step, and nothing is left in the end
describe("a flood", function ()
  local CALLERS = 1000
  local before, rt
  before_each(function () before = runtime.use(nil) end)
  after_each(function () runtime.use(before) end)

  local function flood(mode)
    rt = manual.new()
    runtime.use(rt)
    local reports = {}
    rt.report = function (text) reports[#reports + 1] = text end
    math.randomseed(seed)
    local random = math.random
    local api = dispatch { concurrency = 40, throttled_concurrency = 4, byte_budget = 20000,
      byte_penalty_multiplier = 20, backoff_window = 3, on_backoff = mode }
    local expected = { calls = 0, slots = 0, bytes = 0 }
    local arrivals, entered, told_at, tasks = 0, {}, nil, {}
    local most_after = 0

    local function under() return mode ~= "block" and told_at and rt.now() < told_at + 2 + 3 end

    local function check()
      local s = api:snapshot()
      assert.same(expected, { calls = s.concurrency.in_use, slots = s.throttled.in_use,
        bytes = s.bytes.limit - s.bytes.level })
    end

    local function inside(mine, at)
      local throttled = under()
      local paid = { slots = throttled and 1 or 0, bytes = mine.bytes * (throttled and 20 or 1) }
      expected.calls, expected.slots = expected.calls + 1, expected.slots + paid.slots
      expected.bytes = expected.bytes + paid.bytes
      entered[#entered + 1], mine.at = mine, at
      if told_at and mode ~= "throttle" then
        assert.truthy(at < told_at or at >= told_at + 2, "let in while it is blocked")
      end
      if throttled then most_after = math.max(most_after, expected.slots) end
      local what = random(6)
      rt.sleep(random(1, 400) / 1000)
      expected.calls, expected.slots = expected.calls - 1, expected.slots - paid.slots
      expected.bytes = expected.bytes - paid.bytes
      if what == 1 then error({ boom = true }) end
      return true
    end

    for i = 1, CALLERS do
      rt.spawn(function ()
        rt.sleep(random(0, 2000) / 1000)
        arrivals = arrivals + 1
        local mine = { arrival = arrivals, bytes = random(1, 3000), dead = false }
        local timeout = random(5) == 1 and random(1, 3000) / 1000 or nil
        tasks[i] = rt.spawn(function ()
          local ran, err, why = pcall(api.with, api, { bytes = mine.bytes, timeout = timeout },
            function () return inside(mine, rt.now()) end)
          if not ran then assert.same({ boom = true }, err) end
          if ran and not err then assert.truthy(why == "timeout" or why == "cancelled", why) end
        end)
      end)
    end
    rt.spawn(function ()
      rt.sleep(1)
      told_at = rt.now()
      api:set_backoff(2)
    end)
    rt.spawn(function ()   -- some are cancelled, in line or inside
      for _ = 1, 150 do
        rt.sleep(0.05)
        local task = tasks[random(CALLERS)]
        if task then task:cancel() end
      end
    end)
    for _ = 1, 400 do
      rt.advance(0.05)
      check()
    end
    rt.advance(1000)
    assert.same({}, reports)
    for i = 1, CALLERS do assert.is_true(tasks[i].ended) end
    -- who is let in without waiting runs on before those who are woken at that very instant
    for i = 2, #entered do
      local one, other = entered[i - 1], entered[i]
      assert.truthy(other.arrival > one.arrival or other.at == one.at, "somebody was overtaken")
    end
    assert.same({ calls = 0, slots = 0, bytes = 0 }, expected)
    check()
    assert.equal(0, api:snapshot().waiting)
    if mode ~= "block" then assert.truthy(most_after > 0 and most_after <= 4, most_after) end
    return #entered
  end

  for _, mode in ipairs { "throttle", "block", "both" } do
    it("of a thousand callers is exact: " .. mode, function ()
      assert.truthy(flood(mode) > 300)
    end)
  end
end)
