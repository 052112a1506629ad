--- Those who wait, seen from outside: their client goes or is let go, the worker ends, or the
--- policy they wait for becomes another.
---
--- When it does nobody is answered because of that. All who wait for it leave the engine's lines,
--- the last one first, so that nobody comes to the head of one meanwhile; the policy changes; and
--- the first one first they ask what it says now: each with the deadline it had, what it costs by
--- name, and for whom. Of a limit that is new each is charged what a call is that says nothing. Who
--- may go at once goes. Who can no more be served in time waits all the same, for the policy may
--- change again. Who waited for a policy that is gone hears `SHED … reload`.
local ffi = require "ffi"
local C = require "neap.engine"
local verdicts = require "neap.worker.verdicts"

local floor, ipairs, pairs, sort = math.floor, ipairs, pairs, table.sort
local remove, tonumber = table.remove, tonumber

local request_t = ffi.typeof "struct neap_request"
local answer, stats_t, waits_t = ffi.new "struct neap_answer", ffi.typeof "struct neap_stats",
  ffi.typeof "struct neap_waits"
local COSTS = ffi.sizeof "int64_t[8]"

local parked = {}

local since_ms = verdicts.since_ms

-- ---- clients ----------------------------------------------------------------------------------

local function leave(self, party, now)
  if party.ends then
    self.ends[party.ends] = nil
    C.neap_engine_cancel(self.engine, party.ends, now)
  end
  return C.neap_engine_cancel(self.engine, party.ticket, now) == 1
end

--- Out of the line, if it waits; the party it waits with goes on without it.
local function step_out(self, client, now)
  local party = self.by_client[client]
  if not party then return nil end
  self.by_client[client] = nil
  for i, one in ipairs(party.clients) do
    if one == client then
      remove(party.clients, i)
      break
    end
  end
  if #party.clients == 0 then
    self:seal(party)
    leave(self, party, now)
  end
  return party
end

--- A client is gone: out of the line, and its leases end.
---@param client integer
function parked:closed(client)
  local now = self.clock()
  step_out(self, client, now)
  self.voices[client] = nil
  self.leases:orphan(client, now)
end

--- Let a parked caller go, as if its time were up, or with an error.
---@param client integer
---@param with_error boolean?
---@return boolean  whether it waited
function parked:unblock(client, with_error)
  local now = self.clock()
  local party = step_out(self, client, now)
  if not party then return false end
  C.neap_server_resume(self.server, client)
  party.account:tell("RETRY", "timeout", 1)
  if with_error and not self.voices[client] then
    self:fail(client, "UNBLOCKED client unblocked via CLIENT UNBLOCK")
    return true
  end
  verdicts.say(self, client, "RETRY", nil, since_ms(party.since, now),
    self:retry_ms(party, now), "timeout")
  return true
end

local function waiting_of(self)
  local n = 0
  for _ in pairs(self.by_client) do n = n + 1 end
  return n
end

--- Grant nothing more, and tell those who wait.
function parked:drain()
  local now = self.clock()
  self.draining = true
  local fields = { waiting = waiting_of(self), leases = self.leases.count }
  self.events:emit("-", "drain", fields)
  for _, account in pairs(self.accounts.policies) do account.live:hook("drain", fields) end
  for ticket in pairs(self.by_ticket) do C.neap_engine_cancel(self.engine, ticket, now) end
end

-- ---- another policy ---------------------------------------------------------------------------

--- What became of calls is not changed by their leaving for a moment.
local function uncounted(account, act)
  local counts, waits = account.counts, account.waits
  local was, waited = stats_t(), waits_t()
  ffi.copy(was, counts, ffi.sizeof(was))
  ffi.copy(waited, waits, ffi.sizeof(waited))
  act()
  ffi.copy(counts, was, ffi.sizeof(was))
  ffi.copy(waits, waited, ffi.sizeof(waited))
end

--- All who wait for a policy, out of the lines, in the order in which they came. They are to be
--- `rejoin`ed or `dismiss`ed before anybody else can ask.
---@param account neap.Account
---@return neap.Party[]
function parked:lift(account)
  local now, list = self.clock(), {}
  for _, party in pairs(self.by_ticket) do
    if party.account == account then list[#list + 1] = party end
  end
  sort(list, function (a, b) return a.asked < b.asked end)
  uncounted(account, function ()
    for i = #list, 1, -1 do
      local party = list[i]
      if leave(self, party, now) then
        self.by_ticket[party.ticket], party.ends = nil, nil
      else
        remove(list, i)   -- it was granted before it could leave, and hears of it
      end
    end
  end)
  return list
end

--- What it asks now; from what it asked of the policy as it was.
---@param party neap.Party
---@param index table<string, integer>   of the costs that it said, by name
---@return neap.Limiter? variant
local function rewrite(party, index)
  local account, old = party.account, party.request
  local policy, request = account.live, request_t()
  ffi.copy(request.cost, account.ones, COSTS)
  for i, name in ipairs(account.costs) do
    if index[name] then request.cost[i - 1] = old.cost[index[name] - 1] end
  end
  local variant, keys = policy:enter(request, party.by)
  request.priority, request.deadline = old.priority, old.deadline
  party.names, party.keys = variant.bound, keys
  party.request, party.aside = request, nil
  return variant
end

--- Who waits rises; one who came again has waited since it first came.
local function age(party, policy, now)
  local queue = policy.declared.queue
  if not (queue and queue.ageing_ns) then return end
  party.priority = party.priority or party.request.priority
  party.request.priority = party.priority
    + floor(tonumber(now - party.since) / tonumber(queue.ageing_ns))
end

--- In line, with nobody in the engine who would end it in time: a sleep does.
local function wait_in_vain(self, party, now)
  local request = party.request
  local ends = request.deadline
  request.deadline = C.neap_never
  local failed = C.neap_engine_acquire(self.engine, request, now, answer) ~= C.NEAP_OK
  request.deadline = ends
  if failed or answer.status ~= C.NEAP_WAITING then return failed end
  party.ends = tonumber(C.neap_engine_sleep(self.engine, ends, now))
  if party.ends ~= 0 then self.ends[party.ends] = party end
end

--- Into line again, or on.
---@param party neap.Party
---@param index table<string, integer>  what the policy's costs were called
function parked:rejoin(party, index)
  local now = self.clock()
  local variant = rewrite(party, index)
  local policy, request = party.account.live, party.request
  age(party, policy, now)
  if policy.queue and policy:stand_aside(request, variant, now) then
    party.aside, policy.aside = true, policy.aside + 1
  end
  local failed = C.neap_engine_acquire(self.engine, request, now, answer) ~= C.NEAP_OK
  if not failed and answer.status == C.NEAP_TIMEOUT then
    failed = wait_in_vain(self, party, now)
  end
  if failed then answer.status = C.NEAP_QUEUE_FULL end
  if answer.status ~= C.NEAP_WAITING then
    if answer.status ~= C.NEAP_GRANTED then answer.at = now end   -- its wait ends
    return self:ended(party, answer, now)
  end
  party.ticket = tonumber(answer.ticket)
  self.by_ticket[party.ticket] = party
end

--- The policy is gone.
---@param party neap.Party
function parked:dismiss(party)
  answer.status, answer.at, party.gone = C.NEAP_CANCELLED, self.clock(), "reload"
  self:ended(party, answer, answer.at)
end

--- The time of one is over whom the engine would have let wait on.
---@param ticket integer
---@param done ffi.cdata*  struct neap_completion
---@param now ffi.cdata*
function parked:give_up(ticket, done, now)
  local party = self.ends[ticket]
  self.ends[ticket], party.ends = nil, nil
  C.neap_engine_cancel(self.engine, party.ticket, now)
  self.by_ticket[party.ticket] = nil
  answer.status, answer.at, answer.bound = C.NEAP_TIMEOUT, done.at, -1
  self:ended(party, answer, now)
end

return parked
