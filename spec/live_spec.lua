--- Live policies: what a declaration makes of calls, in virtual time.
local declared = require "spec.declared"
local live = require "neap.policy.live"
local neap = require "neap"
local manual = require "neap.runtime.manual"

local limits = declared.limits

describe("a live policy", function ()
  local rt, before, told

  before_each(function ()
    rt = manual.new { now = 1000000000LL }
    before = neap.runtime.use(rt)
    told = {}
  end)

  after_each(function () neap.runtime.use(before) end)

  local function open(fields, options)
    options = options or {}
    options.listener = function (policy, event, about)
      assert.equal("api", policy)
      told[#told + 1] = { event, about }
    end
    return assert(live.new(declared.policy(fields), options))
  end

  local function events()
    local names = {}
    for i, one in ipairs(told) do names[i] = one[1] end
    return table.concat(names, " ")
  end

  --- true, or the word and the wait.
  local function try(policy, call)
    local held, why, wait = policy:try_acquire(call)
    if held then return true end
    return wait and ("%s %g"):format(why, wait) or why
  end

  local function refused(want, fn, ...)
    local ok, message = pcall(fn, ...)
    assert.is_false(ok)
    assert.truthy(message:find(want, 1, true), message)
  end

  it("charges 1 of each of its own limits, and what is told", function ()
    local p = open { limits = limits("requests", "10/s", "input", "1000/s",
      "calls", "2 in flight") }
    local held = p:try_acquire { input = 600 }
    assert.same({ 9, 400, 1 }, { p:available "requests", p:available "input", p:available "calls" })
    held:release()
    assert.equal(2, p:available "calls")
    assert.equal(true, try(p, 3))                          -- a number is of the first
    assert.equal(6, p:available "requests")
    assert.equal("rate 0.001", try(p, { input = 400 }))
    refused("unknown limit 'inptu' (did you mean 'input'?)", p.try_acquire, p, { inptu = 1 })
    refused("only acquire waits", p.try_acquire, p, { timeout = 1 })
    refused("a table expected", p.try_acquire, p, "input")
  end)

  it("keeps a limit for each key of a scope that is named", function ()
    local p = open { limits = limits("requests", "100/s"),
      per = { { by = { "tenant" },
        limits = limits("requests", "1/s burst 2", "exports", "1/h") } } }
    assert.equal(true, try(p, { tenant = "a" }))
    assert.equal(true, try(p, { tenant = "a" }))
    assert.equal("rate 1", try(p, { tenant = "a" }))
    assert.equal("tenant.requests", p:why({ tenant = "a" }).limiter)
    assert.equal(true, try(p, { tenant = "b" }))
    assert.equal(true, try(p))                             -- nobody's
    assert.equal(true, try(p, { tenant = "b", exports = 1 }))
    assert.equal("cost", try(p, { tenant = "c", exports = 2 }))
    assert.equal("rate 3600", try(p, { tenant = "b", exports = 1, requests = 0 }))
    assert.equal(95, p:available "requests")               -- who was refused was not charged
    assert.equal(2, p:available("requests", { tenant = "d" }))
    assert.equal(0, p:available("requests", { tenant = "b" }))
    refused("unknown limit 'tennant' (did you mean 'tenant'?)", p.try_acquire, p, { tennant = 1 })
  end)

  it("takes several names as one key, when all are named", function ()
    local p = open { limits = limits("requests", "100/s"), per = {
      { by = { "tenant" }, limits = limits("requests", "10/s") },
      { by = { "tenant", "route" }, limits = limits("requests", "1/s") } } }
    assert.equal(true, try(p, { tenant = "a", route = "bc" }))
    assert.equal(true, try(p, { tenant = "ab", route = "c" }))
    assert.equal(true, try(p, { tenant = "a", route = "x" }))
    assert.equal("rate 1", try(p, { tenant = "a", route = "bc" }))
    assert.equal("tenant, route.requests", p:why({ tenant = "a", route = "bc" }).limiter)
    assert.equal(true, try(p, { tenant = "a" }))
    assert.equal(true, try(p, { route = "bc" }))           -- has no part in either
    assert.equal(true, try(p, { tenant = 1, route = 2 }))
    assert.equal(true, try(p, { tenant = "1", route = "2" }))   -- another
  end)

  it("gives some keys limits of their own", function ()
    local p = open { limits = limits("requests", "100/s"), per = { { by = { "tenant" },
      limits = limits("requests", "1/s", "calls", "unlimited"), override = {
        { name = "big", limits = limits("requests", "5/s") },
        { name = "bad", limits = limits("calls", "1 in flight") } } } } }
    assert.equal(5, p:available("requests", { tenant = "big" }))
    assert.equal(1, p:available("requests", { tenant = "bad" }))
    assert.equal(true, try(p, { tenant = "big", calls = 1000 }))
    local held = p:acquire { tenant = "bad", calls = 1 }
    assert.equal("busy", (select(2, p:try_acquire { tenant = "bad", calls = 1, requests = 0 })))
    held:release()
    assert.equal(true, try(p, { tenant = "bad", calls = 1, requests = 0 }))
  end)

  it("turns new keys away when all that there may be have something spent", function ()
    local p = open { limits = limits("requests", "1M/s"), per = { { by = { "tenant" },
      limits = limits("requests", "1/h burst 2"), keep = { keys = 3 } } } }
    for i = 1, 3 do assert.equal(true, try(p, { tenant = "t" .. i })) end
    local _, why = p:try_acquire { tenant = "t4" }
    assert.equal("full", why)
    for i = 1, 3 do
      assert.equal(1, p:available("requests", { tenant = "t" .. i }))
    end
    rt.sleep "1h"                                          -- time has refilled them
    assert.equal(true, try(p, { tenant = "t4" }))
  end)

  it("charges 1 of what scopes alone have, when it has no limits and is told nothing", function ()
    local p = open { per = { { by = { "player" },
      limits = limits("move", "2/s", "chat", "1/s") } } }
    assert.equal(true, try(p, { player = 7 }))
    assert.equal(1, p:available("move", { player = 7 }))
    assert.equal(0, p:available("chat", { player = 7 }))
    assert.equal(true, try(p, { player = 7, move = 1 }))
    assert.equal(0, p:available("move", { player = 7 }))
  end)

  it("asks its estimate what a call costs that does not say", function ()
    local lines = {}
    local p = open({ limits = limits("requests", "100/s", "input", "1000/s"),
      estimate = { line = 7, file = "llm.lua", fn = function (call)
        if call.boom then error "boom" end
        if call.wrong then return { inptu = 1 } end
        return { input = (call.bytes or 0) / 4 }
      end } }, { log = function (text) lines[#lines + 1] = text end })
    assert.equal(true, try(p, { bytes = 401 }))
    assert.same({ 99, 899 }, { p:available "requests", p:available "input" })   -- rounded up
    assert.equal(true, try(p, { bytes = 400, input = 9 }))                      -- told
    assert.equal(890, p:available "input")
    refused("unknown limit 'byets', and estimate does not look at it", p.try_acquire, p,
      { byets = 4 })
    assert.equal(true, try(p, { boom = true }))
    assert.equal(889, p:available "input")
    assert.equal(true, try(p, { wrong = true }))
    assert.equal(2, #lines)
    assert.truthy(lines[1]:find("llm.lua:7: estimate of policy 'api': ", 1, true), lines[1])
    assert.truthy(lines[1]:find("boom", 1, true))
    assert.truthy(lines[2]:find("inptu = 1 is no cost of this policy", 1, true))
    assert.equal("fault fault", events())
  end)

  it("opens its breaker by what is told, lets a probe out, and tells of all that", function ()
    local heard = {}
    local p = open { limits = limits("requests", "100/s"),
      breaker = { trip = { kind = "consecutive", count = 2 }, cooldown_ns = 5e9, probes = 1 },
      on = { open = { fn = function (e) heard = e end, line = 9 } } }
    for _ = 1, 2 do p:try_acquire():give(p:report { status = 500 }) end
    assert.equal("open 5", try(p))
    assert.same({ "api", "open", 2, 2 }, { heard.policy, heard.event, heard.failed, heard.seen })
    assert.equal(6000000000LL, p:next_change())
    rt.sleep(5)
    local probe = p:try_acquire()
    assert.truthy(probe)
    assert.equal("open", (select(2, p:try_acquire())))
    probe:give(p:report { status = 404 })                  -- it answers
    assert.equal(true, try(p))
    assert.equal("open half-open close", events())
  end)

  it("opens when a share of calls fails", function ()
    local p = open { limits = limits("requests", "100/s"),
      breaker = { trip = { kind = "share", share = 0.5, of = 4 }, cooldown_ns = 1e9, probes = 2 } }
    for i = 1, 3 do p:try_acquire():give(i < 3 and "success" or "failure") end
    assert.equal(true, try(p))
    p:try_acquire():give "failure"
    assert.equal("open 1", try(p))
    p = open { limits = limits("requests", "100/s"), breaker = { cooldown_ns = 1e9, probes = 1,
      trip = { kind = "share", share = 0.5, of = 2, in_ns = 1e9 } } }
    p:try_acquire():give "failure"
    rt.sleep(2)
    p:try_acquire():give "failure"                         -- the first one is forgotten
    assert.equal(true, try(p))
    p:try_acquire():give "failure"
    assert.equal("open 1", try(p))
  end)

  it("judges a status by what it declares", function ()
    local plain = open { limits = limits("requests", "1/s"), backoff = { on = { 429, 503 } } }
    local listed = open { limits = limits("requests", "1/s"), backoff = { on = { 429 } },
      breaker = { trip = { kind = "consecutive", count = 2 }, on = { 404, 503 } } }
    local moving = open { limits = limits("calls", "9 in flight"), backoff = { on = { 429 } },
      adaptive = { { name = "calls", notation = { kind = "aimd", from = 2, to = 5 } } } }
    for status, want in pairs {
      [200] = "success success success", [404] = "success failure success",
      [429] = "ignore ignore failure", [500] = "failure success failure",
      [503] = "failure failure failure" } do
      assert.equal(want, table.concat({ plain:outcome_of(status), listed:outcome_of(status),
        moving:outcome_of(status) }, " "), status)
    end
    assert.equal("success", plain:outcome_of(nil))
  end)

  it("lets nobody in for as long as a server says, or for its window", function ()
    local p = open { limits = limits("requests", "100/s"),
      backoff = { on = { 429 }, window_ns = 2e9, from = { "retry-after", "x-reset" } } }
    assert.equal("success", p:report { status = 200, headers = { ["Retry-After"] = "9" } })
    assert.equal(true, try(p))
    p:report { status = 429 }
    assert.equal("pause 2", try(p))
    p:report { status = 429, headers = { ["Retry-After"] = "1" } }
    assert.equal("pause 2", try(p))                        -- never shortened
    p:report { status = 429, headers = { { "X-Reset", "6.5s" }, { "retry-after", "3" } } }
    assert.equal("pause 6.5", try(p))
    assert.same({ 6.5, 6.5 }, { p:backoff_left() })
    rt.sleep(6.5)
    assert.equal(true, try(p))
    assert.equal("backoff backoff backoff backoff-end", events())
    p:report { retry_after = "5" }                         -- said without a status
    assert.equal("pause 5", try(p))
    p:clear_backoff()
    assert.equal(true, try(p))
  end)

  it("reads waits as servers write them, and believes no more than a day", function ()
    local p = open { limits = limits("requests", "100/s"),
      backoff = { on = { 429 }, window_ns = 1e9, from = { "retry-after-ms", "reset" } } }
    p.wall = function () return 1800000000 end
    for text, want in pairs { ["30"] = 30, ["1m30s"] = 90, ["1800000040"] = 40,
      ["1800000050000"] = 50, ["2027-01-15T08:01:00Z"] = 60, ["gibberish"] = 1,
      ["99999999"] = 86400, ["Fri, 15 Jan 2027 08:00:10 GMT"] = 10 } do
      p:report { status = 429, headers = { reset = text } }
      assert.equal(want, (p:backoff_left()), text)
      p:clear_backoff()
    end
    p:report { status = 429, headers = { ["retry-after-ms"] = "2500" } }
    assert.equal(2.5, (p:backoff_left()))
  end)

  it("throttles and penalises calls while it backs off", function ()
    local p = open { limits = limits("calls", "8 in flight", "upload", "100 in flight"),
      backoff = { on = { 429 }, window_ns = 2e9, throttled = limits("calls", "1 in flight"),
        penalty = { { name = "upload", count = 20 } } } }
    local one = p:try_acquire { upload = 10 }
    p:report { status = 429 }                              -- it did not say how long
    local two = p:try_acquire { upload = 4 }
    assert.truthy(two)
    assert.equal(0, p:available "upload")                  -- 4 counted 80: 10 are left, of 20 each
    assert.equal("busy", (select(2, p:try_acquire { upload = 0 })))
    assert.equal("backoff.calls", p:why({ upload = 0 }).limiter)
    rt.sleep(2)
    local three = p:try_acquire { upload = 10 }
    assert.truthy(three)
    for _, held in ipairs { one, two, three } do held:release() end
    assert.same({ 100, 8 }, { p:available "upload", p:available "calls" })
    p:report { status = 429, retry_after = 3 }
    assert.equal("pause 3", try(p))
    rt.sleep(4)
    assert.equal(5, p:available "upload")
    assert.equal(1, (p:backoff_left()))                    -- throttled for the window after that
  end)

  it("moves a limit that adapts, and tells", function ()
    local p = open { limits = limits("calls", "9 in flight"),
      adaptive = { { name = "calls", notation = { kind = "aimd", from = 2, to = 50 } } } }
    assert.equal(2, p:available "calls")
    local a, b = p:try_acquire(), p:try_acquire()
    assert.equal("busy", try(p))
    a:release()
    b:release()
    assert.truthy(p:available "calls" >= 3)
    assert.truthy(events():find "limit")
    assert.equal("calls", told[1][2].limit)
    for _ = 1, 100 do
      local held = {}
      repeat held[#held + 1] = p:try_acquire() until not p:peek()
      for _, one in ipairs(held) do one:release() end
    end
    assert.equal(9, p:available "calls")                   -- no more than the limit says
  end)

  it("has a queue with priorities, turns, a time and an overflow", function ()
    local p = open { limits = limits("requests", "1/s burst 1"), queue = { max = 3,
      timeout_ns = 60e9, fair = "tenant", priority = { "interactive", "batch" },
      overflow = "drop lowest" } }
    p:try_acquire()
    local order = {}
    local function call(name, given)
      neap.spawn(function ()
        local held, why = p:acquire(given)
        order[#order + 1] = name .. (held and "" or " " .. why)
      end)
    end
    neap.run(function ()
      call("a1", { tenant = "a" })
      call("a2", { tenant = "a", priority = "batch" })
      call("b1", { tenant = "b" })
      neap.sleep(0.1)
      call("a3", { tenant = "a" })                         -- no place, and nobody is lower
      call("c1", { priority = "interactive" })             -- the newest of the lowest has to go
      neap.sleep(0.1)
      neap.sleep(10)
    end)
    assert.equal("a3 queue b1 queue c1 a1 a2", table.concat(order, " "))
    refused("unknown priority 'bach' (did you mean 'batch'?)", p.acquire, p, { priority = "bach" })
  end)

  it("keeps nobody waiting for what another key has used up", function ()
    local p = open { limits = limits("requests", "10/s burst 1"), queue = { max = 2 },
      per = { { by = { "tenant" }, limits = limits("requests", "1/min burst 1") } } }
    neap.run(function ()
      assert.truthy(p:acquire { tenant = "a" })
      local went = {}
      for i = 1, 3 do
        neap.spawn(function ()
          local held, why = p:acquire { tenant = "a" }
          went[#went + 1] = "a" .. i .. (held and "" or " " .. why) .. " " .. neap.now() - 1
        end)
      end
      neap.sleep(0)
      for _, name in ipairs { "b", "c" } do
        neap.spawn(function ()
          assert.truthy(p:acquire { tenant = name })
          went[#went + 1] = ("%s %g"):format(name, neap.now() - 1)
        end)
      end
      neap.sleep(200)
      assert.same({ "a3 queue 0", "b 0.1", "c 0.2", "a1 60", "a2 120" }, went)
      assert.equal(0, p.aside)
    end)
  end)

  it("waits no longer than its queue lets anybody", function ()
    local p = open { limits = limits("requests", "1/h burst 1"), queue = { max = 3,
      timeout_ns = 5e9 } }
    p:try_acquire()
    neap.run(function ()
      local _, why = p:acquire()
      assert.equal("timeout", why)
      _, why = p:acquire { timeout = "2h" }
      assert.equal("timeout", why)
    end)
  end)

  it("sheds all but those it keeps when the queue is fuller than it says", function ()
    local p = open { limits = limits("requests", "1/s burst 1"), queue = { max = 4,
      priority = { "high", "low" } }, shed = { when = { what = "queue", share = 0.5 },
      keep = { priority = "high" } } }
    neap.run(function ()
      for i = 1, 4 do
        neap.spawn(function () assert.truthy(p:acquire(), "waiter " .. i) end)
      end
      neap.sleep(0.1)
      local held, why = p:acquire { timeout = "9s" }
      assert.same({ nil, "queue" }, { held, why })
      assert.truthy(p:acquire { priority = "high", timeout = "9s" })
    end)
    assert.equal("shed", events())
  end)

  it("catches and tells of a hook that fails", function ()
    local lines = {}
    local p = open({ limits = limits("requests", "1/s"),
      backoff = { on = { 429 }, window_ns = 1e9 },
      on = { backoff = { fn = function () error "no" end, line = 12 } } },
      { file = "p.lua", log = function (text) lines[#lines + 1] = text end })
    assert.equal("ignore", p:report { status = 429 })
    assert.truthy(lines[1]:find("^neap: p.lua:12: on.backoff of policy 'api': .*no$"), lines[1])
    assert.equal("backoff fault", events())
  end)

  it("calls its hooks by what it is given", function ()
    local called = {}
    local p = open({ limits = limits("requests", "1/s"),
      backoff = { on = { 429 }, window_ns = 1e9 },
      estimate = { fn = function () return 1 end, line = 1 },
      on = { backoff = { fn = function () end, line = 12 } } },
      { guard = function (policy, hook, fn)
        return function (...)
          called[#called + 1] = policy .. " " .. hook
          return pcall(fn, ...)
        end
      end })
    p:try_acquire()
    p:report { status = 429 }
    assert.same({ "api estimate", "api on.backoff" }, called)
  end)

  it("asks everything of every call also where limits need all costs", function ()
    local p = open { limits = limits("a", "9/s", "b", "9/s", "c", "9/s", "d", "9/s", "e", "9/s",
      "f", "9/s", "g", "9/s", "h", "9/s"), backoff = { on = { 429 }, window_ns = 1e9 },
      breaker = { trip = { kind = "consecutive", count = 1 }, cooldown_ns = 5e9, probes = 1 } }
    assert.equal(true, try(p, { a = 2 }))
    p:try_acquire():give "failure"
    assert.equal("open 5", try(p, { a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 1 }))
  end)

  it("refuses what the engine cannot hold to, as an answer", function ()
    local none, why = live.new(declared.policy { limits = limits("priority", "1/s") })
    assert.is_nil(none)
    assert.truthy(why:find("policy 'api': limits.priority", 1, true), why)
    local scopes = {}
    for i = 1, 5 do scopes[i] = { by = { "s" .. i }, limits = limits("x", "1/s") } end
    none, why = live.new(declared.policy { per = scopes })
    assert.is_nil(none)
    assert.truthy(why:find("per: 5 scopes, at most 4", 1, true), why)
    none, why = live.new(declared.policy { limits = limits("x", "1/s"),
      per = { { by = { "x" }, limits = limits("y", "1/s") } } })
    assert.is_nil(none)
    assert.truthy(why:find("'x' is the name of a limit, too", 1, true), why)
    none, why = live.new(declared.policy { limits = limits("x", "1/s"),
      adaptive = { { name = "x", notation = { kind = "aimd", from = 1, to = 2 } } } })
    assert.is_nil(none)
    assert.truthy(why:find("cannot adapt", 1, true), why)
  end)

  it("plays in a game server's frames, from a file", function ()
    rt = require "neap.runtime.host".new { now = 0 }
    neap.runtime.use(rt)
    local policies = assert(neap.policy.open "examples/policies/game.lua")
    local world, hook = policies.world, policies["discord-webhook"]
    local moved, traded, posted = 0, 0, {}
    for _ = 1, 4 do
      neap.spawn(function ()
        if hook:with({ timeout = "10s" }, function () neap.sleep(1) end) == nil then
          posted[#posted + 1] = neap.now()
        end
      end)
    end
    for frame = 1, 600 do                                  -- ten seconds
      rt.tick(frame * 16666667)
      for player = 1, 3 do
        if world:try_acquire { player = player, move = 1 } then moved = moved + 1 end
        if frame % 60 == 0 and world:try_acquire { player = player, trade = 1 } then
          traded = traded + 1
        end
      end
    end
    assert.equal(3 * (6 + 199), moved)                     -- 20/s burst 6; the first at 16 ms
    assert.equal(3 * (2 + 1), traded)                      -- 12/min burst 2, asked each second
    assert.same({ 1, 2, 3, 4 }, { math.floor(posted[1]), math.floor(posted[2]),
      math.floor(posted[3]), math.floor(posted[4]) })      -- one in flight
    assert.equal("player.move", world:why { player = 1, move = 6 }.limiter)
    assert.equal("zone.actions", world:why { zone = 5, actions = 4001 }.limiter)
  end)

  it("opens all policies of a tree by name, counts as one, and closes", function ()
    local all = assert(live.open(declared.tree({ name = "one", limits = limits("r", "1/s") },
      { name = "two", limits = limits("r", "1/s"), per = {
        { by = { "k" }, limits = limits("r", "1/s") } } })))
    assert.equal(true, try(all.one))
    try(all.two, { k = "a" })
    try(all.two)
    assert.equal(1LL, all.two.counts.granted)
    assert.equal(1LL, all.two.counts.refused[0])
    assert.equal("one", tostring(all.one))
    all.two:close()
    assert.equal("closed", try(all.two, { k = "b" }))
    assert.equal("closed", try(all.two))
    assert.equal(7, all.one:with({ r = 0 }, function () return 7 end))
    refused("a path, or what neap.policy.load gave", live.open, 7)
  end)
end)
