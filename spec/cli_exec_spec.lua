-- `neap exec`, `neap top` and `neap pace`: real processes, a real worker, real signals.
local process = require "spec.process"
local socket = require "socket"

local BIN = (os.getenv "NEAP_BUILD" or "build") .. "/bin/neap"
local POLICY = [[
  policy "llm" { limits = { requests = "1000/h", input = "1000/h", calls = "1 in flight" } }
]]

local quoted = process.quoted

describe("neap exec", function ()
  local worker

  local function command(...)
    local words = { quoted(BIN), "exec", "--addr", worker.address, "--policy", "llm" }
    for _, word in ipairs { ... } do words[#words + 1] = quoted(word) end
    return table.concat(words, " ")
  end

  local function exec(...) return process.output(command(...)) end

  local function limits()
    local peer = process.dial(worker.address)
    local reply = peer:ask("NEAP.SNAPSHOT", "llm")
    peer:hang_up()
    local found = {}
    for i = 1, #reply, 2 do
      if reply[i] == "limits" then
        for _, limit in ipairs(reply[i + 1]) do
          local fields = {}
          for k = 1, #limit, 2 do fields[limit[k]] = limit[k + 1] end
          found[fields.name] = fields.available
        end
      elseif reply[i] == "leases" or reply[i] == "waiting" then
        found[reply[i]] = reply[i + 1]
      end
    end
    return found
  end

  before_each(function () worker = process.worker(POLICY) end)
  after_each(function ()
    if worker.pid then worker:stop() end
    process.sweep()
  end)

  it("runs a command under a permit, and gives it back", function ()
    local said, status = exec("--cost", "input=900", "--cost", "2", "--", "sh", "-c",
      "echo $NEAP_POLICY $NEAP_LEASE; echo more >&2")
    assert.matches("^llm %x+\nmore\n$", said)
    assert.equal(0, status)
    local after = limits()
    assert.same({ 998, 100, 1, 0 }, { after.requests, after.input, after.calls, after.leases })
  end)

  it("ends as its command did", function ()
    for want, script in pairs { [0] = "exit 0", [3] = "exit 3", [255] = "exit 255",
      [137] = "kill -9 $$", [143] = "kill $$" } do
      local _, status = exec("--", "sh", "-c", script)
      assert.equal(want, status, script)
    end
    assert.equal(0, limits().leases)
  end)

  it("says when the command cannot be run, and holds nothing for it", function ()
    local said, status = exec("--", "/no/such/program")
    assert.same({ "neap: cannot run '/no/such/program': No such file or directory\n", 127 },
      { said, status })
    said, status = exec("--", "/")
    assert.same({ "neap: cannot run '/': Permission denied\n", 126 }, { said, status })
    assert.same({ 1, 0 }, { limits().calls, limits().leases })
  end)

  it("waits for its turn, or not, as told", function ()
    local peer = process.dial(worker.address)
    local lease = peer:ask("NEAP.ACQUIRE", "llm")[2]
    local said, status = exec("--wait", "0s", "--", "echo", "ran")
    assert.same({ "neap: no permit of 'llm': not now (calls)\n", 75 }, { said, status })
    said, status = exec("--wait", "20ms", "--", "echo", "ran")
    assert.same({ "neap: no permit of 'llm': not now (timeout)\n", 75 }, { said, status })
    said, status = exec("--cost", "input=1001", "--", "echo", "ran")
    assert.same({ "neap: no permit of 'llm': more than there can ever be (input)\n", 75 },
      { said, status })

    local waiting = process.start { BIN, "exec", "--addr", worker.address, "--policy", "llm", "--",
      "echo", "ran" }
    process.eventually(function () return limits().waiting == 1 end)
    assert.equal(1, peer:ask("NEAP.RELEASE", lease))
    assert.same({ "ran\n", 0 }, { waiting:finish() })
  end)

  it("passes signals on to the command", function ()
    local mark = process.unused_path()
    local running = process.start { BIN, "exec", "--addr", worker.address, "--policy", "llm", "--",
      "sh", "-c", "trap 'echo caught; exit 7' TERM; echo >" .. mark
        .. "; while :; do sleep 0.01; done" }
    process.eventually(function ()
      local file = io.open(mark)
      if file then file:close() end
      return file ~= nil
    end)
    assert.same({ "caught\n", 7 }, { running:stop "TERM" })
    os.remove(mark)
    assert.same({ 1, 0 }, { limits().calls, limits().leases })
  end)

  it("holds its permit no longer than it lives", function ()
    local running = process.start { BIN, "exec", "--addr", worker.address, "--policy", "llm", "--",
      "sleep", "1" }
    process.eventually(function () return limits().leases == 1 end)
    running:signal "KILL"
    process.eventually(function () return limits().calls == 1 end)
    assert.equal(0, limits().leases)
  end)

  it("says what is wrong with what it was told", function ()
    local function says(expected, status, ...)
      local said, code = exec(...)
      assert.same({ "neap: " .. expected, status }, { said:match "^[^\n]*", code })
    end
    says("--cost: NAME=N expected, got 'x'", 2, "--cost", "x", "--", "true")
    says("--by: NAME=VALUE expected, got '7'", 2, "--by", "7", "--", "true")
    says("--ok: an exit status expected, got '256'", 2, "--ok", "256", "--", "true")
    says("ERR unknown limit 'inptu' in policy 'llm' (did you mean 'input'?)", 2, "--cost",
      "inptu=3", "--", "true")
    says("a command is missing", 2)
    local said, status = process.output(BIN .. " exec -- true")
    assert.same({ "neap: --policy is missing\n", 2 }, { said, status })
  end)

  it("needs a worker, unless told to go on without", function ()
    local address = "unix:" .. process.unused_path()
    local start = ("%s exec --policy llm --addr %s "):format(BIN, address)
    local lost = ("neap: no worker at %s: No such file or directory\n"):format(address)
    assert.same({ lost, 69 }, { process.output(start .. "-- echo ran") })
    assert.same({ lost .. "ran\n", 0 }, { process.output(start .. "--anyway -- echo ran") })
  end)
end)

describe("neap top", function ()
  after_each(process.sweep)

  it("shows a worker's policies, and what is said of them", function ()
    local worker = process.worker [[
      policy "llm" {
        limits = { requests = "10/h", calls = "2 in flight", all = "unlimited" },
        breaker = { trip = "2 consecutive", cooldown = "1h" },
        backoff = { on = { 429 }, window = "10s" },
        per "tenant" { requests = "5/h" },
      }
      policy "mail" { limits = { posts = "1/h" } }
    ]]
    local peer = process.dial(worker.address)
    local function top(options)
      return process.output(("%s top %s %s"):format(BIN, options, worker.address))
    end
    peer:ask("NEAP.ACQUIRE", "llm", "BY", "tenant", "42", "COST", "requests", "4")
    local said, status = top "--rounds 1"
    assert.same({ ("%s: 2 clients, 0 waiting\n"):format(worker.address) .. [[
  llm   requests    |########------------|  6 of 10  10/h
        calls       |##########----------|  1 of 2   2 in flight
        all                                 any      unlimited
        breaker     closed
        per tenant  1 keys
        0 waiting, 1 leases
  mail  posts       |--------------------|  1 of 1   1/h
]], 0 }, { said, status })
    peer:ask("NEAP.REPORT", "llm", "STATUS", "429", "RETRY-AFTER", "60")
    peer:ask("NEAP.BREAKER", "llm", "OPEN", "60000")
    said = top "--rounds 2 --every 1ms"
    assert.matches("breaker +open\n", said)
    assert.matches("back%-off +%d+.%d s left\n", said)
    assert.matches("  mail +posts .-\n +granted 0.0/s, waited 0.0/s, refused 0.0/s\n$", said)
    peer:hang_up()
    assert.same({ "", 0 }, { worker:stop() })
    said, status = top "--rounds 1"
    assert.same({ ("neap: no worker at %s: Connection refused\n"):format(worker.address), 1 },
      { said, status })
  end)

  it("fits on its terminal", function ()
    local worker = process.worker(POLICY)
    local said = process.output(([[script -qec "stty rows 4 cols 80; %s top --rounds 1 %s"]])
      :format(BIN, worker.address) .. " /dev/null </dev/null")
    assert.matches("1 client, 0 waiting\27%[K\r\n  llm  requests .*  … 2 more lines", said)
    worker:stop()
  end)
end)

describe("neap pace", function ()
  local function pace(words, input)
    return process.output(("printf '%s' | %s pace %s"):format(input, BIN, words))
  end

  it("copies every byte, and no sooner than the limit allows", function ()
    local began = socket.gettime()
    local long = ("x"):rep(70000)
    local said, status = pace("--quiet '100/s burst 2'", "a\\n\\n" .. long .. "\\0y\\nend")
    assert.same({ "a\n\n" .. long .. "\0y\nend", 0 }, { said, status })
    assert.is_true(socket.gettime() - began >= 0.02)   -- 4 lines, 2 of them at once
  end)

  it("counts bytes when told, also of lines that do not fit at once", function ()
    local began = socket.gettime()
    local said = pace("--bytes '10k/s burst 100'", ("x"):rep(349) .. "\\n")
    assert.equal(("x"):rep(349) .. "\n", said)
    assert.is_true(socket.gettime() - began >= 0.025)
  end)

  it("says how far it is, on a terminal", function ()
    local said = process.output(
      ([[script -qec "printf 'a\\nb\\n' | %s pace 1k/s" /dev/null </dev/null]]):format(BIN))
    assert.matches("a\r\n", said, 1, true)
    assert.matches("\r2 lines  [%d.]+/s  0:00\27%[K\r?\n", said)
  end)

  it("says nothing otherwise, and knows what it is given", function ()
    assert.same({ "a\n", 0 }, { pace("1/s", "a\\n") })
    local function says(expected, words)
      assert.same({ "neap: " .. expected, 2 }, { pace(words, "a\\n") })
    end
    says("a rate expected, as in '10/s burst 5', got '5 in flight'\n", "'5 in flight'")
    says("bad limit '10/mn': unknown time unit 'mn' (did you mean 'min'?)\n", "10/mn")
  end)

  it("says when its output has nowhere to go", function ()
    local said, status = process.output(("echo a | %s pace 1/s >/dev/full"):format(BIN))
    assert.same({ "neap: standard output: No space left on device\n", 1 }, { said, status })
  end)
end)
