--- The room a policy file runs in: a few safe functions, its declarations, and a budget.
--
-- A policy declares and ends. What a slip can do on the way (a loop without end, a recursion, a
-- string that doubles thirty times, a pattern that backtracks for a year) must become a message.
-- The chunk is never compiled, because compiled code looks at no hook; a hook looks every few
-- instructions at three things:
--
--   steps     10 million instructions, and what a library call may cost in them, charged before
--   memory    64 MB in all, and no jump by 256 KB between two looks, which is a huge string or
--             table. The collector rests meanwhile, so memory only grows. What the library makes
--             stays below 64 KB, charged before as well
--   seconds   2, if the host lends a clock: a policy never reads one itself
--
-- Nothing is left that escapes an error on its way out (pcall, coroutines, finalisers), reaches
-- the host (require, io, os, debug) or the methods of strings (getmetatable). This stops accidents.
-- Attackers are stopped by a process of their own.
--
-- Globals are strict both ways: a complaint, then the room goes on with a 'blank' that absorbs
-- every use, so that one run finds all mistakes.
local globals = require "neap.policy.globals"

local debug = debug
local collectgarbage, error, getmetatable, ipairs = collectgarbage, error, getmetatable, ipairs
local loadstring, pairs, rawget, select, setfenv = loadstring, pairs, rawget, select, setfenv
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local unpack, xpcall = unpack, xpcall
local string, table, math = string, table, math
local floor, log = math.floor, math.log
local jit_off, jit_on = jit.off, jit.on

local STRIDE = 16                 -- instructions between two looks
local STEPS = 10e6
local MEMORY_KB = 64 * 1024
local JUMP_KB = 256
local TEXT_BYTES = 64 * 1024
local SECONDS = 2
local LONGEST_PATTERN = 256
local LONGEST_FORMAT = 1024       -- "%99.99f" is the widest there is: 410 bytes for 7
local BYTES_A_STEP = 16           -- what the library moves in the time of one instruction

local room = {}

-- ---- blanks -----------------------------------------------------------------------------------

local Blank = {}
local blank = setmetatable({}, Blank)
for _, event in ipairs { "index", "call", "concat", "add", "sub", "mul", "div", "mod", "pow",
  "unm" } do
  Blank["__" .. event] = function () return blank end
end
Blank.__newindex = function () end
Blank.__tostring = function () return "?" end
Blank.__lt = function () return false end
Blank.__le = Blank.__lt

--- What stands for a value that was complained about; checks pass over it.
room.blank = blank

--- The metatable of what `per "tenant" { … }` gives.
room.Scope = {}

-- ---- the budget -------------------------------------------------------------------------------

-- Thrown through the chunk, which has nothing to catch it with. The hook goes first: a second
-- stop, in the handler of the first, would leave no message at all.
local Stop = {}

local function stop(message)
  debug.sethook()
  error(setmetatable({ message = message }, Stop), 0)
end

local function new_budget(clock, seconds, why)
  local kb = collectgarbage "count"
  return { steps = STEPS, kb = kb, most_kb = kb + MEMORY_KB, clock = clock, seconds = seconds,
    until_s = clock and clock() + seconds, why = why }
end

local function charge(budget, steps)
  if steps > STEPS then stop "stopped at a call that could take more than 10 million steps" end
  budget.steps = budget.steps - steps
  if budget.steps < 0 then
    stop("stopped after 10 million steps" .. budget.why)
  end
end

-- The machine keeps all strings of the host in a table of its own, which doubles now and then: a
-- jump by a power of two. One in a run is forgiven; for a second the file must be to blame.
local function forgiven(budget, jump_kb)
  local over = jump_kb / 2 ^ floor(log(jump_kb) / log(2)) - 1
  local was = budget.forgiven
  budget.forgiven = true
  return not was and over < 1 / 16
end

local function look(budget)
  local kb = collectgarbage "count"
  if kb - budget.kb > JUMP_KB and not forgiven(budget, kb - budget.kb) then
    stop "stopped at a string or table of more than 256 KB"
  end
  if kb > budget.most_kb then stop "stopped at 64 MB of memory" end
  budget.kb = kb
  if budget.clock and budget.clock() > budget.until_s then
    stop(("stopped after %d second%s%s"):format(budget.seconds, budget.seconds > 1 and "s" or "",
      budget.why))
  end
  charge(budget, STRIDE)
end

-- ---- the libraries ----------------------------------------------------------------------------

local function bounded(name, bytes)
  if not (bytes <= TEXT_BYTES) then
    stop(("stopped at %s: a text of more than 64 KB"):format(name))
  end
  return bytes / BYTES_A_STEP
end

-- A function that pays before it runs; but not once the file has been read, when hooks call it.
local function charged(budget, f, cost)
  return function (...)
    if not budget.over then charge(budget, cost(...)) end
    return f(...)
  end
end

local function is_text(value) return type(value) == "string" or type(value) == "number" end
local function length(value) return is_text(value) and #tostring(value) or 0 end

-- The most a search can cost. Every repetition may try every length at every place, so it is a
-- power of the subject, and twice that for each '?'. Sets and escapes aside, each of * + - %b %1
-- counts as a repetition.
local function search_cost(subject, pattern, plain)
  local n, repeats, options = length(subject) + 1, 0, 0
  if not plain then
    if length(pattern) > LONGEST_PATTERN then stop "stopped at a pattern of more than 256 bytes" end
    local bare = string.gsub(tostring(pattern), "%%[^b%d]", "x")
    bare = string.gsub(bare, "%[%^?%]?[^%]]*%]", "x")
    repeats = select(2, string.gsub(bare, "[%*%+%-%%]", "%0"))
    options = select(2, string.gsub(bare, "%?", "%0"))
  end
  return n ^ (repeats + 1) * 2 ^ options * (length(pattern) + 1) / BYTES_A_STEP
end

-- The string library with every cost charged before it is run into.
local function strings(budget)
  local safe, size_cost = {}, {}
  for _, name in ipairs { "byte", "char", "len", "lower", "reverse", "sub", "upper" } do
    size_cost[name] = function (text) return length(text) / BYTES_A_STEP end
  end

  function size_cost.rep(text, n, separator)
    if not is_text(text) or type(n) ~= "number" then return 0 end
    return bounded("string.rep", (length(text) + length(separator)) * math.max(n, 0))
  end

  function size_cost.format(format, ...)
    if length(format) > LONGEST_FORMAT then stop "stopped at a format of more than 1024 bytes" end
    local bytes = 0
    for i = 1, select("#", ...) do bytes = bytes + length((select(i, ...))) end
    return bounded("string.format", bytes)
  end

  function size_cost.find(text, pattern, _, plain) return search_cost(text, pattern, plain) end
  function size_cost.match(text, pattern) return search_cost(text, pattern) end
  size_cost.gmatch = size_cost.match
  for name, cost in pairs(size_cost) do safe[name] = charged(budget, string[name], cost) end

  function safe.gsub(text, pattern, by, ...)
    if budget.over then return string.gsub(text, pattern, by, ...) end
    charge(budget, search_cost(text, pattern))
    local size = length(text)
    local function piece(value)
      size = size + length(value)
      charge(budget, bounded("string.gsub", size))
      return value
    end
    if is_text(by) then
      -- each match brings the replacement, and with it at most itself for each %0 in it
      bounded("string.gsub", (size + 1) * (length(by) + 1) * 2)
    elseif type(by) == "table" then
      local pieces = by
      by = function (key) return piece(pieces[key]) end
    elseif type(by) == "function" then
      local f = by
      by = function (...) return piece((f(...))) end
    end
    return string.gsub(text, pattern, by, ...)
  end

  return safe
end

-- What joining costs: known when it is done, and bounded on the way.
local function concat_cost(budget)
  return function (list, separator, from, to)
    if type(list) ~= "table" then return 0 end
    local bytes = 0
    for i = from or 1, to or #list do
      if not is_text(rawget(list, i)) then break end
      bytes = bytes + length(list[i]) + length(separator)
      bounded("table.concat", bytes)
      charge(budget, 1 + length(list[i]) / BYTES_A_STEP)
    end
    return 0
  end
end

local function tables(budget)
  -- insert and remove move what is behind; sort compares n log n times
  local function shift_cost(list, ...)
    return type(list) == "table" and select("#", ...) > 0 and #list / 4 or 0
  end
  return {
    concat = charged(budget, table.concat, concat_cost(budget)),
    insert = charged(budget, table.insert, shift_cost),
    remove = charged(budget, table.remove, shift_cost),
    sort = charged(budget, table.sort, function (list)
      return type(list) == "table" and #list * 32 or 0
    end),
  }
end

local function numbers()
  local safe = {}
  for name, value in pairs(math) do safe[name] = value end
  safe.random, safe.randomseed = nil, nil   -- a policy is the same each time it is read
  return safe
end

--- What another room is made of (see neap.worker.eval): a budget, a look at it for every few
--- instructions, the libraries that charge it, and the end of who has used it up.
---@param clock fun(): number
---@param seconds integer
---@return table  budget, look, stride, string, table, math, stop
function room.parts(clock, seconds)
  local budget = new_budget(clock, seconds, "")
  return { budget = budget, look = function () look(budget) end, stride = STRIDE,
    string = strings(budget), table = tables(budget), math = numbers(), stop = stop }
end

--- Was it a budget that threw this? Then its message.
---@param problem any
---@return string?
function room.stopped(problem)
  return getmetatable(problem) == Stop and problem.message or nil
end

-- ---- names ------------------------------------------------------------------------------------

local base = { error = error, ipairs = ipairs, pairs = pairs, select = select,
  tonumber = tonumber, tostring = tostring, type = type, unpack = unpack }

function base.assert(value, ...)
  if not value then error(select("#", ...) > 0 and (...) or "assertion failed!", 0) end
  return value, ...
end

local function words(text)
  local set = {}
  for word in text:gmatch "%S+" do set[word] = true end
  return set
end

-- Names that exist elsewhere in Lua.
local ELSEWHERE = words [[_G bit collectgarbage coroutine debug dofile ffi gcinfo getfenv
  getmetatable io jit load loadfile loadstring module newproxy next os package pcall print rawequal
  rawget rawset require setfenv setmetatable xpcall]]

--- Where a file stands now, seen from anything it called.
---@param chunks table<string, any>   what was read, by the name that `room.read` was given
---@return integer? line, string? chunk
function room.here(chunks)
  for level = 2, math.huge do
    local info = debug.getinfo(level, "Sl")
    if not info then return nil end
    local chunk = info.source:sub(2)
    if chunks[chunk] and info.source:byte() == 61 then return info.currentline, chunk end
  end
end

---@class neap.complaint
---@field line integer?
---@field chunk string?
---@field name string       as it stands in the text
---@field message string
---@field words string[]?   what may have been meant

-- A library that complains about what it does not have, and cannot be changed.
local function closed(library, prefix, complain)
  local names = {}
  for name in pairs(library) do names[#names + 1] = prefix .. name end

  local function refuse(key, message)
    local name = type(key) == "string" and key or tostring(key)
    return complain { name = name, words = names, typed = prefix .. name,
      message = message:format(prefix, name) }
  end

  return setmetatable({}, {
    __index = function (_, key)
      return library[key] or refuse(key, "'%s%s' is not available in a policy file")
    end,
    __newindex = function (_, key) refuse(key, "'%s%s' assigned; the libraries are closed") end,
  })
end

local function environment(budget, verbs, complain)
  local known = { string = closed(strings(budget), "string.", complain),
    table = closed(tables(budget), "table.", complain),
    math = closed(numbers(), "math.", complain) }
  for name, f in pairs(base) do known[name] = f end
  for name, verb in pairs(verbs) do
    known[name] = type(verb) == "table" and closed(verb, name .. ".", complain) or verb
  end
  local names, assigned = {}, {}
  for name in pairs(known) do names[#names + 1] = name end

  local function read(_, name)
    if known[name] ~= nil then return known[name] end
    if assigned[name] ~= nil then return assigned[name] end
    local complaint = { name = name }
    if ELSEWHERE[name] then
      complaint.message = ("'%s' is not available in a policy file"):format(name)
    else
      complaint.message, complaint.words = ("unknown name '%s'"):format(name), names
      complaint.typed = name
    end
    return complain(complaint)
  end

  local function assign(_, name, value)
    complain { name = name,
      message = ("global '%s' assigned; use 'local %s'"):format(name, name) }
    assigned[name] = value
  end

  return setmetatable({}, { __index = read, __newindex = assign }), known.string
end

-- ---- running ----------------------------------------------------------------------------------

-- A message of the machine has the place in front: the message alone, and the line.
local function bare(problem, chunks)
  for chunk in pairs(chunks) do
    local line = problem:sub(1, #chunk + 1) == chunk .. ":"
      and problem:match("^(%d+): ", #chunk + 2)
    if line then return problem:sub(#chunk + #line + 4), tonumber(line), chunk end
  end
  return problem
end

-- An error as message, line and chunk.
local function explain(problem, chunks)
  local line, chunk = room.here(chunks)
  if getmetatable(problem) == Stop then
    return { message = problem.message, line = line, chunk = chunk, stopped = true }
  end
  if type(problem) ~= "string" then
    local what = type(problem) == "number" and tostring(problem) or "a " .. type(problem)
    return { message = "error raised: " .. what, line = line, chunk = chunk }
  end
  local message, at, where = bare(problem, chunks)
  return { message = message:match "stack overflow$" or message, line = line or at,
    chunk = chunk or where }
end

--- Read a chunk. Text only: compiled Lua could break the machine.
---@param text string
---@param name string   by which its lines are found again; printable, at most 50 bytes
---@return function? chunk, string? message, integer? line
function room.read(text, name)
  local chunk, problem = loadstring(text, "=" .. name, "t")
  if chunk then return chunk end
  local message, line = bare(problem, { [name] = true })
  return nil, message, line
end

-- Have a function do the host's work on the way: its steps and its memory are not the file's.
local function aside(budget, leave, enter, f)
  return function (...)
    leave()
    local kb = collectgarbage "count"
    local one, two = f(...)
    local grown = collectgarbage "count" - kb
    budget.kb, budget.most_kb = budget.kb + grown, budget.most_kb + grown
    enter()
    return one, two
  end
end

-- What the chunks would touch where they have not run: looked up here, it is complained about as
-- there. What they set comes first: a name that was set is not unknown besides.
local function look_over(ran, env, at)
  local reads = {}
  for _, chunk in ipairs(ran) do
    local name = debug.getinfo(chunk, "S").source:sub(2)
    globals.each(chunk, function (line, global, field, sets)
      if sets then
        at(line, name)
        env[global] = blank
      else
        reads[#reads + 1] = { line = line, chunk = name, global = global, field = field }
      end
    end)
  end
  for _, read in ipairs(reads) do
    at(read.line, read.chunk)
    local value = env[read.global]
    if read.field and type(value) == "table" then read.value = value[read.field] end
  end
  at()
end

---@class neap.Room
---@field verbs table<string, function|table>   what the file can call besides; tables are libraries
---@field include fun(name: any): function?, any  a chunk to run, or nil and what stands for it
---@field complain fun(complaint: neap.complaint): any
---@field chunks table<string, any>             what was read, by name
---@field clock (fun(): number)?                seconds
---@field at fun(line: integer?, chunk: string?)  complaints are of there from now on, or of where
---  the file stands
---@field over fun()                            called when the file has run

--- Run a chunk. Hooks, collector and the methods of strings are as before when this returns. The
--- functions that are left are compiled like any other, and have no budget.
---@param chunk function
---@param self neap.Room
---@return boolean ok, table|nil problem  { message, line, chunk, stopped: a budget was used up },
---  or what the chunk returned
function room.run(chunk, self)
  local was_running = collectgarbage "isrunning"
  local hook, mask, count = debug.gethook()
  local methods = debug.getmetatable ""
  local index = methods.__index

  local budget = new_budget(self.clock, SECONDS, ": a policy file declares and ends")
  local function look_at_budget() look(budget) end
  local ran, verbs, env, safe_string = { chunk }, {}, nil, nil
  local function enter()
    methods.__index = safe_string
    debug.sethook(look_at_budget, "", STRIDE)
  end
  local function leave()
    debug.sethook()
    methods.__index = index
  end

  for name, verb in pairs(self.verbs) do verbs[name] = verb end
  local find = aside(budget, leave, enter, self.include)
  function verbs.include(name)
    local included, instead = (budget.over and self.include or find)(name)
    if not included then return instead end
    ran[#ran + 1] = included
    jit_off(included, true)
    return setfenv(included, env)()
  end
  env, safe_string = environment(budget, verbs, self.complain)
  setfenv(chunk, env)
  jit_off(chunk, true)
  collectgarbage "stop"
  enter()
  local ok, result = xpcall(chunk, function (problem)
    leave()
    return explain(problem, self.chunks)
  end)
  debug.sethook(hook, mask, count)
  methods.__index = index
  if was_running then collectgarbage "restart" end
  look_over(ran, env, self.at)
  budget.over = true
  self.over()
  for _, each in ipairs(ran) do jit_on(each, true) end

  if not ok and type(result) ~= "table" then   -- nothing was left to explain it with
    local memory = tostring(result):find("memory", 1, true)
    result = { message = memory and "not enough memory" or "stack overflow" }
  end
  return ok, result
end

return room
