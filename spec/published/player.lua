--- What the players of published tables share: a limit from numbers, and the clock it runs on.
local clock = require "spec.vectors.clock"
local runtime = require "neap.runtime"
local throttle = require "neap.throttle"

local player = {}

--- Play on a manual clock that begins at 0, and put the old one back.
---@param play fun(rt: neap.ManualRuntime)
---@return fun()
function player.test(play)
  return function ()
    local before = runtime.use(nil)
    local ok, err = pcall(play, clock.new())
    runtime.use(before)
    if not ok then error(err, 0) end
  end
end

--- So many per so many ns, so many at once.
---@param amount integer
---@param per_ns integer
---@param burst integer
---@return neap.limit
function player.rate(amount, per_ns, burst)
  return { kind = "rate", mode = "burst", amount = amount, per_ns = per_ns, burst = burst }
end

---@param amount integer
---@param per_ns integer
---@param burst integer
---@param initial integer?
---@return neap.Throttle
function player.throttle(amount, per_ns, burst, initial)
  return throttle(player.rate(amount, per_ns, burst), { initial = initial })
end

--- What neap says: what was published, or the second of two numbers where the table says why they
--- differ.
---@param expected any|{ [1]: any, [2]: any }
---@return any
function player.ours(expected)
  if type(expected) ~= "table" then return expected end
  assert(expected[1] ~= expected[2], "no difference")
  return expected[2]
end

return player
