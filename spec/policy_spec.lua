local policy = require "neap.policy"

local HERE = debug.getinfo(1, "S").source:match "^@(.*/)" or "spec/"
local FIXTURES = HERE .. "policies/"

local ENVIRONMENT = { NEAP_APP = "s3cret", EMPTY = "" }
local function getenv(name) return ENVIRONMENT[name] end

local function contents(name)
  local file = assert(io.open(FIXTURES .. name, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

local function parse(text)
  return policy.parse(text, "p.lua", { getenv = getenv })
end

-- The tree of a text that must be right.
local function reads(text)
  local tree, mistakes = parse(text)
  assert.is_nil(mistakes, tostring(mistakes))
  return tree
end

-- The first line of every mistake.
local function told(text)
  local tree, mistakes = parse(text)
  assert.is_nil(tree, text)
  local lines = {}
  for i, mistake in ipairs(mistakes) do lines[i] = tostring(mistake):match "^[^\n]*" end
  return lines
end

local function names(list)
  local out = {}
  for i, item in ipairs(list) do out[i] = item.name end
  return table.concat(out, " ")
end

describe("a good policy file", function ()
  it("becomes a plain tree, in the order of the text", function ()
    local tree = reads(contents "good.lua")
    assert.equal("openai discord-webhook", names(tree.policies))
    local openai = tree.policies[1]
    assert.equal("requests input output calls upload paced free never", names(openai.limits))
    assert.same({ name = "openai", doc = "chat completions, tier 2", line = 8,
      lease = { ttl_ns = 600e9, settle = { "input", "output" } }, limits = openai.limits,
      costs = { "requests", "input", "output", "calls", "upload", "paced", "free", "never" },
      per = {}, on = {} }, openai)
    assert.same({ name = "input", text = "200k/min burst 40k", notation = { kind = "rate",
      amount = 200000, per_ns = 60e9, burst = 40000, mode = "burst" } }, openai.limits[2])
    assert.same({ kind = "in_flight", amount = 5e6 }, openai.limits[5].notation)
    assert.same({ kind = "closed" }, openai.limits[8].notation)
    assert.same({ ttl_ns = 60e9, settle = {} }, tree.policies[2].lease)
    assert.same({
      { name = "app", password = "s3cret", allow = { "acquire", "read" }, from = "NEAP_APP" },
      { name = "watcher", password = "look only", allow = { "read", "events" } },
    }, tree.users)
    assert.same({ "127.0.0.1:6390", "[::1]:6390", "unix:/run/neap.sock" }, tree.listen.resp)
  end)

  it("may loop, share tables and compute texts", function ()
    local tree = reads(contents "loops.lua")
    assert.equal("plan-free plan-pro size-1 size-2 size-3", names(tree.policies))
    for _, declared in ipairs(tree.policies) do
      assert.equal(declared.name:find "plan" and "requests calls" or "slots rate",
        names(declared.limits))
    end
    assert.equal(32, tree.policies[2].limits[2].notation.amount)
    assert.equal("10/s", tree.policies[5].limits[2].text)
  end)

  it("keeps what a declaration was given then", function ()
    local tree = reads [[
      local body = { limits = { b = "1/s", a = "2/s" } }
      for i = 1, 3 do body.doc = "number " .. i; policy("p" .. i)(body) end
      body.limits.c = "3/s"]]
    for i, declared in ipairs(tree.policies) do
      assert.equal("number " .. i, declared.doc)
      assert.equal("b a", names(declared.limits))
    end
  end)

  it("may start with a line for the shell and a mark of the encoding", function ()
    local text = 'policy "a" { limits = { a = "1/s" } }'
    assert.equal("a", names(reads("#!/usr/bin/neap run\n" .. text).policies))
    assert.equal("a", names(reads("\239\187\191" .. text).policies))
  end)

  it("may be empty", function ()
    local nothing = { policies = {}, users = {}, listen = { resp = {}, http = {} } }
    for _, text in ipairs { "", "\n", "-- nothing", "#!/bin/sh", "listen {}" } do
      assert.same(nothing, reads(text))
    end
  end)

  it("lets a user do little unless told", function ()
    local tree = reads [[user "a" { password = "x" } user "b" { password = "x", allow = "" }
      listen { resp = "0.0.0.0:1" }]]
    assert.same({ "acquire", "read" }, tree.users[1].allow)
    assert.same({}, tree.users[2].allow)
    assert.same({ "0.0.0.0:1" }, tree.listen.resp)
  end)

  it("prints as JSON, without a password", function ()
    assert.equal('{"neap":1,"listen":{"resp":[],"http":[]},'
      .. '"users":{"a":{"password":{"env":"NEAP_APP"},'
      .. '"allow":["acquire","read"]},"b":{"password":"(hidden)","allow":["admin"]}},"policies":{'
      .. '"p":{"doc":"say \\"hi\\"\\n\239\191\189é","line":1,'
      .. '"limits":{"z":{"rate":5,"per_ns":60000000000,'
      .. '"burst":1,"mode":"smooth","text":"5\\/min smooth"},"a":{"rate":5000000000,'
      .. '"per_ns":1000000000,"burst":3,"text":"5G\\/s burst 3"},"m":{"in_flight":64,'
      .. '"text":"64 in flight"},"u":{"unlimited":true,"text":"unlimited"}},'
      .. '"costs":["z","a","m","u"],'
      .. '"lease":{"ttl_ns":60000000000,"settle":["z"]}}}}', policy.to_json(reads [[
        policy "p" { doc = 'say "hi"\n\255é', lease = { settle = "z" }, limits = {
          z = "5/min smooth", a = "5G/s burst 3", m = "64 in flight", u = "unlimited" } }
        user "a" { password = env "NEAP_APP" }
        user "b" { password = "x", allow = "admin" }]]))
  end)
end)

describe("a wrong policy file", function ()
  it("tells all its mistakes in one run, each with its line and a caret", function ()
    local _, mistakes = policy.parse(contents "wrong.lua", "wrong.lua")
    assert.equal(contents "wrong.txt", tostring(mistakes) .. "\n")
  end)

  it("tells them as the manual shows", function ()
    local _, mistakes = policy.parse(contents "bad.lua", "bad.lua")
    assert.equal([[
bad.lua:3:21: limits.requests: bad limit "500/mn": unknown time unit 'mn' (did you mean 'min'?)
        requests = "500/mn",
                        ^
bad.lua:5:14: limits.output: bare number 40: a bare number needs "/s", "/min"… or "in flight"
        output = 40,
                 ^
bad.lua:7:13: brekaer: unknown field 'brekaer' in policy 'openai' (did you mean 'breaker'?)
      brekaer = { trip = "50% of 20 in 30s" },
                ^
bad.lua:12:1: unknown name 'polcy' (did you mean 'policy'?)
    polcy "anthropic" {
    ^
bad.lua:15:1: global 'x' assigned; use 'local x'
    x = 5
    ^]], tostring(mistakes))
    local first = mistakes[1]
    assert.same({ "bad.lua", 3, 21, "limits.requests", "min", '    requests = "500/mn",' },
      { first.file, first.line, first.col, first.path, first.hint, first.source })
  end)

  it("is pointed into, wherever the text was written", function ()
    assert.same({
      [[p.lua:3:30: limits.b: bad limit "5/sek": unknown time unit 'sek' (did you mean 'sec'?)]],
      [[p.lua:7:22: limits.a: bad limit "5/sek": unknown time unit 'sek' (did you mean 'sec'?)]],
      [[p.lua:8:3: limits.b: bad limit "5/hrz": unknown time unit 'hrz' (did you mean 'hr'?)]],
      [[p.lua:9:11: limits.c: bad limit "5/mn": unknown time unit 'mn' (did you mean 'min'?)]],
      [[p.lua:10:11: limits.d: bad limit "5/mn": unknown time unit 'mn' (did you mean 'min'?)]],
      [[p.lua:16:16: limits.e: bad limit "5/mn": unknown time unit 'mn' (did you mean 'min'?)]],
      [[p.lua:17:10: limits.j: bad limit "5/mn": unknown time unit 'mn' (did you mean 'min'?)]],
    }, told [==[
local plans = {
  good = { b = "5/s", a = "1/s" }, -- { b = "5/sek" }
  free = { a = "1/s", b = "5/sek" },
}
policy "a" { limits = plans.free }
policy "b" {
  limits = { a = [[5/sek]], b = [=[
5/hrz]=],
      c = "5/m\110", -- an escape: the value is pointed to
      d = "5/" .. "mn",
  },
  --[[ limits = { e = "1/s" } ]]
}
policy ("c") ({ limits = {
  f = ("}"):rep(1) and "1/s", g = (function () if 1 then return "1/s", { e = 1 } end end)(),
  ["e"]   = '5/mn', [("h")] = [[5/s]], ["i" .. 1] = "5/s",
  j = "5/mn", } })]==])
  end)

  it("is found by name and line, even twice on one", function ()
    assert.same({
      [[p.lua:1:32: limits.a: bad limit "1/x": unknown time unit 'x']],
      [[p.lua:1:81: limits.a: bad limit "1/y": unknown time unit 'y']],
      [[p.lua:4:21: limits.a: bad limit "1/z": unknown time unit 'z']],
      [[p.lua:6:33: limits.a: bad limit "1/q": unknown time unit 'q']],
    }, told [[
policy "p" { limits = { a = "1/x" } } policy "q" { limits = { c = "1/s", a = "1/y" } }
policy "r"
{
  limits = { a = "1/z" } }
local declare = policy
declare "s" { limits = { a = "1/q" } }]])
  end)

  it("is told once, however often a loop comes by, and not for ever", function ()
    assert.same({ [[p.lua:1:54: limits.a: bad limit "1/x": unknown time unit 'x']] },
      told [[for i = 1, 9 do policy("p" .. i) { limits = { a = "1/x" } } end]])
    local lines = told(("foo()\n"):rep(130))
    assert.equal(101, #lines)
    assert.equal("p.lua:100:1: unknown name 'foo'", lines[100])
    assert.equal("p.lua: 30 more mistakes", lines[101])
  end)

  it("is quoted as it looks, with the caret under the character", function ()
    local _, mistakes = parse '\tpolicy "é" { limits = { a = "1/x" } }'
    assert.equal([[p.lua:1:34: limits.a: bad limit "1/x": unknown time unit 'x'
    ]] .. '\tpolicy "é" { limits = { a = "1/x" } }\n    \t' .. (" "):rep(31) .. "^",
      tostring(mistakes))
    _, mistakes = parse 'policy "\27[31m" { limits = { a = "1/\27" } }'
    assert.is_nil(tostring(mistakes):find "\27")
    _, mistakes = parse(("local x = 1; "):rep(50) .. "foo()" .. (" local y = 2;"):rep(50))
    local _, source, caret = tostring(mistakes):match "^(.-)\n(.-)\n(.-)$"
    assert.is_true(#source < 150)
    assert.equal(source:gsub("…", "."):find "foo", #caret)
  end)

  it("has the mistakes of Lua, too, at their place", function ()
    for text, message in pairs {
      ['policy "a" {\n  limits = { a = = 1 }\n}'] = "p.lua:2:18: unexpected symbol near '='",
      ["for i = 1, 2 od end"] = "p.lua:1:14: 'do' expected near 'od'",
      ['policy "a" {\nx = 1'] = "p.lua:2: '}' expected (to close '{' at line 1) near '<eof>'",
      ["\nlocal x = 'abc\n"] = "p.lua:2: unfinished string near ''abc'",
      ["\nlocal t\nlocal y = t.x"] = "p.lua:3: attempt to index local 't' (a nil value)",
      ["\nerror 'no'"] = "p.lua:2: no",
      ["\nerror {}"] = "p.lua:2: error raised: a table",
      ["\nassert(nil, 'no')"] = "p.lua:2: no",
      ["assert(false)"] = "p.lua:1: assertion failed!",
      ["string.rep()"] = "p.lua:1: bad argument #1 to 'rep' (string expected, got no value)",
      ["return {}"] = "p.lua: a policy file declares and returns nothing",
      ["local \27[31m"] = "p.lua:1:7: '<name>' expected near 'char(27)'",
      ["\27LJ\2"] = "p.lua: compiled Lua is refused: a policy file is text",
    } do
      assert.same({ message }, told(text), text)
    end
  end)

  it("says what each field should have been", function ()
    for fields, message in pairs {
      ['lease = "1s"'] = "1:40: lease: table expected, got string",
      ["lease = { ttl = 5 }"] = "1:48: lease.ttl: bare number 5: write it as text, with its unit",
      ["lease = { ttl = {} }"] = "1:48: lease.ttl: text expected, got table",
      ['lease = { ttl = "5 mn" }'] = [[1:51: lease.ttl: bad duration "5 mn": unknown time unit ]]
        .. "'mn' (did you mean 'min'?)",
      ['lease = { ttl = "1us" }'] = "1:48: lease.ttl: 1us is outside 1ms to 30d",
      ['lease = { ttl = "31d" }'] = "1:48: lease.ttl: 31d is outside 1ms to 30d",
      ['lease = { settle = { "a", "b" } }'] =
        "1:58: lease.settle: unknown limit 'b'",
      ["lease = { settle = { 1 } }"] = "1:53: lease.settle: text expected, got number",
      ["lease = { settle = 1 }"] = "1:51: lease.settle: text expected, got number",
      ['"5/s"'] = "1:32: a string without a name in policy 'p': write name = value",
      ["upstream = {}"] = "1:43: upstream: unknown field 'upstream' in policy 'p'",
      ["backof = {}"] = "1:41: backof: unknown field 'backof' in policy 'p'"
        .. " (did you mean 'backoff'?)",
      ["zebra = 1"] = "1:40: zebra: unknown field 'zebra' in policy 'p'",
      ["doc = ('x'):rep(5000)"] = "1:38: doc: longer than 4096 bytes",
    } do
      assert.same({ "p.lua:" .. message },
        told('policy "p" { limits={a="1/s"}, ' .. fields .. " }"), fields)
    end
    local tree = reads 'policy "p" { limits = { a = "1/s" }, lease = { ttl = "30d" } }'
    assert.same({ ttl_ns = 30 * 86400e9, settle = {} }, tree.policies[1].lease)
  end)

  it("says what each declaration should have been", function ()
    for text, message in pairs {
      ["policy(7) { limits = {} }"] = '1:8: a policy needs a name: write policy "name" { … }',
      ['policy "p" (7)'] = "1:8: policy 'p': table expected, got number",
      ['policy("p", {})'] = [[1:8: policy 'p' has no table: write policy "name" { … }]],
      ['policy(("p"):rep(200)) {}'] = "1:8: the name of policy '" .. ("p"):rep(60)
        .. "…' is longer than 128 bytes",
      ['policy "p" { limits = 5 }'] = "1:23: limits: table expected, got number",
      ['user "u" {}'] = "1:6: user 'u' has no password",
      ['user "u" { password = "" }'] = "1:23: password: the password of user 'u' is empty",
      ['user "u" { password = 5 }'] = "1:23: password: text expected, got number",
      ['user "u" { password = env "NOT" }'] = "1:23: 'NOT' is not set in the environment",
      ['user "u" { password = env "EMPTY" }'] = "1:23: password: the password of user 'u' is empty",
      ['user "u" { password = env(5) }'] = [[1:23: env needs a name, as in env "NEAP_APP"]],
      ['user "u" { password = "x", allow = "read, acuire" }'] =
        "1:43: allow: unknown category 'acuire' (did you mean 'acquire'?)",
      ['user "u" { password = "x", allow = "read read" }'] = "1:42: allow: 'read' twice",
      ["listen(5)"] = "1:1: listen: table expected, got number",
      ["listen { rsp = 'unix:/x' }"] =
        "1:16: listen.rsp: unknown field 'rsp' in listen (did you mean 'resp'?)",
      ["listen { resp = 6390 }"] = "1:17: listen.resp: text expected, got number",
      ["listen { resp = { 'unix:/x', 'unix:/x' } }"] = "1:31: listen.resp[2]: 'unix:/x' twice",
      ["listen {}\nlocal t = {} t.x = t.listen listen {}"] =
        "2:29: listen is declared twice (first on line 1)",
    } do
      assert.same({ "p.lua:" .. message }, told(text), text)
    end
  end)

  it("is not blamed for what follows from one mistake", function ()
    for text, message in pairs {
      ['policy "p" { limits = plns.free, lease = { settle = "a" } }'] = "1:23: unknown name 'plns'",
      ['policy(plns.name .. "x" + 5) { limits = {} }'] = "1:8: unknown name 'plns'",
      ['policy "p" { limits = { a = rats[1]("x") }, doc = rats }'] = "1:29: unknown name 'rats'",
      ['policy "p" (string.rep(bdy, 2))'] = "1:24: unknown name 'bdy'",
      ['policy "p" { limits = { a = "1/s" }, per "tenant" { b = "5/x" } }'] =
        [[1:60: per "tenant".b: bad limit "5/x": unknown time unit 'x']],
      ['policy "p" { limits = { a = "1/x" }, lease = { settle = "a" } }'] =
        [[1:32: limits.a: bad limit "1/x": unknown time unit 'x']],
      ['listen { resp = { nme } }'] = "1:19: unknown name 'nme'",
    } do
      local lines = told(text)
      assert.equal("p.lua:" .. message, lines[1], text)
      for i = 2, #lines do assert.is_truthy(lines[i]:find("unknown name", 1, true), lines[i]) end
    end
  end)

  it("may not use what its reader does not hold to", function ()
    local text = 'policy "p" { limits = { a = "5/s fixed" }, queue = {}, per "t" { a = "1/s" } }'
    local tree, mistakes = policy.parse(text, "p.lua", { supported = { rate = true, limits = true,
      queue = true } })
    assert.is_nil(tree)
    assert.equal([[
p.lua:1:29: limits.a: 'fixed' is not supported by this version
    policy "p" { limits = { a = "5/s fixed" }, queue = {}, per "t" { a = "1/s" } }
                                ^
p.lua:1:60: per: 'per' is not supported by this version
    policy "p" { limits = { a = "5/s fixed" }, queue = {}, per "t" { a = "1/s" } }
                                                               ^]], tostring(mistakes))
    assert.equal("fixed", reads(text).policies[1].limits[1].notation.mode)
    for feature, fields in pairs { estimate = "estimate = function () end", on = "on = {}",
      backoff = "backoff = {}", breaker = "breaker = {}", adaptive = "adaptive = {}",
      queue = "queue = {}", retry = "retry = { budget = '1%' }", start = 'start = "empty"',
      shed = 'queue = {}, shed = { when = "queue > 50%" }', on_change = 'on_change = "reset"',
      override = 'per "t" { a = "1/s", override = {} }' } do
      local supported = setmetatable({ [feature] = false },
        { __index = function () return true end })
      tree, mistakes = policy.parse('policy "p" { limits = { a = "1/s" }, ' .. fields .. " }",
        "p.lua", { supported = supported })
      assert.is_nil(tree, feature)
      assert.equal(1, #mistakes, feature)
      assert.is_truthy(mistakes[1].message:find(("'%s' is not supported"):format(
        (feature:gsub("_", " "))), 1, true), mistakes[1].message)
      supported[feature] = true
      assert.is_table(policy.parse('policy "p" { limits = { a = "1/s" }, ' .. fields .. " }",
        "p.lua", { supported = supported }))
    end
  end)
end)

describe("loading", function ()
  local function refused(path)
    local tree, mistakes = policy.load(path)
    assert.is_nil(tree)
    return tostring(mistakes)
  end

  it("says in one line why a file cannot be read", function ()
    assert.equal("neap: cannot read 'no/such': No such file or directory", refused "no/such")
    assert.equal("neap: cannot read '/': Is a directory", refused "/")
  end)

  it("reads a file up to 1 MiB", function ()
    local path = os.tmpname()
    finally(function () os.remove(path) end)
    for size, whole in pairs { [0] = true, [2 ^ 20] = true, [2 ^ 20 + 1] = false } do
      local file = assert(io.open(path, "wb"))
      file:write((" "):rep(size))
      file:close()
      if whole then
        assert.is_table(policy.load(path))
      else
        assert.equal(("neap: cannot read '%s': larger than 1 MiB"):format(path), refused(path))
      end
    end
  end)

  it("names the file as it was given", function ()
    local path = FIXTURES .. "bad.lua"
    local _, mistakes = policy.load(path)
    assert.equal(path, mistakes[1].file)
    assert.equal(path .. ":3:21: ", tostring(mistakes):sub(1, #path + 7))
  end)
end)

describe("an address", function ()
  it("is a number and a port, or a path", function ()
    for text, expected in pairs {
      ["127.0.0.1:6390"] = { host = "127.0.0.1", port = 6390, private = true },
      ["127.9.9.9:1"] = { host = "127.9.9.9", port = 1, private = true },
      ["localhost:65535"] = { host = "localhost", port = 65535, private = true },
      ["0.0.0.0:80"] = { host = "0.0.0.0", port = 80, private = false },
      ["[::1]:80"] = { host = "::1", port = 80, private = true },
      ["[0:0:0:0:0:0:0:1]:80"] = { host = "0:0:0:0:0:0:0:1", port = 80, private = true },
      ["[::]:80"] = { host = "::", port = 80, private = false },
      ["[2001:db8::5]:80"] = { host = "2001:db8::5", port = 80, private = false },
      ["unix:/run/neap.sock"] = { path = "/run/neap.sock", private = true },
    } do
      assert.same(expected, (policy.address(text)), text)
    end
  end)

  it("is refused with the place that is wrong", function ()
    local HOST = "an IP address or 'localhost' expected before the port"
    for text, expected in pairs {
      [""] = { 1, 'host:port or unix:/path expected, as in "127.0.0.1:6390"' },
      ["6390"] = { 1, 'host:port or unix:/path expected, as in "127.0.0.1:6390"' },
      ["::1:6390"] = { 1, 'host:port or unix:/path expected, as in "127.0.0.1:6390"' },
      ["unix:"] = { 6, "a path after 'unix:' expected" },
      ["unix:" .. ("x"):rep(108)] = { 6, "a socket's path is at most 107 bytes" },
      ["unix:a\0b"] = { 6, "a socket's path has no zero byte" },
      ["example.org:80"] = { 1, HOST },
      ["*:80"] = { 1, HOST .. ": write 0.0.0.0 for all addresses" },
      ["127.0.0.256:80"] = { 1, HOST },
      ["127.0.0:80"] = { 1, HOST },
      ["[1:2]:80"] = { 2, HOST },
      ["[1::2::3]:80"] = { 2, HOST },
      ["[:::1]:80"] = { 2, HOST },
      ["[12345::]:80"] = { 2, HOST },
      ["[1:2:3:4:5:6:7::8]:80"] = { 2, HOST },
      ["[:1:2:3:4:5:6:7:8]:80"] = { 2, HOST },
      ["127.0.0.1:"] = { 11, "a port number expected" },
      ["127.0.0.1:x"] = { 11, "a port number expected" },
      ["127.0.0.1:0"] = { 11, "port 0 is outside 1 to 65535" },
      ["127.0.0.1:65536"] = { 11, "port 65536 is outside 1 to 65535" },
      [5] = { 1, "text expected, got number" },
    } do
      local parsed, message, at = policy.address(text)
      assert.is_nil(parsed, text)
      assert.same(expected, { at, message }, tostring(text))
    end
  end)
end)
