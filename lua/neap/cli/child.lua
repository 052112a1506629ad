--- A command run to its end, with the signals meant for us passed on to it.
---
--- The signals are blocked and fetched one by one, so none comes at a wrong moment. What a terminal
--- sends (Ctrl-C), it sends to the command as well: that is not passed on twice.
local ffi = require "ffi"
local bit = require "bit"
local C = require "neap.cli.system"

local assert, ipairs = assert, ipairs
local HUP, INT, QUIT, USR1, USR2, TERM, CHLD = 1, 2, 3, 10, 12, 15, 17
local PASSED = { HUP, INT, QUIT, USR1, USR2, TERM }
local SIG_BLOCK, SIG_SETMASK = 0, 2
local SETSIGMASK = 8
local SI_KERNEL = 0x80
local NOHANG = 1
local NOENT, EINTR = 2, 4

local child = {}

--- Run it. Its exit status, or 128 and the signal it died of; nil when it cannot be started, why,
--- and 127 (there is no such program) or 126.
---@param words string[]
---@return integer? status
---@return string? message
---@return integer? code
function child.run(words)
  local caught, before = ffi.new "neap_sigset", ffi.new "neap_sigset"
  C.sigemptyset(caught)
  C.sigaddset(caught, CHLD)
  for _, number in ipairs(PASSED) do C.sigaddset(caught, number) end
  C.sigprocmask(SIG_BLOCK, caught, before)

  local attributes = ffi.new "uint64_t[128]"   -- a posix_spawnattr_t is 336 bytes
  C.posix_spawnattr_init(attributes)
  C.posix_spawnattr_setflags(attributes, SETSIGMASK)
  C.posix_spawnattr_setsigmask(attributes, before)
  local argv, pid = ffi.new("const char *[?]", #words + 1), ffi.new "int[1]"
  for i, word in ipairs(words) do argv[i - 1] = word end
  local problem = C.posix_spawnp(pid, words[1], nil, attributes, argv, C.environ)
  if problem ~= 0 then
    C.sigprocmask(SIG_SETMASK, before, nil)
    return nil, ("cannot run '%s': %s"):format(words[1], ffi.string(C.strerror(problem))),
      problem == NOENT and 127 or 126
  end

  local info, status = ffi.new "neap_siginfo", ffi.new "int[1]"
  repeat
    local number = C.sigwaitinfo(caught, info)
    if number < 0 then
      assert(ffi.errno() == EINTR)
    elseif number ~= CHLD and info.code ~= SI_KERNEL then
      C.kill(pid[0], number)
    end
  until C.waitpid(pid[0], status, NOHANG) == pid[0]
  C.sigprocmask(SIG_SETMASK, before, nil)
  local died_of = bit.band(status[0], 0x7f)
  return died_of > 0 and 128 + died_of or bit.rshift(bit.band(status[0], 0xff00), 8)
end

return child
