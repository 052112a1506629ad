local in_virtual_time = require "spec.in_virtual_time"
local neap = require "neap"
local published = require "spec.published.ratelimit_draft"
local formats = require "neap.provider.formats"
local provider = require "neap.provider"

local openai, ietf = provider "openai", provider "ietf"

local rt
local function begin(new) rt = new end
local function pass(seconds) rt.advance_to(rt.now_ns() + 1LL * seconds * 1e9) end

--- How many of so many calls go now.
local function go(l, count, cost)
  local granted = 0
  for _ = 1, count do
    if l:try_acquire(cost) then granted = granted + 1 end
  end
  return granted
end

local function seen(remaining, reset_s, retry_after_s)
  return { requests = { remaining = remaining, reset_s = reset_s }, retry_after_s = retry_after_s }
end

describe("a provider's headers", function ()
  it("are read by a profile of one's own", function ()
    local own = provider {
      requests = { remaining = "X-Left", reset = "X-Again", reset_format = "milliseconds" },
      retry_after = "X-Wait",
    }
    assert.same({ requests = { remaining = 3, reset_s = 1.5 }, retry_after_s = 2 },
      own:parse({ ["x-left"] = "3", ["x-again"] = "1500", ["x-wait"] = "2" }, 0))
    assert.same({}, own:parse({}, 0))
    assert.same({}, own:parse(nil, 0))
    assert.same({ retry_after_s = 7 }, own:parse({ ["retry-after"] = "7" }, 0))
  end)

  it("are read in every format", function ()
    for _, row in ipairs {
      { "seconds", "30", 30 }, { "seconds", "1.5" }, { "milliseconds", "1500", 1.5 },
      { "duration", "7.66s", 7.66 }, { "duration", "1m26.4s", 86.4 }, { "duration", "20ms", 0.02 },
      { "duration", "1h2m3s4ms", 3723.004 }, { "duration", "3s1m", 63 }, { "duration", "1.5", 1.5 },
      { "duration", "1.s" }, { "duration", ".5s" }, { "duration", "1s 1s" }, { "duration", "5x" },
      { "duration", "18446744073709551616s" }, { "duration", "18446744073709551616" },
      { "unix", "1005", 5 }, { "unix", "995", 0 }, { "unix", "-5", 0 }, { "unix", "1e3" },
      { "unix_ms", "1005500", 5.5 }, { "rfc3339", "1970-01-01T00:17:00Z", 20 },
      { "rfc3339", "1970-01-01T00:00:00Z", 0 }, { "rfc3339", "soon" },
      { "http_date", "Thu, 01 Jan 1970 00:17:00 GMT", 20 }, { "http_date", "" },
    } do
      local got = formats[row[1]](row[2], 1000)
      local near = got == row[3] or got and row[3] and math.abs(got - row[3]) < 1e-9
      assert.is_true(near, ("%s %s: %s"):format(row[1], row[2], tostring(got)))
    end
  end)

  for _, case in ipairs(published) do
    it("are read as the draft's examples say: " .. case.why, function ()
      local fields = {}
      fields["RateLimit-Policy"], fields.RateLimit = case.policy, case.limit
      fields["Retry-After"] = case.retry_after
      local got = ietf:parse(fields, case.now or 0)
      assert.equal(case.retry_after_s, got.retry_after_s)
      got.retry_after_s = nil
      local shape = {}
      for name, w in pairs(got) do shape[name] = { w.remaining, w.limit, w.reset_s } end
      assert.same(case.windows, shape)
      for name, key in pairs(case.partition or {}) do assert.equal(key, got[name].partition) end
    end)
  end

  it("of the draft come with problems that a classifier tells apart", function ()
    local classify, outcome = neap.classify, neap.retry.outcome
    local says = classify.all {
      function (one)
        return one.value.body:find("abnormal-usage", 1, true) and "stop" or "retry"
      end,
      classify.http { method = "GET" },
    }
    local verdicts = {}
    for i, problem in ipairs(published.problems) do
      assert.truthy(problem.body:find(problem.type, 1, true))
      local answer = { status = problem.status, body = problem.body, headers = {} }
      assert.is_true(neap.headers.should_retry(answer))
      verdicts[i] = says(outcome(answer))
    end
    assert.same({ "retry", "retry", "stop" }, verdicts)
  end)

  it("of the draft are ignored where they are not what it wants, or old", function ()
    local function names(policy, limit, age)
      local found = {}
      local got = ietf:parse({ ["RateLimit-Policy"] = policy, RateLimit = limit, Age = age }, 0)
      for name in pairs(got) do found[#found + 1] = name end
      table.sort(found)
      return table.concat(found, " ")
    end
    assert.equal("a requests", names '"a";q=0;w=1;qu="request";pk=::;x=?0')
    assert.equal("", names '"a";q=1;w=0, "b";q=1;w=1.0, "c";q=1;qu=requests, "d";q=1;pk="x"')
    assert.equal("", names '"a";w=1, "b";q="1", "c";q=-1')
    assert.equal("a requests", names(nil, '"a";r=0;t=0;pk=:eA==:;q=x, "b";r=1;pk=x, "c";r="1"'))
    assert.equal("a requests", names('"a";q=1', '"a";r=1', "0"))
    assert.equal("a requests", names('"a";q=1', '"a";r=1', "soon"))
    assert.equal("", names('"a";q=1', '"a";r=1', "3"))
  end)

  it("of the draft keep what else a policy says", function ()
    local got = ietf:parse({ ["ratelimit-policy"] = '"a";q=5;w=60;qu="tokens";pk=:aGVsbG8=:' }, 0)
    assert.same({ limit = 5, window_s = 60, unit = "tokens", partition = "hello" }, got.a)
    assert.equal(got.a, got.tokens)
    assert.same({}, ietf:parse({ RateLimit = '"a";r=5, "b";r=1,' }, 0))
    local some = ietf:parse({ RateLimit = '"a";r=-1, "b";r=1.5, "c";t=5, d;r=1, "e";r=1;t=x' }, 0)
    assert.same({}, some)
    assert.equal(2, ietf:parse({ RateLimit = '"a";r=5;t=1, "a";r=2;t=9' }, 0).a.remaining)
  end)

  it("cannot be what they are not", function ()
    local function refused(profile, message)
      assert.has_error(function () provider(profile) end, message)
    end
    refused("opena", "provider: no profile 'opena': there are anthropic, aws, github, ietf, "
      .. "openai, rfc, stripe (did you mean 'openai'?)")
    refused(5, "provider: a name or a table of dimensions expected, got 5")
    refused({ requests = "X" },
      'provider: requests: names of headers expected, as in { remaining = "X-Left" }, got X')
    refused({ requests = { remaning = "X" } },
      "provider: requests: option 'remaning' is not known (did you mean 'remaining'?)")
    refused({ requests = { remaining = 5 } },
      "provider: requests: remaining: a text expected, got 5")
    refused({ requests = { reset = "X", reset_format = "second" } },
      "provider: requests: unknown format second: there are duration, http_date, milliseconds, "
      .. "rfc3339, seconds, unix, unix_ms (did you mean 'seconds'?)")
    refused({ retry_after_s = {} }, "provider: a dimension cannot be called retry_after_s")
    refused({ retry_after = 5 }, "provider: retry_after: a text expected, got 5")
    refused({ structured = 5 }, "provider: structured: true expected")
    refused({ { remaining = "X" } }, "provider: dimensions have names, got 1")
  end)
end)

describe("a limiter that goes by them", function ()
  in_virtual_time(begin)

  it("is down at once, held until the reset, and then has all that flowed in", function ()
    local l = neap.throttle "100/s"
    assert.same({ requests = 90 }, openai:apply(l, seen(10, 30)))
    assert.equal(10, l:available())
    assert.equal(10, go(l, 20))
    pass(29)
    local permit, why, wait_s = l:try_acquire()
    assert.same({ nil, "rate", 1 }, { permit, why, wait_s })
    pass(1)
    assert.equal(100, go(l, 200))
  end)

  it("has no more at the reset than its own rate brought", function ()
    local l = neap.throttle "60/min"
    openai:apply(l, seen(0, 5))
    pass(5)
    assert.equal(5, go(l, 60))
  end)

  it("goes up as far as both say", function ()
    local l = neap.throttle "60/min"
    openai:apply(l, seen(10, 50))
    assert.equal(10, go(l, 60))
    pass(20)
    openai:apply(l, seen(15, 45))     -- 20 came by its own rate
    assert.equal(15, l:available())
    assert.equal(15, go(l, 60))
    pass(3)
    openai:apply(l, seen(1000, 42))   -- 3 more came, on top of the 5 that were held back as drained
    assert.equal(3, l:available())
  end)

  it("is not above its own limit, whatever the server says", function ()
    local l = neap.throttle "10/min"
    assert.same({ requests = 0 }, openai:apply(l, seen(1e9, 1)))
    assert.equal(10, go(l, 100))
  end)

  it("lets those in line go at the reset, in order and no sooner", function ()
    local l = neap.throttle "10/s"
    openai:apply(l, seen(1, 30))
    local at = {}
    for i = 1, 14 do
      rt.spawn(function ()
        assert(l:acquire())
        at[#at + 1] = { i, rt.now() }
      end)
    end
    rt.advance_to(60000000000LL)
    assert.equal(14, #at)
    assert.same({ 1, 0 }, at[1])
    for i = 2, 11 do assert.same({ i, 30 }, at[i]) end     -- the burst, and not one more
    for i = 12, 14 do
      assert.equal(i, at[i][1])
      assert.is_true(math.abs(at[i][2] - 30 - (i - 11) / 10) < 1e-6)
    end
  end)

  it("that lets somebody wait is held from then on, too", function ()
    local l = neap.throttle "1/s burst 1"
    assert.equal(1, go(l, 2))
    local at
    rt.spawn(function ()
      assert(l:acquire())
      at = rt.now()
    end)
    rt.advance_to(500000000LL)
    openai:apply(l, seen(0, 10))
    rt.advance_to(20000000000LL)
    assert.equal(10.5, at)
  end)

  it("goes up for those in line, too", function ()
    local l = neap.throttle "60/min"
    openai:apply(l, seen(0, 50))
    local at
    rt.spawn(function ()
      assert(l:acquire())
      at = rt.now()
    end)
    pass(20)
    openai:apply(l, seen(5, 40))
    rt.advance_to(rt.now_ns())
    assert.equal(20, at)
  end)

  it("may slide", function ()
    local l = neap.throttle "10/10s sliding"
    assert.equal(4, go(l, 4))
    assert.same({ requests = 3 }, openai:apply(l, seen(3, 25)))
    assert.equal(3, go(l, 10))
    pass(24)
    assert.equal(0, go(l, 1))
    pass(1)
    assert.equal(10, go(l, 20))
  end)

  it("may have names, of which each goes by its own", function ()
    local l = neap.multi { requests = "500/min", tokens = "30k/min sliding", images = "5/min" }
    local drained = openai:sync(l, {
      ["x-ratelimit-remaining-requests"] = "2", ["x-ratelimit-reset-requests"] = "1m26.4s",
      ["x-ratelimit-remaining-tokens"] = "1000", ["x-ratelimit-reset-tokens"] = "20ms",
    }, { now = 0 })
    assert.same({ requests = 498, tokens = 29000 }, drained)
    assert.equal(2, l:available "requests")
    assert.equal(1000, l:available "tokens")
    assert.equal(5, l:available "images")
    pass(86)
    assert.equal(2, l:available "requests")
    assert.equal(30000, l:available "tokens")
    pass(1)
    assert.equal(500, l:available "requests")
  end)

  it("may call its dimensions otherwise, and be layered", function ()
    local l = neap.layered { global = neap.multi { calls = "100/min" }, user = "10/min" }
    openai:apply(l, seen(7, 60), { names = { requests = "calls" } })
    assert.equal(7, l:available "calls")
    assert.same({}, openai:apply(l, { nothing = { remaining = 1 } }))
  end)

  it("charged by several names goes by the strictest of them", function ()
    local shared = neap.throttle "100/min"
    local l = neap.multi { { "a", shared }, { "b", shared } }
    openai:apply(l, { a = { remaining = 50, reset_s = 1 }, b = { remaining = 3, reset_s = 60 } })
    assert.equal(3, shared:available())
    pass(59)
    assert.equal(3, shared:available())
  end)

  it("waits for Retry-After, by its pause if it has one, and drained if not", function ()
    local plain, paused = neap.throttle "60/min", neap.hybrid { "60/min", neap.pause() }
    for _, l in ipairs { plain, paused } do openai:apply(l, seen(15, 40, 20)) end
    pass(19)
    assert.equal(0, go(plain, 1) + go(paused, 1))
    pass(1)
    assert.equal(20, go(plain, 60))
    assert.equal(35, go(paused, 60))   -- 15, and what flowed in
    local multi = neap.multi { requests = "60/min", tokens = "600/min" }
    provider "aws":sync(multi, { ["Retry-After"] = "10" }, { now = 0 })
    pass(9)
    assert.equal(0, go(multi, 1, { tokens = 1 }))
    pass(1)
    assert.equal(1, go(multi, 1, { tokens = 100 }))
  end)

  it("is not held longer than a day, unless told", function ()
    local l = neap.throttle "1/s"
    openai:apply(l, seen(0, 1e18))
    pass(86399)
    assert.equal(0, go(l, 1))
    pass(1)
    assert.equal(1, go(l, 1))
    openai:apply(l, seen(0, 1e18, 1e18), { most = 5 })
    pass(5)
    assert.equal(1, go(l, 1))
    openai:apply(l, seen(0, math.huge), { most = math.huge })
    local _, why, wait_s = l:peek()
    assert.equal("rate", why)
    assert.is_true(wait_s > 1e9)
  end)

  it("is not changed by what was not told, in flight or closed", function ()
    local l = neap.throttle "5/s"
    openai:apply(l, { requests = { limit = 3, reset_s = 5 }, tokens = { remaining = 0 } })
    assert.equal(5, l:available())
    assert.same({}, openai:apply(neap.semaphore(5), seen(0, 5)))
    assert.same({}, openai:apply(neap.throttle "closed", seen(9, 5)))
    assert.same({}, openai:apply(neap.throttle "unlimited", seen(9, 5, 5)))
  end)

  it("keeps its hold when it gets another rate", function ()
    local l = neap.throttle "60/min"
    openai:apply(l, seen(3, 30))
    l:reconfigure "120/min"
    assert.equal(63, l:available())   -- what was spent stays spent: 57
    pass(10)
    assert.equal(63, l:available())
    pass(20)
    assert.equal(120, l:available())
    openai:apply(l, seen(3, 30))
    pass(29)
    assert.equal(3, go(l, 5))
    pass(1)
    assert.equal(60, go(l, 120))
  end)

  it("is a limiter, and goes by what can be read", function ()
    assert.has_error(function () openai:sync({}, {}) end)
    local l = neap.throttle "5/s"
    assert.has_error(function () openai:apply(l, 5) end, "sync: what was read expected, got 5")
    assert.has_error(function () openai:apply(l, seen(-1)) end,
      "remaining: a number from 0 expected, got -1")
    assert.has_error(function () openai:apply(l, seen(0 / 0)) end)
    assert.has_error(function () openai:apply(l, seen(1, "x")) end,
      "reset_s: a number from 0 expected, got x")
    assert.has_error(function () openai:apply(l, seen(1), { most = -1 }) end,
      "most: a number from 0 expected, got -1")
    assert.equal(5, l:available())
  end)
end)

describe("a limit per key that goes by them", function ()
  in_virtual_time(begin)

  local function go_as(l, key, count)
    local granted = 0
    for _ = 1, count do
      if l:try_acquire(key) then granted = granted + 1 end
    end
    return granted
  end

  for what, limits in pairs {
    ["a rate"] = "100/s", ["a sliding limit"] = "100/s sliding",
    ["two limits"] = { "100/s", "50/s burst 100" },
    ["what a function makes"] = function () return neap.throttle "100/s" end,
  } do
    it("is held for the key that is named, and no other: " .. what, function ()
      local l = neap.per_key(limits)
      assert.same({ requests = 90 }, openai:apply(l, seen(10, 30), { key = "ann" }))
      assert.equal(10, l:available "ann")
      assert.equal(10, go_as(l, "ann", 20))
      assert.equal(100, go_as(l, "bob", 100))
      pass(29)
      assert.equal(0, go_as(l, "ann", 1))
      assert.equal(100, go_as(l, "bob", 100))
      pass(1)
      assert.equal(100, go_as(l, "ann", 100))
    end)
  end

  it("has limits of a key's own, which are held, too", function ()
    local l = neap.per_key("10/s", { overrides = { vip = "1000/s" } })
    assert.same({ requests = 993 }, openai:apply(l, seen(7, 5), { key = "vip" }))
    assert.equal(7, go_as(l, "vip", 10))
    local at
    rt.spawn(function ()
      assert(l:acquire("vip"))
      at = rt.now()
    end)
    pass(2)
    openai:apply(l, seen(7, 0), { key = "vip" })
    rt.advance_to(rt.now_ns())
    assert.equal(2, at)
  end)

  it("lets those in line for that key go at the reset, and others as ever", function ()
    local l = neap.per_key "10/s burst 1"
    local at = {}
    for _, key in ipairs { "ann", "bob" } do
      assert(l:try_acquire(key))
      rt.spawn(function ()
        assert(l:acquire(key))
        at[key] = rt.now()
      end)
    end
    rt.advance_to(50000000LL)
    openai:apply(l, seen(0, 3), { key = "ann" })
    rt.advance_to(10000000000LL)
    assert.same({ ann = 3.05, bob = 0.1 }, at)
  end)

  it("is meant alone where there is one, and limits for all where there is none", function ()
    local l = neap.layered {
      global = neap.multi { calls = "100/min" }, user = "10/min", endpoint = "20/min",
    }
    local function left(of) return l:available(nil, of) end
    openai:apply(l, { requests = { remaining = 2, reset_s = 60 },
      calls = { remaining = 70, reset_s = 60 } }, { key = { user = "ann" } })
    assert.equal(2, left { user = "ann", endpoint = "/" })
    assert.equal(10, left { user = "bob", endpoint = "/" })
    assert.equal(70, l:available "calls")
    openai:apply(l, seen(1, 60), { key = { user = "bob", endpoint = "/" } })
    assert.equal(1, left { user = "cy", endpoint = "/" })
    assert.equal(1, left { user = "bob", endpoint = "/x" })
    assert.equal(10, left { user = "cy", endpoint = "/x" })
    local other = neap.hybrid {
      calls = neap.hybrid { "100/min", neap.per_key("10/min", { by = "user" }) },
      tokens = neap.per_key("1000/min", { by = "org" }),
    }
    assert.same({ calls = 98 }, openai:apply(other, { calls = { remaining = 2, reset_s = 60 } },
      { key = { org = "neap" } }))
    local nothing_named = neap.layered { user = "10/min" }
    assert.same({}, openai:apply(nothing_named, seen(1, 60)))
    assert.equal(10, nothing_named:available(nil, { user = "ann" }))
  end)

  it("waits for a Retry-After that is about the key, and nobody else does", function ()
    local l = neap.hybrid { "1000/s", neap.pause(), neap.per_key "60/min" }
    local function can(key) return l:peek { key = key } == true end
    openai:sync(l, { ["retry-after"] = "20" }, { key = "ann" })
    assert.is_true(can "bob")
    pass(19)
    assert.is_false(can "ann")
    pass(1)
    assert.is_true(can "ann")
    openai:sync(l, { ["retry-after"] = "20" })
    assert.is_false(can "bob")
  end)

  it("holds as many keys as may be alive, and keeps its holds when the limit changes", function ()
    local l = neap.per_key("60/min", { most = 2 })
    for _, key in ipairs { "ann", "bob" } do
      assert.same({ requests = 57 }, openai:apply(l, seen(3, 30), { key = key }))
    end
    assert.same({}, openai:apply(l, seen(3, 30), { key = "cy" }))
    assert.equal(2, l:len())
    l:reconfigure "120/min"
    assert.equal(63, l:available "ann")
    pass(29)
    assert.equal(63, go_as(l, "ann", 100))
    pass(1)
    assert.equal(60, l:available "ann")
    l:forget "bob"
    assert.equal(120, l:available "bob")
  end)

  it("has keys, and knows which", function ()
    local l = neap.layered { user = "10/min", endpoint = "20/min" }
    local function refused(of, key, message)
      assert.has_error(function () openai:apply(of, seen(1), { key = key }) end, message)
    end
    refused(l, "ann", 'sync: key: keys by name expected, as in { endpoint = "…" }')
    refused(l, { usr = "ann" },
      "sync: key: no limit here is kept by 'usr' (did you mean 'user'?)")
    refused(l, { user = {} }, "user: a key expected, a text or a whole number, got table")
    refused(neap.throttle "1/s", "ann", "sync: key: no limit here is kept by key")
    assert.same({}, openai:apply(neap.per_key "5 in flight", seen(1, 9), { key = "ann" }))
  end)
end)
