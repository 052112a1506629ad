--- Real clients and `neap run`, each a process of its own: what they see from the connect to the
--- permit, what becomes of those that are killed, and how the worker starts and ends.
local socket = require "socket"
local process = require "spec.process"

local null, output, quoted = process.null, process.output, process.quoted

local BUILD = os.getenv "NEAP_BUILD" or "build"
local BIN = BUILD .. "/bin/neap"
local AT_ONCE_S = 20   -- where the alternative is a minute

local POLICY = [[
policy "one" { limits = { calls = "1 in flight" } }
policy "pair" { limits = { rate = "2/s burst 2" } }
policy "fast" { limits = { rate = "1000000/s", calls = "1000 in flight" } }
]]
local USER = [[user "app" { password = "secret" }]]

local QUIET = "--no-auth-warning"

describe("a client", function ()
  local worker

  after_each(process.sweep)

  --- What redis-cli says, in the form it has for people.
  local function cli(words, options)
    return (output(("redis-cli -p %s --no-raw %s %s"):format(worker.port, options or "", words)))
  end

  local function info(field)
    return tonumber(cli("INFO", "--raw"):match("\n" .. field .. ":(%d+)"))
  end

  --- A redis-cli in the background, on one connection.
  local function start_cli(...) return process.start { "redis-cli", "-p", worker.port, ... } end

  local function waiting(policy)
    local fields = worker.watch:ask("NEAP.SNAPSHOT", policy)
    return fields[4]
  end

  --- Somebody who looks, and knows when so many wait.
  local function until_waiting(policy, count)
    worker.watch = worker.watch or process.dial(worker.address)
    process.eventually(function () return waiting(policy) == count end)
  end

  --- The worker ends well, and had nothing to say.
  local function stop() assert.same({ "", 0 }, { worker:stop() }) end

  -- ---- tools ------------------------------------------------------------------------------------

  describe("of Redis", function ()
    before_each(function () worker = process.worker(POLICY) end)
    after_each(stop)

    it("gets permits, in RESP2 and RESP3", function ()
      local lease = '1) "GRANTED"\n2) "%x+"\n3) (integer) 0\n4) (integer) -1\n5) ""\n'
      for _, options in ipairs { "", "-3" } do
        assert.matches(lease:gsub("[()-]", "%%%0"), cli("NEAP.ACQUIRE one", options))
        assert.equal('(error) NOPOLICY no policy \'onr\' (did you mean \'one\'?)\n',
          cli("NEAP.ACQUIRE onr", options))
      end
      assert.equal("(integer) 0\n", cli "NEAP.RELEASE nothing")
      assert.equal(' 1) "policy"\n 2) "pair"\n 3) "waiting"\n',
        cli "NEAP.SNAPSHOT pair":match "^.-\n.-\n.-\n")
      assert.equal('1# "policy" => "pair"\n2# "waiting" => (integer) 0\n',
        cli("NEAP.SNAPSHOT pair", "-3"):match "^.-\n.-\n")
    end)

    it("throttles as with redis-cell", function ()
      assert.equal("0\n16\n15\n-1\n2\n", cli("CL.THROTTLE user123 15 30 60", "--raw"))
      assert.equal("0\n16\n14\n-1\n4\n", cli("GCRA user123 15 30 60", "--raw"))
      assert.equal("1\n16\n14\n4\n4\n", cli("GCRA user123 15 30 60 TOKENS 16", "--raw"))
      assert.equal("gcra\n", cli("TYPE user123", "--raw"))
    end)

    it("pipes commands as lines and as bytes", function ()
      local lines = "printf 'PING\\nNEAP.LIST\\nECHO \"a b\"\\n' | redis-cli -p " .. worker.port
      assert.same({ "PONG\none\npair\nfast\na b\n", 0 }, { output(lines) })
      local commands = {}
      for i = 1, 3000 do
        local id = ("%04d"):format(i)
        commands[i] = "*3\r\n$12\r\nNEAP.ACQUIRE\r\n$4\r\nfast\r\n$4\r\nPEEK\r\n" ..
          "*2\r\n$4\r\nECHO\r\n$4\r\n" .. id .. "\r\n"
      end
      local path = process.file(table.concat(commands))
      local said, status = output(("redis-cli -p %s --pipe <%s"):format(worker.port, path))
      os.remove(path)
      assert.same({ "All data transferred. Waiting for the last reply...\n" ..
        "Last reply received from server.\nerrors: 0, replies: 6000\n", 0 }, { said, status })
    end)

    it("is helped when it only reads lines", function ()
      local said = output(("printf 'help NEAP.ACQUIRE\\nhelp @neap\\n' | redis-cli -p %s"):format(
        worker.port)):gsub("\27%[[%d;]*m", ""):gsub("\r", "")
      local line = "  NEAP.ACQUIRE policy [BY scope value [BY scope value ...]] [COST [limit] n " ..
        "[COST [limit] n ...]] [PRIO priority] [BLOCK milliseconds] [PEEK] [ID token] [TTL ttl] " ..
        "[DETACH]\n"
      local from, to = said:find(line, 1, true)
      assert.truthy(from and said:find(line, to, true), said)   -- alone, and among its group
      local peer, count = process.dial(worker.address), 0
      for _, about in ipairs(peer:ask "COMMAND") do
        local name = about[1]:upper()
        if name:find "^NEAP%." then
          count = count + 1
          assert.truthy(said:find("\n  " .. name .. " ", to, true), name)
        end
      end
      assert.is_true(count >= 10)
      peer:hang_up()
    end)

    it("is watched with --stat, --latency, --bigkeys and CLIENT LIST", function ()
      local said = output("stdbuf -oL timeout 1 redis-cli -i 0.1 --stat -p " .. worker.port)
      assert.matches("requests +connections *\n0 +[%d.]+[KM] +1 +0 +1 %(%+0%) +1 ", said)
      assert.matches("^%d+ %d+ [%d.]+ %d+\n$", (output("redis-cli --latency -p " .. worker.port)))
      said = cli("", "--bigkeys")
      assert.matches("Sampled 0 keys in the keyspace!", said)
      assert.falsy(said:find "[Ee]rr")
      local holder = process.dial(worker.address)
      holder:ask("CLIENT", "SETNAME", "holder")
      assert.equal("GRANTED", holder:ask("NEAP.ACQUIRE", "one")[1])
      local parked = start_cli("NEAP.ACQUIRE", "one", "BLOCK", "0")
      until_waiting("one", 1)
      local list = cli("CLIENT LIST", "--raw")
      assert.matches(" name=holder .* cmd=neap.acquire ", list)
      assert.matches(" flags=b .* cmd=neap.acquire user=default ", list)
      assert.equal(4, info "connected_clients")   -- who asks is one of them
      assert.equal(1, info "blocked_clients")
      parked:stop "KILL"
      until_waiting("one", 0)
      holder:hang_up()
      worker.watch:hang_up()
    end)

    --- redis-cli at a terminal: keys typed, and what the screen shows before the next ones are.
    local function at_a_terminal(rows)
      local screen = process.unused_path()
      local keyboard = assert(io.popen(("REDISCLI_HISTFILE=/dev/null REDISCLI_RCFILE=/dev/null " ..
        "script -q -f -c 'stty cols 100 rows 30; exec redis-cli -p %s' %s >/dev/null"):format(
        worker.port, screen), "w"))
      local seen, all = 0, nil
      local fine, problem = pcall(function ()
        for _, row in ipairs(rows) do
          keyboard:write(row[1])
          keyboard:flush()
          process.eventually(function ()
            local file = io.open(screen)
            all = file and file:read "*a":gsub("\27%[[%d;]*%a", ""):gsub("\r", "") or ""
            if file then file:close() end
            local _, to = all:find(row[2], seen + 1, true)
            seen = to or seen
            return to
          end)
        end
      end)
      if not fine then keyboard:write "\3\4" end   -- it ends, and so can we
      keyboard:close()
      os.remove(screen)
      assert(fine, problem)
      return all
    end

    it("helps and hints at a terminal, without a warning", function ()
      local prompt = "127.0.0.1:" .. worker.port .. "> "
      local screen = at_a_terminal {
        { "", prompt },
        { "NEAP.ACQUIRE ",
          prompt .. "NEAP.ACQUIRE policy [BY scope value [BY scope value ...]] [COS" },
        { "pair\r",
          '1) "GRANTED"\n2) (nil)\n3) (integer) 0\n4) (integer) -1\n5) ""\n' .. prompt },
        { "NEAP.SN\t", prompt .. "NEAP.SNAPSHOT policy" },
        { " pair\r", '\n 2) "pair"\n' },
        { "help @neap\r", "NEAP.ACQUIRE policy [BY scope value" },
        { "", "NEAP.LIMIT key limit [COST cost] [BLOCK milliseconds] [PEEK]" },
        { "", "NEAP.RELEASE lease [OK|FAIL|IGNORE] [STATUS status]" },
        { "", "NEAP.SNAPSHOT policy [BY scope value" },
        { "quit\r", "quit\n" },
      }
      assert.falsy(screen:find "[Ww]arning", screen)
      assert.falsy(screen:find "[Ee]rror", screen)
    end)

    it("measures without a warning", function ()
      local runs = {   -- what, how often it says so
        { "-t ping", 2 }, { "-P 16 -t ping -3", 2 }, { "PING", 1 },
        { "-P 16 -r 1000 CL.THROTTLE k:__rand_int__ 15 30 60", 1 },
        { "-P 16 --threads 2 CL.THROTTLE k 15 30 60", 1 }, { "-P 16 NEAP.ACQUIRE pair", 1 },
        { "-c 20 NEAP.ACQUIRE fast BLOCK 1000 PEEK", 1 }, { "NEAP.LIMIT k '10/s burst 20'", 1 },
      }
      for _, row in ipairs(runs) do
        local said, status = output(("redis-benchmark --csv -n 2000 -p %s %s"):format(worker.port,
          row[1]))
        assert.equal(0, status, said)
        local _, count = said:gsub('\n"[^\n]*","%d+%.%d+","', "")
        assert.equal(row[2], count, said)
        assert.falsy(said:find "[Ww][Aa][Rr][Nn]" or said:find "[Ee]rror", said)
      end
      assert.equal(0, info "blocked_clients")
    end)
  end)

  it("of hiredis gets permits by TCP and by a Unix socket", function ()
    local path = process.unused_path()
    for _, listen in ipairs { "127.0.0.1:0", "unix:" .. path } do
      worker = process.worker(POLICY, listen)
      local said, status = output(("%s/spec/c/hiredis_client %s"):format(BUILD,
        worker.port and "127.0.0.1 " .. worker.port or path))
      assert.equal(0, status, said)
      assert.falsy(said:find "not ok")
      stop()
    end
  end)

  it("reaches a Unix socket with redis-cli and redis-benchmark", function ()
    local path = process.unused_path()
    worker = process.worker(POLICY, "unix:" .. path)
    assert.equal("PONG\n", (output("redis-cli -s " .. path .. " PING")))
    assert.matches("addr=unix:" .. path .. " .* cmd=client",
      (output("redis-cli -s " .. path .. " CLIENT LIST")))
    local said = output("redis-benchmark --csv -n 1000 -t ping -s " .. path)
    assert.matches('"PING_MBULK","%d+', said)
    assert.falsy(said:find "WARN")
    stop()
    assert.same({ "", 1 }, { output("test -e " .. path) })
  end)

  -- ---- who waits and who holds ------------------------------------------------------------------

  describe("among others", function ()
    before_each(function () worker = process.worker(POLICY) end)
    after_each(function ()
      if worker.watch then worker.watch:hang_up() end
      stop()
    end)

    it("killed in the line, lets the next one be served", function ()
      local holder, last = process.dial(worker.address), process.dial(worker.address)
      local lease = holder:ask("NEAP.ACQUIRE", "one")[2]
      local doomed = {}
      for i = 1, 2 do
        doomed[i] = start_cli("NEAP.ACQUIRE", "one", "BLOCK", "0")
        until_waiting("one", i)
      end
      last:send("NEAP.ACQUIRE", "one", "BLOCK", 0)
      until_waiting("one", 3)
      for _, one in ipairs(doomed) do assert.same({ "", 137 }, { one:stop "KILL" }) end
      until_waiting("one", 1)
      holder:send("NEAP.RELEASE", lease)
      local reply = last:receive()
      assert.same({ "GRANTED", -1, "" }, { reply[1], reply[4], reply[5] })
      last:hang_up()
      holder:hang_up()
    end)

    it("killed while it holds, gives to the next one at once", function ()
      local holder = start_cli("-r", "-1", "-i", "60", "NEAP.ACQUIRE", "one")
      assert.equal("GRANTED", holder:line())
      local next_one = process.dial(worker.address)
      next_one:send("NEAP.ACQUIRE", "one", "BLOCK", 0)
      until_waiting("one", 1)
      local killed = socket.gettime()
      holder:signal "KILL"
      assert.equal("GRANTED", next_one:receive()[1])
      assert.is_true(socket.gettime() - killed < AT_ONCE_S)
      next_one:hang_up()
      process.eventually(function () return worker.watch:ask("NEAP.SNAPSHOT", "one")[6] == 0 end)
    end)

    it("races eight others for one lease, and one of them has it", function ()
      local said = output(([[
        for i in 1 2 3 4 5 6 7 8; do
          redis-cli -p %s NEAP.ACQUIRE one DETACH | head -n 1 &
        done
        wait]]):format(worker.port))
      local _, granted = said:gsub("GRANTED\n", "")
      local _, later = said:gsub("RETRY\n", "")
      assert.same({ 1, 7 }, { granted, later }, said)
    end)

    it("detached keeps its lease past its own end, and anybody gives it back", function ()
      local lease = cli("NEAP.ACQUIRE one DETACH", "--raw"):match "^GRANTED\n(%x+)\n"
      assert.matches("^RETRY\n\n0\n0\ncalls\n", cli("NEAP.ACQUIRE one", "--raw"))
      assert.equal("1\n", cli("NEAP.RELEASE " .. lease, "--raw"))
      assert.matches("^GRANTED\n", cli("NEAP.ACQUIRE one", "--raw"))
      assert.matches("^GRANTED\n", cli("NEAP.ACQUIRE one", "--raw"))   -- the last died with its cli
      cli "NEAP.ACQUIRE one DETACH TTL 100"
      assert.matches("^GRANTED\n", cli("NEAP.ACQUIRE one BLOCK 5000", "--raw"))
    end)

    it("that asks again with its ID gets the same lease", function ()
      local asking = "NEAP.ACQUIRE one DETACH ID job-7"
      local lease = cli(asking, "--raw")
      assert.matches("^GRANTED\n%x+\n0\n%-1\n\n$", lease)
      assert.equal(lease, cli(asking, "--raw"))
      assert.matches("^RETRY\n", cli("NEAP.ACQUIRE one ID job-8", "--raw"))
      cli("NEAP.RELEASE " .. lease:match "\n(%x+)")
      assert.not_equal(lease, cli(asking, "--raw"))
    end)

    it("that retries while its first attempt waits joins it, and outlives it", function ()
      local holder, again = process.dial(worker.address), process.dial(worker.address)
      local lease = holder:ask("NEAP.ACQUIRE", "one")[2]
      local first = start_cli("NEAP.ACQUIRE", "one", "ID", "x", "BLOCK", "0")
      until_waiting("one", 1)
      again:send("NEAP.ACQUIRE", "one", "ID", "x", "BLOCK", "0")
      process.eventually(function () return info "blocked_clients" == 2 end)
      assert.equal(1, waiting "one")
      first:stop "KILL"
      process.eventually(function () return info "blocked_clients" == 1 end)
      holder:ask("NEAP.RELEASE", lease)
      assert.equal("GRANTED", again:receive()[1])
      again:hang_up()
      holder:hang_up()
    end)

    it("sent away while it waits leaves the line; let go, it hears that", function ()
      local holder = process.dial(worker.address)
      holder:ask("NEAP.ACQUIRE", "one")
      local one, other = process.dial(worker.address), process.dial(worker.address)
      local id, other_id = one:ask("CLIENT", "ID"), other:ask("CLIENT", "ID")
      one:send("NEAP.ACQUIRE", "one", "BLOCK", 0)
      until_waiting("one", 1)
      other:send("NEAP.ACQUIRE", "one", "BLOCK", 0)
      until_waiting("one", 2)
      assert.equal("1\n", cli("CLIENT KILL ID " .. id, "--raw"))
      assert.same({ "", true }, { one:hear() })
      until_waiting("one", 1)
      assert.equal("1\n", cli("CLIENT UNBLOCK " .. other_id, "--raw"))
      local reply = other:receive()
      assert.same({ "RETRY", null, 0, "timeout" }, { reply[1], reply[2], reply[4], reply[5] })
      assert.equal(0, waiting "one")
      for _, peer in ipairs { one, other, holder } do peer:hang_up() end
    end)

    it("sends commands behind one that waits, and has the answers in order", function ()
      local holder, one = process.dial(worker.address), process.dial(worker.address)
      local lease = holder:ask("NEAP.ACQUIRE", "one")[2]
      one:send("NEAP.ACQUIRE", "one", "BLOCK", 0)
      one:send("NEAP.ACQUIRE", "one", "BLOCK", 10)
      one:send("PING")
      until_waiting("one", 1)
      holder:ask("NEAP.RELEASE", lease)
      assert.equal("GRANTED", one:receive()[1])
      local second = one:receive()
      assert.same({ "RETRY", null, "timeout" }, { second[1], second[2], second[5] })
      assert.is_true(second[3] >= 10)
      assert.equal("PONG", one:receive())
      one:hang_up()
      holder:hang_up()
    end)
  end)

  -- ---- passwords --------------------------------------------------------------------------------

  it("has to know the password", function ()
    worker = process.worker(POLICY .. USER)
    local denied = "AUTH failed: WRONGPASS invalid username-password pair or user is disabled.\n"
    local noauth = "(error) NOAUTH Authentication required.\n"
    assert.equal(noauth, cli "PING")
    assert.equal(denied .. noauth, cli("PING", "--user app --pass wrong " .. QUIET))
    assert.equal("PONG\n", cli("PING", "--user app --pass secret " .. QUIET))
    assert.equal('(error) NOPOLICY no policy \'x\'\n',
      cli("NEAP.ACQUIRE x", "-3 --user app --pass secret " .. QUIET))
    assert.same({ "PONG\n", 0 }, { output(("redis-cli -u redis://app:secret@%s/0 %s PING"):format(
      worker.address, QUIET)) })
    local said = output(("redis-benchmark --csv -n 1000 -p %s --user app -a secret PING"):format(
      worker.port))
    assert.matches('\n"PING","%d+', said)
    assert.falsy(said:find "NOAUTH" or said:find "WARN", said)
    local peer = process.dial(worker.address)
    assert.matches("^NOAUTH HELLO must", peer:ask("HELLO", "3").err)
    assert.matches("^WRONGPASS", peer:ask("HELLO", "3", "AUTH", "app", "secre").err)
    assert.matches("^NOAUTH ", peer:ask("NEAP.ACQUIRE", "one").err)
    local hello = peer:ask("HELLO", "3", "AUTH", "app", "secret", "SETNAME", "me")
    assert.same({ "server", "neap", "proto", 3 }, { hello[1], hello[2], hello[5], hello[6] })
    assert.equal("GRANTED", peer:ask("NEAP.ACQUIRE", "one")[1])
    peer:hang_up()
    stop()
  end)
end)

-- ---- how it starts and ends ---------------------------------------------------------------------

describe("the program", function ()
  after_each(process.sweep)

  it("starts or says in one line why not", function ()
    local worker = process.worker(POLICY)
    local open, locked, closed = process.file(POLICY), process.file(POLICY), process.unused_path()
    output(("chmod 000 %s; mkdir -m 555 %s"):format(locked, closed))
    -- a root without its rights
    local prefix = output "id -u" == "0\n" and "setpriv --bounding-set=-all --inh-caps=-all " or ""
    local function refused(expected, ...)
      local words = { ... }
      for i, word in ipairs(words) do words[i] = quoted(word) end
      local said, status = output(prefix .. quoted(BIN) .. " run " .. table.concat(words, " "))
      assert.same({ "neap: " .. expected .. "\n", 1 }, { said, status })
    end
    refused(worker.address .. ": Address already in use", "--listen", worker.address, open)
    refused(("unix:%s/neap.sock: Permission denied"):format(closed), "--listen",
      "unix:" .. closed .. "/neap.sock", open)
    refused("unix:/no/such/dir: No such file or directory", "--listen", "unix:/no/such/dir", open)
    refused(("cannot read '%s': Permission denied"):format(locked), locked)
    refused("192.0.2.1:6390: without users only this machine may connect: 127.0.0.1, [::1] or " ..
      "unix:/path", "--listen", "192.0.2.1:6390", open)
    local first_free = io.open "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    if first_free and first_free:read "*n" > 1 then
      refused("127.0.0.1:1: Permission denied", "--listen", "127.0.0.1:1", open)
    end
    if first_free then first_free:close() end
    output(("rm -r %s %s %s"):format(open, locked, closed))
    assert.same({ "", 0 }, { worker:stop() })
  end)

  it("tells all mistakes of a policy before it listens", function ()
    local there = "cd spec/policies; " .. quoted((BIN:gsub("^[^/]", "../../%0")))
    local said, status = output(there .. " run bad.lua")
    assert.same({ said, 1 }, { output(there .. " check bad.lua") })
    assert.equal(1, status)
    assert.matches("^bad.lua:3:21: .*\nbad.lua:15:1: ", said)
  end)

  it("ends with a word to those who wait, status 0 and no socket left", function ()
    local path = process.unused_path()
    local worker = process.worker(POLICY, "unix:" .. path, "--drain", "1m")
    local holder = process.dial(worker.address)
    local lease = holder:ask("NEAP.ACQUIRE", "one")[2]
    local parked, peers = {}, {}
    for i = 1, 3 do
      parked[i] = process.start { "redis-cli", "-s", path, "NEAP.ACQUIRE", "one", "BLOCK", "60000" }
      peers[i] = process.dial(worker.address)
      peers[i]:send("NEAP.ACQUIRE", "one", "BLOCK", 0)
    end
    process.eventually(function () return holder:ask("NEAP.SNAPSHOT", "one")[4] == 6 end)
    worker:signal "TERM"
    for i = 1, 3 do
      local reply = peers[i]:receive()
      assert.same({ "SHED", null, 1000, "drain" }, { reply[1], reply[2], reply[4], reply[5] })
      local said, status = parked[i]:finish()
      assert.matches("^SHED\n\n%d+\n1000\ndrain\n$", said)
      assert.equal(0, status)
      peers[i]:hang_up()
    end
    local told = socket.gettime()
    assert.equal(1, holder:ask("NEAP.RELEASE", lease))
    assert.same({ "notice draining held=1\ninfo stopped\n", 0 }, { worker:finish() })
    assert.is_true(socket.gettime() - told < AT_ONCE_S)
    holder:hang_up()
    assert.same({ "", 1 }, { output("test -e " .. path) })
  end)
end)
