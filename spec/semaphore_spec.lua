local in_virtual_time = require "spec.in_virtual_time"
local semaphore = require "neap.semaphore"
local slots = require "neap.slots"

local function collect()
  collectgarbage()
  collectgarbage()
end

describe("a semaphore", function ()
  local rt

  in_virtual_time(function (new) rt = new end)

  it("lets so many in at once", function ()
    local s = semaphore(2)
    local a, b = s:try_acquire(), s:try_acquire()
    assert.same({ nil, "busy" }, { s:try_acquire() })
    assert.same({ 0, 2, 2, 2 }, { s:available(), s:capacity(), s:in_use(), s:limit() })
    assert.is_true(a:release())
    assert.is_false(a:release())           -- once is enough
    assert.equal(1, s:available())
    assert.is_true(b:give "failure")
    assert.equal(2, s:available())
  end)

  it("has weights, and refuses what can never fit", function ()
    local s = semaphore "5MB in flight"
    local held = assert(s:try_acquire(4e6))
    assert.same({ nil, "busy" }, { s:try_acquire(2e6) })
    assert.same({ nil, "cost" }, { s:try_acquire(6e6) })
    assert(held:settle(1e6))               -- what is left stays held
    assert.equal(4e6, s:available())
    assert(held:release())
    assert.equal(5e6, s:available())
  end)

  it("that may be overdrawn lets anything in while nothing is owed", function ()
    local s = semaphore(10, { overdraw = true })
    local heavy = assert(s:try_acquire(1000))
    assert.equal(-990, s:available())
    for _, cost in ipairs { 0, 1, 5 } do
      assert.same({ nil, "busy" }, { s:try_acquire(cost) })
      assert.same({ nil, "busy" }, { s:peek(cost) })
    end
    local nothing = rt.spawn(function () return s:acquire(0) ~= nil, rt.now() end)
    rt.advance(1)
    heavy:settle(10)
    rt.advance(1)
    assert.same({ true, 1 }, { nothing:join() })
    assert.equal(0, s:available())
    assert(s:try_acquire(1))
    assert.equal(math.huge, s:capacity())
  end)

  it("can be given another limit: those in line go, nobody is sent away", function ()
    local s = semaphore(1)
    local held = s:try_acquire()
    local waiter = rt.spawn(function () return s:acquire() ~= nil, rt.now() end)
    rt.advance(1)
    s:reconfigure(2)
    assert.same({ true, 1 }, { waiter:join() })
    s:reconfigure(1)
    collect()                              -- the waiter's permit is nobody's by now
    assert.equal(0, s:available())
    assert.same({ nil, "busy" }, { s:try_acquire() })
    held:release()
    assert(s:try_acquire())
  end)

  it("keeps what is in flight when its limit changes, and knows no other way", function ()
    local s = semaphore(4)
    local held = s:try_acquire(3)
    s:reconfigure("8 in flight", "keep")
    assert.same({ 5, "8 in flight" }, { s:available(), tostring(s) })
    s:reconfigure(2)
    assert.same({ -1, 3 }, { s:available(), s:in_use() })
    for _, mode in ipairs { "balance", "scale", "reset", "most" } do
      assert.error_matches(function () s:reconfigure(9, mode) end, "permits in flight stay")
    end
    assert.equal(2, s:limit())
    held:release()
    assert.equal(2, s:available())
  end)

  it("says why in a sentence", function ()
    local s = semaphore(64, { name = "calls" })
    local held = s:try_acquire(60)
    local why = s:why(5)
    assert.same({ "busy", "calls", 5, 64, 4 },
      { why.word, why.limiter, why.cost, why.capacity, why.balance })
    assert.is_nil(why.wait)
    assert.equal("calls: needs 5 of 64, has 4; free when a permit comes back", tostring(why))
    assert.is_true(held:release())
  end)

  describe("holds for a call", function ()
    it("gives back when it returns, and returns what it returned", function ()
      local s = semaphore(1)
      assert.same({ 0, "a", nil, "b" }, { s:with(1, function (...) return s:available(), ... end,
        "a", nil, "b") })
      assert.equal(1, s:available())
    end)

    it("gives back when it raises, and the error goes on as it was", function ()
      local s, fault = semaphore(1), { code = 7 }
      local ok, err = pcall(s.with, s, 1, function () error(fault) end)
      assert.is_false(ok)
      assert.equal(fault, err)
      ok, err = pcall(s.with, s, 1, function () error("boom", 0) end)
      assert.same({ false, "boom" }, { ok, err })
      assert.equal(1, s:available())
    end)

    it("may wait, inside and before", function ()
      local s, log = semaphore(1), {}
      local function job(name)
        return s:with({ timeout = "1h" }, function ()
          log[#log + 1] = name .. rt.now()
          rt.sleep(2)
          return name
        end)
      end
      local a, b = rt.spawn(job, "a"), rt.spawn(job, "b")
      assert.same({ "a", "b" }, { a:join(), b:join() })
      assert.same({ "a0", "b2" }, log)
      assert.equal(1, s:available())
    end)

    it("is not called without a permit", function ()
      local s = semaphore(1)
      local held = s:try_acquire()
      assert.same({ nil, "timeout" }, { s:with({ timeout = 0 }, error) })
      assert.same({ nil, "cost" }, { s:with(2, error) })
      assert(held:release())
    end)

    it("gives back what a cancelled task held", function ()
      local s = semaphore(1)
      local holder = rt.spawn(function () return s:with(1, rt.sleep, 1000) end)
      rt.turn(0)
      assert.equal(0, s:available())
      holder:cancel()
      assert.same({ nil, "cancelled" }, { holder:join() })
      assert.equal(1, s:available())
    end)
  end)

  describe("whose permit is lost", function ()
    it("has it back when the collector finds it", function ()
      local s = semaphore(3)
      local kept = s:try_acquire()
      assert(s:try_acquire(2))             -- dropped at once
      collect()
      assert.equal(2, s:available())
      kept:release()
      kept = nil
      collect()
      assert.is_nil(kept)
      assert.equal(3, s:available())       -- what was given back is not given twice
    end)

    it("wakes who waits for it", function ()
      local s = semaphore(1)
      rt.spawn(function ()
        assert(s:acquire())
        rt.sleep(5)
      end)
      rt.turn(0)
      local waiter = rt.spawn(function () return s:acquire() ~= nil, rt.now() end)
      rt.advance(10)
      collect()
      assert.same({ true, 10 }, { waiter:join() })
    end)

    it("stays in memory until it has", function ()
      local s = semaphore(1)
      local memory = setmetatable({ s }, { __mode = "v" })
      local held = s:try_acquire()
      s = nil
      collect()
      assert.is_not_nil(memory[1])
      assert(held:release())
      held = nil
      collect()
      collect()
      assert.is_nil(s or held or memory[1])
    end)
  end)

  it("tells who misuses it what would be right", function ()
    for message, fn in pairs {
      ["semaphore: a whole number of permits from 1 expected, got 0"] =
        function () semaphore(0) end,
      ["got -3"] = function () semaphore(-3) end,
      ["got 1.5"] = function () semaphore(1.5) end,
      ["got nil"] = function () semaphore() end,
      ['a number of permits or "64 in flight" expected, got "10/s"'] =
        function () semaphore "10/s" end,
      ['semaphore: bad limit "5 in fligt"'] = function () semaphore "5 in fligt" end,
      ["overdraw: true or false expected, got 1"] = function ()
        semaphore(1, { overdraw = 1 })
      end,
      ["option 'max' is not known"] = function () semaphore(1, { max = 2 }) end,
      ["with: a function expected, got nil"] = function () semaphore(1):with(1) end,
      ["got -1"] = function () semaphore(1):with(-1, print) end,
    } do
      local ok, err = pcall(function () fn() return true end)
      assert.is_false(ok, message)
      assert.is_truthy(err:find(message, 1, true), ("%s\nis not in\n%s"):format(message, err))
      assert.is_truthy(err:find("semaphore_spec.lua", 1, true), "blames someone else: " .. err)
    end
  end)
end)

describe("slots", function ()
  local rt

  in_virtual_time(function (new) rt = new end)

  it("are a semaphore for every name", function ()
    local s = slots()
    local a, b = s:of("a", 1):try_acquire(), s:of("b", 1):try_acquire()
    assert.same({ nil, "busy" }, { s:of("a", 1):try_acquire() })
    assert.same({ 1, 1, 0 }, { s:count "a", s:count "b", s:count "c" })
    a:release()
    b:release()
    assert.same({ 0, 0 }, { s:count "a", s:count "b" })
    assert.equal("done", s:of("a", 1):with(1, function () return "done" end))
  end)

  it("are one pool for a name, whatever its callers think there are", function ()
    local s, held = slots(), {}
    for i = 1, 5 do held[i] = assert(s:of("n", 5):try_acquire()) end
    assert.error_matches(function () s:of("n", 3) end, "'n' has 5 places and is in use")
    assert.error_matches(function () s:of("n", 0) end, "'n' has 5 places")
    assert.equal(5, s:count "n")
    s:change("n", 3)
    assert.same({ nil, "busy" }, { s:of("n", 3):try_acquire() })
    for i = 1, 3 do held[i]:release() end
    held[6] = assert(s:of("n", 3):try_acquire())
    assert.same({ nil, "busy" }, { s:of("n", 3):try_acquire() })
    for i = 4, 6 do held[i]:release() end
    assert.same({ nil, "closed" }, { s:of("n", 0):try_acquire() })
    assert.truthy(s:of("n", 7):try_acquire(7))   -- nobody used it
  end)

  it("let those in line go in order", function ()
    local s, log = slots(), {}
    for i = 1, 3 do
      rt.spawn(function ()
        s:of("n", 1):with(1, rt.sleep, 1)
        log[i] = rt.now()
      end)
    end
    rt.advance(3)
    assert.same({ 1, 2, 3 }, log)
  end)

  it("are forgotten when nobody uses them", function ()
    local s = slots()
    for i = 1, 1000 do s:of(i, 1):try_acquire():release() end
    collect()
    collect()
    assert.is_nil(next(s.made))
  end)

  it("refuse what is no name and no number", function ()
    local s = slots()
    assert.error_matches(function () s:of(nil, 1) end, "slots: a name expected, got nil")
    assert.error_matches(function () s:of("n", 1.5) end, "a whole number of places expected")
    assert.error_matches(function () s:of("n", -1) end, "got %-1")
  end)
end)
