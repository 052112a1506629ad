--- Events: what happens to limiters, told to whoever wants to know.
---
---     local api, heard = neap.throttle "1/s", {}
---     local stop = neap.events.tap(function (event)
---       heard[#heard + 1] = event.kind .. " " .. event.why .. " " .. event.wait
---     end, { "refused", "timeout" })
---     print(api:try_acquire() ~= nil, api:try_acquire())   --> true, nil, "rate", 1
---     stop()
---     print(heard)                                         --> { "refused rate 1" }
---
--- An event is a table with its `kind`, `at` (seconds, as neap.now() has it) and, when it is about
--- a limiter, its name (`limiter`) and number (`id`: two of one name stay apart). And by kind:
---
---     granted, refused, timeout, cancelled    cost, a number or a table by name; keys, by kind of
---                        key; why and wait (seconds until it could leave), and waited (in line)
---     waiting            cost, keys, wait, place: how many go first
---     overflow           cost, policy: there is no room to wait; "reject", "drop_oldest" or
---                        "drop_lowest"
---     settled            cost, used             leaked         cost
---     reconfigured       from, to, mode         closed
---     evicted            count, of keys that made room for others
---     breaker, adaptive  from, to: its state, its limit
---     pause              from, to: seconds that it lasts, 0 for none; it was extended or cleared,
---                        a back-off window, too
---
--- Others may be told, too (`emit`, `measure`, `timer`); their kinds have a dot: "http.stop". So
--- have those of neap.retry and neap.hedge: "retry.retry". A tap may name several kinds at once,
--- as in { "retry.*", "*.stop" }: `*` stands for any characters, dots, too. For packages that take
--- events elsewhere see neap.reporter.
---
--- While nobody listens nothing is built, and limiters run the code they run without this module. A
--- tap is called in the middle of the call that it is about, when that is decided. So it must not
--- wait; and what it does itself is not told to it. One that throws is reported (see neap.runtime),
--- and nothing else changes.
local notation = require "neap.notation"
local runtime = require "neap.runtime"

local error, ipairs, pairs, pcall = error, ipairs, pairs, pcall
local select, tonumber, tostring, type, xpcall = select, tonumber, tostring, type, xpcall
local traceback = debug.traceback
local current = runtime.current

local KINDS = { "granted", "refused", "waiting", "timeout", "cancelled", "leaked", "settled",
  "reconfigured", "closed", "evicted", "breaker", "adaptive", "overflow", "pause" }
local UNITS = { nanosecond = 1, microsecond = 1e3, millisecond = 1e6, second = 1e9 }

local MEMO = 1024   -- kinds whose hearers are remembered; with more it begins anew

local is_kind = {}
for _, kind in ipairs(KINDS) do is_kind[kind] = true end

local events = {}

---@class neap.Tap
---@field fn fun(event: table)
---@field kinds table<string, true>?  nil: all
---@field patterns string[]  of Lua's, for more kinds
---@field busy boolean?     it is running
---@field over boolean?

local taps = {}      ---@type neap.Tap[]  never changed in place, for somebody may be walking it
local pending = {}   -- events from finalizers, which are no place to call anybody
local held = 0       -- finalizers that are running

--- The kinds that somebody listens to; for those who tell, so that they need not build what nobody
--- hears.
events.wanted = {}

local hooks = {}

--- Call `fn(true)` when the first tap is set, and `fn(false)` when the last one is gone.
---@package
---@param fn fun(listening: boolean)
function events.on_change(fn) hooks[#hooks + 1] = fn end

local function wants(tap, kind)
  if not tap.kinds or tap.kinds[kind] then return true end
  for _, pattern in ipairs(tap.patterns) do
    if kind:find(pattern) then return true end
  end
  return false
end

local hearers, remembered = {}, 0   -- lists of taps by kind, never changed in place

--- The taps that want a kind, in order.
---@return neap.Tap[]
local function hearers_of(kind)
  local list = hearers[kind]
  if list then return list end
  if remembered >= MEMO then hearers, remembered = {}, 0 end
  list = {}
  for _, tap in ipairs(taps) do
    if wants(tap, kind) then list[#list + 1] = tap end
  end
  hearers[kind], remembered = list, remembered + 1
  return list
end

local function listen(new)
  local was, is = #taps > 0, #new > 0
  taps, hearers, remembered = new, {}, 0
  for _, kind in ipairs(KINDS) do
    events.wanted[kind] = hearers_of(kind)[1] and true or nil
  end
  if was ~= is then
    for _, hook in ipairs(hooks) do hook(is) end
  end
end

-- ---- telling ----------------------------------------------------------------------------------

local function call(tap, event)
  tap.busy = true
  local ok, why = xpcall(tap.fn, traceback, event)
  tap.busy = nil
  if not ok then pcall(current().report, "neap: a tap failed: " .. tostring(why)) end
end

local function tell(event)
  for _, tap in ipairs(hearers_of(event.kind)) do
    if not tap.busy and not tap.over then call(tap, event) end
  end
end

--- Tell what waited for a better moment.
---@package
function events.flush()
  while pending[1] do
    local late = pending
    pending = {}
    for _, event in ipairs(late) do tell(event) end
  end
end

local function named(fields, kind, limiter)
  fields.kind, fields.at = kind, current().now()
  fields.limiter, fields.id = limiter.name, limiter.id
  return fields
end

--- An event about a limiter, if somebody listens.
---@package
---@param kind string
---@param limiter neap.Limiter
---@param fields table   becomes the event
function events.about(kind, limiter, fields)
  if not events.wanted[kind] then return end
  named(fields, kind, limiter)
  if held > 0 then
    pending[#pending + 1] = fields
  else
    events.flush()
    tell(fields)
  end
end

--- A finalizer begins: what it is about is told with the next event after its end.
---@package
function events.hold() held = held + 1 end

--- And ends.
---@package
function events.go_on() held = held - 1 end

-- ---- for users --------------------------------------------------------------------------------

--- As Lua has it: `*` is any characters, and nothing else means anything but itself.
local function pattern_of(kind)
  return "^" .. kind:gsub("[^%w*]", "%%%0"):gsub("%*+", ".*") .. "$"
end

---@return table<string, true>?
---@return string[] patterns
local function read_kinds(kinds, level)
  if kinds == nil then return nil, {} end
  if type(kinds) ~= "table" then
    error("tap: a list of kinds expected, as in { \"granted\" }, got " .. type(kinds), level + 1)
  end
  local set, patterns = {}, {}
  for key, kind in pairs(kinds) do
    if type(key) ~= "number" or type(kind) ~= "string" then
      error("tap: a list of kinds expected, got " .. tostring(key) .. " = " .. tostring(kind),
        level + 1)
    elseif kind:find("*", 1, true) then
      patterns[#patterns + 1] = pattern_of(kind)
    elseif not is_kind[kind] and not kind:find(".", 1, true) then
      local text = ("tap: kind '%s' is not known"):format(kind)
      error((notation.suggest(text, kind, KINDS)), level + 1)
    end
    set[kind] = true
  end
  return set, patterns
end

--- Be told.
---
---     local stop_all = neap.events.tap(function (event) heard[#heard + 1] = event end)
---
---@param fn fun(event: table)  the table is the same for all taps
---@param kinds? string[]       all kinds unless told; with `*`, all that look like it
---@return fun() stop
function events.tap(fn, kinds)
  if type(fn) ~= "function" then error("tap: a function expected, got " .. type(fn), 2) end
  local mine = { fn = fn }
  mine.kinds, mine.patterns = read_kinds(kinds, 2)
  local new = { mine }
  for i, tap in ipairs(taps) do new[i], new[i + 1] = tap, mine end
  listen(new)
  return function ()
    if mine.over then return end
    mine.over = true
    local rest = {}
    for _, tap in ipairs(taps) do
      if tap ~= mine then rest[#rest + 1] = tap end
    end
    listen(rest)
  end
end

local function check(kind, fields, verb, level)
  if type(kind) ~= "string" or not kind:find(".", 1, true) then
    error(("%s: a kind with a dot expected, such as \"http.call\", got %s"):format(verb,
      tostring(kind)), level + 1)
  elseif fields ~= nil and type(fields) ~= "table" then
    error(("%s: a table of fields expected, got %s"):format(verb, type(fields)), level + 1)
  end
end

local function check_unit(fields, verb, level)
  local unit = fields and fields.time_unit
  if unit ~= nil and not UNITS[unit] then
    error(verb .. ": time_unit: \"nanosecond\", \"microsecond\", \"millisecond\" or \"second\" "
      .. "expected, got " .. tostring(unit), level + 1)
  end
end

local function with(kind, ...)
  local event = {}
  for i = 1, select("#", ...) do
    for name, value in pairs((select(i, ...)) or {}) do event[name] = value end
  end
  event.kind, event.at = kind, current().now()
  return event
end

--- Tell of something of one's own.
---
---     neap.events.emit("http.start", { host = host })
---     print(heard[2])   --> { kind = "http.start", at = 0, host = "api.example.com" }
---
---@param kind string    with a dot in it
---@param fields? table  copied
function events.emit(kind, fields)
  check(kind, fields, "emit", 2)
  if not taps[1] or not hearers_of(kind)[1] then return end
  events.flush()
  tell(with(kind, fields))
end

--- Tell how long something took, that has just ended: well, unless there is an error.
local function tell_end(kind, fields, more, began)
  local unit = fields and fields.time_unit or "microsecond"
  local took = tonumber(current().now_ns() - began) / UNITS[unit]
  kind = kind .. (more and more.error ~= nil and ".exception" or ".stop")
  events.flush()
  tell(with(kind, fields, more, { duration = took, time_unit = unit }))
end

--- Tell of a run of tries, with its caller's own fields beside.
---@package
---@param what string    "retry", "hedge", "poller"
---@param kind string    "start", "stop", …
---@param name string    of whatever runs
---@param own table?     the caller's; those that `fields` has, too, do not count
---@param fields table   becomes part of the event
function events.of_run(what, kind, name, own, fields)
  if not taps[1] then return end
  for key, value in pairs(own or {}) do
    if fields[key] == nil then fields[key] = value end
  end
  fields.name = fields.name or name
  events.emit(what .. "." .. kind, fields)
end

local function measured(kind, fields, began, ok, ...)
  local more
  if not ok then
    more = { error = (...) }
    if more.error == nil then more.error = "nil" end
  end
  tell_end(kind, fields, more, began)
  if not ok then error((...), 0) end
  return ...
end

--- Call `fn(...)` and tell how long it took: kind .. ".stop" with `duration`; or, when it raised,
--- kind .. ".exception" with `error`, too, and the error goes on unchanged.
---
---     neap.events.measure("http.call", { time_unit = "second" }, fetch, url)
---     print(heard[3].kind, heard[3].duration)              --> "http.call.stop", 0.05
---
---@param kind string    with a dot in it
---@param fields? table  of the event; time_unit: "nanosecond", "microsecond" (unless told),
---  "millisecond" or "second"
---@param fn function
---@param ... any        its arguments
---@return any ...       its results
function events.measure(kind, fields, fn, ...)
  check(kind, fields, "measure", 2)
  check_unit(fields, "measure", 2)
  if type(fn) ~= "function" then error("measure: a function expected, got " .. type(fn), 2) end
  if not taps[1] then return fn(...) end
  return measured(kind, fields, current().now_ns(), pcall(fn, ...))
end

local function nobody_hears() end

--- The same for what is no single call. When it has ended `stop` tells; with an `error` among its
--- fields it is an exception's. Who was not listening when it began is not told.
---
---     local ended = neap.events.timer("http.upload", { host = host })
---     neap.sleep "1ms"
---     ended { status = 200 }
---     print(heard[4])   --> { kind = "http.upload.stop", status = 200, duration = 1000, … }
---
---@param kind string    with a dot in it
---@param fields? table  as for measure
---@return fun(more?: table) stop  tells, the first time; fields besides
function events.timer(kind, fields)
  check(kind, fields, "timer", 2)
  check_unit(fields, "timer", 2)
  if not taps[1] then return nobody_hears end
  local began = current().now_ns()
  return function (more)
    check(kind, more, "stop", 2)
    if not began then return end
    local since = began
    began = nil
    tell_end(kind, fields, more, since)
  end
end

events.reporter = require "neap.reporter"

return events
