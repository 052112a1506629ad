--- A view of a segment from outside, for people: `neap inspect` and `neap top`. It never writes
--- there, so it can be had of any segment at any time, and by who may only read it.
---
---     payments        rate       |######----|   62 of 100
---     payments slots  semaphore  |##########|    0 of 50   2 processes hold some
---     api breaker     breaker    open
local cjson = require "cjson"
local segment = require "neap.segment"

local ipairs, pairs = ipairs, pairs
local floor, huge, max, min = math.floor, math.huge, math.max, math.min

local BAR = 20

local view = {}

local function number(n)
  return n == huge and "any" or ("%d"):format(n)
end

--- How much is spent or out, as a picture.
---@param available number
---@param capacity number
---@return string
function view.bar(available, capacity)
  local spent = capacity - max(available, 0)
  local full = capacity > 0 and min(spent / capacity, 1) or 1
  local n = floor(full * BAR + 0.5)
  return "|" .. ("#"):rep(n) .. ("-"):rep(BAR - n) .. "|"
end

local function state(one)
  if one.kind == "breaker" then return one.state, "" end
  if one.kind == "pause" then
    return one.left > 0 and ("%.3f s left"):format(one.left) or "not on", ""
  end
  return view.bar(one.available, one.capacity),
    ("%s of %s"):format(number(one.available), number(one.capacity))
end

--- What is in a segment, as rows of cells.
---@param of neap.Segment
---@return string[][]
function view.rows(of)
  local rows = {}
  for one in of:each() do
    local shape, left = state(one)
    local held = one.holders == 1 and "1 process holds some"
      or one.holders > 1 and ("%d processes hold some"):format(one.holders) or ""
    rows[#rows + 1] = { one.name, one.kind, shape, left, held }
  end
  return rows
end

--- One line about the segment as a whole.
---@param of neap.Segment
---@return string
function view.summary(of)
  local s = of:stats()
  return ("%s: %d of %d limiters, %d of %d processes, %d of %d bytes for logs"):format(of.path,
    s.limiters, s.limiters_max, s.processes, s.processes_max, s.log_used, s.log_bytes)
end

--- All of it as one line of JSON. What has no bound has none there.
---@param of neap.Segment
---@return string
function view.json(of)
  local list = setmetatable({}, cjson.array_mt)
  for one in of:each() do
    local entry = {}
    for key, value in pairs(one) do entry[key] = value ~= huge and value or nil end
    list[#list + 1] = entry
  end
  return cjson.encode { segment = of.path, stats = of:stats(), limiters = list }
end

--- Open them to be looked at.
---@param paths string[]
---@return neap.Segment[]? list
---@return string? message
function view.open(paths)
  local list = {}
  for i, path in ipairs(paths) do
    local one, message = segment(path, { inspect = true })
    if not one then return nil, message end
    list[i] = one
  end
  return list
end

return view
