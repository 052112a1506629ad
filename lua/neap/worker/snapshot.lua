--- How the worker stands, as JSON: for /v1/snapshot, and once a second for those who watch.
---
---     {"worker":{"version":"0.1.0","now_ms":5012,"uptime_s":5,"draining":false,"clients":1},
---      "policies":[{"policy":"openai","doc":"chat","waiting":0,"leases":1,
---        "said":{"granted":3,"waited":1,"retry":0,"never":0,"shed":0},
---        "limits":[{"name":"calls","limit":"2 in flight","available":1,"capacity":2,
---          "in_flight":1}]}]}
---
--- What was said counts since the worker began; `waited` is how many of those granted stood in line
--- first. `now_ms` is the worker's clock, to know how much time is between two snapshots.
local ffi = require "ffi"
local C = require "neap.engine"
local json = require "neap.policy.json"

local ipairs, pairs, tonumber = ipairs, pairs, tonumber
local concat, floor = table.concat, math.floor
local object, value = json.object, json.value

local snapshot = {}

local function sum(counts)
  local n = 0
  for _, count in pairs(counts) do n = n + count end
  return value(n)
end

local function said(account)
  local verdicts = account.verdicts
  return object { { "granted", sum(verdicts.GRANTED) }, { "waited", value(account.waited) },
    { "retry", sum(verdicts.RETRY) }, { "never", sum(verdicts.NEVER) },
    { "shed", sum(verdicts.SHED) } }
end

local function limit_of(account, i, now)
  local limit = account.limits[i]
  local available, capacity = account:level(i, now)
  local parts = {
    { "name", value(limit.name) }, { "limit", value(limit.text) },
    { "available", available and value(available) or "null" },
    { "capacity", capacity and value(capacity) or "null" },
  }
  if limit.value.kind == "in_flight" then
    parts[#parts + 1] = { "in_flight", value(capacity - available) }
  end
  return object(parts)
end

--- One policy. The engine has to be at `now`.
---@param account neap.Account
---@param now ffi.cdata*
---@return string
function snapshot.policy(account, now)
  local limits = {}
  for i in ipairs(account.limits) do limits[i] = limit_of(account, i, now) end
  local parts = { { "policy", value(account.name) } }
  if account.doc then parts[2] = { "doc", value(account.doc) } end
  for _, part in ipairs { { "waiting", value(account.waiting) },
    { "leases", value(account.leases) }, { "said", said(account) },
    { "limits", "[" .. concat(limits, ",") .. "]" } } do
    parts[#parts + 1] = part
  end
  return object(parts)
end

local function worker_now(worker, now)
  local stats = ffi.new "struct neap_server_stats"
  C.neap_server_stats(worker.server, stats)
  local up = tonumber(C.neap_loop_now(worker.loop) - worker.started) / 1e9
  return object { { "version", value(ffi.string(C.neap_version)) },
    { "now_ms", value(tonumber(now / 1000000)) }, { "uptime_s", value(floor(up)) },
    { "draining", value(worker.desk.draining) }, { "clients", value(tonumber(stats.clients)) } }
end

--- All of it, on one line.
---@param worker neap.Worker
---@return string
function snapshot.write(worker)
  local desk, list = worker.desk, {}
  local now = desk.clock()
  C.neap_engine_advance(desk.engine, now)
  for i, name in ipairs(desk.accounts.names) do
    list[i] = snapshot.policy(desk.accounts.policies[name], now)
  end
  return object { { "worker", worker_now(worker, now) },
    { "policies", "[" .. concat(list, ",") .. "]" } }
end

return snapshot
