--- How the worker stands, as JSON: for /v1/snapshot, and once a second for those who watch.
---
---     {"worker":{"version":"0.1.0","now_ms":5012,"uptime_s":5,"draining":false,"clients":1},
---      "policies":[{"policy":"openai","doc":"chat","waiting":0,"leases":1,
---        "said":{"granted":3,"waited":1,"retry":0,"never":0,"shed":0},
---        "limits":[{"name":"calls","limit":"2 in flight","available":1,"capacity":2,
---          "in_flight":1}],"breaker":"closed","backoff_ms":0,"shut_ms":0}]}
---
--- What was said counts since the worker began; `waited` is how many of those granted stood in line
--- first. `now_ms` is the worker's clock, to know how much time is between two snapshots.
local ffi = require "ffi"
local C = require "neap.engine"
local json = require "neap.policy.json"
local look = require "neap.worker.look"

local ipairs, tonumber = ipairs, tonumber
local concat, floor = table.concat, math.floor
local object, value = json.object, json.value

local snapshot = {}

--- One policy. The engine has to be at `now`.
---@param account neap.Account
---@param now ffi.cdata*
---@return string
function snapshot.policy(account, now) return look.json(look.policy(account, now)) end

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
