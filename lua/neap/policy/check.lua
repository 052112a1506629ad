--- What each declaration of a policy file may say, checked against the text it stands in.
--
-- A 'reading' is the state of one file: its source, its report, the tree that grows. A 'spot' is a
-- declared table with its constructor, if the text has it, and the place to point to for what it
-- lacks. Values the room already complained about are blank and are passed over.
local address = require "neap.policy.address"
local notation = require "neap.notation"
local room = require "neap.policy.room"

local ipairs, next, pairs, tostring, type = ipairs, next, pairs, tostring, type
local insert, sort = table.insert, table.sort
local huge = math.huge

local blank = room.blank

local check = {}

--- The kinds and modes of limit that the engine can hold to. What is false here is refused by
--- name; whoever brings it switches it on.
check.supported = { rate = true, in_flight = true, unlimited = true, closed = true, burst = true,
  smooth = true, sliding = true, fixed = false }

local MOST_LIMITS = 8                      -- of one policy: each has a cost of its own
local FASTEST = 6                          -- tokens per ns
local LONGEST_LOG = 2 ^ 20                 -- grants that a sliding limit remembers
local LONGEST_NAME = 128
local LONGEST_DOC = 4096
local LEASE_NS = 60e9                      -- a lease that says nothing lives a minute
local LEAST_NS, MOST_NS = 1e6, 30 * 86400e9
local CATEGORIES = { "acquire", "read", "events", "admin" }
local ALLOWED = { "acquire", "read" }      -- what a user may do who is told nothing

-- The fields of each table: true when checked here, false when reserved by the language.
local FIELDS = {
  policy = { doc = true, limits = true, lease = true, estimate = false, backoff = false,
    breaker = false, queue = false, retry = false, on = false, adaptive = false, shed = false,
    keep = false, fair = false, override = false, per = false, start = false, on_change = false,
    on_lost = false, upstream = false },
  lease = { ttl = true, settle = true },
  user = { password = true, allow = true },
  listen = { resp = true, http = true },
}

local function list_of(words)
  local names = {}
  for name in pairs(words) do names[#names + 1] = name end
  sort(names)
  return names
end

local FIELD_NAMES = {}
for noun, fields in pairs(FIELDS) do FIELD_NAMES[noun] = list_of(fields) end

local function show(value)
  return notation.show(tostring(value))
end

-- ---- places -----------------------------------------------------------------------------------

local function spot_in(reading, spot, key, value)
  local field = spot.node and spot.node.named[key]
  return { at = field and field.at or spot.at, line = spot.line,
    node = field and field.node or reading.source:like(value) }
end

local function place_of(spot, key)
  local field = spot.node and spot.node.named[key]
  return field and { at = field.at } or spot
end

-- The place of a byte inside a text value.
local function place_inside(reading, spot, key, value, offset)
  local field = spot.node and spot.node.named[key]
  return field and { at = reading.source:inside(field, value, offset) } or spot
end

-- The keys of a table as the text has them; those it does not have come last, by name.
local function textual(spot, value)
  local names = {}
  for name in pairs(value) do names[#names + 1] = name end
  local named = spot.node and spot.node.named or {}
  sort(names, function (a, b)
    local x, y = named[a] and named[a].key_at or huge, named[b] and named[b].key_at or huge
    if x ~= y then return x < y end
    return tostring(a) < tostring(b)
  end)
  return names
end

-- ---- checks that all tables share -------------------------------------------------------------

-- Lua keeps the last of two equal keys without a word.
local function check_twice(reading, spot, path)
  local seen = {}
  for _, field in ipairs(spot.node and spot.node.fields or {}) do
    local first = field.key ~= nil and seen[field.key]
    if first then
      reading.report:add({ at = field.key_at }, path .. show(field.key),
        ("'%s' is written twice (first on line %d)"):format(show(field.key),
          (reading.source:place(first.key_at))))
    elseif field.key ~= nil then
      seen[field.key] = field
    end
  end
end

-- Complain about fields that a table of this kind does not have.
local function check_fields(reading, spot, body, kind, path, owner)
  check_twice(reading, spot, path)
  for key, value in pairs(body) do
    local known = FIELDS[kind][key]
    if known == nil and type(key) == "string" then
      reading.report:add(place_of(spot, key), path .. show(key),
        notation.suggest(("unknown field '%s' in %s"):format(show(key), owner), key,
          FIELD_NAMES[kind]))
    elseif known == nil and value ~= blank then
      reading.report:add(place_of(spot, key), nil,
        ("a %s without a name in %s: write name = value"):format(type(value), owner))
    elseif known == false then
      reading.report:add(place_of(spot, key), path .. key,
        ("'%s' is not supported by this version"):format(key))
    end
  end
end

-- A field's value if it is of this type. Nothing is said about an absent or a blank one.
local function typed(reading, spot, body, key, expected, path)
  local value = body[key]
  if value == nil or value == blank then return nil end
  if type(value) == expected then return value end
  reading.report:add(place_of(spot, key), path .. key,
    ("%s expected, got %s"):format(expected == "string" and "text" or expected, type(value)))
end

-- The words of "a, b" or { "a", "b" }, each with its place.
local function words_of(reading, spot, body, key, path)
  local value, words = body[key], {}
  if type(value) == "table" and value ~= blank then
    local inner = spot_in(reading, spot, key, value)
    for i = 1, #value do
      if type(value[i]) == "string" then
        words[#words + 1] = { word = value[i], place = place_of(inner, i) }
      elseif value[i] ~= blank then
        reading.report:add(place_of(inner, i), path .. key, "text expected, got " .. type(value[i]))
      end
    end
    return words
  end
  value = typed(reading, spot, body, key, "string", path)
  for from, word in (value or ""):gmatch "()([^,%s]+)" do
    words[#words + 1] = { word = word,
      place = place_inside(reading, spot, key, value, from) }
  end
  return words
end

local function check_word(reading, seen, entry, known, path, what)
  if not known[entry.word] then
    reading.report:add(entry.place, path, notation.suggest(
      ("unknown %s '%s'"):format(what, show(entry.word)), entry.word, list_of(known)))
  elseif seen[entry.word] then
    reading.report:add(entry.place, path, ("'%s' twice"):format(show(entry.word)))
  else
    seen[entry.word] = true
    return true
  end
end

-- ---- limits -----------------------------------------------------------------------------------

local LIMIT_NAME = "^[%a_][%w_-]*$"
local EXAMPLE = 'as in calls = "5 in flight"'

-- What is right as a limit, and yet more than the engine can hold to.
local function excess(value)
  local kind = value.mode or value.kind
  if not check.supported[value.kind] or not check.supported[kind] then
    return ("'%s' is not supported by this version"):format((kind:gsub("_", " ")))
  elseif value.kind == "rate" and value.amount / value.per_ns > FASTEST then
    return ("%s is faster than %d tokens per ns"):format(notation.format(value), FASTEST)
  elseif kind == "sliding" and value.amount > LONGEST_LOG then
    return ("a sliding limit remembers up to %d grants, this one could have %d; leave 'sliding' "
      .. "out"):format(LONGEST_LOG, value.amount)
  end
end

local function check_limit(reading, spot, name, text, path)
  local value, message, offset, hint = notation.limit(text)
  if value then
    local problem = excess(value)
    if not problem then return value end
    reading.report:add(place_of(spot, name), path, problem)
  elseif type(text) == "number" then
    reading.report:add(place_of(spot, name), path, message)
  elseif type(text) ~= "string" then
    reading.report:add(place_of(spot, name), path,
      ("a limit is text, %s; got %s"):format(EXAMPLE, type(text)))
  else
    reading.report:add(place_inside(reading, spot, name, text, offset), path,
      ('bad limit "%s": %s'):format(show(text), message), hint)
  end
end

-- The good limits in textual order; and all names, good or bad, if the table can be read at all.
local function check_limits(reading, spot, body, owner)
  local limits, names = {}, {}
  local given = typed(reading, spot, body, "limits", "table", "")
  if body.limits == nil then
    reading.report:add(spot.name, "limits", owner .. " has no limits")
  end
  if not given then return limits, nil end
  local inner = spot_in(reading, spot, "limits", given)
  check_twice(reading, inner, "limits.")
  for _, name in ipairs(textual(inner, given)) do
    local text = given[name]
    if type(name) ~= "string" then
      if text ~= blank then
        reading.report:add(place_of(inner, name), "limits", "a limit needs a name, " .. EXAMPLE)
      end
    elseif not name:find(LIMIT_NAME) or #name > LONGEST_NAME then
      reading.report:add(place_of(inner, name), "limits." .. show(name),
        "a limit's name is letters, digits, '_' and '-', and does not start with a digit")
    elseif text ~= blank then
      local value = check_limit(reading, inner, name, text, "limits." .. name)
      limits[#limits + 1] = value and { name = name, notation = value, text = text }
    end
    if type(name) == "string" then names[name] = true end
    if #limits == MOST_LIMITS + 1 then
      reading.report:add(place_of(inner, name), "limits", ("%s has more than %d limits"):format(
        owner, MOST_LIMITS))
    end
  end
  if next(given) == nil then
    reading.report:add(place_of(spot, "limits"), "limits",
      "at least one limit expected, " .. EXAMPLE)
  end
  return limits, names
end

local function check_lease(reading, spot, body, limit_names, owner)
  local lease = { ttl_ns = LEASE_NS, settle = {} }
  local given = typed(reading, spot, body, "lease", "table", "")
  if not given then return lease end
  local inner = spot_in(reading, spot, "lease", given)
  check_fields(reading, inner, given, "lease", "lease.", "the lease of " .. owner)
  local ttl = given.ttl
  if ttl ~= nil and ttl ~= blank then
    local ns, message, offset, hint = notation.duration(ttl)
    if not ns then
      local bad = type(ttl) == "string" and ('bad duration "%s": '):format(show(ttl)) or ""
      reading.report:add(place_inside(reading, inner, "ttl", ttl, offset), "lease.ttl",
        bad .. message, hint)
    elseif ns < LEAST_NS or ns > MOST_NS then
      reading.report:add(place_of(inner, "ttl"), "lease.ttl",
        ("%s is outside %s to %s"):format(notation.format_duration(ns),
          notation.format_duration(LEAST_NS), notation.format_duration(MOST_NS)))
    else
      lease.ttl_ns = ns
    end
  end
  local seen = {}
  for _, entry in ipairs(words_of(reading, inner, given, "settle", "lease.")) do
    if limit_names and check_word(reading, seen, entry, limit_names, "lease.settle", "limit") then
      lease.settle[#lease.settle + 1] = entry.word
    end
  end
  return lease
end

-- ---- declarations -----------------------------------------------------------------------------

function check.policy(reading, spot, name, body)
  local owner = ("policy '%s'"):format(show(name))
  check_fields(reading, spot, body, "policy", "", owner)
  local limits, names = check_limits(reading, spot, body, owner)
  local doc = typed(reading, spot, body, "doc", "string", "")
  if doc and #doc > LONGEST_DOC then
    reading.report:add(place_of(spot, "doc"), "doc", ("longer than %d bytes"):format(LONGEST_DOC))
  end
  local declared = { name = name, line = spot.line, limits = limits, doc = doc,
    lease = check_lease(reading, spot, body, names, owner) }
  reading.tree.policies[#reading.tree.policies + 1] = declared
end

function check.user(reading, spot, name, body)
  local owner = ("user '%s'"):format(show(name))
  check_fields(reading, spot, body, "user", "", owner)
  local password = typed(reading, spot, body, "password", "string", "")
  if body.password == nil then
    reading.report:add(spot.name, nil, owner .. " has no password")
  elseif password == "" then
    reading.report:add(place_of(spot, "password"), "password", "the password of " .. owner
      .. " is empty")
  end
  local known, seen, allow = {}, {}, {}
  for _, category in ipairs(CATEGORIES) do known[category] = true end
  for _, entry in ipairs(words_of(reading, spot, body, "allow", "")) do
    check_word(reading, seen, entry, known, "allow", "category")
  end
  if body.allow == nil then
    for _, category in ipairs(ALLOWED) do seen[category] = true end
  end
  for _, category in ipairs(CATEGORIES) do
    if seen[category] then allow[#allow + 1] = category end
  end
  reading.tree.users[#reading.tree.users + 1] = { name = name, password = password, allow = allow,
    from = reading.secrets[password] }
end

local function check_addresses(reading, spot, kind, given)
  local listed = type(given) == "table" and given ~= blank
  local inner = listed and spot_in(reading, spot, kind, given) or spot
  for i, text in ipairs(listed and given or { given }) do
    local key = listed and i or kind
    local parsed, message, offset = address.parse(text)
    local place = place_inside(reading, inner, key, text, offset or 1)
    local path = "listen." .. kind .. (listed and ("[%d]"):format(i) or "")
    if text == blank then
      parsed = nil
    elseif not parsed then
      reading.report:add(place, path, message)
    elseif reading.served[text] then
      reading.report:add(place, path, ("'%s' twice"):format(show(text)))
    elseif not parsed.private and not reading.has_users then
      reading.report:add(place, path, ("'%s' is open to others: without a user only loopback and "
        .. "unix addresses are served"):format(show(text)))
    else
      insert(reading.tree.listen[kind], text)
    end
    if parsed then reading.served[text] = true end
  end
end

function check.listen(reading, spot, _, body)
  check_fields(reading, spot, body, "listen", "listen.", "listen")
  reading.served = {}
  if body.resp ~= nil then check_addresses(reading, spot, "resp", body.resp) end
  if body.http ~= nil then check_addresses(reading, spot, "http", body.http) end
end

return check
