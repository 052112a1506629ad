--- HTTP: for scrapers, for probes, and for proxies that ask before they let a call pass.
---
---     GET  /metrics                    for Prometheus; OpenMetrics when it asks for that
---     GET  /healthz  /readyz           it works; it takes new calls (503: it is going down)
---     any  /v1/check/POLICY?cost=2     a permit, or not: see neap.worker.check
---     POST /v1/release/LEASE           give it back
---     GET  /v1/snapshot[/POLICY]       JSON
---     GET  /v1/events                  see neap.worker.stream
---     GET  /                           a page that shows it all
---
--- A request was read in C and is answered here before its client's next one, now or, for a check
--- that waits, when its verdict is known. Nothing but the page is for browsers: no field lets
--- another origin read an answer, and every answer says that nothing in it may run.
---
--- Where users are declared, each request says which one it comes from (Basic); only the probes
--- need not. Where none are, only this machine can connect; but a browser on it might, for a page
--- from elsewhere whose name was made to point here. So what is asked by another name than this
--- machine's is refused, but for the probes and for checks, which pass on whatever name their
--- caller called.
local ffi = require "ffi"
local bit = require "bit"
local C = require "neap.engine"
local check = require "neap.worker.check"
local clients = require "neap.worker.clients"
local metrics = require "neap.worker.metrics"
local page = require "neap.worker.page"
local report = require "neap.worker.report"
local snapshot = require "neap.worker.snapshot"
local stream = require "neap.worker.stream"
local uri = require "neap.worker.uri"
local users = require "neap.worker.users"

local ipairs, setmetatable, tonumber, tostring = ipairs, setmetatable, tonumber, tostring
local traceback, xpcall = debug.traceback, xpcall
local date, max = os.date, math.max
local band = bit.band

local MOST = C.NEAP_HTTP_REPLY_BYTES - 4096   -- of a body; the head has the rest
local TEXT, JSON = "text/plain; charset=utf-8", "application/json"
local HTML = "text/html; charset=utf-8"
local FORM = "application/x-www-form-urlencoded"
local NOTHING = "default-src 'none'; frame-ancestors 'none'"

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
---@field rights integer?    of who asks, a sum

---@param worker neap.Worker
---@param tree neap.tree
---@return neap.Http
function http.new(worker, tree)
  return setmetatable({ server = worker.server, worker = worker, users = users.of(tree),
    page = page.new(worker.keys) }, http)
end

-- ---- answers ----------------------------------------------------------------------------------

--- Status and fields of an answer, but for those about its body.
---@return ffi.cdata* to
---@return fun(name: string, text: string) field
local function head(self, request, status, fields)
  local to = C.neap_server_reply(self.server, request.client)
  local function field(name, text) C.neap_http_field(to, name, text, #text) end
  C.neap_http_status(to, status, request.how)
  field("Date", date "!%a, %d %b %Y %H:%M:%S GMT")
  local has_policy = false
  for _, one in ipairs(fields or {}) do
    field(one[1], one[2])
    has_policy = has_policy or one[1] == "Content-Security-Policy"
  end
  if not has_policy then field("Content-Security-Policy", NOTHING) end
  return to, field
end

--- Begin an answer whose body has no end.
---@param request neap.HttpRequest
---@param type string
function http:open(request, type)
  local to, field = head(self, request, 200)
  field("Content-Type", type)
  C.neap_http_no_body(to)
end

--- Answer a request.
---@param request neap.HttpRequest
---@param status integer
---@param type string?   of the body; nil: there is none
---@param body string?
---@param fields { [1]: string, [2]: string }[]?
function http:respond(request, status, type, body, fields)
  local client, how = request.client, request.how
  if body and #body > MOST then
    status, type, body = 500, TEXT, "the answer is larger than 4 MiB\n"
  end
  local to, field = head(self, request, status, fields)
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

local function show_snapshot(self, request)
  local desk = self.worker.desk
  if not request.rest then
    return self:respond(request, 200, JSON, snapshot.write(self.worker) .. "\n")
  end
  local account, err = desk.accounts:policy(request.rest)
  if not account then return self:fail(request, err) end
  local now = desk.clock()
  C.neap_engine_advance(desk.engine, now)
  self:respond(request, 200, JSON, snapshot.policy(account, now) .. "\n")
end

local function show_page(self, request)
  local text, policy = self.page:write()
  self:respond(request, 200, HTML, text, { { "Content-Security-Policy", policy },
    { "Referrer-Policy", "no-referrer" } })
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
  local found, err = report.give_back(self.worker.desk, words)
  if err then return self:fail(request, err) end
  if not found then return self:say(request, 404, "no such lease, any more") end
  self:respond(request, 204)
end

local READ, WRITE = "GET, HEAD", "POST"

-- Paths: who may use which verb (nil: any) with what rights (nil: anybody; of a sum, one of them);
-- whether another part follows, "one", "must" or "any" path at all; and `anywhere`: under whatever
-- name it is asked for.
local ROUTES = {
  ["/"] = { verbs = READ, need = C.NEAP_ALLOW_READ, run = show_page },
  ["/metrics"] = { verbs = READ, need = C.NEAP_ALLOW_READ, run = show_metrics },
  ["/healthz"] = { verbs = READ, run = health, anywhere = true },
  ["/readyz"] = { verbs = READ, run = readiness, anywhere = true },
  ["/v1/check"] = { need = C.NEAP_ALLOW_ACQUIRE, run = check.run, rest = "any", anywhere = true },
  ["/v1/events"] = { verbs = READ, need = C.NEAP_ALLOW_EVENTS + C.NEAP_ALLOW_READ,
    run = stream.run },
  ["/v1/release"] = { verbs = WRITE, need = C.NEAP_ALLOW_ACQUIRE, run = release, rest = "must" },
  ["/v1/snapshot"] = { verbs = READ, need = C.NEAP_ALLOW_READ, run = show_snapshot, rest = "one" },
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

--- Is this how one on this machine calls it? A socket of a path is nothing that a browser knows.
local function is_here(self, request)
  local host = (request.fields.host or "localhost"):lower():gsub(":%d+$", "")
  if host == "localhost" or host == "[::1]" or host:find "^127%.%d+%.%d+%.%d+$"
    or host:find "^[%w-.]+%.localhost$" then return true end
  local facts = clients.facts(self.server, request.client)
  return facts ~= nil and ffi.string(facts.laddr):sub(1, 5) == "unix:"
end

local function may(self, request, route)
  request.rights = C.NEAP_ALLOW_ALL
  if not self.users and not route.anywhere and not is_here(self, request) then
    self:say(request, 421, "without users this answers to localhost and loopback addresses alone")
    return false
  end
  if not self.users or not route.need then return true end
  local user = users.basic(self.users, request.fields.authorization)
  if not user then
    self:say(request, 401, "this needs a name and a password",
      { { "WWW-Authenticate", 'Basic realm="neap", charset="UTF-8"' } })
  elseif band(user.rights, route.need) == 0 then
    self:say(request, 403, "this user has no permission for that")
    return false
  else
    request.rights = user.rights
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
