--- What limit_req, limit_conn and limit_count keep: under the name that nginx's configuration gives
--- a shared dictionary, one word for each key, and all workers have the same.
---
--- A store is a segment of its own, made by the worker that first uses it, and found again by the
--- others, after a reload (HUP), and by those of an upgraded nginx: its file is
---
---     /dev/shm/neap-UID-PREFIX-req-NAME    UID: the workers'; PREFIX: a hash of nginx's prefix
---
--- and stays until the machine is started anew. So nothing is to be set up, whether a limiter is
--- made in init_by_lua or anew by each request. Two nginx of one user and one prefix (nginx -p)
--- have the same stores: `require "neap.ngx.store".at "/dev/shm/site-"` in init_by_lua tells them
--- apart.
---
--- As many keys are alive at once as the dictionary has room for, 128 bytes each, if there is one
--- of that name (up to 2^20); else 2^16. Each takes 33 bytes, which are there from the beginning.
--- When the configuration comes to say otherwise, a store stays as large as it was made.
---
--- The word is an instant that ends by itself, or a number above it for as long as that says
--- something; those in flight are permits of the worker, and come back within a second of its
--- death. Workers that come at once to one key go by turns: each reads, computes, and writes if the
--- word is still what it read (neap_keyed_swap in neap.h).
---
--- Outside of nginx a store is this process's own, unless it is told where (`at`).
local ffi = require "ffi"
local C = require "neap.engine"
local keys = require "neap.key"
local runtime = require "neap.runtime"

local floor, max, min = math.floor, math.max, math.min
local error, io, pcall, rawget, tostring, type = error, io, pcall, rawget, tostring, type
local current = runtime.current

local MOST, MOST_EVER, LEAST = 2 ^ 16, 2 ^ 20, 2 ^ 10   -- keys
local THEIRS, OURS, ROUND = 128, 33, 32768              -- bytes of a key there and here, and beside
local PROCESSES = 256     -- workers, old ones that drain included
local LONGEST = 65535     -- bytes in a key, as for a shared dictionary
local REAP_NS = 1000000000LL

local like_t = ffi.typeof "struct neap_limiter"
local options_t = ffi.typeof "struct neap_segment_options"
local segment_out_t = ffi.typeof "struct neap_segment *[1]"
local keyed_out_t = ffi.typeof "struct neap_keyed *[1]"

---@class neap.ngx.Store
---@field kind "req"|"conn"|"count"
---@field name string
---@field keyed ffi.cdata*?    struct neap_keyed *; nil until it is used
---@field segment ffi.cdata*?  struct neap_segment *, where workers share it
---@field secret ffi.cdata*    under which keys are hashed
---@field reaped ffi.cdata*    int64_t, when the dead were last looked for

local stores = {}   -- for as long as the process lives
local base          -- how the paths of files begin, when that was told

local store = {}

-- ---- where it is ------------------------------------------------------------------------------

--- Have the files of stores begin with this; to be said before the first is used.
---
---     require "neap.ngx.store".at "/dev/shm/site-"
---
---@param path? string  a path with a slash in it; nil: as it was
function store.at(path)
  if path ~= nil and (type(path) ~= "string" or not path:find "/") then
    error("at: a path expected, got " .. tostring(path), 2)
  end
  base, stores = path, {}
end

local function hex(text) return bit.tohex(C.neap_hash(ffi.new "uint8_t[16]", text, #text), 16) end

--- The user this process acts as.
local function uid()
  local file = io.open "/proc/self/status"
  local text = file and file:read "*a" or ""
  if file then file:close() end
  return text:match "Uid:%s+%d+%s+(%d+)"
end

--- How paths begin; nil: there is nobody to share with.
local function begins()
  if base then return base end
  local ngx = rawget(_G, "ngx")
  local id = ngx and ngx.config and uid()
  return id and ("/dev/shm/neap-%s-%s-"):format(id, hex(ngx.config.prefix()))
end

local function path_of(self, from)
  local name = self.name:gsub("[^%w_.-]", "_")
  if name ~= self.name or #name > 100 then name = name:sub(1, 80) .. "-" .. hex(self.name) end
  return from .. self.kind .. "-" .. name
end

--- How many keys it is to have room for.
local function most_of(self)
  local ngx = rawget(_G, "ngx")
  local dictionary = ngx and ngx.shared and ngx.shared[self.name]
  local ok, bytes = pcall(function () return dictionary:capacity() end)
  return ok and max(LEAST, min(floor(bytes / THEIRS), MOST_EVER)) or MOST
end

--- What each key has: permits with holders, or a word.
local function like_of(self)
  local like = like_t()
  if self.kind == "conn" then
    like.kind = C.NEAP_SEMAPHORE
    C.neap_semaphore_init(like.as.semaphore, 2 ^ 48 - 1, 0)
    return like, C.NEAP_REFUSE
  end
  like.kind = C.NEAP_PAUSE
  C.neap_pause_init(like.as.pause)
  return like, C.NEAP_LEAST_RECENT
end

-- ---- opening ----------------------------------------------------------------------------------

--- The file, made if it is not there; one that is may have less room.
local function open_segment(path, most)
  local options, out = options_t(), segment_out_t()
  local message = ffi.new "char[512]"
  options.limiters_max, options.processes_max = 1, PROCESSES
  options.log_bytes = most * OURS + ROUND
  local code = C.neap_segment_open(path, options, out, message, 512)
  if code == C.NEAP_EFULL then
    options = options_t()
    options.how = C.NEAP_ATTACH
    code = C.neap_segment_open(path, options, out, message, 512)
  end
  if code ~= C.NEAP_OK then return nil, "store: " .. ffi.string(message) end
  return out[0]
end

--- Its table, or as large a one as there is room for.
local function open_shared(self, path)
  local most = most_of(self)
  local segment, message = open_segment(path, most)
  if not segment then return nil, message end
  local like, full = like_of(self)
  local out, code = keyed_out_t(), C.NEAP_EFULL
  while code == C.NEAP_EFULL and most >= 1 do
    code = C.neap_segment_keyed(segment, self.name:sub(1, 63), like, most, full, C.NEAP_KEEP_SPENT,
      0, current().now_ns(), out)
    most = floor(most / 2)
  end
  if code < 0 then return nil, ("store: %s has no room for it"):format(path) end
  self.segment = segment
  self.secret = ffi.new "uint8_t[16]"
  C.neap_segment_secret(segment, self.secret)
  return out[0]
end

local function open_own(self)
  local like, full = like_of(self)
  local keyed = C.neap_keyed_open(like, MOST_EVER, full, 0, keys.secret)
  if keyed == nil then return nil, "no memory" end
  self.secret = keys.secret
  return keyed
end

local function ready(self)
  local from = begins()
  local keyed, message
  if from then keyed, message = open_shared(self, path_of(self, from)) else
    keyed, message = open_own(self)
  end
  if not keyed then return nil, message end
  self.keyed = ffi.gc(keyed, C.neap_keyed_close)
  return true
end

--- The store of this name for this kind of limiter. In init_by_lua, which the master runs, it is
--- left to the worker that first uses it.
---@param kind "req"|"conn"|"count"
---@param name string
---@return neap.ngx.Store? store
---@return string? message
function store.open(kind, name)
  if type(name) ~= "string" or name == "" then
    return nil, "the name of a store expected, got " .. tostring(name)
  end
  local id = kind .. " " .. name
  local self = stores[id] or { kind = kind, name = name, reaped = 0LL }
  local ngx = rawget(_G, "ngx")
  if not self.keyed and not (ngx and ngx.get_phase() == "init") then
    local ok, message = ready(self)
    if not ok then return nil, message end
  end
  stores[id] = self
  return self
end

-- ---- words ------------------------------------------------------------------------------------

--- What a key is called there.
---@param self neap.ngx.Store
---@param key string|number
---@return ffi.cdata*? hash  uint64_t
---@return string? message
function store.hash(self, key)
  if type(key) == "number" then key = tostring(key) end
  if type(key) ~= "string" then return nil, "a key expected, got " .. type(key) end
  if key == "" then return nil, "empty key" end
  if #key > LONGEST then return nil, "key too long" end
  if not self.keyed then
    local ok, message = ready(self)
    if not ok then return nil, message end
  end
  return C.neap_hash(self.secret, key, #key)
end

--- The word of a key, 0 when it has none.
---@param self neap.ngx.Store
---@param hash ffi.cdata*
---@param clock ffi.cdata*|integer  words up to this have ended
---@return ffi.cdata*  int64_t
function store.get(self, hash, clock) return C.neap_keyed_word(self.keyed, hash, clock) end

--- Keep another word.
---@param self neap.ngx.Store
---@param hash ffi.cdata*
---@param clock ffi.cdata*|integer
---@param from ffi.cdata*|integer  what `get` said
---@param to ffi.cdata*|integer    0 or more
---@return boolean? kept           false: it is another by now; nil: it cannot be
---@return string? message
function store.swap(self, hash, clock, from, to)
  local code = C.neap_keyed_swap(self.keyed, hash, clock, from, to)
  if code >= 0 then return code == 1 end
  return nil, code == C.NEAP_EFULL and "no room for another key" or "not of this worker"
end

--- Once a second: what dead workers held comes back.
---@param self neap.ngx.Store
function store.reap(self)
  if not self.segment then return end
  local now = current().now_ns()
  if now - self.reaped < REAP_NS then return end
  self.reaped = now
  C.neap_segment_reap(self.segment)
end

return store
