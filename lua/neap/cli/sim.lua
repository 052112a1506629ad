--- `neap sim`: policies and the engine in virtual time.
local experiment = require "neap.sim.experiment"
local expression = require "neap.sim.expression"
local figure = require "neap.sim.figure"
local notation = require "neap.notation"
local policies = require "neap.sim.policies"
local policy = require "neap.policy"
local report = require "neap.sim.report"
local runs = require "neap.sim.runs"
local scenario = require "neap.sim.scenario"

local ipairs, os, pcall, tonumber, tostring = ipairs, os, pcall, tonumber, tostring
local concat = table.concat
local show = notation.show

local FINE, WRONG, USAGE, UNTRUE = 0, 1, 2, 3
local SHOWN, BAR = 60, 30     -- characters of a progress line, and of its bar
local PLOT = 72
local PROCESSES_MAX = 256

local function whole(name, text, otherwise, least, most)
  if not text then return otherwise end
  local n = text:find "^%d+$" and tonumber(text)
  if n and n >= least and n <= most then return n end
  return nil, ("--%s: a whole number from %d to %.0f expected, got '%s'"):format(name, least, most,
    show(text, 40))
end

local function is_terminal(descriptor)
  local asked = os.execute("test -t " .. descriptor)
  return asked == 0 or asked == true
end

--- A line on standard error that says how far it is, on a terminal.
---@return fun(text: string?)  nil: it goes
local function progress_line()
  if not is_terminal(2) then return function () end end
  return function (text)
    io.stderr:write("\r\27[K", text and text:sub(1, SHOWN) or "")
    io.stderr:flush()
  end
end

-- ---- experiments ------------------------------------------------------------------------------

local function experiments(options, seed, complain)
  local names = { options.experiment }
  if options.experiment == "all" then
    names = experiment.NAMES
  elseif not experiment.find(options.experiment) then
    complain((notation.suggest(("--experiment: no '%s': there are %s and all"):format(
      show(options.experiment, 40), concat(experiment.NAMES, ", ")), options.experiment,
      experiment.NAMES)))
    return USAGE
  end
  local status, line = FINE, progress_line()
  for i, name in ipairs(names) do
    local outcome = experiment.run(name, { seed = seed, progress = function (text)
      line(name .. ": " .. text)
    end })
    line()
    io.stdout:write(i > 1 and "\n" or "", report.experiment(outcome, seed))
    io.stdout:flush()
    if not outcome.fine then status = WRONG end
  end
  return status
end

-- ---- scenarios --------------------------------------------------------------------------------

local function load_policies(path, verbose)
  local host = policies.host(verbose and function (text) io.stderr:write(text, "\n") end)
  local tree, mistakes = policy.load(path, { clock = os.clock, host = host })
  for _, mistake in ipairs(mistakes or {}) do io.stderr:write(tostring(mistake), "\n") end
  return tree
end

--- The policy of a file that a scenario means.
local function policy_for(tree, of, path)
  if not of.policy then
    if tree.policies[1] and not tree.policies[2] then return tree.policies[1] end
    return nil, ("%s:%d: policy: '%s' has %d policies: say which"):format(of.file, of.line,
      show(path, 200), #tree.policies)
  end
  local names = {}
  for i, each in ipairs(tree.policies) do
    if each.name == of.policy then return each end
    names[i] = each.name
  end
  return nil, (notation.suggest(("%s:%d: policy: no policy '%s' in '%s'"):format(of.file, of.line,
    show(of.policy, 80), show(path, 200)), of.policy, names))
end

local function write_file(path, text)
  local file, problem = io.open(path, "wb")
  if not file then return nil, problem end
  local written
  written, problem = file:write(text)
  local closed, other = file:close()
  if written and closed then return true end
  return nil, problem or other
end

local function bar(share)
  local full = math.floor(share * BAR)
  return ("[%s%s] %3.0f %%"):format(("#"):rep(full), ("."):rep(BAR - full), share * 100)
end

--- Run one scenario under a policy of a file.
local function run(of, tree, path, given)
  local declared, problem = policy_for(tree, of, path)
  if not declared then return nil, problem end
  local before = os.time()
  local fine, result = pcall(runs.all, of, declared, { file = path, seed = given.seed,
    processes = given.processes, progress = function (share)
      if os.time() > before then given.line(bar(share) .. " " .. of.name) end
    end })
  given.line()
  if fine then return result, declared.name end
  return nil, ("%s:%d: %s"):format(of.file, of.line, (tostring(result):gsub("^%S-%.lua:%d+: ", "")))
end

--- Numbered from the second on, for several scenarios: "wait.svg", "wait-2.svg".
local function numbered(path, i)
  if i == 1 then return path end
  local stem, tail = path:match "^(.*)(%.[^./]*)$"
  return ("%s-%d%s"):format(stem or path, i, tail or "")
end

local function save(options, i, title, result)
  for _, kind in ipairs { "svg", "csv" } do
    if options[kind] then
      local text = kind == "svg" and figure.svg(title, result) or report.csv(result)
      local written, problem = write_file(numbered(options[kind], i), text)
      if not written then return problem end
    end
  end
end

local function check(asserts, result, of, complain)
  local status = FINE
  for _, each in ipairs(asserts) do
    if not each.holds(result.mean) then
      complain(("%s: %s does not hold"):format(of.name, each.text))
      status = UNTRUE
    end
  end
  return status
end

--- What is asserted, read; or nil and what is wrong.
local function read_asserts(texts)
  local known, asserts = { run = true }, {}
  for _, row in ipairs(report.ROWS) do known[row[1]] = true end
  for _, name in ipairs { "events", "mean_latency", "p90_wait", "waited" } do known[name] = true end
  for i, text in ipairs(texts or {}) do
    local holds, message = expression.read(text, known)
    if not holds then return nil, ("--assert '%s': %s"):format(show(text, 80), message) end
    asserts[i] = { text = text, holds = holds }
  end
  return asserts
end

local function title_of(of, name, seed)
  return ("%s: policy '%s', %s%s, seed %d"):format(of.name, name,
    notation.format_duration(of.run_ns), of.times > 1 and (", %d times"):format(of.times) or "",
    seed)
end

local function scenarios(files, options, given, complain)
  local tree = load_policies(files[1], options.verbose)
  local other = options.against and load_policies(options.against, options.verbose)
  local list, problems = scenario.load(files[2])
  for _, text in ipairs(problems or {}) do io.stderr:write(text, "\n") end
  if not tree or not list or options.against and not other then return WRONG end
  local status = FINE
  for i, of in ipairs(list) do
    local result, name = run(of, tree, files[1], given)
    local second, second_name
    if result and other then second, second_name = run(of, other, options.against, given) end
    if not result or other and not second then
      complain(result and second_name or name)
      return WRONG
    end
    local title = title_of(of, name, given.seed)
    io.stdout:write(i > 1 and "\n" or "")
    if second then
      io.stdout:write(report.against(title, { files[1], options.against }, result, second))
    else
      io.stdout:write(report.scenario(title, result))
    end
    if given.plots then io.stdout:write("\n", report.plot(result, PLOT)) end
    io.stdout:flush()
    local problem = save(options, i, title, result)
    if problem then
      complain(problem)
      return WRONG
    end
    local checked = check(given.asserts, result, of, complain)
    if checked ~= FINE then status = checked end
  end
  return status
end

---@type neap.Verb
local verb = {
  files = { 0, 2 }, what = "policy and a scenario",
  options = { experiment = "value", seed = "value", svg = "value", csv = "value",
    assert = "list", against = "value", processes = "value", plot = "flag",
    verbose = "flag" },
  help = [[
usage: neap sim [--seed N] [--svg FILE] [--csv FILE] [--assert EXPR]… [--against POLICY]
                [--processes N] [--plot] [--verbose] POLICY SCENARIO
       neap sim --experiment NAME [--seed N]

Run a policy in virtual time, in the scenarios of a file: what comes, whose it is, what it meets.
Or run the engine against results that are exact or were published.

  --svg FILE        draw how it went; further scenarios go to FILE with -2 and so on in its name
  --csv FILE        the same as numbers
  --assert EXPR     exit with 3 unless it holds: 'p99_wait < 2s and refused_share <= 1%'. Names
                    are those that are printed
  --against POLICY  run that one, too, with the same arrivals, and tell the difference, with its
                    95 % interval if there are several runs
  --processes N     run so many of several runs at once; as many as there are processors unless
                    told
  --plot            draw on standard output, as on a terminal
  --verbose         print what hooks log
  --experiment NAME   policer     loss of a bucket under random calls (M/D/1/K)
                      md1         waits for an even pace (M/D/1), and for bursts
                      erlang      slots: losses and waits (Erlang B and C)
                      aws-jitter  five ways to pause before trying again
                      retry-budget, metastable   what repeats do to a server, and what helps
                      adaptive    a limit that is found out settles, and follows
                      windows     the most that goes in any window
                      all
  --seed N          other chances, 1 unless told; the same seed says the same

Exit status: 0 fine; 1 a file is wrong, or an experiment not within its tolerance; 2 usage; 3 what
is asserted does not hold.
]],
}

local function misused(files, options)
  if options.experiment then
    for _, name in ipairs { "svg", "csv", "assert", "against", "processes", "plot", "verbose" } do
      if options[name] then return ("--%s is for scenarios"):format(name) end
    end
    return files[1] and "--experiment needs no file"
  end
  return not files[1] and "a policy and a scenario are missing"
    or not files[2] and "a scenario is missing"
end

function verb.act(files, options, complain)
  local seed, problem = whole("seed", options.seed, 1, 0, 2 ^ 32)
  local processes, asserts, message
  if seed then
    processes, problem = whole("processes", options.processes, false, 1, PROCESSES_MAX)
  end
  asserts, message = read_asserts(options.assert)
  problem = problem or message or misused(files, options)
  if problem then
    complain(problem)
    return USAGE
  end
  if options.experiment then return experiments(options, seed, complain) end
  return scenarios(files, options, { seed = seed, processes = processes or nil, asserts = asserts,
    line = progress_line(), plots = options.plot or is_terminal(1) }, complain)
end

return verb
