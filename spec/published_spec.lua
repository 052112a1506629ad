--- Tables that others publish about their limiters, played by ours. What is compared, and where it
--- comes from, stands above each table in spec/published/.
local ffi = require "ffi"
local C = require "neap.engine"
local clock = require "spec.vectors.clock"
local player = require "spec.published.player"
local resilience4j = require "spec.published.resilience4j"
local throttled = require "spec.published.throttled"

local MS = 1000000LL

describe("a rate, as published by throttled", function ()
  it("answers its 15 rows", player.test(function (rt)
    local t = player.throttle(throttled.amount, throttled.per_ms * 1e6, throttled.burst)
    for i, row in ipairs(throttled) do
      local at, quantity, limited, remaining, reset, retry = unpack(row)
      clock.set(rt, at * MS)
      local held, _, wait_s = t:try_acquire(quantity)
      local _, _, full_s = t:peek(t:capacity())
      assert.same({ limited, remaining, reset, retry },
        { not held, t:available(), (full_s or 0) * 1e3, wait_s and wait_s * 1e3 or -1 },
        "row " .. i)
    end
    assert.equal(15, #throttled)
  end))

  it("answers them in the arithmetic of CL.THROTTLE, in whole seconds", function ()
    local cell, reply = ffi.new "struct neap_cell", ffi.new "struct neap_cell_reply"
    assert.equal(0, C.neap_cell_init(cell, throttled.burst - 1, throttled.amount,
      throttled.per_ms * MS))
    for i, row in ipairs(throttled) do
      local at, quantity, limited, remaining, reset, retry = unpack(row)
      C.neap_cell_take(cell, reply.tat, quantity, at * MS, reply)
      assert.same({ limited, remaining, math.ceil(reset / 1e3), math.ceil(retry / 1e3) }, {
        reply.limited == 1, tonumber(reply.remaining), tonumber(reply.reset_s),
        retry > 0 and tonumber(reply.retry_s) or math.ceil(retry / 1e3),
      }, "row " .. i)
    end
  end)
end)

describe("a bucket, as published by resilience4j", function ()
  it("answers its 33 rows", player.test(function (rt)
    local t = player.throttle(resilience4j.amount, resilience4j.per_ns, resilience4j.burst)
    for i, row in ipairs(resilience4j) do
      local at, before, asked, after, granted = unpack(row)
      clock.set(rt, at * 1LL)
      local had = t:available()
      local held = t:try_acquire(asked)
      clock.set(rt, at + 1LL)
      assert.same({ before, granted, after }, { had, held ~= nil, t:available() }, "row " .. i)
    end
    assert.equal(33, #resilience4j)
  end))
end)
