--- For specs: limiters as the engine has them, and its answers in words.
local ffi = require "ffi"
local C = require "neap.engine"

local bare = {}

bare.STATUS = {
  [C.NEAP_GRANTED] = "granted", [C.NEAP_WAITING] = "waits", [C.NEAP_REFUSED] = "refused",
  [C.NEAP_NEVER] = "never", [C.NEAP_TIMEOUT] = "timeout", [C.NEAP_CANCELLED] = "cancelled",
  [C.NEAP_WOKEN] = "woken", [C.NEAP_QUEUE_FULL] = "full", [C.NEAP_SHED] = "shed",
}

function bare.rate(amount, period_ns, burst)
  local l = ffi.new("struct neap_limiter", { kind = C.NEAP_GCRA })
  assert(C.neap_gcra_init(l.as.gcra, amount, period_ns, burst) == 0)
  return l
end

function bare.permits(limit, overdraw)
  local l = ffi.new("struct neap_limiter", { kind = C.NEAP_SEMAPHORE })
  assert(C.neap_semaphore_init(l.as.semaphore, limit, overdraw or 0) == 0)
  return l
end

--- What an answer or a completion says: its status, and an instant.
function bare.outcome(answer)
  local at = answer.at
  return bare.STATUS[answer.status], at >= C.neap_on_give and "on give" or tonumber(at)
end

return bare
