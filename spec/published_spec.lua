--- Tables that others publish about their limiters, played by ours. What is compared, and where it
--- comes from, stands above each table in spec/published/.
local ffi = require "ffi"
local C = require "neap.engine"
local clock = require "spec.vectors.clock"
local bucket4j = require "spec.published.bucket4j"
local gubernator = require "spec.published.gubernator"
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

describe("another limit in place, as published by bucket4j", function ()
  local function play(rt, row)
    local name, from, initial, to, mode, levels = unpack(row)
    local t = player.throttle(from[1], from[2] * 1e6, from[3], initial)
    if row.add then t:refund(row.add) end
    for i, level in ipairs(levels) do
      clock.set(rt, level[1] * MS)
      if i == 1 and row.borrow then assert(t:try_acquire(0)):settle(row.borrow) end
      if i == 2 then t:reconfigure(player.rate(to[1], to[2] * 1e6, to[3]), mode) end
      assert.equal(player.ours(level[2]), t:available(), name .. ", at " .. level[1])
    end
  end

  for kind, rows in pairs(bucket4j) do
    for i, row in ipairs(rows) do
      it(("keeps what it should: %s %d, %s"):format(kind, i, row[1]), player.test(function (rt)
        play(rt, row)
      end))
    end
  end
end)

describe("a limit that changes, as published by gubernator", function ()
  for _, case in ipairs(gubernator) do
    it("leaves what it should: " .. case[1], player.test(function ()
      local per_ns = gubernator.per_ms * 1e6
      local t, was
      for i, row in ipairs(case[2]) do
        local limit, remaining, mode = unpack(row)
        if not t then
          t = player.throttle(limit, per_ns, limit)
        elseif limit ~= was or mode then
          t:reconfigure(player.rate(limit, per_ns, limit), mode)
        end
        was = limit
        assert(t:try_acquire())
        assert.equal(remaining, t:available(), "row " .. i)
      end
    end))
  end
end)
