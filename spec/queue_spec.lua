--- Queues as users write them. The structure is in spec/c/property_queue.c, what the engine makes
--- of it in property_engine.c, timelines in spec/vectors/queue.lua.
local events = require "neap.events"
local hybrid = require "neap.hybrid"
local manual = require "neap.runtime.manual"
local multi = require "neap.multi"
local per_key = require "neap.per_key"
local queue = require "neap.queue"
local runtime = require "neap.runtime"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

local function refused(fragment, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.falsy(ok)
  assert.truthy(message:find(fragment, 1, true), ("%q does not say %q"):format(message, fragment))
end

describe("a queue", function ()
  local rt, before, log

  before_each(function ()
    rt = manual.new()
    before = runtime.use(rt)
    log = {}
  end)

  after_each(function ()
    runtime.use(before)
    rt.close()
  end)

  --- Somebody waits; what becomes of it is in the log.
  local function come(who, limiter, given)
    local task = rt.spawn(function ()
      local held, why = limiter:acquire(given)
      log[#log + 1] = ("%s %s %g"):format(who, held and "goes" or why, rt.now())
    end)
    rt.advance(0)
    return task
  end

  it("lets a higher priority go first, and of one priority who came first", function ()
    local api = queue "1/s"
    assert(api:try_acquire())
    come("low", api, { priority = -1 })
    come("a", api)
    come("b", api, { cost = 1 })
    come("high", api, { priority = 9 })
    assert.equal(4, api:len())
    assert.same({ nil, "line" }, { (select(1, api:try_acquire())), (select(2, api:try_acquire())) })
    rt.advance(4)
    assert.same({ "high goes 1", "a goes 2", "b goes 3", "low goes 4" }, log)
    assert.equal(0, api:len())
  end)

  it("lets flows take turns, by what they cost", function ()
    local api = queue "1/s burst 4"
    api:try_acquire(4)
    for i = 1, 3 do come("a" .. i, api, { flow = "a" }) end
    come("b1", api, { flow = "b", cost = 2 })
    come("c1", api, { flow = 7 })
    come("b2", api, { flow = "b" })
    rt.advance(7)
    assert.same({ "a1 goes 1", "b1 goes 3", "c1 goes 4", "a2 goes 5", "a3 goes 6", "b2 goes 7" },
      log)   -- what b1 had, a1 and a2 had together
  end)

  it("never lets anybody pass the first, who may need more", function ()
    local api = queue "1/s burst 5"
    api:try_acquire(5)
    come("heavy", api, 5)
    come("light", api, 1)
    rt.advance(2)
    assert.same({}, log)
    rt.advance(4)
    assert.same({ "heavy goes 5", "light goes 6" }, log)
  end)

  it("turns newcomers away when it is full, or has somebody make room", function ()
    local api = queue("1/h", { capacity = 2 })
    api:try_acquire()
    for _, who in ipairs { "a", "b", "c" } do come(who, api) end
    assert.same({ "c queue 0" }, log)

    log = {}
    api = queue("1/h", { capacity = 2, overflow = "drop_oldest" })
    api:try_acquire()
    for _, who in ipairs { "a", "b", "c" } do come(who, api) end
    assert.same({ "a queue 0" }, log)

    log = {}
    api = queue("1/h", { capacity = 2, overflow = "drop_lowest" })
    api:try_acquire()
    come("a", api, { priority = 1 })
    come("b", api, { priority = 1 })
    come("c", api, { priority = 1 })
    come("d", api, { priority = 2 })
    assert.same({ "c queue 0", "b queue 0" }, log)
    assert.equal(2, api:len())
  end)

  it("tells who cannot be served in time at once, and nobody makes room for that", function ()
    local api = queue("1/s", { capacity = 1, overflow = "drop_oldest" })
    api:try_acquire()
    come("a", api)
    come("hasty", api, { timeout = "10ms" })
    assert.same({ "hasty timeout 0" }, log)
    rt.advance(1)
    assert.same({ "hasty timeout 0", "a goes 1" }, log)
  end)

  it("lets the low rise as they wait", function ()
    local api = queue("1/s", { ageing = "500ms" })
    api:try_acquire()
    come("low", api, { priority = 0 })
    for i = 1, 4 do
      rt.advance(0.5)
      come("high" .. i, api, { priority = 3 })
      rt.advance(0.5)
    end
    rt.advance(2)
    assert.same({ "high1 goes 1", "low goes 2", "high2 goes 3", "high3 goes 4", "high4 goes 5" },
      log)
  end)

  it("lets go who is cancelled, and tells all when it is closed", function ()
    local api = queue "1/s"
    api:try_acquire()
    local first = come("a", api)
    come("b", api)
    first:cancel()
    rt.advance(0.5)
    assert.same({ "a cancelled 0" }, log)
    rt.advance(0.5)
    come("c", api)
    api:close()
    rt.advance(0)
    assert.same({ "a cancelled 0", "b goes 1", "c closed 1" }, log)
    assert.same({ nil, "closed" }, { api:acquire() })
  end)

  it("nests, and whoever asks what contains it waits in it", function ()
    local room = queue(throttle "1/s")
    local both = hybrid { room, semaphore(1) }
    local held = assert(both:try_acquire())
    come("direct", room)
    come("through", both, { priority = 5 })
    assert.equal(2, room:len())
    rt.advance(1)
    assert.same({}, log)   -- whose turn it is waits for the permit, and nobody passes
    held:release()
    rt.advance(1)
    assert.same({ "through goes 1", "direct goes 2" }, log)

    local named = multi { requests = queue "1/s", tokens = "100/s" }
    assert(named:try_acquire { requests = 1, tokens = 100 })
    come("m", named, { requests = 1, tokens = 5, priority = 1, timeout = 3 })
    rt.advance(1)
    assert.equal("m goes 3", log[3])
    refused("a second queue", hybrid, { room, queue "1/s" })
    refused("has a queue already", queue, room)
    assert.truthy(hybrid { room, both })   -- it is the same one
  end)

  it("stands before limits per key, in one line for all of them", function ()
    local api = queue(per_key "1/s")
    assert(api:acquire { key = "x" })
    come("x", api, { key = "x", priority = 1 })
    come("y", api, { key = "y" })
    assert.same({}, log)
    rt.advance(1)
    assert.same({ "x goes 1", "y goes 1" }, log)
  end)

  it("knows its place, and says so", function ()
    local api = queue("1/s", { name = "room" })
    api:try_acquire()
    come("a", api, { priority = 1 })
    come("b", api)
    local why = api:why()
    assert.equal("line", why.word)
    assert.equal(2, why.place)
    assert.equal(1024, api.places)
    assert.equal(2, api:stats().wait.count + api:len())
  end)

  it("tells who listens that there was no room, and by which rule", function ()
    local told = {}
    local stop = events.tap(function (event) told[#told + 1] = event.policy end, { "overflow" })
    local api = queue("1/h", { capacity = 1, overflow = "drop_oldest" })
    api:try_acquire()
    come("a", api)
    come("b", api)
    stop()
    assert.same({ "drop_oldest" }, told)
    assert.same({ "a queue 0" }, log)
    assert.equal(1, api:stats().queue_full)
  end)

  it("refuses what makes no sense", function ()
    refused("a limit expected", queue)
    refused("queue: ", queue, "nonsense")
    for _, bad in ipairs { -1, 1.5, 0 / 0, "x", 2 ^ 25 } do
      refused("capacity", queue, "1/s", { capacity = bad })
    end
    refused("overflow:", queue, "1/s", { overflow = "explode" })
    refused("ageing", queue, "1/s", { ageing = 0 })
    refused("ageing", queue, "1/s", { ageing = -1 })
    refused("'capasity'", queue, "1/s", { capasity = 1 })
    local api = queue("1/s", { capacity = 0 })
    assert.equal(1, api.places)
    for _, bad in ipairs { 1.5, 0 / 0, 2 ^ 31, "high" } do
      refused("priority", api.acquire, api, { priority = bad })
    end
    refused("flow", api.acquire, api, { flow = {} })
    refused("are for a queue", function () throttle("1/s"):acquire { priority = 1 } end)
    refused("only acquire waits", api.try_acquire, api, { priority = 1 })
    assert.equal(1, api:available())
  end)
end)
