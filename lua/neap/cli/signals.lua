--- Signals that are fetched instead of coming at any moment: what a prompt wants to hear of.
---
--- They are blocked and read from a descriptor (signalfd), so there is no handler that could run in
--- the middle of anything, and whoever polls the terminal polls them as well. Programs that are
--- started meanwhile would inherit the mask: `free` lifts it for as long as that takes.
local ffi = require "ffi"
local C = require "neap.cli.system"

local NUMBERS = { HUP = 1, INT = 2, TERM = 15, TSTP = 20, WINCH = 28 }
local SIG_BLOCK, SIG_SETMASK = 0, 2
local NONBLOCK, CLOEXEC = 2048, 524288
local SIZE = 128   -- of a signalfd_siginfo; its first word is the number

local signals = {}

local names = {}
for name, number in pairs(NUMBERS) do names[number] = name end

---@class neap.Signals
---@field fd integer   readable when one came
local caught = {}
caught.__index = caught

--- Have them fetched from now on.
---@return neap.Signals?
---@return string? message
function signals.catch()
  local set, before = ffi.new "neap_sigset", ffi.new "neap_sigset"
  C.sigemptyset(set)
  for _, number in pairs(NUMBERS) do C.sigaddset(set, number) end
  local fd = C.signalfd(-1, set, NONBLOCK + CLOEXEC)
  if fd < 0 then return nil, "signals: " .. ffi.string(C.strerror(ffi.errno())) end
  C.sigprocmask(SIG_BLOCK, set, before)
  return setmetatable({ fd = fd, set = set, before = before, info = ffi.new "uint32_t[32]" },
    caught)
end

--- The next one that came, if any.
---@return "HUP"|"INT"|"TERM"|"TSTP"|"WINCH"|nil
function caught:next()
  if C.read(self.fd, self.info, SIZE) ~= SIZE then return nil end
  return names[self.info[0]]
end

--- Call with signals as they were before `catch`, which is what programs inherit.
---@param fn function
---@param ... any
---@return any ...
function caught:free(fn, ...)
  C.sigprocmask(SIG_SETMASK, self.before, nil)
  local function after(...)
    C.sigprocmask(SIG_BLOCK, self.set, nil)
    return ...
  end
  return after(fn(...))
end

--- As before.
function caught:release()
  C.sigprocmask(SIG_SETMASK, self.before, nil)
  C.close(self.fd)
end

return signals
