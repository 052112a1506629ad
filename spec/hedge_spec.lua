local breaker = require "neap.breaker"
local budget = require "neap.budget"
local classify = require "neap.classify"
local events = require "neap.events"
local hedge = require "neap.hedge"
local in_virtual_time = require "spec.in_virtual_time"
local seed = require "spec.seed"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

describe("a hedge", function ()
  local rt, log

  in_virtual_time(function (new) rt, log = new, {} end)

  --- Calls that take so long and answer that, one after the other; what becomes of each is noted.
  local function script(rows)
    return function (try)
      local n = try.attempt + 1
      local takes, value, err = unpack(rows[n], 1, 3)
      log[#log + 1] = ("%g: %d begins"):format(rt.now(), n)
      local slept = rt.sleep(takes)
      log[#log + 1] = ("%g: %d %s"):format(rt.now(), n, slept and "ends" or "is cancelled")
      if not slept then return nil, "cancelled" end
      return value, err
    end
  end

  local function run(race, ...)
    local answer
    local args = { ... }
    rt.run(function () answer = { race:run(unpack(args)) } end)
    return answer
  end

  it("is one call when that is fast enough", function ()
    local race = hedge { after = 1 }
    assert.same({ "a" }, run(race, script { { 0.5, "a" } }))
    assert.same({ "0: 1 begins", "0.5: 1 ends" }, log)
    assert.equal(0.5, rt.now())
    assert.same({ "at once" }, run(race, function () return "at once" end))
  end)

  it("starts a second when the first is slow, and cancels whichever is later", function ()
    local race = hedge { after = 1 }
    assert.same({ "b" }, run(race, script { { 5, "a" }, { 2, "b" } }))
    assert.same({ "0: 1 begins", "1: 2 begins", "3: 2 ends", "3: 1 is cancelled" }, log)
    assert.equal(3, rt.now())
    log = {}
    assert.same({ "a" }, run(race, script { { 2, "a" }, { 2, "b" } }))
    assert.same({ "3: 1 begins", "4: 2 begins", "5: 1 ends", "5: 2 is cancelled" }, log)
  end)

  it("starts as many as there may be, one after the other", function ()
    local race = hedge { after = "500ms", most = 3 }
    assert.same({ "c" }, run(race, script { { 9, "a" }, { 9, "b" }, { 1, "c" } }))
    assert.same({ "0: 1 begins", "0.5: 2 begins", "1: 3 begins", "2: 3 ends" },
      { unpack(log, 1, 4) })
    log = {}
    assert.same({ "a" }, run(race, script { { 9, "a" } }, { most = 1 }))
    log = {}
    local waits = { 1, 3 }
    race = hedge { after = function () return table.remove(waits, 1) or 1 end, most = 3 }
    run(race, script { { 9, "a" }, { 9, "b" }, { 9, "c" } })
    assert.same({ "11: 1 begins", "12: 2 begins", "15: 3 begins" }, { unpack(log, 1, 3) })
  end)

  it("starts the next at once when one fails, and answers the last failure", function ()
    local race = hedge { after = 10 }
    assert.same({ "b" }, run(race, script { { 1, nil, "no" }, { 1, "b" } }))
    assert.same({ "0: 1 begins", "1: 1 ends", "1: 2 begins", "2: 2 ends" }, log)
    assert.same({ nil, "second" }, run(race, script { { 1, nil, "no" }, { 1, nil, "second" } }))
    log = {}
    assert.same({ "a" }, run(hedge { after = 1 }, script { { 3, "a" }, { 1, nil, "no" } }))
    assert.same({ "4: 1 begins", "5: 2 begins", "6: 2 ends", "7: 1 ends" }, log)
    local ok, err = pcall(run, race, function () error({ "boom" }, 0) end)
    assert.same({ false, { "boom" } }, { ok, err })
  end)

  it("answers a success that comes at the same moment as a failure", function ()
    assert.same({ "b" }, run(hedge { after = 1 }, script { { 2, nil, "no" }, { 1, "b" } }))
    assert.same({ "0: 1 begins", "1: 2 begins", "2: 1 ends", "2: 2 ends" }, log)
  end)

  --- Whose answer it is, and when: worked out for two calls, from how long they take and how they
  --- end. Times are odd fractions, so that no two meet.
  local function expected(after, first, second)
    if first.ok and first.takes < after then return 1, first.takes end
    local ended = second.takes + (first.ok and after or math.min(after, first.takes))
    if first.ok and (not second.ok or first.takes < ended) then return 1, first.takes end
    if second.ok or ended > first.takes then return 2, ended end
    return 1, first.takes
  end

  it("is whichever succeeds first, or the last failure, and leaves nothing behind", function ()
    math.randomseed(seed)
    local places = semaphore(2)
    for round = 1, 500 do
      local calls = {}
      for i = 1, 2 do
        calls[i] = { takes = (math.random(100) * 2 + i / 3) / 16, ok = math.random(2) == 1 }
      end
      local after = (math.random(100) * 2 + 1) / 16
      local race = hedge { after = after, limiter = places }
      local began, took, ok, who = rt.now(), nil, nil, nil
      rt.run(function ()
        ok, who = race:run(function (try)
          local mine = calls[try.attempt + 1]
          if not rt.sleep(mine.takes) then return nil, "cancelled" end
          return mine.ok, try.attempt + 1
        end)
        took = rt.now() - began
      end)
      local winner, at = expected(after, calls[1], calls[2])
      local text = "round " .. round
      assert.same({ calls[winner].ok, winner }, { ok, who }, text)
      assert.near(at, took, 1e-6, text)
      assert.equal(2, places:available(), text)
      assert.near(at, rt.now() - began, 1e-6, text)
    end
  end)

  it("ends with a failure that is not worth another call", function ()
    local race = hedge { after = 1, classify = classify.match "busy" }
    assert.same({ nil, "fatal" }, run(race, script { { 5, "a" }, { 1, nil, "fatal" } }))
    assert.same({ "0: 1 begins", "1: 2 begins", "2: 2 ends", "2: 1 is cancelled" }, log)
    assert.same({ { status = 200 } }, run(hedge { after = 9, classify = classify.status { 503 } },
      script { { 1, { status = 503 } }, { 1, { status = 200 } } }))
    local ok, err = pcall(run, hedge { after = 1, classify = function () error("bad", 0) end },
      script { { 1, "a" } })
    assert.is_false(ok)
    assert.matches("^bad\n", err)
  end)

  it("has a deadline, and can be cancelled", function ()
    local race = hedge { after = 1 }
    assert.same({ nil, "timeout" }, run(race, script { { 9, "a" }, { 9, "b" } }, { timeout = 3 }))
    assert.same({ "0: 1 begins", "1: 2 begins" }, { log[1], log[2] })
    assert.equal("3: 1 is cancelled 3: 2 is cancelled",
      table.concat({ unpack(log, 3) }, " "):gsub("3: 2 is cancelled 3: 1 is cancelled",
        "3: 1 is cancelled 3: 2 is cancelled"))
    for _, when in ipairs { 0, 0.5, 1.5 } do
      local answer, ended
      rt.run(function ()
        local task = rt.spawn(function ()
          answer = { race:run(script { { 9, "a" }, { 9, "b" } }) }
        end)
        rt.sleep(when)
        local began = rt.now()
        task:cancel()
        task:join()
        assert.equal(began, rt.now())
        ended = began
      end)
      if when > 0 then assert.same({ nil, "cancelled" }, answer) end
      assert.equal(ended, rt.now())            -- nothing is left that waits
    end
  end)

  it("tells when nobody can answer any more, instead of waiting for ever", function ()
    local race, places = hedge { after = 1 }, semaphore(1)
    local held = places:try_acquire()
    assert.error_matches(function ()
      rt.run(function () race:run(function () return places:acquire() end) end)
    end, "deadlock")
    assert.equal(1, rt.now())
    held:release()
  end)

  it("takes a permit for each call, and gives them all back", function ()
    local places = semaphore(2)
    local race = hedge { after = 1, most = 3, limiter = places }
    assert.same({ "b" }, run(race, script { { 9, "a" }, { 4, "b" }, { 1, "c" } }))
    assert.same({ "0: 1 begins", "1: 2 begins", "5: 2 ends", "5: 1 is cancelled" }, log)
    assert.equal(2, places:available())          -- the third stood in line, and left it
    local line = throttle "1/10s burst 1"
    log = {}
    race = hedge { after = 1, limiter = line }
    assert.same({ "b" }, run(race, script { { 20, "a" }, { 1, "b" } }))
    assert.same({ "5: 1 begins", "15: 2 begins", "16: 2 ends" }, { unpack(log, 1, 3) })
    local answer = run(race, script { { 1, "a" } }, { timeout = 2 })
    assert.same({ nil, "timeout" }, { answer[1], answer[2] })
    assert.same({ nil, "cost" }, run(race, script { { 1, "a" } }, { cost = 2 }))
    local ok, err = pcall(run, race, script { { 1, "a" } }, { cost = -1 })
    assert.is_false(ok)
    assert.matches("cost", err)
  end)

  it("says of a call that was cancelled nothing to its limiter, and to nobody else", function ()
    local brake, asked = breaker { failures = 1 }, 0
    local race = hedge { after = 1, limiter = brake, classify = function (outcome)
      asked = asked + 1
      return not outcome.ok
    end }
    run(race, script { { 9, "a" }, { 1, "b" } })
    assert.same({ 0, "closed", 1 }, { brake:failures(), brake:state(), asked })
    run(race, script { { 0.5, nil, "no" }, { 1, "b" } })
    assert.equal("open", brake:state())
    local answer = run(race, script { { 1, "a" } })
    assert.same({ nil, "open" }, { answer[1], answer[2] })
  end)

  it("asks a limiter no more that has refused", function ()
    local line, started = throttle "1/100s burst 1", nil
    local stop = events.tap(function (event) started = event.started end, { "hedge.stop" })
    local race = hedge { after = 1, most = 4, limiter = line }
    assert.same({ "a" }, run(race, script { { 9, "a" } }, { timeout = 20 }))
    stop()
    assert.equal(2, started)
  end)

  it("asks the budget for each call but the first", function ()
    local purse = budget { preset = "s3_transfer" }
    local race = hedge { after = 1, budget = purse }
    for _ = 1, 10 do run(race, script { { 9, "a" }, { 1, "b" } }) end
    assert.near(0.5, purse:left(), 1e-9)
    log = {}
    run(race, script { { 9, "a" }, { 1, "b" } })
    assert.equal(2, #log)                        -- no second one
    for _ = 1, 9 do run(race, script { { 0.1, "a" } }) end
    assert.near(1, purse:left(), 1e-9)
    purse = budget { tokens = 100, cost = 14, success = 1, refund = true }
    race = hedge { after = 1, budget = purse }
    run(race, script { { 9, "a" }, { 1, "b" } })
    assert.equal(100, purse:left())
    run(race, script { { 2, "a" }, { 9, "b" } })
    assert.equal(87, purse:left())
  end)

  it("tells what happens", function ()
    local told = {}
    local stop = events.tap(function (event)
      told[#told + 1] = { event.kind, event.attempt, event.started, event.duration, event.error,
        event.host }
    end, { "hedge.start", "hedge.stop", "hedge.failed" })
    local race = hedge { after = 1 }
    run(race, script { { 9, "a" }, { 1, "b" } }, { fields = { host = "h" } })
    run(race, script { { 1, nil, "x" }, { 1, nil, "y" } })
    stop()
    assert.same({
      { "hedge.start", 0, nil, nil, nil, "h" }, { "hedge.start", 1, nil, nil, nil, "h" },
      { "hedge.stop", 1, 2, 2, nil, "h" }, { "hedge.start", 0 }, { "hedge.start", 1 },
      { "hedge.failed", 1, 2, 2, "y" },
    }, told)
  end)

  it("refuses what makes no sense, and says so", function ()
    for options, message in pairs {
      [7] = "a table expected", [{}] = "after: how long the first call has alone is missing",
      [{ after = -1 }] = "after: seconds from 0 expected", [{ after = "x" }] = "bad duration",
      [{ after = 1, most = 0 }] = "most: a whole number of calls from 1",
      [{ after = 1, classify = 1 }] = "classify: a function expected",
      [{ after = 1, budget = {} }] = "budget: one made by neap.budget expected",
      [{ after = 1, limiter = {} }] = "limiter: a limiter expected",
      [{ afer = 1 }] = "did you mean 'after'?", [{ after = 1, name = 1 }] = "name: a text",
    } do
      local ok, err = pcall(function () return hedge(options), nil end)
      assert.is_false(ok, message)
      assert.truthy(err:find(message, 1, true), err)
      assert.truthy(err:find "^spec/hedge_spec.lua:", err)
    end
    local race = hedge { after = 1 }
    for args, message in pairs {
      [{}] = "run: a function expected", [{ print, 1 }] = "run: a table expected",
      [{ print, { mots = 1 } }] = "did you mean 'most'?",
      [{ print, { most = 0 } }] = "most: a whole",
    } do
      local ok, err = pcall(function () return race:run(unpack(args, 1, 2)), nil end)
      assert.is_false(ok, message)
      assert.truthy(err:find(message, 1, true), err)
      assert.truthy(err:find "^spec/hedge_spec.lua:", err)
    end
  end)
end)
