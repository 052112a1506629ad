--- A program at a terminal, for a spec: a pseudo-terminal whose other end is ours.
---
--- One types, and waits until the program has said something; nothing is timed. What it says is
--- kept as it came, with what moves the cursor; `text` is that without.
local ffi = require "ffi"
local socket = require "socket"

local assert, ipairs, pairs, setmetatable = assert, ipairs, pairs, setmetatable
local tonumber = tonumber

local PATIENCE_S = 20
local POLLIN, TIOCSWINSZ = 1, 0x5414

ffi.cdef [[
struct spec_winsize { unsigned short rows, columns, width, height; };
struct spec_pollfd { int fd; short events, revents; };
int forkpty(int *master, char *name, const void *termios, const struct spec_winsize *size);
int execvp(const char *file, const char *const *argv);
void _exit(int status);
int setenv(const char *name, const char *value, int overwrite);
int poll(struct spec_pollfd *list, unsigned long count, int timeout_ms);
ssize_t read(int fd, void *buffer, size_t size);
ssize_t write(int fd, const void *bytes, size_t size);
int ioctl(int fd, unsigned long request, ...);
int close(int fd);
int waitpid(int pid, int *status, int options);
int kill(int pid, int number);
]]

local C = ffi.C
local terminal = {}
terminal.__index = terminal

--- Start a program.
---@param words string[]
---@param env? table<string, string>
---@param columns? integer  80 unless told
function terminal.start(words, env, columns)
  local master = ffi.new "int[1]"
  local size = ffi.new("struct spec_winsize", 24, columns or 80)
  local argv = ffi.new("const char *[?]", #words + 1)
  for i, word in ipairs(words) do argv[i - 1] = word end
  local pid = C.forkpty(master, nil, nil, size)
  assert(pid >= 0, "forkpty")
  if pid == 0 then
    for name, value in pairs(env or {}) do C.setenv(name, value, 1) end
    C.execvp(words[1], argv)
    C._exit(127)
  end
  return setmetatable({ fd = master[0], pid = pid, said = "", seen = 1, words = words }, terminal)
end

--- What is said next; false when it takes too long, nil at the end.
local function listen(self)
  local list = ffi.new("struct spec_pollfd[1]", { { self.fd, POLLIN, 0 } })
  local buffer = ffi.new "char[4096]"
  local give_up = socket.gettime() + PATIENCE_S
  while C.poll(list, 1, 1000) <= 0 do
    if socket.gettime() > give_up then return false end
  end
  local n = tonumber(C.read(self.fd, buffer, 4096))
  if n <= 0 then return nil end
  self.said = self.said .. ffi.string(buffer, n)
  return true
end

--- What was said, without what moves the cursor.
---@return string
function terminal:text()
  return (self.said:gsub("\27%[[%d;?]*%a", ""):gsub("\27[=>]", ""):gsub("\r", ""))
end

--- Wait until it has said this, after what was waited for last; all of that is answered.
---@param what string  plain
---@return string
function terminal:expect(what)
  while true do
    local text = self:text():sub(self.seen)
    local _, last = text:find(what, 1, true)
    if last then
      self.seen = self.seen + last
      return text:sub(1, last)
    end
    local more = listen(self)
    assert(more, ("%s: %q was not said%s, but %q"):format(self.words[2], what,
      more == nil and " to the end" or "", text))
  end
end

--- Type.
---@param keys string
function terminal:type(keys) assert(C.write(self.fd, keys, #keys) == #keys) end

--- Type a line, and wait for what is said then.
---@return string
function terminal:ask(line, what)
  self:type(line .. "\n")
  return self:expect(what)
end

--- The window gets another size; the program hears of it.
function terminal:resize(columns, rows)
  local size = ffi.new("struct spec_winsize", rows or 24, columns)
  assert(C.ioctl(self.fd, TIOCSWINSZ, size) == 0)
end

--- Wait for its end, and answer its exit status.
---@return integer
function terminal:finish()
  while listen(self) do end   -- luacheck: ignore 542
  local status = ffi.new "int[1]"
  C.waitpid(self.pid, status, 0)
  C.close(self.fd)
  self.over = true
  return status[0] >= 256 and status[0] / 256 or status[0] % 128 + (status[0] > 0 and 128 or 0)
end

--- End it, however it is; for after_each.
function terminal:stop()
  if self.over then return end
  C.kill(self.pid, 9)
  self:finish()
end

return terminal
