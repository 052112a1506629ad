--- Telemetry: what is emitted, with which numbers. The cases are prose, so each has a scenario here
--- by its id, which plays it and answers what was seen, in the case's shape and names; cases about
--- an event share one by the event's name.
local cjson = require "cjson"
local clock = require "spec.vectors.clock"
local exposition = require "spec.model.exposition"
local harness = require "spec.vectors.harness"
local neap = require "neap"

local events = neap.events

-- The cases' names: of series, and of the policies of a queue.
local SERIES = {
  throttle_acquired_total = "neap_granted_total", throttle_wait_duration = "neap_wait_seconds",
  throttle_queue_depth = "neap_queue_depth", throttle_circuit_state = "neap_breaker_state",
  throttle_rate_current = "neap_adaptive_limit",
}
local POLICIES = { drop_lowest = "drop_lowest_priority" }

local suite = { series = SERIES }

-- ---- looking ----------------------------------------------------------------------------------

--- The samples of a series, of these limiters.
local function samples(name, only)
  local families = exposition("prometheus", neap.metrics.prometheus { only = only })
  local list = {}
  for _, family in ipairs(families) do
    for _, one in ipairs(family.samples) do
      if one.name == name then list[#list + 1] = one end
    end
  end
  return list
end

suite.samples = samples

--- The sum of them.
local function total(name, ...)
  local sum = 0
  for _, one in ipairs(samples(name, { ... })) do sum = sum + one.value end
  return sum
end

suite.total = total

local function gauge(name, of) return total(SERIES[name], of) end

--- What a tap hears while `fn` runs.
---@return table[]
local function heard(kinds, fn)
  local list = {}
  local stop = events.tap(function (event) list[#list + 1] = event end, kinds)
  local ok, err = pcall(fn)
  stop()
  if not ok then error(err, 0) end
  return list
end

suite.heard = heard

local function settle()
  for _ = 1, 3 do neap.runtime.current().turn(0) end
end

-- ---- events, by name --------------------------------------------------------------------------

local about = {}

about["acquire"] = function ()
  local api = neap.throttle("1/s", { name = "api" })
  local seen = {}
  for _, e in ipairs(heard({ "granted", "timeout" }, function ()
    assert(api:acquire())
    assert(api:acquire())
    api:acquire { timeout = 0.5 }
  end)) do
    seen[#seen + 1] = { limiter = e.limiter, cost = e.cost, granted = e.kind == "granted",
      wait_secs = e.waited or 0 }
  end
  return seen
end

about["queue overflow"] = function ()
  local seen, kept = {}, {}
  for _, policy in ipairs { "reject", "drop_oldest", "drop_lowest" } do
    local queue = neap.queue("1 in flight", { capacity = 1, overflow = policy })
    kept[#kept + 1] = { queue, assert(queue:acquire()) }
    for _, e in ipairs(heard({ "overflow" }, function ()
      for i = 1, 2 do
        neap.spawn(function () kept[#kept + 1] = queue:acquire { priority = i } end)
      end
      settle()
    end)) do
      seen[#seen + 1] = { policy = POLICIES[e.policy] or e.policy, limiter = e.limiter }
    end
  end
  return seen
end

about["queue waiter deadline exceeded"] = function ()
  local queue = neap.queue "1 in flight"
  local held = assert(queue:acquire())
  local seen = heard({ "timeout" }, function () queue:acquire { timeout = 1 } end)
  held:release()
  return seen
end

about["breaker transition"] = function ()
  local breaker = neap.breaker { failures = 1 }
  return heard({ "breaker" }, function () breaker:failure() end)
end

about["limit changed"] = function ()
  local limit = neap.adaptive { initial = 10 }
  local seen = {}
  for _, e in ipairs(heard({ "adaptive" }, function ()
    assert(limit:acquire()):give "failure"
  end)) do
    seen[#seen + 1] = { old = e.from, new = e.to, limiter = e.limiter }
  end
  return seen
end

about["circuit breaker transition"] = about["breaker transition"]
about["adaptive limit changed"] = about["limit changed"]

local function check_event(case)
  local play = about[case.event]
  if not play then harness.skip("no event is called " .. case.event) end
  local seen = play()
  if #seen == 0 then harness.fail("event", case.event, "none") end
  for _, event in ipairs(seen) do
    for _, field in ipairs(case.fields) do
      if event[field] == nil then harness.fail("field", field, event) end
    end
  end
  for field, values in pairs(case.values or {}) do
    for _, value in ipairs(values) do
      local found = false
      for _, event in ipairs(seen) do found = found or event[field] == value end
      if not found then harness.fail(field, value, seen) end
    end
  end
end

-- ---- scenarios, by id -------------------------------------------------------------------------

local play = {}

play["TE-001"] = function ()
  local breaker = neap.breaker { failures = 1 }
  breaker:failure()
  return { gauge = { throttle_circuit_state = gauge("throttle_circuit_state", breaker) } }
end

play["TE-002"] = function ()
  local breaker = neap.breaker { failures = 1, cooldown = 1 }
  local states = {}
  local function look() states[#states + 1] = gauge("throttle_circuit_state", breaker) end
  breaker:failure()
  look()
  neap.sleep(1)
  local trial = assert(breaker:acquire())
  look()
  trial:give "success"
  look()
  return { gauge_sequence = { throttle_circuit_state = states } }
end

--- The one wait that is not 0, as far as sum and buckets tell; and how many there are.
local function waits_of(limiter)
  local buckets = samples(SERIES.throttle_wait_duration .. "_bucket", { limiter })
  local below = 0
  for _, one in ipairs(buckets) do
    if one.value < total("neap_wait_seconds_count", limiter) then
      below = tonumber(one.labels.le)
    end
  end
  local sum = total("neap_wait_seconds_sum", limiter)
  assert(sum > below)
  return sum, total("neap_wait_seconds_count", limiter)
end

play["TE-004"] = function ()
  local bucket = neap.throttle "2/s"
  assert(bucket:try_acquire(2))
  assert(bucket:acquire())
  local sum, count = waits_of(bucket)
  if count ~= 1 then harness.fail("count", 1, count) end
  return { histogram = { throttle_wait_duration = { sum } } }
end

play["TE-005"] = function ()
  local bucket = neap.throttle "5/s"
  bucket:acquire(9)
  return { counter = { throttle_acquired_total = gauge("throttle_acquired_total", bucket) },
    histogram_count = { throttle_wait_duration = total("neap_wait_seconds_count", bucket) } }
end

play["TE-007"] = function ()
  local limit = neap.adaptive { strategy = "aimd", ceiling = 100, initial = 10 }
  local moves, before = {}, gauge("throttle_rate_current", limit)
  for _, outcome in ipairs { "success", "failure" } do
    assert(limit:acquire()):give(outcome)
    local now = gauge("throttle_rate_current", limit)
    if now ~= before then moves[#moves + 1] = now end
    before = now
  end
  return { gauge_sequence = { throttle_rate_current = moves } }
end

play["TE-013"] = function ()
  local list = heard({ "foundation.*" }, function ()
    events.emit("foundation.execute", { count = 1, tag = "ok" })
  end)
  assert(#list == 1 and list[1].kind == "foundation.execute")
  return { received = { measurements = { count = list[1].count },
    metadata = { tag = list[1].tag } } }
end

--- One measured call: the event, and how the call ended.
local function measured(fields, fn)
  local ran, answer
  local list = heard({ "foundation.measure.*" }, function ()
    ran, answer = pcall(events.measure, "foundation.measure", fields, fn)
  end)
  assert(#list == 1)
  local event = list[1]
  return {
    event_suffix = event.kind:match "[^.]*$", metadata_kept = event.tag == "kept",
    measurements = { duration = event.duration, time_unit = event.time_unit },
    metadata_adds = event.error ~= nil and { "error" } or {},
    returns = ran and answer or nil, raised = not ran and answer or nil,
  }
end

play["TE-014"] = function ()
  local seen = measured({ tag = "kept" }, function ()
    neap.sleep(0.25)
    return "ok"
  end)
  harness.expect("duration", 250000, seen.measurements.duration)
  return seen
end

play["TE-015"] = function ()
  return measured({ tag = "kept" }, function () error("boom", 0) end)
end

play["TE-016"] = function ()
  local seen = measured({ time_unit = "millisecond" }, function () neap.sleep(0.25) end)
  harness.expect("duration", 250, seen.measurements.duration)
  return seen
end

local VERBS = { "start", "log", "attach", "detach" }

play["TE-017"] = function ()
  local reporter, whys = events.reporter "spec.no_such_package", {}
  for _, verb in ipairs(VERBS) do
    local answer, why = reporter[verb](reporter)
    assert(answer == nil)
    whys[why] = true
  end
  assert(next(whys, next(whys)) == nil, "one word for all")
  return { each = { error = (next(whys)) } }
end

play["TE-018"] = function ()
  local said = {}
  local package = {}
  for _, verb in ipairs(VERBS) do
    package[verb] = function (...)
      said[verb] = { n = select("#", ...), ... }
      return verb == "attach" and { ok = "handler id" } or verb
    end
  end
  local reporter = events.reporter(package)
  local options, fields = { test = true }, { ok = true }
  local delegated = reporter:start(options) == "start"
    and reporter:log("reporter", "event", fields, "info") == "log"
  local attached = reporter:attach(options, nil)
  delegated = delegated and reporter:detach(attached.ok) == "detach"
    and said.start.n == 1 and said.start[1] == options
    and said.log.n == 4 and said.log[1] == "reporter" and said.log[2] == "event"
    and said.log[3] == fields and said.log[4] == "info"
    and said.attach.n == 2 and said.attach[1] == options
    and said.detach.n == 1 and said.detach[1] == "handler id"
  return { delegated = delegated, attach_returns = attached }
end

play["TE-020"] = function ()
  local a, b = neap.breaker { failures = 1, name = "a" }, neap.breaker { name = "b" }
  a:failure()
  local labels
  local list = samples(SERIES.throttle_circuit_state, { a, b })
  assert(#list == 2)
  for _, one in ipairs(list) do
    if one.value == 2 then labels = { name = one.labels.limiter } end
  end
  return { gauge_labels = { throttle_circuit_state = labels } }
end

play["TE-021"] = function ()
  local bucket = neap.throttle "10/s"
  for _ = 1, 3 do assert(bucket:try_acquire()) end
  return { counter = { throttle_acquired_total = gauge("throttle_acquired_total", bucket) } }
end

--- One of each kind, which waits for its second call.
function suite.each_kind()
  return {
    { neap.throttle "1/500ms sliding" }, { neap.hybrid { "2/s burst 1", "100/s" } },
    { neap.multi { a = "2/s burst 1", b = "100/s" } }, { neap.per_key "2/s burst 1", "ann" },
    { neap.layered { global = "100/s", user = "2/s burst 1" }, { user = "ann" } },
    { neap.breaker { over = neap.throttle "2/s burst 1" } }, { neap.adaptive() },
  }
end

play["TE-022"] = function ()
  local list, before = {}, 0
  for i, one in ipairs(suite.each_kind()) do
    list[i] = one[1]
    if i < 7 then   -- an adaptive one waits for what comes back
      assert(one[1]:try_acquire(one[2]))
      before = before + 1
      assert(one[1]:acquire(one[2]))
    else
      local held = assert(one[1]:try_acquire())
      before = before + 1
      neap.spawn(function ()
        neap.sleep(0.5)
        held:release()
      end)
      assert(one[1]:acquire())
    end
  end
  harness.expect("waited", 7, total("neap_waited_total", unpack(list)))
  return { counter = { throttle_acquired_total =
    total(SERIES.throttle_acquired_total, unpack(list)) - before } }
end

-- ---- running ----------------------------------------------------------------------------------

--- Is there a test for it?
---@param case table
---@return boolean
function suite.knows(case)
  return play[case.id] ~= nil or about[case.event or cjson.null] ~= nil
end

function suite.run(case)
  clock.new()
  if case.event then return check_event(case) end
  if not play[case.id] then harness.skip "a scenario in prose that nobody has written down" end
  harness.expect("expect", case.expect, play[case.id]())
end

return suite
