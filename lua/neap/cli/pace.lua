--- `neap pace`: lines from standard input to standard output, at the pace of a limit.
local ffi = require "ffi"
local neap = require "neap"
local notation = require "neap.notation"
local system = require "neap.cli.system"

local io, min, pcall, tostring = io, math.min, pcall, tostring
local concat = table.concat

local WRONG, USAGE = 1, 2
local PIECE = 65536
local SHOW_S = 0.2         -- between two looks at how far it is

local function thousands(n)
  local text = ("%d"):format(n)
  while true do
    local more, changed = text:gsub("^(%d+)(%d%d%d)", "%1,%2")
    if changed == 0 then return text end
    text = more
  end
end

local function clock(s)
  local text = ("%d:%02d"):format(s / 60 % 60, s % 60)
  return s < 3600 and text or ("%d:%02d:%02d"):format(s / 3600, s / 60 % 60, s % 60)
end

--- "1,204 lines  10.0/s  2:00  next in 0.1 s"
local function progress(seen, now)
  local spent = now - seen.began
  local text = ("%s lines  %.1f/s  %s"):format(thousands(seen.lines),
    spent > 0 and seen.lines / spent or 0, clock(spent))
  local left = seen.next and seen.next - now or 0
  return left > SHOW_S and ("%s  next in %.1f s"):format(text, left) or text
end

--- May it leave: what it costs in portions that fit at once.
local function pay(limit, cost, seen)
  local capacity = limit:capacity()
  while cost > 0 do
    local part = min(cost, capacity)
    local _, _, wait_s = limit:peek(part)
    seen.next = wait_s and neap.now() + wait_s
    local permit, why = limit:acquire(part)
    if not permit then return nil, why end
    cost = cost - part
  end
  seen.next = nil
  return true
end

--- The lines of standard input, ends included, as soon as they are there. What io.lines reads stops
--- at a zero byte.
local function lines()
  local buffer, parts, rest, at = ffi.new("char[?]", PIECE), {}, "", 1
  return function ()
    while true do
      local feed = rest:find("\n", at, true)
      if feed then
        parts[#parts + 1] = rest:sub(at, feed)
        local line = concat(parts)
        parts, at = {}, feed + 1
        return line
      end
      if at <= #rest then parts[#parts + 1] = rest:sub(at) end
      local n = system.read(0, buffer, PIECE)
      if n <= 0 then
        local line = concat(parts)
        rest, parts, at = "", {}, 1
        return line ~= "" and line or nil
      end
      rest, at = ffi.string(buffer, n), 1
    end
  end
end

local function copy(limit, bytes, seen)
  for line in lines() do
    local paid, why = pay(limit, bytes and #line or 1, seen)
    if not paid then return why end
    local written, problem = io.stdout:write(line)
    if written then written, problem = io.stdout:flush() end
    if not written then return "standard output: " .. tostring(problem) end
    seen.lines = seen.lines + 1
  end
end

local function show(seen)
  while not seen.over do
    io.stderr:write("\r", progress(seen, neap.now()), "\27[K")
    neap.sleep(SHOW_S)
  end
end

---@type neap.Verb
local verb = {
  files = { 1, 1 }, what = "limit",
  options = { bytes = "flag", quiet = "flag" },
  help = [[
usage: neap pace [--bytes] [--quiet] LIMIT <in >out

Copy lines from standard input to standard output at the pace of a limit: "10/s burst 5", "1/2s",
"5MB/s". On a terminal, a line on standard error says how far it is.

  --bytes   a line costs its bytes, not 1
  --quiet   say nothing

    neap pace "50/s smooth" <urls | xargs -n1 -P8 curl -sO
]],
}

function verb.act(files, options, complain)
  local text = files[1]
  local value, problem = notation.limit(text)
  if not value then
    complain(("bad limit '%s': %s"):format(notation.show(text, 80), problem))
    return USAGE
  elseif value.kind ~= "rate" then
    complain(("a rate expected, as in '10/s burst 5', got '%s'"):format(notation.show(text, 80)))
    return USAGE
  end
  local made, limit = pcall(neap.throttle, text)
  if not made then
    complain(limit)
    return USAGE
  end
  local asked = os.execute "test -t 2"
  local seen = { lines = 0, began = 0 }
  local visible = not options.quiet and (asked == 0 or asked == true)
  neap.run(function ()
    seen.began = neap.now()
    if visible then neap.spawn(show, seen) end
    problem = copy(limit, options.bytes, seen)
    seen.over = true
  end)
  if visible then io.stderr:write("\r", progress(seen, neap.now()), "\27[K\n") end
  if problem then
    complain(problem)
    return WRONG
  end
  return 0
end

return verb
