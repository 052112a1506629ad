--- A policy as JSON and back, and two of them compared.
local policy = require "neap.policy"
local seed = require "spec.seed"

local HERE = debug.getinfo(1, "S").source:match "^@(.*/)" or "spec/"
local EXAMPLES = HERE .. "../examples/policies/"


local ENVIRONMENT = { NEAP_APP = "s3cret" }
local function getenv(name) return ENVIRONMENT[name] end

local function parse(text, name)
  return policy.parse(text, name or "p.lua", { getenv = getenv })
end

local function reads(text, name)
  local tree, mistakes, warnings = parse(text, name)
  assert.is_nil(mistakes, tostring(mistakes) .. "\n" .. text)
  return tree, warnings
end

local function without_hooks(tree)
  for _, declared in ipairs(tree.policies) do declared.estimate, declared.on = nil, {} end
  return tree
end

local function assert_comes_back(tree)
  local text = policy.to_json(tree)
  local back = reads(text, "p.json")
  local hooks = text:find('"hooks":', 1, true)
  assert.same(without_hooks(tree), back)
  if not hooks then assert.equal(text, policy.to_json(back)) end
end

describe("a policy as JSON", function ()
  for _, name in ipairs { "llm", "gateway", "game" } do
    it("comes back the same: " .. name, function ()
      assert_comes_back(assert(policy.load(EXAMPLES .. name .. ".lua")))
    end)
  end

  it("comes back the same with everything in it", function ()
    assert_comes_back(reads [[
      listen { resp = { "127.0.0.1:1", "unix:/x" }, http = "[::1]:9" }
      user "app" { password = env "NEAP_APP", allow = "acquire" }
      policy "p" {
        doc = 'say "é"\n', start = "full", on_change = { a = "scale", b = "reset" },
        limits = { b = "5/s", a = "1_000 / min", z = "unlimited", y = "closed", x = "7/s sliding",
          w = "3/h fixed", v = "9/s smooth" },
        lease = { ttl = "1h", settle = "b" }, breaker = { on = { 500, 503 } },
        backoff = { throttled = { b = "1/s", a = "closed" }, penalty = { a = 3 }, from = {} },
        queue = { max = 7, priority = "x, y", ageing = "1s", overflow = "drop lowest" },
        retry = { backoff = "1s +500ms cap none jitter range 0.5..1.5", budget = "33.33%" },
        shed = { when = "queue > 0.5%" },
        per "t" { b = "1/s", doc = "each", override = { ["a b"] = { b = "2/s" }, c = {} } },
      }
      policy "q" { limits = { a = "5 in flight" }, on_change = "keep balance",
        adaptive = { a = "aimd from 1 to 5" }, queue = { timeout = "1s" },
        shed = { when = "queue > 100%", keep = "priority high" } }]])
  end)

  it("comes back the same whatever is drawn", function ()
    local state = 1 + seed % 2147483646
    local function draw(most)
      state = state * 16807 % 2147483647
      return 1 + math.floor(state / 2147483647 * most)
    end
    local function one_of(list) return list[draw(#list)] end
    local function some_limit()
      local n = one_of { "5", "1k", "7M", "3Ki", "64" }
      return one_of { n .. "/s", n .. "/2min burst 3", n .. "/d smooth", n .. " in flight",
        "unlimited" }
    end
    local function limits(names)
      local parts = {}
      for _, name in ipairs(names) do
        if draw(2) == 1 then parts[#parts + 1] = ('%s = "%s"'):format(name, some_limit()) end
      end
      return table.concat(parts, ", ")
    end
    for _ = 1, 300 do
      local text = { 'limits = { first = "5/s", ' .. limits { "b", "a", "c" } .. " }" }
      for _, field in ipairs { 'queue = { timeout = "2s", fair = "t" }', "breaker = {}",
        'breaker = { trip = "5% of 8", probes = 3 }', 'retry = { budget = "7%" }', "backoff = {}",
        'start = "state"', 'on_change = "scale"', 'lease = { settle = "first" }',
        'per "t" { x = "1/s", ' .. limits { "z", "y" } .. " }", 'doc = "d"',
        'per "u, v" { y = "2/s", keep = "5 keys, idle 3min" }' } do
        if draw(3) == 1 then text[#text + 1] = field end
      end
      local tree = parse('policy "p" { ' .. table.concat(text, ",\n") .. " }")
      if tree then assert_comes_back(tree) end   -- a field may be there twice
    end
  end)

  it("says that hooks are not carried", function ()
    local _, warnings = reads('{"neap":1,"policies":{"p":{"limits":{"a":"1/s"},'
      .. '"hooks":{"open":"x.lua:3","estimate":"x.lua:1"}}}}', "p.json")
    assert.equal("p.json:1:57: warning: hooks: hooks are not carried: estimate, open",
      tostring(warnings[1]):match "^[^\n]*")
  end)

  it("has users, and so may serve others", function ()
    local text = '{"neap":1,"listen":{"resp":"0.0.0.0:1"},"users":{"u":{"password":"x"}}}'
    assert.same({ "0.0.0.0:1" }, reads(text, "p.json").listen.resp)
  end)

  it("may be written by hand, and numbers rule", function ()
    local tree = reads('\n{ "neap": 1, "policies": { "p": { "limits": { "a": "5/s burst 9",'
      .. '"b": { "rate": 5, "per_ns": 1000000000, "burst": 1, "text": "7/s" } },'
      .. '"queue": { "timeout": "2s", "max": 5, "fair": null } } } }', "p.json")
    local p = tree.policies[1]
    assert.equal("5/s burst 9", p.limits[1].text)
    assert.same({ 5, 1, "5/s burst 1" },
      { p.limits[2].notation.amount, p.limits[2].notation.burst, p.limits[2].text })
    assert.same({ max = 5, timeout_ns = 2e9, overflow = "refuse" }, p.queue)
  end)

  it("is refused with the place that is wrong", function ()
    local function P(fields) return '{"neap":1,"policies":{"p":{' .. fields .. "}}}" end
    for text, message in pairs {
      ["{"] = "1:2: expected a name in quotes, got nothing",
      ['{"neap":1,}'] = "1:11: expected a name in quotes, got '}'",
      ['{"neap" 1}'] = "1:9: expected ':', got '1'",
      ['{"neap":1'] = "1:10: expected ',' or '}', got nothing",
      ['{"neap":1} x'] = "1:12: expected nothing more, got 'x'",
      ['{"neap":01}'] = "1:10: expected ',' or '}', got '1'",
      ['{"a":"\\x"}'] = "1:6: no value of JSON",
      ["{}"] = [[1:1: neap: a policy in JSON begins with "neap": 1]],
      ['{"neap":2}'] = [[1:9: neap: a policy in JSON begins with "neap": 1]],
      ['{"neap":1,"polices":{}}'] = "1:11: unknown field 'polices' (did you mean 'policies'?)",
      [P ""] = "1:23: limits: policy 'p' has no limits",
      [P '"limits":{"a":"5/mn"}'] = [[1:42: limits.a: bad limit "5/mn": unknown time unit 'mn' ]]
        .. "(did you mean 'min'?)",
      [P '"limits":{"a":{"rate":0,"per_ns":1}}'] =
        [[1:42: limits.a: a limit is text, as in calls = "5 in flight"; got table]],
      [P '"limits":{"a":"5/s"},"brekaer":{}'] =
        "1:59: brekaer: unknown field 'brekaer' in policy 'p' (did you mean 'breaker'?)",
      [P '"limits":{"a":"5/s"},"limits":{"a":"5/s"}'] =
        "1:49: limits: 'limits' is written twice (first on line 1)",
      [P '"limits":{"a":"5/s"},"per":[{"by":["t"],"limits":{"a":"5/x"}}]'] =
        [[1:82: per "t".limits.a: bad limit "5/x": unknown time unit 'x']],
      ['{"neap":1,"users":{"u":{"password":"(hidden)"}}}'] =
        [[1:36: a password is not carried: write { "env": "NAME" }]],
      ['{"neap":1,"users":{"u":{"password":{"env":"NOT"}}}}'] =
        "1:43: 'NOT' is not set in the environment",
      ['{"neap":1,"listen":{"resp":"0.0.0.0:1"}}'] = "1:28: listen.resp: '0.0.0.0:1' is open to "
        .. "others: without a user only loopback and unix addresses are served",
      ['{"neap":' .. ("["):rep(1000)] = "nested too deep",
    } do
      local tree, mistakes = parse(text, "p.json")
      assert.is_nil(tree, text)
      assert.equal(message, tostring(mistakes[1]):match "^p.json:?%s?([^\n]*)", text)
    end
  end)

  it("never raises, whatever its bytes", function ()
    local pieces = { "{", "}", "[", "]", ":", ",", '"neap"', "1", '"policies"', '"p"', '"limits"',
      '"a"', '"5/s"', "null", "true", "-1.5e3", '"per"', '"by"', '"lease"', '"ttl_ns"', '"on"',
      '"users"', '"listen"', '"queue"', '"backoff"', '"x\\u0000"', '"', " ", "\255" }
    local state = 1 + seed % 2147483646
    local function draw(most)
      state = state * 16807 % 2147483647
      return 1 + math.floor(state / 2147483647 * most)
    end
    local whole = policy.to_json(assert(policy.load(EXAMPLES .. "llm.lua")))
    for _ = 1, 2000 do
      local text = { "{" }
      for i = 2, draw(30) do text[i] = pieces[draw(#pieces)] end
      local at = draw(#whole)
      for _, each in ipairs { table.concat(text),
        whole:sub(1, at) .. pieces[draw(#pieces)] .. whole:sub(at + draw(9)) } do
        local tree, mistakes = parse(each, "p.json")
        assert.is_true(type(tree) == "table" or #tostring(mistakes) > 0, each)
      end
    end
  end)
end)

describe("a comparison", function ()
  local function changes(old, new)
    local list = {}
    for i, change in ipairs(policy.compare(reads(old), reads(new))) do
      list[i] = table.concat({ change.policy, change.scope or "-", change.override or "-",
        change.limit or change.part, change.change, change.keeps or "-" }, " ")
    end
    return list
  end

  it("tells what becomes of each limit", function ()
    assert.same({ "p - - same same keep used", "p - - faster changed keep used",
      "p - - other replaced -", "p - - log replaced -", "p - - fresh new -",
      "p t - mine changed keep used",
      "p t - two same keep used", "p t vip mine same keep used", "p - - old gone -",
      "p t vip two gone -" }, changes([[policy "p" { limits = { same = "5/s", faster = "5/s",
        other = "5/s", log = "5/s", old = "5/s" },
        per "t" { mine = "1/s", two = "1/s", override = { vip = { mine = "2/s", two = "2/s" } } } }
      ]], [[policy "p" { limits = { same = "5/s burst 5", faster = "6/s smooth",
        other = "5 in flight", log = "5/s sliding", fresh = "5/s" },
        per "t" { mine = "3/s", two = "1/s", override = { vip = { mine = "2/s" } } } }]]))
  end)

  it("knows what the new policy keeps", function ()
    assert.same({ "p - - a changed scale", "p - - b changed reset" }, changes(
      'policy "p" { limits = { a = "1/s", b = "1/s" } }', 'policy "p" { limits = { a = "2/s", '
      .. 'b = "2/s" }, on_change = { a = "scale", b = "reset" } }'))
    assert.same({ "p - - a same keep balance", "p - - on change new -" }, changes(
      'policy "p" { limits = { a = "1/s" } }',
      'policy "p" { limits = { a = "1/s" }, on_change = "keep balance" }'))
  end)

  it("tells of policies and of what else they do", function ()
    assert.same({ "q - - a new -", "p - - a same keep used", "p - - queue changed -",
      "p - - breaker new -", "p - - retry gone -", "r - - a gone -", "r t - b gone -" }, changes([[
        policy "r" { limits = { a = "1/s" }, per "t" { b = "1/s" } }
        policy "p" { limits = { a = "1/s" }, queue = {}, retry = { budget = "1%" },
          on = { open = function () end } }]], [[
        policy "q" { limits = { a = "1/s" } }
        policy "p" { limits = { a = "1/s" }, queue = { max = 3 }, breaker = {} }]]))
  end)

  it("is empty of changes between a policy and its JSON", function ()
    for _, name in ipairs { "llm", "gateway", "game" } do
      local tree = assert(policy.load(EXAMPLES .. name .. ".lua"))
      for _, change in ipairs(policy.compare(tree, reads(policy.to_json(tree), "p.json"))) do
        assert.equal("same", change.change)
      end
    end
  end)
end)
