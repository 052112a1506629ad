-- A recursion that catches the end of its stack, and goes on.
local function f()
  pcall(f)
  return f()
end
f()
