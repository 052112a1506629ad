local hybrid = require "neap.hybrid"
local in_virtual_time = require "spec.in_virtual_time"
local throttle = require "neap.throttle"

local MS = 1000000LL

describe("a throttle", function ()
  local rt

  in_virtual_time(function (new) rt = new end)

  -- A row: at (ms), cost, the answer, and for a refusal the wait in seconds.
  local function replay(limiter, rows)
    for i, row in ipairs(rows) do
      local at, cost, answer, wait = unpack(row)
      rt.advance_to(at * MS)
      local peeked, peek_why, peek_wait = limiter:peek(cost)
      local held, why, got_wait = limiter:try_acquire(cost)
      assert.same({ answer, wait }, { held and true or why, got_wait }, "row " .. i)
      assert.same({ held and true or why, got_wait }, { peeked or peek_why, peek_wait },
        "peek and take differ in row " .. i)
    end
  end

  it("starts full, spends, and is refilled at its rate", function ()
    replay(throttle "10/s burst 3", {
      { 0, 2, true },
      { 0, 2, "rate", 0.1 },        -- one short, so nothing is spent
      { 0, 1, true },
      { 0, 0, true },               -- nothing costs nothing, even now
      { 99, 1, "rate", 0.001 },
      { 100, 1, true },
      { 1000, 3, true },            -- idle time refills the burst and no more
      { 1000, 4, "cost" },
    })
  end)

  it("that is smooth gives one at a time", function ()
    replay(throttle "10/s smooth", {
      { 0, 1, true }, { 0, 1, "rate", 0.1 }, { 50, 1, "rate", 0.05 }, { 500, 1, true },
      { 500, 1, "rate", 0.1 }, { 500, 2, "cost" },
    })
  end)

  it("that slides is exact in every window", function ()
    replay(throttle "3/s sliding", {
      { 900, 2, true },
      { 950, 1, true },
      { 1899, 1, "rate", 0.001 },
      { 1900, 3, "rate", 0.05 },    -- the one of 950 has to leave, too
      { 1900, 2, true },
      { 1949, 1, "rate", 0.001 },
      { 1950, 4, "cost" },
      { 1950, 1, true },
    })
  end)

  it("of nothing is closed, and of anything unlimited", function ()
    local shut, open = throttle "closed", throttle "unlimited"
    replay(shut, { { 0, 1, "closed" }, { 0, 0, true }, { 0, 2 ^ 53, "closed" } })
    replay(open, { { 0, 1, true }, { 0, 2 ^ 53, true } })
    assert.same({ 0, 0 }, { shut:available(), shut:capacity() })
    assert.same({ math.huge, math.huge }, { open:available(), open:capacity() })
    assert.equal("closed: closed", tostring(shut:why()))
    assert.is_nil(open:why())
  end)

  it("is exact where floats are not", function ()
    local monthly = throttle "1/30d"
    assert(monthly:try_acquire())
    local _, _, wait_s = monthly:try_acquire()
    assert.equal(30 * 86400, wait_s)
    rt.advance_ns(30LL * 86400 * 1000 * MS - 1)
    assert.same({ nil, "rate", 1e-9 }, { monthly:try_acquire() })
    rt.advance_ns(1)
    assert(monthly:try_acquire())

    local fast = throttle "5G/s"
    assert.equal(5e9, fast:capacity())
    assert(fast:try_acquire(5e9))
    rt.advance_ns(1)
    assert.equal(5, fast:available())
  end)

  it("takes a limit as a value, and tokens to start with", function ()
    local t = throttle({ kind = "rate", amount = 10, per_ns = 1e9, burst = 100, mode = "burst" },
      { initial = 0, name = "uploads" })
    assert.equal("uploads", tostring(t))
    assert.equal(0, t:available())
    rt.advance(1)
    assert.same({ 10, 100 }, { t:available(), t:capacity() })
    assert.equal(100, throttle("100/s", { initial = 999 }):available())
  end)

  it("can be drained, refilled, refunded", function ()
    local t = throttle "10/s"
    assert.is_true(t:full())
    t:drain()
    assert.is_false(t:full())
    assert.equal(0, t:available())
    t:refund(3)
    assert.equal(3, t:available())
    t:refund(2 ^ 53)
    assert.equal(10, t:available())
    t:drain()
    t:refill()
    assert.is_true(t:full())

    local s = throttle "3/s sliding"
    s:drain()
    assert.equal(0, s:available())
    s:refill()
    assert.equal(3, s:available())
  end)

  it("lets those in line go when it is refilled", function ()
    local t = throttle "1/h"
    t:drain()
    local waiter = rt.spawn(function () return t:acquire() ~= nil, rt.now() end)
    rt.advance(10)
    t:refill()
    assert.same({ true, 10 }, { waiter:join() })
  end)

  it("changes its rate, and what was spent stays spent, for those in line, too", function ()
    local t = throttle "10/s burst 20"
    assert(t:try_acquire(15))
    t:reconfigure "10/s burst 30"
    assert.equal(15, t:available())
    t:reconfigure "100/s burst 4"
    assert.equal(0, t:available())
    t:refill()
    assert.equal("100/s burst 4", tostring(t))
    t:drain()
    t:reconfigure "1/h"
    local waiter = rt.spawn(function () return t:acquire() ~= nil, rt.now() end)
    rt.advance(10)
    t:reconfigure("2/s", "balance")
    assert.same({ true, 10.498611112 }, { waiter:join() })   -- 1/360 of it had come already
  end)

  it("keeps its debt when the rate changes", function ()
    for _, mode in ipairs { "keep", "balance" } do
      local t = throttle "10/s"
      assert(t:try_acquire(10)):settle(15)
      t:reconfigure("5/s", mode)
      assert.equal(-5, t:available())
      assert.same({ nil, "rate", 1.2 }, { t:try_acquire() })
    end
    local t = throttle "10/s"
    assert(t:try_acquire(10)):settle(15)
    t:reconfigure("4/s", "scale")
    assert.equal(-2, t:available())
    t:reconfigure("3/s", "reset")
    assert.is_true(t:full())
  end)

  it("keeps what it holds when told so, to the part of a token on its way", function ()
    for _, burst in ipairs { 10, 3, 50 } do
      local t = throttle("10/s")
      t:drain()
      rt.advance(0.25)
      t:reconfigure({ kind = "rate", amount = 1, per_ns = 1e9, burst = burst, mode = "burst" },
        "balance")
      assert.same({ 2, 0.5 }, { t:available(), select(3, t:peek(3)) })
      t:reconfigure("10/s burst 1", "balance")
      assert.equal(1, t:available())
    end
  end)

  it("stays as it was when the new rate does not fit", function ()
    local t = throttle "10/s"
    assert(t:try_acquire(4))
    assert.error_matches(function () t:reconfigure "7/ns" end, "does not fit")
    assert.error_matches(function () t:reconfigure "7/q" end, "unknown time unit")
    assert.same({ 6, 10, "10/s" }, { t:available(), t:capacity(), tostring(t) })
  end)

  it("that slides changes its limit and window, and what is in it stays", function ()
    local t = throttle "3/s sliding"
    local first = assert(t:try_acquire(2))
    rt.advance(0.5)
    assert(t:try_acquire())
    t:reconfigure "5/2s sliding"                  -- more entries than its log had room for
    assert.same({ 2, 5, "5/2s sliding" }, { t:available(), t:capacity(), tostring(t) })
    for _ = 1, 2 do
      rt.advance(0.25)
      assert(t:try_acquire())
    end
    assert.same({ nil, "rate", 1 }, { t:try_acquire() })
    assert(first:settle(1))                       -- what was granted before is known all the same
    assert.equal(1, t:available())
    local waiter = rt.spawn(function () return t:acquire(2) ~= nil, rt.now() end)
    rt.advance(0.25)
    t:reconfigure "2/s sliding"                   -- those of 0.5 to 1 are out until 2
    assert.same({ true, 2 }, { waiter:join() })
    t:reconfigure("2/s sliding", "reset")
    assert.is_true(t:full())
  end)

  it("that slides keeps to the log it was given, and to what has left its window", function ()
    local t = throttle("100/s sliding", { log = 2 })
    assert(t:try_acquire(60))
    rt.advance(1)
    t:reconfigure "200/h sliding"
    assert.equal(200, t:available())
    for _ = 1, 2 do
      assert(t:try_acquire())
      rt.advance(0.5)
    end
    assert.same({ nil, "rate", 3599 }, { t:try_acquire() })
  end)

  it("is called by its new limit wherever it is, and its log lives with it", function ()
    local t = throttle "1/h sliding"
    local api = hybrid { t, "5/s" }
    local bulk = hybrid { t }
    t:reconfigure("1001/h sliding")
    collectgarbage()
    collectgarbage()
    for _ = 1, 1001 do
      assert(api:try_acquire())
      rt.advance(0.2)
    end
    assert.equal("1001/h sliding", api:why().limiter)
    assert.equal("1001/h sliding", tostring(bulk))
  end)

  it("changes for those in line before a composite, too", function ()
    -- 1/360 of a token has come by then; of twice as many, in proportion, twice that
    local there = { keep = 1, balance = 1.249306, scale = 1.248611, reset = 1 }
    for mode, at in pairs(there) do
      local began = rt.now()
      local t = throttle "10/h"
      local api = hybrid { t, "1k/s" }
      t:drain()
      local waiter = rt.spawn(function () return api:acquire() ~= nil, rt.now() - began end)
      rt.advance(1)
      t:reconfigure("4/s burst 20", mode)
      local went, waited = waiter:join()
      assert.is_true(went)
      assert.near(at, waited, 1e-6)
    end
  end)

  it("tells those in line who ask for more than there can be from now on", function ()
    local t = throttle "10/h"
    t:drain()
    local waiter = rt.spawn(t.acquire, t, 6)
    rt.advance(1)
    t:reconfigure "5/s"
    assert.same({ nil, "cost" }, { waiter:join() })
  end)

  it("settles what was really used", function ()
    local t = throttle "10/s"
    local held = assert(t:try_acquire(6))
    assert.is_true(held:settle(2))
    assert.equal(8, t:available())
    assert.is_true(held:settle(12))               -- from the future, which later ones wait for
    assert.equal(-2, t:available())
    assert.same({ nil, "rate", 0.3 }, { t:try_acquire() })
    assert.is_true(held:release())
    assert.is_false(held:release())
    assert.is_false(held:settle(0))
    assert.equal(-2, t:available())
  end)

  it("settles a sliding limit at the instant it was charged", function ()
    local t = throttle "10/s sliding"
    local held = assert(t:try_acquire(6))
    rt.advance(0.5)
    assert(held:settle(1))
    assert.equal(9, t:available())
    rt.advance(0.5)
    assert.equal(10, t:available())
    assert(held:settle(5))                        -- it has left the window
    assert.equal(10, t:available())
  end)

  it("says why in a sentence", function ()
    local t = throttle("60/min", { name = "requests" })
    assert.is_nil(t:why())
    t:drain()
    rt.advance(0.88)
    local why = t:why()
    assert.same({ "rate", "requests", 1, 60, 0, 0.12, 0 },
      { why.word, why.limiter, why.cost, why.capacity, why.balance, why.wait, why.place })
    assert.equal("requests: needs 1 of 60, has 0; free in 120ms", tostring(why))
    assert.equal("requests: needs 61 of 60, more than there can be", tostring(t:why(61)))
    for _ = 1, 3 do rt.spawn(t.acquire, t) end
    rt.turn(0)
    assert.equal("requests: needs 1 of 60, has 0; free in 3s120ms, 3 ahead", tostring(t:why()))
  end)

  it("tells who misuses it what would be right", function ()
    local t, shut, slides = throttle "10/s", throttle "closed", throttle "10/s sliding"
    for message, fn in pairs {
      ['throttle: bad limit "500/mn": unknown time unit \'mn\' (did you mean \'min\'?)'] =
        function () throttle "500/mn" end,
      ["throttle: bad limit 500: bare number 500"] = function () throttle(500) end,
      ['throttle: "64 in flight" is a semaphore\'s: write neap.semaphore(64)'] =
        function () throttle "64 in flight" end,
      ['write "sliding"'] = function () throttle "5/s fixed" end,
      ["does not fit: at most 6 tokens per ns"] = function () throttle "7/ns" end,
      ["burst: a whole number from 1 expected, got 0.5"] = function ()
        throttle { kind = "rate", amount = 1, per_ns = 1, burst = 0.5 }
      end,
      ["say how many it may: log = "] = function () throttle "10M/s sliding" end,
      ["option 'initail' is not known"] = function () throttle("1/s", { initail = 0 }) end,
      ["initial: a whole number from 0 to 2^53 expected, got -1"] = function ()
        throttle("1/s", { initial = -1 })
      end,
      ["log: only a sliding limit has one"] = function () throttle("1/s", { log = 5 }) end,
      ["cost: a whole number from 0 to 2^53 expected, got -1"] = function () t:try_acquire(-1) end,
      ["got 1.5"] = function () t:peek(1.5) end,
      ["nan"] = function () t:acquire(0 / 0) end,
      ["got inf"] = function () t:why(math.huge) end,
      ["got 9.007199254741e+15"] = function () t:try_acquire(2 ^ 53 + 2) end,
      ['got "3"'] = function () t:try_acquire "3" end,
      ["cost \"tokens\" is not known: there are no named costs here"] = function ()
        t:try_acquire { tokens = 1 }
      end,
      ["timeout: only acquire waits"] = function () t:try_acquire { timeout = 1 } end,
      ["timeout: seconds from 0 expected, got -1"] = function () t:acquire { timeout = -1 } end,
      ["deadline: an instant expected"] = function () t:acquire { deadline = true } end,
      ['outcome: "success", "failure" or "ignore" expected, got ok'] = function ()
        t:try_acquire():give "ok"
      end,
      ["used: a whole number or a table of them expected, got nil"] = function ()
        t:try_acquire():settle()
      end,
      ["is another kind of limit: build a new one"] = function () slides:reconfigure "5/s" end,
      ['reconfigure: "keep", "balance", "scale" or "reset" expected, got most'] = function ()
        t:reconfigure("5/s", "most")
      end,
      ['reconfigure: "scale" would invent or forget grants, and 10/s sliding remembers each'] =
        function () slides:reconfigure("5/s sliding", "scale") end,
      ["reconfigure: unlimited has nothing to reconfigure"] = function ()
        throttle "unlimited":reconfigure "1/s"
      end,
      ["refund: 10/s sliding remembers when each token was taken"] = function ()
        slides:refund(1)
      end,
      ["refund: closed has nothing to refund"] = function () shut:refund(1) end,
      ["drain: unlimited has nothing to drain"] = function () throttle "unlimited":drain() end,
      ['cost "x" is not known: there are no named costs here'] = function () t:available "x" end,
    } do
      local ok, err = pcall(function () fn() return true end)
      assert.is_false(ok, message)
      assert.is_truthy(err:find(message, 1, true), ("%s\nis not in\n%s"):format(message, err))
      assert.is_truthy(err:find("throttle_spec.lua", 1, true), "blames someone else: " .. err)
    end
    assert.equal(8, t:available())   -- two of them were right until they misused the permit
  end)

  it("keeps counting right when a cost is as large as costs can be", function ()
    local t = throttle { kind = "rate", mode = "burst", amount = 2 ^ 53, per_ns = 2 ^ 53,
      burst = 2 ^ 53 }
    assert(t:try_acquire(2 ^ 53))
    assert.same({ nil, "rate", 1e-9 }, { t:try_acquire() })
    assert.equal(2 ^ 53, t:capacity())
  end)
end)
