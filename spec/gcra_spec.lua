--- Gcra: what it decides, as tables of instants. Random traffic is in spec/c/property_gcra.c.
local ffi = require "ffi"
local C = require "neap.engine"

local MS, SECOND, NEVER = 1000000LL, 1000000000LL, C.neap_never

local function gcra(amount, period_ns, burst)
  local g = ffi.new "struct neap_gcra"
  assert.equal(0, C.neap_gcra_init(g, amount, period_ns, burst))
  return g
end

-- A row: at (ms), cost, and what comes of it: true, "never", or the ms to wait.
local function replay(g, rows)
  for i, row in ipairs(rows) do
    local now = row[1] * MS
    local at = C.neap_gcra_take(g, row[2], now)
    local answer = at == NEVER and "never" or at <= now or tonumber(at - now) / 1e6
    assert.same(row[3], answer, "row " .. i)
  end
end

describe("gcra", function ()
  it("spends the burst, then one token per interval", function ()
    replay(gcra(10, SECOND, 3), {
      {   0, 2, true },
      {   0, 2, 100 },       -- one short, so nothing is spent
      {   0, 1, true },
      {  99, 1, 1 },
      { 100, 1, true },
      { 900, 3, true },      -- idle time refills the burst and no more
      { 900, 3, 300 },
      { 900, 4, "never" },
      { 900, 0, true },      -- nothing is always there
    })
  end)

  it("waits to the nanosecond where an interval is no whole number of them", function ()
    local g = gcra(700000, SECOND, 1)   -- one per 1428.571… ns
    assert.equal(0LL, C.neap_gcra_take(g, 1, 0))
    assert.equal(1429LL, C.neap_gcra_take(g, 1, 1428))
    assert.equal(1429LL, C.neap_gcra_take(g, 1, 1429))
  end)

  it("grants nothing extra when the clock steps back", function ()
    replay(gcra(1, SECOND, 2), {
      { 5000, 2, true },
      { 4000, 1, 2000 },     -- until 6000
      {    0, 1, 6000 },
      { 6000, 1, true },
      { 5500, 1, 1500 },
    })
  end)

  it("gives back and borrows when the cost is settled", function ()
    local g = gcra(1, SECOND, 10)
    replay(g, { { 0, 8, true } })
    C.neap_gcra_settle(g, 8, 3, 0)
    assert.equal(7LL, C.neap_gcra_available(g, 0))
    C.neap_gcra_settle(g, 3, 15, 0)
    assert.equal(-5LL, C.neap_gcra_available(g, 0))
    replay(g, { { 0, 1, 6000 }, { 6000, 1, true } })
  end)

  it("can be emptied and filled", function ()
    local g = gcra(1, SECOND, 5)
    C.neap_gcra_fill(g, 0, 0)
    replay(g, { { 0, 1, 1000 } })
    C.neap_gcra_fill(g, 99, 0)
    replay(g, { { 0, 5, true }, { 0, 1, 1000 } })
  end)

  it("does one per 30 days and five billion per second", function ()
    local month = 30 * 86400 * SECOND
    local slow, fast = gcra(1, month, 1), gcra(5000000000LL, SECOND, 1)
    assert.equal(0LL, C.neap_gcra_take(slow, 1, 0))
    assert.equal(month, C.neap_gcra_take(slow, 1, month - 1))
    assert.equal(month, C.neap_gcra_take(slow, 1, month))
    assert.equal(7LL, C.neap_gcra_take(fast, 1, 7))   -- five come per nanosecond, one stays
    assert.equal(8LL, C.neap_gcra_take(fast, 1, 7))
  end)

  it("changes its rate in place and keeps what it is told to", function ()
    local rows = {   -- burst after, what is kept, available after: 6 of 10 were spent
      {  20, C.NEAP_KEEP_SPENT, 14 },
      {  20, C.NEAP_KEEP_HELD,   4 },
      {   5, C.NEAP_KEEP_SPENT,  0 },
      {   3, C.NEAP_KEEP_HELD,   3 },
      {  20, C.NEAP_KEEP_RATIO,  8 },
      {   5, C.NEAP_KEEP_RATIO,  2 },
      {   3, C.NEAP_KEEP_NOTHING, 3 },
    }
    for i, row in ipairs(rows) do
      local g = gcra(1, SECOND, 10)
      replay(g, { { 0, 6, true } })
      assert.equal(0, C.neap_gcra_change(g, 7, SECOND, row[1], row[2], 0))
      assert.same(row[3], tonumber(C.neap_gcra_available(g, 0)), "row " .. i)
    end
  end)

  it("refuses what does not fit", function ()
    local g = ffi.new "struct neap_gcra"
    for _, bad in ipairs { { 0, 1, 1 }, { 1, 0, 1 }, { 1, 1, 0 }, { 7, 1, 1 }, { 1, 1, 2^59 } } do
      assert.equal(C.NEAP_ERANGE, C.neap_gcra_init(g, unpack(bad)))
    end
  end)
end)
