--- neap inside nginx. Three lines set it up:
---
---     init_by_lua_block        { neap = require "neap.ngx" … limiters … }
---     init_worker_by_lua_block { neap.ngx.init_worker() }
---     log_by_lua_block         { neap.ngx.log() }            # in http, for all locations
---
--- and one limits a location:
---
---     access_by_lua_block { neap.ngx.access { limiter = api, timeout = "2s" } }
---
--- Limiters made there are each worker's own. Those of a segment all workers share, through
--- reloads, upgrades and crashes:
---
---     init_by_lua_block        { neap = require "neap.ngx"
---                                shared = assert(neap.segment "site")
---                                api = shared:throttle("api", "5000/s burst 50") }
---
--- The master makes the file, or finds it, and its workers inherit it. A reload runs that line
--- anew: the limits of the new configuration hold from then on, for old workers, too. What a worker
--- held that died comes back when the next one starts, and of any other process within a second.
---
--- What `require` answers is neap itself, with `neap.ngx` for what only nginx has; every verb that
--- waits waits with nginx (see neap.runtime.ngx). What is held until a request ends is given back
--- in its log phase, whatever became of it: nginx runs that phase for each request, and nothing may
--- wait there, nor has to. What belongs to a request is found by its connection and its number on
--- it, not by ngx.ctx, which is gone after an internal redirect (error_page, try_files).
local ngx = rawget(_G, "ngx")
if not ngx then error("neap.ngx: this is not nginx; require \"neap\"", 0) end

local errors = require "neap.errors"
local fields = require "neap.ngx.fields"
local grammar = require "neap.grammar"
local limiter = require "neap.limiter"
local neap = require "neap"
local runtime = require "neap.runtime"

local error, next, pairs, pcall = error, next, pairs, pcall
local tostring, type = tostring, type
local ceil, max = math.ceil, math.max

local OPTIONS = { "limiter", "key", "cost", "timeout", "status", "headers", "dry_run" }
local AT_ONCE = { timeout = 0 }   -- what most ask; not to be changed
local MANY = 1000   -- permits held, and no log phase seen yet
local REAP_S = 1    -- between two looks for processes that died and held permits

local nginx = {}

-- ---- what a request holds ----------------------------------------------------------------------

local held, count, logs = {}, 0, false   -- lists of permits, by request

local function name_of_request()
  local var = ngx.var
  return var.connection .. ":" .. var.connection_requests
end

--- Give this permit back in the log phase of the request, with how that ended: "failure" for a
--- status of 500 and more, "ignore" when the client hung up, else "success". Once it is released
--- otherwise that comes to nothing.
---@param permit neap.Permit
---@return neap.Permit  the same
function nginx.hold(permit)
  if type(permit) ~= "table" or not permit.give then
    error("hold: a permit expected, got " .. tostring(permit), 2)
  end
  local request = name_of_request()
  local list = held[request]
  if list then
    list[#list + 1] = permit
  else
    held[request] = { permit }
  end
  count = count + 1
  if count == MANY and not logs then
    ngx.log(ngx.ERR, "neap: ", count, " permits are held and none came back: ",
      "log_by_lua_block { neap.ngx.log() } is missing")
  end
  return permit
end

local function outcome_of(status)
  if status == 499 then return "ignore" end
  return status >= 500 and "failure" or "success"
end

local function give(permit, outcome)
  local ok, message = pcall(permit.give, permit, outcome)
  if not ok then ngx.log(ngx.ERR, "neap: ", message) end
end

--- The handler of the log phase: what the request holds is given back, and when nginx ended it, it
--- leaves the lines it stood in.
---@param outcome? "success"|"failure"|"ignore"  instead of what its status says
function nginx.log(outcome)
  logs = true
  local status = ngx.status
  if status == 499 then runtime.current().look() end
  if not next(held) then return end
  local request = name_of_request()
  local list = held[request]
  if not list then return end
  held[request] = nil
  count = count - #list
  outcome = outcome or outcome_of(status)
  give(list[1], outcome)   -- mostly there is one: see cost.lua for what a loop does to a trace
  for i = 2, #list do give(list[i], outcome) end
end

-- ---- access ------------------------------------------------------------------------------------

local are_known = grammar.all_in(OPTIONS)

local function check(verb, options, level)
  if type(options) ~= "table" then
    error(verb .. ": a table expected, got " .. type(options), level + 1)
  end
  if not are_known(options) then grammar.check_names(verb, options, OPTIONS, level + 1) end
  if not limiter.is(options.limiter) then
    error(verb .. ": limiter: a limiter expected, got " .. tostring(options.limiter), level + 1)
  end
end

--- What acquire is given, or try_acquire, which knows no timeout.
local function ask_for(kinds, key, cost, timeout, level)
  if not kinds and type(cost) ~= "table" then
    if not timeout then return cost end
    if timeout == 0 and cost == nil then return AT_ONCE end
    return { cost = cost, timeout = timeout }
  end
  local given = { timeout = timeout }
  if type(cost) == "table" then
    for name, value in pairs(cost) do given[name] = value end
  else
    given.cost = cost
  end
  for i = 1, kinds and #kinds or 0 do
    local name = kinds[i].name
    given[name] = type(key) == "table" and key[name] or key
    if given[name] == nil then error("access: key is missing", level + 1) end
  end
  return given
end

-- A limit per key alone is said the key first.
local function ask(one, given, dry_run)
  local by = one.by
  if not by then
    if dry_run then return one:try_acquire(given) end
    return one:acquire(given)
  end
  local key = given[by]
  given[by] = nil
  if dry_run then return one:try_acquire(key, given.cost or given) end
  return one:acquire(key, given)
end

local function status_of(why)
  local status = errors.of(why).status
  return (status == 503 or status == 499) and status or 429
end

local function refuse(options, why, wait_s)
  if options.dry_run then
    ngx.log(ngx.NOTICE, "neap: would refuse: ", options.limiter.name, ": ", why)
    return nil, why, wait_s
  end
  if wait_s then ngx.header["Retry-After"] = max(1, ceil(wait_s)) end
  return ngx.exit(options.status or status_of(why))
end

--- A handler for the access (or rewrite) phase: goes on when the limiter lets it, after waiting in
--- line for up to `timeout`; or else ends the request, at once when the time would not do. The
--- permit, if it has something to give back, is held until the log phase.
---
---   limiter   any
---   key       where limits are kept by key: a text, or a table of keys by name
---   cost      as for acquire; 1 unless told
---   timeout   how long to wait in line; 0, not at all, unless told
---   status    of a refusal; unless told 429, or 503 when it is not the caller's doing (a breaker
---             is open, no place to wait)
---   headers   false: no RateLimit and RateLimit-Policy; Retry-After comes with every refusal
---             whose end a clock can tell
---   dry_run   true: never waits and never refuses; what would be refused is logged and answered
---@param options table
---@return neap.Permit? permit  nil only with dry_run
---@return string? why
---@return number? wait_s
function nginx.access(options)
  check("access", options, 2)
  local one, dry_run = options.limiter, options.dry_run
  local timeout = not dry_run and (options.timeout or 0) or nil
  local given = ask_for(one.terms.keys, options.key, options.cost, timeout, 2)
  local permit, why, wait_s = ask(one, given, dry_run)
  if options.headers ~= false then fields.send(ngx.header, one, options.key) end
  if not permit then return refuse(options, why, wait_s) end
  if one.reclaim or permit.guests then nginx.hold(permit) end
  return permit
end

--- The same, made once, in init_by_lua:
---
---     init_by_lua_block   { … limit_users = neap.ngx.handler { limiter = users } }
---     access_by_lua_block { limit_users(ngx.var.remote_addr) }
---
--- A request then leaves nothing to the collector, where `access` leaves a table of options and a
--- permit, and that is most of what it costs: the collector looks at all that Lua has.
---@param options table  as for access; `key` and `cost` are what is meant when a call says none
---@return fun(key?: string|integer|table, cost?: integer|table): true?, string?, number?
function nginx.handler(options)
  check("handler", options, 2)
  local own = {}
  for name, value in pairs(options) do own[name] = value end
  local one, dry_run, tells = own.limiter, own.dry_run, own.headers ~= false
  local timeout = not dry_run and (own.timeout or 0) or nil
  limiter.ns_of(timeout or 0, "timeout", 2)
  local kinds, own_key, own_cost = one.terms.keys, own.key, own.cost
  local usual = not kinds and ask_for(nil, nil, own_cost, timeout, 2)
  return function (key, cost)
    if key == nil then key = own_key end
    local given = usual
    if kinds or cost ~= nil then
      if cost == nil then cost = own_cost end
      given = ask_for(kinds, key, cost, timeout, 2)
    end
    local permit, why, wait_s = ask(one, given, dry_run)
    if tells then fields.send(ngx.header, one, key) end
    if not permit then return refuse(own, why, wait_s) end
    if one.reclaim or permit.guests then nginx.hold(permit) end
    return true
  end
end

-- ---- life --------------------------------------------------------------------------------------

--- Give back what the dead held.
---@return boolean shares  are there limiters in segments at all?
local function reap()
  local seen = {}
  for one in neap.limiters() do
    local segment = one.segment
    if segment and not seen[segment] then
      seen[segment] = true
      segment:reap()
    end
  end
  return next(seen) ~= nil
end

--- In init_worker_by_lua: what workers must not have in common is drawn anew; and where limiters
--- are shared, what dead processes held comes back, now and once a second.
function nginx.init_worker()
  neap.backoff.forked(ngx.worker.pid())
  if reap() then
    local ok, message = ngx.timer.every(REAP_S, reap)
    if not ok then ngx.log(ngx.ERR, "neap: what dead workers hold may stay out: ", message) end
  end
end

--- Wait in another way, before the first limiter is used: `clock = "cached"` reads the clock once
--- per turn of nginx's loop, `waiters_max` bounds those who wait in a worker.
---@param options { waiters_max: integer?, clock: "exact"|"cached"|nil }
function nginx.use(options)
  runtime.use(require "neap.runtime.ngx".new(options))
end

nginx.limit_req = require "neap.ngx.limit_req"
nginx.limit_conn = require "neap.ngx.limit_conn"
nginx.limit_count = require "neap.ngx.limit_count"
nginx.limit_traffic = require "neap.ngx.limit_traffic"
neap.ngx = nginx

return neap
