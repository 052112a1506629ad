local breaker = require "neap.breaker"
local budget = require "neap.budget"
local classify = require "neap.classify"
local events = require "neap.events"
local in_virtual_time = require "spec.in_virtual_time"
local per_key = require "neap.per_key"
local retry = require "neap.retry"
local seed = require "spec.seed"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

local huge = math.huge

describe("a retry", function ()
  local rt, log

  in_virtual_time(function (new) rt, log = new, {} end)

  --- A call that notes when it begins, takes a while, and answers what the list says.
  local function script(answers, takes)
    local calls = 0
    return function ()
      calls = calls + 1
      log[#log + 1] = rt.now()
      if takes then rt.sleep(takes) end
      local answer = answers[math.min(calls, #answers)]
      if type(answer) == "table" then return unpack(answer, 1, 3) end
      return answer
    end
  end

  local function run(policy, ...)
    local answer
    local args = { ... }
    rt.run(function () answer = { policy:run(unpack(args)) } end)
    return answer
  end

  local FAILED, DONE = { nil, "no", 7 }, { "done", 1, 2 }

  it("calls again until it succeeds, after the back-off's delays", function ()
    local policy = retry { backoff = "1s x2" }
    assert.same(DONE, run(policy, script { FAILED, FAILED, FAILED, DONE }))
    assert.same({ 0, 1, 3, 7 }, log)
  end)

  it("goes on from the delay before when its jitter is decorrelated", function ()
    local policy = retry { backoff = { base = 0.1, cap = 10, jitter = "decorrelated",
      random = function () return 0.5 end } }
    run(policy, script { FAILED, FAILED, DONE })
    assert.same({ 0, 0.2, 0.55 }, log)         -- of 0.1 to 0.3, and of 0.1 to 0.6
  end)

  it("answers what the last call did", function ()
    local policy = retry { backoff = "1s", max_attempts = 3 }
    local answer = run(policy, script { { nil, "first" }, { nil, "second" }, FAILED })
    assert.same({ nil, "no", 7 }, { answer[1], answer[2], answer[3] })
    assert.same({ 0, 1, 2 }, log)
    assert.equal(2, rt.now())   -- nobody waits after the last
  end)

  it("counts calls or repeats, as it is told", function ()
    for options, calls in pairs {
      [{ max_attempts = 3 }] = 3, [{ max_retries = 3 }] = 4, [{ max_attempts = 0 }] = 1,
      [{ max_retries = 0 }] = 1, [{}] = 5, [{ enabled = false, max_attempts = 9 }] = 1,
      [{ preset = "throttle_net", max_retries = 1 }] = 2,
      [{ preset = "foundation_handler", max_attempts = 2 }] = 2,
    } do
      options.backoff = "1ms"
      log = {}
      run(retry(options), script { FAILED })
      assert.equal(calls, #log)
    end
    assert.equal(huge, retry({ max_retries = huge }).max_attempts)
  end)

  it("takes nil and an error, and false, for failures, and all else for success", function ()
    local policy = retry { backoff = "1ms", max_attempts = 2 }
    for answers, calls in pairs {
      [{ { nil, "e" } }] = 2, [{ { false, "e" } }] = 2, [{ { false } }] = 2, [{ {} }] = 1,
      [{ { true } }] = 1, [{ { 0, "e" } }] = 1, [{ { "" } }] = 1,
    } do
      log = {}
      run(policy, script(answers))
      assert.equal(calls, #log)
    end
  end)

  it("lets a classifier say what is tried again, and when", function ()
    local policy = retry { backoff = "1s x2", max_attempts = 9 }
    local seen = {}
    local answer = run(policy, script { { nil, "busy" }, { nil, "soon" }, { nil, "busy" },
      { nil, "fatal" } }, function (outcome)
      seen[#seen + 1] = { outcome.attempt, outcome.elapsed, outcome.err }
      if outcome.err == "soon" then return "retry", 0.5 end
      return outcome.err == "busy"
    end)
    assert.same({ nil, "fatal" }, { answer[1], answer[2] })
    assert.same({ 0, 1, 1.5, 5.5 }, log)       -- 1, the hint, 4: a hint does not stop the curve
    assert.same({ { 0, 0, "busy" }, { 1, 1, "soon" }, { 2, 1.5, "busy" }, { 3, 5.5, "fatal" } },
      seen)
    local _, err = pcall(run, policy, script { FAILED }, function () return "again" end)
    assert.matches("^a classifier answers \"retry\", \"stop\" or nil, not again", err)
  end)

  it("asks it about successes, too, but not about the last call", function ()
    local asked = 0
    local policy = retry { backoff = "1s", max_attempts = 3, classify = function (outcome)
      asked = asked + 1
      return outcome.value == "pending"
    end }
    assert.same({ "ready" }, run(policy, script { "pending", "ready" }))
    assert.equal(2, asked)
    assert.same({ "pending" }, run(policy, script { "pending" }))
    assert.equal(4, asked)
  end)

  it("follows a hint in place of the curve, at least, or not, and never for too long", function ()
    local function waits(options, hint)
      options.max_attempts, options.backoff = 2, options.backoff or "10s"
      log = {}
      run(retry(options), script { { nil, { retry_after = hint } }, DONE })
      return log[2] - log[1]
    end
    assert.equal(2, waits({}, 2))
    assert.equal(60, waits({}, 60))
    assert.equal(10, waits({ hint = "at_least" }, 2))
    assert.equal(60, waits({ hint = "at_least" }, 60))
    assert.equal(10, waits({ hint = "ignore" }, 60))
    assert.equal(300, waits({}, 1e9))
    assert.equal(20, waits({ hint_max = "20s" }, 1e9))
    assert.equal(1e6, waits({ hint_max = huge }, 1e6))
    for _, junk in ipairs { -1, 0 / 0, "5", true } do assert.equal(10, waits({}, junk)) end
  end)

  it("gives up rather than wait past its limits", function ()
    local policy = retry { backoff = "10s", max_elapsed = "25s" }
    assert.same({ nil, "no", 7 }, { unpack(run(policy, script { FAILED }), 1, 3) })
    assert.same({ 0, 10, 20 }, log)
    assert.equal(20, rt.now())
    log = {}
    run(policy, script({ FAILED }, 20))
    assert.same({ 20 }, log)
    log = {}
    run(retry { backoff = "10s", max_elapsed = "20s" }, script { FAILED })
    assert.same({ 40, 50, 60 }, log)          -- at the very end is not past it
  end)

  it("has an overall deadline, which the first call need not fear", function ()
    local policy = retry { backoff = "10s" }
    run(policy, script { FAILED }, { timeout = "30s" })
    assert.same({ 0, 10, 20 }, log)
    log = {}
    run(policy, script { FAILED }, { deadline = rt.now() + 15 })
    assert.same({ 20, 30 }, log)
    log = {}
    run(policy, script { FAILED }, { timeout = 0 })
    assert.same({ 30 }, log)
  end)

  it("takes a success, however late it is", function ()
    local policy = retry { backoff = "1s", max_elapsed = "5s", progress_timeout = "2s" }
    assert.same(DONE, run(policy, script({ DONE }, 60)))
    assert.same(DONE, run(policy, script({ DONE }, 60), { timeout = "1s" }))
  end)

  it("ends when nothing moves for too long, unless the call says that it does", function ()
    local policy = retry { backoff = "40ms", progress_timeout = "50ms" }
    local answer = run(policy, script({ FAILED }, "20ms"))
    assert.same({ nil, "progress_timeout", "no" }, { unpack(answer, 1, 3) })
    assert.same({ 0 }, log)
    log = {}
    run(policy, script({ FAILED, DONE }, "10ms"))      -- 50 ms is not longer than 50 ms
    assert.equal(2, #log)
    local moves = 0
    answer = run(policy, function (try)
      moves = moves + 1
      rt.sleep "20ms"
      try:progress()
      if moves < 4 then return nil, "no" end
      return "done"
    end)
    assert.same({ "done" }, answer)
  end)

  it("does not call when it was woken too late for that", function ()
    local policy = retry { backoff = "1s", max_elapsed = "2s" }
    local sleep = rt.sleep
    rt.sleep = function (delay) return sleep(delay + 5) end
    assert.same({ nil, "no", 7 }, { unpack(run(policy, script { FAILED }), 1, 3) })
    assert.same({ 0 }, log)
  end)

  it("keeps what was raised: to raise it again, or as a value with its traceback", function ()
    local function fail()
      log[#log + 1] = rt.now()
      error({ code = 7 }, 0)
    end
    local policy = retry { backoff = "1s", max_attempts = 2 }
    local ok, err = pcall(run, policy, fail)
    assert.same({ false, { code = 7 }, { 0, 1 } }, { ok, err, log })

    policy = retry { backoff = "1s", max_attempts = 2, exceptions = "return" }
    local answer = run(policy, function () error "boom" end)
    assert.is_nil(answer[1])
    assert.matches("retry_spec.lua:%d+: boom$", answer[2].value)
    assert.matches("boom\nstack traceback:.*retry_spec.lua", tostring(answer[2]))

    log = {}
    policy = retry { backoff = "1s", max_attempts = 2 }
    assert.is_false((pcall(run, policy, function ()
      log[#log + 1] = rt.now()
      error("cancelled", 0)                            -- a word, and no wait that was cancelled
    end)))
    assert.equal(2, #log)

    log = {}
    policy = retry { backoff = "1s", exceptions = "pass" }
    assert.is_false((pcall(run, policy, fail)))
    assert.equal(1, #log)
  end)

  it("is cancelled at once while it waits, and not called again", function ()
    local policy, answer = retry { backoff = "1h", max_attempts = 9, classify = function ()
      return "retry"
    end }, nil
    rt.run(function ()
      local task = rt.spawn(function () answer = { policy:run(script { FAILED }) } end)
      rt.sleep(10)
      task:cancel()
      task:join()
      assert.equal(10, rt.now())
    end)
    assert.same({ nil, "cancelled", "no", 1 }, { answer[1], answer[2], answer[3], #log })
    rt.run(function ()
      local task = rt.spawn(function () answer = { policy:run(function ()
        log[#log + 1] = "in"
        return rt.sleep(100)
      end) } end)
      rt.sleep(1)
      task:cancel()
      task:join()
    end)
    assert.same({ nil, "cancelled", 2 }, { answer[1], answer[2], #log })
  end)

  it("waits in a limiter's line for each call, until its own deadline", function ()
    local line = throttle "1/10s burst 1"
    local policy = retry { backoff = "1s", limiter = line, max_attempts = 9 }
    run(policy, script { FAILED, FAILED, DONE })
    assert.same({ 0, 10, 20 }, log)
    log = {}
    local answer = run(policy, script { FAILED }, { timeout = "25s" })
    assert.same({ nil, "timeout" }, { answer[1], answer[2] })
    assert.same({ 30, 40 }, log)                       -- at 41 it is told that 50 is too late
    assert.equal(41, rt.now())
    log = {}
    answer = run(policy, script { DONE }, { cost = 2 })
    assert.same({ { nil, "cost" }, {} }, { { answer[1], answer[2] }, log })
    answer = run(retry { backoff = "1s", limiter = line, max_elapsed = "15s" }, script { FAILED })
    assert.same({ { nil, "timeout" }, { 50 } }, { { answer[1], answer[2] }, log })
    log = {}
    policy = retry { backoff = "1s", limiter = per_key "1/10s burst 1" }
    run(policy, script { FAILED, DONE }, { cost = { key = "ann", cost = 1 } })
    run(policy, script { DONE }, { cost = { key = "bob" } })
    assert.same({ 51, 61, 61 }, log)
  end)

  it("tells a breaker what its classifier thinks, and nothing of what was cancelled", function ()
    local brake, asked = breaker { failures = 9 }, 0
    local policy = retry { backoff = "1s", limiter = brake, max_attempts = 3,
      classify = function (outcome)
        asked = asked + 1
        return outcome.value and outcome.value.status == 503
      end }
    local busy, fine = { { status = 503 } }, { { status = 200 } }
    run(policy, script { busy, busy, busy })
    assert.same({ 3, 3 }, { brake:failures(), asked })
    run(policy, script { fine })
    assert.same({ 0, 4 }, { brake:failures(), asked })
    run(policy, script { { nil, "cancelled" } })
    assert.equal(0, brake:failures())
  end)

  it("tells a budget what failed, also of the last call", function ()
    local grpc = budget { preset = "grpc" }
    local policy = retry { backoff = "1s", max_attempts = 3, budget = grpc }
    run(policy, script { FAILED })
    assert.equal(7, grpc:left())
    run(policy, script { FAILED, FAILED, DONE })
    assert.equal(5, grpc:left())               -- no more than half: the third is not made
    log = {}
    run(policy, script { FAILED })
    assert.same({ 1, 4 }, { #log, grpc:left() })
    run(policy, script { DONE })
    assert.equal(4.1, grpc:left())
  end)

  it("gives each permit back, saying how the call ended", function ()
    local told, places = {}, semaphore(1)
    local policy = retry { backoff = "1s", limiter = places, max_attempts = 3, in_flight = 1,
      classify = classify.any { classify.status { 503 }, classify.match "no" } }
    local stop = events.tap(function (event) told[#told + 1] = event.kind end, { "leaked" })
    local held
    run(policy, script { FAILED, { { status = 503 } }, { { status = 200 } } })
    assert.equal(1, places:available())
    assert.is_false((pcall(run, policy, function () error "x" end)))
    assert.equal(1, places:available())
    assert.is_false((pcall(run, retry { limiter = places, classify = error }, script { FAILED })))
    assert.equal(1, places:available())
    rt.run(function ()
      held = places:acquire()
      assert.same({ nil, "timeout" },
        { unpack({ policy:run(script { DONE }, { timeout = "1s" }) }, 1, 2) })
      held:release()
    end)
    stop()
    assert.same({}, told)
  end)

  it("lets so many calls go at once", function ()
    local policy = retry { in_flight = 2 }
    rt.run(function ()
      for _ = 1, 4 do rt.spawn(function () policy:run(script({ DONE }, 1)) end) end
    end)
    assert.same({ 0, 0, 1, 1 }, log)
  end)

  it("makes those calls of the unlimited run that every limit allows", function ()
    math.randomseed(seed)
    local random = math.random
    for round = 1, 500 do
      local takes, attempts = random(0, 3), random(8)
      local elapsed, deadline, progress = random(40), random(40), random(40)
      local waits, at = {}, { 0 }
      for i = 1, 8 do
        waits[i] = random(0, 9)
        at[i + 1] = at[i] + takes + waits[i]
      end
      local calls = 1
      while calls < attempts and at[calls + 1] <= elapsed and at[calls + 1] < deadline
        and at[calls + 1] <= progress do
        calls = calls + 1
      end
      log = {}
      local began = rt.now()
      run(retry { max_attempts = attempts, max_elapsed = elapsed, progress_timeout = progress },
        script({ FAILED }, takes), {
          timeout = deadline,
          classify = function (outcome) return "retry", waits[outcome.attempt + 1] end,
        })
      for i, time in ipairs(log) do log[i] = time - began end
      local text = "round " .. round
      assert.same({ unpack(at, 1, calls) }, log, text)
      assert.equal(at[calls] + takes, rt.now() - began, text)
    end
  end)

  it("tells what happens", function ()
    local told = {}
    local stop = events.tap(function (event)
      told[#told + 1] = { event.kind, event.attempt, event.delay, event.duration, event.why,
        event.error, event.name, event.host }
    end, { "retry.start", "retry.retry", "retry.stop", "retry.failed" })
    local policy = retry { name = "api", backoff = "1s", max_attempts = 2 }
    run(policy, script({ FAILED, DONE }, 0.5), { fields = { host = "h" } })
    run(policy, script({ FAILED }, 0.5))
    stop()
    run(policy, script { FAILED })
    local function row(kind, attempt, delay, duration, why, err, host)
      return { "retry." .. kind, attempt, delay, duration, why, err, "api", host }
    end
    assert.same({
      row("start", 0, nil, nil, nil, nil, "h"), row("retry", 0, 1, 0.5, nil, "no", "h"),
      row("start", 1, nil, nil, nil, nil, "h"), row("stop", 1, nil, 0.5, "success", nil, "h"),
      row("start", 0), row("retry", 0, 1, 0.5, nil, "no"),
      row("start", 1), row("failed", 1, nil, 0.5, "max_attempts", "no"),
    }, told)
  end)

  it("goes by steps for hosts with a loop and a clock of their own", function ()
    local policy = retry { backoff = "10s x2", max_attempts = 4, max_elapsed = "1m" }
    local state = policy:begin({ timeout = "50s" }, 1000)
    assert.equal(50, state:remaining(1000))
    assert.equal(10, policy:step(state, retry.outcome(nil, "no"), 1001))
    assert.equal(1, state.attempt)
    assert.equal(20, policy:step(state, retry.raised "boom", 1011))
    assert.same({ 19, 31 }, { state:remaining(1031), state:elapsed(1031) })
    assert.same({ nil, "timeout" }, { policy:step(state, retry.outcome(nil, "no"), 1020) })
    assert.same({ nil, "success" }, { policy:step(state, retry.outcome(1), 2000) })
    assert.equal(0, rt.now())

    local function why(options, outcome, attempt, now)
      local one = retry(options)
      local try = one:begin(nil, 0)
      try.attempt = attempt or 0
      return (select(2, one:step(try, outcome, now or 0)))
    end
    local no = function () return retry.outcome(nil, "no") end
    assert.equal("max_attempts", why({ max_retries = 2 }, no(), 2))
    assert.equal("stop", why({ classify = classify.never }, no()))
    assert.equal("max_elapsed", why({ backoff = "2s", max_elapsed = 1 }, no()))
    assert.equal("progress_timeout", why({ progress_timeout = 1 }, no(), 1, 2))
    assert.equal("cancelled", why({}, retry.outcome(nil, "cancelled")))
    assert.equal("success", why({ max_attempts = 1 }, retry.outcome()))
  end)

  it("refuses what makes no sense, and says so", function ()
    for options, message in pairs {
      [{ max_attempts = 3, max_retries = 2 }] = "either max_attempts, which counts calls, or",
      [{ max_attempts = -1 }] = "max_attempts: a whole number from 0 expected, got -1",
      [{ max_retries = 0.5 }] = "max_retries: a whole number",
      [{ max_elapsed = -1 }] = "max_elapsed: seconds from 0 expected, got -1",
      [{ progress_timeout = 0 }] = "progress_timeout: more than 0 expected",
      [{ hint = "atleast" }] = "did you mean 'at_least'?",
      [{ hint_max = {} }] = "a duration is seconds",
      [{ classify = "x" }] = "classify: a function expected, got x",
      [{ exceptions = true }] = "exceptions: 'raise', 'return', 'pass' expected, got true",
      [{ before = 1 }] = "before: a function expected",
      [{ limiter = {} }] = "limiter: a limiter expected",
      [{ in_flight = 0 }] = "in_flight: a whole number from 1 expected",
      [{ enabled = 1 }] = "enabled: a boolean expected",
      [{ backoff = "1x" }] = "backoff: bad text",
      [{ preset = "throttle" }] = "no preset 'throttle'",
      [{ max_attempt = 1 }] = "did you mean 'max_attempts'?",
      [7] = "a table expected",
    } do
      local ok, err = pcall(function () return retry(options), nil end)
      assert.is_false(ok, message)
      assert.truthy(err:find(message, 1, true), err)
      assert.truthy(err:find "^spec/retry_spec.lua:", err)
    end
    local policy = retry()
    for args, message in pairs {
      [{}] = "run: a function expected, got nil",
      [{ print, 7 }] = "run: a classifier or a table expected, got number",
      [{ print, { timeuot = 1 } }] = "did you mean 'timeout'?",
      [{ print, { timeout = -1 } }] = "timeout: seconds from 0",
    } do
      local ok, err = pcall(function () return policy:run(unpack(args, 1, 2)), nil end)
      assert.is_false(ok, message)
      assert.truthy(err:find(message, 1, true), err)
      assert.truthy(err:find "^spec/retry_spec.lua:", err)
    end
  end)
end)
