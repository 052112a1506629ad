--- Metrics: two parsers accept the text, one of them Prometheus' own; and what it says is so.
local cjson = require "cjson"
local neap = require "neap"
local exposition = require "spec.model.exposition"
local manual = require "neap.runtime.manual"
local seed = require "spec.seed"

local metrics = neap.metrics

-- What Prometheus' client library for Python makes of a text: samples, as JSON lines. Debian's
-- Python, for it is Debian's package.
local PARSER = [[
import json, sys
if sys.argv[1] == "openmetrics":
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
else:
    from prometheus_client.parser import text_string_to_metric_families as families
with open(sys.argv[2], newline="", encoding="utf-8") as f:
    for family in families(f.read()):
        for s in family.samples:
            print(json.dumps([family.type, family.unit, s.name, s.labels, repr(s.value)]))
]]

local function run_parser(format, text)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  local python = "env -u LD_PRELOAD /usr/bin/python3 -c '%s' %s %s 2>&1"
  local pipe = io.popen(python:format(PARSER, format, path))
  local out = pipe:read "*a"
  pipe:close()
  os.remove(path)
  return out
end

--- The same samples, in the same order, from the other parser.
local function agree(format, text, families)
  local lines = run_parser(format, text):gmatch "[^\n]+"
  local count = 0
  for _, fam in ipairs(families) do
    for _, one in ipairs(fam.samples) do
      local line = lines() or "nothing more"
      assert.truthy(line:find("^%["), line)
      local kind, unit, name, labels, value = unpack(cjson.decode(line))
      value = value == "inf" and math.huge or tonumber(value)
      assert.same({ fam.type, format == "openmetrics" and fam.unit or "", one.name, one.labels,
        one.value }, { kind, unit, name, labels, value })
      count = count + 1
    end
  end
  assert.is_nil(lines())
  assert.truthy(count > 0)
end

describe("metrics", function ()
  local rt, before, alive

  --- What the text says about those that this test made.
  local function read(format)
    local text = metrics[format or "prometheus"] { only = alive, most = math.huge }
    local families, samples = exposition(format or "prometheus", text)
    return samples, families, text
  end

  --- Keep a limiter, and show it.
  local function keep(one)
    alive[#alive + 1] = one
    return one
  end

  --- The number that a series has.
  local function value(samples, name, one, more)
    local list = { ("id=%q"):format(tostring(one.id)), ("limiter=%q"):format(one.name) }
    for label, text in pairs(more or {}) do list[#list + 1] = ("%s=%q"):format(label, text) end
    table.sort(list)
    local sample = samples[("%s{%s}"):format(name, table.concat(list, ","))]
    return sample and sample.value
  end

  local function settle()
    for _ = 1, 3 do rt.turn(0) end
  end

  before_each(function ()
    rt = manual.new()
    before = neap.runtime.use(rt)
    alive = {}
  end)

  after_each(function () neap.runtime.use(before) end)

  --- One of each kind, in use, with names that want escaping.
  local function world()
    local api = keep(neap.throttle("2/s", { name = "a \"b\"\\c\nd" }))
    assert(api:acquire(2))
    assert(api:acquire())
    api:try_acquire()
    keep(neap.throttle("2/s", { name = "caf\195\169 \226\130\172 \240\159\140\138" }))
    local llm = keep(neap.multi { requests = "10/s", calls = "4 in flight" })
    local held = assert(llm:acquire { requests = 1, calls = 3 })
    local breaker = keep(neap.breaker { failures = 1 })
    assert(breaker:try_acquire()):give "failure"
    keep(neap.queue("1/s", { capacity = 3 }))
    assert(keep(neap.per_key "1/s"):try_acquire "ann")
    keep(neap.layered { global = { "10/s", "2 in flight" }, user = "1/s" })
    keep(neap.adaptive())
    keep(neap.pause()):extend(math.huge)
    keep(neap.throttle "unlimited")
    keep(neap.throttle "closed")
    local budget = neap.budget { share = 0.2, least = 1, within = "10s" }
    local retry = neap.retry { budget = budget, max_attempts = 4 }
    retry:run(function () return nil, "x" end)
    local hedge = neap.hedge { after = "50ms" }
    hedge:run(function () return neap.sleep(0.2) end)
    return { held, retry, hedge, budget }
  end

  for _, format in ipairs { "prometheus", "openmetrics" } do
    it("follow the grammar of " .. format .. ", and Prometheus' parser agrees", function ()
      local used = world()
      local _, families, text = read(format)
      agree(format, text, families)
      assert.truthy(#families >= 40)
      assert.truthy(used)
    end)
  end

  it("say the same in both formats, and the same again", function ()
    local used = world()
    collectgarbage()   -- retries of other tests would go in the middle of this
    collectgarbage()
    local plain, _, text = read()
    local open = read "openmetrics"
    for key, one in pairs(plain) do assert.equal(one.value, open[key] and open[key].value, key) end
    for key in pairs(open) do assert.truthy(plain[key], key) end
    assert.equal(text, select(3, read()))
    assert.truthy(used)
  end)

  it("would be found wanting, were they wrong", function ()
    keep(neap.throttle "1/s")
    local _, _, text = read()
    for _, change in ipairs {
      { "# TYPE neap_granted_total counter\n", "" }, { "neap_granted_total{", "neap_granted{" },
      { "\n$", "" }, { "neap_engine_lines 0", "neap_engine_lines zero" },
      { "neap_engine_lines 0", "neap_engine_lines 0\nneap_engine_lines 0" },
      { "limiter=\"1/s\"", "limiter=\"1/\"s\"" }, { "le=\"%+Inf\"} 0", "le=\"+Inf\"} 1" },
      { "(le=\"68.719476735\"} )0", "%11" },
    } do
      local changed, n = text:gsub(change[1], change[2], 1)
      assert.equal(1, n)
      assert.is_false((pcall(exposition, "prometheus", changed)), change[1])
    end
  end)

  it("count what became of calls", function ()
    local l = keep(neap.throttle("1/s", { name = "api" }))
    assert(l:try_acquire())
    assert(l:acquire())
    l:try_acquire()
    l:try_acquire(3)
    l:acquire(1, 0.5)
    rt.advance(10)
    assert(l:try_acquire()):settle(0)
    l:refund(0)
    local task = rt.spawn(function () l:acquire() end)
    l:acquire()
    settle()
    task:cancel()
    settle()
    local s = read()
    local got = {}
    for _, name in ipairs { "granted", "waited", "expired", "cancelled", "undone", "queue_full",
      "leaked" } do
      got[name] = value(s, "neap_" .. name .. "_total", l)
    end
    assert.same({ granted = 4, waited = 1, expired = 1, cancelled = 1, undone = 1, queue_full = 0,
      leaked = 0 }, got)
    assert.equal(1, value(s, "neap_refused_total", l, { why = "rate" }))
    assert.equal(1, value(s, "neap_refused_total", l, { why = "cost" }))
    assert.equal(0, value(s, "neap_refused_total", l, { why = "open" }))
    local llm = keep(neap.throttle "9/s")
    assert(llm:try_acquire(5)):settle(7)
    for _ = 1, 2 do assert(llm:try_acquire(1)):settle(0) end
    rt.advance(1)
    for _ = 1, 2 do assert(llm:try_acquire(2)):settle(1) end
    s = read()
    assert.equal(1, value(s, "neap_settled_total", llm, { direction = "up" }))
    assert.equal(2, value(s, "neap_settled_total", llm, { direction = "down" }))
  end)

  it("count permits that are lost, and calls that found no place", function ()
    local q = keep(neap.queue("1 in flight", { capacity = 1, overflow = "drop_oldest" }))
    local held = assert(q:try_acquire())
    for _ = 1, 2 do
      rt.spawn(function ()
        local mine = q:acquire()
        return mine and mine:release()
      end)
    end
    settle()
    local s = read()
    assert.equal(1, value(s, "neap_queue_full_total", q))
    assert.equal(1, value(s, "neap_queue_dropped_total", q))
    assert.equal(1, value(s, "neap_queue_depth", q))
    assert.equal(1, value(s, "neap_queue_places", q))
    assert.equal(1, value(s, "neap_waiting", q))
    assert.equal(1, s["neap_engine_waiting{}"].value)
    held:release()
    settle()
    assert.equal(0, value(read(), "neap_queue_depth", q))
    local slots = keep(neap.semaphore(2))
    assert(slots:try_acquire())
    collectgarbage()
    collectgarbage()
    assert.equal(1, value(read(), "neap_leaked_total", slots))
  end)

  it("have exact counts of waits at every bound, as a list has them", function ()
    math.randomseed(seed)
    local pause, list = keep(neap.pause()), {}
    local limiter = require "neap.limiter"
    local sum = 0
    local function wait(ns)
      local now = limiter.present()
      pause:extend_to(now + ns, now, rt)
      assert(pause:acquire())
      list[#list + 1], sum = ns, sum + ns
    end
    for power = 8, 44 do
      for off = -1, 1 do wait(2 ^ power + off) end
    end
    for _ = 1, 200 do wait(math.floor(10 ^ (math.random() * 12 + 1))) end
    wait(0)
    local s, bounds = read(), 0
    for _, one in pairs(s) do
      local le = one.labels.le
      if le and one.labels.id == tostring(pause.id) then
        local n = 0
        for _, ns in ipairs(list) do
          if le == "+Inf" or ns <= tonumber(le) * 1e9 + 1e-4 then n = n + 1 end
        end
        assert.equal(n, one.value, "at " .. le)
        bounds = bounds + 1
      end
    end
    assert.equal(22, bounds)
    assert.equal(#list, value(s, "neap_wait_seconds_count", pause))
    assert.is_true(math.abs(value(s, "neap_wait_seconds_sum", pause) - sum / 1e9) < 1e-6)
  end)

  it("show what there is to take, by cost, and what is out", function ()
    local llm = keep(neap.multi { requests = "10/s", calls = "4 in flight" })
    local held = assert(llm:try_acquire { requests = 3, calls = 1 })
    local both = keep(neap.hybrid { "9/s", neap.semaphore(5) })
    local s = read()
    assert.equal(7, value(s, "neap_available", llm, { cost = "requests" }))
    assert.equal(10, value(s, "neap_capacity", llm, { cost = "requests" }))
    assert.equal(3, value(s, "neap_available", llm, { cost = "calls" }))
    assert.equal(1, value(s, "neap_in_flight", llm, { cost = "calls" }))
    assert.is_nil(value(s, "neap_in_flight", llm, { cost = "requests" }))
    assert.equal(5, value(s, "neap_available", both))
    assert.equal(both:capacity(), value(s, "neap_capacity", both))
    held:release()
    assert.equal(0, value(read(), "neap_in_flight", llm, { cost = "calls" }))
    local users = keep(neap.per_key("1/h", { most = 1 }))
    users:try_acquire "ann"
    users:try_acquire "bob"
    s = read()
    assert.equal(1, value(s, "neap_keys", users))
    assert.equal(1, value(s, "neap_keys_evicted_total", users))
    assert.is_nil(value(s, "neap_available", users))
  end)

  it("show states: of breakers, adaptive limits and pauses", function ()
    local b = keep(neap.breaker { failures = 1, cooldown = 1, name = "b" })
    local a = keep(neap.adaptive { initial = 10 })
    local p = keep(neap.pause())
    local function states()
      local s = read()
      return { value(s, "neap_breaker_state", b), value(s, "neap_breaker_changes_total", b),
        value(s, "neap_adaptive_limit", a), value(s, "neap_adaptive_changes_total", a),
        value(s, "neap_pause_seconds", p) }
    end
    assert.same({ 0, 0, 10, 0, 0 }, states())
    b:failure()
    assert(a:try_acquire()):give "failure"
    p:extend(0.25)
    assert.same({ 2, 1, 5, 1, 0.25 }, states())
    rt.advance(1)
    assert.same({ 1, 2, 5, 1, 0 }, states())
    p:extend(math.huge)
    b:success()
    assert.same({ 0, 3, 5, 1, math.huge }, states())
  end)

  it("show a dispatch, what it has out by what it is, whatever it counts now", function ()
    local d = keep(neap.dispatch { concurrency = 4, byte_budget = 100, byte_penalty_multiplier = 5,
      backoff_window = 2 })
    local held = { assert(d:try_acquire(10)), assert(d:try_acquire(20)) }
    local function look()
      local s = read()
      return { value(s, "neap_in_flight", d), value(s, "neap_in_flight", d, { cost = "bytes" }),
        value(s, "neap_available", d, { cost = "bytes" }), value(s, "neap_throttled_seconds", d) }
    end
    assert.same({ 2, 30, 70, 0 }, look())
    d:set_backoff(1)
    assert.same({ 2, 30, 14, 3 }, look())
    held[1]:release()
    held[2]:release()
    rt.advance(3)
    assert.same({ 0, 0, 100, 0 }, look())
  end)

  it("count what retries, hedges and budgets do", function ()
    local budget = neap.budget { share = 0, least = 1, within = "10s" }
    local retry = neap.retry { name = "fetch", budget = budget }
    retry:run(function () return nil, "x" end)
    retry:run(function () return true end)
    retry:step(retry:begin(), neap.retry.outcome(nil, "x"))
    local hedge = neap.hedge { name = "mirrors", after = "50ms" }
    hedge:run(function () return neap.sleep(0.2) end)
    local s = read()
    local function n(name, label, one)
      local list = { ("id=\"%d\""):format(one.id), label and ("%s=%q"):format(label, one.name) }
      table.sort(list)
      return s[name .. "{" .. table.concat(list, ",") .. "}"].value
    end
    assert.equal(3, n("neap_retry_runs_total", "retry", retry))
    assert.equal(1, n("neap_retry_repeats_total", "retry", retry))
    assert.equal(2, n("neap_retry_failed_total", "retry", retry))
    assert.equal(1, n("neap_hedge_runs_total", "hedge", hedge))
    assert.equal(1, n("neap_hedge_extra_total", "hedge", hedge))
    assert.equal(0, n("neap_hedge_failed_total", "hedge", hedge))
    assert.equal(0, n("neap_budget_left", nil, budget))
    assert.equal(2, n("neap_budget_refused_total", nil, budget))
  end)

  it("keep two of one name apart, oldest first, and forget those that are gone", function ()
    local a = keep(neap.throttle("1/s", { name = "x" }))
    local b = keep(neap.throttle("2/s", { name = "x" }))
    assert(b:try_acquire())
    local s, _, text = read()
    assert.equal(0, value(s, "neap_granted_total", a))
    assert.equal(1, value(s, "neap_granted_total", b))
    assert.is_true(text:find(("id=\"%d\""):format(a.id)) < text:find(("id=\"%d\""):format(b.id)))
    local id = ("id=\"%d\""):format(a.id)
    assert.truthy(metrics.prometheus { most = 1e9 }:find(id, 1, true))
    a, alive = nil, {}   -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    assert.falsy(metrics.prometheus { most = 1e9 }:find(id, 1, true))
  end)

  it("take names of any bytes", function ()
    math.randomseed(seed)
    for _ = 1, 60 do
      local bytes = {}
      for i = 1, math.random(1, 6) do
        local some = { math.random(0, 255), math.random(128, 255),
          ("\n\"$.\\\194\224\237\244"):byte(math.random(9)) }
        bytes[i] = string.char(some[math.random(3)])
      end
      keep(neap.throttle("1/s", { name = table.concat(bytes) }))
    end
    for _, format in ipairs { "prometheus", "openmetrics" } do
      local text = metrics[format] { only = alive }
      assert.equal("", run_parser(format, text):match "Error.*" or "")
    end
    alive = {}
    local euro = keep(neap.throttle("1/s", { name = "\226\130\172\226\130\255\237\160\128$." }))
    assert.truthy(metrics.prometheus { only = alive }:find(
      ("limiter=\"\226\130\172%s$.\",id=\"%d\"")
        :format(("\239\191\189"):rep(6), euro.id), 1, true))
  end)

  it("show whom they are asked for, and not more than so many", function ()
    local a = keep(neap.throttle("1/s", { name = "a" }))
    local b = keep(neap.throttle("1/s", { name = "b" }))
    local c = keep(neap.throttle("1/s", { name = "b" }))
    local function ids(options)
      local _, samples = exposition("prometheus", metrics.prometheus(options))
      local found = {}
      for _, one in ipairs { a, b, c } do
        if value(samples, "neap_granted_total", one) then found[#found + 1] = one end
      end
      return found, samples["neap_limiters_hidden{}"].value
    end
    assert.same({ { a, b, c }, 0 }, { ids { only = alive } })
    assert.same({ { a }, 0 }, { ids { only = { a } } })
    assert.same({ { b, c }, 0 }, { ids { only = { "b" } } })
    assert.same({ { a, c }, 0 }, { ids { only = function (l) return l == a or l == c end } })
    assert.same({ {}, 0 }, { ids { only = {} } })
    assert.same({ { a, b }, 1 }, { ids { only = alive, most = 2 } })
    assert.same({ {}, 3 }, { ids { only = alive, most = 0 } })
  end)

  it("call nobody's code, and change nothing", function ()
    local function boom() error "called" end
    local guest = { peek = boom, take = boom, give = boom, available = boom, capacity = boom }
    local h = keep(neap.hybrid { "9/s", guest })
    local l = keep(neap.throttle "2/s")
    assert(l:try_acquire())
    local s = read()
    assert.equal(9, value(s, "neap_available", h))
    assert.equal(1, value(s, "neap_granted_total", l))
    assert.equal(1, l:available())
    local stop = neap.events.tap(boom)
    rt.report = boom
    read()
    stop()
  end)

  it("refuse what makes no sense, where it was said", function ()
    local function refused(text, options)
      local ok, message = pcall(function () metrics.openmetrics(options) end)
      assert.is_false(ok)
      assert.truthy(message:find("metrics_spec.lua", 1, true), message)
      assert.truthy(message:find(text, 1, true), message)
    end
    refused("a table of options expected, got api", "api")
    refused("option 'onyl' is not known", { onyl = {} })
    refused("only: a list of limiters and names, or a function, expected", { only = "api" })
    refused("only: a list of limiters", { only = neap.throttle "1/s" })
    refused("only: a limiter or a name expected, got 7", { only = { 7 } })
    refused("most: a number of limiters expected, got -1", { most = -1 })
  end)
end)
