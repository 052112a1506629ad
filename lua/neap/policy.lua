--- Policy: a Lua file that declares limits, read into a plain tree; or all that is wrong with it.
--
--     listen { resp = "127.0.0.1:6390", http = "127.0.0.1:9390" }
--     user "app" { password = env "NEAP_APP", allow = "acquire read" }
--     policy "openai" {
--       limits = { requests = "500/min burst 60", calls = "64 in flight" },
--       per "tenant" { requests = "60/min burst 10" },
--       queue  = { max = 2000, timeout = "45s", fair = "tenant" },
--     }
--
-- The file runs first, in its room, and the declarations only write down what they were given.
-- Then everything is checked against the text: so a mistake has a line and a column, limits have
-- the order they were written in (the first is the one that an unnamed cost is charged to), and
-- one run tells all. A file may include others below its folder; they are one reading.
local address = require "neap.policy.address"
local check = require "neap.policy.check"
local diff = require "neap.policy.diff"
local files = require "neap.policy.files"
local from_json = require "neap.policy.from_json"
local json = require "neap.policy.json"
local look = require "neap.policy.look"
local notation = require "neap.notation"
local rehearse = require "neap.policy.rehearsal"
local report = require "neap.policy.report"
local room = require "neap.policy.room"
local verbs = require "neap.policy.verbs"

local ipairs, pairs, tostring, type = ipairs, pairs, tostring, type
local getenv = os.getenv

local policy = {}

local LONGEST_NAME = 128

local blank, show = room.blank, look.show

-- What is wrong with a declaration before one looks into its table.
local function refusal(noun, name, body, first)
  local owner, form = noun, noun .. " { … }"
  if verbs.NOUNS[noun] then
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
  local source = call.source
  local site = source:site(noun, call.line, name, body) or {}
  local line = site.says or site.at and source:place(site.at) or call.line
  local spot = { at = site.at, line = line, node = site.node, source = source,
    name = { at = site.name_at, line = line, source = source } }

  local key = noun .. ":" .. tostring(name)
  local problem = refusal(noun, name, body, reading.first[key])
  reading.first[key] = reading.first[key] or line
  if problem then return reading.report:add(spot.name, nil, problem) end
  spot.node = spot.node or look.like(reading, body)
  check[noun](reading, spot, name, body)
end

-- ---- reading ----------------------------------------------------------------------------------

local function report_complaints(reading)
  local lines = {}
  for _, complaint in ipairs(reading.complaints) do
    local source = reading.chunks[complaint.chunk] or reading.sources[1]
    lines[source.file .. ":" .. (complaint.line or 0)] = true
    local at = complaint.line and not reading.report:full()
      and source:use(complaint.name, complaint.line) or nil
    reading.report:add({ at = at, line = complaint.line, source = source }, nil, notation.suggest(
      complaint.message, complaint.typed, complaint.words))
  end
  return lines
end

-- `per` that no policy has.
local function report_loose(reading)
  for origin in pairs(reading.loose) do
    reading.report:add({ line = origin.line, source = origin.source }, nil,
      'per stands inside a policy: policy "name" { limits = { … }, per "tenant" { … } }')
  end
end

---@class neap.policy
---@field name string
---@field doc string?
---@field line integer
---@field limits { name: string, notation: neap.limit, text: string, on_change: string? }[]
---  as written
---@field costs string[]   what a call can be charged by; [1] is the default
---@field per { by: string[], limits: table[], override: table[], keep: table, doc: string?,
---  line: integer }[]
---@field lease { ttl_ns: integer, settle: string[] }
---@field estimate neap.hook?
---@field backoff { on: integer[], window_ns: integer, from: string[], throttled: table[],
---  penalty: { name: string, count: integer }[] }?
---@field breaker { trip: table, cooldown_ns: integer, probes: integer, on: integer[]? }?
---@field adaptive { name: string, notation: { kind: string, from: integer, to: integer } }[]?
---@field queue { max: integer, timeout_ns: integer?, fair: string?, priority: string[]?,
---  overflow: "refuse"|"drop oldest"|"drop lowest", ageing_ns: integer? }?
---@field retry { attempts: integer, backoff: neap.backoff.Value, budget: number? }?
---@field shed { when: { what: string, share: number }, keep: { priority: string }? }?
---@field on table<string, neap.hook>
---@field start "state"|"empty"|"full"|nil
---@field on_change "keep used"|"keep balance"|"scale"|"reset"|nil

---@class neap.tree
---@field policies neap.policy[]
---@field users { name: string, password: string, allow: string[], from: string? }[]
---@field listen { resp: string[], http: string[] }

---@class neap.policy.Options
---@field clock (fun(): number)?             seconds; bounds the time a file may take
---@field getenv (fun(name: string): string?)?  where `env` looks
---@field read (fun(path: string): string?, string?)?  the text of a file that is included
---@field supported table<string, boolean>?  what the caller can hold to (`policy.supported` is
---  what a worker can); the rest is a mistake. Nil: everything is only checked
---@field strict boolean?                    warnings are mistakes
---@field host neap.policy.Host?             what `log`, `now` and `emit` do in hooks

-- Run a file in its room; its declarations are then in `reading.calls`.
local function run(reading, text)
  local chunk = files.open(reading, text, reading.file)
  if not chunk then return end
  local ok, result = room.run(chunk, verbs.of(reading))
  local last = reading.calls[#reading.calls]
  if not ok and last and last.body == nil then last.body = blank end   -- cut off before its table
  local lines = report_complaints(reading)
  local source = not ok and reading.chunks[result.chunk] or reading.sources[1]
  if not ok and (result.stopped or not lines[source.file .. ":" .. (result.line or 0)]) then
    reading.report:add({ line = result.line, source = source }, nil, result.message)
  elseif ok and result ~= nil then
    reading.report:add({}, nil, "a policy file declares and returns nothing")
  end
end

--- Read a policy from its text: a file's, or the JSON of one.
---
---     local text = 'policy "openai" { limits = { requests = "500/min" } }'
---     local tree, mistakes = neap.policy.parse(text, "policy.lua")
---     print(tree.policies[1].limits[1].text)              --> "500/min"
---
---@param text string
---@param name string   the file, for messages, and for where includes are looked for
---@param options? neap.policy.Options
---@return neap.tree? tree, neap.mistake[]? mistakes, neap.mistake[] warnings
function policy.parse(text, name, options)
  options = options or {}
  local reading = { options = options, getenv = options.getenv or getenv, file = name,
    nouns = verbs.NOUNS,
    calls = {}, complaints = {}, complained = {}, secrets = {}, first = {}, loose = {}, spots = {},
    sources = {}, chunks = {},
    tree = { policies = {}, users = {}, listen = { resp = {}, http = {} } } }
  reading.report = report.new(name, nil, options.strict)
  if from_json.is(text) then from_json.open(reading, text, name) else run(reading, text) end

  for _, call in ipairs(reading.calls) do check_call(reading, call) end
  report_loose(reading)
  local mistakes, warnings = reading.report:finish()
  if mistakes then return nil, mistakes, warnings end
  return reading.tree, nil, warnings
end

--- Read a policy file.
---
---     local none, why = neap.policy.load "/nowhere/policy.lua"
---     print(none, why[1].message)                         --> nil, "…"
---
---@param path string
---@param options? neap.policy.Options
---@return neap.tree? tree, neap.mistake[]? mistakes, neap.mistake[] warnings
function policy.load(path, options)
  local text, problem = files.read(path)
  if not text then return nil, report.unread(path, problem), {} end
  return policy.parse(text, path, options)
end

--- Open a file's policies in this program: limiters under their names (see neap.policy.live).
---
---     local policies = neap.policy.open "examples/policies/game.lua"
---     print(policies.world:try_acquire { player = 7, move = 1 })   --> "permit of world"
---
---@param source string|neap.tree  a path, or what `policy.load` gave
---@param options? table           as for neap.policy.live
---@return table<string, neap.LivePolicy>?
---@return any? problem            what is wrong with it; a text as a text
function policy.open(source, options)
  return require "neap.policy.live".open(source, options)
end

policy.supported = check.supported
policy.compare = diff.compare
policy.rehearse = rehearse
policy.address = address.parse
policy.to_json = json.print

return policy
