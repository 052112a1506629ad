--- The files of a policy: the one that was named, and what it includes.
--
-- A path to include is relative to the folder of the first file and stays below it. What an include
-- returns is its value, so that plans can be shared; and it may declare, as if it stood there.
local room = require "neap.policy.room"
local source = require "neap.policy.source"

local getinfo = debug.getinfo
local open = io.open
local type = type
local huge = math.huge

local files = {}

local LARGEST = 2 ^ 20
local MOST = 100           -- includes of one policy
local MOST_BYTES = 2 ^ 22  -- of them all
local LONGEST_CHUNK = 50   -- bytes of a name that the machine shows whole

--- The text of a file.
---@param path string
---@return string? text, string? problem
function files.read(path)
  local file, problem = open(path, "rb")
  local text
  if file then
    text, problem = file:read(LARGEST + 1)
    file:close()
    if not text and not problem then text = "" end
  end
  if text and #text > LARGEST then text, problem = nil, "larger than 1 MiB" end
  if text then return text end
  local prefix = path .. ": "
  if problem:sub(1, #prefix) == prefix then problem = problem:sub(#prefix + 1) end
  return nil, problem
end

-- A name for the machine: the end of the file's, and no other file's.
local function chunk_name(reading, file)
  local name = file:gsub("[%c]", "?")
  if #name > LONGEST_CHUNK then name = "…" .. name:sub(-LONGEST_CHUNK + 10) end
  local free, n = name, 1
  while reading.chunks[free] do
    n = n + 1
    free = name .. "#" .. n
  end
  return free
end

--- Read a text as a file of this reading; nil when it is no Lua, which is then reported.
---@return function? chunk
function files.open(reading, text, file)
  -- a first line for the shell, and a mark of the encoding: neither moves a column
  local lua = text:gsub("^\239\187\191", "   "):gsub("^#!", "--")
  if lua:byte() == 27 then
    reading.report:add({ source = { file = file, rank = #reading.sources + 1 } }, nil,
      "compiled Lua is refused: a policy file is text")
    return nil
  end
  local name = chunk_name(reading, file)
  local map = source.new(lua, reading.nouns, file, #reading.sources + 1)
  reading.sources[#reading.sources + 1] = map
  reading.chunks[name] = map
  local chunk, message, line = room.read(lua, name)
  if not chunk then
    reading.report:add({ at = line and map:culprit(line), line = line, source = map }, nil, message)
    return nil
  end
  map:survey()
  return chunk
end

-- Whether a file is on its way to include another.
local function is_running(reading, path)
  for level = 2, huge do
    local info = getinfo(level, "S")
    if not info then return false end
    local map = reading.chunks[info.source:sub(2)]
    if map and map.file == path then return true end
  end
end

local function folder_of(path)
  return path:match "^(.*/)[^/]*$" or ""
end

--- The chunk of a file to include; or nil, and what is wrong with it or with naming it.
---@return function? chunk, string? message
function files.include(reading, name)
  if type(name) ~= "string" or name == "" then
    return nil, 'include needs a path, as in include "plans.lua"'
  end
  if name:find "^/" or ("/" .. name .. "/"):find "/%.%./" or name:find "%z" then
    return nil, ("'%s' is not below the folder of the policy"):format(name)
  end
  reading.included = (reading.included or 0) + 1
  if reading.included > MOST then return nil, "more than 100 files included" end
  local path = folder_of(reading.file) .. name:gsub("^%./", "")
  if is_running(reading, path) then return nil, ("'%s' includes itself"):format(name) end
  local text, problem = (reading.options.read or files.read)(path)
  if not text then return nil, ("cannot read '%s': %s"):format(name, problem) end
  reading.bytes = (reading.bytes or 0) + #text
  if reading.bytes > MOST_BYTES then return nil, "more than 4 MiB of files included" end
  return files.open(reading, text, path)
end

return files
