local C = require "neap.engine"
local ffi = require "ffi"
local hybrid = require "neap.hybrid"
local manual = require "neap.runtime.manual"
local runtime = require "neap.runtime"
local seed = require "spec.seed"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

describe("waiting", function ()
  local rt, before, log

  before_each(function ()
    rt, log = manual.new(), {}
    before = runtime.use(rt)
  end)
  after_each(function ()
    assert.equal(C.NEAP_OK, C.neap_engine_check(rt.engine))
    runtime.use(before)
  end)

  local function stats()
    local s = ffi.new "struct neap_engine_stats"
    C.neap_engine_stats(rt.engine, s)
    return s
  end

  --- A task that acquires, notes what came of it and when, and keeps the permit.
  local function caller(name, limiter, given)
    return rt.spawn(function ()
      local held, why, wait_s = limiter:acquire(given)
      log[#log + 1] = ("%s %s %g"):format(name, held and "granted" or why, rt.now())
      return held, wait_s
    end)
  end

  --- A row: the instant (s), and what somebody does then.
  local function play(rows, until_s)
    for _, row in ipairs(rows) do
      rt.advance_ns(ffi.cast("int64_t", row[1] * 1e9 + 0.5) - rt.now_ns())
      row[2]()
      rt.advance(0)
    end
    rt.advance_ns(ffi.cast("int64_t", until_s * 1e9) - rt.now_ns())
  end

  it("takes how long to wait beside the cost or in one table with it, once", function ()
    for _, arguments in ipairs {
      { 2, 0.15 }, { 2, "150ms" }, { 2, { timeout = 0.15 } }, { { cost = 2 }, 0.15 },
      { { cost = 2, timeout = 0.15 } }, { 2, { deadline = rt.now() + 0.15 } },
    } do
      local t = throttle "10/s burst 2"
      t:drain()
      assert.same({ nil, "timeout", 0.2 }, { t:acquire(unpack(arguments)) })
    end
    local t = throttle "10/s"
    assert.error_matches(function () t:acquire({ timeout = 1 }, 2) end, "said twice")
    assert.error_matches(function () t:acquire(1, { timeuot = 2 }) end, "timeout or deadline")
    assert.error_matches(function () t:acquire(1, "soon") end, "duration")
    assert.equal(10, t:available())
  end)

  it("keeps the order of arrival, and nobody overtakes", function ()
    local t = throttle "10/s"
    t:drain()
    play({
      { 0, function () caller("a", t, 3) end },
      { 0.001, function () caller("b", t) end },
      { 0.1, function () assert.same({ nil, "line", 0.4 }, { t:try_acquire() }) end },
      { 0.1, function () caller("c", t) end },
      { 0.3, function () assert.same({ nil, "line", 0.3 }, { t:peek() }) end },
    }, 1)
    assert.same({ "a granted 0.3", "b granted 0.4", "c granted 0.5" }, log)
  end)

  it("does not starve a heavy call behind light ones", function ()
    local s = semaphore(4)
    local held = {}
    for i = 1, 4 do held[i] = s:try_acquire() end
    play({
      { 0, function () caller("heavy", s, 3) end },
      { 0, function () caller("light", s) end },
      { 1, function () held[1]:release() end },
      { 1, function () assert.same({ nil, "line" }, { s:try_acquire() }) end },
      { 2, function () held[2]:release() end },
      { 3, function () held[3]:release() end },
      { 4, function () held[4]:release() end },
    }, 5)
    assert.same({ "heavy granted 3", "light granted 4" }, log)
  end)

  it("ends at its deadline, and at once when that cannot be met", function ()
    local t = throttle "1/s"
    local s = semaphore(1)
    local held = s:try_acquire()
    t:drain()
    caller("too soon", t, { timeout = 0.5 })
    caller("just so", t, { timeout = "1s" })
    caller("instant", t, { deadline = 2 })
    caller("cdata", t, { deadline = 2999999999LL })
    caller("past", t, { deadline = -5 })
    caller("not at all", s, { timeout = 0 })
    caller("a while", s, { timeout = 1.5 })
    caller("the nearer", s, { timeout = 10, deadline = 2 })
    caller("for ever", s, { timeout = math.huge })
    rt.advance(10)
    assert.same({
      "too soon timeout 0", "cdata timeout 0", "past timeout 0", "not at all timeout 0",
      "just so granted 1", "a while timeout 1.5", "instant granted 2", "the nearer timeout 2",
    }, log)
    held:release()
    rt.advance(0)
    assert.equal("for ever granted 10", log[9])
  end)

  it("says after a timeout when it could have been", function ()
    local t = throttle "1/s"
    t:drain()
    assert.same({ nil, "timeout", 1 }, { t:acquire { timeout = 0.25 } })
    local s = semaphore(1)
    local held = s:try_acquire()
    assert.same({ nil, "timeout" }, { s:acquire { timeout = 1 } })   -- no clock can tell
    assert.equal(1, rt.now())
    assert.is_true(held:release())

    local h = hybrid { t, s }
    assert(h:acquire()):release()
    held = s:try_acquire()
    local _, wait_s = caller("late", h, { timeout = 3 }):join()
    assert.is_nil(wait_s)
    assert.same({ "late timeout 4" }, log)
    held:release()
  end)

  it("that is cancelled gives its place to the next", function ()
    local t = throttle "10/s"
    t:drain()
    local tasks = {}
    play({
      { 0, function () for i = 1, 4 do tasks[i] = caller("w" .. i, t) end end },
      { 0.05, function () tasks[1]:cancel() end },
      { 0.15, function () tasks[3]:cancel() end },
    }, 1)
    assert.same({ "w1 cancelled 0.05", "w2 granted 0.1", "w3 cancelled 0.15", "w4 granted 0.2" },
      log)
    assert.equal(8, t:available())
  end)

  it("that is cancelled after its grant and before it knew gives that back", function ()
    local t, s = throttle "10/s", semaphore(1)
    local h = hybrid { t, s }
    local held = s:try_acquire()
    local task = caller("w", h)
    rt.turn(0)
    held:release()                    -- granted now, but nobody has told the task
    task:cancel()
    rt.advance(0)
    assert.same({ "w cancelled 0" }, log)
    assert.same({ 10, 1 }, { t:available(), s:available() })
  end)

  it("works outside of tasks, too: time passes until it is granted", function ()
    local t = throttle "10/s"
    t:drain()
    assert(t:acquire(5))
    assert.equal(0.5, rt.now())
    local s = semaphore(1)
    assert.is_true(s:acquire():release())
  end)

  it("is refused when all places to wait are taken", function ()
    local small = manual.new { waiters_max = 2 }
    runtime.use(small)
    local t = throttle "1/s"
    t:drain()
    local words = {}
    for i = 1, 4 do
      small.spawn(function ()
        local held, why = t:acquire()
        words[i] = held and "granted" or why
      end)
    end
    small.advance(5)
    assert.same({ "granted", "granted", "queue", "queue" }, words)
  end)

  it("is ended by closing, and by nothing afterwards", function ()
    local t = throttle "1/s"
    t:drain()
    play({
      { 0, function () caller("a", t) end },
      { 0, function () caller("b", t) end },
      { 1.5, function () t:close() end },
      { 2, function () caller("c", t) end },
    }, 5)
    assert.same({ "a granted 1", "b closed 1.5", "c closed 2" }, log)
    assert.is_nil(next(t.waiting))
  end)

  it("for several limits ends at the last of them, and debits all then", function ()
    local a, b, s = throttle "10/s", throttle "2/s", semaphore(1)
    local h = hybrid { a, b, s }
    local held = assert(h:acquire(1))
    b:drain()
    play({
      { 0, function () caller("w", h) end },
      { 0.5, function () assert.same({ 10, 1, 0 }, { a:available(), b:available(),
        s:available() }) end },
      { 2, function () held:release() end },
    }, 2)
    assert.same({ "w granted 2" }, log)
    assert.same({ 9, 1, 0 }, { a:available(), b:available(), s:available() })
  end)

  it("serves ten thousand in order, each woken once, none early", function ()
    local many = 10000
    local t = throttle "1000/s smooth"
    t:drain()
    local order, at = {}, {}
    for i = 1, many do
      rt.spawn(function ()
        assert(t:acquire())
        order[#order + 1], at[i] = i, rt.now_ns()
      end)
    end
    local wakeups = stats().wakeups
    rt.advance(11)
    for i = 1, many do
      if order[i] ~= i or at[i] ~= i * 1000000LL then
        error(("place %d: waiter %d at %s"):format(i, order[i], tostring(at[i])))
      end
    end
    assert.equal(many, tonumber(stats().wakeups - wakeups))
    assert.equal(many, tonumber(stats().granted))
  end)

  it("moves the rest forward exactly when every third goes, in any order", function ()
    math.randomseed(seed)
    local many, tasks, gone = 3000, {}, {}
    local t = throttle "1000/s smooth"
    t:drain()
    local at = {}
    for i = 1, many do
      tasks[i] = rt.spawn(function ()
        if t:acquire() then at[i] = rt.now_ns() end
      end)
      if i % 3 == 0 then gone[#gone + 1] = i end
    end
    rt.turn(0)
    for i = #gone, 2, -1 do
      local j = math.random(i)
      gone[i], gone[j] = gone[j], gone[i]
    end
    for _, i in ipairs(gone) do tasks[i]:cancel() end
    rt.advance(4)
    local place = 0
    for i = 1, many do
      if i % 3 == 0 then
        assert.is_nil(at[i])
      else
        place = place + 1
        if at[i] ~= place * 1000000LL then
          error(("waiter %d at %s, not %d ms"):format(i, tostring(at[i]), place))
        end
      end
    end
  end)
end)
