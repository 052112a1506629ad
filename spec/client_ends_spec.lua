--- However a call of a client ends: cancelled anywhere, raced by a hedge, or with an error in what
--- users wrote. Nothing stays taken, and what was charged is what was used.
local manual = require "neap.runtime.manual"
local neap = require "neap"
local seed = require "spec.seed"

describe("a call of a client", function ()
  local rt, before, log, reports

  before_each(function ()
    rt, log, reports = manual.new(), {}, {}
    before = neap.runtime.use(rt)
    rt.report = function (text) reports[#reports + 1] = text end
  end)

  after_each(function () neap.runtime.use(before) end)

  local function note(text, ...) log[#log + 1] = ("%g %s"):format(rt.now(), text:format(...)) end

  --- Call, and cancel that after a while.
  local function cancelled_at(seconds, api, fn, given)
    local answer
    rt.run(function ()
      local task = rt.spawn(function () answer = { api:call(fn, given) } end)
      rt.sleep(seconds)
      task:cancel()
      task:join()
      note("ended")
    end)
    return answer
  end

  describe("that is cancelled", function ()
    local places, rate, breaker, options

    before_each(function ()
      places, rate = neap.semaphore(1), neap.throttle "100/h"
      breaker = neap.breaker { failures = 1 }
      options = { limiter = neap.hybrid { places, rate }, breaker = breaker,
        retry = { backoff = "1h" } }
    end)

    it("in line leaves it, and nothing was taken", function ()
      local held = places:acquire()
      local answer = cancelled_at(5, neap.client(options), function () note "never" end)
      assert.same({ nil, "cancelled" }, { answer[1], answer[2] })
      assert.same({ "5 ended" }, log)
      held:release()
      assert.same({ 1, 100, "closed" }, { places:available(), rate:available(), breaker:state() })
    end)

    it("gives its permit back, and says nothing about the server", function ()
      local answer = cancelled_at(5, neap.client(options), function () return rt.sleep(60) end)
      assert.same({ nil, "cancelled" }, { answer[1], answer[2] })
      assert.same({ "5 ended" }, log)
      assert.same({ 1, 99, "closed" }, { places:available(), rate:available(), breaker:state() })
    end)

    it("between two calls makes no other", function ()
      breaker = neap.breaker { failures = 9 }
      options.breaker = breaker
      local answer = cancelled_at(5, neap.client(options), function ()
        note "called"
        return nil, "no"
      end)
      assert.same({ nil, "cancelled", "no" }, { unpack(answer, 1, 3) })
      assert.same({ "0 called", "5 ended" }, log)
      assert.same({ 1, 1 }, { places:available(), breaker:failures() })
    end)

    it("takes its hedge with it", function ()
      options.hedge = { after = 1 }
      options.limiter = neap.semaphore(9)
      local answer = cancelled_at(5, neap.client(options), function (_, _, nth)
        note("%d called", nth)
        local slept = rt.sleep(60)
        note("%d %s", nth, slept and "done" or "cancelled")
        assert(slept)
      end, { method = "GET" })
      assert.same({ nil, "cancelled" }, { answer[1], answer[2] })
      table.sort(log)
      assert.same({ "0 0 called", "1 1 called", "5 0 cancelled", "5 1 cancelled", "5 ended" }, log)
      assert.same({ 9, "closed" }, { options.limiter:available(), breaker:state() })
    end)
  end)

  describe("with a hedge", function ()
    local function call(options, fn, given)
      local answer
      rt.run(function () answer = { neap.client(options):call(fn, given) } end)
      return answer
    end

    --- Two mirrors; each says who it is, or fails.
    local function mirrors(rows)
      return function (try, permit, nth)
        note("%d.%d%s", try.attempt, nth, permit and " granted" or "")
        local row = rows[nth + 1]
        if not rt.sleep(row.takes) then return nil, "cancelled" end
        return unpack(row, 1, 2)
      end
    end

    it("is made twice only when that does no harm", function ()
      local fn = mirrors { { takes = 3, "a" }, { takes = 1, "b" } }
      local options = { hedge = { after = 1 } }
      for _, given in ipairs { {}, { method = "POST" }, { idempotent = false, method = "GET" } } do
        assert.same({ "a" }, call(options, fn, given))
      end
      for _, given in ipairs { { method = "get" }, { idempotent = true, method = "POST" } } do
        assert.same({ "b" }, call(options, fn, given))
      end
    end)

    it("takes a permit for each, settles both, and tells the breaker of the winner", function ()
      local llm = neap.multi { requests = "100/h", tokens = "1000/h" }
      local breaker = neap.breaker { failures = 1 }
      local fn = mirrors { { takes = 9, { status = 500 } }, { takes = 1, { tokens = 7 } } }
      local answer = call({ limiter = llm, breaker = breaker, hedge = { after = 1 },
        usage = function (response) return { tokens = response.tokens } end },
        fn, { idempotent = true, cost = { requests = 1, tokens = 100 } })
      assert.same({ { tokens = 7 } }, answer)
      assert.same({ "0 0.0 granted", "1 0.1 granted" }, log)
      assert.same({ 98, 893, "closed" }, { llm:available "requests", llm:available "tokens",
        breaker:state() })
    end)

    it("is tried again when both failed, with one budget for all", function ()
      local budget = neap.budget { tokens = 3 }
      local answer = call({ hedge = { after = 1 }, budget = budget,
        retry = { backoff = "10s", max_attempts = 9 } },
        mirrors { { takes = 2, nil, "a" }, { takes = 2, nil, "b" } }, { idempotent = true })
      assert.same({ nil, "b" }, answer)     -- a hedge, a retry, and its hedge
      assert.same({ "0 0.0", "1 0.1", "13 1.0", "14 1.1" }, log)
      assert.equal(0, budget:left())
      local share = neap.budget { share = 1, within = "1h" }
      call({ hedge = { after = 1 }, budget = share },
        mirrors { { takes = 3, "a" }, { takes = 3, "b" } }, { idempotent = true })
      assert.equal(0, share:left())         -- one call: one more, and that was the hedge
      local back = neap.budget { tokens = 5, refund = true }
      call({ hedge = { after = 1 }, budget = back },
        mirrors { { takes = 3, "a" }, { takes = 1, "b" } }, { idempotent = true })
      assert.equal(5, back:left())
    end)

    it("is refused as it would be without, and not tried again", function ()
      local rate = neap.throttle "1/h"
      assert(rate:try_acquire())
      local answer = call({ limiter = rate, hedge = { after = 1 }, retry = { backoff = "1s" } },
        mirrors {}, { idempotent = true, timeout = "5s" })
      assert.same({ nil, "timeout", 3600 }, answer)
      assert.same({ {}, 0 }, { log, rt.now() })
    end)

    it("is asked about once by the classifier", function ()
      local asked = 0
      call({ hedge = { after = 1 }, retry = { backoff = "1s", max_attempts = 2 },
        classify = function () asked = asked + 1 end }, mirrors { { takes = 0, "a" } },
        { idempotent = true })
      assert.equal(1, asked)
    end)
  end)

  it("is answered whatever breaks beside it; a classifier's mistake is raised", function ()
    local function broken() error "broken" end
    local provider = setmetatable({ parse = broken }, { __index = neap.provider "openai" })
    local function steered() error "steered" end
    local places = neap.semaphore(3)
    local adaptive = neap.adaptive { strategy = steered, floor = 3 }
    local breaker = neap.breaker { failures = 1 }
    local options = { name = "api", limiter = neap.hybrid { places, adaptive }, usage = broken,
      breaker = breaker, provider = provider, outcome = broken }
    local answer
    rt.run(function ()
      answer = { neap.client(options):call(function () return { headers = {} }, 2 end) }
    end)
    assert.same({ { headers = {} }, 2 }, answer)
    for i, what in ipairs { "usage", "provider", "outcome" } do
      assert.matches("^neap: api: " .. what .. ": .-client_ends_spec.lua:%d+: broken\nstack",
        reports[i])
    end
    assert.matches("steered", reports[4])
    assert.same({ 3, 0, "closed", 4 }, { places:available(), adaptive:in_flight(), breaker:state(),
      #reports })
    options.outcome = function () return "bad" end
    rt.run(function () neap.client(options):call(function () return nil, "no" end) end)
    assert.matches("outcome: \"success\", \"failure\", \"ignore\" or nil expected, got bad",
      reports[5])
    assert.equal("open", breaker:state())
    for _, hedge in ipairs { false, { after = 1 } } do
      options.retry, options.classify, options.hedge = { max_attempts = 2 }, broken, hedge or nil
      breaker:reset()
      local ok, err = pcall(rt.run, function ()
        neap.client(options):call(function () return 1 end, { idempotent = true })
      end)
      assert.is_false(ok)
      assert.matches("client_ends_spec.lua:%d+: broken", err)
      assert.same({ 3, 0 }, { places:available(), adaptive:in_flight() })
    end
  end)

  it("is refused when it makes no sense, and says whose mistake that is", function ()
    local function fails(cases, fn)
      for message, case in pairs(cases) do
        local ok, err = pcall(function () fn(unpack(case)) end)
        assert.is_false(ok, message)
        assert.truthy(err:find(message, 1, true), ("%s\nis not in\n%s"):format(message, err))
        assert.truthy(err:find "^spec/client_ends_spec.lua:%d+: ", err)
      end
    end
    local rate = neap.throttle "10/s"
    local eight = {}
    for i = 1, 8 do eight["n" .. i] = "1/s" end
    fails({
      ["client: a table expected"] = { 7 }, ["did you mean 'limiter'?"] = { { limiters = rate } },
      ["client: limiter: unknown time unit 'q'"] = { { limiter = "1/q" } },
      ["client: breaker: a limiter, or a function"] = { { breaker = {} } },
      ["client: windows: made by neap.backoff_window"] = { { windows = rate } },
      ["client: provider: one made by neap.provider"] = { { provider = {}, limiter = rate } },
      ["client: provider: there is no limiter"] = { { provider = neap.provider "openai" } },
      ["client: usage: a function expected, got 1"] = { { usage = 1 } },
      ["client: outcome: a function expected, got x"] = { { outcome = "x" } },
      ["client: classify: a function expected"] = { { classify = true } },
      ["client: budget: one made by neap.budget"] = { { budget = { tokens = 1 } } },
      ["client: retry: its calls stand in"] = { { retry = { in_flight = 2 } } },
      ["client: retry: retry: option 'max' is not known"] = { { retry = { max = 2 } } },
      ["client: hedge: hedge: after"] = { { hedge = {} } },
      ["client: name: a string expected"] = { { name = 1 } },
      ["9 different costs, at most 8"] = { { limiter = neap.multi(eight), breaker = rate } },
    }, function (options)
      local made = neap.client(options)
      return made
    end)
    local api = neap.client { limiter = rate, windows = neap.backoff_window() }
    local alone = neap.client { limiter = neap.multi { a = "1/s" } }
    fails({
      ["call: a function expected, got nil"] = { api },
      ["client: call: a table expected"] = { api, print, 7 },
      ["did you mean 'timeout'?"] = { api, print, { timeuot = 1 } },
      ["timeout: seconds from 0"] = { api, print, { timeout = -1, key = 1 } },
      ["key: what the windows or breakers are kept by expected, got nil"] = { api, print, {} },
      ["call: idempotent: a boolean"] = { api, print, { idempotent = 1 } },
      ["cost \"b\" is not known: there are a"] = { alone, print, { cost = { b = 1 } } },
      ["timeout and deadline stand beside"] = { alone, print, { cost = { timeout = 1 } } },
      ["cost: a whole number from 0"] = { api, print, { cost = -1, key = 1 } },
    }, function (client, ...)
      local answer = client:call(...)
      return answer
    end)
    assert.equal(10, rate:available())
  end)

  describe("among others, with failures everywhere,", function ()
    local random = math.random

    local function chance(share) return random() < share end
    local function perhaps(share, what)
      if chance(share) then error(what, 0) end
    end

    local ENDS = {
      function () error("raised", 0) end,
      function () return nil, "refused" end,
      function () return nil, { status = 500 + random(0, 3) } end,
      function () return end,
    }

    --- One client, its limits, and what it should have charged.
    local function world()
      local w = { spent = 0, entered = 0, inside = 0, most = 0 }
      w.places, w.tokens = neap.semaphore(3), neap.throttle "1_000_000/day sliding"
      w.adaptive = neap.adaptive { floor = 1, ceiling = 5, initial = 4,
        strategy = function (limit)
          perhaps(0.05, "strategy")
          return limit + random(-1, 1)
        end }
      w.breaker = neap.breaker { ratio = 0.7, of = 6, cooldown = 5, trials = 2 }
      w.windows = neap.backoff_window()
      local provider = setmetatable({
        parse = function (_, fields)
          perhaps(0.1, "parse")
          return { retry_after_s = neap.headers.delay(fields) }
        end,
        apply = function () perhaps(0.1, "apply") end,
      }, { __index = neap.provider "openai" })
      w.api = neap.client {
        limiter = neap.hybrid { w.places, w.adaptive, tokens = w.tokens },
        breaker = chance(0.8) and w.breaker or nil, windows = chance(0.7) and w.windows or nil,
        provider = chance(0.5) and provider or nil, budget = neap.budget { tokens = 20 },
        hedge = chance(0.5) and { after = random() } or nil,
        retry = chance(0.8) and { backoff = "100ms x2 jitter full", max_attempts = 4 } or nil,
        usage = function (response)
          perhaps(0.1, "usage")
          if chance(0.1) then return { tokens = -1 } end
          if chance(0.1) then return nil end
          if response.estimate then w.spent = w.spent + response.used - response.estimate end
          return { tokens = response.used }
        end,
        outcome = function ()
          perhaps(0.1, "outcome")
          return chance(0.1) and "nonsense" or nil
        end,
        classify = chance(0.3) and function (outcome)
          perhaps(0.1, "classify")
          return not outcome.ok
        end or nil,
      }
      return w
    end

    local function call_of(w, estimate)
      return function ()
        w.spent, w.entered, w.inside = w.spent + estimate, w.entered + 1, w.inside + 1
        w.most = math.max(w.most, w.inside)
        local slept = chance(0.3) or rt.sleep(random())
        w.inside = w.inside - 1
        if not slept and chance(0.7) then return nil, "cancelled" end
        if chance(0.5) then return ENDS[random(#ENDS)]() end
        local busy = chance(0.3)
        return { status = busy and 429 or 200, estimate = estimate, used = random(0, 200),
          headers = busy and { ["retry-after"] = "1" } or {} }
      end
    end

    it("leaves nothing taken, and its charges are what was used", function ()
      math.randomseed(seed)
      local leaked = 0
      local stop = neap.events.tap(function () leaked = leaked + 1 end, { "leaked" })
      local entered, words = 0, {}
      for round = 1, 120 do
        local w = world()
        rt.run(function ()
          for _ = 1, 12 do
            local estimate = random(0, 100)
            local task = rt.spawn(function ()
              rt.sleep(random() * 3)
              local ok, value, why = pcall(w.api.call, w.api, call_of(w, estimate), {
                cost = { tokens = estimate }, key = random(2),
                timeout = chance(0.5) and random() * 8 or nil,
                idempotent = ({ true, true, false })[random(3)],
              })
              words[ok and (value and "answer" or tostring(why)) or "raised"] = true
            end)
            if chance(0.3) then
              rt.spawn(function ()
                rt.sleep(random() * 6)
                task:cancel()
              end)
            end
          end
        end)
        local text = "round " .. round
        assert.equal(3, w.places:available(), text)
        assert.equal(0, w.adaptive:in_flight(), text)
        assert.equal(0, tonumber(w.breaker.leaf.as.breaker.out), text)
        assert.equal(1000000 - w.spent, w.tokens:available(), text)
        assert.equal(0, w.inside, text)
        assert.is_true(w.most <= 3, text)
        entered = entered + w.entered
      end
      collectgarbage()
      collectgarbage()
      rt.run(function () rt.sleep(1) end)
      stop()
      assert.equal(0, leaked)
      assert.is_true(entered > 1000)
      for _, word in ipairs { "answer", "raised", "refused", "cancelled", "timeout", "open" } do
        assert.is_true(words[word], word .. " never happened")
      end
    end)
  end)
end)
