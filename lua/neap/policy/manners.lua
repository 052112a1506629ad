--- What a policy does besides limiting: how it holds leases, backs off, breaks, waits, retries,
--- sheds and tells. One function per field; each gives the part of the tree, or nil when it is
--- absent.
local backoff_text = require "neap.backoff.text"
local look = require "neap.policy.look"
local notation = require "neap.notation"
local room = require "neap.policy.room"

local getinfo = debug.getinfo
local ipairs, pairs, type = ipairs, pairs, type

local blank = room.blank
local show, place_of, table_in = look.show, look.place_of, look.table_in

local manners = {}

local LEASE_NS = 60e9                      -- a lease that says nothing lives a minute
local LEAST_NS, MOST_NS = 1e6, 30 * 86400e9
local STATUSES = { 429, 503 }              -- that say: hold back
local WINDOW_NS = 10e9                     -- when they do not say how long
local PENALTY_MOST = 2 ^ 31 - 1
local TRIP = { kind = "consecutive", count = 5 }
local COOLDOWN_NS = 30e9
local MOST_SEEN = 2 ^ 24                   -- outcomes a breaker looks back on
local MOST_WAITING = 2 ^ 18
local WAITING = 1000
local MOST_PRIORITIES = 16
local ATTEMPTS = 5
local BACKOFF = "100ms x2 jitter decorrelated"
local OVERFLOWS = { "refuse", "drop oldest", "drop lowest" }
local TOKEN = "^[%w!#$%%&'*+.^_`|~-]+$"    -- a header's name, RFC 9110
local NAME = "^[%a_][%w_-]*$"
local LONGEST_NAME = 128

--- What a worker tells; `on` may have a hook for each.
manners.EVENTS = { "open", "half-open", "close", "backoff", "backoff-end", "limit", "shed",
  "expired", "reload", "reload-failed", "drain", "fault" }

local function words(text)
  local set = {}
  for word in text:gmatch "%S+" do set[word] = true end
  return set
end

-- ---- hooks ------------------------------------------------------------------------------------

---@class neap.hook
---@field fn function
---@field file string
---@field line integer

-- A function of the file, with where it begins.
local function hook(reading, spot, body, key, path)
  local fn = look.typed(reading, spot, body, key, "function", path)
  if not fn then return nil end
  local info = getinfo(fn, "S")
  local source = info.what == "Lua" and reading.chunks[info.source:sub(2)]
  if not source then
    reading.report:add(place_of(spot, key), path .. key, "a function of the policy file expected")
    return nil
  end
  reading.spots[fn] = { source = source, from = info.linedefined, to = info.lastlinedefined }
  return { fn = fn, file = source.file, line = info.linedefined }
end

function manners.estimate(reading, spot, body)
  return hook(reading, spot, body, "estimate", "")
end

function manners.on(reading, spot, body, owner)
  local hooks, known = {}, {}
  for _, event in ipairs(manners.EVENTS) do known[event] = true end
  local given, inner = table_in(reading, spot, body, "on", known, owner)
  for event in pairs(given or {}) do
    if known[event] then hooks[event] = hook(reading, inner, given, event, "on.") end
  end
  return hooks
end

-- ---- leases -----------------------------------------------------------------------------------

local LEASE = words "ttl settle"

function manners.lease(reading, spot, body, owner, names)
  local lease = { ttl_ns = LEASE_NS, settle = {} }
  local given, inner = table_in(reading, spot, body, "lease", LEASE, owner)
  if not given then return lease end
  lease.ttl_ns = look.duration(reading, inner, given, "ttl", "lease.", LEAST_NS, MOST_NS)
    or LEASE_NS
  local seen = {}
  for _, entry in ipairs(look.words_of(reading, inner, given, "settle", "lease.")) do
    if names and look.check_word(reading, seen, entry, names, "lease.settle", "limit") then
      lease.settle[#lease.settle + 1] = entry.word
    end
  end
  return lease
end

-- ---- back-off and breaker ---------------------------------------------------------------------

local BACKOFF_FIELDS = words "on window from throttled penalty"
local BREAKER_FIELDS = words "trip cooldown probes on"

-- HTTP statuses, one or a list.
local function statuses(reading, spot, body, path)
  local list, seen = {}, {}
  for _, entry in ipairs(look.entries_of(reading, spot, body, "on", path, "number")) do
    local status = entry.word
    if status % 1 ~= 0 or status < 100 or status > 599 then
      reading.report:add(entry.place, path .. "on",
        ("a status from 100 to 599 expected, got %.14g"):format(status))
    elseif look.check_word(reading, seen, entry, nil, path .. "on", "status") then
      list[#list + 1] = status
    end
  end
  return list[1] and list or nil
end

-- A table of own limits in a field: each name with what `read` makes of it, in textual order.
local function by_limit(reading, spot, given, key, path, names, read)
  local list = {}
  local inner_given = look.typed(reading, spot, given, key, "table", path)
  if not inner_given then return list end
  local inner = look.spot_in(reading, spot, key, inner_given)
  path = path .. key
  look.check_twice(reading, inner, path .. ".")
  for _, name in ipairs(look.textual(inner, inner_given)) do
    local entry = { word = name, place = place_of(inner, name) }
    if type(name) ~= "string" then
      reading.report:add(entry.place, path, "the name of a limit expected before the value")
    elseif not names or look.check_word(reading, {}, entry, names, path .. "." .. show(name),
      "limit") then
      list[#list + 1] = read(inner, inner_given, name, path .. ".")
    end
  end
  return list
end

function manners.backoff(reading, spot, body, owner, names, declared)
  local given, inner = table_in(reading, spot, body, "backoff", BACKOFF_FIELDS, owner)
  if not given then return nil end
  local from, seen, kinds = {}, {}, {}
  for _, entry in ipairs(look.words_of(reading, inner, given, "from", "backoff.")) do
    if not entry.word:find(TOKEN) or #entry.word > LONGEST_NAME then
      reading.report:add(entry.place, "backoff.from",
        ("'%s' is no name of a header"):format(show(entry.word)))
    else
      entry.word = entry.word:lower()
      if look.check_word(reading, seen, entry, nil, "backoff.from", "header") then
        from[#from + 1] = entry.word
      end
    end
  end
  if given.from == nil then from[1] = "retry-after" end
  for _, limit in ipairs(declared.limits) do kinds[limit.name] = limit.notation.kind end

  local function throttled(at, texts, name, path)
    local value = texts[name] ~= blank
      and require "neap.policy.limits".read(reading, at, name, texts[name], path .. name)
    if not value then return nil end
    if kinds[name] and kinds[name] ~= value.kind and value.kind ~= "closed" then
      return reading.report:add(place_of(at, name), path .. name,
        ("%s is of another kind than the limit it stands for"):format(notation.format(value)))
    end
    return { name = name, notation = value, text = texts[name] }
  end

  local function penalty(at, counts, name, path)
    local count = look.count(reading, at, counts, name, path, 1, PENALTY_MOST)
    return count and { name = name, count = count }
  end

  return { on = statuses(reading, inner, given, "backoff.") or { STATUSES[1], STATUSES[2] },
    window_ns = look.duration(reading, inner, given, "window", "backoff.", LEAST_NS, MOST_NS)
      or WINDOW_NS,
    from = from,
    throttled = by_limit(reading, inner, given, "throttled", "backoff.", names, throttled),
    penalty = by_limit(reading, inner, given, "penalty", "backoff.", names, penalty) }
end

function manners.breaker(reading, spot, body, owner)
  local given, inner = table_in(reading, spot, body, "breaker", BREAKER_FIELDS, owner)
  if not given then return nil end
  local trip = look.read(reading, inner, given, "trip", "breaker.", notation.trip, "trip")
  local seen = trip and (trip.count or trip.of) or 1
  if seen > MOST_SEEN then
    reading.report:add(place_of(inner, "trip"), "breaker.trip",
      ("a breaker looks back on %d calls at most"):format(MOST_SEEN))
  end
  return { trip = trip or { kind = TRIP.kind, count = TRIP.count },
    cooldown_ns = look.duration(reading, inner, given, "cooldown", "breaker.", LEAST_NS, MOST_NS)
      or COOLDOWN_NS,
    probes = look.count(reading, inner, given, "probes", "breaker.", 1, MOST_SEEN) or 1,
    on = statuses(reading, inner, given, "breaker.") }
end

function manners.adaptive(reading, spot, body, names, declared)
  local kinds = {}
  if type(body.adaptive) == "string" then
    reading.report:add(place_of(spot, "adaptive"), "adaptive", ('which limit? write adaptive = '
      .. '{ calls = "%s" }'):format(show(body.adaptive)))
    return nil
  end
  for _, limit in ipairs(declared.limits) do kinds[limit.name] = limit.notation.kind end
  local function read(at, texts, name, path)
    local value = look.read(reading, at, texts, name, path, notation.adaptive, "adaptive limit")
    if value and kinds[name] and kinds[name] ~= "in_flight" then
      reading.report:add(place_of(at, name), path .. name,
        'only a limit "in flight" adapts, and this one is a rate')
    end
    return value and { name = name, notation = value }
  end
  local values = by_limit(reading, spot, body, "adaptive", "", names, read)
  return (values[1] or type(body.adaptive) == "table") and values or nil
end

-- ---- waiting and trying again -----------------------------------------------------------------

local QUEUE_FIELDS = words "max timeout fair priority overflow ageing"
local RETRY_FIELDS = words "attempts backoff budget"
local SHED_FIELDS = words "when keep"

function manners.queue(reading, spot, body, owner)
  local given, inner = table_in(reading, spot, body, "queue", QUEUE_FIELDS, owner)
  if not given then return nil end
  local fair = look.typed(reading, inner, given, "fair", "string", "queue.")
  if fair and (not fair:find(NAME) or #fair > LONGEST_NAME) then
    reading.report:add(place_of(inner, "fair"), "queue.fair",
      'one name expected, as in fair = "tenant"')
  end
  local priority, seen
  for _, entry in ipairs(look.words_of(reading, inner, given, "priority", "queue.")) do
    priority, seen = priority or {}, seen or {}
    if not entry.word:find(NAME) or #entry.word > LONGEST_NAME then
      reading.report:add(entry.place, "queue.priority",
        ("'%s' is no name: letters, digits, '_' and '-'"):format(show(entry.word)))
    elseif look.check_word(reading, seen, entry, nil, "queue.priority", "priority") then
      priority[#priority + 1] = entry.word
    end
  end
  if priority and #priority > MOST_PRIORITIES then
    reading.report:add(place_of(inner, "priority"), "queue.priority",
      ("at most %d priorities"):format(MOST_PRIORITIES))
  end
  local overflow = look.one_of(reading, inner, given, "overflow", "queue.", OVERFLOWS)
  if not given.priority and (overflow == "drop lowest" or given.ageing) then
    local key = overflow == "drop lowest" and "overflow" or "ageing"
    reading.report:add(place_of(inner, key), "queue." .. key,
      'without priorities none is lower: add priority = { "interactive", "batch" }')
  end
  return { max = look.count(reading, inner, given, "max", "queue.", 1, MOST_WAITING) or WAITING,
    timeout_ns = look.duration(reading, inner, given, "timeout", "queue.", LEAST_NS, MOST_NS),
    fair = fair, priority = priority, overflow = overflow or "refuse",
    ageing_ns = look.duration(reading, inner, given, "ageing", "queue.", LEAST_NS, MOST_NS) }
end

function manners.retry(reading, spot, body, owner)
  local given, inner = table_in(reading, spot, body, "retry", RETRY_FIELDS, owner)
  if not given then return nil end
  return { attempts = look.count(reading, inner, given, "attempts", "retry.", 1, 1000) or ATTEMPTS,
    backoff = look.read(reading, inner, given, "backoff", "retry.", backoff_text.read, "back-off")
      or backoff_text.read(BACKOFF),
    budget = look.read(reading, inner, given, "budget", "retry.", notation.share, "share") }
end

-- Which priority is never shed.
local function shed_keep(reading, spot, given, queue)
  local text = look.typed(reading, spot, given, "keep", "string", "shed.")
  local word = text and text:match "^%s*priority%s+([%w_-]+)%s*$"
  if not text then return nil end
  if not word then
    reading.report:add(place_of(spot, "keep"), "shed.keep",
      'a priority expected, as in keep = "priority interactive"')
    return nil
  end
  local known = {}
  for _, each in ipairs(queue and queue.priority or { word }) do known[each] = true end
  local at = text:find(word, text:find "%s" + 1, true)
  local entry = { word = word, place = look.place_inside(spot, "keep", text, at) }
  if not look.check_word(reading, {}, entry, known, "shed.keep", "priority") then return nil end
  return { priority = word }
end

function manners.shed(reading, spot, body, owner, queue)
  local given, inner = table_in(reading, spot, body, "shed", SHED_FIELDS, owner)
  if not given then return nil end
  local when = look.read(reading, inner, given, "when", "shed.", notation.pressure, "condition")
  if given.when == nil then
    reading.report:add(inner, "shed.when", 'when is missing, as in when = "queue > 80%"')
  end
  if body.queue == nil then
    reading.report:add(place_of(spot, "shed"), "shed", "there is no queue to look at: add queue")
  end
  local keep = shed_keep(reading, inner, given, queue)
  return when and { when = when, keep = keep }
end

return manners
