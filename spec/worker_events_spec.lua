--- The worker's events: how they are folded, and how Redis' clients hear of them.
---
---     NEAP_EVENTS=1000000   a worker tells so many to one that never reads
local ffi = require "ffi"
local cjson = require "cjson"
local socket = require "socket"
local C = require "neap.engine"
local events = require "neap.worker.events"
local policy = require "neap.policy"
local process = require "spec.process"
local seed = require "spec.seed"
local worker = require "neap.worker"

local MS = 1000000LL
local EVENTS = tonumber(os.getenv "NEAP_EVENTS")

local FILE = [[
policy "api" { limits = { rps = "10/s burst 2" } }
policy "pool" { limits = { calls = "1 in flight" }, lease = { ttl = "5s" } }
]]
local FRAIL = [[
policy "frail" { limits = { rps = "10/s" }, breaker = { trip = "5 consecutive" } }
]]
local USERS = [[
user "ear" { password = "e", allow = "events" }
user "app" { password = "a", allow = "acquire" }
]]

describe("an event", function ()
  local now, bus, heard

  before_each(function ()
    now, heard = 1000 * MS, {}
    bus = events.new { clock = function () return now end, wall = function () return 1764108554 end,
      life = "5f00a1c4" }
    bus:listen(function (message) heard[#heard + 1] = message end)
  end)

  local function counts()
    local list = {}
    for i, message in ipairs(heard) do list[i] = cjson.decode(message.text).count end
    return list
  end

  it("is one line of JSON, its own fields last and in order", function ()
    bus:emit("a\nb", "open", { why = "x\ny", trips = 3, share = 0.25, by_hand = true })
    assert.same({ [[{"policy":"a\nb","event":"open","at":1764108554,"count":1,"by_hand":true,]]
      .. [["share":0.25,"trips":3,"why":"x\ny"}]], "neap:a\nb:open", "5f00a1c4-1" },
      { heard[1].text, heard[1].channel, heard[1].id })
  end)

  it("beyond ten in a second is folded, told at the first instant that may be", function ()
    for i = 1, 25 do
      bus:emit("p", "shed", { i = i })
      now = now + 10 * MS
      bus:flush(now)
    end
    assert.equal(10, #heard)
    assert.equal(1000 * MS + 1000 * MS, bus.due)
    bus:flush(bus.due - 1)
    assert.equal(10, #heard)
    now = bus.due
    bus:flush(now)
    local last = cjson.decode(heard[11].text)
    assert.same({ 11, 15, 25, C.neap_never }, { #heard, last.count, last.i, bus.due })
    bus:emit("p", "open")           -- another channel has a second of its own
    bus:emit("p", "shed")           -- the second message was 10 ms after the first
    assert.same({ 12, now + 10 * MS }, { #heard, bus.due })
  end)

  it("is counted exactly and told soon, whatever the traffic", function ()
    math.randomseed(seed)
    local said, waits = { p = {}, q = {}, r = {} }, { p = 0, q = 0, r = 0 }
    local sum, emitted = 0, 0
    bus:listen(function (message)
      local of, n = said[message.policy], cjson.decode(message.text).count
      of[#of + 1], sum = now, sum + n
      waits[message.policy] = waits[message.policy] - n
      assert.truthy(not of[#of - 10] or now - of[#of - 10] >= 1000 * MS)
    end)
    for _ = 1, 5000 do
      local step = math.random(6) == 1 and math.random(0, 700) or math.random(0, 30)
      now = now + step * MS
      while bus.due <= now do
        local here = now
        now = bus.due
        bus:flush(now)
        now = here
      end
      local n = math.random(3)
      local about = ({ "p", "q", "r" })[math.random(3)]
      waits[about] = waits[about] + n
      bus:emit(about, "shed", nil, n)
      emitted = emitted + n
      local first = C.neap_never
      for name, of in pairs(said) do
        local opens = waits[name] > 0 and of[#of - 9] + 1000 * MS or first
        if opens < first then first = opens end
      end
      assert.equal(first, bus.due)
    end
    while bus.due < C.neap_never do
      now = bus.due
      bus:flush(now)
    end
    assert.same({ emitted, emitted }, { sum, bus.happened })
  end)

  it("is kept for those who come late", function ()
    for i = 1, 130 do
      bus:emit("p" .. i, "open")
    end
    local function ids(list)
      return #list, list[1] and list[1].number, list[#list] and list[#list].number
    end
    assert.same({ 0 }, { ids(bus:since()) })
    assert.same({ 3, 128, 130 }, { ids(bus:since(nil, 3)) })
    assert.same({ 100, 31, 130 }, { ids(bus:since(nil, 1e9)) })
    assert.same({ 2, 129, 130 }, { ids(bus:since("5f00a1c4-128", 50)) })
    assert.same({ 0 }, { ids(bus:since "5f00a1c4-130") })
    assert.same({ 100, 31, 130 }, { ids(bus:since "5f00a1c4-7") })       -- some are lost
    assert.same({ 5, 126, 130 }, { ids(bus:since("00000000-128", 5)) })  -- another life
    assert.same({ 5, 126, 130 }, { ids(bus:since("5f00a1c4-131", 5)) })
    assert.same({ 5, 126, 130 }, { ids(bus:since("nonsense", 5)) })
  end)

  it("is told to all who listen, until they stop", function ()
    local more = {}
    local stop = bus:listen(function (message) more[#more + 1] = message.event end)
    bus:emit("p", "open")
    stop()
    bus:emit("p", "close")
    assert.same({ { 1, 1 }, { "open" } }, { counts(), more })
  end)
end)

describe("over RESP, an event", function ()
  local self, now, clients

  local function turns()
    for _ = 1, 6 do worker.turn(self, 0LL) end
  end

  local function pass(ms)
    now = now + ms * MS
    turns()
  end

  local function open(file)
    self = assert(worker.open(assert(policy.parse(file, "policy.lua")),
      { listen = { "127.0.0.1:0" }, clock = function () return now end }))
  end

  local function connect(...)
    local host, port = ffi.string(C.neap_server_address(self.server, 0)):match "^(.*):(%d+)$"
    local s = assert(socket.connect(host, tonumber(port)))
    s:settimeout(0)
    clients[#clients + 1] = s
    for _, line in ipairs { ... } do s:send(line .. "\r\n") end
    turns()
    if ... then s:receive "*a" end
    return s
  end

  --- What comes for this line, its lines parted by blanks.
  local function ask(s, line)
    if line then assert(s:send(line .. "\r\n")) end
    turns()
    local all, _, part = s:receive "*a"
    return ((all or part):gsub("\r\n$", ""):gsub("\r\n", " "))
  end

  before_each(function ()
    now, clients = 1000 * MS, {}
    open(FILE)
  end)

  after_each(function ()
    for _, s in ipairs(clients) do s:close() end
    worker.close(self)
  end)

  it("comes as Redis' messages do, in either protocol", function ()
    local two, three = connect(), connect "HELLO 3"
    for _, row in ipairs {
      { "SUBSCRIBE a neap:api:shed",
        "*3 $9 subscribe $1 a :1 *3 $9 subscribe $13 neap:api:shed :2" },
      { "SUBSCRIBE a", "*3 $9 subscribe $1 a :2" },
      { "PSUBSCRIBE neap:*:shed", "*3 $10 psubscribe $11 neap:*:shed :3" },
    } do
      assert.equal(row[2], ask(two, row[1]))
      assert.equal((row[2]:gsub("%*3", ">3")), ask(three, row[1]))
    end
    self.events:emit("api", "shed", { bound = "queue" })
    local text = self.events.recent[1].text
    local plain = ("$13 neap:api:shed $%d %s"):format(#text, text)
    assert.equal("*3 $7 message " .. plain .. " *4 $8 pmessage $11 neap:*:shed " .. plain, ask(two))
    assert.equal(">3 $7 message " .. plain .. " >4 $8 pmessage $11 neap:*:shed " .. plain,
      ask(three))
    self.events:emit("api", "open")
    assert.same({ "", "" }, { ask(two), ask(three) })
    for _, row in ipairs {
      { "UNSUBSCRIBE b neap:api:shed",
        "*3 $11 unsubscribe $1 b :3 *3 $11 unsubscribe $13 neap:api:shed :2" },
      { "UNSUBSCRIBE", "*3 $11 unsubscribe $1 a :1" },
      { nil },
      { "PUNSUBSCRIBE", "*3 $12 punsubscribe $11 neap:*:shed :0" },
    } do
      if row[1] then
        assert.equal(row[2], ask(two, row[1]))
        assert.equal((row[2]:gsub("%*3", ">3")), ask(three, row[1]))
      else   -- the channel is heard by its pattern alone
        self.events:emit("api", "shed")
        local form = "4 %$8 pmessage %$11 neap:%*:shed %$13 neap:api:shed %$%d+ %b{}$"
        assert.matches("^%*" .. form, ask(two))
        assert.matches("^>" .. form, ask(three))
      end
    end
    assert.equal("*3 $12 punsubscribe $-1 :0", ask(two, "PUNSUBSCRIBE"))
    assert.equal(">3 $11 unsubscribe _ :0", ask(three, "UNSUBSCRIBE"))
    assert.same({ 0, 0, 0 }, { self.pubsub.count, self.pubsub.channel_count,
      self.pubsub.pattern_count })
  end)

  it("is heard by one that said CLIENT REPLY OFF, and what it asks is not", function ()
    local mute = connect("HELLO 3", "CLIENT REPLY OFF")
    assert.equal(">3 $9 subscribe $13 neap:api:open :1", ask(mute, "SUBSCRIBE neap:api:open"))
    assert.equal("", ask(mute, "PING"))
    self.events:emit("api", "open")
    assert.matches("^>3 %$7 message", ask(mute))
  end)

  it("leaves a subscriber of RESP2 few words, as Redis does, and one of RESP3 all", function ()
    local two, three = connect "SUBSCRIBE x", connect("HELLO 3", "SUBSCRIBE x")
    for _, line in ipairs { "ECHO a", "NEAP.ACQUIRE api", "CLIENT LIST", "CL.THROTTLE k 1 1 1",
      "HELLO 3", "AUTH a" } do
      assert.equal(("-ERR Can't execute '%s': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / "
        .. "QUIT / RESET are allowed in this context"):format(line:match "^%S+":lower()),
        ask(two, line))
    end
    assert.equal("*2 $4 pong $0 ", ask(two, "PING"))
    assert.equal("*2 $4 pong $2 hi", ask(two, "PING hi"))
    assert.equal("+PONG", ask(three, "PING"))
    assert.matches("^%*5 %$7 GRANTED", ask(three, "NEAP.ACQUIRE api"))
    assert.equal("+RESET", ask(two, "RESET"))
    assert.equal("+PONG", ask(two, "PING"))
    assert.equal(1, self.pubsub.count)
    assert.equal("+OK", ask(three, "QUIT"))
    turns()
    assert.equal(0, self.pubsub.count)
  end)

  it("needs the right to hear events", function ()
    worker.close(self)
    open(FILE .. USERS)
    local s = connect()
    assert.equal("-NOAUTH Authentication required.", ask(s, "SUBSCRIBE a"))
    assert.equal("+OK", ask(s, "AUTH app a"))
    for _, name in ipairs { "subscribe", "psubscribe", "unsubscribe", "pubsub" } do
      assert.equal(("-NOPERM this user has no permissions to run the '%s' command"):format(name),
        ask(s, name .. " numpat"))
    end
    assert.equal("+OK", ask(s, "AUTH ear e"))
    assert.equal("*3 $9 subscribe $1 a :1", ask(s, "SUBSCRIBE a"))
  end)

  it("tells who listens, and of what", function ()
    local s = connect("SUBSCRIBE b a", "PSUBSCRIBE a*")
    local other = connect("SUBSCRIBE b")
    local asks = connect()
    for _, row in ipairs {
      { "PUBSUB CHANNELS", "*2 $1 a $1 b" },
      { "PUBSUB CHANNELS [b-c]", "*1 $1 b" },
      { "PUBSUB NUMSUB b c a", "*6 $1 b :2 $1 c :0 $1 a :1" },
      { "PUBSUB NUMSUB", "*0" },
      { "PUBSUB NUMPAT", ":1" },
      { "PUBSUB SHARDCHANNELS", "*0" },
      { "PUBLISH a b", "-ERR events are what happens here; nothing can be published" },
      { "PUBSUB X", "-ERR unknown subcommand 'X'. Try PUBSUB HELP." },
    } do
      assert.equal(row[2], ask(asks, row[1]))
    end
    assert.matches(" flags=P db=0 sub=2 psub=1 .* flags=P db=0 sub=1 psub=0",
      ask(asks, "CLIENT LIST TYPE pubsub"))
    assert.matches("pubsub_clients:2", ask(asks, "INFO clients"))
    s:close()
    other:close()
    turns()
    assert.equal("*0", ask(asks, "PUBSUB CHANNELS"))
    assert.matches("pubsub_clients:0", ask(asks, "INFO clients"))
  end)

  it("is bounded in who may listen to how much", function ()
    local s = connect()
    local function names(prefix, from, to)
      local list = {}
      for i = from, to do list[#list + 1] = prefix .. i end
      return table.concat(list, " ")
    end
    for i = 0, 3 do ask(s, "SUBSCRIBE " .. names("c", i * 250, i * 250 + 249)) end
    assert.equal("-ERR a client has up to 1000 subscriptions", ask(s, "SUBSCRIBE c7 more"))
    assert.equal("*3 $9 subscribe $2 c7 :1000", ask(s, "SUBSCRIBE c7"))
    assert.equal("-ERR a channel or a pattern has up to 256 bytes, got 257",
      ask(s, "PSUBSCRIBE " .. ("x"):rep(257)))
    local t = connect()
    ask(t, "PSUBSCRIBE " .. names("p", 1, 250))
    ask(t, "PSUBSCRIBE " .. names("p", 251, 500))
    assert.equal("-ERR all 500 patterns are in use", ask(connect(), "PSUBSCRIBE q"))
    assert.equal("*3 $10 psubscribe $2 p9 :1", ask(connect(), "PSUBSCRIBE p9"))
  end)

  it("says what the desk did: shed, expired, drain", function ()
    local s, one, two = connect("PSUBSCRIBE neap:*"), connect(), connect()
    local function told()
      local list = {}
      for text in ask(s):gmatch "{[^}]*}" do
        local event = cjson.decode(text)
        event.at = nil
        list[#list + 1] = event
      end
      return list
    end
    assert.matches("GRANTED", ask(one, "NEAP.ACQUIRE pool TTL 700 DETACH"))
    pass(699)
    assert.same({}, told())
    pass(1)
    assert.same({ { policy = "pool", event = "expired", count = 1, held_ms = 700 } }, told())
    ask(one, "NEAP.ACQUIRE pool")
    ask(two, "NEAP.ACQUIRE pool BLOCK 5000")
    self.desk:drain()
    assert.same({ { policy = "-", event = "drain", count = 1, waiting = 1, leases = 1 },
      { policy = "pool", event = "shed", count = 1, bound = "drain" } }, told())
    ask(one, "NEAP.LIMIT somebodys-key 1/s")   -- a key of a caller's makes no channel
    assert.same({ { policy = "-", event = "shed", count = 1, bound = "drain" } }, told())
  end)

  it("is not kept for one that never reads: it is cut, at 32 MiB", function ()
    connect "PSUBSCRIBE neap:*"
    local quick = connect "PSUBSCRIBE neap:-:*"
    local stats, facts = ffi.new "struct neap_server_stats", ffi.new "struct neap_client"
    local slow = C.neap_server_after(self.server, 0)
    local filler, held, most, n = ("x"):rep(1000), collectgarbage "count", 0, 0
    repeat
      for i = 1, 1000 do self.events:emit("p" .. i, "open", { filler = filler }) end
      n = n + 1000
      pass(100)
      if C.neap_server_client(self.server, slow, facts) == 0 then
        most = math.max(most, facts.out_bytes)
      end
      C.neap_server_stats(self.server, stats)
    until stats.cut > 0 or n > 100000
    assert.equal(1, tonumber(stats.cut))
    assert.truthy(most > 2^25 - 2^21 and most <= 2^25, most)
    collectgarbage()
    assert.truthy(collectgarbage "count" - held < 2000)
    self.events:emit("-", "drain")
    assert.matches("neap:%-:drain", ask(quick))
  end)
end)

describe("an event is heard", function ()
  local running

  before_each(function () running = process.worker(FILE) end)
  after_each(process.sweep)

  --- Let a lease expire, when somebody listens.
  local function expire()
    local peer = process.dial(running.address)
    process.eventually(function () return peer:ask("PUBSUB", "NUMPAT") == 1 end)
    peer:ask("NEAP.ACQUIRE", "pool", "TTL", "1", "DETACH")
  end

  it("by redis-cli, in RESP2 and RESP3", function ()
    for _, option in ipairs { "-2", "-3" } do
      local cli = process.start { "redis-cli", option, "-p", running.port, "PSUBSCRIBE",
        "neap:pool:*" }
      expire()
      local lines = {}
      repeat lines[#lines + 1] = cli:line() until lines[#lines]:find "held_ms"
      assert.matches("psubscribe", lines[1] .. lines[2])
      assert.matches("neap:pool:expired", lines[#lines - 1])
      assert.matches('{"policy":"pool","event":"expired","at":%d+,"count":1,"held_ms":%d+}',
        (lines[#lines]:gsub("\\", "")))
      cli:stop()
    end
    assert.same({ "", 0 }, { running:stop() })
  end)

  it("by hiredis", function ()
    local program = (os.getenv "NEAP_BUILD" or "build") .. "/spec/c/hiredis_client"
    local client = process.start { program, "--events", "127.0.0.1", running.port }
    expire()
    local said, status = client:finish()
    assert.matches("^pmessage neap:pool:%* neap:pool:expired {.*}\n$", said)
    assert.equal(0, status)
    assert.same({ "", 0 }, { running:stop() })
  end)

  it("until it is cut by one that never reads, and the worker grows by no more", function ()
    if not EVENTS then return pending "takes a minute: ./spec/run soak worker_events" end
    running:stop()
    running = process.worker(FRAIL, nil, "--virtual-clock")
    local function memory()
      local file = assert(io.open("/proc/" .. running.pid .. "/status"))
      local kb = file:read "*a":match "VmRSS:%s+(%d+)"
      file:close()
      return tonumber(kb)
    end
    local deaf, peer = process.dial(running.address), process.dial(running.address)
    assert.equal("psubscribe", deaf:ask("PSUBSCRIBE", "neap:*")[1])
    local clock, told, before, largest = 0, 0, memory(), 0
    repeat   -- ten a second of each kind are told
      local lines = {}
      for i = 1, 1000 do
        clock = clock + 100
        lines[i] = ("DEBUG CLOCK %d000000\r\nNEAP.BREAKER frail OPEN 60000\r\n"
          .. "NEAP.BREAKER frail CLOSE\r\n"):format(clock)
      end
      peer:say(table.concat(lines))
      for _ = 1, 1000 do
        assert.same({ "OK", "open", "closed" }, { peer:receive(), peer:receive(), peer:receive() })
      end
      told, largest = told + 2000, math.max(largest, memory())
    until told >= EVENTS
    print(("# %d events; grew by %d kB"):format(told, largest - before))
    assert.matches("^warning cut%-off client=%d+ reason=", running:line())
    assert.is_true(largest - before > 8000 and largest - before < 40000, largest - before)
    assert.matches("\nconnected_clients:1\r\n", peer:ask "INFO")
    peer:hang_up()
    assert.same({ "", 0 }, { running:stop() })
  end)
end)
