--- Turns in a queue, told as scenarios: who goes when, among priorities, keys, and other limits.
local clock = require "spec.vectors.clock"
local hybrid = require "neap.hybrid"
local multi = require "neap.multi"
local pause = require "neap.pause"
local per_key = require "neap.per_key"
local queue = require "neap.queue"
local runtime = require "neap.runtime"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

local MS = 1000000LL

describe("turns in a queue", function ()
  local rt, before, order
  before_each(function ()
    before = runtime.use(nil)
    rt, order = clock.new(), {}
  end)
  after_each(function () runtime.use(before) end)

  local function at(ms) clock.set(rt, ms * MS) end

  --- Somebody who waits, and is in `order` when it has gone, or why it did not.
  local function come(limiter, as, given)
    local one = {}
    one.task = rt.spawn(function ()
      one.held, one.why, one.wait = limiter:acquire(given)
      order[#order + 1] = as .. (one.held and "" or " " .. one.why)
    end)
    clock.settle(rt)
    return one
  end

  local function slow(options)
    local rate = throttle "10/s"
    rate:drain()
    return queue(rate, options), rate
  end

  -- ---- whose turn -----------------------------------------------------------------------------

  it("lets higher priorities go first, keys take turns, and each key's calls in order", function ()
    local q = slow()
    for _, one in ipairs {
      { "low", 0 }, { "a1", 1, "a" }, { "a2", 1, "a" }, { "b1", 1, "b" }, { "high", 5 },
      { "a3", 1, "a" }, { "c1", 1, "c" }, { "lowest", -3 },
    } do
      come(q, one[1], { priority = one[2], flow = one[3] })
    end
    assert.equal(8, q:len())
    at(800)
    assert.same({ "high", "a1", "b1", "c1", "a2", "a3", "low", "lowest" }, order)
    assert.equal(0, q:len())
  end)

  it("is fair by cost: who asks for three has a turn where others have three", function ()
    local q = slow()
    for i = 1, 3 do come(q, "heavy" .. i, { cost = 3, flow = "heavy" }) end
    for i = 1, 6 do come(q, "light" .. i, { cost = 1, flow = "light" }) end
    at(1500)
    assert.same({ "heavy1", "light1", "light2", "light3", "heavy2", "light4", "light5", "light6",
      "heavy3" }, order)
  end)

  it("makes everybody wait for the first, also who would fit", function ()
    local rate = throttle "10/s burst 10"
    local q = queue(rate)
    assert.truthy(rate:try_acquire(8))
    come(q, "heavy", { cost = 4 })
    come(q, "light", { cost = 1 })
    local held, why = q:try_acquire { cost = 1 }
    assert.same({ nil, "line" }, { held, why })
    assert.same({}, order)
    assert.truthy(q:acquire { priority = 1, timeout = 0 })   -- but who has precedence may
    at(300)
    assert.same({ "heavy" }, order)
  end)

  it("asks a newcomer with precedence for what it needs, not for what the first does", function ()
    local permits, rate = semaphore(1), throttle "1/s"
    local all = queue(hybrid { permits = permits, rate = rate })
    local held = permits:acquire()
    come(all, "waits for a permit", { permits = 1, rate = 1 })
    come(all, "needs none", { rate = 1, priority = 1 })
    assert.same({ "needs none" }, order)
    held:release()
    at(1000)
    assert.same({ "needs none", "waits for a permit" }, order)
  end)

  it("lets the next one go when the first gives up", function ()
    local q = slow()
    local one = come(q, "one", { priority = 1 })
    come(q, "two")
    one.task:cancel()
    at(100)
    assert.same({ "one cancelled", "two" }, order)
  end)

  it("raises who has waited, if told to", function ()
    local q = slow { ageing = "50ms" }
    come(q, "old", { priority = 0 })
    at(60)
    come(q, "higher by one", { priority = 1 })
    come(q, "higher by two", { priority = 2 })
    at(300)
    assert.same({ "higher by two", "old", "higher by one" }, order)
  end)

  -- ---- full -----------------------------------------------------------------------------------

  it("drops who has waited longest, whatever its priority", function ()
    local q = slow { capacity = 2, overflow = "drop_oldest" }
    come(q, "a", { priority = 9 })
    come(q, "b")
    come(q, "c")
    at(200)
    assert.same({ "a queue", "b", "c" }, order)
  end)

  it("drops the newest of the lowest priority, for a higher one alone", function ()
    local q = slow { capacity = 3, overflow = "drop_lowest" }
    come(q, "a", { priority = 1 })
    come(q, "b", { priority = 1 })
    come(q, "c", { priority = 2 })
    come(q, "as low", { priority = 1 })
    come(q, "higher", { priority = 3 })
    at(300)
    assert.same({ "as low queue", "b queue", "higher", "c", "a" }, order)
  end)

  it("keeps a place from who cannot be in time, and nobody makes room for it", function ()
    local q = slow { capacity = 1, overflow = "drop_oldest" }
    come(q, "a")
    local late = come(q, "late", { timeout = 0.05, flow = "other" })
    come(q, "not at all", { timeout = 0 })
    assert.same({ "late timeout", "not at all timeout" }, order)
    assert.near(0.1, late.wait, 1e-6)
    at(100)
    assert.same("a", order[3])
  end)

  it("asks for no place when a call may go at once", function ()
    local rate = throttle "10/s burst 5"
    local q = queue(rate, { capacity = 0 })
    assert.equal(1, q.places)
    for _ = 1, 5 do assert.truthy(q:acquire { timeout = 0 }) end
    come(q, "a")
    come(q, "b")
    assert.same({ "b queue" }, order)
  end)

  it("says how long at least: its own flow goes first, and whose turn it is", function ()
    local q = slow()
    for i = 1, 3 do come(q, "a" .. i, { flow = "a" }) end
    local function wait(given)
      local reason = q:why(given)
      return { reason.word, reason.wait, reason.place }
    end
    assert.same({ "line", 0.4, 3 }, wait { flow = "a" })
    assert.same({ "line", 0.2, 1 }, wait { flow = "b" })     -- a1 is first; then it depends
    assert.same({ "rate", 0.1, 0 }, wait { priority = 1 })
    assert.same({ "line", 0.2, 1 }, wait { priority = -1 })
  end)

  -- ---- among others ---------------------------------------------------------------------------

  it("may be in others, whose calls then wait in it, each for all it asks", function ()
    local rate, permits = throttle "10/s", semaphore(1)
    rate:drain()
    local q = queue(rate)
    local both = hybrid { q, permits }
    come(q, "one", {})
    come(both, "both", { priority = 1 })
    come(both, "both later", { priority = 1 })
    assert.equal(3, q:len())
    at(300)
    assert.same({ "both" }, order)   -- its permit is not back, so the next one waits, and so do all
    assert.equal(2, q:len())
  end)

  it("keeps the names of what is in it", function ()
    local q = queue(multi { requests = "10/s", tokens = "100/s burst 100" })
    assert.truthy(q:try_acquire { requests = 1, tokens = 60 })
    come(q, "a", { requests = 1, tokens = 60, priority = 2, flow = 7 })
    come(q, "b", { cost = { requests = 1, tokens = 1 }, priority = 2, flow = 8 })
    at(210)
    assert.same({ "a", "b" }, order)
    assert.has_error(function () q:acquire { token = 1 } end)
  end)

  it("is before limits by key, too", function ()
    local q = queue(per_key("1/s", { by = "user" }))
    assert.truthy(q:acquire { user = "ann" })
    come(q, "ann", { user = "ann" })
    come(q, "bob", { user = "bob" })                        -- strict order: ann is first
    come(q, "bob first", { user = "bob", priority = 1 })
    assert.same({ "bob first" }, order)
    at(1000)
    assert.same({ "bob first", "ann", "bob" }, order)
  end)

  it("shares its limits with who does not queue: they meet there as they came", function ()
    local q, rate = slow()
    come(q, "a")
    come(rate, "plain")
    come(q, "b")
    assert.is_nil(rate:try_acquire())
    at(300)
    assert.same({ "a", "plain", "b" }, order)
  end)

  it("takes guests along", function ()
    local taken = 0
    local counted = {
      peek = function () return true end,
      take = function (_, n) taken = taken + n return true end,
      settle = function () end,
    }
    local rate = throttle "10/s"
    local q = queue(hybrid { rate, counted }, { capacity = 5 })
    rate:drain()
    come(q, "low")
    come(q, "high", { priority = 1 })
    at(200)
    assert.same({ "high", "low" }, order)
    assert.equal(2, taken)
    assert.equal(5, q.places)
  end)

  it("sends everybody away when it is closed, and whoever waits in it through others", function ()
    local gate = pause()
    gate:extend(100)
    local q = queue(gate)
    local outer = hybrid { q, "10/s" }
    come(q, "a")
    come(outer, "b", { priority = 3 })
    q:close()
    clock.settle(rt)
    table.sort(order)
    assert.same({ "a closed", "b closed" }, order)
    assert.equal(0, q:len())
    assert.same({ nil, "closed" }, { q:acquire() })
  end)
end)
