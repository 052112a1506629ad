--- The log's lines, and what is told to a supervisor, on a clock of our own.
local ffi = require "ffi"
local C = require "neap.engine"
local log_of = require "neap.worker.log"
local notify_of = require "neap.worker.notify"
local pulse = require "neap.worker.pulse"

describe("the log", function ()
  local now, lines

  before_each(function () now, lines = 0, {} end)

  local function log(options)
    options = options or {}
    options.now = function () return now end
    options.wall = function () return 1700000000 end
    options.write = function (line) lines[#lines + 1] = line end
    return assert(log_of.new(options))
  end

  local function said()
    local all = lines
    lines = {}
    return all
  end

  it("is a level, an event, and names with values, quoted where they need it", function ()
    local l = log()
    l:info("listening", "address", "[::1]:6390", "protocol", "resp")
    l:warning("cut-off", "client", 12, "reason", 'half a "command"\n', "last", "")
    l:error("bug", "bug", "a.lua:1: x\n\tstack", "fine", false, "none", nil)
    l:notice("draining")
    l:debug("started", "pid", 1)
    assert.same({
      "info listening address=[::1]:6390 protocol=resp",
      [[warning cut-off client=12 reason="half a \"command\"\n" last=""]],
      [[error bug bug="a.lua:1: x\n\tstack" fine=false none=""]],
      "notice draining",
    }, said())
    log { verbose = true }:debug("started", "pid", 1)
    assert.same({ "debug started pid=1" }, said())
  end)

  it("is JSON where that is wanted, with the time", function ()
    log { format = "json" }:warning("cut-off", "client", 12, "reason", 'a "b" /', "x", true)
    assert.same({ [[{"time":"2023-11-14T22:13:20Z","level":"warning","event":"cut-off",]]
      .. [["client":12,"reason":"a \"b\" /","x":true}]] }, said())
  end)

  it("tells the journal the level in its own way", function ()
    local l = log { journal = true }
    for _, level in ipairs { "error", "warning", "notice", "info" } do l[level](l, "event") end
    assert.same({ "<3>error event", "<4>warning event", "<5>notice event", "<6>info event" },
      said())
  end)

  it("sees that standard error is the journal's by its device and inode", function ()
    local pipe = assert(io.popen "stat -Lc '%d:%i' /proc/self/fd/2")
    local stream = pipe:read "*l"
    pipe:close()
    local getenv = os.getenv
    local function is_journal(value)
      rawset(os, "getenv", function () return value end)
      local made = log_of.new()
      rawset(os, "getenv", getenv)
      return made.journal
    end
    assert.is_true(is_journal(stream))
    assert.is_false(is_journal(stream .. "1"))
    assert.is_false(is_journal "journal")
    assert.is_false(is_journal(nil))
  end)

  it("cuts what is long, between characters, keys sooner than others", function ()
    local l = log()
    l:info("a", "key", ("k"):rep(63) .. "é!", "else", ("x"):rep(300))
    l:info("b", "key", ("k"):rep(64), "bug", ("y"):rep(9000))
    assert.same({
      ('info a key="%s…" else="%s…"'):format(("k"):rep(63), ("x"):rep(256)),
      ('info b key=%s bug="%s…"'):format(("k"):rep(64), ("y"):rep(8192)),
    }, said())
  end)

  it("counts what is said again within 10 s, and says how often then", function ()
    local l = log()
    assert.equal(math.huge, l.next_ns)
    for i = 1, 413 do
      now = i * 1e6
      l:warning("cut-off", "client", i, "reason", "too slow")
      if i == 200 then l:warning("cut-off", "client", 0, "reason", "no HTTP") end
    end
    assert.same({ "warning cut-off client=1 reason=\"too slow\"",
      "warning cut-off client=0 reason=\"no HTTP\"" }, said())
    assert.equal(10001e6, l.next_ns)
    now = 10000e6
    l:tick()
    assert.same({}, said())
    now = 10001e6
    l:tick()
    assert.same({ 'warning cut-off client=413 reason="too slow" again=412 within=10s' }, said())
    assert.equal(math.huge, l.next_ns)
    l:warning("cut-off", "client", 9, "reason", "too slow")
    l:warning("cut-off", "client", 8, "reason", "no HTTP")
    assert.same({ 'warning cut-off client=9 reason="too slow"' }, said())
    now = 10200e6
    l:warning("cut-off", "client", 7, "reason", "no HTTP")
    assert.same({ 'warning cut-off client=8 reason="no HTTP" again=1 within=10s',
      'warning cut-off client=7 reason="no HTTP"' }, said())
    l:warning("cut-off", "client", 6, "reason", "no HTTP")
    l:flush()
    assert.same({ 'warning cut-off client=6 reason="no HTTP" again=1 within=10s' }, said())
  end)

  it("never folds what belongs together", function ()
    local l = log()
    for i = 1, 3 do l:row("snapshot", "policy", i) end
    assert.equal(3, #said())
  end)

  it("keeps few reasons apart, so that strangers cannot fill the memory or the disk", function ()
    local l = log()
    for i = 1, 1000 do l:warning("odd", "reason", "number " .. i) end
    local count = 0
    for _ in pairs(l.folds) do count = count + 1 end
    assert.equal(65, count)
    assert.equal(65, #said())
    now = 20e9
    l:tick()
    assert.same({ 'warning odd reason="number 1000" again=935 within=10s' }, said())
    l:warning("odd", "reason", "a new one")
    l:warning("odd", "reason", "another")
    assert.equal(2, #said())
  end)
end)

describe("the supervisor", function ()
  local said

  before_each(function () said = {} end)

  local function notify(env)
    return notify_of.new(function (name) return env[name] end,
      function (text) said[#said + 1] = text end)
  end

  local function yes() return true end
  local function no() return false end

  it("hears nothing, and nothing is due, when there is none", function ()
    local n = notify { WATCHDOG_USEC = "2000000" }
    n:ready()
    n:stopping()
    assert.equal(math.huge, n.next_ns)
    assert.is_false(n:tick(1e12, no, function () error "asked" end))
    assert.same({}, said)
  end)

  it("gets a sign of life thrice in its time, at least each second of two", function ()
    local n = notify { NOTIFY_SOCKET = "@x", WATCHDOG_USEC = "2000000",
      WATCHDOG_PID = tostring(tonumber(C.neap_service_process())) }
    local at = {}
    for ms = 0, 4000, 10 do
      local before = #said
      assert.is_false(n:tick(ms * 1e6, yes, function () return "fine" end))
      for i = before + 1, #said do
        if said[i] == "WATCHDOG=1" then at[#at + 1] = ms end
      end
    end
    for i = 2, #at do assert.truthy(at[i] - at[i - 1] <= 1000) end
    assert.equal(6, #at)
    assert.equal("STATUS=fine", said[2])
    assert.equal(7, #said)   -- the status did not change
  end)

  it("gets none while no permit is granted", function ()
    local n = notify { NOTIFY_SOCKET = "@x", WATCHDOG_USEC = "300000" }
    local function status() return "x" end
    assert.is_true(n:tick(0, no, status))
    assert.is_false(n:tick(1, no, status))   -- not due yet
    assert.is_true(n:tick(100e6, no, status))
    assert.same({ "STATUS=x" }, said)
    assert.is_false(n:tick(200e6, yes, status))
    assert.same({ "STATUS=x", "WATCHDOG=1" }, said)
  end)

  it("is not ours when its variables were another process's", function ()
    local n = notify { NOTIFY_SOCKET = "@x", WATCHDOG_USEC = "300000", WATCHDOG_PID = "1" }
    n:tick(0, no, function () return "x" end)
    assert.same({ "STATUS=x" }, said)
    local env = { LISTEN_FDS = "1", LISTEN_PID = "1" }
    assert.same({}, notify_of.sockets(function (name) return env[name] end))
    env.LISTEN_PID = nil
    assert.same({}, notify_of.sockets(function (name) return env[name] end))
    env.LISTEN_PID = tostring(tonumber(C.neap_service_process()))
    assert.same({ { fd = 3, http = false } },
      notify_of.sockets(function (name) return env[name] end))
  end)

  it("hears of a reload with the clock, and of the end", function ()
    local n = notify { NOTIFY_SOCKET = "@x" }
    n:ready()
    n:reloading(1234567890123LL)
    n:ready()
    n:stopping()
    n:extend()
    assert.same({ "READY=1", "RELOADING=1\nMONOTONIC_USEC=1234567890", "READY=1", "STOPPING=1",
      "EXTEND_TIMEOUT_USEC=5000000" }, said)
  end)

  it("is reached by path and by abstract name, and its absence is no error", function ()
    local function heard(name, python_name)
      local pipe = assert(io.popen(([[env -u LD_PRELOAD timeout 20 /usr/bin/python3 -uc '
import socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(%s)
print("bound")
print(s.recv(99).decode())']]):format(python_name)))
      assert.equal("bound", pipe:read "*l")
      assert.equal(0, C.neap_service_tell(name, "READY=1", 7))
      local text = pipe:read "*l"
      pipe:close()
      return text
    end
    local path = os.tmpname()
    os.remove(path)
    assert.equal("READY=1", heard(path, '"' .. path .. '"'))
    assert.equal(C.NEAP_ESYS, C.neap_service_tell(path, "x", 1))   -- its file, and nobody there
    os.remove(path)
    local name = "neap-" .. tostring(tonumber(C.neap_service_process()))
    assert.equal("READY=1", heard("@" .. name, '"\\0' .. name .. '"'))
    assert.equal(C.NEAP_ESYS, C.neap_service_tell("@" .. name, "x", 1))
    for _, wrong in ipairs { "", "/", "@", "x", "vsock:2:1", "/" .. ("p"):rep(107) } do
      assert.equal(C.NEAP_ERANGE, C.neap_service_tell(wrong, "x", 1))
    end
  end)

  it("is told only what a real permit proves, which leaves nothing behind", function ()
    local engine = C.neap_engine_open(1, 0)
    local now = 0LL
    local works = pulse.of(engine, function () return now end)
    for i = 1, 100 do
      now = now + i
      assert.is_true(works())
    end
    assert.equal(0, C.neap_engine_check(engine))
    local stats = ffi.new "struct neap_engine_stats"
    C.neap_engine_stats(engine, stats)
    assert.equal(0, tonumber(stats.waiting + stats.completed))
    C.neap_engine_close(engine)
  end)
end)
