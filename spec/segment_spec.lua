--- A segment as Lua has it, and as several processes have it: luajit's, that are told what to do,
--- and killed.
local ffi = require "ffi"
local C = require "neap.engine"
local manual = require "neap.runtime.manual"
local neap = require "neap"
local runtime = require "neap.runtime"

describe("a segment", function ()
  local path, shared, before

  before_each(function ()
    path = os.tmpname()
    os.remove(path)
    before = runtime.use(nil)
    shared = assert(neap.segment(path))
  end)

  after_each(function ()
    os.remove(path)
    runtime.use(before)
  end)

  --- Another process, which has `shared` and runs a chunk; its output comes from :read.
  local function other(chunk)
    local script = os.tmpname()
    local file = assert(io.open(script, "w"))
    file:write(([[
      io.stdout:setvbuf "line"
      local neap = require "neap"
      local shared = assert(neap.segment(%q))
      %s
    ]]):format(path, chunk))
    file:close()
    finally(function () os.remove(script) end)
    return assert(io.popen("exec luajit " .. script, "r"))
  end

  --- What a chunk prints in another process.
  local function told(chunk)
    local out = other(chunk)
    local text = out:read "*a"
    out:close()
    return text
  end

  it("has one limiter for a name, whoever asks, in whichever process", function ()
    local mine = shared:throttle("calls", "1/h burst 5")
    assert(mine:try_acquire(2))
    assert.equal(3, shared:throttle("calls", "1/h burst 5"):available())
    assert.equal("3\nnil\trate\n", told [[
      local calls = shared:throttle("calls", "1/h burst 5")
      print(calls:available())
      calls:try_acquire(3)
      local permit, why = calls:try_acquire()
      print(permit, why)
    ]])
    assert.same({ nil, "rate" }, { (function (a, b) return a, b end)(mine:try_acquire()) })
  end)

  it("has every kind, each as on the heap", function ()
    local log = shared:throttle("log", "2/h sliding")
    assert(log:try_acquire(2))
    assert.same({ nil, "rate" }, { (function (a, b) return a, b end)(log:try_acquire()) })
    local pause = shared:pause "pause"
    pause:extend(100)
    assert.truthy(shared:pause "pause":left() > 99)
    local breaker = shared:breaker("breaker", { failures = 2 })
    breaker:failure()
    breaker:failure()
    assert.equal("open", shared:breaker("breaker", { failures = 2 }):state())
    assert.same({ nil, "open" }, { (function (a, b) return a, b end)(breaker:call(print)) })
    local adaptive = shared:adaptive("adaptive", "aimd")
    adaptive:try_acquire():give "success"
    assert.equal(2, shared:adaptive("adaptive", "aimd"):limit())
    local kinds = {}
    for one in shared:each() do
      kinds[one.name] = one.kind .. " " .. (one.state or one.available)
    end
    assert.same({ log = "sliding 0", pause = "pause 0", breaker = "breaker open",
      adaptive = "adaptive 2" }, kinds)
    assert.same({ 4, 64 }, { shared:stats().limiters, shared:stats().limiters_max })
    assert.equal(math.huge, shared:throttle("free", "unlimited"):available())
    assert.equal(4, shared:stats().limiters)
  end)

  it("takes part in hybrids, all or none", function ()
    local calls, slots = shared:throttle("calls", "1/h burst 5"), shared:semaphore("slots", 1)
    local both = neap.hybrid { calls, slots, "100/s" }
    local held = assert(both:try_acquire())
    assert.same({ nil, "busy" }, { both:try_acquire() })
    assert.equal(4, calls:available())
    held:release()
    assert.equal(0, slots:in_use())
    local twice = neap.hybrid { calls, shared:throttle("calls", "1/h burst 5") }
    assert(twice:try_acquire())
    assert.equal(2, calls:available())
  end)

  it("gives permits back whose process was killed, to those who wait, too", function ()
    local slots = shared:semaphore("slots", 2)
    local out = other [[
      local slots = shared:semaphore("slots", 2)
      kept = { slots:try_acquire(), slots:try_acquire() }
      local ffi = require "ffi"
      ffi.cdef "int getpid(void);"
      print(ffi.C.getpid())
      neap.sleep(20)
    ]]
    local pid = assert(tonumber(out:read "*l"))
    assert.equal(2, slots:in_use())
    local waited
    neap.run(function ()
      neap.spawn(function ()
        neap.sleep(0.05)
        os.execute("kill -9 " .. pid)
      end)
      local began = neap.now()
      local held, why = slots:acquire { timeout = 10 }
      assert(held, why)
      waited = neap.now() - began
    end)
    out:close()
    assert.truthy(waited < 3, waited)
    shared:reap()
    assert.equal(1, slots:in_use())
  end)

  it("lets those in line hear of what others give back", function ()
    local slots = shared:semaphore("slots", 1)
    local out = other [[
      local slots = shared:semaphore("slots", 1)
      neap.run(function ()
        local held = slots:acquire()
        print "held"
        neap.sleep(0.3)
        held:release()
        print "released"
        neap.sleep(0.2)
      end)
    ]]
    assert.equal("held", out:read "*l")
    neap.run(function ()
      local held, why = slots:acquire { timeout = 10 }
      assert(held, why)
      held:release()
    end)
    out:close()
    assert.equal(0, slots:in_use())
  end)

  it("takes another limit from who asks later, and spent stays spent", function ()
    local calls, slots = shared:throttle("calls", "10/h"), shared:semaphore("slots", 2)
    assert(calls:try_acquire(4))
    told [[
      shared:throttle("calls", "20/h")
      shared:semaphore("slots", 3)
    ]]
    assert.same({ 16, 20, 3 }, { calls:available(), calls:capacity(), slots:limit() })
    calls:reconfigure("6/h", "reset")
    slots:reconfigure(7)
    assert.equal("6\t7\n", told [[
      local old = assert(neap.segment(shared.path, { generation = 1 }))
      print(old:throttle("calls", "1/h"):available(), old:semaphore("slots", 1):limit())
    ]])
  end)

  it("refuses what would change a limiter behind the others' backs", function ()
    local calls, breaker = shared:throttle("calls", "10/h"), shared:breaker "breaker"
    for _, verb in ipairs { "drain", "refill" } do
      assert.error_matches(function () calls[verb](calls) end,
        verb .. ": calls is shared with other processes: only reconfigure changes it")
    end
    for _, verb in ipairs { "open", "close", "reset" } do
      assert.error_matches(function () breaker[verb](breaker) end, verb .. ": breaker is shared")
    end
    assert.error_matches(function () shared:adaptive("a", "aimd"):bounds(1, 2) end, "is shared")
    assert.error_matches(function ()
      shared:adaptive("b", { strategy = function () end })
    end, "a strategy in Lua knows the calls of its own process alone")
    assert.error_matches(function ()
      shared:breaker("c", { over = calls })
    end, "two limiters: share both")
  end)

  it("says what is wrong", function ()
    assert.error_matches(function () neap.segment() end, "a name or a path expected, got nil")
    assert.error_matches(function ()
      neap.segment(path, { limiter = 1 })
    end, "did you mean 'limiters'")
    assert.error_matches(function () neap.segment(path, { mode = 660 }) end, "\"0660\" expected")
    assert.error_matches(function () shared:throttle("", "1/s") end, "a name of up to 63 bytes")
    assert.error_matches(function () shared:throttle(("x"):rep(64), "1/s") end, "up to 63 bytes")
    assert.error_matches(function () shared:throttle "x" end, "throttle: bad limit")
    shared:throttle("x", "1/s")
    assert.error_matches(function () shared:semaphore("x", 1) end, "a limiter of another kind")
    local made, message = neap.segment(path, { limiters = 100 })
    assert.is_nil(made)
    assert.truthy(message:find(path, 1, true))
    local file = assert(io.open(path .. "x", "w"))
    file:write(("neap is not in here\n"):rep(1000))
    file:close()
    finally(function () os.remove(path .. "x") end)
    made, message = neap.segment(path .. "x")
    assert.is_nil(made)
    assert.truthy(message)
    made, message = neap.segment(path .. "y", { attach = true })
    assert.is_nil(made)
    assert.truthy(message:find "No such file", message)
    local full = assert(neap.segment(path .. "z", { limiters = 1 }))
    finally(function () os.remove(path .. "z") end)
    full:throttle("one", "1/s")
    assert.error_matches(function () full:throttle("two", "1/s") end, "there is no room for it")
  end)

  it("keeps rates by key, and a key is the same in all processes", function ()
    local users = shared:per_key("users", "1/h burst 5", { most = 100 })
    assert(users:try_acquire("ann", 3))
    assert(users:try_acquire(42))
    assert.equal("2\n4\n5\n2\n", told [[
      local users = shared:per_key("users", "1/h burst 5", { most = 100 })
      print(users:available "ann")
      print(users:available(42))
      print(users:available "42")
      print(users:len())
      users:try_acquire("ann", 2)
    ]])
    assert.equal(0, users:available "ann")
    assert.equal("rate", select(2, users:try_acquire "ann"))
    users:forget "ann"
    users:reconfigure "1/h burst 9"
    assert.equal("9\n8\n", told [[
      local users = shared:per_key("users", "1/h burst 9", { most = 100 })
      print(users:available "ann")
      print(users:available(42))
    ]])
    for one in shared:each() do assert.same({ "users", 100 }, { one.name, one.keys }) end
  end)

  it("keeps permits by key, which come back when who holds them dies", function ()
    local users = shared:per_key("users", { "1/h burst 9", "3 in flight" })
    local out = other [[
      local users = shared:per_key("users", { "1/h burst 9", "3 in flight" })
      kept = { users:try_acquire("ann", 2), users:try_acquire "bob" }
      local ffi = require "ffi"
      ffi.cdef "int getpid(void);"
      print(ffi.C.getpid())
      neap.sleep(20)
    ]]
    local pid = assert(tonumber(out:read "*l"))
    local one = assert(users:try_acquire "ann")
    assert.equal("busy", select(2, users:try_acquire "ann"))
    assert.equal(2, users:len())
    local waited
    neap.run(function ()
      neap.spawn(function ()
        neap.sleep(0.05)
        os.execute("kill -9 " .. pid)
      end)
      local began = neap.now()
      local held, why = users:acquire("ann", 1, { deadline = began + 10 })
      assert(held, why)
      waited = neap.now() - began
      held:release()
    end)
    out:close()
    assert.truthy(waited < 3, waited)
    one:release()
    assert.equal(3, users:available "ann")
    shared:reap()
    users:reconfigure { "1/h burst 9", "8 in flight" }
    assert.equal(5, users:available "ann")   -- of the rate, for what the dead one spent is spent
    assert.equal("refuse", users.full)
  end)

  it("lets those in a key's line hear of what others give back", function ()
    local options = { overrides = { vip = "1 in flight" } }
    local users = shared:per_key("users", "1 in flight", options)
    for _, key in ipairs { "ann", "vip" } do
      local out = other(([[
        local options = { overrides = { vip = "1 in flight" } }
        local users = shared:per_key("users", "1 in flight", options)
        neap.run(function ()
          local held = users:acquire "%s"
          print "held"
          neap.sleep(0.1)
          held:release()
          neap.sleep(0.2)
        end)
      ]]):format(key))
      assert.equal("held", out:read "*l")
      neap.run(function ()
        local held, why = users:acquire(key, 1, { deadline = neap.now() + 10 })
        assert(held, why)
        held:release()
      end)
      out:close()
      assert.equal(1, users:available(key))
    end
  end)

  it("has limits of a key's own, the same in all processes", function ()
    local options = { overrides = { vip = "1/h burst 9", bot = "closed" } }
    local users = shared:per_key("users", "1/h burst 2", options)
    assert(users:try_acquire("vip", 8))
    assert.equal("1\nnil\tclosed\n2\n", told [[
      local users = shared:per_key("users", "1/h burst 2",
        { overrides = { vip = "1/h burst 9", bot = "closed" } })
      print(users:available "vip")
      print(users:try_acquire "bot")
      print(users:available "ann")
    ]])
  end)

  it("forgets the least recent key, and those that are idle, when that is asked for", function ()
    local rt = manual.new()
    local was = runtime.use(rt)
    local users = shared:per_key("users", "1/h burst 2", { most = 2, full = "least_recent" })
    for _, key in ipairs { "ann", "bob", "ann", "eve" } do assert(users:try_acquire(key)) end
    assert.same({ 0, 2 }, { users:available "ann", users:available "bob" })
    assert.equal(1, users:key_stats().evicted)
    local idle = shared:per_key("idle", "1/h burst 2", { idle = 10 })
    idle:try_acquire "ann"
    rt.advance(9)
    assert.same({ 1, 1 }, { idle:available "ann", idle:len() })
    rt.advance(2)
    assert.same({ 2, 0 }, { idle:available "ann", idle:len() })
    runtime.use(was)
  end)

  it("takes keys of its own and of this process at once, under one name", function ()
    local users = shared:per_key("users", "1/h burst 5")
    local here = neap.per_key "1/h burst 2"
    local both = neap.hybrid { users, here }
    assert(both:try_acquire { key = "ann", cost = 2 })
    assert.equal("rate", select(2, both:try_acquire { key = "ann" }))
    assert.same({ 3, 0 }, { users:available "ann", here:available "ann" })
    local again = assert(neap.segment(path)):per_key("users", "1/h burst 5")
    assert.equal(3, again:available "ann")
    assert.has_error(function () neap.hybrid { users, again } end,
      "hybrid: users of " .. path .. " is in it twice: use one and the same")
  end)

  it("lets a key wait in its line, and turns strangers away where there is no room", function ()
    local rt = manual.new()
    local was = runtime.use(rt)
    local users = shared:per_key("users", "1/s", { most = 1 })
    assert(users:try_acquire "ann")
    local reason = { users:try_acquire "bob" }
    assert.equal("full", reason[2])
    local waiter = rt.spawn(function () return users:acquire("ann", 1, "2s") ~= nil end)
    rt.advance(0.999)
    assert.falsy(waiter.ended)
    rt.advance(0.002)
    assert.same({ true }, { waiter:join() })
    local one = shared:per_key("shared", "1/s", { most = 1, full = "shared" })
    assert(one:try_acquire "ann")
    assert(one:try_acquire "bob")
    assert.equal("rate", select(2, one:try_acquire "eve"))
    runtime.use(was)
  end)

  it("says what cannot be kept by key", function ()
    local function fails(message, ...)
      local ok, got = pcall(shared.per_key, shared, ...)
      assert.falsy(ok)
      assert.truthy(got:find(message, 1, true), got)
    end
    fails("processes share what is one word", "p", "4/m sliding")
    fails("processes share what is one word", "p", { "1/s", "4/m sliding" })
    fails("processes share what is one word", "p", function () return neap.breaker() end)
    fails("a name of up to 63 bytes expected", ("x"):rep(62), { "4/s", "5/m" })
    local long = { overrides = { [("x"):rep(62)] = "5/s" } }
    fails("a name of up to 63 bytes expected", "p", "4/s", long)
    fails("there is no room for it", "p", "4/s", { most = 1e7 })
    fails("a name of up to 63 bytes expected", "", "4/s")
    fails("options: a table expected", "p", "4/s", 5)
    shared:throttle("t", "4/s")
    fails("a limiter of another kind", "t", "4/s")
  end)

  it("can be looked at by who never writes", function ()
    shared:semaphore("slots", 3):try_acquire()
    local seen = assert(neap.segment(path, { inspect = true }))
    for one in seen:each() do assert.same({ "slots", 2 }, { one.name, one.available }) end
    assert.equal("segment " .. path, tostring(seen))
  end)

  it("is looked after only while somebody waits", function ()
    local rt = manual.new()
    local was = runtime.use(rt)
    local slots = shared:semaphore("slots", 1)
    local held = slots:try_acquire()
    local waiter = rt.spawn(function () return slots:acquire { timeout = 60 } ~= nil end)
    rt.advance(0.5)
    C.neap_limiter_give(slots.leaf, 1, C.NEAP_SUCCESS, 0, 0)   -- as another process would
    rt.advance(0.009)
    assert.is_true(waiter.ended)
    held.over = true
    ffi.gc(held.request, nil)
    assert.same({ true }, { waiter:join() })
    rt.run(function () end)   -- nothing is left to do
    local stats = ffi.new "struct neap_engine_stats"
    C.neap_engine_stats(rt.engine, stats)
    assert.equal(0, tonumber(stats.sleeping))
    runtime.use(was)
  end)
end)

