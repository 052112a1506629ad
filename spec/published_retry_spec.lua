--- What botocore publishes about its retries and their quota, played by ours.
local backoff = require "neap.backoff"
local botocore = require "spec.published.botocore"
local budget = require "neap.budget"
local player = require "spec.published.player"
local retry = require "neap.retry"

local function most() return 1 end

local ERRORS = {
  error = { status = 500 }, timeout = "read timeout",
  throttled = { status = 400, throttled = true },
}

describe("a retry, as published by botocore", function ()
  it("backs off along its curves", function ()
    for _, curve in ipairs(botocore.curves) do
      local policy = backoff { preset = "botocore", base = curve[1], random = most }
      for i, delay in ipairs(curve[2]) do
        assert.near(delay, policy:delay(i - 1), 1e-9, curve[1] .. ", attempt " .. i)
      end
    end
  end)

  it("spreads evenly at the cap, within 20 % in 20 parts", function ()
    local policy, parts = backoff { preset = "botocore", base = "50ms", seed = 7 }, {}
    for _ = 1, 10000 do
      local part = math.floor(policy:delay(9))
      parts[part] = (parts[part] or 0) + 1
    end
    for part = 0, 19 do assert.near(500, parts[part], 100, "part " .. part) end
  end)

  it("takes from a quota what is there, and gives back no more than was", player.test(function ()
    for _, rows in ipairs(botocore.quota_of_50) do
      local purse
      for i, row in ipairs(rows) do
        local verb, amount, granted, left = unpack(row)
        purse = purse or budget { tokens = 50, refund = true }
        purse.cost = amount
        if verb == "acquire" then
          assert.equal(granted, purse:take() ~= nil, "row " .. i)
        else
          purse:success(amount)
        end
        assert.equal(left, purse:left(), "row " .. i)
      end
    end
  end))

  it("has its numbers", player.test(function ()
    local cost, newer = botocore.cost, botocore.cost_2_1
    local old, new = budget { preset = "botocore" }, budget { preset = "botocore_2_1" }
    assert.same({ cost.retry, cost.timeout, cost.unused }, { old.cost, old.timeout, old.reward })
    assert.same({ newer.retry, newer.throttled, newer.unused },
      { new.cost, new.throttled, new.reward })
    assert.same({ botocore.quota, botocore.quota }, { old:left(), new:left() })
    assert.equal(botocore.max_attempts, retry({ preset = "botocore" }).max_attempts)
  end))

  it("pays for a retry, and gets it back when that succeeds", player.test(function ()
    for i, row in ipairs(botocore.accounts) do
      local purse = budget { preset = "botocore_2_1" }
      local policy = retry { backoff = "50ms", max_attempts = 2, budget = purse }
      local state = policy:begin()
      assert.truthy(policy:step(state, retry.outcome(nil, ERRORS[row[1]])))
      assert.equal(row[2], purse:left(), "row " .. i)
      policy:step(state, row.success and retry.outcome(1) or retry.outcome(nil, ERRORS.error))
      assert.equal(row.success or row.failure, purse:left(), "row " .. i)
    end
    local purse = budget { preset = "botocore_2_1" }
    local policy = retry { backoff = "50ms", max_attempts = 4, budget = purse }
    local state = policy:begin()
    for _, left in ipairs(botocore.drained) do
      assert.truthy(policy:step(state, retry.outcome(nil, ERRORS.error)))
      assert.equal(left, purse:left())
    end
    assert.same({ nil, "max_attempts" }, { policy:step(state, retry.outcome(nil, ERRORS.error)) })
    policy:step(policy:begin(), retry.outcome(1))         -- one without retries
    assert.equal(459, purse:left())
    local few = budget { preset = "botocore_2_1", tokens = 13 }
    local empty = retry { backoff = "50ms", budget = few }
    assert.same({ nil, "budget" }, { empty:step(empty:begin(), retry.outcome(nil, ERRORS.error)) })
  end))

  it("follows a hint within its bounds", player.test(function ()
    for _, row in ipairs(botocore.retry_after) do
      local policy = retry {
        backoff = { preset = "botocore", base = "50ms", random = most }, hint = "at_least",
        hint_over = botocore.retry_after_over_s,
      }
      local ms = tonumber(row[1])
      local delay = policy:step(policy:begin(), retry.outcome(nil,
        { retry_after = ms and ms / 1000 }))
      assert.near(row[2], delay, 1e-9, row[1])
    end
  end))
end)
