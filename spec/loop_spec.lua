local C = require "neap.engine"
local ffi = require "ffi"
local lfs = require "lfs"

local MS = 1000000LL

-- The one spec about real time. What it claims holds on a slow machine, too: never early, and late
-- by less than epoll's milliseconds in the median.
describe("the loop", function ()
  local loop

  before_each(function () loop = C.neap_loop_open(0) end)
  after_each(function () C.neap_loop_close(loop) end)

  local function now() return C.neap_loop_now(loop) end

  it("reads the clock that counts from the machine's start, suspensions included", function ()
    local file = assert(io.open "/proc/uptime")
    local uptime = file:read "*n"
    file:close()
    assert.truthy(math.abs(tonumber(now()) / 1e9 - uptime) < 1)
  end)

  it("refuses a slack that is none", function ()
    assert.truthy(C.neap_loop_open(-1) == nil)
    assert.truthy(C.neap_loop_open(1000 * MS + 1) == nil)
  end)

  it("does not wait for 0, nor for an instant that is past", function ()
    local before = now()
    for _ = 1, 100 do
      C.neap_loop_turn(loop, 0)
      C.neap_loop_turn(loop, before - 1)
    end
    assert.truthy(now() - before < 1000 * MS)
  end)

  it("ends a turn at the instant it was given, never before", function ()
    for _ = 1, 20 do
      local before = now()
      for _, ns in ipairs { 1LL, 999LL, 70000LL, 2 * MS } do
        local due = now() + ns
        local at = C.neap_loop_turn(loop, due)
        assert.truthy(at >= due and at <= now())
      end
      assert.truthy(now() - before < 1000 * MS)
    end
  end)

  it("counts nanoseconds, not epoll's milliseconds", function ()
    local late = {}
    for i = 1, 101 do
      local due = now() + 200000LL + i * 3000
      late[i] = tonumber(C.neap_loop_turn(loop, due) - due)
    end
    table.sort(late)
    assert.truthy(late[51] < 450000, "median lateness " .. late[51] .. " ns")
  end)

  it("forgets an instant when it is given a later one", function ()
    local soon, late = now() + MS, now() + 20 * MS
    C.neap_loop_stop(loop)
    C.neap_loop_turn(loop, soon)     -- armed for soon, and ended before
    local turns = 0
    repeat turns = turns + 1 until C.neap_loop_turn(loop, late) >= late
    assert.truthy(turns <= 2)
  end)

  it("waits again after the timer fired without being met", function ()
    C.neap_loop_turn(loop, now() + 1000)
    for _ = 1, 10 do C.neap_loop_turn(loop, 0) end
    local due = now() + 5 * MS
    assert.truthy(C.neap_loop_turn(loop, due) >= due)
  end)

  it("keeps turns that a timer ends apart by the slack, and lone waits sharp", function ()
    local slow = C.neap_loop_open(5 * MS)
    local due = C.neap_loop_now(slow) + 100000LL
    local first = C.neap_loop_turn(slow, due)
    assert.truthy(first >= due)
    local second = C.neap_loop_turn(slow, first + 1000)
    assert.truthy(second - first >= 4 * MS)
    assert.truthy(C.neap_loop_turn(slow, 0) - second < 1000 * MS)
    C.neap_loop_close(slow)
  end)

  it("ends the next turn at once when it was stopped, and only that", function ()
    C.neap_loop_stop(loop)
    local far = now() + 10000 * MS
    assert.truthy(C.neap_loop_turn(loop, far) < far)
    C.neap_loop_stop(loop)
    assert.truthy(C.neap_loop_turn(loop, C.neap_never) < far)
    local due = now() + 10 * MS
    assert.truthy(C.neap_loop_turn(loop, due) >= due)
  end)

  -- The signals this process has handlers for, of SIGHUP, SIGINT and SIGTERM.
  local function handled()
    local mask
    for line in io.lines "/proc/self/status" do mask = mask or line:match "^SigCgt:%s+(%x+)" end
    local low = tonumber(mask:sub(-4), 16)
    return { hup = bit.band(low, 1) > 0, int = bit.band(low, 2) > 0,
      term = bit.band(low, 0x4000) > 0 }
  end

  it("catches signals while it is asked to, and then gives them back", function ()
    local before = handled()
    assert.equal(0, C.neap_loop_catch(loop, C.NEAP_SIGHUP + C.NEAP_SIGTERM))
    assert.same({ hup = true, int = before.int, term = true }, handled())
    os.execute "kill -HUP $PPID; kill -TERM $PPID; kill -HUP $PPID"
    assert.equal(0, C.neap_loop_signals(loop))     -- seen by a turn only
    C.neap_loop_turn(loop, now() + 10000 * MS)
    assert.equal(C.NEAP_SIGHUP + C.NEAP_SIGTERM, C.neap_loop_signals(loop))
    assert.equal(0, C.neap_loop_signals(loop))

    assert.equal(0, C.neap_loop_catch(loop, C.NEAP_SIGINT))
    assert.same({ hup = before.hup, int = true, term = before.term }, handled())
    assert.equal(0, C.neap_loop_catch(loop, 0))
    assert.same(before, handled())
  end)

  it("lets one loop of the process catch at a time", function ()
    local other = C.neap_loop_open(0)
    assert.equal(0, C.neap_loop_catch(loop, C.NEAP_SIGINT))
    assert.equal(C.NEAP_EFULL, C.neap_loop_catch(other, C.NEAP_SIGHUP))
    assert.equal(0, C.neap_loop_catch(other, 0))
    C.neap_loop_close(loop)
    loop = C.neap_loop_open(0)
    assert.equal(0, C.neap_loop_catch(other, C.NEAP_SIGHUP))
    C.neap_loop_close(other)
  end)

  it("leaves a host's own handler alone, and ends the turn for it", function ()
    local script = os.tmpname()
    local file = assert(io.open(script, "w"))
    file:write [[
      local neap = require "neap"
      local killer = io.popen "sleep 0.2; kill -INT $PPID"
      neap.run(function ()
        neap.spawn(function () print(neap.sleep(60)) end)
        neap.sleep(60)
      end)
      killer:close()
    ]]
    file:close()
    finally(function () os.remove(script) end)
    local run = assert(io.popen("luajit " .. script .. " 2>&1; echo status $?"))
    local said = run:read "*a"
    run:close()
    assert.matches("luajit: [^\n]*interrupted!\n", said)
    assert.matches("\nnil\tcancelled\n", said)    -- the other task could clean up
    assert.matches("\nstatus 1\n$", said)
  end)

  it("takes no descriptor with it when it is closed", function ()
    local function open_now()
      local names = {}   -- by this process itself: a child's pipe would be among them
      for name in lfs.dir "/proc/self/fd" do names[#names + 1] = name end
      table.sort(names)
      return table.concat(names, " ")
    end
    local before = open_now()
    for _ = 1, 5 do C.neap_loop_close(C.neap_loop_open(0)) end
    assert.equal(before, open_now())
    C.neap_loop_close(ffi.cast("struct neap_loop *", nil))
  end)
end)
