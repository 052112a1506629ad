-- A string that doubles until nothing else fits.
local s = "x"
for _ = 1, 40 do
  s = s .. s
end
policy "never" { limits = { calls = "1 in flight" } }
