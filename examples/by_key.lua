-- Everyone the same limit, and to each his own; one key has more, and one is shut out.
local neap = require "neap"
local manual = require "neap.runtime.manual"

neap.runtime.use(manual.new())
local users = neap.per_key("2/s", { overrides = { vip = "20/s", spammer = "closed" } })
local api = neap.layered { global = "100/s", user = users, path = "3/s" }

neap.run(function ()
  for _, user in ipairs { "ann", "bob", "vip", "spammer" } do
    local granted = 0
    for _ = 1, 50 do
      if users:try_acquire(user) then granted = granted + 1 end
    end
    print(("%-8s %2d of 50 now: %s"):format(user, granted, tostring(users:why(user))))
  end
  neap.sleep "1s"
  for _, path in ipairs { "/a", "/a", "/b" } do
    local permit = api:acquire { user = "ann", path = path, timeout = "10s" }
    print(("ann      %s at %.1f s"):format(path, permit and neap.now() or -1))
  end
  print("alive", users:len())
end)
