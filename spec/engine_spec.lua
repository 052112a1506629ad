--- Engine: who waits, and when each may go, as stories in virtual time. Random traffic against a
--- model is in spec/c/property_engine.c, long lines in spec/c/property_waiting.c.
local ffi = require "ffi"
local C = require "neap.engine"
local bare = require "spec.bare"

local NEVER = C.neap_never
local STATUS, outcome, permits, rate = bare.STATUS, bare.outcome, bare.permits, bare.rate

local answer, completion = ffi.new "struct neap_answer", ffi.new "struct neap_completion[1]"

--- An all over these limiters, each for the same cost; it keeps them alive.
local function all(...)
  local limiters = { ... }
  local terms = ffi.new("struct neap_term[?]", #limiters)
  for i, l in ipairs(limiters) do terms[i - 1] = { l, 1, 0 } end
  return { c = ffi.new("struct neap_all", { terms, #limiters }), terms = terms, keep = limiters }
end

--- An engine whose people have names.
local Story = {}
Story.__index = Story

local function story(places)
  local engine = C.neap_engine_open(places or 100, 0)
  assert(engine ~= nil, "no memory")
  return setmetatable({ engine = ffi.gc(engine, C.neap_engine_close), name = {}, ticket = {} },
    Story)
end

local function request(a, cost, deadline)
  return ffi.new("struct neap_request", { a.c, deadline or NEVER, { cost or 1 } })
end

function Story:acquire(who, now, a, cost, deadline)
  assert.equal(0, C.neap_engine_acquire(self.engine, request(a, cost, deadline), now, answer))
  self.ticket[who], self.name[tonumber(answer.ticket)] = answer.ticket, who
  return outcome(answer)
end

function Story:try(now, a, cost)
  C.neap_engine_try(self.engine, request(a, cost), now, answer)
  return outcome(answer)
end

function Story:give(now, a, cost)
  C.neap_engine_give(self.engine, request(a, cost), C.NEAP_SUCCESS, now, now)
end

function Story:cancel(who, now) return C.neap_engine_cancel(self.engine, self.ticket[who], now) end

--- What has happened by now, each as { who, how, when }, in order.
function Story:by(now)
  C.neap_engine_advance(self.engine, now)
  assert.equal(0, C.neap_engine_check(self.engine))
  local seen = {}
  while C.neap_engine_drain(self.engine, completion, 1) == 1 do
    local c = completion[0]
    seen[#seen + 1] = { self.name[tonumber(c.ticket)], STATUS[c.status], tonumber(c.at) }
  end
  return seen
end

function Story:stats()
  local s = ffi.new "struct neap_engine_stats"
  C.neap_engine_stats(self.engine, s)
  return s
end

describe("engine", function ()
  it("grants in order of arrival, each at its exact instant, however late the loop", function ()
    local s, api = story(), all(rate(1, 1000, 1))
    assert.same({ "granted", 0 }, { s:acquire("ann", 0, api) })
    assert.same({ "waits", 1000 }, { s:acquire("bob", 10, api) })
    assert.same({ "waits", 2000 }, { s:acquire("cid", 20, api) })
    assert.same({ "waits", 3000 }, { s:acquire("dot", 30, api) })
    assert.same({}, s:by(999))
    assert.same({ { "bob", "granted", 1000 }, { "cid", "granted", 2000 } }, s:by(2999))
    assert.same({ { "dot", "granted", 3000 } }, s:by(1000000))
  end)

  it("wakes once per grant", function ()
    local s, api = story(1000), all(rate(7, 1000, 1), permits(1000))
    for i = 1, 1000 do s:acquire(i, 0, api) end
    while C.neap_engine_next_due(s.engine) < NEVER do
      C.neap_engine_advance(s.engine, C.neap_engine_next_due(s.engine))
    end
    local stats = s:stats()
    assert.equal(999LL, stats.granted)   -- the first one did not wait
    assert.equal(stats.granted, stats.wakeups)
  end)

  it("lets nobody barge, but lets pass who needs nothing that is waited for", function ()
    local tokens, slots = rate(1, 1000, 4), permits(1)
    local s, both, only_tokens = story(), all(tokens, slots), all(tokens)
    assert.same({ "granted", 0 }, { s:acquire("ann", 0, both) })
    assert.same({ "waits", "on give" }, { s:acquire("bob", 0, both) })
    assert.same({ "refused", "on give" }, { s:try(0, both) })
    assert.same({ "granted", 0 }, { s:try(0, only_tokens, 3) })   -- bob holds no token
    assert.same({ "waits", 2000 }, { s:acquire("cid", 0, only_tokens, 2) })
    assert.same({ "refused", 3000 }, { s:try(1000, only_tokens) })   -- there is one, for cid
    assert.same({ { "cid", "granted", 2000 } }, s:by(2500))
  end)

  it("does not starve a heavy request behind light ones", function ()
    local s, slots = story(), all(permits(4))
    s:acquire("ann", 0, slots, 2)
    assert.same({ "waits", "on give" }, { s:acquire("heavy", 0, slots, 4) })
    assert.same({ "waits", "on give" }, { s:acquire("light", 0, slots, 1) })
    s:give(10, slots, 2)
    assert.same({ { "heavy", "granted", 10 } }, s:by(10))
    s:give(20, slots, 4)
    assert.same({ { "light", "granted", 20 } }, s:by(20))
  end)

  it("moves the others forward, exactly, when one leaves", function ()
    local s, api = story(), all(rate(1, 1000, 1))
    for _, who in ipairs { "ann", "bob", "cid", "dot" } do s:acquire(who, 0, api) end
    assert.equal(1, s:cancel("cid", 500))
    assert.equal(0, s:cancel("cid", 500))
    assert.equal(0, s:cancel("ann", 500))   -- never had to wait
    assert.same({
      { "cid", "cancelled", 500 }, { "bob", "granted", 1000 }, { "dot", "granted", 2000 },
    }, s:by(5000))
  end)

  it("refuses a deadline at once that cannot be met, and says what could have been", function ()
    local s, api = story(), all(rate(1, 1000, 1))
    s:acquire("ann", 0, api)
    s:acquire("bob", 0, api)
    assert.same({ "timeout", 2000 }, { s:acquire("cid", 0, api, 1, 1999) })
    assert.same({ "waits", 2000 }, { s:acquire("dot", 0, api, 1, 2000) })
    assert.same({ { "bob", "granted", 1000 }, { "dot", "granted", 2000 } }, s:by(2000))
  end)

  it("keeps a deadline that comes while one waits", function ()
    local s, slots = story(), all(permits(1))
    s:acquire("ann", 0, slots)
    s:acquire("bob", 0, slots, 1, 300)
    s:acquire("cid", 0, slots, 1, 200)
    s:acquire("dot", 0, slots)
    assert.same({ { "cid", "timeout", 200 }, { "bob", "timeout", 300 } }, s:by(1000))
    s:give(1000, slots)
    assert.same({ { "dot", "granted", 1000 } }, s:by(1000))
  end)

  it("does not refuse a deadline for the sake of those who may wait elsewhere", function ()
    local tokens = rate(1, 1000, 1)
    local s, hybrid, plain = story(), all(tokens, permits(1)), all(tokens)
    s:try(0, plain)
    for i = 1, 11 do s:acquire("hybrid " .. i, 0, hybrid) end   -- one of them will get the permit
    assert.equal("waits", (s:acquire("plain", 0, plain, 1, 5000)))
    assert.same({ { "hybrid 1", "granted", 1000 }, { "plain", "granted", 2000 } }, s:by(5000))
  end)

  it("says never to a cost above a capacity, also when that was lowered meanwhile", function ()
    local slots = permits(4)
    local s, a = story(), all(slots)
    assert.equal("never", (s:acquire("ann", 0, a, 5)))
    s:acquire("bob", 0, a, 3)
    s:acquire("cid", 0, a, 3)
    slots.as.semaphore.limit = 2
    C.neap_engine_touch(s.engine, slots, 50)
    assert.same({ { "cid", "never", 50 } }, s:by(50))
  end)

  it("asks its waiters anew when what was spent is settled", function ()
    local s, api = story(), all(rate(1, 1000, 10))
    s:acquire("ann", 0, api, 10)
    s:acquire("bob", 0, api, 4)   -- at 4000
    local function costs(n) return ffi.new("int64_t[8]", { n }) end
    C.neap_engine_settle(s.engine, request(api, 10), costs(7), 0, 100)
    assert.same({ { "bob", "granted", 1000 } }, s:by(4000))
  end)

  it("is full at waiters_max, until endings are drained", function ()
    local s, slots = story(2), all(permits(1))
    s:acquire("ann", 0, slots)
    s:acquire("bob", 0, slots)
    local nap = C.neap_engine_sleep(s.engine, 100, 0)
    s.name[tonumber(nap)] = "nap"
    assert.equal("full", (s:acquire("cid", 0, slots)))
    assert.equal(0LL, C.neap_engine_sleep(s.engine, 100, 0))
    C.neap_engine_advance(s.engine, 100)
    assert.equal("full", (s:acquire("cid", 100, slots)))
    assert.same({ { "nap", "woken", 100 } }, s:by(100))
    assert.equal("waits", (s:acquire("cid", 100, slots)))
  end)

  it("never uses a ticket twice, and a Lua number holds it", function ()
    local s, api, seen = story(1), all(permits(1)), {}
    s:acquire("holder", 0, api)
    for i = 1, 1000 do
      s:acquire(i, 0, api)
      local ticket = tonumber(s.ticket[i])
      assert.is_true(ticket >= 1 and ticket < 2^53 and not seen[ticket])
      seen[ticket] = true
      assert.equal(1, s:cancel(i, 0))
      assert.same({ { i, "cancelled", 0 } }, s:by(0))
    end
  end)

  it("uses places in turn, so that a ticket's number comes again as late as can be", function ()
    local s, api = story(3), all(permits(1))
    s:acquire("holder", 0, api)
    for i = 1, 3 do s:acquire(i, 0, api) end
    for i = 1, 3 do s:cancel(i, 0) end
    s:by(0)
    for i = 4, 9 do
      s:acquire(i, 0, api)
      assert.equal(s.ticket[i - 3] % 2^24, s.ticket[i] % 2^24)   -- index; above it, generation
      s:cancel(i, 0)
      s:by(0)
    end
  end)

  it("counts a clock that steps back as the latest it has seen", function ()
    local s, api = story(), all(rate(1, 1000, 1))
    s:acquire("ann", 5000, api)
    assert.same({ "waits", 6000 }, { s:acquire("bob", 10, api) })
    assert.same({}, s:by(5999))
    assert.same({ { "bob", "granted", 6000 } }, s:by(6000))
  end)
end)

describe("an engine under overload", function ()
  --- Two limits whose tokens come in turn, each taken as it comes by somebody who asks it alone,
  --- and one, at time 0, who needs both and can never have both. Who takes them: try(who, at).
  local function alternating(a_ns, b_ns)
    local a, b = rate(1, a_ns, 1), rate(1, b_ns, 1)
    return story(), { both = all(a, b), a = all(a), b = all(b) }
  end

  it("starves nobody who needs two limits that others take in turn", function ()
    local s, ask = alternating(2000, 2000)
    assert.equal("granted", (s:try(0, ask.a)))
    assert.same({ "waits", 2000 }, { s:acquire("both", 0, ask.both) })
    for at = 1000, 8000, 1000 do   -- whichever it does not stand at
      assert.equal("granted", (s:try(at, at % 2000 == 0 and ask.a or ask.b)))
      assert.same({}, s:by(at))
    end
    -- B's token is there, A's comes at 10000, and since its 8th move nobody takes B's before that
    assert.same({ "refused", 9001 }, { s:try(9000, ask.b) })
    assert.same({ "waits", 9501 }, { s:acquire("light", 9500, ask.b) })
    assert.same({ { "both", "granted", 10000 } }, s:by(11999))
    assert.same({ { "light", "granted", 12000 } }, s:by(12000))
    assert.equal("granted", (s:try(12000, ask.a)))
    assert.equal(NEVER, C.neap_engine_next_due(s.engine))
  end)

  it("lets others have meanwhile what comes back before an urgent one goes", function ()
    local s, ask = alternating(1000, 100000)   -- per second, so to say, and per day
    s:try(0, ask.b)
    s:acquire("both", 0, ask.both)             -- stands at b until 100000
    for day = 1, 5 do
      local taken = 0
      for at = day * 100000 - 99500, day * 100000 - 500, 1000 do
        if s:try(at, ask.a) == "granted" then taken = taken + 1 end
      end
      assert.equal(day < 5 and 100 or 99, taken)
      if day < 5 then
        assert.same({}, s:by(day * 100000))    -- b has a token, and a has none
        assert.equal("granted", (s:try(day * 100000, ask.b)))
      end
    end
    assert.same({ { "both", "granted", 500000 } }, s:by(500000))
  end)

  it("lets the elder go first when two wait apart for what is free at one instant", function ()
    local a, b, third = permits(2), permits(2), permits(2)
    local s, a_and_b, at_a, at_b = story(), all(a, b), all(a, third), all(b, third)
    s:acquire("holder", 0, a_and_b, 2)
    s:acquire("ann", 1, at_a)
    s:acquire("bob", 2, at_b)
    s:acquire("cid", 3, at_a)                  -- behind ann
    s:give(10, a_and_b, 2)
    assert.same({ { "ann", "granted", 10 }, { "bob", "granted", 10 } }, s:by(10))
    s:give(20, at_b)
    assert.same({ { "cid", "granted", 20 } }, s:by(20))
  end)
end)

describe("what a hostile reading found, and engine", function ()
  it("tells the place in a sliding window's line in whole windows", function ()
    local log = ffi.new "struct neap_stamp[10]"
    local l = ffi.new("struct neap_limiter", { kind = C.NEAP_WINDOW })
    assert.equal(0, C.neap_window_init(l.as.window, 10, 1000, log, 10))
    local s, a = story(), all(l)
    for i = 1, 10 do assert.equal("granted", (s:acquire("first" .. i, 0, a))) end
    for i = 1, 24 do s:acquire("w" .. i, 0, a) end
    local status, at = s:acquire("late", 0, a, 1, 2999)
    assert.same({ "timeout", 3000 }, { status, at })
    assert.same({ "waits", 3000 }, { s:acquire("in time", 0, a, 1, 3000) })
    assert.is_true(log ~= nil)
  end)

  it("asks nobody who waits for time when a permit comes back", function ()
    local s, a = story(), all(rate(10, 1000, 1), permits(4))
    s:acquire("goes", 0, a)
    s:acquire("waits", 0, a)
    local before = ffi.new "struct neap_engine_stats"
    C.neap_engine_stats(s.engine, before)
    C.neap_engine_give(s.engine, request(a), C.NEAP_SUCCESS, 10, 10)
    local after = ffi.new "struct neap_engine_stats"
    C.neap_engine_stats(s.engine, after)
    assert.equal(before.wakeups, after.wakeups)
    assert.equal(100, tonumber(C.neap_engine_next_due(s.engine)))
  end)

  it("opens for no more waiters than tickets can name", function ()
    assert.is_true(C.neap_engine_open(0, 0) == nil)
    assert.is_true(C.neap_engine_open(2 ^ 24 + 1, 0) == nil)
    assert.is_true(C.neap_engine_open(1, C.neap_horizon) == nil)
  end)
end)
