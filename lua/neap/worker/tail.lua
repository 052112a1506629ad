--- The words after a NEAP.* command's keys: options in any order, each at most once (COST and USED
--- as often as there are limits).
---
---     ACQUIRE  {"BY" scope value} {"COST" [limit] n} ["PRIO" name | n] ["BLOCK" ms] ["PEEK"]
---              ["ID" token] ["TTL" ms] ["DETACH"]
---     RESERVE  the same but for BLOCK and PEEK, and ["MAXWAIT" ms]
---     RELEASE  ["OK" | "FAIL" | "IGNORE"] ["STATUS" http] ["RETRY-AFTER" text] ["LATENCY" us]
---              {"HEADER" name value} {"USED" limit n}
---
--- A scope that is not named has no part in the call; one that there is not is an error, and so is
--- a limit, unless the policy's estimate looks at what was said under that name.
---
--- Reading one gives a plain table, or nil and the error to reply. Nothing has happened then.
local notation = require "neap.notation"

local pairs, sort, tonumber = pairs, table.sort, tonumber

local MOST = 2 ^ 53
local MOST_MS = 2 ^ 31   -- 24 days
local MOST_US = 2 ^ 41   -- as many
local ID_BYTES = 128
local KEY_BYTES = 1024
local TEXT_BYTES = 256
local HEADERS = 64
local MOST_LISTED = 1000

local tail = {}

local function show(word) return "'" .. notation.show(word or "") .. "'" end

local function whole(word, least, most)
  local n = word and word:find "^%d+$" and tonumber(word)
  return n and n >= least and n <= most and n or nil
end

local function number(words, i, what, least, most)
  local n = whole(words[i], least, most)
  if n then return n end
  return nil, ("ERR %s needs a whole number from %d to %.0f, got %s"):format(what, least, most,
    words[i] and show(words[i]) or "nothing")
end

local function names_of(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = name end
  sort(names)
  return names
end

--- Which might have been meant.
local function hint(word, set)
  local meant = notation.nearest(word, names_of(set))
  return meant and (" (did you mean '%s'?)"):format(meant) or ""
end

local function unknown_limit(word, account)
  return ("ERR unknown limit %s in policy '%s'%s"):format(show(word), account.name,
    hint(word, account.index))
end

--- `[limit] n` at words[i]: the number of the limit and the amount, and where to go on. The number
--- is nil for a name that only an estimate can know.
local function charge(words, i, account, what)
  local word = words[i]
  local index = 1
  if word and not word:find "^%d" then
    index = account.index[word]
    if not index and not account.estimates then
      return nil, nil, nil, unknown_limit(word, account)
    end
    i = i + 1
  end
  local n, err = number(words, i, what, 0, MOST)
  return index, n, i + 1, err
end

local function flag(key)
  return function (options, _, i)
    options[key] = true
    return i
  end
end

local function milliseconds(key, least)
  return function (options, words, i, name)
    local n, err = number(words, i, name, least, MOST_MS)
    options[key] = n
    return i + 1, err
  end
end

local acquire = {
  BLOCK = milliseconds("block", 0),
  TTL = milliseconds("ttl", 1),
  PEEK = flag "peek",
  DETACH = flag "detach",
  ID = function (options, words, i)
    local id = words[i]
    if not id or #id == 0 or #id > ID_BYTES then
      return nil, ("ERR ID needs a token of 1 to %d bytes"):format(ID_BYTES)
    end
    options.id = id
    return i + 1
  end,
  COST = function (options, words, i, _, account)
    local index, n, after, err = charge(words, i, account, "COST")
    if err then return nil, err end
    if index then options.cost[index - 1] = n end
    if account.estimates or account.told then
      options.said = options.said or {}
      options.said[index and account.costs[index] or words[i]] = n
    end
    return after
  end,
  BY = function (options, words, i, _, account)
    local scope, value = words[i], words[i + 1]
    if not scope or not account.scopes[scope] then
      return nil, ("ERR unknown scope %s in policy '%s'%s"):format(show(scope), account.name,
        scope and hint(scope, account.scopes) or "")
    elseif not value or #value > KEY_BYTES then
      return nil, ("ERR BY %s needs a key of up to %d bytes"):format(scope, KEY_BYTES)
    end
    options.by = options.by or {}
    if options.by[scope] then return nil, ("ERR BY %s is said twice"):format(scope) end
    options.by[scope] = value
    return i + 2
  end,
  PRIO = function (options, words, i, _, account)
    local word = words[i]
    if not word then return nil, "ERR PRIO needs a name or a number" end
    local priority, message = account.live:priority(word:find "^%-?%d+$" and tonumber(word) or word)
    options.priority = priority
    return i + 1, message and "ERR " .. message
  end,
}

local reserve = { COST = acquire.COST, BY = acquire.BY, PRIO = acquire.PRIO, ID = acquire.ID,
  TTL = acquire.TTL, DETACH = acquire.DETACH, MAXWAIT = milliseconds("max_wait", 0) }

local slot = { BLOCK = acquire.BLOCK, TTL = acquire.TTL, PEEK = acquire.PEEK, ID = acquire.ID,
  DETACH = acquire.DETACH }

local leases = {
  COUNT = function (options, words, i)
    local n, err = number(words, i, "COUNT", 1, MOST_LISTED)
    options.count = n
    return i + 1, err
  end,
}

local limit = {
  BLOCK = acquire.BLOCK,
  PEEK = acquire.PEEK,
  COST = function (options, words, i)
    local n, err = number(words, i, "COST", 0, MOST)
    options.cost[0] = n or 0
    return i + 1, err
  end,
}

local function outcome(options, _, i, name)
  if options.outcome then return nil, "ERR an outcome is said once: OK, FAIL or IGNORE" end
  options.outcome = name
  return i
end

local function text(key)
  return function (options, words, i, name)
    local word = words[i]
    if not word or #word > TEXT_BYTES then
      return nil, ("ERR %s needs a text of up to %d bytes"):format(name, TEXT_BYTES)
    end
    options[key] = word
    return i + 1
  end
end

local report = {
  OK = outcome, FAIL = outcome, IGNORE = outcome,
  ["RETRY-AFTER"] = text "retry_after",
  STATUS = function (options, words, i)
    local n, err = number(words, i, "STATUS", 100, 599)
    options.status = n
    return i + 1, err
  end,
  LATENCY = function (options, words, i)
    local n, err = number(words, i, "LATENCY", 0, MOST_US)
    options.latency_us = n
    return i + 1, err
  end,
  HEADER = function (options, words, i)
    local name, value = words[i], words[i + 1]
    options.headers = options.headers or {}
    if not value then return nil, "ERR HEADER needs a name and a value" end
    if #options.headers == HEADERS then return nil, "ERR more than 64 times HEADER" end
    options.headers[#options.headers + 1] = { name, value }
    return i + 2
  end,
}

local release = {
  USED = function (options, words, i, _, account)
    if not account then return i + (whole(words[i], 0, MOST) and 1 or 2) end
    local index, n, after, err = charge(words, i, account, "USED")
    if not index and not err then err = unknown_limit(words[i], account) end
    if err then return nil, err end
    if account.held[index] then
      return nil, ("ERR '%s' is held, not used up: RELEASE gives all of it back"):format(words[i])
    end
    options.used = options.used or {}
    options.used[index] = n
    return after
  end,
}
for name, option in pairs(report) do release[name] = option end

local REPEATED = { COST = true, USED = true, BY = true, HEADER = true }

local function read(grammar, options, words, i, account)
  local said = {}
  while words[i] do
    local name = words[i]:upper()
    local option = grammar[name]
    if not option then
      local meant = notation.nearest(name, names_of(grammar))
      return nil, ("ERR unknown option %s%s"):format(show(words[i]),
        meant and (" (did you mean %s?)"):format(meant) or "")
    elseif said[name] and not REPEATED[name] then
      return nil, ("ERR option %s is said twice"):format(name)
    end
    said[name] = true
    local err
    i, err = option(options, words, i + 1, name, account)
    if err then return nil, err end
  end
  return options
end

---@class neap.AcquireOptions
---@field cost ffi.cdata*   int64_t[8], filled in place
---@field block integer?    ms; 0: for as long as it takes
---@field peek boolean?
---@field id string?
---@field ttl integer?      ms
---@field detach boolean?
---@field books boolean?    of RESERVE, with
---@field max_wait integer? ms
---@field by table<string, string>?     keys, by the names of scopes
---@field priority integer?
---@field said table<string, integer>?  costs by name, for an estimate

---@param words string[]
---@param i integer  the first option
---@param account neap.Account
---@param cost ffi.cdata*
---@return neap.AcquireOptions?
---@return string? err
function tail.acquire(words, i, account, cost)
  return read(acquire, { cost = cost }, words, i, account)
end

--- For NEAP.RESERVE, which books and does not wait.
---@param words string[]
---@param i integer
---@param account neap.Account
---@param cost ffi.cdata*
---@return neap.AcquireOptions?
---@return string? err
function tail.reserve(words, i, account, cost)
  return read(reserve, { cost = cost, books = true, max_wait = MOST_MS }, words, i, account)
end

--- For NEAP.SLOT.
---@param words string[]
---@param i integer
---@return neap.AcquireOptions?
---@return string? err
function tail.slot(words, i) return read(slot, {}, words, i) end

--- For NEAP.RENEW: a whole number of ms at words[i].
---@return integer?
---@return string? err
function tail.milliseconds(words, i, what) return number(words, i, what, 1, MOST_MS) end

--- For NEAP.SLOT: how many there are.
---@return integer?
---@return string? err
function tail.slots(words, i) return number(words, i, "SLOT", 1, 2 ^ 31) end

--- For NEAP.LEASES.
---@param words string[]
---@param i integer
---@return { count: integer }?
---@return string? err
function tail.leases(words, i) return read(leases, { count = 10 }, words, i) end

--- For NEAP.LIMIT: a key has one limit, which needs no name.
---@param words string[]
---@param i integer
---@param cost ffi.cdata*
---@return neap.AcquireOptions?
---@return string? err
function tail.limit(words, i, cost) return read(limit, { cost = cost }, words, i) end

---@param words string[]
---@param i integer
---@class neap.ReportOptions
---@field outcome "OK"|"FAIL"|"IGNORE"|nil
---@field status integer?
---@field retry_after string?
---@field latency_us integer?
---@field headers { [1]: string, [2]: string }[]?
---@field used table<integer, integer>?  of RELEASE, by the number of the limit

---@param account neap.Account?  nil when the lease is unknown: only the form is read
---@return neap.ReportOptions?
---@return string? err
function tail.release(words, i, account)
  return read(release, {}, words, i, account)
end

--- For NEAP.SNAPSHOT: only for whom.
---@param words string[]
---@param i integer
---@param account neap.Account
---@return { by: table<string, string>? }?
---@return string? err
function tail.by(words, i, account) return read({ BY = acquire.BY }, {}, words, i, account) end

--- For NEAP.REPORT: as of a release, but that there is nothing to give back.
---@param words string[]
---@param i integer
---@return neap.ReportOptions?
---@return string? err
function tail.report(words, i)
  return read(report, {}, words, i)
end

return tail
