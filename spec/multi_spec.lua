local hybrid = require "neap.hybrid"
local in_virtual_time = require "spec.in_virtual_time"
local multi = require "neap.multi"
local pause = require "neap.pause"
local seed = require "spec.seed"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

local huge, random = math.huge, math.random


describe("a multi", function ()
  local rt

  in_virtual_time(function (new) rt = new end)

  local function fails(cases)
    for message, fn in pairs(cases) do
      local ok, err = pcall(function () fn() return true end)
      assert.is_false(ok, message)
      assert.is_truthy(err:find(message, 1, true), ("%s\nis not in\n%s"):format(message, err))
      assert.is_truthy(err:find("multi_spec.lua", 1, true), "blames someone else: " .. err)
    end
  end

  local function llm(options)
    return multi({ { "requests", "60/min" }, { "tokens", "1000/min" } }, options)
  end

  it("charges each dimension its own, or nobody", function ()
    local m = multi { requests = "10/s", tokens = "1000/s" }
    assert(m:try_acquire { requests = 1, tokens = 1000 })
    assert.same({ nil, "rate", 0.001 }, { m:try_acquire { requests = 1, tokens = 1 } })
    assert.same({ 9, 0, 0 }, { m:available "requests", m:available "tokens", m:available() })
    assert.same({ 10, 1000, 10 }, { m:capacity "requests", m:capacity "tokens", m:capacity() })
    assert.equal("tokens", m:why { requests = 1, tokens = 1 }.limiter)
    assert.is_true(m:peek { requests = 9 })
    assert(m:acquire { { "requests", 1 }, { "tokens", 30 }, timeout = 1 })
    assert.equal(0.03, rt.now())
    assert.equal("requests and tokens", tostring(m))
    assert.equal("openai", tostring(llm { name = "openai" }))
  end)

  it("takes costs as a table, in order, apart from how long to wait", function ()
    local m = llm()
    for i, given in ipairs {
      { requests = 1, tokens = 10 }, { { "tokens", 10 }, { "requests", 1 } },
      { cost = { requests = 1, tokens = 10 } }, { cost = { { "requests", 1 }, { "tokens", 10 } } },
    } do
      assert(m:try_acquire(given))
      assert.same({ 60 - i, 1000 - 10 * i }, { m:available "requests", m:available "tokens" })
    end
    assert(m:acquire({ { "tokens", 960 } }, 2))
    assert.same({ nil, "timeout", 0.06 }, { m:acquire({ { "tokens", 1 } }, { timeout = 0 }) })
    assert.same({ nil, "timeout", 0.06 },
      { m:acquire { { "tokens", 1 }, deadline = rt.now_ns() } })
  end)

  it("takes the first of two costs with one name", function ()
    local m = llm()
    assert(m:try_acquire { { "tokens", 10 }, { "tokens", 500 } })
    assert.equal(990, m:available "tokens")
    assert.is_nil(m:why { { "tokens", 10 }, { "tokens", 5000 } })
    assert.equal("requests",
      m:why { { "tokens", 10 }, { "tokens", 5000 }, { "requests", 61 } }.limiter)
  end)

  it("charges nobody for nothing, and 1 each when no costs are said", function ()
    local m = llm()
    for _, given in ipairs { {}, { cost = {} }, { requests = 0 } } do
      assert(m:try_acquire(given))
      assert(m:acquire(given))
    end
    assert(m:acquire({}, 1))
    assert.same({ 60, 1000 }, { m:available "requests", m:available "tokens" })
    assert(m:try_acquire())
    assert(m:acquire { timeout = 2 })
    assert(m:try_acquire(3))
    assert.same({ 55, 995 }, { m:available "requests", m:available "tokens" })

    m = multi { one = "1/s" }
    assert(m:try_acquire())
    assert(m:try_acquire { one = 0 })   -- dry, and still free
    assert(multi {}:try_acquire(7))
  end)

  it("names the dimension that refuses", function ()
    local m = llm()
    assert(m:try_acquire { requests = 60, tokens = 1000 })
    assert.same({ nil, "rate", 1.2 }, { m:try_acquire { requests = 1, tokens = 20 } })
    local reason = m:why { requests = 1, tokens = 20 }
    assert.same({ "tokens", "rate", 20, 1000, 0, 1.2 }, { reason.limiter, reason.word, reason.cost,
      reason.capacity, reason.balance, reason.wait })
    assert.equal("requests: needs 2 of 60, has 0; free in 2s",
      tostring(m:why { requests = 2, tokens = 20 }))
    assert.equal("tokens: needs 1001 of 1000, more than there can be",
      tostring(m:why { requests = 60, tokens = 1001 }))
  end)

  it("of several that hold up as long, the first: in the call's order, if it has one", function ()
    local m = llm()
    local function order(n, first, second) return { { first, n }, { second, n } } end
    assert.equal("tokens", m:why(order(1001, "tokens", "requests")).limiter)
    assert.equal("requests", m:why(order(1001, "requests", "tokens")).limiter)
    assert.equal("tokens", m:why { cost = order(1001, "tokens", "requests") }.limiter)
    assert.equal("tokens", m:why { { "requests", 1 }, { "tokens", 1001 } }.limiter)
    assert.equal("requests", m:why { requests = 1001, tokens = 1001 }.limiter)

    m = multi { { "a", "1/s" }, { "b", "1/s" } }
    assert(m:try_acquire())
    assert.equal("b", m:why(order(1, "b", "a")).limiter)
    assert.equal("a", m:why { a = 1, b = 1 }.limiter)
  end)

  it("charges all dimensions of a name, and asks the first", function ()
    local fast, slow = throttle "10/s", throttle "3/s"
    local m = multi { { "r", fast }, { "r", slow }, { "r", "5 in flight" } }
    for _ = 1, 3 do assert(m:try_acquire { r = 1 }):settle(1) end
    assert.same({ nil, "rate", 0.333333334 }, { m:try_acquire { r = 1 } })
    assert.same({ 7, 10, 0 }, { m:available "r", m:capacity "r", m:available() })
    assert.same({ 7, 0 }, { fast:available(), slow:available() })
    assert.equal("r: needs 1 of 3, has 0; free in 334ms", tostring(m:why { r = 1 }))
  end)

  it("refuses names it does not know", function ()
    local m = multi { requests = "60/min", tokens = "1000/min" }
    local held = m:try_acquire { tokens = 1 }
    fails {
      ['cost "tokns" is not known: there are requests, tokens (did you mean \'tokens\'?)'] =
        function () m:try_acquire { tokns = 1 } end,
      ['cost "Requests" is not known: there are requests, tokens (did you mean \'requests\'?)'] =
        function () m:acquire { { "tokens", 1 }, { "Requests", 1 } } end,
      ['cost "x" is not known: there are requests, tokens'] = function () m:peek { x = 1 } end,
      ['cost "request" is not known'] = function () m:why { request = 1 } end,
      ['cost "token" is not known'] = function () held:settle { token = 1 } end,
      ['cost "tokenz" is not known: there are requests, tokens (did you mean \'tokens\'?)'] =
        function () m:available "tokenz" end,
      ['cost "timeot" is not known'] = function () m:with({ timeot = 1 }, print) end,
    }
    assert.same({ 60, 999 }, { m:available "requests", m:available "tokens" })
  end)

  it("lets them be free of charge when it is lenient", function ()
    local m = llm { lenient = true }
    assert(m:try_acquire { { "requests", 1 }, { "nonexistent", 999 } })
    assert(m:try_acquire { requests = 1, tokns = 1e6 })
    assert(m:acquire { nonexistent = 5 })
    assert(m:try_acquire { tokens = 9, x = 1 }):settle { tokens = 8, y = 3 }
    assert.same({ 58, 992 }, { m:available "requests", m:available "tokens" })
    assert.is_nil(m:available "nonexistent")
    assert.is_nil(m:capacity "nonexistent")
    fails {
      ["cost tokns: a whole number from 0 to 2^53 expected, got -1"] =
        function () m:try_acquire { tokns = -1 } end,
      ["cost 5 is not known"] = function () m:try_acquire { [5] = 1 } end,
    }
    local outer = hybrid { m }
    assert.error_matches(function () outer:try_acquire { tokns = 1 } end, "is not known")
  end)

  it("gives back what was reserved and not used, to those in line, too", function ()
    local m = llm()
    local held = assert(m:try_acquire { requests = 1, tokens = 1000 })
    local task = rt.spawn(function () return m:acquire { tokens = 700 } ~= nil, rt.now() end)
    rt.turn(0)
    assert(held:settle { { "tokens", 300 } })
    assert.same({ true, 0 }, { task:join() })
    assert.same({ 59, 0 }, { m:available "requests", m:available "tokens" })
  end)

  it("is its dimensions, each asked by itself, and the slowest of them", function ()
    math.randomseed(seed)
    local NAMES = { "a", "b", "c" }
    for _ = 1, 60 do
      local dimensions, alone = {}, {}
      for i, name in ipairs(NAMES) do
        local limit = ("%d/%ds burst %d"):format(random(9), random(5), random(20))
        dimensions[i], alone[name] = { name, limit }, throttle(limit)
      end
      local m = multi(dimensions)
      for step = 1, 100 do
        local costs, pairs_of = {}, {}
        for _, name in ipairs(NAMES) do
          costs[name] = random() < 0.7 and random(0, 6) or nil
          if costs[name] then
            table.insert(pairs_of, random(#pairs_of + 1), { name, costs[name] })
          end
        end
        local all, wait, slowest = true, 0, nil
        for name, n in pairs(costs) do
          local ok, _, wait_s = alone[name]:peek(n)
          if not ok then
            all = false
            if (wait_s or huge) > wait then wait, slowest = wait_s or huge, name end
          end
        end
        local given = random() < 0.5 and costs or pairs_of
        if step % 2 == 0 then given = { cost = given } end
        local held, _, wait_s = m:try_acquire(given)
        assert.equal(all, held ~= nil)
        if all then
          for name, n in pairs(costs) do assert(alone[name]:try_acquire(n)) end
        else
          assert.equal(wait, wait_s or huge)
          local named = m:why(given).limiter
          local _, _, its_wait = alone[named]:peek(costs[named])
          assert.equal(wait, its_wait or huge, slowest .. " is slowest, " .. named .. " is named")
        end
        for _, name in ipairs(NAMES) do assert.equal(alone[name]:available(), m:available(name)) end
        rt.advance(random() * 0.8)
      end
    end
  end)

  it("has any limiter as a dimension, and is one anywhere", function ()
    local calls, p = semaphore(2), pause()
    local q = { left = 3, name = "quota" }
    function q.peek(_, n) if n <= q.left then return true end return nil, "rate", 4 end
    function q.take(_, n) q.left = q.left - n return true end
    function q.settle(_, n, used) q.left = q.left + n - used end
    function q.available() return q.left end
    local inner = multi { calls = calls, window = "3/s sliding", stop = p }
    local m = multi { { "quota", q }, { "inner", inner }, { "all", hybrid { "9/s", llm() } } }
    local outer = hybrid { m, "20/s" }

    local held = assert(outer:try_acquire { calls = 1, window = 2, quota = 1, all = 3, tokens = 7 })
    assert.same({ 1, 1, 2, 6, 993 }, { m:available "calls", m:available "window",
      m:available "quota", m:available "all", outer:available "tokens" })
    assert.equal(1, calls:available())
    assert.same({ nil, "rate", 4 }, { m:try_acquire { quota = 3, calls = 1 } })
    assert.equal("quota", m:why { { "quota", 3 }, { "calls", 1 } }.limiter)
    assert.same({ nil, "busy" }, { m:try_acquire { calls = 2 } })
    held:release()
    assert(m:acquire {})
    assert.equal(2, m:available "quota")
    assert(m:acquire { cost = { { "quota", 1 } }, timeout = 1 })
    assert(m:acquire({ all = 1 }, "1s")):settle { all = 0 }
    assert.same({ 1, 6 }, { m:available "quota", m:available "all" })
    p:extend(2)
    assert(m:acquire { calls = 1 })
    assert.equal(0, rt.now())            -- who does not name it is not stopped
    assert.equal("stop", outer:why { stop = 1 }.limiter)
    assert(outer:acquire { stop = 1 })
    assert.equal(2, rt.now())
    calls:close()
    assert.same({ nil, "closed" }, { outer:try_acquire {} })
    assert.equal("closed", m:why { { "calls", 1 } }.word)
  end)

  it("keeps what it is made of, with everything that is found through it", function ()
    local names = setmetatable({}, { __mode = "v" })
    names.calls = semaphore(3)
    local m = multi { calls = names.calls }
    collectgarbage()
    collectgarbage()
    names.calls:reconfigure(1)
    assert.equal(1, m:capacity "calls")
  end)

  it("refuses what makes no sense", function ()
    local many = {}
    for i = 1, 9 do many["n" .. i] = "1/s" end
    local m = llm()
    fails {
      ["multi: dimensions expected, as in"] = function () multi "10/s" end,
      ["multi: dimension 1: a pair { name, limit } expected, got 10/s"] =
        function () multi { "10/s" } end,
      ["multi: dimension 2: a pair"] = function () multi { { "a", "1/s" }, { "1/s" } } end,
      ["multi: 3 is neither a place in the list nor a name"] =
        function () multi { [1] = { "a", "1/s" }, [3] = { "b", "1/s" } } end,
      ["multi: tokens: unknown time unit 'mn'"] = function () multi { tokens = "5/mn" } end,
      ["multi: tokens: a limiter or a text such as \"10/s\" expected, got 5"] =
        function () multi { tokens = 5 } end,
      ["multi: a: unknown time unit 'q'"] =
        function () multi { { "a", "1/q" }, { "a", "1/s" } } end,
      ["multi: 'timeout' cannot be a name"] = function () multi { timeout = "1/s" } end,
      ["multi: 9 different costs, at most 8 are possible"] = function () multi(many) end,
      ["option 'strict' is not known"] = function () llm { strict = true } end,
      ["lenient: true or false expected, got 1"] = function () llm { lenient = 1 } end,
      ["cost 1: a pair { name, cost } expected, got \"tokens\""] =
        function () m:try_acquire { "tokens" } end,
      ["cost 2: a pair { name, cost } expected"] =
        function () m:peek { { "tokens", 1 }, { "requests" } } end,
      ["cost tokens: a whole number from 0 to 2^53 expected, got 0.5"] =
        function () m:try_acquire { { "requests", 1 }, { "tokens", 0.5 } } end,
      ["cost requests: a whole number from 0 to 2^53 expected, got nan"] =
        function () m:try_acquire { requests = 0 / 0 * -1 } end,
      ['cost "tokens" stands beside a list of them: put it in there'] =
        function () m:acquire { { "requests", 1 }, tokens = 5 } end,
      ["timeout: only acquire waits"] = function () m:peek { tokens = 1, timeout = huge } end,
    }
    assert.same({ 60, 1000 }, { m:available "requests", m:available "tokens" })
  end)
end)
