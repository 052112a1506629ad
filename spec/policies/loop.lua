-- A loop that never ends: what a slip of the pen looks like.
local n = 1
while n ~= 0 do
  n = n + 2
end
policy "never" { limits = { calls = "1 in flight" } }
