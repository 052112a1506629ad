--- Another policy for a worker that serves: what was used, who holds and who waits goes on.
local C = require "neap.engine"
local policy = require "neap.policy"
local seed = require "spec.seed"
local wired = require "spec.wired"
local worker = require "neap.worker"

local function tree_of(text)
  local tree, mistakes = policy.parse(text, "policy.lua")
  assert(tree, mistakes and tostring(mistakes[1]))
  return tree
end

local function api(body) return ('policy "api" { %s }'):format(body) end

describe("a worker that reloads", function ()
  local w, c

  local function open(body)
    w = wired.open(tree_of(api(body)))
    c = w:connect()
  end

  after_each(function ()
    if w then w:close() end
    w = nil
  end)

  --- What becomes of things, as `check --diff` would say.
  local function reload_all(text)
    local changes, why = worker.reload(w.worker, tree_of(text))
    assert(changes, why)
    assert.equal(0, C.neap_engine_check(w.worker.engine))
    w:turns()
    return changes, why
  end

  local function reload(body) return reload_all(api(body)) end

  local function snapshot(...) return wired.map(w:ask(c, "NEAP.SNAPSHOT", "api", ...)) end

  --- What is left of limit i; or of the first limit of a scope, for a key.
  local function free(i, scope, key)
    if scope then return snapshot("BY", scope, key).by[i].available end
    return snapshot().limits[i or 1].available
  end

  local function take(...) return w:verdict(c, "NEAP.ACQUIRE", "api", ...) end

  --- A client that waits, or does not.
  local function wait(...)
    local client = w:connect()
    w:send(client, "NEAP.ACQUIRE", "api", ...)
    return client
  end

  local function heard(client) return wired.said(w:receive(client)) end

  -- ---- rates ----

  it("keeps what is used: 700 of 1000 are 500 of 1200 left", function ()
    open 'limits = { requests = "1000/min" }'
    assert.equal("GRANTED - 0 -1 ", take("COST", 700))
    local changes = reload 'limits = { requests = "1200/min" }'
    assert.same({ "changed", "keep used" }, { changes[1].change, changes[1].keeps })
    assert.equal(500, free())
    reload 'limits = { requests = "600/min" }'
    assert.equal(-100, free() < 0 and free() or -100)   -- never more than none
    assert.matches("^RETRY", take())
  end)

  it("keeps of a rate what the author says, policy by policy or limit by limit", function ()
    for _, row in ipairs {
      { "keep used", 140 }, { "keep balance", 40 }, { "scale", 80 }, { "reset", 200 },
    } do
      open 'limits = { requests = "100/min" }'
      take("COST", 60)
      reload(('limits = { requests = "200/min" }, on_change = "%s"'):format(row[1]))
      assert.equal(row[2], free(), row[1])
      reload(('limits = { requests = "200/min" }, doc = "x", on_change = "%s"'):format(row[1]))
      assert.equal(row[2], free(), row[1] .. ", and nothing changed")
      w:close()
    end
    open 'limits = { requests = "100/min", input = "100/min" }'
    take("COST", "requests", 60, "COST", "input", 60)
    reload('limits = { requests = "200/min", input = "200/min" }, '
      .. 'on_change = { requests = "reset" }')
    assert.same({ 200, 140 }, { free(1), free(2) })
  end)

  it("remembers each grant of a sliding limit, and begins another kind anew", function ()
    open 'limits = { a = "10/min sliding", b = "10/min" }'
    take("COST", "a", 4, "COST", "b", 4)
    w:pass(30000)
    take("COST", "a", 4, "COST", "b", 0)
    local changes = reload 'limits = { a = "12/min sliding", b = "10/min sliding" }'
    assert.same({ "changed", "replaced" }, { changes[1].change, changes[2].change })
    assert.same({ 4, 10 }, { free(1), free(2) })
    w:pass(30000)
    assert.equal(8, free(1))
  end)

  -- ---- leases ----

  it("lets leases give back to what goes on, and to nothing else", function ()
    open 'limits = { calls = "4 in flight", heavy = "9 in flight", requests = "100/min" }'
    local first = w:lease(c, "NEAP.ACQUIRE", "api", "COST", "calls", 2, "COST", "heavy", 5)
    local second = w:lease(c, "NEAP.ACQUIRE", "api", "COST", "calls", 1, "COST", "heavy", 1)
    reload 'limits = { requests = "100/min", extra = "3 in flight", calls = "2 in flight" }'
    assert.same({ 98, 3, -1 }, { free(1), free(2), free(3) })
    assert.matches("^RETRY", take())
    assert.equal(1, w:ask(c, "NEAP.RELEASE", first, "USED", "requests", 11))
    assert.same({ 88, 3, 1 }, { free(1), free(2), free(3) })
    local third = w:lease(c, "NEAP.ACQUIRE", "api")
    reload 'limits = { calls = "5 in flight", heavy = "9 in flight" }'
    assert.same({ 3, 9 }, { free(1), free(2) })
    assert.equal(1, w:ask(c, "NEAP.RELEASE", second))
    assert.equal(1, w:ask(c, "NEAP.RELEASE", third))
    assert.same({ 5, 9 }, { free(1), free(2) })
    assert.equal(0, snapshot().leases)
  end)

  it("keeps the word of who booked, and charges what is booked of what there is now", function ()
    open 'limits = { requests = "1/s", calls = "3 in flight" }'
    assert.matches("^GRANTED", take())
    local function book() return w:ask(c, "NEAP.RESERVE", "api", "MAXWAIT", 9000) end
    local first, second = book(), book()
    assert.same({ 1000, 2000 }, { first[3], second[3] })
    reload 'limits = { requests = "1/2s", calls = "3 in flight", more = "9/s" }'
    assert.equal(0, free(2))
    assert.equal(1, w:ask(c, "NEAP.RELEASE", second[2]))
    assert.equal(1, free(2))
    w:pass(1000)
    assert.equal(1, w:ask(c, "NEAP.RELEASE", first[2]))
    assert.equal(2, free(2))
    w:pass(5000)
    assert.equal(1, free())
  end)

  it("ends them with their time, and with their connection, as before", function ()
    open 'limits = { calls = "3 in flight" }'
    local other = w:connect()
    w:ask(other, "NEAP.ACQUIRE", "api")
    w:ask(c, "NEAP.ACQUIRE", "api", "TTL", 500)
    local lease = w:lease(c, "NEAP.ACQUIRE", "api", "ID", "x", "DETACH")
    reload 'limits = { calls = "4 in flight" }'
    assert.equal(lease, w:ask(c, "NEAP.ACQUIRE", "api", "ID", "x")[2])
    assert.equal(1, free())
    w:pass(500)
    assert.equal(2, free())
    other.socket:close()
    w:turns()
    assert.equal(3, free())
  end)

  it("lets leases of a policy that is gone end without a trace", function ()
    open 'limits = { calls = "1 in flight" }'
    local lease = w:lease(c, "NEAP.ACQUIRE", "api")
    local waits = wait("BLOCK", 0)
    local changes = reload_all 'policy "b" { limits = { x = "1/s" } }'
    assert.equal("gone", changes[#changes].change)
    assert.equal("SHED - 0 -1 reload", heard(waits))
    assert.matches("^NOPOLICY", take())
    assert.equal(1, w:ask(c, "NEAP.RELEASE", lease))
    reload 'limits = { calls = "1 in flight" }'
    assert.equal(1, free())
  end)

  -- ---- waiters ----

  it("answers nobody who waits, keeps their order, and times them anew", function ()
    open 'limits = { requests = "1/s" }'
    take()
    local waiters = {}
    for i = 1, 4 do waiters[i] = wait("BLOCK", 60000) end
    w:pass(500)
    reload 'limits = { requests = "1/10s", other = "5/s" }'
    for i = 1, 4 do assert.is_nil(w:receive(waiters[i])) end
    assert.equal(4, snapshot().waiting)
    w:pass(4900)
    assert.is_nil(w:receive(waiters[1]))
    w:pass(200)   -- half a token had flowed in; the other half takes 5 s now
    assert.equal("GRANTED - 5500 -1 ", heard(waiters[1]))
    reload 'limits = { other = "5/s", requests = "2/s burst 2" }'
    assert.matches("^GRANTED", heard(waiters[2]))
    assert.is_nil(w:receive(waiters[3]))
    w:pass(500)
    assert.matches("^GRANTED", heard(waiters[3]))
    assert.is_nil(w:receive(waiters[4]))
    w:pass(500)
    assert.matches("^GRANTED", heard(waiters[4]))
    assert.equal(0, snapshot().waiting)
  end)

  it("lets who can not be served in time any more wait until then, for it may change", function ()
    open 'limits = { requests = "1/s" }'
    take()
    local one, two = wait("BLOCK", 1500), wait("BLOCK", 2500)
    reload 'limits = { requests = "1/min" }'
    w:pass(1400)
    assert.is_nil(w:receive(one))
    w:pass(100)
    assert.matches("^RETRY %- 1500 %d+ timeout", heard(one))
    reload 'limits = { requests = "1/s" }'
    w:pass(970)
    assert.is_nil(w:receive(two))
    w:pass(10)   -- 1.5 s at 1/min were 25 ms of a token
    assert.equal("GRANTED - 2475 -1 ", heard(two))
    w:pass(5000)
  end)

  it("lets who waited in vain go when they hang up or are let go", function ()
    open 'limits = { requests = "1/s" }'
    take()
    local one, two = wait("BLOCK", 1500), wait("BLOCK", 2500)
    reload 'limits = { requests = "1/min" }'
    one.socket:close()
    w:turns()
    assert.equal(1, snapshot().waiting)
    reload 'limits = { requests = "2/min burst 1" }'
    reload 'limits = { requests = "1/min" }'
    assert.equal(1, snapshot().waiting)
    w:pass(2500)
    assert.matches("^RETRY %- 2500", heard(two))
    assert.equal(0, snapshot().waiting)
  end)

  it("tells a waiter that it can never go when a limit is below its cost now", function ()
    open 'limits = { requests = "10/s" }'
    take("COST", 10)
    local one, two = wait("COST", 8, "BLOCK", 0), wait("COST", 2, "BLOCK", 0)
    reload 'limits = { requests = "5/s" }'
    assert.equal("NEVER - 0 -1 requests", heard(one))
    assert.is_nil(w:receive(two))
    w:pass(3000)
    assert.matches("^GRANTED", heard(two))
  end)

  it("keeps several that wait with one ID together, and their lease", function ()
    open 'limits = { calls = "1 in flight" }'
    local lease = w:lease(c, "NEAP.ACQUIRE", "api")
    local one, two = wait("BLOCK", 0, "ID", "x"), wait("BLOCK", 0, "ID", "x")
    reload 'limits = { calls = "1 in flight", requests = "5/s" }'
    w:ask(c, "NEAP.RELEASE", lease)
    local a, b = w:receive(one), w:receive(two)
    assert.equal("GRANTED", a[1])
    assert.equal(a[2], b[2])
    assert.equal(4, free(2))
  end)

  it("keeps who waits in a queue in its order, in another queue, too", function ()
    local QUEUE = 'limits = { calls = "1 in flight"%s }, queue = { max = %d, timeout = "60s", '
      .. 'priority = { "high", "low" }%s }'
    open(QUEUE:format("", 10, ""))
    local lease = w:lease(c, "NEAP.ACQUIRE", "api")
    local low, high, late = wait("PRIO", "low", "BLOCK", 0), wait("PRIO", "high", "BLOCK", 0),
      wait("PRIO", "low", "BLOCK", 0)
    reload(QUEUE:format(', rps = "100/s"', 10, ""))   -- the same queue
    assert.equal(3, snapshot().queue.waiting)
    reload(QUEUE:format(', rps = "100/s"', 2, ', overflow = "drop lowest"'))
    assert.equal(3, snapshot().queue.waiting)         -- fewer places: nobody is sent away
    assert.equal("SHED - 0 -1 queue", heard(wait("PRIO", "high", "BLOCK", 0)))
    for _, each in ipairs { high, low, late } do
      w:ask(c, "NEAP.RELEASE", lease)
      local reply = w:receive(each)
      assert.equal("GRANTED", reply and reply[1])
      lease = reply[2]
    end
    w:ask(c, "NEAP.RELEASE", lease)
    reload 'limits = { calls = "1 in flight" }'
    assert.equal(1, free())
  end)

  -- ---- scopes ----

  it("keeps what keys used, and their limits of their own", function ()
    local BODY = 'per "tenant" { requests = "%s"%s }'
    open(BODY:format("10/min", ', override = { vip = { requests = "100/min" } }'))
    for _, tenant in ipairs { "a", "vip", "b" } do take("BY", "tenant", tenant, "COST", 4) end
    assert.same({ 6, 96 }, { free(1, "tenant", "a"), free(1, "tenant", "vip") })
    reload(BODY:format("20/min", ', override = { vip = { requests = "50/min" }, '
      .. 'b = { requests = "7/min" } }'))
    assert.same({ 16, 46, 3, 20 }, { free(1, "tenant", "a"), free(1, "tenant", "vip"),
      free(1, "tenant", "b"), free(1, "tenant", "new") })
    reload(BODY:format("20/min", ', keep = "50 keys"'))
    assert.same({ 16, 16, 16, 20 }, { free(1, "tenant", "a"), free(1, "tenant", "vip"),
      free(1, "tenant", "b"), free(1, "tenant", "new") })
  end)

  it("keeps what keys hold, and the logs of those that slide", function ()
    local BODY = 'per "tenant" { calls = "%s", seen = "%s"%s }'
    open(BODY:format("3 in flight", "5/min sliding", ""))
    local lease = w:lease(c, "NEAP.ACQUIRE", "api", "BY", "tenant", "a", "COST", "calls", 2,
      "COST", "seen", 3)
    reload(BODY:format("4 in flight", "6/min sliding", ', keep = "10 keys"'))
    assert.same({ 2, 3 }, { free(1, "tenant", "a"), free(2, "tenant", "a") })
    reload(BODY:format("4 in flight", "6/min sliding",
      ', override = { a = { calls = "9 in flight" } }'))
    assert.equal(7, free(1, "tenant", "a"))
    reload(BODY:format("4 in flight", "6/min sliding", ""))
    assert.equal(2, free(1, "tenant", "a"))
    assert.equal(1, w:ask(c, "NEAP.RELEASE", lease))
    assert.same({ 4, 3 }, { free(1, "tenant", "a"), free(2, "tenant", "a") })
  end)

  it("keeps those in line who wait for their key, and asks a new scope of them", function ()
    open 'limits = { all = "1000/s" }, per "tenant" { all = "1/s" }'
    take("BY", "tenant", "a")
    local one, two = wait("BY", "tenant", "a", "BLOCK", 0), wait("BY", "tenant", "a", "BLOCK", 0)
    reload 'limits = { all = "1000/s" }, per "tenant" { all = "2/s burst 1" }'
    w:pass(500)
    assert.matches("^GRANTED", heard(one))
    assert.is_nil(w:receive(two))
    reload 'limits = { all = "1000/s" }'
    assert.matches("^GRANTED", heard(two))
  end)

  -- ---- the rest ----

  it("leaves an open breaker open, and a backoff on", function ()
    local BODY = 'limits = { a = "%s" }, breaker = { trip = "2 consecutive", cooldown = "%s" }'
      .. ', backoff = { on = { 429 }, window = "10s" }'
    open(BODY:format("10/s", "30s"))
    for _ = 1, 2 do w:ask(c, "NEAP.REPORT", "api", "FAIL") end
    w:ask(c, "NEAP.REPORT", "api", "STATUS", 429)
    assert.equal("open", snapshot().breaker)
    reload(BODY:format("20/s", "30s"))
    assert.same({ "open", 10000 }, { snapshot().breaker, snapshot().backoff_ms })
    reload 'limits = { a = "20/s" }, breaker = { trip = "3 consecutive", cooldown = "5s" }'
    assert.equal("open", snapshot().breaker)
    w:pass(29000)
    assert.matches("^SHED", take())
    w:pass(1000)
    assert.equal("half-open", snapshot().breaker)
    assert.matches("^GRANTED", take())
    reload 'limits = { a = "20/s" }'
    assert.is_nil(snapshot().breaker)
  end)

  it("leaves a limit that adapts where it was, within its bounds", function ()
    local BODY = 'limits = { calls = "50 in flight" }, adaptive = { calls = "aimd from %d to %d" }'
    open(BODY:format(4, 50))
    local leases = {}
    for i = 1, 4 do leases[i] = w:lease(c, "NEAP.ACQUIRE", "api") end
    for i = 1, 2 do w:ask(c, "NEAP.RELEASE", leases[i], "OK") end
    local was = snapshot().limits[1].capacity
    assert.truthy(was > 4)
    reload(BODY:format(2, 40))
    assert.equal(was, snapshot().limits[1].capacity)
    reload(BODY:format(1, 3))
    assert.same({ 3, 1 }, { snapshot().limits[1].capacity, free() })
  end)

  it("counts on, and changes hooks without anything else", function ()
    open 'limits = { requests = "1/s" }'
    take()
    local one = wait("BLOCK", 0)
    local ticket = next(w.worker.desk.by_ticket)
    reload 'limits = { requests = "1/s" }, estimate = function () return { requests = 1 } end'
    assert.truthy(w.worker.desk.by_ticket[ticket])
    assert.equal(1, snapshot().said.granted)
    reload 'limits = { requests = "2/s burst 1" }'
    w:pass(500)
    assert.matches("^GRANTED", heard(one))
    assert.same({ 2, 1 }, { snapshot().said.granted, snapshot().said.waited })
    local counts = w.worker.desk.accounts.policies.api.counts
    assert.same({ 2, 0 }, { tonumber(counts.granted), tonumber(counts.cancelled) })
  end)

  it("does nothing at all when one policy is more than the engine holds to", function ()
    open 'limits = { requests = "10/s" }'
    take("COST", 4)
    local tree = tree_of('policy "api" { limits = { requests = "20/s" } }'
      .. 'policy "b" { limits = { x = "1/s" } }')
    tree.policies[2].limits[1].notation.amount = 2 ^ 52
    tree.policies[2].limits[1].notation.per_ns = 1
    local changes, message = worker.reload(w.worker, tree)
    assert.is_nil(changes)
    assert.matches("policy 'b'", message)
    assert.same({ 10, 6 }, { snapshot().limits[1].capacity, free() })
    assert.same({ "api" }, w:ask(c, "NEAP.LIST"))
  end)

  it("lets other users in from then on, and says what takes a restart", function ()
    local text = 'user "%s" { password = "pw", allow = "acquire read admin" } %s '
      .. api 'limits = { requests = "10/s" }'
    w = wired.open(tree_of(text:format("ann", "")))
    c = w:connect()
    assert.equal("OK", w:ask(c, "AUTH", "ann", "pw"))
    local _, later = reload_all(text:format("bob", 'listen { resp = "127.0.0.1:1" }'))
    assert.same({ "listen: other addresses take a restart" }, later)
    assert.equal("PONG", w:ask(c, "PING"))
    local d = w:connect()
    assert.matches("^WRONGPASS", w:ask(d, "AUTH", "ann", "pw"))
    assert.equal("OK", w:ask(d, "AUTH", "bob", "pw"))
  end)

  -- ---- by dice ----

  it("loses no token and no permit, whatever is reloaded when", function ()
    math.randomseed(seed)
    local random = math.random
    local sizes, flight = { 50, 80, 120 }, { 3, 5, 9 }
    local size, most, used, keys, held = 80, 5, 0, {}, {}
    local function text()
      return ('limits = { requests = "%d/30d", calls = "%d in flight" }, '
        .. 'per "tenant" { requests = "%d/30d", keep = "%d keys"%s }'):format(size, most,
        size, random(1000, 2000),
        random(2) == 1 and (', override = { t1 = { requests = "%d/30d" } }'):format(size) or "")
    end
    open(text())
    for step = 1, 150 do
      local roll = random(10)
      if roll <= 5 then
        local tenant = "t" .. random(3)
        local reply = w:ask(c, "NEAP.ACQUIRE", "api", "BY", "tenant", tenant, "COST", "calls", 1)
        if reply[1] == "GRANTED" then
          used, keys[tenant] = used + 1, (keys[tenant] or 0) + 1
          held[#held + 1] = reply[2]
        end
      elseif roll <= 8 and held[1] then
        assert.equal(1, w:ask(c, "NEAP.RELEASE", table.remove(held, random(#held))))
      else
        size, most = sizes[random(3)], flight[random(3)]
        reload(text())
      end
      local now = snapshot("BY", "tenant", "t1")
      local what = "step " .. step
      assert.equal(size - used, now.limits[1].available, what)
      assert.equal(most - #held, now.limits[2].available, what)
      assert.equal(size - (keys.t1 or 0), now.by[1].available, what)
    end
  end)
end)
