--- Limits that all workers of an nginx share: a real one whose master is root and whose workers are
--- not, wrk at it, workers that are killed, and reloads.
---
--- What was granted is counted by the workers, each grant with its instant, so load that starts
--- late or ends early does not blur the sum: from the first grant to the last no more than burst +
--- rate x time may be granted, exactly. How much of it is reached says also how busy the machine
--- is: workers and wrk go before other programs, and where workers come and go requests wait in
--- line, so that those who wait take what arrives meanwhile.
---
--- NEAP_SOAK=10 has each of them last ten seconds, with two workers and with four.
local C = require "neap.engine"
local nginx = require "spec.nginx"
local process = require "spec.process"
local socket = require "socket"

local concat, max, min, sort = table.concat, math.max, math.min, table.sort

local SOAK_S = tonumber(os.getenv "NEAP_SOAK")
local LOAD_S = SOAK_S or 2
local RATE, BURST = 5000, 50
local REACHED = SOAK_S and 0.99 or 0.5   -- a busy machine leaves what it leaves
local IN_LINE, MANY = "/calls?timeout=1", 400   -- a backlog of 80 ms
local NOBODY = 65534

local function has_wrk() return select(2, process.output "command -v wrk") == 0 end

local INIT = [[
	lua_shared_dict witness 32m;
	init_by_lua_block {
		neap = require "neap.ngx"
		local witness, opened = ngx.shared.witness, ngx.config.prefix() .. "segment"
		function now() return tonumber(require "neap.runtime".current().now_ns()) end
		shared = assert(neap.segment(opened))
		theirs = assert(neap.segment(ngx.config.prefix() .. "theirs",
			{ uid = @nobody@, gid = @nobody@, mode = "0660" }))
		local before = now()
		calls = shared:throttle("calls", "@rate@/s burst @burst@")
		witness:rpush("changes", ("@rate@ %.0f %.0f"):format(before, now()))
		slots = shared:semaphore("slots", @slots@)

		function count(permit)
			local at, me = tonumber(permit.at), ngx.worker.pid()
			witness:incr("granted", 1, 0)
			witness:add("first " .. me, at)
			witness:set("last " .. me, at)
		end
		local number = 0
		function enter()
			number = number + 1
			ngx.ctx.number = ngx.worker.pid() .. " " .. number
			witness:rpush("held", ("in %s %.0f"):format(ngx.ctx.number, now()))
		end
		function leave()
			if not ngx.ctx.number then return end
			witness:rpush("held", ("out %s %.0f"):format(ngx.ctx.number, now()))
		end
		function told(name)
			for _ = 1, witness:llen(name) do ngx.say(witness:lpop(name)) end
		end
	}
	init_worker_by_lua_block { neap.ngx.init_worker() }
	log_by_lua_block { leave() neap.ngx.log() }
	lua_check_client_abort on;
]]

local SERVER = [[
	location = /free { content_by_lua_block { ngx.say(slots:available()) } }
	location = /calls {
		access_by_lua_block {
			count(neap.ngx.access { limiter = calls, headers = false,
				timeout = tonumber(ngx.var.arg_timeout) })
		 }
		content_by_lua_block { ngx.say "granted" }
	}
	location = /slots {
		access_by_lua_block {
			neap.ngx.access { limiter = slots, timeout = tonumber(ngx.var.arg_timeout) or 1 }
			enter()
		}
		content_by_lua_block { ngx.sleep(tonumber(ngx.var.arg_s) or 0.01) ngx.say(ngx.worker.pid()) }
	}
	location = /told { content_by_lua_block { told(ngx.var.arg_of) } }
	location = /counts {
		content_by_lua_block {
			local witness = ngx.shared.witness
			for _, key in ipairs(witness:get_keys(0)) do
				local what = key:match "^%l+"
				if what == "first" or what == "last" then
					ngx.say(("%s %.0f"):format(what, witness:get(key)))
				end
			end
			ngx.say("granted ", witness:get "granted")
		}
	}
	location = /opens {
		content_by_lua_block {
			local options = { attach = true }
			local prefix = ngx.config.prefix()
			ngx.say(select(2, neap.segment(prefix .. "segment", options)))
			ngx.say((assert(neap.segment(prefix .. "theirs", options)):throttle("x", "1/h"):capacity()))
		}
	}
]]

local function clock() return tonumber(C.neap_loop_now(nil)) end

local function lines(text)
  local list = {}
  for line in text:gmatch "[^\n]+" do list[#list + 1] = line end
  return list
end

describe("nginx with limits that its workers share", function ()
  local server

  if not nginx.is_here() or not has_wrk() then
    it("is not here, or wrk is not, or it cannot load this library", function ()
      pending "no nginx, or no wrk"
    end)
    return
  end

  local function configuration(workers, with)
    with = with or {}
    with = { rate = with.rate or RATE, burst = BURST, slots = with.slots or 5, nobody = NOBODY }
    return { workers = workers, user = "nobody nogroup", main = "worker_priority -10;", tcp = true,
      http = INIT:gsub("@(%l+)@", with), server = SERVER }
  end

  local function start(workers, with) server = nginx.start(configuration(workers, with)) end

  local function free() return tonumber(server:get "/free".body) end

  --- wrk, until `over` is called, which waits for its end.
  local function load(path, connections)
    local wrk = process.start { "nice", "-n", "-10", "wrk", "-t1", "-c" .. connections,
      "-d", LOAD_S .. "s", ("http://127.0.0.1:%d%s"):format(server.port, path) }
    return function ()
      local said, status = wrk:finish()
      assert.equal(0, status, said)
    end
  end

  --- Do this every 200 ms while there is load, in the middle of it.
  local function meanwhile(fn)
    local ends = socket.gettime() + LOAD_S - 0.2
    while socket.gettime() < ends - 0.2 do
      socket.sleep(0.2)
      fn()
    end
  end

  --- Kill the oldest worker when all are there; the instant it lived until, at least, by its pid.
  local deaths
  local function kill_one()
    local pids
    process.eventually(function ()
      pids = server:workers()
      return #pids >= server.options.workers
    end)
    local pid = pids[1]
    deaths[pid] = deaths[pid] or clock()
    os.execute("kill -KILL " .. pid)
  end

  --- What was granted, and what could be: burst + rate x time, at the rates there were.
  local function sums()
    local first, last, granted = math.huge, 0, nil
    for _, line in ipairs(lines(server:get "/counts".body)) do
      local what, value = line:match "^(%l+) (%d+)$"
      value = tonumber(value)
      if what == "first" then first = min(first, value) end
      if what == "last" then last = max(last, value) end
      if what == "granted" then granted = value end
    end
    local allowed, from, rate = BURST, first, nil
    for _, line in ipairs(lines(server:get "/told?of=changes".body)) do
      local new, before, after = line:match "^(%d+) (%d+) (%d+)$"
      new = tonumber(new)
      if rate then   -- at some instant between the two: the one that allows more
        local changed = tonumber(new > rate and before or after)
        allowed, from = allowed + rate * (changed - from) / 1e9, changed
      end
      rate = new
    end
    return granted, allowed + rate * (last - from) / 1e9, (last - first) / 1e9, rate
  end

  --- But for what a kill explains: also of who held the lock of nginx' own memory, our witness.
  local function complaints()
    local list = {}
    for _, line in ipairs(lines(server:log "%[%l+%]")) do
      if line:find "%[error%]" or line:find "%[emerg%]" or line:find "%[alert%]"
        and not line:find "exited on signal 9" and not line:find "was locked by" then
        list[#list + 1] = line
      end
    end
    return concat(list, "\n")
  end

  --- Under load by that many connections, and whatever else `fn` does: never more than is allowed;
  --- and what is reached of it, at the third try if other programs were in the way.
  ---@param expected { rate: integer?, reached: number? }
  local function grants_what_is_allowed(workers, path, connections, fn, expected)
    for try = 1, 3 do
      start(workers)
      deaths = {}
      local over = load(path, connections)
      if fn then fn() end
      over()
      local granted, allowed, seconds, rate = sums()
      local said = ("%d workers, %s: %d granted of %.1f in %.2f s: %.4f"):format(workers,
        expected.what, granted, allowed, seconds, granted / allowed)
      if SOAK_S then io.stderr:write(said, "\n") end
      assert.equal(expected.rate or RATE, rate)
      assert.is_true(seconds > LOAD_S / 2, said)
      assert.is_true(granted <= allowed, said)
      assert.equal("", complaints())
      if granted >= (expected.reached or REACHED) * allowed then return end
      assert.is_true(try < 3, said)
      server:stop()
    end
  end

  --- How many had a permit at once, at most: from after a grant to before it was given back, or to
  --- before its worker was killed.
  local function most_at_once()
    local ends, begins, steps = {}, {}, {}
    for _, line in ipairs(lines(server:get "/told?of=held".body)) do
      local what, number, at = line:match "^(%l+) (%d+ %d+) (%d+)$"
      local list = what == "in" and begins or ends
      list[number] = tonumber(at)
    end
    for number, at in pairs(begins) do
      local until_ = ends[number] or deaths[tonumber(number:match "%d+")]
      assert(until_, "neither given back nor dead: " .. number)
      if until_ > at then
        steps[#steps + 1] = { at, 1 }
        steps[#steps + 1] = { until_, -1 }
      end
    end
    sort(steps, function (a, b)
      if a[1] ~= b[1] then return a[1] < b[1] end
      return a[2] < b[2]
    end)
    local now, most = 0, 0
    for _, step in ipairs(steps) do
      now = now + step[2]
      most = max(most, now)
    end
    return most, #steps / 2
  end

  --- How long it takes until all permits are back.
  local function all_back(count)
    local began = socket.gettime()
    process.eventually(function () return free() == count end)
    return socket.gettime() - began
  end

  before_each(function () deaths = {} end)

  after_each(function ()
    if server then server:stop() end
    server = nil
  end)

  for _, workers in ipairs { 2, 4 } do
    it("grants what is allowed and not one more, with " .. workers .. " workers", function ()
      grants_what_is_allowed(workers, IN_LINE, MANY, nil, { what = "in line" })
    end)
  end

  it("does so when it refuses the others, as long as it gets the processor", function ()
    grants_what_is_allowed(2, "/calls", 32, nil, { what = "refusing", reached = SOAK_S and 0.9 })
  end)

  for _, workers in ipairs(SOAK_S and { 2, 4 } or { 2 }) do
    it("does so while they are killed, " .. workers, function ()
      grants_what_is_allowed(workers, IN_LINE, MANY, function ()
        meanwhile(kill_one)
        assert.is_true(next(deaths) ~= nil)
      end, { what = "killed" })
    end)

    it("does so across reloads, and the new rate holds, " .. workers, function ()
      grants_what_is_allowed(workers, IN_LINE, MANY, function ()
        for i = 1, 3 do
          socket.sleep(LOAD_S / 4)
          if i == 2 then server:configure(configuration(workers, { rate = 3000 })) end
          server:signal "HUP"
        end
      end, { what = "reloaded", rate = 3000 })
    end)

    it("never has more permits out than there are, though holders are killed, " .. workers,
      function ()
      local count = SOAK_S and 50 or 5
      start(workers, { slots = count })
      local over = load("/slots", 3 * count)
      meanwhile(kill_one)
      over()
      local back = all_back(count)
      local most, held = most_at_once()
      local said = ("%d workers: %d held one of %d, %d at once; all back after %.3f s"):format(
        workers, held, count, most, back)
      if SOAK_S then io.stderr:write(said, "\n") end
      assert.equal(count, most, said)
      assert.is_true(back < 1, said)
      assert.equal("", complaints())
    end)
  end

  it("has permits back at once when those who held them are killed", function ()
    start(2)
    for _ = 1, 5 do server:send "/slots?s=20" end
    process.eventually(function () return free() == 0 end)
    for _, pid in ipairs(server:workers()) do os.execute("kill -KILL " .. pid) end
    local back = all_back(5)
    assert.is_true(back < 1, back)
  end)

  --- A process besides nginx that has all permits, and does that.
  local function other(chunk)
    local script = process.file(([[
      local slots = assert(require "neap".segment(%q, { attach = true })):semaphore("slots", 5)
      kept = assert(slots:try_acquire(5))
      io.stdout:setvbuf "line"
      print "held"
      %s
      require "neap".sleep(30)
    ]]):format(server.dir .. "/segment", chunk or ""))
    local one = process.start { "luajit", script }
    assert.equal("held", one:line())
    os.remove(script)
    return one
  end

  it("has back within a second what another process held, also when nobody waits", function ()
    start(2)
    for _, waits in ipairs { false, true } do
      local holder = other()
      assert.equal(0, free())
      local waiter = waits and server:send "/slots?s=0&timeout=10"
      holder:stop "KILL"
      local back = all_back(5)
      assert.is_true(back < 1.2, back)
      if waiter then assert.equal(200, nginx.answers { waiter }[1].status) end
    end
  end)

  it("lets those in line go when another process gives back", function ()
    start(2)
    local holder = other "require 'neap'.sleep(0.3) kept:release()"
    local requests = {}
    for i = 1, 20 do requests[i] = server:send "/slots?s=0&timeout=10" end
    local pids = {}
    for _, one in ipairs(nginx.answers(requests)) do
      assert.equal(200, one.status)
      assert.is_true(one.took < 0.8, one.took)
      pids[one.body] = true
    end
    assert.is_true(next(pids, (next(pids))) ~= nil, "one worker served all")
    assert.equal(5, free())
    holder:stop "KILL"
  end)

  it("belongs to the master, and is inherited; or to the workers, who may open it", function ()
    start(2)
    local refused, capacity = unpack(lines(server:get "/opens".body))
    assert.matches("segment: cannot be opened: Permission denied", refused)
    assert.equal("1", capacity)
    server:signal "HUP"   -- root opens again what belongs to somebody else
    process.eventually(function () return server:log "reconfiguring" ~= "" end)
    process.eventually(function () return #server:workers() == 2 end)
    assert.equal("1", lines(server:get "/opens".body)[2])
    assert.equal("", complaints())
  end)
end)
