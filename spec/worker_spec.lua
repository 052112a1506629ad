--- The worker, asked over real sockets of the loopback interface, on a clock of our own: what it
--- grants, when, and what becomes of those who wait, leave, or hold.
local ffi = require "ffi"
local socket = require "socket"
local C = require "neap.engine"
local policy = require "neap.policy"
local worker = require "neap.worker"

local MS = 1000000LL

local FILE = [[
policy "api" { limits = { rps = "10/s burst 2" } }
policy "openai" {
  doc = "chat",
  limits = { requests = "10/s burst 100", input = "1000/s burst 1000", calls = "2 in flight" },
  lease = { ttl = "5s", settle = "input" },
}
policy "shut" { limits = { all = "closed" } }
policy "free" { limits = { all = "unlimited" } }
]]

describe("the worker", function ()
  local self, now, address, clients

  local function turns(n)
    for _ = 1, n or 6 do worker.turn(self, 0LL) end
  end

  local function pass(ms)
    now = now + ms * MS
    turns()
  end

  local function connect()
    local host, port = address:match "^(.*):(%d+)$"
    local s = assert(socket.connect(host, tonumber(port)))
    s:settimeout(0)
    clients[#clients + 1] = s
    turns()
    return { socket = s, buffer = "" }
  end

  local function send(client, ...)
    local words = { ... }
    local parts = { ("*%d\r\n"):format(#words) }
    for i, word in ipairs(words) do
      word = tostring(word)
      parts[i + 1] = ("$%d\r\n%s\r\n"):format(#word, word)
    end
    assert(client.socket:send(table.concat(parts)))
    turns()
  end

  local NIL = setmetatable({}, { __tostring = function () return "nil" end })

  --- One reply out of the buffer: its value and what is left, or nothing when it is not there yet.
  local function parse(text)
    local kind, line, rest = text:match "^(.)([^\r]*)\r\n(.*)$"
    if kind == "+" then return line, rest end
    if kind == "-" then return { err = line }, rest end
    if kind == ":" then return tonumber(line), rest end
    if kind == "$" and line == "-1" then return NIL, rest end
    if kind == "$" then return rest:sub(1, line), rest:sub(line + 3) end
    if kind == "*" then
      local list = {}
      for i = 1, tonumber(line) do list[i], rest = parse(rest) end
      return list, rest
    end
  end

  --- The next reply, or nil when there is none.
  local function receive(client)
    turns()
    local _, _, part = client.socket:receive "*a"
    client.buffer = client.buffer .. (part or "")
    if client.buffer == "" then return nil end
    local value
    value, client.buffer = parse(client.buffer)
    return value
  end

  local function ask(client, ...)
    send(client, ...)
    return receive(client)
  end

  local function verdict(...)
    local reply = ask(...)
    if type(reply) == "table" and #reply == 5 then
      reply[2] = reply[2] == NIL and "-" or "lease"
      return table.concat(reply, " ")
    end
    return type(reply) == "table" and reply.err or reply
  end

  --- A lease's name.
  local function lease(...)
    local reply = ask(...)
    assert.equal("GRANTED", reply[1])
    return reply[2]
  end

  before_each(function ()
    now, clients = 1000 * MS, {}
    local tree = assert(policy.parse(FILE, "policy.lua"))
    self = assert(worker.open(tree, {
      listen = { "127.0.0.1:0" }, clock = function () return now end,
    }))
    address = ffi.string(C.neap_server_address(self.server, 0))
  end)

  after_each(function ()
    assert.equal(0, C.neap_engine_check(self.engine))
    for _, s in ipairs(clients) do s:close() end
    worker.close(self)
  end)

  it("grants, and refuses with the time to wait, rounded up", function ()
    local c = connect()
    assert.equal("GRANTED - 0 -1 ", verdict(c, "NEAP.ACQUIRE", "api", "COST", 2))
    assert.equal("RETRY - 0 100 rps", verdict(c, "NEAP.ACQUIRE", "api"))
    now = now + 1
    assert.equal("RETRY - 0 100 rps", verdict(c, "neap.acquire", "api", "peek"))
    pass(99)
    assert.equal("RETRY - 0 1 rps", verdict(c, "NEAP.ACQUIRE", "api"))
    pass(1)
    assert.equal("GRANTED - 0 -1 ", verdict(c, "NEAP.ACQUIRE", "api", "PEEK"))
    assert.equal("GRANTED - 0 -1 ", verdict(c, "NEAP.ACQUIRE", "api"))
    assert.equal("NEVER - 0 -1 rps", verdict(c, "NEAP.ACQUIRE", "api", "COST", "rps", 3))
    assert.equal("NEVER - 0 -1 all", verdict(c, "NEAP.ACQUIRE", "shut"))
    assert.equal("GRANTED - 0 -1 ", verdict(c, "NEAP.ACQUIRE", "free", "COST", "9007199254740992"))
  end)

  it("parks one who waits until its token comes, and then answers what came behind", function ()
    local c = connect()
    ask(c, "NEAP.ACQUIRE", "api", "COST", 2)
    send(c, "NEAP.ACQUIRE", "api", "BLOCK", 1000)
    send(c, "PING")
    assert.is_nil(receive(c))
    pass(99)
    assert.is_nil(receive(c))
    pass(1)
    assert.same({ "GRANTED", NIL, 100, -1, "" }, receive(c))
    assert.equal("PONG", receive(c))
  end)

  it("serves who waits in the order they came, and moves them up when one hangs up", function ()
    local a, b, c = connect(), connect(), connect()
    ask(a, "NEAP.ACQUIRE", "api", "COST", 2)
    for _, client in ipairs { a, b, c } do send(client, "NEAP.ACQUIRE", "api", "BLOCK", 0) end
    assert.equal(3, self.desk.accounts.policies.api.waiting)
    b.socket:close()
    turns()
    assert.equal(2, self.desk.accounts.policies.api.waiting)
    pass(100)
    assert.equal("GRANTED", receive(a)[1])
    assert.is_nil(receive(c))
    pass(100)
    assert.same({ "GRANTED", NIL, 200, -1, "" }, receive(c))
  end)

  it("does not overtake those who wait", function ()
    local a, b = connect(), connect()
    ask(a, "NEAP.ACQUIRE", "api", "COST", 2)
    send(a, "NEAP.ACQUIRE", "api", "COST", 2, "BLOCK", 0)
    pass(150)
    assert.equal("RETRY - 0 150 rps", verdict(b, "NEAP.ACQUIRE", "api"))
    pass(50)
    assert.equal("GRANTED", receive(a)[1])
  end)

  it("says at once when BLOCK is too short, and later when it turned out so", function ()
    local a, b = connect(), connect()
    ask(a, "NEAP.ACQUIRE", "api", "COST", 2)
    assert.equal("RETRY - 0 100 rps", verdict(a, "NEAP.ACQUIRE", "api", "BLOCK", 99))
    ask(a, "NEAP.ACQUIRE", "openai", "ID", "x")
    ask(a, "NEAP.ACQUIRE", "openai", "ID", "y")
    send(b, "NEAP.ACQUIRE", "openai", "BLOCK", 50)
    assert.is_nil(receive(b))
    pass(50)
    assert.same({ "RETRY", NIL, 50, 0, "timeout" }, receive(b))
  end)

  it("lends what is in flight, and takes it back from any connection, once", function ()
    local a, b = connect(), connect()
    local one = lease(a, "NEAP.ACQUIRE", "openai")
    lease(a, "NEAP.ACQUIRE", "openai")
    assert.equal("RETRY - 0 0 calls", verdict(b, "NEAP.ACQUIRE", "openai"))
    send(b, "NEAP.ACQUIRE", "openai", "BLOCK", 0)
    assert.equal(1, ask(a, "NEAP.RELEASE", one, "FAIL"))
    assert.equal("GRANTED", receive(b)[1])
    assert.equal(0, ask(a, "NEAP.RELEASE", one))
  end)

  it("settles what was really used, up or down, without waiting", function ()
    local c = connect()
    local function input()
      local limits = ask(c, "NEAP.SNAPSHOT", "openai")[12]
      return limits[2][6]
    end
    local one = lease(c, "NEAP.ACQUIRE", "openai", "COST", "input", 600)
    assert.equal(400, input())
    assert.equal(1, ask(c, "NEAP.RELEASE", one, "OK", "USED", "input", 100))
    assert.equal(900, input())
    local two = lease(c, "NEAP.ACQUIRE", "openai", "COST", "input", 900)
    ask(c, "NEAP.RELEASE", two, "USED", "input", 1000)
    assert.equal(-100, input())
    assert.equal("RETRY - 0 101 input", verdict(c, "NEAP.ACQUIRE", "openai"))
  end)

  it("ends a lease with its connection, unless it is detached, and with its time", function ()
    local a, b = connect(), connect()
    lease(a, "NEAP.ACQUIRE", "openai")
    local kept = lease(a, "NEAP.ACQUIRE", "openai", "DETACH", "TTL", 300)
    a.socket:close()
    turns()
    lease(b, "NEAP.ACQUIRE", "openai")
    assert.equal("RETRY - 0 0 calls", verdict(b, "NEAP.ACQUIRE", "openai"))
    pass(299)
    assert.equal("RETRY - 0 0 calls", verdict(b, "NEAP.ACQUIRE", "openai"))
    pass(1)
    assert.equal("GRANTED lease 0 -1 ", verdict(b, "NEAP.ACQUIRE", "openai"))
    assert.equal(0, ask(b, "NEAP.RELEASE", kept))
    pass(4700)   -- the first of b is 5 s old
    assert.equal(1, self.desk.leases.count)
  end)

  it("answers one ID with one lease, whoever asks again", function ()
    local a, b = connect(), connect()
    local one = lease(a, "NEAP.ACQUIRE", "api", "ID", "job-1")
    assert.equal(one, lease(b, "NEAP.ACQUIRE", "api", "ID", "job-1"))
    assert.equal("GRANTED - 0 -1 ", verdict(b, "NEAP.ACQUIRE", "api"))
    assert.equal("RETRY - 0 100 rps", verdict(b, "NEAP.ACQUIRE", "api"))
    -- b asked last, so it lives with b
    a.socket:close()
    turns()
    assert.equal(1, ask(b, "NEAP.RELEASE", one))
    assert.equal("RETRY - 0 100 rps", verdict(b, "NEAP.ACQUIRE", "api", "ID", "job-1"))
  end)

  it("lets a second connection join the wait of an ID, and keep it after the first", function ()
    local a, b = connect(), connect()
    ask(a, "NEAP.ACQUIRE", "api", "COST", 2)
    send(a, "NEAP.ACQUIRE", "api", "ID", "job", "BLOCK", 0)
    send(b, "NEAP.ACQUIRE", "api", "ID", "job", "BLOCK", 0)
    assert.equal(1, self.desk.accounts.policies.api.waiting)
    a.socket:close()
    pass(100)
    assert.equal("GRANTED", receive(b)[1])
    assert.equal(1, self.desk.leases.count)
  end)

  it("undoes a grant that meets nobody", function ()
    local a = connect()
    ask(a, "NEAP.ACQUIRE", "api", "COST", 2)
    send(a, "NEAP.ACQUIRE", "api", "BLOCK", 0)
    a.socket:close()
    now = now + 100 * MS   -- the grant falls due in the very turn that sees the hang-up
    turns()
    assert.equal(0, self.desk.accounts.policies.api.waiting)
    assert.equal("GRANTED - 0 -1 ", verdict(connect(), "NEAP.ACQUIRE", "api"))
  end)

  it("keeps a limit under a key, and what was spent when its text changes", function ()
    local c = connect()
    assert.equal("GRANTED - 0 -1 ", verdict(c, "NEAP.LIMIT", "k", "10/s burst 4", "COST", 3))
    assert.equal("GRANTED - 0 -1 ", verdict(c, "NEAP.LIMIT", "other", "10/s burst 4", "COST", 4))
    assert.equal("RETRY - 0 100 limit", verdict(c, "NEAP.LIMIT", "k", "10/s burst 4", "COST", 2))
    assert.equal("GRANTED - 0 -1 ", verdict(c, "NEAP.LIMIT", "k", "10/s burst 5", "COST", 2))
    assert.equal("NEVER - 0 -1 limit", verdict(c, "NEAP.LIMIT", "k", "10/s burst 2", "COST", 3))
    assert.equal("RETRY - 0 100 limit", verdict(c, "NEAP.LIMIT", "k", "10/s burst 2", "PEEK"))
    send(c, "NEAP.LIMIT", "k", "10/s burst 2", "BLOCK", 1000)
    pass(100)
    assert.same({ "GRANTED", NIL, 100, -1, "" }, receive(c))
  end)

  it("bounds the keys, and forgets those that time has refilled", function ()
    self.desk.accounts.limits.max = 3
    local c = connect()
    for i = 1, 3 do ask(c, "NEAP.LIMIT", "k" .. i, "10/s burst 1") end
    assert.equal("ERR all 3 keys of NEAP.LIMIT are in use; try again later",
      verdict(c, "NEAP.LIMIT", "k4", "10/s burst 1"))
    pass(100)
    assert.equal("GRANTED - 0 -1 ", verdict(c, "NEAP.LIMIT", "k4", "10/s burst 1"))
    assert.truthy(#self.desk.accounts.limits.ring <= 3)
  end)

  it("answers what makes no sense with an error, and nothing has happened", function ()
    local c = connect()
    for _, row in ipairs {
      { "NOPOLICY no policy 'opnai' (did you mean 'openai'?)", "NEAP.ACQUIRE", "opnai" },
      { "NOPOLICY no policy 'x'", "NEAP.SNAPSHOT", "x" },
      { "ERR unknown limit 'inptu' in policy 'openai' (did you mean 'input'?)",
        "NEAP.ACQUIRE", "openai", "COST", "inptu", "3" },
      { "ERR unknown option 'BLOK' (did you mean BLOCK?)", "NEAP.ACQUIRE", "api", "BLOK", "3" },
      { "ERR BLOCK needs a whole number from 0 to 2147483648, got '1.5'",
        "NEAP.ACQUIRE", "api", "BLOCK", "1.5" },
      { "ERR BLOCK needs a whole number from 0 to 2147483648, got nothing",
        "NEAP.ACQUIRE", "api", "BLOCK" },
      { "ERR COST needs a whole number from 0 to 9007199254740992, got nothing",
        "NEAP.ACQUIRE", "api", "COST", "rps" },
      { "ERR option PEEK is said twice", "NEAP.ACQUIRE", "api", "PEEK", "PEEK" },
      { "ERR unknown scope 't' in policy 'api'", "NEAP.ACQUIRE", "api", "BY", "t", "1" },
      { "ERR ID needs a token of 1 to 128 bytes", "NEAP.ACQUIRE", "api", "ID", "" },
      { "ERR bad limit '10/x': unknown time unit 'x'", "NEAP.LIMIT", "k", "10/x" },
      { "ERR NEAP.LIMIT takes a rate such as '10/s burst 20', got '3 in flight'; declare a policy "
        .. "for other limits", "NEAP.LIMIT", "k", "3 in flight" },
      { "ERR a key has up to 1024 bytes, got 1025", "NEAP.LIMIT", ("k"):rep(1025), "10/s" },
      { "ERR wrong number of arguments for 'neap.acquire' command", "NEAP.ACQUIRE" },
    } do
      assert.equal(row[1], verdict(c, unpack(row, 2)))
    end
    local one = lease(c, "NEAP.ACQUIRE", "openai")
    assert.equal("ERR 'calls' is held, not used up: RELEASE gives all of it back",
      verdict(c, "NEAP.RELEASE", one, "USED", "calls", 0))
    assert.equal("ERR an outcome is said once: OK, FAIL or IGNORE",
      verdict(c, "NEAP.RELEASE", one, "OK", "FAIL"))
    assert.equal(1, ask(c, "NEAP.RELEASE", one))
    assert.equal("GRANTED - 0 -1 ", verdict(c, "NEAP.ACQUIRE", "api", "COST", 2))
    assert.equal(0, #self.desk.accounts.limits.ring)
  end)

  it("lists policies, by pattern too", function ()
    local c = connect()
    assert.same({ "api", "openai", "shut", "free" }, ask(c, "NEAP.LIST"))
    assert.same({ "api", "openai" }, ask(c, "NEAP.LIST", "*[^x]i"))
    assert.same({ "shut" }, ask(c, "NEAP.LIST", "[sx]*"))
    assert.same({}, ask(c, "NEAP.LIST", "nobody"))
  end)

  it("lets one who waits go when CLIENT UNBLOCK says so", function ()
    local a, b = connect(), connect()
    ask(a, "NEAP.ACQUIRE", "api", "COST", 2)
    local id = ask(a, "CLIENT", "ID")
    send(a, "NEAP.ACQUIRE", "api", "BLOCK", 0)
    pass(40)
    assert.equal(1, ask(b, "CLIENT", "UNBLOCK", id))
    assert.same({ "RETRY", NIL, 40, 60, "timeout" }, receive(a))
    assert.equal(0, ask(b, "CLIENT", "UNBLOCK", id))
    pass(60)
    assert.equal("GRANTED - 0 -1 ", verdict(a, "NEAP.ACQUIRE", "api"))
  end)

  it("tells those who wait that it is going down, and takes nobody new", function ()
    local a, b = connect(), connect()
    ask(a, "NEAP.ACQUIRE", "api", "COST", 2)
    send(a, "NEAP.ACQUIRE", "api", "BLOCK", 0)
    self.desk:drain()
    assert.same({ "SHED", NIL, 0, 1000, "drain" }, receive(a))
    assert.equal("SHED - 0 1000 drain", verdict(b, "NEAP.ACQUIRE", "free"))
  end)
end)
