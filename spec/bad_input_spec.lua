--- Bad input: one clear error, blamed on the line that said it, and nothing is charged anywhere.
local ffi = require "ffi"
local C = require "neap.engine"
local in_virtual_time = require "spec.in_virtual_time"
local neap = require "neap"

local NAN, HUGE = 0 / 0, math.huge
local function idle() end

-- What is no cost. Only numbers from 0 to 2^53 without a fraction are.
local NO_COST = { ["below 0"] = -1, ["a fraction"] = 1.5, ["not a number"] = NAN,
  ["infinite"] = HUGE, ["below everything"] = -HUGE, ["beyond 2^53"] = 2 ^ 60, ["a text"] = "3",
  ["a boolean"] = true, ["a function"] = idle, ["a cdata"] = 5LL }

-- Calls from a line of its own, so that it is known whom an error has to blame.
local call = loadstring("local fn, a, b, c, d = ...\nlocal x = fn(a, b, c, d)\nreturn x", "=caller")

--- It is refused, by an error with this in it, whose place is the call.
local function refused(what, fragment, fn, ...)
  local ok, message = pcall(call, fn, ...)
  assert.is_false(ok, what .. ": accepted")
  assert.equal("string", type(message), what)
  assert.truthy(message:find("^caller:2: "), what .. ": blamed on another line: " .. message)
  assert.truthy(message:find(fragment, 1, true), ("%s: %q does not say %q"):format(what, message,
    fragment))
end

--- What the limits below remember, byte for byte.
local function memory_of(...)
  local words = {}
  for _, limiter in ipairs { ... } do
    for _, part in ipairs(limiter.terms.parts) do
      words[#words + 1] = ffi.string(part.leaf, ffi.sizeof(part.leaf))
      local held = part.memory and part.memory.log
      if held then words[#words + 1] = ffi.string(held, ffi.sizeof(held)) end
    end
    local s = limiter:stats()
    words[#words + 1] = ("%d %d"):format(s.granted, s.waited)
    if limiter.len then words[#words + 1] = limiter:len() end
  end
  return words
end

describe("bad input", function ()
  local rt

  in_virtual_time(function (new) rt = new end)

  -- One of each kind that is asked without keys, and how a cost is said to it.
  local function kinds()
    local quota = { peek = function () return true end, take = function () return true end,
      give = function () end }
    return {
      throttle = neap.throttle "10/s", sliding = neap.throttle "10/s sliding",
      semaphore = neap.semaphore(10), overdrawn = neap.semaphore(10, { overdraw = true }),
      pause = neap.pause(), breaker = neap.breaker(), adaptive = neap.adaptive { initial = 10 },
      over = neap.breaker { over = neap.throttle "10/s" },
      hybrid = neap.hybrid { "10/s", neap.hybrid { "9/s sliding", neap.semaphore(9) } },
      guests = neap.hybrid { "10/s", quota }, window = neap.backoff_window():of "x",
      multi = neap.multi { a = "10/s", b = neap.hybrid { "5/s", "4 in flight" } },
    }
  end

  it("in costs is refused by every verb of every kind, and charges nobody", function ()
    for kind, l in pairs(kinds()) do
      local untouched = memory_of(l)
      for what, n in pairs(NO_COST) do
        for _, verb in ipairs { "try_acquire", "peek", "acquire", "why" } do
          local name = ("%s:%s with %s"):format(kind, verb, what)
          refused(name, "expected, got", l[verb], l, n)
          refused(name .. " in a table", "expected, got", l[verb], l, { cost = n })
          if kind == "multi" then
            refused(name .. " by name", "expected, got", l[verb], l, { b = 1, a = n })
            refused(name .. " in a list", "expected, got", l[verb], l, { { "b", 1 }, { "a", n } })
          end
        end
        refused(kind .. ":with", "expected, got", l.with, l, n, idle)
      end
      refused(kind .. ":with no function", "a function expected", l.with, l, 1, 5)
      refused(kind .. ": a name", "cost \"tokns\" is not known", l.try_acquire, l, { tokns = 1 })
      assert.same(untouched, memory_of(l), kind)
    end
  end)

  it("in costs and keys is refused where limits are kept by key", function ()
    local users = neap.per_key("10/s", { most = 2 })
    local slides = neap.per_key({ "10/s sliding", "3 in flight" }, { most = 2 })
    local made = neap.per_key(function () return neap.hybrid { "10/s", "3 in flight" } end)
    local l = neap.layered { global = { "10/s", "3 in flight" }, user = users, host = "5/s" }
    local no_keys = { NAN, HUGE, 1.5, 2 ^ 60, true, idle, {}, 5LL, ("x"):rep(65537),
      ("x"):rep(2 ^ 20) }
    for _, p in ipairs { users, slides, made } do
      local untouched = memory_of(p)
      for _, verb in ipairs { "try_acquire", "peek", "acquire", "why" } do
        for what, n in pairs(NO_COST) do refused(what, "expected, got", p[verb], p, "ann", n) end
        for _, key in ipairs(no_keys) do refused(verb, "key: a key", p[verb], p, key) end
        refused(verb, "a key expected, got nil", p[verb], p, nil)
      end
      refused("of and forget", "key", p.forget, p, ("x"):rep(2 ^ 20))
      assert.same(untouched, memory_of(p))
    end
    local untouched = memory_of(l, users)
    for _, verb in ipairs { "try_acquire", "peek", "acquire", "why" } do
      for _, key in ipairs(no_keys) do
        refused(verb, "user: a key", l[verb], l, { user = key, host = "x" })
      end
      refused(verb, "host: a key expected", l[verb], l, { user = "ann" })
      refused(verb, "a key expected", l[verb], l)
      refused(verb, "cost \"usr\" is not known", l[verb], l,
        { usr = "ann", user = "ann", host = "x" })
    end
    assert.same(untouched, memory_of(l, users))
    assert(users:try_acquire(("x"):rep(65536)))
  end)

  it("about waiting is refused, and nobody waits", function ()
    local l = neap.throttle "1/s"
    assert(l:try_acquire())
    local untouched = memory_of(l)
    for what, wait in pairs { ["below 0"] = -1, ["not a number"] = NAN, ["below all"] = -HUGE,
        ["a boolean"] = true, ["a function"] = idle, ["no duration"] = "soon" } do
      refused("timeout " .. what, "", l.acquire, l, { timeout = wait })
      refused("wait " .. what, "", l.acquire, l, 1, wait)
    end
    for _, at in ipairs { NAN, "soon", true, idle } do
      refused("deadline", "deadline: an instant expected", l.acquire, l, { deadline = at })
    end
    refused("an unknown word", "timeout or deadline expected", l.acquire, l, 1, { timout = 1 })
    refused("twice", "said twice", l.acquire, l, { cost = 1, timeout = 1 }, 2)
    refused("try", "only acquire waits", l.try_acquire, l, { timeout = 1 })
    assert.same(untouched, memory_of(l))
    assert.equal(0, rt.now())
  end)

  it("in limits is refused by every constructor", function ()
    local no_limits = { "-1/s", "1.5/s", "nan/s", "inf/s", "1e999/s", "0/s", "1/0s", "1/-1s", "",
      "10", ("9"):rep(400) .. "/s", "10/s burst 0", "10/s burst -1", "1/s burst 1.5", "0 in flight",
      "-3 in flight", NAN, -1, HUGE, true, idle, 5LL }
    for _, limit in ipairs(no_limits) do
      local what = tostring(limit):sub(1, 20)
      refused(what, "throttle: ", neap.throttle, limit)
      refused(what, "hybrid: limit 1: ", neap.hybrid, { limit })
      refused(what, "multi: a: ", neap.multi, { a = limit })
      refused(what, "per_key: ", neap.per_key, limit)
      refused(what, "layered: ", neap.layered, { user = limit })
      refused(what, "layered: ", neap.layered, { global = limit })
      if limit ~= "10" then refused(what, "semaphore: ", neap.semaphore, limit) end
    end
    refused("too fast", "does not fit", neap.throttle, "9000000000000000/ms")
    for what, n in pairs(NO_COST) do
      if n ~= -1 then refused(what, "semaphore: ", neap.semaphore, n) end
      refused(what, "slots: a whole number", neap.slots().of, neap.slots(), "x", n)
      refused(what, "initial", neap.throttle, "1/s", { initial = n })
      refused(what, "log: a whole number", neap.throttle, "5/s sliding", { log = n })
      if n ~= HUGE then refused(what, "most: a whole number", neap.per_key, "1/s", { most = n }) end
      refused(what, "most: a whole number", neap.backoff_window, { most = n })
      refused(what, "most: a whole number", neap.breakers, { most = n })
      for _, name in ipairs { "failures", "trials", "required" } do
        refused(what, "breaker: " .. name, neap.breaker, { [name] = n })
      end
      for _, name in ipairs { "floor", "ceiling", "initial" } do
        refused(what, "adaptive: " .. name, neap.adaptive, { [name] = n })
      end
    end
    for _, ratio in ipairs { NAN, -0.1, 1.1, HUGE, "half" } do
      refused("ratio", "breaker: ratio", neap.breaker, { ratio = ratio, of = 5 })
    end
  end)

  it("in options is refused, and the word that was meant is named", function ()
    local MEANT = {
      throttle = { "1/s", "initail", "initial" }, semaphore = { 1, "overdrow", "overdraw" },
      hybrid = { {}, "nam", "name" }, multi = { {}, "lenent", "lenient" },
      per_key = { "1/s", "losless", "lossless" }, layered = { {}, "nme", "name" },
    }
    for kind, row in pairs(MEANT) do
      refused(kind, ("'%s' is not known (did you mean '%s'?)"):format(row[2], row[3]), neap[kind],
        row[1], { [row[2]] = true })
      refused(kind, "options: a table expected, got number", neap[kind], row[1], 5)
      refused(kind, "name: a text expected", neap[kind], row[1], { name = 5 })
      refused(kind, "name: a text expected", neap[kind], row[1], { name = "" })
    end
    for kind, row in pairs { pause = { "nam", "name" }, backoff_window = { "mst", "most" },
        breaker = { "failure", "failures" }, breakers = { "mots", "most" } } do
      refused(kind, ("'%s' is not known (did you mean '%s'?)"):format(row[1], row[2]), neap[kind],
        { [row[1]] = 1 })
      refused(kind, "options: a table expected", neap[kind], 5)
    end
    refused("adaptive", "flor is not known", neap.adaptive, { flor = 1 })
    refused("lossless", "lossless: true or false", neap.per_key, "1/s", { lossless = "yes" })
  end)

  it("in permits is refused, and they stay what they were", function ()
    for kind, l in pairs(kinds()) do
      local held = assert(l:try_acquire())
      local untouched = memory_of(l)
      for what, n in pairs(NO_COST) do
        refused(kind .. ":settle " .. what, "expected, got", held.settle, held, n)
        refused(kind .. ":settle cost " .. what, "expected", held.settle, held, { cost = n })
        refused(kind .. ":give " .. what, "outcome: ", held.give, held, n)
      end
      refused(kind .. ":settle a name", "is not known", held.settle, held, { tokns = 1 })
      assert.same(untouched, memory_of(l), kind)
      assert.is_true(held:release())
      assert.is_false(held:release())
      assert.is_false(held:settle(1))
    end
  end)

  it("in what changes a limit is refused, and it stays as it was", function ()
    local t, s = neap.throttle "10/s", neap.semaphore(5)
    local p, pause = neap.per_key "10/s", neap.pause()
    local untouched = memory_of(t, s, p, pause)
    for _, limit in ipairs { "-1/s", "x", NAN, -1, true, {}, "3/s sliding" } do
      refused("throttle", "", t.reconfigure, t, limit)
      refused("semaphore", "", s.reconfigure, s, limit)
    end
    refused("mode", "\"keep\", \"balance\"", t.reconfigure, t, "5/s", "kep")
    refused("mode", "\"keep\"", s.reconfigure, s, 3, "reset")
    for what, n in pairs(NO_COST) do refused(what, "refund", t.refund, t, n) end
    for _, wait in ipairs { -1, NAN, "soon", true } do
      refused("extend", "", pause.extend, pause, wait)
    end
    assert.same(untouched, memory_of(t, s, p, pause))
  end)

  it("is no composite: nothing in it is no limit, and it cannot contain itself", function ()
    for _, empty in ipairs { neap.hybrid {}, neap.multi {}, neap.layered {},
        neap.hybrid { neap.hybrid {}, neap.multi {} } } do
      assert(empty:try_acquire())
      assert.equal(HUGE, empty:available())
    end
    refused("per_key", "at least one limit", neap.per_key, {})
    local list = {}
    list[1] = list
    refused("a list in itself", "a table that has no peek and take", neap.hybrid, list)
    refused("a multi in itself", "multi: a: ", neap.multi, { a = list })
    local growing = { "5/s" }
    local h = neap.hybrid(growing)
    growing[2] = h                     -- it was read when it was built
    assert.equal(5, h:available())
    local users
    users = neap.per_key(function (key)
      return key == "loop" and users or neap.throttle "1/s"
    end)
    assert.has_error(function () users:try_acquire "loop" end,
      "per_key: the function has to make limiters of one form, for any key")
    assert(users:try_acquire "ann")
    refused("a maker of makers", "one limit per key in another", neap.per_key, function ()
      return neap.per_key "1/s"
    end)
    refused("nothing made", "has to make a limiter", neap.per_key, function () end)

    local round, rate = nil, neap.throttle "5/s"
    local guest = {
      peek = function (_, n) return round:peek(n) end,
      take = function (_, n) return round:try_acquire(n) and true end, give = function () end,
    }
    round = neap.hybrid({ rate, guest }, { name = "round" })
    for _, verb in ipairs { "try_acquire", "peek", "acquire", "why" } do
      assert.has_error(function () round[verb](round) end,
        "round: a guest of it asks it, or waits, while it is asked itself")
    end
    assert.equal(5, rate:available())
  end)

  it("is no use of what is closed: it answers, and takes back what is out", function ()
    for kind, l in pairs(kinds()) do
      local held = assert(l:try_acquire())
      getmetatable(l).__index.close(l)
      if kind ~= "breaker" and kind ~= "over" then   -- theirs says another thing
        assert.same({ nil, "closed" }, { l:try_acquire() }, kind)
        assert.same({ nil, "closed" }, { l:acquire { timeout = 1 } }, kind)
        assert.same({ nil, "closed" }, { l:peek() }, kind)
        assert.equal("closed", l:why().word, kind)
        refused(kind, "expected, got", l.try_acquire, l, -1)
      end
      assert.is_true(held:give "failure", kind)
    end
  end)

  -- ---- limiters written in Lua ----------------------------------------------------------------

  --- Three that keep count; the middle one throws in `method` while `state.broken`.
  local function guests(method, state)
    local list = {}
    for i = 1, 3 do
      local g = { out = 0 }
      local function may_throw(which)
        if i == 2 and state.broken and which == method then error("boom", 0) end
      end
      function g.peek() may_throw "peek" return true end
      function g.take(_, n) may_throw "take" g.out = g.out + n return true end
      function g.give(_, n) may_throw "give" g.out = g.out - n end
      function g.settle(_, n, used) may_throw "settle" g.out = g.out + used - n end
      list[i] = g
    end
    return list
  end

  local COMPOSITES = {
    hybrid = function (rate, permits, g) return neap.hybrid { rate, g[1], g[2], permits, g[3] } end,
    nested = function (rate, permits, g)
      local deep = neap.hybrid { neap.hybrid { g[2], permits } }
      return neap.hybrid { neap.hybrid { rate, g[1] }, deep, g[3] }
    end,
    multi = function (rate, permits, g)
      return neap.multi { a = neap.hybrid { rate, g[1] }, b = g[2], c = g[3], d = permits }
    end,
    layered = function (rate, permits, g)
      return neap.layered { global = neap.hybrid { rate, permits, g[1], g[2], g[3] } }
    end,
  }

  for composite, build in pairs(COMPOSITES) do
    it("from a Lua limiter that throws loses nothing: " .. composite, function ()
      for _, method in ipairs { "peek", "take", "give", "settle" } do
        local state = { broken = true }
        local g = guests(method, state)
        local rate, permits = neap.throttle "10/s", neap.semaphore(10)
        local l = build(rate, permits, g)
        local function books()
          return { rate:available(), permits:in_use(), g[1].out, g[2].out, g[3].out }
        end
        if method == "peek" or method == "take" then
          for _, verb in ipairs { "try_acquire", "acquire" } do
            assert.has_error(function () l[verb](l, 2) end, "boom")
            assert.same({ 10, 0, 0, 0, 0 }, books())
          end
          state.broken = false
          assert(l:try_acquire(2)):release()
          assert.same({ 8, 0, 0, 0, 0 }, books())
        elseif method == "give" then
          local held = assert(l:try_acquire(2))
          assert.has_error(function () held:release() end, "boom")
          assert.same({ 8, 0, 0, 2, 0 }, books())   -- the one that threw keeps what it has
          assert.is_false(held:release())
        else
          local held = assert(l:try_acquire(2))
          assert.has_error(function () held:settle(1) end, "boom")
          assert.same({ 9, 1, 1, 2, 1 }, books())
          assert.is_true(held:release())
          assert.same({ 9, 0, 0, 1, 0 }, books())
        end
      end
    end)
  end

  it("from a Lua limiter that throws while others are put back loses nothing either", function ()
    local rate = neap.throttle "10/s"
    local function counted(broken)
      local g = { out = 0 }
      function g.peek() return true end
      function g.take(_, n) g.out = g.out + n return true end
      function g.give(_, n)
        if broken then error("boom", 0) end
        g.out = g.out - n
      end
      return g
    end
    local first, second = counted(), counted(true)
    local no = { peek = function () return true end, take = function () return nil, "quota" end,
      give = function () end }
    local l = neap.hybrid { rate, first, second, no }
    assert.has_error(function () l:try_acquire(3) end, "boom")
    assert.same({ 10, 0, 3 }, { rate:available(), first.out, second.out })
  end)

  it("from a Lua limiter is refused where it cannot be one", function ()
    refused("two that cannot undo", "have neither settle nor give", neap.hybrid, {
      { peek = idle, take = idle }, { peek = idle, take = idle },
    })
    refused("half a guest", "a table that has no peek and take", neap.hybrid, { { peek = idle } })
    refused("by key", "knows no keys", neap.per_key, function ()
      return { peek = idle, take = idle }
    end)
    refused("by key in a hybrid", "knows no keys", neap.per_key, function ()
      return neap.hybrid { { peek = idle, take = idle } }
    end)
    local kind = { kind = "mine", peek = function () return true end,
      take = function () return true end }
    assert(neap.hybrid { kind }:try_acquire())
    assert(neap.layered { global = kind, user = "5/s" }:acquire { user = "ann", timeout = 1 })
  end)

  it("gives a lost permit's part back to the Lua limiters, too, in the next round", function ()
    local g = guests("none", {})[1]
    local l = neap.hybrid { "10/s", g }
    assert(l:try_acquire(4))
    collectgarbage()
    collectgarbage()
    assert.equal(4, g.out)
    rt.turn(0)
    assert.equal(0, g.out)
    assert.equal(1, l:stats().leaked)
  end)

  it("about time never ends a process: for ever is longer than any clock", function ()
    rt.spawn(function () neap.sleep(HUGE) end)
    local pause = neap.pause()
    pause:extend(HUGE)
    local task = rt.spawn(function () return pause:acquire() end)
    rt.advance(1e9)
    assert.equal(1e9, rt.now())
    assert.has_error(function () rt.advance_to(C.neap_horizon) end)
    assert.is_nil(task.ended)
    task:cancel()
    refused("sleep", "a duration", neap.sleep, NAN)
    refused("sleep", "a duration", neap.sleep, {})
  end)
end)
