--- A thousand requests at once at one limit of 100 a second, in one worker of nginx: all of them
--- wait in line, the last for ten seconds. Another client asks meanwhile for what does not wait.
---
---   nginx_wait        how late they went on after their instant, the median; and nginx_wait_p99,
---                     which is to be below 5 ms on a quiet machine
---   nginx_wait_rate   how many a second there were, of those there could be
---   nginx_wait_sleeps how often each was put to sleep: once
---   nginx_wait_turns  how often the driver came, for each
---   nginx_wait_order  how many went on before somebody who had come before: none
---   nginx_wait_cpu    what the worker took for each, all told, and of a processor
---   nginx_wait_other  how long the other client's answers took, p99: below 5 ms; and the median
---
--- Worker and client go before other programs, whose business is not what is measured here.
local nginx = require "spec.nginx"
local process = require "spec.process"
local race = require "spec.bench.race"

local COUNT, RATE = 1000, 100
local LINED_UP = 20    -- by the time that so many went on, the others have come
local STEP_S = 0.005   -- between two requests of the other client

local HTTP = [[
	init_by_lua_block {
		neap = require "neap.ngx"
		limit, arrived, rows = neap.throttle "@rate@/s smooth", 0, {}
	}
	init_worker_by_lua_block { neap.ngx.init_worker() }
	log_by_lua_block { neap.ngx.log() }
]]

local SERVER = [[
	keepalive_requests 1000000;
	location = /other { return 200 "other\n"; }
	location = /waits {
		content_by_lua_block {
			arrived = arrived + 1
			local number = arrived
			local permit = assert(limit:acquire { timeout = 60 })
			local late = require "neap.runtime".current().now_ns() - permit.at
			rows[#rows + 1] = ("%d %.0f %.0f"):format(number, tonumber(permit.at), tonumber(late))
		}
	}
	location = /told {
		content_by_lua_block {
			local counts = require "neap.runtime".current().counts
			ngx.say(counts.sleeps, " ", counts.turns)
			ngx.say(table.concat(rows, "\n"))
		}
	}
]]

local OTHER = [[
	local socket = require "socket"
	local unix = require "socket.unix"
	local wire = unix()
	assert(wire:connect "@dir@/s")
	local ends = socket.gettime() + @s@
	local question = "GET /other HTTP/1.1\r\nHost: neap\r\n\r\n"
	while socket.gettime() < ends do
		local began = socket.gettime()
		wire:send(question)
		repeat until assert(wire:receive "*l") == ""
		wire:receive(6)
		print(socket.gettime() - began)
		socket.sleep(@step@)
	end
]]

local function quantile(list, q) return list[math.max(1, math.ceil(q * #list))] end

if not nginx.is_here() then
  print "bench nginx_wait: no nginx"
  return
end

local server = nginx.start { main = "worker_priority -10;", server = SERVER,
  http = (HTTP:gsub("@rate@", RATE)) }

-- Seconds of the processor that its worker has had.
local function cpu_s()
  local file = assert(io.open(("/proc/%d/schedstat"):format(server:workers()[1])))
  local ns = file:read "*n"
  file:close()
  return ns / 1e9
end

local fine, problem = xpcall(function ()
  local with = { dir = server.dir, s = COUNT / RATE + 0.5, step = STEP_S }
  local script = process.file(OTHER:gsub("@(%l+)@", with))
  local before, requests = cpu_s(), {}
  for i = 1, COUNT do requests[i] = server:send "/waits" end
  local other = process.start { "nice", "-n", "-10", "luajit", script }
  for _, answer in ipairs(nginx.answers(requests)) do assert(answer.status == 200) end
  local used = cpu_s() - before
  local took = {}
  for line in other:finish():gmatch "[^\n]+" do took[#took + 1] = tonumber(line) end
  os.remove(script)

  local told = server:get "/told".body
  local sleeps, turns = told:match "^(%d+) (%d+)\n"
  local late, instants, overtakes, last = {}, {}, 0, 0
  for number, at, by in told:gmatch "(%d+) (%d+) (%-?%d+)\n" do
    number = tonumber(number)
    overtakes, last = overtakes + (number < last and 1 or 0), number
    instants[#instants + 1], late[#late + 1] = tonumber(at) / 1e9, tonumber(by) / 1e9
  end
  table.sort(late)
  table.sort(took)
  local rate = (#instants - LINED_UP) / (instants[#instants] - instants[LINED_UP])
  local p50, p99 = quantile(late, 0.5), quantile(late, 0.99)
  race.line("nginx_wait", p50 * 1e3, "ms", p50 / 0.005, "5ms")
  race.line("nginx_wait_p99", p99 * 1e3, "ms", p99 / 0.005, "5ms", "<=1")
  race.line("nginx_wait_rate", rate, "1/s", rate / RATE, "limit", ">=0.999")
  race.line("nginx_wait_sleeps", tonumber(sleeps), "sleeps", sleeps / COUNT, "waiters", "<=1")
  race.line("nginx_wait_turns", tonumber(turns), "turns", turns / COUNT, "waiters")
  race.line("nginx_wait_order", overtakes, "overtakes", overtakes / COUNT, "waiters", "<=0")
  race.line("nginx_wait_cpu", used / COUNT * 1e6, "us", used / COUNT * RATE, "processor")
  p50, p99 = quantile(took, 0.5), quantile(took, 0.99)
  race.line("nginx_wait_other", p99 * 1e3, "ms", p99 / 0.005, "5ms", "<=1")
  race.line("nginx_wait_other_p50", p50 * 1e3, "ms", p50 / 0.005, "5ms")
end, debug.traceback)
local said = server:log "%[error%]"
server:stop()
if not fine then error(problem .. "\n" .. said, 0) end
