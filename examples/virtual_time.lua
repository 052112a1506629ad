-- An hour of waiting in no time: the same code on the manual clock, and an answer to "why?".
local neap = require "neap"
local manual = require "neap.runtime.manual"

neap.runtime.use(manual.new())
local tokens = neap.hybrid { requests = "60/h burst 2", input = "10k/h burst 5k" }

neap.run(function ()
  for _, size in ipairs { 4000, 4000, 4000, 6000 } do
    neap.spawn(function ()
      local permit, why, wait = tokens:acquire { requests = 1, input = size, timeout = "1h" }
      print(("%6.0f s  %d tokens: %s"):format(neap.now(), size,
        permit and "go" or why .. (wait and (", %.0f s"):format(wait) or "")))
    end)
  end
  neap.sleep "10min"
  print(tokens:why { requests = 1, input = 4000 })
end)
