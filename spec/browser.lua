--- A real Chromium without a window, driven by its DevTools protocol over two pipes: messages are
--- JSON, each ended by a NUL. Waiting is the browser's: a question is asked once, as a promise.
---
---     local chromium = browser.start()
---     local tab = chromium:open("http://127.0.0.1:9390/", { width = 1280, height = 800 })
---     tab:wait "document.title === 'neap'"
---     tab:screenshot "page.png"
---     chromium:stop()
local cjson = require "cjson"
local process = require "spec.process"

local assert, ipairs, setmetatable, type = assert, ipairs, setmetatable, type
local concat = table.concat

local PROGRAMS = { "chromium-headless-shell", "chromium" }
local PATIENCE_S = 120   -- for all that one browser is asked

local FLAGS = { "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
  "--remote-debugging-pipe", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-extensions", "--disable-sync", "--no-proxy-server",
  "--hide-scrollbars", "--force-device-scale-factor=1" }

local browser = {}

--- The program, if there is one.
---@return string?
function browser.program()
  for _, name in ipairs(PROGRAMS) do
    local path, status = process.output("command -v " .. name)
    if status == 0 then return (path:gsub("%s+$", "")) end
  end
end

-- ---- the wire ---------------------------------------------------------------------------------

local chromium = {}
chromium.__index = chromium

--- Start one, with a profile of its own that is gone when it stops.
function browser.start()
  local home = process.output "mktemp -d":gsub("%s+$", "")
  local words = { "sh", "-c", [[
    mkfifo "$0/in" "$0/out" && echo ready
    exec env -u LD_PRELOAD HOME="$0" timeout -k 5 "$@" 3<"$0/in" 4>"$0/out" >"$0/log" 2>&1]],
    home, PATIENCE_S, assert(browser.program()) }
  for _, flag in ipairs(FLAGS) do words[#words + 1] = flag end
  words[#words + 1] = "--user-data-dir=" .. home .. "/profile"
  local running = process.start(words)
  assert(running:line() == "ready")
  local self = setmetatable({ home = home, running = running, number = 0, asked = 0,
    events = {} }, chromium)
  self.to = assert(io.open(home .. "/in", "w"))
  self.from = assert(io.open(home .. "/out", "r"))
  return self
end

--- The next message.
local function receive(self)
  local parts = {}
  for i = 1, 2 ^ 30 do
    local byte = self.from:read(1)
    if not byte then
      local log = io.open(self.home .. "/log"):read "*a"
      error("the browser is gone: " .. log:sub(-2000), 0)
    elseif byte == "\0" then
      return cjson.decode(concat(parts))
    end
    parts[i] = byte
  end
end

local function send(self, method, params, session)
  self.number = self.number + 1
  self.to:write(cjson.encode { id = self.number, method = method, sessionId = session,
    params = params }, "\0")
  self.to:flush()
  return self.number
end

--- A request that a tab which logs in was stopped at: with name and password, when asked for them.
local function let_pass(self, message)
  local id = message.params.requestId
  if message.method == "Fetch.requestPaused" then
    send(self, "Fetch.continueRequest", { requestId = id }, message.sessionId)
  else
    self.asked = self.asked + 1
    send(self, "Fetch.continueWithAuth", { requestId = id, authChallengeResponse = {
      response = "ProvideCredentials", username = self.login.user,
      password = self.login.password } }, message.sessionId)
  end
end

--- Call a method of the protocol; its result. Events that come meanwhile are kept in `events`.
---@param method string
---@param params table?
---@param session string?
function chromium:call(method, params, session)
  local id = send(self, method, params, session)
  repeat
    local message = receive(self)
    if message.method == "Fetch.requestPaused" or message.method == "Fetch.authRequired" then
      let_pass(self, message)
    elseif message.method then
      self.events[#self.events + 1] = message
    elseif message.id == id then
      assert(not message.error, message.error and method .. ": " .. message.error.message)
      return message.result
    end
  until false
end

--- End it, alive or not.
function chromium:stop()
  self.to:write(cjson.encode { id = 0, method = "Browser.close" }, "\0")
  self.to:close()
  self.running:finish()
  self.from:close()
  os.execute("rm -rf " .. process.quoted(self.home))
end

-- ---- a tab ------------------------------------------------------------------------------------

local tab = {}
tab.__index = tab

--- A tab of its own, of that size, in that scheme, with nothing that moves if so told.
---@param url string
---@param look { width: integer, height: integer, scheme: "light"|"dark"|nil,
---  login: { user: string, password: string }? }  what is said when a password is asked for
function chromium:open(url, look)
  local target = self:call("Target.createTarget", { url = "about:blank" }).targetId
  local attached = self:call("Target.attachToTarget", { targetId = target, flatten = true })
  local one = setmetatable({ of = self, session = attached.sessionId, target = target }, tab)
  for _, domain in ipairs { "Page", "Runtime", "Log", "Accessibility" } do
    one:call(domain .. ".enable")
  end
  one:call("Emulation.setFocusEmulationEnabled", { enabled = true })
  one:look(look)
  self.login = look.login
  if self.login then one:call("Fetch.enable", { handleAuthRequests = true }) end
  one:call("Page.navigate", { url = url })
  return one
end

function tab:close() self.of:call("Target.closeTarget", { targetId = self.target }) end

function tab:close() self.of:call("Target.closeTarget", { targetId = self.target }) end

function tab:call(method, params) return self.of:call(method, params, self.session) end

--- Another size or scheme.
function tab:look(look)
  self:call("Emulation.setDeviceMetricsOverride", { width = look.width, height = look.height,
    deviceScaleFactor = 1, mobile = false })
  self:call("Emulation.setEmulatedMedia", { features = {
    { name = "prefers-color-scheme", value = look.scheme or "light" },
    { name = "prefers-reduced-motion", value = "reduce" } } })
end

--- What an expression is; a promise is waited for.
function tab:eval(text)
  local answer = self:call("Runtime.evaluate", { expression = text, awaitPromise = true,
    returnByValue = true })
  local problem = answer.exceptionDetails
  assert(not problem, problem and cjson.encode(problem))
  return answer.result.value
end

--- Wait until it is true.
function tab:wait(condition)
  return self:eval(([[new Promise(done => {
    const ask = () => { let is; try { is = (%s) } catch { is = false }
      if (is) done(is); else setTimeout(ask, 20); };
    ask();
  })]]):format(condition))
end

--- Press a key: "Tab", "Enter", " ", "Shift+Tab", or a letter.
function tab:press(key)
  local shift = key:match "^Shift%+(.*)$"
  key = shift or key
  local codes = { Tab = 9, Enter = 13, Escape = 27, [" "] = 32 }
  local text = key == "Enter" and "\r" or #key == 1 and key or nil
  for _, kind in ipairs { "keyDown", "keyUp" } do
    self:call("Input.dispatchKeyEvent", { type = kind, key = key, text = kind == "keyDown" and text
      or nil, code = key == " " and "Space" or key, windowsVirtualKeyCode = codes[key]
      or key:upper():byte(), modifiers = shift and 8 or 0 })
  end
end

local DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

--- What it looks like, into a file.
---@param path string
---@param whole boolean?  all of the page, not only what is in view
function tab:screenshot(path, whole)
  local data = self:call("Page.captureScreenshot", { captureBeyondViewport = whole or false }).data
  local value = {}
  for i = 1, #DIGITS do value[DIGITS:byte(i)] = i - 1 end
  local file = assert(io.open(path, "wb"))
  for i = 1, #data, 4 do
    local n, left = 0, 0
    for j = i, i + 3 do
      local six = value[data:byte(j)]
      n, left = n * 64 + (six or 0), left + (six and 0 or 1)
    end
    file:write((string.char(math.floor(n / 65536), math.floor(n / 256) % 256, n % 256)
      :sub(1, 3 - left)))
  end
  file:close()
end

--- The accessibility tree: { role, name, value, … } of each node that is not ignored, in order.
function tab:tree()
  local list = {}
  for _, node in ipairs(self:call "Accessibility.getFullAXTree".nodes) do
    if not node.ignored then
      local one = { role = node.role and node.role.value, name = node.name and node.name.value,
        description = node.description and node.description.value }
      for _, property in ipairs(node.properties or {}) do
        local value = property.value and property.value.value
        if type(value) ~= "table" then one[property.name] = value end
      end
      list[#list + 1] = one
    end
  end
  return list
end

--- What went wrong in it: exceptions, errors of the console, and what the browser logs against it,
--- a violation of the content policy among them.
---@return string[]
function tab:complaints()
  local list = {}
  for _, event in ipairs(self.of.events) do
    if event.sessionId == self.session then
      local params = event.params
      if event.method == "Runtime.exceptionThrown" then
        list[#list + 1] = cjson.encode(params.exceptionDetails)
      elseif event.method == "Runtime.consoleAPICalled" then
        list[#list + 1] = "console: " .. cjson.encode(params.args)
      elseif event.method == "Log.entryAdded" and params.entry.level ~= "verbose" then
        list[#list + 1] = params.entry.source .. ": " .. params.entry.text
      end
    end
  end
  return list
end

return browser
