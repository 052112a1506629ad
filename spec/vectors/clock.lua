--- The clock that vectors move: a manual runtime, and how steps speak of time.
local ffi = require "ffi"
local C = require "neap.engine"
local manual = require "neap.runtime.manual"
local runtime = require "neap.runtime"

local clock = {}

-- Time in neap ends after 36 years. Cases that jump further find the clock standing there.
local LAST = C.neap_horizon - 1

local function ns(value, scale)
  return value * scale < 2 ^ 60 and ffi.cast("int64_t", value * scale) or LAST
end

local function earlier(a, b) return a < b and a or b end

--- A new runtime, and in use; `base_ms` is what its clock says when a case says 0. Until then it
--- says 0 itself, for cases that begin before.
---@param base_ms number?
---@return neap.ManualRuntime
function clock.new(base_ms)
  local rt = manual.new()
  rt.base = ns(base_ms or 0, 1e6)
  rt.real_now_ns = rt.now_ns
  runtime.use(rt)
  return rt
end

--- Set the clock to an instant. Backwards, too: then limiters are told that, while time itself, and
--- with it the engine, stands still.
---@param rt neap.ManualRuntime
---@param at ffi.cdata*
function clock.set(rt, at)
  at = earlier(at, LAST)
  local real = rt.real_now_ns()
  if at >= real then
    rt.now_ns = rt.real_now_ns
    rt.advance_to(at)
  else
    rt.now_ns = function () return at end
  end
end

--- Do what a step says about time.
---@param rt neap.ManualRuntime
---@param step table
function clock.step(rt, step)
  local by = step.advance_ms and ns(step.advance_ms, 1e6) or step.advance_us and
    ns(step.advance_us, 1e3) or step.advance_ns and ns(step.advance_ns, 1) or step.advance_s and
    ns(step.advance_s, 1e9)
  if by then clock.set(rt, rt.now_ns() + by) end
  local to = step.set_now_ms or step.now_ms or step.at_ms
  if to then clock.set(rt, rt.base + ffi.cast("int64_t", to * 1e6)) end
end

--- Let everybody run who can, and time stand.
---@param rt neap.ManualRuntime
function clock.settle(rt) rt.advance_to(rt.real_now_ns()) end

--- What the clock says, as cases count.
---@param rt neap.ManualRuntime
---@return number
function clock.ms(rt) return tonumber(rt.now_ns() - rt.base) / 1e6 end

--- Wait exactly this long.
---@param rt neap.ManualRuntime
---@param seconds number
function clock.wait(rt, seconds)
  clock.set(rt, rt.now_ns() + ns(math.floor(seconds * 1e9 + 0.5), 1))
end

return clock
