--- What nginx is given that needs no nginx: the limiters with the calls of lua-resty-limit-traffic,
--- and the fields that tell of limits.
local fields = require "neap.ngx.fields"
local manual = require "neap.runtime.manual"
local neap = require "neap"
local published = require "spec.published.resty_limit"
local runtime = require "neap.runtime"

local limits = {
  req = require "neap.ngx.limit_req", conn = require "neap.ngx.limit_conn",
  count = require "neap.ngx.limit_count",
}
local traffic = require "neap.ngx.limit_traffic"
local store = require "neap.ngx.store"

local clock, stores = nil, 0

--- A limiter whose store nobody used.
local function fresh(kind, ...)
  stores = stores + 1
  return assert(limits[kind].new("store " .. stores, ...))
end

--- To the ms, which is what those who are copied count in.
local function near(expected, got, row)
  if type(expected) ~= "number" or type(got) ~= "number" then
    assert.equal(expected, got, row)
  else
    assert.is_true(math.abs(expected - got) < 1e-6, ("%s: %s, not %s"):format(row, got, expected))
  end
end

before_each(function ()
  clock = manual.new { now = 1000 }
  runtime.use(clock)
end)

after_each(function () runtime.use(nil) end)

for _, shared in ipairs { false, true } do
describe("limiters with the calls of resty.limit" .. (shared and ", shared," or ""), function ()
  local path

  before_each(function ()
    path = os.tmpname()
    os.remove(path)
    store.at(shared and path .. "-" or nil)
  end)

  after_each(function ()
    store.at(nil)
    os.execute("rm -f " .. path .. "-*")
  end)

  for _, case in ipairs(published) do
    it("answer " .. case[1], function ()
      local limiter = fresh(case.of, unpack(case.new))
      for i, row in ipairs(case[2]) do
        local what = ("row %d, %s"):format(i, row[1])
        if row.at then clock.advance_to((1000 + row.at) * 1e9) end
        local first, second = limiter[row[1]](limiter, row[2], row[3])
        near(row[4], first, what)
        if row[5] ~= nil then near(row[5], second, what) end
        if row.committed ~= nil then assert.equal(row.committed, limiter:is_committed(), what) end
      end
    end)
  end

  for _, case in ipairs(published.traffic) do
    it("combine as in " .. case[1], function ()
      stores = stores + 1
      local req = "store " .. stores
      local conn = fresh("conn", 4, 1, 2)
      local list = { limits.req.new(req, 3, 2), limits.req.new(req, 2, 3), conn,
        fresh("count", case.count, 100) }
      local states = {}
      for i, row in ipairs(case[2]) do
        clock.advance_to((1000 + row[1]) * 1e9)
        local delay, why = traffic.combine(list, { "foo", "bar", "foo", "bar" }, states)
        near(row[2] or nil, delay, "row " .. i)
        assert.equal(row[2] == false and "rejected" or nil, why)
        assert.equal(row[2] ~= false and true or conn:is_committed(), conn:is_committed())
        for k = 1, 4 do near(row[3][k], states[k], ("row %d, state %d"):format(i, k)) end
      end
    end)
  end

  it("share what a store keeps, and nothing else", function ()
    local first = fresh("req", 1, 1)
    local name = "store " .. stores
    first:incoming("k", true)
    assert.equal(1, (limits.req.new(name, 1, 1):incoming "k"))
    assert.equal(0, (fresh("req", 1, 1):incoming "k"))
    assert.same({ 0, 1 }, { limits.conn.new(name, 1, 0, 1):incoming "k" })
  end)

  it("look again when another worker was faster", function ()
    local get = store.get
    finally(function () store.get = get end)
    for kind, new in pairs { req = { 1, 5 }, conn = { 5, 0, 1 }, count = { 5, 100 } } do
      local one = fresh(kind, unpack(new))
      local other = limits[kind].new("store " .. stores, unpack(new))
      local function while_it_reads(fn)
        store.get = function (...)
          store.get = get
          local word = get(...)
          fn()
          return word
        end
      end
      while_it_reads(function () other:incoming("k", true) end)
      local _, first = one:incoming("k", true)
      while_it_reads(function () other:uncommit "k" end)
      one:uncommit "k"
      local _, last = one:incoming("k", true)
      assert.same(kind == "req" and { 1, 0 } or kind == "conn" and { 2, 1 } or { 3, 4 },
        { first, last }, kind)
    end
  end)

  it("take back all or nothing when one that is combined changes its mind", function ()
    local one = fresh("req", 1, 5)
    local fickle = { incoming = function (_, _, commit)
      if commit then return nil, "no" end
      return 0, 0
    end }
    assert.same({ nil, "no" }, { traffic.combine({ one, fickle }, { "a", "b" }) })
    assert.equal(0, (one:incoming("a", true)))
    local none, count = fresh("req", 1, 0), fresh("count", 1, 1)
    none:incoming("a", true)
    assert.same({ nil, "rejected" }, { traffic.combine({ count, none }, { "a", "a" }) })
    assert.same({ 0, 0 }, { count:incoming("a", true) })
    local twice = fresh("count", 1, 1)
    assert.same({ nil, "rejected" }, { traffic.combine({ twice, twice }, { "a", "a" }) })
    assert.same({ 0, 0 }, { twice:incoming("a", true) })
  end)

  it("keep the rate over a long time", function ()
    local one = fresh("req", 300, 1e6)
    for _ = 1, 3000 do one:incoming("k", true) end
    near(10, tonumber(("%.5f"):format((one:incoming("k", true)))), "after 3000")
    one:set_rate(150)
    near(10.00333, tonumber(("%.5f"):format((one:incoming("k", true)))), "what is owed is owed")
  end)

  it("learn how long one takes", function ()
    local one = fresh("conn", 1, 5, 1)
    one:incoming("k", true)
    assert.equal(1, (one:incoming("k", true)))
    assert.equal(1, one:leaving("k", 3))
    assert.equal(2, (one:incoming("k", true)))
    assert.equal(1, one:leaving "k")
    assert.equal(0, one:leaving "k")
    assert.equal(0, one:leaving "k")
  end)

  it("answer what is wrong instead of raising it", function ()
    for _, row in ipairs {
      { "req", "the name of a store", nil, 1, 1 }, { "req", "rate: ", "s", 0, 1 },
      { "req", "burst: ", "s", 1, -1 }, { "conn", "conn: ", "s", 0, 1, 1 },
      { "conn", "burst: ", "s", 1, "x", 1 }, { "conn", "default_conn_delay: ", "s", 1, 1 },
      { "count", "count: ", "s", 2 ^ 24, 1 }, { "count", "time_window: ", "s", 1, 0 },
    } do
      local made, message = limits[row[1]].new(row[3], row[4], row[5], row[6])
      assert.is_nil(made)
      assert.equal(1, (message:find(row[2], 1, true)), message)
    end
    for _, kind in ipairs { "req", "conn", "count" } do
      local one = fresh(kind, 1, 1, 1)
      for key, why in pairs { [""] = "empty key", [("x"):rep(65536)] = "key too long" } do
        assert.same({ nil, why }, { one:incoming(key, true) })
        assert.same({ nil, why }, { one:uncommit(key) })
      end
      assert.same({ nil, "a key expected, got nil" }, { one:incoming(nil, true) })
      assert.is_not_nil((one:incoming(7, true)))
    end
  end)
end)
end

describe("the fields of a limit", function ()
  local function told(limiter, key)
    local policy, state = fields.of(limiter, key)
    return policy .. " | " .. state
  end

  it("tell of rates: what may go at once, and when all of that is there", function ()
    local api = neap.throttle("100/min burst 20", { name = "api" })
    assert.equal('"api";q=20;w=12 | "api";r=20;t=0', told(api))
    api:try_acquire(3)
    assert.equal('"api";q=20;w=12 | "api";r=17;t=2', told(api))
    api:try_acquire(1):settle(30)
    assert.equal('"api";q=20;w=12 | "api";r=0;t=20', told(api))
    local window = neap.throttle("5/10s sliding", { name = "w" })
    window:try_acquire(2)
    clock.advance(4)
    assert.equal('"w";q=5;w=10 | "w";r=3;t=6', told(window))
  end)

  it("tell of calls in flight without a time", function ()
    local pool = neap.semaphore(4, { name = "pool" })
    local permit = pool:try_acquire(3)
    assert.equal('"pool";q=4;qu="concurrent-requests" | "pool";r=1', told(pool))
    permit:release()
  end)

  it("tell of limits that processes share, whichever process spent", function ()
    local path = os.tmpname()
    os.remove(path)
    finally(function () os.remove(path) end)
    local shared = assert(neap.segment(path))
    local api = neap.hybrid { shared:throttle("api", "100/min burst 20"),
      shared:throttle("w", "5/10s sliding"), shared:semaphore("pool", 4) }
    shared:throttle("api", "100/min burst 20"):try_acquire(2)
    local permit = api:try_acquire()
    assert.equal('"api";q=20;w=12, "w";q=5;w=10, "pool";q=4;qu="concurrent-requests" | ' ..
      '"api";r=17;t=2, "w";r=4;t=10, "pool";r=3', told(api))
    permit:release()
  end)

  it("tell of each limit in a composite, by key where there is one", function ()
    local api = neap.hybrid { neap.throttle("10/s", { name = 'a "b" \\ é' }), neap.breaker(),
      neap.per_key("2/min", { name = "user", overrides = { vip = "9/min" } }), "closed" }
    api:try_acquire { key = "ann" }
    assert.equal('"a \\"b\\" \\\\ ??";q=10;w=1, "user";q=9;w=60 | ' ..
      '"a \\"b\\" \\\\ ??";r=10;t=0, "user";r=9;t=0', told(api, "vip"))
    local users = neap.per_key("2/min", { name = "user" })
    users:try_acquire "ann"
    assert.equal('"user";q=2;w=60 | "user";r=1;t=30', told(users, "ann"))
    assert.equal('"user";q=2;w=60 | "user";r=1;t=30', told(users, { key = "ann" }))
    assert.equal(" | ", told(neap.breaker()))
  end)

  it("are what a provider of that kind says", function ()
    local api = neap.hybrid { neap.throttle("100/min burst 20", { name = "api" }),
      neap.semaphore(4, { name = "pool" }) }
    local held = api:try_acquire(2)
    local header = {}
    fields.send(header, api)
    local seen = neap.provider "ietf":parse(header)
    assert.same({ 20, 18, 2 }, { seen.api.limit, seen.api.remaining, seen.api.reset_s })
    assert.same({ 4, 2, "concurrent_requests" },
      { seen.pool.limit, seen.pool.remaining, seen.pool.unit })
    held:release()
    fields.send({}, neap.breaker())
  end)
end)
