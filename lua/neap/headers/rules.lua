--- Rules: after which status a request is worth repeating, by its method.
---
---     local headers = neap.headers
---     local notion = headers.rules { all = { 429 }, get = { 500, 503 }, delete = { 500, 503 } }
---     notion:retryable(503, "GET")    --> true
---     notion:retryable(503, "POST")   --> false
---
--- `all` is for every method, the others for theirs; methods and `all` are in any case. A status is
--- a whole number, or a class as "5xx". Without a word of their own there are two sets of rules:
---
---     every_method   408, 409, 429 and 5xx, whatever the method: what many client libraries do
---     idempotent     429 always; 408, 409 and 5xx where a repetition does no harm: what the server
---                    may have done already, it does again
---
--- A request with an idempotency key is repeatable whatever its method: see headers.should_retry.
local notation = require "neap.notation"

local error, ipairs, pairs = error, ipairs, pairs
local setmetatable, tostring, type = setmetatable, tostring, type

local METHODS = { "delete", "get", "head", "options", "patch", "post", "put" }
local IDEMPOTENT = { "delete", "get", "head", "options", "put" }

local known = { all = true }
for _, method in ipairs(METHODS) do known[method] = true end

---@class neap.Rules
---@field by table<string, table<integer, true>>  method, or "all", to statuses
local rules = {}
rules.__index = rules

--- Is a status worth a repetition?
---
---     headers.rules("idempotent"):retryable(500, "PUT")   --> true
---
---@param status any    what is no whole number is not
---@param method any    in any case; one without a rule has those of `all`
---@return boolean
function rules:retryable(status, method)
  if type(status) ~= "number" then return false end
  local name = type(method) == "string" and method:lower():match "^%s*(%a+)%s*$"
  local of = name and self.by[name]
  return self.by.all[status] or of and of[status] or false
end

local function add_status(set, status)
  local class = type(status) == "string" and status:match "^([1-5])[xX][xX]$"
  if class then
    for each = class * 100, class * 100 + 99 do set[each] = true end
  elseif type(status) == "number" and status % 1 == 0 then
    set[status] = true
  else
    return false
  end
  return true
end

local function add(self, method, statuses, lenient, level)
  local name = type(method) == "string" and method:lower() or method
  if not known[name] then
    if lenient then return end
    error(notation.suggest("rules: unknown method " .. tostring(method),
      type(method) == "string" and name or nil, { "all", unpack(METHODS) }), level + 1)
  elseif type(statuses) ~= "table" then
    if lenient then return end
    error(("rules: %s: a list of statuses expected, got %s"):format(name, tostring(statuses)),
      level + 1)
  end
  self.by[name] = self.by[name] or {}
  for _, status in ipairs(statuses) do
    if not add_status(self.by[name], status) and not lenient then
      error(("rules: %s: a status such as 503 or \"5xx\" expected, got %s"):format(name,
        tostring(status)), level + 1)
    end
  end
end

local presets = {
  every_method = { all = { 408, 409, 429, "5xx" } },
  idempotent = { all = { 429 } },
}
for _, method in ipairs(IDEMPOTENT) do presets.idempotent[method] = { 408, 409, "5xx" } end

--- Make rules. They replace the ones there are; nothing in them: nothing is repeated.
---@param given? string|table<string, (integer|string)[]>  "every_method" (unless told),
---  "idempotent", or statuses by method
---@param options? { lenient: boolean? }  lenient: what cannot be a rule is passed over, and is no
---  mistake: for rules from a file that others wrote
---@return neap.Rules
return function (given, options)
  if given == nil then given = "every_method" end
  if type(given) == "string" then
    given = presets[given] or error((notation.suggest("rules: no rules called '" .. given .. "'",
      given, { "every_method", "idempotent" })), 2)
  elseif type(given) ~= "table" then
    error("rules: statuses by method expected, as in { all = { 429 }, get = { 503 } }, got "
      .. tostring(given), 2)
  end
  local self = { by = { all = {} } }
  for method, statuses in pairs(given) do
    add(self, method, statuses, options and options.lenient, 2)
  end
  return setmetatable(self, rules)
end
