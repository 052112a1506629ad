--- Policy: a Lua file that declares limits, read into a plain tree; or all that is wrong with it.
--
--     listen { resp = "127.0.0.1:6390", http = "127.0.0.1:9390" }
--     user "app" { password = env "NEAP_APP", allow = "acquire read" }
--     policy "openai" {
--       limits = { requests = "500/min burst 60", calls = "64 in flight" },
--       lease  = { ttl = "10min", settle = "requests" },
--     }
--
-- The file runs first, in its room, and the declarations only write down what they were given.
-- Then everything is checked against the text: so a mistake has a line and a column, limits have
-- the order they were written in (the first is the one that an unnamed cost is charged to), and
-- one run tells all.
local address = require "neap.policy.address"
local check = require "neap.policy.check"
local json = require "neap.policy.json"
local notation = require "neap.notation"
local report = require "neap.policy.report"
local room = require "neap.policy.room"
local source = require "neap.policy.source"

local getmetatable, ipairs, pairs, tostring, type = getmetatable, ipairs, pairs, tostring, type
local open, getenv = io.open, os.getenv

local policy = {}

local LARGEST_FILE = 2 ^ 20
local LONGEST_NAME = 128

-- Declarations; true when a name goes before the table.
local NOUNS = { policy = true, user = true, listen = false }

local blank = room.blank

local function show(value)
  return notation.show(tostring(value))
end

-- What is wrong with a declaration before one looks into its table.
local function refusal(noun, name, body, first)
  local owner, form = noun, noun .. " { … }"
  if NOUNS[noun] then
    form = noun .. ' "name" { … }'
    if type(name) ~= "string" or name == "" then
      return ("a %s needs a name: write %s"):format(noun, form)
    end
    owner = ("%s '%s'"):format(noun, show(name))
    if name:find "[%s%c]" then return ("the name of %s has blanks"):format(owner) end
    if #name > LONGEST_NAME then
      return ("the name of %s is longer than %d bytes"):format(owner, LONGEST_NAME)
    end
  end
  if first then return ("%s is declared twice (first on line %d)"):format(owner, first) end
  if body == nil then return ("%s has no table: write %s"):format(owner, form) end
  if type(body) ~= "table" then return ("%s: table expected, got %s"):format(owner, type(body)) end
end

local function check_call(reading, call)
  local noun, name, body = call.noun, call.name, call.body
  if name == blank or body == blank then return end
  local site = reading.source:site(noun, call.line, name) or {}
  local line = site.at and reading.source:place(site.at) or call.line
  local spot = { at = site.at, line = line, node = site.node,
    name = { at = site.name_at, line = line } }

  local key = noun .. ":" .. tostring(name)
  local problem = refusal(noun, name, body, reading.first[key])
  reading.first[key] = reading.first[key] or line
  if problem then return reading.report:add(spot.name, nil, problem) end
  spot.node = spot.node or reading.source:like(body)
  check[noun](reading, spot, name, body)
end

-- ---- reading ----------------------------------------------------------------------------------

-- What a declaration was given, as it was then.
local function copy(value, copies)
  if type(value) ~= "table" or getmetatable(value) then return value end
  if copies[value] then return copies[value] end
  local twin = {}
  copies[value] = twin
  for key, inner in pairs(value) do twin[key] = copy(inner, copies) end
  return twin
end

-- The declaration functions: they write calls down, in the order they were made.
local function verbs_of(reading, env)
  local verbs, calls = {}, reading.calls
  local function note(noun, name, line)
    local call = { noun = noun, name = name, line = line }
    calls[#calls + 1] = call
    if noun == "user" then reading.has_users = true end
    return call
  end
  for noun, has_name in pairs(NOUNS) do
    verbs[noun] = has_name and function (name)
      local call = note(noun, name, room.line())
      return function (body)
        if call.body ~= nil then call = note(noun, name) end
        call.line, call.body = room.line(), blank   -- in case the copy does not come back
        call.body = copy(body, {})
      end
    end or function (body)
      note(noun, nil, room.line()).body = copy(body, {})
    end
  end
  function verbs.env(name)
    local value = type(name) == "string" and env(name) or nil
    if value then
      reading.secrets[value] = name
      return value
    end
    local message = type(name) == "string" and ("'%s' is not set in the environment"):format(name)
      or "env needs a name, as in env \"NEAP_APP\""
    reading.complaints[#reading.complaints + 1] = { line = room.line(), name = "env",
      message = message }
    return blank
  end
  return verbs
end

local function report_complaints(reading)
  local lines = {}
  for _, complaint in ipairs(reading.complaints) do
    lines[complaint.line or 0] = true
    local at = complaint.line and not reading.report:full()
      and reading.source:use(complaint.name, complaint.line) or nil
    reading.report:add({ at = at, line = complaint.line }, nil, notation.suggest(
      complaint.message, complaint.typed, complaint.words))
  end
  return lines
end

---@class neap.policy
---@field name string
---@field doc string?
---@field line integer
---@field limits { name: string, notation: neap.limit, text: string }[]  as written; [1] is default
---@field lease { ttl_ns: integer, settle: string[] }

---@class neap.tree
---@field policies neap.policy[]
---@field users { name: string, password: string, allow: string[], from: string? }[]
---@field listen { resp: string[], http: string[] }

--- Read a policy from its text.
---
---     local text = 'policy "openai" { limits = { requests = "500/min" } }'
---     local tree, mistakes = neap.policy.parse(text, "policy.lua")
---     print(tree.policies[1].limits[1].text)              --> "500/min"
---
---@param text string
---@param name string   the file, for messages
---@param options? { clock: (fun(): number)?, getenv: (fun(name: string): string?)? }
---  clock: seconds, bounds the time a file may take; getenv: where `env` looks
---@return neap.tree? tree, neap.mistake[]? mistakes
function policy.parse(text, name, options)
  options = options or {}
  -- a first line for the shell, and a mark of the encoding: neither moves a column
  local lua = text:gsub("^\239\187\191", "   "):gsub("^#!", "--")
  local reading = { calls = {}, complaints = {}, secrets = {}, first = {},
    tree = { policies = {}, users = {}, listen = { resp = {}, http = {} } } }
  if lua:byte() == 27 then
    reading.report = report.new(name)
    reading.report:add({}, nil, "compiled Lua is refused: a policy file is text")
    return nil, reading.report:finish()
  end
  reading.source = source.new(lua, NOUNS)
  reading.report = report.new(name, reading.source)

  local chunk, message, line = room.read(lua)
  if not chunk then
    reading.report:add({ at = line and reading.source:culprit(line), line = line }, nil, message)
    return nil, reading.report:finish()
  end
  reading.source:survey()

  local verbs = verbs_of(reading, options.getenv or getenv)
  local ok, result = room.run(chunk, verbs, function (complaint)
    reading.complaints[#reading.complaints + 1] = complaint
  end, options.clock)
  local last = reading.calls[#reading.calls]
  if not ok and last and last.body == nil then last.body = blank end   -- cut off before its table
  local lines = report_complaints(reading)
  if not ok and not lines[result.line or 0] then
    reading.report:add({ line = result.line }, nil, result.message)
  elseif ok and result ~= nil then
    reading.report:add({}, nil, "a policy file declares and returns nothing")
  end

  for _, call in ipairs(reading.calls) do check_call(reading, call) end
  local mistakes = reading.report:finish()
  if mistakes then return nil, mistakes end
  return reading.tree
end

--- Read a policy file.
---
---     local none, why = neap.policy.load "/nowhere/policy.lua"
---     print(none, why[1].message)                         --> nil, "…"
---
---@param path string
---@param options? table   as for `policy.parse`
---@return neap.tree? tree, neap.mistake[]? mistakes
function policy.load(path, options)
  local file, problem = open(path, "rb")
  local text
  if file then
    text, problem = file:read(LARGEST_FILE + 1)
    file:close()
    if not text and not problem then text = "" end
  end
  if text and #text > LARGEST_FILE then text, problem = nil, "larger than 1 MiB" end
  if not text then
    local prefix = path .. ": "
    if problem:sub(1, #prefix) == prefix then problem = problem:sub(#prefix + 1) end
    return nil, report.unread(path, problem)
  end
  return policy.parse(text, path, options)
end

policy.supported = check.supported
policy.address = address.parse
policy.to_json = json.print

return policy
