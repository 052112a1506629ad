local policy = require "neap.policy"
local seed = require "spec.seed"

local HERE = debug.getinfo(1, "S").source:match "^@(.*/)" or "spec/"
local FIXTURES = HERE .. "policies/"


local function parse(text)
  return policy.parse(text, "p.lua")
end

-- The first line of every mistake.
local function told(text)
  local tree, mistakes = parse(text)
  assert.is_nil(tree, text)
  local lines = {}
  for i, mistake in ipairs(mistakes) do lines[i] = tostring(mistake):match "^[^\n]*" end
  return lines
end

describe("globals of a policy file", function ()
  it("are strict both ways", function ()
    assert.same({ "p.lua:1:11: unknown name 'plicy' (did you mean 'policy'?)",
      "p.lua:2:1: global 'size' assigned; use 'local size'",
      "p.lua:3:10: global 'helper' assigned; use 'local helper'",
      "p.lua:4:13: 'math.flor' is not available in a policy file (did you mean 'math.floor'?)",
      "p.lua:5:6: 'math.pi' assigned; the libraries are closed",
      "p.lua:6:1: global 'policy' assigned; use 'local policy'",
    }, told("local x = plicy\nsize = 5\nfunction helper() return size end\nhelper(math.flor(1.5))\n"
      .. "math.pi = 3\npolicy = 5"))
  end)

  it("are few", function ()
    for _, name in ipairs { "setfenv", "getfenv", "load", "loadstring", "loadfile", "dofile",
      "require", "pcall", "xpcall", "coroutine", "newproxy", "setmetatable", "getmetatable",
      "rawset", "rawget", "rawequal", "next", "print", "os", "io", "debug", "jit", "ffi", "package",
      "collectgarbage", "_G" } do
      assert.same({ ("p.lua:1:11: '%s' is not available in a policy file"):format(name) },
        told("local f = " .. name))
    end
    for _, name in ipairs { "string.dump", "math.random", "math.randomseed", "table.maxn" } do
      assert.is_truthy(told("local f = " .. name)[1]:find("is not available", 1, true), name)
    end
    for _, call in ipairs { "now()", "emit('x', {})", "log.warn('x')" } do
      local name = call:match "^[%a.]+"
      assert.same({ ("p.lua:1:9: '%s' is for hooks: functions of a policy, as in on = { open = … }")
        :format(name) }, told("local x=" .. call))
    end
  end)

  it("do what they do elsewhere", function ()
    local _, mistakes = parse [[
      assert(("x"):rep(3, ",") == "x,x,x" and ("a.b"):find(".", 1, true) == 2)
      assert(("k=v"):match "(%w)=(%w)" == "k" and ("abc"):upper():reverse() == "CBA")
      assert(("a b"):gsub("%w", { a = "1" }) == "1 b" and ("ab"):gsub("b", "%0%0") == "abb")
      assert(("ab"):gsub(".", function (c) return c .. "-" end) == "a-b-")
      local words = {}
      for word in ("one two"):gmatch "%a+" do table.insert(words, 1, word) end
      table.sort(words)
      assert(table.concat(words, " ", 1, 2) == "one two" and table.remove(words) == "two")
      assert(("%d %s"):format(5, "x") == "5 x" and select("#", unpack { 1, 2 }) == 2)
      assert(math.floor(2.5) == 2 and tonumber "7" == 7 and type(tostring(1)) == "string")
      for _, w in ipairs(words) do for k in pairs { [w] = 1 } do assert(k == w) end end]]
    assert.is_nil(mistakes, tostring(mistakes))
  end)
end)

describe("a hostile policy file", function ()
  local STEPS = "stopped after 10 million steps: a policy file declares and ends"
  local CALL = "stopped at a call that could take more than 10 million steps"
  local VALUE = "stopped at a string or table of more than 256 KB"

  -- A row: text, message. All stand on one line.
  local rows = {
    { "while true do end", STEPS },
    { "local n = 0 repeat n = n + 1 until false", STEPS },
    { "for i = 1, 1e12 do end", STEPS },
    { "local function f() return f() end f()", STEPS },
    { "local function f() return 1 + f() end f()", "stack overflow" },
    { "table.sort({ 3, 2, 1 }, function () while true do end end)", STEPS },
    { "('x'):gsub('x', function () while true do end end)", STEPS },
    { "policy 'x' { limits = { a = (function () while true do end end)() } }", STEPS },
    { "local t = {} for i = 1, 1e6 do table.insert(t, 1, i) end", STEPS },
    { "local t = {} for i = 1, 9999 do t[i] = i end while true do table.sort(t) end", STEPS },
    { "local s = ('x'):rep(60000) while true do s:upper() end", STEPS },
    { "('x'):rep(1e9)", "stopped at string.rep: a text of more than 64 KB" },
    { "('x'):rep(1/0)", "stopped at string.rep: a text of more than 64 KB" },
    { "('x'):rep(2, ('y'):rep(65535))", "stopped at string.rep: a text of more than 64 KB" },
    { "local s = 'x' for i = 1, 40 do s = s .. s end", VALUE },
    { "local t = {} for i = 1, 1e9 do t[i] = i end", VALUE },
    { "local t = {} for i = 1, 1e9 do t[i % 999] = (i .. ''):rep(999) end",
      "stopped at 64 MB of memory" },
    { "local t = {} for i = 1, 99 do t[i] = ('x'):rep(9999) end table.concat(t)",
      "stopped at table.concat: a text of more than 64 KB" },
    { "table.concat({ 1, 2, 3, 4 }, ('x'):rep(50000))",
      "stopped at table.concat: a text of more than 64 KB" },
    { "('x'):rep(999):gsub('x', ('y'):rep(999))",
      "stopped at string.gsub: a text of more than 64 KB" },
    { "('x'):rep(999):gsub('x', function () return ('y'):rep(999) end)",
      "stopped at string.gsub: a text of more than 64 KB" },
    { "('x'):rep(999):gsub('x', { x = ('y'):rep(999) })",
      "stopped at string.gsub: a text of more than 64 KB" },
    { "local s = ('x'):rep(50000) string.format('%s%s', s, s)",
      "stopped at string.format: a text of more than 64 KB" },
    { "string.format(('%s'):rep(600), unpack({}, 1, 600))",
      "stopped at a format of more than 1024 bytes" },
    { "('a'):rep(200):find(('a*'):rep(30) .. 'b')", CALL },
    { "('a'):rep(28):match(('a?'):rep(28) .. ('a'):rep(28))", CALL },
    { "('a'):rep(9999):gmatch('.-b')", CALL },
    { "('('):rep(9999):gsub('%b()', '')", CALL },
    { "('a'):rep(9999):find('(a*)%1b')", CALL },
    { "('a'):rep(60000):find(('a'):rep(60000) .. 'b', 1, true)", CALL },
    { "('a'):find(('a'):rep(300))", "stopped at a pattern of more than 256 bytes" },
    { "local t = {} for i = 1, 1e5 do t = { t } end policy 'x' (t)", "stack overflow" },
  }

  for _, row in ipairs(rows) do
    it("is stopped: " .. row[1], function ()
      assert.same({ "p.lua:1: " .. row[2] }, told(row[1]))
    end)
  end

  it("is named with the line it was at", function ()
    for name, message in pairs { loop = STEPS, memory = VALUE, recursion = "stack overflow" } do
      local tree, mistakes = policy.load(FIXTURES .. name .. ".lua")
      assert.is_nil(tree)
      assert.equal(1, #mistakes)
      assert.equal(message, mistakes[1].message)
      assert.is_true(mistakes[1].line == 3 or mistakes[1].line == 4, name)
    end
  end)

  it("may not take longer than the clock of the host allows", function ()
    local s = 0
    local function clock()
      s = s + 0.01
      return s
    end
    local _, mistakes = policy.parse("while true do end", "p.lua", { clock = clock })
    assert.equal("stopped after 2 seconds: a policy file declares and ends", mistakes[1].message)
    assert.is_table(policy.parse("local x = 1", "p.lua", { clock = clock }))
  end)

  it("leaves the machine as it was", function ()
    local function hook() end
    for _, text in ipairs { "local x = ('a'):rep(3)", "while true do end", "error 'x'", "x = y.z",
      "local function f() return 1 + f() end f()", "('').__index.rep = nil" } do
      debug.sethook(hook, "", 1000)
      parse(text)
      local found, _, count = debug.gethook()
      debug.sethook()
      assert.equal(hook, found, text)
      assert.equal(1000, count, text)
      assert.equal(string, getmetatable("").__index, text)
      assert.is_true(collectgarbage "isrunning", text)
      assert.is_function(string.rep)
      assert.is_nil(rawget(_G, "x"))
    end
    collectgarbage "stop"
    parse "while true do end"
    local running = collectgarbage "isrunning"
    collectgarbage "restart"
    assert.is_false(running)
  end)

  it("never raises, whatever its bytes", function ()
    local pieces = { "policy", " ", ' "a" ', "{", "}", "{", "}", "=", "limits", "lease", "\n",
      "(", ")", "[", "]", '"5/s"', "'", "--[[", "\\", "\0", "\255", "1", ",", "user", "listen",
      "env", "..", "function()", "end", "local x", "[[", "]]", "return", "nil", ".", ":", "per",
      "resp", ";" }
    local state = 1 + seed % 2147483646
    local function draw(most)
      state = state * 16807 % 2147483647
      return 1 + math.floor(state / 2147483647 * most)
    end
    local ran = 0
    for _ = 1, 5000 do
      local text = {}
      for i = 1, draw(30) do text[i] = pieces[draw(#pieces)] end
      text = table.concat(text)
      local tree, mistakes = parse(text)
      assert.is_true(type(tree) == "table" or #tostring(mistakes) > 0, text)
      if tree or not mistakes[1].message:find "near '" then ran = ran + 1 end
    end
    assert.is_true(ran > 50, "too few texts ran: " .. ran)
  end)
end)
