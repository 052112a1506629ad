--- A policy tree as JSON, for machines: numbers rule, "text" is for people. Order is the text's.
-- A password is never printed: only where it came from.
local cjson = require "cjson"
local lpeg = require "lpeg"

local ipairs, type = ipairs, type
local concat = table.concat

local json = {}

local R, P, Cs = lpeg.R, lpeg.P, lpeg.Cs
local tail = R "\128\191"
local utf8 = R "\0\127" + R "\194\223" * tail + "\224" * R "\160\191" * tail
  + (R "\225\236" + R "\238\239") * tail * tail + "\237" * R "\128\159" * tail
  + "\240" * R "\144\191" * tail * tail + R "\241\243" * tail * tail * tail
  + "\244" * R "\128\143" * tail * tail

-- What is not UTF-8 becomes the character that says so.
local clean = Cs((utf8 + P(1) / "\239\191\189") ^ 0)

-- Numbers are whole and up to 2^53, which are more digits than the library writes.
local function value(x)
  if type(x) == "number" then return ("%d"):format(x) end
  return cjson.encode(type(x) == "string" and clean:match(x) or x)
end

-- { { key, text }, … } as an object.
local function object(pairs_)
  local parts = {}
  for i, pair in ipairs(pairs_) do parts[i] = value(pair[1]) .. ":" .. pair[2] end
  return "{" .. concat(parts, ",") .. "}"
end

local function array(list)
  local parts = {}
  for i, x in ipairs(list) do parts[i] = value(x) end
  return "[" .. concat(parts, ",") .. "]"
end

local function limit(entry)
  local v, parts = entry.notation, {}
  local function field(key, x) parts[#parts + 1] = { key, value(x) } end
  if v.kind == "rate" then
    field("rate", v.amount)
    field("per_ns", v.per_ns)
    field("burst", v.burst)
    if v.mode ~= "burst" then field("mode", v.mode) end
  else
    field(v.kind, v.amount or true)
  end
  field("text", entry.text)
  return object(parts)
end

local function policy(declared)
  local limits, parts = {}, {}
  for i, entry in ipairs(declared.limits) do limits[i] = { entry.name, limit(entry) } end
  if declared.doc then parts[1] = { "doc", value(declared.doc) } end
  parts[#parts + 1] = { "limits", object(limits) }
  parts[#parts + 1] = { "lease", object { { "ttl_ns", value(declared.lease.ttl_ns) },
    { "settle", array(declared.lease.settle) } } }
  return object(parts)
end

local function user(declared)
  local password = declared.from and object { { "env", value(declared.from) } } or value "(hidden)"
  return object { { "password", password }, { "allow", array(declared.allow) } }
end

local function by_name(list, print)
  local parts = {}
  for i, declared in ipairs(list) do parts[i] = { declared.name, print(declared) } end
  return object(parts)
end

--- The tree in one line of JSON.
---
---     local tree = neap.policy.parse('policy "openai" { limits = { a = "5/s" } }', "policy.lua")
---     neap.policy.to_json(tree)             --> '{"neap":1,…}'
---
---@param tree neap.tree
---@return string
function json.print(tree)
  return object {
    { "neap", "1" },
    { "listen", object { { "resp", array(tree.listen.resp) },
      { "http", array(tree.listen.http) } } },
    { "users", by_name(tree.users, user) },
    { "policies", by_name(tree.policies, policy) },
  }
end

json.value, json.object = value, object

return json
