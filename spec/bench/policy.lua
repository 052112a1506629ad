--- What it costs to check a policy file: 1,000 policies of six fields each, written out, and as
--- many from a loop, beside what Lua alone takes to read and run the same text. Under 200 ms of
--- processor time, each.
local policy = require "neap.policy"
local race = require "spec.bench.race"

local COUNT, ROUNDS, MOST_MS = 1000, 7, 200

local FIELDS = [[{
  limits  = { requests = "500/min burst 60", input = "200k/min burst 40k", calls = "64 in flight" },
  lease   = { ttl = "10min", settle = "input" },
  queue   = { max = 200, timeout = "5s", fair = "tenant" },
  breaker = { trip = "50% of 20 in 30s", cooldown = "15s" },
  retry   = { backoff = "200ms x2 cap 20s jitter full", budget = "10%" },
  per "tenant" { requests = "60/min burst 10" },
}]]

local written = {}
for i = 1, COUNT do written[i] = ('policy "p%d" %s'):format(i, FIELDS) end

local TEXTS = {
  written = table.concat(written, "\n"),
  looped = ("for i = 1, %d do\npolicy('p' .. i) %s\nend"):format(COUNT, FIELDS),
}

-- The same text with declarations that do nothing.
local function run_bare(text)
  local function nothing() return nothing end
  setfenv(assert(loadstring(text)), { policy = nothing, per = nothing })()
end

local function time(f, text)
  collectgarbage()
  local start = os.clock()
  f(text)
  return os.clock() - start
end

for _, name in ipairs { "written", "looped" } do
  local times, text = { checked = {}, bare = {} }, TEXTS[name]
  for round = 1, ROUNDS do
    times.bare[round] = time(run_bare, text)
    times.checked[round] = time(function () assert(policy.parse(text, "p.lua")) end, text)
  end
  race.report(times, COUNT, "checked", "bare", "policy_" .. name, "lua")
  local ms = race.median(times.checked) * 1000
  race.line("policies_" .. name, ms, "ms/1000", ms / MOST_MS, MOST_MS .. "ms", "<=1")
end
