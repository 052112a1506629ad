--- A worker at a prompt: how its policies stand, what a call would meet, and copies of them to try
--- things with.
---
---     > openai                          limits, who waits, what was said
---     > try("openai", { input = 900 })  may it leave; nothing is taken
---     > why("openai", { tenant = "42" })
---     > w = copy "openai"               here, as used up as there, in time that stands
---     > w = whatif(openai, { requests = "500/min burst 40" })
---     > tail "openai"                   events, until Ctrl-C
---
---
--- A copy is what the worker has declared (NEAP.POLICY GET), as used up as NEAP.SNAPSHOT says. Of
--- whom it does not tell what is declared, the copy has the policy's own limits alone, which a
--- snapshot has, too.
local amend = require "neap.cli.amend"
local explain = require "neap.cli.explain"
local json = require "cjson"
local notation = require "neap.notation"
local reason = require "neap.reason"
local remote = require "neap.cli.remote"
local show = require "neap.cli.show"
local views = require "neap.cli.views"

local concat, error, floor, huge = table.concat, error, math.floor, math.huge
local getmetatable, ipairs, pairs, pcall = getmetatable, ipairs, pairs, pcall
local setmetatable, sort, tostring, type = setmetatable, table.sort, tostring, type

local amount = notation.format_amount

local SLICE_MS = 50        -- how long Ctrl-C may take to be seen while events are waited for

local attached = {}

---@class neap.Attached
---@field address string
---@field user string?
---@field worker neap.Remote?
---@field bench neap.Bench       for copies
---@field check fun()            raises an error when the entry is to stop
---@field names string[]
local Attached = {}
Attached.__index = Attached

-- ---- asking -----------------------------------------------------------------------------------

local function dial(self)
  local worker, problem = remote.dial(self.address)
  if not worker then return nil, problem end
  local fine
  fine, problem = worker:log_in(self.user)
  if not fine then return nil, problem end
  return worker
end

--- Ask the worker; what it refuses is an error. A connection that broke is made anew the next time.
---@param ... string|integer
---@return any
function Attached:ask(...)
  if not self.worker then
    local worker, problem = dial(self)
    if not worker then error(problem, 0) end
    self.worker = worker
  end
  local answer, message, lost = self.worker:ask(...)
  if lost then self.worker = nil end
  if answer == nil then error((message:gsub("^ERR ", "")), 0) end
  return answer
end

--- A flat list of names and values, as RESP2 has maps, and the lists of maps in it.
local function map(list)
  local fields = {}
  for i = 1, #list, 2 do
    local name, value = list[i], list[i + 1]
    if type(value) == "table" and type(value[1]) == "table" then
      local all = {}
      for k, each in ipairs(value) do all[k] = map(each) end
      value = all
    elseif (name == "said" or name == "queue") and type(value) == "table" then
      value = map(value)
    end
    fields[name] = value
  end
  return fields
end

-- ---- policies ---------------------------------------------------------------------------------

---@class neap.cli.RemotePolicy
---@field name string
---@field limits table<string, table>   by name
---@field console neap.Attached
local Policy = {}

local Level = {}      -- of a limit, as it was when it was asked for

local METHODS = {}

function Policy:__index(name)
  if name == "limits" then
    local list = {}
    for _, limit in ipairs(self.console:state(self.name).limits) do
      list[limit.name] = setmetatable(limit, Level)
    end
    return list
  end
  return METHODS[name]
end

local function is_remote(x) return type(x) == "table" and getmetatable(x) == Policy end

local function level(limit)
  if limit.capacity < 0 then return "no bound" end
  local available = limit.available
  return ("%s of %s"):format(available < 0 and available or amount(available),
    amount(limit.capacity))
end

function Level:__tostring()
  return ("%s: %s, has %s"):format(self.name, self.limit, level(self))
end

local function rows_of(state)
  local rows = {}
  for _, list in ipairs { state.limits, state.by or {} } do
    for _, limit in ipairs(list) do rows[#rows + 1] = { limit.name, limit.limit, level(limit) } end
  end
  for _, scope in ipairs(state.scopes or {}) do
    rows[#rows + 1] = { "per " .. scope.scope, "keys: " .. scope.keys }
  end
  if state.queue then
    rows[#rows + 1] = { "queue", ("%d of %d wait"):format(state.queue.waiting,
      state.queue.capacity) }
  end
  if state.breaker then rows[#rows + 1] = { "breaker", state.breaker } end
  if state.backoff_ms and state.backoff_ms > 0 then
    rows[#rows + 1] = { "backoff", "for " .. show.duration(state.backoff_ms / 1000) }
  end
  return rows
end

local State = {}

function State:__tostring()
  local said = self.said
  return concat({ self.policy .. (self.doc and ": " .. self.doc or ""),
    views.columns(rows_of(self)),
    ("  waiting %d, leases %d; said: granted %d, waited %d, retry %d, never %d, shed %d"):format(
      self.waiting, self.leases, said.granted, said.waited, said.retry, said.never, said.shed) },
    "\n")
end

function Policy:__tostring() return tostring(self.console:state(self.name)) end

--- How a policy stands: NEAP.SNAPSHOT.
---@param name string
---@param by? table<string, string|integer>   also for these keys
---@return table
function Attached:state(name, by)
  local words = { "NEAP.SNAPSHOT", name }
  for scope, value in pairs(by or {}) do
    words[#words + 1], words[#words + 2], words[#words + 3] = "BY", scope, tostring(value)
  end
  return setmetatable(map(self:ask(unpack(words))), State)
end

--- The name of what a verb is about.
local function name_of(what)
  if is_remote(what) then return what.name end
  if type(what) == "string" then return what end
  error("a policy or its name expected, got " .. show.value(what), 0)
end

--- The names that say for whom a call is.
local function scopes_of(self, name)
  local names = {}
  for _, scope in ipairs(self:state(name).scopes or {}) do
    for one in scope.scope:gmatch "[^, ]+" do names[one] = true end
  end
  return names
end

--- What a call says, as the words of NEAP.ACQUIRE: of what is for whom the worker's scopes tell.
local function words_for(self, command, name, given)
  local words = { command, name }
  local function add(...)
    for _, word in ipairs { ... } do words[#words + 1] = tostring(word) end
  end
  if type(given) == "number" then
    add("COST", given)
  elseif given ~= nil and type(given) ~= "table" then
    error("a table expected, as in { input = 900 }, got " .. show.value(given), 0)
  end
  local scopes = type(given) == "table" and scopes_of(self, name) or {}
  for key, value in pairs(type(given) == "table" and given or {}) do
    if key == "priority" then add("PRIO", value)
    elseif scopes[key] then add("BY", key, value)
    else add("COST", key, value) end
  end
  return words
end

-- ---- verbs ------------------------------------------------------------------------------------

---@type neap.cli.Verbs
local VERBS = {}

--- How a policy stands, also for keys: look "openai", look("openai", { tenant = "42" }).
function VERBS.look(self, what, by) return self:state(name_of(what), by) end

--- May a call leave now? Nothing is taken: try("openai", { input = 900, tenant = "42" }).
function VERBS.try(self, what, given)
  local words = words_for(self, "NEAP.ACQUIRE", name_of(what), given)
  words[#words + 1] = "PEEK"
  local word, _, _, retry_ms, bound = unpack(self:ask(unpack(words)))
  if word == "GRANTED" then return "it may leave now" end
  local why = word == "NEVER" and "more than there can ever be" or word == "SHED" and "turned away"
    or "not now"
  return ("refused: %s (%s)%s"):format(why, bound,
    retry_ms > 0 and "; again in " .. show.duration(retry_ms / 1000) or "")
end

--- What stands in the way of a call, limit by limit: why("openai", { input = 900 }).
function VERBS.why(self, what, given)
  local found = map(self:ask(unpack(words_for(self, "NEAP.EXPLAIN", name_of(what), given))))
  if found.verdict == "GRANTED" then return "nothing: it may leave now" end
  for _, limit in ipairs(found.limits) do
    if limit.name == found.bound then
      return tostring(reason.of { limiter = limit.name, cost = limit.needs,
        word = found.verdict == "NEVER" and "cost" or "rate", place = found.ahead,
        capacity = limit.capacity < 0 and huge or limit.capacity, balance = limit.available,
        wait = found.retry_ms > 0 and found.retry_ms / 1000 or nil })
    end
  end
  return ("%s: %s%s"):format(found.bound, found.verdict:lower(),
    found.retry_ms > 0 and "; again in " .. show.duration(found.retry_ms / 1000) or "")
end

local function declared_of(state)
  local limits = {}
  for _, limit in ipairs(state.limits) do
    local value = notation.limit(limit.limit)
    if value then
      limits[#limits + 1] = { name = limit.name, notation = value, text = limit.limit }
    end
  end
  return { name = state.policy, doc = state.doc, limits = limits, costs = {} }
end

--- A copy of a policy, here, as used up as it is there, in time that stands until `advance`: w =
--- copy "openai", then try(w), plot(w, "1m"). What a key has used is copied when it is said: copy(
--- "openai", { tenant = "42" }). Who waits there does not wait here.
function VERBS.copy(self, what, by)
  local name = name_of(what)
  local state = self:state(name, by)
  local made = self.bench:add(amend.declared(self, name) or declared_of(state))
  for _, list in ipairs { state.limits, state.by or {} } do
    for _, limit in ipairs(list) do
      local twin, key = made.limits[limit.name], nil
      if twin and twin.keyed then key = (by or {})[limit.name:match "^(.-)%."] end
      if twin and limit.capacity >= 0 and (key ~= nil or not twin.keyed) then
        views.use_up(self.bench, twin, limit.capacity - limit.available, key)
      end
    end
  end
  made.name = made.name .. ", a copy"
  return made
end

--- A copy with other limits: w = whatif(openai, { requests = "500/min burst 40" }), then try(w).
function VERBS.whatif(self, what, limits)
  local made = views.is_policy(what) and what or VERBS.copy(self, what)
  return views.what_if(self.bench, made, limits)
end

--- Who of a scope called most: top("openai", "tenant"), top("openai", "tenant", 5).
function VERBS.top(self, what, scope, most)
  local words = { "NEAP.TOP", name_of(what), scope }
  if most then words[4], words[5] = "COUNT", floor(most) end
  local list = self:ask(unpack(words))
  local rows = {}
  for i, each in ipairs(list) do
    local entry = map(each)
    rows[i] = { tostring(entry.key), tostring(entry.calls) }
  end
  return rows[1] and views.columns(rows) or "nobody yet"
end

--- Any command of the worker's: ask("NEAP.BREAKER", "openai", "OPEN", 5000).
function VERBS.ask(self, ...) return self:ask(...) end

local function line_of(channel, text)
  local fine, event = pcall(json.decode, text)
  if not fine or type(event) ~= "table" then return channel .. "  " .. text end
  local parts, keys = {}, {}
  for key in pairs(event) do
    if key ~= "policy" and key ~= "event" and key ~= "at" then keys[#keys + 1] = key end
  end
  sort(keys)
  for i, key in ipairs(keys) do parts[i] = key .. "=" .. tostring(event[key]) end
  return ("%s  %s: %s  %s"):format(os.date("%H:%M:%S", event.at or 0), tostring(event.policy),
    tostring(event.event), concat(parts, " ")):gsub(" +$", "")
end

--- Events as they come, until Ctrl-C, or so many: tail(), tail "openai", tail("openai", 5).
function VERBS.tail(self, what, count)
  local pattern = "neap:" .. (what and name_of(what) or "*") .. ":*"
  local worker, problem = dial(self)
  if not worker then error(problem, 0) end
  local fine
  fine, problem = worker:ask("PSUBSCRIBE", pattern)
  if not fine then error(problem, 0) end
  io.stdout:write("listening to ", pattern, "\n")
  local left = count or huge
  while left > 0 do
    io.stdout:flush()
    self.check()
    local message, lost = worker:next(SLICE_MS)
    if lost then error(lost, 0) end
    if message then
      io.stdout:write(line_of(message[3], message[4]), "\n")
      left = left - 1
    end
  end
  worker:close()
end

attached.VERBS = VERBS
Policy.names = setmetatable({ name = true, limits = true }, { __index = METHODS })

-- ---- making -----------------------------------------------------------------------------------

--- A policy of the worker's, to be shown and asked.
---@param name string
---@return neap.cli.RemotePolicy
function Attached:policy(name) return setmetatable({ name = name, console = self }, Policy) end

for _, name in ipairs { "look", "try", "why", "copy", "whatif", "top", "tail" } do
  local verb = VERBS[name]
  METHODS[name] = explain.as(function (self, ...) return verb(self.console, self, ...) end, verb)
end

--- Attach to a worker.
---@param address string
---@param user string?
---@param a_bench neap.Bench
---@return neap.Attached?
---@return string? message
function attached.new(address, user, a_bench)
  local self = setmetatable({ address = address, user = user, bench = a_bench, names = {},
    check = function () end }, Attached)
  local fine, names = pcall(self.ask, self, "NEAP.LIST")
  if not fine then return nil, names end
  self.names = names
  sort(names)
  return self
end

attached.is_remote = is_remote

return attached
