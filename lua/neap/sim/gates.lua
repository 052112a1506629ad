--- Gates: the limiter of a world, as the engine is asked for it.
local ffi = require "ffi"
local C = require "neap.engine"

local assert, error, pairs = assert, error, pairs

local gates = { ASKS = 0, REFUSES = 1, ASIDE = 2 }

---@class neap.sim.Gate
---@field all ffi.cdata*         struct neap_all
---@field queue ffi.cdata*?      struct neap_queue
---@field cost ffi.cdata*        int64_t[8]: what a call costs
---@field holds boolean          permits have something to give back
---@field wait_ns number?        how long it lets anybody wait
---@field enter (fun(request: ffi.cdata*, key: integer): integer)?   makes the request this call's:
---  ASKS; or REFUSES; or ASIDE: it would wait in a line that the gate bounds itself, and hears of
---@field aside fun(change: integer)?   so many more wait there
---@field over (fun(request: ffi.cdata*, how: integer, retry_ns: number, at: ffi.cdata*): integer)?
---  hears how it went (neap.sim.downstream, or -1: the client gave up); answers NEAP_SUCCESS, ...
---@field notice fun()?          what time and calls brought about may be told
---@field keep any               what must not be collected

--- A gate for one of neap's limiters. Each of its costs is 1 unless told.
---@param limiter neap.Limiter
---@param costs table<string, integer>?  by name
---@return neap.sim.Gate
function gates.of(limiter, costs)
  local terms = limiter.terms
  local cost = ffi.new "int64_t[8]"
  for i = 0, terms.costs - 1 do cost[i] = 1 end
  for name, value in pairs(costs or {}) do cost[terms.names[name]] = value end
  return { all = terms.all, queue = limiter.room and limiter.room.c, cost = cost,
    holds = terms.holds, keep = limiter }
end

--- No limit.
---@return neap.sim.Gate
function gates.open()
  local all, terms = ffi.new "struct neap_all", ffi.new "struct neap_term[1]"
  assert(C.neap_all_init(all, terms, 0) == C.NEAP_OK)
  return { all = all, cost = ffi.new "int64_t[8]", holds = false, keep = terms }
end

--- What a program waits with, inside: the world's engine and clock. Nothing else can wait there.
---@param state ffi.cdata*   has the instant in 'now'
---@param waiters_max integer
---@return neap.Runtime
function gates.runtime(state, waiters_max)
  local rt = { waiters_max = waiters_max }
  local function refuse() error("sim: a policy's hooks cannot wait", 2) end
  function rt.now_ns() return ffi.cast("int64_t", state.now) end
  function rt.now() return state.now / 1e9 end
  function rt.report(text) io.stderr:write(text, "\n") end
  rt.wait, rt.sleep, rt.spawn, rt.run, rt.turn, rt.cancel = refuse, refuse, refuse, refuse, refuse,
    refuse
  return rt
end

return gates
