--- What is booked, what is out, and how much there may be of it, over the wire.
local declared = require "spec.declared"
local wired = require "spec.wired"

local limits = declared.limits

describe("a worker's leases", function ()
  local w, c

  local function open(...)
    w = wired.open(declared.tree(...))
    c = w:connect()
  end

  after_each(function () w:close() end)

  local function verdict(...) return w:verdict(c, ...) end

  local function left(limit)
    return w.map(w:ask(c, "NEAP.SNAPSHOT", "api")).limits[limit or 1].available
  end

  local function info(field)
    return tonumber(w:ask(c, "INFO", "limits"):match("\n" .. field .. ":(%d+)"))
  end

  -- ---- booking --------------------------------------------------------------------------------

  it("books the earliest instant, and gives back what is not used", function ()
    open { limits = limits("requests", "10/s burst 2") }
    assert.equal("GRANTED lease 0 -1 ", verdict("NEAP.RESERVE", "api", "COST", "2"))
    local one = w:ask(c, "NEAP.RESERVE", "api")
    local two = w:ask(c, "NEAP.RESERVE", "api")
    assert.equal("GRANTED lease 100 -1 ", w.said(one))
    assert.equal("GRANTED lease 200 -1 ", w.said(two))
    assert.equal(-2, left())
    assert.equal("RETRY - 0 300 requests", verdict("NEAP.ACQUIRE", "api"))
    assert.equal("PONG", w:ask(c, "PING"))                   -- nobody is held up
    w:pass(50)
    assert.equal(1, w:ask(c, "NEAP.RELEASE", one[2], "USED", "requests", "2"))
    assert.equal("RETRY - 0 150 requests", verdict("NEAP.ACQUIRE", "api"))
    w:pass(160)
    assert.equal(1, w:ask(c, "NEAP.RELEASE", two[2]))        -- it has begun: that is no undoing
    assert.equal("GRANTED - 0 -1 ", verdict("NEAP.ACQUIRE", "api"))
    assert.equal("RETRY - 0 90 requests", verdict("NEAP.ACQUIRE", "api"))
  end)

  it("books for all limits, keys of scopes among them, and says what cannot be booked", function ()
    open({ limits = limits("requests", "10/s burst 12", "calls", "2 in flight"),
      per = { { by = { "tenant" }, limits = limits("requests", "1/s burst 1") } } },
      { name = "smooth", limits = limits("a", "10/s burst 1", "b", "1/s burst 1") })
    local ask = { "NEAP.RESERVE", "api", "BY", "tenant", "7" }
    assert.equal("GRANTED lease 0 -1 ", verdict(unpack(ask)))
    local booked = w:ask(c, unpack(ask))
    assert.equal("GRANTED lease 1000 -1 ", w.said(booked))
    assert.equal("RETRY - 0 0 calls", verdict(unpack(ask)))   -- nobody knows when one comes back
    assert.equal("RETRY - 0 0 calls", verdict("NEAP.RESERVE", "api"))
    w:ask(c, "NEAP.RELEASE", booked[2])
    assert.equal("GRANTED lease 1000 -1 ", verdict(unpack(ask)))
    assert.equal("GRANTED lease 0 -1 ", verdict("NEAP.RESERVE", "smooth"))
    -- a would be kept from all others for nearly a second
    assert.equal("RETRY - 0 1000 b", verdict("NEAP.RESERVE", "smooth", "MAXWAIT", "900"))
    assert.equal("RETRY - 0 1000 a", verdict("NEAP.RESERVE", "smooth"))
    assert.equal("NEVER - 0 -1 b", verdict("NEAP.RESERVE", "smooth", "COST", "b", "2"))
    assert.equal("ERR unknown option 'BLOCK'", verdict("NEAP.RESERVE", "smooth", "BLOCK", "1"))
  end)

  it("does not book behind those who wait, nor before them", function ()
    open { limits = limits("requests", "10/s burst 1") }
    verdict("NEAP.ACQUIRE", "api")
    local d = w:connect()
    w:send(d, "NEAP.ACQUIRE", "api", "BLOCK", "5000")
    assert.equal("RETRY - 0 200 queue", verdict("NEAP.RESERVE", "api"))
    w:pass(100)
    assert.equal("GRANTED - 100 -1 ", w.said(w:receive(d)))
    assert.equal("GRANTED lease 100 -1 ", verdict("NEAP.RESERVE", "api"))
    w:send(d, "NEAP.ACQUIRE", "api", "BLOCK", "5000")
    w:pass(150)
    assert.is_nil(w:receive(d))
    w:pass(50)
    assert.equal("GRANTED - 200 -1 ", w.said(w:receive(d)))
  end)

  it("undoes what is booked when its connection is gone, and ends it in time", function ()
    open { limits = limits("requests", "10/s burst 1") }
    local d = w:connect()
    verdict("NEAP.ACQUIRE", "api")
    assert.equal("GRANTED lease 100 -1 ", w:verdict(d, "NEAP.RESERVE", "api"))
    d.socket:close()
    w:turns()
    assert.equal("GRANTED lease 100 -1 ", verdict("NEAP.RESERVE", "api", "TTL", "50"))
    assert.equal(1, info "leases_booked")
    w:pass(149)
    assert.equal(1, info "leases")
    w:pass(1)
    assert.equal(0, info "leases")
    assert.equal(0, info "leases_booked")
    assert.equal("RETRY - 0 50 requests", verdict("NEAP.ACQUIRE", "api"))   -- it was spent
  end)

  it("has one booking for one ID, from any connection", function ()
    open { limits = limits("requests", "10/s burst 1") }
    verdict("NEAP.ACQUIRE", "api")
    local booked = w:ask(c, "NEAP.RESERVE", "api", "ID", "x")
    local d = w:connect()
    w:pass(40)
    local again = w:ask(d, "NEAP.RESERVE", "api", "ID", "x")
    assert.same({ booked[2], 60 }, { again[2], again[3] })
    assert.equal("RETRY - 0 60 booked", verdict("NEAP.ACQUIRE", "api", "ID", "x"))
    w:pass(60)
    assert.equal(booked[2], w:ask(c, "NEAP.ACQUIRE", "api", "ID", "x")[2])
    assert.equal(0, w:ask(c, "NEAP.ACQUIRE", "api", "ID", "x")[3])
  end)

  -- ---- slots ----------------------------------------------------------------------------------

  it("has slots under a key, each with a lease", function ()
    open { limits = limits("requests", "10/s") }
    local one = w:lease(c, "NEAP.SLOT", "k", "1")
    assert.equal("RETRY - 0 0 slot", verdict("NEAP.SLOT", "k", "1"))
    local d = w:connect()
    w:send(d, "NEAP.SLOT", "k", "1", "BLOCK", "1000", "TTL", "200")
    w:pass(10)
    assert.equal(1, w:ask(c, "NEAP.RELEASE", one))
    assert.equal("GRANTED lease 10 -1 ", w.said(w:receive(d)))
    assert.equal("GRANTED lease 0 -1 ", verdict("NEAP.SLOT", "k", "2"))   -- there are two now
    assert.equal("RETRY - 0 0 slot", verdict("NEAP.SLOT", "k", "2"))
    w:pass(200)
    assert.equal("GRANTED - 0 -1 ", verdict("NEAP.SLOT", "k", "2", "PEEK"))
    assert.equal("RETRY - 0 0 slot", verdict("NEAP.SLOT", "k", "1"))      -- one, and it is out
    assert.equal("ERR SLOT needs a whole number from 1 to 2147483648, got '0'",
      verdict("NEAP.SLOT", "k", "0"))
    assert.equal("ERR a key has up to 1024 bytes, got 1025", verdict("NEAP.SLOT", ("x"):rep(1025),
      "1"))
  end)

  it("has an ID of a key apart from that of a policy of its name", function ()
    open { limits = limits("calls", "1 in flight") }
    local one = w:lease(c, "NEAP.ACQUIRE", "api", "ID", "x")
    local two = w:lease(c, "NEAP.SLOT", "api", "1", "ID", "x")
    assert.are_not.equal(one, two)
    assert.equal(two, w:lease(c, "NEAP.SLOT", "api", "1", "ID", "x"))
  end)

  it("keeps as many keys of slots as it may, and forgets those that are free", function ()
    open { limits = limits("requests", "10/s") }
    w.worker.desk.accounts.slots.max = 3
    local leases = {}
    for i = 1, 3 do leases[i] = w:lease(c, "NEAP.SLOT", "k" .. i, "1") end
    assert.equal("ERR all 3 keys of NEAP.SLOT are in use; try again later",
      verdict("NEAP.SLOT", "k4", "1"))
    assert.equal(1, info "neap_slot_keys_refused")
    w:ask(c, "NEAP.RELEASE", leases[2])
    assert.equal("GRANTED lease 0 -1 ", verdict("NEAP.SLOT", "k4", "1"))
    assert.equal("RETRY - 0 0 slot", verdict("NEAP.SLOT", "k1", "1"))
    assert.equal(3, info "neap_slot_keys")
  end)

  -- ---- what is out ----------------------------------------------------------------------------

  it("renews leases, lists the eldest first, and ends them by hand", function ()
    open({ limits = limits("calls", "5 in flight", "size", "9 in flight") },
      { name = "other", limits = limits("calls", "5 in flight") })
    local one = w:lease(c, "NEAP.ACQUIRE", "api", "TTL", "100", "COST", "size", "3")
    w:pass(10)
    local two = w:lease(c, "NEAP.ACQUIRE", "other", "DETACH", "ID", "x")
    assert.equal(500, w:ask(c, "NEAP.RENEW", one, "500"))
    assert.equal(-2, w:ask(c, "NEAP.RENEW", "nobody", "500"))
    assert.equal("ERR RENEW needs a whole number from 1 to 2147483648, got '0'",
      w:ask(c, "NEAP.RENEW", one, "0"))
    w:pass(490)
    local list = w.map(w:ask(c, "NEAP.LEASES"))
    assert.equal(2, #list)
    assert.same({ lease = one, policy = "api", client = list[1].client, id = w.null, held_ms = 500,
      begins_ms = 0, left_ms = 10, costs = { calls = 1, size = 3 } }, list[1])
    assert.same({ two, "other", -1, "x" },
      { list[2].lease, list[2].policy, list[2].client, list[2].id })
    assert.equal(two, w.map(w:ask(c, "NEAP.LEASES", "other"))[1].lease)
    assert.equal(1, #w:ask(c, "NEAP.LEASES", "COUNT", "1"))
    assert.equal(one, w.map(w:ask(c, "NEAP.LEASES", "COUNT", "1"))[1].lease)
    assert.equal("ERR COUNT needs a whole number from 1 to 1000, got '0'",
      w:ask(c, "NEAP.LEASES", "COUNT", "0"))
    assert.equal("NOPOLICY no policy 'othr' (did you mean 'other'?)",
      w:ask(c, "NEAP.LEASES", "othr"))
    assert.equal(1, w:ask(c, "NEAP.KILL", two))
    assert.equal(0, w:ask(c, "NEAP.KILL", two))
    assert.equal(0, w:ask(c, "NEAP.RELEASE", two))
    w:pass(10)
    assert.same({}, w:ask(c, "NEAP.LEASES"))
  end)

  it("renews what is booked from when it begins", function ()
    open { limits = limits("requests", "10/s burst 1") }
    verdict("NEAP.ACQUIRE", "api")
    local booked = w:ask(c, "NEAP.RESERVE", "api")[2]
    assert.equal(150, w:ask(c, "NEAP.RENEW", booked, "50"))
    w:pass(120)
    assert.equal(30, w.map(w:ask(c, "NEAP.LEASES"))[1].left_ms)
    assert.equal(20, w:ask(c, "NEAP.RENEW", booked, "20"))
  end)

  it("has a bound on the leases of a connection, on detached and on booked ones", function ()
    open { limits = limits("calls", "99 in flight", "requests", "10/s burst 99") }
    local max = w.worker.desk.leases.max
    max.of_client, max.detached, max.booked = 3, 2, 1
    local one = w:lease(c, "NEAP.ACQUIRE", "api")
    w:lease(c, "NEAP.ACQUIRE", "api")
    w:lease(c, "NEAP.SLOT", "k", "1")
    local err = "ERR this connection holds 3 leases, the most there may be; release some"
    assert.equal(err, verdict("NEAP.ACQUIRE", "api"))
    assert.equal(err, verdict("NEAP.SLOT", "k", "2"))
    assert.equal(err, verdict("NEAP.ACQUIRE", "api", "BLOCK", "100"))
    assert.equal(97, left())
    local d = w:connect()
    assert.equal("GRANTED lease 0 -1 ", w:verdict(d, "NEAP.ACQUIRE", "api"))
    w:lease(c, "NEAP.ACQUIRE", "api", "DETACH")
    w:lease(c, "NEAP.ACQUIRE", "api", "DETACH")
    local detached = "ERR 2 leases are detached, the most there may be; release some"
    assert.equal(detached, verdict("NEAP.ACQUIRE", "api", "DETACH"))
    local status = w:get(w:connect(1), "/v1/check/api")
    assert.equal(400, status)
    w:ask(c, "NEAP.RELEASE", one)
    assert.equal("GRANTED lease 0 -1 ", verdict("NEAP.ACQUIRE", "api", "COST", "requests", "94"))
    assert.equal(5, info "leases_refused")
    assert.equal("GRANTED lease 100 -1 ", w:verdict(d, "NEAP.RESERVE", "api"))
    assert.equal("ERR 1 leases are booked, the most there may be; try again later",
      w:verdict(d, "NEAP.RESERVE", "api"))
    d.socket:close()
    w:turns()
    assert.same({ 0, 2 }, { info "leases_booked", info "leases_detached" })
  end)

  -- ---- those who wait -------------------------------------------------------------------------

  it("lets a parked caller go with a verdict or with an error", function ()
    open { limits = limits("calls", "1 in flight") }
    w:lease(c, "NEAP.ACQUIRE", "api")
    local d = w:connect()
    local id = w:ask(d, "CLIENT", "ID")
    w:send(d, "NEAP.SLOT", "k", "1")
    w:receive(d)
    w:send(d, "NEAP.ACQUIRE", "api", "BLOCK", "0")
    assert.equal(1, w:ask(c, "CLIENT", "UNBLOCK", id))
    assert.equal("RETRY - 0 0 timeout", w.said(w:receive(d)))
    w:send(d, "NEAP.ACQUIRE", "api", "BLOCK", "0")
    assert.equal(1, w:ask(c, "CLIENT", "UNBLOCK", id, "ERROR"))
    assert.equal("UNBLOCKED client unblocked via CLIENT UNBLOCK", w:receive(d))
    assert.equal(0, w:ask(c, "CLIENT", "UNBLOCK", id))
    w:send(d, "NEAP.ACQUIRE", "api", "BLOCK", "0")
    assert.equal(1, w:ask(c, "CLIENT", "KILL", "ID", id))
    w:turns()
    assert.equal(0, w.map(w:ask(c, "NEAP.SNAPSHOT", "api")).waiting)
    assert.equal("GRANTED lease 0 -1 ", verdict("NEAP.SLOT", "k", "1"))   -- its slot is back
  end)

  it("tells how each of its commands is called, and how many words it has", function ()
    open { limits = limits("requests", "10/s") }
    local family = 0
    for _, entry in ipairs(w:ask(c, "COMMAND")) do
      local name, arity = entry[1], entry[2]
      if name:find "^neap%." then
        family = family + 1
        local said = w:ask(c, name, "HELP")
        assert.equal("table", type(said), name)
        assert.equal(name:upper(), said[1]:match "^%S+")
        if arity ~= -1 then
          assert.equal(("ERR wrong number of arguments for '%s' command"):format(name),
            w:ask(c, name))
        end
        if arity == -3 or arity == 3 then
          assert.equal(("ERR wrong number of arguments for '%s' command"):format(name),
            w:ask(c, name, "x"))
        end
        if arity > 0 then
          assert.equal(("ERR wrong number of arguments for '%s' command"):format(name),
            w:ask(c, name, "a", "b", "c"))
        end
      end
    end
    assert.truthy(family >= 15)
    assert.equal("NEAP.RESERVE policy [BY scope value ...] [COST [limit] n ...] [PRIO priority] " ..
      "[ID token] [TTL ttl] [DETACH] [MAXWAIT milliseconds]", w:ask(c, "neap.reserve", "help")[1])
  end)
end)
