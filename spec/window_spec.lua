--- Window: the exact sliding log, as tables of instants. Random traffic is in
--- spec/c/property_limiters.c.
local ffi = require "ffi"
local C = require "neap.engine"

local function window(limit, window_ns, size)
  local w, log = ffi.new "struct neap_window", ffi.new("struct neap_stamp[?]", size)
  assert.equal(0, C.neap_window_init(w, limit, window_ns, log, size))
  return { w = w, log = log }   -- the log lives as long as this
end

-- A row: at (ns), cost, and what comes of it: true, "never", or the ns to wait.
local function replay(log, rows)
  for i, row in ipairs(rows) do
    local now = row[1]
    local at = C.neap_window_take(log.w, row[2], now)
    local answer = at == C.neap_never and "never" or at <= now or tonumber(at) - now
    assert.same(row[3], answer, "row " .. i)
  end
end

describe("window", function ()
  it("lets a grant leave exactly one window after it came", function ()
    replay(window(3, 100, 3), {
      {   0, 1, true },
      {  10, 2, true },
      {  50, 1, 50 },
      {  99, 1, 1 },
      { 100, 1, true },
      { 100, 1, 10 },
      { 110, 2, true },
      { 110, 4, "never" },
      { 110, 0, true },
    })
  end)

  it("never has more than the limit in a window, where a fixed counter has twice that", function ()
    replay(window(2, 100, 2), {
      {  98, 1, true }, {  99, 1, true },
      { 101, 1, 97 },   -- the counter of the next window would be at 0 here
    })
  end)

  it("waits for the oldest to leave when its log is full", function ()
    replay(window(100, 50, 2), {
      {  0, 1, true },
      { 10, 1, true },
      { 10, 5, true },   -- of the same instant, so it shares the entry
      { 20, 1, 30 },
      { 50, 1, true },
    })
  end)

  it("settles what came with an instant that was past, and so joined a later one", function ()
    local w = window(9, 100, 9)
    replay(w, { { 10, 2, true }, { 20, 1, true }, { 15, 3, true }, { 30, 1, true } })
    C.neap_window_settle(w.w, 3, 1, 15, 30)
    assert.equal(4LL, C.neap_window_available(w.w, 30))
    C.neap_window_settle(w.w, 1, 3, 15, 30)
    assert.equal(2LL, C.neap_window_available(w.w, 30))
    C.neap_window_settle(w.w, 5, 0, 15, 30)   -- two entries, when one has not as much
    replay(w, { { 30, 8, 80 }, { 110, 9, true } })
    C.neap_window_settle(w.w, 2, 0, 9, 111)   -- of what has left
    assert.equal(0LL, C.neap_window_available(w.w, 111))
  end)

  it("does not settle what came before it was made new", function ()
    local w = window(9, 100, 9)
    replay(w, { { 10, 5, true } })
    assert.equal(0, C.neap_window_init(w.w, 9, 100, w.log, 9))
    C.neap_window_settle(w.w, 5, 0, 10, 12)
    replay(w, { { 20, 6, true } })
    C.neap_window_settle(w.w, 5, 0, 10, 20)
    assert.equal(3LL, C.neap_window_available(w.w, 20))
  end)

  it("settles what is still in the window, and forgets what was all given back", function ()
    local w = window(5, 100, 5)
    replay(w, { { 0, 5, true }, { 0, 1, 100 } })
    C.neap_window_settle(w.w, 5, 2, 0, 0)
    assert.equal(3LL, C.neap_window_available(w.w, 0))
    C.neap_window_settle(w.w, 2, 9, 0, 0)
    assert.equal(-4LL, C.neap_window_available(w.w, 0))
    C.neap_window_settle(w.w, 9, 0, 0, 0)
    assert.equal(5LL, C.neap_window_available(w.w, 0))
    assert.equal(0, w.w.count)
    C.neap_window_settle(w.w, 1, 7, 42, 42)   -- nobody came at 42
    assert.equal(5LL, C.neap_window_available(w.w, 50))
  end)

  it("enters what was granted for nothing and used something, where it belongs", function ()
    local w = window(5, 100, 3)
    replay(w, { { 0, 1, true }, { 20, 1, true } })
    C.neap_window_settle(w.w, 0, 2, 10, 20)
    replay(w, { { 20, 2, 80 }, { 100, 1, true }, { 100, 2, 10 } })
    C.neap_window_settle(w.w, 0, 1, 50, 100)   -- the log is full: it leaves with the last
    assert.equal(0LL, C.neap_window_available(w.w, 100))
    assert.equal(3LL, C.neap_window_available(w.w, 150))
    assert.equal(5LL, C.neap_window_available(w.w, 200))
  end)

  it("changes limit, window and log in place, and keeps what is in the window", function ()
    local w, log = window(3, 100, 3), ffi.new("struct neap_stamp[?]", 2)
    replay(w, { { 0, 1, true }, { 10, 1, true }, { 20, 1, true } })
    local function change(limit, window_ns, to, size, now)
      return C.neap_window_change(w.w, limit, window_ns, to, size, now)
    end
    assert.equal(C.NEAP_ERANGE, change(9, 50, log, 2, 99))       -- three are in it
    assert.equal(C.NEAP_ERANGE, change(0, 50, log, 2, 105))
    assert.equal(C.NEAP_ERANGE, change(9, 50, w.log, 2, 105))    -- its own has 3
    assert.equal(0LL, C.neap_window_available(w.w, 99))
    assert.equal(0, change(9, 200, log, 2, 105))                 -- the first has left
    replay(w, { { 105, 1, 105 }, { 210, 8, true }, { 215, 1, 5 } })
    assert.equal(0, change(1, 10, log, 2, 215))
    replay(w, { { 215, 1, 5 }, { 220, 1, true } })
  end)

  it("has room for 'limit' grants in as many entries, whatever was taken back", function ()
    local w = window(2, 100, 2)
    replay(w, { { 0, 1, true } })
    C.neap_window_settle(w.w, 1, 0, 0, 0)
    replay(w, { { 1, 1, true }, { 2, 1, true }, { 3, 1, 98 } })
  end)
end)
