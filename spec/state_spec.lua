--- State across restarts: what is written, and how a worker begins from it.
local process = require "spec.process"
local keys = require "neap.key"
local policy = require "neap.policy"
local state = require "neap.worker.state"
local wired = require "spec.wired"

local BIN = os.getenv "NEAP_BUILD" .. "/bin/neap"
local S = 1e9

local function tree_of(text)
  local tree, mistakes = policy.parse(text, "policy.lua")
  assert(tree, mistakes and tostring(mistakes[1]))
  return tree
end

local function api(body) return ('policy "api" { %s }'):format(body) end

describe("state", function ()
  local folder, w, c

  before_each(function ()
    folder = process.unused_path()
    assert.equal(0, os.execute("mkdir " .. folder))
  end)

  after_each(function ()
    if w then w:close() end
    w = nil
    process.sweep()
    os.execute("rm -r " .. folder)
  end)

  local function path() return folder .. "/state.neap" end

  local function open(body)
    w = wired.open(tree_of(api(body)))
    w.worker.log.write = function () end
    c = w:connect()
  end

  local function write()
    local one = state.new(w.worker, { folder = folder })
    one:finish()
    return one
  end

  --- Another worker, so much later.
  local function again(body, seconds)
    write()
    w:close()
    open(body)
    w.now = 5000000000000LL   -- its clock is another
    state.begin(w.worker, folder, assert(state.read(folder)), nil, seconds * S)
    w:turns()
  end

  local function take(...) return w:verdict(c, "NEAP.ACQUIRE", "api", ...) end
  local function snapshot(...) return wired.map(w:ask(c, "NEAP.SNAPSHOT", "api", ...)) end

  local function free(i, scope, key)
    if scope then return snapshot("BY", scope, key).by[i].available end
    return snapshot().limits[i or 1].available
  end

  it("has of limits what time has not given back", function ()
    local BODY = 'limits = { a = "60/min", s = "10/min sliding", never = "7/s" }'
    open(BODY)
    take("COST", "a", 50, "COST", "s", 4, "COST", "never", 0)
    w:pass(20000)
    take("COST", "a", 0, "COST", "s", 3, "COST", "never", 0)
    assert.same({ 30, 3 }, { free(1), free(2) })
    again(BODY, 0)
    assert.same({ 30, 3, 7 }, { free(1), free(2), free(3) })
    again(BODY, 15)
    assert.same({ 45, 3 }, { free(1), free(2) })
    again(BODY, 30)
    assert.same({ 60, 7 }, { free(1), free(2) })   -- the first four have left
    again(BODY, 3600)
    assert.same({ 60, 10 }, { free(1), free(2) })
  end)

  it("goes over to other limits as in a reload", function ()
    open 'limits = { a = "1000/h" }, per "tenant" { a = "100/h" }'
    take("BY", "tenant", "x", "COST", 70)
    again('limits = { a = "2000/h" }, per "tenant" { a = "300/h", '
      .. 'override = { y = { a = "9/h" } } }', 0)
    assert.same({ 1930, 230, 9 }, { free(), free(1, "tenant", "x"), free(1, "tenant", "y") })
    again('limits = { a = "2000/h sliding" }, on_change = "reset"', 0)
    assert.equal(2000, free())
  end)

  it("has the words of keys, their own limits and what slides", function ()
    local BODY = 'per "tenant" { a = "100/h", s = "5/h sliding", '
      .. 'override = { vip = { a = "900/h" } } }'
    open(BODY)
    for i = 1, 700 do take("BY", "tenant", "t" .. i, "COST", "a", i % 50 + 1) end
    take("BY", "tenant", "vip", "COST", "a", 300, "COST", "s", 2)
    again(BODY, 0)
    for i = 1, 700, 7 do assert.equal(99 - i % 50, free(1, "tenant", "t" .. i)) end
    assert.same({ 600, 3 }, { free(1, "tenant", "vip"), free(2, "tenant", "vip") })
    again(BODY, 360)
    assert.same({ 690, 3, 100 }, { free(1, "tenant", "vip"), free(2, "tenant", "vip"),
      free(1, "tenant", "t1") })
  end)

  it("brings back leases that were detached, and gives the others back", function ()
    local BODY = 'limits = { calls = "5 in flight", a = "100/h" }, '
      .. 'per "tenant" { calls = "3 in flight", override = { vip = { calls = "4 in flight" } } }'
    open(BODY)
    local kept = w:lease(c, "NEAP.ACQUIRE", "api", "BY", "tenant", "x", "COST", "calls", 2,
      "DETACH", "TTL", 60000, "ID", "job")
    local vip = w:lease(c, "NEAP.ACQUIRE", "api", "BY", "tenant", "vip", "DETACH", "TTL", 10000)
    w:lease(c, "NEAP.ACQUIRE", "api", "BY", "tenant", "x")
    again(BODY, 5)
    assert.same({ 2, 97 }, { free(1), free(2) })
    assert.same({ 1, 3 }, { free(1, "tenant", "x"), free(1, "tenant", "vip") })
    assert.equal(kept, w:ask(c, "NEAP.ACQUIRE", "api", "ID", "job")[2])
    assert.equal(1, w:ask(c, "NEAP.RELEASE", kept, "USED", "a", 11))
    assert.same({ 4, 87, 3 }, { free(1), free(2), free(1, "tenant", "x") })
    w:pass(4900)
    assert.equal(4, free(1))
    w:pass(200)
    assert.equal(5, free(1))
    assert.equal(0, w:ask(c, "NEAP.RELEASE", vip))
    assert.equal(4, free(1, "tenant", "vip"))
    assert.equal(0, snapshot().leases)
  end)

  it("brings back a lease that is older than the last reload, of what it holds", function ()
    open 'limits = { calls = "5 in flight" }'
    local lease = w:lease(c, "NEAP.ACQUIRE", "api", "COST", 2, "DETACH")
    assert(require "neap.worker".reload(w.worker, tree_of(api [[
      limits = { more = "4 in flight", calls = "6 in flight" }]])))
    again('limits = { calls = "6 in flight", more = "4 in flight" }', 1)
    assert.same({ 4, 4 }, { free(1), free(2) })
    w:ask(c, "NEAP.RELEASE", lease)
    assert.same({ 6, 4 }, { free(1), free(2) })
  end)

  it("leaves a breaker open, a backoff on and an adaptive limit where it was", function ()
    local BODY = 'limits = { calls = "50 in flight" }, adaptive = { calls = "aimd from 4 to 50" }, '
      .. 'breaker = { trip = "2 consecutive", cooldown = "30s" }, backoff = { on = { 429 }, '
      .. 'window = "20s" }'
    open(BODY)
    local leases = {}
    for i = 1, 4 do leases[i] = w:lease(c, "NEAP.ACQUIRE", "api") end
    for i = 1, 4 do w:ask(c, "NEAP.RELEASE", leases[i], "OK") end
    local was = snapshot().limits[1].capacity
    assert.truthy(was > 4)
    w:ask(c, "NEAP.REPORT", "api", "STATUS", 429)
    for _ = 1, 2 do w:ask(c, "NEAP.REPORT", "api", "FAIL") end
    again(BODY, 10)
    local now = snapshot()
    assert.same({ "open", 10000, was }, { now.breaker, now.backoff_ms, now.limits[1].capacity })
    w:pass(19900)
    assert.matches("^SHED", take())
    w:pass(100)
    assert.equal("half-open", snapshot().breaker)
  end)

  it("counts by the machine's clock, or by the day's, and never back", function ()
    local was = { boot = "x", now = "5000000000", wall = "100" }
    assert.equal(2 * S, state.passed(was, { boot = "x", now = "7000000000", wall = "9000" }))
    assert.equal(0, state.passed(was, { boot = "x", now = "4000000000", wall = "9000" }))
    assert.equal(7 * S, state.passed(was, { boot = "y", now = "1", wall = "107" }))
    assert.equal(0, state.passed(was, { boot = "y", now = "9000000000", wall = "99" }))
    assert.equal(3 * S, state.passed({ boot = "", now = "9", wall = "100" },
      { boot = "", now = "1", wall = "103" }))
  end)

  local function levels(body, saved, problem)
    open(body)
    state.begin(w.worker, folder, saved, problem)
    w:turns()
    return { free(1), free(2) }
  end

  it("begins as `start` says, and carefully where nothing is known", function ()
    local BODY = 'limits = { hour = "60/h", second = "10/s" }, start = "%s"'
    assert.is_nil(state.read(folder))
    assert.same({ 0, 10 }, levels(BODY:format "state", state.read(folder)))
    w:pass(60000)
    assert.equal(1, free(1))
    w:close()
    assert.same({ 0, 0 }, levels(BODY:format "empty"))
    w:close()
    assert.same({ 60, 10 }, levels(BODY:format "full"))
    take("COST", "hour", 20, "COST", "second", 0)
    write()
    w:close()
    assert.same({ 40, 10 }, levels(BODY:format "state", state.read(folder)))
    w:close()
    assert.same({ 60, 10 }, levels(BODY:format "full", state.read(folder)))
    w:close()
    assert.same({ 0, 0 }, levels(BODY:format "empty", state.read(folder)))
  end)

  it("is refused when it is torn, changed or another's", function ()
    open 'limits = { hour = "60/h", second = "10/s" }'
    take("COST", "hour", 20)
    write()
    local file = assert(io.open(path(), "rb"))
    local whole = file:read "*a"
    file:close()
    local function with(text)
      local to = assert(io.open(path(), "wb"))
      to:write(text)
      to:close()
      local saved, problem = state.read(folder)
      assert.is_nil(saved)
      return problem:match "%.neap: (.*)$"
    end
    for cut = 0, #whole - 1, 97 do assert.truthy(with(whole:sub(1, cut))) end
    assert.equal("it is torn", with(whole:sub(1, -2)))
    assert.equal("it is torn", with(whole .. "x"))
    for at = #whole - 200, #whole, 13 do
      local byte = string.char((whole:byte(at) + 1) % 256)
      assert.equal("it is torn", with(whole:sub(1, at - 1) .. byte .. whole:sub(at + 1)))
    end
    assert.equal("it is no state of this version", with "REDIS0009")
    local _, problem = state.read(folder)
    w:close()
    assert.same({ 0, 0 }, levels('limits = { hour = "60/h", second = "10/s" }', nil, problem))
  end)

  it("is written a bit at a time, while calls go on", function ()
    open 'per "tenant" { a = "100/h" }'
    for i = 1, 3000 do
      local table_ = w.worker.desk.accounts.policies.api.live.scopes[1].limits[1].limiter.tables[1]
      require "neap.engine".neap_keyed_put(table_, keys.hash(i, "key", 1), 36e9, w.now)
    end
    local one = state.new(w.worker, { folder = folder })
    local turns = 0
    repeat
      one:turn()
      turns = turns + 1
      if turns == 2 then take("BY", "tenant", "late", "COST", 30) end
    until not one.work
    assert.truthy(turns >= 6 and turns < 20, turns)
    repeat one:turn() until not one.save
    assert.is_true(one.fine)
    local saved, words = assert(state.read(folder)), 0
    for _, chunk in ipairs(saved.policies[1].words) do words = words + #chunk[2] / 16 end
    assert.truthy(words >= 3000 and words <= 3001, words)
    one:turn()
    assert.is_nil(one.save)
  end)

  it("stays as it was when it cannot be written, and that is told", function ()
    open 'limits = { a = "60/h" }'
    take("COST", 10)
    write()
    take("COST", 10)
    assert.equal(0, os.execute("mkdir " .. path() .. ".new"))
    local told = {}
    w.worker.events:listen(function (message) told[#told + 1] = message.channel end)
    local one = write()
    assert.same({ false, 1 }, { one.fine, one.failures })
    assert.truthy(table.concat(told, " "):find("neap:-:fault", 1, true))
    local _, _, text = w:get(w:connect(1), "/metrics")
    assert.matches("\nneap_state_success 0\n", text)
    w:close()
    open 'limits = { a = "60/h" }'
    state.begin(w.worker, folder, assert(state.read(folder)), nil, 0)
    assert.equal(50, free())
    assert.equal(0, os.execute("rmdir " .. path() .. ".new"))
  end)

  -- ---- processes ----

  local function start(file, limit)
    local worker = process.start { "sh", "-c", 'ulimit -f "$0"; exec "$@"', limit or "unlimited",
      BIN, "run", "--listen", "127.0.0.1:0", "--state", folder, "--save-every", "20ms", "--drain",
      "1ms", file }
    worker.address = assert(worker:line():match "address=(%S+)")
    return worker, process.dial(worker.address)
  end

  local function left(peer)
    local list, by_name = peer:ask("NEAP.SNAPSHOT", "api"), {}
    for i = 1, #list, 2 do by_name[list[i]] = list[i + 1] end
    return by_name.limits[1][6], by_name.limits[2][6]
  end

  it("survives a kill with a hundred leases, and a disk that is full", function ()
    local file = process.file(api 'limits = { a = "1000/30d", calls = "200 in flight" }')
    os.execute(("echo x > %s"):format(path()))   -- so that it begins from something
    local worker, peer = start(file)
    assert.matches("^error state%-refused ", worker:line())
    assert.equal(0, left(peer))
    peer:hang_up()
    worker:stop()
    os.execute("sed -i 's/calls =/b = \"900\\/30d\", calls =/' " .. file)
    worker, peer = start(file)
    local names = {}
    for i = 1, 100 do
      local reply = peer:ask("NEAP.ACQUIRE", "api", "COST", "a", 0, "COST", "b", 5,
        i % 2 == 0 and "DETACH" or nil)
      names[i] = reply[2]
      assert.equal("GRANTED", reply[1])
    end
    local before = select(2, left(peer))
    assert.equal(400, before)
    local function saved_at()
      local now = state.read(folder)
      return now and now.policies[1].head.leases[50] ~= nil
    end
    process.eventually(saved_at)
    worker:signal "KILL"
    worker:finish()

    worker, peer = start(file, "1")   -- a block is all that a file may have
    assert.equal(400, select(2, left(peer)))
    peer:ask("NEAP.ACQUIRE", "api", "COST", "a", 0, "COST", "b", 100)
    assert.matches("^error state%-not%-saved .*File too large", worker:line())
    assert.equal("GRANTED", peer:ask("NEAP.ACQUIRE", "api", "COST", "a", 0, "COST", "b", 100)[1])
    for i = 1, 100 do assert.equal(i % 2 == 0 and 1 or 0, peer:ask("NEAP.RELEASE", names[i])) end
    worker:signal "KILL"
    worker:finish()
    worker, peer = start(file)
    assert.equal(400, select(2, left(peer)))
    worker:stop()
    os.remove(file)
  end)
end)
