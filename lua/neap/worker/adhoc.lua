--- Limits of the caller's own, kept under a key; no policy knows of them.
---
---     NEAP.LIMIT key "10/s burst 20" [COST n] [BLOCK ms] [PEEK]      a rate
---     NEAP.SLOT key n [BLOCK ms] [TTL ms] [ID token] [DETACH] [PEEK] n at once; each has a lease
---
--- Whoever names a key says what its limit is, and who says it last is right: what was spent, and
--- what is out, stays.
local tail = require "neap.worker.tail"

local KEY_BYTES = 1024

local adhoc = {}

local function too_long(key)
  if #key > KEY_BYTES then
    return ("ERR a key has up to %d bytes, got %d"):format(KEY_BYTES, #key)
  end
end

--- What is wrong with the words is said before a key is made.
---@param desk neap.Desk
---@param client integer
---@param words string[]
function adhoc.limit(desk, client, words)
  local options, account
  local err = too_long(words[1])
  if err then return desk:fail(client, err) end
  options, err = tail.limit(words, 3, desk:one())
  if not options then return desk:fail(client, err) end
  account, err = desk.accounts:key(desk.engine, words[1], words[2], desk.clock())
  if not account then return desk:fail(client, err) end
  desk:ask(client, account, options, false)
end

function adhoc.slot(desk, client, words)
  local n, options, account
  local err = too_long(words[1])
  if err then return desk:fail(client, err) end
  n, err = tail.slots(words, 2)
  if not n then return desk:fail(client, err) end
  options, err = tail.slot(words, 3)
  if not options then return desk:fail(client, err) end
  account, err = desk.accounts:slot(desk.engine, words[1], n, desk.clock())
  if not account then return desk:fail(client, err) end
  desk:one()
  desk:ask(client, account, options, true)
end

return adhoc
