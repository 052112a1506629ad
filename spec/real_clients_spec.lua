--- Redis clients of other languages and `neap run`: see spec/clients/README.
---
---     NEAP_CLIENTS=all   those that a package manager has to fetch, too: minutes the first time
local process = require "spec.process"

local BUILD = os.getenv "NEAP_BUILD" or "build"
local ALL = os.getenv "NEAP_CLIENTS" == "all"

local POLICY = [[policy "one" { limits = { calls = "1 in flight" } }]]

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

-- Client to the program its language needs.
local CLIENTS = { redis_py = "python3", node_redis = "npm", ioredis = "npm", glide = "npm",
  go_redis = "go", redis_rs = "cargo", jedis = "mvn" }

describe("a client of another language", function ()
  after_each(process.sweep)

  for client, needed in pairs(CLIENTS) do
    it("gets permits, waits, gives up and comes back: " .. client, function ()
      if client ~= "redis_py" then
        if not ALL then return pending(client .. ": fetched with NEAP_CLIENTS=all") end
        local _, status = process.output("command -v " .. needed)
        if status ~= 0 then return pending(("%s: there is no %s"):format(client, needed)) end
      end
      local worker = process.worker(POLICY)
      local source = process.output "pwd":match "[^\n]+" .. "/spec/clients/" .. client
      local own = ("%s/clients/%s"):format(BUILD, client)
      local said, status = process.output(("env -u LD_PRELOAD -u NEAP_BUILD sh -c '" ..
        "mkdir -p %s && cd %s && SOURCE=%s timeout 600 %s/run 127.0.0.1 %s 2>errors || " ..
        "{ cat errors; exit 1; }'"):format(own, own, source, source, worker.port))
      assert.same({ SEEN, 0 }, { said:match "^ping %w+\n(.*)" or said, status })
      local left = process.dial(worker.address)
      local reply = left:ask("NEAP.SNAPSHOT", "one")
      assert.same({ "waiting", 0, "leases", 0 }, { reply[3], reply[4], reply[5], reply[6] })
      left:hang_up()
      assert.same({ "", 0 }, { worker:stop() })
    end)
  end
end)
