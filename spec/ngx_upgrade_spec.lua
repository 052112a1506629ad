--- What is shared outlives the nginx that made it: a real one is upgraded under load, so that two
--- masters and their workers have the same limits for a while; and reloaded many times.
local C = require "neap.engine"
local nginx = require "spec.nginx"
local process = require "spec.process"

local max, min = math.max, math.min

local RATE, BURST, WORKERS = 300, 20, 2

local HTTP = ([[
	lua_shared_dict limits 1m;
	init_by_lua_block {
		neap = require "neap.ngx"
		shared = assert(neap.segment(ngx.config.prefix() .. "segment"))
		calls = shared:throttle("calls", "%d/s burst %d")
		slow = shared:throttle("slow", "1/h burst 100")
		slots = shared:semaphore("slots", 3)
		users = shared:per_key("users", "2 in flight", { most = 10 })
		require "neap.ngx.store".at(ngx.config.prefix())
		counted = assert(require "neap.ngx.limit_count".new("limits", 100, 1000))
	}
	init_worker_by_lua_block { neap.ngx.init_worker() }
	log_by_lua_block { neap.ngx.log() }
]]):format(RATE, BURST)

local SERVER = [[
	location = /calls {
		content_by_lua_block {
			local permit = calls:try_acquire()
			ngx.say(ngx.worker.pid(), " ", permit and ("%.0f"):format(tonumber(permit.at)) or "")
		}
	}
	location = /slow { content_by_lua_block { ngx.say(slow:try_acquire() and "granted") } }
	location = /count { content_by_lua_block { ngx.say(counted:incoming("k", true) and "granted") } }
	location = /hold {
		access_by_lua_block {
			neap.ngx.hold(assert(slots:try_acquire()))
			neap.ngx.hold(assert(users:try_acquire "ann"))
		}
		content_by_lua_block {
			for _ = 1, 3000 do   -- until told, by a file: both nginx see that
				local told = io.open(ngx.config.prefix() .. "go")
				if told then
					told:close()
					break
				end
				ngx.sleep(0.01)
			end
			ngx.say "done"
		}
	}
	location = /free {
		content_by_lua_block { ngx.say(slots:available(), " ", users:available "ann") }
	}
]]

describe("nginx that is upgraded", function ()
  local server

  if not nginx.is_here() then
    it("is not here, or cannot load this library", function () pending "no nginx" end)
    return
  end

  before_each(function ()
    server = nginx.start { workers = WORKERS, upgrades = true, http = HTTP, server = SERVER }
  end)

  after_each(function () server:stop() end)

  local function send(path, count)
    local requests = {}
    for i = 1, count do requests[i] = server:send(path) end
    return requests
  end

  --- How many of so many are granted.
  local function granted(path, count)
    local n = 0
    for _, one in ipairs(nginx.answers(send(path, count))) do
      if one.body:find "granted" then n = n + 1 end
    end
    return n
  end

  local function free() return (server:get "/free".body:gsub("\n", "")) end

  --- Of whom are these workers? By pid.
  local function mark(of, master, generation)
    for _, pid in ipairs(server:workers(master)) do of[pid] = generation end
  end

  it("grants no more than before while both are there, each of what the other leaves", function ()
    local first, last, sums, of = math.huge, 0, { 0, 0 }, {}
    local old = server.process.pid

    local function load(seconds)
      local ends = C.neap_loop_now(nil) + seconds * 1e9
      repeat
        for _, one in ipairs(nginx.answers(send("/calls", 20))) do
          local pid, at = one.body:match "^(%d+) (%d*)"
          at = tonumber(at)
          if at then
            first, last = min(first, at), max(last, at)
            local generation = assert(of[tonumber(pid)], "a worker nobody knows")
            sums[generation] = sums[generation] + 1
          end
        end
      until C.neap_loop_now(nil) > ends
    end

    process.eventually(function () return #server:workers() == WORKERS end)
    mark(of, old, 1)
    load(0.3)
    server:upgrade()
    process.eventually(function () return #server:workers() == WORKERS end)
    mark(of, nil, 2)
    load(0.5)
    os.execute("kill -QUIT " .. old)
    load(0.3)
    local all, allowed = sums[1] + sums[2], BURST + RATE * (last - first) / 1e9
    local said = ("%d and %d granted of %.1f"):format(sums[1], sums[2], allowed)
    assert.is_true(all <= allowed, said)
    assert.is_true(sums[1] > 0 and sums[2] > 0, said)
    assert.equal("", server:log "%[error%]")
  end)

  it("has spent what was spent, and has back what the old one held when that has ended", function ()
    local old = server.process.pid
    assert.equal(60, granted("/slow", 60))
    assert.equal(60, granted("/count", 60))
    local held = server:send "/hold"
    process.eventually(function () return free() == "2 1" end)
    server:upgrade()
    process.eventually(function () return #server:workers() == WORKERS end)
    os.execute("kill -WINCH " .. old)   -- its workers end when they have nothing to do
    assert.equal(40, granted("/slow", 60))
    assert.equal(40, granted("/count", 60))
    assert.equal("2 1", free())
    assert(io.open(server.dir .. "/go", "w")):close()
    assert.equal(200, nginx.answers { held }[1].status)
    process.eventually(function () return free() == "3 2" end)
    os.execute("kill -QUIT " .. old)
    process.eventually(function () return not server:master(true) end)
    assert.equal("", server:log "%[error%]")
  end)

  it("maps a segment once, however often it is reloaded", function ()
    for _ = 1, 4 do
      local old = {}
      mark(old, nil, 1)
      server:signal "HUP"
      process.eventually(function ()
        local pids = server:workers()
        for _, pid in ipairs(pids) do if old[pid] then return false end end
        return #pids == WORKERS
      end)
    end
    local maps = assert(io.open(("/proc/%s/maps"):format(server.process.pid)))
    local _, count = maps:read "*a":gsub("/segment\n", "")
    maps:close()
    assert.equal(1, count)
  end)
end)
