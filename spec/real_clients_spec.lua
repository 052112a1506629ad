--- Redis clients of other languages and `neap run`: see spec/clients/README.
---
---     NEAP_CLIENTS=all   those that a package manager has to fetch, too: minutes the first time
local process = require "spec.process"

local BUILD = os.getenv "NEAP_BUILD" or "build"
local ALL = os.getenv "NEAP_CLIENTS" == "all"

local POLICY = [[
policy "one" { limits = { calls = "1 in flight" } }
policy "frail" { limits = { rate = "1000/s" }, breaker = { trip = "1 consecutive" } }
]]

local SEEN = [[
first GRANTED
second RETRY timeout
release 1
third GRANTED
time-out
fourth GRANTED same
release 1
release 0
]]

local HEARD = "heard neap:frail:open\n"
local ORPHAN = "time-out\norphan GRANTED same 1\ntaken back true\n"

-- The folder, the program its language needs, what else it tells, and a package of npm's.
local CLIENTS = {
  { "redis_py", "python3", HEARD }, { "node_redis", "npm", HEARD }, { "ioredis", "npm", HEARD },
  { "node_redis", "npm", HEARD, "redis@4.7.1" }, { "ioredis", "npm", HEARD, "ioredis@4.31.0" },
  { "ioredis", "npm", HEARD, "ioredis@5.11.1" }, { "ioredis", "npm", HEARD, "iovalkey@0.4.0" },
  { "glide", "npm", ORPHAN }, { "go_redis", "go", "" }, { "redis_rs", "cargo", "" },
  { "jedis", "mvn", "" },
}

-- Of the system's own languages, where there is one: how it says PING.
local PINGS = {
  ruby = [[ruby -W -e 'require "redis"; print Redis.new(port: %s).ping']],
  perl = [[perl -w -MRedis -e 'print Redis->new(server => "127.0.0.1:%s")->ping']],
  phpredis = [[php -r 'error_reporting(E_ALL); $r = new Redis(); $r->connect("127.0.0.1", %s);
    echo $r->ping() === true ? "PONG" : "?";']],
  predis = [[php -r 'require "Predis/autoload.php";
    $r = new Predis\Client("tcp://127.0.0.1:%s"); echo $r->ping();']],
  lua = [[luajit -e 'io.write(require "redis".connect("127.0.0.1", %s):ping() and "PONG")']],
}
local NEEDS = {
  ruby = "ruby -e 'require \"redis\"'", perl = "perl -MRedis -e 1",
  phpredis = "php -r 'exit(class_exists(\"Redis\") ? 0 : 1);'",
  predis = "php -r 'exit(@include(\"Predis/autoload.php\") ? 0 : 1);'",
  lua = "luajit -e 'require \"redis\"'",
}

describe("a client of another language", function ()
  after_each(process.sweep)

  --- The worker is as it was, and ends.
  local function stop(worker)
    local left = process.dial(worker.address)
    local reply = left:ask("NEAP.SNAPSHOT", "one")
    assert.same({ "waiting", 0, "leases", 0 }, { reply[3], reply[4], reply[5], reply[6] })
    left:hang_up()
    assert.same({ "", 0 }, { worker:stop() })
  end

  for _, row in ipairs(CLIENTS) do
    local client, needed, more, package = unpack(row)
    local title = package or client
    it("gets permits, waits, gives up and comes back: " .. title, function ()
      if client ~= "redis_py" then
        if not ALL then return pending(title .. ": fetched with NEAP_CLIENTS=all") end
        local _, status = process.output("command -v " .. needed)
        if status ~= 0 then return pending(("%s: there is no %s"):format(title, needed)) end
      end
      local worker = process.worker(POLICY)
      local source = process.output "pwd":match "[^\n]+" .. "/spec/clients/" .. client
      local own, other = ("%s/clients/%s"):format(BUILD, title), ""
      if package then other = "PACKAGE=" .. package end
      local said, status = process.output(("env -u LD_PRELOAD -u NEAP_BUILD sh -c '" ..
        "mkdir -p %s && cd %s && SOURCE=%s %s timeout 600 %s/run 127.0.0.1 %s 2>errors || " ..
        "{ cat errors; exit 1; }'"):format(own, own, source, other, source,
        worker.port))
      assert.same({ SEEN .. more, 0 }, { said:match "^ping %w+\n(.*)" or said, status })
      stop(worker)
    end)
  end

  for client, words in pairs(PINGS) do
    it("says PING, and hears no warning: " .. client, function ()
      if select(2, process.output("env -u LD_PRELOAD " .. NEEDS[client])) ~= 0 then
        return pending("there is none of " .. client)
      end
      local worker = process.worker(POLICY)
      assert.same({ "PONG", 0 }, { process.output("env -u LD_PRELOAD " ..
        words:format(worker.port)) })
      stop(worker)
    end)
  end
end)
