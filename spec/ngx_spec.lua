--- The runtime in nginx, and what there is for it, in a real one.
local nginx = require "spec.nginx"
local process = require "spec.process"

local INIT = [[
	init_by_lua_block {
		neap = require "neap.ngx"
		local C, ffi = require "neap.engine", require "ffi"
		local seen = ffi.new "struct neap_engine_stats"
		function engine()
			C.neap_engine_stats(require "neap.runtime".current().engine, seen)
			return seen
		end
		function check()
			return C.neap_engine_check(require "neap.runtime".current().engine)
		end
		function kept()   -- what the runtime still remembers of those who waited
			local _, self = debug.getupvalue(require "neap.runtime".current().look, 1)
			return #self.posted + self.count
		end
		arrived = 0
		limits = {
			slow = neap.throttle("200/s burst 1"),
			crawl = neap.throttle("50/s burst 1"),
			hourly = neap.throttle("1/h", { name = "hourly" }),
			one = neap.semaphore(1, { name = "one" }),
			lost = neap.semaphore(1), killed = neap.semaphore(1), logged = neap.semaphore(1),
			users = neap.per_key("2/min", { name = "user" }),
			guarded = neap.hybrid { neap.semaphore(5),
				neap.breaker { failures = 2, cooldown = "1min", name = "guard" } },
			layered = neap.layered { global = "1000/s", user = neap.per_key("1/min") },
			tuned = neap.throttle("10/h burst 5", { name = "tuned" }),
			tokens = neap.hybrid { calls = "1000/min", tokens = "100/h" },
		}
		handlers = {
			hourly = neap.ngx.handler { limiter = limits.hourly, status = 418 },
			user = neap.ngx.handler { limiter = limits.users, timeout = "1ms", headers = false },
			tokens = neap.ngx.handler { limiter = limits.tokens, cost = { tokens = 60 } },
			pair = neap.ngx.handler { limiter = limits.users, cost = 2 },
			one = neap.ngx.handler { limiter = limits.one },
			dry = neap.ngx.handler { limiter = limits.hourly, dry_run = true },
		}
	}
	init_worker_by_lua_block { neap.ngx.init_worker() }
	log_by_lua_block { neap.ngx.log() }
	lua_check_client_abort on;
]]

--- A location whose content is this, after access by a limit, if one is named.
local function location(path, content, limit, more)
  return ("location = /%s {\n%s\n%s\ncontent_by_lua_block { %s } }\n"):format(path,
    limit and "access_by_lua_block { neap.ngx.access { limiter = limits." .. limit .. " } }" or "",
    more or "", content)
end

local TURN = [[
	arrived = arrived + 1
	local number = arrived
	local permit = assert(limits.%s:acquire { timeout = 10 })
	local late = require "neap.runtime".current().now_ns() - permit.at
	ngx.say(number, " ", tostring(permit.at), " ", tostring(late))
]]
local HOLD = [[
	local held, why = limits.%s:acquire { timeout = tonumber(ngx.var.arg_timeout) or 10 }
	if held then neap.ngx.hold(held) end
	ngx.sleep(tonumber(ngx.var.arg_s) or 0)
	ngx.say(why or "held")
]]

local SERVER = table.concat {
  "location = /static { return 200 ok; }\n",
  "location = /oops { internal; return 500 oops; }\n",
  location("borrow", "ngx.say(limits.slow:try_acquire():settle(101))"),   -- nobody goes for 0.5 s
  location("slow", TURN:format "slow"),
  location("crawl", TURN:format "crawl"),
  location("hourly", "ngx.say 'in'", nil, [[access_by_lua_block {
    neap.ngx.access { limiter = limits.hourly, timeout = ngx.var.arg_timeout or 0,
      status = tonumber(ngx.var.arg_status), dry_run = ngx.var.arg_dry ~= nil,
      headers = not ngx.var.arg_bare } }]]),
  location("user", "ngx.say 'in'", nil, [[access_by_lua_block {
    neap.ngx.access { limiter = limits.users, key = ngx.var.arg_key } }]]),
  location("layered", "ngx.say 'in'", nil, [[access_by_lua_block {
    neap.ngx.access { limiter = limits.layered, key = { user = ngx.var.arg_key } } }]]),
  location("made", "ngx.sleep(tonumber(ngx.var.arg_s) or 0) ngx.say(told or 'in')", nil, [[
    access_by_lua_block {
      local arg = ngx.var
      told = handlers[arg.arg_of](arg.arg_key, tonumber(arg.arg_cost))
      told = told ~= true and tostring(told)
    }]]),
  location("mistakes", [[
    for _, options in ipairs { 5, {}, { limiter = 5 }, { limiter = limits.one, dryrun = true },
      { limiter = limits.one, timeout = "soon" } } do
      ngx.say(select(2, pcall(neap.ngx.handler, options)))
      ngx.say(select(2, pcall(neap.ngx.access, options)))
    end]]),
  location("engine", [[local e, counts = engine(), require "neap.runtime".current().counts
    ngx.say(tonumber(e.waiting), " ", tonumber(e.wakeups), " ", tonumber(e.granted), " ",
      check(), " ", kept(), " ", counts.sleeps, " ", counts.turns)]]),
  location("free", "ngx.say(limits[ngx.var.arg_of]:available())"),
  location("hold", HOLD:format "one"),
  location("callback", "assert(ngx.on_abort(function () ngx.exit(499) end))" .. HOLD:format "one"),
  location("lost", HOLD:format "lost", nil, "log_by_lua_block { }"),
  location("boom", "ngx.sleep(0.05) error 'boom'", "one"),
  location("boom_elsewhere", "error 'boom'", "one", "error_page 500 /oops;"),
  location("guarded", "ngx.exit(tonumber(ngx.var.arg_status))", "guarded"),
  location("killed", [[
    local held = limits.killed:acquire()
    local thread = ngx.thread.spawn(function () limits.killed:acquire() end)
    local other = ngx.thread.spawn(function () return limits.killed:acquire { timeout = 5 } end)
    ngx.sleep(0)
    ngx.thread.kill(thread)
    held:release()
    local ok, permit = ngx.thread.wait(other)
    ngx.say(permit and permit:release() and "granted" or "stuck")
    ngx.say(limits.killed:available())]]),
  location("two", "neap.ngx.hold(limits.lost:acquire()) error 'boom'", "one"),
  location("tuned", "ngx.say 'in'", nil, [[access_by_lua_block {
    if ngx.var.arg_to then limits.tuned:reconfigure(ngx.unescape_uri(ngx.var.arg_to)) end
    neap.ngx.access { limiter = limits.tuned } }]]),
  location("late", "ngx.say 'ok'", nil, [[
    header_filter_by_lua_block {
      local held = limits.logged:acquire()
      local ok, why = pcall(limits.logged.acquire, limits.logged)
      ngx.header["X-Why"] = why
      held:release()
    }]]),
  location("tasks", [[
    local first = neap.spawn(function (a) neap.sleep "5ms" return a, "b" end, "a")
    ngx.say(table.concat({ first:join() }, " "))
    local second = neap.spawn(function () return neap.sleep(20) end)
    local third = neap.spawn(function () return select(2, second:join()) end)
    neap.sleep(0)
    second:cancel()
    ngx.say(third:join())
    local busy = neap.spawn(function () ngx.sleep(0.005) return select(2, neap.sleep(20)) end)
    ngx.sleep(0)
    busy:cancel()
    ngx.say(busy:join())
    local never = neap.spawn(function () ngx.say "it ran" end)
    never:cancel()
    ngx.say(select(2, never:join()))
    local failed = neap.spawn(function () error("it failed", 0) end)
    ngx.say(select(2, pcall(failed.join, failed)))
    local hedge = neap.hedge { after = "5ms" }
    ngx.say(hedge:run(function (try)
      if try.attempt == 0 then neap.sleep(20) end
      return "attempt " .. try.attempt
    end))
    ngx.say(neap.run(function (x) return x end, "ran"))]]),
}

local function numbers(text)
  local list = {}
  for n in text:gmatch "%-?%d+" do list[#list + 1] = tonumber(n) end
  return list
end

describe("nginx", function ()
  local server

  local function start(options)
    options.http = options.http or INIT
    server = nginx.start(options)
    return server
  end

  local function waiting() return numbers(server:get "/engine".body)[1] end
  local function free(of) return tonumber(server:get("/free?of=" .. of).body) end

  local function send_all(count, path)
    local list = {}
    for i = 1, count do list[i] = server:send(path) end
    return list
  end

  if not nginx.is_here() then
    it("is not here, or cannot load this library", function () pending "no nginx" end)
    return
  end

  after_each(function ()
    if server then server:stop() end
    server = nil
  end)

  describe("waiting", function ()
    before_each(function () start { server = SERVER } end)

    it("serves in the order of arrival, each at its exact instant, none early", function ()
      local count = 40
      local rows = {}
      assert.equal("true\n", server:get "/borrow".body)
      for _, answer in ipairs(nginx.answers(send_all(count, "/slow"))) do
        assert.equal(200, answer.status)
        local number, at, late = answer.body:match "^(%d+) (%d+)LL (%-?%d+)LL"
        rows[tonumber(number)] = { at = tonumber(at), late = tonumber(late) }
      end
      for i = 1, count do
        assert.is_true(rows[i].late >= 0, i .. " is early")
        if i > 1 then assert.equal(5e6, rows[i].at - rows[i - 1].at) end
      end
      local now = numbers(server:get "/engine".body)
      assert.same({ 0, 0 }, { now[1], now[4] })
      assert.equal(count, now[3])
      assert.is_true(now[2] <= count, "a head was asked more than once")
      assert.equal(count, now[6], "each sleeps once, and is woken once")
      process.eventually(function () return numbers(server:get "/engine".body)[5] == 0 end)
    end)

    it("lets others through meanwhile", function ()
      local waiters = send_all(30, "/crawl")   -- 0.58 s
      process.eventually(function () return waiting() > 0 end)
      for _ = 1, 10 do assert.equal("ok", server:get "/static".body) end
      assert.is_true(waiting() > 0)
      assert.equal(30, #nginx.answers(waiters))
    end)

    it("refuses at once what cannot be met in time", function ()
      assert.equal(200, server:get "/hourly".status)
      local refused = server:get "/hourly?timeout=5min"
      assert.equal(429, refused.status)
      assert.equal("3600", refused.headers["retry-after"])
      assert.equal('"hourly";q=1;w=3600', refused.headers["ratelimit-policy"])
      assert.equal('"hourly";r=0;t=3600', refused.headers.ratelimit)
      assert.equal(0, waiting())
      assert.equal(503, server:get "/hourly?status=503".status)
      assert.is_nil(server:get "/hourly?bare=1".headers.ratelimit)
      local dry = server:get "/hourly?dry=1"
      assert.same({ 200, "in\n" }, { dry.status, dry.body })
      assert.is_nil(dry.headers["retry-after"])
      assert.matches("would refuse: hourly: rate", server:log "would refuse")
    end)

    it("gives up at the deadline", function ()
      local holder = server:send "/hold?s=0.5"
      process.eventually(function () return free "one" == 0 end)
      local late = server:send "/hold?timeout=0.05"
      local impatient = server:get "/boom"
      assert.same({ 429, nil }, { impatient.status, impatient.headers["retry-after"] })
      local answers = nginx.answers { holder, late }
      assert.same({ late, holder }, answers)
      assert.same({ "timeout\n", "held\n" }, { late.body, holder.body })
      assert.is_true(late.took >= 0.05)
    end)

    it("limits by key", function ()
      assert.equal('"user";r=1;t=30', server:get "/user?key=ann".headers.ratelimit)
      assert.equal('"user";r=0;t=60', server:get "/user?key=ann".headers.ratelimit)
      assert.equal(429, server:get "/user?key=ann".status)
      assert.equal(200, server:get "/user?key=bob".status)
      assert.equal(500, server:get "/user".status)
      assert.matches("access: key is missing", server:log "key is missing")
      assert.equal(200, server:get "/layered?key=ann".status)
      assert.equal(429, server:get "/layered?key=ann".status)
    end)

    it("does all that with a handler made once", function ()
      local first, second = server:get "/made?of=hourly", server:get "/made?of=hourly"
      assert.same({ 200, '"hourly";r=0;t=3600' }, { first.status, first.headers.ratelimit })
      assert.same({ 418, "3600" }, { second.status, second.headers["retry-after"] })
      assert.equal("nil\n", server:get "/made?of=dry".body)   -- told, not refused
      for _, row in ipairs { { "ann", 200 }, { "ann", 200 }, { "ann", 429 }, { "bob", 200 } } do
        local answer = server:get("/made?of=user&key=" .. row[1])
        assert.same({ row[2], nil }, { answer.status, answer.headers.ratelimit }, row[1])
      end
      assert.equal(500, server:get "/made?of=user".status)
      assert.equal(200, server:get "/made?of=pair&key=cat".status)
      assert.equal(429, server:get "/made?of=pair&key=cat".status)
      assert.equal('"calls";r=1000;t=0, "tokens";r=40;t=2160',
        server:get "/made?of=tokens".headers.ratelimit)
      assert.equal(429, server:get "/made?of=tokens".status)
      assert.equal(200, server:get "/made?of=tokens&cost=40".status)
      local holder = server:send "/made?of=one&s=0.2"
      process.eventually(function () return free "one" == 0 end)
      assert.equal(429, server:get "/made?of=one".status)
      assert.equal("in\n", nginx.answers { holder }[1].body)
      process.eventually(function () return free "one" == 1 end)
    end)

    it("tells of a limit as it is by now", function ()
      local function told(path)
        local headers = server:get(path).headers
        return headers["ratelimit-policy"] .. " " .. headers.ratelimit:match "r=%d+"
      end
      assert.equal('"tuned";q=5;w=1800 r=4', told "/tuned")
      assert.equal('"tuned";q=5;w=1800 r=3', told "/tuned")
      assert.equal('"tuned";q=5;w=900 r=2', told "/tuned?to=20/h%20burst%205")
      assert.equal('"tuned";q=9;w=1620 r=5', told "/tuned?to=20/h%20burst%209")
    end)

    it("says what is wrong with options", function ()
      local told = server:get "/mistakes".body
      for _, what in ipairs { "%l+: a table expected, got number",
        "%l+: limiter: a limiter expected, got nil", "%l+: limiter: a limiter expected, got 5",
        "%l+: option 'dryrun' is not known %(did you mean 'dry_run'%?%)", 'bad duration "soon"' } do
        local _, count = told:gsub(what, "")
        assert.equal(2, count, what .. ": " .. told)
      end
    end)

    for path, how in pairs { hold = "at once, by the log phase", lost = "within a second or so",
      callback = "at once, by its own callback" } do
      it("frees the place of a client that hung up, " .. how, function ()
        local of = path == "lost" and "lost" or "one"
        local holder = server:send("/" .. path .. "?s=1.3")
        process.eventually(function () return free(of) == 0 end)
        for _ = 1, path == "lost" and 1 or 4 do
          local gone = server:send("/" .. path)
          process.eventually(function () return waiting() == 1 end)
          gone.wire:close()
          process.eventually(function () return waiting() == 0 end)
        end
        assert.equal(0, free(of))   -- the holder has it still
        local waiter = server:send("/" .. path)
        process.eventually(function () return waiting() == 1 end)
        holder.wire:close()         -- which ends that one, too
        if path ~= "lost" then
          assert.equal("held\n", nginx.answers { waiter }[1].body)
          assert.is_true(waiter.took < 0.8, "its turn came late")
          process.eventually(function () return free(of) == 1 end)
        end
        assert.equal(0, numbers(server:get "/engine".body)[4])
      end)
    end

    it("passes on what a thread was granted that was killed", function ()
      local answer = server:get "/killed"
      assert.equal("granted\n1\n", answer.body)
      assert.is_true(answer.took < 0.8, "its turn came late")
      assert.equal(0, waiting())
    end)

    it("says so where nothing can wait, and leaves the line", function ()
      local answer = server:get "/late"
      assert.matches("^neap: nothing can wait here: .*header_filter", answer.headers["x-why"])
      assert.equal(0, waiting())
      assert.equal(1, free "logged")
    end)

    it("has tasks, whose ends can be waited for", function ()
      assert.equal("a b\ncancelled\ncancelled\ncancelled\nit failed\nattempt 1\nran\n",
        server:get "/tasks".body)
      assert.equal(0, waiting())
    end)
  end)

  describe("the log phase", function ()
    before_each(function () start { server = SERVER } end)

    it("gives back what a request held that failed, also after an internal redirect", function ()
      local failing = server:send "/boom"
      process.eventually(function () return free "one" == 0 end)
      local waiter = server:send "/hold"
      assert.equal(500, nginx.answers { failing }[1].status)
      assert.equal("held\n", nginx.answers { waiter }[1].body)
      assert.is_true(waiter.took < 0.8, "its turn came late")
      local elsewhere = server:get "/boom_elsewhere"
      assert.same({ 500, "oops" }, { elsewhere.status, elsewhere.body })
      process.eventually(function () return free "one" == 1 end)
      assert.equal(500, server:get "/two".status)
      process.eventually(function () return free "one" == 1 and free "lost" == 1 end)
    end)

    it("tells breakers how requests ended", function ()
      for _, status in ipairs { 500, 200, 502, 500 } do   -- two failures one after the other
        assert.equal(status, server:get("/guarded?status=" .. status).status)
      end
      assert.equal(503, server:get "/guarded?status=200".status)
      assert.equal("60", server:get "/guarded?status=200".headers["retry-after"])
    end)
  end)

  it("takes two workers, each with its own lines, through reload and quit", function ()
    start { workers = 2, server = SERVER .. location("worker", "ngx.say(ngx.worker.pid())") }
    local pids, count = {}, 0
    process.eventually(function ()
      local pid = server:get "/worker".body
      count = count + (pids[pid] and 0 or 1)
      pids[pid] = true
      return count == 2
    end)
    local waiters = send_all(30, "/crawl")
    process.eventually(function () return waiting() > 0 end)
    server:signal "HUP"
    process.eventually(function () return not pids[server:get "/worker".body] end)
    local after = send_all(10, "/crawl")
    for _, list in ipairs { waiters, after } do
      for _, answer in ipairs(nginx.answers(list)) do assert.equal(200, answer.status) end
    end
    local quitting = send_all(10, "/crawl")
    process.eventually(function () return waiting() > 0 end)
    server:signal "QUIT"
    for _, answer in ipairs(nginx.answers(quitting)) do assert.equal(200, answer.status) end
    local _, status = server.process:finish()
    assert.equal(0, status)
    server.process = nil
    assert.equal("", server:log "%[error%]" .. server:log "%[alert%]" .. server:log "%[emerg%]")
    os.execute("rm -rf " .. process.quoted(server.dir))
  end)

  it("works with a state for each request, and with another clock", function ()
    start { http = "lua_code_cache off;\n" .. INIT:gsub("neap = require \"neap.ngx\"",
      "%0 neap.ngx.use { clock = 'cached', waiters_max = 100 }"),
      server = location("twice", [[
        local one = neap.throttle("100/s burst 1")
        one:acquire()
        ngx.say(one:acquire() and "waited")]]) }
    for _, answer in ipairs(nginx.answers(send_all(5, "/twice"))) do
      assert.equal("waited\n", answer.body)
    end
    assert.equal("", server:log "%[error%]")
  end)

  it("waits all the same when nginx refuses it a timer", function ()
    start { server = location("none", [[
      ngx.timer.at = function () return nil, "too many pending timers" end
      local one = neap.throttle("100/s burst 1")
      one:acquire()
      ngx.say(one:acquire() and "waited")]]) }
    local answer = server:get "/none"
    assert.equal("waited\n", answer.body)
    assert.is_true(answer.took < 5)
    assert.matches("no driver, waiters look themselves: too many", server:log "no driver")
  end)

  it("is what the example shows", function ()
    local file = assert(io.open "examples/openresty/nginx.conf")
    start { http = "", server = "", conf = file:read "*a" }
    file:close()
    local paced = nginx.answers(send_all(10, "/paced"))   -- 5 at once, 5 more in 0.25 s
    for _, answer in ipairs(paced) do assert.equal(200, answer.status) end
    assert.matches('^"api";q=5;w=1$', paced[1].headers["ratelimit-policy"])
    for i = 1, 6 do
      assert.equal(i <= 5 and 200 or 429, server:get "/mine?user=ann".status)
    end
    local statuses = {}
    for i, path in ipairs { "/pool?fail=1", "/pool?fail=1", "/pool", "/pool" } do
      statuses[i] = server:send(path)
    end
    nginx.answers(statuses)
    for i, request in ipairs(statuses) do
      assert.equal(i <= 2 and 500 or 200, request.status)
    end
    assert.matches("^an answer\n$", server:get "/called".body)
  end)

  it("spawns where there are no light threads", function ()
    start { http = INIT:gsub("neap.ngx.init_worker%(%)", [[%0
      began = {}
      neap.spawn(function () neap.sleep "10ms" began[1] = "slept" end)]]),
      server = location("began", "ngx.say(began[1])") }
    process.eventually(function () return server:get "/began".body == "slept\n" end)
  end)
end)
