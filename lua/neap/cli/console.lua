--- `neap console`: a worker at a prompt. Its policies are looked at and asked there; copies of them
--- are here, on the bench that `neap repl` has, in time that stands.
local attached = require "neap.cli.attached"
local bench = require "neap.cli.bench"
local clock = require "neap.cli.clock"
local explain = require "neap.cli.explain"
local neap = require "neap"
local prompt = require "neap.cli.prompt"
local runtime = require "neap.runtime"
local show = require "neap.cli.show"
local views = require "neap.cli.views"

local getenv, io, ipairs, pairs, type = os.getenv, io, ipairs, pairs, type

local FINE, WRONG = 0, 1
local ADDRESS = "127.0.0.1:6390"
local NAME = "^[%a_][%w_]*$"

local HELP = [[
An entry is Lua: an expression, whose value is shown, or statements. The variables are neap,
policies and each policy of the worker by its name; _ is the last answer. help(x) says more of
anything. Of the worker:

%s

Of copies, which are here, and whose time stands until it is told to move:

%s

  :jit on, :jit off   compile, and do not hear Ctrl-C; or not
  :quit, or the end of input]]

--- Verbs for both: of a worker's policy and of a copy.
local function both(worker, a_bench, name)
  local there, here = attached.VERBS[name], bench.VERBS[name]
  return explain.as(function (what, ...)
    if type(what) == "string" or attached.is_remote(what) then return there(worker, what, ...) end
    return here(a_bench, what, ...)
  end, there)
end

local function variables(self, worker, a_bench)
  local env = self.env
  env.neap = neap
  for name, verb in pairs(bench.verbs(a_bench)) do env[name] = verb end
  for name, verb in pairs(attached.VERBS) do
    env[name] = bench.VERBS[name] and both(worker, a_bench, name)
      or explain.as(function (...) return verb(worker, ...) end, verb)
  end
  local policies = views.policies()
  for _, name in ipairs(worker.names) do
    policies[name] = worker:policy(name)
    if name:find(NAME) and env[name] == nil then env[name] = policies[name] end
  end
  env.policies = policies
  env.help = prompt.helper(self)
end

local function help()
  local here = {}
  for name, verb in pairs(bench.VERBS) do
    if not attached.VERBS[name] then here[name] = verb end
  end
  return HELP:format(explain.list(attached.VERBS), explain.list(here))
end

---@type neap.Verb
local verb = {
  files = { 0, 1 }, what = "address",
  options = { user = "value", command = "value" },
  short = { c = "command" },
  help = [[
usage: neap console [--user NAME] [--command LUA] [ADDRESS]

A prompt for a running worker: how its policies stand, what a call would meet and why, events as
they come, and copies of policies to try other limits with. Nothing that is tried is taken there.

  --user NAME     log in with this name and the password in NEAP_PASSWORD
  --command LUA   run this entry and end; also -c

The worker is at ADDRESS; at NEAP_ADDRESS, or 127.0.0.1:6390, unless told.

Exit status: 0; 1 an entry failed, or there is no worker; 2 usage.
]],
}

function verb.act(files, options, complain)
  local its_clock = clock.virtual()
  runtime.use(its_clock.rt)
  local a_bench = bench.new(its_clock)
  local address = files[1] or getenv "NEAP_ADDRESS" or ADDRESS
  local worker, problem = attached.new(address, options.user, a_bench)
  if not worker then
    complain(problem)
    return WRONG
  end
  local self = prompt.new {
    env = {}, history = "history", help = help, idle = function () return -1 end,
    news = function () return a_bench:tell() end,
    label = function ()
      local now = neap.now()
      return ("%s%s> "):format(address, now > 0 and " +" .. show.duration(now) or "")
    end,
    policies = function () return worker.names end,
    said = function () return { "priority" } end,
  }
  worker.check = function () self:check() end
  variables(self, worker, a_bench)
  if options.command then return self:once(options.command) and FINE or WRONG end
  self:attach()
  a_bench.signals = self.signals
  if self.editor then
    io.stdout:write("neap: attached to ", address, "; help() says what there is\n")
  end
  return self:go() and FINE or WRONG
end

return verb
