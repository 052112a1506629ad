--- A multi: one call, several dimensions. Requests and tokens, each with a limit of its own.
---
---     local llm = neap.multi { requests = "500/min", tokens = "100k/min" }
---     local permit, why, wait_s = llm:try_acquire { requests = 1, tokens = 1500 }
---     llm:why { requests = 1, tokens = 99e3 }
---     --> "tokens: needs 99000 of 100000, has 98500; free in 300ms"
---
--- It is a hybrid, all of it: what is named there is charged by name, and so all or nothing, lines,
--- permits, settling and nesting are the hybrid's, and a multi costs what a hybrid with names does.
--- What a hybrid leaves open is settled here, and that is all this module has:
---
---     every limit has a name      a table of costs says all there is to pay, and an empty one says
---                                 nothing. Whoever says no costs at all pays 1 of each dimension,
---                                 as everywhere, also with { timeout = 2 }
---     names may be wrong          a mistake, or with `lenient` free of charge
---     names may be had twice      all dimensions of a name are charged; the first one answers when
---                                 it is asked for by name
---     several may refuse at once  `why` names the one that holds up longest. Of those that hold up
---                                 as long, or for good, it is the first in the list of costs; if
---                                 they came as a table, which has no order, the first dimension
local ffi = require "ffi"
local cost = require "neap.cost"
local hybrid = require "neap.hybrid"
local limiter = require "neap.limiter"

local error, getmetatable, ipairs, pairs, pcall = error, getmetatable, ipairs, pairs, pcall
local setmetatable, tostring, type = setmetatable, tostring, type
local sort = table.sort

local OPTIONS = { lenient = true }
local scratch = ffi.new "int64_t[8]"

---@class neap.Multi: neap.Hybrid
---@field first table<string, neap.Hybrid>  the first dimension of each name that several have

--- What a multi does otherwise than the hybrid it is, which may be one with guests.
---@param base table
---@return table
local function class_of(base)
  local multi = limiter.class(base)

  --- A method that takes a name, for the first of that name.
  local function of_first(method)
    return function (self, name)
      local first = self.first[name]
      if first then return first[method](first, name) end
      if name ~= nil and not self.terms.names[name] then
        if self.terms.lenient then return nil end
        cost.unknown(self.terms, name, 2)
      end
      return base[method](self, name)
    end
  end

  --- Whole tokens that a call could have now: the least of all dimensions, or of a name's first.
  ---
  ---     llm:available "tokens"      --> 98500
  ---
  ---@type fun(self: neap.Multi, name?: string): number?  nil: no such name, and it is lenient
  multi.available = of_first "available"

  --- The most that one call could ever have, likewise.
  ---
  ---     llm:capacity()              --> 500
  ---
  ---@type fun(self: neap.Multi, name?: string): number?
  multi.capacity = of_first "capacity"

  --- What stands in the way of a call: `limiter` is the dimension's name.
  ---
  ---     llm:why({ requests = 501, tokens = 1 }).limiter   --> "requests"
  ---
  ---@param given? integer|table
  ---@return neap.Reason?
  function multi:why(given)
    cost.read(scratch, self.terms, given, true, 2)
    local reason = base.why(self, given)
    local list = type(given) == "table" and (type(given.cost) == "table" and given.cost or given)
    if not reason or not list then return reason end
    local met = {}
    for _, pair in ipairs(list) do
      local alone = not met[pair[1]] and base.why(self, { pair })
      if alone and alone.word == reason.word and alone.wait == reason.wait then return alone end
      met[pair[1]] = true
    end
    return reason
  end

  return multi
end

local classes = {}

--- A hybrid, whose complaints are ours.
local function made(list, options, level)
  local ok, h = pcall(hybrid, list, options)
  if not ok then error((h:gsub("^.-hybrid: ", "multi: ", 1)), level + 1) end
  return h
end

--- The dimensions in order, as pairs.
local function listed(dimensions, level)
  if type(dimensions) ~= "table" or limiter.is(dimensions) then
    error("multi: dimensions expected, as in neap.multi { requests = \"500/min\", … }", level + 1)
  end
  local list, names = {}, {}
  for i, pair in ipairs(dimensions) do
    if type(pair) ~= "table" or type(pair[1]) ~= "string" or pair[2] == nil then
      error(("multi: dimension %d: a pair { name, limit } expected, got %s"):format(i,
        tostring(pair)), level + 1)
    end
    list[i] = { pair[1], pair[2] }
  end
  for name in pairs(dimensions) do
    if type(name) == "string" then
      names[#names + 1] = name
    elseif not list[name] then
      error("multi: " .. tostring(name) .. " is neither a place in the list nor a name", level + 1)
    end
  end
  sort(names)
  for _, name in ipairs(names) do list[#list + 1] = { name, dimensions[name] } end
  return list
end

--- Wrap the first dimension of each name that several have, so that it can be asked alone.
local function firsts(list, level)
  local met, first = {}, {}
  for _, pair in ipairs(list) do
    local name = pair[1]
    local before = met[name]
    if before and not first[name] then
      first[name] = made({ { name, before[2] } }, nil, level + 1)
      before[2] = first[name]
    end
    met[name] = before or pair
  end
  return first
end

--- Make a multi.
---@param dimensions table  limits under their names, sorted by name; or pairs { name, limit } in
---  order, of which several may have one name. A limit is a text, a limiter of any kind, or a table
---  with peek and take (see neap.guest)
---@param options? { name: string?, lenient: boolean? }  lenient: costs with unknown names are free
---@return neap.Multi
return function (dimensions, options)
  local name = limiter.name_of(options, nil, OPTIONS, 2)
  local lenient = options and options.lenient
  if lenient ~= nil and type(lenient) ~= "boolean" then
    error("lenient: true or false expected, got " .. tostring(lenient), 2)
  end
  local list = listed(dimensions, 2)
  local first = firsts(list, 2)
  local self = made(list, name and { name = name }, 2)
  self.first = first
  self.terms.exact, self.terms.lenient = true, lenient
  local base = getmetatable(self)
  classes[base] = classes[base] or class_of(base)
  return setmetatable(self, classes[base])
end
