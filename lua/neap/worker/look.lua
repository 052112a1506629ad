--- Looking: how policies stand, and why a call would have to wait.
---
---     NEAP.SNAPSHOT policy [BY scope value]…    what is free, who waits, what is out
---     NEAP.EXPLAIN policy …                     what NEAP.ACQUIRE would meet, limit by limit
---     NEAP.TOP policy scope [COUNT n]           who called most
---     NEAP.LIST [pattern]
---
--- A look is a list of fields in order, which is a map in RESP and an object in JSON. Of what has
--- no bound the number is -1 in RESP, and null in JSON.
local ffi = require "ffi"
local C = require "neap.engine"
local json = require "neap.policy.json"
local notation = require "neap.notation"
local reason = require "neap.reason"
local reply = require "neap.worker.reply"
local tail = require "neap.worker.tail"

local ceil, floor, huge, max, min = math.ceil, math.floor, math.huge, math.max, math.min
local getmetatable, ipairs, pairs, setmetatable = getmetatable, ipairs, pairs, setmetatable
local concat, tonumber, type = table.concat, tonumber, type

local MOST = 2 ^ 53
local MOST_ENTRIES = 128
local fields_t = {}      -- marks a list of fields
local UNBOUNDED = {}

local look = {}

local function fields(list) return setmetatable(list, fields_t) end

local function add(list, name, value) list[#list + 1] = { name, value } end

local function number(n)
  if not n or n >= huge then return UNBOUNDED end
  return floor(min(n, MOST))
end

-- ---- policies ---------------------------------------------------------------------------------

local function limit_of(name, text, available, capacity)
  return fields { { "name", name }, { "limit", text }, { "available", number(available) },
    { "capacity", number(capacity) } }
end

local function sum(counts)
  local n = 0
  for _, count in pairs(counts) do n = n + count end
  return n
end

--- How often each verdict was said, ever.
local function said(account)
  local verdicts = account.verdicts
  return fields { { "granted", sum(verdicts.GRANTED) }, { "waited", account.waited },
    { "retry", sum(verdicts.RETRY) }, { "never", sum(verdicts.NEVER) },
    { "shed", sum(verdicts.SHED) } }
end

--- A limit per key, as it is written; keys may have others.
local function text_of(keyed) return keyed.values and notation.format(keyed.values[1]) or "" end

--- The scopes that are named, as they are for these keys.
local function scopes_of(account, by, now)
  local request = ffi.new "struct neap_request"
  local variant = account.live:enter(request, by)
  local list = {}
  for _, part in ipairs(variant.terms.parts) do
    if part.keyed then
      local leaf = reason.leaf_of(part, request.key, now)
      list[#list + 1] = limit_of(part.label, text_of(part.keyed),
        leaf and reason.balance(leaf, now) or 0, leaf and reason.capacity(leaf) or 0)
    end
  end
  return list
end

local function queue_of(policy)
  local stats = ffi.new "struct neap_queue_stats"
  C.neap_queue_stats(policy.queue.room.c, stats)
  return fields { { "waiting", tonumber(stats.waiting) }, { "capacity", tonumber(stats.capacity) },
    { "refused", tonumber(stats.refused) }, { "dropped", tonumber(stats.dropped) },
    { "aside", policy.aside } }
end

--- How many keys there are: alive, turned away.
local function keys_of(policy)
  local list, stats = {}, ffi.new "struct neap_keyed_stats"
  for i, scope in ipairs(policy.scopes) do
    local alive, refused = 0, 0
    for _, limit in ipairs(scope.limits) do
      alive = max(alive, limit.limiter:len())
      C.neap_keyed_stats(limit.part.leaf.as.keyed, stats)
      refused = refused + tonumber(stats.refused)
    end
    list[i] = fields { { "scope", scope.name }, { "keys", alive }, { "refused", refused } }
  end
  return list
end

--- One policy.
---@param account neap.Account
---@param now ffi.cdata*
---@param by table<string, string>?  also how it stands for these keys
---@return table
function look.policy(account, now, by)
  local policy, list = account.live, fields { { "policy", account.name } }
  if account.doc then add(list, "doc", account.doc) end
  add(list, "waiting", account.waiting)
  add(list, "leases", account.leases)
  add(list, "said", said(account))
  local limits = {}
  for i, limit in ipairs(account.limits) do
    local available, capacity = account:level(i, now)
    limits[i] = limit_of(limit.name, limit.text, available, capacity)
    if limit.value.kind == "in_flight" then
      add(limits[i], "in_flight", number(capacity - available))
    end
  end
  add(list, "limits", limits)
  if policy.breaker then add(list, "breaker", policy.breaker:state()) end
  if policy.backoff then
    local left, shut = policy:backoff_left()
    add(list, "backoff_ms", ceil(left * 1000))
    add(list, "shut_ms", ceil(shut * 1000))
  end
  if policy.queue then add(list, "queue", queue_of(policy)) end
  if policy.scopes[1] then add(list, "scopes", keys_of(policy)) end
  if by then add(list, "by", scopes_of(account, by, now)) end
  return list
end

--- What a call would meet.
local function explained(desk, account, options)
  local now = desk.clock()
  local request, answer, names = desk:peek(account, options)
  local variant = account.live:enter(request, options.by)
  local status, list = answer.status, fields { { "policy", account.name } }
  local word = status == C.NEAP_GRANTED and "GRANTED" or status == C.NEAP_NEVER and "NEVER"
    or status == C.NEAP_SHED and "SHED" or "RETRY"
  add(list, "verdict", word)
  add(list, "bound", word ~= "GRANTED" and names[answer.bound] or "")
  add(list, "retry_ms", (word == "RETRY" or word == "SHED") and
    (answer.at < C.neap_on_give and tonumber((answer.at - now + 999999) / 1000000) or 0) or -1)
  add(list, "ahead", tonumber(answer.ahead))
  local limits = {}
  for i, part in ipairs(variant.terms.parts) do
    -- of one that depends on a backoff: in units of what it asks now
    local leaf = part.of and part.leaf or reason.leaf_of(part, request.key, now)
    local asked = tonumber(request.cost[part.index]) * part.multiplier
    local kind = leaf and leaf.kind
    if kind ~= C.NEAP_PAUSE and kind ~= C.NEAP_BREAKER then
      limits[#limits + 1] = fields { { "name", names[i - 1] }, { "needs", asked },
        { "available", number(leaf and reason.balance(leaf, now) or 0) },
        { "capacity", number(leaf and reason.capacity(leaf) or 0) } }
    end
  end
  add(list, "limits", limits)
  return list
end

-- ---- in RESP and in JSON ----------------------------------------------------------------------

local function to_reply(value)
  if value == UNBOUNDED then return -1 end
  if type(value) ~= "table" then return value end
  local list = {}
  if getmetatable(value) == fields_t then
    for i, pair in ipairs(value) do list[i] = { pair[1], to_reply(pair[2]) } end
    return reply.map(list)
  end
  for i, each in ipairs(value) do list[i] = to_reply(each) end
  return list
end

--- A look, as a table of its own; what has no bound is math.huge.
---@param value any
---@return any
function look.plain(value)
  if value == UNBOUNDED then return huge end
  if type(value) ~= "table" then return value end
  local copy, named = {}, getmetatable(value) == fields_t
  for i, each in ipairs(value) do
    if named then copy[each[1]] = look.plain(each[2]) else copy[i] = look.plain(each) end
  end
  return copy
end

--- A look, as JSON.
---@param value any
---@return string
function look.json(value)
  if value == UNBOUNDED then return "null" end
  if type(value) ~= "table" then return json.value(value) end
  local list = {}
  if getmetatable(value) == fields_t then
    for i, pair in ipairs(value) do list[i] = { pair[1], look.json(pair[2]) } end
    return json.object(list)
  end
  for i, each in ipairs(value) do list[i] = look.json(each) end
  return "[" .. concat(list, ",") .. "]"
end

local function show(desk, client, value)
  reply.write(C.neap_server_reply(desk.server, client), to_reply(value))
end

-- ---- commands ---------------------------------------------------------------------------------

---@param desk neap.Desk
---@param client integer
---@param words string[]
function look.list(desk, client, words)
  show(desk, client, desk.accounts:list(words[1]))
end

function look.snapshot(desk, client, words)
  local account, err = desk.accounts:policy(words[1])
  if not account then return desk:fail(client, err) end
  local options
  options, err = tail.by(words, 2, account)
  if not options then return desk:fail(client, err) end
  local now = desk.clock()
  C.neap_engine_advance(desk.engine, now)
  show(desk, client, look.policy(account, now, options.by))
end

function look.explain(desk, client, words)
  local account, options = desk:read(words)
  if not account then return desk:fail(client, options) end
  show(desk, client, explained(desk, account, options))
end

function look.top(desk, client, words)
  local account, err = desk.accounts:policy(words[1])
  if not account then return desk:fail(client, err) end
  local top, count = account.tops[words[2]], 10
  if not top then
    local known = {}
    for name in pairs(account.tops) do known[#known + 1] = name end
    local meant = notation.nearest(words[2], known)
    return desk:fail(client, ("ERR policy '%s' has no scope '%s'%s"):format(account.name,
      notation.show(words[2]), meant and (" (did you mean '%s'?)"):format(meant) or ""))
  elseif words[3] then
    count = words[3]:upper() == "COUNT" and not words[5] and words[4] and words[4]:find "^%d+$"
      and tonumber(words[4])
    if not count or count < 1 or count > MOST_ENTRIES then
      return desk:fail(client, ("ERR TOP takes COUNT with a number from 1 to %d"):format(
        MOST_ENTRIES))
    end
  end
  local list = {}
  for i, entry in ipairs(top:list(count)) do
    list[i] = fields { { "key", entry.name }, { "calls", entry.count }, { "over", entry.over } }
  end
  show(desk, client, list)
end

return look
