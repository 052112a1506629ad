--- What the worker and its supervisor tell each other: systemd's protocol, or that of any other
--- that speaks it (sd_notify(3), sd_listen_fds(3)). Without a supervisor in the environment nothing
--- is sent and nothing is due.
---
---     READY=1                            it serves, for the first time or after a reload
---     RELOADING=1, STOPPING=1            it is busy with that
---     STATUS=2 policies, 1 in flight…    every 5 s, if something changed
---     WATCHDOG=1                         thrice in the time that WATCHDOG_USEC gives, and only if
---                                        a permit was granted and given back just then
---     EXTEND_TIMEOUT_USEC=…              while it drains
local C = require "neap.engine"

local max, min, setmetatable, tonumber = math.max, math.min, setmetatable, tonumber

local STATUS_NS = 5e9
local EXTEND_US = 5000000    -- at a time; said again each second
local FIRST = 3              -- the first descriptor handed over

---@class neap.Notify
---@field socket string?       where words go; nil: nobody wants any
---@field watchdog_ns number?  how long the supervisor waits for a sign of life
---@field next_ns number       when there may be something to say; math.huge: never
local notify = {}
notify.__index = notify

--- Was a variable of the environment, which children inherit, meant for this process?
local function is_ours(pid)
  return pid == nil or tonumber(pid) == tonumber(C.neap_service_process())
end

---@param env fun(name: string): string?   os.getenv unless told
---@param tell (fun(text: string))?        instead of the datagram, for specs
---@return neap.Notify
function notify.new(env, tell)
  env = env or os.getenv
  local watchdog_us = is_ours(env "WATCHDOG_PID") and tonumber(env "WATCHDOG_USEC" or "")
  local self = setmetatable({
    socket = env "NOTIFY_SOCKET", said = nil, next_ns = math.huge,
    watchdog_ns = watchdog_us and watchdog_us > 0 and watchdog_us * 1e3 or nil,
  }, notify)
  self.send = tell or function (text) C.neap_service_tell(self.socket, text, #text) end
  if self.socket then
    self.every_ns = max(1e6, min(STATUS_NS, (self.watchdog_ns or math.huge) / 3))
    self.next_ns = 0
  end
  return self
end

--- The sockets that were handed over, listening: their descriptors, and what they are to speak.
---@param env fun(name: string): string?
---@return { fd: integer, http: boolean }[]?
---@return string? message  one has a name that says neither
function notify.sockets(env)
  env = env or os.getenv
  local list, count = {}, tonumber(env "LISTEN_FDS" or "") or 0
  if count < 1 or not env "LISTEN_PID" or not is_ours(env "LISTEN_PID") then return list end
  local names = env "LISTEN_FDNAMES"
  for name in ((names or ("resp:"):rep(count - 1) .. "resp") .. ":"):gmatch "([^:]*):" do
    if #list == count then break end
    if name ~= "resp" and name ~= "http" then
      return nil, ("a socket handed over is named '%s'; FileDescriptorName= is to be 'resp' or "
        .. "'http'"):format(name:sub(1, 64))
    end
    list[#list + 1] = { fd = FIRST + #list, http = name == "http" }
  end
  if #list < count then
    return nil, ("%d sockets were handed over, and %d names for them"):format(count, #list)
  end
  return list
end

local function tell(self, text)
  if self.socket then self.send(text) end
end

function notify:ready() tell(self, "READY=1") end

--- `READY=1` is to follow. `clock` is that of the monotonic clock, in ns: systemd tells by it which
--- of several reloads this is.
---@param clock ffi.cdata*|number
function notify:reloading(clock)
  tell(self, ("RELOADING=1\nMONOTONIC_USEC=%d"):format(tonumber(clock) / 1e3))
end

function notify:stopping() tell(self, "STOPPING=1") end

--- It is still at it: give it some seconds more.
function notify:extend() tell(self, ("EXTEND_TIMEOUT_USEC=%d"):format(EXTEND_US)) end

--- Say what is due.
---@param now ffi.cdata*|number   ns, of the loop's clock
---@param works fun(): boolean    is a permit granted?
---@param status fun(): string
---@return boolean starved  it is time for a sign of life, and nothing works
function notify:tick(now, works, status)
  now = tonumber(now)
  if now < self.next_ns then return false end
  self.next_ns = now + self.every_ns
  local starved = self.watchdog_ns ~= nil and not works()
  if self.watchdog_ns and not starved then tell(self, "WATCHDOG=1") end
  if not self.status_ns or now >= self.status_ns then
    local text = status()
    self.status_ns = now + STATUS_NS
    if text ~= self.said then
      self.said = text
      tell(self, "STATUS=" .. text)
    end
  end
  return starved
end

return notify
