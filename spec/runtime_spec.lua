local C = require "neap.engine"
local ev = require "neap.runtime.ev"
local lfs = require "lfs"
local manual = require "neap.runtime.manual"
local runtime = require "neap.runtime"
local seed = require "spec.seed"
local semaphore = require "neap.semaphore"

local MS = 1000000LL

describe("the manual clock", function ()
  local rt, log

  local function note(text, ...)
    log[#log + 1] = ("%g %s"):format(rt.now(), text:format(...))
  end

  before_each(function () rt, log = manual.new(), {} end)

  it("starts where it is told: in seconds, as a duration or as an instant", function ()
    assert.equal(0, rt.now())
    assert.equal(2.5, manual.new { now = 2.5 }.now())
    assert.equal(60, manual.new { now = "1min" }.now())
    assert.equal(7LL, manual.new { now = 7LL }.now_ns())
  end)

  it("jumps to what is due next when everybody waits", function ()
    local function every(period, times)
      for _ = 1, times do
        rt.sleep(period)
        note("%s", period)
      end
    end
    rt.run(function ()
      rt.spawn(every, "3d", 2)
      rt.spawn(every, 86400 * 2, 2)
    end)
    assert.same({ "172800 172800", "259200 3d", "345600 172800", "518400 3d" }, log)
  end)

  it("takes durations in seconds or as text, to the nanosecond", function ()
    for given, ns in pairs { [0.1] = 100 * MS, ["250ms"] = 250 * MS, [3e-9] = 3LL, ["1ns"] = 1LL,
      [-5] = 0LL, ["1m30s"] = 90000 * MS } do
      local before = rt.now_ns()
      assert.is_true(rt.sleep(given))
      assert.equal(ns, rt.now_ns() - before)
    end
    assert.error_matches(function () rt.sleep "5 parsecs" end, 'bad duration "5 parsecs": ')
    assert.error_matches(function () rt.sleep(0 / 0) end, "a duration is seconds")
    assert.error_matches(function () rt.sleep {} end, "a duration is seconds")
  end)

  it("advances in steps: who is due on the way runs at its own instant", function ()
    rt.spawn(function ()
      for _ = 1, 3 do
        rt.sleep(1)
        note "tick"
      end
    end)
    rt.advance(0)
    assert.same({}, log)
    rt.advance "1500ms"
    assert.same({ "1 tick" }, log)
    assert.equal(1.5, rt.now())
    rt.advance_ns(500 * MS - 1)
    assert.equal(1, #log)
    rt.advance_ns(1)
    assert.same({ "1 tick", "2 tick" }, log)
    rt.advance_to(10000 * MS)
    assert.same({ "1 tick", "2 tick", "3 tick" }, log)
    assert.equal(10, rt.now())
    assert.error_matches(function () rt.advance_to(9999 * MS) end, "time moves forward only")
    assert.error_matches(function () rt.advance_ns(-1) end, "time moves forward only")
  end)

  it("stands still in turn(0), and then only resumes", function ()
    rt.spawn(function ()
      note "begun"
      rt.sleep(1)
      note "over"
    end)
    rt.turn(0)
    assert.same({ "0 begun" }, log)
    rt.turn()            -- to what is due
    rt.turn(0)
    assert.same({ "0 begun", "1 over" }, log)
  end)

  it("serves a main chunk that is no task", function ()
    local task = rt.spawn(function ()
      rt.sleep(1)
      return "joined"
    end)
    assert.is_true(rt.sleep(3))
    assert.equal(3, rt.now())
    assert.equal("joined", task:join())
    assert.equal("again", rt.spawn(function () return "again" end):join())
  end)

  it("says who waits when nobody can go on", function ()
    local pool = semaphore(1, { name = "pool" })
    runtime.use(rt)
    finally(function () runtime.use(nil) end)
    local ok, why = pcall(rt.run, function ()
      pool:acquire()
      local first = rt.spawn("first", function () pool:acquire() end)
      rt.spawn("second", function () first:join() end)
      rt.sleep(1)
      pool:acquire()
    end)
    assert.is_false(ok)
    assert.matches("^deadlock: nothing is due, and nobody is left to give a permit back; " ..
      "these wait:\n  main, at .*runtime_spec.lua:%d+\n  first, at .*runtime_spec.lua:%d+\n" ..
      "  second, at .*runtime_spec.lua:%d+, for the end of first$", why)
    assert.equal("usable", rt.run(function () return "usable" end))
  end)

  it("does not call it a deadlock when others than tasks make things happen", function ()
    local ticket
    rt.outside = true
    rt.spawn(function ()
      ticket = tonumber(C.neap_engine_sleep(rt.engine, C.neap_horizon, rt.now_ns()))
      note("status %d", (rt.wait(ticket)))
    end)
    rt.turn(0)
    assert.is_true(rt.cancel(ticket))
    rt.turn(0)
    rt.turn(0)
    assert.same({ ("0 status %d"):format(C.NEAP_CANCELLED) }, log)
  end)

  it("wakes sleepers in the order of time, and of falling asleep within it", function ()
    math.randomseed(seed)
    local expected, woken = {}, {}
    rt.run(function ()
      for i = 1, 2000 do
        local s = math.random(50) / 10
        expected[i] = { s = s, i = i }
        rt.spawn(function ()
          rt.sleep(s)
          woken[#woken + 1] = i
          assert.equal(s, rt.now())
        end)
      end
    end)
    table.sort(expected, function (a, b) return a.s < b.s or a.s == b.s and a.i < b.i end)
    for i, each in ipairs(expected) do expected[i] = each.i end
    assert.same(expected, woken)
  end)

  it("refuses options that it does not know", function ()
    assert.error_matches(function () manual.new { start = 1 } end, "option 'start' is not known")
    assert.error_matches(function () manual.new { now = -1LL } end, "now: an instant from 0")
    assert.error_matches(function () manual.new { waiters_max = 0 } end,
      "waiters_max: a whole number")
  end)
end)

describe("run", function ()
  local rt, log

  before_each(function ()
    rt, log = manual.new(), {}
    rt.report = function () end
  end)

  it("returns what its function returned, when every task has ended", function ()
    local function packed(...) return { n = select("#", ...), ... } end
    assert.same({ n = 3, 1, nil, nil }, packed(rt.run(function (...)
      rt.spawn(rt.sleep, 5)
      return ...
    end, 1, nil, nil)))
    assert.equal(5, rt.now())
  end)

  it("raises its function's error with the traceback, and cancels the others", function ()
    local ok, why = pcall(rt.run, function ()
      rt.spawn(function ()
        log[1] = select(2, rt.sleep(100))
        rt.sleep(100)                    -- who waits again is dropped
        log[2] = "never"
      end)
      rt.spawn(function ()
        rt.sleep(100)
        while true do rt.sleep(0) end    -- and so is who never ends
      end)
      rt.sleep(1)
      error "the end"
    end)
    assert.is_false(ok)
    assert.matches("runtime_spec.lua:%d+: the end\nstack traceback:\n", why)
    assert.same({ "cancelled" }, log)
    assert.equal(1, rt.now())
    assert.equal(2, rt.run(function ()
      rt.sleep(1)
      return rt.now()
    end))
  end)

  it("passes an error that is no text as it is", function ()
    local object = {}
    local _, why = pcall(rt.run, function () error(object) end)
    assert.equal(object, why)
  end)

  it("does not run inside itself", function ()
    assert.error_matches(function ()
      rt.run(function () rt.run(print) end)
    end, "run: it is running already")
  end)
end)

describe("a ticket", function ()
  local rt

  local function sleeping(seconds)
    local now = rt.now_ns()
    return tonumber(C.neap_engine_sleep(rt.engine, now + seconds * 1000 * MS, now))
  end

  before_each(function () rt = manual.new() end)

  it("may end before anybody waits for it", function ()
    rt.run(function ()
      local ticket = sleeping(1)
      rt.sleep(2)
      local status, at = rt.wait(ticket)
      assert.equal(C.NEAP_WOKEN, status)
      assert.equal(1000 * MS, at)
      assert.equal(2, rt.now())
    end)
  end)

  it("is given up when the main chunk cannot wait for it any longer", function ()
    runtime.use(rt)
    finally(function () runtime.use(nil) end)
    local one = semaphore(1)
    local held = one:acquire()
    assert.error_matches(function () one:acquire() end, "deadlock: nothing is due")
    held:release()
    assert.equal(1, one:available())     -- nobody in line got it
  end)

  it("is refused when all places are taken, and sleep says so", function ()
    rt = manual.new { waiters_max = 2 }
    rt.run(function ()
      rt.spawn(rt.sleep, 1)
      rt.spawn(rt.sleep, 1)
      rt.sleep(0)
      assert.error_matches(function () rt.sleep(1) end,
        "queue: all 2 places to wait are taken %(waiters_max%)")
    end)
  end)

  it("that was granted to a task cancelled meanwhile says so, and nothing is lost", function ()
    runtime.use(rt)
    finally(function () runtime.use(nil) end)
    local one = semaphore(1)
    local got
    rt.run(function ()
      local held = one:acquire()
      local task = rt.spawn(function () got = { one:acquire() } end)
      rt.sleep(1)
      held:release()                     -- granted to the task, which has not run yet
      assert.equal(0, one:available())
      task:cancel()
    end)
    assert.same({ nil, "cancelled" }, got)
    assert.equal(1, one:available())
  end)
end)

describe("the runtime in use", function ()
  it("is the one it was told, and what its verbs act on", function ()
    local rt = manual.new { now = 5 }
    local before = runtime.use(rt)
    finally(function () runtime.use(before) end)
    assert.equal(rt, runtime.current())
    assert.equal(5, runtime.now())
    assert.is_true(runtime.sleep(1))
    assert.equal(6, runtime.run(function () return runtime.spawn(rt.now):join() end))
    assert.equal(rt, runtime.use(rt))
  end)

  it("is an ev one, opened once, when nothing was said", function ()
    local before = runtime.use(nil)
    finally(function () runtime.use(before) end)
    local rt = runtime.current()
    assert.truthy(rt.loop)
    assert.equal(rt, runtime.current())
    rt.close()
  end)
end)

describe("the ev runtime", function ()   -- real time, so little of it
  local rt

  before_each(function () rt = ev.new() end)
  after_each(function () rt.close() end)

  it("sleeps on the machine's clock, and never less", function ()
    rt.run(function ()
      for _, ns in ipairs { 1LL, 50000LL, 3 * MS } do
        local before = rt.now_ns()
        assert.is_true(rt.sleep(tonumber(ns) / 1e9))
        assert.truthy(rt.now_ns() - before >= ns)
      end
    end)
  end)

  it("is stuck when nothing is due and there is nobody outside", function ()
    assert.error_matches(function ()
      rt.run(function ()
        local me
        me = rt.spawn("first", function () rt.spawn("second", function () me:join() end):join() end)
      end)
    end, "deadlock: .*first, at .*, for the end of second\n  second, at .*, for the end of first")
  end)

  it("admits what a rate allows and never more, with many in line", function ()
    runtime.use(rt)
    finally(function () runtime.use(nil) end)
    local throttle = require "neap.throttle" "10000/s burst 1"
    local all_in, first, granted = nil, nil, {}
    rt.run(function ()
      for i = 1, 2100 do   -- enough for all there will be, so that a late loop loses nothing
        rt.spawn(function ()
          if i == 2100 then all_in = rt.now_ns() end
          repeat
            local at = throttle:acquire().at
            if all_in and at > all_in then
              first = first or at
              granted[#granted + 1] = tonumber(at - first)
            end
          until first and at - first >= 200 * MS
        end)
      end
    end)
    table.sort(granted)
    while granted[#granted] >= 200 * MS do granted[#granted] = nil end
    assert.truthy(#granted >= 1990 and #granted <= 2001, #granted .. " grants")
    for i, at in ipairs(granted) do assert.truthy(at >= (i - 1) * 100000 - 1) end
  end)

  it("hears signals once it catches them, and tells each once", function ()
    rt.catch { "HUP", "TERM" }
    assert.is_nil(rt.signals())
    os.execute "kill -HUP $PPID"
    while not rt.signals() do rt.turn() end
    os.execute "kill -TERM $PPID; kill -HUP $PPID"
    rt.turn(0)
    assert.same({ TERM = true, HUP = true }, rt.signals())
    assert.is_nil(rt.signals())
    local other = ev.new()
    assert.error_matches(function () other.catch { "INT" } end, "another loop of this process")
    rt.catch {}
    other.catch { "INT" }
    other.close()
    assert.error_matches(function () rt.catch { "KILL" } end, "signal 'KILL' is not known")
  end)

  it("refuses options that make no sense", function ()
    assert.error_matches(function () ev.new { slack = "2s" } end, "slack: up to 1 s")
    assert.error_matches(function () ev.new { lag = 1 } end, "option 'lag' is not known")
  end)

  it("closes twice without harm", function ()
    local other = ev.new()
    other.close()
    other.close()
    assert.is_nil(other.engine)
  end)
end)

describe("collecting", function ()
  it("closes runtimes that nobody uses any more", function ()
    local function descriptors()
      local count = 0
      for _ in lfs.dir "/proc/self/fd" do count = count + 1 end
      return count
    end
    collectgarbage()
    local before = descriptors()
    for _ = 1, 20 do ev.new() end
    jit.flush()   -- compiled code knows some of them by heart
    collectgarbage()
    collectgarbage()
    assert.truthy(descriptors() - before < 10)   -- one or two may still be on a stack, 3 each
  end)
end)

