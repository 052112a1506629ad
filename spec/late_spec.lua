--- A process that stood still: what of its engine's waiters leaves when it goes on.
local ffi = require "ffi"
local C = require "neap.engine"
local bare = require "spec.bare"
local seed = require "spec.seed"

local NEVER = C.neap_never
local MS = 1000000
local LATE, GRACE = 250 * MS, 1000 * MS

local answer, completion = ffi.new "struct neap_answer", ffi.new "struct neap_completion[1]"

describe("an engine that is late", function ()
  local engine, limiters, kept

  local function all(...)
    limiters = { ... }
    local terms = ffi.new("struct neap_term[?]", #limiters)
    for i, l in ipairs(limiters) do terms[i - 1] = { l, 1, 0 } end
    kept = { terms, limiters }
    return ffi.new("struct neap_all", { terms, #limiters })
  end

  local function open(late)
    engine = ffi.gc(C.neap_engine_open(4096, 0), C.neap_engine_close)
    if late then C.neap_engine_late(engine, late, GRACE) end
  end

  local function wait(on, now, deadline, cost)
    local request = ffi.new("struct neap_request", { on, deadline or NEVER, { cost or 1 } })
    assert.equal(0, C.neap_engine_acquire(engine, request, now, answer))
    return tonumber(answer.ticket), answer.status
  end

  --- By then: instants (ms) of grants, and how many gave up or woke.
  local function by(ms)
    C.neap_engine_advance(engine, ms * MS)
    assert.equal(0, C.neap_engine_check(engine))
    local grants, others = {}, 0
    while C.neap_engine_drain(engine, completion, 1) == 1 do
      if completion[0].status == C.NEAP_GRANTED then
        grants[#grants + 1] = tonumber(completion[0].at) / MS
      else
        others = others + 1
      end
    end
    return grants, others
  end

  local function stats()
    local s = ffi.new "struct neap_engine_stats"
    C.neap_engine_stats(engine, s)
    return s
  end

  it("lets a burst go after it stood still, and then goes on at its rate", function ()
    open(LATE)
    local api = all(bare.rate(10, 1000 * MS, 2))
    for _ = 1, 30 do wait(api, 0) end
    assert.same({ 100, 200, 300 }, (by(340)))           -- 40 ms late: each at its instant
    assert.same({ 10340, 10340 }, (by(10340)))
    assert.same({ 10440, 10540 }, (by(10560)))
    assert.equal(1, tonumber(stats().jumps))
  end)

  it("bears what is late up to its bound, and everything unless told", function ()
    for _, late in ipairs { false, LATE } do
      open(late)
      local api = all(bare.rate(10, 1000 * MS, 2))
      for _ = 1, 30 do wait(api, 0) end
      assert.same({ 100, 200, 300 }, (by(350)))   -- the first is 250 ms late
      assert.equal(late and 2 or 7, #by(1051))
      assert.equal(late and 1 or 0, tonumber(stats().jumps))
    end
  end)

  it("grants nobody whose deadline passed meanwhile, and serves those behind", function ()
    open(LATE)
    local api = all(bare.rate(1, 1000 * MS, 1))
    wait(api, 0)
    for _ = 1, 5 do wait(api, 1, 6000 * MS) end
    wait(api, 2)
    assert.same({ {}, 5 }, { {}, select(2, by(9000)) })
    assert.same({ 0, 1 }, { tonumber(stats().waiting), tonumber(stats().granted) })
  end)

  it("gives sleepers that came due meanwhile some grace, and others none", function ()
    open(LATE)
    C.neap_engine_sleep(engine, 2000 * MS, 0)
    C.neap_engine_sleep(engine, 5100 * MS, 0)
    assert.same({ {}, 0 }, { by(5000) })
    assert.same({ {}, 1 }, { by(5100) })
    assert.same({ {}, 0 }, { by(5999) })
    assert.same({ {}, 1 }, { by(6000) })
  end)

  it("finds it out in whatever call comes first", function ()
    for _, call in ipairs { "acquire", "peek", "sleep", "cancel" } do
      open(LATE)
      local api = all(bare.rate(10, 1000 * MS, 2))
      for _ = 1, 10 do wait(api, 0) end
      local request = ffi.new("struct neap_request", { api, NEVER, { 1 } })
      if call == "acquire" then wait(api, 5000 * MS) end
      if call == "peek" then C.neap_engine_peek(engine, request, 5000 * MS, answer) end
      if call == "sleep" then C.neap_engine_sleep(engine, 9000 * MS, 5000 * MS) end
      if call == "cancel" then C.neap_engine_cancel(engine, 1, 5000 * MS) end
      assert.same({ 5000, 5000 }, (by(5000)), call)
    end
  end)

  it("lets no more go than a burst, what the rate gives and what lateness excuses", function ()
    math.randomseed(seed)
    local random = math.random
    for _ = 1, 20 do
      open(LATE)
      local rate, burst = random(1, 200), random(1, 20)
      local calls = bare.permits(random(1, 8))
      local api = all(bare.rate(rate, 1000 * MS, burst), calls)
      local both = { api, kept, limiters }
      local now, out, left = 0, 0, {}
      for _ = 1, 300 do
        now = now + (random(1, 10) == 1 and random(300, 5000) or random(0, 20))
        for _ = 1, random(0, 4) do
          local _, status = wait(both[1], now * MS,
            random(1, 3) == 1 and (now + random(1, 900)) * MS or NEVER)
          if status == C.NEAP_GRANTED then left[#left + 1], out = now, out + 1 end
        end
        local grants = by(now)
        for _ = 1, #grants do left[#left + 1], out = now, out + 1 end
        local request = ffi.new("struct neap_request", { api, NEVER, { 1 } })
        for _ = 1, random(0, 6) do
          if out > 0 then
            C.neap_engine_give(engine, request, C.NEAP_SUCCESS, now * MS, now * MS)
            out = out - 1
          end
        end
        grants = by(now)
        for _ = 1, #grants do left[#left + 1], out = now, out + 1 end
      end
      for i = 1, #left do   -- what really left in any span, and what may
        for k = i, math.min(i + 60, #left) do
          local may = burst + rate * (left[k] - left[i] + LATE / MS) / 1000
          assert.truthy(k - i + 1 <= may + 1e-9, ("%d left within %d ms"):format(k - i + 1,
            left[k] - left[i]))
        end
      end
    end
  end)
end)
