--- NEAP.EVAL: a script that came over the wire.
---
---     NEAP.EVAL "local w = neap.acquire('openai', 'COST', arg[1]) return w" 2      "GRANTED"
---     NEAP.EVAL "return policies.openai.limits[1].available"                       37
---
---     arg                              the words after the script
---     policies.NAME                    how a policy stands, as NEAP.SNAPSHOT says it; a copy
---     neap.acquire(policy, word…)      the five elements of a verdict; a lease is detached, and
---                                      nothing waits here, so BLOCK is refused
---     neap.release(lease, word…)       whether there was such a lease
---     neap.renew(lease, ms)  neap.kill(lease)  neap.list(pattern)  neap.now()
---
--- It runs in a room of its own, for the time of the reply: not compiled, with 10 million steps,
--- 1 second and 64 MB, and what a library call may cost is charged before. Who has used that up is
--- ended, whatever it has caught before. pcall and xpcall are ours: at most 50 within each other,
--- and a handler of xpcall runs when what failed is over, so that it is counted, too. Strings are
--- searched plainly: a pattern can take a year. The host's work is not interrupted, or it would be
--- left half done. All this stops accidents and not attackers, and so it is for `admin`.
local C = require "neap.engine"
local held = require "neap.worker.held"
local look = require "neap.worker.look"
local notation = require "neap.notation"
local reply = require "neap.worker.reply"
local report = require "neap.worker.report"
local room = require "neap.policy.room"

local debug, collectgarbage, jit_off = debug, collectgarbage, jit.off
local abs, error, ipairs, pairs, pcall, select = math.abs, error, ipairs, pairs, pcall, select
local setfenv, setmetatable, tonumber, tostring = setfenv, setmetatable, tonumber, tostring
local type, unpack, xpcall = type, unpack, xpcall

local SECONDS = 1
local CATCHES = 50            -- of pcall, one within another
local MOST_VALUES = 10000     -- of a reply, and bytes:
local MOST_BYTES = 2 ^ 20
local DEEPEST = 16
local NAME = "script"

local eval = {}

-- ---- the room ---------------------------------------------------------------------------------

local BASE = { assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs,
  select = select, tonumber = tonumber, tostring = tostring, type = type, unpack = unpack }

local function nothing_else(what)
  return function (_, name)
    error(("'%s%s' is not available in a script"):format(what, tostring(name)), 3)
  end
end

local function closed(library, name)
  return setmetatable({}, { __index = function (_, key)
    local value = library[key]
    if value == nil then nothing_else(name .. ".")(nil, key) end
    return value
  end, __newindex = function () error(name .. " is closed", 2) end })
end

local function results(ok, ...)
  if not ok and room.stopped((...)) then error((...), 0) end
  return ok, ...
end

--- pcall and xpcall, from which nobody comes back who has used up a budget.
local function catches(parts)
  local depth = 0
  local function leave(...)
    depth = depth - 1
    return results(...)
  end
  local function try(f, ...)
    if depth == CATCHES then parts.stop "stopped at 50 pcalls within each other" end
    depth = depth + 1
    return leave(pcall(f, ...))
  end
  return try, function (f, handler, ...)
    local function handled(ok, ...)
      if ok then return ok, ... end
      return false, handler((...))
    end
    return handled(try(f, ...))
  end
end

local function strings(safe)
  local find = safe.find
  safe.match, safe.gmatch, safe.gsub = nil, nil, nil
  function safe.find(text, what, from) return find(text, what, from, true) end
  return safe
end

--- A room, and how to step into it and out of it.
local function open(clock)
  local parts = room.parts(clock, SECONDS)
  local methods = debug.getmetatable ""
  local index, hook, mask, count = methods.__index, debug.gethook()
  local known = { string = closed(strings(parts.string), "string"),
    math = closed(parts.math, "math"), table = closed(parts.table, "table") }
  for name, f in pairs(BASE) do known[name] = f end
  known.pcall, known.xpcall = catches(parts)
  return {
    known = known,
    enter = function ()
      methods.__index = known.string
      debug.sethook(parts.look, "", parts.stride)
    end,
    leave = function ()
      debug.sethook(hook, mask, count)
      methods.__index = index
    end,
  }
end

--- Work of the host: outside, whole, and its mistakes are the script's.
local function outside(self, f)
  local function back(ok, ...)
    self.enter()
    if not ok then error((...), 3) end
    return ...
  end
  return function (...)
    self.leave()
    return back(pcall(f, ...))
  end
end

-- ---- what a script can do ---------------------------------------------------------------------

local function texts(...)
  local words = {}
  for i = 1, select("#", ...) do
    local word = select(i, ...)
    if type(word) == "number" and word % 1 == 0 and abs(word) < 2 ^ 53 then
      word = ("%d"):format(word)
    elseif type(word) ~= "string" then
      error(("word %d: a text or a whole number expected, got %s"):format(i, type(word)), 0)
    end
    words[i] = word
  end
  return words
end

local function account_of(desk, name)
  local account, err = desk.accounts:policy(tostring(name))
  if not account then error(err, 0) end
  return account
end

local function verbs_of(desk, client)
  local verbs = {}

  function verbs.acquire(...)
    local words, said = texts(...), nil
    if not words[1] then error("acquire: the name of a policy expected", 0) end
    local account, options = desk:read(words)
    if not account then error(options, 0) end
    if options.block then error("BLOCK: nothing waits in a script", 0) end
    local err = desk:check(client, words, function ()
      return function (...) said = { ... } end
    end)
    if err then error(err, 0) end
    return unpack(said, 1, 5)
  end

  function verbs.release(...)
    local words = texts(...)
    if not words[1] then error("release: a lease expected", 0) end
    local found, err = report.give_back(desk, words)
    if err then error(err, 0) end
    return found
  end

  function verbs.renew(lease, ms)
    local left, err = held.let_live(desk, texts(lease, ms))
    if err then error(err, 0) end
    return left
  end

  function verbs.kill(lease)
    return desk.leases:kill(texts(lease)[1], desk.clock()) ~= nil
  end

  function verbs.list(pattern) return desk.accounts:list(pattern and tostring(pattern)) end

  function verbs.now() return tonumber(desk.clock()) / 1e9 end

  return verbs
end

local function policies_of(desk)
  return function (_, name)
    local account, now = account_of(desk, name), desk.clock()
    C.neap_engine_advance(desk.engine, now)
    return look.plain(look.policy(account, now))
  end
end

-- ---- the reply --------------------------------------------------------------------------------

--- A value as a reply, or an error.
local function to_reply(value, left, depth)
  left.values = left.values - 1
  if left.values < 0 or left.bytes < 0 or depth > DEEPEST then
    error("the value is too large for a reply", 0)
  end
  if type(value) == "string" then
    left.bytes = left.bytes - #value
    return value
  elseif type(value) == "number" then
    if value % 1 == 0 and abs(value) < 2 ^ 53 then return value end
    return tostring(value)
  elseif type(value) == "boolean" then
    return value
  elseif value == nil then
    return reply.null
  elseif type(value) ~= "table" then
    error("a reply cannot hold a " .. type(value), 0)
  end
  local list = {}
  for i, each in ipairs(value) do list[i] = to_reply(each, left, depth + 1) end
  if list[1] ~= nil then return list end
  local names, map = {}, {}
  for name in pairs(value) do names[#names + 1] = tostring(name) end
  table.sort(names)
  for i, name in ipairs(names) do map[i] = { name, to_reply(value[name], left, depth + 1) } end
  return map[1] and reply.map(map) or list
end

local function explain(problem)
  local stopped = room.stopped(problem)
  local text = stopped or type(problem) == "string" and problem or "a " .. type(problem)
  if text:find("not enough memory", 1, true) then text = "stopped at 64 MB of memory" end
  local code = text:find "^ERR " or text:find "^NOPOLICY "   -- a verb's own error
  return (code and "" or "ERR ") .. notation.show(text, 400)
end

--- Run it. The collector rests meanwhile, so that what it makes is seen.
local function run(self, chunk)
  local was_running = collectgarbage "isrunning"
  jit_off(chunk, true)
  collectgarbage "stop"
  self.enter()
  local ok, value = xpcall(chunk, function (problem)
    self.leave()
    return problem
  end)
  self.leave()
  if was_running then collectgarbage "restart" end
  return ok, value
end

---@param desk neap.Desk
---@param client integer
---@param words string[]
---@param worker neap.Worker
function eval.run(desk, client, words, worker)
  local chunk, problem = room.read(words[1], NAME)
  if not chunk then return desk:fail(client, "ERR script: " .. notation.show(problem, 400)) end
  local self = open(function () return tonumber(C.neap_loop_now(worker.loop)) / 1e9 end)
  local known, verbs = self.known, {}
  for name, verb in pairs(verbs_of(desk, client)) do verbs[name] = outside(self, verb) end
  known.neap = closed(verbs, "neap")
  known.policies = setmetatable({}, { __index = outside(self, policies_of(desk)),
    __newindex = function () error("policies are to be read only", 2) end })
  known.arg = {}
  for i = 2, #words do known.arg[i - 1] = words[i] end
  setfenv(chunk, setmetatable({}, { __index = function (_, name)
    local value = known[name]
    if value == nil then nothing_else ""(nil, name) end
    return value
  end, __newindex = function (_, name)
    error(("global '%s' assigned; use 'local %s'"):format(tostring(name), tostring(name)), 2)
  end }))
  local ok, value = run(self, chunk)
  local fine, made = ok, value
  if ok then
    fine, made = pcall(to_reply, value, { values = MOST_VALUES, bytes = MOST_BYTES }, 0)
  end
  if not fine then return desk:fail(client, explain(made)) end
  reply.write(C.neap_server_reply(desk.server, client), made)
end

return eval
