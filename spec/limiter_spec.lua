--- Limiter: any kind through the same verbs, and all of several. Random traffic is in
--- spec/c/property_all.c, other threads in spec/c/threads_*.c.
local ffi = require "ffi"
local C = require "neap.engine"
local bare = require "spec.bare"

local NEVER, ON_GIVE = C.neap_never, C.neap_on_give
local permits, rate = bare.permits, bare.rate

local function pause(until_ns)
  local l = ffi.new("struct neap_limiter", { kind = C.NEAP_PAUSE })
  C.neap_pause_extend(l.as.pause, until_ns)
  return l
end

local function costs(...) return ffi.new("int64_t[8]", { ... }) end

--- Terms are { limiter, cost index, multiplier }; the table keeps limiters alive.
local function all(terms)
  local t = ffi.new("struct neap_term[?]", #terms)
  for i, term in ipairs(terms) do t[i - 1] = { term[1], term[3] or 1, term[2] or 0 } end
  local a = ffi.new("struct neap_all", { t, #terms })
  assert.equal(0, C.neap_all_init(a, t, #terms))
  return { c = a, terms = t, limiters = terms }
end

local bound = ffi.new "int32_t[1]"

local function ask(verb, a, cost, now)
  local at = C["neap_all_" .. verb](a.c, cost, now, bound)
  return at, bound[0]
end

--- Every byte, to see that a refusal left them alone.
local function bytes(a)
  local found = {}
  for i, term in ipairs(a.limiters) do
    found[i] = ffi.string(term[1], ffi.sizeof "struct neap_limiter")
  end
  return found
end

describe("all-of", function ()
  it("waits for the last of its terms and says which", function ()
    local slow, gate = rate(1, 1000, 1), pause(300)
    local a = all { { slow }, { gate } }
    assert.same({ 300LL, 1 }, { ask("when", a, costs(1), 0) })
    C.neap_gcra_fill(slow.as.gcra, 0, 0)
    assert.same({ 1000LL, 0 }, { ask("when", a, costs(1), 0) })
    assert.same({ 1000LL, -1 }, { ask("when", a, costs(1), 1000) })
  end)

  it("orders instants: now, later, when somebody gives, never", function ()
    local held = permits(1)
    C.neap_limiter_take(held, 1, 0)
    assert.same({ ON_GIVE, 1 }, { ask("when", all { { pause(9) }, { held } }, costs(1), 0) })
    assert.same({ NEVER, 2 },
      { ask("when", all { { pause(9) }, { held }, { rate(1, 1, 1), 1 } }, costs(1, 2), 0) })
  end)

  it("takes from all or from none, and a refusal leaves every byte as it was", function ()
    local a = all { { rate(1, 1000, 5) }, { permits(3) }, { permits(1) } }
    assert.same({ 0LL, -1 }, { ask("take", a, costs(1), 0) })
    local before = bytes(a)
    assert.same({ ON_GIVE, 2 }, { ask("take", a, costs(1), 0) })
    assert.same(before, bytes(a))
    C.neap_all_give(a.c, costs(1), C.NEAP_SUCCESS, 0, 0)
    assert.same({ 0LL, -1 }, { ask("take", a, costs(1), 0) })
    assert.equal(3LL, C.neap_limiter_available(a.limiters[1][1], 0))   -- time alone gives it back
  end)

  it("charges terms of one limiter as a sum", function ()
    local tokens = rate(1, 1000, 10)
    local a = all { { tokens, 0 }, { tokens, 1, 3 } }
    assert.equal(NEVER, (ask("take", a, costs(2, 3), 0)))   -- 2 + 3 * 3
    assert.equal(0LL, (ask("take", a, costs(1, 3), 0)))
    assert.equal(0LL, C.neap_limiter_available(tokens, 0))
  end)

  it("does not ask a term whose cost is 0", function ()
    local held = permits(1)
    C.neap_limiter_take(held, 1, 0)
    assert.equal(0LL, (ask("take", all { { rate(1, 1000, 1), 0 }, { held, 1 } }, costs(1, 0), 0)))
  end)

  it("is no limit when it has no terms", function ()
    assert.same({ 5LL, -1 }, { ask("take", all {}, costs(1), 5) })
  end)

  it("charges one who waited at the moment the tokens came", function ()
    local plain, waited = rate(19, 20, 1), rate(19, 20, 1)   -- a token per 1.05 ns
    for _, l in ipairs { plain, waited } do C.neap_limiter_take(l, 1, 0) end
    for i = 1, 950 do   -- each claim at the first ns that conforms
      local now = math.ceil(i * 20 / 19)
      assert.equal(now + 0LL, (ask("claim", all { { waited } }, costs(1), now)), "claim " .. i)
    end
    assert.equal(1002LL, C.neap_limiter_when(waited, 1, 1000))
    local taken = 0
    for now = 1, 1000 do
      if C.neap_limiter_take(plain, 1, now) <= now then taken = taken + 1 end
    end
    assert.is_true(taken < 950)   -- a plain take loses what came between two nanoseconds
  end)

  it("promises an instant that a full log keeps", function ()
    local log = ffi.new "struct neap_stamp[1]"
    local w = ffi.new("struct neap_limiter", { kind = C.NEAP_WINDOW })
    assert.equal(0, C.neap_window_init(w.as.window, 10, 100, log, 1))
    C.neap_limiter_take(w, 1, 0)
    local a = all { { w }, { pause(5) } }
    -- at 0 the call would join the one entry; at 5 it needs another, so it waits for the window
    assert.same({ 100LL, 0 }, { ask("when", a, costs(1), 0) })
    assert.same({ 100LL, -1 }, { ask("take", a, costs(1), 100) })
  end)
end)

describe("a limiter", function ()
  it("knows when those ahead will be through", function ()
    local empty = rate(1, 1000, 5)
    C.neap_gcra_fill(empty.as.gcra, 0, 0)
    for i, row in ipairs {   -- limiter, ahead, cost, when
      { empty, 0, 1, 1000LL }, { empty, 4, 1, 5000LL }, { empty, 4, 6, NEVER },
      { rate(1, 1000, 5), 4, 1, 0LL }, { rate(1, 1000, 5), 5, 1, 1000LL },
      { permits(3), 2, 1, 0LL }, { permits(3), 3, 1, ON_GIVE },
      { permits(3, 1), 3, 9, 0LL }, { permits(3, 1), 4, 1, ON_GIVE },   -- overdrawn
      { pause(7), 99, 1, 7LL },
    } do
      assert.equal(row[4], C.neap_limiter_after(row[1], row[2], row[3], 0), "row " .. i)
    end
  end)

  it("says how much there is, and how much there can be", function ()
    for i, row in ipairs {   -- limiter, available, capacity
      { rate(1, 1000, 5), 5LL, 5LL }, { permits(3), 3LL, 3LL },
      { permits(3, 1), 3LL, 0x7fffffffffffffffLL }, { pause(7), 0LL, 0x7fffffffffffffffLL },
    } do
      assert.equal(row[2], C.neap_limiter_available(row[1], 0), "row " .. i)
      assert.equal(row[3], C.neap_limiter_capacity(row[1]), "row " .. i)
    end
  end)
end)
