--- A queue: a bounded waiting room before a limiter, in which not all are equal.
---
---     local api = neap.queue("500/min", { capacity = 100, overflow = "drop_lowest" })
---     api:acquire { priority = 5, timeout = "30s" }        -- higher goes first
---     api:acquire { flow = customer, cost = 3 }            -- customers take turns, by cost
---
---     local rush = neap.queue("1/s", { capacity = 1 })
---     rush:acquire()
---     local waiting = neap.spawn(function () return rush:acquire { timeout = "5s" } end)
---     neap.sleep(0.5)
---     rush:acquire { timeout = "5s" }                      --> nil, "queue"
---
--- Any limiter has lines, in which those who came first go first. A queue has these rules instead:
--- a higher priority goes first; of one priority, flows take turns, by cost; and of one flow who
--- came first. Only the first of all draws from the limiter: while it waits nobody passes it, even
--- who would need less. With `ageing` who waits rises by one priority each time that it has waited
--- so long, and so a low one is not kept out for ever.
---
--- At most `capacity` wait at once. Then a newcomer is turned away ("queue"), or somebody makes
--- room and hears that instead: the oldest ("drop_oldest"), or, when the newcomer's priority is
--- higher, the newest of the lowest priority ("drop_lowest"). Who cannot be served in time is told
--- so at once, and takes nobody's place.
---
--- It is a limiter: it nests, and who asks what contains it waits in it. A limiter can contain one
--- queue, since nobody can stand in two.
local ffi = require "ffi"
local C = require "neap.engine"
local hybrid = require "neap.hybrid"
local keys = require "neap.key"
local limiter = require "neap.limiter"

local error, getmetatable, pcall, setmetatable = error, getmetatable, pcall, setmetatable
local tonumber, tostring, type = tonumber, tostring, type

local OPTIONS = { capacity = true, overflow = true, ageing = true }
local OVERFLOW = {
  reject = C.NEAP_REJECT, drop_oldest = C.NEAP_DROP_OLDEST, drop_lowest = C.NEAP_DROP_LOWEST,
}
local MOST = 2 ^ 24

---@class neap.Room
---@field c ffi.cdata*      struct neap_queue
---@field overflow string
local room = {}
room.__index = room

--- What a request says about its place, into its struct.
---@package
---@param request ffi.cdata*
---@param given any
---@param level integer
function room:write(request, given, level)
  local priority, flow
  if type(given) == "table" then
    local said = given
    if type(given.cost) == "table" then said = given.cost end
    priority, flow = given.priority or said.priority, given.flow or said.flow
  end
  if priority ~= nil and (type(priority) ~= "number" or priority % 1 ~= 0
      or priority < -2 ^ 31 or priority >= 2 ^ 31) then
    error("priority: a whole number below 2^31 expected, got " .. tostring(priority), level + 1)
  end
  request.queue, request.priority = self.c, priority or 0
  request.flow = flow ~= nil and keys.hash(flow, "flow", level + 1) or 0
end

---@class neap.Queue: neap.Limiter
---@field room neap.Room
---@field places integer   how many can wait
local classes = {}

--- What a queue has that the limiter in it has not.
local function class_of(base)
  local queue = limiter.class(base)
  local stats = ffi.new "struct neap_queue_stats"

  --- How many wait.
  ---
  ---     rush:len()                                         --> 1
  ---
  ---@return integer
  function queue:len()
    C.neap_queue_stats(self.room.c, stats)
    return tonumber(stats.waiting)
  end

  return queue
end

--- Make one.
---@param limit string|neap.limit|neap.Limiter|table  what it stands before, as in a hybrid
---@param options? { name: string?, capacity: integer?, overflow: string?,
---  ageing: number|string|nil }
---  capacity: how many can wait, 1024 unless told, 0 counts as 1; overflow: "reject" (unless told),
---  "drop_oldest", "drop_lowest"; ageing: a duration
---@return neap.Queue
return function (limit, options)
  local name = limiter.name_of(options, nil, OPTIONS, 2)
  options = options or {}
  local places = options.capacity or 1024
  if type(places) ~= "number" or not (places >= 0 and places <= MOST) or places % 1 ~= 0 then
    error("capacity: a whole number up to 2^24 expected, got " .. tostring(places), 2)
  end
  places = places > 1 and places or 1
  local overflow = options.overflow or "reject"
  if not OVERFLOW[overflow] then
    error("overflow: \"reject\", \"drop_oldest\" or \"drop_lowest\" expected, got "
      .. tostring(overflow), 2)
  end
  local ageing = options.ageing ~= nil and limiter.ns_of(options.ageing, "ageing", 2) or 0
  if options.ageing ~= nil and ageing < 1 then
    error("ageing: a duration above 0 expected, got " .. tostring(options.ageing), 2)
  end
  if limit == nil then error("queue: a limit expected, as in neap.queue(\"10/s\")", 2) end
  local ok, self = pcall(hybrid, { limit }, name and { name = name } or nil)
  if not ok then error((self:gsub("^.-hybrid: limit 1: ", "queue: ", 1)), 2) end
  if self.room then error("queue: " .. tostring(limit) .. " has a queue already", 2) end

  local c = C.neap_queue_open(places, OVERFLOW[overflow], ageing)
  if c == nil then error("queue: no memory for " .. places .. " places", 2) end
  self.places = places
  self.room = setmetatable({ c = ffi.gc(c, C.neap_queue_close), overflow = overflow }, room)
  local base = getmetatable(self)
  classes[base] = classes[base] or class_of(base)
  return setmetatable(self, classes[base])
end
