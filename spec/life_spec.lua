--- The life of a worker, as a process: how it is told to end and does, what it tells a supervisor,
--- what it is handed over, and what it survives. In the long form (NEAP_STOP_S) it stands still for
--- longer, a hook does not come back, and what is promised of a machine with nothing else to do is
--- asked for.
local socket = require "socket"
local unix = require "socket.unix"
local process = require "spec.process"

local BUILD = os.getenv "NEAP_BUILD" or "build"
local BIN = BUILD .. "/bin/neap"

local STOP_S = tonumber(os.getenv "NEAP_STOP_S")

local POLICY = [[
policy "one" { limits = { calls = "1 in flight" }, lease = { ttl = "1h" } }
policy "api" { limits = { rps = "100/s burst 10" } }
]]

describe("a worker's life", function ()
  local path

  before_each(function () path = process.file(POLICY) end)
  after_each(function ()
    process.sweep()
    os.remove(path)
  end)

  --- Start a worker, these words before `neap run` and those behind: it, and its addresses.
  local function start(before, behind)
    local words = {}
    local function add(list)
      for _, word in ipairs(list) do words[#words + 1] = word end
    end
    add(before or {})
    add { BIN, "run", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", path }
    add(behind or {})
    local worker = process.start(words)
    local line = worker:line()
    worker.address = assert(line:match "^info listening address=(%S+) protocol=resp$", line)
    line = worker:line()
    worker.http = assert(line:match "^info listening address=(%S+) protocol=http$", line)
    return worker
  end

  local function http_status(worker, target)
    local peer = process.dial(worker.http)
    peer:say("GET " .. target .. " HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    local status = peer:hear():match "^HTTP/1.1 (%d+)"
    peer:hang_up()
    return status
  end

  it("lets who holds give back, tells who waits, and ends when nothing is out", function ()
    local worker = start()
    local holder, parked = process.dial(worker.address), process.dial(worker.address)
    local lease = holder:ask("NEAP.ACQUIRE", "one")[2]
    parked:send("NEAP.ACQUIRE", "one", "BLOCK", 0)
    process.eventually(function () return holder:ask("NEAP.SNAPSHOT", "one")[4] == 1 end)
    worker:signal "TERM"
    local reply = parked:receive()
    assert.same({ "SHED", 1000, "drain" }, { reply[1], reply[4], reply[5] })
    assert.equal("503", http_status(worker, "/readyz"))
    assert.equal("200", http_status(worker, "/healthz"))
    assert.is_nil((socket.connect("127.0.0.1", worker.address:match "%d+$")))
    assert.equal("SHED", holder:ask("NEAP.ACQUIRE", "api")[1])
    assert.equal(1, holder:ask("NEAP.RELEASE", lease))
    local since = socket.gettime()
    assert.same({ "notice draining held=1\ninfo stopped\n", 0 }, { worker:finish() })
    assert.truthy(socket.gettime() - since < (STOP_S and 1 or 20))   -- not 30
  end)

  it("waits for those who hold no longer than it was told, or than is asked twice", function ()
    local worker = start(nil, { "--drain", "50ms" })
    local holder = process.dial(worker.address)
    holder:ask("NEAP.ACQUIRE", "one")
    worker:signal "INT"
    assert.same({ 'notice draining held=1\nwarning drained held=1 reason="the time is over"\n'
      .. "info stopped\n", 0 }, { worker:finish() })

    local since = socket.gettime()
    for _, second in ipairs { "TERM", "shutdown" } do
      worker = start()
      holder = process.dial(worker.address)
      holder:ask("NEAP.ACQUIRE", "one")
      assert.equal("OK", holder:ask "SHUTDOWN")
      assert.equal("notice draining held=1", worker:line())
      if second == "TERM" then worker:signal "TERM" else holder:send "SHUTDOWN" end
      assert.same({ 'warning drained held=1 reason="it was asked again"\ninfo stopped\n', 0 },
        { worker:finish() })
    end
    assert.truthy(socket.gettime() - since < 25)   -- where each would wait 30 s
  end)

  it("logs a snapshot on SIGQUIT, and goes on after SIGHUP and SIGPIPE", function ()
    local worker = start()
    local peer = process.dial(worker.address)
    peer:ask("NEAP.ACQUIRE", "one")
    worker:signal "QUIT"
    assert.matches('^info snapshot status="2 policies, 1 in flight, 0 waiting" clients=1 ',
      worker:line())
    local lines = {}
    for i = 1, 4 do lines[i] = worker:line() end
    assert.same({
      "info snapshot-policy policy=one waiting=0 leases=1",
      'info snapshot-limit policy=one limit=calls is="1 in flight" available=0 capacity=1',
      "info snapshot-policy policy=api waiting=0 leases=0",
      'info snapshot-limit policy=api limit=rps is="100/s burst 10" available=10 capacity=10',
    }, lines)
    worker:signal "PIPE"
    worker:signal "HUP"
    assert.matches("^info reload changes=0$", worker:line())
    assert.equal("PONG", peer:ask "PING")
    peer:hang_up()
    assert.same({ "", 0 }, { worker:stop() })
  end)

  it("writes its log to a file, a new one after SIGUSR1, each line with its time", function ()
    local file = process.unused_path()
    local worker = process.start { BIN, "run", "--listen", "127.0.0.1:0", "--log", file, path }
    local function lines(name)
      local from, list = io.open(name), {}
      if not from then return list end
      for line in from:lines() do list[#list + 1] = line end
      from:close()
      return list
    end
    process.eventually(function () return #lines(file) == 1 end)
    assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ info listening address=", lines(file)[1])
    os.rename(file, file .. ".1")
    worker:signal "USR1"
    process.eventually(function () return #lines(file) == 1 end)
    assert.matches("Z notice log%-reopened$", lines(file)[1])
    assert.same({ "", 0 }, { worker:stop() })
    assert.matches("Z info stopped$", lines(file)[3])
    assert.equal(1, #lines(file .. ".1"))
    os.remove(file)
    os.remove(file .. ".1")
    worker = process.start { BIN, "run", "--log", "/no/such", path }
    assert.same({ "neap: /no/such: No such file or directory\n", 1 }, { worker:finish() })
  end)

  it("tells a supervisor how it is, and that it lives, until it ends", function ()
    local name = process.unused_path()
    local supervisor = unix.dgram()
    assert(supervisor:bind(name))
    supervisor:settimeout(20)
    local function until_said(what)
      local said = {}
      repeat said[#said + 1] = assert(supervisor:receive()) until said[#said]:find(what, 1, true)
      return said
    end
    local worker = start({ "env", "NOTIFY_SOCKET=" .. name, "WATCHDOG_USEC=150000" },
      { "--drain", "1m" })
    assert.same({ "READY=1" }, until_said "READY")
    assert.equal("STATUS=2 policies, 0 in flight, 0 waiting", until_said("STATUS")[2])
    for _ = 1, 3 do assert.same({ "WATCHDOG=1" }, until_said "WATCHDOG") end
    local holder = process.dial(worker.address)
    local lease = holder:ask("NEAP.ACQUIRE", "one")[2]
    worker:signal "TERM"
    until_said "STOPPING=1"
    until_said "EXTEND_TIMEOUT_USEC=5000000"
    until_said "WATCHDOG=1"
    holder:ask("NEAP.RELEASE", lease)
    assert.equal(0, select(2, worker:finish()))
    supervisor:close()
    os.remove(name)
  end)

  it("gives no sign when a hook does not come back, and ends, naming the hook", function ()
    if not STOP_S then return pending "takes 5 s: ./spec/run soak life" end
    os.remove(path)
    path = process.file [[
policy "api" { limits = { rps = "10/s" }, estimate = function () while true do end end }
]]
    local name = process.unused_path()
    local supervisor = unix.dgram()
    assert(supervisor:bind(name))
    local worker = start { "env", "NOTIFY_SOCKET=" .. name, "WATCHDOG_USEC=2000000" }
    local since = socket.gettime()
    process.dial(worker.address):send("NEAP.ACQUIRE", "api")
    local said, status = worker:finish()
    local took = socket.gettime() - since
    assert.matches("hook 'estimate' of policy 'api' has not returned for %d+ ms: the process ends",
      said)
    assert.equal(134, status)   -- SIGABRT
    assert.truthy(took > 4.9 and took < 10, took)
    supervisor:settimeout(0)
    local signs = 0
    for word in function () return supervisor:receive() end do
      if word == "WATCHDOG=1" then signs = signs + 1 end
    end
    assert.truthy(signs >= 1 and signs <= 2, signs)   -- 5 s would have had 7
    supervisor:close()
    os.remove(name)
  end)

  local HAND_OVER = [[
import fcntl, os, socket, sys
for number, name in ((3, "127.0.0.1"), (4, sys.argv[1])):
    s = socket.socket()
    s.bind((name, 0))
    s.listen()
    high = fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 20)
    s.close()
    if number == 3: first = high
    else: second = high
os.dup2(first, 3); os.dup2(second, 4)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2", LISTEN_FDNAMES=sys.argv[2])
os.execv(sys.argv[3], sys.argv[3:])
]]

  local function hand_over(address, names, ...)
    return process.start { "env", "-u", "LD_PRELOAD", "/usr/bin/python3", "-c", HAND_OVER, address,
      names, BIN, "run", ... }
  end

  it("serves on sockets that were handed over, instead of where the file says", function ()
    local worker = hand_over("127.0.0.1", "http:resp", path)
    local addresses = {}
    for _ = 1, 2 do
      local line = worker:line()
      local address, protocol = line:match "^info listening address=(127%S+) protocol=(%l+)$"
      addresses[protocol or line] = address
    end
    assert.falsy(addresses.resp:find ":6390$")
    worker.http = addresses.http
    assert.equal("200", http_status(worker, "/readyz"))
    local peer = process.dial(addresses.resp)
    assert.equal("PONG", peer:ask "PING")
    peer:hang_up()
    assert.same({ "", 0 }, { worker:stop() })
  end)

  it("refuses sockets that it cannot name, or that strangers could reach", function ()
    for _, row in ipairs {
      { "127.0.0.1", "resp:admin", "neap: a socket handed over is named 'admin'; "
        .. "FileDescriptorName= is to be 'resp' or 'http'\n" },
      { "127.0.0.1", "resp", "neap: 2 sockets were handed over, and 1 names for them\n" },
      { "0.0.0.0", "resp:http", "neap: descriptor 4: without users only this machine may "
        .. "connect\n" },
    } do
      assert.same({ row[3], 1 }, { hand_over(row[1], row[2], path):finish() })
    end
    local worker = process.start { "sh", "-c", [[exec env LISTEN_PID=$$ LISTEN_FDS=1 "$0" run "$1" \
      3</dev/null]], BIN, path }
    assert.same({ "neap: descriptor 3: Socket operation on non-socket\n", 1 },
      { worker:finish() })
  end)

  it("runs without its compiler where pages cannot become executable, and says so", function ()
    local worker = start { BUILD .. "/spec/c/no_new_code" }
    assert.equal('notice jit-off reason="this process may not make pages executable"',
      worker:line())
    local peer = process.dial(worker.address)
    for _ = 1, 300 do   -- enough to compile, and to end over it
      assert.equal("api", peer:ask("NEAP.SNAPSHOT", "api")[2])
    end
    local lease = peer:ask("NEAP.ACQUIRE", "one")[2]
    assert.equal("RETRY", peer:ask("NEAP.ACQUIRE", "one", "BLOCK", 20)[1])
    assert.equal(1, peer:ask("NEAP.RELEASE", lease))
    assert.equal("200", http_status(worker, "/metrics"))
    peer:hang_up()
    assert.same({ "", 0 }, { worker:stop() })
  end)

  --- Seconds of CPU that it has used.
  local function cpu(worker)
    local file = assert(io.open("/proc/" .. worker.pid .. "/stat"))
    local fields = {}
    for field in file:read "*a":match "%) (.*)":gmatch "%S+" do fields[#fields + 1] = field end
    file:close()
    return (fields[12] + fields[13]) / 100
  end

  it("goes on serving, and does not spin, when descriptors run out", function ()
    local worker = start { "sh", "-c", 'ulimit -n 64; exec "$0" "$@"' }
    local first = process.dial(worker.address)
    assert.equal("PONG", first:ask "PING")
    local crowd, refused = {}, 0
    for i = 1, 200 do crowd[i] = process.dial(worker.address) end
    for i = 40, 200 do   -- those beyond 32 are told
      local said = crowd[i]:hear()
      if said == "-ERR max number of clients reached\r\n" then refused = refused + 1 end
    end
    assert.equal(161, refused)
    -- now there are fewer than it reckoned with
    assert.equal(0, os.execute("prlimit --nofile=24:64 --pid " .. worker.pid))
    for i = 1, 60 do crowd[200 + i] = process.dial(worker.address) end
    local before, since, took = cpu(worker), socket.gettime(), {}
    socket.sleep(STOP_S and 2 or 0.4)
    for i = 1, 100 do
      local asked = socket.gettime()
      assert.equal("PONG", first:ask "PING")
      took[i] = socket.gettime() - asked
    end
    local used = (cpu(worker) - before) / (socket.gettime() - since)
    -- spinning uses all it gets
    assert.truthy(used < (STOP_S and 0.05 or 0.3), "used " .. used .. " of a CPU")
    table.sort(took)
    if STOP_S then assert.truthy(took[90] < 0.01, took[90]) end
    for _, peer in ipairs(crowd) do peer:hang_up() end
    process.eventually(function ()
      local peer = process.dial(worker.address)
      peer:say "*1\r\n$4\r\nPING\r\n"
      local said = peer:hear(7)
      peer:hang_up()
      return said == "+PONG\r\n"
    end)
    first:hang_up()
    assert.same({ "", 0 }, { worker:stop() })
  end)

  it("lets no more go than a burst after it was stopped and went on", function ()
    local stop_s = STOP_S or 1
    local worker = start()
    local peers, count = {}, 0
    for i = 1, 200 + 100 * (stop_s - 1) do
      peers[i] = process.dial(worker.address)
      peers[i]:send("NEAP.ACQUIRE", "api", "BLOCK", 600000)
      peers[i].wire:settimeout(0)
    end
    local function hear()
      for _, peer in ipairs(peers) do
        local _, _, bytes = peer.wire:receive "*a"
        if bytes:find "GRANTED" then count = count + 1 end
      end
    end
    worker:signal "STOP"
    socket.sleep(stop_s)
    hear()
    local before, since = count, socket.gettime()
    worker:signal "CONT"
    process.eventually(function ()
      hear()
      return socket.gettime() - since > (STOP_S and 1 or 0.3) and count - before >= 10
    end)
    -- 250 ms late is not yet stopped, where others keep it from running
    local may = 10 + 100 * (socket.gettime() - since) + (STOP_S and 5 or 25)
    if STOP_S then print(("# %d went, %.0f may"):format(count - before, may)) end
    assert.truthy(count - before <= may, count - before .. " went, not " .. may)
    assert.equal(0, select(2, worker:stop()))
  end)

  it("has the time that it is told, when it runs on a virtual clock", function ()
    local worker = start(nil, { "--virtual-clock" })
    local a, b = process.dial(worker.address), process.dial(worker.address)
    assert.equal(0, a:ask("DEBUG", "CLOCK"))
    assert.equal("GRANTED", a:ask("NEAP.ACQUIRE", "api", "COST", 10)[1])
    a:send("NEAP.ACQUIRE", "api", "BLOCK", 0)
    assert.equal("RETRY", b:ask("NEAP.ACQUIRE", "api")[1])
    assert.equal(1, b:ask("NEAP.SNAPSHOT", "api")[4])
    assert.equal("OK", b:ask("DEBUG", "CLOCK", "10000000"))
    assert.same({ "GRANTED", process.null, 10, -1, "" }, a:receive())
    assert.equal(10000000, b:ask("debug", "clock"))
    assert.same({ { err = "ERR time does not go back" }, 10000000 },
      { b:ask("DEBUG", "CLOCK", "9999999"), b:ask("DEBUG", "CLOCK") })
    assert.matches("up to 18 digits", b:ask("DEBUG", "CLOCK", "1e9").err)
    assert.matches("is all there is", b:ask("DEBUG", "SLEEP", "1").err)
    -- redis-cell's answers, in one pipeline with the clock
    b:send("CL.THROTTLE", "k", 0, 1, 1)
    b:send("CL.THROTTLE", "k", 0, 1, 1)
    b:send("DEBUG", "CLOCK", "1010000000")
    b:send("CL.THROTTLE", "k", 0, 1, 1)
    assert.same({ 0, 1, "OK", 0 },
      { b:receive()[1], b:receive()[1], b:receive(), b:receive()[1] })
    a:hang_up()
    b:hang_up()
    assert.same({ "", 0 }, { worker:stop() })
    worker = start()
    a = process.dial(worker.address)
    assert.matches("^ERR unknown command 'DEBUG'", a:ask("DEBUG", "CLOCK", "1").err)
    a:hang_up()
    assert.same({ "", 0 }, { worker:stop() })
  end)
end)
