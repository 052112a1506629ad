-- A server knows better than we do: the limiter goes by its headers, on virtual time.
local neap = require "neap"
local manual = require "neap.runtime.manual"

local rt = manual.new()
neap.runtime.use(rt)

local tiers = require "neap.provider.tiers"
local llm = neap.multi(tiers["anthropic.tier_1"].limits)   -- 50 requests a minute, and tokens
local anthropic = neap.provider "anthropic"
local epoch = 1767225600                                   -- what the time of day is at 0 s
local function wall() return epoch + neap.now() end

local function call(answer_headers)
  local permit = assert(llm:acquire { requests = 1, input_tokens = 1500, output_tokens = 200 })
  print(("%4.0f s  sent, %d requests left"):format(neap.now(), llm:available "requests"))
  permit:release()
  anthropic:sync(llm, answer_headers, { now = wall })
end

neap.run(function ()
  call {}
  call {   -- somebody else uses the account, too
    ["anthropic-ratelimit-requests-remaining"] = "1",
    ["anthropic-ratelimit-requests-reset"] = "2026-01-01T00:00:30Z",
  }
  call {}
  call { ["retry-after"] = "45" }
  call {}
end)
