--- Hedging: a second call when the first is slow, and whichever succeeds first is the answer.
---
---     local servers = { "https://mirror.example.com", url }   -- the first is slow today
---     local hedge = neap.hedge { after = "50ms", most = 2 }
---     local answer, err = hedge:run(function (try) return fetch(servers[try.attempt + 1]) end)
---
---     0        50 ms     70                           the first success wins; the others are
---     |--- 1 ---|---------|- - cancelled              cancelled, and give their permits back
---               |--- 2 ---| answer
---
--- Only for what may be done twice. When a call fails in a way that is worth another attempt
--- (neap.classify) the next begins at once; when it is not, or there are no more, the failure is
--- the answer. Calls are tasks; one that is cancelled hears it where it waits, and what it answers
--- then is dropped. Each waits in the limiter's line for a permit of its own.
---
--- Events (neap.events), with name and the run's fields: "hedge.start" with attempt; "hedge.stop"
--- and "hedge.failed" with attempt (whose answer it is), started (how many) and duration (seconds).
local C = require "neap.engine"
local budget = require "neap.budget"
local classify = require "neap.classify"
local events = require "neap.events"
local grammar = require "neap.grammar"
local limiter = require "neap.limiter"
local outcomes = require "neap.retry.outcome"
local runtime = require "neap.runtime"
local stats = require "neap.stats"

local error, next, pairs, pcall = error, next, pairs, pcall
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local remove = table.remove
local current = runtime.current
local NEVER = C.neap_never

local OPTIONS = { "name", "after", "most", "classify", "budget", "limiter" }
local RUN = { "after", "most", "classify", "timeout", "deadline", "cost", "fields", "limiter" }

---@class neap.Hedge
---@field name string
---@field after ffi.cdata*|fun(): number  ns
---@field most integer
---@field classify neap.Classifier
---@field budget neap.Budget?
---@field limiter neap.Limiter?
---@field runs integer    that began, ever
---@field extra integer   calls besides the first ones, ever
---@field failed integer  runs that ended without a success, ever
local hedge = {}
hedge.__index = hedge

--- What a call gets.
---@class neap.hedge.Try
---@field attempt integer      0 is the first
---@field deadline ffi.cdata*  ns, for limiters
---@field dropped boolean?     there is an answer already, and this call is cancelled

-- ---- reading ----------------------------------------------------------------------------------

local function refuse(text, level) error("hedge: " .. text, level + 1) end

local function read_after(given, level)
  if given == nil or type(given) == "function" then return given end
  local ns = limiter.ns_of(given, "hedge: after", level + 1)
  return ns
end

local function read_most(given, level)
  if given == nil then return nil end
  if type(given) ~= "number" or given % 1 ~= 0 or not (given >= 1 and given <= 1000) then
    refuse("most: a whole number of calls from 1 to 1000 expected, got " .. tostring(given),
      level + 1)
  end
  return given
end

local function read_classify(given, level)
  if given ~= nil and type(given) ~= "function" then
    refuse("classify: a function expected, got " .. tostring(given), level + 1)
  end
  return given
end

-- ---- calls ------------------------------------------------------------------------------------

--- A run: its calls, and who waits for them.
---@class neap.hedge.Race
---@field hedge neap.Hedge
---@field rt neap.Runtime
---@field tasks neap.Task[]               by attempt + 1
---@field calls table<neap.Task, neap.hedge.Try>  in flight
---@field limiter neap.Limiter?
---@field ended neap.Outcome[]            not looked at yet
---@field paid table<integer, number>     what the budget took, by attempt
---@field started integer
---@field next_at ffi.cdata*              ns: when another may start
---@field over boolean?                   there is an answer
---@field gate neap.Task?                 what the caller waits for; a call that ends opens it
---@field closed boolean?                 the gate is
local race = {}
race.__index = race

local function tell(self, kind, fields)
  events.of_run("hedge", kind, self.hedge.name, self.fields, fields)
end

--- There is an answer: what the others come to is dropped.
local function cancel_others(self)
  self.over = true
  for task, try in pairs(self.calls) do
    try.dropped = true
    task:cancel()
  end
end

--- Is it the answer, whatever the others come to?
local function is_final(outcome)
  return outcome.mistake ~= nil or outcome.verdict ~= "retry" and not outcome.refused
end

--- A call ended, or was refused. Before its permit comes back the others leave the line for it.
local function report(self, outcome, held)
  local dropped = self.over
  if not dropped then
    self.ended[#self.ended + 1] = outcome
    if is_final(outcome) then cancel_others(self) end
    if self.closed then self.gate:cancel() end
  end
  if held then
    local good = outcome.ok and outcome.verdict ~= "retry" and not outcome.mistake
    held:give(dropped and "ignore" or good and "success" or "failure")
  end
end

local function verdict_on(self, outcome)
  local verdict = classify.read(self.classify(outcome))
  return verdict
end

--- One call, which is a task: wait for a permit, go, and tell.
local function call(self, fn, try)
  local task, limit = self.tasks[try.attempt + 1], self.limiter
  local held, outcome
  if limit then
    outcome = outcomes.call(limit.acquire, limit, self.cost, { deadline = try.deadline })
    held = outcome.value
    outcome.refused, outcome.mistake = not held, outcome.raised and outcome.err or nil
  end
  if held or not limit then
    tell(self, "start", { attempt = try.attempt })
    outcome = outcomes.call(fn, try, held)
    outcome.attempt = try.attempt
    if not self.over then
      local ran, verdict = pcall(verdict_on, self, outcome)
      if ran then outcome.verdict = verdict else outcome.mistake = verdict end
    end
  end
  outcome.attempt = try.attempt
  self.calls[task] = nil
  report(self, outcome, held)
end

local function start(self, fn)
  local now = self.rt.now_ns()
  local try = { attempt = self.started, deadline = self.deadline }
  local task = self.rt.spawn("hedge", call, self, fn, try)
  self.started = self.started + 1
  self.tasks[self.started], self.calls[task] = task, try
  local after = self.after
  if type(after) == "function" then after = limiter.ns_of(after(), "hedge: after", 0) end
  self.next_at = self.started < self.most and now + after or NEVER
end

--- Another call, if the budget has one left; if not, there are no more.
local function start_another(self, fn)
  local paid, budget_of = nil, self.hedge.budget
  if budget_of then
    paid = budget_of:take()
    if not paid then
      self.next_at = NEVER
      return
    end
  end
  self.paid[self.started] = paid
  self.hedge.extra = self.hedge.extra + 1
  start(self, fn)
end

-- ---- waiting ----------------------------------------------------------------------------------

local function earlier(a, b) return a < b and a or b end

--- Let time pass until a call has ended, or something is due.
---@return true? woken  nil: the caller was cancelled
local function wait(self)
  local rt = self.rt
  self.gate = rt.spawn("hedge gate", function ()
    if self.ended[1] then return true end
    local at, now = earlier(self.next_at, self.deadline), rt.now_ns()
    self.closed = true
    if at > now then rt.sleep(tonumber(at - now) / 1e9) end   -- never: until a call ends
    self.closed = false
    return true
  end)
  return self.gate:join()
end

--- It is over, and this is the answer, if there is one.
local function finish(self, outcome)
  if not self.over then cancel_others(self) end
  local good = outcome and outcome.ok and outcome.verdict ~= "retry"
  if not good then self.hedge.failed = self.hedge.failed + 1 end
  if good and self.hedge.budget then
    self.hedge.budget:success(self.paid[outcome.attempt])
  end
  tell(self, good and "stop" or "failed", { attempt = outcome and outcome.attempt,
    started = self.started, error = outcome and outcome.err,
    duration = tonumber(self.rt.now_ns() - self.began) / 1e9 })
end

--- What an outcome means for the race: is it the answer?
---@return boolean
local function judge(self, outcome, fn)
  if is_final(outcome) then return true end
  if outcome.refused then
    self.next_at = NEVER   -- others would be refused, too
  else
    if self.hedge.budget then self.hedge.budget:failed() end
    if self.next_at ~= NEVER then start_another(self, fn) end
  end
  return not next(self.calls) and not self.ended[1]
end

-- ---- running ----------------------------------------------------------------------------------

local function read_run(given, level)
  if given == nil then return {} end
  if type(given) ~= "table" then
    refuse("run: a table expected, got " .. type(given), level + 1)
  end
  grammar.check_names("hedge", given, RUN, level + 1)
  if given.limiter ~= nil and not limiter.is(given.limiter) then
    refuse("run: limiter: a limiter expected, got " .. tostring(given.limiter), level + 1)
  end
  return given
end

--- No call's own answer.
local function refusal(why)
  local outcome = outcomes.of(nil, why)
  outcome.refused = true
  return outcome
end

--- Run them, for whoever wants to know more than what the answer was.
---
---     local outcome = hedge:race(function (try) return fetch(servers[try.attempt + 1]) end)
---     print(outcome.ok, outcome.attempt)   --> true, 1
---
---@param fn function
---@param given? table   as for run
---@param level? integer  whose mistake a wrong argument is, as for error()
---@return neap.Outcome  refused: it is no call's own, but why there was none, or no answer in time
function hedge:race(fn, given, level)
  level = (level or 1) + 1
  if type(fn) ~= "function" then refuse("run: a function expected, got " .. type(fn), level) end
  given = read_run(given, level)
  local rt = current()
  local began = rt.now_ns()
  local self_race = setmetatable({
    hedge = self, rt = rt, tasks = {}, calls = {}, ended = {}, paid = {}, started = 0,
    began = began, cost = given.cost, fields = given.fields,
    after = read_after(given.after, level) or self.after,
    most = read_most(given.most, level) or self.most,
    classify = read_classify(given.classify, level) or self.classify,
    limiter = given.limiter or self.limiter, deadline = limiter.deadline_of(given, began, level),
  }, race)
  self.runs = self.runs + 1
  if self.budget then self.budget:call() end
  start(self_race, fn)
  while true do
    local outcome = remove(self_race.ended, 1)
    if outcome then
      if judge(self_race, outcome, fn) then
        finish(self_race, outcome)
        if outcome.mistake then error(outcome.mistake, 0) end
        return outcome
      end
    elseif not wait(self_race) then
      self_race.gate:cancel()
      finish(self_race)
      return refusal "cancelled"
    elseif not self_race.ended[1] then
      local now = rt.now_ns()
      if now >= self_race.deadline then
        finish(self_race)
        return refusal "timeout"
      end
      if now >= self_race.next_at then start_another(self_race, fn) end
    end
  end
end

--- Call `fn(try, permit)`, and again while it has not answered: `try.attempt` is 0 for the first,
--- and `try.deadline` is for limiters. The permit is what the limiter granted for this call.
---
---     hedge:run(function () return fetch(servers[1]) end, { timeout = 0.9 })   --> nil, "timeout"
---
---@param fn fun(try: neap.hedge.Try, permit: neap.Permit?): ...
---@param given? table
---   after, most, classify, limiter   instead of the hedge's own
---   timeout, deadline       of all together, as for acquire; the first call is made in any case
---   cost                    what each call asks the limiter for, as for acquire
---   fields                  for the events
---@return any ...  what the first success answered; or the last failure, its error raised again; or
---nil, "timeout", "cancelled", or what the limiter refused for
function hedge:run(fn, given)
  local outcome = self:race(fn, given, 2)
  return outcome:unpack()
end

local function make(options, level)
  if type(options) ~= "table" then
    refuse("a table expected, as in { after = \"50ms\" }, got " .. type(options), level + 1)
  end
  grammar.check_names("hedge", options, OPTIONS, level + 1)
  if options.after == nil then
    refuse("after: how long the first call has alone is missing", level + 1)
  end
  if options.name ~= nil and type(options.name) ~= "string" then
    refuse("name: a text expected, got " .. tostring(options.name), level + 1)
  end
  if options.budget ~= nil and not budget.is(options.budget) then
    refuse("budget: one made by neap.budget expected, got " .. tostring(options.budget), level + 1)
  end
  if options.limiter ~= nil and not limiter.is(options.limiter) then
    refuse("limiter: a limiter expected, got " .. tostring(options.limiter), level + 1)
  end
  return setmetatable(stats.join("hedge", {
    runs = 0, extra = 0, failed = 0,
    name = options.name or "hedge", after = read_after(options.after, level + 1),
    most = read_most(options.most, level + 1) or 2,
    classify = read_classify(options.classify, level + 1) or classify.failure,
    budget = options.budget, limiter = options.limiter,
  }), hedge)
end

--- Make a hedge.
---
---   after      how long to wait before another call starts: a duration, or a function that answers
---              one; a call that fails makes the next start at once
---   most       calls in all, 2 unless told
---   classify   which failures are worth another call: see neap.classify; which responses are none
---   budget     one of neap.budget, shared with retries: without its leave there is no second call
---   limiter    each call takes a permit of its own, and tells it how it ended
---   name       in events
---@param options table
---@return neap.Hedge
return function (options)
  local made = make(options, 2)
  return made
end
