-- `neap console`: a real worker, looked at from a pipe and at a terminal.
local process = require "spec.process"
local terminal = require "spec.terminal"

local BIN = (os.getenv "NEAP_BUILD" or "build") .. "/bin/neap"
local POLICY = [[
  policy "openai" { doc = "chat", limits = { requests = "20/1d", calls = "5 in flight" } }
  policy "shared" { limits = { requests = "10/1d" }, per "tenant" { requests = "2/1d burst 1" } }
]]

describe("neap console", function ()
  local worker, peer, screen

  --- What entries answer, from a pipe; and the exit status.
  local function piped(entries)
    local path = process.file(entries)
    local text, status = process.output(("%s console %s <%s"):format(BIN, worker.address, path))
    os.remove(path)
    return text, status
  end

  before_each(function ()
    worker = process.worker(POLICY)
    peer = process.dial(worker.address)
  end)
  after_each(function ()
    if screen then screen:stop() end
    screen = nil
    peer:hang_up()
    if worker.pid then worker:stop() end
    process.sweep()
  end)

  it("shows how policies stand", function ()
    peer:ask("NEAP.ACQUIRE", "openai", "COST", "requests", "8")
    peer:ask("NEAP.ACQUIRE", "shared", "BY", "tenant", "42")
    assert.same({ [[
openai: chat
  requests  20/d         12 of 20
  calls     5 in flight  4 of 5
  waiting 0, leases 1; said: granted 1, waited 0, retry 0, never 0, shed 0
requests: 20/d, has 12 of 20
shared
  requests         10/d         9 of 10
  tenant.requests  2/d burst 1  0 of 1
  per tenant       keys: 1
  waiting 0, leases 0; said: granted 1, waited 0, retry 0, never 0, shed 0
  42  1
PONG
]], 0 }, { piped [[
openai
openai.limits.requests
look("shared", { tenant = "42" })
top("shared", "tenant")
ask "PING"
]] })
  end)

  it("tells what a call would meet, and takes nothing", function ()
    peer:ask("NEAP.ACQUIRE", "openai", "COST", "requests", "20")
    peer:ask("NEAP.ACQUIRE", "shared", "BY", "tenant", "42")
    local text, status = piped [[
try "openai"
why(openai)
try("openai", { requests = 21 })
why("openai", { requests = 21 })
why("shared", { tenant = "42" })
shared:try { tenant = "43", requests = 1 }
why("openai", { calls = 1, requests = 0 })
try "opnai"
try {}
shared
]]
    local lines = {}
    for line in text:gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.matches("^refused: not now %(requests%); again in 1h1", lines[1])
    assert.matches("^requests: needs 1 of 20, has 0; free in 1h1", lines[2])
    assert.equal("refused: more than there can ever be (requests)", lines[3])
    assert.equal("requests: needs 21 of 20, more than there can be", lines[4])
    assert.matches("^tenant.requests: needs 1 of 1, has 0; free in 1", lines[5])
    assert.equal("it may leave now", lines[6])
    assert.equal("nothing: it may leave now", lines[7])
    assert.equal("NOPOLICY no policy 'opnai' (did you mean 'openai'?)", lines[8])
    assert.equal("a policy, its name or a limiter expected, got {}", lines[9])
    assert.equal("  requests    10/d  9 of 10", lines[11])
    assert.equal(1, status)
  end)

  it("makes copies, and asks them what if", function ()
    peer:ask("NEAP.ACQUIRE", "openai", "COST", "requests", "19")
    assert.same({ [[
openai, a copy: chat
  requests  20/d         1 of 20
  calls     5 in flight  4 of 5
permit of openai
refused: rate, tokens have yet to arrive; again in 1h12m
openai, what if: chat
  requests  20/d burst 40  21 of 40
  calls     5 in flight    4 of 5
#1 openai, what if: granted
#2 openai, what if: in line; granted at 1h12m
  1h12m  #2 openai, what if  granted, after 1h12m
1h12m  #2 openai, what if: granted, waited 1h12m
requests: 20/d, has 1 of 20
]], 0 }, { piped [[
w = copy "openai"
w
try(w)
try(w)
w = whatif(openai, { requests = "20/d burst 40" })
w
acquire(w, { requests = 21, calls = 0 })
acquire(w, { requests = 1, calls = 0 })
timeline()
advance "1h12m"
openai.limits.requests
]] })
  end)

  it("copies what is declared, for those who may know it", function ()
    worker:stop()
    worker = process.worker(POLICY .. [[
      user "ops" { password = "pw", allow = "admin read acquire" }
      user "page" { password = "pw", allow = "read" }
    ]])
    local function copied(user)
      return (process.output(([[NEAP_PASSWORD=pw %s console --user %s %s -c 'copy(shared, %s)']])
        :format(BIN, user, worker.address, '{ tenant = "42" }')))
    end
    local by = process.dial(worker.address)
    by:ask("AUTH", "ops", "pw")
    by:ask("NEAP.ACQUIRE", "shared", "BY", "tenant", "42")
    by:hang_up()
    assert.equal([[
shared, a copy
  requests         10/d         9 of 10
  tenant.requests  2/d burst 1  by key
]], copied "ops")
    assert.equal("shared, a copy\n  requests  10/d  9 of 10\n", copied "page")
    local text = process.output(([[NEAP_PASSWORD=pw %s console --user ops %s -c '%s']]):format(BIN,
      worker.address, 'w = copy(shared, { tenant = "42" }) return why(w, { tenant = "42" })'))
    assert.equal("tenant.requests: needs 1 of 1, has 0; free in 12h; at 12h\n", text)
    peer = process.dial(worker.address)
  end)

  it("tells events as they come", function ()
    screen = terminal.start({ BIN, "console", worker.address },
      { XDG_STATE_HOME = process.unused_path() })
    local prompt = worker.address .. "> "
    screen:expect(prompt)
    screen:ask("tail()", "listening to neap:*:*\n")
    peer:ask("NEAP.ACQUIRE", "openai", "TTL", "1")
    screen:expect "openai: expired"
    screen:type "\3"
    screen:expect("interrupted\n" .. prompt)
    screen:ask("tail('openai', 2)", "listening to neap:openai:*\n")
    peer:ask("NEAP.ACQUIRE", "openai", "TTL", "1")
    screen:expect "expired"
    peer:ask("NEAP.ACQUIRE", "openai", "TTL", "1")
    screen:expect "expired"
    screen:expect(prompt)
    screen:ask("1 + 1", "2\n" .. prompt)
  end)

  it("completes the worker's policies, and shows how far copies are", function ()
    screen = terminal.start({ BIN, "console", worker.address },
      { XDG_STATE_HOME = process.unused_path() })
    screen:expect "> "
    screen:type "try 'sh\t"
    screen:expect "ared"
    screen:type "'\n"
    screen:expect "it may leave now"
    screen:type "openai:wha\t"
    screen:expect "tif"
    screen:type "\3"
    screen:expect "> "
    screen:ask("advance '90s'", worker.address .. " +1m30s> ")
    screen:type "\4"
    assert.equal(0, screen:finish())
  end)

  it("needs a worker, also later", function ()
    local nowhere = "unix:" .. process.unused_path()
    assert.same({ ("neap: no worker at %s: No such file or directory\n"):format(nowhere), 1 },
      { process.output(("%s console %s"):format(BIN, nowhere)) })
    screen = terminal.start({ BIN, "console", worker.address },
      { XDG_STATE_HOME = process.unused_path() })
    screen:expect "> "
    worker:stop()
    worker.pid = nil
    screen:ask("openai", "lost the worker at " .. worker.address)
    screen:ask("openai", "no worker at " .. worker.address)
    screen:ask("1 + 1", "2\n")
  end)

  it("takes one entry with the command", function ()
    assert.same({ "it may leave now\n", 0 }, { process.output(
      ("NEAP_ADDRESS=%s %s console -c 'try \"openai\"'"):format(worker.address, BIN)) })
  end)
end)
