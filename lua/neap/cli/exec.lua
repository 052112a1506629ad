--- `neap exec`: a permit from a worker, a command, and a word about how it went.
---
--- The permit is held by the connection: whatever ends this process ends that, and the worker takes
--- the permit back. So its time to live need not be guessed.
local child = require "neap.cli.child"
local notation = require "neap.notation"
local remote = require "neap.cli.remote"
local system = require "neap.cli.system"

local ipairs, pairs, tonumber, tostring = ipairs, pairs, tonumber, tostring
local ceil, getenv, min = math.ceil, os.getenv, math.min

local USAGE, DENIED, NO_WORKER = 2, 75, 69   -- the latter two as sysexits.h has them
local ADDRESS = "127.0.0.1:6390"
local LONGEST_MS = 2 ^ 31

--- "limit=n" or "n", as the words of NEAP.ACQUIRE.
local function add_pairs(words, list, option, unnamed)
  for _, text in ipairs(list or {}) do
    local name, value = text:match "^([^=]+)=(.+)$"
    if name then
      words[#words + 1], words[#words + 2], words[#words + 3] = option, name, value
    elseif unnamed and text:find "^%d+$" then
      words[#words + 1], words[#words + 2] = option, text
    else
      return ("--%s: NAME=%s expected, got '%s'"):format(option:lower(),
        option == "BY" and "VALUE" or "N", notation.show(text, 80))
    end
  end
end

local function milliseconds(name, text)
  local ns, problem = notation.duration(text)
  if not ns then return nil, ("--%s: %s"):format(name, problem) end
  return min(ceil(ns / 1e6), LONGEST_MS)
end

--- The question to the worker; or nil and what is wrong with the command line.
local function question(options)
  if not options.policy then return nil, "--policy is missing" end
  local words = { "NEAP.ACQUIRE", options.policy }
  local function add(...)
    for _, word in ipairs { ... } do words[#words + 1] = tostring(word) end
  end
  local problem = add_pairs(words, options.by, "BY") or add_pairs(words, options.cost, "COST", true)
  if problem then return nil, problem end
  if options.prio then add("PRIO", options.prio) end
  local wait = 0                                  -- BLOCK 0: as long as it takes
  if options.wait then
    wait, problem = milliseconds("wait", options.wait)
    if not wait then return nil, problem end
  end
  if wait > 0 or not options.wait then add("BLOCK", wait) end
  add("TTL", LONGEST_MS)
  return words
end

--- Exit statuses that count as fine.
local function fine_of(texts)
  local fine = { [0] = true }
  for _, text in ipairs(texts or {}) do
    local n = text:find "^%d+$" and tonumber(text)
    if not n or n > 255 then
      return nil, ("--ok: an exit status expected, got '%s'"):format(notation.show(text, 40))
    end
    fine[n] = true
  end
  return fine
end

local function why_not(policy, word, retry_ms, bound)
  local says = { NEVER = "more than there can ever be", SHED = "turned away", RETRY = "not now" }
  return ("no permit of '%s': %s%s%s"):format(policy, says[word] or word,
    bound ~= "" and (" (%s)"):format(bound) or "",
    retry_ms > 0 and "; in " .. notation.format_duration(retry_ms * 1e6) or "")
end

local function acquire(options, words)
  local worker, problem = remote.dial(options.addr or getenv "NEAP_ADDRESS" or ADDRESS)
  if not worker then return nil, problem, NO_WORKER end
  local fine, answer, lost
  fine, problem = worker:log_in(options.user)
  if not fine then return nil, problem, NO_WORKER end
  answer, problem, lost = worker:ask(unpack(words))
  if not answer then return nil, problem, lost and NO_WORKER or USAGE end
  local word, lease, _, retry_ms, bound = unpack(answer)
  if word ~= "GRANTED" then
    return nil, why_not(options.policy, word, retry_ms, bound), DENIED
  end
  return worker, lease ~= remote.null and lease or nil
end

---@type neap.Verb
local verb = {
  files = { 1, math.huge }, what = "command",
  options = { policy = "value", cost = "list", by = "list", prio = "value", wait = "value",
    addr = "value", user = "value", ok = "list", anyway = "flag" },
  help = [[
usage: neap exec --policy POLICY [--cost [LIMIT=]N]… [--by SCOPE=VALUE]… -- COMMAND…

Wait for a permit of a worker's policy, run a command, tell the worker how it went, and exit as
the command did. The command finds its lease in NEAP_LEASE.

  --policy POLICY     the policy's name
  --cost [LIMIT=]N    what it costs, again for more limits; 1 of each unless told
  --by SCOPE=VALUE    whose call it is: tenant=42
  --prio NAME|N       its priority in line
  --wait DURATION     how long to wait at most; as long as it takes unless told; 0s: not at all
  --ok N              an exit status that is no failure; again for more
  --anyway            run the command without a permit when there is no worker
  --addr ADDRESS      the worker's: NEAP_ADDRESS, or 127.0.0.1:6390, unless told
  --user NAME         log in with this name and the password in NEAP_PASSWORD

Exit status: the command's, or 128 and the signal it died of; 75 there was no permit; 69 no worker;
126, 127 the command cannot be run, is not there; 2 usage.
]],
}

function verb.act(command, options, complain)
  local words, problem = question(options)
  local fine
  if words then fine, problem = fine_of(options.ok) end
  if not words or not fine then
    complain(problem)
    return USAGE
  end
  local worker, lease, status = acquire(options, words)
  if not worker then
    complain(lease)
    if status ~= NO_WORKER or not options.anyway then return status end
    lease = nil
  end
  for name, value in pairs { NEAP_POLICY = options.policy, NEAP_LEASE = lease or "" } do
    system.setenv(name, value, 1)
  end
  local code
  status, problem, code = child.run(command)
  if lease then
    local outcome = not status and "IGNORE" or fine[status] and "OK" or "FAIL"
    local answer, err = worker:ask("NEAP.RELEASE", lease, outcome)
    if not answer then complain(err) end
  end
  if status then return status end
  complain(problem)
  return code
end

return verb
