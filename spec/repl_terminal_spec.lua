-- `neap repl` at a terminal: a real one, but for whoever looks at it.
local process = require "spec.process"
local terminal = require "spec.terminal"

local BIN = (os.getenv "NEAP_BUILD" or "build") .. "/bin/neap"
local POLICY = [[
  policy "openai" { limits = { requests = "60/min burst 2", input = "1000/min" } }
  policy "a" { limits = { requests = "1/s burst 1" }, per "tenant" { requests = "1/s burst 1" } }
]]

local policy_file, state, screen

local function start(words, columns)
  local all = { BIN, "repl" }
  for _, word in ipairs(words or { "--virtual", policy_file }) do all[#all + 1] = word end
  screen = terminal.start(all, { XDG_STATE_HOME = state }, columns)
  screen:expect "> "
  return screen
end

local function ended()
  screen:type "\4"
  return screen:finish()
end

describe("neap repl, at a terminal,", function ()
  before_each(function ()
    policy_file, state = process.file(POLICY), process.unused_path()
  end)
  after_each(function ()
    if screen then screen:stop() end
    os.remove(policy_file)
    os.execute("rm -rf " .. process.quoted(state))
  end)

  it("shows the time, answers, and ends at the end of input", function ()
    start()
    assert.equal('try "a"\npermit of a\nneap 0s> ', screen:ask('try "a"', "\nneap 0s> "))
    screen:ask('advance "90s"', "neap 1m30s> ")
    assert.equal(0, ended())
    start { policy_file }
    screen:ask('nix.nix', "attempt to index global 'nix'")
    screen:ask(":quit", "quit")
    assert.equal(0, screen:finish())
  end)

  it("completes policies, limits, fields, verbs and methods", function ()
    start()
    for typed, becomes in pairs {
      ["openai.li\t"] = "openai.limits",
      ["openai.limits.re\t"] = "openai.limits.requests",
      ["openai:what\t"] = "openai:whatif",
      ["timel\t"] = "timeline",
      ["neap.thr\t"] = "neap.throttle",
      ["try('op\t"] = "try('openai",
      ["try('openai', { in\t"] = "try('openai', { input",
      ["try('a', { ten\t"] = "try('a', { tenant",
      [":jit of\t"] = ":jit off",
    } do
      screen:type(typed)
      screen:expect(becomes:sub(#typed))   -- what is new of it
      screen:type "\3"
      screen:expect "^C\nneap 0s> "
    end
    screen:type "openai:p\t"
    assert.matches("peek  plot", screen:expect "neap 0s> openai:p")
    screen:type "\3"
    screen:expect "neap 0s> "
  end)

  it("keeps its history, for its owner alone", function ()
    start()
    screen:ask("'one' .. 1", "one1\nneap 0s> ")
    screen:ask("for i = 1, 2 do", ".. ")
    screen:ask("print(i * 21) end", "42\nneap 0s> ")
    screen:ask("'a\\\\b'", "a\\b\nneap 0s> ")
    assert.equal(0, ended())
    local path = state .. "/neap/history"
    assert.equal("600\n700\n", (process.output(("stat -c %%a %s %s/neap"):format(path, state))))
    local file = io.open(path)
    assert.equal("'one' .. 1\nfor i = 1, 2 do\\nprint(i * 21) end\n'a\\\\\\\\b'\n", file:read "*a")
    file:close()

    start()
    screen:type "\27[A"
    screen:expect "'a\\\\b'"
    screen:type "\27[A\n"
    screen:expect "21\n42\nneap 0s> "
    screen:type "\18one\n"                    -- Ctrl-R
    screen:expect "one1\n"
    os.execute("chmod 644 " .. path)
    screen:ask("7 * 7", "49\nneap 0s> ")
    assert.equal("600\n", (process.output("stat -c %a " .. path)))
  end)

  it("is interrupted by Ctrl-C: an entry, what it waits for, and what catches errors", function ()
    start { policy_file }
    screen:ask("for i = 1, 2 do", ".. ")
    screen:type "\3"
    screen:expect "^C\nneap> "
    for _, entry in ipairs {
      "while true do end",
      "while true do pcall(function () while true do end end) end",
      "pcall(function () while true do end end)",
      "neap.sleep '1h'",
      "neap.spawn(function () while true do end end):join()",
      "coroutine.wrap(function () while true do end end)()",
    } do
      screen:ask("print 'begins' " .. entry, "begins\n")
      screen:type "\3"
      assert.matches("interrupted", screen:expect "neap> ", entry)
    end
    screen:ask("1 + 1", "2\nneap> ")
  end)

  it("does not hear it in compiled code, and says so", function ()
    start()
    screen:ask("jit.status()", "false")
    screen:ask(":jit on", "compiled code does not hear Ctrl-C\n")
    screen:ask("jit.status()", "true")
    screen:ask(":jit off", "off\n")
    screen:ask(":nix", "unknown command ':nix': :help")
  end)

  it("draws a line anew when the window gets another size", function ()
    start(nil, 80)
    local long = ("x"):rep(50)
    screen:type("#'" .. long)
    screen:expect(long)
    local drawn = #screen.said
    screen:resize(40)
    screen:expect("neap 0s> #'" .. long:sub(1, 29))   -- 40
    screen:type "'\n"
    screen:expect "50\nneap 0s> "
    -- From where the line begins, one row above; and broken after 40 columns.
    assert.equal("\27[1A\r\27[J", screen.said:sub(drawn + 1, drawn + 8))
    local rest = screen.said:sub(drawn + 1):match "#'(x+)[^x]"
    assert.equal(29, #rest)
    screen:ask("#plot(a, '1s')[2]", "neap 0s> ")
    screen:ask("require 'neap.cli.edit'.width()", "40\n")
  end)

  it("goes on with what was spawned while nobody types", function ()
    start { policy_file }
    screen:ask("t = neap.spawn(function () neap.sleep '10ms' print 'awake' end)", "awake\n")
    screen:ask("1 + 1", "2\nneap> ")
  end)

  it("takes characters of any size", function ()
    start()
    screen:ask("'é€𝄞'\2\2x", "é€x𝄞\n")
  end)

  it("lets programs that it starts have Ctrl-C", function ()
    start()
    -- No shell: one that is between two commands may forget the signal.
    screen:ask("os.execute [[exec luajit -joff -e 'print \"begins\" while true do end']]",
      "begins\n")
    screen:type "\3"
    screen:expect "neap 0s> "
    screen:ask("1 + 1", "2\nneap 0s> ")
  end)
end)
