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
local debug = debug
local collectgarbage, error, getmetatable, ipairs = collectgarbage, error, getmetatable, ipairs
local loadstring, pairs, rawget, select, setfenv = loadstring, pairs, rawget, select, setfenv
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local unpack, xpcall = unpack, xpcall
local string, table, math = string, table, math
local floor, log = math.floor, math.log
local jit_off = jit.off

local CHUNK = "=(policy)"
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

-- ---- the budget -------------------------------------------------------------------------------

-- Thrown through the chunk, which has nothing to catch it with. The hook goes first: a second
-- stop, in the handler of the first, would leave no message at all.
local Stop = {}

local function stop(message)
  debug.sethook()
  error(setmetatable({ message = message }, Stop), 0)
end

local function new_budget(clock)
  return { steps = STEPS, kb = collectgarbage "count", most_kb = collectgarbage "count" + MEMORY_KB,
    clock = clock, until_s = clock and clock() + SECONDS }
end

local function charge(budget, steps)
  if steps > STEPS then stop "stopped at a call that could take more than 10 million steps" end
  budget.steps = budget.steps - steps
  if budget.steps < 0 then
    stop "stopped after 10 million steps: a policy file declares and ends"
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
    stop "stopped after 2 seconds: a policy file declares and ends"
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
  local safe = {}
  for _, name in ipairs { "byte", "char", "len", "lower", "reverse", "sub", "upper" } do
    local f = string[name]
    safe[name] = function (...)
      charge(budget, length((...)) / BYTES_A_STEP)
      return f(...)
    end
  end

  function safe.rep(text, n, separator)
    if is_text(text) and type(n) == "number" then
      charge(budget, bounded("string.rep", (length(text) + length(separator)) * math.max(n, 0)))
    end
    return string.rep(text, n, separator)
  end

  function safe.format(format, ...)
    if length(format) > LONGEST_FORMAT then stop "stopped at a format of more than 1024 bytes" end
    local bytes = 0
    for i = 1, select("#", ...) do bytes = bytes + length((select(i, ...))) end
    charge(budget, bounded("string.format", bytes))
    return string.format(format, ...)
  end

  function safe.find(text, pattern, init, plain)
    charge(budget, search_cost(text, pattern, plain))
    return string.find(text, pattern, init, plain)
  end

  for _, name in ipairs { "match", "gmatch" } do
    local f = string[name]
    safe[name] = function (text, pattern, ...)
      charge(budget, search_cost(text, pattern))
      return f(text, pattern, ...)
    end
  end

  function safe.gsub(text, pattern, by, ...)
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
      return string.gsub(text, pattern, by, ...)
    elseif type(by) == "table" then
      return string.gsub(text, pattern, function (key) return piece(by[key]) end, ...)
    elseif type(by) == "function" then
      return string.gsub(text, pattern, function (...) return piece((by(...))) end, ...)
    end
    return string.gsub(text, pattern, by, ...)
  end

  return safe
end

local function tables(budget)
  local safe = {}

  function safe.concat(list, separator, from, to)
    if type(list) == "table" then
      local bytes = 0
      for i = from or 1, to or #list do
        if not is_text(rawget(list, i)) then break end
        bytes = bytes + length(list[i]) + length(separator)
        bounded("table.concat", bytes)
        charge(budget, 1 + length(list[i]) / BYTES_A_STEP)
      end
    end
    return table.concat(list, separator, from, to)
  end

  -- insert and remove move what is behind; sort compares n log n times
  for _, name in ipairs { "insert", "remove" } do
    local f = table[name]
    safe[name] = function (list, ...)
      if type(list) == "table" and select("#", ...) > 0 then charge(budget, #list / 4) end
      return f(list, ...)
    end
  end

  function safe.sort(list, ...)
    if type(list) == "table" then charge(budget, #list * 32) end
    return table.sort(list, ...)
  end

  return safe
end

local function numbers()
  local safe = {}
  for name, value in pairs(math) do safe[name] = value end
  safe.random, safe.randomseed = nil, nil   -- a policy is the same each time it is read
  return safe
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

-- Names that exist elsewhere in Lua, and names this language keeps for itself.
local ELSEWHERE = words [[_G bit collectgarbage coroutine debug dofile ffi gcinfo getfenv
  getmetatable io jit load loadfile loadstring module newproxy next os package pcall print rawequal
  rawget rawset require setfenv setmetatable xpcall]]
local RESERVED = words "per include log now emit"

-- The line of the chunk that is running, seen from anything it called.
local function line_now()
  for level = 2, math.huge do
    local info = debug.getinfo(level, "Sl")
    if not info then return nil end
    if info.source == CHUNK then return info.currentline end
  end
end

--- Where the chunk stands now; for declaration functions.
room.line = line_now

---@class neap.complaint
---@field line integer?
---@field name string       as it stands in the text
---@field message string
---@field words string[]?   what may have been meant

-- A library that complains about what it does not have, and cannot be changed.
local function closed(library, prefix, complain)
  local names = {}
  for name in pairs(library) do names[#names + 1] = prefix .. name end

  local function refuse(key, message)
    local name = type(key) == "string" and key or tostring(key)
    complain { line = line_now(), name = name, words = names, typed = prefix .. name,
      message = message:format(prefix, name) }
    return blank
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
  for name, verb in pairs(verbs) do known[name] = verb end
  local names, assigned = {}, {}
  for name in pairs(known) do names[#names + 1] = name end

  local function read(_, name)
    if known[name] ~= nil then return known[name] end
    if assigned[name] ~= nil then return assigned[name] end
    local complaint = { line = line_now(), name = name }
    if RESERVED[name] then
      complaint.message = ("'%s' is not supported by this version"):format(name)
    elseif ELSEWHERE[name] then
      complaint.message = ("'%s' is not available in a policy file"):format(name)
    else
      complaint.message, complaint.words = ("unknown name '%s'"):format(name), names
      complaint.typed = name
    end
    complain(complaint)
    return blank
  end

  local function assign(_, name, value)
    complain { line = line_now(), name = name,
      message = ("global '%s' assigned; use 'local %s'"):format(name, name) }
    assigned[name] = value
  end

  return setmetatable({}, { __index = read, __newindex = assign }), known.string
end

-- ---- running ----------------------------------------------------------------------------------

-- An error as message and line. Messages of the machine carry the line in front.
local function explain(problem)
  local line = line_now()
  if getmetatable(problem) == Stop then return { message = problem.message, line = line } end
  if type(problem) ~= "string" then
    local what = type(problem) == "number" and tostring(problem) or "a " .. type(problem)
    return { message = "error raised: " .. what, line = line }
  end
  local at, message = problem:match "^%(policy%):(%d+): (.*)$"
  if at then return { message = message, line = line or tonumber(at) } end
  return { message = problem:match "stack overflow$" or problem, line = line }
end

--- Read a chunk. Text only: compiled Lua could break the machine.
---@param text string
---@return function? chunk, string? message, integer? line
function room.read(text)
  local chunk, problem = loadstring(text, CHUNK, "t")
  if chunk then return chunk end
  local line, message = problem:match "^%(policy%):(%d+): (.*)$"
  return nil, message or problem, tonumber(line)
end

--- Run a chunk with these declaration functions. Hooks, collector and the methods of strings are
--- as before when this returns.
---@param chunk function
---@param verbs table<string, function>
---@param complain fun(complaint: neap.complaint)
---@param clock? fun(): number   seconds
---@return boolean ok, table|nil problem  { message, line }, or what the chunk returned
function room.run(chunk, verbs, complain, clock)
  local was_running = collectgarbage "isrunning"
  local hook, mask, count = debug.gethook()
  local methods = debug.getmetatable ""
  local index = methods.__index

  local budget = new_budget(clock)
  local env, safe_string = environment(budget, verbs, complain)
  setfenv(chunk, env)
  jit_off(chunk, true)
  collectgarbage "stop"
  methods.__index = safe_string
  debug.sethook(function () look(budget) end, "", STRIDE)
  local ok, result = xpcall(chunk, function (problem)
    debug.sethook()
    methods.__index = index
    return explain(problem)
  end)
  debug.sethook(hook, mask, count)
  methods.__index = index
  if was_running then collectgarbage "restart" end

  if not ok and type(result) ~= "table" then   -- nothing was left to explain it with
    local memory = tostring(result):find("memory", 1, true)
    result = { message = memory and "not enough memory" or "stack overflow" }
  end
  return ok, result
end

return room
