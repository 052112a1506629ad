--- The fields RateLimit and RateLimit-Policy of draft-ietf-httpapi-ratelimit-headers, as of its
--- revisions 08 to 11: lists of policies by name, q and w what they allow, r and t what is left.
---
---     RateLimit-Policy: "burst";q=100;w=60, "daily";q=1000;w=86400
---     RateLimit: "burst";r=50;t=30
---
--- A policy is a window under its own name. The one of a unit that has least left, or else allows
--- least, is the window of the unit, too: "requests", "content_bytes", "concurrent_requests". What
--- is malformed is ignored, as the draft has it: a field that is no list, and in a list a policy
--- whose name is no string (examples have tokens), that lacks q or r, or says something that is not
--- what the draft has it be. Of those of one name, for several partitions, the one with least left
--- counts. And what comes from a cache, says Age, is old: then neither field counts.
local headers = require "neap.headers"

local concat = table.concat
local ipairs, pairs = ipairs, pairs

local function whole(least)
  return function (one) return one.type == "integer" and one.value >= least end
end
local function of(kind)
  return function (one) return one.type == kind end
end

-- What parameters have to be; others are comments.
local POLICY = { q = whole(0), w = whole(1), qu = of "string", pk = of "binary" }
local LIMIT = { r = whole(0), t = whole(0), pk = of "binary" }

local UNITS = { request = "requests" }   -- as the draft's registry has it, and its text has not

local function value(params, name) return params[name] and params[name].value end

local function is_good(one, is, must)
  if one.type ~= "string" or not one.params[must] then return false end
  for name, fits in pairs(is) do
    if one.params[name] and not fits(one.params[name]) then return false end
  end
  return true
end

--- The members of a field that are what they are to be, and have what they must.
local function members(fields, name, is, must)
  local list = headers.structured.list(concat(headers.all(fields, name), ", ")) or {}
  local i = 0
  return function ()
    repeat
      i = i + 1
      local one = list[i]
      if one and is_good(one, is, must) then return one.value, one.params end
    until not one
  end
end

--- Less than any number: nobody said.
local function less(a, b) return a and (not b or a < b) end

local function tighter(a, b)
  if a.remaining ~= b.remaining then return less(a.remaining, b.remaining) end
  return not a.remaining and less(a.limit, b.limit)
end

local function is_cached(fields)
  local age = headers.get(fields, "age")
  return (age and headers.count(age) or 0) > 0
end

--- What the two fields say.
---@param fields any
---@param windows table<string, neap.Reported>  added to
return function (fields, windows)
  if is_cached(fields) then return end
  local own, order = {}, {}
  for name, params in members(fields, "ratelimit-policy", POLICY, "q") do
    local unit = value(params, "qu") or "requests"
    local one = { limit = value(params, "q"), window_s = value(params, "w"),
      unit = UNITS[unit] or unit:gsub("[^%w_]", "_"), partition = value(params, "pk") }
    if not own[name] then order[#order + 1] = name end
    if not own[name] or one.limit < own[name].limit then own[name] = one end
  end
  for name, params in members(fields, "ratelimit", LIMIT, "r") do
    local one = own[name]
    if not one then
      one = { unit = "requests", partition = value(params, "pk") }
      own[name], order[#order + 1] = one, name
    end
    local remaining = value(params, "r")
    if not one.remaining or remaining < one.remaining then
      one.remaining, one.reset_s = remaining, value(params, "t")
    end
  end
  local of_unit = {}
  for _, name in ipairs(order) do
    local one = own[name]
    windows[name] = one
    if not of_unit[one.unit] or tighter(one, of_unit[one.unit]) then of_unit[one.unit] = one end
  end
  for unit, one in pairs(of_unit) do
    if not own[unit] then windows[unit] = one end
  end
end
