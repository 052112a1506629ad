--- Wheel: timers out in exact order. Random traffic is in spec/c/property_wheel.c.
local ffi = require "ffi"
local C = require "neap.engine"

local due = ffi.new "neap_ns[1]"

local function wheel(capacity, now)
  local w = C.neap_wheel_open(capacity, now or 0)
  assert(w ~= nil, "no memory")
  return ffi.gc(w, C.neap_wheel_close)
end

local function set(w, timers)
  for id, at in pairs(timers) do C.neap_wheel_set(w, id, at) end
end

--- All that is due by now, as { id, due }, sound after each.
local function pop_all(w, now)
  local out = {}
  for id in function () return C.neap_wheel_pop(w, now, due) end do
    assert.equal(0, C.neap_wheel_check(w))
    if id < 0 then return out end
    out[#out + 1] = { tonumber(id), tonumber(due[0]) }
  end
end

describe("wheel", function ()
  it("gives out timers in the order of their instants, equal ones in that of their ids", function ()
    local w = wheel(6)
    set(w, { [0] = 500, [1] = 100, [2] = 500, [3] = 1e15, [4] = 100, [5] = 0 })
    assert.same({ { 5, 0 }, { 1, 100 }, { 4, 100 } }, pop_all(w, 499))
    assert.same({ { 0, 500 }, { 2, 500 } }, pop_all(w, 500))
    assert.same({ { 3, 1e15 } }, pop_all(w, 2e15))
    assert.equal(0, C.neap_wheel_count(w))
  end)

  it("is never early, not by a nanosecond, at any distance", function ()
    for power = 0, 58 do
      for _, off in ipairs { -1, 0, 1 } do
        local w, at = wheel(1), 2LL^power + off
        C.neap_wheel_set(w, 0, at)
        assert.equal(at, C.neap_wheel_next(w))
        assert.equal(-1LL, at > 0 and C.neap_wheel_pop(w, at - 1, due) or -1LL)
        assert.equal(0LL, C.neap_wheel_pop(w, at, due))
        assert.equal(at, due[0])
      end
    end
  end)

  it("forgets a timer that is cancelled, and moves one that is set again", function ()
    local w = wheel(3)
    set(w, { [0] = 10, [1] = 20, [2] = 30 })
    C.neap_wheel_cancel(w, 1)
    C.neap_wheel_cancel(w, 1)   -- harmless
    C.neap_wheel_set(w, 0, 1e9)
    assert.same({ { 2, 30 } }, pop_all(w, 1000))
    assert.same({ { 0, 1e9 } }, pop_all(w, 1e9))
  end)

  it("has one that is past at once", function ()
    local w = wheel(2, 1e12)
    assert.same({}, pop_all(w, 1e12))
    set(w, { [0] = 5, [1] = 1e12 - 1 })
    assert.equal(5LL, C.neap_wheel_next(w))
    assert.same({ { 0, 5 }, { 1, 1e12 - 1 } }, pop_all(w, 1e12))
  end)

  it("says never when there is none", function ()
    assert.equal(C.neap_never, C.neap_wheel_next(wheel(1)))
  end)

  it("loses none at the end of a coarse slot, when a finer level has one just before", function ()
    local w, last = wheel(3), 32 * 2^18 - 1   -- the last ns of a slot of the second level
    set(w, { [0] = last, [2] = last + 3e6 })
    assert.same({}, pop_all(w, last - 3e6))
    C.neap_wheel_set(w, 1, last - 1)
    assert.same({ { 1, last - 1 }, { 0, last } }, pop_all(w, last))
    assert.same({ { 2, last + 3e6 } }, pop_all(w, last + 3e6))
  end)
end)
