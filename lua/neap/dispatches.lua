--- Dispatches by name: one for a name, whoever asks, there when it is first asked for.
---
---     local dispatches = neap.dispatches()
---     dispatches:of(host, { concurrency = 64 }):with(#body, post, host, body)
---
--- The options of a name count when its dispatch is made; later ones are not looked at. The number
--- of names is bounded (neap.registry): one that nobody uses and that knows of no backoff equals a
--- new one and may be let go.
local dispatch = require "neap.dispatch"
local registry = require "neap.registry"

local next = next

---@class neap.Dispatches: neap.Registry
local dispatches = registry.class()

local function is_new(one)
  return one.concurrency:in_use() == 0 and not next(one.waiting) and not one:backoff_active()
    and not one:is_changed()
end

--- Make a registry, with nobody in it.
---@type fun(options?: { most: integer? }): neap.Dispatches  most: how many are kept at most, 10,000
---  unless told; 10 KB each
return registry.maker(dispatches, "dispatches", dispatch, is_new)
