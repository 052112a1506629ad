--- Where programs wait: the runtime in use.
---
--- Code that waits is written once, against a runtime's verbs: now, sleep, spawn, wait, cancel, run
--- (see neap.runtime.rounds, what they all share). `neap.runtime.ev` has libev and the real clock
--- and is used unless told otherwise, or in nginx, where `neap.runtime.ngx` waits with nginx; in
--- `neap.runtime.manual` time is the caller's.
local runtime = {}

local in_use   ---@type neap.Runtime?

-- Another loop would stop nginx's.
local usual = rawget(_G, "ngx") and "neap.runtime.ngx" or "neap.runtime.ev"

--- The runtime in use: an ev one, opened when first asked for, unless `use` said another.
---
---     local rt = neap.runtime.current()
---
---@return neap.Runtime
function runtime.current()
  if not in_use then in_use = require(usual).new() end
  return in_use
end

--- Use this one from now on; nil goes back to a new one of the usual kind.
---
---     local manual = require "neap.runtime.manual"
---     neap.runtime.use(manual.new { now = 100 }) == rt   --> true
---
---@param rt neap.Runtime?
---@return neap.Runtime? before
function runtime.use(rt)
  local before = in_use
  in_use = rt
  return before
end

--- Call `fn(...)` as a task, and return what it returns when it and all tasks have ended. When it
--- raises an error the others are cancelled.
---
---     neap.run(function () return neap.sleep "2s" end)   --> true
---
---@param fn function
---@param ... any
---@return any ...
function runtime.run(fn, ...) return runtime.current().run(fn, ...) end

--- Start a task: `spawn(fn, ...)`, or `spawn("name", fn, ...)`. It begins when its spawner waits.
---
---     neap.spawn("fetcher", fetch, url):join()           --> { status = 200, … }
---
---@param ... any  a name for messages, maybe; the function; its arguments
---@return neap.Task
function runtime.spawn(...) return runtime.current().spawn(...) end

--- Wait for a while; 0 only lets the others go first.
---
---     neap.sleep(1.5)                                    --> true
---
---@param duration number|string  seconds, or "250ms"
---@return true? slept
---@return "cancelled"? why
function runtime.sleep(duration) return runtime.current().sleep(duration) end

--- The clock, in seconds.
---
---     neap.now()                                         --> 103.55
---
---@return number
function runtime.now() return runtime.current().now() end

return runtime
