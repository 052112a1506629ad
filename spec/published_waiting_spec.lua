--- Tables that others publish about waiting in line, played by ours. What is compared, and where it
--- comes from, stands above each table in spec/published/.
local C = require "neap.engine"
local clock = require "spec.vectors.clock"
local dotnet = require "spec.published.dotnet_queue"
local ffi = require "ffi"
local guava = require "spec.published.guava"
local hybrid = require "neap.hybrid"
local manual = require "neap.runtime.manual"
local player = require "spec.published.player"
local queue = require "neap.queue"
local runtime = require "neap.runtime"
local seed = require "spec.seed"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"
local uber = require "spec.published.uber"
local x_time = require "spec.published.x_time"

local MS, SECOND = 1000000LL, 1000000000LL

-- ---- x/time/rate ------------------------------------------------------------------------------

describe("a line, as published by x/time/rate", function ()
  local TENTH = 100 * MS

  local function limiter(limit)
    if not limit then return throttle "unlimited" end
    return player.throttle(limit[1], (limit[3] or 1) * 1e9, limit[2])
  end

  for _, case in ipairs(x_time.allow) do
    it("lets go who does not wait: " .. case[1], player.test(function (rt)
      local t = limiter(case[2])
      for i, row in ipairs(case[3]) do
        clock.set(rt, row[1] * TENTH)
        assert.equal(player.ours(row[3]), t:try_acquire(row[2]) ~= nil, "row " .. i)
      end
    end))
  end

  local steps = {}

  function steps.reserve(world, step)
    local one = {}
    local task = world.rt.spawn(function ()
      local held, why = world.t:acquire(step[3], step.most and step.most / 10 or math.huge)
      one.held, one.got = held, held and tonumber(held.at) / tonumber(TENTH) or why
    end)
    one.task, one.step = task, step
    world.asked[#world.asked + 1] = one
    if step.who then world[step.who] = one end
    if step.who == "cancelled before" then
      task:cancel()
      one.got = "cancelled"
    end
  end

  -- Who is granted at this very instant has not acted yet.
  function steps.cancel(world, step)
    local one = world[step[3]]
    if not one.task:cancel() and one.held and one.held.at >= world.rt.now_ns() then
      one.held:settle(0)
    end
  end

  function steps.allow(world, step)
    assert.equal(step[4], world.t:try_acquire(step[3]) ~= nil)
  end

  function steps.limit(world, step)
    world.t:reconfigure(player.rate(step[3], 1e9, step[4]), "balance")
  end

  for _, case in ipairs(x_time.lines) do
    it("serves: " .. case[1], player.test(function (rt)
      local world = { rt = rt, t = limiter(case[2]), asked = {} }
      for _, step in ipairs(case[3]) do
        clock.set(rt, step[2] * TENTH)
        steps[step[1]](world, step)
        clock.settle(rt)
      end
      clock.set(rt, 100 * TENTH)
      for i, one in ipairs(world.asked) do
        assert.equal(player.ours(one.step[4]), one.got, "reservation " .. i)
      end
    end))
  end

  it("grants a burst and no more, however many ask at once", player.test(function ()
    local t, granted = limiter { x_time.at_once.amount, x_time.at_once.burst }, 0
    for _ = 1, x_time.at_once.asked do granted = granted + (t:try_acquire() and 1 or 0) end
    assert.equal(x_time.at_once.granted, granted)
  end))

  it("keeps to the rate in the long run", player.test(function (rt)
    local run, granted = x_time.long_run, 0
    local t = limiter { run.amount, run.burst }
    for ms = 0, run.seconds * 1000 - 1, run.every_ms do
      clock.set(rt, ms * MS)
      granted = granted + (t:try_acquire() and 1 or 0)
    end
    assert.is_true(granted >= run.least and granted <= run.most, granted .. " granted")
  end))
end)

-- ---- Guava ------------------------------------------------------------------------------------

describe("pacing that pays later, as published by Guava", function ()
  local function limit(rate, per_ns) return player.rate(rate, per_ns or 1e9, rate + 1) end

  local function limiter(rate, per_ns)
    if not rate then return throttle "unlimited" end
    return throttle(limit(rate, per_ns), { initial = 1 })
  end

  -- The seconds it took.
  local function acquire(rt, t, permits)
    local began = rt.now()
    t:acquire(1):settle(permits)
    return rt.now() - began
  end

  for _, case in ipairs(guava.events) do
    it("waits as long: " .. case[1], player.test(function (rt)
      local t, events = limiter(case[2]), {}
      for _, step in ipairs(case[3]) do
        if type(step) == "number" then
          events[#events + 1] = ("R%.2f"):format(acquire(rt, t, step))
        elseif step.sleep then
          rt.advance(step.sleep / 1e3)
          events[#events + 1] = ("U%.2f"):format(step.sleep / 1e3)
        else
          t:reconfigure(limit(step.rate), "balance")
        end
      end
      assert.equal(player.ours(case[4]), table.concat(events, ", "))
    end))
  end

  for _, case in ipairs(guava.tries) do
    it("waits no longer than allowed: " .. case[1], player.test(function (rt)
      local t = limiter(case[2], case.per_ns)
      for i, step in ipairs(case[3]) do
        if step.sleep then
          rt.advance(step.sleep / 1e3)
        else
          local held = t:acquire(1, step[1] / 1e3)
          assert.equal(step[2], held ~= nil, "step " .. i)
          if held then held:settle(step[3] or 1) end
        end
      end
    end))
  end

  -- So many permits in pieces of any size, and one more that waits until they are paid off.
  local function ms_for(rt, t, permits)
    local began = rt.now()
    while permits > 0 do
      local piece = math.max(1, math.random(permits) - 1)
      permits = permits - piece
      acquire(rt, t, piece)
    end
    acquire(rt, t, 1)
    return math.floor((rt.now() - began) * 1e3 + 1e-6)
  end

  it("never has more than a second's worth in a burst", player.test(function (rt)
    math.randomseed(seed)
    local t = limiter(guava.bursts.first)
    for i, rate in ipairs(guava.bursts.rates) do
      local where = ("rate %d, at %d"):format(rate, i)
      rt.advance(rate)
      t:reconfigure(limit(rate), "scale")
      assert.is_true(ms_for(rt, t, rate) <= guava.bursts.ms, where)
      assert.is_true(ms_for(rt, t, rate) >= guava.bursts.ms, where)
    end
  end))
end)

-- ---- uber-go/ratelimit ------------------------------------------------------------------------

describe("takers in a loop, as published by uber-go", function ()
  local function limiter(amount, ms, slack)
    return player.throttle(amount, ms * 1e6, slack + 1, 1)
  end

  for _, case in ipairs(uber.counts) do
    it("take as many: " .. case[1], player.test(function (rt)
      local limits, taken = {}, 0
      for name, limit in pairs(case[2]) do limits[name] = limiter(unpack(limit)) end
      local function take_of(names)
        local list = {}
        for i, name in ipairs(names) do list[i] = limits[name] end
        local one = list[2] and hybrid(list) or list[1]
        while true do
          assert(one:acquire())
          taken = taken + 1
        end
      end
      for _, takers in ipairs(case[3]) do
        for _ = 1, takers[2] do
          rt.spawn(function ()
            if takers[1] > 0 then rt.sleep(takers[1]) end
            take_of(takers[3])
          end)
        end
      end
      for _, count in ipairs(case[4]) do
        rt.advance_to(count[1] * SECOND - (count[3] and 0 or 1))
        assert.equal(count[2], taken, ("at %d s"):format(count[1]))
      end
    end))
  end

  for _, slack in ipairs(uber.first.slacks) do
    it("are spaced from the first on, with a slack of " .. slack, player.test(function (rt)
      local t = limiter(uber.first.limit[1], uber.first.limit[2], slack)
      local gaps, last = {}, 0LL
      for _ = 1, 3 do
        rt.spawn(function ()
          local at = t:acquire().at
          gaps[#gaps + 1], last = tonumber((at - last) / MS), at
        end)
      end
      rt.advance(1)
      assert.same(uber.first[1], gaps)
    end))
  end

  it("catch up with what they missed once", player.test(function (rt)
    local t = limiter(unpack(uber.again.limit))
    t:acquire()
    rt.advance(uber.again.pause_s)
    local began = rt.now_ns()
    for _ = 1, uber.again.takes do
      t:acquire()
      rt.advance_ns(1)
    end
    assert.equal(1, tonumber(rt.now_ns() - began) - uber.again.more_than_ns)
  end))
end)

-- ---- .NET -------------------------------------------------------------------------------------

-- A semaphore and its line, which is oldest first, on an engine with as many places; and a queue
-- with as many, where each has a higher priority than the one before, if it is newest first.
describe("a line before permits, as published by .NET", function ()
  local steps = {}

  local function outcome(held, why)
    return held and "granted" or why == "cancelled" and "cancelled" or "refused"
  end

  local function given(world, permits, timeout)
    if not world.priority then return permits end
    world.priority = world.priority + 1
    return { cost = permits, priority = world.priority, timeout = timeout }
  end

  function steps.try(world, who, permits)
    local verb = world.priority and "acquire" or "try_acquire"
    local held, why = world.s[verb](world.s, given(world, permits, 0))
    world.held[who], world.outcomes[who] = held, outcome(held, why)
  end

  function steps.acquire(world, who, permits)
    world.outcomes[who], world.asked[who] = "waiting", permits
    world.tasks[who] = world.rt.spawn(function ()
      local held, why = world.s:acquire(given(world, permits))
      world.held[who], world.outcomes[who] = held, outcome(held, why)
    end)
  end

  function steps.give(world, who) world.held[who]:release() end
  function steps.cancel(world, who) world.tasks[who]:cancel() end
  function steps.close(world) world.s:close() end

  function steps.free(world, permits, queued)
    local stats = ffi.new "struct neap_engine_stats"
    C.neap_engine_stats(world.rt.engine, stats)
    local waiting, sum = 0, 0
    for who, one in pairs(world.outcomes) do
      if one == "waiting" then waiting, sum = waiting + 1, sum + world.asked[who] end
    end
    assert.same({ permits, queued, waiting },
      { world.s:available(), sum, tonumber(stats.waiting) })
  end

  local function play(case, queues)
    local rt = manual.new(not queues and { waiters_max = case.callers or case[3] } or nil)
    runtime.use(rt)
    local world = {
      rt = rt, s = semaphore(case[2]), held = {}, outcomes = {}, tasks = {}, asked = {},
    }
    if queues then
      local newest = case[4] == "newest"
      world.s = queue(world.s, {
        capacity = case.callers or case[3], overflow = newest and "drop_oldest" or "reject",
      })
      world.priority = newest and 0 or nil
    end
    local expected = {}
    for i, step in ipairs(case[5]) do
      steps[step[1]](world, step[2], step[3])
      rt.advance(0)
      for who, what in pairs(step) do
        if type(who) == "string" then expected[who] = what end
      end
      if step[4] then expected[step[2]] = player.ours(step[4]) end
      assert.same(expected, world.outcomes, "after step " .. i)
    end
  end

  for _, case in ipairs(dotnet) do
    if case[4] == "oldest" and case.callers ~= 0 then
      it("serves: " .. case[1], player.test(function () play(case) end))
    end
    if case.callers ~= 0 then
      it("and in a queue, the " .. case[4] .. " first: " .. case[1], player.test(function ()
        play(case, true)
      end))
    end
  end
end)
