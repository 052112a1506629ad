--- The words after a NEAP.* command's keys: options in any order, each at most once (COST and USED
--- as often as there are limits).
---
---     ACQUIRE  {"COST" [limit] n} ["BLOCK" ms] ["PEEK"] ["ID" token] ["TTL" ms] ["DETACH"]
---     RELEASE  ["OK" | "FAIL" | "IGNORE"] {"USED" limit n}
---
--- Reading one gives a plain table, or nil and the error to reply. Nothing has happened then.
local notation = require "neap.notation"

local ipairs, pairs, tonumber = ipairs, pairs, tonumber

local MOST = 2 ^ 53
local MOST_MS = 2 ^ 31   -- 24 days
local ID_BYTES = 128

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

--- `[limit] n` at words[i]: the number of the limit and the amount, and where to go on.
local function charge(words, i, account, what)
  local word = words[i]
  local index = 1
  if word and not word:find "^%d" then
    index = account.index[word]
    if not index then
      local names = {}
      for k, limit in ipairs(account.limits) do names[k] = limit.name end
      local meant = notation.nearest(word, names)
      return nil, nil, nil, ("ERR unknown limit %s in policy '%s'%s"):format(show(word),
        account.name, meant and (" (did you mean '%s'?)"):format(meant) or "")
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
    options.cost[index - 1] = n
    return after
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

local release = {
  OK = outcome, FAIL = outcome, IGNORE = outcome,
  USED = function (options, words, i, _, account)
    if not account then return i + (whole(words[i], 0, MOST) and 1 or 2) end
    local index, n, after, err = charge(words, i, account, "USED")
    if err then return nil, err end
    if account.limits[index].value.kind == "in_flight" then
      return nil, ("ERR '%s' is held, not used up: RELEASE gives all of it back"):format(
        account.limits[index].name)
    end
    options.used = options.used or {}
    options.used[index] = n
    return after
  end,
}

-- Words of the language that this version does not act on: better said than ignored.
local ELSEWHERE = { BY = true, PRIO = true, STATUS = true, LATENCY = true, HEADER = true,
  ["RETRY-AFTER"] = true }

local function read(grammar, options, words, i, account)
  local said = {}
  while words[i] do
    local name = words[i]:upper()
    local option = grammar[name]
    if not option then
      if ELSEWHERE[name] then
        return nil, ("ERR option %s is not supported by this version"):format(name)
      end
      local names = {}
      for known in pairs(grammar) do names[#names + 1] = known end
      local meant = notation.nearest(name, names)
      return nil, ("ERR unknown option %s%s"):format(show(words[i]),
        meant and (" (did you mean %s?)"):format(meant) or "")
    elseif said[name] and name ~= "COST" and name ~= "USED" then
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

---@param words string[]
---@param i integer  the first option
---@param account neap.Account
---@param cost ffi.cdata*
---@return neap.AcquireOptions?
---@return string? err
function tail.acquire(words, i, account, cost)
  return read(acquire, { cost = cost }, words, i, account)
end

--- For NEAP.LIMIT: a key has one limit, which needs no name.
---@param words string[]
---@param i integer
---@param cost ffi.cdata*
---@return neap.AcquireOptions?
---@return string? err
function tail.limit(words, i, cost) return read(limit, { cost = cost }, words, i) end

---@param words string[]
---@param i integer
---@param account neap.Account?  nil when the lease is unknown: only the form is read
---@return { outcome: string?, used: table<integer, integer>? }?
---@return string? err
function tail.release(words, i, account)
  return read(release, {}, words, i, account)
end

return tail
