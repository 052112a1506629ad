--- Pause: nobody before an instant.
local ffi = require "ffi"
local C = require "neap.engine"

describe("pause", function ()
  local pause
  before_each(function ()
    pause = ffi.new "struct neap_pause"
    C.neap_pause_init(pause)
  end)

  it("holds nobody up until one is set", function ()
    assert.equal(7LL, C.neap_pause_when(pause, 7))
  end)

  it("only grows: the latest hint wins, in whichever order they come", function ()
    for i, row in ipairs {   -- a hint, the pause in force
      { 500, 500 }, { 300, 500 }, { 500, 500 }, { 501, 501 }, { 0, 501 },
    } do
      assert.equal(row[2] + 0LL, C.neap_pause_extend(pause, row[1]), "row " .. i)
    end
  end)

  it("ends by itself, at its instant", function ()
    C.neap_pause_extend(pause, 500)
    for i, row in ipairs { { 0, 500 }, { 499, 500 }, { 500, 500 }, { 501, 501 } } do
      assert.equal(row[2] + 0LL, C.neap_pause_when(pause, row[1]), "row " .. i)
    end
  end)

  it("can be cleared", function ()
    C.neap_pause_extend(pause, C.neap_horizon)
    C.neap_pause_clear(pause)
    assert.equal(3LL, C.neap_pause_when(pause, 3))
    assert.equal(9LL, C.neap_pause_extend(pause, 9))
  end)
end)
