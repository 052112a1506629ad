--- `neap repl`: the library and a policy file at a prompt.
local C = require "neap.engine"
local bench = require "neap.cli.bench"
local clock = require "neap.cli.clock"
local explain = require "neap.cli.explain"
local neap = require "neap"
local policy = require "neap.policy"
local prompt = require "neap.cli.prompt"
local runtime = require "neap.runtime"
local show = require "neap.cli.show"

local io, ipairs, pairs, pcall, tonumber, tostring = io, ipairs, pairs, pcall, tonumber, tostring
local max, min = math.max, math.min

local FINE, WRONG = 0, 1
local NAME = "^[%a_][%w_]*$"
local LOOK_MS = 1000        -- and so often at what other processes do, when somebody waits

--- A file's policies; or nil, when what is wrong with it was told.
local function load(path)
  local tree, mistakes, warnings = policy.load(path)
  for _, list in ipairs { mistakes or {}, warnings } do
    for _, mistake in ipairs(list) do io.stderr:write(tostring(mistake), "\n") end
  end
  return tree
end

--- What calls can say: costs and whom they are for.
local function said(a_bench)
  local names, seen = {}, {}
  local function add(name)
    if not seen[name] then names[#names + 1] = name end
    seen[name] = true
  end
  for _, one in pairs(a_bench.policies) do
    for _, name in ipairs(one.costs) do add(name) end
    for name in pairs(one.opened.names) do add(name) end
  end
  for _, name in ipairs { "timeout", "deadline", "priority" } do add(name) end
  return names
end

local HELP = [[
An entry is Lua: an expression, whose value is shown, or statements. The variables are neap,
policies and each policy by its name; _ is the last answer. help(x) says more of anything.

%s

  :jit on, :jit off   compile, and do not hear Ctrl-C; or not
  :quit, or the end of input]]

local function variables(self, a_bench)
  local env = self.env
  env.neap = neap
  for name, verb in pairs(bench.verbs(a_bench)) do env[name] = verb end
  for name, one in pairs(a_bench.policies) do
    if name:find(NAME) and env[name] == nil then env[name] = one end
  end
  env.policies = a_bench.policies
  env.help = prompt.helper(self, a_bench)
end

--- Let what was spawned go on while nobody types.
local function idle_of(its_clock, self)
  return function ()
    local rt = its_clock.rt
    if its_clock.virtual then return -1 end
    self.running = false
    for _ = 1, 2 do            -- who is let go by one runs in the next
      local fine, problem = pcall(rt.turn, 0)
      if not fine then io.stderr:write("neap: ", tostring(problem), "\n") end
    end
    if not its_clock.is_idle() then return 0 end
    local due = C.neap_engine_next_due(rt.engine)
    if due >= C.neap_horizon then return -1 end
    return max(1, min(LOOK_MS, tonumber((due - rt.now_ns()) / 1000000) + 1))
  end
end

---@type neap.Verb
local verb = {
  files = { 0, 1 },
  options = { virtual = "flag", command = "value" },
  short = { c = "command" },
  help = [[
usage: neap repl [--virtual] [--command LUA] [POLICY]

A prompt with neap and the policies of a file: try calls, ask why not, see who would go when. Lines
are edited at a terminal, with a history and completion; from a pipe they are read as they come.

  --virtual       time stands, from 0 on, until it is told to move: advance "30s"
  --command LUA   run this entry and end; also -c

    printf 'return try("openai")\n' | neap repl policy.lua

Exit status: 0; 1 an entry failed, or the policy file is wrong; 2 usage.
]],
}

function verb.act(files, options)
  local tree
  if files[1] then
    tree = load(files[1])
    if not tree then return WRONG end
  end
  local self
  local its_clock = options.virtual and clock.virtual() or clock.real(function () self:check() end)
  runtime.use(its_clock.rt)
  local fine, a_bench = pcall(bench.new, its_clock, tree, files[1])
  if not fine then
    io.stderr:write("neap: ", tostring(a_bench), "\n")
    return WRONG
  end
  self = prompt.new {
    env = {}, history = "history", news = function () return a_bench:tell() end,
    label = function ()
      return options.virtual and ("neap %s> "):format(show.duration(neap.now())) or "neap> "
    end,
    policies = function () return a_bench.names end,
    said = function () return said(a_bench) end,
    help = function () return HELP:format(explain.list(bench.VERBS)) end,
  }
  self.idle = idle_of(its_clock, self)
  variables(self, a_bench)
  if options.command then return self:once(options.command) and FINE or WRONG end
  self:attach()
  a_bench.signals = self.signals
  if self.editor then io.stdout:write "neap: help() says what there is; Ctrl-D ends\n" end
  return self:go() and FINE or WRONG
end

return verb
