--- Headers: what a server's answer says about when to call again.
---
---     local headers, backoff, attempt = neap.headers, neap.backoff(), 0
---     local answer = { status = 503, headers = { ["Retry-After"] = "120" } }
---     local wait_s = headers.delay(answer.headers, { max = 300 }) or backoff:delay(attempt)
---     if headers.should_retry(answer, { method = "GET" }) then neap.sleep(wait_s) end
---
--- What comes from outside may be anything: it is read or it is not, which is nil, and nothing here
--- raises an error about it. Reading takes time in proportion to its length. Headers are a list of
--- pairs { name, value }, or a table of values under their names, where several values of a name
--- are a list; names are in any case, and of several the first one counts.
---
--- Retry-After has been read in two ways, of which each is strict where the other is lenient:
---
---     dialect    numbers                            dates
---     "strict"   digits and nothing else, up to     any weekday, one digit for a day, a short
---                2^64 - 1                           weekday or a long year in RFC 850
---     "lenient"  digits, whatever follows           the three forms as they are, and the weekday
---                                                   is the date's; RFC 3339
---
--- Neither takes a sign for a time in the past, or the year of a date for seconds. What is past is
--- 0. Dates need the time of day: `now`, or the system's clock. (For years of two digits, leap
--- seconds and the like see neap.headers.date; for typed values neap.headers.structured.)
local lpeg = require "lpeg"
local date = require "neap.headers.date"
local grammar = require "neap.grammar"
local make_rules = require "neap.headers.rules"
local structured = require "neap.headers.structured"

local P, R, S = lpeg.P, lpeg.R, lpeg.S
local C, Cc = lpeg.C, lpeg.Cc
local huge, min = math.huge, math.min
local error, ipairs, pairs = error, ipairs, pairs
local tonumber, tostring, type = tonumber, tostring, type

local headers = { rules = make_rules, structured = structured }

-- ---- fields -----------------------------------------------------------------------------------

local function text_of(value)
  if type(value) == "string" then return value end
  if type(value) == "number" then return ("%.14g"):format(value) end
end

local function add(lines, value)
  if type(value) == "table" then
    for _, each in ipairs(value) do lines[#lines + 1] = text_of(each) end
  else
    lines[#lines + 1] = text_of(value)
  end
end

--- All values of a field, in order.
---
---     headers.all({ { "Via", "a" }, { "via", "b" } }, "Via")    --> { "a", "b" }
---
---@param fields any    headers
---@param name string   in any case
---@return string[]
function headers.all(fields, name)
  local lines = {}
  if type(fields) ~= "table" then return lines end
  name = name:lower()
  for _, pair in ipairs(fields) do
    if type(pair) == "table" and type(pair[1]) == "string" and pair[1]:lower() == name then
      add(lines, pair[2])
    end
  end
  local other
  for key, value in pairs(fields) do
    if key == name then
      add(lines, value)
      return lines
    elseif type(key) == "string" and key:lower() == name and not (other and other < key) then
      other = key
    end
  end
  if other then add(lines, fields[other]) end
  return lines
end

--- The first value of a field.
---
---     headers.get(answer.headers, "retry-after")                --> "120"
---
---@param fields any
---@param name string  in any case
---@return string?
function headers.get(fields, name) return headers.all(fields, name)[1] end

-- ---- values -----------------------------------------------------------------------------------

local digit, blank = R "09", S " \t" ^ 0
local LARGEST = "18446744073709551615"

-- More digits than a number can have say no more than that they are too many.
local significant = #digit * P "0" ^ 0 * C(digit ^ -400) * digit ^ 0
local digits = blank * significant * blank * -P(1)
local prefix = blank * P "+" ^ -1 * significant * -(S "-:/" * digit)
local milliseconds = blank * significant * (P "." * digit ^ 1) ^ -1 * blank * -P(1)

local function number(text) return text and (tonumber(text) or 0) end
local yes_or_no = blank * (P "true" * Cc(true) + P "false" * Cc(false)) * blank * -P(1)

--- A whole number from 0 to 2^64 - 1 and nothing else; above 2^53 the nearest that Lua has.
---
---     headers.count "120"                                       --> 120
---     headers.count "-1"                                        --> nil
---
---@param text string
---@return number?
function headers.count(text)
  local found = digits:match(text)
  if not found or #found > #LARGEST or #found == #LARGEST and found > LARGEST then return nil end
  return number(found)
end

local DIALECTS = { strict = true, lenient = true }
local OPTIONS = { "now", "dialect", "max", "default" }

local function check_options(options, level)
  if options == nil then return {} end
  if type(options) ~= "table" then
    error("options: a table expected, got " .. type(options), level + 1)
  end
  grammar.check_names(nil, options, OPTIONS, level + 1)
  if options.dialect ~= nil and not DIALECTS[options.dialect] then
    error('dialect: "strict" or "lenient" expected, got ' .. tostring(options.dialect), level + 1)
  end
  if options.max ~= nil and not (type(options.max) == "number" and options.max >= 0) then
    error("max: seconds from 0 expected, got " .. tostring(options.max), level + 1)
  end
  return options
end

--- Seconds since 1970: a number as it is, what a function tells, or the system's clock.
---
---     headers.time_of_day(function () return 784111770 end)     --> 784111770
---
---@param now number|fun(): number|nil  seconds since 1970
---@return number
function headers.time_of_day(now)
  if type(now) == "function" then now = now() end
  return now or os.time()
end

local time_of_day = headers.time_of_day

local function first_text(value)
  if type(value) == "table" then value = value[1] end
  return text_of(value)
end

local function read_retry_after(text, options)
  local lenient = options.dialect == "lenient"
  local seconds = headers.count(text)
  if seconds then return seconds end
  local now = time_of_day(options.now)
  local at = date.http(text, now, lenient) or lenient and date.rfc3339(text)
  if at then return at > now and at - now or 0 end
  return lenient and number(prefix:match(text)) or nil
end

--- What a Retry-After says.
---
---     headers.retry_after("Sun, 06 Nov 1994 08:49:37 GMT", { now = 784111770 })   --> 7
---     headers.retry_after("120s")                               --> nil
---     headers.retry_after("120s", { dialect = "lenient" })      --> 120
---
---@param value any  the field's value; of several the first
---@param options? { now: (number|fun(): number)?, dialect: "strict"|"lenient"|nil, max: number? }
---  now: seconds since 1970, or a function that tells them; max: seconds it is cut to
---@return number? seconds  until one may call again; nil: it says nothing that can be understood
function headers.retry_after(value, options)
  options = check_options(options, 2)
  local text = first_text(value)
  local seconds = text and read_retry_after(text, options)
  return seconds and min(seconds, options.max or huge)
end

--- What a retry-after-ms says: a number of milliseconds, of which a fraction is cut off.
---
---     headers.retry_after_ms "1500.7"                           --> 1.5
---
---@param value any
---@return number? seconds
function headers.retry_after_ms(value)
  local text = first_text(value)
  local found = text and number(milliseconds:match(text))
  return found and found / 1000
end

--- What an x-should-retry says.
---
---     headers.says_retry "False"                                --> false
---
---@param value any
---@return boolean?  nil: neither true nor false
function headers.says_retry(value)
  local text = first_text(value)
  if text then return (yes_or_no:match(text:lower())) end
end

--- How long headers say to wait: retry-after-ms before Retry-After, and the first that can be read.
---
---     headers.delay({ ["retry-after-ms"] = "250", ["retry-after"] = "1" })   --> 0.25
---     headers.delay({}, { default = 5 })                        --> 5
---
---@param fields any
---@param options? { now: (number|fun(): number)?, dialect: "strict"|"lenient"|nil, max: number?,
---  default: number? }  default: the answer when they do not say, nil unless told
---@return number? seconds
function headers.delay(fields, options)
  options = check_options(options, 2)
  local text = headers.get(fields, "retry-after")
  local seconds = headers.retry_after_ms(headers.get(fields, "retry-after-ms"))
    or text and read_retry_after(text, options)
  return seconds and min(seconds, options.max or huge) or options.default
end

-- ---- whether to call again --------------------------------------------------------------------

local every_method, default

--- Is a call worth a repetition? An x-should-retry decides; without one the rules do.
---
---     headers.should_retry(503)                                 --> true
---     headers.should_retry(503, { method = "POST" })            --> false
---     headers.should_retry({ status = 400, headers = { ["x-should-retry"] = "true" } })   --> true
---
---@param response any  { status = 503, headers = … }, or a status alone; of anything else: no
---@param options? { method: string?, rules: neap.Rules?, idempotent: boolean? }
---  rules: the "idempotent" ones when there is a method, and "every_method" when there is none;
---  idempotent: the request has a key, so it is repeatable whatever its method
---@return boolean
function headers.should_retry(response, options)
  options = options or {}
  local status = response
  if type(response) == "table" then
    status = response.status
    local says = headers.says_retry(headers.get(response.headers, "x-should-retry"))
    if says ~= nil then return says end
  end
  every_method = every_method or make_rules "every_method"
  default = default or make_rules "idempotent"
  local rules = options.rules or options.method and not options.idempotent and default
    or every_method
  return rules:retryable(status, options.idempotent and "put" or options.method)
end

return headers
