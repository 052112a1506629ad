--- What a call costs: a whole number for everything, or a table that names the costs.
---
---     throttle:try_acquire(3)                          -- three tokens
---     hybrid:try_acquire { input = 1500 }              -- input 1500, unnamed limits 1, others 0
---     hybrid:acquire { input = 1500, timeout = 2 }     -- the same, and how long to wait
---     hybrid:acquire { cost = 3, timeout = 2 }         -- 3 of everything
---     hybrid:acquire { { "input", 1500 }, timeout = 2 } -- names in order, as a list of pairs
---
--- In a list the first pair of a name counts. Limits that are all named may ask to be `exact`: then
--- a table that is empty costs nothing, where it would cost 1; and to be `lenient`: then a name
--- that nobody knows is free, where it would be a mistake (see neap.multi).
local ffi = require "ffi"
local C = require "neap.engine"
local notation = require "neap.notation"

local concat, fill, sort = table.concat, ffi.fill, table.sort
local error, ipairs, loadstring, next = error, ipairs, loadstring, next
local pairs, tonumber, tostring, type = pairs, tonumber, tostring, type

local COSTS, SIZE = C.NEAP_COSTS, C.NEAP_COSTS * ffi.sizeof "int64_t"
local MAX = 2 ^ 53   -- the last whole number Lua can tell from its neighbours

local cost = {}

--- Words with a meaning of their own in the table, so no cost can have them as its name.
cost.reserved = { cost = true, timeout = true, deadline = true, priority = true, flow = true }

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
---@return string[] names  in order
local function names_of(terms)
  local list = {}
  for name in pairs(terms.names) do list[#list + 1] = name end
  sort(list)
  if #list == 0 then return "there are no named costs here", list end
  return "there are " .. concat(list, ", "), list
end

--- Refuse a name.
---@param terms neap.Terms
---@param name any
---@param level integer
function cost.unknown(terms, name, level)
  local known, names = names_of(terms)
  local text = ("cost %s is not known: %s"):format(shown(name), known)
  error((notation.suggest(text, type(name) == "string" and name or nil, names)), level + 1)
end

--- One named cost into `into`.
local function read_name(into, terms, name, n, level)
  local index = terms.names[name]
  if not index and not (terms.lenient and type(name) == "string") then
    cost.unknown(terms, name, level + 1)
  end
  if not is_cost(n) then refuse("cost " .. name, n, level + 1) end
  if index then into[index] = n end
end

--- A list of pairs into `into`, the last one first: so the first of a name stays.
local function read_list(into, terms, list, level)
  for i = #list, 1, -1 do
    local pair = list[i]
    if type(pair) ~= "table" or type(pair[1]) ~= "string" or #pair ~= 2 then
      error(("cost %d: a pair { name, cost } expected, got %s"):format(i, shown(pair)), level + 1)
    end
    read_name(into, terms, pair[1], pair[2], level + 1)
  end
end

local function is_place(key, list)
  return type(key) == "number" and key >= 1 and key <= #list and key % 1 == 0
end

local function is_key(terms, name)
  for _, kind in ipairs(terms.keys or {}) do
    if kind.name == name then return true end
  end
  return false
end

--- The named costs in `given` into `into`; what is not named is left as it is.
---@return boolean any
local function read_names(into, terms, given, waits, level)
  local listed = given[1] ~= nil
  local any = listed
  if listed then read_list(into, terms, given, level + 1) end
  for name, n in pairs(given) do
    if cost.reserved[name] then
      if name ~= "cost" and not waits then
        error(("%s: only acquire waits"):format(name), level + 1)
      end
    elseif not listed and not is_key(terms, name) then
      read_name(into, terms, name, n, level + 1)
      any = true
    elseif listed and not is_place(name, given) and not is_key(terms, name) then
      error(("cost %s stands beside a list of them: put it in there"):format(shown(name)),
        level + 1)
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
      if not cost.reserved[name] and not is_key(terms, name) then
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
  rest = rest or (terms.exact and next(given) == nil and 0) or 1
  for i = 0, terms.costs - 1 do into[i] = rest end
  return rest
end

--- Options about waiting. What stands for all costs, or says which key, is not among them.
local ABOUT_WAITING = { timeout = true, deadline = true }

--- Read the usual table, known names and how long to wait; nil, and nothing is said, when it is
--- another. LuaJIT compiles a short loop apart and gives up on what surrounds it; without one an
--- acquire is one trace, which takes a quarter of the time. So the loop is written out, as long as
--- all costs there can be and the rest.
---@type fun(into: ffi.cdata*, names: table<string, integer>, given: table, waits: boolean):
---  boolean? named, integer? rest  is any cost named? and the one that is not
local read_plain = loadstring(([[
local next, is_cost, about_waiting = ...
return function (into, names, given, waits)
  local named, rest, index = false, nil, nil
  local name, n = next(given)
  STEPS
end]]):gsub("STEPS", (([[
  index = names[name]
  if index then
    if not is_cost(n) then return nil end
    into[index], named = n, true
  elseif name == "cost" then
    if not is_cost(n) then return nil end
    rest = n
  elseif not waits or not about_waiting[name] then
    return nil
  end
  name, n = next(given, name)
  if name == nil then return named, rest end
]]):rep(COSTS + 3))), "=cost")(next, is_cost, ABOUT_WAITING)

--- Read `given` (nil: 1) into an int64_t[NEAP_COSTS].
---@param into ffi.cdata*
---@param terms neap.Terms
---@param given integer|table|nil
---@param waits boolean  options about waiting may stand in the table
---@param level integer  whose mistake it is when it cannot be read
---@return integer?  the number, when all costs are that number
function cost.read(into, terms, given, waits, level)
  if given == nil then given = 1 end
  if type(given) == "table" and next(given) ~= nil then
    fill(into, SIZE)
    local named, rest = read_plain(into, terms.names, given, waits)
    if named then
      if terms.unnamed then into[terms.unnamed] = rest or 1 end
      return nil
    elseif named == false then
      given = rest or 1
    end
  end
  if type(given) ~= "number" then   -- a tail call, which has no level of its own
    return read_table(into, terms, given, waits, level)
  end
  if not is_cost(given) then refuse("cost", given, level + 1) end
  into[0] = given
  for i = 1, terms.costs - 1 do into[i] = given end
  return given
end

--- What was read, as it could have been written.
---@param terms neap.Terms
---@param costs ffi.cdata*  int64_t[NEAP_COSTS]
---@param n integer?        all costs are that number
---@return integer|table<string, integer>
function cost.written(terms, costs, n)
  if n then return n end
  if next(terms.names) == nil then return tonumber(costs[0]) end
  local all = {}
  for name, index in pairs(terms.names) do all[name] = tonumber(costs[index]) end
  if terms.unnamed then all.cost = tonumber(costs[terms.unnamed]) end
  return all
end

--- What was really used: a number for everything, or a table in which a cost that is not named
--- stays what it was.
---@param into ffi.cdata*  holds what was charged, and then what was used
---@param terms neap.Terms
---@param used integer|table
---@param level integer
---@return integer?  the number, when all costs are that number
function cost.read_used(into, terms, used, level)
  if type(used) == "number" then return cost.read(into, terms, used, false, level) end
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
