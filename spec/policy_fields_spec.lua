--- All that a policy may say besides its limits, as the tree has it, and as it is refused.
local policy = require "neap.policy"

local HERE = debug.getinfo(1, "S").source:match "^@(.*/)" or "spec/"
local EXAMPLES = HERE .. "../examples/policies/"

-- The policy that has these fields, and no mistake.
local function fields(text, options)
  local tree, mistakes, warnings = policy.parse('policy "p" {\n' .. text .. "\n}", "p.lua", options)
  assert.is_nil(mistakes, tostring(mistakes))
  return tree.policies[1], warnings
end

local LIMITS = 'limits = { requests = "10/s", calls = "9 in flight" }, '

-- The first line of every mistake; fields stand on line 2.
local function told(text, options)
  local tree, mistakes = policy.parse('policy "p" {\n' .. text .. "\n}", "p.lua", options)
  assert.is_nil(tree, text)
  local lines = {}
  for i, mistake in ipairs(mistakes) do lines[i] = tostring(mistake):match "^p.lua:([^\n]*)" end
  return lines
end

local function rate(amount, per_ns, burst)
  return { kind = "rate", amount = amount, per_ns = per_ns, burst = burst, mode = "burst" }
end

describe("the examples", function ()
  for _, name in ipairs { "llm", "gateway", "game" } do
    it("load without a warning: " .. name, function ()
      local tree, mistakes, warnings = policy.load(EXAMPLES .. name .. ".lua")
      assert.is_table(tree, tostring(mistakes))
      assert.equal("", tostring(warnings))
    end)
  end

  it("become the tree that is promised", function ()
    local llm = assert(policy.load(EXAMPLES .. "llm.lua")).policies[1]
    assert.same({ "requests", "input", "output", "calls", "upload" }, llm.costs)
    assert.same({ ttl_ns = 600e9, settle = { "input", "output" } }, llm.lease)
    assert.same({ on = { 429, 503, 529 }, window_ns = 10e9,
      from = { "retry-after", "x-ratelimit-reset-tokens" },
      throttled = { { name = "calls", text = "4 in flight",
        notation = { kind = "in_flight", amount = 4 } } },
      penalty = { { name = "upload", count = 20 } } }, llm.backoff)
    assert.same({ trip = { kind = "share", share = 0.5, of = 20, in_ns = 30e9 },
      cooldown_ns = 15e9, probes = 2 }, llm.breaker)
    assert.same({ max = 2000, timeout_ns = 45e9, fair = "tenant",
      priority = { "interactive", "batch" }, overflow = "refuse" }, llm.queue)
    assert.same({ attempts = 5, budget = 0.1, backoff = { curve = "exponential", base_ns = 200e6,
      factor = 2, cap_ns = 20e9, jitter = "decorrelated" } }, llm.retry)
    assert.same({ { by = { "tenant" }, line = 40, override = {}, keep = { keys = 100000 },
      limits = { { name = "requests", text = "60/min burst 10", notation = rate(60, 60e9, 10) },
        { name = "output", text = "8k/min", notation = rate(8000, 60e9, 8000) } } } }, llm.per)
    assert.same({ requests = 1, input = 25, output = 600, upload = 100 },
      llm.estimate.fn { bytes = 100 })
    assert.equal(16, llm.estimate.line)
    assert.equal(43, llm.on.open.line)
  end)

  it("share plans and repeat in loops", function ()
    local tree = assert(policy.load(EXAMPLES .. "gateway.lua"))
    assert.equal(3, #tree.policies)
    for _, declared in ipairs(tree.policies) do
      assert.same({ "requests", "calls" }, declared.costs)
      local tenant, route, both = unpack(declared.per)
      assert.same({ { "tenant" }, { "route" }, { "tenant", "route" } },
        { tenant.by, route.by, both.by })
      assert.same({ "acme", "initech" }, { tenant.override[1].name, tenant.override[2].name })
      assert.same(rate(400, 1e9, 800), tenant.override[1].limits[1].notation)
      assert.same({ keys = 500000, idle_ns = 120e9 }, both.keep)
      assert.same({ { name = "calls", notation = { kind = "gradient", from = 20, to = 300 } } },
        declared.adaptive)
      assert.same({ when = { what = "queue", share = 0.8 }, keep = { priority = "interactive" } },
        declared.shed)
      assert.equal("drop oldest", declared.queue.overflow)
    end
  end)

  it("charge what only a scope has behind what all have", function ()
    local world = assert(policy.load(EXAMPLES .. "game.lua")).policies[1]
    assert.same({ "actions", "move", "shoot", "chat", "trade", "craft" }, world.costs)
    assert.same({ "player" }, world.per[1].by)
    assert.equal(5, #world.per[1].limits)
  end)
end)

describe("a field that says little", function ()
  it("has what is usual", function ()
    local p = fields(LIMITS .. [[ backoff = {}, breaker = {}, queue = {}, retry = {} ]])
    assert.same({ on = { 429, 503 }, window_ns = 10e9, from = { "retry-after" }, throttled = {},
      penalty = {} }, p.backoff)
    assert.same({ trip = { kind = "consecutive", count = 5 }, cooldown_ns = 30e9, probes = 1 },
      p.breaker)
    assert.same({ max = 1000, overflow = "refuse" }, p.queue)
    assert.equal(5, p.retry.attempts)
    assert.same({ jitter = "decorrelated", curve = "exponential", base_ns = 100e6, factor = 2,
      cap_ns = 30e9 }, p.retry.backoff)
  end)

  it("may be one value for a list", function ()
    local p = fields(LIMITS .. [[ backoff = { on = 529, from = "X-Reset" }, breaker = { on = 500 },
      queue = { max = "2k", priority = "high, low", ageing = "5s", overflow = "drop lowest" } ]])
    assert.same({ 529 }, p.backoff.on)
    assert.same({ "x-reset" }, p.backoff.from)
    assert.same({ 500 }, p.breaker.on)
    assert.same({ max = 2000, priority = { "high", "low" }, ageing_ns = 5e9,
      overflow = "drop lowest" }, p.queue)
  end)

  it("says what a change of its limits does, of all or of each", function ()
    local p = fields(LIMITS .. 'on_change = "scale", start = "empty"')
    assert.same({ "scale", "empty" }, { p.on_change, p.start })
    p = fields(LIMITS .. 'on_change = { calls = "reset" }')
    assert.is_nil(p.on_change)
    assert.same({ nil, "reset" }, { p.limits[1].on_change, p.limits[2].on_change })
  end)
end)

describe("a scope", function ()
  it("may stand for a policy without limits of its own", function ()
    local p = fields 'per "player" { move = "5/s" }, per "zone" { keep = "9 keys", talk = "1/s" }'
    assert.same({}, p.limits)
    assert.same({ "move", "talk" }, p.costs)
    assert.same({ keys = 9 }, p.per[2].keep)
  end)

  it("may be settled, and shared by policies", function ()
    local tree, mistakes = policy.parse([[
      local each = per "tenant" { tokens = "5/s", doc = "to each his own" }
      policy "a" { limits = { calls = "1/s" }, each, lease = { settle = "tokens" } }
      policy "b" { limits = { calls = "1/s" }, each }]], "p.lua")
    assert.is_nil(mistakes, tostring(mistakes))
    for _, declared in ipairs(tree.policies) do
      assert.equal("to each his own", declared.per[1].doc)
      assert.equal(1, declared.per[1].line)
    end
    assert.same({ "tokens" }, tree.policies[1].lease.settle)
  end)

  it("is refused with its place", function ()
    for text, message in pairs {
      ['per "tenant" { a = "5/x" }'] = [[2:78: per "tenant".a: bad limit "5/x": unknown time ]]
        .. "unit 'x'",
      ['per "tenant" {}'] = [[2:60: per "tenant": at least one limit expected, as in requests = ]]
        .. '"60/min"',
      ['per "a b c d e" { a = "1/s" }'] = "2:60: per: a key has 4 parts at most",
      ['per "a, a" { a = "1/s" }'] = "2:60: per: 'a' twice",
      ['per "" { a = "1/s" }'] = '2:60: per: per needs a name: write per "tenant" { … }',
      ['per "9" { a = "1/s" }'] = "2:60: per: '9' is no name for a part of a key: letters, digits,"
        .. " '_' and '-'",
      ['per "a" { x = "1/s", keep = "5 kays" }'] = [[2:87: per "a".keep: bad keep "5 kays": ]]
        .. [[expected "keys", got 'kays' (did you mean 'keys'?)]],
      ['per "a" { x = "1/s", keep = "1G keys" }'] = [[2:84: per "a".keep: at most 16777216 keys ]]
        .. "are kept",
      ['per "a" { x = "1/s", fair = true }'] = [[2:84: per "a".fair: taking turns is for a queue: ]]
        .. [[write queue = { fair = "a" } in the policy]],
      ['per "a" { x = "1/s", override = { acme = { y = "2/s" } } }'] = [[2:103: per "a".override.]]
        .. [[acme.y: per "a" of policy 'p' has no limit 'y' to override]],
      ['per "a" { x = "1/s", override = { acme = { x = "2 in flight" } } }'] = [[2:103: per "a".]]
        .. "override.acme.x: 2 in flight is of another kind than the limit it stands for",
      ['per "a" { x = "1/s", override = { acme = "2/s" } }'] =
        [[2:97: per "a".override.acme: table expected, got string]],
      ['per "a" { limits = { x = "1/s" }, x = "2/s" }'] = [[2:94: per "a".x: 'x' twice]],
      ['per "a, b" { x = "1/s" }, per "b, a" { x = "1/s" }'] =
        '2:86: per: per "b, a" is declared twice (first on line 2)',
      ['per "a" { a = "1/s", b = "1/s", c = "1/s", d = "1/s", e = "1/s", f = "1/s", g = "1/s" }'] =
        [[2:136: per "a": per "a" of policy 'p' has more than 8 limits of different names]],
    } do
      assert.same({ message }, told(LIMITS .. text), text)
    end
  end)

  it("is told from another one on its line", function ()
    local bad, good = 'per "t" { a = "1/x" }', 'per "t" { a = "1/s" }'
    for _, order in ipairs { { bad, good }, { good, bad } } do
      local text = ('policy "p" { %s } policy "q" { %s }'):format(unpack(order))
      local _, mistakes = policy.parse(text, "p.lua")
      assert.equal(1, #mistakes)
      assert.equal(text:find("x", 1, true), mistakes[1].col)
    end
  end)

  it("belongs to a policy", function ()
    local _, mistakes = policy.parse('\nper "tenant" { a = "1/s" }', "p.lua")
    assert.equal("p.lua:2: per stands inside a policy: policy \"name\" { limits = { … }, "
      .. "per \"tenant\" { … } }", tostring(mistakes):match "^[^\n]*")
  end)
end)

describe("a field that is wrong", function ()
  local rows = {
    { 'estimate = 5', "67: estimate: function expected, got number" },
    { "estimate = math.floor", "67: estimate: a function of the policy file expected" },
    { "on = { opn = function () end }",
      "69: on.opn: unknown field 'opn' in the on of policy 'p' (did you mean 'open'?)" },
    { 'backoff = { on = "429" }', "73: backoff.on: number expected, got string" },
    { "backoff = { on = { 429, 99 } }",
      "80: backoff.on: a status from 100 to 599 expected, got 99" },
    { "backoff = { on = { 429, 429 } }", "80: backoff.on: '429' twice" },
    { 'backoff = { from = "retry after:" }', "82: backoff.from: 'after:' is no name of a header" },
    { 'backoff = { window = "0s" }', "77: backoff.window: 0s is outside 1ms to 30d" },
    { 'backoff = { throttled = { cals = "1 in flight" } }',
      "89: backoff.throttled.cals: unknown limit 'cals' (did you mean 'calls'?)" },
    { 'backoff = { throttled = { calls = "1/s" } }',
      "90: backoff.throttled.calls: 1/s is of another kind than the limit it stands for" },
    { 'backoff = { penalty = { calls = 0 } }',
      "88: backoff.penalty.calls: a whole number from 1 to 2147483647 expected, got 0" },
    { 'breaker = { trip = "5 consec" }', [[78: breaker.trip: bad trip "5 consec": expected ]]
      .. [["consecutive" or "% of", got 'consec']] },
    { 'breaker = { trip = "17M consecutive" }',
      "75: breaker.trip: a breaker looks back on 16777216 calls at most" },
    { 'breaker = { probes = 1.5 }',
      "77: breaker.probes: a whole number from 1 to 16777216 expected, got 1.5" },
    { 'adaptive = "vegas from 1 to 5"',
      [[67: adaptive: which limit? write adaptive = { calls = "vegas from 1 to 5" }]] },
    { 'adaptive = { requests = "vegas from 1 to 5" }',
      [[80: adaptive.requests: only a limit "in flight" adapts, and this one is a rate]] },
    { 'adaptive = { calls = "vegas from 5 to 1" }', [[94: adaptive.calls: bad adaptive limit ]]
      .. [["vegas from 5 to 1": it goes from the smaller number to the larger one]] },
    { 'queue = { max = 0 }', "72: queue.max: a whole number from 1 to 262144 expected, got 0" },
    { 'queue = { fair = "a b" }', [[73: queue.fair: one name expected, as in fair = "tenant"]] },
    { 'queue = { overflow = "drop old" }',
      "78: queue.overflow: unknown word 'drop old' (did you mean 'drop oldest'?)" },
    { 'queue = { overflow = "drop lowest" }', "77: queue.overflow: without priorities none is "
      .. 'lower: add priority = { "interactive", "batch" }' },
    { 'queue = { priority = { "a", "b", "a" } }', "89: queue.priority: 'a' twice" },
    { 'retry = { backoff = "1s y2" }', [[80: retry.backoff: bad back-off "1s y2": ]]
      .. [[expected "x2", "+1s", "cap", "jitter" or "grid", got 'y']] },
    { 'retry = { budget = "110%" }', [[76: retry.budget: bad share "110%": 110% is outside ]]
      .. "0.01% to 100%, in steps of 0.01%" },
    { 'retry = { attempts = "many" }', [[78: retry.attempts: bad number "many": ]]
      .. "expected a number, got 'many'" },
    { 'shed = { when = "queue > 5%" }', "63: shed: there is no queue to look at: add queue" },
    { 'queue = {}, shed = { keep = "priority a" }',
      [[75: shed.when: when is missing, as in when = "queue > 80%"]] },
    { 'queue = { priority = "a" }, shed = { when = "queue > 5%", keep = "priority b" }',
      "131: shed.keep: unknown priority 'b'" },
    { 'queue = {}, shed = { when = "queue > 5%", keep = "a" }',
      [[105: shed.keep: a priority expected, as in keep = "priority interactive"]] },
    { 'start = "ful"', "65: start: unknown word 'ful' (did you mean 'full'?)" },
    { 'on_change = "rest"', "69: on_change: unknown word 'rest' (did you mean 'reset'?)" },
    { 'on_change = { call = "reset" }',
      "77: on_change.call: unknown limit 'call' (did you mean 'calls'?)" },
  }
  for _, row in ipairs(rows) do
    it("is told: " .. row[1], function ()
      local lines = told(LIMITS .. row[1])
      assert.equal(1, #lines, table.concat(lines, "\n"))
      assert.equal("2:" .. row[2], lines[1])
    end)
  end
end)

describe("a warning", function ()
  -- The first line of every warning of these fields.
  local function warned(text)
    local _, warnings = fields(text)
    local lines = {}
    for i, warning in ipairs(warnings) do
      lines[i] = tostring(warning):match "^p.lua:2:%d+: warning: ([^\n]*)"
    end
    return lines
  end

  it("is told of what is hardly meant", function ()
    for text, message in pairs {
      ['limits = { a = "1/s burst 61" }'] = "limits.a: a burst of 61 is more than a minute of 1/s",
      ['per "t" { a = "1/s burst 61" }'] =
        [[per "t".a: a burst of 61 is more than a minute of 1/s]],
      ['limits = { a = "1000/s", c = "64 in flight" }'] = "limits.c: 64 in flight lets 1k/s of a "
        .. "through only when calls take 64 ms or less",
      ['limits = { a = "10/s" }, per "t" { a = "11/s" }'] =
        [[per "t".a: 11/s is more than all have together, 10/s]],
      ['limits = { a = "10/s" }, per "t" { a = "1/s", override = { vip = { a = "1k/min" } } }'] =
        [[per "t".override.vip.a: 1k/min is more than all have together, 10/s]],
      [LIMITS .. 'queue = { timeout = "61s" }'] =
        "queue.timeout: waiting up to 1m1s is longer than a lease lives, 1m",
      [LIMITS .. 'queue = { fair = "tennant" }, per "tenant" { requests = "1/s" }'] =
        "queue.fair: no scope of the policy is per 'tennant' (did you mean 'tenant'?)",
      ['limits = { a = "1/s burst 5" }, breaker = { trip = "50% of 20 in 10s" }'] =
        "breaker.trip: 1/s burst 5 of a lets at most 15 calls go in 10s, so 20 are never seen",
      ['limits = { a = "1/s" }, per "t" { b = "1/s" },\nestimate = function () return 2 end'] =
        [[per "t".b: the estimate of policy 'p' never names 'b']],
      [LIMITS .. "retry = {}"] = "retry: without a budget retries can finish off a server that is "
        .. 'down: add budget = "10%"',
      [LIMITS .. 'adaptive = { calls = "aimd from 1 to 10" }'] =
        "adaptive.calls: it never gets to 10: the limit is 9 in flight",
      [LIMITS .. 'backoff = { throttled = { calls = "10 in flight" } }'] =
        "backoff.throttled.calls: 10 in flight is more than is usual, 9 in flight",
      [LIMITS .. 'queue = {}, shed = { when = "queue > 5%", keep = "priority high" }'] =
        [[shed.keep: the queue has no priorities: add priority = { "high", … }]],
    } do
      assert.same({ message }, warned(text), text)
      assert.same({ message }, { (told(text, { strict = true })[1]:gsub("^2:%d+: ", "")) }, text)
    end
  end)

  it("is not told of what providers write", function ()
    for _, text in ipairs {
      'limits = { a = "5000/h burst 100", b = "10k/d", c = "60/min burst 60" }',
      'limits = { a = "50/s", u = "5MB in flight" }',
      'limits = { a = "10/s" }, per "t" { a = "10/s", b = "100/s", c = "5 in flight" }',
      LIMITS .. 'queue = { timeout = "60s" }, breaker = { trip = "50% of 20 in 1s" }',
      LIMITS .. [[per "t" { tokens = "1/s" }, estimate = function (call)
        return { requests = 1, tokens = call.n }
      end]],
    } do
      assert.same({}, warned(text), text)
    end
  end)
end)

describe("hooks", function ()
  local told_to = {}
  local host = {
    log = function (level, text) told_to[#told_to + 1] = level .. " " .. text end,
    now = function () return 12.5 end,
    emit = function (event, given) told_to[#told_to + 1] = event .. " " .. given.used end,
  }

  it("can log, look at the clock and emit, which the host does", function ()
    told_to = {}
    local p = fields(LIMITS .. [[ on = { open = function (e)
      log.warn("%s at %.1f", e.policy, now())
      emit("full", { used = #("x"):rep(9) })
    end }]], { host = host })
    p.on.open.fn { policy = "p" }
    assert.same({ "warn p at 12.5", "full 9" }, told_to)
  end)

  it("have no budget, and names as strict as the file's", function ()
    local p = fields(LIMITS .. [[ estimate = function (call)
      local kind = call
      if call == 1 then kind = string end
      if call == 2 then kind = math end
      if call == 3 then kind = log end
      if call <= 3 then kind.fromat = kind.fromat end
      if call == 4 then local x = env "HOME" end
      if call == 5 then policy "x" {} end
      if call == 6 then include "x.lua" end
      if call == 7 then now() end
      if call == 8 then emit(5) end
      for _ = 1, call / 25 do string.rep("a", 60000) end
      return ("a"):rep(call)
    end]])
    assert.equal(100000, #p.estimate.fn(100000))
    for call, message in ipairs {
      "p.lua:7: 'string.fromat' is not available in a policy file (did you mean 'string.format'?)",
      "p.lua:7: 'math.fromat' is not available in a policy file",
      "p.lua:7: 'log.fromat' is not available in a policy file",
      "p.lua:8: env stands in a policy file, not in a hook",
      "p.lua:9: policy stands in a policy file, not in a hook",
      "p.lua:10: include stands in a policy file, not in a hook",
      "p.lua:11: now: nobody lends a clock",
      [[p.lua:12: emit: a name and a table expected, as in emit("full", { used = 5 })]] } do
      local ok, problem = pcall(p.estimate.fn, call)
      assert.is_false(ok)
      assert.equal(message, problem)
    end
  end)
end)

describe("code that has not run", function ()
  it("is looked over for names, too", function ()
    local lines = told(LIMITS .. [[
      on = { open = function (e)
        log.wran("x")
        local t = { g = function () return tabel.concat { e } end, log = 1 }
        count = count + 1
        if t.log and string.fromat then print(count) end
        return math.floor(t.x), e.polcy, undefined
      end },
      estimate = function () if nil then return undefined end end]])
    assert.same({
      "3:13: 'log.wran' is not available in a policy file (did you mean 'log.warn'?)",
      "4:44: unknown name 'tabel' (did you mean 'table'?)",
      "5:9: global 'count' assigned; use 'local count'",
      "6:29: 'string.fromat' is not available in a policy file (did you mean 'string.format'?)",
      "6:41: 'print' is not available in a policy file",
      "7:42: unknown name 'undefined'",
      "9:49: unknown name 'undefined'",
    }, lines)
  end)

  it("is told once, whether it has run or not", function ()
    assert.same({ "2:12: unknown name 'wran'" }, told "estimate = wran, limits = { a = '1/s' }")
    assert.same({ "2:11: 'log.wran' is not available in a policy file (did you mean 'log.warn'?)" },
      told "doc = log.wran, limits = { a = '1/s' }")
  end)
end)

describe("include", function ()
  local files = {
    ["etc/plans.lua"] = 'return { free = { a = "5/s" }, bad = { a = "5/mn" } }',
    ["etc/more/users.lua"] = 'policy "q" { limits = { b = "1/x" } }\nlocal y = nme',
    ["etc/self.lua"] = 'include "self.lua"',
    ["etc/broken.lua"] = "local x = = 1",
    ["etc/boom.lua"] = "\nerror 'no'",
    ["etc/loop.lua"] = "\nwhile true do end",
  }
  local function read(path)
    if files[path] then return files[path] end
    return nil, "No such file or directory"
  end

  local function parse(text)
    return policy.parse(text, "etc/p.lua", { read = read })
  end

  local function first(text)
    local _, mistakes = parse(text)
    local lines = {}
    for i, mistake in ipairs(mistakes) do lines[i] = tostring(mistake):match "^[^\n]*" end
    return lines
  end

  it("gives what the file returns, and may declare", function ()
    local tree, mistakes = parse [[
      local plans = include "plans.lua"
      policy "p" { limits = plans.free }
      policy "r" { limits = include "./plans.lua".free }]]
    assert.is_nil(mistakes, tostring(mistakes))
    assert.equal("a", tree.policies[2].limits[1].name)
  end)

  it("points into the file that has the mistake", function ()
    assert.same({ [[etc/plans.lua:1:47: limits.a: bad limit "5/mn": unknown time unit 'mn' ]]
      .. "(did you mean 'min'?)" }, first 'policy "p" { limits = include "plans.lua".bad }')
    assert.same({ "etc/p.lua:1:34: unknown name 'nme2'",
      [[etc/more/users.lua:1:32: limits.b: bad limit "1/x": unknown time unit 'x']],
      "etc/more/users.lua:2:11: unknown name 'nme'",
    }, first 'include "more/users.lua" local x=nme2')
    assert.same({ "etc/broken.lua:1:11: unexpected symbol near '='" }, first 'include "broken.lua"')
    assert.same({ "etc/boom.lua:2: no" }, first 'include "boom.lua"')
    assert.same({ "etc/loop.lua:2: stopped after 10 million steps: a policy file declares and "
      .. "ends" }, first 'include "loop.lua"')
  end)

  it("may be long: what it takes to read it is not the policy's", function ()
    files["etc/long.lua"] = ("local x = 5 -- some words\n"):rep(180) .. "\n"
      .. ("-- words, and more of them\n"):rep(20000)
    local tree, mistakes = parse 'include "long.lua" include "long.lua" include "long.lua"'
    assert.is_table(tree, tostring(mistakes))
  end)

  it("stays below the folder of the policy, and ends", function ()
    for text, message in pairs {
      ['include "../x.lua"'] = "'../x.lua' is not below the folder of the policy",
      ['include "a/../x.lua"'] = "'a/../x.lua' is not below the folder of the policy",
      ['include "/etc/x.lua"'] = "'/etc/x.lua' is not below the folder of the policy",
      ['include(5)'] = 'include needs a path, as in include "plans.lua"',
      ['include "none.lua"'] = "cannot read 'none.lua': No such file or directory",
      ['include "p.lua"'] = "'p.lua' includes itself",
      ['for i = 1, 101 do include "plans.lua" end'] = "more than 100 files included",
    } do
      local lines = first(text)
      assert.equal(1, #lines, text)
      assert.equal(message, lines[1]:match "^etc/p.lua:1:%d+: (.*)$", text)
    end
    assert.same({ "etc/self.lua:1:1: 'self.lua' includes itself" }, first 'include "self.lua"')
  end)
end)
