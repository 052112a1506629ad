--- The clock of a prompt: virtual, where time is told to move; or the machine's, where a wait can
--- be interrupted. Of both one can ask how it would go on.
---
--- That is a rehearsal: a child process (fork) has a copy of everything, limiters, lines, tasks,
--- and lets time run there as fast as it goes. What it finds out comes back through a pipe; here
--- nothing has happened. So what a prompt predicts is what the engine will do, and no second
--- opinion about it. Limits in a segment are other processes', too, and no copy is made of them:
--- what those in line take there, they take.
local ffi = require "ffi"
local C = require "neap.engine"
local manual = require "neap.runtime.manual"
local rounds = require "neap.runtime.rounds"
local system = require "neap.cli.system"

local error, pcall, tonumber, tostring = error, pcall, tonumber, tostring
local concat = table.concat

local SLACK_NS = 20000
local SLICE_NS = 50000000LL      -- how long an interrupt may take to be seen by one who waits
local WRONLY = 1
local PIECE = 65536

local clock = {}

---@class neap.Clock
---@field rt neap.Runtime
---@field virtual boolean
---@field unreal fun()   from now on time jumps; in a rehearsal
---@field is_idle (fun(): boolean)?   of the machine's: nobody can run now

--- Time that moves when it is told to.
---@return neap.Clock
function clock.virtual()
  return { rt = manual.new(), virtual = true, unreal = function () end }
end

--- The machine's time. `check` is called now and then while somebody waits, and may raise an error.
---@param check fun()
---@return neap.Clock
function clock.real(check)
  local loop = C.neap_loop_open(SLACK_NS)
  if loop == nil then error("the system refuses an event loop, error " .. ffi.errno(), 0) end
  local rt, stands = { loop = loop }, nil
  function rt.now_ns() return stands or (C.neap_loop_now(loop)) end
  local function pass(until_ns)
    if stands then
      if until_ns > stands and until_ns ~= C.neap_never then stands = 0LL + until_ns end
      C.neap_engine_advance(rt.engine, stands)
      return
    end
    local slice = C.neap_loop_now(loop) + SLICE_NS
    C.neap_engine_advance(rt.engine, C.neap_loop_turn(loop, until_ns < slice and until_ns or slice))
    check()
  end
  local turns = rounds.open(rt, pass, function () C.neap_loop_close(loop) end, nil, 2)
  rt.outside = true   -- whoever sits there may give a permit back
  return { rt = rt, virtual = false, unreal = function () stands = rt.now_ns() end,
    is_idle = function () return turns:is_idle() end }
end

--- Let time run on to `at`, or until `over()`.
---@param self neap.Clock
---@param at ffi.cdata*  ns
---@param over? fun(): boolean
function clock.run(self, at, over)
  local rt = self.rt
  repeat rt.turn(at) until rt.now_ns() >= at or over and over()
  rt.turn(0)
end

local function child(self, ends, signals, fn)
  local null = system.open("/dev/null", WRONLY)
  system.dup2(null, 1)
  system.dup2(null, 2)
  if signals then signals:release() end   -- Ctrl-C ends a rehearsal
  self.unreal()
  self.rt.report = function () end
  local fine, text = pcall(fn)
  if not fine then text = "!" .. tostring(text) end
  local at = 0
  while at < #text do
    local n = tonumber(system.write(ends[1], ffi.cast("const char *", text) + at, #text - at))
    if n <= 0 then break end
    at = at + n
  end
  system._exit(0)
end

--- What `fn` answers where everything happens on a copy, in time that jumps.
---@param self neap.Clock
---@param signals neap.Signals?   caught ones, which a rehearsal is not to catch
---@param fn fun(): string        what begins with "!" is an error
---@return string
function clock.rehearse(self, signals, fn)
  io.stdout:flush()
  local ends = ffi.new "int[2]"
  if system.pipe(ends) ~= 0 then error("the system refuses a pipe", 0) end
  local pid = system.fork()
  if pid < 0 then error("the system refuses a process", 0) end
  if pid == 0 then child(self, ends, signals, fn) end
  system.close(ends[1])
  local parts, buffer = {}, ffi.new("char[?]", PIECE)
  while true do
    local n = tonumber(system.read(ends[0], buffer, PIECE))
    if n <= 0 then break end
    parts[#parts + 1] = ffi.string(buffer, n)
  end
  system.close(ends[0])
  system.waitpid(pid, ffi.new "int[1]", 0)
  local text = concat(parts)
  if text:sub(1, 1) == "!" then error(text:sub(2), 0) end
  return text
end

return clock
