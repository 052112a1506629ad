--- Several limiters as one: the call of resty.limit.traffic, for code that uses it. All are asked
--- before any counts, so a request that one rejects leaves no trace in another.
---
--- neap.hybrid and neap.layered do that for limiters of neap's own, and wait.
local limit_traffic = {}

local function undo(limiters, keys, count)
  for i = 1, count do limiters[i]:uncommit(keys[i]) end
end

--- Ask each for its key; the delay is the longest.
---@param limiters table[]   of limit_req, limit_conn, limit_count, or with such methods
---@param keys string[]      as many
---@param states? table      set to what each answered after its delay, when all let it pass
---@return number? delay_s
---@return string? message   "rejected", or what went wrong
function limit_traffic.combine(limiters, keys, states)
  local count, longest, answers = #limiters, 0, {}
  for i = 1, count do
    local delay, message = limiters[i]:incoming(keys[i], false)
    if not delay then return nil, message end
  end
  for i = 1, count do
    local delay, answer = limiters[i]:incoming(keys[i], true)
    if not delay then   -- there is one twice, or one of another make that was faster
      undo(limiters, keys, i - 1)
      return nil, answer
    end
    if delay > longest then longest = delay end
    answers[i] = answer
  end
  for i = 1, states and count or 0 do states[i] = answers[i] end
  return longest
end

return limit_traffic
