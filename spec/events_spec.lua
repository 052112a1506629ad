--- Who listens is told what happens; who does not, pays nothing; and no tap breaks a call.
local neap = require "neap"
local answers = require "neap.answers"
local manual = require "neap.runtime.manual"

local events = neap.events

describe("events", function ()
  local rt, before, seen, stops

  local function settle()
    for _ = 1, 3 do rt.turn(0) end
  end

  --- Listen, and keep what comes.
  local function listen(kinds)
    stops[#stops + 1] = events.tap(function (event) seen[#seen + 1] = event end, kinds)
    return stops[#stops]
  end

  --- What came, without what every event has; and forget it.
  local function told()
    local list = seen
    seen = {}
    for _, event in ipairs(list) do
      assert.equal("number", type(event.at))
      if event.limiter then assert.equal("number", type(event.id)) end
      event.at, event.id = nil, nil
    end
    return list
  end

  before_each(function ()
    rt = manual.new()
    before = neap.runtime.use(rt)
    seen, stops = {}, {}
  end)

  after_each(function ()
    for _, stop in ipairs(stops) do stop() end
    neap.runtime.use(before)
  end)

  it("run the code without taps when there is none", function ()
    local grant, refuse = answers.grant, answers.refuse
    local stop = listen()
    assert.not_equal(grant, answers.grant)
    listen { "closed" }()
    assert.not_equal(grant, answers.grant)
    stop()
    stop()
    assert.equal(grant, answers.grant)
    assert.equal(refuse, answers.refuse)
    neap.throttle "1/s":try_acquire()
    assert.same({}, told())
  end)

  it("tell of calls, with what they cost, what held them up and how long they waited", function ()
    local l = neap.throttle("1/s", { name = "api" })
    listen()
    assert(l:try_acquire())
    l:try_acquire()
    l:try_acquire(3)
    assert(l:acquire())
    l:acquire { timeout = 0.5 }
    l:peek()
    l:why()
    assert.same({
      { kind = "granted", limiter = "api", cost = 1, waited = 0 },
      { kind = "refused", limiter = "api", cost = 1, why = "rate", wait = 1 },
      { kind = "refused", limiter = "api", cost = 3, why = "cost" },
      { kind = "waiting", limiter = "api", cost = 1, place = 0, wait = 1 },
      { kind = "granted", limiter = "api", cost = 1, waited = 1 },
      { kind = "timeout", limiter = "api", cost = 1, why = "timeout", wait = 1 },
    }, told())
  end)

  it("tell costs by name, and keys by kind", function ()
    local l = neap.layered { global = { neap.multi { tokens = "9/s" } }, user = "1/s" }
    local users = neap.per_key("1/s", { name = "users" })
    listen()
    assert(l:try_acquire { user = "ann", tokens = 5 })
    l:try_acquire { user = "ann", tokens = 2 }
    assert(users:try_acquire("bob"))
    users:try_acquire("bob", { cost = 1 })
    assert.same({
      { kind = "granted", limiter = l.name, cost = { tokens = 5, cost = 1 },
        keys = { user = "ann" }, waited = 0 },
      { kind = "refused", limiter = l.name, cost = { tokens = 2, cost = 1 },
        keys = { user = "ann" }, why = "rate", wait = 1 },
      { kind = "granted", limiter = "users", cost = 1, keys = { key = "bob" }, waited = 0 },
      { kind = "refused", limiter = "users", cost = 1, keys = { key = "bob" }, why = "rate",
        wait = 1 },
    }, told())
  end)

  it("tell how waits end, what comes back late, and what is lost", function ()
    local s = neap.semaphore(1, { name = "slots" })
    local held = assert(s:acquire())
    listen { "timeout", "cancelled", "leaked", "closed", "refused", "overflow" }
    rt.spawn(function () s:acquire { timeout = 2 } end)
    local task = rt.spawn(function () s:acquire() end)
    rt.advance(1)
    task:cancel()
    rt.advance(1)
    assert.same({
      { kind = "cancelled", limiter = "slots", cost = 1, why = "cancelled", waited = 1 - 1e-9 },
      { kind = "timeout", limiter = "slots", cost = 1, why = "timeout", waited = 2 },
    }, (function (list)
      list[1].waited = list[1].waited > 0.9 and 1 - 1e-9
      return list
    end)(told()))
    held:release()
    assert(s:try_acquire())
    collectgarbage()
    collectgarbage()
    assert.same({}, told())   -- a finalizer is no place to call anybody
    events.flush()
    assert.same({ { kind = "leaked", limiter = "slots", cost = 1 } }, told())
    assert(s:try_acquire())
    rt.spawn(function () s:acquire() end)
    settle()
    s:close()
    settle()
    s:try_acquire()
    assert.same({
      { kind = "closed", limiter = "slots" },
      { kind = "refused", limiter = "slots", cost = 1, why = "closed", waited = 0 },
      { kind = "refused", limiter = "slots", cost = 1, why = "closed" },
    }, told())
    rt = manual.new { waiters_max = 1 }
    neap.runtime.use(rt)
    s = neap.semaphore(1, { name = "slots" })
    local kept = assert(s:try_acquire())
    rt.spawn(function () s:acquire() end)
    settle()
    s:acquire()
    assert.same({ { kind = "overflow", limiter = "slots", cost = 1, why = "queue",
      policy = "reject" } }, told())
    kept:release()
  end)

  it("tell what is settled, changed and evicted", function ()
    local llm = neap.throttle("9/s", { name = "llm" })
    local slots, users = neap.semaphore(2), neap.per_key("1/h", { most = 1, name = "users" })
    listen { "settled", "reconfigured", "evicted" }
    assert(llm:try_acquire(5)):settle(2)
    llm:reconfigure("10/s", "scale")
    slots:reconfigure(3)
    users:try_acquire("ann")
    users:try_acquire("bob")
    assert.same({
      { kind = "settled", limiter = "llm", cost = 5, used = 2 },
      { kind = "reconfigured", limiter = "llm", from = "9/s", to = "10/s", mode = "scale" },
      { kind = "reconfigured", limiter = "3 in flight", from = "2 in flight", to = "3 in flight",
        mode = "keep" },
      { kind = "evicted", limiter = "users", count = 1 },
    }, told())
  end)

  it("tell of a breaker's states and of an adaptive limit, each by its own name", function ()
    local a = neap.breaker { failures = 1, cooldown = 1, name = "a" }
    local b = neap.breaker { failures = 1, name = "b" }
    local all = neap.hybrid { a, b }
    listen { "breaker", "adaptive" }
    assert(a:try_acquire()):give "failure"
    b:success()
    rt.advance(1)
    assert.same({ { kind = "breaker", limiter = "a", from = "closed", to = "open" } }, told())
    local trial = assert(all:try_acquire())
    assert.same({ { kind = "breaker", limiter = "a", from = "open", to = "half-open" } }, told())
    trial:give "success"
    assert.same({ { kind = "breaker", limiter = "a", from = "half-open", to = "closed" } }, told())
    a:open()
    b:open("1s")
    b:reset()
    assert.same({
      { kind = "breaker", limiter = "a", from = "closed", to = "open" },
      { kind = "breaker", limiter = "b", from = "closed", to = "open" },
      { kind = "breaker", limiter = "b", from = "open", to = "closed" },
    }, told())
    local limit = neap.adaptive { strategy = "aimd", initial = 10, name = "limit" }
    assert(limit:try_acquire()):give "success"   -- it was not reached
    assert(limit:try_acquire()):give "failure"
    assert.same({ { kind = "adaptive", limiter = "limit", from = 10, to = 5 } }, told())
  end)

  it("tell of a hybrid with guests once, when all have agreed", function ()
    local there = true
    local guest = {
      peek = function () return true end, take = function () return there or nil, "quota" end,
      give = function () end,
    }
    local h = neap.hybrid({ "9/s", guest }, { name = "both" })
    listen { "granted", "refused" }
    assert(h:try_acquire())
    there = false
    h:try_acquire()
    h:acquire()
    assert.same({
      { kind = "granted", limiter = "both", cost = 1 },
      { kind = "refused", limiter = "both", cost = 1, why = "quota" },
      { kind = "refused", limiter = "both", cost = 1, why = "quota", waited = 0 },
    }, told())
  end)

  it("report a tap that throws, and lose nothing", function ()
    local reports, s = {}, neap.semaphore(1)
    rt.report = function (text) reports[#reports + 1] = text end
    stops[1] = events.tap(function () error "boom" end)
    listen()
    local held = assert(s:try_acquire())
    assert.same({ nil, "busy" }, { s:try_acquire() })
    assert.is_true(held:release())
    assert.equal(2, #reports)
    assert.truthy(reports[1]:find("a tap failed: .*boom"))
    assert.equal(2, #told())
    assert.equal(1, s:available())
  end)

  it("may call limiters and stop taps from a tap, which is not told of that", function ()
    local l, log = neap.throttle "2/s", neap.throttle "5/s"
    local other = neap.hybrid { a = "1/s", b = "1/s" }
    local count, stop = 0, nil
    stop = events.tap(function ()
      count = count + 1
      log:try_acquire()
      other:try_acquire { a = 3 }     -- another request than the one that is told
      if count == 2 then stop() end
    end)
    local held = assert(l:try_acquire(2))
    assert.same({ nil, "rate", 0.5 }, { l:try_acquire(1) })
    l:try_acquire(1)
    assert.equal(2, count)
    assert.equal(3, log:available())
    held:settle(0)
    assert.equal(2, l:available())
  end)

  it("are a user's, too, under kinds with a dot", function ()
    listen { "foundation.execute" }
    events.emit("foundation.execute", { count = 1, tag = "ok" })
    events.emit("foundation.other")
    assert.same({ { kind = "foundation.execute", count = 1, tag = "ok" } }, told())
  end)

  it("measure functions, on the runtime's clock", function ()
    local function work(a, b)
      neap.sleep(0.25)
      return a, nil, b
    end
    local fields = { host = "x" }
    assert.same({ 1, nil, 2 }, { events.measure("m.f", fields, work, 1, 2) })   -- nobody listens
    listen()
    assert.same({ 1, nil, 2 }, { events.measure("m.f", fields, work, 1, 2) })
    local boom = { "boom" }
    local ok, err = pcall(events.measure, "m.f", { time_unit = "millisecond" }, function ()
      neap.sleep(0.5)
      error(boom)
    end)
    assert.is_false(ok)
    assert.equal(boom, err)
    assert.same({
      { kind = "m.f.stop", host = "x", duration = 250000, time_unit = "microsecond" },
      { kind = "m.f.exception", duration = 500, time_unit = "millisecond", error = boom },
    }, told())
    assert.same({ host = "x" }, fields)
  end)

  it("refuse what makes no sense, where it was said", function ()
    local function refused(text, fn, ...)
      local ok, message = pcall(fn, ...)
      assert.is_false(ok)
      assert.truthy(message:find(text, 1, true), message)
    end
    refused("tap: a function expected, got nil", events.tap)
    refused("kind 'grantd' is not known (did you mean 'granted'?)", events.tap, print, { "grantd" })
    refused("tap: a list of kinds expected", events.tap, print, "granted")
    refused("a kind with a dot expected", events.emit, "granted")
    refused("emit: a table of fields expected", events.emit, "a.b", 1)
    refused("measure: a function expected, got nil", events.measure, "a.b")
    refused("time_unit", events.measure, "a.b", { time_unit = "week" }, print)
    assert.equal(0, #told())
  end)
end)
