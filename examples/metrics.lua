-- What a scraper is told of a busy limiter, on virtual time: the lines that are not zero.
local neap = require "neap"
local manual = require "neap.runtime.manual"

neap.runtime.use(manual.new())
local api = neap.hybrid({ "2/s burst 5", "8 in flight" }, { name = "api" })

neap.run(function ()
  for i = 1, 30 do
    neap.spawn(function ()
      neap.sleep(i / 10)
      api:with({ timeout = i < 30 and "15s" or "100ms" }, neap.sleep, 2)
    end)
  end
  neap.sleep(10)
  for line in neap.metrics.prometheus { only = { api } }:gmatch "[^\n]+" do
    if line:find 'limiter="api"' and not line:find " 0$" then print(line) end
  end
end)
