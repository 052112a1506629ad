--- What limit_req, limit_conn and limit_count keep: under the name that nginx's configuration gives
--- a shared dictionary, one word for each key.
---
--- The word is an instant that ends by itself (see neap_keys in neap.h), or a number above 0 for as
--- long as it says something. Instances that name one store share what it keeps, as they would the
--- dictionary, which need not be there. It is each worker's own.
local C = require "neap.engine"
local keys = require "neap.key"

local tostring, type = tostring, type

local MOST = 2 ^ 20       -- keys alive in a store, 24 MB
local LONGEST = 65535     -- bytes in a key, as for a shared dictionary

local stores = {}   -- for as long as the process lives

local store = {}

--- The table of this name for this kind of limiter.
---@param kind string
---@param name string
---@param forgets boolean  at the bound the least recent key makes room
---@return ffi.cdata*? keys
---@return string? message
function store.open(kind, name, forgets)
  if type(name) ~= "string" or name == "" then
    return nil, "the name of a store expected, got " .. tostring(name)
  end
  local id = kind .. " " .. name
  local found = stores[id]
  if found then return found end
  found = C.neap_keys_open(MOST, keys.secret)
  if found == nil then return nil, "no memory" end
  if forgets and C.neap_keys_remember(found, 0, C.NEAP_LEAST_RECENT) ~= C.NEAP_OK then
    C.neap_keys_close(found)
    return nil, "no memory"
  end
  stores[id] = found
  return found
end

--- What a key is called there.
---@param table_ ffi.cdata*
---@param key string|number
---@return ffi.cdata*? hash  uint64_t
---@return string? message
function store.hash(table_, key)
  if type(key) == "number" then key = tostring(key) end
  if type(key) ~= "string" then return nil, "a key expected, got " .. type(key) end
  if key == "" then return nil, "empty key" end
  if #key > LONGEST then return nil, "key too long" end
  return C.neap_keys_hash(table_, key, #key)
end

--- The word of a key, 0 when it has none.
---@param table_ ffi.cdata*
---@param hash ffi.cdata*
---@param clock ffi.cdata*|integer  words up to this have ended
---@return ffi.cdata*  int64_t
function store.get(table_, hash, clock)
  local word = C.neap_keys_find(table_, hash, clock)
  return word ~= nil and word[0] or 0LL
end

--- Keep another word.
---@return true? kept
---@return string? message
function store.set(table_, hash, clock, value)
  local word = C.neap_keys_at(table_, hash, clock)
  if word == nil then return nil, "no room for another key" end
  word[0] = value
  return true
end

return store
