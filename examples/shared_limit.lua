--- The main job: four processes share one limit, and who enforces it never has to say no.
--
--      examples/run [--calls N] [--builtin]
--
-- A real nginx on loopback allows so many calls a second (limit_req) and refuses what is more
-- with 429. Four client processes each want N calls served. First they call as fast as they can
-- and try again 40 ms after a refusal: they get their calls, and hundreds of refusals on the way.
-- Then each asks the worker before each call, over one connection of its own, and waits there for
-- its permit:
--
--      client ──╮  NEAP.ACQUIRE api BLOCK 30000        client ──╮  GET /
--      client ──┼────────────────────> neap run        client ──┼───────> nginx ──> calls.log
--      client ──┤ <─────────── GRANTED  policy.lua     client ──┤ <────── 204 or 429
--      client ──╯                                      client ──╯
--
-- Why not one call is refused, however late packets and processes are. The worker charges a
-- permit at the instant its token arrives, so in any T seconds it charges at most burst + rate *
-- T. A call reaches nginx some time later. What nginx sees in T seconds is therefore what was
-- charged in them, and what was charged before and was still under way when they began; and a
-- client has at most one permit under way, because it asks again only when its call was answered.
-- So nginx sees at most
--
--      burst + clients + rate * T
--
-- and is set up to allow just that, plus the coarseness of its clock: it reads the time once per
-- turn of its loop, from a kernel clock that moves every 1 to 10 ms, in whole milliseconds. T may
-- look 11 ms shorter to it, and that is rate * 11 ms calls. Callers that have many permits under
-- way each need a bound J on the jitter instead: they are seen to make burst + rate * (T + J).
--
-- What this takes for granted: one machine, so one speed of time (were nginx's clock slower by 50
-- ppm, 200/s would exceed it by one call every 100 s; take a rate that somebody else's clock
-- measures at 99.9 %); nobody else calls that nginx; and its bucket is full when a run begins, so
-- we wait for that between the two.
--
-- What is counted is what the downstream logged, never what a client believes. That log has the
-- time of the wall clock, which must not be set meanwhile.
local home = arg[0]:match "^(.*)/[^/]*$" or "."
if home:sub(1, 1) ~= "/" then home = os.getenv "PWD" .. "/" .. home end
local parts = home .. "/shared_limit/"
package.path = parts .. "?.lua;" .. package.path

local socket = require "socket"
local crew = require "crew"
local report = require "report"

local CLIENTS = 4
local CALLS = 350             -- per client: at 200/s, seven seconds
local COARSENESS_S = 0.011    -- of nginx's clock
local PATIENCE_S = 10         -- without a single call, something is wrong

local function fail(...) error(string.format(...), 0) end

local function read(path)
  local file, why = io.open(path)
  if not file then fail("%s", why) end
  local text = file:read "*a"
  file:close()
  return text
end

local function output(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "*a"
  pipe:close()
  return (text:gsub("%s+$", ""))
end

-- ---- what runs on this machine ----------------------------------------------------------------

local function free_port()
  local s = assert(socket.bind("127.0.0.1", 0))
  local _, port = s:getsockname()
  s:close()
  return tonumber(port)
end

--- Wait until `name` takes connections on `port`.
local function await(team, name, port)
  local tries = 0
  repeat
    local s = socket.connect("127.0.0.1", port)
    if s then return s:close() end
    socket.sleep(0.05)
    tries = tries + 1
  until tries == 100
  fail("%s does not listen on 127.0.0.1:%d; it says:\n%s", name, port, team:said(name))
end

--- Where a program is. Users do not have /usr/sbin in their PATH, and need not have neap in it.
---@return string? path
local function find(program)
  local path = output(([[PATH="${NEAP_BUILD:-%s/../build}/bin:$PATH:/usr/sbin"; command -v %s]])
    :format(home, program))
  return path ~= "" and path or nil
end

--- Start the downstream. Returns its port and what to call it.
---@param limit { rate: integer, burst: integer }  burst: calls at once beyond the first
local function start_downstream(team, limit, builtin)
  local port = free_port()
  local nginx = not builtin and find "nginx"
  if nginx then
    local words = { port = port, rate = limit.rate, burst = limit.burst }
    local conf = assert(io.open(team.dir .. "/nginx.conf", "w"))
    conf:write((read(parts .. "nginx.conf"):gsub("@(%l+)@", words)))
    conf:close()
    team:keep("downstream", nginx, "-p", team.dir, "-c", team.dir .. "/nginx.conf")
    await(team, "downstream", port)
    return port, "nginx " .. output("'" .. nginx .. "' -v 2>&1"):match "nginx/(%S+)"
  end
  if not builtin then print "There is no nginx here: a small built-in server takes its place." end
  team:keep("downstream", "luajit", parts .. "server.lua", port, limit.rate, limit.burst,
    team.dir .. "/calls.log")
  await(team, "downstream", port)
  return port, "the built-in server"
end

local function start_worker(team)
  local port = free_port()
  local neap = find "neap" or fail "there is no neap: examples/run builds it"
  team:keep("worker", neap, "run", parts .. "policy.lua", "--listen", "127.0.0.1:" .. port)
  await(team, "worker", port)
  return port
end

-- ---- one run ----------------------------------------------------------------------------------

--- What the downstream's log says about a run: when calls were served and refused (seconds,
--- ascending), how many for each client, the first call of all and the last served one.
local function new_tally(name)
  local tally = { name = name, served = {}, refused = {}, clients = {} }
  for i = 1, CLIENTS do tally.clients[i] = { served = 0, refused = 0 } end
  return tally
end

local function count(tally, time, status, i)
  local word = status == "204" and "served" or status == "429" and "refused" or
    fail("the downstream answered %s", status)
  local client = tally.clients[i]
  table.insert(tally[word], time)
  client[word] = client[word] + 1
  tally.first = tally.first or time
  if word == "served" then
    tally.last = time
    client.done = time
  end
end

--- A function that counts what was logged since it was called last.
local function follow(path, mark, tally)
  local log, rest = assert(io.open(path)), ""
  return function ()
    log:seek "cur"                -- an end of file that was met is forgotten
    local text = rest .. log:read "*a"
    rest = text:match "[^\n]*$"
    for time, status, run, i in text:gmatch "(%d+%.%d+) (%d+) /(%a+)/(%d+)\n" do
      if run == mark then count(tally, tonumber(time), status, tonumber(i)) end
    end
  end
end

--- Send the clients, watch them until all have their calls.
---@param mark string  what the paths of this run's calls begin with
---@param worker_port integer?  where to ask first
local function run(team, name, mark, calls, port, worker_port)
  local tally = new_tally(name)
  local look = follow(team.dir .. "/calls.log", mark, tally)
  local show = report.progress(calls)
  for i = 1, CLIENTS do
    team:send(mark .. i, "luajit", parts .. "client.lua", port, ("/%s/%d"):format(mark, i), calls,
      worker_port)
  end
  local began = socket.gettime()
  local heard, at = 0, began
  while #tally.served < CLIENTS * calls do
    socket.sleep(0.1)
    look()
    local now = socket.gettime()
    show(tally, now - began)
    for i = 1, CLIENTS do
      local said = team:said(mark .. i)
      if said ~= "" then fail("client %d gave up: %s", i, said) end
    end
    if #tally.served + #tally.refused > heard then
      heard, at = #tally.served + #tally.refused, now
    elseif now - at > PATIENCE_S then
      fail("no call for %d s", PATIENCE_S)
    end
  end
  show(tally, socket.gettime() - began, true)
  return tally
end

-- ---- the job ----------------------------------------------------------------------------------

local function options(words)
  local calls, builtin, i = CALLS, false, 1
  while words[i] do
    if words[i] == "--builtin" then
      builtin = true
    elseif words[i] == "--calls" and (tonumber(words[i + 1]) or 0) >= 1 then
      calls, i = math.floor(tonumber(words[i + 1])), i + 1
    else
      io.stderr:write "usage: examples/run [--calls N] [--builtin]\n"
      os.exit(2)
    end
    i = i + 1
  end
  return calls, builtin
end

--- Table, plot and verdict. Returns whether it went as it should.
local function judge(without, with, limit, counted_by)
  local most = {}             -- that the downstream would have served in the time a run took
  for i, tally in ipairs { without, with } do
    most[i] = limit.burst + 1 + limit.rate * (tally.last - tally.first)
  end
  local function row(name, fmt, value)
    return { name, fmt:format(value(without, most[1])), fmt:format(value(with, most[2])) }
  end
  local function share(tally, allowed) return #tally.served / allowed end
  local function done(tally, pick)
    local at
    for _, client in ipairs(tally.clients) do at = pick(at or client.done, client.done) end
    return at - tally.first
  end
  print ""
  report.table({ without.name, with.name }, {
    row("refused (429)", "%d", function (t) return #t.refused end),
    row("served", "%d", function (t) return #t.served end),
    row("duration", "%.2f s", function (t) return t.last - t.first end),
    row("first client done after", "%.2f s", function (t) return done(t, math.min) end),
    row("most it could have served", "%.1f", function (_, allowed) return allowed end),
    row("share of the allowed rate used", "%.1f %%", function (t, a) return share(t, a) * 100 end),
  })
  print(("\n  Counted in the log of %s. Duration: first call to last served one.\n" ..
    "  Most: %d at once + %d/s * duration. Share: served / most.\n")
    :format(counted_by, limit.burst + 1, limit.rate))
  report.plot({ without, with }, limit.rate)

  local good = #without.refused > 0 and #with.refused == 0 and share(with, most[2]) >= 0.97
  print(("\n%s: %d refused without neap; with it %d refused and %.1f %% of the allowed rate used")
    :format(good and "as it should be" or "NOT as it should be", #without.refused, #with.refused,
      share(with, most[2]) * 100))
  return good
end

local function job(team, calls, builtin)
  local policy = read(parts .. "policy.lua")
  local rate, burst = policy:match '"(%d+)/s burst (%d+)"'
  if not rate then fail("%spolicy.lua: no limit of the form \"200/s burst 20\"", parts) end
  -- all that may arrive at once is the policy's burst, a permit under way per client, and what the
  -- downstream's clock misjudges; its own `burst` does not count the call at hand
  local limit = { rate = tonumber(rate) }
  limit.burst = burst + CLIENTS + math.ceil(rate * COARSENESS_S) - 1

  local worker_port = start_worker(team)
  local port, downstream = start_downstream(team, limit, builtin)
  print(("downstream  %s on 127.0.0.1:%d: %d calls a second, %d at once, 429 to what is more")
    :format(downstream, port, limit.rate, limit.burst + 1))
  print(("worker      neap run on 127.0.0.1:%d: policy \"api\", %s/s burst %s")
    :format(worker_port, rate, burst))
  print(("clients     %d processes that want %d calls each"):format(CLIENTS, calls))

  print "\nwithout neap: call as fast as one can; after a refusal, try again 40 ms later"
  local without = run(team, "without neap", "without", calls, port)
  socket.sleep((limit.burst + 1) / limit.rate + 0.3)    -- the downstream's bucket fills up again
  print "\nwith neap: ask first, NEAP.ACQUIRE api BLOCK 30000"
  local with = run(team, "with neap", "with", calls, port, worker_port)
  return judge(without, with, limit, downstream)
end

local calls, builtin = options(arg)
local team = crew.gather()
local ran, good = xpcall(job, function (why)
  return type(why) == "string" and why or debug.traceback(tostring(why))
end, team, calls, builtin)
team:dismiss()
if not ran then
  local interrupted = good:find "interrupted!$"      -- which is how luajit tells of a Ctrl-C
  io.stderr:write("shared_limit: ", interrupted and "interrupted" or good, "\n")
  os.exit(interrupted and 130 or 1)
end
os.exit(good and 0 or 1)
