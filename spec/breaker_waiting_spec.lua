--- A breaker among other limits, and those who wait.
local breaker = require "neap.breaker"
local hybrid = require "neap.hybrid"
local in_virtual_time = require "spec.in_virtual_time"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

describe("a breaker", function ()
  local rt

  in_virtual_time(function (new) rt = new end)

  it("takes any cost, and a trial is a trial however heavy", function ()
    local b = breaker { failures = 1, cooldown = 1, trials = 2 }
    assert.same({ math.huge, math.huge }, { b:available(), b:capacity() })
    b:failure()
    assert.same({ 0, math.huge }, { b:available(), b:capacity() })
    rt.advance(1)
    assert(b:try_acquire(1000))
    assert(b:try_acquire(1))
    assert.same({ nil, "open", 1 }, { b:try_acquire(1) })
    assert(b:try_acquire(0))
  end)

  it("in a hybrid refuses without charging, and takes no place when another refuses", function ()
    local b = breaker { failures = 1, cooldown = "2s" }
    local rate, slots = throttle "1/4s", semaphore(2)
    local api = hybrid { rate, slots, b }
    assert(api:try_acquire()):give "failure"
    assert.same({ nil, "open", 2 }, { api:try_acquire() })
    assert.same({ 0, 2 }, { rate:available(), slots:available() })
    rt.advance(2)
    assert.same({ nil, "rate", 2 }, { api:try_acquire() })
    local trial = assert(b:try_acquire())          -- so the place is there
    rt.advance(1)
    assert.same({ nil, "open", 1 }, { api:try_acquire() })
    rt.advance(0.5)
    trial:release()
    rt.advance(0.5)
    local held = assert(api:try_acquire())
    assert.same({ nil, "rate", 4 }, { api:try_acquire() })
    held:release()
    assert.equal("closed", b:state())
  end)

  it("stands in front of another limiter, and both or none go", function ()
    local rate = throttle "2/s"
    local b = breaker { failures = 1, cooldown = 10, over = rate }
    assert(b:try_acquire()):give "failure"
    assert.same({ nil, "open", 10 }, { b:try_acquire() })
    assert.equal(1, rate:available())
    b:close()
    assert(b:try_acquire(1))
    assert.same({ nil, "rate", 0.5 }, { b:try_acquire() })
    rate:close()
    assert.same({ nil, "closed" }, { b:try_acquire() })
    assert.equal("closed", b:state())
  end)

  -- ---- waiting --------------------------------------------------------------------------------

  --- Acquire in a task; what it answered, and when, is in `log` under its name.
  local function wait_as(log, name, l, given)
    return rt.spawn(function ()
      local held, why, wait_s = l:acquire(given)
      log[name] = { held and "granted" or why, rt.now(), wait_s }
      log[name .. "'s"] = held
    end)
  end

  it("that is open refuses at once whoever would wait", function ()
    local b = breaker { failures = 1, cooldown = 60 }
    local api = hybrid { "1/s", b }
    b:failure()
    assert.same({ nil, "open", 60 }, { api:acquire() })
    assert.same({ nil, "open", 60 }, { b:acquire { timeout = 100 } })
    assert.same({ nil, "open", 60 }, { b:with(1, error) })
  end)

  it("that opens sends away those in line for something else, without charging", function ()
    local b = breaker { failures = 1, cooldown = 60 }
    local rate = throttle "1/s"
    local api = hybrid { rate, b }
    local log = {}
    local held = assert(api:try_acquire())
    for i = 1, 3 do wait_as(log, i, api) end
    rt.advance(0.25)
    held:give "failure"
    rt.advance(0)
    for i = 1, 3 do assert.same({ "open", 0.25, 60 }, log[i]) end
    rt.advance(0.75)
    assert.equal(1, rate:available())
  end)

  it("that opens at another's call is asked again when their turn comes", function ()
    local b = breaker { failures = 1, cooldown = 60 }
    local rate = throttle "1/s"
    local log = {}
    assert(rate:try_acquire())
    wait_as(log, "one", hybrid { rate, b })
    rt.advance(0.25)
    b:failure()
    rt.advance(1)
    assert.same({ "open", 1, 59.25 }, log.one)
    assert.equal(1, rate:available())
  end)

  it("may be waited for: a trial goes when it is half-open, others when it closes", function ()
    local b = breaker { failures = 1, cooldown = 10, wait = true }
    local log = {}
    b:failure()
    for i = 1, 3 do wait_as(log, i, b) end
    assert.same({ nil, "timeout", 10 }, { b:acquire { timeout = 9 } })
    assert.same({ nil, "open", 10 }, { b:try_acquire() })
    rt.advance(12)
    assert.same({ "granted", 10 }, log[1])
    assert.is_nil(log[2])
    log["1's"]:give "ignore"
    rt.advance(0)
    assert.same({ "granted", 12 }, log[2])
    log["2's"]:give "failure"
    rt.advance(9)
    assert.is_nil(log[3])
    rt.advance(1)
    assert.same({ "granted", 22 }, log[3])
    local fourth = wait_as(log, 4, b)
    wait_as(log, 5, b)
    rt.advance(1)
    fourth:cancel()
    log["3's"]:release()
    rt.advance(0)
    assert.same({ { "cancelled", 23 }, { "granted", 23 } }, { log[4], log[5] })
  end)

  it("that is waited for lets another go when a trial is lost, and goes on by hand", function ()
    local b = breaker { failures = 1, cooldown = 10, wait = true }
    local log = {}
    b:failure()
    for i = 1, 3 do wait_as(log, i, b) end
    rt.advance(19)
    assert.is_nil(log[2])
    rt.advance(1)
    assert.same({ "granted", 20 }, log[2])
    b:close()
    rt.advance(0)
    assert.same({ "granted", 20 }, log[3])
  end)

  it("waits in a call, too, if it is to", function ()
    local b = breaker { failures = 1, cooldown = 10, wait = true }
    b:failure()
    local task = rt.spawn(function ()
      return b:call(function ()
        rt.sleep(1)
        return rt.now()
      end)
    end)
    rt.advance(20)
    assert.equal(11, task:join())
    assert.equal("closed", b:state())
  end)
end)
