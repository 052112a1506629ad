--- The floor, through the door: `neap run` as a process, and Redis' own client.
local glob = require "neap.worker.glob"

local POLICY = os.tmpname()

--- Start a worker on a policy; its port, and what ends it.
local function start(policy)
  local file = assert(io.open(POLICY, "w"))
  file:write(policy)
  file:close()
  local pipe = io.popen("echo $$; exec neap run --listen 127.0.0.1:0 " .. POLICY .. " 2>&1")
  local pid = pipe:read "*l"
  local line = pipe:read "*l"
  local port = line and line:match "listening address=127%.0%.0%.1:(%d+)"
  assert(port, line)
  return port, function ()
    os.execute("kill " .. pid)
    local rest = pipe:read "*a"
    pipe:close()
    os.remove(POLICY)
    return rest
  end
end

local function output_of(command)
  local pipe = io.popen(command .. " 2>&1")
  local text = pipe:read "*a"
  pipe:close()
  return (text:gsub("\n+$", ""))
end

describe("floor", function ()
  local port, stop

  local function cli(words, options)
    return output_of(("redis-cli -p %s --no-raw %s %s"):format(port, options or "", words))
  end

  --- A row: the command, what redis-cli shows in RESP2, and in RESP3 if that differs.
  local function rows(list)
    for _, row in ipairs(list) do
      assert.equal(row[2], cli(row[1]), row[1])
      assert.equal(row[3] or row[2], cli(row[1], "-3"), "-3 " .. row[1])
    end
  end

  local function matches(pattern, words, options)
    assert.matches(pattern, cli(words, options))
  end

  describe("without users", function ()
    setup(function () port, stop = start [[policy "p" { limits = { calls = "2 in flight" } }]] end)
    teardown(function () assert.equal("notice draining held=0\ninfo stopped\n", stop()) end)

    it("answers what clients ask first", function ()
      rows {
        { "PING", "PONG" },
        { "PING hi", '"hi"' },
        { "ECHO 'a b'", '"a b"' },
        { "SELECT 0", "OK" },
        { "SELECT 1", "(error) ERR DB index is out of range" },
        { "SELECT x", "(error) ERR value is not an integer or out of range" },
        { "RESET", "RESET" },
        { "QUIT", "OK" },
        { "HELLO 4", "(error) NOPROTO unsupported protocol version" },
        { "HELLO x", "(error) ERR Protocol version is not an integer or out of range" },
        { "HELLO 3 FOO", "(error) ERR Syntax error in HELLO option 'FOO'" },
        { "AUTH x y", "(error) WRONGPASS invalid username-password pair or user is disabled." },
        { "AUTH default x", "OK" },
        { "ACL WHOAMI", '"default"' },
        { "ROLE", '1) "master"\n2) (integer) 0\n3) (empty array)' },
        { "CLUSTER NODES", "ERR This instance has cluster support disabled" },   -- shown raw
        { "GET x", "(nil)" },
        { "FOO a", "(error) ERR unknown command 'FOO', with args beginning with: 'a' " },
        { "SLOWLOG GET", "(empty array)" },
        { "SCAN 0", '1) "0"\n2) (empty array)' },
      }
      matches('"server"\n 2%) "neap"\n 3%) "version"\n 4%) "7.2.0"\n 5%) "proto"', "HELLO 2")
      matches('1# "server" => "neap"\n2# "version" => "7.2.0"\n3# "proto" => %(integer%) 3',
        "HELLO 3")
      matches("^1%) \"%d+\"\n2%) \"%d+\"$", "TIME")
    end)

    it("tells about itself", function ()
      local info = output_of("redis-cli -p " .. port .. " INFO")
      for _, line in ipairs { "redis_version:7.2.0", "neap_version:%d", "loading:0", "role:master",
        "connected_slaves:0", "cluster_enabled:0", "connected_clients:1", "blocked_clients:0" } do
        assert.matches(line, info)
      end
      assert.matches("^# Clients\r", output_of("redis-cli -p " .. port .. " INFO clients"))
      rows {
        { "CONFIG GET save", '1) "save"\n2) ""', '1# "save" => ""' },
        { "CONFIG GET nothing", "(empty array)", "(empty hash)" },
        { "CONFIG SET save x",
          "(error) ERR the policy file is the configuration; nothing can be set here" },
        { "CONFIG FOO", "(error) ERR unknown subcommand 'FOO'. Try CONFIG HELP." },
        { "COMMAND GETKEYS CL.THROTTLE k 1 1 1", '1) "k"' },
        { "COMMAND GETKEYS EXISTS a b", '1) "a"\n2) "b"' },
        { "COMMAND GETKEYS PING", "(error) ERR The command has no key arguments" },
        { "COMMAND GETKEYS FOO", "(error) ERR Invalid command specified" },
        { "COMMAND LIST FILTERBY PATTERN 'neap.rel*'", '1) "neap.release"' },
        { "COMMAND INFO foo", "1) (nil)" },
        { "COMMAND DOCS foo", "(empty array)", "(empty hash)" },
      }
      local _, others = cli("COMMAND LIST"):gsub("\n", "")
      assert.equal(cli "COMMAND COUNT", "(integer) " .. others + 1)
    end)

    it("gives redis-cli its help", function ()
      local help = output_of("printf 'help NEAP.ACQUIRE\nhelp @neap\n' | redis-cli -p " .. port)
      assert.matches("policy %[BY scope value %[BY scope value %.%.%.%]%] %[COST %[limit%] n "
        .. "%[COST %[limit%] n %.%.%.%]%] %[PRIO priority%] %[BLOCK mill", help)
      for _, name in ipairs { "ACQUIRE", "RELEASE", "LIMIT", "SNAPSHOT", "LIST" } do
        assert.matches("NEAP." .. name, help)
      end
    end)

    it("knows the keys of CL.THROTTLE", function ()
      matches("%(integer%) 0\n2%) %(integer%) 16\n3%) %(integer%) 15", "CL.THROTTLE u 15 30 60")
      assert.equal("gcra", cli "TYPE u")
      assert.equal("none", cli "TYPE v")
      assert.equal("(integer) 1", cli "EXISTS u v")
      assert.equal("(integer) 1", cli "DBSIZE")
      matches("^%(integer%) 1?%d%d%d$", "PTTL u")
      assert.equal("(integer) 1", cli "DEL u v")
      assert.equal("(integer) -2", cli "PTTL u")
    end)

    it("names, lists and sends away clients", function ()
      rows {
        { "CLIENT GETNAME", "(nil)" },
        { "CLIENT SETNAME 'a b'", "(error) ERR Client names cannot contain spaces, newlines or " ..
          "special characters, nor have over 127 bytes." },
        { "CLIENT SETINFO LIB-NAME x", "OK" },
        { "CLIENT SETINFO FOO x", "(error) ERR Unrecognized option 'FOO'" },
        { "CLIENT NO-EVICT on", "OK" },
        { "CLIENT MAINT_NOTIFICATIONS ON",
          "(error) ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP." },
        { "CLIENT SETNAME",
          "(error) ERR wrong number of arguments for 'client|setname' command" },
        { "CLIENT KILL 1.2.3.4:5", "(error) ERR No such client" },
        { "CLIENT KILL ID 999999", "(integer) 0" },
        { "CLIENT UNBLOCK 5", "(integer) 0" },
      }
      local session = output_of("printf 'CLIENT SETNAME me\nCLIENT GETNAME\n" ..
        "CLIENT LIST\nCLIENT KILL TYPE normal SKIPME no\n' | redis-cli -p " .. port)
      assert.matches("^OK\nme\n", session)
      assert.matches("\nid=%d+ addr=127[%d.:]+ laddr=127[%d.:]+ fd=%d+ name=me ", session)
      assert.matches("\n1$", session)
    end)
  end)

  describe("with users", function ()
    setup(function ()
      port, stop = start [[
        policy "p" { limits = { calls = "2 in flight" } }
        user "app" { password = "secret", allow = "acquire read" }]]
    end)
    teardown(function () stop() end)

    it("lets nobody in without a password", function ()
      local wrong = "(error) WRONGPASS invalid username-password pair or user is disabled."
      local answers = {
        { "PING", "(error) NOAUTH Authentication required." },
        { "AUTH secret", "(error) ERR AUTH <password> called without any password configured " ..
          "for the default user. Are you sure your configuration is correct?" },
        { "AUTH app wrong", wrong }, { "AUTH app secretsecret", wrong }, { "AUTH app ''", wrong },
        { "AUTH app secret", "OK" },
      }
      for _, row in ipairs(answers) do assert.equal(row[2], cli(row[1]), row[1]) end
      matches("^%(error%) NOAUTH HELLO must be called", "HELLO 3")
      matches('"proto" => %(integer%) 3', "HELLO 3 AUTH app secret SETNAME me")
    end)

    it("lets users do what they may", function ()
      local login = "--user app -a secret --no-auth-warning"
      assert.equal("PONG", cli("PING", login))
      assert.equal('"app"', cli("ACL WHOAMI", login))
      assert.equal("(error) NOPERM this user has no permissions to run the 'del' command",
        cli("DEL x", login))
      assert.equal("(error) NOPERM this user has no permissions to run the 'client|kill' command",
        cli("CLIENT KILL ID 1", login))
    end)
  end)

  it("matches globs as Redis does", function ()
    local list = {   -- pattern, what fits, what does not
      { "*", { "", "a", "abc" }, {} },
      { "a*c", { "ac", "abc", "abcbc" }, { "a", "abcd", "bac" } },
      { "?", { "a" }, { "", "ab" } },
      { "[a-c]x", { "ax", "cx" }, { "dx", "x" } },
      { "[^a-c]x", { "dx" }, { "ax", "x" } },
      { "\\*", { "*" }, { "a" } },
      { "", { "" }, { "a" } },
      { "[c-a]", { "b" }, { "d" } },
      { "[", {}, { "" , "a" } },
    }
    for _, row in ipairs(list) do
      for _, text in ipairs(row[2]) do assert.is_true(glob(row[1], text), row[1] .. " " .. text) end
      for _, text in ipairs(row[3]) do
        assert.is_false(glob(row[1], text), row[1] .. " " .. text)
      end
    end
    assert.is_false(glob(("a*"):rep(50) .. "b", ("a"):rep(10000)))   -- at once, not for ever
  end)
end)
