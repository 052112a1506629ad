--- Layered: limits for all, and for each of several kinds of keys, and a call needs every one.
---
---     local api = neap.layered {
---       global = { "1000/s", "100 in flight" },
---       user = "10/s burst 20",
---       endpoint = neap.per_key("100/s", { most = 1000 }),
---     }
---     local permit = api:acquire { user = "ann", endpoint = "/v1/chat", timeout = "5s" }
---     api:why { user = "ann", endpoint = "/v1/chat", cost = 20 }
---     --> "user: needs 20 of 20, has 19; free in 100ms"
---
--- It is a hybrid (see neap.hybrid), with scopes: `global` is for every call, and each other name
--- is a kind of key, whose limit is kept per key. What refuses is named after its scope.
local all = require "neap.all"
local guest = require "neap.guest"
local hybrid = require "neap.hybrid"
local limiter = require "neap.limiter"
local per_key = require "neap.per_key"
local stats = require "neap.stats"

local error, getmetatable, ipairs, pairs, pcall = error, getmetatable, ipairs, pairs, pcall
local setmetatable, sort, type, unpack = setmetatable, table.sort, type, unpack

local PER_KEY = getmetatable(per_key "1/s")

--- A mistake inside, as one of ours.
local function make(level, fn, ...)
  local ok, made = pcall(fn, ...)
  if not ok then error("layered: " .. (made:gsub("^.-:%d+: ", "", 1)), level + 1) end
  return made
end

--- A limit per key under the name of its scope, which is what its keys are called, too.
local function named(limit, name)
  local parts = {}
  for i, part in ipairs(limit.terms.parts) do
    parts[i] = all.with(part, { label = name, key = name })
  end
  return setmetatable({ terms = { parts = parts }, parents = limit.parents, closed = limit.closed,
    of = limit }, PER_KEY)
end

local function scope(name, limit, level)
  if name == "global" then
    local one = type(limit) ~= "table" or limiter.is(limit) or guest.is(limit) or limit.kind
    return one and { limit } or limit
  elseif getmetatable(limit) ~= PER_KEY then
    limit = stats.hide(make(level + 1, per_key, limit, { by = name }))
  end
  return { named(limit, name) }
end

--- Make one. No scope at all: no limit.
---@param scopes table<string, any>  global: a limit, or a list of them as for a hybrid; others:
---  what neap.per_key takes, or one made by it
---@param options? { name: string? }
---@return neap.Hybrid
return function (scopes, options)
  if type(scopes) ~= "table" or limiter.is(scopes) then
    error("layered: scopes expected, as in neap.layered { global = \"1000/s\", user = \"10/s\" }",
      2)
  end
  local names, list = {}, {}
  for name in pairs(scopes) do
    if type(name) ~= "string" then
      error("layered: every scope has a name: global, or what its keys are called", 2)
    end
    if name ~= "global" then names[#names + 1] = name end
  end
  sort(names)
  if scopes.global ~= nil then names = { "global", unpack(names) } end
  for _, name in ipairs(names) do
    for _, limit in ipairs(scope(name, scopes[name], 2)) do list[#list + 1] = limit end
  end
  local made = make(2, hybrid, list, options)
  return made
end
