--- limit_req, limit_conn and limit_count in a real nginx, as code has them that was written for
--- lua-resty-limit-traffic: nothing is set up, each request makes its limiter anew, and workers
--- that are not root share what a store keeps; also with those of a reload, and when one is killed.
local nginx = require "spec.nginx"
local process = require "spec.process"

local concat = table.concat

local WORKERS, NOBODY = 4, 65534

local HTTP = [[
	lua_shared_dict limits 1m;
	lua_shared_dict witness 1m;
]]

local SERVER = [[
	location = /count {
		content_by_lua_block {
			local limit = assert(require "neap.ngx.limit_count".new("limits", 100, 1000))
			ngx.say(limit:incoming("k", true) and "granted " or "refused ", ngx.worker.pid())
		}
	}
	location = /req {
		content_by_lua_block {
			local limit = assert(require "neap.ngx.limit_req".new("limits", 0.001, 49))
			ngx.say(limit:incoming("k", true) and "granted " or "refused ", ngx.worker.pid())
		}
	}
	location = /conn {
		access_by_lua_block {
			local limit = assert(require "neap.ngx.limit_conn".new("limits", 10, 0, 1))
			if not limit:incoming("k", true) then return ngx.exit(503) end
			ngx.ctx.limit = limit
			ngx.shared.witness:incr(ngx.worker.pid(), 1, 0)
		}
		content_by_lua_block { ngx.sleep(tonumber(ngx.var.arg_s)) ngx.say "done" }
		log_by_lua_block {
			if ngx.ctx.limit then ngx.ctx.limit:leaving("k") end
		}
	}
	location = /in_flight {
		content_by_lua_block {
			local limit = assert(require "neap.ngx.limit_conn".new("limits", 1000, 0, 1))
			ngx.say(select(2, limit:incoming("k", false)) - 1)
		}
	}
	location = /of { content_by_lua_block { ngx.say(ngx.shared.witness:get(ngx.var.arg_pid) or 0) } }
	location = /keys {
		content_by_lua_block {
			local limit = assert(require "neap.ngx.limit_req".new("limits", 0.001, 1))
			for i = 1, 20000 do assert(limit:incoming("key " .. i, true)) end
			ngx.say((limit:incoming("key 20000", false)) > 0, " ", (limit:incoming("key 1", false)))
		}
	}
]]

describe("the limiters of lua-resty-limit-traffic in nginx, with a require changed,", function ()
  local server

  if not nginx.is_here() then
    it("is not here, or cannot load this library", function () pending "no nginx" end)
    return
  end

  --- The files of stores that a worker has open.
  local function files(pid)
    local list = {}
    local maps = assert(io.open(("/proc/%s/maps"):format(pid)))
    for path in maps:read "*a":gmatch "/dev/shm/neap%-[^\n]+" do list[#list + 1] = path end
    maps:close()
    return list
  end

  before_each(function ()
    server = nginx.start { workers = WORKERS, user = "nobody nogroup", tcp = true, http = HTTP,
      server = SERVER }
  end)

  after_each(function ()
    for _, pid in ipairs(server:workers()) do
      for _, path in ipairs(files(pid)) do os.remove(path) end
    end
    server:stop()
  end)

  --- How many of `count` requests at once pass; and by how many workers.
  local function granted(path, count)
    local requests, n, pids, workers = {}, 0, {}, 0
    for i = 1, count do requests[i] = server:send(path) end
    for _, one in ipairs(nginx.answers(requests)) do
      local what, pid = one.body:match "^(%l+) (%d+)"
      assert.is_string(what, server:log "%[error%]")
      if what == "granted" then n = n + 1 end
      if not pids[pid] then pids[pid], workers = true, workers + 1 end
    end
    return n, workers
  end

  local function in_flight() return tonumber(server:get "/in_flight".body) end

  local function quiet()
    local said = server:log "%[error%]"
    assert.equal("", said)
  end

  it("count for all workers together, and across a reload", function ()
    local n, workers = granted("/count", 60)
    assert.equal(60, n)
    assert.is_true(workers > 1)
    local old = server:workers()
    server:signal "HUP"
    process.eventually(function ()
      local now = concat(server:workers(), " ")
      for _, pid in ipairs(old) do
        if now:find(tostring(pid), 1, true) then return false end
      end
      return #server:workers() == WORKERS
    end)
    assert.equal(40, (granted("/count", 200)))
    quiet()
  end)

  it("rate for all workers together", function ()
    local n, workers = granted("/req", 200)
    assert.equal(50, n)
    assert.is_true(workers > 1)
    assert.equal(0, (granted("/req", 20)))
    quiet()
  end)

  it("have those in flight back when they leave, and when their worker is killed", function ()
    local requests = {}
    for i = 1, 10 do requests[i] = server:send "/conn?s=20" end
    process.eventually(function () return in_flight() == 10 end)
    assert.equal(503, server:get "/conn?s=0".status)
    local pids, dies = server:workers(), nil
    for _, pid in ipairs(pids) do
      if tonumber(server:get("/of?pid=" .. pid).body) > 0 then dies = pid end
    end
    local lost = tonumber(server:get("/of?pid=" .. dies).body)
    os.execute("kill -KILL " .. dies)
    process.eventually(function () return in_flight() == 10 - lost end)
    for i = 1, lost do requests[10 + i] = server:send "/conn?s=20" end
    process.eventually(function () return in_flight() == 10 end)
    assert.equal(503, server:get "/conn?s=0".status)
    for _, request in ipairs(requests) do request.wire:close() end
    for _, pid in ipairs(server:workers()) do os.execute("kill -KILL " .. pid) end
    process.eventually(function () return in_flight() == 0 end)
    for _ = 1, 20 do assert.equal(200, server:get "/conn?s=0".status) end
    assert.equal(0, in_flight())
    quiet()
  end)

  it("forget the least recent of their keys, and are files of the workers alone", function ()
    assert.equal("true 0\n", server:get "/keys".body)
    local paths = files(server:workers()[1])
    for i = 2, WORKERS do
      if #paths == 0 then paths = files(server:workers()[i]) end
    end
    assert.matches("^/dev/shm/neap%-" .. NOBODY .. "%-%x+%-req%-limits$", paths[1])
    assert.equal("600 nobody", (process.output("stat -c '%a %U' " .. paths[1]):gsub("\n", "")))
    assert.equal("", server:log "%[error%]")
  end)
end)
