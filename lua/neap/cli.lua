--- The program's verbs. Exit status: 0 fine, 1 something in the input or the world is wrong, 2 the
--- command line is.
local ffi = require "ffi"
local C = require "neap.engine"
local columns = require "neap.cli.columns"
local ev = require "neap.runtime.ev"
local notation = require "neap.notation"
local policy = require "neap.policy"
local policy_diff = require "neap.policy.diff"
local policy_rows = require "neap.policy.table"
local view = require "neap.segment.view"

local error, ipairs, pairs, pcall, require = error, ipairs, pairs, pcall, require
local tostring = tostring
local concat, sort = table.concat, table.sort
local show = notation.show

local FINE, WRONG, USAGE = 0, 1, 2

local CHECK_S, CHECK_BYTES = 2, 128 * 2 ^ 20

local ADDRESS = "127.0.0.1:6390"   -- where a worker listens that is told nothing

local cli = {}

local function say(...) io.stdout:write(concat({ ... }), "\n") end

local function complain(...) io.stderr:write("neap: ", concat({ ... }), "\n") end

-- ---- check -------------------------------------------------------------------------------------

local function counted(n, one, many)
  return ("%d %s"):format(n, n == 1 and one or many)
end

local function say_columns(rows)
  for _, line in ipairs(columns(rows)) do say(line) end
end

local PRINT = {}   -- how check tells that a policy is right

function PRINT.table(tree, path)
  local users = #tree.users > 0 and ", " .. counted(#tree.users, "user", "users") or ""
  say(show(path, 4096), ": ok, ", counted(#tree.policies, "policy", "policies"), users)
  local rows = {}
  for _, address in ipairs(tree.listen.resp) do rows[#rows + 1] = { "listen", address } end
  for _, address in ipairs(tree.listen.http) do rows[#rows + 1] = { "http", address } end
  say_columns(rows)
  rows = {}
  for _, declared in ipairs(tree.policies) do
    for _, row in ipairs(policy_rows.of(declared)) do rows[#rows + 1] = row end
  end
  say_columns(rows)
end

function PRINT.json(tree)
  say(policy.to_json(tree))
end

-- A file is checked in a process that has little time and memory, should the room of policies have
-- a hole.
local function bound(path)
  local words = ("neap: '%s': stopped after %d s of processor time\n"):format(show(path, 400),
    CHECK_S)
  if C.neap_bound(CHECK_S, CHECK_BYTES, words) ~= C.NEAP_OK then
    complain("the system refuses to bound this process, error ", ffi.errno())
  end
end

-- The tree of a file; or nil. Everything that is wrong with it is told, and what seems so. A file
-- may not take for ever, so it is read by a clock.
---@param options neap.policy.Options
---@param terse? boolean   only mistakes
local function load(path, options, terse)
  local rt = ev.new { waiters_max = 1 }
  options.clock = rt.now
  local fine, tree, mistakes, warnings = pcall(policy.load, path, options)
  rt.close()
  if not fine and tostring(tree):find("not enough memory", 1, true) then
    return complain("'", show(path, 4096), "': not enough memory")
  elseif not fine then
    error(tree, 0)
  end
  for _, list in ipairs { mistakes or {}, not terse and warnings or nil } do
    for _, mistake in ipairs(list) do io.stderr:write(tostring(mistake), "\n") end
  end
  return tree
end

-- How check tells what would change, coming from another file.
local function differ_from(path)
  bound(path)
  local old = load(path, {})
  return old and function (tree)
    say_columns(policy_diff.rows(policy_diff.compare(old, tree)))
  end
end

local function check(files, options)
  local print = PRINT[options.print or "table"]
  if not print or options.diff and options.print then
    complain(print and "--diff prints no " .. show(options.print, 40)
      or ("--print: 'table' or 'json' expected, got '%s'"):format(show(options.print, 40)))
    return USAGE
  end
  if options.diff then print = differ_from(options.diff) end
  if not print then return WRONG end
  local status = FINE
  if options.quiet then print = function () end end
  for _, path in ipairs(files) do
    bound(path)
    local tree = load(path, { strict = options.strict })
    if tree then print(tree, path) else status = WRONG end
  end
  return status
end

-- ---- run ---------------------------------------------------------------------------------------

-- What run was told beside the file; or nil, and it was told what is wrong.
local function run_options(options)
  local format, drain = options["log-format"], options.drain
  if format and format ~= "text" and format ~= "json" then
    complain("--log-format: 'text' or 'json' expected, got '", show(format, 40), "'")
    return nil
  end
  local drain_ns, problem
  if drain then drain_ns, problem = notation.duration(drain) end
  if problem then
    complain("--drain: ", problem)
    return nil
  end
  local every_ns
  if options["save-every"] then every_ns, problem = notation.duration(options["save-every"]) end
  if problem then
    complain("--save-every: ", problem)
    return nil
  end
  local folder = options.state or (os.getenv "STATE_DIRECTORY" or ""):match "^[^:]+"
  return { state = folder, save_every_ns = every_ns, listen = options.listen,
    http = options.http, verbose = options.verbose,
    log = options.log, log_format = format, drain_ns = drain_ns,
    virtual = options["virtual-clock"], watch = options.watch, host = {} }
end

local function run(files, options)
  options = run_options(options)
  if not options then return USAGE end
  local tree = load(files[1], { supported = policy.supported, host = options.host },
    not options.verbose)
  if not tree then return WRONG end
  options.policy = files[1]
  if not options.listen and not tree.listen.resp[1] then options.listen = { ADDRESS } end
  local ok, problem = require "neap.worker.life".run(tree, options)
  if not ok then
    complain(problem)
    return WRONG
  end
  return FINE
end

-- ---- inspect, top ------------------------------------------------------------------------------

local function show_segment(one)
  say(view.summary(one))
  say_columns(view.rows(one))
end

local function inspect(files, options)
  local list, problem = view.open(files)
  if not list then
    complain(problem)
    return WRONG
  end
  for _, one in ipairs(list) do
    if options.json then say(view.json(one)) else show_segment(one) end
  end
  return FINE
end

-- ---- the command line --------------------------------------------------------------------------

---@class neap.Verb
---@field files { [1]: integer, [2]: integer }   least and most
---@field what string?   what these are; policy files unless told
---@field options table<string, "flag"|"value"|"list">
---@field short table<string, string>?   of options, by a letter
---@field act fun(files: string[], options: table, complain: fun(...: string)): integer
---@field help string
local VERBS = {
  run = {
    files = { 1, 1 },
    options = { listen = "list", http = "list", verbose = "flag", log = "value",
      ["log-format"] = "value", drain = "value", watch = "flag", state = "value",
      ["save-every"] = "value", ["virtual-clock"] = "flag" },
    act = run,
    help = [[
usage: neap run [OPTION]… POLICY

Serve the limits of a policy file to any Redis client, and by HTTP where told, until SIGINT or
SIGTERM: then who waits is told so, and who holds something may give it back. A second one ends it
at once. SIGHUP reads the file anew and keeps what is used, held and waited for; one that is wrong
changes nothing. SIGQUIT logs a snapshot, SIGUSR1 opens the log's file anew.

  --listen ADDRESS   where, instead of what the file says; again for more: 127.0.0.1:6390
                     (unless told), [::1]:6390, localhost:0, unix:/run/neap.sock
  --http ADDRESS     where to speak HTTP, instead of what the file says: 127.0.0.1:9390. It has
                     /metrics /healthz /readyz /v1/check/POLICY /v1/release/LEASE
                     /v1/snapshot[/POLICY]
  --watch            read the file anew when it changes
  --state DIR        keep there what is used and held, for the next one ($STATE_DIRECTORY unless
                     told)
  --save-every DURATION  how often, if something happened: 5s (unless told)
  --drain DURATION   how long what is held may take to come back at the end: 30s (unless told)
  --log FILE         write the log there instead of on standard error
  --log-format text|json   text unless told: level event key=value…
  --verbose          log more
  --virtual-clock    for tests: time stands still, but for DEBUG CLOCK
]],
  },
  check = {
    files = { 1, 1000 },
    options = { print = "value", strict = "flag", diff = "value",
      quiet = "flag" },
    act = check,
    help = [[
usage: neap check [--print table|json | --diff OLD | --quiet] [--strict] POLICY…

Read policy files as run would, and tell all that is wrong with them. What is right is
printed in its canonical form: as a table, or one line of JSON for each file. Such JSON is a
policy file, too, but for its hooks.

  --print table|json   table unless told
  --diff OLD           print what becomes of each limit when a worker that runs the file OLD
                       reloads and finds this one
  --quiet              print nothing of what is right
  --strict             warnings are mistakes, too
]],
  },
}

VERBS.inspect = {
  files = { 1, 1000 }, what = "segment",
  options = { json = "flag" },
  act = inspect,
  help = [[
usage: neap inspect [--json] SEGMENT…

Look into segments (neap.segment): what limiters they have, and how it stands with each. A segment
is a name in /dev/shm, or a path. Nothing is written there.

  --json   one line of JSON for each
]],
}

VERBS.top = require "neap.cli.top"
VERBS.exec = require "neap.cli.exec"
VERBS.pace = require "neap.cli.pace"
VERBS.sim = require "neap.cli.sim"
VERBS.repl = require "neap.cli.repl"
VERBS.console = require "neap.cli.console"

local HELP = [[
usage: neap VERB …

neap decides when an outbound call may leave.

  run      serve the limits of a policy file to any Redis client
  check    read policy files and tell all that is wrong with them
  inspect  look into the limiters that processes share
  top      workers and segments, again and again
  exec     run a command under a permit of a worker
  pace     copy lines at the pace of a limit
  sim      run a policy in virtual time
  repl     a prompt with neap and the policies of a file
  console  a prompt for a running worker
  help     explain a verb

  --version   print the version
  --help      print this; after a verb, its options

Exit status: 0 fine; 1 something is wrong with a file, or the system refuses; 2 usage.
]]

local function words_of(set)
  local words = {}
  for word in pairs(set) do words[#words + 1] = word end
  sort(words)
  return words
end

local function misused(message, verb)
  complain(message)
  io.stderr:write("Try 'neap ", verb and verb .. " " or "", "--help'.\n")
  return USAGE
end

local function unknown(what, word, prefix, words)
  local near = notation.nearest(word, words)
  return ("unknown %s '%s%s'%s"):format(what, prefix, show(word, 40),
    near and (" (did you mean '%s%s'?)"):format(prefix, near) or "")
end

-- Sort a verb's arguments into files and options; or nil and what is wrong.
---@return string[]? files, table|string options
local function parse(args, from, verb)
  local files, options = {}, {}
  local i, only_files = from, false
  while args[i] do
    local word = args[i]
    local short = not only_files and verb.short and verb.short[word:match "^%-(%l)$"]
    if short then word = "--" .. short end
    local name, value = word:match "^%-%-([^=]+)=?(.*)$"
    if only_files or not word:find "^%-." then
      files[#files + 1] = word
    elseif word == "--" then
      only_files = true
    elseif word == "--help" or word == "-h" then
      return {}, { help = true }
    elseif not name or not verb.options[name] then
      local words = words_of(verb.options)
      words[#words + 1] = "help"
      local dashes, rest = word:match "^(%-+)([^=]*)"
      return nil, unknown("option", rest, dashes, words)
    else
      local kind, inline = verb.options[name], word:find("=", 1, true)
      if kind == "flag" and inline then return nil, "--" .. name .. " takes no value" end
      if kind ~= "flag" and not inline then
        i = i + 1
        value = args[i]
        if not value then return nil, "--" .. name .. " needs a value" end
      end
      if kind == "list" then
        options[name] = options[name] or {}
        options[name][#options[name] + 1] = value
      else
        options[name] = kind == "flag" or value
      end
    end
    i = i + 1
  end
  return files, options
end

local function help(word)
  if not word then
    io.stdout:write(HELP)
  elseif VERBS[word] then
    io.stdout:write(VERBS[word].help)
  else
    return misused(unknown("verb", word, "", words_of(VERBS)))
  end
  return FINE
end

--- What the program does.
---@param args string[]  as C has them: [0] is the program
---@return integer status
function cli.main(args)
  local word = args[1]
  if not word then
    io.stderr:write(HELP)
    return USAGE
  elseif word == "--version" or word == "-V" then
    say("neap ", ffi.string(C.neap_version))
    return FINE
  elseif word == "--help" or word == "-h" or word == "help" then
    return help(args[2])
  end
  local verb = VERBS[word]
  if not verb then
    local known = words_of(VERBS)
    known[#known + 1] = "help"
    local dashes, rest = word:match "^(%-*)(.*)$"
    if dashes == "" then return misused(unknown("verb", word, "", known)) end
    return misused(unknown("option", rest, dashes, { "help", "version" }))
  end

  local files, options = parse(args, 2, verb)
  if not files then return misused(options, word) end
  if options.help then return help(word) end
  local least, most = verb.files[1], verb.files[2]
  local what = verb.what or "policy file"
  if #files < least then return misused("a " .. what .. " is missing", word) end
  if #files > most then
    return misused(("one %s expected, also got '%s'"):format(what, show(files[most + 1], 80)), word)
  end
  return verb.act(files, options, complain)
end

return cli
