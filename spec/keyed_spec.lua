--- Keyed: one limit for every key, as the engine sees it. What users write is in per_key_spec.lua.
local ffi = require "ffi"
local C = require "neap.engine"
local bare = require "spec.bare"

local NEVER = C.neap_never
local STATUS, outcome, permits, rate = bare.STATUS, bare.outcome, bare.permits, bare.rate
local SECRET = ffi.new("uint8_t[16]", { 1, 2, 3 })

local answer, completion = ffi.new "struct neap_answer", ffi.new "struct neap_completion[1]"

local function keyed(like, most, full)
  local k = ffi.gc(C.neap_keyed_open(like, most or 1000, full or C.NEAP_REFUSE, 0, SECRET),
    C.neap_keyed_close)
  assert(k ~= nil)
  local l = ffi.new("struct neap_limiter", { kind = C.NEAP_KEYED })
  l.as.keyed = k
  return l, k
end

--- Terms are { limiter, key index }; each costs the same.
local function all(...)
  local parts = { ... }
  local terms = ffi.new("struct neap_term[?]", #parts)
  for i, part in ipairs(parts) do terms[i - 1] = { part[1], 1, 0, part[2] or 0 } end
  local a = ffi.new "struct neap_all"
  assert.equal(0, C.neap_all_init(a, terms, #parts))
  return { c = a, terms = terms, keep = parts }
end

local function request(a, keys, cost, deadline)
  local r = ffi.new("struct neap_request", { all = a.c, deadline = deadline or NEVER })
  r.cost[0] = cost or 1
  for i, key in ipairs(keys) do r.key[i - 1] = key end
  return r
end

local Story = {}
Story.__index = Story

local function story()
  local engine = ffi.gc(C.neap_engine_open(1000, 0), C.neap_engine_close)
  return setmetatable({ engine = engine, name = {}, ticket = {} }, Story)
end

function Story:try(now, a, keys, cost)
  C.neap_engine_try(self.engine, request(a, keys, cost), now, answer)
  return outcome(answer)
end

function Story:acquire(who, now, a, keys, cost, deadline)
  local r = request(a, keys, cost, deadline)
  assert.equal(0, C.neap_engine_acquire(self.engine, r, now, answer))
  self.name[tonumber(answer.ticket)], self.ticket[who] = who, answer.ticket
  return outcome(answer)
end

function Story:give(now, a, keys, cost)
  C.neap_engine_give(self.engine, request(a, keys, cost), C.NEAP_SUCCESS, now, now)
end

function Story:by(now)
  C.neap_engine_advance(self.engine, now)
  assert.equal(0, C.neap_engine_check(self.engine))
  local seen = {}
  while C.neap_engine_drain(self.engine, completion, 1) == 1 do
    local c = completion[0]
    seen[#seen + 1] = { self.name[tonumber(c.ticket)], STATUS[c.status], tonumber(c.at) }
  end
  return seen
end

describe("keyed", function ()
  it("gives every key a limit of its own", function ()
    local s, api = story(), all { (keyed(rate(1, 1000, 2))) }
    assert.same({ "granted", 0 }, { s:try(0, api, { 7 }, 2) })
    assert.same({ "refused", 1000 }, { s:try(0, api, { 7 }) })
    assert.same({ "granted", 0 }, { s:try(0, api, { 8 }, 2) })
    assert.equal("never", (s:try(0, api, { 9 }, 3)))
    assert.same({ "granted", 1000 }, { s:try(1000, api, { 7 }) })
  end)

  it("remembers nothing of a key that time has refilled, or that was refused", function ()
    local l, k = keyed(rate(1, 1000, 2))
    local s, api = story(), all { l }
    s:try(0, api, { 7 }, 2)
    s:try(0, api, { 8 }, 3)
    assert.equal(1LL, C.neap_keyed_count(k, 0))
    assert.equal(1LL, C.neap_keyed_count(k, 1999))
    assert.equal(0LL, C.neap_keyed_count(k, 2000))
  end)

  it("has a line for every key, in order of arrival, and nobody overtakes there", function ()
    local s, api = story(), all { (keyed(rate(1, 1000, 1))) }
    s:try(0, api, { 7 })
    s:try(0, api, { 8 })
    assert.same({ "waits", 1000 }, { s:acquire("a", 0, api, { 7 }) })
    assert.same({ "waits", 2000 }, { s:acquire("b", 0, api, { 7 }) })
    assert.same({ "waits", 1000 }, { s:acquire("c", 0, api, { 8 }) })
    assert.equal("granted", (s:try(0, api, { 9 })))
    assert.same({ { "a", "granted", 1000 }, { "c", "granted", 1000 } }, s:by(1500))
    assert.equal("refused", (s:try(1500, api, { 7 })))
    assert.same({ { "b", "granted", 2000 } }, s:by(2000))
    assert.equal("refused", (s:try(2999, api, { 7 })))
    assert.equal("granted", (s:try(3000, api, { 7 })))
  end)

  it("keeps permits by key, and a give wakes those of that key", function ()
    local s, api = story(), all { (keyed(permits(1))) }
    s:try(0, api, { 7 })
    s:try(0, api, { 8 })
    assert.same({ "waits", "on give" }, { s:acquire("a", 0, api, { 7 }) })
    assert.same({ "waits", "on give" }, { s:acquire("b", 0, api, { 8 }) })
    s:give(10, api, { 8 })
    assert.same({ { "b", "granted", 10 } }, s:by(10))
    s:give(20, api, { 7 })
    assert.same({ { "a", "granted", 20 } }, s:by(20))
    s:give(30, api, { 7 })
    s:give(30, api, { 8 })
    assert.equal("granted", (s:try(30, api, { 7 })))
  end)

  it("takes from a global limit, a key's and another kind of key's, or from none", function ()
    local users, paths = keyed(rate(1, 1000, 1)), (keyed(rate(1, 500, 1)))
    local top = rate(1, 1, 100)
    local s, api = story(), all({ top }, { users, 0 }, { paths, 1 })
    assert.equal("granted", (s:try(0, api, { 1, 1 })))
    assert.same({ "refused", 500 }, { s:try(0, api, { 2, 1 }) })
    assert.same({ "refused", 1000 }, { s:try(0, api, { 1, 2 }) })
    assert.equal("granted", (s:try(0, api, { 2, 2 })))
    assert.equal(98LL, C.neap_gcra_available(top.as.gcra, 0))
    assert.same({ "waits", 1000 }, { s:acquire("a", 0, api, { 1, 1 }) })
    assert.same({ "waits", 500 }, { s:acquire("b", 0, api, { 3, 1 }) })
    assert.same({ { "b", "granted", 500 }, { "a", "granted", 1000 } }, s:by(1000))
  end)

  it("counts what is settled, and what was given back to a key that is forgotten is nothing",
    function ()
      local l, k = keyed(rate(1, 1000, 5))
      local s, api = story(), all { l }
      local look = ffi.new "struct neap_limiter"
      local function available(key, now)
        assert.equal(0, C.neap_keyed_look(k, key, now, look))
        return tonumber(C.neap_limiter_available(look, now))
      end
      s:try(0, api, { 7 }, 4)
      local used = ffi.new("int64_t[8]", { 2 })
      C.neap_engine_settle(s.engine, request(api, { 7 }, 4), used, 0, 0)
      assert.equal(3, available(7, 0))
      used[0] = 9
      C.neap_engine_settle(s.engine, request(api, { 8 }, 2), used, 0, 0)  -- seen for the first time
      assert.equal(-2, available(8, 0))
      C.neap_keyed_forget(k, 8)
      assert.equal(5, available(8, 0))
      used[0] = 0
      C.neap_engine_settle(s.engine, request(api, { 8 }, 2), used, 0, 0)
      assert.equal(5, available(8, 0))

      local slots, places = keyed(permits(2))
      local calls = all { slots }
      s:try(0, calls, { 7 }, 2)
      C.neap_keyed_forget(places, 7)
      s:give(0, calls, { 7 }, 2)
      assert.equal(0LL, C.neap_keyed_count(places, 0))
      assert.equal("granted", (s:try(0, calls, { 7 }, 2)))
    end)

  it("lets a key have a limiter of its own, and have it no more", function ()
    local l, k = keyed(rate(1, 1000, 1))
    local s, api, vip = story(), all { l }, rate(1, 1000, 3)
    assert.equal(0, C.neap_keyed_set(k, 7, vip))
    assert.same({ "granted", 0 }, { s:try(0, api, { 7 }, 3) })
    assert.same({ "waits", 1000 }, { s:acquire("a", 0, api, { 7 }) })
    C.neap_gcra_fill(vip.as.gcra, 1, 10)
    C.neap_engine_touch(s.engine, vip, 10)
    assert.same({ { "a", "granted", 10 } }, s:by(10))
    s:acquire("b", 10, api, { 7 })
    assert.equal(0, C.neap_keyed_set(k, 7, nil))
    C.neap_engine_touch(s.engine, l, 20)
    C.neap_engine_touch(s.engine, vip, 20)
    assert.same({ { "b", "granted", 20 } }, s:by(20))   -- as any other key, which is new
    assert.equal("never", (s:try(20, api, { 7 }, 2)))
  end)

  it("turns away keys that have no limiter when there is none for all", function ()
    local l, k = keyed(nil)
    local s, api, own = story(), all { l }, permits(1)
    assert.same({ "shed", "on give" }, { s:try(0, api, { 7 }) })
    assert.same({ "shed", "on give" }, { s:acquire("a", 0, api, { 7 }) })
    C.neap_keyed_set(k, 7, own)
    assert.equal("granted", (s:try(0, api, { 7 })))
    assert.equal("waits", (s:acquire("b", 0, api, { 7 })))
    C.neap_keyed_set(k, 7, nil)
    C.neap_engine_touch(s.engine, own, 10)
    assert.same({ { "b", "shed", 10 } }, s:by(10))
  end)

  it("refuses an all with terms of one keyed limiter for two keys", function ()
    local l = keyed(rate(1, 1000, 1))
    local terms = ffi.new("struct neap_term[2]", { { l, 1, 0, 0 }, { l, 1, 1, 1 } })
    local a = ffi.new "struct neap_all"
    assert.equal(C.NEAP_ERANGE, C.neap_all_init(a, terms, 2))
    terms[1].key = 0
    assert.equal(0, C.neap_all_init(a, terms, 2))
  end)

  it("asks nothing of a table that is full for who pays nothing", function ()
    local s, api = story(), all { (keyed(rate(1, 1000, 1), 1)) }
    assert.equal("granted", (s:try(0, api, { 7 })))
    assert.equal("shed", (s:try(0, api, { 8 })))
    assert.equal("granted", (s:try(0, api, { 8 }, 0)))
  end)

  it("settles what is on its way to another limit", function ()
    local l, k = keyed(rate(1, 1000, 10))
    local s, api, look = story(), all { l }, ffi.new "struct neap_limiter"
    for key = 1, 2 do s:try(0, api, { key }, 5) end
    assert.equal(0, C.neap_keyed_change(k, rate(1, 900, 10), C.NEAP_KEEP_SPENT, 0))
    for key, used in ipairs { 2, 9 } do
      local costs = ffi.new("int64_t[8]", { used })
      C.neap_engine_settle(s.engine, request(api, { key }, 5), costs, 0, 0)
      assert.equal("granted", (s:try(0, api, { 3 })))   -- others carry it over, too
      assert.equal(0, C.neap_keyed_look(k, key, 0, look))
      assert.equal(10 - used, tonumber(C.neap_limiter_available(look, 0)))
    end
  end)

  it("asks those who share a limiter anew, when it is touched", function ()
    local l, k = keyed(rate(1, 1000, 1), 1, C.NEAP_SHARED)
    local s, api = story(), all { l }
    for key = 1, 2 do assert.equal("granted", (s:try(0, api, { key }))) end
    assert.equal("waits", (s:acquire("a", 0, api, { 3 })))
    assert.equal(0, C.neap_keyed_change(k, rate(1, 1000, 1), C.NEAP_KEEP_NOTHING, 10))
    C.neap_engine_touch(s.engine, l, 10)
    assert.same({ { "a", "granted", 10 } }, s:by(10))
  end)

  it("holds a key as any limiter is held, and no other", function ()
    local l, k = keyed(rate(1, 1000, 5))
    local s, api = story(), all { l }
    assert.equal(0, C.neap_keyed_hold(k, 7, 2, 4000, 0))
    assert.same({ "refused", 4000 }, { s:try(0, api, { 7 }, 3) })
    assert.equal("granted", (s:try(0, api, { 8 }, 5)))
    assert.equal("waits", (s:acquire("a", 500, api, { 7 }, 3)))
    assert.equal(0, C.neap_keyed_hold(k, 7, 0, 9000, 1000))   -- and what came meanwhile is gone
    C.neap_engine_touch_key(s.engine, l, 7, 1000)
    assert.same({}, s:by(8999))
    assert.same({ { "a", "granted", 9000 } }, s:by(9000))
    assert.same({ "refused", 10000 }, { s:try(9000, api, { 7 }, 3) })
    assert.equal(1LL, C.neap_keyed_count(k, 9000))
    assert.equal(0LL, C.neap_keyed_count(k, 12000))
  end)

  it("asks those in line anew for one key, whatever the key has", function ()
    local l, k = keyed(rate(1, 1000, 1))
    local s, api, own = story(), all { l }, rate(1, 1000, 1)
    C.neap_keyed_set(k, 8, own)
    for key = 7, 9 do
      s:try(0, api, { key })
      assert.equal("waits", (s:acquire(key, 0, api, { key })))
    end
    C.neap_keyed_forget(k, 7)
    C.neap_keyed_forget(k, 9)
    C.neap_gcra_fill(own.as.gcra, 1, 10)
    C.neap_engine_touch_key(s.engine, l, 7, 10)
    assert.same({ { 7, "granted", 10 } }, s:by(10))
    C.neap_engine_touch_key(s.engine, l, 8, 20)
    assert.same({ { 8, "granted", 20 } }, s:by(20))
  end)

  it("holds as many as may be alive, and lets go of those that are over", function ()
    local _, k = keyed(rate(1, 1000, 5), 2)
    assert.equal(0, C.neap_keyed_hold(k, 1, 5, 100, 0))
    assert.equal(0, C.neap_keyed_hold(k, 2, 5, 200, 0))
    assert.equal(C.NEAP_EFULL, C.neap_keyed_hold(k, 3, 5, 300, 0))
    assert.equal(0, C.neap_keyed_hold(k, 2, 5, 200, 0))
    assert.equal(C.NEAP_EFULL, C.neap_keyed_hold(k, 3, 5, 300, 100))
    assert.equal(0, C.neap_keyed_hold(k, 3, 5, 300, 101))
    C.neap_keyed_forget(k, 2)
    assert.equal(0, C.neap_keyed_hold(k, 4, 5, 300, 101))
    assert.equal(2LL, C.neap_keyed_count(k, 102))
  end)
end)
