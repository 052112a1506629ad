-- Plots, dot by dot.
local plot = require "neap.plot"

--- A small plot of one series.
local function small(one, options)
  local how = { width = 8, height = 2 }
  for name, value in pairs(options or {}) do how[name] = value end
  return plot.lines({ one }, how)
end

describe("a plot", function ()
  it("has a panel for each series, all over the same stretch", function ()
    assert.same({
      "up",
      "10 ┤     ⣀⡠⠔⠒⠉",
      " 0 ┤⣀⠤⠔⠊⠉",
      "   └──────────",
      "high",
      "10 ┤     ⠒",
      " 0 ┤",
      "   └──────────",
      "    0   5   10",
    }, plot.lines({ { name = "up", x = { 0, 10 }, y = { 0, 10 } },
      { name = "high", x = { 5, 6 }, y = { 9, 9 } } }, { width = 10, height = 2 }))
  end)

  it("of a stair holds each value until the next point, and the last to the end", function ()
    assert.same({
      "4 ┤⠉⠉⡇  ⢸⠉⠉",
      "0 ┤  ⣇⣀⣀⣸",
      "  └────────",
      "   0s    4s",
    }, small({ x = { 0, 1, 3 }, y = { 4, 0, 4 }, stair = true },
      { to = 4, x_text = function (x) return x .. "s" end }))
  end)

  it("loses no peak among many points", function ()
    local x, y = {}, {}
    for i = 1, 1000 do x[i], y[i] = i, i == 500 and 7 or 0 end
    assert.same({ "7 ┤   ⢸", "0 ┤⣀⣀⣀⣸⣇⣀⣀⣀" },
      { unpack(small { x = x, y = y }, 1, 2) })
  end)

  it("goes below 0 when values do, and has its numbers written as told", function ()
    assert.same({ " 5µ ┤    ⣀⠤⠒⠉", "-5µ ┤⣀⠤⠒⠉", "    └────────", "     0      1" },
      small({ x = { 0, 1 }, y = { -5, 5 } }, { y_text = function (y) return y .. "µ" end }))
  end)

  it("keeps to the stretch and the height it is told", function ()
    assert.same({ "2 ┤⠤⠤⠒⠒⠒⠒⠉⠉", "0 ┤", "  └────────", "   1      2" },
      small({ x = { 0, 1, 2, 3 }, y = { 9, 1.5, 7, 0 } }, { from = 1, to = 2, top = 2 }))
  end)

  it("of nothing, of one point, and of what has no end is a plot, too", function ()
    assert.same({ "1 ┤", "0 ┤", "  └────────", "   0      1" }, small { x = {}, y = {} })
    assert.same({ "3 ┤⠁", "0 ┤", "  └────────", "   5      6" }, small { x = { 5 }, y = { 3 } })
    assert.same({ "1 ┤⠁", "0 ┤", "  └────────", "   0      1" },
      small { x = { 0 }, y = { math.huge } })
  end)

  it("says what is wrong with what it is given", function ()
    assert.error_matches(function () plot.lines {} end, "a list of series expected")
    assert.error_matches(function () plot.lines { { x = { 1 }, y = {} } } end,
      "series 1: x and y expected, lists of the same length")
    assert.error_matches(function () small({ x = {}, y = {} }, { width = 1 }) end,
      "width: a whole number from 2 to 1000 expected, got 1")
  end)
end)

describe("a spark", function ()
  it("has a block for each number, the tallest for the largest", function ()
    assert.equal(" ▁▂▃▄▅▆▇█", plot.spark { 0, 1, 2, 3, 4, 5, 6, 7, 8 })
    assert.equal(" ▁█", plot.spark({ 0, 0.01, 99 }, 8))
    assert.equal("  ", plot.spark { 0, 0 })
  end)
end)
