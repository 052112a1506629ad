--- The worker's HTTP: its answers on a clock of our own, over real sockets.
local bit = require "bit"
local ffi = require "ffi"
local cjson = require "cjson"
local socket = require "socket"
local C = require "neap.engine"
local exposition = require "spec.model.exposition"
local headers = require "neap.headers"
local policy = require "neap.policy"
local worker = require "neap.worker"

local MS = 1000000LL

local FILE = [[
policy "api" { limits = { rps = "10/s burst 2" } }
policy "openai" {
  doc = "chat",
  limits = { requests = "500/min burst 100", input = "1000/s burst 1000", calls = "2 in flight" },
  lease = { ttl = "5s", settle = "input" },
}
policy "shut" { limits = { all = "closed" } }
policy "free" { limits = { all = "unlimited" } }
policy "a/b" { limits = { all = "1/h" } }
]]
local USERS = [[
user "prom" { password = "p:w", allow = "read" }
user "app" { password = "secret", allow = "acquire" }
]]

local LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(text)
  return (text:gsub("..?.?", function (three)
    local a, b, c = three:byte(1, 3)
    local n = a * 65536 + (b or 0) * 256 + (c or 0)
    local out = ""
    for i = 3, 0, -1 do
      local six = bit.band(bit.rshift(n, 6 * i), 63) + 1
      out = out .. LETTERS:sub(six, six)
    end
    return out:sub(1, #three + 1) .. ("="):rep(3 - #three)
  end))
end

describe("the worker's HTTP", function ()
  local self, now, clients

  local function turns(n)
    for _ = 1, n or 6 do worker.turn(self, 0LL) end
  end

  local function pass(ms)
    now = now + ms * MS
    turns()
  end

  local function open(file)
    self = assert(worker.open(assert(policy.parse(file, "policy.lua")), {
      listen = { "127.0.0.1:0" }, http = { "127.0.0.1:0" }, clock = function () return now end,
    }))
  end

  local function connect(listener)
    local address = ffi.string(C.neap_server_address(self.server, listener or 1))
    local host, port = address:match "^(.*):(%d+)$"
    local s = assert(socket.connect(host, tonumber(port)))
    s:settimeout(0)
    clients[#clients + 1] = s
    turns()
    return { socket = s, buffer = "" }
  end

  local function send(client, bytes)
    assert(client.socket:send(bytes))
    turns()
  end

  --- The next response, or nil when there is none.
  local function receive(client, verb)
    turns()
    local all, _, part = client.socket:receive "*a"
    client.buffer, client.closed = client.buffer .. (all or part), client.closed or all ~= nil
    local head, rest = client.buffer:match "^(.-\r\n)\r\n(.*)$"
    if not head then return nil end
    local answer = { status = tonumber(head:match "^HTTP/1%.1 (%d+) "), fields = {}, head = head }
    for name, value in head:gmatch "\n([%w-]+): ([^\r]*)" do
      assert.is_nil(answer.fields[name:lower()], name)
      answer.fields[name:lower()] = value
    end
    local size = verb ~= "HEAD" and tonumber(answer.fields["content-length"]) or 0
    answer.body, client.buffer = rest:sub(1, size), rest:sub(size + 1)
    assert.equal(size, #answer.body)
    return answer
  end

  local function request(verb, path, fields, body)
    return ("%s %s HTTP/1.1\r\nHost: localhost\r\n%s%s\r\n%s"):format(verb, path, fields or "",
      body and "Content-Length: " .. #body .. "\r\n" or "", body or "")
  end

  local function ask(client, verb, path, fields, body)
    send(client, request(verb, path, fields, body))
    return (assert(receive(client, verb), path))
  end

  local function get(client, path, fields) return ask(client, "GET", path, fields) end

  --- Status, verdict, lease, what bound, when to try again.
  local function check(client, path, fields, verb)
    local a = ask(client, verb or "GET", path, fields)
    local f = a.fields
    if not f["x-neap-verdict"] then return a.status .. " " .. a.body:gsub("\n$", "") end
    return ("%d %s %s %s %s"):format(a.status, f["x-neap-verdict"],
      f["x-neap-lease"] and "lease" or "-", f["x-neap-bound"] or "-", f["retry-after"] or "-"), a
  end

  before_each(function ()
    now, clients = 1000 * MS, {}
    open(FILE)
  end)

  after_each(function ()
    assert.equal(0, C.neap_engine_check(self.engine))
    for _, s in ipairs(clients) do s:close() end
    worker.close(self)
  end)

  it("lets a call pass, or says when it could", function ()
    local c = connect()
    assert.equal("200 GRANTED - - -", check(c, "/v1/check/api?cost=2"))
    local verdict, a = check(c, "/v1/check/api?cost=2")
    assert.equal("429 RETRY - rps 1", verdict)
    assert.equal("200", a.fields["retry-after-ms"])
    assert.equal('"rps";q=10;w=1', a.fields["ratelimit-policy"])
    assert.equal('"rps";r=0;t=1', a.fields["ratelimit"])
    assert.same({ verdict = "RETRY", lease = cjson.null, waited_ms = 0, retry_ms = 200,
      bound = "rps" }, cjson.decode(a.body))
    pass(199)
    assert.equal("429 RETRY - rps 1", check(c, "/v1/check/api?cost.rps=2"))
    pass(1)
    assert.equal("200 GRANTED - - -", check(c, "/v1/check/api?cost.rps=2"))
    assert.equal("429 NEVER - rps -", check(c, "/v1/check/api?cost=3"))
    assert.equal("429 NEVER - all -", check(c, "/v1/check/shut"))
    assert.equal("200 GRANTED - - -", check(c, "/v1/check/a%2Fb"))
    assert.equal("429 RETRY - all 3600", check(c, "/v1/check/a%2fb"))
    pass(500)
    assert.equal("403 RETRY - all 3600", check(c, "/v1/check/a%2fb?deny=403"))
    assert.equal("200 GRANTED - - -", check(c, "/v1/check/free?deny=403"))
  end)

  it("tells its limits as clients of other servers read them", function ()
    local _, a = check(connect(), "/v1/check/openai?cost.input=900")
    local policies = headers.structured.list(a.fields["ratelimit-policy"])
    local states = headers.structured.list(a.fields.ratelimit)
    local told = {}
    for i, one in ipairs(policies) do
      local w = one.params.w and one.params.w.value or "-"
      told[i] = ("%s %d/%s %d"):format(one.value, one.params.q.value, w, states[i].params.r.value)
      assert.equal(one.value, states[i].value)
    end
    assert.same({ "requests 500/60 99", "input 1000/1 100", "calls 2/- 1" }, told)
    _, a = check(connect(), "/v1/check/openai?cost.input=600")
    assert.equal('"requests";r=99, "input";r=100;t=1, "calls";r=1', a.fields.ratelimit)
  end)

  it("lends, and takes back what is released, with how it went and what it cost", function ()
    local c = connect()
    local _, one = check(c, "/v1/check/openai?cost.input=600")
    local lease = one.fields["x-neap-lease"]
    check(c, "/v1/check/openai?id=job")
    assert.equal("429 RETRY - calls 1", check(c, "/v1/check/openai"))
    local _, again = check(c, "/v1/check/openai?id=job")
    assert.equal(200, again.status)
    c.socket:close()   -- and they live on
    turns()
    c = connect()
    assert.equal(2, self.desk.leases.count)
    assert.equal(204,
      ask(c, "POST", "/v1/release/" .. lease .. "?outcome=fail&used.input=100").status)
    local a = ask(c, "POST", "/v1/release/" .. lease)
    assert.same({ 404, "no such lease, any more\n" }, { a.status, a.body })
    local form = "Content-Type: application/x-www-form-urlencoded; charset=utf-8\r\n"
    assert.equal(204, ask(c, "POST", "/v1/release/" .. again.fields["x-neap-lease"], form,
      "outcome=ok&used.input=1").status)
    assert.equal(899, cjson.decode(get(c, "/v1/snapshot/openai").body).limits[2].available)
    check(c, "/v1/check/openai?ttl=300ms")
    pass(299)
    assert.equal(1, self.desk.leases.count)
    pass(1)
    assert.equal(0, self.desk.leases.count)
  end)

  it("waits, if told, and answers then what came behind", function ()
    local c = connect()
    check(c, "/v1/check/api?cost=2")
    assert.equal("429 RETRY - rps 1", check(c, "/v1/check/api?wait=0s"))   -- and not for ever
    assert.equal("429 RETRY - rps 1", check(c, "/v1/check/api?wait=99ms"))
    send(c, request("GET", "/v1/check/api?wait=1s") .. request("GET", "/readyz"))
    pass(99)
    assert.is_nil(receive(c))
    pass(1)
    local a = receive(c)
    assert.same({ "GRANTED", "100" }, { a.fields["x-neap-verdict"], a.fields["x-neap-waited-ms"] })
    assert.equal("ready\n", receive(c).body)
    send(c, "GET /v1/check/api?wait=250ms HTTP/1.0\r\n\r\n")
    pass(100)
    assert.equal("close", receive(c).fields.connection)
    assert.is_true(c.closed)
  end)

  it("shares a lease and a wait with clients of Redis, by ID, and keeps both alive", function ()
    local c, redis = connect(), connect(0)
    send(redis, "NEAP.ACQUIRE openai ID job\r\n")
    assert.equal("200 GRANTED lease - -", check(c, "/v1/check/openai?id=job"))
    send(redis, "NEAP.ACQUIRE openai ID next\r\n")
    send(redis, "NEAP.ACQUIRE openai ID last BLOCK 0\r\n")
    send(c, request("GET", "/v1/check/openai?id=last&wait=1m"))
    local openai = self.desk.accounts.policies.openai
    assert.equal(1, openai.waiting)
    local lease = self.desk.leases:find(openai, "next")
    assert.equal(204, ask(connect(), "POST", "/v1/release/" .. lease.name).status)
    assert.equal(200, receive(c).status)
    assert.equal(4, openai.verdicts.GRANTED[""])   -- whoever had the lease already does not count
    redis.socket:close()
    c.socket:close()
    turns()
    assert.equal(2, openai.leases)
  end)

  it("grants nothing to one who hung up while he waited", function ()
    local c = connect()
    check(c, "/v1/check/api?cost=2")
    send(c, request("GET", "/v1/check/api?wait=1s"))
    assert.equal(1, self.desk.accounts.policies.api.waiting)
    c.socket:close()
    turns()
    assert.equal(0, self.desk.accounts.policies.api.waiting)
    pass(100)
    assert.equal("200 GRANTED - - -", check(connect(), "/v1/check/api"))
    assert.same({}, self.desk.voices)
  end)

  it("takes the word of fields only where a proxy's path is behind its own", function ()
    local c = connect()
    local cost = "X-Neap-Policy: free\r\nX-Neap-Cost: 3\r\nX-Neap-Deny: 418\r\n"
    assert.equal("200 GRANTED - - -", check(c, "/v1/check/api", cost))
    assert.equal("418 NEVER - rps -", check(c, "/v1/check/api/", cost))
    assert.equal("418 NEVER - rps -", check(c, "/v1/check/api/users?cost=1&%zz", cost, "DELETE"))
    assert.equal("200 GRANTED - - -", check(c, "/v1/check", cost, "OPTIONS"))
    assert.equal("200 GRANTED - - -", check(c, "/v1/check/?x", "X-Neap-Policy: free\r\n", "PUT"))
    local _, a = check(c, "/v1/check", "X-Neap-Policy: openai\r\nX-Neap-Id: x\r\n"
      .. "X-Neap-Cost: input=600, requests=2\r\nX-Neap-Cost: calls=2\r\n")
    assert.equal('"requests";r=98, "input";r=400, "calls";r=0', a.fields.ratelimit)
  end)

  it("answers what makes no sense, and nothing has happened", function ()
    local c = connect()
    for _, row in ipairs {
      { "404 no policy 'opnai' (did you mean 'openai'?)", "/v1/check/opnai" },
      { "404 no policy 'opnai' (did you mean 'openai'?)", "/v1/snapshot/opnai" },
      { "400 no policy is named, in the path or in X-Neap-Policy", "/v1/check" },
      { "400 no policy is named, in the path or in X-Neap-Policy", "/v1/check/%zz?cost=1" },
      { "400 the query is malformed", "/v1/check/api?cost=%" },
      { "400 unknown parameter 'cots' (did you mean 'cost'?)", "/v1/check/api?cots=1" },
      { "400 unknown limit 'inptu' in policy 'openai' (did you mean 'input'?)",
        "/v1/check/openai?cost.inptu=1" },
      { "400 COST needs a whole number from 0 to 9007199254740992, got '-1'",
        "/v1/check/api?cost.rps=-1" },
      { "400 unknown scope 'tenant' in policy 'api'", "/v1/check/api?by.tenant=42" },
      { "400 bad wait '5'", "/v1/check/api?wait=5" },
      { "400 deny is a status from 400 to 599", "/v1/check/api?deny=200" },
      { "400 option ID is said twice", "/v1/check/api?id=a&id=b" },
      { "400 ID needs a token of 1 to 128 bytes", "/v1/check/api?id=" },
      { "404 nothing is here; see the manual of neap run", "/index.html" },
      { "404 nothing is here; see the manual of neap run", "/metrics/" },
      { "404 nothing is here; see the manual of neap run", "/v1/snapshot/" },
      { "404 nothing is here; see the manual of neap run", "/v1/snapshot/api/x" },
      { "404 nothing is here; see the manual of neap run", "/v1/release/" },
      { "404 nothing is here; see the manual of neap run", "/v1/release" },
      { "404 nothing is here; see the manual of neap run", "//v1/check/api" },
    } do
      local a = get(c, row[2])
      local said = a.status .. " " .. a.body:gsub("\n$", "")
      if row[2]:find "wait" then said = said:match "^[^:]*" end   -- notation's own words follow
      assert.equal(row[1], said, row[2])
      assert.equal("text/plain; charset=utf-8", a.fields["content-type"])
    end
    for path, allow in pairs { ["/metrics"] = "GET, HEAD", ["/healthz"] = "GET, HEAD",
      ["/v1/snapshot"] = "GET, HEAD", ["/readyz"] = "GET, HEAD" } do
      for _, verb in ipairs { "POST", "OPTIONS", "DELETE", "GE", "get", "HEADER" } do
        local a = ask(c, verb, path)
        assert.same({ 405, allow }, { a.status, a.fields.allow }, verb .. path)
      end
    end
    assert.equal("POST", get(c, "/v1/release/x").fields.allow)
    assert.equal(415, ask(c, "POST", "/v1/release/x", "Content-Type: application/json\r\n",
      "{}").status)
    assert.equal(415, ask(c, "POST", "/v1/release/x", "", "outcome=ok").status)
    for query, status in pairs { ["outcome=no"] = 400, ["outcome=ok&outcome=ok"] = 400,
      ["x=1"] = 400, ["%"] = 400, ["outcome=ok"] = 404 } do
      assert.equal(status, ask(c, "POST", "/v1/release/x?" .. query).status, query)
    end
    assert.equal("200 GRANTED - - -", check(c, "/v1/check/api?cost=2"))
    assert.same({}, self.desk.voices)
  end)

  it("lets nothing run, be stored, or be read by another origin", function ()
    local c = connect()
    for _, path in ipairs { "/metrics", "/healthz", "/readyz", "/v1/check/api", "/v1/snapshot",
      "/v1/snapshot/api", "/x", "/v1/release/x" } do
      local f = get(c, path, "Origin: http://evil\r\n").fields
      assert.same({ "nosniff", "no-store", "default-src 'none'; frame-ancestors 'none'" },
        { f["x-content-type-options"], f["cache-control"], f["content-security-policy"] })
      assert.truthy(f.date:find "^%u%l%l, %d%d %u%l%l %d%d%d%d %d%d:%d%d:%d%d GMT$")
      for name in pairs(f) do assert.is_nil(name:find "^access%-control") end
    end
  end)

  it("answers HEAD as GET, without the body", function ()
    local c = connect()
    local a, b = get(c, "/v1/snapshot/api"), ask(c, "HEAD", "/v1/snapshot/api")
    assert.same({ 200, a.fields["content-length"], "" },
      { b.status, b.fields["content-length"], b.body })
    assert.equal("ok\n", get(c, "/healthz").body)
  end)

  it("tells what there is as JSON", function ()
    local c = connect()
    check(c, "/v1/check/openai?cost.input=600")
    local a = get(c, "/v1/snapshot/openai")
    assert.equal("application/json", a.fields["content-type"])
    assert.equal('{"policy":"openai","doc":"chat","waiting":0,"leases":1,'
      .. '"said":{"granted":1,"waited":0,"retry":0,"never":0,"shed":0},"limits":['
      .. '{"name":"requests","limit":"500\\/min burst 100","available":99,"capacity":100},'
      .. '{"name":"input","limit":"1k\\/s","available":400,"capacity":1000},'
      .. '{"name":"calls","limit":"2 in flight","available":1,"capacity":2,'
      .. '"in_flight":1}]}\n', a.body)
    local all = cjson.decode(get(c, "/v1/snapshot").body).policies
    local names = {}
    for i, one in ipairs(all) do names[i] = one.policy end
    assert.same({ "api", "openai", "shut", "free", "a/b" }, names)
    assert.equal(cjson.null, all[4].limits[1].available)
  end)

  it("is well, and ready until it drains", function ()
    local c, waits = connect(), connect()
    assert.equal(200, get(c, "/healthz").status)
    assert.equal(200, get(c, "/readyz").status)
    check(c, "/v1/check/api?cost=2")
    send(waits, request("GET", "/v1/check/api?wait=1s"))
    C.neap_server_drain(self.server)
    self.desk:drain()
    local a = receive(waits)
    assert.same({ 503, "drain", "1" },
      { a.status, a.fields["x-neap-bound"], a.fields["retry-after"] })
    c = connect()   -- who asks anew hears it
    a = get(c, "/readyz")
    assert.same({ 503, "draining\n" }, { a.status, a.body })
    assert.equal("503 SHED - drain 1", check(c, "/v1/check/free"))
    assert.equal("403 SHED - drain 1", check(c, "/v1/check/free?deny=403"))
    assert.equal(200, get(c, "/healthz").status)
  end)

  it("asks who it is where users are declared", function ()
    worker.close(self)
    open(FILE .. USERS)
    local c = connect()
    local function as(name) return "Authorization: basic " .. base64(name) .. "\r\n" end
    local a = get(c, "/metrics")
    assert.same({ 401, 'Basic realm="neap", charset="UTF-8"' },
      { a.status, a.fields["www-authenticate"] })
    for _, fields in ipairs { as "prom:p", as "prom:p:wx", as "prom", as "nobody:p:w", as "",
      "Authorization: Basic\r\n", "Authorization: Basic !!\r\n",
      "Authorization: Bearer " .. base64 "prom:p:w" .. "\r\n",
      as "prom:p:w" .. as "prom:p:w" } do
      assert.equal(401, get(c, "/metrics", fields).status, fields)
    end
    assert.equal(200, get(c, "/metrics", as "prom:p:w").status)
    assert.equal(200, get(c, "/v1/snapshot/api", as "prom:p:w").status)
    assert.equal(403, get(c, "/v1/check/api", as "prom:p:w").status)
    assert.equal(403, get(c, "/metrics", as "app:secret").status)
    assert.equal(200, get(c, "/v1/check/api", as "app:secret").status)
    assert.equal(404, ask(c, "POST", "/v1/release/x", as "app:secret").status)
    assert.equal(401, get(c, "/v1/check/api").status)
    assert.equal(200, get(c, "/healthz").status)
    assert.equal(200, get(c, "/readyz").status)
  end)

  it("counts, as Prometheus reads it", function ()
    local c = connect()
    check(c, "/v1/check/api?cost=2")
    check(c, "/v1/check/api")
    check(c, "/v1/check/api")
    check(c, "/v1/check/openai")
    send(c, request("GET", "/v1/check/api?wait=1s"))
    pass(100)
    receive(c)
    for accept, type in pairs {
      [""] = "text/plain", ["Accept: */*\r\n"] = "text/plain",
      ["Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
        .. "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n"] = "openmetrics",
      ["Accept: application/openmetrics-text;version=2.0.0\r\n"] = "text/plain",
      ["Accept: application/openmetrics-text;q=0\r\n"] = "text/plain",
      ["Accept: text/plain;q=0.5, application/openmetrics-text; q=0.5\r\n"] = "openmetrics",
      ["Accept: text/plain, application/openmetrics-text;q=0.9\r\n"] = "text/plain",
    } do
      local a = get(c, "/metrics", accept)
      local is_open = type == "openmetrics"
      assert.equal(is_open, a.fields["content-type"]
        == "application/openmetrics-text; version=1.0.0; charset=utf-8", accept)
      assert.equal("Accept", a.fields.vary)
      assert.equal(is_open, a.body:sub(-7) == "\n# EOF\n")
      local said = {}
      for _, family in ipairs(exposition(is_open and "openmetrics" or "prometheus", a.body)) do
        for _, one in ipairs(family.samples) do said[one.key] = one.value end
      end
      for key, value in pairs {
        ['neap_acquire_total{bound="",policy="api",verdict="granted"}'] = 2,
        ['neap_acquire_total{bound="rps",policy="api",verdict="retry"}'] = 2,
        ['neap_wait_seconds_count{policy="api"}'] = 4,
        ['neap_wait_seconds_bucket{le="0.067108863",policy="api"}'] = 3,
        ['neap_wait_seconds_sum{policy="api"}'] = 0.099999999,   -- see neap_stats_wait
        ['neap_available{limit="requests",policy="openai"}'] = 99,
        ['neap_limit_available_ratio{limit="calls",policy="openai"}'] = 0.5,
        ['neap_in_flight{limit="calls",policy="openai"}'] = 1,
        ['neap_leases{policy="openai"}'] = 1,
        ['neap_clients{}'] = 1, ['neap_draining{}'] = 0,
      } do
        assert.equal(value, said[key], key)
      end
    end
  end)

  it("never has a label with a caller's key", function ()
    local c, redis = connect(), connect(0)
    send(redis, 'NEAP.LIMIT some-key "10/s"\r\nCL.THROTTLE other-key 1 1 1\r\n')
    local body = get(c, "/metrics").body
    assert.is_nil(body:find("-key", 1, true))
    assert.truthy(body:find('\nneap_key_acquire_total{verdict="granted",bound=""} 1\n', 1, true))
    assert.truthy(body:find("\nneap_keys 1\n", 1, true))
  end)

  it("shows so many policies and says how many more there are", function ()
    worker.close(self)
    local file = {}
    for i = 1, 302 do
      file[i] = ('policy "%s%d" { limits = { a = "1/s", b = "2 in flight" } }\n'):format(
        ("p"):rep(120), i)
    end
    open(table.concat(file))
    local c = connect()
    send(c, request("GET", "/metrics"))
    local bytes, closed = "", false
    repeat
      turns(1)
      assert.is_false(closed, "cut off")
      local all, why, part = c.socket:receive "*a"
      bytes, closed = bytes .. (all or part), why ~= "timeout"
      local size = bytes:match "Content%-Length: (%d+)"
    until size and #bytes >= tonumber(size)
    assert.truthy(bytes:find("\nneap_policies_hidden 2\n", 1, true))
    assert.truthy(bytes:find('policy="' .. ("p"):rep(120) .. '300"', 1, true))
    assert.is_nil(bytes:find('policy="' .. ("p"):rep(120) .. '301"', 1, true))
  end)

  it("answers one whose handler fails, sends him away, and goes on", function ()
    local c, other = connect(), connect()
    local works = self.desk.works
    self.desk.works = function () error "on purpose" end
    local log = {}
    self.log.write = function (line) log[#log + 1] = line end
    send(c, request("GET", "/healthz"))
    self.desk.works = works
    assert.equal(500, receive(c).status)
    assert.is_true(c.closed)
    assert.truthy(log[1]:find('^error bug bug="/healthz: .*on purpose'))
    assert.equal(200, get(other, "/healthz").status)
  end)
end)
