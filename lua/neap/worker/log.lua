--- The log: one line for each event, `level event key=value…`, on standard error or in a file.
---
---     warning cut-off client=12 reason="half a command for 10 s"
---     warning cut-off client=40 reason="half a command for 10 s" again=411 within=10s
---
--- Whoever keeps the lines knows when they came, so only a file's begin with the time; the journal
--- is told the level in its own way (sd-daemon(3)). As JSON a line is one object, with its time.
---
--- A flood says little more than its first line. Lines of one event and reason that come within
--- 10 s of the first are counted, and the last of them is written when that time is over, with how
--- many there were. So a client can neither fill a disk nor hide another event among its own.
---
--- What clients choose, such as keys, is cut where it is long; nothing that is secret comes here.
local C = require "neap.engine"
local json = require "neap.policy.json"

local date, open, pairs, select, setmetatable = os.date, io.open, pairs, select, setmetatable
local concat, huge, tonumber, tostring, type = table.concat, math.huge, tonumber, tostring, type
local value = json.value

local FOLD_NS = 10e9
local FOLDS = 64              -- events and reasons apart; beyond that reasons are not told apart
local MOST = { key = 64, bug = 8192 }   -- bytes of a value, by its name
local MOST_ELSE = 256
local LEVELS = { error = 3, warning = 4, notice = 5, info = 6, debug = 7 }   -- syslog's numbers

---@class neap.Log
---@field path string?      of the file; nil: standard error
---@field journal boolean   standard error is systemd's journal
---@field next_ns number    when there is a fold to tell of; math.huge: none
local log = {}
log.__index = log

--- Is standard error the journal's? It says in the environment which file it would be.
local function is_journal(stream)
  local device, inode = (stream or ""):match "^(%d+):(%d+)$"
  return device ~= nil and C.neap_service_is(2, tonumber(device), tonumber(inode)) == 1
end

--- A log on standard error; or in a file, or through `write`, which gets whole lines.
---@param options { path: string?, format: "text"|"json"?, verbose: boolean?,
---  now: (fun(): ffi.cdata*|number)?, wall: (fun(): integer)?, write: (fun(line: string))?,
---  journal: boolean? }?
---@return neap.Log?
---@return string? message  the file cannot be opened
function log.new(options)
  options = options or {}
  local self = setmetatable({
    path = options.path, json = options.format == "json", verbose = options.verbose,
    now = options.now or function () return C.neap_loop_now(nil) end,
    wall = options.wall or os.time, write = options.write, journal = false, folds = {},
    fold_count = 0, next_ns = huge,
  }, log)
  if self.path then
    local fine, message = self:reopen()
    if not fine then return nil, message end
  else
    self.journal = options.journal
    if self.journal == nil then self.journal = is_journal(os.getenv "JOURNAL_STREAM") end
  end
  return self
end

--- Open the file anew, after somebody moved it away. On failure the old one goes on.
---@return boolean fine
---@return string? message
function log:reopen()
  if not self.path then return true end
  local file, message = open(self.path, "a")
  if not file then return false, message end
  file:setvbuf "line"
  if self.file then self.file:close() end
  self.file = file
  return true
end

-- ---- lines ------------------------------------------------------------------------------------

local function cut(name, text)
  local most = MOST[name] or MOST_ELSE
  if #text <= most then return text end
  return (text:sub(1, most):gsub("[\192-\255][\128-\191]*$", "")) .. "…"   -- no half a character
end

local function quoted(text) return (value(text):gsub("\\/", "/")) end

local function in_text(name, x)
  local text = cut(name, tostring(x))
  if text:find "^[%w%._:/@%%%+%[%]%-]+$" then return text end
  return quoted(text)
end

local function in_json(name, x)
  if type(x) == "boolean" or type(x) == "number" and x % 1 == 0 and x < 2 ^ 53 then
    return value(x)
  end
  return quoted(cut(name, tostring(x)))
end

-- Of a list of names and values.
local function render(self, level, event, fields)
  local parts = {}
  local function add(name, x)
    parts[#parts + 1] = self.json and value(name) .. ":" .. in_json(name, x)
      or name .. "=" .. in_text(name, x)
  end
  for i = 1, #fields, 2 do add(fields[i], fields[i + 1]) end
  local time = date("!%Y-%m-%dT%H:%M:%SZ", self.wall())
  if self.json then
    return ('{"time":"%s","level":"%s","event":%s%s%s}'):format(time, level, value(event),
      parts[1] and "," or "", concat(parts, ","))
  end
  local line = concat({ level, event, concat(parts, " ") }, " "):gsub(" $", "")
  return self.path and time .. " " .. line or line
end

local function put(self, level, event, fields)
  local line = render(self, level, event, fields)
  if self.journal then line = ("<%d>%s"):format(LEVELS[level], line) end
  if self.write then return self.write(line) end
  local to = self.file or io.stderr
  to:write(line, "\n")   -- a full disk stops nothing
end

-- ---- folding ----------------------------------------------------------------------------------

local function tell_again(self, fold)
  if fold.again == 0 then return end
  local fields = fold.fields
  fields[#fields + 1], fields[#fields + 2] = "again", fold.again
  fields[#fields + 1], fields[#fields + 2] = "within", "10s"
  put(self, fold.level, fold.event, fields)
end

local function close(self, id, fold)
  tell_again(self, fold)
  self.folds[id], self.fold_count = nil, self.fold_count - 1
end

--- Tell of repetitions whose time is over.
function log:tick()
  local now = tonumber(self.now())
  if now < self.next_ns then return end
  self.next_ns = huge
  for id, fold in pairs(self.folds) do
    if now >= fold.ends then
      close(self, id, fold)
    elseif fold.again > 0 and fold.ends < self.next_ns then
      self.next_ns = fold.ends
    end
  end
end

--- Tell of all repetitions now: there will be no later.
function log:flush()
  for id, fold in pairs(self.folds) do close(self, id, fold) end
  self.next_ns = huge
end

local function forget_old(self, now)
  for id, fold in pairs(self.folds) do
    if now >= fold.ends then close(self, id, fold) end
  end
end

local function fold_of(self, level, event, fields, now)
  local id = level .. " " .. event
  for i = 1, #fields, 2 do
    if fields[i] == "reason" then
      local finer = id .. " " .. tostring(fields[i + 1])
      if self.fold_count >= FOLDS and not self.folds[finer] then forget_old(self, now) end
      if self.fold_count < FOLDS or self.folds[finer] then id = finer end
    end
  end
  return id, self.folds[id]
end

local function say(self, level, event, ...)
  local fields = { ... }
  for i = 1, select("#", ...), 2 do fields[i + 1] = fields[i + 1] == nil and "" or fields[i + 1] end
  local now = tonumber(self.now())
  local id, fold = fold_of(self, level, event, fields, now)
  if fold and now < fold.ends then
    fold.again, fold.fields = fold.again + 1, fields
    if fold.ends < self.next_ns then self.next_ns = fold.ends end
    return
  end
  if fold then close(self, id, fold) end
  put(self, level, event, fields)
  self.fold_count = self.fold_count + 1
  self.folds[id] = {
    level = level, event = event, fields = fields, again = 0, ends = now + FOLD_NS,
  }
end

--- An event, and names and values that belong to it, by turns. `reason` tells apart what is
--- otherwise one event; `key` and `bug` have bounds of their own.
---
---     log:warning("cut-off", "client", 12, "reason", "half a command for 10 s")
---
---@param event string
---@param ... string|number|boolean
function log:error(event, ...) say(self, "error", event, ...) end
function log:warning(event, ...) say(self, "warning", event, ...) end
function log:notice(event, ...) say(self, "notice", event, ...) end
function log:info(event, ...) say(self, "info", event, ...) end

--- The same, when it was asked for more words.
function log:debug(event, ...)
  if self.verbose then say(self, "debug", event, ...) end
end

--- A line among several that belong together, such as those of a snapshot: never folded.
function log:row(event, ...) put(self, "info", event, { ... }) end

return log
