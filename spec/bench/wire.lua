--- Requests per second over the wire: `neap run` answering CL.THROTTLE, against a redis-server that
--- answers PING, which decides nothing, and one that runs the same arithmetic as a script; and
--- answering NEAP.ACQUIRE, of a policy with one rate, which is Lua's work.
---
---   wire_p1, _p16, _p64          so many requests in one write; against PING
---   wire_script_p1, _p16, _p64   against the script
---   wire_acquire_p1, …           NEAP.ACQUIRE; against PING
---   wire_acquire_script_p1, …    against the script
---   wire_cpu_p1, _p16, _p64      the server's own time for one request, against the script's: with
---                                pipelines it is redis-benchmark that has no time left
---
--- Fifty connections of redis-benchmark on loopback, ten thousand keys, every request granted. The
--- servers run side by side, and are asked in turn. They end with this program, or by themselves.
local race = require "spec.bench.race"

local ROUNDS, LIFE_S = 5, 300
local TICKS = 100   -- a second has so many in /proc

-- A word per key: the instant, in us, at which its bucket is full again.
local SCRIPT = [[
local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]
local limit, interval = ARGV[1] + 1, ARGV[3] * 1000000 / ARGV[2]
local tat = math.max(tonumber(redis.call("GET", KEYS[1]) or 0), now) + interval
local ahead = tat - now
if ahead > limit * interval then
  local late = ahead - limit * interval
  return { 1, limit, 0, math.ceil(late / 1000000), math.ceil(ahead / 1000000) }
end
redis.call("SET", KEYS[1], string.format("%.0f", tat), "PX", math.ceil(ahead / 1000))
return { 0, limit, math.floor(limit - ahead / interval), -1, math.ceil(ahead / 1000000) }
]]

local function output_of(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local servers = {}   -- { pid =, pipe = }

local function start(command)
  local pipe = assert(io.popen(("echo $$; exec timeout %d %s 2>&1"):format(LIFE_S, command)))
  local server = { pid = pipe:read "*l", pipe = pipe }
  servers[#servers + 1] = server
  return server
end

local function stop()
  for _, server in ipairs(servers) do
    os.execute("kill " .. server.pid .. " 2>/dev/null")
    server.pipe:read "*a"
    server.pipe:close()
  end
end

--- Seconds of processor time that the child of `timeout` has had.
local function busy(server)
  local child = output_of(("cat /proc/%s/task/%s/children"):format(server.pid, server.pid))
  local user, system = output_of("cut -d' ' -f14,15 /proc/" .. child:match "%d+" .. "/stat")
    :match "(%d+) (%d+)"
  return (user + system) / TICKS
end

--- A worker on a port of its own choice.
local function neap()
  local policy = os.tmpname()
  local file = assert(io.open(policy, "w"))
  file:write 'policy "bench" { limits = { rate = "1000000/s" } }\n'
  file:close()
  local server = start("neap run --listen 127.0.0.1:0 " .. policy)
  local line = server.pipe:read "*l"
  os.remove(policy)
  server.port = assert(line and line:match "listening address=127%.0%.0%.1:(%d+)", line)
  return server
end

local function answers(port) return output_of("redis-cli -p " .. port .. " PING"):find "^PONG" end

--- redis-server takes no port of its own choice, so some are tried.
local function redis()
  math.randomseed(os.time())
  for _ = 1, 20 do
    local port = math.random(20000, 32000)
    if output_of("redis-cli -p " .. port .. " PING"):find("refused", 1, true) then
      local server = start(("redis-server --port %d --bind 127.0.0.1 --save '' --appendonly no " ..
        "--dir /tmp"):format(port))
      server.port = port
      for _ = 1, 50 do
        if answers(port) then return server end
        os.execute "sleep 0.1"
      end
    end
  end
  error "no redis-server"
end

---@return number  requests per second
---@return number  seconds of the server's time for one
local function ask(server, pipeline, requests, words)
  local before = busy(server)
  local said = output_of(("redis-benchmark -h 127.0.0.1 -p %s -c 50 -P %d -n %d -r 10000 --csv %s")
    :format(server.port, pipeline, requests, words))
  local rate = tonumber(said:match '.*\n".-","([%d.]+)"')
  return assert(rate, said), (busy(server) - before) / requests
end

local function bench(pipeline, requests, worker, server, sha)
  local arguments = " user:__rand_int__ 1000000 1000000 1"   -- burst, count, seconds
  local asked = {
    { "throttle", worker, requests, "CL.THROTTLE" .. arguments },
    { "acquire", worker, requests, "NEAP.ACQUIRE bench" },
    { "ping", server, requests, "PING" },
    { "script", server, math.min(requests, 150000), "EVALSHA " .. sha .. " 1" .. arguments },
  }
  local rates = { throttle = {}, acquire = {}, ping = {}, script = {} }
  local times = { throttle = {}, acquire = {}, ping = {}, script = {} }
  for round = 1, ROUNDS do
    for _, one in ipairs(asked) do
      local name = one[1]
      rates[name][round], times[name][round] = ask(one[2], pipeline, one[3], one[4])
    end
  end
  local function report(name, of, values, unit, scale, vs, target)
    local ratios = {}
    for i, value in ipairs(values[of]) do ratios[i] = value / values[vs][i] end
    race.line(name .. pipeline, race.median(values[of]) * scale, unit, race.median(ratios),
      ("redis-%s-at-%s"):format(vs, race.number(race.median(values[vs]) * scale)), target)
  end
  local targets = { [1] = ">=0.9", [16] = ">=0.7" }
  report("wire_p", "throttle", rates, "req/s", 1, "ping", targets[pipeline])
  report("wire_script_p", "throttle", rates, "req/s", 1, "script", pipeline == 16 and ">=6" or nil)
  report("wire_cpu_p", "throttle", times, "us", 1e6, "script")
  report("wire_acquire_p", "acquire", rates, "req/s", 1, "ping")
  report("wire_acquire_script_p", "acquire", rates, "req/s", 1, "script")
end

local fine, problem = xpcall(function ()
  local worker, server = neap(), redis()
  local sha = output_of(("redis-cli -p %s SCRIPT LOAD %s"):format(server.port, quoted(SCRIPT)))
  sha = assert(sha:match "^%x+", sha)
  bench(1, 40000, worker, server, sha)
  bench(16, 600000, worker, server, sha)
  bench(64, 1000000, worker, server, sha)
end, debug.traceback)
stop()
if not fine then error(problem, 0) end
