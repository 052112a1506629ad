--- /v1/events and the page: what is sent, to whom, and under which name it may be asked for; on a
--- clock of our own, over real sockets.
local ffi = require "ffi"
local cjson = require "cjson"
local socket = require "socket"
local unix = require "socket.unix"
local C = require "neap.engine"
local policy = require "neap.policy"
local process = require "spec.process"
local worker = require "neap.worker"

local MS = 1000000LL

local FILE = [[
policy "api" { limits = { rps = "10/s burst 2" } }
policy "pool" { limits = { calls = "1 in flight" }, lease = { ttl = "5s" } }
]]
local USERS = [[
user "ear" { password = "e", allow = "events" }
user "eye" { password = "e", allow = "read" }
user "app" { password = "e", allow = "acquire" }
]]

describe("a stream", function ()
  local self, now, clients, path

  local function turns()
    for _ = 1, 6 do worker.turn(self, 0LL) end
  end

  local function pass(ms)
    now = now + ms * MS
    turns()
  end

  local function open(file, ...)
    self = assert(worker.open(assert(policy.parse(file, "policy.lua")),
      { listen = {}, http = { "127.0.0.1:0", ... }, clock = function () return now end }))
  end

  local function connect()
    local host, port = ffi.string(C.neap_server_address(self.server, 0)):match "^(.*):(%d+)$"
    local s = assert(socket.connect(host, tonumber(port)))
    s:settimeout(0)
    clients[#clients + 1] = s
    return s
  end

  --- What has come; and whether the line is closed.
  local function hear(s)
    turns()
    local all, _, part = s:receive "*a"
    return all or part, all ~= nil
  end

  local function request(s, target, fields, verb)
    s:send(("%s %s HTTP/1.1\r\nHost: 127.0.0.1:9390\r\n%s\r\n"):format(verb or "GET", target,
      fields or ""))
    return hear(s)
  end

  --- A new connection's answer: its head, and the body so far.
  local function ask(target, fields, verb)
    local s = connect()
    local head, body = request(s, target, fields, verb):match "^(.-\r\n\r\n)(.*)$"
    return head, body, s
  end

  local function status(head) return tonumber(head:match "^HTTP/1.1 (%d+)") end

  local function basic(name)   -- "name:e" in base64, for three letters
    local texts = { ear = "ZWFyOmU=", eye = "ZXllOmU=", app = "YXBwOmU=" }
    return "Authorization: Basic " .. texts[name] .. "\r\n"
  end

  before_each(function ()
    now, clients, path = 1000 * MS, {}, nil
    open(FILE)
  end)

  after_each(function ()
    for _, s in ipairs(clients) do s:close() end
    worker.close(self)
    if path then os.remove(path) end
  end)

  it("tells events as they happen", function ()
    local head, body, s = ask "/v1/events"
    assert.equal(200, status(head))
    assert.matches("\r\nContent%-Type: text/event%-stream; charset=utf%-8\r\n", head)
    assert.matches("\r\nConnection: close\r\n", head)
    assert.is_nil(head:lower():find "content%-length")
    assert.equal("retry: 1000\n\n", body)
    self.events:emit("api", "open", { trips = 3 })
    local message = self.events.recent[1]
    assert.equal(("id: %s\ndata: %s\n\n"):format(message.id, message.text), hear(s))
    s:send "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"   -- nothing more is answered
    assert.equal("", hear(s))
    assert.equal(1, self.stream.count)
    s:close()
    turns()
    assert.same({ 0, {}, C.neap_never }, { self.stream.count, self.stream.listeners,
      self.stream.due })
  end)

  it("tells of one policy, of several, and what was missed", function ()
    for i = 1, 5 do self.events:emit(i % 2 == 0 and "api" or "pool", "open", { i = i }) end
    local function numbers(body)
      local list = {}
      for i in body:gmatch '"i":(%d+)' do list[#list + 1] = tonumber(i) end
      return list
    end
    local function told(target, fields) return numbers((select(2, ask(target, fields)))) end
    assert.same({}, told "/v1/events")
    assert.same({ 3, 4, 5 }, told "/v1/events?last=3")
    assert.same({ 2, 4 }, told "/v1/events?last=100&policy=api")
    assert.same({ 1, 2, 3, 4, 5 }, told "/v1/events?last=100&policy=api&policy=pool&policy=-")
    local id = "Last-Event-ID: " .. self.events.recent[2].id .. "\r\n"
    assert.same({ 3, 4, 5 }, told("/v1/events", id))
    assert.same({ 4 }, told("/v1/events?policy=api&last=9", id))
    local _, _, s = ask "/v1/events?policy=api"
    self.events:emit("pool", "open", { i = 6 })
    self.events:emit("api", "close", { i = 7 })
    self.events:emit("-", "drain", { i = 8 })
    assert.same({ 7 }, numbers(hear(s)))
  end)

  it("tells the state, the same as the snapshot, once a second", function ()
    local function state(text)
      return text:match "^event: state\ndata: ([^\n]*)\n\n$"
    end
    local _, body, s = ask "/v1/events?state=1"
    assert.truthy(state(body:gsub("^retry: 1000\n\n", "")), body)
    pass(999)
    assert.equal("", hear(s))
    pass(1)
    local text = assert(state(hear(s)))
    local _, asked = ask "/v1/snapshot"
    assert.equal(text .. "\n", (asked:gsub('"clients":2', '"clients":1')))
    local decoded = cjson.decode(text)
    assert.same({ 2000, false, 1 }, { decoded.worker.now_ms, decoded.worker.draining,
      decoded.worker.clients })
    pass(2500)
    assert.truthy(state(hear(s)))   -- one, however late
    pass(999)
    assert.equal("", hear(s))
    pass(1)
    assert.truthy(state(hear(s)))
    self.desk:drain()
    turns()
    local last = hear(s)
    assert.matches('"event":"drain"', last)
    assert.matches('\nevent: state\ndata: [^\n]*"draining":true', last)
  end)

  it("counts what was said, and who waited first", function ()
    local a, b = connect(), connect()
    request(a, "/v1/check/pool?ttl=2s")
    request(b, "/v1/check/pool?wait=3s")
    request(connect(), "/v1/check/pool")
    request(connect(), "/v1/check/api?cost=9")
    local function said(i)
      local one = cjson.decode((select(2, ask "/v1/snapshot"))).policies[i]
      local s = one.said
      return { one.waiting, one.limits[1].in_flight or "-", s.granted, s.waited, s.retry, s.never,
        s.shed }
    end
    assert.same({ 1, 1, 1, 0, 1, 0, 0 }, said(2))
    pass(2000)
    assert.same({ 0, 1, 2, 1, 1, 0, 0 }, said(2))
    assert.same({ 0, "-", 0, 0, 0, 1, 0 }, said(1))
  end)

  it("shows a sign of life when nothing happens", function ()
    local _, _, s = ask "/v1/events"
    for _ = 1, 14 do pass(1000) end
    assert.equal("", hear(s))
    pass(1000)
    assert.equal(":\n\n", hear(s))
    for _ = 1, 14 do pass(1000) end
    assert.equal("", hear(s))
  end)

  it("is not kept for one that never reads", function ()
    local _, _, slow = ask "/v1/events?state=1"
    local facts, most = ffi.new "struct neap_client", 0
    local id = C.neap_server_after(self.server, 0)
    local filler, n = ("x"):rep(1000), 0
    repeat   -- states alone: they stop when it is behind
      self.desk.accounts.policies.api.doc = ("x"):rep(50000)
      pass(1000)
      n = n + 1
      C.neap_server_client(self.server, id, facts)
      most = math.max(most, facts.out_bytes)
    until most > 65536 or n > 1000
    assert.truthy(most > 65536 and most < 2^18, most)
    now = now + 1000 * MS
    for _ = 1, 5 do pass(1000) end   -- five more would be past the bound
    C.neap_server_client(self.server, id, facts)
    assert.truthy(facts.out_bytes < 2^18, facts.out_bytes)   -- the kernel may have taken some
    n, most = 0, 0
    repeat   -- events cannot be left out
      for i = 1, 100 do self.events:emit("p" .. i, "open", { filler = filler }) end
      pass(100)
      n = n + 1
      if C.neap_server_client(self.server, id, facts) == 0 then
        most = math.max(most, facts.out_bytes)
      end
    until self.stream.count == 0 or n > 100
    assert.equal(0, self.stream.count)
    assert.truthy(most > 2^21 and most <= C.NEAP_HTTP_REPLY_BYTES, most)
    assert.truthy(slow)
  end)

  it("has no more than 64 listeners, and says what is wrong", function ()
    for _, row in ipairs {
      { 404, "/v1/events?policy=ap" }, { 400, "/v1/events?last=x" },
      { 400, "/v1/events?last=1000" }, { 400, "/v1/events?state=2" },
      { 400, "/v1/events?x=1" }, { 400, "/v1/events?%" },
      { 404, "/v1/events/" }, { 405, "/v1/events", "POST" }, { 200, "/v1/events", "HEAD" },
    } do
      local head, body = ask(row[2], nil, row[3])
      assert.equal(row[1], status(head), row[2])
      if row[3] == "HEAD" then assert.equal("", body) end
    end
    turns()
    assert.equal(0, self.stream.count)
    for _ = 1, 64 do assert.equal(200, status((ask "/v1/events"))) end
    local head = ask "/v1/events"
    assert.equal(503, status(head))
    assert.matches("\r\nRetry%-After: 5\r\n", head)
    clients[#clients - 1]:close()
    turns()
    assert.equal(200, status((ask "/v1/events")))
  end)

  it("tells those with one of two rights that much", function ()
    worker.close(self)
    open(FILE .. USERS)
    self.events:emit("api", "open")
    local function told(name)
      local head, body = ask("/v1/events?state=1&last=9", name and basic(name))
      return status(head), body:find('"event":"open"', 1, true) ~= nil,
        body:find("event: state", 1, true) ~= nil
    end
    assert.same({ 200, true, false }, { told "ear" })
    assert.same({ 200, false, true }, { told "eye" })
    assert.same({ 403, false, false }, { told "app" })
    assert.same({ 401, false, false }, { told() })
    local function page(name) return status((ask("/", name and basic(name)))) end
    assert.same({ 401, 200, 403, 403 }, { page(), page "eye", page "ear", page "app" })
  end)

  it("has a page whose parts only are let in", function ()
    local head, body = ask "/"
    assert.equal(200, status(head))
    assert.matches("\r\nContent%-Type: text/html; charset=utf%-8\r\n", head)
    local rules = head:match "\r\nContent%-Security%-Policy: ([^\r]*)"
    local nonce = rules:match "^default%-src 'none'; script%-src 'nonce%-(%x+)'; "
    assert.equal(32, #nonce)
    assert.matches("style%-src 'nonce%-" .. nonce .. "'; img%-src data:; connect%-src 'self'; "
      .. "base%-uri 'none'; form%-action 'none'; frame%-ancestors 'none'$", rules)
    assert.same({ 1, 1, 0 }, { select(2, body:gsub('<script nonce="' .. nonce .. '">', "")),
      select(2, body:gsub('<style nonce="' .. nonce .. '">', "")), select(2, body:gsub("{{", "")) })
    assert.is_nil(body:find "https?://[^w]")   -- the name of SVG is no address
    assert.is_nil(body:find "style=")
    local other = ask("/"):match "'nonce%-(%x+)'"
    assert.truthy(other and other ~= nonce)
    local bare = ask("/", nil, "HEAD")
    assert.equal(head:match "Content%-Length: %d+", bare:match "Content%-Length: %d+")
  end)

  it("answers to this machine's names alone, while nobody logs in", function ()
    local function asked(target, host, verb)
      local s = connect()
      s:send(("%s %s HTTP/1.1\r\nHost: %s\r\n\r\n"):format(verb or "GET", target, host))
      return status(hear(s))
    end
    for _, host in ipairs { "localhost", "LOCALHOST:9390", "127.0.0.1", "127.9.9.9:80",
      "[::1]:9390", "neap.localhost:1" } do
      assert.equal(200, asked("/", host), host)
    end
    for _, host in ipairs { "evil.example", "evil.example:9390", "127.0.0.1.evil.example",
      "localhost.evil.example", "evil-localhost", "10.0.0.1", "127.0.0.1@evil", "[::2]", "" } do
      for _, target in ipairs { "/", "/v1/events", "/v1/snapshot", "/v1/snapshot/api",
        "/metrics" } do
        assert.equal(421, asked(target, host), host .. target)
      end
      assert.equal(421, asked("/v1/release/x", host, "POST"))
      assert.equal(200, asked("/healthz", host))
    end
    assert.equal(200, asked("/v1/check/api", "evil.example"))   -- a proxy's caller called that
    worker.close(self)
    path = process.unused_path()
    open(FILE, "unix:" .. path)
    local s = unix()
    assert(s:connect(path))
    s:settimeout(0)
    clients[#clients + 1] = s
    s:send "GET /v1/snapshot HTTP/1.1\r\nHost: neap\r\n\r\n"
    assert.equal(200, status(hear(s)))
    worker.close(self)
    open(FILE .. USERS)
    s = connect()
    s:send("GET /v1/snapshot HTTP/1.1\r\nHost: neap.example\r\n" .. basic "eye" .. "\r\n")
    assert.equal(200, status(hear(s)))
  end)
end)
