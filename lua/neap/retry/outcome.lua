--- Outcomes: how a call ended, as a value.
---
--- A call that answers nil or false and an error has failed, and so has one that answers false
--- alone, or raises an error. Everything else is a success, nothing at all included. One that has
--- made an outcome already (of others that it called) answers that, and it is taken as it is.
---
---     local outcome = neap.retry.outcome(nil, { status = 503 })
---     print(outcome.ok, outcome.value, outcome.err)   --> false, nil, { status = 503 }
local error, getmetatable, select = error, getmetatable, select
local setmetatable, tostring = setmetatable, tostring
local type, unpack, xpcall = type, unpack, xpcall
local traceback = debug.traceback

---@class neap.Outcome
---@field ok boolean
---@field value any        its first result
---@field err any          its second, when it failed; or what it raised
---@field raised boolean?
---@field trace string?    of what it raised, with the message
---@field count integer    results; they are in [1] and so on
---@field attempt integer  the number of the call, from 0; known once it is judged
---@field elapsed number   seconds since the first call began; the same
local outcome = {}
outcome.__index = outcome

--- An error that came back as a value; in text it has its traceback.
---@class neap.Exception
---@field value any
---@field trace string
local exception = {}
exception.__index = exception
exception.__tostring = function (self) return self.trace end

--- How a call ended that answered this: neap.retry.outcome.
---
---     neap.retry.outcome().ok        --> true
---     neap.retry.outcome(false).ok   --> false
---
---@param ... any
---@return neap.Outcome
function outcome.of(...)
  local value, err = ...
  local ok = value and true or value == nil and err == nil
  return setmetatable({ ok = ok, value = value, err = not ok and err or nil,
    count = select("#", ...), ... }, outcome)
end

--- How a call ended that raised this: neap.retry.raised.
---
---     local failed = neap.retry.raised "out of reach"
---     print(failed.ok, failed.err, failed.raised)     --> false, "out of reach", true
---
---@param value any
---@param trace? string
---@return neap.Outcome
function outcome.of_error(value, trace)
  return setmetatable({ ok = false, err = value, raised = true, count = 0,
    trace = trace or tostring(value) }, outcome)
end

local function with_trace(value)
  return setmetatable({ value = value, trace = traceback(tostring(value), 2) }, exception)
end

local function caught(ok, ...)
  if ok then
    local made = ...
    return getmetatable(made) == outcome and made or outcome.of(...)
  end
  local thrown = ...
  return outcome.of_error(thrown.value, thrown.trace)
end

--- Call a function, and tell how it ended.
---@package
---@param fn function
---@param ... any
---@return neap.Outcome
function outcome.call(fn, ...) return caught(xpcall(fn, with_trace, ...)) end

--- What `fn` answered, or its error raised again, unchanged; as a value it is nil and an exception.
---
---     outcome:unpack()               --> nil, { status = 503 }
---     pcall(failed.unpack, failed)   --> false, "out of reach"
---
---@param as_value boolean?
---@return any ...
function outcome:unpack(as_value)
  if not self.raised then return unpack(self, 1, self.count) end
  if not as_value then error(self.err, 0) end
  return nil, setmetatable({ value = self.err, trace = self.trace }, exception)
end

--- A field of what came back, whether as a result or as an error.
---
---     outcome:field "status"         --> 503
---
---@param name string
---@return any
function outcome:field(name)
  local value = self.ok and self.value or self.err
  if type(value) == "table" then return value[name] end
  return nil
end

return outcome
