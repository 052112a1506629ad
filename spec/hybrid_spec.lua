local hybrid = require "neap.hybrid"
local in_virtual_time = require "spec.in_virtual_time"
local pause = require "neap.pause"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

local huge = math.huge

describe("a hybrid", function ()
  local rt

  in_virtual_time(function (new) rt = new end)

  local function fails(cases)
    for message, fn in pairs(cases) do
      local ok, err = pcall(function () fn() return true end)
      assert.is_false(ok, message)
      assert.is_truthy(err:find(message, 1, true), ("%s\nis not in\n%s"):format(message, err))
      assert.is_truthy(err:find("hybrid_spec.lua", 1, true), "blames someone else: " .. err)
    end
  end

  it("takes from all or from none, and waits for the slowest", function ()
    local a, b = throttle "10/s", throttle "3/min"
    local h = hybrid { a, b }
    assert(h:try_acquire(2))
    assert.same({ 8, 1, 1, 3 }, { a:available(), b:available(), h:available(), h:capacity() })
    assert.same({ nil, "rate", 20 }, { h:try_acquire(2) })
    assert.same({ 8, 1 }, { a:available(), b:available() })
    assert.same({ nil, "cost" }, { h:try_acquire(4) })
    assert.equal("3/min: needs 2 of 3, has 1; free in 20s", tostring(h:why(2)))
    assert(h:acquire(2))
    assert.equal(20, rt.now())
  end)

  it("of nothing is no limit", function ()
    local h = hybrid {}
    assert(h:try_acquire(2 ^ 53)):release()
    assert(h:acquire { timeout = 0 })
    assert.same({ huge, huge, "unlimited" }, { h:available(), h:capacity(), tostring(h) })
    assert.is_nil(h:why())
    assert.is_true(h:peek())
    assert(hybrid { hybrid {}, "unlimited" }:try_acquire())
  end)

  it("takes texts, limiters, values, hybrids", function ()
    local h = hybrid {
      "10/s", semaphore(4), { kind = "rate", amount = 7, per_ns = 1e9, burst = 7, mode = "burst" },
      hybrid { "5 in flight", hybrid { "6/s sliding" } },
    }
    assert.equal(4, h:capacity())
    assert.equal("10/s and 4 in flight and 7/s and 5 in flight and 6/s sliding", tostring(h))
    local held = assert(h:try_acquire(4))
    assert.same({ nil, "busy" }, { h:try_acquire() })
    held:release()
    assert.same({ nil, "rate", 1 }, { h:try_acquire(3) })   -- the window, 4 of 6 are in it
  end)

  it("charges a limit that is listed twice twice", function ()
    local s = throttle "3/s"
    local h = hybrid { s, hybrid { s } }
    assert.same({ 1, 1 }, { h:capacity(), h:available() })
    assert(h:try_acquire())
    assert.equal(1, s:available())
    assert.same({ nil, "rate", 0.333333334 }, { h:try_acquire() })
    assert.equal(1, s:available())
    assert.equal("3/s: needs 2 of 3, has 1; free in 334ms", tostring(h:why()))
  end)

  describe("with names", function ()
    local h

    before_each(function ()
      h = hybrid { requests = "60/min", tokens = "1000/min", "8 in flight" }
    end)

    it("charges what the call says", function ()
      assert(h:try_acquire { requests = 1, tokens = 900 })
      assert.same({ 59, 100 }, { h:available "requests", h:available "tokens" })
      assert(h:try_acquire { tokens = 100 })
      assert.same({ 59, 0 }, { h:available "requests", h:available "tokens" })
      assert.same({ nil, "rate", 0.06 }, { h:try_acquire { tokens = 1 } })
      assert.equal("tokens", h:why { tokens = 1 }.limiter)
      assert.same({ nil, "cost" }, { h:try_acquire { tokens = 1001 } })
      assert.same({ 60, 1000, 8 }, { h:capacity "requests", h:capacity "tokens", h:capacity() })
    end)

    it("charges a number to all, and unnamed limits 1 unless told", function ()
      local held = assert(h:try_acquire(5))
      assert.same({ 55, 995, 3 }, { h:available "requests", h:available "tokens", h:available() })
      held:release()
      held = assert(h:try_acquire { tokens = 5, cost = 8 })
      assert.equal(0, h:available())
      held:release()
      held = assert(h:acquire { cost = { tokens = 5 }, timeout = 1 })
      assert.equal(7, h:available())
      held:release()
      held = assert(h:acquire { cost = 2 })
      assert.same({ 53, 6 }, { h:available "requests", h:available() })
      held:release()
    end)

    it("settles by name, and what is in flight stays", function ()
      local held = assert(h:try_acquire { requests = 1, tokens = 900 })
      assert(held:settle { tokens = 300 })
      assert.same({ 59, 700, 7 }, { h:available "requests", h:available "tokens", h:available() })
      assert(held:settle { tokens = 1100 })
      assert.equal(-100, h:available "tokens")
      held:release()
      assert.equal(8, hybrid { "8 in flight" }:available())
      assert.same({ nil, "rate", 6.06 }, { h:try_acquire { tokens = 1 } })
    end)

    it("keeps names through nesting, and names what has none", function ()
      local inner = throttle "10/s"
      local outer = hybrid { rate = hybrid { inner, tokens = "500/min" }, h }
      assert(outer:try_acquire { tokens = 100, rate = 2 })
      assert.same({ 8, 400, 8 }, { inner:available(), outer:available "tokens",
        outer:available "rate" })
      assert.equal(900, h:available "tokens")
    end)

    it("can be given in order, the same name for several limits", function ()
      local a, b = throttle "10/s", throttle "3/s"
      local pairs_of = hybrid { { "r", a }, { "r", b } }
      for _ = 1, 3 do assert(pairs_of:try_acquire { r = 1 }) end
      local _, why = pairs_of:try_acquire { r = 1 }
      assert.equal("rate", why)
      assert.same({ 7, 0 }, { a:available(), b:available() })
    end)

    it("refuses names it does not know, and what makes no sense", function ()
      local many = {}
      for i = 1, 9 do many["n" .. i] = "1/s" end
      local long = {}
      for i = 1, 65 do long[i] = i .. "/s" end
      fails {
        ['cost "tokns" is not known: there are requests, tokens'] =
          function () h:try_acquire { tokns = 1 } end,
        ["cost tokens: a whole number from 0 to 2^53 expected, got -1"] =
          function () h:acquire { tokens = -1 } end,
        ['cost "tokens" stands beside cost = {...}'] =
          function () h:try_acquire { tokens = 1, cost = { requests = 1 } } end,
        ['cost "x" is not known: there are requests, tokens'] = function () h:available "x" end,
        ["cost: every limit here has a named cost: there are a"] = function ()
          hybrid { a = "1/s" }:try_acquire():settle { cost = 1 }
        end,
        ["'timeout' cannot be a name"] = function () hybrid { timeout = "1/s" } end,
        ["9 different costs, at most 8 are possible"] = function () hybrid(many) end,
        ["65 limits, at most 64 are possible"] = function () hybrid(long) end,
        ["limit 2: unknown time unit 'q'"] = function () hybrid { "1/s", "1/q" } end,
        ["tokens: throttle: "] = function () hybrid { tokens = "1/s fixed" } end,
        ["limit 1: a limiter or a text such as \"10/s\" expected, got 5"] =
          function () hybrid { 5 } end,
        ["got a table that has no peek and take"] = function () hybrid { {} } end,
        ["a list of limits expected"] = function () hybrid "10/s" end,
        ["0 is neither a place in the list nor a name"] = function () hybrid { [0] = "1/s" } end,
      }
      assert.same({ 60, 1000, 8 }, { h:available "requests", h:available "tokens", h:available() })
    end)
  end)

  it("is held up by a pause, and free when that is cleared", function ()
    local p = pause()
    local h = hybrid { "10/s", p }
    assert.equal(30, p:extend "30s")
    assert.equal(30, p:extend(5))              -- a longer one stays
    assert.same({ nil, "pause", 30 }, { h:try_acquire() })
    assert.equal("pause: paused; free in 30s", tostring(h:why()))
    local a = rt.spawn(function () return h:acquire() ~= nil, rt.now() end)
    rt.advance(7)
    assert.same({ true, 23 }, { p:active(), p:left() })
    p:clear()
    assert.same({ true, 7 }, { a:join() })
    assert.same({ false, 0 }, { p:active(), p:left() })
    assert.error_matches(function () p:extend(-1) end, "extend: seconds from 0 expected")
  end)

  it("closes with what is in it, and those in line hear of it", function ()
    local calls = semaphore(1)
    local h = hybrid { "10/s", calls }
    local held = h:try_acquire()
    local a = rt.spawn(h.acquire, h)
    local b = rt.spawn(calls.acquire, calls)
    rt.turn(0)
    calls:close()
    assert.same({ nil, "closed" }, { a:join() })
    assert.same({ nil, "closed" }, { b:join() })
    assert.same({ nil, "closed" }, { h:try_acquire() })
    assert.same({ nil, "closed" }, { h:peek() })
    assert.same({ nil, "closed" }, { hybrid { h }:acquire() })
    assert.equal("closed", h:why().word)
    assert.is_true(held:release())
    assert.equal(1, calls:available())
  end)

  describe("with a guest", function ()
    -- A limiter in Lua: so many at once, and a log of what was asked.
    local function quota(most, wait)
      local q = { left = most, name = "quota" }
      function q:peek(n)
        if n > most then return nil, "cost" end
        if n > self.left then return nil, "rate", wait end
        return true
      end
      function q:take(n)
        local ok, why, after = self:peek(n)
        if ok then self.left = self.left - n end
        return ok, why, after
      end
      function q:give(n) self.left = self.left + n end
      function q:available() return self.left end
      function q:capacity() return most end
      return q
    end

    it("takes from all or none", function ()
      local q = quota(2)
      local h = hybrid { "10/s", q, "5 in flight" }
      assert.same({ 2, 2 }, { h:available(), h:capacity() })
      local held = assert(h:try_acquire(2))
      assert.equal(0, q.left)
      assert.same({ nil, "rate" }, { h:try_acquire() })
      assert.same({ nil, "cost" }, { h:try_acquire(3) })
      assert.equal("quota: needs 1 of 2, has 0; free when a permit comes back", tostring(h:why()))
      assert.equal("5 in flight", h:why(6).limiter)
      assert(held:release())
      assert.equal(2, q.left)
      assert.is_true(h:peek(2))
    end)

    it("puts back what it took when one changes its mind or raises", function ()
      local rate, window, q = throttle "5/s", throttle "4/s sliding", quota(9)
      local liar = { peek = function () return true end }
      function liar.take() return nil, "rate", 0.05 end
      local h = hybrid { rate, window, q, liar }
      assert.same({ nil, "rate", 0.05 }, { h:try_acquire(2) })
      assert.same({ 5, 4, 9 }, { rate:available(), window:available(), q.left })
      function liar.take() error("broken", 0) end
      assert.error_matches(function () h:try_acquire(2) end, "^broken$")
      assert.same({ 5, 4, 9 }, { rate:available(), window:available(), q.left })
    end)

    it("waits for it as long as it says, and not when it does not", function ()
      local q = quota(1, 2)
      local h = hybrid { "10/s", q }
      q.left = 0
      local task = rt.spawn(function () return h:acquire() ~= nil, rt.now() end)
      rt.advance(3)
      q.left = 1
      assert.same({ true, 4 }, { task:join() })
      assert.same({ nil, "timeout", 2 }, { h:acquire { timeout = 1 } })
      local silent = hybrid { quota(0) }
      assert.same({ nil, "cost" }, { silent:acquire() })
      local unknown = quota(1)
      unknown.left = 0
      assert.same({ nil, "rate" }, { hybrid { unknown }:acquire { timeout = 5 } })
      task = rt.spawn(function () return h:acquire() end)
      rt.turn(0)
      task:cancel()
      assert.same({ nil, "cancelled" }, { task:join() })
      assert.equal(0, h:available())
    end)

    it("settles it, by name", function ()
      local q, settled = quota(1000), nil
      function q:settle(n, used)
        settled = { n, used }
        self.left = self.left + n - used
      end
      local h = hybrid { requests = "10/s", tokens = q }
      local held = assert(h:try_acquire { requests = 1, tokens = 600 })
      assert(held:settle { tokens = 200 })
      assert.same({ 600, 200 }, settled)
      assert.same({ 800, 9 }, { h:available "tokens", h:available "requests" })
      assert.same({ 10, 1000 }, { h:capacity(), h:capacity "tokens" })
    end)

    it("refuses two that cannot put back what they took", function ()
      local function yes() return true end
      local function mute() return { peek = yes, take = yes } end
      fails {
        ["guest and guest have neither settle nor give"] =
          function () hybrid { mute(), mute() } end,
      }
      assert(hybrid { mute() })
    end)
  end)
end)
