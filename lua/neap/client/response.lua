--- Responses: what there is to learn from how a call ended, before its permit is given back.
---
---     settle     what it really used, as `usage` reads it from the response
---     provider   what the server says of its limits, to the limiter
---     wait       its Retry-After, to the window of the key, and to a limiter that backs off
---     give       the permit, with the outcome that breakers and adaptive limits go by
---
--- In this order: a settle puts back what was not used, of which the server may then say that it is
--- not there; and who gets the place that comes free finds the window on already.
---
--- All of it is beside the call, whose answer stays what it is: an error in what users wrote is
--- reported (see neap.runtime), and the rest is done as if that had not been there.
local cost = require "neap.cost"
local ffi = require "ffi"
local headers = require "neap.headers"
local runtime = require "neap.runtime"

local min, huge = math.min, math.huge
local pcall, tostring, type, xpcall = pcall, tostring, type, xpcall
local traceback = debug.traceback

local DAY = 86400   -- no window is set for longer, whatever a server says
local OUTCOMES = { success = true, failure = true, ignore = true }
local scratch = ffi.new "int64_t[8]"

local response = {}

local function report(self, what, message)
  local text = ("neap: %s: %s: %s"):format(self.name, what, tostring(message))
  pcall(runtime.current().report, text)
end

--- Call what may fail. nil, too, when it did.
local function try(self, what, fn, ...)
  local ran, value = xpcall(fn, traceback, ...)
  if ran then return value end
  report(self, what, value)
end

-- ---- reading ----------------------------------------------------------------------------------

--- The status of a response: a field of what came back, or all that an error is. A plain number
--- that a call answers is its own affair.
---@param outcome neap.Outcome
---@return integer?
function response.status(outcome)
  local status = outcome:field "status"
  if not outcome.ok and type(outcome.err) == "number" then status = outcome.err end
  return type(status) == "number" and status or nil
end

--- What came back from the server, if anything did, whether answered or raised: not a word.
---@param outcome neap.Outcome
---@return any
local function body(outcome)
  if outcome.ok then return outcome.value end
  return type(outcome.err) == "table" and outcome.err or nil
end

--- How long the server wants to be left alone.
local function wait_of(outcome, fields, now)
  local wait = fields and headers.delay(fields, { now = now }) or outcome:field "retry_after"
  return type(wait) == "number" and wait >= 0 and wait < huge and wait or nil
end

--- What an outcome says about the server, which is not what is worth another attempt. A status
--- that is none of its breakdowns is a success: it answered. 429 says that there were too many
--- calls, of whomever, and nothing about its health.
---@param outcome neap.Outcome
---@return "success"|"failure"|"ignore"
function response.outcome(outcome)
  if outcome.err == "cancelled" and not outcome.raised then return "ignore" end
  local status = response.status(outcome)
  if status == 429 then return "ignore" end
  if status then return status >= 500 and "failure" or "success" end
  return outcome.ok and "success" or "failure"
end

-- ---- telling ----------------------------------------------------------------------------------

--- What was used, by name: a number is for all that the limiter charges, but not for what the
--- client put beside it.
local function used(self, given)
  if type(given) ~= "number" then return given end
  local terms = self.limiter.terms
  cost.read(scratch, terms, given, false, 1)
  local all = cost.written(terms, scratch)
  return type(all) == "table" and all or { cost = all }
end

local function settle(self, held, outcome)
  local given = body(outcome)
  if not held or not self.limiter or given == nil then return end
  local amount = self.usage(given)
  if amount ~= nil then held:settle(used(self, amount)) end
end

--- Have the limiter go by what the server says of it. With windows a Retry-After is theirs.
local function sync(self, outcome, fields)
  local seen = self.provider:parse(fields, self.now)
  outcome.wait_s = seen.retry_after_s
  if self.windows then seen.retry_after_s = nil end
  self.provider:apply(self.limiter, seen)
end

--- Keep others from calling where a call was told to wait.
local function back_off(self, call, wait)
  wait = min(wait, DAY)
  local windows = self.windows
  if windows and windows.set then
    windows:set(call.key, wait)
  elseif windows then
    windows:extend(wait)
  end
  if self.limiter and self.limiter.set_backoff then self.limiter:set_backoff(wait) end
end

local function give(self, held, outcome, dropped)
  local said = dropped and "ignore" or nil
  if not said and self.outcome then
    said = try(self, "outcome", self.outcome, outcome)
    if said ~= nil and not OUTCOMES[said] then
      report(self, "outcome", "\"success\", \"failure\", \"ignore\" or nil expected, got "
        .. tostring(said))
      said = nil
    end
  end
  try(self, "outcome", held.give, held, said or response.outcome(outcome))
end

--- Learn from how a call ended, and give its permit back.
---@param self neap.Client
---@param call table            of client:call: its key
---@param held neap.Permit?
---@param outcome neap.Outcome  gets `wait_s`, what the server said about when, if it did
---@param dropped boolean?      it lost a race and was cancelled
function response.learn(self, call, held, outcome, dropped)
  if self.usage then try(self, "usage", settle, self, held, outcome) end
  local fields = body(outcome) ~= nil and outcome:field "headers" or nil
  if self.provider and fields then try(self, "provider", sync, self, outcome, fields) end
  outcome.wait_s = outcome.wait_s or wait_of(outcome, fields, self.now)
  local status = response.status(outcome)
  local is_told = outcome.wait_s and (not outcome.ok or status and status >= 400)
  if is_told then try(self, "windows", back_off, self, call, outcome.wait_s) end
  if held then give(self, held, outcome, dropped) end
end

return response
