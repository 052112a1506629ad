local manual = require "neap.runtime.manual"
local neap = require "neap"

describe("a client", function ()
  local rt, before, log

  before_each(function ()
    rt, log = manual.new(), {}
    before = neap.runtime.use(rt)
  end)

  after_each(function () neap.runtime.use(before) end)

  local function note(text, ...) log[#log + 1] = ("%g %s"):format(rt.now(), text:format(...)) end

  --- Calls that take so long and answer that, one after the other; the last one ever after.
  local function script(rows, who)
    local n = 0
    return function ()
      n = n + 1
      local row = rows[math.min(n, #rows)]
      note("%s", who or n)
      if row.takes and not rt.sleep(row.takes) then return nil, "cancelled" end
      if row.raise then error(row.raise, 0) end
      return unpack(row, 1, 2)
    end
  end

  --- What a call answers, in a task of its own.
  local function run(client, ...)
    local answer
    local args = { n = select("#", ...), ... }
    rt.run(function () answer = { client:call(unpack(args, 1, args.n)) } end)
    return answer
  end

  local function status(n, headers, takes)
    return { { status = n, headers = headers }, takes = takes }
  end

  local GOOD, DOWN = { { status = 200 } }, { { status = 503 } }

  it("with nothing in it just calls", function ()
    local seen
    local answer = run(neap.client(), function (...)
      seen = { n = select("#", ...), ... }
      return 1, nil, "three"
    end, { cost = { tokens = 9 }, key = "k", timeout = 0 })
    assert.same({ 1, nil, "three" }, answer)
    assert.same({ 0, nil, 0 }, { seen[1].attempt, seen[2], seen[3] })
    assert.same({ nil, "no" }, run(neap.client {}, function () return nil, "no" end))
    assert.same({}, run(neap.client {}, function () end))
    local thrown = {}
    local ok, err = pcall(run, neap.client {}, function () error(thrown) end)
    assert.same({ false, thrown }, { ok, err })
    assert.equal("client", tostring(neap.client {}))
  end)

  describe("in line", function ()
    it("takes limiter, breaker and window as one, or none of them", function ()
      local places, windows = neap.semaphore(2), neap.backoff_window()
      local breaker = neap.breaker { failures = 1, cooldown = "10s", wait = true }
      local api = neap.client { limiter = places, breaker = breaker, windows = windows }
      run(api, script { { nil, "no" } }, { key = "h" })
      windows:set("h", 20)
      rt.run(function ()
        local trial = script({ { "done", takes = 5 } }, "trial")
        rt.spawn(function () api:call(trial, { key = "h" }) end)
        rt.sleep(15)                            -- half-open, but the window is on
        assert.same({ 2, "half-open" }, { places:available(), breaker:state() })
        assert(breaker:try_acquire()):give "ignore"
        rt.sleep(6)
        assert.same({ 1, nil }, { places:available(), (breaker:try_acquire()) })
      end)
      assert.same({ "0 1", "20 trial" }, log)
      assert.same({ 2, "closed" }, { places:available(), breaker:state() })
    end)

    it("answers a refusal as it is, and does not call", function ()
      local rate = neap.throttle "1/10s burst 1"
      local api = neap.client { limiter = rate, retry = { backoff = "1s" } }
      rt.run(function ()
        assert(rate:try_acquire())
        assert.same({ nil, "timeout", 10 }, { api:call(script { GOOD }, { timeout = 5 }) })
        assert.same({ nil, "cost" }, { api:call(script { GOOD }, { cost = 2 }) })
        local _, why = api:call(script { GOOD }, { deadline = 9, timeout = 99 })
        assert.equal("timeout", why)
        rate:close()
        assert.same({ nil, "closed" }, { api:call(script { GOOD }) })
      end)
      assert.same({}, log)
    end)

    it("is sent away when the breaker opens, by how others' calls ended", function ()
      local breaker = neap.breaker { failures = 2, cooldown = "30s" }
      local api = neap.client { limiter = "2 in flight", breaker = breaker }
      rt.run(function ()
        for i = 1, 4 do
          rt.spawn(function ()
            local answer, why, wait = api:call(script { { { status = 500 }, takes = i } })
            note("%d %s %s", i, answer and answer.status or why, wait)
          end)
        end
      end)
      assert.same({ "0 1", "0 1", "1 1 500 nil", "1 1", "2 2 500 nil", "2 4 open 30",
        "4 3 500 nil" }, log)
    end)

    it("with a retry stands behind those who wait, until its first deadline", function ()
      local api = neap.client { limiter = "1/10s burst 1", retry = { backoff = "1s" } }
      rt.run(function ()
        rt.spawn(function ()
          note("%s", select(2, api:call(script({ DOWN, DOWN }, "a"), { timeout = "35s" })))
        end)
        for _, who in ipairs { "b", "c" } do
          rt.spawn(function () api:call(script({ GOOD }, who)) end)
        end
      end)
      assert.same({ "0 a", "10 b", "20 c", "30 a", "31 timeout" }, log)
    end)

    it("counts first tries and retries in one ledger", function ()
      local rate = neap.throttle "10/min"
      local api = neap.client { limiter = rate, retry = { backoff = "0s", max_attempts = 4 } }
      run(api, script { DOWN }, { cost = 2 })
      assert.equal(2, rate:available())
    end)

    it("costs the limiter what is said, and the rest one", function ()
      local llm = neap.multi { requests = "10/min", tokens = "100/min" }
      local breaker = neap.breaker { failures = 1 }
      local api = neap.client { limiter = llm, breaker = breaker }
      local function left() return { llm:available "requests", llm:available "tokens" } end
      run(api, script { GOOD }, { cost = { requests = 1, tokens = 30 } })
      assert.same({ 9, 70 }, left())
      run(api, script { GOOD }, { cost = { { "tokens", 10 }, { "tokens", 90 } } })
      assert.same({ 9, 60 }, left())
      run(api, script { GOOD })
      run(api, script { GOOD }, { cost = 2 })
      assert.same({ 6, 57 }, left())
      run(api, script { GOOD }, { cost = {} })             -- a multi's empty table: nothing
      assert.same({ 6, 57 }, left())
      run(api, script { DOWN }, { cost = 0 })              -- and yet a call, for the breaker
      assert.same({ "open", 6 }, { breaker:state(), left()[1] })
      assert.same({ nil, "open", 30 }, run(api, script { GOOD }, { cost = 0 }))
    end)

    it("keeps limits, windows and breakers by key", function ()
      local users, breakers = neap.per_key "1/min", neap.breakers()
      local api = neap.client {
        limiter = neap.hybrid { users, total = "100/min" }, windows = neap.backoff_window(),
        breaker = function (key)
          if key ~= "free" then return breakers:of(key, { failures = 1, cooldown = "1h" }) end
        end,
      }
      local function call(key, rows, cost)
        return (select(2, unpack(run(api, script(rows), { key = key, cost = cost, timeout = 0 }))))
      end
      call("a", { DOWN })
      assert.same({ "open", "closed" }, { breakers:of("a"):state(), breakers:of("b"):state() })
      assert.same({ 0, 1 }, { users:available "a", users:available "b" })
      assert.equal("open", call("a", { GOOD }, { key = "c", cost = 1 }))
      assert.is_nil(call("d", { GOOD }, { key = "e", total = 1 }))
      assert.same({ 1, 0 }, { users:available "d", users:available "e" })
      assert.is_nil(call("b", { status(429, { ["Retry-After"] = "90" }) }))
      collectgarbage()                                     -- lines go, what they are made of stays
      rt.advance(61)
      assert.equal("timeout", call("b", { GOOD }))
      assert.is_nil(call("free", { DOWN }))
      assert.equal("timeout", call("free", { GOOD }))      -- its rate
      rt.advance(61)
      assert.is_nil(call("free", { GOOD }))
      local layered = neap.client { limiter = neap.layered { user = "1/min", host = "2/min" } }
      local cost = { user = "ann", host = "h" }
      assert.equal(1, #run(layered, script { GOOD }, { cost = cost }))
      cost.user = "bob"
      assert.equal(1, #run(layered, script { GOOD }, { cost = cost }))
      cost.user = "eve"
      assert.same({ nil, "timeout" }, { unpack(run(layered, script { GOOD }, { cost = cost,
        timeout = 1 }), 1, 2) })
    end)

    it("has its priority in a queue", function ()
      local api = neap.client { limiter = neap.queue "1/s burst 1", breaker = neap.breaker() }
      rt.run(function ()
        for i, who in ipairs { "a", "b", "c" } do
          rt.spawn(function ()
            api:call(script({ GOOD }, who), { cost = { cost = 1, priority = i } })
          end)
        end
      end)
      assert.same({ "0 a", "1 c", "2 b" }, log)
    end)
  end)

  describe("when it has an answer", function ()
    it("settles what was used, in each dimension", function ()
      local reports = {}
      rt.report = function (text) reports[#reports + 1] = text end
      local function left(answer)
        local llm = neap.multi { requests = "100/min", input = "1000/min", output = "1000/min" }
        local api = neap.client { name = "llm", limiter = llm, breaker = neap.breaker(),
          retry = { backoff = "0s", max_attempts = 2 },
          usage = function (response) return response.usage end }
        pcall(run, api, script { answer }, { cost = { requests = 1, input = 400, output = 50 } })
        return { llm:available "requests", llm:available "input", llm:available "output" }
      end
      assert.same({ 99, 900, 980 }, left { { usage = { input = 100, output = 20 } } })
      assert.same({ 99, 600, -250 }, left { { usage = { output = 1250 } } })
      assert.same({ 99, 600, 950 }, left { {} })
      assert.same({ 93, 993, 993 }, left { { usage = 7 } })
      assert.same({ 98, 998, 998 }, left { nil, { usage = 1 } })       -- twice
      assert.same({ 98, 200, 900 }, left { nil, "no response" })
      assert.same({ 98, 200, 900 }, left { raise = "no response" })
      assert.same({ 98, 998, 998 }, left { raise = { usage = 1 } })
      assert.same({}, reports)
      for usage, text in pairs {
        [{ inptu = 1 }] = "cost \"inptu\" is not known", [-1] = "got -1",
        [{ input = 0 / 0 }] = "got ", [{ input = 1.5 }] = "got 1.5", x = "got \"x\"",
      } do
        assert.same({ 99, 600, 950 }, left { { usage = usage } })
        local said = table.remove(reports)
        assert.truthy(said:find("neap: llm: usage: ", 1, true) and said:find(text, 1, true), said)
      end
    end)

    it("tells the breaker, too, when nothing was used", function ()
      local breaker, rate = neap.breaker { failures = 1 }, neap.throttle "10/h"
      local api = neap.client { limiter = rate, breaker = breaker,
        usage = function () return 0 end }
      run(api, script { DOWN }, { cost = 4 })
      assert.same({ 10, "open" }, { rate:available(), breaker:state() })
    end)

    it("takes any names where they are free", function ()
      local llm = neap.multi({ tokens = "100/h" }, { lenient = true })
      rt.report = error
      local api = neap.client { limiter = llm, breaker = neap.breaker(),
        usage = function () return { tokens = 5, thoughts = 7 } end }
      run(api, script { GOOD }, { cost = { tokens = 50, images = 1 } })
      assert.equal(95, llm:available "tokens")
    end)

    it("calls nothing a failure of the server that is none, unless told", function ()
      local breaker = neap.breaker { failures = 1000 }
      local api = neap.client { breaker = breaker, classify = neap.classify.never }
      local function fails(row, given)
        breaker:reset()
        pcall(run, given or api, script { row })
        return breaker:failures()
      end
      for _, row in ipairs { { nil, "refused" }, { raise = "x" }, { nil, 500 }, DOWN,
        { nil, { status = 502 } }, { false }, { nil, { message = "x" } },
        { raise = "cancelled" } } do
        assert.equal(1, fails(row))
      end
      for _, row in ipairs { GOOD, { 500 }, {}, { "x" }, { { status = 404 } }, { { status = 429 } },
        { nil, 429 }, { nil, { status = 400 } }, { nil, "cancelled" } } do
        assert.equal(0, fails(row))
      end
      local strict = neap.client { breaker = breaker, outcome = function (outcome)
        if outcome:field "status" == 429 then return "failure" end
        if outcome.err == "mine" then return "ignore" end
      end }
      assert.same({ 1, 0, 1, 0 }, { fails({ { status = 429 } }, strict),
        fails({ nil, "mine" }, strict), fails(DOWN, strict), fails(GOOD, strict) })
    end)

    it("lets 429 neither close nor open a breaker", function ()
      local breaker = neap.breaker { failures = 1, cooldown = "10s" }
      local api = neap.client { breaker = breaker }
      run(api, script { DOWN })
      rt.advance(10)
      run(api, script { status(429) })
      assert.equal("half-open", breaker:state())
      run(api, script { status(404) })
      assert.equal("closed", breaker:state())
    end)

    it("has the limiter go by the provider's headers", function ()
      local llm = neap.multi { requests = "50/min", tokens = "1000/min" }
      local api = neap.client { limiter = llm, provider = neap.provider "openai",
        usage = function () return { tokens = 10 } end }
      local headers = { ["x-ratelimit-remaining-requests"] = "1",
        ["x-ratelimit-reset-requests"] = "20s", ["x-ratelimit-remaining-tokens"] = "500",
        ["x-ratelimit-reset-tokens"] = "5s" }
      run(api, script { status(200, headers) }, { cost = { requests = 1, tokens = 900 } })
      assert.same({ 1, 500 }, { llm:available "requests", llm:available "tokens" })  -- not 990
      run(api, script { GOOD }, { cost = { requests = 1 } })
      local later = status(429, { ["retry-after"] = "9" })
      run(api, script({ later }, "held"), { cost = { requests = 1 } })
      run(api, script({ GOOD }, "told"), { cost = { tokens = 1 } })
      assert.same({ "0 1", "0 1", "20 held", "29 told" }, log)
    end)

    it("reads dates by the clock it is given, and a provider's own headers", function ()
      local later = status(503, { ["Retry-After"] = "Thu, 01 Jan 2026 00:00:40 GMT" })
      local options = { retry = { backoff = "1s" }, now = 1767225600 }
      run(neap.client(options), script { later, GOOD })
      assert.same({ "0 1", "40 2" }, log)
      options.retry, options.windows, log = nil, neap.backoff_window(), {}
      run(neap.client(options), script { later }, { key = "h" })
      assert.same({ true, 40 }, { options.windows:should_backoff "h" })
      options.limiter, options.provider = "99/s", neap.provider { retry_after = "X-Wait" }
      run(neap.client(options), script { status(429, { ["X-Wait"] = "5" }) }, { key = "other" })
      assert.same({ true, 5 }, { options.windows:should_backoff "other" })
    end)

    it("keeps Retry-After for all who call that host", function ()
      for _, windows in ipairs { neap.backoff_window(), neap.pause() } do
        log = {}
        local began = rt.now()
        local api = neap.client { limiter = neap.throttle "100/s", windows = windows,
          provider = neap.provider "openai", retry = { backoff = "1s" } }
        rt.run(function ()
          rt.spawn(function ()
            api:call(script({ status(429, { ["retry-after"] = "7" }), GOOD }, "a"), { key = "h" })
          end)
          rt.sleep(1)
          rt.spawn(function () api:call(script({ GOOD }, "b"), { key = "h" }) end)
          if windows.set then api:call(script({ GOOD }, "c"), { key = "other" }) end
        end)
        local expected = { ("%g a"):format(began), ("%g c"):format(began + 1),
          ("%g b"):format(began + 7), ("%g a"):format(began + 7) }
        if not windows.set then table.remove(expected, 2) end
        assert.same(expected, log)
      end
    end)

    it("sets windows by what failed alone, for a day at most", function ()
      local windows, told, reports = neap.backoff_window(), {}, {}
      rt.report = function (text) reports[#reports + 1] = text end
      local limit = neap.throttle "99/s"
      function limit.set_backoff(_, wait) told[#told + 1] = wait end
      local api = neap.client { limiter = limit, windows = windows }
      for i, row in ipairs {
        status(200, { ["retry-after"] = "5" }), status(302, { ["retry-after"] = "5" }),
        status(429), { nil, "retry_after" }, { { retry_after = 5 } },
        { raise = { retry_after = -1 } },
        status(429, { ["retry-after"] = "5" }), status(503, { ["retry-after-ms"] = "1500" }),
        { nil, { retry_after = 2 } }, { nil, { status = 529, retry_after = 1e300 } },
      } do
        pcall(run, api, script { row }, { key = i })
      end
      for i, wait in ipairs { 0, 0, 0, 0, 0, 0, 5, 1.5, 2, 86400 } do
        assert.equal(wait, select(2, windows:should_backoff(i)), i)
      end
      assert.same({ 5, 1.5, 2, 86400 }, told)
      assert.same({}, reports)
    end)
  end)

  describe("tries again", function ()
    local api

    local function calls(row, given, options)
      log = {}
      api = neap.client(options or { retry = { backoff = "1s", max_attempts = 3 } })
      pcall(run, api, script { row }, given)
      return #log
    end

    it("by HTTP's rules, and not what must not be done twice", function ()
      local conflict, said, never = status(409), status(503, { ["x-should-retry"] = "true" }),
        status(503, { ["x-should-retry"] = "false" })
      local asked = { { nil, "timed out" }, { raise = "x" }, DOWN, { nil, 503 }, conflict }
      for _, row in ipairs(asked) do
        assert.equal(3, calls(row))
        assert.equal(3, calls(row, { method = "get" }))
        assert.equal(3, calls(row, { method = "POST", idempotent = true }))
        assert.equal(1, calls(row, { method = "POST" }))
        assert.equal(1, calls(row, { method = "GET", idempotent = false }))
        assert.equal(1, calls(row, { idempotent = false }))
      end
      for _, row in ipairs { said, status(429), { nil, 429 }, { nil, { retryable = true } } } do
        assert.equal(3, calls(row, { method = "POST" }))
        assert.equal(3, calls(row, { idempotent = false }))
      end
      for _, row in ipairs { never, { nil, never[1] }, status(404), { nil, 400 }, { 503 },
        { nil, { retryable = false } }, GOOD } do
        assert.equal(1, calls(row, { method = "GET" }))
      end
    end)

    it("what a classifier says, where it may", function ()
      local function pending(outcome) return outcome:field "state" == "pending" or nil end
      local row = { { state = "pending" } }
      local retry = { backoff = "0s", max_attempts = 2 }
      for _, options in ipairs { { classify = pending, retry = retry },
        { retry = { classify = pending, backoff = "0s", max_attempts = 2 } } } do
        assert.equal(2, calls(row, nil, options))
        assert.equal(1, calls(row, { method = "POST" }, options))
        assert.equal(1, calls(DOWN, nil, options))
      end
    end)

    it("when the server says, whoever classifies", function ()
      for _, classify in ipairs { false, neap.classify.status { 503 } } do
        log = {}
        local began = rt.now()
        run(neap.client { retry = { backoff = "1s" }, classify = classify or nil },
          script { status(503, { ["Retry-After"] = "30" }), DOWN, GOOD })
        assert.same({ began + 30, began + 31 }, { tonumber(log[2]:match "%S+"),
          tonumber(log[3]:match "%S+") })
        assert.equal("3", log[3]:match "%S+$")
      end
    end)

    it("within the budget of all", function ()
      local budget = neap.budget { tokens = 3 }
      local options = { retry = neap.retry { backoff = "1s" }, budget = budget }
      assert.equal(4, calls(DOWN, nil, options))
      assert.equal(1, calls(DOWN, nil, options))
      assert.equal(0, budget:left())
      assert.is_nil(options.retry.budget)
    end)

    it("until the deadline, and answers what came last", function ()
      assert.equal(2, calls({ { status = 503 }, takes = 4 }, { timeout = "9s" },
        { retry = { backoff = "2s", max_attempts = 9 } }))
      assert.equal(10, rt.now())
      local answer = run(neap.client { retry = { backoff = "2s", max_attempts = 9 } },
        script { { { status = 503, body = "sorry" } } }, { deadline = 11 })
      assert.equal("sorry", answer[1].body)
    end)

    it("nothing when a limit refuses on the way", function ()
      local breaker = neap.breaker { failures = 2, cooldown = "1m" }
      local answer = run(neap.client { breaker = breaker, retry = { backoff = "1s" } },
        script { DOWN })
      assert.same({ { nil, "open", 59 }, { "0 1", "1 2" } }, { answer, log })
    end)

    it("and keeps an exception's traceback", function ()
      local told
      local stop = neap.events.tap(function (e) told = e end, { "retry.failed" })
      local function fail() error "boom" end
      local retry = { backoff = "0s", max_attempts = 2, exceptions = "return" }
      local options = { name = "api", limiter = "9/s", retry = retry }
      local answer = run(neap.client(options), function () fail() end, { fields = { host = "h" } })
      assert.matches("client_spec.lua:%d+: boom$", answer[2].value)
      assert.matches("boom\nstack traceback:.-client_spec.lua:%d+: in function 'fail'",
        tostring(answer[2]))
      assert.same({ "api", "h", 1 }, { told.name, told.host, told.attempt })
      stop()
      options.hedge, retry.exceptions = { after = 1 }, nil
      local ok, err = pcall(run, neap.client(options), function () fail() end)
      assert.is_false(ok)
      assert.matches("client_spec.lua:%d+: boom", err)
      assert.matches("in function 'fail'", told.trace)
    end)
  end)
end)
