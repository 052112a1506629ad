-- A loop inside the handler of another one's error.
xpcall(function () while true do end end, function () while true do end end)
while true do end
