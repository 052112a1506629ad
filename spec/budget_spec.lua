local budget = require "neap.budget"
local hedge = require "neap.hedge"
local in_virtual_time = require "spec.in_virtual_time"
local retry = require "neap.retry"

describe("a retry budget", function ()
  local rt

  in_virtual_time(function (new) rt = new end)

  local function fail() return nil, "no" end

  --- How often it could be had.
  local function attempts(of)
    local n = 0
    while of:take() do n = n + 1 end
    return n
  end

  it("is a share of the first calls in any time, and a few in any case", function ()
    local share = budget { share = 0.2, least = 3, within = "16s" }
    assert.equal(3, share:left())
    assert.equal(3, attempts(share))
    for _ = 1, 20 do share:call() end
    assert.same({ 4, 4, 0 }, { share:left(), attempts(share), share:left() })
    rt.advance "15s"
    assert.equal(0, attempts(share))
    rt.advance "2s"
    assert.equal(3, attempts(share))
    assert.equal("budget of 0", tostring(share))
  end)

  it("is tokens, which failures take and successes bring", function ()
    local grpc = budget { preset = "grpc" }
    for _ = 1, 4 do grpc:failed() end
    assert.equal(0, grpc:take())                 -- 6 are more than half of 10
    grpc:failed()
    assert.is_nil(grpc:take())
    for _ = 1, 9 do grpc:success() end
    assert.equal(5.9, grpc:left())
    assert.equal(0, grpc:take())
    for _ = 1, 20 do grpc:failed() end
    assert.equal(0, grpc:left())
    for _ = 1, 200 do grpc:success() end
    assert.equal(10, grpc:left())
  end)

  it("costs what the outcome before was", function ()
    local purse = budget { tokens = 100, cost = 5, throttled = 3, timeout = 10 }
    local of = retry.outcome
    assert.equal(5, purse:take())
    assert.equal(5, purse:take(of(nil, "refused")))
    assert.equal(3, purse:take(of { status = 429 }))
    assert.equal(3, purse:take(of(nil, { throttled = true })))
    assert.equal(10, purse:take(of(nil, "timed out")))
    assert.equal(74, purse:left())
    assert.equal(10, purse:take(of(nil, "connect timeout")))
    purse = budget { tokens = 2, cost = 1.001 }
    assert.same({ 1.001, 0.999, nil }, { purse:take(), purse:left(), purse:take() })
  end)

  it("bounds the load of retries in an outage, whatever each call may do", function ()
    local share = budget { share = 0.1, within = "10s" }
    local policy = retry { backoff = "10ms", max_attempts = 10, budget = share }
    local calls = 0
    rt.run(function ()
      for _ = 1, 1000 do
        rt.spawn(function () policy:run(function ()
          calls = calls + 1
          return nil, "no"
        end) end)
        rt.sleep "10ms"
      end
    end)
    assert.truthy(calls <= 1100 and calls > 1080, calls)
  end)

  it("is shared by retries and hedges", function ()
    local purse = budget { tokens = 3 }
    local policy = retry { backoff = "1s", max_attempts = 2, budget = purse }
    local race = hedge { after = "1s", budget = purse }
    local calls = 0
    local function slow()
      calls = calls + 1
      return rt.sleep(5)
    end
    rt.run(function ()
      assert.is_true(race:run(slow))
      assert.same({ nil, "no" }, { policy:run(fail) })
      assert.is_true(race:run(slow))
      assert.same({ 4, 0 }, { calls, purse:left() })
      assert.is_true(race:run(slow))
      local began = rt.now()
      assert.same({ nil, "no" }, { policy:run(fail) })
      assert.same({ 5, began }, { calls, rt.now() })
    end)
  end)

  it("is not asked when the next call would come too late anyway", function ()
    local purse = budget { tokens = 3 }
    local policy = retry { backoff = "10s", budget = purse }
    rt.run(function () policy:run(fail, { timeout = "5s" }) end)
    assert.equal(3, purse:left())
  end)

  it("refuses what makes no sense, and says so", function ()
    for options, message in pairs {
      [7] = "a table expected", [{}] = "either a share, { share = 0.2",
      [{ share = 0.2, tokens = 5, within = 1 }] = "either a share",
      [{ share = 0.2 }] = "within: the time of a share is missing",
      [{ share = 0.2, within = 0 }] = "share: up to 1e6 of a time above 0",
      [{ share = -1, within = 1 }] = "share: a number from 0",
      [{ share = 1, within = 1, cost = 1 }] = "cost is not for a share",
      [{ tokens = 5, least = 1 }] = "least is not for tokens",
      [{ tokens = 5, above = 6 }] = "above: not more than the tokens",
      [{ tokens = 0 / 0 }] = "tokens: a number from 0 to 1e9",
      [{ tokens = 5, refund = 1 }] = "refund: true or false",
      [{ token = 5 }] = "did you mean 'tokens'?", [{ preset = "grp" }] = "did you mean 'grpc'?",
    } do
      local ok, err = pcall(function () return budget(options), nil end)
      assert.is_false(ok, message)
      assert.truthy(err:find(message, 1, true), err)
      assert.truthy(err:find "^spec/budget_spec.lua:", err)
    end
    assert.error_matches(function () retry { budget = {} } end, "budget: one made by neap.budget")
  end)
end)
