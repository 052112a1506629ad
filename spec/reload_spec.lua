--- The policy file read anew by a real worker: by signal, by command and watched, under load.
---
---     NEAP_SOAK=50   a thousand rounds of them, of a reload and a half each
local process = require "spec.process"
local socket = require "socket"

local BIN = os.getenv "NEAP_BUILD" .. "/bin/neap"
local soak = tonumber(os.getenv "NEAP_SOAK" or 1)
local RELOADS = 20 * soak
local MOST = 5e6   -- tokens

local function is_granted(reply) return type(reply) == "table" and reply[1] == "GRANTED" end

--- A reply that is a map, by name.
local function map(list)
  local by_name = {}
  for i = 1, #list, 2 do by_name[list[i]] = list[i + 1] end
  return by_name
end

describe("the policy file of a worker", function ()
  local path, worker

  local function write(text)
    local file = assert(io.open(path .. ".new", "w"))
    file:write(text)
    file:close()
    assert(os.rename(path .. ".new", path))   -- never half of it
  end

  local function start(text, ...)
    path = process.unused_path()
    write(text)
    worker = process.start { BIN, "run", "--listen", "127.0.0.1:0", "--drain", "1ms",
      path, ... }
    worker.address = assert(worker:line():match "address=(%S+)")
    return process.dial(worker.address)
  end

  after_each(function ()
    process.sweep()
    os.remove(path)
  end)

  local function left(peer, policy, i)
    local limits = map(peer:ask("NEAP.SNAPSHOT", policy)).limits
    return map(limits[i or 1]).available
  end

  local function words(text) return { err = "ERR the policy stays as it was: " .. text } end

  it("is read when a client says so, who hears what becomes of limits or is wrong", function ()
    local peer = start 'policy "api" { limits = { requests = "1000/min" } }'
    peer:ask("NEAP.ACQUIRE", "api", "COST", 700)
    assert.equal("nothing changes", peer:ask("NEAP.POLICY", "RELOAD"))
    write 'policy "api" { limits = { requests = "1200/30d" } }'
    assert.equal("api  requests  1k/min -> 1200/30d, what is used stays used",
      peer:ask("NEAP.POLICY", "reload"))
    local was = left(peer, "api")
    assert.truthy(was >= 500)
    local parked = process.dial(worker.address)
    parked:send("NEAP.ACQUIRE", "api", "COST", 1200, "BLOCK", 0)
    write 'policy "api" { limits = { requests = "12x/min" } }\npolcy "b" {}'
    local err = peer:ask("NEAP.POLICY", "RELOAD").err
    assert.matches("^ERR the policy stays as it was: /%S+:1:41: limits.requests: bad limit ", err)
    assert.matches("; /%S+:2:1: unknown name 'polcy' %(did you mean 'policy'%?%)$", err)
    assert.same(words("policy:1: stopped after 10 million steps: a policy file declares and ends"),
      peer:ask("NEAP.POLICY", "LOAD", "while true do end"))
    os.remove(path)
    assert.matches("No such file", peer:ask("NEAP.POLICY", "RELOAD").err)
    assert.equal(was, left(peer, "api"))
    assert.equal(1, map(peer:ask("NEAP.SNAPSHOT", "api")).waiting)
    assert.matches("requests +1200/30d %-> 1300/30d", peer:ask("NEAP.POLICY", "LOAD",
      'policy "api" { limits = { requests = "1300/30d" } }'))
    assert.equal(was + 100, left(peer, "api"))
    assert.matches("^ERR POLICY takes ", peer:ask("NEAP.POLICY", "LOAD").err)
    parked.wire:settimeout(0)
    assert.equal("timeout", select(2, parked.wire:receive(1)))
  end)

  it("is read on SIGHUP, and again when it changes where it is watched", function ()
    local peer = start('policy "api" { limits = { requests = "10/30d" } }', "--watch")
    local ear = process.dial(worker.address)
    assert.equal(1, ear:ask("SUBSCRIBE", "neap:-:reload", "neap:-:reload-failed")[3])
    ear:receive()
    write 'policy "api" { limits = { requests = "20/30d" } }'
    worker:signal "HUP"
    assert.matches('"event":"reload".*"changes":1', ear:receive()[3])
    assert.equal(20, left(peer, "api"))
    write 'policy "api" { limits = { requests = "30/30d" } }'
    assert.matches('"event":"reload".*"changes":1', ear:receive()[3])
    assert.equal(30, left(peer, "api"))
    write "nonsense"
    assert.matches('"event":"reload%-failed".*"mistakes":1', ear:receive()[3])
    assert.equal(30, left(peer, "api"))
  end)

  -- ---- load ----

  --- Clients that take and give back all the time, over their sockets at once.
  local function load(count)
    local self = { granted = 0, peers = {}, sockets = {}, of = {}, by_tenant = {} }
    for i = 1, count do
      local peer = process.dial(worker.address)
      peer.tenant = "t" .. i % 3
      self.peers[i], self.sockets[i], self.of[peer.wire] = peer, peer.wire, peer
      peer:send("NEAP.ACQUIRE", "api", "BY", "tenant", peer.tenant, "BLOCK", 0)
    end

    local function step(peer, on)
      local reply = peer:receive()   -- an error here is a connection that was lost
      if is_granted(reply) then
        self.granted = self.granted + 1
        self.by_tenant[peer.tenant] = (self.by_tenant[peer.tenant] or 0) + 1
        peer:send("NEAP.RELEASE", reply[2])
      else
        assert.equal(1, reply)
        peer.idle = not on
        if on then
          peer:send("NEAP.ACQUIRE", "api", "BY", "tenant", peer.tenant, "BLOCK", 0)
        end
      end
    end

    --- Some of it.
    function self.go(on)
      for _, wire in ipairs(socket.select(self.sockets, nil, 0.01)) do step(self.of[wire], on) end
    end

    --- All come to rest.
    function self.rest()
      local busy
      repeat
        self.go(false)
        busy = false
        for _, peer in ipairs(self.peers) do busy = busy or not peer.idle end
      until not busy
    end
    return self
  end

  it(("loses no client, no place in line and no token in %d reloads under load"):format(RELOADS),
    function ()
    local function text(i)
      return ([[
        policy "api" { limits = { requests = "%d/100d", calls = "%d in flight"%s },
          per "tenant" { requests = "%d/100d", keep = "%d keys" } }
        policy "none" { limits = { one = "1 in flight"%s } }
        %s]]):format(MOST + i, 3 + i % 3, i % 2 == 0 and ', other = "1000000/s"' or "",
        MOST + i, 1000 + i % 5, i % 2 == 0 and ', more = "1000/s"' or "",
        i % 3 == 0 and 'policy "extra" { limits = { a = "1/s" } }' or "")
    end
    local since = socket.gettime()
    local peer = start(text(0))
    local holder = process.dial(worker.address):ask("NEAP.ACQUIRE", "none", "DETACH",
      "TTL", 3600000)[2]
    local parked = {}
    for i = 1, 10 do
      parked[i] = process.dial(worker.address)
      parked[i]:send("NEAP.ACQUIRE", "none", "BLOCK", 0)
      peer:ask "PING"
    end
    --- What it says of one reload: a pipe that is full would keep it waiting.
    local function read()
      local line
      repeat line = worker:line() until line:find "^info reload changes" or line:find "^error"
      assert.matches("^info reload", line)
    end
    local all = load(12)
    for i = 1, RELOADS do
      write(text(i))
      if i % 2 == 0 then
        worker:signal "HUP"
        read()
      end
      peer:send("NEAP.POLICY", "RELOAD")
      repeat all.go(true) until socket.select({ peer.wire }, nil, 0)[1]
      local said = peer:receive()
      assert.equal("string", type(said), said.err)
      read()
    end
    assert.truthy(all.granted > RELOADS)
    all.rest()
    --- Exactly, but for what time gave back.
    local function spent(n, available)
      local back = available - (MOST + RELOADS - n)
      assert.truthy(back >= 0 and back <= (socket.gettime() - since) * MOST / 8640000 + 1, back)
    end
    spent(all.granted, left(peer, "api"))
    assert.equal(3 + RELOADS % 3, left(peer, "api", 2))
    for tenant, n in pairs(all.by_tenant) do
      local by = map(peer:ask("NEAP.SNAPSHOT", "api", "BY", "tenant", tenant)).by
      spent(n, map(by[1]).available)
    end
    assert.equal(#parked, map(peer:ask("NEAP.SNAPSHOT", "none")).waiting)
    for i = 1, #parked do
      assert.equal(1, peer:ask("NEAP.RELEASE", holder))
      local reply = parked[i]:receive()
      assert.truthy(is_granted(reply))
      holder = reply[2]
    end
  end)
end)
