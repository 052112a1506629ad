--- The limits of a policy: its own, and those that every tenant, route or player has.
--
-- In `per "tenant" { … }` the words `limits override keep doc` are the language's; any other name
-- is a limit, so that one-liners stay one-liners.
local look = require "neap.policy.look"
local notation = require "neap.notation"
local room = require "neap.policy.room"

local ipairs, next, pairs, type = ipairs, next, pairs, type
local concat, sort = table.concat, table.sort

local blank = room.blank
local show, place_of = look.show, look.place_of

local limits = {}

local MOST_COSTS = 8                       -- of one policy, those of its scopes counted once
local FASTEST = 6                          -- tokens per ns
local LONGEST_LOG = 2 ^ 20                 -- grants that a sliding limit remembers
local LONGEST_NAME = 128
local LONGEST_DOC = 4096
local MOST_SCOPES = 4                      -- of one policy: a request has so many keys
local MOST_PARTS = 4                       -- of one scope's key
local MOST_KEYS = 2 ^ 24
local KEYS = 100000                        -- unless told
local SCOPE_FIELDS = { limits = true, override = true, keep = true, doc = true, fair = true }

local NAME = "^[%a_][%w_-]*$"
local EXAMPLE = 'as in calls = "5 in flight"'

-- What is right as a limit, and yet more than the engine can hold to.
local function excess(value)
  if value.kind == "rate" and value.amount / value.per_ns > FASTEST then
    return ("%s is faster than %d tokens per ns"):format(notation.format(value), FASTEST)
  elseif value.mode == "sliding" and value.amount > LONGEST_LOG then
    return ("a sliding limit remembers up to %d grants, this one could have %d; leave 'sliding' "
      .. "out"):format(LONGEST_LOG, value.amount)
  end
end

--- One limit from its text; nil when something is wrong with it.
---@return neap.limit?
function limits.read(reading, spot, name, text, path)
  local value, message, offset, hint = notation.limit(text)
  if value then
    local problem = excess(value)
    if problem then return reading.report:add(place_of(spot, name), path, problem) end
    local held = look.held(reading, place_of(spot, name), path, value.kind)
      and (not value.mode or look.held(reading, place_of(spot, name), path, value.mode))
    return held and value or nil
  elseif type(text) == "number" then
    reading.report:add(place_of(spot, name), path, message)
  elseif type(text) ~= "string" then
    reading.report:add(place_of(spot, name), path,
      ("a limit is text, %s; got %s"):format(EXAMPLE, type(text)))
  else
    reading.report:add(look.place_inside(spot, name, text, offset), path,
      ('bad limit "%s": %s'):format(show(text), message), hint)
  end
end

---@class neap.found
---@field list { name: string, notation: neap.limit, text: string }[]   the good ones
---@field names table<string, table>   good or bad: where they stand
---@field order string[]               the same, as written

-- One limit of a table.
local function add(reading, spot, name, text, path, found)
  local place = place_of(spot, name)
  if type(name) ~= "string" then
    if text ~= blank then
      reading.report:add(place, (path:gsub("%.$", "")), "a limit needs a name, " .. EXAMPLE)
    end
  elseif not name:find(NAME) or #name > LONGEST_NAME then
    reading.report:add(place, path .. show(name),
      "a limit's name is letters, digits, '_' and '-', and does not start with a digit")
  elseif found.names[name] then
    reading.report:add(place, path .. name, ("'%s' twice"):format(name))
  else
    local value = text ~= blank and limits.read(reading, spot, name, text, path .. name)
    if value then found.list[#found.list + 1] = { name = name, notation = value, text = text } end
    found.names[name] = place
    found.order[#found.order + 1] = name
  end
end

-- Add the limits of a table to what was found, in textual order.
local function collect(reading, spot, given, path, found, reserved)
  for _, name in ipairs(look.textual(spot, given)) do
    if not (reserved and reserved[name]) then add(reading, spot, name, given[name], path, found) end
  end
end

local function new_found() return { list = {}, names = {}, order = {} } end

-- Names a call can be charged by: a policy's own first, then those that only scopes have.
local function add_costs(reading, declared, found, path, owner)
  local known = {}
  for _, name in ipairs(declared.costs) do known[name] = true end
  for _, name in ipairs(found.order) do
    if not known[name] then
      if #declared.costs == MOST_COSTS then
        local what = path == "limits" and "limits" or "limits of different names"
        reading.report:add(found.names[name], path,
          ("%s has more than %d %s"):format(owner, MOST_COSTS, what))
        return
      end
      declared.costs[#declared.costs + 1] = name
    end
  end
end

--- A policy's own limits, and all their names, good or bad; nil when the table cannot be read.
---@return table<string, table>? names
function limits.own(reading, spot, body, declared, owner, has_scopes)
  local given = look.typed(reading, spot, body, "limits", "table", "")
  if body.limits == nil and not has_scopes then
    reading.report:add(spot.name, "limits", owner .. " has no limits")
  end
  if not given then return body.limits == nil and {} or nil end
  local inner, found = look.spot_in(reading, spot, "limits", given), new_found()
  look.check_twice(reading, inner, "limits.")
  collect(reading, inner, given, "limits.", found)
  if next(given) == nil then
    reading.report:add(place_of(spot, "limits"), "limits",
      "at least one limit expected, " .. EXAMPLE)
  end
  declared.limits = found.list
  add_costs(reading, declared, found, "limits", owner)
  return found.names
end

-- ---- scopes -----------------------------------------------------------------------------------

-- The parts of a scope's key, from "tenant, route"; nil when something is wrong with them.
local function parts_of(reading, spot, name)
  local parts, seen = {}, {}
  local function wrong(message) reading.report:add(spot.name, "per", message) end
  if type(name) ~= "string" then
    return wrong 'per needs a name: write per "tenant" { … }'
  end
  for word in name:gmatch "[^,%s]+" do
    if not word:find(NAME) or #word > LONGEST_NAME then
      return wrong(("'%s' is no name for a part of a key: letters, digits, '_' and '-'"):format(
        show(word)))
    elseif seen[word] then
      return wrong(("'%s' twice"):format(word))
    end
    seen[word] = true
    parts[#parts + 1] = word
  end
  if #parts == 0 then return wrong 'per needs a name: write per "tenant" { … }' end
  if #parts > MOST_PARTS then return wrong(("a key has %d parts at most"):format(MOST_PARTS)) end
  return parts
end

local function check_override(reading, spot, body, found, path, owner)
  local overrides = {}
  local given = look.typed(reading, spot, body, "override", "table", path)
  if not given then return overrides end
  if not look.held(reading, place_of(spot, "override"), path .. "override", "override") then
    return overrides
  end
  local inner = look.spot_in(reading, spot, "override", given)
  local kinds = {}
  for _, limit in ipairs(found.list) do kinds[limit.name] = limit.notation.kind end
  look.check_twice(reading, inner, path .. "override.")
  for _, name in ipairs(look.textual(inner, given)) do
    local own, where = given[name], path .. "override." .. show(name)
    if type(name) ~= "string" then
      reading.report:add(place_of(inner, name), where,
        'an override needs a name, as in override = { acme = { … } }')
    elseif own ~= blank and type(own) ~= "table" then
      reading.report:add(place_of(inner, name), where, "table expected, got " .. type(own))
    elseif own ~= blank then
      local at, theirs = look.spot_in(reading, inner, name, own), new_found()
      look.check_twice(reading, at, where .. ".")
      collect(reading, at, own, where .. ".", theirs)
      for _, limit in ipairs(theirs.list) do
        local kind = limit.notation.kind
        if not found.names[limit.name] then
          reading.report:add(place_of(at, limit.name), where .. "." .. limit.name,
            notation.suggest(("%s has no limit '%s' to override"):format(owner, limit.name),
              limit.name, look.list_of(found.names)))
        elseif kinds[limit.name] and kind ~= kinds[limit.name] and kind ~= "unlimited"
          and kind ~= "closed" then
          reading.report:add(place_of(at, limit.name), where .. "." .. limit.name,
            ("%s is of another kind than the limit it stands for"):format(
              notation.format(limit.notation)))
        end
      end
      overrides[#overrides + 1] = { name = name, limits = theirs.list }
    end
  end
  return overrides
end

-- Limits in `limits`, and those that stand beside it.
local function check_scope_limits(reading, spot, body, path)
  local found = new_found()
  local given = look.typed(reading, spot, body, "limits", "table", path)
  if given then
    local inner = look.spot_in(reading, spot, "limits", given)
    look.check_twice(reading, inner, path .. "limits.")
    collect(reading, inner, given, path .. "limits.", found)
  end
  collect(reading, spot, body, path, found, SCOPE_FIELDS)
  if #found.order == 0 and body.limits ~= blank then
    reading.report:add(spot.name, path:gsub("%.$", ""),
      "at least one limit expected, as in requests = \"60/min\"")
  end
  return found
end

local function check_scope(reading, spot, entry, declared, owner)
  local parts = parts_of(reading, spot, entry.name)
  if not parts then return nil end
  local by = concat(parts, ", ")
  local path = ('per "%s".'):format(by)
  if entry.body == blank then return nil end
  if type(entry.body) ~= "table" then
    return reading.report:add(spot.name, "per", ('per "%s" needs a table: write per "%s" { … }')
      :format(by, by))
  end
  local body = entry.body
  owner = ('per "%s" of %s'):format(by, owner)
  look.check_twice(reading, spot, path)
  if body.fair ~= nil then
    reading.report:add(place_of(spot, "fair"), path .. "fair",
      ('taking turns is for a queue: write queue = { fair = "%s" } in the policy'):format(parts[1]))
  end
  local found = check_scope_limits(reading, spot, body, path)
  add_costs(reading, declared, found, path:gsub("%.$", ""), owner)
  local keep = look.read(reading, spot, body, "keep", path, notation.keep, "keep")
  if keep and keep.keys > MOST_KEYS then
    reading.report:add(place_of(spot, "keep"), path .. "keep",
      ("at most %d keys are kept"):format(MOST_KEYS))
  end
  local doc = look.typed(reading, spot, body, "doc", "string", path)
  if doc and #doc > LONGEST_DOC then
    reading.report:add(place_of(spot, "doc"), path .. "doc", "longer than 4096 bytes")
  end
  return { by = parts, limits = found.list, doc = doc, line = spot.line,
    override = check_override(reading, spot, body, found, path, owner),
    keep = keep or { keys = KEYS } }, found
end

-- A scope by its parts, whatever their order.
local function set_of(parts)
  local sorted = {}
  for i, part in ipairs(parts) do sorted[i] = part end
  sort(sorted)
  return concat(sorted, ",")
end

--- The scopes of a policy, in textual order; their limits' names go to `names`, unless it is nil.
---@param entries table[]   what `per` was given
---@param spot_of fun(entry: table): neap.spot
function limits.scopes(reading, entries, spot_of, declared, owner, names)
  local first = {}
  for i, entry in ipairs(entries) do
    local spot = spot_of(entry)
    if not look.held(reading, spot.name, "per", "per") then return end
    local scope, found = check_scope(reading, spot, entry, declared, owner)
    if i == MOST_SCOPES + 1 then
      reading.report:add(spot.name, "per", ("%s has more than %d scopes"):format(owner,
        MOST_SCOPES))
    end
    if scope then
      local set = set_of(scope.by)
      if first[set] then
        reading.report:add(spot.name, "per", ('per "%s" is declared twice (first on line %d)')
          :format(concat(scope.by, ", "), first[set]))
      end
      first[set] = first[set] or spot.line
      declared.per[#declared.per + 1] = scope
      reading.spots[scope] = spot
      for name, place in pairs(names and found.names or {}) do
        names[name] = names[name] or place
      end
    end
  end
end

return limits
