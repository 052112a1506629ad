local ffi = require "ffi"
local C = require "neap.engine"
local adaptive = require "neap.adaptive"
local hybrid = require "neap.hybrid"
local in_virtual_time = require "spec.in_virtual_time"
local multi = require "neap.multi"
local per_key = require "neap.per_key"
local semaphore = require "neap.semaphore"

local rt
local function begin(new) rt = new end

local function collect() for _ = 1, 4 do collectgarbage() end end

--- Each waits in a task of its own and writes down when it was let go; `permits` has what it got.
local function line(l, names, given, log, permits)
  for name in names:gmatch "." do
    rt.spawn(function ()
      local held, why = l:acquire(given)
      log[#log + 1] = ("%s %s %g"):format(name, held and "goes" or why, rt.now())
      if permits then permits[name] = held end
    end)
  end
  rt.advance(0)
end

local function take(l, n)
  local held = {}
  for i = 1, n do held[i] = assert(l:try_acquire()) end
  return held
end

local function fixed(answer) return function () return answer end end

describe("an adaptive limit", function ()
  in_virtual_time(begin)

  it("begins at its floor, lets as many in, and answers busy", function ()
    local l = adaptive { strategy = "aimd", floor = 2 }
    assert.same({ 2, 0, 2, 100 }, { l:limit(), l:in_flight(), l:floor(), l:ceiling() })
    local held = take(l, 2)
    assert.same({ nil, "busy" }, { l:try_acquire() })
    assert.same({ 2, 0, 100 }, { l:in_flight(), l:available(), l:capacity() })
    assert.equal("adaptive: needs 1 of 100, has 0; free when a permit comes back",
      tostring(l:why()))
    held[1]:give "ignore"
    assert.same({ 1, 2 }, { l:in_flight(), l:limit() })
    assert.equal("adaptive", tostring(l))
  end)

  it("moves as calls end, and says how often", function ()
    local l = adaptive { strategy = "aimd", initial = 8 }
    assert.same({ 0, 0 }, { l:changes() })
    rt.advance(1)
    local held = take(l, 8)
    held[1]:give()
    assert.same({ 9, 1 }, { l:limit(), (l:changes()) })
    held[2]:give()                                       -- 7 of 9: not reached
    held[3]:give "ignore"
    assert.same({ 9, 1 }, { l:limit(), (l:changes()) })
    rt.advance(1)
    assert.is_false(pcall(l.with, l, 1, error, "no"))    -- one that raises has failed
    assert.same({ 4, 2, 2 }, { l:limit(), l:changes() })
    assert.equal("yes", l:with({ cost = 0 }, fixed "yes"))
    assert.equal(5, l:in_flight())
  end)

  it("takes nothing back when it is lowered, and lets nobody in until it is free again", function ()
    local l = adaptive { strategy = "aimd", initial = 8 }
    local held = take(l, 8)
    held[1]:give "failure"
    assert.same({ 4, 7, -3 }, { l:limit(), l:in_flight(), l:available() })
    for i = 2, 4 do
      held[i]:give "ignore"
      assert.same({ nil, "busy" }, { l:try_acquire() })
    end
    held[5]:give "ignore"
    assert.truthy(l:try_acquire())
  end)

  it("serves those in line in the order they came, one for each place", function ()
    local l, log, permits = adaptive { strategy = "aimd", ceiling = 1 }, {}, {}
    local first = assert(l:try_acquire())
    line(l, "abc", nil, log, permits)
    assert.same({ nil, "line" }, { l:try_acquire() })
    rt.advance(1)
    first:give()
    rt.advance(1)
    assert.same({ "a goes 1" }, log)
    permits.a:give "failure"
    rt.advance(1)
    permits.b:give "ignore"
    rt.advance(1)
    assert.same({ "a goes 1", "b goes 2", "c goes 3" }, log)
    local stats = ffi.new "struct neap_engine_stats"
    C.neap_engine_stats(rt.engine, stats)
    assert.equal(3, tonumber(stats.wakeups))
  end)

  it("lets three go at the instant at which it rises by three", function ()
    local l, log = adaptive { strategy = { "aimd", increase = 3 }, initial = 2 }, {}
    local held = take(l, 2)
    line(l, "abcde", nil, log)
    rt.advance(1.5)
    held[1]:give "success"   -- its own place, and three more
    rt.advance(0)
    assert.same({ "a goes 1.5", "b goes 1.5", "c goes 1.5", "d goes 1.5" }, log)
    l:bounds(6, 6)
    rt.advance(0)
    assert.equal("e goes 1.5", log[5])
  end)

  it("cuts once per round trip, if told so", function ()
    for one_cut, limit in pairs { [true] = 32, [false] = 1 } do
      local l = adaptive { strategy = "aimd", initial = 64, one_cut = one_cut }
      local held = take(l, 8)
      rt.advance(0.1)
      for i = 1, 8 do held[i]:give "failure" end
      assert.equal(limit, l:limit())
      rt.advance(0.1)
      local next_one = assert(l:try_acquire())
      rt.advance(0.1)
      next_one:give "failure"   -- which was granted after the cut
      assert.equal(math.max(limit / 2, 1), l:limit())
    end
  end)

  it("does not grow while nobody needs it, if told so", function ()
    for grow_when_used, limit in pairs { [true] = 2, [false] = 100 } do
      local l = adaptive { strategy = "vegas", grow_when_used = grow_when_used }
      for _ = 1, 200 do l:with(1, rt.sleep, 0.01) end
      assert.equal(limit, l:limit())
    end
    local l = adaptive "vegas"
    for _ = 1, 20 do
      local held = take(l, l:limit())
      rt.advance(0.01)
      for _, permit in ipairs(held) do permit:give() end
    end
    assert.equal(21, l:limit())   -- one for each time it was full
    local held = take(l, 4)
    for _, permit in ipairs(held) do permit:give "failure" end
    assert.equal(10, l:limit())   -- and one cut for all
  end)

  it("forgets how fast a server once was", function ()
    for memory, limit in pairs { [math.huge] = 7, ["30s"] = 100 } do
      local l = adaptive { strategy = { "vegas", memory = memory }, initial = 20 }
      l:with(1, rt.sleep, 0.001)
      for _ = 1, 1000 do
        local held = take(l, l:limit())
        rt.advance(0.05)
        for _, permit in ipairs(held) do permit:give() end
      end
      assert.equal(limit, l:limit())
    end
  end)

  it("holds as many permits as a call costs, and lets a heavy one go alone", function ()
    local l = adaptive { strategy = "aimd", initial = 4, ceiling = 10 }
    local heavy = assert(l:try_acquire(3))
    assert.same({ nil, "busy" }, { l:try_acquire(2) })
    assert.same({ nil, "busy" }, { l:try_acquire(6) })
    assert.same({ nil, "cost" }, { l:try_acquire(11) })
    heavy:settle(1)
    assert.equal(1, l:in_flight())
    heavy:give "ignore"
    local alone = assert(l:try_acquire(6))
    assert.same({ nil, "busy" }, { l:try_acquire() })
    alone:give()
    assert.same({ 0, 5 }, { l:in_flight(), l:limit() })
  end)

  it("counts a slow success as a failure, if told how slow", function ()
    local l = adaptive { strategy = { "aimd", slow = "1s", decrease = 0.75 }, initial = 8 }
    l:with(1, rt.sleep, 1)
    assert.equal(8, l:limit())
    l:with(1, rt.sleep, 1.000000001)
    assert.equal(6, l:limit())
  end)

  it("hears of permits that are lost, as ignored or as failed", function ()
    for abandoned, limit in pairs { ignore = 8, failure = 4 } do
      local l = adaptive { strategy = "aimd", initial = 8, abandoned = abandoned }
      local api = hybrid { l, "100/s" }
      assert(api:try_acquire())
      assert.equal(1, l:in_flight())
      collect()
      assert.same({ 0, limit }, { l:in_flight(), l:limit() })
    end
  end)

  it("has other bounds when told so", function ()
    local l, log = adaptive { strategy = "aimd", floor = 2, ceiling = 8, initial = 8 }, {}
    l:bounds(0, 3)
    assert.same({ 1, 3, 3 }, { l:floor(), l:ceiling(), l:limit() })
    l:bounds(5, 4)
    assert.same({ 5, 5, 5, 2 }, { l:floor(), l:ceiling(), l:limit(), (l:changes()) })
    take(l, 5)
    line(l, "abc", 2, log)
    rt.spawn(function () log[#log + 1] = select(2, l:acquire(5)) end)
    rt.advance(0)
    l:bounds(1, 4)               -- 5 at once there will never be, but that is the last in line
    l:bounds(9, 9)
    rt.advance(1)
    assert.same({ "a goes 0", "b goes 0" }, log)
  end)

  it("tells who asks that it moved", function ()
    local l, log = adaptive { strategy = { "aimd", increase = 2 }, initial = 3, ceiling = 9 }, {}
    l.changed = function (self, from, to) log[#log + 1] = ("%s %d %d"):format(self, from, to) end
    local api = hybrid { calls = l }
    for _ = 1, 2 do
      local held = take(l, l:limit() - 1)
      api:with({ calls = 1 }, fixed())
      for _, permit in ipairs(held) do permit:give "ignore" end
    end
    api:try_acquire { calls = 1 }:give "failure"
    l:bounds(8, 8)
    assert.same({ "adaptive 3 5", "adaptive 5 7", "adaptive 7 3", "adaptive 3 8" }, log)
  end)
end)

describe("an adaptive limit in a composite", function ()
  in_virtual_time(begin)

  it("holds nothing of calls that others refuse", function ()
    local l = adaptive { strategy = "aimd", initial = 5 }
    local slots = semaphore(1)
    local api = hybrid { l, hybrid { slots }, "10/s" }
    local held = assert(slots:try_acquire())
    local was = ffi.string(l.leaf, ffi.sizeof(l.leaf))
    assert.same({ nil, "busy" }, { api:try_acquire() })
    assert.same({ nil, "timeout" }, { api:acquire { timeout = 0 } })
    assert.equal(was, ffi.string(l.leaf, ffi.sizeof(l.leaf)))
    held:release()
    assert.truthy(api:try_acquire())
    assert.equal(1, l:in_flight())
  end)

  it("learns from the permits of all of it", function ()
    local l = adaptive { strategy = "aimd", initial = 8 }
    local llm = multi { calls = l, tokens = "1000/s" }
    llm:try_acquire { calls = 1, tokens = 10 }:give "failure"
    assert.equal(4, l:limit())
    llm:try_acquire { tokens = 10 }:give "failure"    -- which was not charged there
    assert.equal(4, l:limit())
    local twice = hybrid { a = l, b = l }
    twice:try_acquire { a = 1, b = 2 }:give "failure"
    assert.same({ 2, 0 }, { l:limit(), l:in_flight() })
  end)

  it("may be kept by key", function ()
    local users = per_key(function ()
      return adaptive { strategy = "aimd", initial = 8, abandoned = "failure" }
    end)
    users:try_acquire "ann":give "failure"
    assert.same({ 4, 8 }, { users:available "ann", users:available "bob" })
    hybrid { users, "9/s" }:try_acquire { key = "ann" }:give "failure"
    assert.equal(2, users:available "ann")
    assert(users:try_acquire "bob")
    collect()
    assert.same({ 2, 4 }, { users:available "ann", users:available "bob" })
    assert.error_matches(function ()
      per_key(function () return adaptive { strategy = fixed(1) } end)
    end, "per_key: a strategy in Lua does not hear of calls by key")
  end)

  it("wakes those who wait for it elsewhere", function ()
    local l, log = adaptive { strategy = { "aimd", increase = 2 }, initial = 1 }, {}
    local held = assert(hybrid { l, "9/s" }:try_acquire())
    line(hybrid { l, semaphore(9) }, "ab", nil, log)
    line(l, "cd", nil, log)
    held:give()
    rt.advance(0)
    assert.same({ "a goes 0", "b goes 0", "c goes 0" }, log)
  end)
end)

describe("a strategy in Lua", function ()
  in_virtual_time(begin)

  it("is asked what the limit should be, call by call", function ()
    local asked = {}
    local l = adaptive {
      initial = 3, ceiling = 10,
      strategy = function (...)
        asked[#asked + 1] = { ... }
        return (...) + 1.5
      end,
    }
    local held = take(l, 2)
    rt.advance(0.25)
    held[1]:give()
    held[2]:give "ignore"
    l:try_acquire():give "failure"
    assert.same({ { 3, 2, "success", 0.25 }, { 4, 1, "failure", 0 } }, asked)
    assert.same({ 5, 0, 2 }, { l:limit(), l:in_flight(), (l:changes()) })
  end)

  it("cannot leave the bounds", function ()
    for answer, limit in pairs { [-math.huge] = 2, [0] = 2, [3.9] = 3, [1e300] = 9,
        [math.huge] = 9 } do
      local l = adaptive { strategy = fixed(answer), floor = 2, ceiling = 9, initial = 5 }
      l:try_acquire():give()
      assert.equal(limit, l:limit())
    end
  end)

  it("lets as many go at once as it says", function ()
    local l, log = adaptive { strategy = fixed(3) }, {}
    local held = assert(l:try_acquire())
    line(hybrid { l, "9/s" }, "abcd", nil, log)
    held:give()
    rt.advance(0)
    assert.same({ "a goes 0", "b goes 0", "c goes 0" }, log)
  end)

  it("changes nothing that was due before, however late that is looked at", function ()
    local l, permits = adaptive { strategy = fixed(3) }, {}
    local api = hybrid { l, "1/s" }
    api:try_acquire():give "ignore"
    line(api, "a", nil, {}, permits)
    local held = assert(l:try_acquire())
    local now_ns = rt.now_ns
    rt.now_ns = function () return 2000000000LL end   -- a token came at 1 s, and no place
    held:give()
    rt.now_ns = now_ns
    rt.advance(0)
    assert.equal(2000000000LL, permits.a.at)
  end)

  it("is asked by whatever it is in, once, if it was charged", function ()
    local count = 0
    local l = adaptive { strategy = function (limit) count = count + 1 return limit end,
      initial = 9 }
    local api = hybrid { hybrid { a = l, b = l }, rate = "10/s" }
    api:try_acquire { a = 1, b = 1, rate = 1 }:give()
    assert.equal(1, count)
    api:try_acquire { rate = 1 }:give()
    assert.equal(1, count)
    assert.equal(0, l:in_flight())
  end)

  it("loses nothing when it goes wrong", function ()
    for message, strategy in pairs {
      ["a limit expected, got nan; it stays at 4"] = fixed(0 / 0),
      ["a limit expected, got nil; it stays at 4"] = fixed(nil),
      ["a limit expected, got 5; it stays at 4"] = fixed "5",
      ["the strategy of mine: oh no"] = function () error("oh no", 0) end,
    } do
      local l, log = adaptive { strategy = strategy, initial = 4, name = "mine" }, {}
      local given = 0
      local guest = { peek = fixed(true), take = fixed(true),
        give = function () given = given + 1 end }
      local held = assert(hybrid { l, guest, "9/s" }:try_acquire(4))
      line(l, "a", nil, log)
      local ok, err = pcall(function () held:give() end)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):gsub("%-nan", "nan"):find(message, 1, true), err)
      assert.is_truthy(err:find("adaptive_spec.lua", 1, true), err)
      rt.advance(0)
      assert.same({ "a goes 0" }, log)
      assert.same({ 4, 1, 0 }, { l:limit(), given, (l:changes()) })
      assert.is_false(held:give())
    end
  end)

  it("is told of permits that are lost, and what goes wrong there is reported", function ()
    local reported
    rt.report = function (text) reported = text end
    local l = adaptive { strategy = fixed(3), initial = 9, abandoned = "failure" }
    assert(l:try_acquire())
    collect()
    assert.same({ 3, 0 }, { l:limit(), l:in_flight() })
    local bad = adaptive { strategy = fixed(nil), initial = 9, abandoned = "failure" }
    assert(bad:try_acquire())
    collect()
    assert.same({ 9, 0 }, { bad:limit(), bad:in_flight() })
    assert.is_truthy(reported:find("a limit expected, got nil", 1, true))
  end)
end)

describe("what an adaptive limit is not made of", function ()
  it("is a mistake that says what would be right", function ()
    for message, options in pairs {
      ["floor: a whole number from 0 to 2^53 expected, got -1"] = { floor = -1 },
      ["ceiling: a whole number from 0 to 2^53 expected, got 1.5"] = { ceiling = 1.5 },
      ["initial: a whole number from 0 to 2^53 expected, got nan"] = { initial = 0 / 0 },
      ["ceiling: a whole number from 0 to 2^53 expected, got inf"] = { ceiling = math.huge },
      ["floor: a whole number from 0 to 2^53 expected, got 3"] = { floor = "3" },
      ["option: flor is not known"] = { flor = 1 },
      ["(did you mean 'floor'?)"] = { flor = 1 },
      ["preset: vega is not known: there are aimd, gradient, vegas (did you mean 'vegas'?)"] =
        "vega",
      ["strategy: nil is not known"] = { strategy = {} },
      ["strategy: aimed is not known"] = { strategy = "aimed" },
      ["strategy vegas: alhpa is not known"] = { strategy = { "vegas", alhpa = 1 } },
      ["(did you mean 'alpha'?)"] = { strategy = { "vegas", alhpa = 1 } },
      ["strategy aimd: alpha is not known"] = { strategy = { "aimd", alpha = 1 } },
      ["strategy aimd: kind is not known"] = { strategy = { "aimd", kind = 1 } },
      ["strategy aimd: 2 is not known"] = { strategy = { "aimd", "vegas" } },
      ["increase: a whole number from 0 to 2^53 expected, got -2"] =
        { strategy = { "aimd", increase = -2 } },
      ["decrease: a number expected, got nan"] = { strategy = { "aimd", decrease = 0 / 0 } },
      ["decrease: a number expected, got half"] = { strategy = { "aimd", decrease = "half" } },
      ["a number of the strategy is out of range"] = { strategy = { "aimd", smoothing = 0 } },
      ["memory: seconds from 0 expected, got -1"] = { strategy = { "vegas", memory = -1 } },
      ["memory: more than 0 expected"] = { strategy = { "vegas", memory = 0 } },
      ["log10: true or false expected, got 1"] = { strategy = { "vegas", log10 = 1 } },
      ["one_cut: true or false expected, got yes"] = { one_cut = "yes" },
      ["abandoned: \"ignore\" or \"failure\" expected, got success"] = { abandoned = "success" },
      ["name: a text expected, got 1"] = { name = 1 },
      ["a preset or a table of options expected, got 7"] = 7,
    } do
      local ok, err = pcall(function () adaptive(options) end)
      assert.is_false(ok, message)
      err = err:gsub("%-nan", "nan")
      assert.is_truthy(err:find(message, 1, true), ("%s\nis not in\n%s"):format(message, err))
      assert.is_truthy(err:find("adaptive_spec.lua", 1, true), "blames someone else: " .. err)
    end
    local l = adaptive()
    assert.error_matches(function () l:bounds(1.5, 2) end, "adaptive: floor: a whole number")
    assert.error_matches(function () l:bounds(1) end, "adaptive: ceiling: a whole number .* nil")
    assert.error_matches(function () l:try_acquire():give "well" end, "outcome: ")
  end)
end)
