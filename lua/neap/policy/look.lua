--- Looking into a declared table: where its fields stand, and whether they are of the right type.
--
-- A 'reading' is the state of one file and what it includes: its report, the tree that grows. A
-- 'spot' is a declared table with its constructor, if a text has it, and the place to point to for
-- what it lacks. Values the room already complained about are blank and are passed over.
local notation = require "neap.notation"
local room = require "neap.policy.room"

local ipairs, pairs, tostring, type = ipairs, pairs, tostring, type
local sort = table.sort
local huge = math.huge

local blank = room.blank

local look = {}

---@class neap.spot
---@field at integer?
---@field line integer?
---@field source neap.source?
---@field node neap.node?
---@field name table?   the place of the declaration's name

--- The names of a set, sorted.
---@param words table<string, any>
---@return string[]
function look.list_of(words)
  local names = {}
  for name in pairs(words) do names[#names + 1] = name end
  sort(names)
  return names
end

--- A value from the file, as it may be shown.
---@return string
function look.show(value)
  return notation.show(tostring(value))
end

local show = look.show

-- ---- places -----------------------------------------------------------------------------------

--- The first constructor with the contents of a table, in any of the files.
function look.like(reading, value)
  for _, source in ipairs(reading.sources) do
    local node = source:like(value)
    if node then return node end
  end
end

--- The table that stands in a field.
---@return neap.spot
function look.spot_in(reading, spot, key, value)
  local field = spot.node and spot.node.named[key]
  return { at = field and field.at or spot.at, line = spot.line,
    source = field and spot.node.source or spot.source,
    node = field and field.node or look.like(reading, value) }
end

--- Where a field's value stands; or the table, when no text has the field.
function look.place_of(spot, key)
  local field = spot.node and spot.node.named[key]
  return field and { at = field.at, source = spot.node.source } or spot
end

--- The place of a byte inside a text value.
function look.place_inside(spot, key, value, offset)
  local field = spot.node and spot.node.named[key]
  if not field then return spot end
  local source = spot.node.source
  return { at = source:inside(field, value, offset or 1), source = source }
end

--- The keys of a table as the text has them; those it does not have come last, by name.
---@return any[]
function look.textual(spot, value)
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

-- ---- fields -----------------------------------------------------------------------------------

--- Lua keeps the last of two equal keys without a word.
function look.check_twice(reading, spot, path)
  local seen = {}
  for _, field in ipairs(spot.node and spot.node.fields or {}) do
    local first = field.key ~= nil and seen[field.key]
    local source = spot.node.source
    if first then
      reading.report:add({ at = field.key_at, source = source }, path .. show(field.key),
        ("'%s' is written twice (first on line %d)"):format(show(field.key),
          (source:place(first.key_at))))
    elseif field.key ~= nil then
      seen[field.key] = field
    end
  end
end

--- Complain about fields that a table of this kind does not have.
---@param known table<any, any>   what it may have
---@param names string[]          the same, for what may have been meant
function look.check_fields(reading, spot, body, known, names, path, owner)
  look.check_twice(reading, spot, path)
  for key, value in pairs(body) do
    if known[key] == nil and type(key) == "string" then
      reading.report:add(look.place_of(spot, key), path .. show(key),
        notation.suggest(("unknown field '%s' in %s"):format(show(key), owner), key, names))
    elseif known[key] == nil and value ~= blank then
      reading.report:add(look.place_of(spot, key), nil,
        ("a %s without a name in %s: write name = value"):format(type(value), owner))
    end
  end
end

--- What this reader cannot hold to is refused by name; a check alone lets it pass.
---@param feature string
---@return boolean
function look.held(reading, place, path, feature)
  local supported = reading.options.supported
  if not supported or supported[feature] then return true end
  reading.report:add(place, path, ("'%s' is not supported by this version"):format(
    (feature:gsub("_", " "))))
  return false
end

--- A field's value if it is of this type. Nothing is said about an absent or a blank one.
function look.typed(reading, spot, body, key, expected, path)
  local value = body[key]
  if value == nil or value == blank then return nil end
  if type(value) == expected then return value end
  reading.report:add(look.place_of(spot, key), path .. key,
    ("%s expected, got %s"):format(expected == "string" and "text" or expected, type(value)))
end

--- A table in a field, with its spot, all of its fields known; or nil.
---@return table? given, neap.spot? spot
function look.table_in(reading, spot, body, key, fields, owner)
  local given = look.typed(reading, spot, body, key, "table", "")
  if not given then return nil end
  local inner = look.spot_in(reading, spot, key, given)
  if fields then
    look.check_fields(reading, inner, given, fields, look.list_of(fields), key .. ".",
      ("the %s of %s"):format(key, owner))
  end
  return given, inner
end

--- A field read by its notation; nil when it is absent, blank or wrong.
---@param read neap.reader
---@param what string   what a wrong text is called
function look.read(reading, spot, body, key, path, read, what)
  local text = body[key]
  if text == nil or text == blank then return nil end
  local value, message, offset, hint = read(text)
  if value ~= nil then return value end
  local bad = type(text) == "string" and ('bad %s "%s": '):format(what, show(text)) or ""
  reading.report:add(look.place_inside(spot, key, text, offset), path .. key, bad .. message, hint)
end

--- A duration within bounds, in ns; nil when it is absent, blank or wrong.
function look.duration(reading, spot, body, key, path, least, most)
  local ns = look.read(reading, spot, body, key, path, notation.duration, "duration")
  if not ns then return nil end
  if ns >= least and ns <= most then return ns end
  reading.report:add(look.place_of(spot, key), path .. key, ("%s is outside %s to %s"):format(
    notation.format_duration(ns), notation.format_duration(least), notation.format_duration(most)))
end

--- A whole number within bounds, or a text such as "2k".
function look.count(reading, spot, body, key, path, least, most)
  local value = body[key]
  if type(value) == "string" then
    value = look.read(reading, spot, body, key, path, notation.amount, "number")
  else
    value = look.typed(reading, spot, body, key, "number", path)
  end
  if not value then return nil end
  if value % 1 == 0 and value >= least and value <= most then return value end
  reading.report:add(look.place_of(spot, key), path .. key,
    ("a whole number from %d to %d expected, got %.14g"):format(least, most, value))
end

-- ---- lists ------------------------------------------------------------------------------------

--- The entries of a list in a field, each with its place; a single value is a list of one.
---@param kind string   of the entries, as type() has it
function look.entries_of(reading, spot, body, key, path, kind)
  local value, entries, known = body[key], {}, {}
  local listed = type(value) == "table" and value ~= blank
  local inner = listed and look.spot_in(reading, spot, key, value) or spot
  for i, entry in ipairs(listed and value or { value }) do
    local place = look.place_of(inner, listed and i or key)
    known[i] = true
    if type(entry) == kind then
      entries[#entries + 1] = { word = entry, place = place }
    elseif entry ~= blank then
      reading.report:add(place, path .. key,
        ("%s expected, got %s"):format(kind == "string" and "text" or kind, type(entry)))
    end
  end
  if listed then
    look.check_fields(reading, inner, value, known, {}, path .. key .. ".",
      ("the list '%s'"):format(key))
  end
  return entries
end

--- The words of "a, b" or { "a", "b" }, each with its place.
function look.words_of(reading, spot, body, key, path)
  local value = body[key]
  if type(value) ~= "string" then
    return look.entries_of(reading, spot, body, key, path, "string")
  end
  local words = {}
  for from, word in value:gmatch "()([^,%s]+)" do
    words[#words + 1] = { word = word, place = look.place_inside(spot, key, value, from) }
  end
  return words
end

--- Whether a word is known and new; else it is complained about.
---@param seen table<string, boolean>
---@param known table<string, any>?   nil: any
function look.check_word(reading, seen, entry, known, path, what)
  local word = entry.word
  if known and not known[word] then
    reading.report:add(entry.place, path, notation.suggest(
      ("unknown %s '%s'"):format(what, show(word)), word, look.list_of(known)))
  elseif seen[word] then
    reading.report:add(entry.place, path, ("'%s' twice"):format(show(word)))
  else
    seen[word] = true
    return true
  end
end

--- One word out of a few, or nil.
function look.one_of(reading, spot, body, key, path, words)
  local word = look.typed(reading, spot, body, key, "string", path)
  if not word then return nil end
  local known = {}
  for _, each in ipairs(words) do known[each] = true end
  local entry = { word = word, place = look.place_inside(spot, key, word, 1) }
  return look.check_word(reading, {}, entry, known, path .. key, "word") and word or nil
end

return look
