--- The runtime in a program with frames of its own: tasks go on at their instants within a frame.
local ffi = require "ffi"
local C = require "neap.engine"
local host = require "neap.runtime.host"
local neap = require "neap"

local MS = 1000000

describe("a host's runtime", function ()
  local before, rt

  before_each(function ()
    rt = host.new()
    before = neap.runtime.use(rt)
  end)

  after_each(function () neap.runtime.use(before) end)

  it("lets tasks go on at their own instants, frame by frame", function ()
    local seen = {}
    local calls = neap.throttle("100/s smooth")
    neap.spawn(function ()
      for _ = 1, 4 do
        calls:acquire()
        seen[#seen + 1] = neap.now()
      end
    end)
    assert.same({}, seen)
    rt.tick(0)
    assert.same({ 0 }, seen)
    rt.tick(16 * MS)
    assert.same({ 0, 0.01 }, seen)
    rt.tick(48 * MS)
    assert.same({ 0, 0.01, 0.02, 0.03 }, seen)
    assert.equal(0.048, neap.now())
  end)

  it("ends a frame only when nobody can run any more", function ()
    local seen = {}
    neap.spawn(function ()
      for i = 1, 3 do
        neap.sleep(0)
        neap.spawn(function () seen[i] = true end)
      end
    end)
    rt.tick(0)
    assert.same({ true, true, true }, seen)
  end)

  it("begins where it is told, and never goes back", function ()
    local late = host.new { now = 5 * MS }
    assert.equal(0.005, late.now())
    late.tick(5 * MS)
    late.tick(ffi.new("int64_t", 6 * MS))
    for _, wrong in ipairs { 5 * MS, -1, 0 / 0, 2 ^ 60, "6ms" } do
      local ok, message = pcall(function () late.tick(wrong) end)
      assert.is_false(ok)
      assert.matches("host_spec.lua:%d+: now: an instant", message)
    end
    assert.error_matches(function () late.tick() end, "now: an instant in ns from 6000000LL")
    assert.equal(0.006, late.now())
    assert.error_matches(function () host.new { clock = 1 } end, "option 'clock' is not known")
    assert.error_matches(function () host.new { now = "1s" } end, "now: an instant")
  end)

  it("does not move time for one who is no task", function ()
    local calls = neap.throttle("100/s smooth")
    assert(calls:acquire())
    assert.error_matches(function () calls:acquire() end, "only tasks can wait")
    assert.error_matches(function () neap.sleep "1ms" end, "only tasks can wait")
    assert.equal(0, neap.now())
    rt.tick(10 * MS)
    assert(calls:try_acquire())   -- nobody is left in line
  end)

  it("ends a task's wait at its deadline", function ()
    local disk, said = neap.semaphore(1), nil
    local permit = assert(disk:acquire())
    neap.spawn(function () said = { disk:acquire { timeout = "20ms" } } end)
    rt.tick(19 * MS)
    assert.is_nil(said)
    rt.tick(33 * MS)
    assert.equal("timeout", said[2])
    permit:release()
  end)

  it("lends limiters to C, which are the same then", function ()
    local engine = ffi.cast("struct neap_engine *", rt.address())
    local move = neap.per_key("20/s burst 2", { overrides = { [7] = "60/s burst 5" } })
    local request, answer = ffi.new "struct neap_request", ffi.new "struct neap_answer"
    rt.lend(move, ffi.cast("void *", request))
    request.cost[0] = 1

    local function granted(player)
      request.key[0] = C.neap_hash_integer(rt.secret(), player)
      C.neap_engine_try(engine, request, rt.now_ns(), answer)
      return answer.status == C.NEAP_GRANTED
    end
    rt.tick(16 * MS)
    assert.is_true(granted(1))
    assert.truthy(move:try_acquire(1))
    assert.is_false(granted(1))
    assert.equal("rate", select(2, move:try_acquire(1)))
    for _ = 1, 5 do assert.is_true(granted(7)) end
    assert.is_false(granted(7))
    assert.equal(7, move:stats().granted)
    rt.tick(66 * MS)
    assert.is_true(granted(1))
    move:reconfigure("40/s burst 2")
    rt.tick(91 * MS)
    assert.is_true(granted(1))
  end)

  it("lends nothing that C cannot ask", function ()
    local into = ffi.new "struct neap_request"
    local queue = neap.queue("5/s", { capacity = 3 })
    local made = neap.per_key(function () return neap.throttle "5/s" end)
    local guest = neap.hybrid { neap.throttle "5/s",
      { peek = function () return true end, take = function () return true end } }
    for _, limiter in ipairs { queue, neap.hybrid { "5/s", queue }, made, guest } do
      local ok, message = pcall(function () rt.lend(limiter, into) end)
      assert.is_false(ok)
      assert.matches("host_spec.lua:%d+: lend: .* C cannot", message)
    end
    assert.error_matches(function () rt.lend("5/s", into) end, "lend: a limiter expected, got 5/s")
    assert.is_true(into.all == nil)
  end)
end)
