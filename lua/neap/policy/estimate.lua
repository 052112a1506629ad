--- What a call costs: what it says, what the policy's estimate says of the rest, and 1.
---
---     estimate = function (call) return { input = math.ceil((call.bytes or 0) / 4) } end
---
--- The hook gets what the call says: costs and keys by name, and whatever else it looks at. It
--- answers costs by name, or a number for the first limit; what the call says itself stands. A
--- hook that fails is told of, and the call is charged as if there were none.
local notation = require "neap.notation"

local ceil, ipairs, next, pairs = math.ceil, ipairs, next, pairs
local setmetatable, tostring, type = setmetatable, tostring, type

local MOST = 2 ^ 53

local estimate = {}

local function show(value) return notation.show(tostring(value)) end

--- What to say of a name that is no cost and no scope.
---@param name any
---@return string
function estimate:unknown(name)
  local known = {}
  for cost in pairs(self.index) do known[#known + 1] = cost end
  for scope in pairs(self.names) do known[#known + 1] = scope end
  return (notation.suggest(("unknown limit '%s'"):format(show(name)),
    type(name) == "string" and name or nil, known))
end

--- What the hook says, by the number of the cost.
---@return table<integer, integer>
local function asked(self, call)
  local ok, answer = self.guess(call)
  if not ok then
    self:fault("estimate", self.declared.estimate, answer)
    return {}
  end
  if type(answer) == "number" then answer = { [self.costs[1]] = answer } end
  local costs = {}
  for name, n in pairs(type(answer) == "table" and answer or {}) do
    local index = self.index[name]
    if index and type(n) == "number" and n >= 0 and n <= MOST then
      costs[index] = ceil(n)
    else
      self:fault("estimate", self.declared.estimate, ("%s = %s is no cost of this policy"):format(
        show(name), show(n)))
    end
  end
  return costs
end

--- The policy's estimate of a call.
---@param fields table<string, any>  what it says
---@return table<integer, integer>?  by the number of the cost; what it does not name is not in it
---@return string? message  the call says what nobody looks at
function estimate:estimated(fields)
  local looked = {}
  local costs = asked(self, setmetatable({}, { __index = function (_, name)
    looked[name] = true
    return fields[name]
  end }))
  for name in pairs(fields) do
    if not (looked[name] or self.index[name] or self.names[name]) then
      return nil, self:unknown(name) .. ", and estimate does not look at it"
    end
  end
  return costs
end

--- What a call costs, by name.
---@param said table<string, integer>
---@param fields table<string, any>
---@return table<string, integer>?
---@return string? message
function estimate:costs_of(said, fields)
  local guess, message
  if self.declared.estimate then
    guess, message = self:estimated(fields)
    if not guess then return nil, message end
  end
  local own, told = #self.limits, next(said) ~= nil
  local costs = {}
  for i, name in ipairs(self.costs) do
    local otherwise = (i <= own or own == 0 and not told) and 1 or 0
    costs[name] = said[name] or guess and guess[i] or otherwise
  end
  return costs
end

return estimate
