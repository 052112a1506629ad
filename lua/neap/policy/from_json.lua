--- A policy tree's JSON, read back as the declarations it stands for.
--
-- Nothing is checked here a second time: each object becomes the table that a policy file would
-- have written, numbers become the texts that say the same, and then everything is checked as it
-- is for a file. A mistake points into the JSON. Numbers rule: a limit's "text" is kept when it
-- says what they say. Hooks are functions, and not carried.
local cjson = require "cjson"
local lpeg = require "lpeg"
local grammar = require "neap.grammar"
local notation = require "neap.notation"
local room = require "neap.policy.room"
local source = require "neap.policy.source"

local P, R, S, V = lpeg.P, lpeg.R, lpeg.S, lpeg.V
local C, Cp, Ct = lpeg.C, lpeg.Cp, lpeg.Ct
local ipairs, pairs, pcall = ipairs, pairs, pcall
local setmetatable, type = setmetatable, type
local concat, insert, sort = table.concat, table.insert, table.sort

local from_json = {}

-- ---- JSON with its places ---------------------------------------------------------------------

-- A value is { at, kind, value }: of an object its fields { key_at, key, value } in order, of an
-- array its values.
local oops, blank = grammar.oops, grammar.blank

local function decoded(at, text)
  local ok, list = pcall(cjson.decode, "[" .. text .. "]")
  if not ok then grammar.fault(at, "no value of JSON") end
  return list[1]
end

local function made(kind)
  return function (at, value) return { at = at, kind = kind, value = value } end
end

-- Values with commas between, up to a bracket.
local function list_of(item, mark)
  return blank * Ct(P(mark) + item * (blank * "," * item) ^ 0
    * blank * (P(mark) + oops(("',' or '%s'"):format(mark))))
end

local digits = R "09" ^ 1
local json = grammar.whole(P {
  "value",
  value  = blank * (V "object" + V "array" + V "scalar" + oops "a value"),
  object = Cp() * "{" * list_of(V "field", "}") / made "object",
  array  = Cp() * "[" * list_of(V "value", "]") / made "array",
  field  = blank * Cp() * (C(V "string") + oops "a name in quotes") * blank
         * (P ":" + oops "':'") * V "value" / function (at, text, value)
             return { key_at = at, key = decoded(at, text), value = value }
           end,
  scalar = Cp() * C(V "string" + V "number" + "true" + "false" + "null") / function (at, text)
             return { at = at, kind = "scalar", value = decoded(at, text) }
           end,
  string = '"' * (P "\\" * 1 + (1 - S '"\\')) ^ 0 * (P '"' + oops "'\"'"),
  number = P "-" ^ -1 * (P "0" + R "19" * R "09" ^ 0) * (P "." * digits) ^ -1
         * (S "eE" * S "+-" ^ -1 * digits) ^ -1,
})

-- ---- what it stands for -----------------------------------------------------------------------

-- Each of these gives a value of the language for one of JSON, and its constructor if it is a
-- table. `map` is the source of both.
local plain

-- A table and its constructor, to which fields are put.
local function new_table(map, at)
  local body, built = {}, { at = at, fields = {}, named = {}, source = map }
  return body, built, function (key, key_at, at_value, value, inner)
    local field = { key = key, key_at = key_at, at = at_value, node = inner }
    body[key] = value
    insert(built.fields, field)
    built.named[key] = field
  end
end

-- An object whose fields are renamed and converted; `rest` is for those that are not.
local function object(names, rest)
  return function (map, json_value)
    if json_value.kind ~= "object" then return plain(map, json_value) end
    local body, built, put = new_table(map, json_value.at)
    for _, field in ipairs(json_value.value) do
      local rule = names[field.key] or { field.key, rest or plain }
      if rule[1] then
        put(rule[1], field.key_at, field.value.at, rule[2](map, field.value))
      end
    end
    return body, built
  end
end

function plain(map, json_value)
  if json_value.kind == "object" then return object({})(map, json_value) end
  if json_value.kind == "scalar" then
    if json_value.value == cjson.null then return nil end
    return json_value.value
  end
  local body, built, put = new_table(map, json_value.at)
  for i, item in ipairs(json_value.value) do put(i, item.at, item.at, plain(map, item)) end
  return body, built
end

-- An object of numbers as the text that says the same; as it is when it says nothing.
local function as_text(format)
  return function (map, json_value)
    local value, built = plain(map, json_value)
    if type(value) == "string" then return value end
    local ok, text = pcall(format, value)
    if ok and text then return text end
    return value, built
  end
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do if not same(value, b[key]) then return false end end
  for key in pairs(b) do if a[key] == nil then return false end end
  return true
end

local function limit_text(given)
  local value = { kind = "rate", amount = given.rate, per_ns = given.per_ns, burst = given.burst,
    mode = given.mode or "burst" }
  if given.in_flight then value = { kind = "in_flight", amount = given.in_flight } end
  if given.unlimited or given.closed then
    value = { kind = given.unlimited and "unlimited" or "closed" }
  end
  local text = notation.format(value)
  return same(notation.limit(given.text or ""), value) and given.text or text
end

local function priority_text(given) return given.priority and "priority " .. given.priority end

local limit = as_text(limit_text)
local limits = object({}, limit)
local duration = as_text(notation.format_duration)
local share = as_text(notation.format_share)

local SCOPE = {
  by = { false }, line = { false }, limits = { "limits", limits },
  override = { "override", object({}, limits) }, keep = { "keep", as_text(notation.format_keep) },
}

local POLICY = {
  line = { false }, costs = { false }, hooks = { false }, per = { false },
  limits = { "limits", limits },
  lease = { "lease", object { ttl_ns = { "ttl", duration } } },
  backoff = { "backoff", object { window_ns = { "window", duration },
    throttled = { "throttled", limits } } },
  breaker = { "breaker", object { trip = { "trip", as_text(notation.format_trip) },
    cooldown_ns = { "cooldown", duration } } },
  adaptive = { "adaptive", object({}, as_text(notation.format_adaptive)) },
  queue = { "queue", object { timeout_ns = { "timeout", duration },
    ageing_ns = { "ageing", duration } } },
  retry = { "retry", object { budget = { "budget", share } } },
  shed = { "shed", object { when = { "when", as_text(notation.format_pressure) },
    keep = { "keep", as_text(priority_text) } } },
}

-- The value of an object's field, or nil.
local function field_of(json_value, key)
  for _, field in ipairs(json_value.kind == "object" and json_value.value or {}) do
    if field.key == key then return field.value, field end
  end
end

-- A whole number that says where something stood in the file that this was printed from.
local function line_of(json_value)
  local line = field_of(json_value, "line")
  return line and type(line.value) == "number" and line.value or nil
end

-- Add scopes to a policy's table, as `per "tenant" { … }` would stand there.
local function add_scopes(map, list, body, built)
  for i, json_value in ipairs(list and list.kind == "array" and list.value or {}) do
    local by = field_of(json_value, "by")
    local parts = by and plain(map, by)
    local inner, node = object(SCOPE)(map, json_value)
    local scope = { noun = "per", name = type(parts) == "table" and concat(parts, ", ") or parts,
      body = inner, source = map, line = line_of(json_value) or 1, origin = {} }
    body[i] = setmetatable(scope, room.Scope)
    local field = { key = i, key_at = json_value.at, at = json_value.at, node = node }
    insert(built.fields, field)
    built.named[i] = field
    if type(inner) == "table" then
      map.sites[inner] = { at = json_value.at, name_at = by and by.at or json_value.at, node = node,
        says = scope.line }
    end
  end
end

-- What a limit says of changes stands beside the limits in a file.
local function take_changes(list, body)
  local changes
  for _, field in ipairs(list and list.kind == "object" and list.value or {}) do
    local change = field_of(field.value, "on_change")
    if change then
      changes = changes or {}
      changes[field.key] = change.value
    end
  end
  if changes and body.on_change == nil then body.on_change = changes end
end

local function check_hooks(reading, map, json_value)
  local hooks = field_of(json_value, "hooks")
  if not hooks or hooks.kind ~= "object" then return end
  local names = {}
  for i, field in ipairs(hooks.value) do names[i] = field.key end
  sort(names)
  reading.report:warn({ at = hooks.at, source = map }, "hooks",
    "hooks are not carried: " .. concat(names, ", "))
end

local function password(reading)
  return function (map, json_value)
    local name = field_of(json_value, "env")
    if name then
      local value = type(name.value) == "string" and reading.getenv(name.value)
      if value then
        reading.secrets[value] = name.value
        return value
      end
      reading.report:add({ at = name.at, source = map }, nil,
        ("'%s' is not set in the environment"):format(notation.show(name.value)))
      return room.blank
    elseif json_value.value == "(hidden)" then
      reading.report:add({ at = json_value.at, source = map }, nil,
        'a password is not carried: write { "env": "NAME" }')
      return room.blank
    end
    return plain(map, json_value)
  end
end

-- ---- reading ----------------------------------------------------------------------------------

--- Whether a text is JSON: no Lua begins with a brace.
---@param text string
---@return boolean
function from_json.is(text)
  return text:find "^\239?\187?\191?%s*{" ~= nil
end

-- The declarations of one noun, by name.
local function declare(reading, map, noun, list, shape)
  for _, field in ipairs(list and list.kind == "object" and list.value or {}) do
    local body, node = object(shape)(map, field.value)
    local call = { noun = noun, name = field.key, body = body, source = map, line = 1 }
    if type(body) == "table" and noun == "policy" then
      add_scopes(map, field_of(field.value, "per"), body, node)
      take_changes(field_of(field.value, "limits"), body)
      check_hooks(reading, map, field.value)
    end
    if type(body) == "table" then
      map.sites[body] = { at = field.value.at, name_at = field.key_at, node = node,
        says = line_of(field.value) }
    end
    insert(reading.calls, call)
  end
end

--- Read a text as a file of this reading: its declarations are then in `reading.calls`.
---@param text string
---@param file string
---@return boolean  false when it is no JSON, which is then reported
function from_json.open(reading, text, file)
  text = text:gsub("^\239\187\191", "   ")
  local map = source.new(text, {}, file)
  map.sites = {}
  function map:site(_, _, _, body) return self.sites[body] end
  reading.sources[1] = map
  local ok, top, message, at = pcall(grammar.read, json, text)
  if not ok then top, message = nil, "nested too deep" end
  if not top then
    reading.report:add({ at = at, source = map }, nil, message)
    return false
  end

  local known = { neap = true, listen = true, users = true, policies = true }
  for _, field in ipairs(top.value) do
    if not known[field.key] then
      reading.report:add({ at = field.key_at, source = map }, nil, (notation.suggest(
        ("unknown field '%s'"):format(notation.show(field.key)), field.key,
        { "neap", "listen", "users", "policies" })))
    end
  end
  local version, listen = field_of(top, "neap"), field_of(top, "listen")
  if not version or version.value ~= 1 then
    reading.report:add({ at = version and version.at or top.at, source = map }, "neap",
      'a policy in JSON begins with "neap": 1')
  end
  declare(reading, map, "user", field_of(top, "users"),
    { password = { "password", password(reading) } })
  reading.has_users = #reading.calls > 0
  if listen then
    local body, node = plain(map, listen)
    if type(body) == "table" then map.sites[body] = { at = listen.at, node = node } end
    insert(reading.calls, { noun = "listen", body = body, source = map, line = 1 })
  end
  declare(reading, map, "policy", field_of(top, "policies"), POLICY)
  return true
end

return from_json
