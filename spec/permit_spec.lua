local C = require "neap.engine"
local hybrid = require "neap.hybrid"
local in_virtual_time = require "spec.in_virtual_time"
local seed = require "spec.seed"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

local random = math.random

describe("permits", function ()
  local rt

  in_virtual_time(function (new)
    math.randomseed(seed)
    rt = new
  end)

  -- The second opinion: what is held is the sum over the permits that are somewhere.
  local function sum(ledger, name)
    local total = 0
    for _, costs in pairs(ledger) do total = total + costs[name] end
    return total
  end

  local function some_cost()
    return { a = random(0, 4), b = random(0, 3), tokens = random(0, 50) }
  end

  it("account for every place, whatever their holders do", function ()
    local a, b = semaphore(7), semaphore(5)
    local limiters = {
      hybrid { a = a, b = b, tokens = "1000/s burst 100" },
      hybrid { tokens = throttle "2000/s burst 200", a = hybrid { a }, b = b },
    }
    local ledger, tasks = {}, {}
    local lost = setmetatable({}, { __mode = "k" })   -- dropped, and not collected yet

    local function life()
      local costs = some_cost()
      local given = { cost = costs }
      if random() < 0.3 then given.timeout = random() * 0.2 end
      local held = limiters[random(2)]:acquire(given)
      if not held then return end
      ledger[held] = costs
      for _ = 1, random(0, 2) do
        if rt.sleep(random() * 0.1) and random() < 0.3 then
          costs.a = random(0, costs.a)
          held:settle { a = costs.a }
        end
      end
      ledger[held] = nil
      if random() < 0.9 then held:give "failure" else lost[held] = costs end
    end

    for step = 1, 4000 do
      local dice = random()
      if dice < 0.5 then
        tasks[random(200)] = rt.spawn(life)
      elseif dice < 0.6 then
        local task = tasks[random(200)]
        if task then task:cancel() end
      elseif dice < 0.7 then
        local costs = some_cost()
        local held = limiters[random(2)]:try_acquire(costs)
        if held then
          assert.is_true(a:in_use() >= costs.a and b:in_use() >= costs.b)
          held:release()
        end
      else
        rt.advance(random() * 0.05)
        if step % 20 == 0 then
          collectgarbage()
          collectgarbage()
          rt.advance(0)
          assert.equal(C.NEAP_OK, C.neap_engine_check(rt.engine))
          assert.same({ sum(ledger, "a") + sum(lost, "a"), sum(ledger, "b") + sum(lost, "b") },
            { a:in_use(), b:in_use() }, "step " .. step)
        end
      end
      assert.is_true(a:in_use() <= 7 and b:in_use() <= 5)
    end

    -- A permit that comes back may be the next one's to lose.
    for _ = 1, 400 do
      if a:in_use() + b:in_use() == 0 and not next(limiters[1].waiting) then break end
      collectgarbage()
      collectgarbage()
      rt.advance(1)
    end
    assert.is_nil(next(ledger))
    assert.same({ 7, 5 }, { a:available(), b:available() })
    for _, limiter in ipairs(limiters) do assert.is_nil(next(limiter.waiting)) end
  end)

  it("leave the memory of limiters that nobody has", function ()
    local s = semaphore(1)
    local made = setmetatable({}, { __mode = "k" })
    for round = 1, 300 do
      local h = hybrid { s, throttle "10/s sliding", calls = "3 in flight" }
      made[h] = true
      local task = rt.spawn(function ()
        local held = h:acquire { timeout = random() * 3 }
        rt.sleep(random())
        return held and random() < 0.5 and held:release()
      end)
      if random() < 0.2 then task:cancel() end
      if round % 10 == 0 then
        rt.advance(random())
        collectgarbage()
        assert.equal(C.NEAP_OK, C.neap_engine_check(rt.engine))
      end
    end
    rt.advance(1000)
    for _ = 1, 4 do collectgarbage() end
    local left = 0
    for _ in pairs(made) do left = left + 1 end
    assert.is_true(left <= 2, left .. " are left")   -- what a coroutine at rest remembers
    assert.equal(1, s:available())
  end)
end)
