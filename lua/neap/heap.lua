--- A binary heap of tables that know their place in it: the least comes first, as `key` has it, and
--- whoever changes the key of one says so.
---
---     local soonest = heap.of(function (one) return one.ends end)
---     soonest.put(list, #list + 1, one)     -- list[i].place == i
---     soonest.rise(list, one)               -- its key may be less than above it
---     soonest.sink(list, one)               -- or more than below it
local floor = math.floor

local heap = {}

local function put(list, place, one)
  list[place] = one
  one.place = place
end

--- How to keep heaps by this key.
---@package
---@param key fun(one: table): number|ffi.cdata*
---@return { put: function, rise: function, sink: function }
function heap.of(key)
  --- Where it belongs, from its place towards the first.
  local function rise(list, one)
    local place = one.place
    while place > 1 do
      local up = floor(place / 2)
      if key(list[up]) <= key(one) then break end
      put(list, place, list[up])
      place = up
    end
    put(list, place, one)
  end

  --- The other way.
  local function sink(list, one)
    local place = one.place
    while list[2 * place] do
      local down = 2 * place
      if list[down + 1] and key(list[down + 1]) < key(list[down]) then down = down + 1 end
      if key(one) <= key(list[down]) then break end
      put(list, place, list[down])
      place = down
    end
    put(list, place, one)
  end

  return { put = put, rise = rise, sink = sink }
end

return heap
