--- A reporter: a package that takes events elsewhere, and need not be installed.
---
---     local reporter = neap.events.reporter "our.telemetry"
---     print(reporter:start { host = host })   --> nil, "missing_dependency"
---
--- The package is a table with functions start, log, attach and detach. Each is handed what the
--- verb is handed, and the verb answers what it answers; a program that says what it reports runs
--- unchanged where nobody takes it. The package is looked for when it is needed, again each time
--- until it is found. What it does with attach is its own business, for which `neap.events.tap` is
--- there:
---
---     local sent, telemetry = {}, {}
---     local function send(event) sent[#sent + 1] = event.kind end
---     function telemetry.start(options) return options.host end
---     function telemetry.log(_, kind) sent[#sent + 1] = kind end
---     function telemetry.attach(kinds) return neap.events.tap(send, kinds) end
---     function telemetry.detach(stop) stop() end
---     reporter = neap.events.reporter(telemetry)   -- the package itself does as well as its name
local error, pcall, require, setmetatable = error, pcall, require, setmetatable
local tostring, type = tostring, type

---@class neap.Reporter
---@field package string|table
local reporter = {}
reporter.__index = reporter

--- The package, nil when it is not installed. One that is there and does not load is a mistake.
---@return table?
local function find(self)
  if type(self.package) == "table" then return self.package end
  local found, package = pcall(require, self.package)
  if not found then
    local text = tostring(package)
    if text:find("module '" .. self.package .. "' not found", 1, true) then return nil end
    error(text, 0)
  end
  self.package = type(package) == "table" and package or {}
  return self.package
end

local function hand_over(self, verb, ...)
  local package = find(self)
  local fn = package and package[verb]
  if not fn then return nil, "missing_dependency" end
  return fn(...)
end

--- Is it installed?
---
---     reporter:is_there()   --> true
---
---@return boolean
function reporter:is_there() return find(self) ~= nil end

--- Start it.
---
---     local running = reporter:start { host = host }
---     print(running)        --> "api.example.com"
---
---@param ... any  the package's own options
---@return any ...  what its `start` answers; or nil, "missing_dependency"
function reporter:start(...) return hand_over(self, "start", ...) end

--- Have it write down an event; what that takes, the package says.
---
---     reporter:log(running, "http.call", { ok = true }, "info")
---
---@param ... any
---@return any ...
function reporter:log(...) return hand_over(self, "log", ...) end

--- Have it listen.
---
---     local id = reporter:attach { "retry.*", "*.stop" }
---     neap.events.measure("http.call", nil, fetch, url)
---     print(sent)           --> { "http.call", "http.call.stop" }
---
---@param ... any  to what, as the package has it
---@return any ...  what to detach
function reporter:attach(...) return hand_over(self, "attach", ...) end

--- Have it listen no more.
---
---     reporter:detach(id)
---
---@param ... any
---@return any ...
function reporter:detach(...) return hand_over(self, "detach", ...) end

--- Make one: `neap.events.reporter`.
---@param package string|table  the module's name, or the package itself
---@return neap.Reporter
return function (package)
  if type(package) ~= "table" and (type(package) ~= "string" or package == "") then
    error("reporter: a module's name or a table expected, got " .. tostring(package), 2)
  end
  return setmetatable({ package = package }, reporter)
end
