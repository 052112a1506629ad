--- What a policy file can call: its declarations, which only write down what they were given; `env`
--- and `include`; and for its hooks `log`, `now` and `emit`, which the host lends.
local files = require "neap.policy.files"
local notation = require "neap.notation"
local room = require "neap.policy.room"

local error, getmetatable, ipairs, pairs = error, getmetatable, ipairs, pairs
local setmetatable, tostring, type = setmetatable, tostring, type
local format = string.format

local blank = room.blank

local verbs = {}

--- Declarations; true when a name goes before the table.
verbs.NOUNS = { policy = true, user = true, listen = false, per = true }

local LEVELS = { "debug", "info", "warn", "error" }

---@class neap.policy.Host
---@field log (fun(level: "debug"|"info"|"warn"|"error", text: string))?  standard error unless told
---@field now (fun(): number)?                        seconds, of the host's clock
---@field emit (fun(event: string, fields: table?))?  tells an event of the file's own

-- What a declaration was given, as it was then.
local function copy(value, copies)
  if type(value) ~= "table" or getmetatable(value) then return value end
  if copies[value] then return copies[value] end
  local twin = {}
  copies[value] = twin
  for key, inner in pairs(value) do twin[key] = copy(inner, copies) end
  return twin
end

-- An error at the line of the file that is running.
local function fail(reading, message)
  local line, chunk = room.here(reading.chunks)
  error(chunk and ("%s:%d: %s"):format(chunk, line, message) or message, 0)
end

-- A complaint is written down while the file is read, and an error in a hook.
local function complain(reading, complaint)
  if reading.over then
    fail(reading, (notation.suggest(complaint.message, complaint.typed, complaint.words)))
  end
  complaint.line, complaint.chunk = reading.at_line, reading.at_chunk
  if not complaint.line then complaint.line, complaint.chunk = room.here(reading.chunks) end
  -- a loop may come by without end
  local key = ("%s:%s:%s"):format(complaint.chunk, complaint.line, complaint.message)
  if not reading.complained[key] then
    reading.complained[key] = true
    reading.complaints[#reading.complaints + 1] = complaint
  end
  return blank
end

-- Write down a call of a declaration; its table comes later when a name goes first.
local function note(reading, noun, name)
  if reading.over then fail(reading, noun .. " stands in a policy file, not in a hook") end
  local line, chunk = room.here(reading.chunks)
  return { noun = noun, name = name, line = line, source = reading.chunks[chunk] }
end

local function declarations(reading, env)
  local calls = reading.calls
  local function declare(noun)
    return function (name)
      local call = note(reading, noun, name)
      calls[#calls + 1] = call
      if noun == "user" then reading.has_users = true end
      return function (body)
        if call.body ~= nil then
          call = note(reading, noun, name)
          calls[#calls + 1] = call
        end
        call.line = room.here(reading.chunks)
        call.body = blank                    -- in case the copy does not come back
        call.body = copy(body, {})
      end
    end
  end
  env.policy, env.user = declare "policy", declare "user"

  function env.listen(body)
    local call = note(reading, "listen")
    calls[#calls + 1] = call
    call.body = copy(body, {})
  end

  -- A scope is a value that stands in a policy's table, and says where it was made.
  function env.per(name)
    local origin = note(reading, "per", name)
    reading.loose[origin] = true
    return function (body)
      local scope = note(reading, "per", name)
      if origin.body then reading.loose[scope] = true end
      scope.origin, origin.body = origin.body and scope or origin, true
      scope.body = copy(body, {})
      return setmetatable(scope, room.Scope)
    end
  end
end

-- What hooks may call. A file is the same each time it is read, so it may not while it is.
local function lent(reading, env)
  local host = reading.options.host or {}
  local function only_in_hooks(name, f)
    return function (...)
      if not reading.over then
        return complain(reading, { name = name:match "^%a+",
          message = ("'%s' is for hooks: functions of a policy, as in on = { open = … }"):format(
            name) })
      end
      return f(...)
    end
  end
  env.log = {}
  for _, level in ipairs(LEVELS) do
    env.log[level] = only_in_hooks("log." .. level, function (text, ...)
      text = format(text, ...)
      if host.log then return host.log(level, text) end
      io.stderr:write("neap: ", level, ": ", notation.show(text, 1000), "\n")
    end)
  end
  env.now = only_in_hooks("now", function ()
    if not host.now then fail(reading, "now: nobody lends a clock") end
    return host.now()
  end)
  env.emit = only_in_hooks("emit", function (event, fields)
    if type(event) ~= "string" or fields ~= nil and type(fields) ~= "table" then
      fail(reading, 'emit: a name and a table expected, as in emit("full", { used = 5 })')
    end
    if not host.emit then fail(reading, "emit: nobody listens to events here") end
    return host.emit(event, fields)
  end)
end

--- The room of a reading.
---@return neap.Room
function verbs.of(reading)
  local env = {}
  declarations(reading, env)
  lent(reading, env)

  function env.env(name)
    if reading.over then fail(reading, "env stands in a policy file, not in a hook") end
    local value = type(name) == "string" and reading.getenv(name) or nil
    if value then
      reading.secrets[value] = name
      return value
    end
    return complain(reading, { name = "env", message = type(name) == "string"
      and ("'%s' is not set in the environment"):format(tostring(name))
      or "env needs a name, as in env \"NEAP_APP\"" })
  end

  local function include(name)
    if reading.over then fail(reading, "include stands in a policy file, not in a hook") end
    local chunk, message = files.include(reading, name)
    if message then complain(reading, { name = "include", message = message }) end
    return chunk, blank
  end

  return { verbs = env, include = include, chunks = reading.chunks, clock = reading.options.clock,
    complain = function (complaint) return complain(reading, complaint) end,
    at = function (line, chunk) reading.at_line, reading.at_chunk = line, chunk end,
    over = function () reading.over = true end }
end

return verbs
