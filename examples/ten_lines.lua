-- Thirty calls, at most 20 at once and then one each 0.6 s, never more than 4 under way.
local neap = require "neap"
local api = neap.hybrid { neap.throttle "100/min burst 20", neap.semaphore(4) }

neap.run(function ()
  for i = 1, 30 do
    neap.spawn(function ()
      api:with({ timeout = 60 }, function () print(neap.now(), "call", i) end)   -- waits its turn
    end)
  end
end)
