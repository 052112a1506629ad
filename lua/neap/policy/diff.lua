--- What a reload does to each limit: two trees compared, by policy, scope and name.
--
-- A limit of the same kind keeps something of what it was: what is used, unless its policy says
-- otherwise (`on_change`). One of another kind, or under a new name, begins anew.
local notation = require "neap.notation"
local rows = require "neap.policy.table"

local ipairs = ipairs
local concat = table.concat

local diff = {}

---@class neap.Change
---@field policy string
---@field change "new"|"gone"|"same"|"changed"|"replaced"  replaced: of another kind
---@field scope string?      "tenant, route"; of a limit of a scope
---@field override string?   whose limit in that scope
---@field limit string?      its name
---@field part string?       or what else of the policy: "queue", "breaker", …
---@field from table|string|nil  as the old tree has it: the limit, or the part's text
---@field to table|string|nil    as the new tree has it
---@field keeps "keep used"|"keep balance"|"scale"|"reset"|nil  of a limit that goes on

-- Limits of one kind can take each other's state: a bucket is one, whatever its burst.
local function kind_of(value)
  return (value.mode == "sliding" or value.mode == "fixed") and value.mode or value.kind
end

-- All limits of a policy: { key, scope, override, limit }, in order.
local function limits_of(declared)
  local list, by_key = {}, {}
  local function put(limits, scope, override)
    for _, limit in ipairs(limits) do
      local entry = { scope = scope, override = override, limit = limit,
        key = concat({ scope or "", override or "", limit.name }, "\0") }
      list[#list + 1], by_key[entry.key] = entry, entry
    end
  end
  put(declared and declared.limits or {})
  for _, scope in ipairs(declared and declared.per or {}) do
    local by = concat(scope.by, ", ")
    put(scope.limits, by)
    for _, override in ipairs(scope.override) do put(override.limits, by, override.name) end
  end
  return list, by_key
end

local function compare_limits(changes, name, old, new)
  local before, was = limits_of(old)
  local after, is = limits_of(new)
  for _, entry in ipairs(after) do
    local from = was[entry.key] and was[entry.key].limit
    local to = entry.limit
    local change = { policy = name, scope = entry.scope, override = entry.override,
      limit = to.name, from = from, to = to, change = "new" }
    if from and kind_of(from.notation) ~= kind_of(to.notation) then
      change.change = "replaced"
    elseif from then
      change.change = notation.format(from.notation) == notation.format(to.notation) and "same"
        or "changed"
      change.keeps = to.on_change or new.on_change or "keep used"
    end
    changes[#changes + 1] = change
  end
  for _, entry in ipairs(before) do
    if not is[entry.key] then
      changes[#changes + 1] = { policy = name, scope = entry.scope, override = entry.override,
        limit = entry.limit.name, from = entry.limit, change = "gone" }
    end
  end
end

-- Everything else of a policy, as people read it; where a hook stands is no difference.
local function parts_of(declared)
  local order, text = {}, {}
  for _, row in ipairs(declared and rows.parts_of(declared) or {}) do
    order[#order + 1], text[row[1]] = row[1], row[2]
  end
  return order, text
end

local function compare_parts(changes, name, old, new)
  local before, was = parts_of(old)
  local after, is = parts_of(new)
  for _, part in ipairs(after) do
    if was[part] ~= is[part] then
      changes[#changes + 1] = { policy = name, part = part, from = was[part], to = is[part],
        change = was[part] and "changed" or "new" }
    end
  end
  for _, part in ipairs(before) do
    if not is[part] then
      changes[#changes + 1] = { policy = name, part = part, from = was[part], change = "gone" }
    end
  end
end

local function by_name(tree)
  local found = {}
  for _, declared in ipairs(tree.policies) do found[declared.name] = declared end
  return found
end

--- What changes from one tree to another, in the order of the new one; what is gone comes last.
---
---     local function tree(limit)
---       return neap.policy.parse(('policy "p" { limits = { a = "%s" } }'):format(limit), "p.lua")
---     end
---     local changes = neap.policy.compare(tree "5/s", tree "9/s")
---     print(changes[1].change, changes[1].keeps)          --> "changed", "keep used"
---
---@param old neap.tree
---@param new neap.tree
---@return neap.Change[]
function diff.compare(old, new)
  local changes, was, is = {}, by_name(old), by_name(new)
  local function compare(name)
    compare_limits(changes, name, was[name], is[name])
    if was[name] and is[name] then compare_parts(changes, name, was[name], is[name]) end
  end
  for _, declared in ipairs(new.policies) do compare(declared.name) end
  for _, declared in ipairs(old.policies) do
    if not is[declared.name] then compare(declared.name) end
  end
  return changes
end

-- ---- for people -------------------------------------------------------------------------------

local KEEPS = { ["keep used"] = "what is used stays used",
  ["keep balance"] = "what is left stays left", scale = "as full as it was", reset = "begins full" }

local function text_of(value)
  return value and (value.notation and notation.format(value.notation) or value)
end

-- The pieces of "max 5, timeout 2s" that are not in another such text.
local function pieces_of(text, other)
  local theirs, pieces = {}, {}
  for piece in (other .. ", "):gmatch "(.-), " do theirs[piece] = true end
  for piece in (text .. ", "):gmatch "(.-), " do
    if not theirs[piece] then pieces[#pieces + 1] = piece end
  end
  return pieces[1] and concat(pieces, ", ") or "-"
end

local function say(change)
  local from, to = text_of(change.from), text_of(change.to)
  if change.part and change.change == "changed" then
    from, to = pieces_of(from, to), pieces_of(to, from)
  end
  if change.change == "same" then return to .. ", as it is" end
  if change.change == "new" then return "new: " .. to end
  if change.change == "gone" then return "gone: " .. from end
  local text = from .. " -> " .. to
  if change.change == "replaced" then return text .. ", another kind: begins anew" end
  return change.keeps and text .. ", " .. KEEPS[change.keeps] or text
end

local function name_of(change)
  local name = change.part or notation.show(change.limit, 128)
  if change.override then name = notation.show(change.override, 128) .. " " .. name end
  return change.scope and ('per "%s" %s'):format(change.scope, name) or name
end

--- The changes as rows: policy, what, and what becomes of it.
---@param changes neap.Change[]
---@return string[][]
function diff.rows(changes)
  local list, last = {}, nil
  for i, change in ipairs(changes) do
    list[i] = { change.policy == last and "" or notation.show(change.policy, 128), name_of(change),
      say(change) }
    last = change.policy
  end
  return list
end

return diff
