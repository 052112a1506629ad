--- Dice: random numbers of which a seed gives the same ones every time, and what is drawn with
--- them.
---
--- Each part of a model has a stream of its own (arrivals, service, clients), so that another
--- policy meets the same arrivals. The generator is the engine's.
---
---     local seconds = dice.draw({ kind = "exp", mean = 2 }, dice.stream(1, 0))
local ffi = require "ffi"
local C = require "neap.engine"

local cos, exp, log, sqrt, abs = math.cos, math.exp, math.log, math.sqrt, math.abs
local floor = math.floor

local random_t = ffi.typeof "struct neap_random"
local TURN = 2 * math.pi
local Z99 = 2.3263478740408408   -- what 99 % of a normal distribution lie below

local dice = {}

--- A distribution. Its numbers are of one unit, and so are its draws.
---@class neap.sim.Distribution
---@field kind "fixed"|"list"|"exp"|"uniform"|"normal"|"lognormal"
---@field value number?    fixed
---@field values number[]? list: one after the other, and again
---@field mean number?     exp, normal
---@field sd number?       normal: of which the absolute value is taken
---@field low number?      uniform
---@field high number?
---@field median number?   lognormal
---@field p99 number?

--- Begin a stream anew.
---@param stream ffi.cdata*  struct neap_random
---@param seed integer       from 0, below 2^53
---@param number integer     which of the streams of that seed
function dice.seed(stream, seed, number)
  stream.state = seed
  stream.state = C.neap_random_next(stream) + number * 0x9E3779B1ULL
  C.neap_random_next(stream)
end

---@param seed integer
---@param number integer
---@return ffi.cdata*  struct neap_random
function dice.stream(seed, number)
  local stream = random_t()
  dice.seed(stream, seed, number)
  return stream
end

--- Normal, by Box and Muller; of each pair one is used.
local function normal(stream)
  local u = 1 - C.neap_random_unit(stream)
  return sqrt(-2 * log(u)) * cos(TURN * C.neap_random_unit(stream))
end

local MAKE = {}

function MAKE.fixed(of)
  local value = of.value
  return function () return value end
end

function MAKE.list(of)
  local values, i = of.values, 0
  return function ()
    i = i % #values + 1
    return values[i]
  end
end

function MAKE.exp(of, stream)
  local mean = of.mean
  return function () return -mean * log(1 - C.neap_random_unit(stream)) end
end

function MAKE.uniform(of, stream)
  local low, width = of.low, of.high - of.low
  return function () return low + width * C.neap_random_unit(stream) end
end

function MAKE.normal(of, stream)
  local mean, sd = of.mean, of.sd
  return function () return abs(mean + sd * normal(stream)) end
end

function MAKE.lognormal(of, stream)
  local mu, sigma = log(of.median), log(of.p99 / of.median) / Z99
  return function () return exp(mu + sigma * normal(stream)) end
end

--- A function that draws from a distribution.
---@param of neap.sim.Distribution
---@param stream ffi.cdata*
---@return fun(): number
function dice.draw(of, stream) return MAKE[of.kind](of, stream) end

--- One of n, from 0: each as likely, or with Zipf's exponent, the first most often.
---@param n integer
---@param exponent number  0: each as likely
---@param stream ffi.cdata*
---@return fun(): integer
function dice.one_of(n, exponent, stream)
  if exponent == 0 then
    return function () return floor(C.neap_random_unit(stream) * n) end
  end
  local up_to, sum = ffi.new("double[?]", n), 0
  for i = 0, n - 1 do
    sum = sum + (i + 1) ^ -exponent
    up_to[i] = sum
  end
  return function ()
    local u, low, high = C.neap_random_unit(stream) * sum, 0, n - 1
    while low < high do
      local middle = floor((low + high) / 2)
      if up_to[middle] > u then high = middle else low = middle + 1 end
    end
    return low
  end
end

return dice
