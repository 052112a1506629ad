--- Streams that nobody would send, to `neap run`: commands of RESP and requests of HTTP, well
--- formed, then damaged, in pieces, by clients that hang up or do not. Whatever they were: the
--- worker lives, answers others, holds nothing for those who left, and does not grow.
---
---     NEAP_SECONDS=600   so long, instead of 5,000 streams; meant for a build with sanitizers
local lfs = require "lfs"
local process = require "spec.process"
local seed = require "spec.seed"
local socket = require "socket"

local concat, random = table.concat, math.random

local BIN = (os.getenv "NEAP_BUILD" or "build") .. "/bin/neap"
local SECONDS = tonumber(os.getenv "NEAP_SECONDS")
local STREAMS, CROWD, LOOK_EVERY = 5000, 30, 50
local GROWTH_KB = 16 * 1024   -- what a worker may grow by once it is warm
local FREED_KB = 8 * 1024     -- what a sanitizer may keep of freed memory

local POLICY = [[
policy "api" { limits = { rps = "1000/s", input = "100k/s" }, queue = { max = 50, timeout = "1s" },
  per "tenant" { limits = { rps = "10/s burst 2" }, keep = "1k keys" } }
policy "one" { limits = { calls = "2 in flight" }, lease = { ttl = "2s" },
  breaker = { trip = "3 consecutive", cooldown = "100ms" } }
]]

-- These would end the test.
local NOT_THESE = { SHUTDOWN = true, DEBUG = true }

local WORDS = { "api", "one", "tenant", "k", "BY", "COST", "BLOCK", "TTL", "ID", "x", "DETACH",
  "PRIO", "PEEK", "OK", "FAIL", "STATUS", "503", "USED", "HEADER", "0", "1", "2", "30", "-1", "1e3",
  "10/s burst 2", "9007199254740993", "9223372036854775807", "", "\r\n", "a b", "neap:*", "LIST",
  "ID", "SETNAME", "HELP", "GET", ("y"):rep(1025), "\255\254" }

local REQUESTS = {
  "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
  "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: gzip\r\n\r\n",
  "GET /v1/check/api?cost=1&wait=20ms HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
  "GET /v1/check/one?deny=403 HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Neap-Id: x\r\n\r\n",
  "POST /v1/release/0123456789abcdef HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n"
    .. "outcome=ok",
  "GET /v1/events?policy=api HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
  "GET /v1/snapshot/one HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
  "HEAD /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
}

local TELLING = { "\r", "\n", "\r\n", "\0", "*", "$", ":", "\"", "'", " ", "?", "%", "\255",
  "HTTP/1.1" }
local NUMBERS = { "0", "-1", "1", "257", "65536", "65537", "1048577", "2147483648",
  "9223372036854775808", "-0", "01", "", "1.5", "abc" }

local function one_of(list) return list[random(#list)] end

local function as_command(words)
  local parts = { ("*%d\r\n"):format(#words) }
  for i, word in ipairs(words) do parts[i + 1] = ("$%d\r\n%s\r\n"):format(#word, word) end
  return concat(parts)
end

local function damaged(text)
  local at = random(#text)
  local kind = random(6)
  local before = text:sub(1, at - 1)
  if kind == 1 then return before .. string.char(random(0, 255)) .. text:sub(at + 1) end
  if kind == 2 then return before .. one_of(TELLING) .. text:sub(at) end
  if kind == 3 then return before .. text:sub(at + random(20)) end
  if kind == 4 then return text:sub(1, at) .. text:sub(random(at)) end
  if kind == 5 then return text:sub(1, at) end
  local from, to = text:find("%d+", at)
  return from and text:sub(1, from - 1) .. one_of(NUMBERS) .. text:sub(to + 1) or text
end

describe("streams that nobody would send", function ()
  after_each(process.sweep)

  --- Kilobytes of memory in use.
  local function memory(worker)
    local file = assert(io.open("/proc/" .. worker.pid .. "/status"))
    local kb = file:read "*a":match "VmRSS:%s+(%d+)"
    file:close()
    return tonumber(kb)
  end

  local function start()
    local log, path = process.unused_path(), process.file(POLICY)
    local worker = process.start { "env", "ASAN_OPTIONS=detect_leaks=0:quarantine_size_mb="
      .. FREED_KB / 1024, BIN, "run", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0",
      "--drain", "1ms", "--log", log, path }
    worker.log = log
    process.eventually(function ()
      local file = io.open(log)
      local said = file and file:read "*a" or ""
      if file then file:close() end
      worker.address = said:match "address=(%S+) protocol=resp\n"
      worker.http = said:match "address=(%S+) protocol=http\n"
      return worker.address and worker.http
    end)
    os.remove(path)
    return worker
  end

  --- The names of all commands that may be asked here.
  local function commands(worker)
    local peer, names = process.dial(worker.address), {}
    for _, about in ipairs(peer:ask "COMMAND") do
      local name = about[1]:upper()
      if not NOT_THESE[name] then names[#names + 1] = name end
    end
    peer:hang_up()
    return names
  end

  local function stream(names)
    local parts, of_http = {}, random(4) == 1
    for i = 1, random(5) do
      if of_http then
        parts[i] = one_of(REQUESTS)
      else
        local words = { one_of(names) }
        for k = 2, random(7) do words[k] = one_of(WORDS) end
        parts[i] = as_command(words)
      end
    end
    local text = concat(parts)
    for _ = 1, random(0, 4) do
      if text ~= "" then text = damaged(text) end
    end
    return text, of_http
  end

  --- Send it in pieces, and look at what comes, without waiting for anything.
  local function send(worker, text, of_http)
    local host, port = (of_http and worker.http or worker.address):match "^(.*):(%d+)$"
    local wire = assert(socket.connect(host, tonumber(port)))
    wire:settimeout(0)
    local at = 1
    while at <= #text do
      local size = random(3) == 1 and random(8) or random(#text)
      if not wire:send(text:sub(at, at + size - 1)) then break end
      at = at + size
      if random(4) == 1 then wire:receive "*a" end
    end
    return wire
  end

  local function hang_up(wire)
    if random(2) == 1 then wire:setoption("linger", { on = true, timeout = 0 }) end   -- RST
    wire:close()
  end

  --- It answers, over either port.
  local function look(worker)
    local peer = process.dial(worker.address)
    assert.equal("still there", peer:ask("ECHO", "still there"))
    peer:hang_up()
    peer = process.dial(worker.http)
    peer:say "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    assert.matches("^HTTP/1.1 200 ", (peer:hear()))
    peer:hang_up()
  end

  it("harm nobody", function ()
    math.randomseed(seed)
    local worker = start()
    local names, crowd, n, warm = commands(worker), {}, 0, nil
    assert.is_true(#names > 30)
    local since = socket.gettime()
    local function done()
      if SECONDS then return socket.gettime() - since > SECONDS end
      return n >= STREAMS
    end
    repeat
      for _ = 1, LOOK_EVERY do
        local place = random(CROWD)
        if crowd[place] then hang_up(crowd[place]) end
        crowd[place] = send(worker, stream(names))
      end
      n = n + LOOK_EVERY
      look(worker)
      if not warm and SECONDS and socket.gettime() - since > SECONDS / 4 then
        warm = memory(worker)
      end
    until done()
    for _, wire in pairs(crowd) do hang_up(wire) end

    local peer = process.dial(worker.address)
    process.eventually(function ()
      for _, name in ipairs { "api", "one" } do
        local reply = peer:ask("NEAP.SNAPSHOT", name)
        if reply[4] ~= 0 then return false end   -- waiting
      end
      return peer:ask "INFO":find "\nconnected_clients:1\r\n" ~= nil
    end)
    peer:hang_up()
    local grown = warm and memory(worker) - warm or 0
    if SECONDS then print(("# %d streams; grew by %d kB after %d kB"):format(n, grown, warm)) end
    assert.is_true(grown < GROWTH_KB, grown)
    assert.same({ "", 0 }, { worker:stop() })   -- a sanitizer would have said something
    assert.is_true(lfs.attributes(worker.log, "size") > 0)
    for line in io.lines(worker.log) do
      assert.matches("^%S+Z %l+ [%l-]+ ?", line)
      assert.falsy(line:find " error " or line:find "traceback", line)
    end
    os.remove(worker.log)
  end)
end)
