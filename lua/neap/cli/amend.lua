--- What a worker has declared, for a prompt: to be copied, maybe with other limits.
---
--- The worker says it as JSON (NEAP.POLICY GET), which is a policy file, too, but for what is not
--- said there: hooks and passwords.
local notation = require "neap.notation"
local policy = require "neap.policy"

local error, ipairs, pairs, pcall = error, ipairs, pairs, pcall
local tostring, type = tostring, type

local amend = {}

-- Where passwords come from is carried; what they are does not matter here.
local function getenv(name) return "of " .. name end

--- A policy as the worker has it declared; nil where it does not say, or not to this user.
---@param worker neap.Attached
---@param name string
---@return neap.policy?
function amend.declared(worker, name)
  local fine, text = pcall(worker.ask, worker, "NEAP.POLICY", "GET", name)
  if not fine or type(text) ~= "string" then return nil end
  local tree = policy.parse(text:gsub('"%(hidden%)"', '"-"'), "policy", { getenv = getenv })
  return tree and tree.policies[1]
end

--- Limits of a declared policy, written otherwise: a copy of it.
---@param declared neap.policy
---@param limits table<string, string>
---@return neap.policy
function amend.with(declared, limits)
  local copy, known, names = {}, {}, {}
  for name, value in pairs(declared) do copy[name] = value end
  copy.limits = {}
  for i, entry in ipairs(declared.limits or {}) do
    local text = limits[entry.name]
    known[entry.name], names[i] = true, entry.name
    local value, problem = entry.notation, nil
    if text ~= nil then value, problem = notation.limit(text) end
    if not value then
      error(("%s = '%s': %s"):format(entry.name, notation.show(tostring(text), 80), problem), 0)
    end
    copy.limits[i] = { name = entry.name, notation = value, text = notation.format(value),
      on_change = entry.on_change }
  end
  for name in pairs(limits) do
    if not known[name] then
      error(notation.suggest(("policy '%s' has no limit '%s'"):format(declared.name,
        notation.show(tostring(name))), tostring(name), names), 0)
    end
  end
  return copy
end

return amend
