--- HTTP: for scrapers, for probes, and for proxies that ask before they let a call pass.
---
---     GET  /metrics                    for Prometheus; OpenMetrics when it asks for that
---     GET  /healthz  /readyz           it works; it takes new calls (503: it is going down)
---     any  /v1/check/POLICY?cost=2     a permit, or not: see neap.worker.check
---     POST /v1/release/LEASE           give it back
---     GET  /v1/snapshot[/POLICY]       JSON
---
--- A request was read in C and is answered here before its client's next one, now or, for a check
--- that waits, when its verdict is known. Nothing is for browsers: no field lets another origin
--- read an answer, and every answer says that nothing in it may run. `/` is free, for a page.
---
--- Where users are declared, each request says which one it comes from (Basic); only the probes
--- need not.
local ffi = require "ffi"
local bit = require "bit"
local C = require "neap.engine"
local check = require "neap.worker.check"
local json = require "neap.policy.json"
local metrics = require "neap.worker.metrics"
local uri = require "neap.worker.uri"
local users = require "neap.worker.users"

local ipairs, setmetatable, tonumber, tostring = ipairs, setmetatable, tonumber, tostring
local traceback, xpcall = debug.traceback, xpcall
local concat, date, max = table.concat, os.date, math.max
local band = bit.band
local object, value = json.object, json.value

local MOST = C.NEAP_HTTP_REPLY_BYTES - 4096   -- of a body; the head has the rest
local TEXT, JSON = "text/plain; charset=utf-8", "application/json"
local FORM = "application/x-www-form-urlencoded"

---@class neap.Http
---@field server ffi.cdata*
---@field worker neap.Worker
---@field users table<string, neap.User>?
local http = {}
http.__index = http

---@class neap.HttpRequest
---@field client integer
---@field verb string
---@field path string
---@field query string?
---@field rest string?       of the path, behind its route's
---@field fields table<string, string>  by name in lower case; of one name, joined by ", "
---@field body string
---@field how integer        a sum of NEAP_HTTP_CLOSES and so on

---@param worker neap.Worker
---@param tree neap.tree
---@return neap.Http
function http.new(worker, tree)
  return setmetatable({ server = worker.server, worker = worker, users = users.of(tree) }, http)
end

-- ---- answers ----------------------------------------------------------------------------------

--- Answer a request.
---@param request neap.HttpRequest
---@param status integer
---@param type string?   of the body; nil: there is none
---@param body string?
---@param fields { [1]: string, [2]: string }[]?
function http:respond(request, status, type, body, fields)
  local client, how = request.client, request.how
  local to = C.neap_server_reply(self.server, client)
  if body and #body > MOST then
    status, type, body = 500, TEXT, "the answer is larger than 4 MiB\n"
  end
  local function field(name, text) C.neap_http_field(to, name, text, #text) end
  C.neap_http_status(to, status, how)
  field("Date", date "!%a, %d %b %Y %H:%M:%S GMT")
  field("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
  for _, one in ipairs(fields or {}) do field(one[1], one[2]) end
  if body then
    field("Content-Type", type)
    C.neap_http_body(to, body, #body, how)
  else
    C.neap_http_no_body(to)
  end
  if band(how, C.NEAP_HTTP_CLOSES) ~= 0 then C.neap_server_hang_up(self.server, client) end
end

--- Answer with one line of text.
function http:say(request, status, line, fields)
  self:respond(request, status, TEXT, line .. "\n", fields)
end

--- An error of the desk's, as a status.
function http:fail(request, err)
  local code, line = err:match "^(%u+) (.*)$"
  self:say(request, code == "NOPOLICY" and 404 or 400, line)
end

-- ---- what there is ----------------------------------------------------------------------------

--- How much a client wants one of these types, from 0 to 1 (RFC 9110, 12.5.1).
local function wants(accept, types)
  local most
  for range in (accept or ""):lower():gmatch "[^,]+" do
    local name, rest = range:match "^%s*([^%s;]+)%s*(.*)$"
    if types[name] and types[name](rest) then
      most = max(most or 0, tonumber(rest:match ";%s*q=([%d.]+)") or 1)
    end
  end
  return most or 0
end

local function any() return true end

local OPEN = { ["application/openmetrics-text"] = function (rest)
  local version = rest:match ";%s*version=\"?([%d.]+)"
  return not version or version == "1.0.0"
end }
local PLAIN = { ["text/plain"] = any, ["text/*"] = any, ["*/*"] = any }

local function show_metrics(self, request)
  local accept = request.fields.accept
  local open = wants(accept, OPEN)
  open = open > 0 and open >= wants(accept, PLAIN)
  self:respond(request, 200, metrics.types[open and "openmetrics" or "prometheus"],
    metrics.write(self.worker, open), { { "Vary", "Accept" } })
end

--- It works if a permit of no limit at all is granted.
local function health(self, request)
  local desk = self.worker.desk
  if desk:works() then return self:say(request, 200, "ok") end
  self:say(request, 503, "the engine grants nothing")
end

local function readiness(self, request)
  if self.worker.desk.draining then return self:say(request, 503, "draining") end
  self:say(request, 200, "ready")
end

local function snapshot_of(account, now)
  local limits = {}
  for i, limit in ipairs(account.limits) do
    local available, capacity = account:level(i, now)
    limits[i] = object {
      { "name", value(limit.name) }, { "limit", value(limit.text) },
      { "available", available and value(available) or "null" },
      { "capacity", capacity and value(capacity) or "null" },
    }
  end
  local parts = { { "policy", value(account.name) } }
  if account.doc then parts[2] = { "doc", value(account.doc) } end
  parts[#parts + 1] = { "waiting", value(account.waiting) }
  parts[#parts + 1] = { "leases", value(account.leases) }
  parts[#parts + 1] = { "limits", "[" .. concat(limits, ",") .. "]" }
  return object(parts)
end

local function snapshot(self, request)
  local desk = self.worker.desk
  local now = desk.clock()
  C.neap_engine_advance(desk.engine, now)
  if request.rest then
    local account, err = desk.accounts:policy(request.rest)
    if not account then return self:fail(request, err) end
    return self:respond(request, 200, JSON, snapshot_of(account, now) .. "\n")
  end
  local list = {}
  for i, name in ipairs(desk.accounts.names) do
    list[i] = snapshot_of(desk.accounts.policies[name], now)
  end
  self:respond(request, 200, JSON, '{"policies":[' .. concat(list, ",") .. "]}\n")
end

--- POST /v1/release/LEASE: how it went is said in the query, or in a form.
local function release(self, request)
  if request.body ~= "" then
    local type = (request.fields["content-type"] or ""):lower():match "^%s*([^;%s]*)"
    if type ~= FORM then
      return self:say(request, 415, "a body here is a form, of type " .. FORM)
    end
  end
  local words, problem = check.release_words(request)
  if not words then return self:say(request, 400, problem) end
  local found, err = self.worker.desk:give_back(words)
  if err then return self:fail(request, err) end
  if not found then return self:say(request, 404, "no such lease, any more") end
  self:respond(request, 204)
end

local READ, WRITE = "GET, HEAD", "POST"

-- Paths: who may use which verb (nil: any) with what rights (nil: anybody); and whether another
-- part follows, "one", "must" or "any" path at all.
local ROUTES = {
  ["/metrics"] = { verbs = READ, need = C.NEAP_ALLOW_READ, run = show_metrics },
  ["/healthz"] = { verbs = READ, run = health },
  ["/readyz"] = { verbs = READ, run = readiness },
  ["/v1/check"] = { need = C.NEAP_ALLOW_ACQUIRE, run = check.run, rest = "any" },
  ["/v1/release"] = { verbs = WRITE, need = C.NEAP_ALLOW_ACQUIRE, run = release, rest = "must" },
  ["/v1/snapshot"] = { verbs = READ, need = C.NEAP_ALLOW_READ, run = snapshot, rest = "one" },
}

-- ---- requests ---------------------------------------------------------------------------------

local function text(span) return ffi.string(span.data, span.size) end

---@return neap.HttpRequest
local function read(command)
  local argv, fields = command.argv, {}
  for i = 3, command.argc - 1, 2 do
    local name, one = text(argv[i]):lower(), text(argv[i + 1])
    fields[name] = fields[name] and fields[name] .. ", " .. one or one
  end
  local path, mark, query = text(argv[1]):match "^([^?]*)(%??)(.*)$"
  return { client = tonumber(command.client), verb = text(argv[0]), path = path,
    query = mark ~= "" and query or nil, fields = fields, body = text(argv[2]), how = command.how }
end

--- The route of a path; what follows it is then the request's `rest`.
local function route_of(request)
  local path = request.path
  if ROUTES[path] then return ROUTES[path].rest ~= "must" and ROUTES[path] or nil end
  local base, rest = path:match "^(/v1/%l+)/(.*)$"
  local route = base and ROUTES[base]
  if not route or not route.rest then return nil end
  if route.rest ~= "any" then
    rest = not rest:find("/", 1, true) and uri.decode(rest) or ""
    if rest == "" then return nil end
  end
  request.rest = rest
  return route
end

local function may(self, request, route)
  if not self.users or not route.need then return true end
  local user = users.basic(self.users, request.fields.authorization)
  if not user then
    self:say(request, 401, "this needs a name and a password",
      { { "WWW-Authenticate", 'Basic realm="neap", charset="UTF-8"' } })
  elseif band(user.rights, route.need) == 0 then
    self:say(request, 403, "this user has no permission for that")
    return false
  end
  return user ~= nil
end

local function answer(self, request)
  local route = route_of(request)
  if not route then
    return self:say(request, 404, "nothing is here; see the manual of neap run")
  end
  local verbs = route.verbs
  if verbs and not (", " .. verbs .. ","):find(", " .. request.verb .. ",", 1, true) then
    return self:say(request, 405, "this is for " .. verbs, { { "Allow", verbs } })
  end
  if may(self, request, route) then route.run(self, request) end
end

--- Answer what was pulled. One that fails is our bug: its client is told and sent away.
---@param command ffi.cdata*  struct neap_command, of kind NEAP_REQUEST
---@return string? bug  for the log
function http:request(command)
  local request = read(command)
  local fine, bug = xpcall(answer, traceback, self, request)
  if fine then return nil end
  request.how = bit.bor(request.how, C.NEAP_HTTP_CLOSES)
  self:say(request, 500, "internal error, see the worker's log")
  return request.path .. ": " .. tostring(bug)
end

return http
