-- A loop that catches whatever would stop it.
while true do
  pcall(function () while true do end end)
end
