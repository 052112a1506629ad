--- Scripts that come over the wire, and policies as texts.
local cjson = require "cjson"
local declared = require "spec.declared"
local policy_file = require "neap.policy"
local wired = require "spec.wired"

local limits = declared.limits

describe("a script", function ()
  local w, c

  before_each(function ()
    w = wired.open(declared.tree { limits = limits("requests", "10/s burst 3", "calls",
      "3 in flight") })
    c = w:connect()
  end)

  after_each(function () w:close() end)

  local function eval(text, ...) return w:ask(c, "NEAP.EVAL", text, ...) end

  it("answers with a value", function ()
    assert.equal(7, eval "return 3 + 4")
    assert.equal("1.5", eval "return 1.5")
    assert.equal("x y", eval("return arg[1] .. ' ' .. arg[2]", "x", "y"))
    assert.equal(w.null, eval "return")
    assert.same({ 1, "a", { 2 } }, eval "return { 1, 'a', { 2 } }")
    assert.same({ "a", 1, "b", { 2 } }, eval "return { b = { 2 }, a = 1 }")
    assert.equal("ERR a reply cannot hold a function", eval "return function () end")
    local large = "ERR the value is too large for a reply"
    assert.equal(large, eval "local t = {} for i = 1, 10001 do t[i] = i end return t")
    assert.equal(large, eval "local t = {} t[1] = t return t")
    w:ask(c, "HELLO", "3")
    w:send(c, "NEAP.EVAL", "return { a = true }")
    assert.equal("%1\r\n$1\r\na\r\n#t\r\n", w:bytes(c):match "%%1.*$")
  end)

  it("sees policies, takes permits and gives them back", function ()
    assert.equal(3, eval "return policies.api.limits[1].available")
    assert.equal("GRANTED lease 0 -1 ", w.said(eval "return { neap.acquire('api', 'COST', 2) }"))
    assert.equal(1, eval "return policies.api.limits[1].available")
    assert.equal("RETRY", eval "local word = neap.acquire('api', 'COST', '2') return word")
    local lease = w.map(w:ask(c, "NEAP.LEASES"))[1]
    assert.equal(-1, lease.client)
    assert.equal(250, eval("return neap.renew(arg[1], 250)", lease.lease))
    assert.same({ 1, 0 }, eval([[
      local lease = arg[1]
      return { neap.release(lease, "STATUS", 200), neap.release(lease) }]], lease.lease))
    assert.equal(0, eval "return neap.kill('nobody')")
    assert.same({ "api" }, eval "return neap.list('a*')")
    assert.equal("NOPOLICY no policy 'apj' (did you mean 'api'?)", eval "neap.acquire('apj')")
    assert.equal("NOPOLICY no policy 'apj' (did you mean 'api'?)", eval "return policies.apj")
    assert.equal("ERR BLOCK: nothing waits in a script", eval "neap.acquire('api', 'BLOCK', 5)")
    assert.equal("ERR script:1: policies are to be read only", eval "policies.api = 1")
    assert.equal("caught", eval "return pcall(neap.acquire, 'apj') and 'not' or 'caught'")
    assert.equal("PONG", w:ask(c, "PING"))
  end)

  it("has nothing that leads out", function ()
    for _, name in ipairs { "ffi", "io", "os", "require", "load", "loadstring", "debug",
      "getmetatable", "setmetatable", "newproxy", "coroutine", "getfenv", "setfenv", "_G",
      "rawset", "jit", "string.match", "string.gsub", "string.gmatch", "string.dump" } do
      assert.equal(("ERR script:1: '%s' is not available in a script"):format(name),
        eval("return " .. name))
    end
    assert.equal("ERR script:2: global 'x' assigned; use 'local x'", eval "\nx = 1")
    assert.truthy(eval "string.rep = 1":find "string is closed")
    assert.truthy(eval "return ('a'):match('a')":find "not available")
    assert.equal(w.null, eval "return (('a'):rep(30000)):find(('a*'):rep(100) .. 'b')")
    assert.equal("ERR script: attempt to load chunk with wrong mode", eval "\27LJ")
    assert.equal("ERR script: ')' expected near '<eof>'", eval "return (1")
    assert.equal("x", ("x"):match "x")           -- the host's strings are as they were
    assert.is_nil(debug.gethook())
  end)

  it("is stopped, and says at which bound", function ()
    local steps = "ERR stopped after 10 million steps"
    for _, text in ipairs {
      "while true do end",
      "local function loop() while true do end end while true do pcall(loop) end",
      "xpcall(function () error 'x' end, function () while true do end end)",
      "table.sort({ 3, 2, 1 }, function () while true do end end)",
      "local s = ('a'):rep(60000) while true do local _ = s:find 'b' end",
      "local function f() return f() end f()" } do
      assert.equal(steps, eval(text), text)
    end
    local catches = "ERR stopped at 50 pcalls within each other"
    assert.equal(catches, eval "local function f() pcall(f) return f() end f()")
    assert.equal(catches, eval "local function f() xpcall(f, f) return f() end f()")
    local size = "ERR stopped at a string or table of more than 256 KB"
    assert.equal(size, eval "local s = 'a' while true do s = s .. s end")
    assert.equal("ERR stopped at string.rep: a text of more than 64 KB", eval "('a'):rep(1e9)")
    assert.truthy(eval "local t, n = {}, 1 while true do t[n], n = {}, n + 1 end":find "stopped at")
    assert.truthy(eval "local function f() return 1 + f() end f()":find "stack overflow")
    assert.equal(1, eval "return 1")
    assert.is_true(collectgarbage "isrunning")
    assert.is_nil(debug.gethook())
  end)

  it("is for admins", function ()
    local tree = declared.tree { limits = limits("requests", "10/s") }
    tree.users = { { name = "app", password = "p", allow = { "acquire", "read" } } }
    local own = wired.open(tree)
    local d = own:connect()
    own:ask(d, "AUTH", "app", "p")
    for _, words in ipairs { { "NEAP.EVAL", "return 1" }, { "NEAP.POLICY", "GET" },
      { "NEAP.LEASES" }, { "NEAP.KILL", "x" } } do
      assert.truthy(own:ask(d, unpack(words)):find "^NOPERM", words[1])
    end
    own:close()
  end)
end)

describe("a worker's policies", function ()
  it("are read, checked and compared over the wire", function ()
    local w = wired.open(policy_file.parse([[policy "api" { limits = { requests = "10/s" } }
      policy "other" { limits = { a = "1/s" } }]], "p.lua"))
    local c = w:connect()
    local function policy(...) return w:ask(c, "NEAP.POLICY", ...) end
    local all, one = cjson.decode(policy "GET"), cjson.decode(policy("GET", "other"))
    assert.truthy(all.policies.api and all.policies.other)
    assert.truthy(one.policies.other and not one.policies.api)
    assert.equal("NOPOLICY no policy 'othr' (did you mean 'other'?)", policy("GET", "othr"))
    assert.equal("OK", policy("CHECK", 'policy "x" { limits = { a = "5/s" } }'))
    local wrong = policy("CHECK", 'policy "x" { limts = { a = "5/s" } }')
    assert.truthy(wrong:find("unknown field 'limts' in policy 'x'", 1, true), wrong)
    assert.truthy(policy("CHECK", "while true do end"):find "10 million steps")
    assert.same({ { "api", "requests", "10/s -> 50/s, what is used stays used" },
      { "other", "a", "gone: 1/s" } },
      policy("DIFF", 'policy "api" { limits = { requests = "50/s" } }'))
    assert.same({}, policy("DIFF", [[policy "api" { limits = { requests = "10/s" } }
      policy "other" { limits = { a = "1/s" } }]]))
    assert.truthy(policy("DIFF", "policy"):find "^ERR ")
    assert.truthy(policy("FOO"):find "^ERR POLICY takes GET")
    assert.truthy(policy("GET", "api", "x"):find "^ERR POLICY takes GET")
    w:close()
  end)
end)
