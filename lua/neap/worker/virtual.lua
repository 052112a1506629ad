--- Virtual time, for tests from outside: the clock of all limits stands at 0 until a client moves
--- it.
---
---     DEBUG CLOCK 1500000000     -> OK: it is 1.5 s, and what was due by then has happened
---     DEBUG CLOCK                -> 1500000000
local ffi = require "ffi"
local reply = require "neap.worker.reply"

local tonumber = tonumber
local int64 = ffi.typeof "int64_t"

local virtual = {}

--- Up to 18 digits, exactly; or nil.
local function instant(text)
  if not text:find "^%d+$" or #text > 18 then return nil end
  return int64(tonumber(text:sub(1, -10)) or 0) * 1000000000 + tonumber(text:sub(-9))
end

--- A clock, and the command that sets it.
---@return { now: (fun(): ffi.cdata*), command: fun(worker: neap.Worker): neap.Command }
function virtual.new()
  local now = 0LL
  local self = {}

  function self.now() return now end

  local function run(to, words)
    if words[1]:upper() ~= "CLOCK" or #words > 2 then
      return reply.fail(to, "ERR DEBUG CLOCK [nanoseconds] is all there is")
    end
    if not words[2] then return reply.write(to, tonumber(now)) end
    local at = instant(words[2])
    if not at then
      return reply.fail(to, "ERR the clock is set to nanoseconds, up to 18 digits")
    elseif at < now then
      return reply.fail(to, "ERR time does not go back")
    end
    now = at
    reply.ok(to)
  end

  --- Its turn of the loop does the rest: whoever was waited for is told before the next command.
  function self.command(_)
    return { name = "DEBUG", arity = -2, group = "server", need = "admin", run = run,
      summary = "Set the clock of a worker that runs on a virtual one, or tell it.",
      arguments = { { "subcommand", "block", token = "CLOCK", of = {
        { "nanoseconds", "integer", optional = true } } } } }
  end

  return self
end

return virtual
