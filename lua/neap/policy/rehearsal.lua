--- A rehearsal: a policy file is checked by a process of its own, which has little time and memory,
--- before the one that serves reads it. The child is `neap check`, and bounds itself; who waits
--- for it does so between other things:
---
---     local rehearsal = neap.policy.rehearse "/nowhere/policy.lua"
---     local fine, said
---     repeat fine, said = rehearsal:poll() until fine ~= nil
---     print(fine, said)                                   --> false, "neap: cannot read…"
---
--- A file that is fine then is read once more by who serves, within the same budgets.
local ffi = require "ffi"
local C = require "neap.engine"

local error, ipairs, setmetatable, type = error, ipairs, setmetatable, type
local tonumber = tonumber
local concat = table.concat

local MOST_SAID = 2 ^ 18        -- bytes kept of what it says
local CHUNK = 4096
local SIGNALED = 256

local child_t, buffer_t = ffi.typeof "struct neap_child", ffi.typeof "char[?]"
local words_t = ffi.typeof "const char *[?]"

---@class neap.Rehearsal
---@field fd integer   readable when something was said, or it is over
local rehearsal = {}
rehearsal.__index = rehearsal

-- The program of the tree this file is in.
local function own_program()
  local prefix = debug.getinfo(1, "S").source:match "^@(.*)/share/lua/5%.1/neap/policy/"
  return prefix and prefix .. "/bin/neap"
end

-- Keep what it said. False when nothing more will come.
local function listen(self)
  local buffer = buffer_t(CHUNK)
  while true do
    local n = tonumber(C.neap_child_read(self.child, buffer, CHUNK))
    if n <= 0 then return n == 0 end
    if self.bytes < MOST_SAID then
      self.said[#self.said + 1] = ffi.string(buffer, n)
      self.bytes = self.bytes + n
    end
  end
end

--- How it went, if it is over. Never waits.
---@return boolean? fine   nil: not over yet
---@return string? said    all that is wrong, as `neap check` prints it; of a fine file its warnings
function rehearsal:poll()
  if self.fine == nil then
    if listen(self) or C.neap_child_over(self.child) == 0 then return nil end
    local status = self.child.status
    C.neap_child_close(self.child)
    if status >= SIGNALED then
      self.said[#self.said + 1] = ("neap: '%s': its check was ended by signal %d\n"):format(
        self.path, status - SIGNALED)
    end
    self.fine = status == 0
  end
  return self.fine, (concat(self.said):gsub("\n$", ""))
end

--- End it, whatever it has come to.
function rehearsal:close()
  C.neap_child_close(self.child)
  if self.fine == nil then self.fine = false end
end

--- Begin a rehearsal.
---@param path string
---@param options? { program: string? }   the `neap` to run; this tree's unless told
---@return neap.Rehearsal? rehearsal
---@return string? message   when no process can be started
return function (path, options)
  if type(path) ~= "string" or path:find "%z" then
    error("rehearse: the path of a policy file expected", 2)
  end
  local program = options and options.program or own_program()
  if not program then return nil, "this tree has no program to check with: see options.program" end
  local texts = { program, "check", "--quiet", "--", path }
  local words = words_t(#texts + 1)
  for i, text in ipairs(texts) do words[i - 1] = text end
  local self = setmetatable({ path = path, child = child_t(), said = {}, bytes = 0 }, rehearsal)
  if C.neap_child_start(self.child, words) ~= C.NEAP_OK then
    return nil, ("cannot start '%s': error %d"):format(program, ffi.errno())
  end
  self.fd = self.child.fd
  ffi.gc(self.child, C.neap_child_close)
  return self
end
