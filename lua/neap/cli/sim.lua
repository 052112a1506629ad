--- `neap sim`: policies and the engine in virtual time.
local experiment = require "neap.sim.experiment"
local notation = require "neap.notation"
local report = require "neap.sim.report"

local ipairs, tonumber = ipairs, tonumber
local concat = table.concat

local FINE, WRONG, USAGE = 0, 1, 2
local SHOWN = 60   -- characters of what a progress line says

local function whole(name, text, otherwise, most)
  if not text then return otherwise end
  local n = text:find "^%d+$" and tonumber(text)
  if n and n <= most then return n end
  return nil, ("--%s: a whole number up to %.0f expected, got '%s'"):format(name, most,
    notation.show(text, 40))
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

local function experiments(options, seed, complain)
  local names = { options.experiment }
  if options.experiment == "all" then
    names = experiment.NAMES
  elseif not experiment.find(options.experiment) then
    complain((notation.suggest(("--experiment: no '%s': there are %s and all"):format(
      notation.show(options.experiment, 40), concat(experiment.NAMES, ", ")), options.experiment,
      experiment.NAMES)))
    return USAGE
  end
  local status, show = FINE, progress_line()
  for i, name in ipairs(names) do
    local outcome = experiment.run(name, { seed = seed, progress = function (text)
      show(name .. ": " .. text)
    end })
    show()
    io.stdout:write(i > 1 and "\n" or "", report.experiment(outcome, seed))
    io.stdout:flush()
    if not outcome.fine then status = WRONG end
  end
  return status
end

---@type neap.Verb
local verb = {
  files = { 0, 0 }, what = "file",
  options = { experiment = "value", seed = "value" },
  help = [[
usage: neap sim --experiment NAME [--seed N]

Run the engine in virtual time against results that are exact or were published, and say whether it
is within the stated tolerance of them.

  --experiment NAME   policer     loss of a bucket under random calls (M/D/1/K)
                      md1         waits for an even pace (M/D/1), and for bursts
                      erlang      slots: losses and waits (Erlang B and C)
                      aws-jitter  five ways to pause before trying again
                      retry-budget, metastable   what repeats do to a server, and what helps
                      adaptive    a limit that is found out settles, and follows
                      windows     the most that goes in any window
                      all
  --seed N            other chances, 1 unless told; the same seed says the same

Exit status: 0 within its tolerance; 1 not; 2 usage.
]],
}

function verb.act(_, options, complain)
  local seed, problem = whole("seed", options.seed, 1, 2 ^ 53 - 1)
  if not seed then
    complain(problem)
    return USAGE
  elseif not options.experiment then
    complain "--experiment is missing"
    return USAGE
  end
  return experiments(options, seed, complain)
end

return verb
