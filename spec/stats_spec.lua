--- What became of calls: every kind of limiter counts them, each by itself.
local neap = require "neap"
local in_virtual_time = require "spec.in_virtual_time"
local manual = require "neap.runtime.manual"
local seed = require "spec.seed"


local function near(expected, got)
  assert.is_true(got >= expected * 0.875 and got <= expected * 1.125,
    ("%g expected, got %g"):format(expected, got))
end

--- The counters that are not zero.
local function counted(limiter)
  local s, seen = limiter:stats(), {}
  for name, n in pairs(s) do
    if type(n) == "number" and n ~= 0 and name ~= "id" then seen[name] = n end
  end
  for word, n in pairs(s.refused) do
    if n ~= 0 then seen[word] = n end
  end
  return seen
end

-- What a finalizer can reach is alive when it runs, and in every weak table.
describe("limiters that only a task has", function ()
  local function count()
    local n = 0
    for _ in neap.limiters() do n = n + 1 end
    return n
  end

  for name, open in pairs { manual = manual.new, ev = require "neap.runtime.ev".new } do
    it("go with its runtime, when nobody has that: " .. name, function ()
      local function leave_one_behind()
        local rt = open()
        local outer = neap.runtime.use(rt)
        rt.spawn(function ()
          local users = neap.per_key "10/s"
          users:try_acquire "ann"
          rt.sleep(3600)
          users:try_acquire "ann"
        end)
        rt.turn(0)
        neap.runtime.use(outer)
        return count()
      end

      local before_all = neap.runtime.use(manual.new())
      finally(function () neap.runtime.use(before_all) end)
      collectgarbage()
      collectgarbage()
      local before = count()
      assert.equal(before + 1, leave_one_behind())
      collectgarbage()
      assert.equal(before, count())
    end)
  end
end)

describe("stats", function ()
  local rt

  local function settle()
    for _ = 1, 3 do neap.runtime.current().turn(0) end
  end

  in_virtual_time(function (new) rt = new end)

  it("counts calls that do not wait", function ()
    local l = neap.throttle "10/s"
    for _ = 1, 3 do assert(l:try_acquire()) end
    assert.same({ granted = 3 }, counted(l))
    l:peek()
    l:why(20)
    assert.same({ granted = 3 }, counted(l))
  end)

  -- One waiting call each; whoever adds a kind adds a line.
  local KINDS = {
    throttle = function () return neap.throttle "2/s burst 1" end,
    sliding = function () return neap.throttle "1/500ms sliding" end,
    hybrid = function () return neap.hybrid { "2/s burst 1", "100/s" } end,
    multi = function () return neap.multi { a = "2/s burst 1", b = "100/s" } end,
    guests = function ()
      local none = { peek = function () return true end, take = function () return true end }
      return neap.hybrid { "2/s burst 1", none }
    end,
    layered = function () return neap.layered { global = "100/s burst 1", key = "2/s burst 1" } end,
    per_key = function () return neap.per_key "2/s burst 1" end,
    breaker = function () return neap.breaker { over = neap.throttle "2/s burst 1" } end,
  }

  for kind, make in pairs(KINDS) do
    it("counts one waiting call and its wait: " .. kind, function ()
      local l, key = make(), "ann"
      if kind == "layered" then key = { key = key } end
      if kind ~= "layered" and kind ~= "per_key" then key = nil end
      assert(l:acquire(key))
      assert(l:acquire(key))
      assert.equal(0.5, rt.now())
      local s = l:stats()
      assert.same({ granted = 2, waited = 1 }, counted(l))
      assert.equal(2, s.wait.count)
      assert.equal(0.5, s.wait.sum)
      assert.equal(0.5, s.wait.max)
      assert.equal(0, s.wait.p50)
      near(0.5, s.wait.p99)
    end)
  end

  it("counts the wait, too, of those who waited for nothing", function ()
    local l = neap.throttle "5/s"
    assert.same({ nil, "cost" }, { l:acquire(9) })
    assert.same({ cost = 1 }, counted(l))
    assert.same({ 1, 0 }, { l:stats().wait.count, l:stats().wait.sum })
    assert(l:acquire(5))
    assert.same({ nil, "timeout", 1 }, { l:acquire(5, 0.5) })
    assert.same({ granted = 1, cost = 1, expired = 1 }, counted(l))
    assert.equal(3, l:stats().wait.count)
  end)

  it("counts refusals by their word", function ()
    local rate, permits, pause = neap.throttle "1/s", neap.semaphore(1), neap.pause()
    local all = neap.hybrid { rate = rate, permits = permits, pause = pause }
    assert(all:try_acquire { rate = 1 })
    assert.same({ nil, "rate", 1 }, { all:try_acquire { rate = 1 } })
    local held = assert(all:try_acquire { permits = 1 })
    assert.same({ nil, "busy" }, { all:try_acquire { permits = 1 } })
    pause:extend(3)
    assert.same({ nil, "pause", 3 }, { all:try_acquire { pause = 1 } })
    assert.same({ nil, "cost" }, { all:try_acquire { rate = 2 } })
    rt.spawn(function () permits:acquire() end)
    settle()
    assert.same({ nil, "line" }, { all:try_acquire { permits = 1 } })
    assert.same({ granted = 2, rate = 1, busy = 1, pause = 1, cost = 1, line = 1 }, counted(all))
    assert.same({}, counted(rate))          -- nobody asked it by itself
    held:release()
    all:close()
    assert.same({ nil, "closed" }, { all:try_acquire { rate = 1 } })
    assert.equal(1, counted(all).closed)
    local closed = neap.hybrid { "closed", "10/s" }
    assert.same({ nil, "closed" }, { closed:try_acquire() })
    assert.same({ nil, "closed" }, { closed:acquire() })
    assert.same({ closed = 2 }, counted(closed))
  end)

  it("counts what an open breaker turns away", function ()
    local b = neap.breaker { failures = 1 }
    assert(b:try_acquire()):give "failure"
    assert.same({ nil, "open", 30 }, { b:try_acquire() })
    assert.same({ nil, "open", 30 }, { b:acquire() })
    assert.same({ granted = 1, open = 2, shed = 2 }, counted(b))
  end)

  it("counts how waits end", function ()
    local s = neap.semaphore(1)
    local held = assert(s:acquire())
    rt.spawn(function () s:acquire(1, 2) end)
    local second = rt.spawn(function () s:acquire() end)
    local third = rt.spawn(function () s:acquire():release() end)
    rt.advance(1)
    second:cancel()
    rt.advance(2)
    held:release()
    settle()
    assert.is_true(third.ended)
    assert.same({ granted = 2, waited = 1, expired = 1, cancelled = 1 }, counted(s))
    local wait = s:stats().wait
    assert.equal(4, wait.count)
    assert.is_true(math.abs(wait.sum - 6) < 1e-8)   -- they arrived within 3 ns
    assert.equal(4, wait.buckets[1].count + wait.buckets[2].count + wait.buckets[3].count
      + wait.buckets[4].count)
    assert(s:acquire())
    rt.spawn(function () s:acquire() end)
    settle()
    s:close()
    settle()
    assert.same({ granted = 3, waited = 1, expired = 1, cancelled = 1, closed = 1 }, counted(s))
  end)

  it("counts those for whom there is no room to wait", function ()
    neap.runtime.use(manual.new { waiters_max = 1 })
    local s = neap.semaphore(1)
    assert(s:acquire())
    neap.spawn(function () s:acquire() end)
    settle()
    assert.same({ nil, "queue" }, { s:acquire() })
    assert.same({ granted = 1, queue_full = 1 }, counted(s))
  end)

  it("counts a grant that came too late to be seen as granted, undone and cancelled", function ()
    local s = neap.semaphore(1)
    local held = assert(s:acquire())
    local task = rt.spawn(function () s:acquire() end)
    settle()
    held:release()
    task:cancel()
    settle()
    assert.same({ granted = 2, waited = 1, undone = 1, cancelled = 1 }, counted(s))
    assert.equal(1, s:available())
  end)

  it("counts what is settled, and which way", function ()
    local llm = neap.multi { input = "100/s", output = "100/s" }
    assert(llm:try_acquire { input = 10, output = 10 }):settle { input = 5, output = 20 }
    assert(llm:try_acquire(1)):settle(1)
    assert(llm:try_acquire(1)):settle(2)
    assert(llm:try_acquire(1)):settle(0)
    assert.same({ granted = 4, settled_up = 2, settled_down = 1, undone = 1 }, counted(llm))
  end)

  it("counts permits that are lost", function ()
    local s = neap.semaphore(2)
    assert(s:try_acquire())
    assert(s:try_acquire()):release()
    collectgarbage()
    collectgarbage()
    assert.same({ granted = 2, leaked = 1 }, counted(s))
  end)

  it("counts what guests say, and not what they take back", function ()
    local word, there = "quota", true
    local guest = {
      peek = function () return there or nil, word, 1 end,
      take = function () return nil, "quota", 1 end,
      give = function () end,
    }
    local h = neap.hybrid { "10/s", guest }
    assert.same({ nil, "quota", 1 }, { h:try_acquire() })
    assert.same({ granted = 1, undone = 1, other = 1 }, counted(h))
    there, word = false, "rate"
    assert.same({ nil, "rate", 1 }, { h:try_acquire() })
    assert.same({ granted = 1, undone = 1, other = 1, rate = 1 }, counted(h))
    assert.equal(10, h:available())
  end)

  it("keeps two of one name apart, and finds those that live", function ()
    local a, b = neap.throttle("1/s", { name = "api" }), neap.throttle("2/s", { name = "api" })
    assert(b:try_acquire())
    local seen, last = {}, 0
    for l in neap.limiters() do
      local s = l:stats()
      assert.is_true(s.id > last)
      last = s.id
      if s.name == "api" then seen[#seen + 1] = { l, s.granted } end
    end
    assert.same({ { a, 0 }, { b, 1 } }, seen)
    a, b, seen = nil, nil, nil   -- luacheck: ignore
    collectgarbage()
    collectgarbage()
    for l in neap.limiters() do assert.not_equal("api", l.name) end
  end)

  it("agrees with a list of waits, within an eighth", function ()
    math.randomseed(seed)
    local pause, waits = neap.pause(), {}
    for _ = 1, 300 do
      local wait = math.floor(10 ^ (math.random() * 8 + 3)) / 1e9
      pause:extend(wait)
      assert(pause:acquire())
      waits[#waits + 1] = wait
    end
    table.sort(waits)
    local s = pause:stats()
    assert.equal(300, s.waited)
    near(waits[150], s.wait.p50)
    near(waits[270], s.wait.p90)
    near(waits[297], s.wait.p99)
    assert.is_true(math.abs(waits[300] - s.wait.max) < 1e-9)
  end)
end)
