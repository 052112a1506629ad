--- The pulse: the worker asks itself for a permit, as a caller would, of a policy that is nobody
--- else's, and gives it back. A supervisor is told that the worker lives only after that worked: so
--- a loop that stands still, and an engine that grants nothing, both end in a restart.
local ffi = require "ffi"
local C = require "neap.engine"

local pulse = {}

--- A function that says whether the engine just granted a permit and took it back.
---@param engine ffi.cdata*
---@param clock fun(): ffi.cdata*  ns
---@return fun(): boolean
function pulse.of(engine, clock)
  local leaf, term = ffi.new "struct neap_limiter", ffi.new "struct neap_term"
  leaf.kind = C.NEAP_SEMAPHORE
  C.neap_semaphore_init(leaf.as.semaphore, 1, 0)
  term.limiter, term.multiplier = leaf, 1
  local all = ffi.new "struct neap_all"
  C.neap_all_init(all, term, 1)
  local request, answer = ffi.new "struct neap_request", ffi.new "struct neap_answer"
  request.all, request.cost[0] = all, 1
  local kept = { leaf, term, all }   -- what the request points to
  return function ()
    local now = clock()
    request.deadline = now
    if C.neap_engine_acquire(engine, request, now, answer) ~= C.NEAP_OK then return false end
    if answer.status ~= C.NEAP_GRANTED then return false end
    C.neap_engine_give(engine, request, C.NEAP_IGNORE, answer.at, now)
    return C.neap_limiter_available(kept[1], now) == 1
  end
end

return pulse
