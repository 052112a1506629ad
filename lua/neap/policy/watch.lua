--- The watch over hooks: a thread that notices when one does not come back (engine/watch.c).
---
--- A hook late by 250 ms is named on standard error; at 5 s the process aborts, with the name on
--- its last line, and a supervisor starts it again. One that raises an error is an answer.
local ffi = require "ffi"
local C = require "neap.engine"
local notation = require "neap.notation"

local error, pcall, setmetatable, tonumber = error, pcall, setmetatable, tonumber

local LATE_NS, DEAD_NS = 250e6, 5e9
local text_t = ffi.typeof "char[?]"

---@class neap.Watch
local watch = {}
watch.__index = watch

local function left(self, ...)
  self.depth = self.depth - 1
  if self.depth == 0 then C.neap_watch_leave(self.c) end
  return ...
end

--- The function that calls a hook while the watch looks on. It answers as pcall does.
---@param policy string
---@param hook string
---@param fn function
---@return fun(...): boolean, ...
function watch:over(policy, hook, fn)
  local what = ("hook '%s' of policy '%s'"):format(notation.show(hook), notation.show(policy, 128))
  local name = text_t(#what + 1, what)
  self.names[#self.names + 1] = name      -- the thread may read it as long as there is one
  return function (...)
    if self.depth == 0 then C.neap_watch_enter(self.c, name) end
    self.depth = self.depth + 1
    return left(self, pcall(fn, ...))
  end
end

--- Hooks that were late, ever.
---@return integer
function watch:late()
  return tonumber(C.neap_watch_late(self.c))
end

--- End the watch; hooks are then called without.
function watch:close()
  if self.depth > 0 then error("watch: closed inside of a hook", 2) end
  self.depth = 1
  C.neap_watch_close(ffi.gc(self.c, nil))
end

--- A watch, and its thread.
---@param options? { late: number|string|nil, dead: number|string|nil }   "250ms" and "5s"
---@return neap.Watch
return function (options)
  local function ns(name, usual)
    local given = options and options[name]
    if given == nil then return usual end
    local value, message = notation.duration(given)
    if not value then error(("watch: %s: %s"):format(name, message), 3) end
    return value
  end
  local c = C.neap_watch_open(ns("late", LATE_NS), ns("dead", DEAD_NS))
  if c == nil then error("watch: no thread, or 'dead' comes before 'late'", 2) end
  return setmetatable({ c = ffi.gc(c, C.neap_watch_close), depth = 0, names = {} }, watch)
end
