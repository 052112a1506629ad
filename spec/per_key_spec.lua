--- Limits per key, and layers of them, as users write them. The table is in spec/c/property_keys.c
--- and keys_spec.lua, what the engine makes of keys in keyed_spec.lua.
local layered = require "neap.layered"
local manual = require "neap.runtime.manual"
local hybrid = require "neap.hybrid"
local per_key = require "neap.per_key"
local process = require "spec.process"
local runtime = require "neap.runtime"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

local function refused(fragment, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.falsy(ok)
  assert.truthy(message:find(fragment, 1, true), ("%q does not say %q"):format(message, fragment))
end

describe("per_key", function ()
  local rt, before
  before_each(function ()
    rt = manual.new()
    before = runtime.use(rt)
  end)
  after_each(function ()
    runtime.use(before)
    rt.close()
  end)

  local function count(limiter, key, attempts, given)
    local granted = 0
    for _ = 1, attempts do
      if limiter:try_acquire(key, given) then granted = granted + 1 end
    end
    return granted
  end

  it("gives everyone the same limit, and to each his own", function ()
    local users = per_key "2/s"
    assert.equal(2, count(users, "ann", 5))
    assert.equal(2, count(users, "bob", 5))
    assert.same({ nil, "rate", 0.5 }, { users:try_acquire "ann" })
    rt.advance(0.5)
    assert.equal(1, count(users, "ann", 5))
    assert.equal(0, users:available "ann")
    assert.equal(1, users:available "bob")
    assert.equal(2, users:available "never seen")
    assert.equal(2, users:capacity())
  end)

  it("keeps the rate of a key exactly that is waited for, also between two nanoseconds", function ()
    local users, at = per_key "3/us smooth", {}
    for i = 0, 900 do
      rt.spawn(function () at[i] = tonumber(users:acquire(i % 2).at) end)
    end
    rt.advance "1ms"
    for i = 0, 900 do assert.equal(math.ceil(math.floor(i / 2) * 1000 / 3), at[i]) end
  end)

  it("holds what a call used after all that was granted for nothing", function ()
    local jobs = per_key "3 in flight"
    local job = assert(jobs:try_acquire("ann", 0))
    job:settle(2)
    assert.equal(1, jobs:available "ann")
    assert.same({ nil, "busy" }, { jobs:try_acquire("ann", 2) })
    job:release()
    assert.equal(3, jobs:available "ann")
  end)

  it("lets a process end while permits are out", function ()
    local script = process.file [[
      local users = require "neap.per_key" { "5/s", "9 in flight" }
      held = {}
      for key = 1, 100 do held[key] = assert(users:try_acquire(key)) end]]
    local said, status = process.output("luajit " .. process.quoted(script))
    os.remove(script)
    assert.same({ "", 0 }, { said, status })
  end)

  it("tells 42 from \"42\", and takes any text as a key", function ()
    local users = per_key "1/h"
    assert.truthy(users:try_acquire(42))
    assert.truthy(users:try_acquire "42")
    assert.truthy(users:try_acquire "")
    assert.truthy(users:try_acquire "\0")
    assert.truthy(users:try_acquire(-42))
    assert.equal(5, users:len())
    for _, key in ipairs { 42, "42", "", "\0", -42 } do assert.falsy(users:try_acquire(key)) end
  end)

  it("refuses what is no key, and charges nobody", function ()
    local users = per_key "1/h"
    for _, bad in ipairs { 1.5, 0 / 0, math.huge, true, {}, 2 ^ 60, ("x"):rep(2 ^ 20) } do
      refused("a key", users.try_acquire, users, bad)
      refused("a key", users.acquire, users, bad)
      refused("a key", users.peek, users, bad)
    end
    refused("a key expected, got nil", users.try_acquire, users)
    refused("cost", users.try_acquire, users, "ann", -1)
    assert.equal(0, users:len())
  end)

  it("lets those who wait for a key wait in order, and nobody else", function ()
    local users, order = per_key "1/s", {}
    users:try_acquire "ann"
    for i = 1, 3 do
      rt.spawn(function ()
        assert(users:acquire("ann", { timeout = 10 }))
        order[#order + 1] = { i, rt.now() }
      end)
    end
    rt.advance(0)
    assert.truthy(users:try_acquire "bob")
    assert.same({ nil, "line", 4 }, { users:try_acquire "ann" })
    assert.equal(3, users:why("ann").place)
    assert.same({ nil, "timeout", 4 }, { users:acquire("ann", 1, 2) })
    rt.advance(3)
    assert.same({ { 1, 1 }, { 2, 2 }, { 3, 3 } }, order)
  end)

  it("keeps permits by key, and a lost one comes back", function ()
    local hosts = per_key("2 in flight", { name = "host" })
    local a = assert(hosts:try_acquire "x")
    assert(hosts:try_acquire "x")
    assert.same({ nil, "busy" }, { hosts:try_acquire "x" })
    assert.equal("host: needs 1 of 2, has 0; free when a permit comes back",
      tostring(hosts:why "x"))
    assert.truthy(hosts:try_acquire "y")
    assert.truthy(a:release())
    assert.falsy(a:release())
    assert.equal(1, hosts:available "x")
    a = nil   -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.equal(2, hosts:available "x")
    assert.equal("done", hosts:with("x", 2, function () return "done" end))
    assert.equal(0, hosts:len())
  end)

  it("never forgets a key that has something in flight, unless it is told to", function ()
    local hosts = per_key("3 in flight", { most = 1, idle = 1 })
    local two = assert(hosts:try_acquire("x", 2))
    assert.same({ nil, "full" }, { hosts:try_acquire "y" })
    rt.advance(60)
    assert.equal(1, hosts:available "x")
    hosts:forget "x"
    local one = assert(hosts:try_acquire "x")
    two:settle(1)   -- of that one nothing is out any more
    two:release()
    one:release()
    assert.equal(3, hosts:available "x")
    assert(hosts:try_acquire "y")
  end)

  it("settles what was charged to the key, and wakes who fits now", function ()
    local users, woken = per_key "10/min", nil
    local permit = assert(users:try_acquire("ann", 10))
    rt.spawn(function ()
      assert(users:acquire("ann", 4))
      woken = rt.now()
    end)
    rt.advance(1)
    permit:settle(3)
    rt.advance(0)
    assert.equal(1, woken)
    assert.equal(3, users:available "ann")
  end)

  it("keeps several limits by one key, all or none", function ()
    local users = per_key { "2/s", "3/h burst 3", "2 in flight" }
    local one = assert(users:try_acquire "ann")
    assert(users:try_acquire "ann")
    assert.same({ nil, "busy" }, { users:try_acquire "ann" })
    one:release()
    rt.advance(1)
    local last = assert(users:try_acquire "ann")
    last:release()
    local _, why, wait = users:try_acquire "ann"
    assert.equal("rate", why)
    assert.truthy(wait > 1000)
  end)

  it("lets a key have limits of its own, closed and unlimited among them", function ()
    local users = per_key("1/s", { overrides = {
      vip = "100/s", banned = "closed", root = "unlimited", slow = "1/10s sliding", [7] = "2/s",
    } })
    assert.equal(1, count(users, "ann", 200))
    assert.equal(100, count(users, "vip", 200))
    assert.equal(2, count(users, 7, 200))
    assert.equal(1, count(users, "7", 200))
    assert.equal(200, count(users, "root", 200))
    assert.equal(1, count(users, "slow", 200))
    assert.same({ nil, "closed" }, { users:try_acquire "banned" })
    assert.same({ nil, "closed" }, { users:acquire "banned" })
    assert.equal(100, users:capacity "vip")
    assert.equal(2, users:len())
    refused("bad limit", per_key, "1/s", { overrides = { a = "nonsense" } })
    refused("2 limits expected", per_key, { "1/s", "5/h" }, { overrides = { a = "9/s" } })
  end)

  it("keeps exact windows by key, and what a function makes", function ()
    local users = per_key "2/10s sliding"
    assert.equal(2, count(users, "ann", 5))
    rt.advance(9.9)
    assert.equal(0, count(users, "ann", 5))
    rt.advance(0.1)
    assert.equal(2, count(users, "ann", 5))

    local made = {}
    local hosts = per_key(function (host)
      made[#made + 1] = host
      return hybrid { throttle("5/s", { name = "rate of " .. host }), semaphore(1) }
    end)
    local a = assert(hosts:try_acquire "x")
    assert.same({ nil, "busy" }, { hosts:try_acquire "x" })
    assert.truthy(hosts:try_acquire "y")
    a:release()
    assert.truthy(hosts:try_acquire "x")
    assert.same({ "", "x", "y" }, made)
    assert.equal("rate of x and 1 in flight", hosts:of("x").name)
    refused("has to make a limiter", per_key, function () return 5 end)
    refused("stands before", per_key, function () return require "neap.queue" "1/s" end)
  end)

  it("holds to its bound, and forgets whom time has refilled first", function ()
    local users = per_key("4/s", { most = 2, lossless = true })
    users:try_acquire("spent", 4)
    users:try_acquire("light", 1)
    assert.same({ nil, "full", 0.25 }, { users:try_acquire "new" })
    assert.equal("4/s: no room for another key", tostring(users:why "new"))
    assert.same({ nil, "full", 0.25 }, { users:acquire "new" })
    rt.advance(0.25)
    assert.truthy(users:try_acquire "new")
    assert.equal(1, users:available "spent")
    assert.equal(2, users:len())
    assert.equal(2, users:stats().keys.refused)
  end)

  it("forgets the least recently seen when it has to, and counts it", function ()
    local users = per_key("3/h", { most = 2 })
    users:try_acquire("a", 2)
    users:try_acquire("b", 2)
    users:try_acquire("a", 2)   -- refused, and seen
    users:peek "b"              -- which is no use of it
    users:try_acquire("c", 1)
    assert.same({ 1, 3, 2 }, { users:available "a", users:available "b", users:available "c" })
    assert.equal(2, users:len())
    assert.equal(1, users:stats().keys.evicted)
  end)

  it("lets those who find no place share one limit", function ()
    local users = per_key("2/h", { most = 1, full = "shared" })
    assert.equal(2, count(users, "a", 5))
    assert.equal(2, count(users, "b", 1) + count(users, "c", 1) + count(users, "d", 5))
    assert.truthy(users:stats().keys.shared >= 7)
    refused("one word", per_key, "2/h sliding", { full = "shared" })
  end)

  it("has permits back that were shared, also when there is room for their key by then", function ()
    local users = per_key("2 in flight", { most = 1, full = "shared" })
    local a, b, c = users:try_acquire "a", users:try_acquire "b", users:try_acquire "c"
    assert.equal("busy", select(2, users:try_acquire "d"))
    a:release()
    b:release()
    c:settle(0)
    a = users:try_acquire "a"
    assert.same({ 1, 2 }, { users:available "a", users:available "b" })
    a:release()
  end)

  it("forgets idle keys, by time alone; lossless ones not before they are refilled", function ()
    local users = per_key("5/h", { idle = 10 })
    users:try_acquire("a", 5)
    rt.advance(9.999)
    assert.equal(1, users:len())
    rt.advance(0.001)
    assert.equal(0, users:len())
    assert.equal(5, users:available "a")
    local strict = per_key("5/h", { idle = 10, lossless = true })
    strict:try_acquire("a", 5)
    rt.advance(60)
    assert.equal(0, strict:available "a")
  end)

  it("takes other limits, and keeps what each key has spent", function ()
    local users = per_key("10/10s", { overrides = { vip = "50/s" } })
    users:try_acquire("ann", 8)
    users:try_acquire("bob", 2)
    local woken
    rt.spawn(function ()
      assert(users:acquire("ann", 6))
      woken = rt.now()
    end)
    rt.advance(1)   -- ann has 3, bob 9
    users:reconfigure("20/10s", "keep")
    assert.same({ 20, 19, 50 }, { users:available "cid", users:available "bob",
      users:available "vip" })
    rt.advance(0)
    assert.equal(1, woken)
    assert.equal(7, users:available "ann")
    assert.equal("20/10s", users:why("cid", 30).limiter)
    users:reconfigure("10/10s", "balance")
    assert.same({ 7, 10, 10 }, { users:available "ann", users:available "bob",
      users:available "cid" })
    users:reconfigure("100/10s", "scale")
    assert.equal(70, users:available "ann")
    users:reconfigure("100/10s", "reset")
    assert.equal(100, users:available "ann")
    assert.equal(0, users:len())
  end)

  it("carries a great many keys from one limit to another, used or not", function ()
    local users = per_key "100/h"
    for i = 1, 5000 do users:try_acquire(i, 1 + i % 90) end
    users:reconfigure("200/2h")
    for i = 1, 5000, 7 do assert.equal(200 - 1 - i % 90, users:available(i)) end
    for i = 1, 5000, 3 do assert.truthy(users:try_acquire(i, 10)) end
    users:reconfigure("50/30min burst 300", "keep")   -- before the first has come to its end
    for i = 1, 5000 do
      assert.equal(300 - 1 - i % 90 - (i % 3 == 1 and 10 or 0), users:available(i))
    end
    assert.equal(5000, users:len())
  end)

  it("forgets nobody on the way to another limit, though strangers took their places", function ()
    local users = per_key("4/h", { most = 20, full = "refuse" })
    for i = 1, 20 do users:try_acquire(i, 4) end
    users:reconfigure "8/h"
    local strangers = 0
    for i = 1, 5 do
      if users:try_acquire("stranger " .. i, 8) then strangers = strangers + 1 end
    end
    assert.truthy(strangers > 0)
    for i = 1, 20 do
      assert.equal(4, users:available(i))
      users:try_acquire(i, 9)
      assert.equal(4, users:available(i))
    end
    refused("no place yet", users.reconfigure, users, "9/h")
    rt.advance(3600)
    assert.truthy(users:try_acquire(20, 8))
    users:reconfigure "9/h"
    assert.equal(1, users:available(20))
  end)

  it("reconfigures windows and permits by key, and refuses what is another kind", function ()
    local users = per_key { "2/10s sliding", "3 in flight" }
    local one = users:try_acquire "ann"
    assert(users:try_acquire "ann")
    users:reconfigure { "3/10s sliding", "2 in flight" }
    assert.same({ nil, "busy" }, { users:try_acquire "ann" })
    one:release()
    assert(users:try_acquire "ann")
    refused("another kind", users.reconfigure, users, { "3/10s", "2 in flight" })
    refused("2 limits expected", users.reconfigure, users, "3/10s sliding")
    refused("cannot do", users.reconfigure, users, { "3/10s sliding", "2 in flight" }, "scale")
    refused("expected, got", users.reconfigure, users, { "3/10s sliding", "2 in flight" }, "x")
    refused("a function makes", function (f) f:reconfigure "1/s" end,
      per_key(function () return semaphore(1) end))
  end)

  it("forgets a key that it is told to", function ()
    local users, windows = per_key "1/h", per_key "1/h sliding"
    for _, limits in ipairs { users, windows } do
      limits:try_acquire "a"
      local woken
      rt.spawn(function () woken = limits:acquire "a" end)
      rt.advance(1)
      assert.falsy(woken)
      limits:forget "a"
      rt.advance(0)
      assert.truthy(woken)
    end
  end)

  it("refuses options that make no sense", function ()
    refused("limit such as", per_key)
    refused("at least one", per_key, {})
    refused("bad limit", per_key, "nonsense")
    refused("'mots' is not known", per_key, "1/s", { mots = 5 })
    refused("most: a whole number", per_key, "1/s", { most = -1 })
    refused("most: a whole number", per_key, "1/s", { most = 1.5 })
    refused("full:", per_key, "1/s", { full = "explode" })
    refused("idle", per_key, "1/s", { idle = -1 })
    refused("by: a name", per_key, "1/s", { by = 5 })
  end)
end)

describe("layered", function ()
  local rt, before
  before_each(function ()
    rt = manual.new()
    before = runtime.use(rt)
  end)
  after_each(function ()
    runtime.use(before)
    rt.close()
  end)

  it("needs every scope, or charges none", function ()
    local global = throttle "100/h"
    local api = layered { global = global, user = "1/s", endpoint = "2/s" }
    assert.truthy(api:try_acquire { user = "ann", endpoint = "/x" })
    assert.same({ nil, "rate", 1 }, { api:try_acquire { user = "ann", endpoint = "/x" } })
    assert.truthy(api:try_acquire { user = "bob", endpoint = "/x" })
    assert.same({ nil, "rate", 0.5 }, { api:try_acquire { user = "cid", endpoint = "/x" } })
    assert.equal("endpoint", api:why({ user = "cid", endpoint = "/x" }).limiter)
    assert.equal(98, global:available())
    assert.equal(1, api:available(nil, { user = "cid", endpoint = "/y" }))
  end)

  it("waits in the line of the key that holds it up", function ()
    local users = per_key "1/s"
    local global, at = { "50/s", "10 in flight" }, {}
    local api = layered { global = global, user = users, model = "10/s" }
    for _, user in ipairs { "ann", "ann", "bob" } do
      rt.spawn(function ()
        local permit = assert(api:acquire { user = user, model = "m", timeout = 5 })
        at[#at + 1] = user .. " " .. rt.now()
        permit:release()
      end)
    end
    rt.advance(1.5)
    assert.same({ "ann 0", "bob 0", "ann 1" }, at)
    assert.falsy(users:try_acquire "ann")   -- it is the same limit
  end)

  it("wants every key by its name, and says which is missing", function ()
    local api = layered { user = "1/s", endpoint = "2/s" }
    refused("endpoint: a key expected", api.try_acquire, api, { user = "ann" })
    refused("endpoint: a key expected", api.try_acquire, api)
    refused("\"usr\" is not known", api.try_acquire, api, { usr = "a", user = "a", endpoint = "" })
    refused("layered: ", layered, { user = "nonsense" })
    refused("scopes expected", layered)
    assert.truthy(layered({}):try_acquire())
    assert.equal(math.huge, layered({}):capacity())
  end)

  it("nests, with named costs beside keys", function ()
    local tokens = per_key("100/min", { by = "user" })
    local llm = hybrid { requests = layered { user = "2/min" }, tokens = tokens }
    assert.truthy(llm:try_acquire { user = "ann", requests = 1, tokens = 60 })
    local again = { user = "ann", requests = 1, tokens = 60 }
    assert.same({ nil, "rate", 12 }, { llm:try_acquire(again) })
    assert.equal("tokens", llm:why(again).limiter)
    assert.truthy(llm:try_acquire { user = "bob", requests = 1, tokens = 60 })
    assert.equal(40, tokens:available "ann")
    refused("name of a cost and of a key", hybrid,
      { user = per_key("1/s", { by = "user" }) })
    refused("two kinds of keys", layered, { user = tokens, endpoint = tokens })
  end)
end)
