--- A policy tree as JSON, for machines: numbers rule, "text" is for people. Order is the text's.
-- A password is never printed: only where it came from.
local cjson = require "cjson"
local lpeg = require "lpeg"
local backoff_text = require "neap.backoff.text"

local ipairs, pairs, type = ipairs, pairs, type
local concat, sort = table.concat, table.sort

local json = {}

local R, P, Cs = lpeg.R, lpeg.P, lpeg.Cs
local tail = R "\128\191"
local utf8 = R "\0\127" + R "\194\223" * tail + "\224" * R "\160\191" * tail
  + (R "\225\236" + R "\238\239") * tail * tail + "\237" * R "\128\159" * tail
  + "\240" * R "\144\191" * tail * tail + R "\241\243" * tail * tail * tail
  + "\244" * R "\128\143" * tail * tail

-- What is not UTF-8 becomes the character that says so.
local clean = Cs((utf8 + P(1) / "\239\191\189") ^ 0)

-- Whole numbers go up to 2^53, which is more digits than the library writes.
local function value(x)
  if type(x) == "number" then return (x % 1 == 0 and "%d" or "%.14g"):format(x) end
  return cjson.encode(type(x) == "string" and clean:match(x) or x)
end

-- { { key, text }, … } as an object; a pair without a text is left out.
local function object(pairs_)
  local parts = {}
  for _, pair in ipairs(pairs_) do
    if pair[2] then parts[#parts + 1] = value(pair[1]) .. ":" .. pair[2] end
  end
  return "{" .. concat(parts, ",") .. "}"
end

local function array(list)
  local parts = {}
  for i, x in ipairs(list) do parts[i] = value(x) end
  return "[" .. concat(parts, ",") .. "]"
end

-- The fields of a record that it has, in this order.
local function record(of, names)
  local parts = {}
  for name in names:gmatch "%S+" do
    local x = of[name]
    if x ~= nil then
      parts[#parts + 1] = { name, type(x) == "table" and array(x) or value(x) }
    end
  end
  return object(parts)
end

-- A list of { name, … } as an object, by name.
local function by_name(list, print)
  local parts = {}
  for i, declared in ipairs(list) do parts[i] = { declared.name, print(declared) } end
  return object(parts)
end

local function limit(entry)
  local v, parts = entry.notation, {}
  local function field(key, x) parts[#parts + 1] = { key, x ~= nil and value(x) or nil } end
  if v.kind == "rate" then
    field("rate", v.amount)
    field("per_ns", v.per_ns)
    field("burst", v.burst)
    if v.mode ~= "burst" then field("mode", v.mode) end
  else
    field(v.kind, v.amount or true)
  end
  field("text", entry.text)
  field("on_change", entry.on_change)
  return object(parts)
end

local function limits(list) return by_name(list, limit) end

local function scope(of)
  return object {
    { "by", array(of.by) }, { "doc", of.doc and value(of.doc) }, { "line", value(of.line) },
    { "limits", limits(of.limits) },
    { "override", of.override[1] and by_name(of.override, function (override)
      return limits(override.limits)
    end) },
    { "keep", record(of.keep, "keys idle_ns") },
  }
end

local function scopes(list)
  local parts = {}
  for i, of in ipairs(list) do parts[i] = scope(of) end
  return parts[1] and "[" .. concat(parts, ",") .. "]"
end

local function backoff(of)
  return object {
    { "on", array(of.on) }, { "window_ns", value(of.window_ns) }, { "from", array(of.from) },
    { "throttled", limits(of.throttled) },
    { "penalty", by_name(of.penalty, function (penalty) return value(penalty.count) end) },
  }
end

local function breaker(of)
  return object {
    { "trip", record(of.trip, "kind count share of in_ns") },
    { "cooldown_ns", value(of.cooldown_ns) }, { "probes", value(of.probes) },
    { "on", of.on and array(of.on) },
  }
end

local function adaptive(list)
  return by_name(list, function (move) return record(move.notation, "kind from to") end)
end

local function retry(of)
  return object { { "attempts", value(of.attempts) },
    { "backoff", value(backoff_text.format(of.backoff)) },
    { "budget", of.budget and value(of.budget) } }
end

local function shed(of)
  return object { { "when", record(of.when, "what share") },
    { "keep", of.keep and record(of.keep, "priority") } }
end

-- Hooks are named only: "file:line".
local function hooks(declared)
  local parts, events = {}, {}
  local function put(name, hook)
    parts[#parts + 1] = { name, value(("%s:%d"):format(hook.file, hook.line)) }
  end
  if declared.estimate then put("estimate", declared.estimate) end
  for event in pairs(declared.on) do events[#events + 1] = event end
  sort(events)
  for _, event in ipairs(events) do put(event, declared.on[event]) end
  return parts[1] and object(parts)
end

local function policy(declared)
  local function part(name, print)
    return { name, declared[name] and print(declared[name]) or nil }
  end
  return object {
    part("doc", value), part("line", value),
    { "limits", declared.limits[1] and limits(declared.limits) or nil }, part("costs", array),
    part("per", scopes),
    part("lease", function (lease) return record(lease, "ttl_ns settle") end),
    part("backoff", backoff), part("breaker", breaker), part("adaptive", adaptive),
    part("queue", function (queue)
      return record(queue, "max timeout_ns fair priority overflow ageing_ns")
    end),
    part("retry", retry), part("shed", shed), part("start", value), part("on_change", value),
    { "hooks", hooks(declared) },
  }
end

local function user(declared)
  local password = declared.from and object { { "env", value(declared.from) } } or value "(hidden)"
  return object { { "password", password }, { "allow", array(declared.allow) } }
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
