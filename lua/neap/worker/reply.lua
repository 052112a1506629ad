--- Replies made of Lua values, for the commands whose speed is of no matter. RESP2 and RESP3 alike:
--- what the client speaks is the writer's business.
---
---     reply.write(to, "text")                         a bulk string
---     reply.write(to, 12)  0.5  true                  an integer, a double, a bool
---     reply.write(to, reply.null)
---     reply.write(to, { "a", 1, { 2 } })              an array
---     reply.write(to, reply.map { { "k", 1 }, ... })  a map, in this order
---     reply.write(to, reply.set { "a" })  reply.status "OK"  reply.verbatim "text"
local ffi = require "ffi"
local C = require "neap.engine"

local error, getmetatable, setmetatable, type = error, getmetatable, setmetatable, type

local int64 = ffi.typeof "int64_t"

local reply = {}

local function kind(write)
  local class = { write = write }
  return function (value) return setmetatable({ value = value }, class) end
end

local write

local function write_all(to, list)
  for i = 1, #list do write(to, list[i]) end
end

reply.map = kind(function (to, pairs_in_order)
  C.neap_reply_map(to, #pairs_in_order)
  for i = 1, #pairs_in_order do
    write(to, pairs_in_order[i][1])
    write(to, pairs_in_order[i][2])
  end
end)

reply.set = kind(function (to, list)
  C.neap_reply_set(to, #list)
  write_all(to, list)
end)

reply.status = kind(function (to, text) C.neap_reply_status(to, text, #text) end)
reply.verbatim = kind(function (to, text) C.neap_reply_verbatim(to, text, #text) end)
reply.null = kind(function (to) C.neap_reply_null(to) end)()

---@param to ffi.cdata*  struct neap_reply, from neap_server_reply
---@param value any
function write(to, value)
  local is = type(value)
  if is == "string" then
    C.neap_reply_bulk(to, value, #value)
  elseif is == "number" and value % 1 ~= 0 then
    C.neap_reply_double(to, value)
  elseif is == "number" or ffi.istype(int64, value) then
    C.neap_reply_integer(to, value)
  elseif is == "boolean" then
    C.neap_reply_bool(to, value)
  elseif is == "table" then
    local class = getmetatable(value)
    if class then return class.write(to, value.value) end
    C.neap_reply_array(to, #value)
    write_all(to, value)
  else
    error("a reply cannot hold a " .. is, 2)
  end
end

reply.write = write

--- One line that starts with its code: "ERR no such thing".
---@param to ffi.cdata*
---@param text string
function reply.fail(to, text) C.neap_reply_error(to, text, #text) end

---@param to ffi.cdata*
function reply.ok(to) C.neap_reply_status(to, "OK", 2) end

return reply
