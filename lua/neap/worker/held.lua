--- What is out: leases by name, for those who hold them and for those who look after the worker.
---
---     NEAP.RENEW lease ms             ms left now; -2: there is no such lease
---     NEAP.LEASES [policy] [COUNT n]  the eldest first
---     NEAP.KILL lease                 1, or 0
---
--- Who knows a lease's name can give it back, and who knows its ID can get it; so they are listed
--- for those only who may do that anyway.
local C = require "neap.engine"
local reply = require "neap.worker.reply"
local tail = require "neap.worker.tail"
local verdicts = require "neap.worker.verdicts"

local ipairs, max = ipairs, math.max
local map, since_ms, until_ms = reply.map, verdicts.since_ms, verdicts.until_ms

local held = {}

local function answer(desk, client, value)
  reply.write(C.neap_server_reply(desk.server, client), value)
end

--- As NEAP.RENEW says.
---@param desk neap.Desk
---@param words string[]  lease, ms
---@return integer?
---@return string? err
function held.let_live(desk, words)
  local ms, err = tail.milliseconds(words, 2, "RENEW")
  if not ms then return nil, err end
  local now = desk.clock()
  local lease
  lease, err = desk.leases:renew(words[1], ms * 1e6, now)
  if err then return nil, err end
  return lease and until_ms(lease.ends, now) or -2
end

---@param desk neap.Desk
---@param client integer
---@param words string[]
function held.renew(desk, client, words)
  local ms, err = held.let_live(desk, words)
  if err then return desk:fail(client, err) end
  answer(desk, client, ms)
end

--- Costs by name.
local function costs_of(lease)
  local list, account = {}, lease.view or lease.account
  for i, name in ipairs(account.costs) do
    local n = lease.request.cost[i - 1]
    if n > 0 then list[#list + 1] = { name, n } end
  end
  return map(list)
end

local function entry(lease, now)
  local account = lease.account
  return map {
    { "lease", lease.name }, { account.live and "policy" or "key", account.name },
    { "client", lease.client or -1 }, { "id", lease.id or reply.null },
    { "held_ms", since_ms(lease.at, now) }, { "begins_ms", max(0, until_ms(lease.at, now)) },
    { "left_ms", until_ms(lease.ends, now) }, { "costs", costs_of(lease) },
  }
end

function held.leases(desk, client, words)
  local account, options, err
  local named = words[1] and (words[1]:upper() ~= "COUNT" or #words % 2 == 1)
  if named then
    account, err = desk.accounts:policy(words[1])
    if not account then return desk:fail(client, err) end
  end
  options, err = tail.leases(words, named and 2 or 1)
  if not options then return desk:fail(client, err) end
  local list, now, lease = {}, desk.clock(), desk.leases.eldest
  while lease and #list < options.count do
    if not account or lease.account == account then list[#list + 1] = entry(lease, now) end
    lease = lease.after
  end
  answer(desk, client, list)
end

function held.kill(desk, client, words)
  answer(desk, client, desk.leases:kill(words[1], desk.clock()) and 1 or 0)
end

return held
