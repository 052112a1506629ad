--- Keys: who a limit per key is kept for. A text or a whole number; 42 and "42" are two keys.
---
--- The engine knows a key by 64 bits of a hash, under a secret of this process: so a stranger who
--- picks keys cannot make two of them meet, and memory does not depend on their length. A segment
--- has a secret of its own, which all its processes know: a key is hashed once for each.
local ffi = require "ffi"
local C = require "neap.engine"

local error, ipairs, tostring, type = error, ipairs, tostring, type

local LONGEST = 65536   -- bytes
local MOST = 2 ^ 53

local key = {}

--- 16 random bytes, the same for the life of the process.
---@return ffi.cdata*
local function draw()
  local file, message = io.open("/dev/urandom", "rb")
  local bytes = file and file:read(16)
  if file then file:close() end
  if not bytes or #bytes < 16 then
    error("neap: no random bytes from /dev/urandom: " .. tostring(message or "too few"), 0)
  end
  return ffi.new("uint8_t[16]", bytes)
end

key.secret = draw()

--- The hash of a key.
---@param value string|integer
---@param what string  what it is called, for the message
---@param level integer
---@param secret? ffi.cdata*  another than this process's
---@return ffi.cdata*  uint64_t
function key.hash(value, what, level, secret)
  secret = secret or key.secret
  if type(value) == "string" then
    if #value > LONGEST then
      error(("%s: a key of up to %d bytes expected, got %d"):format(what, LONGEST, #value),
        level + 1)
    end
    return (C.neap_hash(secret, value, #value))   -- in parentheses: see permit.new
  elseif type(value) == "number" and value % 1 == 0 and value >= -MOST and value <= MOST then
    return (C.neap_hash_integer(secret, value))
  end
  error(("%s: a key expected, a text or a whole number, got %s"):format(what,
    type(value) == "number" and tostring(value) or type(value)), level + 1)
end

--- Read the keys that a request has to name, into its struct.
---@param into ffi.cdata*   uint64_t[NEAP_KEYS]
---@param kinds neap.KeyKind[]
---@param given any         a table with the keys under their names
---@param level integer
function key.read(into, kinds, given, level)
  for i = 1, #kinds do
    local kind = kinds[i]
    local value
    if type(given) == "table" then
      value = given[kind.name]
      if value == nil and type(given.cost) == "table" then value = given.cost[kind.name] end
    end
    if value == nil then
      error(("%s: a key expected, as in { %s = \"…\" }"):format(kind.name, kind.name), level + 1)
    end
    key.set(into, kind, value, level + 1)
  end
end

--- One of them.
---@param into ffi.cdata*
---@param kind neap.KeyKind
---@param value string|integer
---@param level integer
function key.set(into, kind, value, level)
  local hash = key.hash(value, kind.name, level + 1, kind.secret)
  into[kind.index] = hash
  for i = 1, #kind.makers do kind.makers[i]:make(value, hash) end
end

--- Those who wait for limiters that are made for their keys keep them from being dropped.
---@param kinds neap.KeyKind[]
---@return table?  for unpin
function key.pin(kinds)
  local pinned
  for _, kind in ipairs(kinds) do
    for _, maker in ipairs(kind.makers) do
      local one = maker.makers:pin()
      if one then
        pinned = pinned or {}
        pinned[#pinned + 1] = { maker.makers, one.key }
      end
    end
  end
  return pinned
end

---@param pinned table
function key.unpin(pinned)
  for _, pair in ipairs(pinned) do pair[1]:unpin(pair[2]) end
end

return key
