--- What the worker counts, for a scraper: of each policy, of the worker, of its server and engine.
--- Never a label with a caller's key: their number has no bound.
---
--- A policy takes some 40 lines and 10 KB at most, so the first 300 are shown, and
--- neap_policies_hidden says how many are not.
local ffi = require "ffi"
local C = require "neap.engine"
local text = require "neap.metrics.text"

local collectgarbage, ipairs, pairs = collectgarbage, ipairs, pairs
local concat, max, sort = table.concat, math.max, table.sort
local label, own = text.label, text.own

local MOST = 300

local metrics = { types = text.types }

-- ---- policies ---------------------------------------------------------------------------------

local WORDS = { "GRANTED", "RETRY", "NEVER", "SHED" }

local function said(verdicts, put)
  for _, word in ipairs(WORDS) do
    local bounds = {}
    for bound in pairs(verdicts[word]) do bounds[#bounds + 1] = bound end
    sort(bounds)
    for _, bound in ipairs(bounds) do
      put(verdicts[word][bound],
        label("verdict", word:lower()) .. "," .. label("bound", bound))
    end
  end
end

local function verdicts(one, put) said(one.of.verdicts, put) end

--- One line for each limit that has a level.
local function of_limits(read)
  return function (one, put)
    for i, limit in ipairs(one.of.limits) do
      local available, capacity = one.of:level(i, one.now)
      local n = available and read(available, capacity, limit)
      if n then put(n, label("limit", limit.name)) end
    end
  end
end

local STATES = { closed = 0, ["half-open"] = 1, open = 2 }

local function breaker_state(one, put)
  local breaker = one.of.live.breaker
  if breaker then put(STATES[breaker:state()]) end
end

local function backoff(one, put)
  local policy = one.of.live
  if policy.backoff then put((policy:backoff_left())) end
end

local function shed(one, put)
  local bounds = {}
  for bound in pairs(one.of.verdicts.SHED) do bounds[#bounds + 1] = bound end
  sort(bounds)
  for _, bound in ipairs(bounds) do put(one.of.verdicts.SHED[bound], label("bound", bound)) end
end

--- One line for each scope; of the limits that keys have there, the largest or the sum.
local function of_scopes(read)
  return function (one, put)
    for _, scope in ipairs(one.of.live.scopes) do
      local n = 0
      for _, limit in ipairs(scope.limits) do n = read(n, limit.limiter) end
      put(n, label("scope", scope.name))
    end
  end
end

local POLICIES = {
  { "neap_acquire", "counter", "Callers that had an answer, by verdict and by what bound.",
    verdicts },
  { "neap_wait_seconds", "histogram", "How long callers took until they were answered.",
    text.waits },
  { "neap_waiting", "gauge", "Callers that stand in line.", own "waiting" },
  { "neap_leases", "gauge", "Leases that are out.", own "leases" },
  { "neap_available", "gauge", "Tokens or permits that a caller could have now.",
    of_limits(function (available) return available end) },
  { "neap_capacity", "gauge", "The most that one caller could ever have.",
    of_limits(function (_, capacity) return capacity end) },
  { "neap_limit_available_ratio", "gauge", "Available, of the capacity: from 0 to 1, or below.",
    of_limits(function (available, capacity)
      return capacity > 0 and available / capacity or 0
    end) },
  { "neap_in_flight", "gauge", "Permits that are out.",
    of_limits(function (available, capacity, limit)
      return limit.value.kind == "in_flight" and capacity - available or nil
    end) },
  { "neap_breaker_state", "gauge", "0 closed, 1 half-open, 2 open.", breaker_state },
  { "neap_backoff_seconds", "gauge", "Until calls go as usual again.", backoff },
  { "neap_shed", "counter", "Callers turned away: by a breaker, a queue, keys, or the end.", shed },
  { "neap_lease_expired", "counter", "Leases whose time was up.", own "expired" },
  { "neap_scope_keys", "gauge", "Keys of a scope that are alive.",
    of_scopes(function (n, limiter) return max(n, limiter:len()) end) },
  { "neap_scope_refused", "counter", "Callers turned away as there was no room for their key.",
    of_scopes(function (n, limiter) return n + limiter:key_stats().refused end) },
}

-- ---- the worker -------------------------------------------------------------------------------

local WORKER = {
  { "neap_build_info", "gauge", "1, of this version.", function (_, put)
    put(1, label("version", ffi.string(C.neap_version)))
  end },
  { "neap_policies_hidden", "gauge", "Policies beyond those that are shown.", own "hidden" },
  { "neap_uptime_seconds", "gauge", "Since it began.", own "uptime_s" },
  { "neap_draining", "gauge", "1: it is going down and grants nothing.", own "draining" },
  { "neap_loop_lag_seconds", "histogram", "How late timers were seen to.",
    function (one, put) text.waits({ of = one.of.lag }, put) end },
  { "neap_undone", "counter", "Grants that met nobody and were undone.", own "undone" },
  { "neap_lease_orphaned", "counter", "Leases that ended with their connection.", own "orphaned" },
  { "neap_key_acquire", "counter", "The same as neap_acquire, of all keys of NEAP.LIMIT.",
    function (one, put) said(one.of.key_verdicts, put) end },
  { "neap_key_limits", "gauge", "Keys of NEAP.LIMIT that are alive.", own "key_limits" },
  { "neap_events", "counter", "Events: what was told or folded.", own "happened" },
  { "neap_event_messages", "counter", "Messages of events, whether or not somebody listened.",
    own "messages" },
  { "neap_keys", "gauge", "Keys of CL.THROTTLE and GCRA that are alive.", own "keys_alive" },
  { "neap_keys_bytes", "gauge", "Memory that keys take.",
    function (one, put) put(one.of.keys.bytes) end },
  { "neap_keys_refused", "counter", "New keys that found no room.",
    function (one, put) put(one.of.keys.refused) end },
  { "neap_evicted", "counter", "Keys that made room for others while they were alive.",
    function (one, put) put(one.of.keys.evicted) end },
  { "neap_config_reload_success", "gauge", "1: the policy file was fine when it was last read.",
    own "reloaded" },
  { "neap_config_read_timestamp_seconds", "gauge", "When one was last read that was.",
    own "read_at" },
  { "neap_state_success", "gauge", "1: state was written when it was last to be.", own "saved" },
  { "neap_state_timestamp_seconds", "gauge", "When it last was; 0: never.", own "saved_at" },
  { "neap_state_failures", "counter", "How often it could not be.", own "save_failures" },
  { "neap_lua_bytes", "gauge", "Memory that Lua takes.", own "lua_bytes" },
}

local SERVER = {
  { "neap_clients", "gauge", "Connections that are open.", own "clients" },
  { "neap_clients_max", "gauge", "Connections that there can be.", own "clients_max" },
  { "neap_clients_parked", "gauge", "Connections whose command waits.", own "parked" },
  { "neap_connections", "counter", "Connections accepted.", own "accepted" },
  { "neap_connections_refused", "counter", "Connections turned away: one too many.",
    own "refused" },
  { "neap_subscribers", "gauge", "Connections that listen to events.", own "subscribers" },
  { "neap_clients_cut", "counter", "Connections closed for what their clients did.", own "cut" },
  { "neap_commands", "counter", "Commands and requests.", own "commands" },
  { "neap_received_bytes", "counter", "Bytes that came in.", own "in_bytes" },
  { "neap_sent_bytes", "counter", "Bytes that went out.", own "out_bytes" },
}

local function read(struct, ask, of)
  local out = ffi.new(struct)
  ask(of, out)
  return out
end

local function worker_now(worker, hidden)
  local desk, renewal = worker.desk, worker.renewal
  return {
    hidden = hidden, uptime_s = text.seconds(C.neap_loop_now(worker.loop) - worker.started),
    draining = desk.draining and 1 or 0, lag = worker.lag, shed = desk.shed, undone = desk.undone,
    expired = desk.leases.expired, orphaned = desk.leases.orphaned,
    key_verdicts = desk.accounts.verdicts, key_limits = #desk.accounts.limits.ring,
    keys = read("struct neap_keys_stats", C.neap_keys_stats, worker.keys),
    keys_alive = C.neap_keys_count(worker.keys, desk.clock()),
    happened = worker.events.happened, messages = worker.events.number,
    saved = (not worker.state or worker.state.fine) and 1 or 0,
    saved_at = worker.state and worker.state.at or 0,
    save_failures = worker.state and worker.state.failures or 0,
    lua_bytes = collectgarbage "count" * 1024,
    reloaded = (not renewal or renewal.succeeded) and 1 or 0, read_at = renewal and renewal.at or 0,
  }
end

--- All of it.
---@param worker neap.Worker
---@param open boolean  as OpenMetrics has it
---@return string
function metrics.write(worker, open)
  local desk = worker.desk
  local now, shown, out = desk.clock(), {}, {}
  C.neap_engine_advance(desk.engine, now)
  for i, name in ipairs(desk.accounts.names) do
    if i > MOST then break end
    shown[i] = { of = desk.accounts.policies[name], now = now, labels = label("policy", name) }
  end
  local server = read("struct neap_server_stats", C.neap_server_stats, worker.server)
  local engine = read("struct neap_engine_stats", C.neap_engine_stats, desk.engine)
  for _, group in ipairs {
    { POLICIES, shown }, { WORKER, { { of = worker_now(worker, #desk.accounts.names - #shown) } } },
    { SERVER, { { of = server } } }, { text.engine, { { of = engine } } },
  } do
    for _, family in ipairs(group[1]) do text.write(out, open, family, group[2]) end
  end
  if open then out[#out + 1] = "# EOF\n" end
  return concat(out)
end

return metrics
