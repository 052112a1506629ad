--- A prompt: entries of Lua are read, run and answered, until the end of input.
---
--- An entry is an expression, or statements; it goes on over several lines for as long as Lua says
--- that it ends too soon. At a terminal lines are edited (neap.cli.edit); from a pipe they are read
--- as they come, no prompt is written, and an entry that fails is the exit status.
---
--- Ctrl-C stops an entry that runs. Signals are fetched, so a hook looks for one every few thousand
--- instructions; compiled code has no hooks, so the compiler is off here until `:jit on`. From then
--- on the entry's own code gets an error at each instruction, also when it catches the first. Other
--- code does not, because a task or a limiter stopped midway would be of no use any more; unless
--- Ctrl-C comes again.
local complete = require "neap.cli.complete"
local edit = require "neap.cli.edit"
local show = require "neap.cli.show"
local signals = require "neap.cli.signals"

local error, loadstring, pcall = error, loadstring, pcall
local select, setfenv, setmetatable, tostring = select, setfenv, setmetatable, tostring
local type, xpcall = type, xpcall
local getinfo, sethook = debug.getinfo, debug.sethook

local EVERY = 10000             -- instructions between two looks for Ctrl-C
local CHUNK = "=prompt"         -- what entries are called
local INTERRUPTED = "interrupted"
local COMMANDS = { ":help", ":jit off", ":jit on", ":quit" }

local prompt = {}

---@class neap.Prompt
---@field env table                  the variables of entries
---@field label fun(): string        what the prompt says
---@field words neap.cli.Words
---@field history string             the name of its file
---@field idle fun(): integer        let the world go on; ms until it wants to again, -1: never
---@field help fun(): string
---@field failed boolean             an entry was
local Prompt = {}
Prompt.__index = Prompt

-- ---- reading ----------------------------------------------------------------------------------

local function ends_too_soon(message) return message:find "near '<eof>'$" ~= nil end

--- An entry, compiled: as an expression if it is one. Nil and true when there is more to come.
local function compile(text)
  local chunk, message = loadstring("return " .. text:gsub("^%s*=", "", 1), CHUNK)
  if chunk then return chunk end
  if ends_too_soon(message) then return nil, true, message end
  chunk, message = loadstring(text, CHUNK)
  if chunk then return chunk end
  return nil, ends_too_soon(message), message
end

local function plain_line() return io.read "*l" end

--- The next line; nil, and whether that was the last.
local function next_line(self, more)
  if not self.editor then
    local line = plain_line()
    return line, line == nil
  end
  return self.editor:line(more and (" "):rep(#self.label() - 3) .. ".. " or self.label())
end

--- The next entry: its text and what it compiles to, or nil and a message. Nothing at the end.
local function next_entry(self)
  local text
  while true do
    local line, over = next_line(self, text ~= nil)
    if not line then
      if not over then return "" end                        -- interrupted: another one
      if not text then return nil end
      local _, _, message = compile(text)
      return text, nil, message
    end
    text = text and text .. "\n" .. line or line
    if not text:find "%S" then return "" end
    if text:find "^:%l" then return text end
    local chunk, more, message = compile(text)
    if not more then return text, chunk, message end
  end
end

-- ---- running ----------------------------------------------------------------------------------

local function interrupt() error(INTERRUPTED, 0) end

--- Has Ctrl-C been pressed? What else came is kept for the editor.
local function pressed(self)
  while self.signals do
    local name = self.signals:next()
    if not name then return false end
    if name == "INT" then return true end
    if name == "HUP" or name == "TERM" then
      self.gone = true
      return true
    end
  end
end

--- For whoever waits in an entry: raises an error when it is to stop.
function Prompt:check()
  if self.running and pressed(self) then interrupt() end
end

local function watch(self)
  if not self.signals then return end
  local seen = 0
  local function stop()
    seen = seen + 1
    if getinfo(2, "S").source == CHUNK or seen % EVERY == 0 and pressed(self) then interrupt() end
  end
  sethook(function ()
    if pressed(self) then sethook(stop, "", 1) end
  end, "", EVERY)
end

local function message_of(problem)
  if type(problem) ~= "string" then return "error: " .. show.value(problem) end
  return (problem:gsub("^prompt:1: ", ""))
end

-- No more interrupts. The hook may still fire before this does: that is an error, too, and ends in
-- `at_rest`, which runs without hooks.
local function done(...)
  sethook()
  return ...
end

local function at_rest(problem)
  sethook()
  return problem
end

local function answered(self, fine, ...)
  self.running = false
  if not fine then
    self.failed = true
    io.stdout:flush()
    io.stderr:write(message_of((...)), "\n")
    return
  end
  local shown, text = pcall(show.results, ...)
  if text then io.stdout:write(text, "\n") end
  self.failed = self.failed or not shown
  if select("#", ...) > 0 then self.env._ = (...) end
end

--- Run an entry, and show what it answers.
---@param chunk function
function Prompt:run(chunk)
  setfenv(chunk, self.env)
  self.running = true
  watch(self)
  answered(self, xpcall(function () return done(chunk()) end, at_rest))
  local news = self.news and self.news()
  if news then io.stdout:write(news, "\n") end
  io.stdout:flush()
end
jit.off(Prompt.run)

--- A word with a colon: it is about the prompt itself.
function Prompt:command(text)
  local word, rest = text:match "^:(%l+)%s*(.-)%s*$"
  if word == "quit" then return true end
  if word == "help" then
    io.stdout:write(self.help(), "\n")
  elseif word == "jit" and (rest == "on" or rest == "off") then
    if rest == "on" then jit.on() else
      jit.off()
      jit.flush()
    end
    io.stdout:write(rest == "on" and "compiled code does not hear Ctrl-C\n" or "off\n")
  else
    self.failed = true
    io.stderr:write(("unknown command '%s': %s\n"):format(text, table.concat(COMMANDS, ", ")))
  end
end

--- Entries, one after the other, to the end.
---@return boolean fine  none failed; at a terminal, always
function Prompt:go()
  while not self.gone do
    local text, chunk, message = next_entry(self)
    if not text then break end
    if self.editor and text ~= "" then self.editor:remember(text) end
    if text:find "^:%l" then
      if self:command(text) then break end
    elseif chunk then
      self:run(chunk)
    elseif message then
      self.failed = true
      io.stderr:write(message_of(message), "\n")
    end
    io.stdout:flush()
  end
  if self.editor then self.editor:close() end
  return self.editor ~= nil or not self.failed
end

--- One entry that was given with the command.
---@param text string
---@return boolean fine
function Prompt:once(text)
  local chunk, _, message = compile(text)
  if chunk then
    self:run(chunk)
  else
    self.failed = true
    io.stderr:write(message_of(message), "\n")
  end
  return not self.failed
end

-- ---- making -----------------------------------------------------------------------------------

--- Programs that an entry starts get signals as programs expect them.
local function free_children(self)
  local function freed(fn)
    return function (...) return self.signals:free(fn, ...) end
  end
  self.env.os = setmetatable({ execute = freed(os.execute) }, { __index = os })
  self.env.io = setmetatable({ popen = freed(io.popen) }, { __index = io })
end

--- Take the terminal: lines are edited from now on. Where that cannot be, they are read plainly.
function Prompt:attach()
  if not edit.is_possible() then return end
  local caught, problem = signals.catch()
  if caught then
    self.signals = caught
    self.editor, problem = edit.new(edit.history_path(self.history), caught, function (text)
      return complete.of(self.words, text)
    end, self.idle)
  end
  if self.editor then
    jit.off()
    jit.flush()
    return free_children(self)
  end
  if caught then caught:release() end
  self.signals = nil
  io.stderr:write("neap: no line editing: ", tostring(problem), "\n")
end

--- A prompt.
---@param fields table  env, label, policies, said, history, idle, help, news
---@return neap.Prompt
function prompt.new(fields)
  local self = { failed = false }
  for name, value in pairs(fields) do self[name] = value end
  setmetatable(self.env, { __index = _G })
  self.words = { env = self.env, policies = fields.policies, said = fields.said,
    commands = COMMANDS }
  return setmetatable(self, Prompt)
end

--- Help, for an entry: help(), help(try), help "try", help(openai).
---@param self neap.Prompt
---@return fun(what: any): string
function prompt.helper(self)
  local explain = require "neap.cli.explain"
  return function (what)
    if what == nil then return self.help() end
    if type(what) == "string" then
      local value = self.env[what]
      for name in what:gmatch "[%w_]+" do
        value = name == what:match "^[%w_]+" and self.env[name] or type(value) == "table"
          and value[name] or value
      end
      if value == nil then error(("help: there is no '%s'"):format(what), 0) end
      what = value
    end
    return explain.value(what)
  end
end

return prompt
