--- A segment: limiters by name that all processes of a machine share.
---
---     local shared = neap.segment "api"                 -- /dev/shm/api, made if it is not there
---     local calls = shared:throttle("payments", "100/min burst 20")
---     local slots = shared:semaphore("payments slots", 50)
---     local api = neap.hybrid { calls, slots, "10/s" }      -- two for all, one of this process
---
--- Whoever opens the same segment and says the same name has the same limiter, exactly: all of them
--- together are granted what one process would be. It outlives them, until the machine starts anew;
--- any of them may be killed at any instant, and the permits it held come back within a second of
--- somebody's waiting for them. (What is promised to the byte is in neap.h, neap_segment.)
---
--- Two that say a name and another limit: the one who asks later wins, and what was spent stays
--- spent. During a reload, where old and new processes live side by side, say a `generation`: the
--- higher one wins, whoever comes last. Shared limiters are changed by `reconfigure`, or by opening
--- with another limit; what would empty or fill them behind the others' backs is not there.
---
--- Who waits in line is woken by its own process when its time comes, and in order. Of permits that
--- others give back it hears by asking anew: 1 ms later while something moves, 8 ms when nothing
--- does (16 in nginx). Between processes nobody has precedence.
---
--- Limits may be kept by key, too, in a table of a size that is told: see segment:per_key.
local ffi = require "ffi"
local C = require "neap.engine"
local adaptive = require "neap.adaptive"
local breaker = require "neap.breaker"
local grammar = require "neap.grammar"
local limiter = require "neap.limiter"
local pause = require "neap.pause"
local per_key = require "neap.per_key"
local semaphore = require "neap.semaphore"
local throttle = require "neap.throttle"

local error, ipairs, next, pairs = error, ipairs, next, pairs
local pcall, setmetatable = pcall, setmetatable
local tonumber, tostring, type = tonumber, tostring, type
local min = math.min

local OPTIONS = { "limiters", "processes", "log_bytes", "mode", "uid", "gid", "attach", "inspect",
  "generation" }
local SOON, LATE = 0.001, 0.008   -- seconds between two looks
local REAP = 1                    -- seconds between two rounds for the dead
local NONE = {}

local options_t = ffi.typeof "struct neap_segment_options"
local out_t = ffi.typeof "struct neap_segment *[1]"
local leaf_out_t = ffi.typeof "struct neap_limiter *[1]"
local keyed_out_t = ffi.typeof "struct neap_keyed *[1]"
local entry_t = ffi.typeof "struct neap_segment_entry"
local stats_t = ffi.typeof "struct neap_segment_stats"

local KIND = {
  [C.NEAP_GCRA] = "rate", [C.NEAP_SEMAPHORE] = "semaphore", [C.NEAP_WINDOW] = "sliding",
  [C.NEAP_PAUSE] = "pause", [C.NEAP_BREAKER] = "breaker", [C.NEAP_ADAPTIVE] = "adaptive",
}
local STATE = {
  [C.NEAP_BREAKER_CLOSED] = "closed", [C.NEAP_BREAKER_OPEN] = "open",
  [C.NEAP_BREAKER_HALF_OPEN] = "half-open",
}

---@class neap.Segment
---@field path string
---@field c ffi.cdata*          struct neap_segment *
---@field generation integer    0: one more than who asked before
---@field leaves table<string, ffi.cdata*>  by name, one cdata for each limiter
---@field secret ffi.cdata*     under which keys are hashed
local segment = {}
segment.__index = segment

local function refuse(text, level) error("segment: " .. text, level + 1) end

-- ---- limiters ---------------------------------------------------------------------------------

local FAILED = {
  [C.NEAP_EFULL] = "there is no room for it: limiters, log_bytes and a table's keys are told when "
    .. "they are made",
  [C.NEAP_ERANGE] = "a limiter of another kind has that name, or the name is longer than 63 bytes",
}

local function failed(self, name, code, level)
  refuse(("%s: %s: %s"):format(self.path, name, FAILED[code] or "error " .. tonumber(code)),
    level + 1)
end

--- The limiter of a name, as `like` is.
---@return ffi.cdata*  struct neap_limiter *
local function place(self, name, like, keep, level)
  local out = leaf_out_t()
  local code = C.neap_segment_add(self.c, name, like, keep, self.generation, limiter.present(), out)
  if code < 0 then failed(self, name, code, level + 1) end
  self.leaves[name] = self.leaves[name] or out[0]
  return self.leaves[name]
end

local function check_name(name, level)
  if type(name) ~= "string" or name == "" or #name > 63 then
    refuse("a name of up to 63 bytes expected, got " .. tostring(name), level + 1)
  end
end

--- Have a limiter that was just made, and has one leaf, live in the segment.
local function share(self, name, made, level)
  local part = made.terms.parts[1]
  if not part or part.closed then return made end   -- no limit, or none ever: the same for all
  if made.terms.parts[2] then
    refuse("a breaker with `over` is two limiters: share both, and put them in a hybrid", level + 1)
  end
  local leaf = place(self, name, made.leaf, C.NEAP_KEEP_SPENT, level + 1)
  made.leaf, made.segment = leaf, self
  part.leaf, part.memory, part.segment = leaf, self, self
  made.terms.terms[0].limiter, made.terms.sums[1].leaf = leaf, leaf
  made.terms.shared = { part }
  return made
end

local function make(self, constructor, name, limit, options, level)
  check_name(name, level + 1)
  local own = {}
  if options ~= nil and type(options) ~= "table" then
    refuse("options: a table expected, got " .. type(options), level + 1)
  end
  for key, value in pairs(options or {}) do own[key] = value end
  own.name = name
  local ok, made
  if limit == nil then
    ok, made = pcall(constructor, own)
  else
    ok, made = pcall(constructor, limit, own)
  end
  if not ok then error((made:gsub("^.-:%d+: ", "", 1)), level + 1) end
  return share(self, name, made, level + 1)
end

--- The throttle of a name.
---
---     shared:throttle("mails", "5/10s sliding"):try_acquire()
---
---@param name string              up to 63 bytes
---@param limit string|neap.limit  as for neap.throttle
---@param options? table           the same
---@return neap.Throttle
function segment:throttle(name, limit, options)
  local made = make(self, throttle, name, limit == nil and "" or limit, options, 2)
  return made
end

--- The semaphore of a name.
---
---     shared:semaphore("renders", 4):with(1, print, "one of four in all processes")
---
---@param name string
---@param limit integer|string|neap.limit  as for neap.semaphore
---@param options? table
---@return neap.Semaphore
function segment:semaphore(name, limit, options)
  local made = make(self, semaphore, name, limit == nil and "" or limit, options, 2)
  return made
end

--- The pause of a name: who extends it, extends it for all.
---
---     shared:pause("api.example.com"):extend(0.5)
---
---@param name string
---@return neap.Pause
function segment:pause(name)
  local made = make(self, pause, name, nil, nil, 2)
  return made
end

--- The breaker of a name.
---
---     shared:breaker("api breaker", { failures = 5 }):call(print, "not while it is open")
---
---@param name string
---@param options? table  as for neap.breaker
---@return neap.Breaker
function segment:breaker(name, options)
  local made = make(self, breaker, name, nil, options, 2)
  return made
end

--- The adaptive limit of a name. Its strategy has to be one of neap's own.
---
---     shared:adaptive("server", { preset = "vegas", ceiling = 50 }):try_acquire()
---
---@param name string
---@param options? string|table  as for neap.adaptive
---@return neap.Adaptive
function segment:adaptive(name, options)
  if type(options) == "string" then options = { preset = options } end
  if type(options) == "table" and type(options.strategy) == "function" then
    refuse("a strategy in Lua knows the calls of its own process alone: name one of neap's", 2)
  end
  local made = make(self, adaptive, name, nil, options, 2)
  return made
end

--- The limit per key of a name, or several: rates, and numbers in flight, which come back when who
--- holds them dies. What a key has is that in all processes. There is room for `most` keys that are
--- alive at once, 8192 unless told, in 31 bytes each of log_bytes, for each limit, and a table does
--- not grow; of a number in flight, as many for each process that holds some of it. When it is full
--- a new one is turned away, unless `full` says otherwise. `overrides` are limiters of the segment,
--- too ("users: vip"). Of one segment and name a hybrid can have one.
---
--- A log per key ("5/m sliding") and what a function makes cannot be shared: they are more than a
--- word, and only a word can be written at once by who may be killed. `idle`, `full` and who has
--- `overrides` are each process's own: all should say the same.
---
---     local users = shared:per_key("users", { "10/s burst 20", "4 in flight" }, { most = 1000 })
---     users:try_acquire("ann")             -- one of ann's 20 in all processes
---
---@param name string
---@param limit string|neap.limit|(string|neap.limit)[]
---@param options? table  as for neap.per_key
---@return neap.PerKey
function segment:per_key(name, limit, options)
  check_name(name, 2)
  if options ~= nil and type(options) ~= "table" then
    refuse("options: a table expected, got " .. type(options), 2)
  end
  local own = {}
  for key, value in pairs(options or {}) do own[key] = value end
  own.name, own.segment = name, self
  local ok, made = pcall(per_key, limit, own)
  if not ok then error((made:gsub("^.-:%d+: ", "", 1)), 2) end
  return made
end

--- The table of a name; for per_key.
---@package
---@param name string
---@param like ffi.cdata*  struct neap_limiter
---@param most integer
---@param full integer
---@param idle_ns ffi.cdata*|integer
---@param level integer
---@return ffi.cdata*  struct neap_keyed *
function segment:keyed(name, like, most, full, idle_ns, level)
  local out = keyed_out_t()
  check_name(name, level + 1)
  local code = C.neap_segment_keyed(self.c, name, like, most, full, C.NEAP_KEEP_SPENT,
    self.generation, limiter.present(), out)
  if code < 0 then failed(self, name, code, level + 1) end
  C.neap_keyed_idle(out[0], idle_ns)
  return out[0]
end

--- The limiter of a name, for a key that has its own; for per_key.
---@package
---@param name string
---@param like ffi.cdata*  struct neap_limiter
---@param level integer
---@return ffi.cdata*  struct neap_limiter
function segment:leaf(name, like, level)
  check_name(name, level + 1)
  return place(self, name, like, C.NEAP_KEEP_SPENT, level + 1)
end

--- Another limit for a shared limiter; for the kinds, which say what it is.
---@package
---@param made neap.Limiter
---@param like ffi.cdata*  struct neap_limiter, as its _init made it
---@param keep integer     C.NEAP_KEEP_...
---@param level integer
function segment:change(made, like, keep, level)
  place(self, made.name, like, keep, level + 1)
end

-- ---- waiting ----------------------------------------------------------------------------------

--- By runtime: what is watched there, and how many wait for it.
local watched = setmetatable({}, { __mode = "k" })

--- Ask those anew who wait for shared limiters.
---@param rt neap.Runtime
---@param of table<neap.Part, integer>
---@param now ffi.cdata*
local function look(rt, of, now)
  for part in pairs(of) do
    C.neap_engine_touch(rt.engine, part.leaf, now)
    for _, own in ipairs(part.owned or NONE) do C.neap_engine_touch(rt.engine, own[1], now) end
  end
end

--- Give back what the dead held.
local function reap(of)
  for part in pairs(of) do C.neap_segment_reap(part.segment.c) end
end

--- Look again until nobody waits any more.
local function watch(rt, of)
  local step, granted, reaped = SOON, -1, rt.now()
  local engine_stats = ffi.new "struct neap_engine_stats"
  while next(of) do
    C.neap_engine_stats(rt.engine, engine_stats)
    if not rt.sleep(step) or engine_stats.waiting == 0 then   -- a run was given up
      watched[rt] = nil
      return
    end
    if rt.now() - reaped >= REAP then
      reaped = rt.now()
      reap(of)
    end
    look(rt, of, rt.now_ns())
    step = engine_stats.granted ~= granted and SOON or min(2 * step, LATE)
    granted = engine_stats.granted
  end
end

--- Somebody stands in line for shared limiters: see to it that they are asked anew.
---@param rt neap.Runtime
---@param parts neap.Part[]
local function begin(rt, parts)
  local of = watched[rt]
  if not of then
    of = {}
    watched[rt] = of
  end
  local idle = next(of) == nil
  for i = 1, #parts do of[parts[i]] = (of[parts[i]] or 0) + 1 end
  if not idle then return end
  if rt.watch then rt.watch(of, look, reap) else rt.spawn("segment", watch, rt, of) end
end

--- It does not stand there any more.
local function over(rt, parts)
  local of = watched[rt] or {}
  for i = 1, #parts do
    local left = (of[parts[i]] or 0) - 1
    of[parts[i]] = left > 0 and left or nil
  end
end

limiter.watch(begin, over)

-- ---- looking ----------------------------------------------------------------------------------

--- Give back what processes held that are dead. Done by itself once a second while somebody waits.
---
---     shared:reap()                       --> 0
---
---@return integer permits
function segment:reap() return tonumber(C.neap_segment_reap(self.c)) end

---@class neap.SegmentEntry
---@field name string
---@field kind "rate"|"semaphore"|"sliding"|"pause"|"breaker"|"adaptive"
---@field generation integer
---@field holders integer    processes that hold permits
---@field available number   tokens or permits; math.huge: no bound
---@field capacity number
---@field state string?      of a breaker
---@field left number?       of a pause: seconds
---@field keys integer?      of a limit per key: how many there may be; the rest is of who shares

local function unbounded(n)
  n = tonumber(n)
  return n < 2 ^ 62 and n or math.huge
end

--- What is in there, disturbing nobody: `for one in shared:each() do print(one.name) end`.
---
---     for one in shared:each() do assert(one.kind) end
---
---@return fun(): neap.SegmentEntry?
function segment:each()
  local cursor, entry = ffi.new "int32_t[1]", entry_t()
  return function ()
    if C.neap_segment_next(self.c, cursor, entry) ~= 1 then return nil end
    local now, l = limiter.present(), entry.limiter
    local one = {
      name = ffi.string(entry.name), kind = KIND[l.kind], generation = tonumber(entry.generation),
      holders = tonumber(entry.holders), available = unbounded(C.neap_limiter_available(l, now)),
      capacity = unbounded(C.neap_limiter_capacity(l)),
    }
    if entry.keys_max > 0 then one.keys = tonumber(entry.keys_max) end
    if one.kind == "breaker" then
      one.state = STATE[C.neap_breaker_state(l.as.breaker, now)]
    elseif one.kind == "pause" then
      local ends = C.neap_pause_when(l.as.pause, now)
      one.left = tonumber(ends - now) / 1e9
    end
    return one
  end
end

--- How full it is.
---
---     shared:stats().limiters_max         --> 64
---
---@return { limiters: integer, limiters_max: integer, processes: integer, processes_max: integer,
---  log_used: integer, log_bytes: integer, bytes: integer }
function segment:stats()
  local s, all = stats_t(), {}
  C.neap_segment_stats(self.c, s)
  for _, name in pairs { "limiters", "limiters_max", "processes", "processes_max", "log_used",
    "log_bytes", "bytes" } do
    all[name] = tonumber(s[name])
  end
  return all
end

--- Which one.
---
---     tostring(shared):match "segment"    --> "segment"
---
---@return string
function segment:__tostring() return "segment " .. self.path end

-- ---- opening ----------------------------------------------------------------------------------

local function number(options, name, most, level)
  local n = options[name]
  if n == nil then return 0 end
  if type(n) ~= "number" or n % 1 ~= 0 or not (n >= 0 and n <= most) then
    refuse(("%s: a whole number up to %d expected, got %s"):format(name, most, tostring(n)),
      level + 1)
  end
  return n
end

--- Permissions: "0660", as chmod has them.
local function read_mode(options, level)
  local mode = options.mode
  if mode == nil then return 0 end
  local octal = type(mode) == "string" and mode:match "^0?[0-7][0-7][0-7]$"
  if not octal then
    refuse("mode: a text such as \"0660\" expected, got " .. tostring(mode), level + 1)
  end
  return tonumber(octal, 8)
end

local function read(options, level)
  local o = options_t()
  o.limiters_max = number(options, "limiters", 65536, level + 1)
  o.processes_max = number(options, "processes", 1024, level + 1)
  o.log_bytes = number(options, "log_bytes", 2 ^ 36, level + 1)
  o.mode = read_mode(options, level + 1)
  o.uid = number(options, "uid", 2 ^ 31, level + 1)
  o.gid = number(options, "gid", 2 ^ 31, level + 1)
  if options.attach and options.inspect then
    refuse("either attach, or inspect, which writes nothing", level + 1)
  end
  o.how = options.inspect and C.NEAP_INSPECT or options.attach and C.NEAP_ATTACH or C.NEAP_MAKE
  return o
end

--- Open one, and make it if it is not there. It stays open until the process ends.
---
---   limiters    names it has room for, 64 unless told       these three count when it is made;
---   processes   that may hold permits at once, 64           one that is there has to have as many
---   log_bytes   for sliding limits, breakers and keys, 512 KiB
---   mode        permissions, "0600" unless told
---   uid, gid    whose the file is to be, for a master that is root and has workers that are not
---   attach      true: only if it is there             inspect   true: the same, and never write
---   generation  of this process's configuration; a higher one wins. Unless told, who asks last
---@param name string  in /dev/shm; or a path, with a slash in it
---@param options? table
---@return neap.Segment?
---@return string? message  why not: permissions, space, another version, bounds too low
return function (name, options)
  if type(name) ~= "string" or name == "" then
    refuse("a name or a path expected, got " .. tostring(name), 2)
  end
  if options ~= nil and type(options) ~= "table" then
    refuse("options: a table expected, got " .. type(options), 2)
  end
  options = options or {}
  grammar.check_names("segment", options, OPTIONS, 2)
  local generation = number(options, "generation", 2 ^ 53, 2)
  local out, message = out_t(), ffi.new "char[512]"
  local code = C.neap_segment_open(name, read(options, 2), out, message, 512)
  if code == C.NEAP_ERANGE then refuse(ffi.string(message), 2) end
  if code ~= C.NEAP_OK then return nil, ffi.string(message) end
  -- Limiters and permits may be collected after it, so it is left to the end of the process.
  local c = options.inspect and ffi.gc(out[0], C.neap_segment_close) or out[0]
  local secret = ffi.new "uint8_t[16]"
  C.neap_segment_secret(c, secret)
  return setmetatable({ path = name, c = c, leaves = {}, generation = generation, secret = secret },
    segment)
end
