local breakers = require "neap.breakers"
local hybrid = require "neap.hybrid"
local in_virtual_time = require "spec.in_virtual_time"

local function collect()
  collectgarbage()
  collectgarbage()
end

local function fine(...) return true, ... end
local function down() return nil, "down" end

describe("breakers", function ()
  in_virtual_time()

  it("are one for a name, made as the first one says", function ()
    local all = breakers()
    local one = all:of("a", { failures = 2, cooldown = 10 })
    assert.equal(one, all:of("a", { failures = 1 }))
    assert.not_equal(one, all:of "b")
    assert.equal("a", one.name)
    assert.same({ nil, "down" }, { all:call("a", nil, down) })
    assert.equal("closed", all:state "a")
    assert.same({ true, 1, 2 }, { all:call("b", nil, fine, 1, 2) })
    all:call("a", { failures = 9 }, down)
    assert.same({ nil, "open", 10 }, { all:call("a", nil, fine) })
    assert.same({ "open", "closed", "closed" }, { all:state "a", all:state "b", all:state "c" })
    assert.same({ "a", "b" }, all:list())          -- to look makes none
  end)

  it("are reset, and deleted, by name", function ()
    local all = breakers()
    all:call("a", { failures = 1 }, down)
    all:reset "a"
    all:reset "nobody"
    assert.same({ "closed", 1 }, { all:state "a", all:call("a", nil, function () return 1 end) })
    all:call("a", nil, down)
    local old = all:of "a"
    all:delete "a"
    all:delete "nobody"
    assert.same({ {}, "closed", "open" }, { all:list(), all:state "a", old:state() })
    assert.not_equal(old, all:of "a")
  end)

  it("raise what a call raises, and count it", function ()
    local all = breakers()
    assert.has_error(function ()
      all:call("a", { failures = 1 }, function () error("boom", 0) end)
    end, "boom")
    assert.equal("open", all:state "a")
  end)

  it("that have failures are not forgotten; those that are as new make room", function ()
    local all = breakers { most = 3 }
    for _, name in ipairs { "a", "b", "c" } do all:call(name, { failures = 2 }, fine) end
    all:call("b", nil, down)
    all:call("d", { failures = 2 }, down)
    all:call("e", { failures = 2 }, down)
    assert.same({ "b", "d", "e" }, all:list())
    assert.same({ nil, "full" }, { all:of "f" })
    assert.same({ nil, "full" }, { all:call("f", nil, fine) })
    assert.same({ "b", "d", "e" }, all:list())
    all:call("d", nil, fine)
    assert(all:of "f")
    assert.same({ "b", "e", "f" }, all:list())
    all:call("b", nil, down)
    assert.equal("open", all:state "b")
  end)

  it("that somebody has are found again after they were let go", function ()
    local all = breakers { most = 1 }
    local api = hybrid { all:of("a", { failures = 2 }) }
    local held = api:try_acquire()
    all:call("b", { failures = 2 }, fine)
    collect()
    assert.same({ "b" }, all:list())
    held:give "failure"
    all:call("a", { failures = 9 }, down)          -- as it was made, with the failure it had
    assert.same({ "open", { "a" } }, { all:state "a", all:list() })
    collect()
    assert.same({ nil, "full" }, { all:of "b" })
    api, held = nil, nil                           -- luacheck: ignore
    collect()
    assert.equal("open", all:state "a")
  end)

  it("that nobody has and that were let go are gone", function ()
    local all = breakers { most = 10 }
    for i = 1, 1000 do all:call(i, nil, fine) end
    collect()
    assert.equal(10, #all:list())
    local left = 0
    for _ in pairs(all.made) do left = left + 1 end
    assert.equal(10, left)
  end)

  it("refuse what makes no sense, and make nothing then", function ()
    local all = breakers()
    for _, verb in ipairs { "of", "state", "reset", "delete", "call" } do
      assert.has_error(function () all[verb](all, nil) end)
      assert.has_error(function () all[verb](all, 0 / 0) end)
    end
    local rows = {
      { function () all:of("a", { failures = 0.5 }) end, "failures: a whole number" },
      { function () all:of("a", { fails = 3 }) end, "'fails' is not known" },
      { function () all:of("a", 3) end, "a table expected" },
      { function () all:call("a", nil, 3) end, "call: a function expected" },
      { function () breakers { most = 0 } end, "most: a whole number" },
      { function () breakers { most = 1.5 } end, "most: a whole number" },
      { function () breakers { size = 5 } end, "'size' is not known" },
      { function () breakers(5) end, "a table expected" },
    }
    for i, row in ipairs(rows) do
      local ok, err = pcall(row[1])
      assert.is_false(ok, i)
      assert.truthy(err:find(row[2], 1, true), err)
      assert.truthy(err:find("^spec/breakers_spec%.lua:"), err)
    end
    assert.same({}, all:list())
  end)
end)
