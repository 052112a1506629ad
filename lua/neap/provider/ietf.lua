--- The fields RateLimit and RateLimit-Policy of draft-ietf-httpapi-ratelimit-headers, as of its
--- revisions 08 and later: lists of policies by name, q and w what they allow, r and t what is
--- left.
---
---     RateLimit-Policy: "burst";q=100;w=60, "daily";q=1000;w=86400
---     RateLimit: "burst";r=50;t=30
---
--- A policy is a window under its own name. The one of a unit that has least left, or else allows
--- least, is the window of the unit, too: "requests", "content_bytes", "concurrent_requests". What
--- is malformed is ignored, as the draft has it: a field that is no list, and in a list a policy
--- whose name is no string (older drafts wrote tokens), or that lacks q or r, or has a number that
--- is not whole or below 0. Of those of one name, for several partitions, the one with least left
--- counts.
local headers = require "neap.headers"

local concat = table.concat
local ipairs, pairs = ipairs, pairs

local function count(params, name)
  local one = params[name]
  if one and one.type == "integer" and one.value >= 0 then return one.value end
end

--- Is what a parameter says of no use?
local function is_bad(params, name) return params[name] ~= nil and not count(params, name) end

local function text(params, name)
  local one = params[name]
  return one and (one.type == "string" or one.type == "token" or one.type == "binary") and one.value
    or nil
end

--- The members of a field that have a name, what they must, and what they may.
local function members(fields, name, must, may)
  local list = headers.structured.list(concat(headers.all(fields, name), ", ")) or {}
  local i = 0
  return function ()
    repeat
      i = i + 1
      local one = list[i]
      if not one then return nil end
      local good = one.type == "string" and count(one.params, must) and not is_bad(one.params, may)
      if good then return one.value, one.params end
    until false
  end
end

--- Less than any number: nobody said.
local function less(a, b) return a and (not b or a < b) end

local function tighter(a, b)
  if a.remaining ~= b.remaining then return less(a.remaining, b.remaining) end
  return not a.remaining and less(a.limit, b.limit)
end

--- What the two fields say.
---@param fields any
---@param windows table<string, neap.Reported>  added to
return function (fields, windows)
  local own, order = {}, {}
  for name, params in members(fields, "ratelimit-policy", "q", "w") do
    local unit = (text(params, "qu") or "requests"):gsub("[^%w_]", "_")
    local one = { limit = count(params, "q"), window_s = count(params, "w"), unit = unit,
      partition = text(params, "pk") }
    if not own[name] then order[#order + 1] = name end
    if not own[name] or one.limit < own[name].limit then own[name] = one end
  end
  for name, params in members(fields, "ratelimit", "r", "t") do
    local one = own[name]
    if not one then
      one = { unit = "requests", partition = text(params, "pk") }
      own[name], order[#order + 1] = one, name
    end
    local remaining = count(params, "r")
    if not one.remaining or remaining < one.remaining then
      one.remaining, one.reset_s = remaining, count(params, "t")
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
