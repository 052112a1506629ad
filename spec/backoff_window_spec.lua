local backoff_window = require "neap.backoff_window"
local hybrid = require "neap.hybrid"
local in_virtual_time = require "spec.in_virtual_time"
local multi = require "neap.multi"
local provider = require "neap.provider"
local seed = require "spec.seed"

local huge, random = math.huge, math.random


describe("back-off windows", function ()
  local rt

  in_virtual_time(function (new)
    math.randomseed(seed)
    rt = new
  end)

  local function asked(windows, key) return { windows:should_backoff(key) } end

  it("are on for their key until the instant they end", function ()
    local w = backoff_window()
    assert.same({ false, 0 }, asked(w, "a"))
    assert.equal(0.1, w:set("a", "100ms"))
    assert.same({ true, 0.1 }, asked(w, "a"))
    assert.same({ false, 0 }, asked(w, "b"))
    rt.advance_ns(99999999)
    assert.same({ true, 1e-9 }, asked(w, "a"))
    rt.advance_ns(1)
    assert.same({ false, 0 }, asked(w, "a"))
  end)

  it("grow and never shrink, until they are cleared", function ()
    local w = backoff_window()
    for _, row in ipairs {
      --  at, set, lasts from then
      {  0,  30,  30 },
      {  0,   5,  30 },
      { 10,  60,  60 },
      { 60,  10,  10 },
      { 65,   5,   5 },
      { 70,   0,   0 },   -- it is over, and zero is nothing new
      { 70,   1,   1 },
    } do
      rt.advance_to(row[1] * 1000000000LL)
      assert.equal(row[3], w:set("k", row[2]))
      assert.same({ row[3] > 0, row[3] }, asked(w, "k"))
    end
    w:set("k", huge)
    assert.is_true(w:should_backoff "k")
    w:clear "k"
    w:clear "k"
    w:clear "never seen"
    assert.same({ false, 0 }, asked(w, "k"))
    assert.equal(0.01, w:set("k", 0.01))
  end)

  it("have keys of any kind, each its own", function ()
    local w, t = backoff_window(), {}
    for i, key in ipairs { "1", 1, 1.5, t, true, "", -0.1 } do w:set(key, i) end
    assert.same({ 1, 2, 3, 4, 5, 6, 7 }, {
      select(2, w:should_backoff "1"), (select(2, w:should_backoff(1))),
      (select(2, w:should_backoff(1.5))), (select(2, w:should_backoff(t))),
      (select(2, w:should_backoff(true))), (select(2, w:should_backoff "")),
      (select(2, w:should_backoff(-0.1))),
    })
    assert.equal(7, w:count())
  end)

  it("are one for a key, through whichever handle", function ()
    local w = backoff_window()
    local a = w:of "k"
    assert.equal(a, w:of "k")
    assert.equal(2, w:set("k", 2))
    assert.same({ true, 2 }, { a:active(), a:left() })
    assert.equal(a, w:of "k")
    assert.equal(5, a:extend(5))
    assert.same({ true, 5 }, asked(w, "k"))
    a:clear()
    assert.equal(0, w:count())
    assert.equal(3, a:extend(3))
    w:set("other", 1)
    assert.equal(1, w:of "other":left())
    w:of "third":extend(7)   -- and nobody has it
    collectgarbage()
    collectgarbage()
    assert.same({ true, 7 }, asked(w, "third"))
  end)

  describe("waited for", function ()
    local w

    local function waiter(...)
      return rt.spawn(function (...)
        local over, why, wait_s = w:wait(...)
        return over, why, wait_s, rt.now()
      end, ...)
    end

    before_each(function () w = backoff_window() end)

    it("let everybody go when they end, and do not hold up who comes later", function ()
      assert.is_true(w:wait "k")
      w:set("k", 3)
      local tasks = {}
      for i = 1, 50 do tasks[i] = waiter "k" end
      assert.is_true(w:wait "other")
      rt.advance(10)
      for _, task in ipairs(tasks) do assert.same({ true, nil, nil, 3 }, { task:join() }) end
      assert.is_true(w:wait "k")
      assert.equal(10, rt.now())
    end)

    it("let them go when they are cleared", function ()
      w:set("k", 30)
      local task = waiter "k"
      rt.advance(0.02)
      w:clear "k"
      assert.same({ true, nil, nil, 0.02 }, { task:join() })
    end)

    it("keep them when they grow meanwhile", function ()
      w:set("k", 1)
      local task = waiter "k"
      rt.advance(0.5)
      w:set("k", 2)
      assert.same({ true, nil, nil, 2.5 }, { task:join() })
    end)

    it("keep them when they begin anew before who waits has looked", function ()
      w:set("k", 1)
      local setter = rt.spawn(function () rt.sleep(1) return w:set("k", 2) end)
      local task = waiter "k"
      -- It ended while nobody looked, and somebody heard of a longer one first.
      local wait = rt.wait
      function rt.wait(ticket)
        local status, at, bound, late = wait(ticket)
        rt.sleep(0)
        return status, at, bound, late
      end
      assert.equal(2, setter:join())
      assert.same({ true, nil, nil, 3 }, { task:join() })
      rt.wait = wait
    end)

    it("are waited for no longer than told", function ()
      w:set("k", 10)
      assert.same({ nil, "timeout", 10 }, { w:wait("k", 4) })   -- it is known at once
      assert.same({ nil, "timeout", 10 }, { w:wait("k", 0) })
      assert.equal(0, rt.now())
      local task = waiter("k", { deadline = 12 })
      rt.advance(5)
      w:set("k", 10)
      rt.advance(20)
      assert.same({ nil, "timeout", 3, 12 }, { task:join() })
      w:set("k", 2)
      assert.is_true(w:wait("k", "2s"))
    end)

    it("are waited for until the task is cancelled", function ()
      w:set("k", 10)
      local cancelled, other = waiter "k", waiter "k"
      rt.advance(1)
      cancelled:cancel()
      assert.same({ nil, "cancelled", nil, 1 }, { cancelled:join() })
      assert.same({ true, nil, nil, 10 }, { other:join() })
    end)
  end)

  describe("in a hybrid", function ()
    it("stand in the way of their key", function ()
      local w = backoff_window { name = "told to wait:" }
      local a, b = hybrid { "10/s", w:of "a" }, hybrid { "10/s", w:of "b" }
      w:set("a", "30s")
      assert.same({ nil, "pause", 30 }, { a:try_acquire() })
      assert.equal("told to wait: a: paused; free in 30s", tostring(a:why()))
      assert(b:try_acquire())
      assert.same({ 0, 9 }, { a:available(), b:available() })
      local task = rt.spawn(function () return a:acquire() ~= nil, rt.now() end)
      rt.advance(1)
      w:set("a", 60)
      rt.advance(40)
      w:clear "a"
      assert.same({ true, 41 }, { task:join() })
    end)

    it("are a dimension, too", function ()
      local w = backoff_window()
      local m = multi { requests = "10/s", host = w:of "h" }
      w:set("h", 1)
      assert.equal("host", m:why { requests = 1, host = 1 }.limiter)
      assert(m:try_acquire { requests = 1 })
    end)

    it("stay the same ones, however often they are forgotten meanwhile", function ()
      local w = backoff_window()
      local api = hybrid { "10/s", hybrid { w:of "k" } }
      for _ = 1, 3 do
        w:set("k", 1)
        assert.same({ nil, "pause", 1 }, { api:try_acquire() })
        rt.advance(1)
        assert.equal(0, w:count())
        collectgarbage()
        collectgarbage()
        assert(api:try_acquire())
      end
    end)
  end)

  describe("are bounded:", function ()
    it("one too many is refused, and told when there is room", function ()
      local w = backoff_window { most = 3 }
      for i, key in ipairs { "c", "a", "b" } do assert.equal(4 - i, w:set(key, 4 - i)) end
      assert.same({ nil, "full", 1 }, { w:set("d", 10) })
      assert.same({ nil, "full", 1 }, { w:of "d":extend(10) })
      assert.same({ false, 0 }, asked(w, "d"))
      assert.equal(9, w:set("b", 9))         -- who is in may grow
      assert.same({ nil, "full", 2 }, { w:set("d", 10) })
      rt.advance(2)
      assert.equal(10, w:set("d", 10))       -- "a" has ended
      w:clear "d"
      assert.equal(10, w:set("e", 10))
      for _, key in ipairs { "b", "c", "e" } do w:set(key, huge) end
      assert.same({ nil, "full" }, { w:set("f", 1) })
      assert.equal(3, w:count())
    end)

    it("what has ended is forgotten", function ()
      local w = backoff_window()
      for i = 1, 10000 do assert(w:set(i, 0.01)) end
      assert.same({ nil, "full", 0.01 }, { w:set("one more", 1) })
      rt.advance(600)
      for i = 1, 100 do w:set("new " .. i, 1) end
      assert.equal(9900, #w.soonest)         -- two for one, without a look at all
      assert.equal(100, w:count())
      rt.advance(1)
      assert.equal(0, w:count())
      assert.is_nil(next(w.kept))
    end)

    it("nothing is left of handles that nobody has", function ()
      local w = backoff_window()
      for i = 1, 100 do w:of(i):extend(1) end
      rt.advance(1)
      assert.equal(0, w:count())
      collectgarbage()
      collectgarbage()
      assert.is_nil(next(w.made))
    end)
  end)

  -- The second opinion: a table of when each key ends, looked through every time.
  it("are what a table of instants is, that holds so many", function ()
    for most = 1, 12 do
      local w, ends, now = backoff_window { most = most }, {}, tonumber(rt.now_ns() / 1000000)
      local function on()
        local count, first = 0, huge
        for key, at in pairs(ends) do
          if at > now then
            count, first = count + 1, math.min(first, at)
          else
            ends[key] = nil
          end
        end
        return count, first
      end
      local function ms(seconds) return seconds and math.floor(seconds * 1000 + 0.5) end
      for step = 1, 1500 do
        local key, dice = random(20), random()
        local count, first = on()
        if dice < 0.5 then
          local duration = random(0, 40)
          local left, why, wait_s = w:set(key, duration / 1000)
          if not ends[key] and count >= most then
            assert.same({ nil, "full", first - now }, { left, why, ms(wait_s) }, "step " .. step)
          else
            ends[key] = math.max(ends[key] or 0, now + duration)
            assert.equal(ends[key] - now, ms(left), "step " .. step)
          end
        elseif dice < 0.6 then
          w:clear(key)
          ends[key] = nil
        elseif dice < 0.9 then
          local left = ends[key] and ends[key] - now or 0
          local is_on, got = w:should_backoff(key)
          assert.same({ left > 0, left }, { is_on, ms(got) }, "step " .. step)
        else
          now = now + random(10)
          rt.advance_to(now * 1000000LL)
          if random() < 0.3 then assert.equal((on()), w:count()) end
        end
        local heap = w.soonest
        assert.is_true(#heap <= most)
        for i, one in ipairs(heap) do
          assert.equal(i, one.place)
          assert.equal(one, w.kept[one.key])
          local up = heap[math.floor(i / 2)]
          assert.is_true(not up or up.leaf.as.pause.ends <= one.leaf.as.pause.ends)
        end
      end
    end
  end)

  it("know what a server told a limiter that they are in", function ()
    local w = backoff_window { most = 1 }
    local one, other = w:of "host", w:of "other"
    local api = hybrid { "10/s", one }
    provider "rfc":sync(api, { ["retry-after"] = "9" }, { now = 0 })
    assert.same({ true, 9 }, asked(w, "host"))
    assert.equal(1, w:count())
    provider "rfc":sync(hybrid { other }, { ["retry-after"] = "5" }, { now = 0 })
    assert.equal(5, other:left())   -- no room to remember it by its key, and it holds all the same
    assert.same({ nil, "full", 9 }, { w:set("third", 1) })
  end)

  it("refuse what makes no sense", function ()
    local w = backoff_window()
    for message, fn in pairs {
      ["set: seconds from 0 expected, got -1"] = function () w:set("k", -1) end,
      ["bad duration \"5x\""] = function () w:set("k", "5x") end,
      ["a duration is seconds or a text such as \"250ms\", not nan"] =
        function () w:set("k", 0 / 0 * -1) end,
      ["set: a key expected, got nil"] = function () w:set(nil, 1) end,
      ["wait: a key expected, got nan"] = function () w:wait(0 / 0 * -1) end,
      ["of: a key expected"] = function () w:of() end,
      ["clear: a key expected"] = function () w:clear() end,
      ["should_backoff: a key expected"] = function () w:should_backoff() end,
      ["timeout: seconds from 0 expected, got -2"] = function () w:wait("k", -2) end,
      ["timeout or deadline expected, got timeot"] = function () w:wait("k", { timeot = 1 }) end,
      ["most: a whole number from 1 to 2^24 expected, got 0"] =
        function () backoff_window { most = 0 } end,
      ["most: a whole number from 1 to 2^24 expected, got 1.5"] =
        function () backoff_window { most = 1.5 } end,
      ["option 'idle' is not known"] = function () backoff_window { idle = 1 } end,
    } do
      local ok, err = pcall(function () fn() return true end)
      assert.is_false(ok, message)
      assert.is_truthy(err:find(message, 1, true), ("%s\nis not in\n%s"):format(message, err))
      assert.is_truthy(err:find("backoff_window_spec.lua", 1, true), "blames another: " .. err)
    end
    assert.same({ false, 0 }, asked(w, "k"))
    assert.equal(0, w:count())
  end)
end)
