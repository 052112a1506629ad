--- The limits of a key: read, set up, and changed into others.
local ffi = require "ffi"
local C = require "neap.engine"
local leaves = require "neap.leaf"
local notation = require "neap.notation"
local window = require "neap.window"

local error, getmetatable, newproxy, tostring, type = error, getmetatable, newproxy, tostring, type

local leaf_t = ffi.typeof "struct neap_limiter"

local limits = {}

--- A limit as a value, whichever way it was written.
---@param limit string|neap.limit
---@param what string   which one it is, for the message
---@param level integer
---@return neap.limit
function limits.written(limit, what, level)
  local function refuse(message)
    error(("per_key: %s: %s"):format(what, message), level + 2)
  end
  local value = limit
  if type(limit) ~= "table" then
    local message
    value, message = notation.limit(limit)
    if not value then
      refuse(("bad limit %s: %s"):format(type(limit) == "string"
        and ("%q"):format(notation.show(limit)) or tostring(limit), message))
    end
  elseif type(value.kind) ~= "string" then
    refuse "a limit such as \"10/s\" expected, got a table without a kind"
  end
  if value.mode == "fixed" then
    refuse(("%q: fixed windows start when the server says; write \"sliding\""):format(
      notation.format(value)))
  end
  return value
end

--- A limit that is one word: a rate or permits.
---@param value neap.limit
---@return boolean
function limits.is_word(value)
  return value.kind == "in_flight" or value.kind == "rate" and value.mode ~= "sliding"
end

--- A leaf for a value, as a key of its own may have it.
---@param value neap.limit
---@param label string
---@param level integer
---@return ffi.cdata*   struct neap_limiter
---@return ffi.cdata*?  what has to stay while it does
function limits.leaf_for(value, label, level)
  local leaf = leaf_t()
  if value.kind == "unlimited" or value.kind == "closed" then
    leaf.kind = C.NEAP_PAUSE
    C.neap_pause_init(leaf.as.pause)
    if value.kind == "closed" then leaf.as.pause.ends = C.neap_never end
    return leaf
  end
  local log, entries
  if value.mode == "sliding" then log, entries = window.log_for(value.amount, nil, level + 1) end
  if not leaves.init(leaf, value, log, entries) then
    error(("per_key: %s: %q does not fit: at most 6 tokens per ns, and a burst below 2^59"):format(
      label, notation.format(value)), level + 1)
  end
  return leaf, log
end

--- What the i-th limit is called in a segment, or that of a key of its own.
---@param name string
---@param i integer
---@param key? string|integer
---@return string
function limits.name_there(name, i, key)
  return name .. (i > 1 and " #" .. i or "") .. (key and ": " .. key or "")
end

--- What of each key a change keeps, in the engine's words.
limits.KEEP = {
  keep = C.NEAP_KEEP_SPENT, balance = C.NEAP_KEEP_HELD, scale = C.NEAP_KEEP_RATIO,
  reset = C.NEAP_KEEP_NOTHING,
}

--- May one limit become another?
---@param old neap.limit
---@param new neap.limit
---@param mode string
---@param level integer
function limits.check_change(old, new, mode, level)
  if old.kind ~= new.kind or old.mode == "sliding" ~= (new.mode == "sliding") then
    error(("reconfigure: from %q to %q is another kind of limit: build a new one"):format(
      notation.format(old), notation.format(new)), level + 1)
  end
  local keeps = old.kind ~= "rate" and { keep = true }
    or old.mode == "sliding" and { keep = true, reset = true } or limits.KEEP
  if not keeps[mode] then
    error(("reconfigure: %s cannot do %q, only \"keep\"%s"):format(notation.format(old),
      tostring(mode), keeps.reset and " and \"reset\"" or ""), level + 1)
  end
end

--- Close a table when nobody is left who could use it. Not ffi.gc: permits that the collector gives
--- back at the very end still need it, and finalizers of userdata run after those of cdata. Where a
--- runtime that ends with it still refers to the limiter, lists have that for another round of the
--- collector: `gone.closed` says not to ask it.
---@param table_ ffi.cdata*  struct neap_keyed
---@param gone { closed: boolean? }
---@return userdata
function limits.guard(table_, gone)
  local it = newproxy(true)
  getmetatable(it).__gc = function ()
    gone.closed = true
    C.neap_keyed_close(table_)
  end
  return it
end

return limits
