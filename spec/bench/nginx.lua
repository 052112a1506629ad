--- What a take costs inside a worker of nginx, in compiled code, against what nginx's own shared
--- dictionaries cost there; and what a limit costs a location.
---
---   nginx             a take at nginx's cached time, against ngx.shared.DICT:incr
---   nginx_exact       the same at the exact clock, read for it
---   nginx_shared      of a limit in a segment, which all workers share, at the exact clock
---   nginx_shared_cached   the same at the cached time
---   nginx_try, nginx_try_shared   throttle:try_acquire() of both, which has a permit to show
---   nginx_req         a take at the exact clock, against resty.limit.req
---   nginx_req_dropin, nginx_count_dropin   incoming() of neap.ngx.limit_req and limit_count,
---                     against those they stand in for
---   nginx_rps         requests per second of a location that runs Lua, with a handler of a shared
---                     limit that never refuses, against the same without
---   nginx_rps_access  the same with neap.ngx.access { … } in place of the handler
---   nginx_rps_phase   of an access phase in Lua that does nothing: what Lua takes for it
---   nginx_rps_proxied, nginx_rps_proxied_access   of a location that asks a server behind it
---   nginx_cpu_…       of the same, what the worker took of the processor for a request: wrk and
---                     other programs do not blur it as much
---
--- One worker; wrk has the other processor. Where loads are compared they take turns.
---
--- lua-resty-limit-traffic comes with no system's packages. NEAP_LIMIT_TRAFFIC names a directory
--- that has its resty/limit/req.lua and count.lua; without it stand-ins do what its documentation
--- says: of each key a packed record of the excess and of when that was, which is got from the
--- dictionary, drained, and set; and a counter that is counted down and that expires.
local nginx = require "spec.nginx"
local race = require "spec.bench.race"

local CALLS, ROUNDS = 10000, 301   -- a runner is over before others get the processor
local LOADS, LOAD_S = 11, 1
local TRAFFIC = os.getenv "NEAP_LIMIT_TRAFFIC" or ""
local VS = TRAFFIC ~= "" and "resty.limit." or "stand-in-for-resty.limit."

local HTTP = [[
	lua_shared_dict counts 1m; lua_shared_dict store 1m;
	init_by_lua_block {
		package.path = package.path .. ";@here@/?.lua;@traffic@/?.lua"
		neap = require "neap.ngx"
		require "neap.ngx.store".at(ngx.config.prefix())
		shared = assert(neap.segment(ngx.config.prefix() .. "segment"))
		limit = "1000000000/s burst 1000000000"
		own, all = neap.throttle(limit), shared:throttle("all", limit)
		own_coarse, all_coarse = neap.throttle(limit), shared:throttle("coarse", limit)
		enter = neap.ngx.handler { limiter = all, headers = false }
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

local STAND_INS = [[
		local packed_t = ffi.typeof "struct { uint64_t excess, last_ms; }"
		local view_t, SIZE = ffi.typeof("const $ *", packed_t), ffi.sizeof(packed_t)
		local record, dict = packed_t(), ngx.shared.store
		local function leaky(rate, burst)   -- in thousandths, as the burst
			return { incoming = function (_, key, commit)
				local now_ms, excess, packed = ngx.now() * 1000, 0, dict:get(key)
				if packed then
					if type(packed) ~= "string" or #packed ~= SIZE then return nil, "shdict abused" end
					local last = ffi.cast(view_t, packed)
					local passed_ms = math.abs(now_ms - tonumber(last.last_ms))
					excess = math.max(tonumber(last.excess) - rate * passed_ms / 1000 + 1000, 0)
					if excess > burst then return nil, "rejected" end
				end
				if commit then
					record.excess, record.last_ms = excess, now_ms
					dict:set(key, ffi.string(record, SIZE))
				end
				return excess / rate, excess / 1000
			end }
		end
		local function counter(limit, window_s)
			return { incoming = function (_, key)
				local left, message = dict:incr(key, -1, limit, window_s)
				if not left then return nil, message end
				if left < 0 then return nil, "rejected" end
				return 0, left
			end }
		end
		local function made(what, ...)
			if "@traffic@" ~= "" then return assert(require("resty.limit." .. what).new("store", ...)) end
			if what == "req" then return leaky(select(1, ...) * 1000, select(2, ...) * 1000) end
			return counter(...)
		end
]]

local RACE = [[
	content_by_lua_block {
		local C, ffi = require "neap.engine", require "ffi"
		local race = require "spec.bench.race"
		local calls, counts, now = @calls@, ngx.shared.counts, ngx.now
		@stand_ins@
		local req, count = made("req", 1e9, 1e9), made("count", 1e9, 3600)
		local own_req = assert(neap.ngx.limit_req.new("store", 1e9, 1e9))
		local own_count = assert(neap.ngx.limit_count.new("store", 1e7, 3600))
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
			cached = take(own_coarse.leaf, cached), exact = take(own.leaf, exact),
			shared = take(all.leaf, exact), shared_cached = take(all_coarse.leaf, cached),
			try = function () for _ = 1, calls do assert(own:try_acquire()) end end,
			try_shared = function () for _ = 1, calls do assert(all:try_acquire()) end end,
			req = function () for _ = 1, calls do assert(req:incoming("client", true)) end end,
			count = function () for _ = 1, calls do assert(count:incoming("calls", true)) end end,
			own_req = function () for _ = 1, calls do assert(own_req:incoming("client", true)) end end,
			own_count = function ()
				for _ = 1, calls do assert(own_count:incoming("client", true)) end
			end,
		}
		for name, list in pairs(race.run(@rounds@, runners)) do
			ngx.say(name, " ", table.concat(list, " "))
		end
	}
]]

local ENTER = "access_by_lua_block { enter() }\n"
local ACCESS = "access_by_lua_block { neap.ngx.access { limiter = all, headers = false } }\n"
local LUA = "content_by_lua_block { ngx.say 'served' }\n"
local PROXY = "proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection '';\n"

local function location(path, ...)
  return ("location = /%s { %s }\n"):format(path, table.concat { ... })
end

local SERVER = table.concat {
  "keepalive_requests 1000000;\n",
  location("race", (RACE:gsub("@stand_ins@", STAND_INS):gsub("@(%l+)@", { calls = CALLS,
    rounds = ROUNDS, traffic = TRAFFIC }))),
  location("lua", LUA), location("lua_phase", "access_by_lua_block { }\n", LUA),
  location("lua_handler", ENTER, LUA), location("lua_access", ACCESS, LUA),
  location("proxied", PROXY), location("proxied_handler", ENTER, PROXY),
  location("proxied_access", ACCESS, PROXY),
}

local function output_of(command)
  local pipe = assert(io.popen(command .. " 2>&1"))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

-- Of its worker, so far.
local function processor_ns(server)
  local file = assert(io.open(("/proc/%d/schedstat"):format(server:workers()[1])))
  local ns = file:read "*n"
  file:close()
  return ns
end

--- Requests per second, and ns of the processor for each.
local function measure(server, path)
  local before = processor_ns(server)
  local said = output_of(("wrk -t1 -c16 -d%ds http://127.0.0.1:%d/%s"):format(LOAD_S, server.port,
    path))
  assert(not said:find "Non%-2xx", said)
  local count, rate = said:match "(%d+) requests in", said:match "Requests/sec:%s*([%d.]+)"
  if not rate then error(said) end
  return tonumber(rate), (processor_ns(server) - before) / tonumber(count)
end

--- Loads at all of these, turn and turn about, each compared with that at the first.
---@param paths { [1]: string, [2]: string?, [3]: string? }[]  and its name and target
local function loads(server, paths)
  local rates, ratios, costs, shares = {}, {}, {}, {}
  for i = 1, #paths do rates[i], ratios[i], costs[i], shares[i] = {}, {}, {}, {} end
  for round = 1, LOADS do
    for i, row in ipairs(paths) do
      local rate, ns = measure(server, row[1])
      rates[i][round], costs[i][round] = rate, ns
      ratios[i][round], shares[i][round] = rate / rates[1][round], costs[1][round] / ns
    end
  end
  for i, row in ipairs(paths) do
    local name, target = row[2], row[3]
    if name then
      race.line("nginx_rps" .. name, race.median(rates[i]), "req/s", race.median(ratios[i]),
        "unlimited", target)
      race.line("nginx_cpu" .. name, race.median(costs[i]), "ns/req", race.median(shares[i]),
        "unlimited", target)
    end
  end
end

if not nginx.is_here() then
  print "bench nginx: no nginx"
  return
end

local server = nginx.start { tcp = true, server = SERVER, http = function (dir)
  return (HTTP:gsub("@(%l+)@", { here = output_of "pwd":match "%S+", dir = dir,
    traffic = TRAFFIC }))
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
  race.report(times, CALLS, "exact", "req", "nginx_req", VS .. "req", "<=0.15")
  race.report(times, CALLS, "own_req", "req", "nginx_req_dropin", VS .. "req")
  race.report(times, CALLS, "own_count", "count", "nginx_count_dropin", VS .. "count")
  loads(server, { { "lua" }, { "lua_phase", "_phase" }, { "lua_handler", "", ">=0.97" },
    { "lua_access", "_access", ">=0.97" } })
  loads(server, { { "proxied" }, { "proxied_handler", "_proxied", ">=0.97" },
    { "proxied_access", "_proxied_access", ">=0.97" } })
end, debug.traceback)
local said = server:log "%[error%]"
server:stop()
if not fine then error(problem .. "\n" .. said, 0) end
