--- The bounded table: against a plain Lua table as the oracle, on tiny tables and a fast clock.
local ffi = require "ffi"
local C = require "neap.engine"
local seed = require "spec.seed"

local secret = ffi.new("uint8_t[16]", { 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9, 0, 4, 5, 2 })

local function open(count_max)
  local k = C.neap_keys_open(count_max, secret)
  assert(k ~= nil, "no memory")
  return ffi.gc(k, C.neap_keys_close)
end

local function hash(k, key) return C.neap_keys_hash(k, key, #key) end

local function stats(k)
  local out = ffi.new "struct neap_keys_stats"
  C.neap_keys_stats(k, out)
  return out
end

describe("keys", function ()
  it("remembers a word until its instant, and then has nothing", function ()
    local k = open(100)
    local a = hash(k, "a")
    assert.is_true(C.neap_keys_find(k, a, 0) == nil)
    C.neap_keys_at(k, a, 0)[0] = 50
    assert.equal(50LL, C.neap_keys_find(k, a, 49)[0])
    assert.equal(1LL, C.neap_keys_count(k, 49))
    assert.is_true(C.neap_keys_find(k, a, 50) == nil)
    assert.equal(0LL, C.neap_keys_count(k, 50))
    assert.is_true(C.neap_keys_at(k, a, 50)[0] <= 50)
  end)

  it("leaves no trace of a key that was looked up and not written", function ()
    local k = open(8)
    for i = 1, 1000 do assert.is_true(C.neap_keys_at(k, hash(k, "k" .. i), 5) ~= nil) end
    assert.equal(0LL, C.neap_keys_count(k, 5))
  end)

  it("does not forget when the clock steps back", function ()
    local k = open(8)
    C.neap_keys_at(k, hash(k, "a"), 10)[0] = 20
    assert.is_true(C.neap_keys_find(k, hash(k, "a"), 30) == nil)
    assert.is_true(C.neap_keys_find(k, hash(k, "a"), 15) == nil)   -- 30 was seen: it is gone
    C.neap_keys_at(k, hash(k, "b"), 15)[0] = 40
    assert.equal(40LL, C.neap_keys_find(k, hash(k, "b"), 15)[0])
  end)

  it("refuses at its bound, says so, and has room again when time has passed", function ()
    for _, bound in ipairs { 1, 3, 100, 5000 } do
      local k, kept = open(bound), 0
      for i = 1, bound * 2 + 10 do
        local word = C.neap_keys_at(k, hash(k, "k" .. i), 1)
        if word ~= nil then
          word[0] = 100
          kept = kept + 1
        else
          assert.is_true(kept >= bound)
        end
      end
      assert.is_true(kept >= bound and kept <= bound * 5 / 4 + 4)
      assert.equal(bound * 2 + 10 - kept, tonumber(stats(k).refused))
      assert.equal(0, C.neap_keys_check(k, 1))
      assert.is_true(C.neap_keys_at(k, hash(k, "new"), 99) == nil or kept < bound * 5 / 4)
      assert.is_true(C.neap_keys_at(k, hash(k, "new"), 100) ~= nil)
    end
  end)

  it("keeps every live key while it grows, a few entries at a time", function ()
    local k, grew = open(100000), 0
    local before = stats(k).entries
    for i = 1, 50000 do
      C.neap_keys_at(k, hash(k, "k" .. i), 1)[0] = i + 1
      local now = stats(k)
      if now.entries ~= before then
        grew, before = grew + 1, now.entries
        assert.equal(0, C.neap_keys_check(k, 1))   -- with most of it still to be moved
        assert.equal(tonumber(i), tonumber(C.neap_keys_count(k, 1)))
      end
    end
    assert.is_true(grew >= 5)
    for i = 1, 50000 do
      assert.equal(i + 1, tonumber(C.neap_keys_find(k, hash(k, "k" .. i), 1)[0]))
    end
    assert.is_true(stats(k).bytes <= 20 * 100000 + 4096)
  end)

  it("agrees with a plain table on random traffic", function ()
    math.randomseed(seed)
    for _, bound in ipairs { 1, 2, 5, 40, 600 } do
      local k, model, clock = open(bound), {}, 0
      for step = 1, 20000 do
        clock = clock + math.random(0, 2)
        local key = "k" .. math.random(bound * 3)
        local h, known = hash(k, key), model[key]
        if known and known <= clock then known = nil end
        local word
        if math.random(3) == 1 then
          word = C.neap_keys_find(k, h, clock)
          assert.equal(known, word ~= nil and tonumber(word[0]) or nil)
        else
          word = C.neap_keys_at(k, h, clock)
          if known then
            assert.equal(known, tonumber(word[0]))
          elseif word ~= nil then
            assert.is_true(word[0] <= clock)
          end
          if word ~= nil then
            model[key] = clock + math.random(bound * 2)
            word[0] = model[key]
          end
        end
        if step % 97 == 0 then
          local alive = 0
          for _, at in pairs(model) do if at > clock then alive = alive + 1 end end
          assert.equal(alive, tonumber(C.neap_keys_count(k, clock)))
          assert.equal(0, C.neap_keys_check(k, clock), "step " .. step)
        end
      end
    end
  end)

  it("hashes as SipHash-1-3 does", function ()   -- the values are CPython's, whose key is zero
    local k = ffi.gc(C.neap_keys_open(1, ffi.new "uint8_t[16]"), C.neap_keys_close)
    assert.equal(4644417185603328019ULL, hash(k, "a"))
    assert.equal(4574395652268504554ULL, hash(k, "abcdefgh"))
    assert.equal(7650859633215404784ULL, hash(k, "hello world, this is long"))
  end)

  it("tells numbers from the texts that look like them", function ()
    local seen = {}
    for _, name in ipairs {
      C.neap_hash(secret, "42", 2), C.neap_hash_integer(secret, 42),
      C.neap_hash_integer(secret, -42),
      C.neap_hash(secret, "\42\0\0\0\0\0\0\0", 8), C.neap_hash(secret, "\0\42\0\0\0\0\0\0\0", 9),
    } do
      assert.is_nil(seen[tostring(name)])
      seen[tostring(name)] = true
    end
    local k = open(1)
    assert.equal(C.neap_hash(secret, "a", 1), hash(k, "a"))   -- one secret, one name in all tables
  end)

  it("forgets what was idle, to the microsecond, and looks do not count", function ()
    local k, a = open(4), 17ULL
    assert.equal(0, C.neap_keys_remember(k, 1000000, C.NEAP_REFUSE))
    C.neap_keys_turn_to(k, 5000000)
    C.neap_keys_at(k, a, 0)[0] = 100
    C.neap_keys_turn_to(k, 5999999)
    assert.equal(100LL, C.neap_keys_find(k, a, 0)[0])
    C.neap_keys_turn_to(k, 6000000)
    assert.is_true(C.neap_keys_find(k, a, 0) == nil)
    assert.equal(0LL, C.neap_keys_count(k, 0))

    C.neap_keys_at(k, a, 0)[0] = 100
    C.neap_keys_turn_to(k, 6900000)
    C.neap_keys_touch(k, C.neap_keys_find(k, a, 0))
    C.neap_keys_turn_to(k, 7899999)
    assert.equal(1LL, C.neap_keys_count(k, 0))
  end)

  it("lets the least recently seen make room, in the order of one instant", function ()
    local k = open(2)
    assert.equal(0, C.neap_keys_remember(k, 0, C.NEAP_LEAST_RECENT))
    for _, key in ipairs { "a", "b", "a", "c" } do C.neap_keys_at(k, hash(k, key), 0)[0] = 9 end
    assert.is_true(C.neap_keys_find(k, hash(k, "b"), 0) == nil)
    assert.is_true(C.neap_keys_find(k, hash(k, "a"), 0) ~= nil)
    assert.equal(2LL, C.neap_keys_count(k, 0))
    assert.equal(1LL, stats(k).evicted)
    C.neap_keys_forget(k, hash(k, "a"))
    C.neap_keys_at(k, hash(k, "d"), 0)[0] = 9
    assert.is_true(C.neap_keys_find(k, hash(k, "c"), 0) ~= nil)
  end)

  it("refuses a bound it cannot have", function ()
    for _, bound in ipairs { 0, -1, 2^30 + 1 } do
      assert.is_true(C.neap_keys_open(bound, secret) == nil)
    end
  end)
end)
