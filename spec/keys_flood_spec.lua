--- Keys without end: a policy with a bound on them holds no more memory than that, and forgives
--- nobody who has spent.
---
--- NEAP_KEYS=1000000 has as many keys come, and a tenth of that kept.
local declared = require "spec.declared"
local live = require "neap.policy.live"
local neap = require "neap"
local manual = require "neap.runtime.manual"
local seed = require "spec.seed"

local KEYS = tonumber(os.getenv "NEAP_KEYS") or 30000
local KEPT = KEYS / 10

describe("keys without end", function ()
  local before, rt

  before_each(function ()
    rt = manual.new { now = 1000000000LL }
    before = neap.runtime.use(rt)
  end)

  after_each(function () neap.runtime.use(before) end)

  -- kB that the process has, and those of Lua among them
  local function memory()
    collectgarbage()
    collectgarbage()
    local file = assert(io.open "/proc/self/statm")
    local pages = file:read "*a":match "^%d+ (%d+)"
    file:close()
    return pages * 4, collectgarbage "count"
  end

  it("are kept up to a bound; who has spent is not forgiven, whoever comes", function ()
    local policy = assert(live.new(declared.policy { per = { { by = { "tenant" },
      limits = declared.limits("requests", "1/min burst 1"), keep = { keys = KEPT } } } }))
    math.randomseed(seed)
    local spent, turned_away, granted = {}, 0, 0
    local rate = KEPT / 45   -- keys a second: three quarters of a minute's fit, and then a rush
    local half, lua_half
    for i = 1, KEYS do
      local rush = i % KEPT < KEPT / 10   -- at one instant
      if not rush then rt.advance(1 / rate) end
      local name = "tenant " .. i
      local held, why = policy:try_acquire { tenant = name, requests = 1 }
      if held then
        granted = granted + 1
        spent[granted % 1000] = { name, rt.now() }
      else
        assert.equal("full", why)
        turned_away = turned_away + 1
      end
      local one = spent[math.random(0, 999)]
      if one and i % 10 == 0 then
        local again, said = policy:peek { tenant = one[1], requests = 1 }
        if rt.now() - one[2] < 60 then
          assert.same({ nil, "rate" }, { again, said })
        end
      end
      if i == KEYS / 2 then half, lua_half = memory() end
    end
    local all, lua_all = memory()
    assert.truthy(granted > KEYS / 2, granted)
    assert.truthy(turned_away > 0)
    local alive = policy.scopes[1].limits[1].limiter:len()
    assert.truthy(alive <= 1.25 * KEPT, alive)   -- a quarter more may fit
    assert.truthy(all - half < 2048, ("%d kB more"):format(all - half))
    assert.truthy(lua_all - lua_half < 512, ("%d kB more of Lua"):format(lua_all - lua_half))
  end)
end)
