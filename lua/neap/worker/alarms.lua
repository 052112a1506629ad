--- Alarms: a policy may change by time alone, as a breaker that half-opens, and somebody is to be
--- told. So the engine wakes us then.
local C = require "neap.engine"

local tonumber = tonumber

local alarms = {}

--- What happened to a policy is told, now and when time alone brings it about.
---@param account neap.Account
function alarms.look_at(self, account)
  local policy = account.live
  if not (policy and policy.watched) then return end
  policy:notice()
  local at = policy:next_change()
  if account.alarm and account.alarm_at ~= at then
    self.alarms[account.alarm] = nil
    C.neap_engine_cancel(self.engine, account.alarm, self.clock())
    account.alarm = nil
  end
  if account.alarm or at >= C.neap_horizon then return end
  local ticket = tonumber(C.neap_engine_sleep(self.engine, at, self.clock()))
  if ticket ~= 0 then self.alarms[ticket], account.alarm, account.alarm_at = account, ticket, at end
end

return alarms
