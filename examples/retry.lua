-- A server says 503, then when to come back, then 503 again: three retries, with a budget for all
-- of them; then a slow mirror, and a second call that is faster. Virtual time, so it takes none.
local neap = require "neap"
local manual = require "neap.runtime.manual"

neap.runtime.use(manual.new())

local classify = neap.classify
local budget = neap.budget { tokens = 5 }
local retry = neap.retry {
  backoff = "200ms x2 cap 20s",
  classify = classify.any { classify.http { method = "GET" }, classify.match "refused" },
  budget = budget,
}
local hedge = neap.hedge { after = "50ms", budget = budget }

local answers = {
  { status = 503 },
  { status = 429, headers = { ["Retry-After"] = "7" } },
  { status = 503 },
  { status = 200, body = "hello" },
}

neap.run(function ()
  local answer = retry:run(function (try)
    local came = answers[try.attempt + 1]
    print(("%6.2f s  call %d: %d"):format(neap.now(), try.attempt, came.status))
    return came
  end, { timeout = "1m" })
  print(answer.body, budget:left() .. " tokens left")

  local mirrors = { 3, 0.1 }   -- seconds that each takes
  print(hedge:run(function (try)
    neap.sleep(mirrors[try.attempt + 1])
    return "mirror " .. try.attempt + 1
  end), neap.now() .. " s")
end)
