-- What players may do, for policy.c. Limits and what waits are here; the frames are C's.
local neap = require "neap"
local host = require "neap.runtime.host"

local rt = host.new()
neap.runtime.use(rt)

local move = neap.per_key("20/s burst 40", { overrides = { [7] = "60/s" } })   -- player 7 has boots
local chat = neap.hybrid { neap.per_key "5/10s", neap.throttle "200/s" }       -- and all of them
local disk = neap.semaphore(8)

local policy = { tick = rt.tick, engine = rt.address, secret = rt.secret, saved = 0, late = 0 }

function policy.lend(move_request, chat_request)
  rt.lend(move, move_request)
  rt.lend(chat, chat_request)
end

--- A task, which waits in line and while the disk writes; its frames are those of C.
function policy.save()
  neap.spawn(function ()
    local saved = disk:with({ timeout = "2s" }, function () return neap.sleep "50ms" end)
    if saved then policy.saved = policy.saved + 1 else policy.late = policy.late + 1 end
  end)
end

return policy
