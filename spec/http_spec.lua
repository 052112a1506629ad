--- Real HTTP: what virtual time foretells is what a real server's log says.
---
--- A program, some callers with some policy, is run twice: on the manual clock against a model of
--- the server (spec/model/downstream.lua), and on libev against nginx (spec/downstream.lua). The
--- first has to give exactly the rows that stand in the test; then nginx, not the client, says when
--- which call came, and that has to be the same calls in the same order, as many at once, with the
--- same answers, and
---
---     none before its caller's last answer and the delay after it,
---     none earlier than foretold: both but for two roundings to a millisecond, and for what the
---          server was done too soon; and
---     none later by more than LATE_MS, from the call before it
---
--- The first is true on any machine. The others, and the order, are so only when the machine lets
--- us run: a heartbeat beside the program tells. What goes wrong without a stall is wrong; with one
--- the program is run again, TRIES times in all.
local ev = require "neap.runtime.ev"
local manual = require "neap.runtime.manual"
local model = require "spec.model.downstream"
local neap = require "neap"
local downstream = require "spec.downstream"
local process = require "spec.process"
local socket = require "socket"

local classify, runtime = neap.classify, neap.runtime
local floor, max = math.floor, math.max

local GRAIN_MS, LATE_MS = 2, 250
local BEAT_S, STALL_S, TRIES = 0.005, 0.01, 8

local function ms(seconds) return floor(seconds * 1000 + 0.5) end

-- ---- a program, twice -------------------------------------------------------------------------

--- Run it on this runtime: what it answered, what the server saw, and how long each call's retry
--- meant to wait after it, by name.
local function run(rt, program, server)
  local before, delays = runtime.use(rt), {}
  local stop = neap.events.tap(function (e)
    delays[e.caller .. "/" .. e.attempt] = ms(e.delay)
  end, { "retry.retry" })
  local ok, answer = pcall(rt.run, program, server)
  stop()
  runtime.use(before)
  local calls = server:calls()
  assert(ok, answer)
  return { answer = answer, calls = calls, delays = delays }
end

local function foretell(program) return run(manual.new(), program, model.new()) end

--- The same for real; and when it began, and the longest that somebody was kept from running.
local function witness(program, server)
  local rt, began, stall = ev.new(), nil, 0
  server.slowest = 0
  local seen = run(rt, function ()
    local beat = rt.spawn(function ()
      local due
      repeat
        if due then stall = max(stall, rt.now() - due) end
        due = rt.now() + BEAT_S
      until not rt.sleep(BEAT_S)
    end)
    began = socket.gettime()
    local answer = program(server)
    beat:cancel()
    return answer
  end, server)
  seen.began, seen.stall = ms(began), stall
  return seen
end

--- Its calls as rows: name, status, when, and what was waited after it.
local function rows_of(seen)
  local rows = {}
  for i, call in ipairs(seen.calls) do
    rows[i] = { call.name, call.status, call.at - (seen.began or 0), seen.delays[call.name] }
  end
  return rows
end

local function order(seen)
  local list = {}
  for i, call in ipairs(seen.calls) do
    list[i] = ("%s: %d, %d at once"):format(call.name, call.status, call.at_once)
  end
  return table.concat(list, "; ")
end

--- Nobody is back before the answer to his last call, and what was to be waited after it.
local function patient(seen)
  local answered = {}
  for _, call in ipairs(seen.calls) do
    local caller, attempt = call.name:match "^(.*)/(%d+)$"
    local last = ("%s/%d"):format(caller, attempt - 1)
    local early = attempt ~= "0" and answered[last] + (seen.delays[last] or 0) - call.at or 0
    assert.truthy(early <= GRAIN_MS, ("%s came %d ms early"):format(call.name, early))
    answered[call.name] = call.ends
  end
end

--- How much sooner than foretold the server was done: its timers go by a coarse clock.
local function gained(seen, foretold)
  local sum = 0
  for i, call in ipairs(seen.calls) do
    local wanted = foretold.calls[i]
    sum = sum + max(wanted.ends - wanted.at - (call.ends - call.at), 0)
  end
  return sum
end

--- The first that comes earlier than foretold, or too late.
local function out_of_time(seen, foretold)
  local lateness, early = 0, GRAIN_MS + gained(seen, foretold)
  for i, call in ipairs(seen.calls) do
    local late = call.at - seen.began - foretold.calls[i].at
    if late < -early or late - lateness > LATE_MS then
      return ("%s came %d ms late, and the one before %d"):format(call.name, late, lateness)
    end
    lateness = late
  end
end

describe("real HTTP", function ()
  local server

  setup(function ()
    if downstream.is_there() then server = downstream.start() end
  end)

  teardown(function ()
    if server then assert.equal("", server:stop()) end
    process.sweep()
  end)

  --- `it`, where there is an nginx with Lua.
  local function real(title, fn)
    it(title, function ()
      if not server then return pending "no nginx with Lua here" end
      fn()
    end)
  end

  --- Is it what was foretold? What is wrong and may be due to a stall is answered.
  local function compare(seen, foretold)
    patient(seen)
    if order(seen) ~= order(foretold) then
      return ("foretold: %s\nseen: %s"):format(order(foretold), order(seen))
    end
    assert.same(foretold.delays, seen.delays)
    assert.same(foretold.answer, seen.answer)
    return out_of_time(seen, foretold)
  end

  --- What virtual time says of a program is `rows`, and nginx says it, too.
  ---@return table seen  the real run
  local function agree(rows, program)
    local foretold = foretell(program)
    assert.same(rows, rows_of(foretold))
    local longest = 0
    for _, call in ipairs(foretold.calls) do longest = max(longest, call.ends - call.at) end
    local try = 0
    while true do
      local seen = witness(program, server)
      local problem = compare(seen, foretold)
      if not problem then return seen end
      local stalled = max(seen.stall, server.slowest - longest / 1000) > STALL_S
      try = try + 1
      assert(stalled and try < TRIES, problem)
    end
  end

  --- One caller's run; its answer as one value.
  local function attempt(at, policy, path, caller, method)
    local answer, why = policy:run(function (try)
      return at:call(method or "GET", path(caller .. "/" .. try.attempt))
    end, { fields = { caller = caller } })
    return answer and answer.status or why
  end

  --- Several at once: their answers.
  local function together(callers, fn)
    local tasks, answers = {}, {}
    for caller in callers:gmatch "%S+" do
      tasks[#tasks + 1] = neap.spawn(function () answers[caller] = fn(caller) end)
    end
    for _, task in ipairs(tasks) do task:join() end
    return answers
  end

  -- ---- one caller -------------------------------------------------------------------------------

  real("waits as long as it is told to, but no longer than its cap", function ()
    agree({
      { "a/0", 429,    0, 220 },   -- what it is told
      { "a/1", 503,  220, 100 },   -- nothing: the curve
      { "a/2", 429,  320, 500 },   -- 1 s: the cap
      { "a/3", 200,  820 },
    }, function (at)
      local retry = neap.retry { backoff = "50ms x2", hint_max = "500ms",
        classify = classify.http() }
      return attempt(at, retry, at:script "429:220ms 503 429:1 200", "a")
    end)
  end)

  real("takes whole seconds for what they are", function ()
    agree({ { "a/0", 503, 0, 1000 }, { "a/1", 200, 1000 } }, function (at)
      local retry = neap.retry { backoff = "50ms", classify = classify.http() }
      return attempt(at, retry, at:script "503:1 200", "a")
    end)
  end)

  real("does not come back before the date it is told", function ()
    local seen = run(ev.new(), function (at)
      local retry = neap.retry { backoff = "1ms",
        classify = classify.http { now = socket.gettime } }
      return attempt(at, retry, at:script "503:1date 200", "a")
    end, server)
    assert.same({ 503, 200 }, { seen.calls[1].status, seen.calls[2].status })
    local date = floor(seen.calls[1].at / 1000) * 1000 + 1000
    local late = seen.calls[2].at - date
    assert.truthy(late >= 0 and late < 1000, late .. " ms late")
  end)

  real("keeps the curve's delay when a hint can only lengthen it", function ()
    agree({
      { "a/0", 429,   0, 120 },
      { "a/1", 429, 120, 200 },
      { "a/2", 200, 320 },
    }, function (at)
      local retry = neap.retry { backoff = "120ms", hint = "at_least", classify = classify.http() }
      return attempt(at, retry, at:script "429:30ms 429:200ms 200", "a")
    end)
  end)

  real("gives up before a wait that would end too late", function ()
    local seen = agree({ { "a/0", 503, 0, 100 }, { "a/1", 429, 100 } }, function (at)
      local retry = neap.retry { backoff = "100ms", max_elapsed = "800ms",
        classify = classify.http() }
      return attempt(at, retry, at:script "503 429:2 200", "a")
    end)
    assert.equal(429, seen.answer)
  end)

  real("calls again when the connection was closed without an answer", function ()
    agree({ { "a/0", 444, 0, 80 }, { "a/1", 444, 80, 80 }, { "a/2", 200, 160 } }, function (at)
      local retry = neap.retry { backoff = "80ms",
        classify = classify.any { classify.http(), classify.match "^closed$" } }
      return attempt(at, retry, at:script "444 444 200", "a")
    end)
  end)

  real("repeats a POST that was refused, not one that may have been done", function ()
    local options = { method = "POST" }
    local function post(at)
      local retry = neap.retry { backoff = "50ms", classify = classify.http(options) }
      return attempt(at, retry, at:script "429:60ms 503 200", "a", "POST")
    end
    local seen = agree({ { "a/0", 429, 0, 60 }, { "a/1", 503, 60 } }, post)
    assert.equal(503, seen.answer)
    assert.equal("POST", seen.calls[1].method)
    options.idempotent = true   -- it has a key
    agree({ { "a/0", 429, 0, 60 }, { "a/1", 503, 60, 50 }, { "a/2", 200, 110 } }, post)
  end)

  -- ---- several callers --------------------------------------------------------------------------

  real("ends all retries when the budget of all is spent", function ()
    agree({
      { "a/0", 503,   0, 60 },
      { "a/1", 503,  60, 60 },
      { "a/2", 503, 120 },         -- the budget is gone
      { "b/0", 503, 120 },         -- for the others, too
    }, function (at)
      local retry = neap.retry { backoff = "60ms", budget = neap.budget { tokens = 2 },
        classify = classify.http() }
      local path = at:script "503"
      return { attempt(at, retry, path, "a"), attempt(at, retry, path, "b") }
    end)
  end)

  real("sends a retry to the end of the line", function ()
    agree({
      { "a/0", 429,   0, 150 },    -- in line again at 150, behind c and d
      { "b/0", 200, 100 },
      { "c/0", 503, 200, 130 },    -- at 330, behind a
      { "d/0", 200, 300 },
      { "a/1", 200, 400 },
      { "c/1", 200, 500 },
    }, function (at)
      local path = at:script "429:150ms 200 503 200 200 200"
      local retry = neap.retry { backoff = "130ms", classify = classify.http(),
        limiter = neap.throttle "10/s smooth" }
      return together("a b c d", function (caller) return attempt(at, retry, path, caller) end)
    end)
  end)

  real("has a place among those in flight only while it calls", function ()
    local seen = agree({
      { "a/0", 503,   0, 100 },
      { "b/0", 200, 120 },         -- in a's place, which waits from 120 to 220
      { "a/1", 200, 240 },
    }, function (at)
      local path = at:script "503/120ms 200/120ms"
      local retry = neap.retry { backoff = "100ms", classify = classify.http(), in_flight = 1 }
      return together("a b", function (caller) return attempt(at, retry, path, caller) end)
    end)
    for _, call in ipairs(seen.calls) do assert.equal(1, call.at_once) end
  end)

  real("is served by a server that limits itself, at the rate that it has", function ()
    agree({
      { "a/0", 200,   0 },
      { "b/0", 200,  40 },
      { "c/0", 429,  80, 500 },
      { "d/0", 429, 120, 500 },
      { "e/0", 429, 160, 500 },
      { "c/1", 200, 580 },
      { "d/1", 200, 620 },
      { "e/1", 429, 660, 500 },
      { "e/2", 200, 1160 },
    }, function (at)
      local retry = neap.retry { backoff = "1ms", classify = classify.http() }
      local path = at:limited()
      return together("a b c d e", function (caller)
        neap.sleep((caller:byte() - ("a"):byte()) * 0.04)
        return attempt(at, retry, path, caller)
      end)
    end)
  end)

  -- ---- a dispatch -------------------------------------------------------------------------------

  --- Callers who go through it, and tell it of a 429.
  local function dispatched(at, options, script, callers)
    local api, path = neap.dispatch(options), at:script(script)
    local retry = neap.retry { backoff = "1ms", classify = classify.http() }
    local function call(name)
      local answer = at:call("GET", path(name))
      if answer.status == 429 then api:set_backoff(neap.headers.delay(answer.headers)) end
      return answer
    end
    return together(callers, function (caller)
      return retry:run(function (try)
        return api:with(1, call, caller .. "/" .. try.attempt)
      end, { fields = { caller = caller } }).status
    end)
  end

  --- How many of these calls there are at once, at most.
  local function most_of(calls, wanted)
    local most = 0
    for _, one in ipairs(calls) do
      local count = 0
      for _, other in ipairs(calls) do
        local both = wanted[one.name] and wanted[other.name]
        if both and other.at <= one.at and other.ends > one.at then count = count + 1 end
      end
      most = max(most, count)
    end
    return most
  end

  local function at_once(seen)
    local list = {}
    for i, call in ipairs(seen.calls) do list[i] = call.at_once end
    return list
  end

  real("lets few in at once after a 429, and as many as before when that is over", function ()
    local seen = agree({
      { "a/0", 200,   0 },         -- until 300
      { "b/0", 429,   0, 400 },    -- until 150: throttled until 550, and 250 ms more
      { "c/0", 200,   0 },         -- until 420
      { "d/0", 200,   0 },         -- until 600; the others take 200 each
      { "e/0", 200, 150 }, { "f/0", 200, 300 }, { "g/0", 200, 350 }, { "h/0", 200, 500 },
      { "i/0", 200, 550 }, { "j/0", 200, 700 }, { "k/0", 200, 750 },
      { "l/0", 200, 800 }, { "m/0", 200, 800 },
      { "b/1", 200, 900 },
    }, function (at)
      return dispatched(at,
        { concurrency = 4, throttled_concurrency = 2, backoff_window = "250ms" },
        "200/300ms 429:400ms/150ms 200/420ms 200/600ms 200/200ms", "a b c d e f g h i j k l m")
    end)
    assert.same({ 1, 2, 3, 4, 4, 4, 4, 3, 3, 2, 2, 3, 4, 4 }, at_once(seen))
    local throttled = {}
    for name in ("efghijk"):gmatch "." do throttled[name .. "/0"] = true end
    assert.equal(2, most_of(seen.calls, throttled))
  end)

  real("lets nobody in until the server is ready again", function ()
    local seen = agree({
      { "a/0", 200,   0 },         -- until 200
      { "b/0", 429,   0, 300 },    -- until 100: nobody until 400
      { "c/0", 200,   0 },         -- until 300
      { "d/0", 200, 400 },         -- until 500
      { "e/0", 200, 400 },         -- until 580
      { "f/0", 200, 400 },
      { "g/0", 200, 500 },
      { "b/1", 200, 580 },
    }, function (at)
      return dispatched(at, { concurrency = 3, on_backoff = "block" },
        "200/200ms 429:300ms/100ms 200/300ms 200/100ms 200/180ms 200/260ms", "a b c d e f g")
    end)
    assert.same({ 1, 2, 3, 1, 2, 3, 3, 3 }, at_once(seen))
    local told = seen.calls[2].ends + 300
    for i = 4, #seen.calls do assert.truthy(seen.calls[i].at >= told - GRAIN_MS) end
  end)
end)
