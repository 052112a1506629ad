--- Who used most, by name, in bounded memory.
---
--- The engine knows keys by their hash alone, and there may be millions. Here are the names of the
--- few that count: the Space-Saving algorithm (Metwally, Agrawal, El Abbadi: Efficient Computation
--- of Frequent and Top-k Elements in Data Streams, ICDT 2005). A name that has no place takes that
--- of the least, and its count; so a count is at most `over` too high, never too low, and whoever
--- has more than a 128th of all is in the list.
---
---     heap     entries, [1] the least, [i] not more than [2i] and [2i + 1]
local heaps = require "neap.heap"

local ipairs, setmetatable, sort = ipairs, setmetatable, table.sort

local PLACES = 128

---@class neap.TopEntry
---@field name string
---@field count integer   calls, up to `over` too many
---@field over integer
---@field place integer   in the heap

---@class neap.Top
---@field heap neap.TopEntry[]
---@field by_name table<string, neap.TopEntry>
local top = {}
top.__index = top

---@return neap.Top
function top.new() return setmetatable({ heap = {}, by_name = {} }, top) end

local by_count = heaps.of(function (entry) return entry.count end)
local rise, sink = by_count.rise, by_count.sink

--- One more call of this name.
---@param name string
function top:add(name)
  local heap, entry = self.heap, self.by_name[name]
  if entry then
    entry.count = entry.count + 1
    return sink(heap, entry)
  elseif #heap < PLACES then
    entry = { name = name, count = 1, over = 0, place = #heap + 1 }
    heap[#heap + 1] = entry
    self.by_name[name] = entry
    return rise(heap, entry)
  end
  entry = heap[1]
  self.by_name[entry.name], self.by_name[name] = nil, entry
  entry.name, entry.over, entry.count = name, entry.count, entry.count + 1
  sink(heap, entry)
end

--- The first n, those with most first; of as many, by name.
---@param n integer
---@return neap.TopEntry[]
function top:list(n)
  local list = {}
  for i, entry in ipairs(self.heap) do list[i] = entry end
  sort(list, function (a, b)
    return a.count > b.count or a.count == b.count and a.name < b.name
  end)
  for i = #list, n + 1, -1 do list[i] = nil end
  return list
end

return top
