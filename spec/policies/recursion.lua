-- A recursion without a bottom.
local function depth(n)
  return 1 + depth(n + 1)
end
policy "never" { limits = { calls = depth(0) .. " in flight" } }
