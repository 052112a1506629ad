-- A pattern that tries for a year.
local found = ("a"):rep(200):find(("a*"):rep(30) .. "b")
policy "never" { limits = { calls = found and "1/s" } }
