--- The policy file read anew while the worker serves: when, by whom it is checked first, and what
--- is told of it.
---
---     SIGHUP, NEAP.POLICY RELOAD, a watched file that changed        the file
---     NEAP.POLICY LOAD text                                          a text, instead of the file
---
--- A text that nobody has looked at may take for ever and all memory, so a process of its own
--- reads it first (neap.policy.rehearse); the loop looks how it goes, and serves. What that process
--- found fine is read here then, if it is still the same text, and swapped in (neap.worker.reload).
--- Who asked over the wire waits for the end: the reply is what becomes of each limit, or what is
--- wrong. Whoever asks meanwhile has a turn of their own after it, all with the file together.
---
--- A file is watched by a look at it each second: no other way sees a file that is put in another's
--- place, a link that points elsewhere and a network's disk alike. It is read once it has been the
--- same for two looks.
local C = require "neap.engine"
local diff = require "neap.policy.diff"
local policy = require "neap.policy"
local reply = require "neap.worker.reply"

local concat, huge, ipairs, max, open = table.concat, math.huge, ipairs, math.max, io.open
local pairs, remove, setmetatable = pairs, table.remove, setmetatable
local tonumber, tostring = tonumber, tostring

local LOOK_NS = 2e6          -- at a rehearsal that goes on
local WATCH_NS = 1e9
local MOST_REPLY = 8192      -- bytes of what is wrong
local AGAIN = 3              -- times a file may change while it is rehearsed
local NAME = "policy"        -- what a text that came over the wire is called

---@class neap.Renewal
---@field worker neap.Worker
---@field path string
---@field due number             ns, of the loop's clock, when there is something to see to
---@field succeeded boolean      the last one did
---@field at number              seconds since 1970 when one last did
---@field notify neap.Notify?
local renewal = {}
renewal.__index = renewal

---@param worker neap.Worker
---@param options { path: string, host: neap.policy.Host?, notify: neap.Notify?, watch: boolean? }
---@return neap.Renewal
function renewal.new(worker, options)
  local self = setmetatable({ worker = worker, path = options.path, host = options.host,
    notify = options.notify, waiting = {}, texts = {}, due = huge, succeeded = true,
    at = os.time() }, renewal)
  worker.renewal = self
  if options.watch then
    self.stamp = C.neap_service_stamp(self.path)
    self.seen, self.look_ns = self.stamp, 0
    self.due = 0
  end
  return self
end

local function now_of(self) return tonumber(C.neap_loop_now(self.worker.loop)) end

-- ---- what is told -----------------------------------------------------------------------------

--- The rows of all that changes, the columns aligned.
local function table_of(changes)
  local list, widths = {}, { 0, 0 }
  local shown = {}
  for _, change in ipairs(changes) do
    if change.change ~= "same" then shown[#shown + 1] = change end
  end
  local cells = diff.rows(shown)
  for _, row in ipairs(cells) do
    for i = 1, 2 do widths[i] = max(widths[i], #row[i]) end
  end
  for i, row in ipairs(cells) do
    list[i] = ("%-" .. widths[1] .. "s  %-" .. widths[2] .. "s  %s"):format(row[1], row[2], row[3])
  end
  return shown, list
end

--- The lines that say what is wrong, without those that show where.
local function mistakes_of(said)
  local list = {}
  for line in said:gmatch "[^\n]+" do
    if line:find "^%S" then list[#list + 1] = line end
  end
  return list
end

local function answer(self, clients, write)
  local server = self.worker.server
  for _, client in ipairs(clients) do
    C.neap_server_resume(server, client)
    write(C.neap_server_reply(server, client))
  end
end

local function emit(self, event, fields)
  local one = self.worker
  one.events:emit("-", event, fields)
  for _, account in pairs(one.desk.accounts.policies) do account.live:hook(event, fields) end
end

local function fail(self, job, said)
  local list = mistakes_of(said)
  self.succeeded = false
  for _, line in ipairs(list) do self.worker.log:error("reload-failed", "reason", line) end
  emit(self, "reload-failed", { reason = list[1] or "", mistakes = #list })
  local text = "ERR the policy stays as it was: " .. concat(list, "; "):sub(1, MOST_REPLY)
  answer(self, job.clients, function (to) reply.fail(to, text) end)
end

local function succeed(self, job, changes, later)
  local log = self.worker.log
  local shown, lines = table_of(changes)
  self.succeeded, self.at = true, os.time()
  log:row("reload", "changes", #shown)   -- each, however often
  for _, change in ipairs(shown) do
    local row = diff.rows({ change })[1]
    log:row("reload-change", "policy", row[1], "what", row[2], "becomes", row[3])
  end
  for _, text in ipairs(later) do
    log:warning("reload-in-part", "reason", text)
    lines[#lines + 1] = text
  end
  emit(self, "reload", { changes = #shown })
  local text = lines[1] and concat(lines, "\n") or "nothing changes"
  answer(self, job.clients, function (to) reply.write(to, reply.verbatim(text)) end)
end

-- ---- one after another ------------------------------------------------------------------------

local function read_file(path)
  local file, problem = open(path, "rb")
  if not file then return nil, problem end
  local text = file:read "*a"
  file:close()
  return text, not text and path .. ": cannot be read" or nil
end

--- A text that is no file becomes one, for who is to check it.
local function write_file(text)
  local path = os.tmpname()
  local file, problem = open(path, "wb")
  if not file then return nil, problem end
  file:write(text)
  file:close()
  return path
end

local function finish(self, job, fine, said)
  if job.temporary then os.remove(job.path) end
  self.job = nil
  if not fine then
    if job.temporary then said = said:gsub(job.path:gsub("%p", "%%%0"), NAME) end
    fail(self, job, said)
  end
  if self.notify then self.notify:ready() end
end

local function rehearse(self, job)
  local problem
  job.text, problem = read_file(job.path)
  if job.text then job.rehearsal, problem = policy.rehearse(job.path) end
  if not job.rehearsal then finish(self, job, false, "neap: " .. tostring(problem)) end
end

local function begin(self)
  if self.notify then self.notify:reloading(C.neap_loop_now(self.worker.loop)) end
  if self.wanted then
    self.job = { path = self.path, clients = self.waiting, again = 0 }
    self.waiting, self.wanted = {}, false
    self.stamp = self.stamp and C.neap_service_stamp(self.path)
    return rehearse(self, self.job)
  end
  local given = remove(self.texts, 1)
  local path, problem = write_file(given.text)
  self.job = { path = path, clients = { given.client }, again = 0, temporary = path ~= nil }
  if not path then return finish(self, self.job, false, "neap: " .. tostring(problem)) end
  rehearse(self, self.job)
end

--- The child is content with the text that was there then. Is it the one that is there now?
local function read(self, job, said)
  local text = read_file(job.path)
  if text ~= job.text and job.again < AGAIN then
    job.again = job.again + 1
    return rehearse(self, job)
  elseif text ~= job.text then
    return finish(self, job, false, "neap: the file changes faster than it can be read")
  end
  local began = now_of(self)
  local tree, mistakes = policy.parse(text, job.temporary and NAME or job.path, {
    supported = policy.supported, host = self.host,
    clock = function () return (now_of(self) - began) / 1e9 end })
  if not tree then
    local list = {}
    for i, mistake in ipairs(mistakes) do list[i] = tostring(mistake) end
    return finish(self, job, false, concat(list, "\n"))
  end
  local changes, why = self.worker:reload(tree)
  if not changes then return finish(self, job, false, tostring(why)) end
  for _, line in ipairs(mistakes_of(said)) do
    self.worker.log:warning("policy-warning", "reason", line)
  end
  succeed(self, job, changes, why)
  finish(self, job, true)
end

--- Has the file become another, and stayed that for a while?
local function look(self, now)
  if not self.look_ns or now < self.look_ns then return end
  self.look_ns = now + WATCH_NS
  local stamp = C.neap_service_stamp(self.path)
  if stamp ~= self.stamp and stamp == self.seen and stamp ~= 0 then
    self.stamp = stamp
    self:ask()
  end
  self.seen = stamp
end

--- See to what is due. Never waits.
function renewal:turn()
  local now = now_of(self)
  look(self, now)
  local job = self.job
  if job then
    local fine, said = job.rehearsal:poll()
    if fine then read(self, job, said) elseif fine == false then finish(self, job, false, said) end
  end
  if not self.job and (self.wanted or self.texts[1]) then begin(self) end
  self.due = self.job and now + LOOK_NS or (self.wanted or self.texts[1]) and 0
    or self.look_ns or huge
end

--- Read the file anew, soon.
---@param client integer?  who waits for the outcome
function renewal:ask(client)
  self.wanted = true
  if client then self.waiting[#self.waiting + 1] = client end
  self.due = 0
end

--- NEAP.POLICY RELOAD, or LOAD and a text.
---@param client integer
---@param words string[]
function renewal:command(client, words)
  if words[2] then
    self.texts[#self.texts + 1] = { text = words[2], client = client }
    self.due = 0
  else
    self:ask(client)
  end
  C.neap_server_park(self.worker.server, client)
end

--- End what goes on, and tell those who wait for it.
function renewal:close()
  local job, all = self.job, self.waiting
  for _, given in ipairs(self.texts) do all[#all + 1] = given.client end
  if job then
    for _, client in ipairs(job.clients) do all[#all + 1] = client end
    job.rehearsal:close()
    if job.temporary then os.remove(job.path) end
  end
  self.job, self.texts, self.waiting, self.wanted = nil, {}, {}, false
  self.due, self.look_ns = huge, nil
  answer(self, all, function (to) reply.fail(to, "ERR the worker ends") end)
end

return renewal
