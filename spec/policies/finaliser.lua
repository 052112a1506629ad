-- A loop that the collector would run into.
local proxy = newproxy(true)
getmetatable(proxy).__gc = function () while true do end end
proxy = nil
collectgarbage()
