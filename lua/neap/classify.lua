--- Classifiers: what to do about an outcome.
---
---     local classify = neap.classify
---     local retry = neap.retry()
---     local worth = classify.any { classify.status { 429, 503 }, classify.match "timed out" }
---     local answer, err = retry:run(function () return fetch(url) end, worth)
---
--- A classifier is a function of an outcome (neap.retry.outcome: ok, value, err, raised, attempt,
--- elapsed) that answers
---
---     "retry"        try again, after the back-off's delay
---     "retry", 2.5   the other side says when: after so many seconds
---     "stop"         do not
---     nil            it has no opinion: then a composed one asks the next, and in the end a
---                    success is one, and a failure is not tried again
---
--- true is "retry", and false is "stop". It is asked about successes, too: an HTTP response with
--- status 503 is one for Lua.
local grammar = require "neap.grammar"
local headers = require "neap.headers"

local error, ipairs, pairs = error, ipairs, pairs
local tostring, type = tostring, type

---@alias neap.Classifier fun(outcome: neap.Outcome): "retry"|"stop"|boolean|nil, number?

local classify = {}

local function refuse(text, level) error("classify." .. text, level + 1) end

--- What a classifier answered, in words.
---
---     classify.read(true, 2.5)                                 --> "retry", 2.5
---
---@param verdict any
---@param hint any
---@return "retry"|"stop"|nil verdict
---@return number? hint  seconds from 0; others count as none
function classify.read(verdict, hint)
  if verdict == true then verdict = "retry" end
  if verdict == false then verdict = "stop" end
  if verdict ~= nil and verdict ~= "retry" and verdict ~= "stop" then
    error((grammar.suggest(("a classifier answers \"retry\", \"stop\" or nil, not %s"):format(
      tostring(verdict)), type(verdict) == "string" and verdict or nil, { "retry", "stop" })), 0)
  end
  if type(hint) ~= "number" or not (hint >= 0) then hint = nil end
  return verdict, hint
end

local read = classify.read

-- ---- by what came back -------------------------------------------------------------------------

--- Every failure is tried again, unless its error says `retryable = false`; its `retry_after`, in
--- seconds, says when. What is used unless told otherwise.
---
---     local outcome = neap.retry.outcome
---     classify.failure(outcome(nil, { retry_after = 3 }))      --> "retry", 3
---     classify.failure(outcome(nil, { retryable = false }))    --> "stop"
---
---@type neap.Classifier
function classify.failure(outcome)
  if outcome.ok then return nil end
  if outcome:field "retryable" == false then return "stop" end
  return "retry", outcome:field "retry_after"
end

--- Nothing is tried again.
---
---     classify.never(outcome(nil, "refused"))                  --> "stop"
---
---@type neap.Classifier
function classify.never() return "stop" end

--- The status of a response: a number, or a table with `status`.
local function status_of(outcome)
  local value = outcome.ok and outcome.value or outcome.err
  local status = type(value) == "table" and value.status or value
  return type(status) == "number" and status or nil
end

local function read_statuses(given, level)
  local set = {}
  for _, status in pairs(given) do
    local class = type(status) == "string" and status:match "^([1-5])xx$"
    if class then
      for n = class * 100, class * 100 + 99 do set[n] = true end
    elseif type(status) == "number" and status % 1 == 0 and status >= 100 and status <= 599 then
      set[status] = true
    else
      refuse(("status: a status or \"5xx\" expected, got %s"):format(tostring(status)), level + 1)
    end
  end
  return set
end

--- Try again when the status is one of these; no opinion otherwise. It is the value or the error
--- itself, or its `status`.
---
---     classify.status { 429, "5xx" }(outcome { status = 503 }) --> "retry"
---     classify.status { 429, "5xx" }(outcome { status = 404 }) --> nil
---
---@param statuses (integer|string)[]  { 429, "5xx" }
---@return neap.Classifier
function classify.status(statuses)
  if type(statuses) ~= "table" then
    refuse("status: a list expected, such as { 429, \"5xx\" }, got " .. tostring(statuses), 2)
  end
  local set = read_statuses(statuses, 2)
  return function (outcome)
    local status = status_of(outcome)
    if status and set[status] then return "retry", outcome:field "retry_after" end
    return nil
  end
end

local HTTP = { "method", "rules", "idempotent", "now", "dialect", "max" }

--- As HTTP has it, for a response as a result or as an error: { status = 503, headers = … }, or a
--- status alone. An x-should-retry decides; without one the rules for the status do. The hint is
--- what retry-after-ms or Retry-After say. No opinion of what is no response, or is not worth it.
---
---     local answer = { status = 503, headers = { ["retry-after"] = "7" } }
---     classify.http { method = "GET" }(outcome(answer))        --> "retry", 7
---     classify.http { method = "POST" }(outcome(answer))       --> nil
---
---@param options? table  of neap.headers: method, rules, idempotent; now, dialect, max
---@return neap.Classifier
function classify.http(options)
  if options ~= nil and type(options) ~= "table" then
    refuse("http: a table expected, got " .. tostring(options), 2)
  end
  options = options or {}
  grammar.check_names("classify.http", options, HTTP, 2)
  local reading = { now = options.now, dialect = options.dialect, max = options.max }
  return function (outcome)
    if not status_of(outcome) then return nil end
    local response = outcome.ok and outcome.value or outcome.err
    local fields = type(response) == "table" and response.headers or nil
    if headers.should_retry(response, options) then
      return "retry", fields and headers.delay(fields, reading)
    elseif fields and headers.says_retry(headers.get(fields, "x-should-retry")) == false then
      return "stop"
    end
    return nil
  end
end

--- Try again when a failure's error, as text, has one of these patterns; no opinion otherwise.
---
---     classify.match("timed? ?out", "reset")(outcome(nil, "timed out"))   --> "retry"
---
---@param ... string  patterns of Lua
---@return neap.Classifier
function classify.match(...)
  local patterns = { ... }
  if not patterns[1] then refuse("match: a pattern expected, got nothing", 2) end
  for _, pattern in ipairs(patterns) do
    if type(pattern) ~= "string" then
      refuse("match: a pattern expected, got " .. tostring(pattern), 2)
    end
  end
  return function (outcome)
    if outcome.ok then return nil end
    local text = tostring(outcome.err)
    for _, pattern in ipairs(patterns) do
      if text:find(pattern) then return "retry", outcome:field "retry_after" end
    end
    return nil
  end
end

-- ---- composed ----------------------------------------------------------------------------------

local function read_list(given, what, level)
  if type(given) ~= "table" or not given[1] then
    refuse(what .. ": a list of classifiers expected, got " ..
      (type(given) == "table" and "an empty one" or tostring(given)), level + 1)
  end
  for i, each in ipairs(given) do
    if type(each) ~= "function" then
      refuse(("%s: a function expected in place %d, got %s"):format(what, i, tostring(each)),
        level + 1)
    end
  end
  return given
end

--- Try again when any of them says so, with its hint; otherwise stop when any says that.
---
---     local opinions, busy = { classify.never, classify.status { 429 } }, outcome { status = 429 }
---     classify.any(opinions)(busy)                             --> "retry"
---
---@param list neap.Classifier[]
---@return neap.Classifier
function classify.any(list)
  read_list(list, "any", 2)
  return function (outcome)
    local stops
    for _, each in ipairs(list) do
      local verdict, hint = read(each(outcome))
      if verdict == "retry" then return verdict, hint end
      stops = stops or verdict
    end
    return stops
  end
end

--- Try again when all of them say so, after the longest of their hints; otherwise stop when any
--- says that.
---
---     classify.all(opinions)(busy)                             --> "stop"
---
---@param list neap.Classifier[]
---@return neap.Classifier
function classify.all(list)
  read_list(list, "all", 2)
  return function (outcome)
    local longest, silent
    for _, each in ipairs(list) do
      local verdict, hint = read(each(outcome))
      if verdict == "stop" then return "stop" end
      silent = silent or verdict == nil
      if hint and hint > (longest or -1) then longest = hint end
    end
    if silent then return nil end
    return "retry", longest
  end
end

return classify
