--- Scenarios: a Lua file that declares what a policy is to meet (the words: neap.sim.words).
---
---     scenario "five second spike" {
---       policy     = "front",                              -- of a file that has several
---       arrive     = "poisson 40/s, 80/s from 20s to 25s", -- or a list of such texts
---       call       = { timeout = "3s", retry = "3 tries", by = { tenant = "20 zipf 1.1" } },
---       downstream = "delay 1s + 10ms per in flight, wire exp 100ms",
---       run        = "80s, 20 times",
---     }
---
--- What is wrong is told at once, each with its line, as for policies.
local ffi = require "ffi"
local dice = require "neap.sim.dice"
local gates = require "neap.sim.gates"
local grammar = require "neap.grammar"
local notation = require "neap.notation"
local policies = require "neap.sim.policies"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"
local trace = require "neap.sim.trace"
local words = require "neap.sim.words"
local world = require "neap.sim.world"

local getinfo = debug.getinfo
local error, ipairs, pairs, pcall, setfenv = error, ipairs, pairs, pcall, setfenv
local sort, tostring, type = table.sort, tostring, type

local FIELDS = { "policy", "arrive", "call", "downstream", "run", "settle" }
local CALL_FIELDS = { "timeout", "wait", "retry", "by", "cost", "priority" }
local LONGEST_NS = 2 ^ 53
local MOST_TIMES = 10000
local MOST_SOURCES = 8
local MOST_KEYS = 2 ^ 24

local scenario = {}

---@class neap.sim.Scenario
---@field name string
---@field file string
---@field line integer
---@field policy string?
---@field run_ns number
---@field times integer
---@field arrivals neap.sim.Arrivals[]
---@field closed { clients: integer, think: neap.sim.Distribution }?
---@field downstream table      parts of a model
---@field call neap.sim.Call
---@field keys neap.sim.Keys?
---@field timeout_ns number?
---@field wait_ns number?
---@field retry table?
---@field settle_ns number

--- A reading of one declaration: where it stands, and what is wrong with it.
local function reading(file, line, problems)
  local self = {}
  function self.wrong(path, message)
    problems[#problems + 1] = { line = line, text = ("%s:%d: %s: %s"):format(file, line, path,
      message) }
  end
  --- A field of a table by a reader of words.
  function self.read(given, path, field, read, what)
    local text = given[field]
    if text == nil then return nil end
    local value, message = read(text)
    if value ~= nil then return value end
    self.wrong(path .. field, ("bad %s %q: %s"):format(what, grammar.show(tostring(text)), message))
  end
  function self.check_names(given, path, known)
    for name in pairs(given) do
      local found = false
      for _, each in ipairs(known) do found = found or each == name end
      if not found then
        local message = grammar.suggest(("unknown field '%s'"):format(tostring(name)),
          tostring(name), known)
        self.wrong(path .. tostring(name), message)
      end
    end
  end
  function self.table_of(given, path, field)
    local value = given[field]
    if value == nil or type(value) == "table" then return value or {} end
    self.wrong(path .. field, "table expected, got " .. type(value))
    return {}
  end
  return self
end

local function sorted_names(of)
  local names = {}
  for name in pairs(of) do names[#names + 1] = tostring(name) end
  sort(names)
  return names
end

-- ---- calls ------------------------------------------------------------------------------------

--- Names with weights: their names, and who draws one.
local function weighted(names)
  local list, up_to, sum = {}, ffi.new("double[?]", #names), 0
  for i, each in ipairs(names) do
    list[i] = each.name
    sum = sum + each.weight
    up_to[i - 1] = sum
  end
  return list, function (stream)
    local C = require "neap.engine"
    return function ()
      local u, i = C.neap_random_unit(stream) * sum, 0
      while i < #list - 1 and up_to[i] <= u do i = i + 1 end
      return i
    end
  end
end

local function numbered(name, count)
  local list = {}
  for i = 1, count do list[i] = name .. "-" .. i end
  return list
end

local function read_keys(r, given, into)
  local whose, draws, count = {}, {}, 1
  for _, name in ipairs(sorted_names(given)) do
    local of = r.read(given, "call.by.", name, words.whose, "keys")
    local n = of and (of.count or #of.names) or 1
    if n < 1 or count * n > MOST_KEYS then
      r.wrong("call.by." .. name, "from 1 to 2^24 keys expected, of all together")
      of = nil
    end
    if of and of.count then
      whose[#whose + 1] = { name = name, names = numbered(name, n) }
      draws[#draws + 1] = { n = n, make = function (stream)
        return dice.one_of(n, of.zipf, stream)
      end }
    elseif of then
      local names, make = weighted(of.names)
      whose[#whose + 1] = { name = name, names = names }
      draws[#draws + 1] = { n = n, make = make }
    end
    count = count * n
  end
  into.call.whose = whose
  if not whose[1] then return end
  into.keys = { count = count, draw = function (stream)
    local made = {}
    for i, each in ipairs(draws) do made[i] = each.make(stream) end
    if not made[2] then return made[1] end
    return function ()
      local key = 0
      for i = 1, #made do key = key * draws[i].n + made[i]() end
      return key
    end
  end }
end

local function read_call(r, given, into)
  r.check_names(given, "call.", CALL_FIELDS)
  into.timeout_ns = r.read(given, "call.", "timeout", notation.duration, "duration")
  into.wait_ns = r.read(given, "call.", "wait", notation.duration, "duration")
  into.retry = r.read(given, "call.", "retry", words.retry, "retry")
  into.call = { costs = {} }
  read_keys(r, r.table_of(given, "call.", "by"), into)
  local costs = r.table_of(given, "call.", "cost")
  for _, name in ipairs(sorted_names(costs)) do
    into.call.costs[name] = r.read(costs, "call.cost.", name, words.amounts, "cost")
  end
  local of = r.read(given, "call.", "priority", words.whose, "priorities")
  if of and not of.names then
    r.wrong("call.priority", "words with their weights expected: interactive 30%, batch 70%")
  elseif of then
    local names, draw = weighted(of.names)
    into.call.priorities = { names = names, draw = draw }
  end
end

-- ---- arrivals, downstream ---------------------------------------------------------------------

local function read_arrivals(r, given, into, file)
  local texts = type(given.arrive) == "table" and given.arrive or { given.arrive }
  if not texts[1] then r.wrong("arrive", "is missing: arrive = \"poisson 40/s\"") end
  if #texts > MOST_SOURCES then r.wrong("arrive", "at most 8 sources") end
  for i = 1, #texts do
    local of = r.read(texts, "arrive.", i, words.arrive, "arrivals")
    if of and of.kind == "closed" then
      if into.closed then r.wrong("arrive." .. i, "closed twice") end
      into.closed = of
    elseif of and of.kind == "trace" then
      local times, message = trace.read(of.file, file)
      if not times then r.wrong("arrive." .. i, message) end
      into.arrivals[#into.arrivals + 1] = { kind = "trace", times = times or {} }
    elseif of then
      into.arrivals[#into.arrivals + 1] = of
    end
  end
end

--- The downstream's own limit, new for each run.
local function own_limit(value)
  local text = notation.format(value)
  return function ()
    return gates.of(value.kind == "in flight" and semaphore(value.amount) or throttle(text))
  end
end

local function check_run(r, into)
  if not (into.run_ns > 0 and into.run_ns <= LONGEST_NS) then
    r.wrong("run", "more than 0s, up to 104 days expected")
  end
  if into.times < 1 or into.times > MOST_TIMES then
    r.wrong("run", "from 1 to 10000 times expected")
  end
  if #(into.downstream.slots or {}) > world.PIECES then
    r.wrong("downstream", "slots change 31 times at most")
  end
end

local function declare(file, line, name, given, problems)
  local r = reading(file, line, problems)
  local into = { name = name, file = file, line = line, arrivals = {} }
  r.check_names(given, "", FIELDS)
  if given.policy ~= nil and type(given.policy) ~= "string" then
    r.wrong("policy", "the name of a policy expected")
  end
  into.policy = given.policy
  local run = r.read(given, "", "run", words.run, "run") or { run_ns = 60e9, times = 1 }
  into.run_ns, into.times = run.run_ns, run.times
  into.settle_ns = r.read(given, "", "settle", notation.duration, "duration") or 0
  read_arrivals(r, given, into, file)
  read_call(r, r.table_of(given, "", "call"), into)
  into.downstream = r.read(given, "", "downstream", words.downstream, "downstream") or {}
  if into.downstream.limit then
    local fine, message = pcall(own_limit(into.downstream.limit))
    if not fine then r.wrong("downstream", (tostring(message):gsub("^.-:%d+: ", ""))) end
    into.downstream.limit = own_limit(into.downstream.limit)
  end
  check_run(r, into)
  return into
end

-- ---- files ------------------------------------------------------------------------------------

local SAFE = { "ipairs", "pairs", "tonumber", "tostring", "type", "unpack", "math", "string",
  "table", "error", "assert", "select" }

--- Read a file of scenarios.
---@param path string
---@return neap.sim.Scenario[]?
---@return string[]? problems   one line each, in order
function scenario.load(path)
  local file, problem = io.open(path, "rb")
  if not file then return nil, { problem } end
  local text = file:read "*a"
  file:close()
  if text:sub(1, 1) == "\27" then return nil, { path .. ": Lua text expected, got bytecode" } end
  local chunk, message = loadstring(text, "@" .. path)
  if not chunk then return nil, { message } end
  local list, problems = {}, {}
  local env = {}
  for _, name in ipairs(SAFE) do env[name] = _G[name] end
  function env.scenario(name)
    local line = getinfo(2, "l").currentline
    if type(name) ~= "string" or name == "" then
      error("a scenario needs a name: scenario \"…\" { … }", 2)
    end
    return function (given)
      if type(given) ~= "table" then error("scenario: a table expected", 2) end
      list[#list + 1] = declare(path, line, name, given, problems)
    end
  end
  local ran, failed = pcall(setfenv(chunk, env))
  if not ran then return nil, { tostring(failed) } end
  if not list[1] then return nil, { path .. ": no scenario: scenario \"name\" { … }" } end
  if problems[1] then
    local lines = {}
    for i, each in ipairs(problems) do lines[i] = each.text end
    return nil, lines
  end
  return list
end

--- A model of a scenario under a policy.
---@param of neap.sim.Scenario
---@param declared neap.policy
---@param told table<string, integer>   events are counted there
---@param options { file: string? }
---@return neap.sim.Model
function scenario.model(of, declared, told, options)
  local model = {
    arrivals = of.arrivals, closed = of.closed, keys = of.keys, timeout_ns = of.timeout_ns,
    wait_ns = of.wait_ns, settle_ns = of.settle_ns,
    gate = function (seed) return policies.gate(declared, of.call, seed, told, options) end,
  }
  for field, value in pairs(of.downstream) do model[field] = value end
  policies.habits(model, of.retry, declared)
  return model
end

return scenario
