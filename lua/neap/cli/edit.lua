--- A line, edited at a terminal: libedit, with a history that stays and completion.
---
--- libedit asks for a key, a prompt and what to do with a bound key through functions of ours; it
--- is only ever called from interpreted code, because what it calls back is Lua. Keys are waited
--- for here, not there: while nobody types the world goes on (`idle`), a resized window is drawn
--- anew, and Ctrl-C, a signal, is the end of an entry.
---
--- The history is a file that only its owner reads. An entry is a line there, with newlines as \n;
--- each is appended as it is entered, so several prompts at once lose nothing.
local bit = require "bit"
local ffi = require "ffi"
local C = require "neap.cli.system"

local ipairs, pcall, select, setmetatable = ipairs, pcall, select, setmetatable
local tonumber, tostring = tonumber, tostring
local concat = table.concat

-- Of libedit, as its histedit.h has them.
local EL_PROMPT, EL_EDITOR, EL_SIGNAL, EL_BIND, EL_ADDFN, EL_HIST = 0, 2, 3, 4, 9, 10
local EL_GETCFN, EL_PREP_TERM, EL_REFRESH = 13, 16, 20
local CC_EOF, CC_REFRESH, CC_REDISPLAY, CC_BEEP = 2, 4, 8, 9
local H_SETSIZE, H_ENTER, H_SETUNIQUE = 1, 10, 20
local POLLIN, LC_CTYPE, STOP = 1, 0, 19
local WRONLY, CREAT, APPEND, CLOEXEC = 1, 64, 1024, 524288
local INTERRUPT = 3               -- Ctrl-C, as a key
local MOST = 1000                 -- entries remembered
local SHOWN = 200                 -- candidates listed at once

local edit = {}

---@class neap.Editor
---@field complete fun(text: string): integer, string[]  of what stands before the cursor: how many
---  bytes of it are the word, and what that could become
---@field idle fun(): integer     let the world go on; ms until it wants to again, -1: never
---@field signals neap.Signals
local editor = {}
editor.__index = editor

--- How many columns the terminal has; 80 when there is none.
---@return integer
function edit.width()
  local size = ffi.new "struct neap_winsize"
  return C.ioctl(1, 0x5413, size) == 0 and size.columns > 0 and size.columns or 80
end

-- ---- history -----------------------------------------------------------------------------------

local function make_folders(path)
  for at in path:gmatch "()/" do
    if at > 1 then C.mkdir(path:sub(1, at - 1), tonumber("700", 8)) end
  end
end

--- Where the history is: $XDG_STATE_HOME/neap/NAME, or ~/.local/state/neap/NAME; nil without both.
---@param name string
---@return string?
function edit.history_path(name)
  local state, home = os.getenv "XDG_STATE_HOME", os.getenv "HOME"
  if state and state:find "^/" then return ("%s/neap/%s"):format(state, name) end
  return home and home:find "^/" and ("%s/.local/state/neap/%s"):format(home, name) or nil
end

local function escaped(text) return (text:gsub("[\\\n]", { ["\\"] = "\\\\", ["\n"] = "\\n" })) end

local function plain(line)
  return (line:gsub("\\(.)", { ["\\"] = "\\", n = "\n" }))
end

local function append(path, text, flags)
  local fd = C.open(path, WRONLY + CREAT + CLOEXEC + flags, ffi.cast("int", tonumber("600", 8)))
  if fd < 0 then return end
  C.fchmod(fd, tonumber("600", 8))
  C.write(fd, text, #text)
  C.close(fd)
end

local function lines_of(path)
  local lines, file = {}, path and io.open(path)
  for line in file and file:lines() or function () end do lines[#lines + 1] = line end
  if file then file:close() end
  return lines
end

-- What was entered before; a file that has grown is cut to what is remembered.
local function recall(self)
  local lines = lines_of(self.path)
  for i = math.max(1, #lines - MOST + 1), #lines do
    self.library.history(self.past, self.event, H_ENTER, plain(lines[i]))
  end
  if #lines > 2 * MOST then
    local path = self.path .. ".new"
    os.remove(path)
    append(path, concat(lines, "\n", #lines - MOST + 1) .. "\n", APPEND)
    os.rename(path, self.path)
  end
end

--- Remember an entry.
---@param text string  of one line or more
function editor:remember(text)
  if not text:find "%S" or text == self.last then return end
  self.last = text
  self.library.history(self.past, self.event, H_ENTER, text)
  if not self.path then return end
  make_folders(self.path)
  append(self.path, escaped(text) .. "\n", APPEND)
end

-- ---- keys --------------------------------------------------------------------------------------

local function refresh(self) self.library.el_set(self.el, EL_REFRESH) end

-- Characters, not bytes.
local function length(text) return select(2, text:gsub("[^\128-\191]", "")) end

local function before_cursor(self)
  local edited = self.library.el_line(self.el)
  return ffi.string(edited.begin, edited.cursor - edited.begin)
end

--- The window has another size. Terminals have broken the line anew by now, so the cursor is that
--- many rows below where it begins: from there on it is drawn again.
local function resize(self)
  local before = length(ffi.string(self.prompt_text)) + length(before_cursor(self))
  local rows = math.floor(before / edit.width())
  io.stdout:write(rows > 0 and ("\27[%dA"):format(rows) or "", "\r\27[J")
  io.stdout:flush()
  self.library.el_resize(self.el)
  refresh(self)
end

--- Ctrl-Z: the terminal is the shell's, until it is ours again.
local function stop(self)
  local library, el = self.library, self.el
  library.el_set(el, EL_PREP_TERM, ffi.cast("int", 0))
  C.kill(C.getpid(), STOP)
  library.el_set(el, EL_PREP_TERM, ffi.cast("int", 1))
  refresh(self)
end

--- What a signal means here: a key, or nothing.
---@return integer?
local function heard(self, name)
  if name == "INT" then return INTERRUPT end
  if name == "TSTP" then stop(self) end
  if name == "WINCH" then
    resize(self)
  elseif name == "HUP" or name == "TERM" then
    self.gone = true
    return INTERRUPT
  end
end

--- A byte of the terminal, or the key that a signal is; nil at its end.
local function next_byte(self)
  local fds, byte = self.fds, self.byte
  while true do
    local name = self.signals:next()
    local key = name and heard(self, name)
    if key then return nil, key end
    fds[0].revents, fds[1].revents = 0, 0
    local ready = not name and C.poll(fds, 2, self.idle()) > 0
    if ready and fds[1].revents == 0 and fds[0].revents ~= 0 then   -- signals came first
      if C.read(0, byte, 1) ~= 1 then return nil end
      return byte[0]
    end
  end
end

--- A character, from UTF-8; what is none is a question mark.
local function next_key(self)
  local first, key = next_byte(self)
  if not first or first < 0x80 then return first or key end
  local more = first >= 0xf0 and 3 or first >= 0xe0 and 2 or first >= 0xc0 and 1 or 0
  local code = bit.band(first, bit.rshift(0x3f, more))
  for _ = 1, more do
    local byte = next_byte(self)
    if not byte or bit.band(byte, 0xc0) ~= 0x80 then return 63 end
    code = code * 64 + bit.band(byte, 0x3f)
  end
  return more > 0 and code or 63
end

-- ---- completion --------------------------------------------------------------------------------

local function common(list)
  local first = list[1]
  for n = #first, 1, -1 do
    local all = true
    for _, each in ipairs(list) do all = all and each:sub(1, n) == first:sub(1, n) end
    if all then return first:sub(1, n) end
  end
  return ""
end

--- Words, in columns.
local function say_columns(words)
  local widest, lines = 0, {}
  for _, word in ipairs(words) do widest = math.max(widest, #word) end
  local columns = math.max(1, math.floor(edit.width() / (widest + 2)))
  for i = 1, math.min(#words, SHOWN), columns do
    local row = {}
    for k = i, math.min(i + columns - 1, #words, SHOWN) do
      row[#row + 1] = words[k] .. (" "):rep(widest - #words[k])
    end
    lines[#lines + 1] = concat(row, "  "):gsub(" +$", "")
  end
  if #words > SHOWN then lines[#lines + 1] = ("and %d more"):format(#words - SHOWN) end
  io.stdout:write("\n", concat(lines, "\n"), "\n")
  io.stdout:flush()
end

local function completed(self)
  local typed, words = self.complete(before_cursor(self))
  if not words[1] then return CC_BEEP end
  local more = common(words):sub(typed + 1)
  if more ~= "" then
    self.library.el_insertstr(self.el, more)
    return CC_REFRESH
  elseif words[2] then
    say_columns(words)
    return CC_REDISPLAY
  end
  return CC_BEEP
end

-- ---- lines -------------------------------------------------------------------------------------

--- Is this a terminal, for reading and writing both?
---@return boolean
function edit.is_possible() return C.isatty(0) == 1 and C.isatty(1) == 1 end

--- The next line, without its end.
---@param prompt string
---@return string? line     nil: it was interrupted, or is over
---@return boolean? over    at the end of input
function editor:line(prompt)
  self.prompt_text = ffi.new("char[?]", #prompt + 1, prompt)
  self.interrupted = false
  local count = ffi.new "int[1]"
  io.stdout:flush()
  -- Raw already when the prompt appears, so that nothing typed then is echoed by the terminal.
  self.library.el_set(self.el, EL_PREP_TERM, ffi.cast("int", 1))
  local line = self.library.el_gets(self.el, count)
  if line == nil or count[0] <= 0 then
    io.stdout:write(self.interrupted and not self.gone and "^C\n" or "\n")
    return nil, self.gone or not self.interrupted
  end
  return (ffi.string(line, count[0]):gsub("\n$", ""))
end
jit.off(editor.line)

--- Give the terminal back.
function editor:close()
  self.library.el_end(self.el)
  self.library.history_end(self.past)
  self.signals:release()
end

local function bind(self, key, name, help, fn)
  self.keep[#self.keep + 1] = fn
  self.library.el_set(self.el, EL_ADDFN, name, help, fn)
  self.library.el_set(self.el, EL_BIND, key, name, nil)
end

--- What libedit calls back. An error in one would unwind through its frames, so none leaves.
local function callbacks(self)
  local library, el = self.library, self.el
  local function keep(kind, fn)
    self.keep[#self.keep + 1] = ffi.cast(kind, fn)
    return self.keep[#self.keep]
  end
  library.el_set(el, EL_PROMPT, keep("neap_prompt_fn", function () return self.prompt_text end))
  library.el_set(el, EL_GETCFN, keep("neap_getc_fn", function (_, key)
    local fine, code = pcall(next_key, self)
    if not fine then io.stderr:write("neap: ", tostring(code), "\n") end
    if not fine or not code then return 0 end
    key[0] = code
    return 1
  end))
  bind(self, "^I", "neap-complete", "complete a word", keep("neap_key_fn", function ()
    local fine, what = pcall(completed, self)
    return fine and what or CC_BEEP
  end))
  bind(self, "^C", "neap-interrupt", "end the entry", keep("neap_key_fn", function ()
    self.interrupted = true
    return CC_EOF
  end))
end

--- An editor for the terminal; nil and why when there can be none: then lines are read plainly.
---@param path string?   its history
---@param signals neap.Signals
---@param complete fun(text: string): integer, string[]
---@param idle fun(): integer
---@return neap.Editor?
---@return string? message
function edit.new(path, signals, complete, idle)
  local found, library = pcall(ffi.load, "libedit.so.2")
  if not found then return nil, "libedit is not installed (Debian: libedit2)" end
  C.setlocale(LC_CTYPE, "")   -- what is a character, and how wide
  local el = library.el_init("neap", io.stdin, io.stdout, io.stderr)
  if el == nil then return nil, "libedit refuses this terminal" end
  local self = setmetatable({ library = library, el = el, path = path, signals = signals,
    complete = complete, idle = idle, keep = {}, past = library.history_init(),
    event = ffi.new "struct neap_history_event", byte = ffi.new "uint8_t[1]",
    fds = ffi.new("struct neap_pollfd[2]", { { 0, POLLIN, 0 }, { signals.fd, POLLIN, 0 } }),
  }, editor)
  library.el_set(el, EL_EDITOR, "emacs")   -- before keys are bound: it binds all anew
  local fine, problem = pcall(callbacks, self)
  if not fine then return nil, tostring(problem) end
  library.el_set(el, EL_SIGNAL, ffi.cast("int", 0))
  library.history(self.past, self.event, H_SETSIZE, ffi.cast("int", MOST))
  library.history(self.past, self.event, H_SETUNIQUE, ffi.cast("int", 1))
  library.el_set(el, EL_HIST, ffi.cast("void *", library.history), self.past)
  recall(self)
  return self
end

return edit
