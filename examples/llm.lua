-- A client for a language model: three limits, tokens that are estimated and then settled, what the
-- server says of its own limits, and retries. Virtual time, and a server that is made up.
local neap = require "neap"
local manual = require "neap.runtime.manual"

neap.runtime.use(manual.new())

local llm = neap.multi { requests = "50/min", input_tokens = "4k/min", output_tokens = "1k/min" }
local client = neap.client {
  limiter = llm,
  breaker = neap.breaker { failures = 5 },
  provider = neap.provider "anthropic",
  retry = { backoff = "500ms x2 cap 20s", max_attempts = 5 },
  usage = function (response) return response.usage end,   -- in place of the estimate
}

local answers = {
  { status = 200, usage = { input_tokens = 900, output_tokens = 150 } },
  { status = 529, headers = {}, usage = { input_tokens = 0, output_tokens = 0 } },   -- overloaded
  { status = 200, usage = { input_tokens = 1100, output_tokens = 420 }, headers = {
    ["anthropic-ratelimit-output-tokens-remaining"] = "100" } },   -- somebody else uses it, too
  { status = 200, usage = { input_tokens = 800, output_tokens = 80 } },
}

local function ask(try)
  local answer = table.remove(answers, 1)
  print(("%5.1f s  try %d: %d"):format(neap.now(), try.attempt, answer.status))
  return neap.sleep "2s" and answer
end

neap.run(function ()
  for _ = 1, 3 do
    client:call(ask, { cost = { requests = 1, input_tokens = 1000, output_tokens = 300 },
      idempotent = true, timeout = "2m" })
    print(("%5.1f s  left: %d input, %d output"):format(neap.now(), llm:available "input_tokens",
      llm:available "output_tokens"))
  end
end)
