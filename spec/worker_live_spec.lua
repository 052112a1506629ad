--- What a worker makes of policies with scopes, breakers, back-off and queues, over the wire.
local cjson = require "cjson"
local declared = require "spec.declared"
local wired = require "spec.wired"

local limits = declared.limits

describe("a worker", function ()
  local w, c, heard

  local function open(...)
    w = wired.open(declared.tree(...))
    c, heard = w:connect(), {}
    w.worker.events:listen(function (message)
      heard[#heard + 1] = message.channel:gsub("^neap:", "")
    end)
  end

  after_each(function () w:close() end)

  local function verdict(...) return w:verdict(c, ...) end

  it("charges the scopes that a call names, and says what bound", function ()
    open { limits = limits("requests", "100/s"), per = {
      { by = { "tenant" }, limits = limits("requests", "10/s burst 2"),
        override = { { name = "acme", limits = limits("requests", "10/s burst 5") } } },
      { by = { "tenant", "route" }, limits = limits("requests", "1/s burst 1") } } }
    local ask = { "NEAP.ACQUIRE", "api", "BY", "tenant", "42" }
    assert.equal("GRANTED - 0 -1 ", verdict(unpack(ask)))
    assert.equal("GRANTED - 0 -1 ", verdict(unpack(ask)))
    assert.equal("RETRY - 0 100 tenant.requests", verdict(unpack(ask)))
    assert.equal("GRANTED - 0 -1 ", verdict("NEAP.ACQUIRE", "api", "BY", "tenant", "acme",
      "COST", "5"))
    assert.equal("NEVER - 0 -1 tenant.requests", verdict("NEAP.ACQUIRE", "api", "BY", "tenant",
      "43", "COST", "requests", "3"))
    ask = { "NEAP.ACQUIRE", "api", "BY", "route", "r", "BY", "tenant", "7" }
    assert.equal("GRANTED - 0 -1 ", verdict(unpack(ask)))
    assert.equal("RETRY - 0 1000 tenant, route.requests", verdict(unpack(ask)))
    assert.equal("GRANTED - 0 -1 ", verdict("NEAP.ACQUIRE", "api", "BY", "route", "r"))
    assert.equal("ERR unknown scope 'tenat' in policy 'api' (did you mean 'tenant'?)",
      verdict("NEAP.ACQUIRE", "api", "BY", "tenat", "1"))
    assert.equal("ERR BY tenant is said twice",
      verdict("NEAP.ACQUIRE", "api", "BY", "tenant", "1", "BY", "tenant", "2"))
    assert.equal("ERR BY tenant needs a key of up to 1024 bytes",
      verdict("NEAP.ACQUIRE", "api", "BY", "tenant"))
    assert.equal("ERR BY tenant needs a key of up to 1024 bytes",
      verdict("NEAP.ACQUIRE", "api", "BY", "tenant", ("x"):rep(1025)))
    assert.equal("ERR there is no queue, and so there are no priorities",
      verdict("NEAP.ACQUIRE", "api", "PRIO", "1"))
  end)

  it("lets a tenant wait in its own line, and keeps what is in flight for it", function ()
    open { limits = limits("calls", "9 in flight"), per = {
      { by = { "tenant" }, limits = limits("calls", "1 in flight") } } }
    local one = w:lease(c, "NEAP.ACQUIRE", "api", "BY", "tenant", "a")
    local d = w:connect()
    w:send(d, "NEAP.ACQUIRE", "api", "BY", "tenant", "a", "BLOCK", "1000")
    assert.is_nil(w:receive(d))
    local two = w:lease(c, "NEAP.ACQUIRE", "api", "BY", "tenant", "b")
    assert.equal("RETRY - 0 0 tenant.calls", verdict("NEAP.ACQUIRE", "api", "BY", "tenant", "b"))
    w:pass(50)
    assert.equal(1, w:ask(c, "NEAP.RELEASE", one))
    assert.equal("GRANTED lease 50 -1 ", w.said(w:receive(d)))
    assert.equal(1, w:ask(c, "NEAP.RELEASE", two))
    local map = w.map(w:ask(c, "NEAP.SNAPSHOT", "api", "BY", "tenant", "a"))
    assert.same({ { name = "tenant.calls", limit = "1 in flight", available = 0, capacity = 1 } },
      map.by)
    assert.equal(8, map.limits[1].available)
  end)

  it("turns new keys away when all that there may be are in use", function ()
    open { limits = limits("requests", "100/s"), per = { { by = { "k" },
      limits = limits("requests", "1/min burst 1"), keep = { keys = 2 } } } }
    for i = 1, 2 do
      assert.equal("GRANTED - 0 -1 ", verdict("NEAP.ACQUIRE", "api", "BY", "k", i))
    end
    assert.equal("SHED - 0 60000 k.requests", verdict("NEAP.ACQUIRE", "api", "BY", "k", "3"))
    assert.equal("RETRY - 0 60000 k.requests", verdict("NEAP.ACQUIRE", "api", "BY", "k", "1"))
    local _, _, body = w:get(w:connect(1), "/metrics")
    assert.truthy(body:find('neap_scope_keys{policy="api",scope="k"} 2\n', 1, true), body)
    assert.truthy(body:find('neap_scope_refused_total{policy="api",scope="k"} 1\n', 1, true))
    assert.is_nil(body:find 'k="')
  end)

  it("asks the policy's estimate for what the caller does not say", function ()
    open { limits = limits("requests", "100/s", "input", "1000/s"), estimate = { line = 3,
      fn = function (call) return { input = call.bytes and math.ceil(call.bytes / 4) or 10 } end } }
    verdict("NEAP.ACQUIRE", "api", "COST", "bytes", "801")
    assert.equal(1000 - 201, w.map(w:ask(c, "NEAP.SNAPSHOT", "api")).limits[2].available)
    verdict("NEAP.ACQUIRE", "api", "COST", "input", "9")
    assert.equal(1000 - 210, w.map(w:ask(c, "NEAP.SNAPSHOT", "api")).limits[2].available)
    assert.equal("ERR unknown limit 'byte', and estimate does not look at it in policy 'api'",
      verdict("NEAP.ACQUIRE", "api", "COST", "byte", "8"))
  end)

  it("opens a breaker by what releases say, half-opens it in time, and tells", function ()
    open { limits = limits("requests", "100/s"),
      breaker = { trip = { kind = "consecutive", count = 2 }, cooldown_ns = 5e9, probes = 1 } }
    assert.equal(1, w:ask(c, "NEAP.RELEASE", w:lease(c, "NEAP.ACQUIRE", "api"), "STATUS", "503"))
    assert.equal("closed", w:ask(c, "NEAP.BREAKER", "api"))
    assert.equal(1, w:ask(c, "NEAP.RELEASE", w:lease(c, "NEAP.ACQUIRE", "api"), "FAIL", "STATUS",
      "200"))
    assert.equal("SHED - 0 5000 breaker", verdict("NEAP.ACQUIRE", "api"))
    assert.equal("SHED - 0 5000 breaker", verdict("NEAP.ACQUIRE", "api", "BLOCK", "9000"))
    assert.equal("SHED - 0 5000 breaker", verdict("NEAP.ACQUIRE", "api", "PEEK"))
    assert.equal("open", w:ask(c, "NEAP.BREAKER", "api"))
    assert.equal("api:open api:shed api:shed", table.concat(heard, " "))
    local _, _, body = w:get(w:connect(1), "/metrics")
    assert.truthy(body:find('neap_breaker_state{policy="api"} 2\n', 1, true))
    assert.truthy(body:find('neap_shed_total{policy="api",bound="breaker"} 2\n', 1, true), body)
    w:pass(5000)
    assert.equal("api:half-open", heard[#heard])           -- at its instant, nobody asked
    local probe = w:lease(c, "NEAP.ACQUIRE", "api")
    assert.equal("SHED", w:ask(c, "NEAP.ACQUIRE", "api")[1])
    assert.equal(1, w:ask(c, "NEAP.RELEASE", probe, "OK"))
    assert.equal("api:close", heard[#heard])
    assert.equal("OK", w:ask(c, "NEAP.REPORT", "api", "STATUS", "500"))
    assert.equal("OK", w:ask(c, "NEAP.REPORT", "api", "FAIL"))
    assert.equal("open", w:ask(c, "NEAP.BREAKER", "api"))
    assert.equal("closed", w:ask(c, "NEAP.BREAKER", "api", "CLOSE"))
    assert.equal("open", w:ask(c, "NEAP.BREAKER", "api", "open", "100"))
    w:pass(100)
    assert.equal("half-open", w:ask(c, "NEAP.BREAKER", "api"))
    assert.equal("closed", w:ask(c, "NEAP.BREAKER", "api", "AUTO"))
    for _, words in ipairs { { "OPEN" }, { "SHUT" }, { "CLOSE", "1" }, { "OPEN", "1", "2" } } do
      assert.equal("ERR", (w:ask(c, "NEAP.BREAKER", "api", unpack(words)):sub(1, 3)))
    end
  end)

  it("backs off as servers say, by any reporter, and by hand", function ()
    open({ limits = limits("requests", "100/s"), backoff = { on = { 429 }, window_ns = 2e9,
      from = { "retry-after", "x-reset" } } }, { name = "other", limits = limits("r", "1/s") })
    assert.equal("OK", w:ask(c, "NEAP.REPORT", "api", "STATUS", "429", "RETRY-AFTER", "3"))
    assert.equal("RETRY - 0 3000 backoff", verdict("NEAP.ACQUIRE", "api"))
    assert.equal("OK", w:ask(c, "NEAP.REPORT", "api", "STATUS", "429", "HEADER", "X-Reset", "4s",
      "HEADER", "Retry-After", "1"))
    assert.equal(4000, w:ask(c, "NEAP.BACKOFF", "api"))
    assert.equal(4000, w:ask(c, "NEAP.BACKOFF", "api", "1000"))
    assert.equal(1000, w:ask(c, "NEAP.BACKOFF", "api", "1000", "LT"))
    assert.equal(6000, w:ask(c, "NEAP.BACKOFF", "api", "6000", "XX"))
    local d = w:connect()
    w:send(d, "NEAP.ACQUIRE", "api", "BLOCK", "0")
    assert.equal(0, w:ask(c, "NEAP.BACKOFF", "api", "CLEAR"))
    assert.equal("GRANTED - 0 -1 ", w.said(w:receive(d)))
    assert.equal(0, w:ask(c, "NEAP.BACKOFF", "api", "6000", "XX"))
    assert.equal("api:backoff-end", heard[#heard])
    assert.equal(250, w:ask(c, "NEAP.BACKOFF", "api", "250"))
    local _, _, body = w:get(w:connect(1), "/metrics")
    assert.truthy(body:find('neap_backoff_seconds{policy="api"} 0.25\n', 1, true), body)
    w:pass(249)
    assert.equal("api:backoff", heard[#heard])
    w:pass(1)
    assert.equal("api:backoff-end", heard[#heard])
    assert.equal("ERR policy 'other' has no backoff", w:ask(c, "NEAP.BACKOFF", "other"))
    assert.equal("ERR policy 'other' has no breaker", w:ask(c, "NEAP.BREAKER", "other"))
    assert.equal("ERR BACKOFF takes no BY: a policy backs off as a whole",
      w:ask(c, "NEAP.BACKOFF", "api", "BY", "tenant", "1"))
    for _, words in ipairs { { "x" }, { "1", "NX" }, { "1", "GT", "2" } } do
      assert.equal("ERR", (w:ask(c, "NEAP.BACKOFF", "api", unpack(words)):sub(1, 3)))
    end
  end)

  it("gives back what it charged while calls were throttled, whenever that is", function ()
    open { limits = limits("calls", "8 in flight", "upload", "100 in flight"),
      backoff = { on = { 429 }, window_ns = 2e9, throttled = limits("calls", "1 in flight"),
        penalty = { { name = "upload", count = 20 } } } }
    w:ask(c, "NEAP.REPORT", "api", "STATUS", "429")
    local one = w:lease(c, "NEAP.ACQUIRE", "api", "COST", "upload", "4")
    assert.equal("RETRY - 0 0 backoff.calls", verdict("NEAP.ACQUIRE", "api", "COST", "upload", "1"))
    local d = w:connect()
    w:send(d, "NEAP.ACQUIRE", "api", "COST", "upload", "5", "BLOCK", "5000")
    w:pass(2000)
    assert.equal("GRANTED lease 2000 -1 ", w.said(w:receive(d)))
    assert.equal(15, w.map(w:ask(c, "NEAP.SNAPSHOT", "api")).limits[2].available)
    assert.equal(1, w:ask(c, "NEAP.RELEASE", one))
    assert.equal(95, w.map(w:ask(c, "NEAP.SNAPSHOT", "api")).limits[2].available)
  end)

  it("explains what a penalty leaves", function ()
    open { limits = limits("upload", "100 in flight"), backoff = { on = { 429 }, window_ns = 2e9,
      throttled = limits("upload", "1k in flight"),
      penalty = { { name = "upload", count = 20 } } } }
    local function levels()
      local list = {}
      for _, limit in ipairs(w.map(w:ask(c, "NEAP.EXPLAIN", "api", "COST", "9")).limits) do
        list[#list + 1] = ("%s %d of %d"):format(limit.name, limit.needs, limit.available)
      end
      return table.concat(list, ", ")
    end
    assert.equal("upload 9 of 100, backoff.upload 9 of -1", levels())
    w:ask(c, "NEAP.REPORT", "api", "STATUS", "429")
    assert.equal("upload 9 of 5, backoff.upload 9 of 1000", levels())
  end)

  it("gives back what it charged when somebody went who waited while calls were throttled",
    function ()
      open { limits = limits("calls", "8 in flight", "upload", "100 in flight"),
        backoff = { on = { 429 }, window_ns = 2e9, throttled = limits("calls", "1 in flight"),
          penalty = { { name = "upload", count = 20 } } } }
      w:ask(c, "NEAP.REPORT", "api", "STATUS", "429")
      local one = w:lease(c, "NEAP.ACQUIRE", "api")
      local d = w:connect()
      w:send(d, "NEAP.ACQUIRE", "api", "COST", "upload", "3", "BLOCK", "5000")
      w:ask(c, "NEAP.RELEASE", one)
      local two = w:receive(d)
      assert.equal("GRANTED lease 0 -1 ", w.said(two))
      w:pass(2000)
      assert.equal(40, w.map(w:ask(c, "NEAP.SNAPSHOT", "api")).limits[2].available)
      w:ask(c, "NEAP.RELEASE", two[2])
      assert.equal(100, w.map(w:ask(c, "NEAP.SNAPSHOT", "api")).limits[2].available)
    end)

  it("has priorities and turns in a queue, and sheds", function ()
    open { limits = limits("requests", "1/s burst 1"), queue = { max = 4, fair = "tenant",
      timeout_ns = 10e9, priority = { "high", "low" } },
      shed = { when = { what = "queue", share = 0.6 }, keep = { priority = "high" } } }
    verdict("NEAP.ACQUIRE", "api")
    local order = {}
    local clients = {}
    for i, words in ipairs { { "a1", "BY", "tenant", "a" }, { "a2", "BY", "tenant", "a" },
      { "b1", "BY", "tenant", "b" }, { "hi", "PRIO", "high" } } do
      clients[i] = w:connect()
      w:send(clients[i], "NEAP.ACQUIRE", "api", "BLOCK", "0", unpack(words, 2))
      clients[i].name = words[1]
      w:pass(1)
    end
    assert.equal("SHED - 0 -1 queue", verdict("NEAP.ACQUIRE", "api", "BLOCK", "100"))
    assert.equal("SHED - 0 -1 queue", verdict("NEAP.ACQUIRE", "api", "PRIO", "high",
      "BLOCK", "9999"))
    assert.equal("ERR unknown priority 'hihg' (did you mean 'high'?)",
      verdict("NEAP.ACQUIRE", "api", "PRIO", "hihg"))
    assert.same({ waiting = 4, capacity = 4, refused = 1, dropped = 0, aside = 0 },
      w.map(w:ask(c, "NEAP.SNAPSHOT", "api")).queue)
    for _ = 1, 4 do
      w:pass(1000)
      for _, client in ipairs(clients) do
        if w:receive(client) then order[#order + 1] = client.name end
      end
    end
    assert.equal("hi a1 b1 a2", table.concat(order, " "))
    assert.equal("api:shed", heard[#heard])
  end)

  it("waits no longer than the queue lets it, and makes room for those who came later", function ()
    open({ limits = limits("requests", "1/min burst 1"), queue = { max = 1, timeout_ns = 90e9,
      overflow = "drop oldest" } },
      { name = "short", limits = limits("requests", "1/min burst 1"), queue = { max = 9,
        timeout_ns = 30e9 } })
    verdict("NEAP.ACQUIRE", "api")
    local d, e = w:connect(), w:connect()
    w:send(d, "NEAP.ACQUIRE", "api", "BLOCK", "0")
    w:pass(10)
    w:send(e, "NEAP.ACQUIRE", "api", "BLOCK", "0")
    assert.equal("SHED - 10 -1 queue", w.said(w:receive(d)))
    w:pass(59990)
    assert.equal("GRANTED - 59990 -1 ", w.said(w:receive(e)))
    verdict("NEAP.ACQUIRE", "short")
    assert.equal("RETRY - 0 60000 requests", verdict("NEAP.ACQUIRE", "short", "BLOCK", "0"))
    assert.equal("RETRY - 0 60000 requests", verdict("NEAP.ACQUIRE", "short", "BLOCK", "99000"))
  end)

  it("keeps nobody in a queue for what another key has used up", function ()
    open { limits = limits("requests", "10/s burst 1"), queue = { max = 1, fair = "t" },
      per = { { by = { "t" }, limits = limits("requests", "1/min burst 1") } } }
    verdict("NEAP.ACQUIRE", "api", "BY", "t", "a")
    local a, b, d = w:connect(), w:connect(), w:connect()
    w:send(a, "NEAP.ACQUIRE", "api", "BY", "t", "a", "BLOCK", "0")
    w:send(b, "NEAP.ACQUIRE", "api", "BY", "t", "b", "BLOCK", "0")
    assert.equal("SHED - 0 -1 queue", w:verdict(d, "NEAP.ACQUIRE", "api", "BY", "t", "a",
      "BLOCK", "0"))
    assert.equal("SHED - 0 -1 queue", w:verdict(d, "NEAP.ACQUIRE", "api", "BY", "t", "c",
      "BLOCK", "0"))
    w:pass(100)
    assert.equal("GRANTED - 100 -1 ", w.said(w:receive(b)))
    w:pass(59900)
    assert.equal("GRANTED - 60000 -1 ", w.said(w:receive(a)))
    assert.equal(0, w.worker.desk.accounts.policies.api.live.aside)
  end)

  it("moves a limit that adapts, by how leases end and how long calls took", function ()
    open { limits = limits("calls", "50 in flight"),
      adaptive = { { name = "calls", notation = { kind = "aimd", from = 2, to = 50 } } } }
    local one, two = w:lease(c, "NEAP.ACQUIRE", "api"), w:lease(c, "NEAP.ACQUIRE", "api")
    assert.equal("RETRY - 0 0 calls", verdict("NEAP.ACQUIRE", "api"))
    w:ask(c, "NEAP.RELEASE", one, "OK", "LATENCY", "1500")
    w:ask(c, "NEAP.RELEASE", two)
    assert.equal(3, w.map(w:ask(c, "NEAP.SNAPSHOT", "api")).limits[1].capacity)
    assert.equal("api:limit", heard[1])
    w:ask(c, "NEAP.RELEASE", w:lease(c, "NEAP.ACQUIRE", "api"), "STATUS", "500")
    assert.equal(2, w.map(w:ask(c, "NEAP.SNAPSHOT", "api")).limits[1].capacity)
    local _, _, body = w:get(w:connect(1), "/metrics")
    assert.truthy(body:find('neap_in_flight{policy="api",limit="calls"} 0\n', 1, true), body)
  end)

  it("knows how long a call took from who reports it", function ()
    open { limits = limits("calls", "50 in flight"),
      adaptive = { { name = "calls", notation = { kind = "vegas", from = 10, to = 50 } } } }
    local function use(...)
      local held = {}
      repeat
        local reply = w:ask(c, "NEAP.ACQUIRE", "api")
        held[#held + 1] = reply[1] == "GRANTED" and reply[2] or nil
      until reply[1] ~= "GRANTED"
      w:pass(100)
      for _, name in ipairs(held) do w:ask(c, "NEAP.RELEASE", name, ...) end
      return w.map(w:ask(c, "NEAP.SNAPSHOT", "api")).limits[1].capacity
    end
    local first = use("LATENCY", "1000")
    local second = use("LATENCY", "1000")
    assert.truthy(second > first and first > 10, first .. " " .. second)
    assert.truthy(use() < second)                          -- the worker saw 100 ms
  end)

  it("explains what a call would meet", function ()
    open { limits = limits("requests", "10/s burst 2"), per = { { by = { "t" },
      limits = limits("requests", "1/s burst 5") } } }
    assert.same({ policy = "api", verdict = "GRANTED", bound = "", retry_ms = -1, ahead = 0,
      limits = { { name = "requests", needs = 2, available = 2, capacity = 2 },
        { name = "t.requests", needs = 2, available = 5, capacity = 5 } } },
      w.map(w:ask(c, "NEAP.EXPLAIN", "api", "BY", "t", "x", "COST", "2")))
    verdict("NEAP.ACQUIRE", "api", "COST", "2")
    local map = w.map(w:ask(c, "NEAP.EXPLAIN", "api"))
    assert.same({ "RETRY", "requests", 100 }, { map.verdict, map.bound, map.retry_ms })
    assert.equal("NEVER", w.map(w:ask(c, "NEAP.EXPLAIN", "api", "COST", "3")).verdict)
  end)

  it("knows who called most", function ()
    open { limits = limits("requests", "1M/s"), per = { { by = { "t" },
      limits = limits("requests", "100/s burst 100") } } }
    for i, n in ipairs { 3, 1, 5 } do
      for _ = 1, n do verdict("NEAP.ACQUIRE", "api", "BY", "t", "k" .. i) end
    end
    assert.same({ { key = "k3", calls = 5, over = 0 }, { key = "k1", calls = 3, over = 0 } },
      w.map(w:ask(c, "NEAP.TOP", "api", "t", "COUNT", "2")))
    assert.equal(3, #w:ask(c, "NEAP.TOP", "api", "t"))
    assert.equal("ERR policy 'api' has no scope 'x'", w:ask(c, "NEAP.TOP", "api", "x"))
    for _, words in ipairs { { "COUNT" }, { "COUNT", "0" }, { "COUNT", "129" }, { "N", "1" } } do
      assert.equal("ERR TOP takes COUNT with a number from 1 to 128",
        w:ask(c, "NEAP.TOP", "api", "t", unpack(words)))
    end
  end)

  it("takes a lease back whose time is up, and counts it for its policy", function ()
    open { limits = limits("calls", "2 in flight"), lease = { ttl_ns = 1e9, settle = {} } }
    w:lease(c, "NEAP.ACQUIRE", "api")
    w:pass(1000)
    assert.equal("api:expired", heard[1])
    local _, _, body = w:get(w:connect(1), "/metrics")
    assert.truthy(body:find('neap_lease_expired_total{policy="api"} 1\n', 1, true), body)
  end)

  it("tells the hooks of its policies that it goes down", function ()
    local told
    open { limits = limits("calls", "2 in flight"),
      on = { drain = { line = 1, fn = function (e) told = e end } } }
    w:lease(c, "NEAP.ACQUIRE", "api")
    w.worker.desk:drain()
    assert.same({ policy = "api", event = "drain", count = 1, waiting = 0, leases = 1 }, told)
    assert.equal("-:drain", heard[#heard])
  end)

  it("says by HTTP what it says in RESP", function ()
    open { limits = limits("requests", "100/s"), per = { { by = { "tenant" },
      limits = limits("requests", "1/s burst 1") } },
      breaker = { trip = { kind = "consecutive", count = 1 }, cooldown_ns = 5e9, probes = 1 },
      queue = { max = 5, priority = { "high", "low" } }, backoff = { on = { 429 } } }
    local h = w:connect(1)
    local status, fields = w:get(h, "/v1/check/api?by.tenant=42&prio=high")
    assert.equal(200, status)
    local refused = w:get(h, "/v1/check/api?by.tenant=42")
    assert.equal(429, refused)
    assert.equal(204, (w:get(h, "/v1/release/" .. fields["x-neap-lease"]
      .. "?status=429&retry_after=7", "POST")))
    local _, _, body = w:get(h, "/v1/snapshot/api")
    local map = cjson.decode(body)
    assert.same({ "closed", 7000, 7000, 5, 1 }, { map.breaker, map.backoff_ms, map.shut_ms,
      map.queue.capacity, map.scopes[1].keys })
    assert.equal(400, (w:get(h, "/v1/check/api?by.tenat=42")))
    assert.equal(400, (w:get(h, "/v1/check/api?prio=hi")))
  end)
end)
