local breaker = require "neap.breaker"
local hybrid = require "neap.hybrid"
local in_virtual_time = require "spec.in_virtual_time"

local function collect()
  collectgarbage()
  collectgarbage()
end

describe("a breaker", function ()
  local rt

  in_virtual_time(function (new) rt = new end)

  --- Rows: seconds from the last, what to do, and what it answers (or the state after it).
  local function replay(b, rows)
    for i, row in ipairs(rows) do
      local after, verb, expected = unpack(row)
      rt.advance(after)
      local answer = b[verb](b)
      if verb == "success" or verb == "failure" or verb == "ignore" then answer = b:state() end
      assert.same({ i, expected }, { i, answer })
    end
  end

  it("opens after failures in a row, and a success begins the row anew", function ()
    replay(breaker { failures = 3 }, {
      { 0, "failure", "closed" }, { 0, "failure", "closed" }, { 0, "ignore", "closed" },
      { 0, "failures", 2 },
      { 0, "success", "closed" }, { 0, "failures", 0 },
      { 0, "failure", "closed" }, { 0, "failure", "closed" }, { 0, "failure", "open" },
    })
  end)

  it("has five failures, 30 s and one trial unless told", function ()
    local b = breaker()
    for _ = 1, 4 do b:failure() end
    assert.equal("closed", b:state())
    b:failure()
    assert.same({ nil, "open", 30 }, { b:try_acquire() })
    replay(b, { { 29.999, "state", "open" }, { 0.001, "state", "half-open" } })
    local trial = assert(b:try_acquire())
    assert.same({ nil, "open", 30 }, { b:try_acquire() })
    trial:release()
    replay(b, { { 0, "state", "closed" }, { 0, "failures", 0 } })
  end)

  it("opens after failures within a time, which leave when it has passed", function ()
    replay(breaker { failures = 3, within = "5s" }, {
      { 0, "failure", "closed" }, { 1, "success", "closed" }, { 1, "failure", "closed" },
      { 2.999, "failures", 2 },
      { 0.001, "failures", 1 },                                      -- the first came 5 s ago
      { 0, "failure", "closed" }, { 1.999, "failure", "open" },
    })
  end)

  it("opens on a ratio of the last calls, once there are enough, inclusive", function ()
    replay(breaker { ratio = 0.5, of = 4, min = 3 }, {
      { 0, "failure", "closed" }, { 0, "failure", "closed" }, { 0, "success", "closed" },
      { 0, "success", "closed" },                  -- half of them, but a success opens nothing
      { 0, "success", "closed" }, { 0, "success", "closed" }, { 0, "failures", 0 },
      { 0, "failure", "closed" }, { 0, "failure", "open" },
    })
    local b = breaker { ratio = 0.07, of = 100 }   -- 0.07 * 100 is more than 7
    for _ = 1, 93 do b:success() end
    for _ = 1, 6 do b:failure() end
    assert.equal("closed", b:state())
    b:failure()
    assert.equal("open", b:state())
  end)

  it("opens on a ratio within a time, of calls that are enough", function ()
    replay(breaker { ratio = 0.5, within = "64s", min = 4 }, {
      { 0, "success", "closed" }, { 1, "success", "closed" }, { 1, "failure", "closed" },
      { 62, "failures", 1 },
      { 0, "failure", "closed" },                  -- one success has left: 2 of 3, not enough
      { 1, "failure", "closed" }, { 0, "failures", 3 },   -- and the other: 3 of 3
      { 0, "failure", "open" },
    })
  end)

  it("lets so many trials go at once and closes after so many successes", function ()
    local b = breaker { failures = 1, cooldown = 10, trials = 2, required = 2 }
    b:failure()
    rt.advance(10)
    local one, two = b:try_acquire(), b:try_acquire()
    assert.same({ nil, "open", 10 }, { b:try_acquire() })
    one:give "ignore"
    local three = assert(b:try_acquire())
    two:release()
    assert.equal("half-open", b:state())
    three:release()
    assert.equal("closed", b:state())
    assert.same({ 3, 10 }, { b:changes() })
  end)

  it("opens for a full cooldown when a trial fails", function ()
    local b = breaker { failures = 5, cooldown = 10 }
    for _ = 1, 5 do b:failure() end
    rt.advance(12)
    assert.same({ 2, 10 }, { b:changes() })
    b:try_acquire():give "failure"
    replay(b, {
      { 0, "state", "open" }, { 9.999, "state", "open" }, { 0.001, "state", "half-open" },
    })
  end)

  it("does not listen to calls from before the outage", function ()
    local b = breaker { failures = 1, cooldown = 10 }
    local old, older, last = b:try_acquire(), b:try_acquire(), b:try_acquire()
    rt.advance(1)
    b:failure()
    older:give "failure"                           -- while open
    assert.same({ nil, "open", 10 }, { b:try_acquire() })
    rt.advance(10)
    local trial = b:try_acquire()
    old:give "failure"
    assert.equal("half-open", b:state())
    assert.same({ nil, "open", 10 }, { b:try_acquire() })   -- nor was the place freed
    trial:release()
    last:give "failure"                            -- nor from before it closed
    assert.equal("closed", b:state())
  end)

  it("lets another go when nobody hears of a trial for a whole cooldown", function ()
    local b = breaker { failures = 1, cooldown = 10 }
    b:failure()
    rt.advance(10)
    local lost = b:try_acquire()
    rt.advance(4)
    assert.same({ nil, "open", 6 }, { b:try_acquire() })
    rt.advance(6)
    local second = assert(b:try_acquire())
    assert.same({ nil, "open", 10 }, { b:try_acquire() })
    lost:give "ignore"                             -- it was not lost, but its place is taken
    assert.same({ nil, "open", 10 }, { b:try_acquire() })
    second:release()
    assert.equal("closed", b:state())
    local patient = breaker { failures = 1, cooldown = 1, patience = "1m" }
    patient:failure()
    rt.advance(1)
    local held = patient:try_acquire()
    assert.same({ nil, "open", 60 }, { patient:try_acquire() })
    held:release()
  end)

  it("gets the place of a permit back that is forgotten, undone or settled for nothing", function ()
    local b = breaker { failures = 1, cooldown = 10 }
    b:failure()
    rt.advance(10)
    assert(b:try_acquire())
    collect()
    assert(b:try_acquire()):undo()
    assert(b:try_acquire(7)):settle(0)
    assert(b:try_acquire()):settle(5)              -- how heavy a call was is nothing to it
    assert.equal("half-open", b:state())
  end)

  it("takes a forgotten permit for a failure if it is to", function ()
    local b = breaker { failures = 2, abandoned = "failure" }
    local both = hybrid { b, "100/s" }
    assert(b:try_acquire())
    collect()
    assert.equal(1, b:failures())
    assert(both:try_acquire())
    collect()
    assert.equal("open", b:state())
  end)

  it("with no cooldown tries at once, one at a time, even if the clock stands", function ()
    local b = breaker { failures = 1, cooldown = 0 }
    b:failure()
    assert.equal("half-open", b:state())
    local trial = assert(b:try_acquire())
    assert.same({ nil, "open", 1 }, { b:try_acquire() })
    trial:give "failure"
    trial = assert(b:try_acquire())
    trial:release()
    assert.equal("closed", b:state())
    b:failure()
    assert.equal("half-open", b:state())
  end)

  it("tells trials of before from those of now, even if the clock stands", function ()
    local b = breaker { failures = 1, cooldown = 0, trials = 2 }
    b:failure()
    local one, two = b:try_acquire(), b:try_acquire()
    one:give "failure"                             -- open, and half-open again at once
    local three = assert(b:try_acquire())
    two:give "success"                             -- which is of the one before
    assert.equal("half-open", b:state())
    local four = assert(b:try_acquire())
    three:give "success"
    assert.equal("closed", b:state())
    four:give "failure"
    assert.equal("closed", b:state())
    b:try_acquire():give "failure"
    assert.equal("half-open", b:state())
  end)

  it("can be opened, closed and reset by hand", function ()
    local b = breaker { failures = 2, cooldown = 10 }
    b:open()
    assert.same({ nil, "open", nil }, { b:try_acquire() })
    rt.advance(1e6)
    assert.equal("open", b:state())
    b:close()
    assert.same({ "closed", true }, { b:state(), b:peek() })
    b:open "1m"
    assert.same({ nil, "open", 60 }, { b:try_acquire() })
    rt.advance(60)
    assert.equal("half-open", b:state())
    b:close()
    local old = b:try_acquire()
    b:failure()
    b:close()                                      -- it is: nothing happens
    assert.equal(1, b:failures())
    rt.advance(1)
    b:reset()
    assert.equal(0, b:failures())
    old:give "failure"
    assert.equal(0, b:failures())
  end)

  it("counts what is said by hand in half-open as a trial", function ()
    local b = breaker { failures = 1, cooldown = 10, trials = 2, required = 2 }
    replay(b, {
      { 0, "failure", "open" }, { 0, "success", "open" },
      { 10, "ignore", "half-open" }, { 0, "success", "half-open" }, { 0, "success", "closed" },
      { 0, "failure", "open" }, { 10, "failure", "open" }, { 0, "failures", 1 },
    })
  end)

  it("that is lazy says open until a trial went", function ()
    local b = breaker { failures = 1, cooldown = 1, lazy = true }
    replay(b, { { 0, "failure", "open" }, { 5, "state", "open" } })
    local trial = assert(b:try_acquire())
    assert.equal("half-open", b:state())
    trial:give "failure"
    replay(b, { { 0, "state", "open" }, { 5, "state", "open" } })
  end)

  describe("calls", function ()
    local function pass(...) return ... end

    it("and judges by the results", function ()
      local b = breaker { failures = 100 }
      local function try(failures, ...)
        b:reset()
        assert.same({ ... }, { b:call(pass, ...) })
        assert.equal(failures, b:failures())
      end
      try(0, 42)
      try(0, "a", nil, "b")
      try(1, nil, "refused")
      try(1, false, "refused")
      try(1, false)
      try(0, nil, "cancelled")                     -- a wait of ours; the server did nothing
      try(0, nil)                                  -- found nothing, and no error
      try(0)
    end)

    it("and leaves the judgement to a classifier", function ()
      local answer
      local b = breaker { failures = 100, classify = function () return answer end }
      for word, failures in pairs { success = 0, failure = 1, something = 1, ignore = 0 } do
        b:reset()
        answer = word
        b:call(pass, 1)
        assert.same({ word, failures }, { word, b:failures() })
      end
      for _, other in ipairs { false, 7, {} } do
        b:reset()
        answer = other
        b:call(pass, 1)
        assert.equal(1, b:failures())
      end
      b:reset()
      answer = true
      b:call(pass, nil, "not found")
      assert.equal(0, b:failures())
      b:failure()
      answer = "ignore"
      b:call(pass, 1)
      assert.equal(1, b:failures())
    end)

    it("and raises again what was raised, as a failure, and leaks no trial", function ()
      local b = breaker { failures = 1, cooldown = 0 }
      local thrown = {}
      for _ = 1, 3 do
        local ok, err = pcall(b.call, b, function () error(thrown) end)
        assert.is_false(ok)
        assert.equal(thrown, err)
        assert.equal("half-open", b:state())
      end
      assert.equal(1, b:call(pass, 1))
      b = breaker { failures = 1, classify = function () error("no idea", 0) end }
      assert.has_error(function () b:call(pass, 1) end, "no idea")
      assert.equal("open", b:state())
    end)

    it("nothing while it is open", function ()
      local b = breaker { failures = 1, cooldown = 8 }
      b:call(pass, nil, "down")
      rt.advance(3)
      local called = false
      assert.same({ nil, "open", 5 }, { b:call(function () called = true end) })
      assert.is_false(called)
    end)
  end)

  it("says why in a sentence", function ()
    local b = breaker { failures = 1, cooldown = "90s", name = "payments" }
    b:failure()
    local why = b:why()
    assert.same({ "open", "payments", 90 }, { why.word, why.limiter, why.wait })
    assert.equal("payments: open; free in 1m30s", tostring(why))
    b:open()
    assert.equal("payments: open until told otherwise", tostring(b:why()))
  end)

  -- ---- mistakes -------------------------------------------------------------------------------

  it("refuses what makes no sense", function ()
    local nan = 0 / 0
    local rows = {
      { { failures = 1.5 }, "failures: a whole number expected, got 1.5" },
      { { failures = -1 }, "failures: a whole number expected" },
      { { failures = nan }, "failures: a whole number expected" },
      { { failures = "3" }, "failures: a whole number expected" },
      { { failures = 2, ratio = 0.5, of = 4 }, "either failures or a ratio" },
      { { ratio = nan, of = 10 }, "ratio: a part from 0 to 1 expected, got " },
      { { ratio = 1.5, of = 10 }, "ratio: a part from 0 to 1" },
      { { ratio = -0.1, of = 10 }, "ratio: a part from 0 to 1" },
      { { ratio = "half", of = 10 }, "ratio: a part from 0 to 1" },
      { { ratio = 0.5 }, "of the last calls, of = 20, or of those within" },
      { { ratio = 0.5, of = 4, within = "1s", min = 1 }, "of the last calls" },
      { { ratio = 0.5, of = 4, min = 5 }, "5 of the last 4 calls" },
      { { ratio = 0.5, of = 1e9 }, "of: a whole number expected" },
      { { ratio = 0.5, within = "1s" }, "min: how many calls" },
      { { of = 4 }, "of and min are for a ratio" },
      { { failures = 3, within = 0 }, "within: more than 0" },
      { { within = -1 }, "within: seconds from 0" },
      { { within = "soon" }, "" },
      { { cooldown = -1 }, "cooldown: seconds from 0" },
      { { cooldown = nan }, "" },
      { { patience = 0 }, "patience: more than 0" },
      { { trials = 0.5 }, "trials: a whole number" },
      { { required = {} }, "required: a whole number" },
      { { wait = 1 }, "wait: true or false" },
      { { lazy = "yes" }, "lazy: true or false" },
      { { abandoned = "success" }, "abandoned: \"ignore\" or \"failure\"" },
      { { classify = "status" }, "classify: a function" },
      { { over = "10/s" }, "over: a limiter" },
      { { failure = 5 }, "'failure' is not known" },
      { 5, "a table expected" },
    }
    for i, row in ipairs(rows) do
      local ok, err = pcall(breaker, row[1])
      assert.is_false(ok, i)
      assert.truthy(err:find(row[2], 1, true), i .. ": " .. err)
    end
    local b = breaker()
    assert.has_error(function () b:open(-1) end)
    assert.has_error(function () b:call() end)
    assert.equal("closed", b:state())
  end)

  it("counts 0 as 1, and more successes than trials as that many", function ()
    local b = breaker { failures = 0, cooldown = 1, trials = 0, required = 9 }
    replay(b, { { 0, "success", "closed" }, { 0, "failure", "open" }, { 1, "state", "half-open" } })
    b:try_acquire():release()
    assert.equal("closed", b:state())
  end)
end)
