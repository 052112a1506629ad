--- Policies in a world: what a policy's file declares, live, as a world's gate.
---
--- A call goes the way of a call to a worker: whose it is chooses its terms, estimate says what it
--- costs, who is shed hears it, keys' own lines are told from the queue, and what comes back is
--- reported (429 and Retry-After as headers would say them) before the permit is given back. Hooks
--- run, and what they and others would hear of is counted.
---
--- What does not change from call to call is kept as a request for each key, and copied: so a
--- policy without hooks costs a world what a limiter does.
local ffi = require "ffi"
local C = require "neap.engine"
local backoff = require "neap.backoff"
local dice = require "neap.sim.dice"
local downstream = require "neap.sim.downstream"
local gates = require "neap.sim.gates"
local live = require "neap.policy.live"
local runtime = require "neap.runtime"

local ceil, error, floor, ipairs, max, next, pairs = math.ceil, error, math.floor, ipairs, math.max,
  next, pairs
local FINE, THROTTLED = downstream.FINE, downstream.THROTTLED
local ASKS, REFUSES, ASIDE = gates.ASKS, gates.REFUSES, gates.ASIDE
local OUTCOMES = { success = C.NEAP_SUCCESS, failure = C.NEAP_FAILURE, ignore = C.NEAP_IGNORE }

local request_t = ffi.typeof "struct neap_request"
local SIZE = ffi.sizeof(request_t)
local KEYS_KEPT = 2 ^ 17   -- requests of keys that are kept at once

local policies = {}

--- What calls say. Names are of costs, of scopes, or of what estimate looks at.
---@class neap.sim.Call
---@field costs table<string, neap.sim.Distribution>
---@field whose { name: string, names: string[] }[]   a key is one of each
---@field priorities { names: string[], draw: fun(stream: ffi.cdata*): fun(): integer }?

local telling   -- where events of the world that is under way are counted

local function tell(event, n) telling[event] = (telling[event] or 0) + (n or 1) end

--- What policies are to be loaded with: hooks have the world's clock, and what they log or emit is
--- counted; logs are also shown, at their instants, when `show` is given.
---@param show? fun(text: string)
---@return neap.policy.Host
function policies.host(show)
  return {
    now = function () return runtime.current().now() end,
    emit = function (event) tell(event) end,
    log = function (level, text)
      tell("log-" .. level)
      if show then show(("%.6f %s: %s"):format(runtime.current().now(), level, text)) end
    end,
  }
end

local COSTS, PRIORITIES = 101, 102   -- streams, besides a world's own

--- Names and values of a key: `index` counts all that there are.
local function by_of(whose, index)
  local by = {}
  for i = #whose, 1, -1 do
    local n = #whose[i].names
    by[whose[i].name] = whose[i].names[index % n + 1]
    index = floor(index / n)
  end
  return next(by) and by or nil
end

local function check(policy, call)
  for _, each in ipairs(call.whose) do
    if not policy.names[each.name] and not policy.declared.estimate then
      error(("call.by: %s"):format(policy:unknown(each.name)), 0)
    end
  end
  for name in pairs(call.costs) do
    if not policy.index[name] and not policy.declared.estimate then
      error(("call.cost: %s"):format(policy:unknown(name)), 0)
    end
  end
  for _, name in ipairs(call.priorities and call.priorities.names or {}) do
    local number, message = policy:priority(name)
    if not number then error("call.priority: " .. message, 0) end
  end
end

--- Writes a call's costs into its request: drawn, or also by estimate.
local function costs_of(policy, call, seed)
  local stream, draws = dice.stream(seed, COSTS), {}
  for name, of in pairs(call.costs) do draws[#draws + 1] = { name = name, of = of } end
  table.sort(draws, function (a, b) return a.name < b.name end)
  for _, each in ipairs(draws) do
    each.draw = dice.draw(each.of, stream)
    each.index = policy.index[each.name] and policy.index[each.name] - 1
  end
  if not policy.declared.estimate then
    if not draws[1] then return end
    return function (request)
      for i = 1, #draws do
        request.cost[draws[i].index] = max(ceil(draws[i].draw()), 0)
      end
    end
  end
  return function (request, by)
    local said, fields = {}, {}
    for name, value in pairs(by or {}) do fields[name] = value end
    for _, each in ipairs(draws) do
      local n = max(ceil(each.draw()), 0)
      fields[each.name] = n
      if each.index then said[each.name] = n end
    end
    local costs, message = policy:costs_of(said, fields)
    if not costs then error("call: " .. message, 0) end
    for i, name in ipairs(policy.costs) do request.cost[i - 1] = costs[name] end
  end
end

--- Requests by key, made when they are first asked for.
local function templates_of(policy, call)
  local kept, count = {}, 0
  return function (key)
    local found = kept[key]
    if found then return found end
    if count == KEYS_KEPT then kept, count = {}, 0 end
    local request = request_t()
    local by = by_of(call.whose, key)
    local known = {}
    for name, value in pairs(by or {}) do known[name] = policy.names[name] and value or nil end
    local variant = policy:enter(request, next(known) and known)
    ffi.copy(request.cost, policy.ones, ffi.sizeof(policy.ones))
    found = { request = request, variant = variant, by = by,
      aside = policy.queue ~= nil and variant.terms.keys ~= nil }
    kept[key], count = found, count + 1
    return found
  end
end

--- A gate for a live policy.
---@param declared neap.policy
---@param call neap.sim.Call
---@param seed integer
---@param told table<string, integer>   counts events by name, added to
---@param options { file: string? }
---@return neap.sim.Gate
function policies.gate(declared, call, seed, told, options)
  telling = told
  local policy, message = live.new(declared, { file = options.file,
    listener = function (_, event, _, n) tell(event, n) end })
  if not policy then error(message, 0) end
  check(policy, call)
  local template_of, write_costs = templates_of(policy, call), costs_of(policy, call, seed)
  local priority = call.priorities and call.priorities.draw(dice.stream(seed, PRIORITIES))
  local numbers = {}
  for i, name in ipairs(call.priorities and call.priorities.names or {}) do
    numbers[i - 1] = policy:priority(name)
  end

  local function enter(request, key)
    local template = template_of(key)
    ffi.copy(request, template.request, SIZE)
    if write_costs then write_costs(request, template.by) end
    if priority then request.priority = numbers[priority()] end
    if policy.watched then policy:notice() end
    if policy.shed and policy:sheds(request.priority) then
      policy:emit("shed", { bound = "queue" })
      return REFUSES
    end
    if template.aside
      and policy:stand_aside(request, template.variant, runtime.current().now_ns()) then
      request.queue = nil
      return policy.aside < policy.queue.places and ASIDE or REFUSES
    end
    return ASKS
  end

  local function over(_, how, retry_ns)
    if how == FINE then return C.NEAP_SUCCESS end
    if how < 0 then return C.NEAP_FAILURE end
    return OUTCOMES[policy:report { status = how == THROTTLED and 429 or 503,
      retry_after = retry_ns > 0 and ceil(retry_ns / 1e9) or nil }]
  end

  return { all = policy.variants[0].terms.all, cost = policy.ones, holds = true,
    wait_ns = policy.timeout_ns, enter = enter, over = over,
    aside = function (change) policy.aside = policy.aside + change end,
    notice = policy.watched and function () policy:notice() end or nil, keep = policy }
end

local function share_budget(share)
  return function ()
    local budget = ffi.new "struct neap_budget"
    C.neap_budget_share(budget, share, 0, 10e9)
    return {
      first = function (_, now) C.neap_budget_call(budget, now) end,
      take = function (_, now) return C.neap_budget_take(budget, 1000, now) == 1 end,
    }
  end
end

--- How clients repeat, into a model: as told, or as the policy has it.
---@param model neap.sim.Model
---@param retry { tries: integer, backoff: table?, budget: number?, ignores: boolean? }?
---@param declared neap.policy
function policies.habits(model, retry, declared)
  local own = declared.retry
  if not retry and own then
    retry = { tries = own.attempts, backoff = own.backoff, budget = own.budget }
  end
  if not retry then return end
  model.tries, model.obeys = retry.tries, not retry.ignores
  if retry.backoff then
    model.backoff = backoff(require "neap.backoff.text".format(retry.backoff)).policy
  end
  if retry.budget then model.budget = share_budget(retry.budget) end
end

return policies
