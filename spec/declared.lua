--- Policies as trees, for specs of what a worker or a program makes of them.
local notation = require "neap.notation"

local declared = {}

--- Limits from pairs of a name and a text, in order.
function declared.limits(...)
  local list, words = {}, { ... }
  for i = 1, #words, 2 do
    list[#list + 1] = { name = words[i], text = words[i + 1],
      notation = assert(notation.limit(words[i + 1])) }
  end
  return list
end

--- A policy, whose usual parts are there.
function declared.policy(fields)
  fields.name, fields.limits = fields.name or "api", fields.limits or {}
  fields.lease = fields.lease or { ttl_ns = 60e9, settle = {} }
  return fields
end

--- A tree of such.
function declared.tree(...)
  local list = {}
  for i, fields in ipairs { ... } do list[i] = declared.policy(fields) end
  return { policies = list, users = {}, listen = { resp = {}, http = {} } }
end

return declared
