-- 40 calls to an API that says 429 midway: those in line feel it at once, and go on two at a time
-- until some time after what the server asked for. It is said in the call, whose place is then
-- given to the next one under the new rules.
local neap = require "neap"
local manual = require "neap.runtime.manual"

neap.runtime.use(manual.new())
local api = neap.dispatch {
  concurrency = 8, throttled_concurrency = 2, byte_budget = "1MB", backoff_window = "2s",
  on_backoff = "both",
}

local function post()
  neap.sleep "500ms"
  if neap.now() == 1 then return { status = 429, retry_after = 3 } end
  return { status = 200 }
end

local began = {}   -- calls by second
neap.run(function ()
  for _ = 1, 40 do
    neap.spawn(function ()
      api:with(20000, function ()
        local second = math.floor(neap.now())
        began[second] = (began[second] or 0) + 1
        local answer = post()
        if answer.status == 429 then api:set_backoff(answer.retry_after) end
      end)
    end)
  end
end)

for second = 0, 8 do print(("%d s  %s"):format(second, ("*"):rep(began[second] or 0))) end
print(api:snapshot().bytes.level .. " bytes free")
