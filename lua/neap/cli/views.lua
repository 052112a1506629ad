--- Policies and limits as a prompt has them: objects that say how they stand when they are shown.
---
---     > openai
---     openai
---       requests  500/min burst 60   12 of 60
---       calls     64 in flight       64 of 64
---     > openai.limits.requests
---     requests: 500/min burst 60, has 12 of 60
local amend = require "neap.cli.amend"
local columns = require "neap.cli.columns"
local explain = require "neap.cli.explain"
local notation = require "neap.notation"
local show = require "neap.cli.show"

local concat, error, ipairs, min = table.concat, error, ipairs, math.min
local getmetatable, pairs, setmetatable = getmetatable, pairs, setmetatable
local select, sort, tostring, type = select, table.sort, tostring, type

local amount = notation.format_amount

local views = {}

-- ---- columns ----------------------------------------------------------------------------------

--- Rows of cells as text, the columns aligned.
---@param rows string[][]
---@return string
function views.columns(rows) return concat(columns(rows), "\n") end

local List = {}
List.__index = List

function List:__tostring()
  if not self[1] then return self.otherwise end
  local lines = {}
  for i, each in ipairs(self) do lines[i] = show.value(each) end
  return concat(lines, "\n")
end

--- A list that is shown line by line.
---@param list any[]
---@param otherwise string   when it is empty
---@return any[]
function views.list(list, otherwise)
  local copy = setmetatable({ otherwise = otherwise }, List)
  for i, each in ipairs(list) do copy[i] = each end
  return copy
end

-- ---- limits -----------------------------------------------------------------------------------

---@class neap.cli.Limit
---@field name string
---@field label string          "requests", "tenant.requests"
---@field text string           as it is written
---@field limiter neap.Limiter
local Limit = {}
Limit.__index = Limit

local function level(self, key)
  if self.keyed and key == nil then return nil end
  return self.limiter:available(key), self.limiter:capacity(key)
end

local function of(available, capacity)
  if not available then return "by key" end
  if available >= 2 ^ 53 then return "no bound" end
  return ("%s of %s"):format(available < 0 and available or amount(available), amount(capacity))
end

function Limit:__tostring()
  local available, capacity = level(self)
  if not available then return ("%s: %s, by key"):format(self.label, self.text) end
  return ("%s: %s, has %s"):format(self.label, self.text, of(available, capacity))
end

--- What it has now: openai.limits.requests:available().
---@param key? string|integer  of a limit by key: whose
---@return number
function Limit:available(key) return (level(self, key)) end

--- What it can have at most.
---@param key? string|integer
---@return number
function Limit:capacity(key) return (select(2, level(self, key))) end

--- Another limit in place of this one; `change` is the same and can be reverted.
---@param text string   "200/min burst 40"
---@param mode? string  "keep", "balance", "scale" or "reset"
function Limit:reconfigure(text, mode)
  local value, problem = notation.limit(text)
  if not value then error(("'%s': %s"):format(notation.show(tostring(text), 80), problem), 0) end
  if self.keyed or not self.limiter.reconfigure then
    error(("%s cannot be changed in place"):format(self.label), 0)
  end
  if value.kind == "in_flight" then
    if mode then error(mode .. ": what is in flight stays in flight", 0) end
    self.limiter:reconfigure(value)
  else
    self.limiter:reconfigure(value, mode)
  end
  self.text = notation.format(value)
end

---@param x any
---@return boolean
function views.is_limit(x) return type(x) == "table" and getmetatable(x) == Limit end

local Limits = {}
Limits.__index = Limits

local function rows_of(list)
  local rows = {}
  for i, limit in ipairs(list) do rows[i] = { limit.label, limit.text, of(level(limit)) } end
  return rows
end

function Limits:__tostring()
  return self[1] and views.columns(rows_of(self)) or "  no limits"
end

local function limit_of(entry, keyed)
  return setmetatable({ name = entry.name, label = entry.label, text = entry.text,
    limiter = entry.limiter, keyed = keyed }, Limit)
end

local function limits_of(of_live)
  local list = setmetatable({}, Limits)
  local function add(entry, keyed)
    local limit = limit_of(entry, keyed)
    list[#list + 1] = limit
    list[entry.label] = limit
  end
  for _, entry in ipairs(of_live.limits) do add(entry, false) end
  for _, scope in ipairs(of_live.scopes) do
    for _, entry in ipairs(scope.limits) do
      if entry then add(entry, true) end
    end
  end
  return list
end

-- ---- policies ---------------------------------------------------------------------------------

---@class neap.cli.Policy
---@field name string
---@field doc string?
---@field limits neap.cli.Limit[]   in order, and by name
---@field costs string[]            what calls can be charged by
---@field opened neap.LivePolicy   as neap.policy.open has it
---@field bench neap.Bench
local Policy = {}
Policy.__index = Policy

local OWN = { "try", "acquire", "why", "peek", "plot", "whatif" }

local function more_of(self)
  local rows, policy = {}, self.opened
  if policy.queue then
    rows[#rows + 1] = { "queue", ("%d of %d wait"):format(policy.queue:len(), policy.queue.places) }
  end
  if policy.breaker then rows[#rows + 1] = { "breaker", (policy.breaker:state()) } end
  if policy.backoff then
    local left = policy:backoff_left()
    rows[#rows + 1] = { "backoff", left > 0 and "for " .. show.duration(left) or "no" }
  end
  return rows
end

function Policy:__tostring()
  local head, rows = self.name .. (self.doc and ": " .. self.doc or ""), rows_of(self.limits)
  for _, row in ipairs(more_of(self)) do rows[#rows + 1] = row end
  return rows[1] and head .. "\n" .. views.columns(rows) or head
end

--- A policy on a bench. Its verbs are the prompt's: openai:try { input = 900 }.
---@param bench neap.Bench
---@param made neap.LivePolicy
---@param name? string
---@return neap.cli.Policy
function views.policy(bench, made, name)
  return setmetatable({ name = name or made.name, doc = made.doc, opened = made, bench = bench,
    limits = limits_of(made), costs = made.costs }, Policy)
end

--- Have policies understand the verbs of a bench that are about one.
---@param verbs table<string, fun(bench: neap.Bench, ...): any>
function views.give_verbs(verbs)
  for _, name in ipairs(OWN) do
    local verb = verbs[name]
    Policy[name] = explain.as(function (self, ...) return verb(self.bench, self, ...) end, verb)
  end
end

local Policies = {}

function Policies:__tostring()
  local names, lines = {}, {}
  for name in pairs(self) do names[#names + 1] = name end
  sort(names)
  for i, name in ipairs(names) do lines[i] = tostring(self[name]) end
  return lines[1] and concat(lines, "\n") or "no policies"
end

--- A table of policies by name, which is shown one after the other.
---@return table<string, neap.cli.Policy>
function views.policies() return setmetatable({}, Policies) end

---@param x any
---@return boolean
function views.is_policy(x) return type(x) == "table" and getmetatable(x) == Policy end

-- ---- what if ----------------------------------------------------------------------------------

--- Spend so much of a limit, for good.
---@param bench neap.Bench
---@param limit neap.cli.Limit
---@param used number
---@param key? string|integer   of a limit by key: whose
function views.use_up(bench, limit, used, key)
  used = min(used, limit:capacity(key))
  if used <= 0 or used >= 2 ^ 53 then return end
  local permit
  if key ~= nil then
    permit = limit.limiter:try_acquire(key, used)
  else
    permit = limit.limiter:try_acquire(used)
  end
  if permit then bench.copied[#bench.copied + 1] = permit end   -- what is in flight stays so
end

--- A copy of a policy with other limits.
---@param bench neap.Bench
---@param policy neap.cli.Policy
---@param limits table<string, string>  by name, in the notation
---@return neap.cli.Policy
function views.what_if(bench, policy, limits)
  if type(limits) ~= "table" then
    error('whatif: limits expected, as in { requests = "200/min" }, got ' .. show.value(limits), 0)
  end
  local copy = bench:add(amend.with(policy.opened.declared, limits))
  copy.name = policy.opened.name .. ", what if"
  for _, limit in ipairs(policy.limits) do
    local twin = copy.limits[limit.label]
    if twin and not limit.keyed then
      views.use_up(bench, twin, limit:capacity() - limit:available())
    end
  end
  return copy
end

return views
