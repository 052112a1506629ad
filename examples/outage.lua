-- A server goes down for 40 s. The breaker finds out, leaves it alone, and finds out that it is
-- back; an adaptive limit finds out how many calls at once it bears.
local neap = require "neap"
local manual = require "neap.runtime.manual"

neap.runtime.use(manual.new())
local breaker = neap.breaker { failures = 3, cooldown = "15s" }
local at_once = neap.adaptive { strategy = "aimd", ceiling = 8 }
local api = neap.hybrid { "2/s burst 1", at_once, breaker }

local function server()
  neap.sleep "100ms"
  if neap.now() > 20 and neap.now() < 60 then error "503" end
end

neap.run(function ()
  local said
  while neap.now() < 90 do
    local permit, why, wait = api:acquire { timeout = "5s" }
    if permit then
      permit:give(pcall(server) and "success" or "failure")
    else
      neap.sleep(wait or 1)
    end
    local state = breaker:state()
    if state ~= said then
      print(("%5.1f s  %-9s limit %d%s"):format(neap.now(), state, at_once:limit(),
        why and ", told " .. why or ""))
      said = state
    end
  end
end)
