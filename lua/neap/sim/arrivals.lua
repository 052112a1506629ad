--- Arrivals: when calls come that nobody waits for. A source is a function from now to the next
--- instant, both in ns.
---
--- A rate that changes with time is a list of pieces; a draw that passes the end of its piece is
--- taken again from there, which for a Poisson process is exact. A ramp is thinned out of the
--- highest rate.
---
---     arrivals.source({ kind = "poisson", pieces = { { from = 0, rate = 40 } } }, stream)
local C = require "neap.engine"

local ipairs = ipairs
local log, huge, max = math.log, math.huge, math.max

local arrivals = {}

---@class neap.sim.Piece
---@field from number    ns
---@field rate number    calls per second

---@class neap.sim.Arrivals
---@field kind "poisson"|"constant"|"ramp"|"burst"|"trace"
---@field pieces neap.sim.Piece[]?         poisson, constant: in order, the first from 0
---@field points neap.sim.Piece[]?         ramp: the rate goes straight from one to the next
---@field count integer?                   burst: so many at once
---@field every number?                    burst: ns
---@field times number[]?                  trace: ns, in order

local MAKE = {}

--- The end of the piece that holds at `at`, and its rate.
local function piece_at(pieces, at)
  local rate, ends = 0, huge
  for i = 1, #pieces do
    if pieces[i].from <= at then
      rate = pieces[i].rate
      ends = pieces[i + 1] and pieces[i + 1].from or huge
    end
  end
  return rate, ends
end

local function steady(rate, stream)
  local gap = 1e9 / rate
  return function (now) return now - gap * log(1 - C.neap_random_unit(stream)) end
end

function MAKE.poisson(of, stream)
  local pieces = of.pieces
  if #pieces == 1 and pieces[1].rate > 0 then return steady(pieces[1].rate, stream) end
  return function (now)
    while now < huge do
      local rate, ends = piece_at(pieces, now)
      local at = rate > 0 and now - 1e9 / rate * log(1 - C.neap_random_unit(stream)) or huge
      if at < ends then return at end
      now = ends
    end
    return huge
  end
end

--- Of a constant rate the work that is left of a gap is done at the next piece's rate.
function MAKE.constant(of)
  local pieces = of.pieces
  return function (now)
    local left = 1
    while now < huge do
      local rate, ends = piece_at(pieces, now)
      local at = rate > 0 and now + left * 1e9 / rate or huge
      if at < ends then return at end
      left, now = left - (ends - now) * rate / 1e9, ends
    end
    return huge
  end
end

local function rate_of(points, at)
  local before = points[1]
  for i = 2, #points do
    local after = points[i]
    if at < after.from then
      return before.rate + (after.rate - before.rate) * (at - before.from)
        / (after.from - before.from)
    end
    before = after
  end
  return before.rate
end

function MAKE.ramp(of, stream)
  local points, most = of.points, 0
  for _, point in ipairs(points) do most = max(most, point.rate) end
  local last = points[#points]
  return function (now)
    while most > 0 do
      now = now - 1e9 / most * log(1 - C.neap_random_unit(stream))
      if rate_of(points, now) > most * C.neap_random_unit(stream) then return now end
      if last.rate <= 0 and now > last.from then return huge end
    end
    return huge
  end
end

function MAKE.burst(of)
  local at, left = 0, of.count
  return function ()
    if left == 0 then at, left = at + of.every, of.count end
    left = left - 1
    return at
  end
end

function MAKE.trace(of)
  local times, i = of.times, 0
  return function ()
    i = i + 1
    return times[i] or huge
  end
end

--- A source, from the beginning.
---@param of neap.sim.Arrivals
---@param stream ffi.cdata*   struct neap_random
---@return fun(now: number): number  ns; math.huge: no more
function arrivals.source(of, stream) return MAKE[of.kind](of, stream) end

return arrivals
