--- Redis' glob patterns: `*` any bytes, `?` one, `[a-c]` and `[^a]` one of a set, `\` the next as
--- it is. Lua's own patterns would do it in a line and can be made to run for hours; here only the
--- last star is ever tried again, so a match costs at most text times pattern.
local byte = string.byte

local STAR, ANY, OPEN, CLOSE, NOT, DASH, QUOTE = byte("*?[]^-\\", 1, 7)

--- Is `c` in the set that opens at `p`? And where the pattern goes on.
local function in_set(pattern, p, c)
  local negated = byte(pattern, p + 1) == NOT
  local found, at = false, p + (negated and 2 or 1)
  while at <= #pattern and byte(pattern, at) ~= CLOSE do
    if byte(pattern, at) == QUOTE and at < #pattern then at = at + 1 end
    local low, high = byte(pattern, at), byte(pattern, at)
    if byte(pattern, at + 1) == DASH and at + 2 <= #pattern then
      high, at = byte(pattern, at + 2), at + 2
    end
    if low > high then low, high = high, low end
    found = found or (c >= low and c <= high)
    at = at + 1
  end
  return found ~= negated, at + 1
end

--- Does one byte match what stands at `p`? And where the pattern goes on.
local function matches(pattern, p, c)
  local what = byte(pattern, p)
  if what == ANY then return true, p + 1 end
  if what == OPEN then return in_set(pattern, p, c) end
  if what == QUOTE and p < #pattern then return byte(pattern, p + 1) == c, p + 2 end
  return what == c, p + 1
end

---@param pattern string
---@param text string
---@return boolean  whether all of text matches
return function (pattern, text)
  local p, t, star, mark = 1, 1, nil, nil
  while t <= #text do
    local fits, next_p = false, nil
    if p <= #pattern and byte(pattern, p) == STAR then
      star, mark, p = p, t, p + 1
    else
      if p <= #pattern then fits, next_p = matches(pattern, p, byte(text, t)) end
      if fits then
        p, t = next_p, t + 1
      elseif star then
        mark = mark + 1
        p, t = star + 1, mark
      else
        return false
      end
    end
  end
  while byte(pattern, p) == STAR do p = p + 1 end
  return p > #pattern
end
