-- `neap repl`: at a terminal, and from a pipe.
local process = require "spec.process"

local BIN = (os.getenv "NEAP_BUILD" or "build") .. "/bin/neap"
local POLICY = [[
  policy "openai" { doc = "chat", limits = { requests = "60/min burst 2", calls = "2 in flight" } }
  policy "a" { limits = { requests = "1/s burst 1" }, per "tenant" { requests = "1/s burst 1" } }
]]

local policy_file

--- What entries answer, from a pipe; and the exit status.
local function piped(entries, words)
  local path = process.file(entries)
  local text, status = process.output(("%s repl %s %s <%s"):format(BIN, words or "--virtual",
    policy_file, path))
  os.remove(path)
  return text, status
end

before_each(function () policy_file = process.file(POLICY) end)
after_each(function () os.remove(policy_file) end)

describe("neap repl, from a pipe,", function ()
  it("answers each entry, and says nothing else", function ()
    assert.same({ "permit of a\nrefused: rate, tokens have yet to arrive; again in 1s\n2\n", 0 },
      { piped 'return try("a")\ntry "a"\n= 1 + 1\n' })
    local text, status = process.output(("printf 'return try(\"a\")\\n' | %s repl %s"):format(BIN,
      policy_file))
    assert.same({ "permit of a\n", 0 }, { text, status })
  end)

  it("reads entries of several lines, and keeps variables", function ()
    assert.same({ "5\n10\n1, 2, 3\n10\n", 0 },
      { piped "x = 5\nfor i = 1, 2 do\n  print(\n    x * i)\nend\n1,\n2,\n3\nx * 2\n" })
  end)

  it("goes on after an entry that fails, and exits with 1", function ()
    local text, status = piped 'foo.bar\ntry "opnai"\n1 +\n'
    assert.same({ "attempt to index global 'foo' (a nil value)\n"
      .. "no policy 'opnai' (did you mean 'openai'?)\n"
      .. "unexpected symbol near '<eof>'\n", 1 }, { text, status })
    text, status = piped "x = 1)\nerror { wait_s = 0.6 }\n2\n"
    assert.same({ "unexpected symbol near ')'\nerror: { wait_s = 600ms }\n2\n", 1 },
      { text, status })
  end)

  it("takes one entry with the command", function ()
    assert.same({ "permit of a\n", 0 }, { process.output(("%s repl -c 'try \"a\"' %s"):format(BIN,
      policy_file)) })
    local _, status = process.output(("%s repl --command 'oops(' "):format(BIN))
    assert.equal(1, status)
  end)

  it("says what is wrong with a policy file", function ()
    os.remove(policy_file)
    policy_file = process.file 'policy "x" { limits = { requests = "5/mn" } }'
    local text, status = piped "1\n"
    assert.equal(1, status)
    assert.matches("unknown time unit 'mn' %(did you mean 'min'%?%)", text)
  end)

  it("shows values in the notation of policies", function ()
    assert.equal('{ limit = "10/s burst 20", max_ns = 1.5s, wait_s = 600ms }\n', (piped(
      '{ wait_s = 0.6, max_ns = 1.5e9, limit = neap.notation.limit "10/s burst 20" }\n')))
    assert.equal('1m30s\n2d1h\n1m0.5s\n250us\nnever\n0s\n-3s\n', (piped(
      [[f = function (s) print(require "neap.cli.show".duration(s)) end
        f(90) f(49 * 3600) f(60.5) f(0.00025) f(1/0) f(0) f(-3)
      ]])))
    assert.equal("nil\nnil: what a pity\nfalse, nil\n", (piped(
      'nil\nnil, "what a pity"\nfalse, nil\n')))
    local text = piped "t = { 1, { x = {} } } t.t = t\nt\n(function () end)\n"
    assert.matches("^{ 1, { x = {} }, t = { itself } }\na function, prompt:1\n$", text)
  end)

  it("shows how policies and limits stand", function ()
    assert.equal([[
openai: chat
  requests  60/min burst 2  1 of 2
  calls     2 in flight     1 of 2
requests: 60/min burst 2, has 1 of 2
  requests         1/s  1 of 1
  tenant.requests  1/s  by key
a
  requests         1/s  1 of 1
  tenant.requests  1/s  by key
openai: chat
  requests  60/min burst 2  1 of 2
  calls     2 in flight     1 of 2
]], (piped "p = openai:try()\nopenai\nopenai.limits.requests\na.limits\npolicies\n"))
  end)
end)

describe("time at the prompt", function ()
  it("stands until it is told to move, and tells what happened", function ()
    assert.equal([[
#1 a: granted
#2 a: in line; granted at 1s
#3 a: in line; granted at 2s
  1s  #2 a  granted, after 1s
  2s  #3 a  granted, after 2s
0
1s  #2 a: granted, waited 1s
2s  #3 a: granted, waited 2s
2
now 12s
time moves forward only, and it is 12s
'x': expected a duration such as "250ms" or "1m30s", got 'x'
]], (piped [[
acquire "a"
acquire "a"
acquire "a"
timeline()
neap.now()
advance "2s"
neap.now()
at "12s"
at "1s"
advance "x"
]]))
  end)

  it("moves when an entry waits, and runs what was to be done at an instant", function ()
    assert.equal("at 3s\nat 5s\n3\n5\ntrue\n6\n", (piped [[
at("3s", function () print(neap.now()) end)
at("5s", function () print(neap.now()) end)
neap.sleep "6s"
neap.now()
]]))
  end)

  it("is the machine's unless told", function ()
    assert.matches("%+30m.-%+1h\n$", (piped('plot("a", "1h")\n', "")))   -- ahead it looks at once
    local text, status = piped('try "a"\nwhy "a"\nadvance "1s"\n', "")
    assert.matches("^permit of a\nrequests: needs 1 of 1, has 0; free in [%d.]+m?s\n"
      .. "advance: time is the machine's here; start with %-%-virtual\n$", text)
    assert.equal(1, status)
  end)
end)

describe("a verb of the prompt", function ()
  it("says what stands in the way, or when it may leave", function ()
    assert.equal([[
nothing: it may leave now
requests: needs 1 of 1, has 0; free in 1s; at 1s
now 1s
it may leave now
requests: needs 1 of 1, has 0; free in 1s; at 2s
refused: rate, tokens have yet to arrive; again in 1s
requests: needs 1 of 1, has 0; free in 2s, 1 ahead; at 3s
]], (piped [[
why "a"
p = try "a"
why "a"
advance "1s"
peek "a"
p = try("a", { tenant = "x" })
why("a", { tenant = "x" })
peek(a)
c = acquire "a"
why "a"
]]))
  end)

  it("keeps permits until they are given back", function ()
    assert.equal([[
permit of openai
permit of openai
refused: busy, permits have yet to come back
calls: needs 1 of 2, has 0; free when a permit comes back
permit of openai
permit of openai
given back
it was given back before
given back
nothing is held
nothing is held
]], (piped [[
try "openai"
p = try "openai"
p
collectgarbage() ; collectgarbage()
try "openai"
why "openai"
held()
release(p)
release(p)
release()
release()
held()
]]))
  end)

  it("looks ahead without anything happening", function ()
    local text = piped [[
acquire "openai" acquire "openai"
acquire "openai"
acquire { 1 }
timeline()
plot(openai.limits.requests, "2s")
openai.limits.requests
]]
    assert.matches("#3 openai: in line; waits for a permit to come back", text)
    assert.matches("a policy, its name or a limiter expected, got { 1 }", text)
    assert.matches("  %-  #3 openai  when a permit comes back", text)
    assert.matches("requests: 60/min burst 2\n2 ┤.-\n0 ┤.-now.-%+1s.-%+2s\n", text)
    assert.matches("requests: 60/min burst 2, has 0 of 2\n$", text)
  end)

  it("asks what if", function ()
    assert.equal([[
refused: busy, permits have yet to come back
openai, what if: chat
  requests  60/min burst 40  38 of 40
  calls     4 in flight      2 of 4
permit of openai
openai: chat
  requests  60/min burst 2  0 of 2
  calls     2 in flight     0 of 2
policy 'openai' has no limit 'request' (did you mean 'requests'?)
requests = '1/x': unknown time unit 'x'
]], (piped [[
openai:try() openai:try()
try "openai"
w = whatif(openai, { requests = "60/min burst 40", calls = "4 in flight" })
w
try(w)
openai
whatif("openai", { request = "1/s" })
whatif("openai", { requests = "1/x" })
]]))
  end)

  it("changes a limit, and reverts it", function ()
    assert.equal([[
requests: 60/min burst 40, was 60/min burst 2
permit of openai
calls: 1 in flight, was 2 in flight
calls: 2 in flight again
requests: 60/min burst 2 again
nothing was changed
requests: 60/min burst 2, has 1 of 2
tenant.requests cannot be changed in place
]], (piped [[
change(openai.limits.requests, "60/min burst 40")
try "openai"
change(openai.limits.calls, "1 in flight")
revert()
revert()
revert()
openai.limits.requests
change(a.limits["tenant.requests"], "1/s")
]]))
  end)

  it("has help, and so has everything else", function ()
    local text = piped 'help(try)\nhelp "neap.throttle"\nhelp(openai)\nhelp()\nhelp "nix"\n'
    assert.matches("^Take now or not at all: try%(\"openai\"%)", text)
    assert.matches("\nMake a throttle%.\n.-limit  string|neap%.limit", text)
    assert.matches("openai: chat\n.-\n  whatif   The same policy with other limits", text)
    assert.matches("timeline  Who of those in line", text)
    assert.matches("help: there is no 'nix'", text)
    assert.is_nil(text:find("@package", 1, true))
  end)
end)
