local manual = require "neap.runtime.manual"

describe("a task", function ()
  local rt, log, reports

  local function note(text, ...)
    log[#log + 1] = ("%g %s"):format(rt.now(), text:format(...))
  end

  before_each(function ()
    rt, log, reports = manual.new(), {}, {}
    function rt.report(text) reports[#reports + 1] = text end
  end)

  it("begins when its spawner waits, in the order of spawning", function ()
    rt.run(function ()
      for i = 1, 3 do rt.spawn(function (n) note("task %d", n) end, i) end
      note "main"
      rt.sleep(1)
      note "main again"
    end)
    assert.same({ "0 main", "0 task 1", "0 task 2", "0 task 3", "1 main again" }, log)
  end)

  it("gives its results, nils included, to everyone who joins", function ()
    local function results()
      rt.sleep(1)
      return nil, 2, nil
    end
    rt.run(function ()
      local task = rt.spawn(results)
      for _ = 1, 2 do
        rt.spawn(function () note("%d %s", select("#", task:join()), select(2, task:join())) end)
      end
      assert.equal(3, select("#", task:join()))
      assert.equal(2, (select(2, task:join())))   -- again, at once
    end)
    assert.same({ "1 3 2", "1 3 2" }, log)
  end)

  it("ends what it waits for when cancelled, once, and goes on", function ()
    rt.run(function ()
      local task = rt.spawn(function ()
        note("%s %s", rt.sleep(10))
        note("%s", rt.sleep(1))
        return "done"
      end)
      rt.sleep(2)
      assert.is_true(task:cancel())
      assert.equal("done", task:join())
      assert.is_false(task:cancel())
    end)
    assert.same({ "2 nil cancelled", "3 true" }, log)
  end)

  it("hears of a cancellation at its next wait when it was not waiting", function ()
    rt.run(function ()
      local task = rt.spawn(function ()
        coroutine.yield()              -- gives way, and waits for nothing
        note "still here"
        note("%s %s", rt.sleep(5))
        note("%s", rt.sleep(0))
      end)
      rt.sleep(0)
      task:cancel()
      task:join()
    end)
    assert.same({ "0 still here", "0 nil cancelled", "0 true" }, log)
  end)

  it("may cancel itself", function ()
    rt.run(function ()
      local me
      me = rt.spawn(function ()
        me:cancel()
        note("%s %s", rt.sleep(0))
        me:cancel()
        note("%s %s", rt.spawn(rt.sleep, 1):join())
      end)
    end)
    assert.same({ "0 nil cancelled", "0 nil cancelled" }, log)
  end)

  it("never begins when it was cancelled before", function ()
    rt.run(function ()
      local task = rt.spawn(function () note "began" end)
      assert.is_true(task:cancel())
      assert.same({ nil, "cancelled" }, { task:join() })
    end)
    assert.same({}, log)
  end)

  it("can be cancelled while it joins, and the other does not mind", function ()
    rt.run(function ()
      local long = rt.spawn(function () return rt.sleep(9) end)
      local joiner = rt.spawn(function () note("%s %s", long:join()) end)
      rt.sleep(1)
      joiner:cancel()
      assert.is_true(long:join())
    end)
    assert.same({ "1 nil cancelled" }, log)
  end)

  it("is cancelled although what it waited for ended in the same round", function ()
    rt.run(function ()
      local task
      rt.spawn(function ()
        rt.sleep(1)
        task:cancel()                  -- task's sleep is over, too, but it has not seen that
      end)
      task = rt.spawn(function () note("%s %s", rt.sleep(1)) end)
    end)
    assert.same({ "1 nil cancelled" }, log)
  end)

  it("reports an error that nobody hears, with its place, and makes the run fail", function ()
    local ok, why = pcall(rt.run, function ()
      rt.spawn("crash", function ()
        rt.sleep(1)
        error "boom"
      end)
      rt.sleep(5)
      note "the others go on"
    end)
    assert.is_false(ok)
    assert.matches("task_spec.lua:%d+: boom$", why)
    assert.equal(1, #reports)
    assert.matches("^neap: crash: .*task_spec.lua:%d+: boom\nstack traceback:\n", reports[1])
    assert.same({ "5 the others go on" }, log)
  end)

  it("raises its error in whoever joins, and then it is heard", function ()
    local object = setmetatable({}, { __tostring = function () return "an object" end })
    assert.equal("fine", rt.run(function ()
      local task = rt.spawn(function ()
        rt.sleep(1)
        error(object)
      end)
      local ok, why = pcall(task.join, task)
      assert.is_false(ok)
      assert.equal(object, why)
      return "fine"
    end))
    assert.same({}, reports)
  end)

  it("may be joined after it failed, and does not fail the run then", function ()
    rt.run(function ()
      local task = rt.spawn(function () error("early", 0) end)
      rt.sleep(1)
      assert.equal(1, #reports)        -- nobody was there at the time
      local _, why = pcall(task.join, task)
      assert.equal("early", why)
    end)
  end)

  it("reports an error when its only joiner was cancelled in the same round", function ()
    local task
    local ok = pcall(rt.run, function ()
      task = rt.spawn(function ()
        rt.sleep(1)
        error("lost", 0)
      end)
      local joiner = rt.spawn(function () note("%s %s", task:join()) end)
      rt.sleep(1)
      joiner:cancel()
    end)
    assert.is_false(ok)
    assert.same({ "1 nil cancelled" }, log)
    assert.matches("lost", reports[1])
  end)

  it("reports an error when its only joiner was cancelled long before", function ()
    local ok, why = pcall(rt.run, function ()
      local task = rt.spawn(function ()
        rt.sleep(2)
        error("lost", 0)
      end)
      local joiner = rt.spawn(function () note("%s %s", task:join()) end)
      rt.sleep(1)
      joiner:cancel()
    end)
    assert.same({ false, "lost" }, { ok, why })
    assert.same({ "1 nil cancelled" }, log)
    assert.matches("lost", reports[1])
  end)

  it("cannot join itself", function ()
    local me
    assert.error_matches(function ()
      rt.run(function ()
        me = rt.spawn(function () me:join() end)
        me:join()
      end)
    end, "a task cannot wait for its own end")
  end)

  it("is called what it was named, or after the place of its function", function ()
    rt.run(function ()
      assert.equal("fetch", rt.spawn("fetch", function () end):label())
      assert.matches("^task %d+ %(.*task_spec.lua:%d+%)$", tostring(rt.spawn(function () end)))
    end)
  end)

  it("reuses coroutines, also of tasks that failed", function ()
    local seen, count = {}, 0
    local function one(fail)
      local co = coroutine.running()
      if not seen[co] then count = count + 1 end
      seen[co] = true
      if fail then error "x" end
    end
    rt.run(function ()
      for i = 1, 100 do pcall(function () rt.spawn(one, i % 2 == 0):join() end) end
    end)
    assert.equal(1, count)
  end)

  it("waits inside a coroutine of its own making as well", function ()
    rt.run(function ()
      rt.spawn(function ()
        rt.sleep(1)
        note "another"
      end)
      local next_second = coroutine.wrap(function ()
        while true do
          rt.sleep(1)
          coroutine.yield(rt.now())
        end
      end)
      assert.equal(1, next_second())
      assert.equal(2, next_second())
    end)
    assert.same({ "1 another" }, log)
  end)

  it("refuses what is no function, and says whose line that was", function ()
    local function mistake(fn, ...)
      local _, why = pcall(fn, ...)
      return why:match "task_spec.lua:%d+: (.*)$"
    end
    assert.equal("spawn: a function expected, got number",
      mistake(function () rt.spawn(7) end))
    assert.equal("spawn: a function expected, got nil",
      mistake(function () rt.spawn "name" end))
    assert.equal("run: a function expected, got nil",
      mistake(function () rt.run() end))
  end)
end)
