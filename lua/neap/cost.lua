--- What a call costs: a whole number for everything, or a table that names the costs.
---
---     throttle:try_acquire(3)                          -- three tokens
---     hybrid:try_acquire { input = 1500 }              -- input 1500, unnamed limits 1, others 0
---     hybrid:acquire { input = 1500, timeout = 2 }     -- the same, and how long to wait
---     hybrid:acquire { cost = 3, timeout = 2 }         -- 3 of everything
local error, pairs, tostring, type = error, pairs, tostring, type

local MAX = 2 ^ 53   -- the last whole number Lua can tell from its neighbours

local cost = {}

--- Words with a meaning of their own in the table, so no cost can have them as its name.
cost.reserved = { cost = true, timeout = true, deadline = true }

---@param n any
---@return boolean
local function is_cost(n)
  return type(n) == "number" and n >= 0 and n <= MAX and n % 1 == 0
end

---@param n any
---@return string
local function shown(n)
  return type(n) == "string" and ("%q"):format(n) or tostring(n)
end

local function refuse(what, n, level)
  error(("%s: a whole number from 0 to 2^53 expected, got %s"):format(what, shown(n)), level + 1)
end

--- Check a number of tokens.
---@param n any
---@param what string  who asks, for the message
---@param level integer
---@return integer
function cost.check(n, what, level)
  if not is_cost(n) then refuse(what, n, level + 1) end
  return n
end

---@param terms neap.Terms
---@return string
local function names_of(terms)
  local list = {}
  for name in pairs(terms.names) do list[#list + 1] = name end
  table.sort(list)
  if #list == 0 then return "there are no named costs here" end
  return "there are " .. table.concat(list, ", ")
end

--- The named costs in `given` into `into`; what is not named is left as it is.
---@return boolean any
local function read_names(into, terms, given, waits, level)
  local any = false
  for name, n in pairs(given) do
    local index = terms.names[name]
    if index then
      if not is_cost(n) then refuse("cost " .. name, n, level + 1) end
      into[index] = n
      any = true
    elseif not cost.reserved[name] then
      error(("cost %s is not known: %s"):format(shown(name), names_of(terms)), level + 1)
    elseif name ~= "cost" and not waits then
      error(("%s: only acquire waits"):format(name), level + 1)
    end
  end
  return any
end

local function read_table(into, terms, given, waits, level)
  if type(given) ~= "table" then
    error(("cost: a whole number or a table of them expected, got %s"):format(shown(given)),
      level + 1)
  end
  local rest = given.cost
  if type(rest) == "table" then
    local options = {}
    for name, value in pairs(given) do
      if not cost.reserved[name] then
        error(("cost %s stands beside cost = {...}: put it in there"):format(shown(name)),
          level + 1)
      end
      if name ~= "cost" then options[name] = value end
    end
    read_names(into, terms, options, waits, level + 1)
    given, rest = rest, rest.cost
  end
  if rest ~= nil and not is_cost(rest) then refuse("cost", rest, level + 1) end

  for i = 0, terms.costs - 1 do into[i] = 0 end
  if read_names(into, terms, given, waits, level + 1) then
    if terms.unnamed then into[terms.unnamed] = rest or 1 end
    return nil
  end
  rest = rest or 1
  for i = 0, terms.costs - 1 do into[i] = rest end
  return rest
end

--- Read `given` (nil: 1) into an int64_t[NEAP_COSTS].
---@param into ffi.cdata*
---@param terms neap.Terms
---@param given integer|table|nil
---@param waits boolean  options about waiting may stand in the table
---@param level integer  whose mistake it is when it cannot be read
---@return integer?  the number, when all costs are that number
function cost.read(into, terms, given, waits, level)
  if given == nil then given = 1 end
  if type(given) ~= "number" then return read_table(into, terms, given, waits, level + 1) end
  if not is_cost(given) then refuse("cost", given, level + 1) end
  into[0] = given
  for i = 1, terms.costs - 1 do into[i] = given end
  return given
end

--- What was really used: a number for everything, or a table in which a cost that is not named
--- stays what it was.
---@param into ffi.cdata*  holds what was charged, and then what was used
---@param terms neap.Terms
---@param used integer|table
---@param level integer
---@return integer?  the number, when all costs are that number
function cost.read_used(into, terms, used, level)
  if type(used) == "number" then return cost.read(into, terms, used, false, level + 1) end
  if type(used) ~= "table" then
    error(("used: a whole number or a table of them expected, got %s"):format(shown(used)),
      level + 1)
  end
  read_names(into, terms, used, false, level + 1)
  if used.cost ~= nil then
    if not is_cost(used.cost) then refuse("cost", used.cost, level + 1) end
    if not terms.unnamed then
      error("cost: every limit here has a named cost: " .. names_of(terms), level + 1)
    end
    into[terms.unnamed] = used.cost
  end
end

return cost
