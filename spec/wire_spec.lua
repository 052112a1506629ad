--- Nonsense on the wire, as `neap run` answers it, byte for byte: sent in one piece and in single
--- bytes, to strangers, to those who logged in, and where nobody needs to.
local process = require "spec.process"

local OPEN, USERS = [[policy "p" { limits = { rate = "10/s" } }]],
  [[user "app" { password = "secret" }]]
local NOAUTH = "-NOAUTH Authentication required.\r\n"
local BIG = ("x"):rep(70000)

local function broken(what) return "-ERR Protocol error: " .. what .. "\r\n" end

local function bulk(size) return ("$%d\r\n%s\r\n"):format(size, ("x"):rep(size)) end

-- What is sent, the answer, "close" or "open" after it, and what the log says if it is something
-- else than that of broken commands.
local ANYBODY = {
  { "*1\r\n$-1\r\n", broken "invalid bulk length", "close" },
  { "*1\r\n$-5\r\n", broken "invalid bulk length", "close" },
  { "*1\r\n$abc\r\n", broken "invalid bulk length", "close" },
  { "*1\r\n$536870913\r\n", broken "invalid bulk length", "close" },
  { "*1\r\n:1\r\n", broken "expected '$', got ':'", "close" },
  { "*abc\r\n", broken "invalid multibulk length", "close" },
  { "*2147483648\r\n", broken "invalid multibulk length", "close" },
  { "*-1\r\n", "", "open" },
  { "*0\r\n", "", "open" },
  { "\r\n", "", "open" },
  { BIG, broken "too big inline request", "close" },
  { "*" .. BIG, broken "too big mbulk count string", "close" },
  { "PING 'a\r\n", broken "unbalanced quotes in request", "close" },
  { 'PING "a\r\n', broken "unbalanced quotes in request", "close" },
  { "POST / HTTP/1.1\r\n", "", "close", "an HTTP request at the RESP port" },
  { "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", "close", "an HTTP request at the RESP port" },
  { "Host: x\r\n", "", "close", "an HTTP request at the RESP port" },
  { "\22\3\1\2\0\1\0\1\252", "", "close", "a TLS hello at the RESP port; neap speaks no TLS" },
  { "HELLO 4\r\n", "-NOPROTO unsupported protocol version\r\n", "open" },
  { "*2\r\n$5\r\nHELLO\r\n$1\r\n4\r\n", "-NOPROTO unsupported protocol version\r\n", "open" },
  { "AUTH app wrong\r\n", "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    "open" },
  { "QUIT\r\nPING\r\n", "+OK\r\n", "close" },
}

local LET_IN = {
  { "*2\r\n$4\r\nPING\r\n$2\r\nabc\r\n", broken "expected CRLF after bulk", "close" },
  { "*2\r\n$4\r\nPING\r\n$65537\r\n", broken "invalid bulk length", "close" },
  { "*257\r\n", broken "invalid multibulk length", "close" },
  { "*2\r\n$4\r\nECHO\r\n" .. bulk(65536), bulk(65536), "open" },
  { "FOO\r\n", "-ERR unknown command 'FOO', with args beginning with: \r\n", "open" },
  { "FOO " .. ("x"):rep(200) .. " y\r\n", "-ERR unknown command 'FOO', with args beginning with: '"
    .. ("x"):rep(128) .. "' \r\n", "open" },
  { ("F"):rep(200) .. "\r\n", "-ERR unknown command '" .. ("F"):rep(128)
    .. "', with args beginning with: \r\n", "open" },
  { "*2\r\n$3\r\nF\nO\r\n$3\r\na\r\n\r\n", "-ERR unknown command 'F O', with args beginning with: "
    .. "'a  ' \r\n", "open" },
  { "GET\r\n", "-ERR wrong number of arguments for 'get' command\r\n", "open" },
  { "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", "$-1\r\n", "open" },
  { "PING\r\n*x\r\nPING\r\n", "+PONG\r\n" .. broken "invalid multibulk length", "close" },
  { "*2\r\n$12\r\nNEAP.ACQUIRE\r\n$3\r\nnop\r\n", "-NOPOLICY no policy 'nop'\r\n", "open" },
}

local STRANGERS = {
  { "*11\r\n", broken "unauthenticated multibulk length", "close" },
  { "*10\r\n$4\r\nPING\r\n" .. ("$1\r\nx\r\n"):rep(9), NOAUTH, "open" },
  { "*1\r\n$16385\r\n", broken "unauthenticated bulk length", "close" },
  { "*2\r\n$4\r\nPING\r\n" .. bulk(16384), NOAUTH, "open" },
  { "GET x\r\n", NOAUTH, "open" },
  { "FOO\r\n", "-ERR unknown command 'FOO', with args beginning with: \r\n", "open" },
  { "NEAP.ACQUIRE p\r\n", NOAUTH, "open" },
  { "INFO\r\n", NOAUTH, "open" },
  { "COMMAND\r\n", NOAUTH, "open" },
  { "HELLO 3\r\n", "-NOAUTH HELLO must be called with the client already authenticated, "
    .. "otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the "
    .. "client and select the RESP protocol version at the same time\r\n", "open" },
  { "HELLO 3 AUTH app wrong\r\n",
    "-WRONGPASS invalid username-password pair or user is disabled.\r\n", "open" },
  { "AUTH app secret\r\nPING\r\nRESET\r\nPING\r\n", "+OK\r\n+PONG\r\n+RESET\r\n" .. NOAUTH,
    "open" },
}

describe("nonsense on the wire", function ()
  local worker, login, alive

  after_each(process.sweep)

  --- One row: in one piece, or a byte at a time.
  local function try(row, in_bytes)
    local sent, answer, fate = unpack(row)
    local peer = process.dial(worker.address)
    if login then assert.equal("OK", peer:ask("AUTH", "app", "secret")) end
    if in_bytes then
      for i = 1, #sent do peer:say(sent:sub(i, i)) end
    else
      peer:say(sent)
    end
    local heard, closed
    if fate == "close" then
      heard, closed = peer:hear()
    else
      peer:say "PING\r\n"
      heard, closed = peer:hear(#answer + #alive)
      answer = answer .. alive
    end
    peer:hang_up()
    assert.same({ answer, fate == "close" }, { heard, closed }, sent:sub(1, 60))
  end

  --- How often the log tells each reason, and what else it says. Those told again are folded.
  local function reasons(said)
    local counts = {}
    for line in said:gmatch "[^\n]+" do
      local reason, again = line:match '^warning cut%-off client=%d+ reason="(.*)"(.*)$'
      again = again and (again:match "^ again=(%d+) within=10s$" or again == "" and 1)
      local what = again and reason or line
      counts[what] = (counts[what] or 0) + (again or 1)
    end
    return counts
  end

  --- Rows, and at the end what the log says of them and of nothing else.
  local function try_all(lists)
    local log = {}
    for _, rows in ipairs(lists) do
      for _, row in ipairs(rows) do
        for times = 1, #row[1] > 1000 and 1 or 2 do
          try(row, times == 2)
          local why = row[4] or row[2]:find "Protocol error" and "sent what is no command"
          if why then log[why] = (log[why] or 0) + 1 end
        end
      end
    end
    local said, status = worker:stop()
    assert.same({ log, 0 }, { reasons(said), status })
  end

  it("is answered where nobody needs to log in", function ()
    worker = process.worker(OPEN)
    login, alive = false, "+PONG\r\n"
    try_all { ANYBODY, LET_IN }
  end)

  it("is answered to strangers where users are declared", function ()
    worker = process.worker(OPEN .. USERS)
    login, alive = false, NOAUTH
    try_all { ANYBODY, STRANGERS }
  end)

  it("is answered to those who logged in", function ()
    worker = process.worker(OPEN .. USERS)
    login, alive = true, "+PONG\r\n"
    try_all { ANYBODY, LET_IN }
  end)
end)
