--- `neap top`: a worker or a segment, again and again.
---
---     127.0.0.1:6390: 12 clients, 3 waiting
---       openai  requests  |######----|   21 of 60   500/min burst 60
---               calls     |##--------|   60 of 64   64 in flight
---               breaker   closed
---               granted 120.4/s, waited 3.1/s, refused 0.2/s
local ffi = require "ffi"
local columns = require "neap.cli.columns"
local ev = require "neap.runtime.ev"
local address = require "neap.policy.address"
local notation = require "neap.notation"
local remote = require "neap.cli.remote"
local runtime = require "neap.runtime"
local system = require "neap.cli.system"
local view = require "neap.segment.view"

local ipairs, math, tonumber = ipairs, math, tonumber
local concat, getenv, huge, max, min = table.concat, os.getenv, math.huge, math.max, math.min

local FINE, WRONG, USAGE = 0, 1, 2
local ADDRESS = "127.0.0.1:6390"

-- ---- a worker ----------------------------------------------------------------------------------

--- A flat list of names and values, as RESP2 has maps.
local function map(list)
  local fields = {}
  for i = 1, #list, 2 do fields[list[i]] = list[i + 1] end
  return fields
end

local function amount(limit)
  if limit.capacity < 0 then return "", "any" end
  return view.bar(limit.available, limit.capacity),
    ("%d of %d"):format(limit.available, limit.capacity)
end

--- What was said in this round, for each second of it.
local function rates(now, before, seconds)
  local parts = {}
  for _, one in ipairs { { "granted", now.granted, before.granted },
    { "waited", now.waited, before.waited },
    { "refused", now.retry + now.never + now.shed, before.retry + before.never + before.shed } } do
    parts[#parts + 1] = ("%s %.1f/s"):format(one[1], (one[2] - one[3]) / seconds)
  end
  return concat(parts, ", ")
end

--- A policy's rows: its name in the first.
local function rows_of(rows, policy, before, seconds)
  local first = true
  local function row(...)
    rows[#rows + 1] = { first and notation.show(policy.policy, 40) or "", ... }
    first = false
  end
  for _, list in ipairs(policy.limits) do
    local limit = map(list)
    local shape, left = amount(limit)
    row(notation.show(limit.name, 40), shape, left, limit.limit)
  end
  if policy.breaker then row("breaker", policy.breaker) end
  if (policy.backoff_ms or 0) > 0 then
    row("back-off", ("%.1f s left"):format(policy.backoff_ms / 1000))
  end
  for _, list in ipairs(policy.scopes or {}) do
    local scope = map(list)
    row("per " .. scope.scope, ("%d keys"):format(scope.keys))
  end
  if policy.waiting > 0 or policy.leases > 0 then
    row(("%d waiting, %d leases"):format(policy.waiting, policy.leases))
  end
  local said = map(policy.said)
  if before then row(rates(said, before, seconds)) end
  return said
end

--- A worker to look at: lines_of(seconds) are its lines, that long after the last ones.
local function worker_at(where)
  local worker, problem = remote.dial(where)
  if not worker then return nil, problem end
  local password = getenv "NEAP_PASSWORD"
  if password then
    local fine
    fine, problem = worker:ask("AUTH", password)
    if not fine then return nil, problem end
  end
  local before = {}
  return function (seconds)
    local names, info, err
    names, err = worker:ask "NEAP.LIST"
    if names then info, err = worker:ask("INFO", "clients") end
    if not names or not info then return nil, err end
    local rows, waiting = {}, 0
    for _, name in ipairs(names) do
      local look = worker:ask("NEAP.SNAPSHOT", name)
      if look then                           -- nil: a reload took it away just now
        local policy = map(look)
        waiting = waiting + policy.waiting
        before[name] = rows_of(rows, policy, before[name], seconds)
      end
    end
    local lines = columns(rows)
    local clients = info:match "connected_clients:(%d+)"
    table.insert(lines, 1, ("%s: %s client%s, %d waiting"):format(where, clients,
      clients == "1" and "" or "s", waiting))
    return lines
  end
end

-- ---- a segment ---------------------------------------------------------------------------------

local function segment_at(path)
  local list, problem = view.open { path }
  if not list then return nil, problem end
  return function ()
    local lines = columns(view.rows(list[1]))
    table.insert(lines, 1, view.summary(list[1]))
    return lines
  end
end

local function is_file(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

local function open(names)
  local list = {}
  for i, name in ipairs(names) do
    local make = not is_file(name) and address.parse(name) and worker_at or segment_at
    local one, problem = make(name)
    if not one then return nil, problem end
    list[i] = one
  end
  return list
end

-- ---- the screen --------------------------------------------------------------------------------

--- How many rows the terminal has; nil: standard output is none.
local function height()
  local size = ffi.new "uint16_t[4]"
  if system.ioctl(1, system.TIOCGWINSZ, size) ~= 0 then return nil end
  return size[0] > 1 and size[0] or 24
end

local function show(lines)
  local rows = height()
  if not rows then
    io.stdout:write(concat(lines, "\n"), "\n")
  else
    if #lines > rows - 1 then
      lines[rows - 1] = ("  … %d more lines"):format(#lines - rows + 2)
    end
    io.stdout:write "\27[H"
    for i = 1, min(#lines, rows - 1) do io.stdout:write(lines[i], "\27[K\n") end
    io.stdout:write "\27[J"
  end
  io.stdout:flush()
end

local function lines_of(list, seconds)
  local lines = {}
  for _, one in ipairs(list) do
    local some, problem = one(seconds)
    if not some then return nil, problem end
    for _, line in ipairs(some) do lines[#lines + 1] = line end
  end
  return lines
end

---@type neap.Verb
local verb = {
  files = { 0, 1000 }, what = "worker or segment",
  options = { every = "value", rounds = "value" },
  help = [[
usage: neap top [--every DURATION] [--rounds N] [ADDRESS|SEGMENT]…

Look at workers and into segments again and again, until SIGINT or SIGTERM. A worker is an address;
NEAP_ADDRESS, or 127.0.0.1:6390, unless told. Its password, if it wants one, is in NEAP_PASSWORD.
A segment is a name in /dev/shm, or a path. Nothing is changed.

  --every DURATION   1s unless told
  --rounds N         so often, then end
]],
}

function verb.act(files, options, complain)
  local every, problem = notation.duration(options.every or "1s")
  local rounds = options.rounds == nil and huge or tonumber(options.rounds)
  if not every then
    complain("--every: ", problem)
    return USAGE
  elseif not rounds or rounds < 1 or rounds % 1 ~= 0 and rounds ~= huge then
    complain("--rounds: a whole number from 1 expected, got '", notation.show(options.rounds, 40),
      "'")
    return USAGE
  end
  local list
  list, problem = open(files[1] and files or { getenv "NEAP_ADDRESS" or ADDRESS })
  if not list then
    complain(problem)
    return WRONG
  end
  local rt = ev.new { waiters_max = 1 }
  runtime.use(rt)
  rt.catch { "INT", "TERM" }
  if height() then io.stdout:write "\27[2J" end
  local began = rt.now_ns()
  for round = 1, rounds do
    local now = rt.now_ns()
    local lines
    lines, problem = lines_of(list, max(tonumber(now - began) / 1e9, 1e-3))
    if not lines then
      complain(problem)
      return WRONG
    end
    began = now
    show(lines)
    local ends = now + every
    while round < rounds and rt.now_ns() < ends do
      if rt.signals() then return FINE end
      rt.turn(ends)
    end
  end
  return FINE
end

return verb
