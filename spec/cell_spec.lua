--- The arithmetic of CL.THROTTLE, against recorded replies of the module it follows.
local ffi = require "ffi"
local C = require "neap.engine"

local SECOND = 1000000000LL
local EPOCH = 86400 * SECOND   -- the vectors start their clock anywhere from a day on
local reply = ffi.new "struct neap_cell_reply"

local function cell(max_burst, count, period_ns)
  local c = ffi.new "struct neap_cell"
  assert.equal(0, C.neap_cell_init(c, max_burst, count, period_ns))
  return c
end

--- The five numbers, as a client reads them, and the word to keep.
local function take(c, tat, quantity, now)
  C.neap_cell_take(c, tat, quantity, now, reply)
  local r = reply
  return { tonumber(r.limited), tonumber(r.limit), tonumber(r.remaining), tonumber(r.retry_s),
    tonumber(r.reset_s) }, r.tat
end

local function why(...)
  local text = C.neap_cell_why(...)
  return text ~= nil and ffi.string(text) or nil
end

describe("cell", function ()
  it("gives the recorded reply to every command of the vectors", function ()
    local rows, words, case = 0, {}, nil
    for line in io.lines "spec/vectors/cl_throttle.tsv" do
      local f = {}
      for field in line:gmatch "[^\t]+" do f[#f + 1] = tonumber(field) or field end
      if type(f[1]) == "number" then
        if f[1] ~= case then case, words = f[1], {} end
        local now = EPOCH + f[2]
        local got, tat = take(cell(f[4], f[5], f[6] * SECOND), words[f[3]] or 0LL, f[7], now)
        assert.same({ unpack(f, 8, 12) }, got, line)
        words[f[3]] = tat
        rows = rows + 1
      end
    end
    assert.equal(400, rows)
  end)

  it("spends the burst, then one per interval, and tells when", function ()
    local c, tat = cell(2, 1, SECOND), 0LL
    local rows = {   -- at (ms), quantity, reply
      {    0, 3, { 0, 3, 0, -1, 3 } },
      {    0, 1, { 1, 3, 0,  1, 3 } },
      {    0, 4, { 1, 3, 0, -1, 3 } },   -- more than the limit: never
      {  999, 1, { 1, 3, 0,  1, 3 } },   -- 1 ms short counts as a second
      { 1000, 1, { 0, 3, 0, -1, 3 } },
      { 2500, 0, { 0, 3, 1, -1, 2 } },   -- only looks
      { 9999, 0, { 0, 3, 3, -1, 0 } },
    }
    for i, row in ipairs(rows) do
      local got, word = take(c, tat, row[2], EPOCH + row[1] * 1000000LL)
      assert.same(row[3], got, "row " .. i)
      tat = word
    end
  end)

  it("drops what is below a millisecond of a wait, as the original does", function ()
    local c = cell(0, 1, SECOND)
    assert.same({ 1, 1, 0, 0, 0 }, (take(c, EPOCH + 999999, 1, EPOCH)))
    assert.same({ 1, 1, 0, 1, 1 }, (take(c, EPOCH + 1000000, 1, EPOCH)))
  end)

  it("keeps the word when it refuses or only looks", function ()
    local c = cell(0, 1, SECOND)
    local _, tat = take(c, EPOCH + 5, 1, EPOCH)
    assert.equal(EPOCH + 5, tat)
    _, tat = take(c, EPOCH - 5, 0, EPOCH)
    assert.equal(EPOCH - 5, tat)
  end)

  it("refuses nonsense with the sentence for it", function ()
    assert.equal("max_burst is out of range", why(-1, 1, SECOND))
    assert.equal("max_burst is out of range", why(-2, 1, SECOND))
    assert.equal("max_burst is out of range", why(0x7fffffffffffffffLL, 1, SECOND))
    assert.equal("count and period must be > 0", why(1, 0, SECOND))
    assert.equal("count and period must be > 0", why(1, 1, 0))
    assert.equal("rates above 1000000000 per second are not supported", why(1, 3000000000, SECOND))
    assert.equal("max_burst at this rate would overflow", why(0x7ffffffffffffffeLL, 1, 1))
    assert.is_nil(why(0x3fffffffffffffffLL, 1, 1))
    assert.is_nil(why(19, 1000000000, SECOND))
    assert.equal(C.NEAP_ERANGE, C.neap_cell_init(ffi.new "struct neap_cell", -1, 1, SECOND))
  end)

  it("does not overflow at the ends of what it accepts", function ()
    local most = 0x3fffffffffffffffLL          -- a limit of 2^62 tokens, one per ns
    local c = cell(most, 1, 1)
    local _, tat = take(c, 0, most + 1, C.neap_horizon)
    assert.equal(C.neap_horizon + most + 1, tat)
    C.neap_cell_take(c, tat, most + 1, C.neap_horizon, reply)
    assert.equal(1LL, reply.limited)
    assert.equal((most + 1) / SECOND + 1, reply.retry_s)
    C.neap_cell_take(c, tat, 0x7fffffffffffffffLL, C.neap_horizon, reply)
    assert.equal(-1LL, reply.retry_s)
  end)
end)
