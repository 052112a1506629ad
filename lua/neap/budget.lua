--- A retry budget: how many attempts there may be besides the first, for all calls together.
---
---     local budget = neap.budget { share = 0.2, least = 3, within = "10s" }
---     local retry = neap.retry { backoff = "200ms x2 jitter full", budget = budget }
---     local hedge = neap.hedge { after = "50ms", budget = budget }
---
--- Without one, retries multiply the load on a server that is down already. There are two kinds:
---
---     { share = 0.2, least = 3, within = "10s" }   in any 10 s so many for each first call, and
---                                                  3 in any case
---     { tokens = 500, cost = 5, success = 1 }      each takes 5 of 500, unless there are fewer; a
---                                                  success brings 1
local ffi = require "ffi"
local C = require "neap.engine"
local grammar = require "neap.grammar"
local limiter = require "neap.limiter"
local runtime = require "neap.runtime"
local stats = require "neap.stats"

local error, getmetatable, ipairs, pairs = error, getmetatable, ipairs, pairs
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local floor = math.floor
local current = runtime.current

local budget_t = ffi.typeof "struct neap_budget"

local OPTIONS = { "preset", "share", "least", "within", "tokens", "cost", "throttled", "timeout",
  "failure", "success", "refund", "above" }
local MOST = 1e9

--- What other systems do, under their names.
local PRESETS = {
  botocore = { tokens = 500, cost = 5, timeout = 10, success = 1, refund = true },
  botocore_2_1 = { tokens = 500, cost = 14, throttled = 5, success = 1, refund = true },
  grpc = { tokens = 10, cost = 0, failure = 1, success = 0.1, above = 5 },
  finagle = { share = 0.2, least = 100, within = "10s" },
  s3_transfer = { tokens = 10, cost = 1, success = 0.05 },
}

---@class neap.Budget
---@field state ffi.cdata*    struct neap_budget
---@field cost number         tokens for an attempt; and after what
---@field throttled number
---@field timeout number
---@field failure number      what a failure takes
---@field reward number       what a success brings
---@field refund boolean      or what the last retry had cost
---@field refused integer     attempts that it did not let begin, ever
local budget = {}
budget.__index = budget

-- ---- reading ----------------------------------------------------------------------------------

local function refuse(text, level) error("budget: " .. text, level + 1) end

local function number(options, name, otherwise, level)
  local n = options[name]
  if n == nil then return otherwise end
  if type(n) ~= "number" or not (n >= 0 and n <= MOST) then
    refuse(("%s: a number from 0 to 1e9 expected, got %s"):format(name, tostring(n)), level + 1)
  end
  return n
end

local function read_options(given, level)
  local options = {}
  grammar.check_names("budget", given, OPTIONS, level + 1)
  if given.preset ~= nil then
    local preset, names = PRESETS[given.preset], {}
    for name in pairs(PRESETS) do names[#names + 1] = name end
    table.sort(names)
    if not preset then
      refuse((grammar.suggest(("no preset '%s': there are %s"):format(tostring(given.preset),
        table.concat(names, ", ")), tostring(given.preset), names)), level + 1)
    end
    for name, value in pairs(preset) do options[name] = value end
  end
  for name, value in pairs(given) do options[name] = value end
  return options
end

local function thousandths(n) return floor(n * 1000 + 0.5) end

local function begin(state, options, level)
  local share, tokens = number(options, "share", nil, level + 1), number(options, "tokens", nil,
    level + 1)
  if (share == nil) == (tokens == nil) then
    refuse("either a share, { share = 0.2, within = \"10s\" }, or tokens, { tokens = 500, cost = 5 "
      .. "}", level + 1)
  end
  for _, name in ipairs(share and { "cost", "throttled", "timeout", "failure", "success", "refund",
    "above" } or { "least", "within" }) do
    if options[name] ~= nil then
      refuse(("%s is not for %s"):format(name, share and "a share" or "tokens"), level + 1)
    end
  end
  if tokens then
    local above = number(options, "above", 0, level + 1)
    if above > tokens then refuse("above: not more than the tokens expected", level + 1) end
    C.neap_budget_tokens(state, thousandths(tokens), thousandths(above))
    return
  end
  if options.within == nil then refuse("within: the time of a share is missing", level + 1) end
  local within = limiter.ns_of(options.within, "budget: within", level + 1)
  if C.neap_budget_share(state, share, floor(number(options, "least", 0, level + 1)), within)
    ~= C.NEAP_OK then
    refuse("share: up to 1e6 of a time above 0 expected", level + 1)
  end
end

-- ---- spending ---------------------------------------------------------------------------------

local function is_throttled(outcome)
  return outcome:field "throttled" == true or outcome:field "status" == 429
end

local function is_timeout(outcome)
  local err = outcome.err
  return type(err) == "string" and (err:find "timeout" or err:find "timed out") ~= nil
end

--- A first call begins. For retries and hedges, which do this and the following by themselves.
---
---     local own = neap.budget { share = 0.5, within = "10s" }
---     for _ = 1, 4 do own:call() end
---     own:left()                                    --> 2
---
function budget:call() C.neap_budget_call(self.state, current().now_ns()) end

--- May another attempt begin?
---
---     own:take()                                    --> 0
---
---@param outcome? neap.Outcome  of the one before; none for a hedge
---@return number? paid   tokens, 0 for a share; nil: it may not
function budget:take(outcome)
  local cost = self.cost
  if outcome and is_throttled(outcome) then
    cost = self.throttled
  elseif outcome and is_timeout(outcome) then
    cost = self.timeout
  end
  local goes = C.neap_budget_take(self.state, thousandths(cost), current().now_ns())
  if goes == 1 then return cost end
  self.refused = self.refused + 1
  return nil
end

--- A call succeeded.
---
---     local tokens = neap.budget { tokens = 10, cost = 4, failure = 2, success = 1 }
---     local paid = tokens:take()                    --> 4
---     tokens:success(paid)
---     tokens:left()                                 --> 7
---
---@param paid? number  what its last attempt had cost, if it was not the first
function budget:success(paid)
  local back = self.refund and paid or self.reward
  C.neap_budget_add(self.state, thousandths(back))
end

--- A call failed, in a way that is worth another attempt.
---
---     tokens:failed()
---     tokens:left()                                 --> 5
---
function budget:failed() C.neap_budget_add(self.state, -thousandths(self.failure)) end

--- Tokens that there are, or attempts that there may be now.
---
---     neap.budget({ preset = "botocore" }):left()   --> 500
---
---@return number
function budget:left()
  local left = tonumber(C.neap_budget_left(self.state, current().now_ns()))
  return self.state.rule == C.NEAP_TOKENS and left / 1000 or left
end

--- What is left, for people.
---
---     tostring(tokens)                              --> "budget of 5"
---
---@return string
function budget:__tostring() return ("budget of %g"):format(self:left()) end

-- ---- making -----------------------------------------------------------------------------------

--- Make a budget.
---
---   share     extra attempts for each first call, and `least` of them in any case, in any time
---             `within`; it may refuse what a 16th of that time later it would not
---   tokens    what there is in the beginning, and the most; three digits after the point count
---   cost      of an attempt, 1 unless told; `throttled`, of one after status 429 or an error with
---             `throttled = true`, and `timeout`, of one after an error that says "timeout" or
---             "timed out", are the same unless told
---   failure   what a failure takes that is worth another attempt, 0 unless told
---   success   what a success brings, 0 unless told; with `refund = true` one after retries brings
---             what the last of them had cost
---   above     only while there are more tokens than this, 0 unless told
---   preset    botocore, botocore_2_1, grpc, finagle or s3_transfer: what it does; the other
---             options change that
---@overload fun(options: table): neap.Budget
local module = {
  presets = PRESETS,
  --- Is it a budget?
  ---
  ---     neap.budget.is(tokens)                       --> true
  ---
  ---@param x any
  ---@return boolean
  is = function (x) return getmetatable(x) == budget end,
}

local function make(options, level)
  if type(options) ~= "table" then
    refuse("a table expected, as in { share = 0.2, within = \"10s\" }, got " .. type(options),
      level + 1)
  end
  options = read_options(options, level + 1)
  local self = { state = budget_t(), refused = 0 }
  begin(self.state, options, level + 1)
  self.cost = number(options, "cost", self.state.rule == C.NEAP_TOKENS and 1 or 0, level + 1)
  self.throttled = number(options, "throttled", self.cost, level + 1)
  self.timeout = number(options, "timeout", self.cost, level + 1)
  self.failure = number(options, "failure", 0, level + 1)
  self.reward = number(options, "success", 0, level + 1)
  if options.refund ~= nil and type(options.refund) ~= "boolean" then
    refuse("refund: true or false expected, got " .. tostring(options.refund), level + 1)
  end
  self.refund = options.refund or false
  return setmetatable(stats.join("budget", self), budget)
end

return setmetatable(module, {
  __call = function (_, options)
    local made = make(options, 2)
    return made
  end,
})
