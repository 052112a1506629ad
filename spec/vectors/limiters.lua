--- What the limiter suites say, in neap's words: how things are made, and what can be done to them.
local clock = require "spec.vectors.clock"
local decisions = require "spec.vectors.decisions"
local harness = require "spec.vectors.harness"
local hybrid = require "neap.hybrid"
local layered = require "neap.layered"
local multi = require "neap.multi"
local pause = require "neap.pause"
local per_key = require "neap.per_key"
local queue = require "neap.queue"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

local huge = math.huge
local limiters = {}

-- ---- making -----------------------------------------------------------------------------------

local LONGEST_NS = 2 ^ 53   -- the longest period there is: 104 days

local function period_ns(make)
  if make.period == "max" then return LONGEST_NS end
  return make.period_ns or make.period_us and make.period_us * 1e3 or make.period_ms * 1e6
end

--- The limit of a token bucket.
---@param make table
---@return table
function limiters.rate(make)
  local amount = make.amount
  if amount == 0 and not make.capacity and not make.period then return { kind = "closed" } end
  return {
    kind = "rate", mode = "burst", amount = amount, per_ns = period_ns(make),
    burst = make.capacity or amount,
  }
end

local makers = {}

local FASTEST = 6   -- tokens per ns

function makers.token_bucket(make)
  local limit = limiters.rate(make)
  if limit.amount and limit.amount > FASTEST * limit.per_ns and limit.per_ns > 0 then
    harness.skip(decisions.too_fast)
  end
  return throttle(limit, { initial = make.initial, name = make.name })
end

local MOST_ENTRIES = 2 ^ 16   -- in a log; cases with a larger limit do not take it in small pieces

function makers.sliding_log(make)
  if make.limit == 0 then return throttle("closed", { name = make.name }) end
  return throttle({
    kind = "rate", mode = "sliding", amount = make.limit, burst = make.limit,
    per_ns = make.window_us and make.window_us * 1e3 or make.window_ns or make.window_ms * 1e6,
  }, { name = make.name, log = math.min(make.limit, MOST_ENTRIES) })
end

function makers.hybrid(make, world)
  local list = {}
  for i, each in ipairs(make.of) do list[i] = limiters.make(each, world) end
  return hybrid(list)
end

--- Where a case does not ask for strictness, names that nobody knows are free.
function makers.multi(make, world)
  local list = {}
  for i, each in ipairs(make.dimensions) do
    list[i] = { each.name, limiters.make(each.limiter, world) }
  end
  return multi(list, { lenient = not make.strict, name = make.name })
end

--- A limiter in Lua with fixed answers.
function makers.custom(make)
  local function answer(decision)
    if decision.decision == "acquired" then return true end
    if decision.decision == "impossible" then return nil, "cost" end
    return nil, "rate", (decision.after_ms or decision.after_us / 1e3) / 1e3
  end
  return {
    peek = function () return answer(make.peek) end,
    take = function () return answer(make.take) end,
    available = function () return make.available == "unbounded" and huge or make.available end,
    capacity = function () return make.capacity == "unbounded" and huge or make.capacity end,
    settle = function () end,
  }
end

local FULL_RULE = { [true] = "refuse", [false] = "least_recent" }

--- What the vectors say about eviction, as options.
function limiters.eviction(eviction, options)
  if not eviction then return options end
  options.most = eviction.unbounded and huge or eviction.max_keys
  options.idle = eviction.idle_ms and eviction.idle_ms / 1e3
  options.lossless = eviction.lossless
  options.full = FULL_RULE[eviction.lossless or false]
  return options
end

function makers.per_key(make)
  if make.shards and not make.eviction then harness.skip(decisions.shards) end
  local options = limiters.eviction(make.eviction, { name = make.name })
  if make.overrides then
    options.overrides = {}
    for key, rate in pairs(make.overrides) do options.overrides[key] = limiters.rate(rate) end
  end
  local limit = make.limiter
  if limit and limit.kind == "token_bucket" then
    limit = limiters.rate(limit)
  elseif limit then
    return per_key(function () return limiters.make(make.limiter, { named = {} }) end, options)
  else
    limit = limiters.rate(make)
  end
  return per_key(limit, options)
end

function makers.layered(make, world)
  return layered {
    global = make.global and limiters.make(make.global, world) or nil,
    per_key = make.per_key and limiters.make(make.per_key, world) or nil,
    per_endpoint = make.per_endpoint and limiters.make(make.per_endpoint, world) or nil,
  }
end

local OVERFLOW = { drop_lowest_priority = "drop_lowest" }

function makers.queue(make, world)
  return queue(limiters.make(make.limiter, world), {
    capacity = make.capacity, overflow = OVERFLOW[make.overflow] or make.overflow,
    ageing = make.ageing_ms and make.ageing_ms / 1e3, name = make.name,
  })
end

function makers.counting_semaphore(make) return semaphore(make.max, { name = make.name }) end

function makers.weighted_semaphore(make)
  return semaphore(make.max_weight, { overdraw = make.allow_overdraw ~= false })
end

function makers.backoff_window() return pause() end

function makers.group(make, world)
  for name, each in pairs(make.shared or {}) do
    world.named[name] = limiters.make(each, world)
  end
  for name, each in pairs(make.of or {}) do world.named[name] = limiters.make(each, world) end
end

-- What the makers know of. A case that asks for more is about a feature that is not there.
local KEYS = {
  token_bucket = "amount period period_ms period_us period_ns capacity initial",
  sliding_log = "limit window_ms window_us window_ns",
  hybrid = "of", multi = "dimensions strict", group = "of shared",
  custom = "peek take available capacity",
  counting_semaphore = "max", weighted_semaphore = "max_weight allow_overdraw",
  queue = "limiter capacity overflow ageing_ms",
  backoff_window = "", layered = "global per_key per_endpoint",
  per_key = "amount period_ms period_us shards eviction overrides limiter",
}

local function check_keys(make)
  for key in pairs(make) do
    local known = " kind name " .. KEYS[make.kind] .. " "
    if not known:find(" " .. key .. " ", 1, true) then
      harness.skip(("%s has no '%s'"):format(make.kind, key))
    end
  end
end

--- Build what a case says.
---@param make table
---@param world { named: table<string, neap.Limiter> }
---@return neap.Limiter?
function limiters.make(make, world)
  if make.ref then return world.named[make.ref] end
  local maker = makers[make.kind] or harness.skip("no limiter '" .. tostring(make.kind) .. "'")
  check_keys(make)
  local made = maker(make, world)
  if make.name then world.named[make.name] = made end
  return made
end

--- The vectors' word for a mistake at construction.
---@param message string
---@return string
function limiters.error_kind(message)
  if message:find "burst" then return "zero_capacity" end
  if message:find "amount" then return "zero_refill_amount" end
  if message:find "period" then return "zero_refill_period" end
  return "invalid_argument"
end

-- ---- answers ----------------------------------------------------------------------------------

local IMPOSSIBLE = { cost = true, closed = true }

--- Which limit binds, under any of the words that cases may use for it.
local function name_binding(answer, reason)
  if not reason then return end
  for _, word in ipairs { "limiter", "constituent", "dimension", "scope", "name" } do
    answer[word] = reason.limiter
  end
end

---@param granted any
---@param why string?
---@param wait_s number?
---@param reason neap.Reason?
---@return table
function limiters.decision(granted, why, wait_s, reason)
  local answer = { decision = "acquired" }
  if granted then return answer end
  answer.decision = IMPOSSIBLE[why] and "impossible" or "retry"
  if answer.decision == "retry" then
    wait_s = wait_s or huge
    answer.after_ms, answer.after_us = wait_s * 1e3, wait_s * 1e6
  end
  name_binding(answer, reason)
  return answer
end

--- A refusal as an error object.
---@param l neap.Limiter
---@param cost integer|table?
---@param why string
---@return table
function limiters.refused(l, cost, why)
  local kinds = { cost = "cost_exceeds_capacity", closed = "cost_exceeds_capacity",
    queue = "queue_full" }
  local answer = { error = kinds[why] or why }
  if IMPOSSIBLE[why] then
    local reason = l:why(cost)
    answer.cost, answer.capacity = reason.cost, reason.capacity
    name_binding(answer, reason)
  end
  return answer
end

--- Call a method; a mistake of the caller's is an answer, too.
---@param l neap.Limiter
---@param method string
---@param ... any
---@return any ...
function limiters.call(l, method, ...)
  local ok, a, b, c = pcall(l[method], l, ...)
  if ok then return a, b, c end
  if type(a) ~= "string" then error(a, 0) end
  if a:find "^cost .* is not known" then return { error = "unknown_dimension", message = a } end
  if a:find "expected" then return { error = "invalid_argument", message = a } end
  if a:find "^deadlock" then return { error = "deadlock" } end
  error(a, 0)
end

local function is_error(answer) return type(answer) == "table" and answer.error ~= nil end

-- ---- operations -------------------------------------------------------------------------------

local ops = {}
limiters.ops = ops

--- What a step costs: a number, or pairs of a name and a number.
local function cost_of(step) return step.costs or step.cost end

--- The last permit, for steps that give something of it back.
local function keep(world, step, held)
  if held then world.held, world.charged = held, cost_of(step) end
end

function ops.try(l, step, world)
  local held = limiters.call(l, "try_acquire", cost_of(step))
  if is_error(held) then return held end
  keep(world, step, held)
  return held ~= nil
end

function ops.take(l, step, world)
  local held, why, wait_s = limiters.call(l, "try_acquire", cost_of(step))
  if is_error(held) then return held end
  keep(world, step, held)
  return limiters.decision(held, why, wait_s, not held and l:why(cost_of(step)) or nil)
end

function ops.peek(l, step)
  local ok, why, wait_s = limiters.call(l, "peek", cost_of(step))
  if is_error(ok) then return ok end
  return limiters.decision(ok, why, wait_s, l:why(cost_of(step)))
end

function ops.available(l, step) return l:available(step.dimension) end
function ops.capacity(l, step) return l:capacity(step.dimension) end

function ops.acquire(l, step, world)
  local before = world.rt.now_ns()
  local timeout = step.timeout_ms and step.timeout_ms / 1e3
  local held, why = limiters.call(l, "acquire", { cost = cost_of(step), timeout = timeout })
  if is_error(held) then return held end
  if not held then return limiters.refused(l, cost_of(step), why) end
  keep(world, step, held)
  return { waited_ms = tonumber(world.rt.now_ns() - before) / 1e6 }
end

function ops.try_many(l, step)
  local granted = 0
  for _ = 1, step.count do
    if l:try_acquire(cost_of(step)) then granted = granted + 1 end
  end
  return granted
end

function ops.try_costs_total(l, step)
  local total = 0
  for _, cost in ipairs(step.costs) do
    if l:try_acquire(cost) then total = total + cost end
  end
  return total
end

function ops.take_after_hint(l, step, world)
  local held, why, wait_s = l:try_acquire(cost_of(step))
  if not held and wait_s then
    clock.wait(world.rt, wait_s)
    held, why, wait_s = l:try_acquire(cost_of(step))
  end
  return limiters.decision(held, why, wait_s)
end

--- A method that only some limiters have.
local function method(l, name)
  if not l[name] then harness.skip(tostring(l) .. " has no '" .. name .. "'") end
  return l[name]
end

function ops.drain(l)
  if l.drain then return l:drain() end
  local left = l:available()
  if left > 0 then l:try_acquire(left) end
end

function ops.full(l) return l:available() >= l:capacity() end
function ops.reset(l) method(l, "refill")(l) end

--- Named costs go back through the permit that was charged for them.
function ops.refund(l, step, world)
  if not step.costs then return method(l, "refund")(l, step.cost or 1) end
  local used = {}
  for _, pair in ipairs(world.charged) do used[pair[1]] = pair[2] end
  for _, pair in ipairs(step.costs) do used[pair[1]] = used[pair[1]] - pair[2] end
  world.held:settle(used)
end

function ops.set_rate(l, step) method(l, "change")(l, limiters.rate(step)) end
function ops.state_entries(l) return l.log and l.leaf.as.window.count or 1 end

--- One unit offered per interval; the most that were granted in any window.
function ops.arrivals(l, step, world)
  local grants, most = {}, 0
  for i = 1, step.count do
    if i > 1 then clock.step(world.rt, { advance_ms = step.every_ms }) end
    if l:try_acquire(step.cost) then grants[#grants + 1] = clock.ms(world.rt) end
  end
  for i = 1, #grants do
    local inside = 0
    for j = 1, i do
      if grants[j] > grants[i] - step.window_ms then inside = inside + 1 end
    end
    most = math.max(most, inside)
  end
  return { max_in_any_window = most, granted = #grants }
end

--- Play a case of limiters.
---@param case table
function limiters.run(case)
  local world = { rt = clock.new(), named = {} }
  local main = harness.build(case, function ()
    return limiters.make(case.make, world) or true
  end, limiters.error_kind)
  for i, step in ipairs(main and case.steps or {}) do
    clock.step(world.rt, step)
    local where = ("step %d (%s)"):format(i, tostring(step.op))
    if step.op then
      local op = ops[step.op] or harness.skip("no operation '" .. step.op .. "'")
      local l = main
      if step.on then
        l = world.named[step.on] or harness.skip("nothing called '" .. step.on .. "'")
      end
      local answer = op(l, step, world)
      if step.expect ~= nil then harness.expect(where, step.expect, answer) end
    end
  end
end

return limiters
