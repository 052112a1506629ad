--- What a take costs inside a worker of nginx, in compiled code, against what nginx's own shared
--- dictionaries cost there; and what a limit costs a location.
---
---   nginx             a take at nginx's cached time, against ngx.shared.DICT:incr
---   nginx_exact       the same at the exact clock, read for it
---   nginx_shared      of a limit in a segment, which all workers share, at the exact clock
---   nginx_shared_cached   the same at the cached time
---   nginx_try, nginx_try_shared   throttle:try_acquire() of both, which has a permit to show
---   nginx_req         limit_req:incoming(), against a get and a set of the dictionary, which are a
---                     part of what resty.limit.req does: Debian has no lua-resty-limit-traffic
---   nginx_rps         requests per second of a location that runs Lua, with access by a shared
---                     limit that never refuses, against the same without
---   nginx_rps_phase   the same against one that has an access phase in Lua which does nothing
---   nginx_rps_proxied as nginx_rps, of a location that asks a server behind it
---
--- One worker; wrk has the other processor.
local nginx = require "spec.nginx"
local race = require "spec.bench.race"

local CALLS, ROUNDS = 100000, 41
local LOADS, LOAD_S = 7, 1

local HTTP = [[
	lua_shared_dict counts 1m;
	init_by_lua_block {
		package.path = package.path .. ";@here@/?.lua"
		neap = require "neap.ngx"
		shared = assert(neap.segment(ngx.config.prefix() .. "segment"))
		limit = "1000000000/s burst 1000000000"
		own, all = neap.throttle(limit), shared:throttle("all", limit)
		own_coarse, all_coarse = neap.throttle(limit), shared:throttle("coarse", limit)
	}
	init_worker_by_lua_block { neap.ngx.init_worker() }
	log_by_lua_block { neap.ngx.log() }
	upstream behind { server unix:@dir@/behind; keepalive 64; }
	server {
		listen unix:@dir@/behind;
		keepalive_requests 1000000;
		location / { return 200 "behind\n"; }
	}
]]

local RACE = [[
	content_by_lua_block {
		local C = require "neap.engine"
		local race = require "spec.bench.race"
		local calls, counts, now = @calls@, ngx.shared.counts, ngx.now
		local req = require "neap.ngx.limit_req".new("store", 1e9, 1e9)
		local seen, at = 0, C.neap_loop_now(nil)
		local function cached()   -- as neap.ngx.use { clock = "cached" } has it
			local ms = now()
			if ms ~= seen then seen, at = ms, C.neap_loop_now(nil) end
			return at
		end
		counts:set("requests", 0)
		local function take(limiter, clock)
			return function ()
				local granted = 0
				for _ = 1, calls do
					local now_ns = clock()
					if C.neap_limiter_take(limiter, 1, now_ns) <= now_ns then granted = granted + 1 end
				end
				assert(granted == calls)
			end
		end
		local function exact() return C.neap_loop_now(nil) end
		local runners = {
			incr = function () for _ = 1, calls do counts:incr("requests", 1) end end,
			pair = function ()
				for _ = 1, calls do counts:set("client", counts:get "client" or 0) end
			end,
			cached = take(own_coarse.leaf, cached), exact = take(own.leaf, exact),
			shared = take(all.leaf, exact), shared_cached = take(all_coarse.leaf, cached),
			try = function () for _ = 1, calls do assert(own:try_acquire()) end end,
			try_shared = function () for _ = 1, calls do assert(all:try_acquire()) end end,
			req = function () for _ = 1, calls do assert(req:incoming("client", true)) end end,
		}
		for name, list in pairs(race.run(@rounds@, runners)) do
			ngx.say(name, " ", table.concat(list, " "))
		end
	}
]]

local ACCESS = "access_by_lua_block { neap.ngx.access { limiter = all, headers = false } }\n"
local LUA = "content_by_lua_block { ngx.say 'served' }\n"
local PROXY = "proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection '';\n"

local function location(path, ...)
  return ("location = /%s { %s }\n"):format(path, table.concat { ... })
end

local SERVER = table.concat {
  "keepalive_requests 1000000;\n",
  location("race", (RACE:gsub("@(%l+)@", { calls = CALLS, rounds = ROUNDS }))),
  location("lua", LUA), location("phase", "access_by_lua_block { }\n", LUA),
  location("lua_limited", ACCESS, LUA),
  location("proxied", PROXY), location("proxied_limited", ACCESS, PROXY),
}

local function output_of(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

local function requests_per_second(server, path)
  local said = output_of(("wrk -t1 -c16 -d%ds http://127.0.0.1:%d/%s"):format(LOAD_S, server.port,
    path))
  assert(not said:find "Non%-2xx", said)
  local rate = said:match "Requests/sec:%s*([%d.]+)"
  return tonumber(rate) or error(said)
end

local function load(server, name, limited, free, vs, target)
  local rates, ratios = {}, {}
  for i = 1, LOADS do
    local reference = requests_per_second(server, free)
    rates[i] = requests_per_second(server, limited)
    ratios[i] = rates[i] / reference
  end
  race.line(name, race.median(rates), "req/s", race.median(ratios), vs, target)
end

if not nginx.is_here() then
  print "bench nginx: no nginx"
  return
end

local server = nginx.start { tcp = true, server = SERVER, http = function (dir)
  return (HTTP:gsub("@(%l+)@", { here = output_of "pwd":match "%S+", dir = dir }))
end }
local fine, problem = xpcall(function ()
  local times = {}
  for name, list in server:get "/race".body:gmatch "([%l_]+) ([^\n]+)" do
    times[name] = {}
    for value in list:gmatch "%S+" do times[name][#times[name] + 1] = tonumber(value) end
  end
  local function against_incr(subject, name, target)
    race.report(times, CALLS, subject, "incr", name, "ngx.shared-incr", target)
  end
  against_incr("cached", "nginx", "<=0.2")
  against_incr("exact", "nginx_exact")
  against_incr("shared", "nginx_shared")
  against_incr("shared_cached", "nginx_shared_cached")
  against_incr("try", "nginx_try")
  against_incr("try_shared", "nginx_try_shared")
  race.report(times, CALLS, "exact", "pair", "nginx_take_pair", "ngx.shared-get-and-set")
  race.report(times, CALLS, "req", "pair", "nginx_req", "ngx.shared-get-and-set")
  load(server, "nginx_rps", "lua_limited", "lua", "unlimited", ">=0.97")
  load(server, "nginx_rps_phase", "lua_limited", "phase", "empty-access-phase")
  load(server, "nginx_rps_proxied", "proxied_limited", "proxied", "unlimited", ">=0.97")
end, debug.traceback)
local said = server:log "%[error%]"
server:stop()
if not fine then error(problem .. "\n" .. said, 0) end
