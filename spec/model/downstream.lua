--- The downstream of spec/downstream.lua on virtual time: what calls it would see, and when.
---
--- The same verbs, but calls take no time beyond what a script says. It has no wall clock, and so
--- no dates. Its own limit is a bucket that leaks 5 a second and refuses to hold more than 2.
local runtime = require "neap.runtime"

local ipairs, setmetatable, tonumber = ipairs, setmetatable, tonumber
local floor, max, min = math.floor, math.max, math.min

local model = {}
model.__index = model

local LEAK, ROOM = 5, 2

function model.new()
  return setmetatable({ log = {} }, model)
end

local function read(word)
  local status, told, takes = word:match "^(%d+)(:?%d*%l*)/?(%d*)"
  local headers = {}
  if told:match "ms$" then
    headers[1] = { "Retry-After-Ms", told:match "%d+" }
  elseif told ~= "" then
    headers[1] = { "Retry-After", told:match "%d+" }
  end
  return tonumber(status), headers, (tonumber(takes) or 0) / 1000
end

function model:script(words)
  local list, calls, at_once = {}, 0, 0
  for word in words:gmatch "%S+" do list[#list + 1] = word end
  local function play()
    calls, at_once = calls + 1, at_once + 1
    local status, headers, takes = read(list[min(calls, #list)])
    return status, headers, takes, at_once, function () at_once = at_once - 1 end
  end
  return function (name) return { name = name, play = play } end
end

function model.limited()
  local level, leaked = 0, runtime.now()
  local function play()
    local now = runtime.now()
    level, leaked = max(level - LEAK * (now - leaked), 0), now
    if level > ROOM - 1 then return 429, { { "Retry-After-Ms", "500" } }, 0, 0 end
    level = level + 1
    return 200, {}, 0, 0
  end
  return function (name) return { name = name, play = play } end
end

function model:call(method, path)
  local call = { at = runtime.now(), method = method, name = path.name }
  self.log[#self.log + 1] = call
  local headers, takes, done
  call.status, headers, takes, call.at_once, done = path.play()
  if takes > 0 then runtime.sleep(takes) end
  call.ends = runtime.now()
  if done then done() end
  if call.status == 444 then return nil, "closed" end
  return { status = call.status, headers = headers }
end

--- Times are milliseconds.
function model:calls()
  for _, call in ipairs(self.log) do
    call.at, call.ends = floor(call.at * 1000 + 0.5), floor(call.ends * 1000 + 0.5)
  end
  return self.log
end

return model
