local backoff = require "neap.backoff"
local errors = require "neap.errors"
local events = require "neap.events"
local in_virtual_time = require "spec.in_virtual_time"
local polled = require "spec.polled"
local poller = require "neap.poller"
local seed = require "spec.seed"
local semaphore = require "neap.semaphore"

local huge = math.huge

describe("a poller", function ()
  local rt, log
  in_virtual_time(function (new) rt, log = new, {} end)
  local script, run, hangs = polled(function () return rt, log end)

  it("asks again after the back-off's delays, and answers what the last step did", function ()
    local policy, seen = poller { backoff = "1s x2" }, {}
    local play = script { "retry", { "retry", "queued" }, "retry", { "done", 1, 2 } }
    assert.same({ "done", 1, 2 }, run(policy, function (try)
      seen[#seen + 1] = { try.attempt, try.reason, try:remaining(), try:elapsed() }
      return play()
    end))
    assert.same({ 0, 1, 3, 7 }, log)
    assert.same({ { 0, nil, huge, 0 }, { 1, nil, huge, 1 }, { 2, "queued", huge, 3 },
      { 3, nil, huge, 7 } }, seen)
  end)

  it("takes anything else for a success, or for an error", function ()
    local policy = poller()
    for _, answer in ipairs { { 7 }, { "ready" }, { true }, { { "a" } }, { "Retry" },
      { nil, "no" }, { false, "no" }, { false }, { nil, "retry" } } do
      local step = function () return unpack(answer, 1, 2) end
      local got = run(policy, step)
      assert.same({ answer[1], answer[2] }, { got[1], got[2] })
    end
    local count
    rt.run(function () count = select("#", policy:run(function () end)) end)
    assert.equal(0, count)
    assert.equal(0, rt.now())
  end)

  it("waits as long as a step says, and knows a reason from a delay", function ()
    local policy = poller { backoff = "5s" }
    run(policy, script { { "retry", nil, 2 }, { "retry", "r", "250ms" }, { "retry", 404 },
      { "retry", "r", 0 }, { "retry", "r", -1 }, { "retry", "r" }, "done" })
    assert.same({ 0, 2, 2.25, 7.25, 7.25, 12.25, 17.25 }, log)
    for _, delay in ipairs { "soon", true, 0 / 0, {} } do
      local ok, err = pcall(run, policy, script { { "retry", "r", delay } })
      assert.is_false(ok)
      assert.matches("duration", err)
    end
    local places = semaphore(1)     -- the order is that of refusals
    rt.run(function ()
      local held = places:acquire()
      rt.spawn(function () rt.sleep(3) held:release() end)
      assert.truthy(policy:run(function ()
        local permit, why, wait_s = places:try_acquire()
        if not permit then return "retry", why, wait_s end
        permit:release()
        return true
      end))
    end)
    assert.equal(22.25, rt.now())
  end)

  it("has pauses in every form that a back-off has, and as a function", function ()
    for form, times in pairs {
      ["1s +1s"] = { 0, 1, 3, 6 },
      [{ base = 1, factor = 3, cap = 5 }] = { 0, 1, 4, 9 },
      [{ preset = "foundation_policy" }] = { 0, 1, 3, 7 },
      [backoff "2s"] = { 0, 2, 4, 6 },
      [function (attempt) return attempt * 2 end] = { 0, 0, 2, 6 },
      [function (attempt) return attempt == 1 and "1m" or "1s" end] = { 0, 1, 61, 62 },
      none = { 0, 0, 0, 0 },
    } do
      local began = rt.now()
      log = {}
      run(poller { backoff = form }, script { "retry", "retry", "retry", "done" })
      for i, at in ipairs(log) do log[i] = at - began end
      assert.same(times, log)
    end
    for delay, message in pairs { [-1] = "poller: backoff: seconds from 0", x = "bad duration",
      [true] = "a duration is seconds" } do
      local ok, err = pcall(run, poller { backoff = function () return delay end },
        script { "retry" })
      assert.is_false(ok)
      assert.matches(message, err)
    end
    assert.is_false((pcall(run, poller { backoff = function () end }, script { "retry" })))
  end)

  it("goes on from the delay before when its jitter is decorrelated", function ()
    run(poller { backoff = { base = 0.1, cap = 10, jitter = "decorrelated",
      random = function () return 0.5 end } }, script { "retry", "retry", "done" })
    assert.same({ 0, 0.2, 0.55 }, log)         -- of 0.1 to 0.3, and of 0.1 to 0.6
  end)

  it("is not worn out by a thousand steps", function ()
    local answers = {}
    for i = 1, 1100 do answers[i] = "retry" end
    answers[1101] = "done"
    assert.same({ "done" }, run(poller { backoff = "1s x2 cap 10s" }, script(answers)))
    assert.equal(1101, #log)
    assert.equal(1 + 2 + 4 + 8 + 1096 * 10, rt.now())
  end)

  it("lets others go first between steps that have no pause", function ()
    local steps, turns, most = 0, 0, 0
    rt.run(function ()
      local over = false
      rt.spawn(function ()
        while not over do
          turns = turns + 1
          rt.sleep(0)
        end
      end)
      local last = 0
      poller():run(function ()
        steps = steps + 1
        if steps > 1 then
          assert.truthy(turns > last)
          most = math.max(most, turns - last)
        end
        last = turns
        if steps == 1000 then return "done" end
        return "retry", "r", steps % 2 == 0 and 0 or nil
      end)
      over = true
    end)
    assert.equal(1000, steps)
    assert.truthy(most < 10)
    assert.equal(0, rt.now())
  end)

  it("sleeps for no time where there is no pause", function ()
    local zeros, sleep = 0, rt.sleep
    function rt.sleep(delay)
      if delay == 0 then zeros = zeros + 1 end
      return sleep(delay)
    end
    run(poller { backoff = "none" }, script { "retry", "retry", "done" })
    assert.equal(2, zeros)
  end)

  it("may begin a step at the deadline, not after it", function ()
    assert.same({ "done" }, run(poller { backoff = "1s", timeout = 2 },
      script { "retry", "retry", "done" }))
    assert.same({ 0, 1, 2 }, log)
    log = {}
    assert.same({ nil, "timeout", "why" }, run(poller { backoff = "1s", timeout = 1.999999999 },
      script { "retry", { "retry", "why" } }))
    assert.same({ 2, 3 }, log)
    assert.equal(3, rt.now())                  -- nobody waits for a step that cannot be
    log = {}
    assert.same({ nil, "timeout" }, run(poller { timeout = "1h" },
      script { { "retry", nil, "2h" }, "done" }))
    assert.same({ 3 }, log)
    assert.same({ "now" }, run(poller { timeout = 0 }, script { "now" }))
    assert.same({ nil, "timeout" }, run(poller { backoff = "1ns", timeout = 0 },
      script { "retry" }))
    assert.same({ nil, "timeout" }, run(poller(), script { "now" }, { deadline = rt.now() - 1 }))
    assert.equal(3, #log)                      -- nor for one that is too late already
  end)

  it("takes the earlier of a timeout and a deadline, and a run's own timeout", function ()
    local policy = poller { backoff = "1s", timeout = 3 }
    local function steps(given)
      log = {}
      run(policy, script { "retry" }, given)
      return #log
    end
    assert.equal(4, steps())
    assert.equal(3, steps { timeout = 2 })
    assert.equal(6, steps { timeout = "5s" })
    assert.equal(2, steps { deadline = rt.now() + 1 })
    assert.equal(4, steps { deadline = rt.now() + 9 })
    assert.equal(2, steps { timeout = 5, deadline = rt.now() + 1 })
    local left
    run(policy, function (try)
      left = { try:remaining(), tonumber(try.deadline - rt.now_ns()) }
    end)
    assert.same({ 3, 3e9 }, left)
  end)

  it("counts steps, and looks at the clock before the count", function ()
    assert.same({ nil, "max_attempts", "r" }, run(poller { backoff = "1s", max_attempts = 3 },
      script { { "retry", "r" } }))
    assert.same({ 0, 1, 2 }, log)
    assert.equal(2, rt.now())                  -- nobody waits after the last
    log = {}
    assert.same({ "done" }, run(poller { max_attempts = 2 }, script { "retry", "done" }))
    assert.same({ nil, "max_attempts" }, run(poller { max_attempts = 0 }, script { "x" }))
    assert.equal(2, #log)
    local both = poller { backoff = "1s", max_attempts = 1, timeout = 0.5 }
    assert.same({ nil, "timeout" }, run(both, script { "retry" }))
    assert.same({ nil, "max_attempts" }, run(both, script { "retry" }, { timeout = 1 }))
    assert.same({ nil, "timeout" }, run(poller { max_attempts = 0 }, script { "x" },
      { deadline = rt.now() - 1 }))
  end)

  it("makes an error of what a step raises, or what it is told to", function ()
    local function bad() error({ "boom" }, 0) end
    local answer = run(poller(), bad)
    assert.is_nil(answer[1])
    assert.same({ "boom" }, answer[2].value)
    assert.matches("poller_spec.lua", tostring(answer[2]))
    local ok, err = pcall(run, poller { exceptions = "raise" }, bad)
    assert.same({ false, { "boom" } }, { ok, err })
    local function handled(fn, step)
      return run(poller { exceptions = fn, backoff = "1s" }, step)
    end
    assert.same({ nil, "boom" }, handled(function (exception) return nil, exception.value[1] end,
      bad))
    assert.same({ "instead", 2 }, handled(function () return "instead", 2 end, bad))
    local thrown = 0
    assert.same({ "done" }, handled(function () return "retry", "failed", 2 end, function ()
      log[#log + 1] = rt.now()
      thrown = thrown + 1
      if thrown < 3 then error "again" end
      return "done"
    end))
    assert.same({ 0, 2, 4 }, log)
    answer = handled(function (exception) error(exception.value[1] .. " twice", 0) end, bad)
    assert.equal("boom twice", answer[2].value)
  end)

  --- What a run comes to, told without a clock that waits: rows of how long a step takes, what it
  --- answers and what delay it asks for.
  local function expected(rows, curve, timeout, attempts)
    local at, begun = 0, {}
    for i, row in ipairs(rows) do
      if at > timeout then return "timeout", at, begun end
      if i > attempts then return "max_attempts", at, begun end
      begun[i] = at
      if at + row.takes > timeout then return "timeout", timeout, begun end
      at = at + row.takes
      if row.answer ~= "retry" then return row.answer, at, begun end
      local delay = row.delay and row.delay >= 0 and row.delay or curve
      if at + delay > timeout then return "timeout", at, begun end
      if i + 1 > attempts then return "max_attempts", at, begun end
      at = at + delay
    end
  end

  it("makes those steps that time and count allow, and leaves nothing behind", function ()
    math.randomseed(seed)
    local random = math.random
    local ends = {}
    for round = 1, 1000 do
      local rows = {}
      for i = 1, 8 do
        rows[i] = { takes = random(0, 3), answer = random(6) == 1 and "done" or "retry",
          delay = random(3) == 1 and random(-1, 4) or nil }
      end
      rows[8].answer = "done"
      local curve, timeout, attempts = random(0, 3), random(0, 30), random(0, 10)
      local began, answer, took = rt.now(), nil, nil
      log = {}
      rt.run(function ()
        answer = { poller { backoff = curve > 0 and { base = curve } or nil,
          max_attempts = attempts }:run(function (try)
            local row = rows[try.attempt + 1]
            log[#log + 1] = rt.now() - began
            if row.takes > 0 then rt.sleep(row.takes) end
            if row.answer == "retry" then return "retry", nil, row.delay end
            return row.answer
          end, { timeout = timeout }) }
        took = rt.now() - began
      end)
      local text = "round " .. round
      local word, at, begun = expected(rows, curve, timeout, attempts)
      assert.equal(word, answer[1] or answer[2], text)
      assert.same(begun, log, text)
      assert.equal(at, took, text)
      assert.equal(at, rt.now() - began, text)
      ends[word] = (ends[word] or 0) + 1
    end
    for _, word in ipairs { "done", "timeout", "max_attempts" } do
      assert.truthy((ends[word] or 0) > 20, word)
    end
  end)

  it("tells what happens", function ()
    local told = {}
    local stop = events.tap(function (event)
      told[#told + 1] = { event.kind, event.attempt, event.delay, event.duration, event.why,
        event.error, event.reason, event.name, event.host }
    end, { "poller.start", "poller.retry", "poller.stop", "poller.failed" })
    local policy = poller { name = "job", backoff = "1s", max_attempts = 2, timeout = "9s" }
    run(policy, script({ { "retry", "r" }, "done" }, 0.5), { fields = { host = "h" } })
    run(policy, script({ "retry" }, 0.5))
    run(policy, script { { nil, "no" } })
    run(policy, hangs, { timeout = 2 })
    stop()
    run(policy, script { "done" })
    local function row(kind, attempt, delay, duration, why, err, reason, host)
      return { "poller." .. kind, attempt, delay, duration, why, err, reason, "job", host }
    end
    assert.same({
      row("start", 0, nil, nil, nil, nil, nil, "h"), row("retry", 0, 1, 0.5, nil, nil, "r", "h"),
      row("start", 1, nil, nil, nil, nil, nil, "h"), row("stop", 1, nil, 0.5, nil, nil, nil, "h"),
      row("start", 0), row("retry", 0, 1, 0.5),
      row("start", 1), row("failed", 1, nil, 0.5, "max_attempts"),
      row("start", 0), row("failed", 0, nil, 0, "error", "no"),
      row("start", 0), row("failed", 0, nil, 2, "timeout"),
    }, told)
    for _, event in ipairs(told) do assert.truthy(not event[5] or errors.kinds[event[5]]) end
  end)

  it("refuses what makes no sense, and says so", function ()
    for options, message in pairs {
      [7] = "a table expected", [{ timeuot = 1 }] = "did you mean 'timeout'?",
      [{ timeout = -1 }] = "timeout: seconds from 0 expected, got -1",
      [{ timeout = "soon" }] = "bad duration", [{ timeout = "1.5ns" }] = "bad duration",
      [{ timeout = 0 / 0 }] = "a duration is seconds", [{ timeout = {} }] = "a duration is seconds",
      [{ max_attempts = -1 }] = "max_attempts: a whole number from 0 expected, got -1",
      [{ max_attempts = 1.5 }] = "max_attempts: a whole number",
      [{ max_attempts = "3" }] = "max_attempts: a whole number",
      [{ backoff = "1x" }] = "backoff: bad text", [{ backoff = 5 }] = "backoff: a text such as",
      [{ backoff = { "exponential", 0.5, 0.1 } }] = "option '1' is not known",
      [{ backoff = { base = 0.5, factor = 2, cap = 0.1, strict = true } }] = "cap: not less",
      [{ exceptions = "pass" }] = "exceptions: 'return', 'raise' or a function expected, got pass",
      [{ name = 1 }] = "name: a string expected",
    } do
      local ok, err = pcall(function () return poller(options), nil end)
      assert.is_false(ok, message)
      assert.truthy(err:find(message, 1, true), err)
      assert.truthy(err:find "^spec/poller_spec.lua:", err)
    end
    local policy = poller()
    for _, verb in ipairs { "run", "start" } do
      for args, message in pairs {
        [{}] = verb .. ": a function expected, got nil",
        [{ hangs, 7 }] = verb .. ": a table expected",
        [{ hangs, { timeuot = 1 } }] = "did you mean 'timeout'?",
        [{ hangs, { timeout = -1 } }] = "timeout: seconds from 0",
        [{ hangs, { deadline = "noon" } }] = "deadline: an instant expected",
        [{ hangs, { fields = 1 } }] = "fields: a table expected",
      } do
        local ok, err = pcall(function () return policy[verb](policy, unpack(args, 1, 2)), nil end)
        assert.is_false(ok, message)
        assert.truthy(err:find(message, 1, true), err)
        assert.truthy(err:find "^spec/poller_spec.lua:", err)
      end
    end
    local polling = policy:start(script { 1 })
    local ok, err = pcall(function () return polling:await(-1), nil end)
    assert.is_false(ok)
    assert.matches("^spec/poller_spec.lua:%d+: poller: await: seconds from 0", err)
    assert.same({ 1 }, { polling:await() })
  end)
end)
