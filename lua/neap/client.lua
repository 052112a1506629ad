--- A client: one call, with all that decides when it may leave and whether it is made again.
---
---     local api = neap.client {
---       limiter = neap.multi { requests = "500/min", tokens = "100k/min" },
---       breaker = neap.breaker { failures = 5 }, retry = { backoff = "200ms x2 jitter full" },
---       provider = neap.provider "openai", budget = neap.budget { share = 0.2, within = "10s" },
---       usage = function (response) return { tokens = response.tokens } end,
---     }
---     local answer, err = api:call(function (try) return post(url, try:remaining()) end,
---       { cost = { requests = 1, tokens = 1500 }, method = "POST", timeout = "1m" })
---
--- Everything in it is optional, and nothing in it is new: it puts limits, outcomes, headers and
--- retries in their order.
---
---     +-> line       limiter, breaker and window, all or none: nobody holds a place while waiting
---     |   call       fn(try, permit, nth)           for another, and who waits when the breaker
---     |   learn      settle, provider, window       opens is sent away
---     |   give       how it ended, to breakers and adaptive limits
---     +-- retry?     within budget and deadline, after what the server said: back in line, last
---
--- What is a failure for a breaker is not what is worth a retry. To breakers and adaptive limits
--- an exception, an error without a status and 5xx are failures; 429 counts for nothing, as does
--- what was cancelled; every other status is a success, for the server answered. `outcome` may know
--- better. To the retry `classify` says; unless told, statuses as neap.headers.rules has them, by
--- method, and of what is no response every failure, as classify.failure has it.
---
--- What must not be done twice is not: a call that says `idempotent = false`, or a method that is
--- not and no more, is made again only after 429, where x-should-retry says so, or where an error
--- says `retryable = true`; whatever classify thinks. A hedge is for calls that say they are:
--- `idempotent = true`, or a method that is.
---
--- Events are those of neap.retry and neap.hedge, under the client's name.
local ffi = require "ffi"
local C = require "neap.engine"
local backoff_window = require "neap.backoff_window"
local budgets = require "neap.budget"
local classify = require "neap.classify"
local cost = require "neap.cost"
local grammar = require "neap.grammar"
local headers = require "neap.headers"
local hedges = require "neap.hedge"
local hybrid = require "neap.hybrid"
local limiter = require "neap.limiter"
local outcomes = require "neap.retry.outcome"
local response = require "neap.client.response"
local retries = require "neap.retry"
local runtime = require "neap.runtime"
local stats = require "neap.stats"

local error, getmetatable, ipairs, pairs, pcall = error, getmetatable, ipairs, pairs, pcall
local setmetatable, tostring, type = setmetatable, tostring, type

local OPTIONS = { "name", "limiter", "breaker", "windows", "provider", "usage", "outcome",
  "classify", "retry", "hedge", "budget", "now" }
local CALL = { "cost", "key", "method", "idempotent", "timeout", "deadline", "fields" }
local IDEMPOTENT = { delete = true, get = true, head = true, options = true, put = true }

-- What stands before the limiter has a cost of its own, always 1: a call that costs the limiter
-- nothing, or used nothing in the end, is a call all the same.
local GATE = "(client)"
local WINDOWS, RETRY, HEDGE = getmetatable(backoff_window()), getmetatable(retries()),
  getmetatable(hedges { after = 0 })
local scratch = ffi.new "int64_t[8]"

---@class neap.Client
---@field name string
---@field limiter neap.Limiter?
---@field breaker neap.Limiter|fun(key): neap.Limiter?|nil
---@field windows neap.BackoffWindows|neap.Pause|nil
---@field provider neap.Provider?
---@field usage (fun(response): integer|table|nil)?
---@field outcome (fun(outcome: neap.Outcome): string?)?
---@field classify neap.Classifier?
---@field retry neap.Retry
---@field hedge neap.Hedge?
---@field now number|fun(): number|nil  seconds since 1970
---@field line neap.Limiter|false|nil   of all calls; nil: each key has one
---@field lines table<any, neap.Limiter>  by key, weak
local client = {}
client.__index = client

local function refuse(text, level) error("client: " .. text, level + 1) end

--- A mistake inside, as one of ours.
local function make(what, level, fn, ...)
  local ok, made = pcall(fn, ...)
  if not ok then
    local text = tostring(made):gsub("^.-:%d+: ", "", 1):gsub("^hybrid: limit %d+: ", "")
    refuse(what .. ": " .. text, level + 1)
  end
  return made
end

-- ---- standing in line -------------------------------------------------------------------------

--- All that a call needs, as one; false: nothing.
local function compose(self, breaker, window)
  if not breaker and not window and not (self.limiter and self.limiter.terms.keys) then
    return self.limiter or false
  end
  local list = { self.limiter }
  if breaker then list[#list + 1] = { GATE, breaker } end
  if window then list[#list + 1] = { GATE, window } end
  local line = hybrid(list, { name = self.name })
  line.terms.lenient = self.limiter and self.limiter.terms.lenient
  return line
end

--- The line of a call.
local function line_of(self, key, level)
  if self.line ~= nil then return self.line end
  if key == nil or key ~= key then
    refuse("call: key: what the windows or breakers are kept by expected, got " .. tostring(key),
      level + 1)
  end
  local line, breaker, windows = self.lines[key], self.breaker, self.windows
  if type(breaker) == "function" then breaker = breaker(key) end
  if line and line.made_with == breaker then return line end   -- a breaker may have been replaced
  if breaker ~= nil and not limiter.is(breaker) then
    refuse("breaker: a limiter or nil expected, got " .. tostring(breaker), level + 1)
  end
  line = compose(self, breaker, windows and windows.set and windows:of(key) or windows)
  if line and line ~= self.limiter then
    stats.hide(line)
    line.made_with = breaker
  end
  self.lines[key] = line or nil
  return line
end

--- The key of a call, where the limiter is to be told one and was not.
local function add_key(asked, kinds, key)
  local name = kinds[1].name
  for _, kind in ipairs(kinds) do
    if kind.name == "key" then name = "key" end
  end
  if asked[name] == nil and (#kinds == 1 or name == "key") then asked[name] = key end
end

--- What a call asks its line for: what it costs the limiter, spelled out, and one of the rest.
---@return integer|table|nil
local function asked_of(self, line, given, key, level)
  if not self.limiter then return nil end
  local terms = self.limiter.terms
  if type(given) == "table" and (given.timeout ~= nil or given.deadline ~= nil) then
    refuse("call: timeout and deadline stand beside the cost", level + 1)
  end
  given = self.limiter:costs_of(given)
  local n = cost.read(scratch, terms, given, true, level + 1)
  local asked = cost.written(terms, scratch, n)
  if type(asked) == "number" then
    local all = { cost = asked }
    for name in pairs(terms.names) do all[name] = asked end
    asked = all
  end
  if line.terms.names[GATE] then asked[GATE] = 1 end
  local said = type(given) == "table" and (type(given.cost) == "table" and given.cost or given)
  if said then asked.priority, asked.flow = said.priority, said.flow end
  for _, kind in ipairs(terms.keys or {}) do
    if said then asked[kind.name] = said[kind.name] end
    if asked[kind.name] == nil and said then asked[kind.name] = given[kind.name] end
  end
  if terms.keys then add_key(asked, terms.keys, key) end
  return asked
end

-- ---- deciding ---------------------------------------------------------------------------------

--- May it be done twice? nil: nobody said.
---@return boolean?
local function is_repeatable(given)
  if given.idempotent ~= nil then return given.idempotent end
  if given.method then return IDEMPOTENT[given.method:lower()] or false end
end

--- Does the other side, or the error, say that nothing was done?
local function is_safe(outcome)
  local came = outcome.ok and outcome.value or outcome.err
  return headers.should_retry(came, { method = "post" }) or outcome:field "retryable" == true
end

--- What to do about an outcome, unless told otherwise.
local function usual(self, call, outcome)
  if not response.status(outcome) then return classify.failure(outcome) end
  call.http = call.http or classify.http { method = call.method, now = self.now,
    idempotent = call.idempotent }
  return call.http(outcome)
end

local function decide(self, call, outcome)
  local verdict, hint
  if self.classify then
    verdict, hint = classify.read(self.classify(outcome))
  else
    verdict, hint = usual(self, call, outcome)
  end
  if verdict ~= "retry" then return verdict end
  if call.repeatable == false and not is_safe(outcome) then return "stop" end
  return verdict, hint or outcome.wait_s
end

-- ---- calling ----------------------------------------------------------------------------------

--- One call, with its permit.
---@return neap.Outcome
local function attempt(self, call, try, held, nth, racer)
  local outcome = outcomes.call(call.fn, try, held, nth)
  response.learn(self, call, held, outcome, racer and racer.dropped)
  return outcome
end

--- One call, and others beside it when it is slow.
---@return neap.Outcome
local function race(self, call, try)
  local outcome = self.hedge:race(function (racer, held)
    return attempt(self, call, try, held, racer.attempt, racer)
  end, { classify = call.classify, deadline = try.deadline, limiter = call.line or nil,
    cost = call.cost, fields = call.fields })
  -- What no call answered nobody need be asked about.
  if outcome.refused then outcome.judged, outcome.verdict = true, "stop" end
  return outcome
end

local function read_call(given, level)
  if given == nil then return {} end
  if type(given) ~= "table" then
    refuse("call: a table expected, as in { cost = 1, timeout = \"10s\" }, got " .. type(given),
      level + 1)
  end
  grammar.check_names("client", given, CALL, level + 1)
  for name, kind in pairs { method = "string", idempotent = "boolean", fields = "table" } do
    local value = given[name]
    if value ~= nil and type(value) ~= kind then
      refuse(("call: %s: a %s expected, got %s"):format(name, kind, tostring(value)), level + 1)
    end
  end
  return given
end

--- Call `fn(try, permit, nth)` in its turn, and again as the retry has it. `try` is the state of
--- the retry (`try.attempt`, `try:remaining()`, …; see neap.retry), `permit` what was granted for
--- this very call, if there is a limit, and `nth` 0, or the number of a call that a hedge added.
---
---     local client = neap.client { breaker = neap.breaker(), retry = { backoff = "1s" } }
---     client:call(function (try, permit, nth)
---       if try.attempt == 0 then return { status = 503 } end
---       return { status = 200 }
---     end, { key = host, method = "GET", timeout = "30s" })   --> { status = 200 }
---
---@param fn fun(try: neap.retry.State, permit: neap.Permit?, nth: integer): ...
---@param given? table
---   cost       for the limiter, as for acquire; keys, priority and flow may stand in it
---   key        whom windows and breakers are kept by, such as the host; and the limiter, if it is
---              kept by one kind of key, or has one called "key", and the cost does not name it
---   method     of HTTP: what it may be repeated for
---   idempotent true or false, whatever the method
---   timeout, deadline   of all calls and waits together, as for acquire; the first call that is
---              let go is made in any case, and is not cut short unless it is hedged
---   fields     for events
---@return any ...  what fn answered in the end, or its error raised again; or what the retry gave
---up for, as retry:run has it; or nil, why, wait_s when a limit refused
function client:call(fn, given)
  if type(fn) ~= "function" then refuse("call: a function expected, got " .. type(fn), 2) end
  given = read_call(given, 2)
  local deadline = limiter.deadline_of(given, runtime.current().now_ns(), 2)
  local line = line_of(self, given.key, 2)
  local call = {
    fn = fn, key = given.key, line = line, cost = line and asked_of(self, line, given.cost,
      given.key, 2), repeatable = is_repeatable(given), method = given.method,
    idempotent = given.idempotent, fields = given.fields,
  }
  function call.classify(outcome)   -- which hedge and retry ask, each for itself
    local said = outcome.said or { decide(self, call, outcome) }
    outcome.said = said
    return said[1], said[2]
  end
  local hedged = self.hedge and call.repeatable
  return self.retry:run(function (try, held)
    if hedged then return race(self, call, try) end
    return attempt(self, call, try, held, 0)
  end, {
    classify = call.classify, fields = call.fields, cost = call.cost,
    limiter = not hedged and line or nil, deadline = deadline ~= C.neap_never and deadline or nil,
  })
end

--- Its name.
---
---     tostring(api)   --> "client"
---
---@return string
function client:__tostring() return self.name end

-- ---- making -----------------------------------------------------------------------------------

--- A hedge's way into the budget that the retry has: it pays there, and gets its own back, but a
--- call is counted once.
local function purse(budget)
  return {
    take = function (_, outcome) return budget:take(outcome) end,
    success = function (_, paid)
      if paid and budget.refund then budget:success(paid) end
    end,
    call = function () end, failed = function () end,
  }
end

--- A retry or a hedge, made or to be made, with some of it as the client has it.
local function adopt(given, class, constructor, what, changes, level)
  local made = given
  if getmetatable(given) ~= class then made = make(what, level + 1, constructor, given) end
  if made.limiter then
    refuse(what .. ": its calls stand in the client's line: give limiter and in_flight to that",
      level + 1)
  end
  local copy = {}
  for name, value in pairs(made) do copy[name] = value end
  for name, value in pairs(changes) do copy[name] = value end
  return setmetatable(copy, class)
end

local function of_type(options, name, kind, level)
  return grammar.check_type("client", options, name, kind, level)
end

local function read_limits(self, options, level)
  local given, breaker, windows = options.limiter, options.breaker, options.windows
  if given ~= nil and not limiter.is(given) then
    given = make("limiter", level + 1, hybrid, { given })
  end
  if breaker ~= nil and type(breaker) ~= "function" and not limiter.is(breaker) then
    refuse("breaker: a limiter, or a function of a key that answers one, expected, got "
      .. tostring(breaker), level + 1)
  end
  if windows ~= nil and getmetatable(windows) ~= WINDOWS
      and not (limiter.is(windows) and windows.extend) then
    refuse("windows: made by neap.backoff_window, or one pause, expected, got "
      .. tostring(windows), level + 1)
  end
  self.limiter, self.breaker, self.windows = given, breaker, windows
  if type(breaker) ~= "function" and not (windows and windows.set) then
    self.line = make("limits", level + 1, compose, self, breaker, windows)
  end
end

local function read_retries(self, options, level)
  local budget = options.budget
  if budget ~= nil and not budgets.is(budget) then
    refuse("budget: one made by neap.budget expected, got " .. tostring(budget), level + 1)
  end
  local given = options.retry
  if given == nil then given = { max_attempts = 1 } end
  local changes = { name = options.name, budget = budget }
  self.retry = adopt(given, RETRY, retries, "retry", changes, level + 1)
  self.classify = of_type(options, "classify", "function", level + 1)
  if not self.classify and self.retry.classify ~= classify.failure then
    self.classify = self.retry.classify
  end
  if options.hedge ~= nil then
    self.hedge = adopt(options.hedge, HEDGE, hedges, "hedge", { name = options.name }, level + 1)
    local shared = self.hedge.budget or self.retry.budget
    if shared == self.retry.budget and shared then shared = purse(shared) end
    self.hedge.budget = shared
  end
end

---@return neap.Client
local function new(options, level)
  if options == nil then options = {} end
  if type(options) ~= "table" then
    refuse("a table expected, as in { limiter = api, retry = {} }, got " .. type(options),
      level + 1)
  end
  grammar.check_names("client", options, OPTIONS, level + 1)
  local self = { lines = setmetatable({}, { __mode = "v" }) }
  self.name = of_type(options, "name", "string", level + 1) or "client"
  self.usage = of_type(options, "usage", "function", level + 1)
  self.outcome = of_type(options, "outcome", "function", level + 1)
  self.provider = of_type(options, "provider", "table", level + 1)
  local provider = self.provider
  if provider and (type(provider.parse) ~= "function" or type(provider.apply) ~= "function") then
    refuse("provider: one made by neap.provider expected, got " .. tostring(provider), level + 1)
  elseif provider and options.limiter == nil then
    refuse("provider: there is no limiter that could go by it", level + 1)
  end
  self.now = options.now
  read_limits(self, options, level + 1)
  read_retries(self, options, level + 1)
  return setmetatable(self, client)
end

--- Make a client. Nothing in it: it just calls.
---
---   limiter    what every call takes a permit of, first tries and retries alike: any limiter, or
---              what neap.hybrid takes for one
---   breaker    a limiter beside it, told how calls end; or a function of the call's key that
---              answers one, or nil: function (host) return breakers:of(host) end
---   windows    what a server's Retry-After is kept in for all who call it: of neap.backoff_window,
---              by the call's key, or one pause; for a day at most. A limiter with `set_backoff` is
---              told of it, too. It is heard from failures and from statuses of 400 and above
---   provider   one of neap.provider: the limiter goes by each response's headers. Its Retry-After
---              is left to the windows, if there are any
---   usage      fn(response): what a call really used, for permit:settle; nil: as estimated. The
---              response is what fn answered, or an error that is a table; otherwise it is not
---              asked, and the estimate stands. A number is for all that the limiter charges
---   outcome    fn(outcome): "success", "failure" or "ignore" for breakers and adaptive limits, or
---              nil: as usual. Where 429 is to count: function (o) return o:field "status" == 429
---              and "failure" or nil end
---   classify   what is worth a retry: see neap.classify. Without a hint from it, what the server
---              said counts; unless told, the retry's own, or by HTTP's rules
---   retry      of neap.retry, or its options; none: every call is made once
---   hedge      of neap.hedge, or its options: for calls that are idempotent. Each of its calls
---              takes a permit
---   budget     of neap.budget: for the retry and the hedge together
---   now        the time of day, for dates in headers: seconds since 1970 or a function that tells
---              them; the system's unless told
---   name       in events, refusals and reports
---
--- Errors that usage, provider and outcome raise are reported, and the call's answer stands; those
--- of classify are raised, when the permit is given back.
---@param options? table
---@return neap.Client
return function (options)
  local made = new(options, 2)
  return made
end
