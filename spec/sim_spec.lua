-- Scenarios: how they are written, what they come to, and `neap sim` as people meet it.
local expression = require "neap.sim.expression"
local live = require "neap.policy.live"
local manual = require "neap.runtime.manual"
local neap = require "neap"
local policies = require "neap.sim.policies"
local policy = require "neap.policy"
local runs = require "neap.sim.runs"
local runtime = require "neap.runtime"
local scenario = require "neap.sim.scenario"
local trace = require "neap.sim.trace"
local words = require "neap.sim.words"
local world = require "neap.sim.world"

local BIN = (os.getenv "NEAP_BUILD" or "build") .. "/bin/neap"
local S = 1e9

local paths = {}

local function file(text, tail)
  local path = os.tmpname()
  paths[#paths + 1] = path
  if tail then
    path = path .. tail
    paths[#paths + 1] = path
  end
  local out = assert(io.open(path, "w"))
  out:write(text)
  out:close()
  return path
end

local function read(path)
  local from = assert(io.open(path))
  local text = from:read "*a"
  from:close()
  return text
end

local function quoted(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

-- Standard output, standard error and exit status of `neap sim`.
local function sim(...)
  local list = { quoted(BIN), "sim" }
  for _, word in ipairs { ... } do list[#list + 1] = quoted(word) end
  local errors = file ""
  local pipe = assert(io.popen(table.concat(list, " ") .. " 2>" .. errors .. "; echo $?"))
  local out, status = pipe:read "*a":match "^(.-)(%d+)\n$"
  pipe:close()
  return out, read(errors), tonumber(status)
end

local POLICY = [[
policy "front" {
  limits = { calls = "80 in flight" },
  queue = { max = 500, timeout = "500ms" },
}
]]
local SCENARIO = [[
scenario "spike" {
  arrive     = "poisson 40/s, 80/s from 5s to 8s",
  call       = { timeout = "3s", retry = "3 tries" },
  downstream = "delay 1s + 10ms per in flight, wire exp 100ms",
  run        = "20s, 3 times",
}
]]

after_each(function ()
  for _, path in ipairs(paths) do os.remove(path) end
  paths = {}
end)

describe("the words of a scenario", function ()
  local function refuses(expected, what, text)
    local value, message = words[what](text)
    assert.is_nil(value)
    assert.equal(expected, message)
  end

  it("say what comes", function ()
    assert.same({ kind = "poisson", pieces = { { from = 0, rate = 40 },
      { from = 20 * S, rate = 80 }, { from = 25 * S, rate = 40 } } },
      words.arrive "poisson 40/s, 80/s from 20s to 25s")
    assert.same({ kind = "constant", pieces = { { from = 0, rate = 0.5 } } },
      words.arrive "constant 1/2s")
    assert.same({ kind = "ramp", points = { { from = 0, rate = 1 }, { from = 10 * S, rate = 2 },
      { from = 70 * S, rate = 0 } } }, words.arrive "ramp 60/min to 2/s over 10s, to 0/s over 1min")
    assert.same({ kind = "burst", count = 50, every = 10 * S }, words.arrive "burst 50 every 10s")
    assert.same({ kind = "closed", clients = 9, think = { kind = "exp", mean = S } },
      words.arrive "closed 9 clients think exp 1s")
    assert.same({ kind = "trace", file = "a log.txt" }, words.arrive "trace a log.txt")
  end)

  it("say what it meets", function ()
    assert.same({ service = { kind = "fixed", value = S }, per_call_ns = 1e7,
      wire = { kind = "exp", mean = 1e8 } },
      words.downstream "delay 1s + 10ms per in flight, wire exp 100ms")
    local of = words.downstream 'lognormal 200ms p99 900ms, slots 20 queue 5, slots 10 from 1min, '
    assert.is_nil(of)
    of = words.downstream 'lognormal 200ms p99 900ms, slots 20 queue 5, slots 10 from 1min, fail 5%'
    assert.same({ kind = "lognormal", median = 2e8, p99 = 9e8 }, of.service)
    assert.same({ { from = 0, rate = 20 }, { from = 60 * S, rate = 10 } }, of.slots)
    assert.same({ 5, { { from = 0, rate = 0.05 } } }, { of.places, of.fail })
    of = words.downstream 'limit "500/min burst 5" reply 429, fail 50% from 1s to 2s'
    assert.same({ 500, 5 }, { of.limit.amount, of.limit.burst })
    assert.same({ { from = 0, rate = 0 }, { from = S, rate = 0.5 }, { from = 2 * S, rate = 0 } },
      of.fail)
  end)

  it("say who repeats it, how often it is run, and whose it is", function ()
    local of = words.retry "5 tries, 200ms x2 cap 20s jitter full, budget 10%, ignore retry-after"
    assert.same({ 5, 2e8, "full", 0.1, true }, { of.tries, of.backoff.base_ns, of.backoff.jitter,
      of.budget, of.ignores })
    assert.same({ run_ns = 80 * S, times = 20 }, words.run "80s, 20 times")
    assert.same({ run_ns = 3600 * S, times = 1 }, words.run "1h")
    assert.same({ count = 20, zipf = 1.1 }, words.whose "20 zipf 1.1")
    assert.same({ names = { { name = "acme", weight = 50 }, { name = "b", weight = 30 } } },
      words.whose "acme 50%, b 30%")
    assert.same({ kind = "fixed", value = 3 }, words.amounts(3))
  end)

  it("are refused with what is wrong", function ()
    refuses([[expected "poisson", "constant", "ramp", "burst", "closed" or "trace", got 'poison' ]]
      .. "(did you mean 'poisson'?)", "arrive", "poison 4/s")
    refuses("unknown time unit 'q'", "arrive", "poisson 4/q")
    refuses("clients have to think for longer than 0s", "arrive", "closed 5 clients think 0s")
    refuses("at least 1 call, and not all at one instant", "arrive", "burst 5 every 0s")
    refuses("at least 1 call, and not all at one instant", "arrive", "burst 0 every 1s")
    refuses("the median is above 0, p99 above it", "downstream", "lognormal 2s p99 1s")
    refuses("at most 1e7 calls a second", "arrive", "poisson 1/ns")
    refuses("'to' before 'from'", "arrive", "poisson 4/s, 5/s from 3s to 2s")
    refuses("expected a part of a downstream, got 'dely' (did you mean 'delay'?)", "downstream",
      "dely 1s")
    refuses("unknown time unit 'mn' (did you mean 'min'?)", "downstream", 'limit "500/mn"')
    refuses([[expected "times", got 'time']], "run", "80s, 20 time")
  end)

  it("are read from a file, all of what is wrong at once", function ()
    local path = file 'scenario "a" {\n  arive = "poisson 1/s",\n  run = "1 parsec",\n}'
    local list, problems = scenario.load(path)
    assert.is_nil(list)
    assert.same({
      path .. ":1: arive: unknown field 'arive' (did you mean 'arrive'?)",
      path .. ":1: run: bad run \"1 parsec\": unknown time unit 'parsec'",
      path .. ":1: arrive: is missing: arrive = \"poisson 40/s\"",
    }, problems)
    list, problems = scenario.load(file "local x = ")
    assert.is_nil(list)
    assert.matches(":1: unexpected symbol near '<eof>'", problems[1])
    list, problems = scenario.load "/no/such/file"
    assert.is_nil(list)
    assert.matches("No such file", problems[1])
    for _, text in ipairs { "os.exit(7)", "require 'os'", "io.open 'x'" } do
      assert.is_nil((scenario.load(file(text))))
    end
  end)
end)

describe("a trace", function ()
  local function times(text)
    local list, message = trace.read(file(text))
    if not list then return message end
    for i, at in ipairs(list) do list[i] = at / S end
    return list
  end

  it("has seconds, from its first", function ()
    assert.same({ 0, 0.25, 2 }, times "time,key\n10,a\n10.25,b\n12,c\n")
    assert.same({ 0, 1 }, times "# a comment\n4\n3\n")
  end)

  it("is an access log, whose seconds are spread", function ()
    assert.same({ 0, 0.5, 1, 3601 }, times(
      '1.2.3.4 - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.0" 200 9\n'
      .. '1.2.3.4 - - [10/Oct/2000:13:55:36 +0000] "GET / HTTP/1.0" 200 9\n'
      .. '1.2.3.4 - - [10/Oct/2000:15:55:37 +0200] "GET / HTTP/1.0" 200 9\n'
      .. '1.2.3.4 - - [10/Oct/2000:14:55:37 +0000] "GET / HTTP/1.0" 200 9\n'))
    assert.same({ 0, 1.5, 86400 }, times("2024-02-28T23:59:59.000Z GET /\n"
      .. "2024-02-29T00:00:00.500Z GET /\n2024-02-29T23:59:59.000Z GET /\n"))
  end)

  it("is refused where a line has no time", function ()
    assert.matches(":2: no time in this line", times "1\nhello\n")
    assert.matches("no calls", times "")
  end)
end)

describe("an assertion", function ()
  local known = { p99_wait = true, refused_share = true, good = true, offered = true }
  local function holds(text)
    local read_one, message = expression.read(text, known)
    if not read_one then return message end
    return read_one { p99_wait = 1.5, refused_share = 0.02, good = 90, offered = 100 }
  end

  it("compares, computes, and joins", function ()
    for text, truth in pairs {
      ["p99_wait < 2s"] = true, ["p99_wait < 1500ms"] = false, ["p99_wait <= 1s500ms"] = true,
      ["refused_share <= 2%"] = true,
      ["refused_share < 2%"] = false, ["good / offered > 0.9"] = false,
      ["good + 1 > 0.9 * offered and not (p99_wait == 0)"] = true,
      ["good > 99 or offered ~= 99 and good == 90"] = true, ["-good < 0"] = true,
      ["(good - 10) * 2 == 160"] = true, ["(good > 1) and (good < 2)"] = false,
      ["good - 10 - 10 == 70"] = true, ["not good > 100"] = true,
    } do assert.equal(truth, holds(text), text) end
  end)

  it("is refused when it is none", function ()
    assert.equal("unknown name 'p9_wait' (did you mean 'p99_wait'?)", holds "p9_wait < 2s")
    assert.matches("expected", holds "good")
    assert.matches("expected", holds "good <")
    assert.matches("expected", holds "good < 1 and")
    assert.matches("time unit", holds "good < 1parsec")
  end)
end)

describe("a policy in a world", function ()
  local function tree_of(text, host)
    local tree, mistakes = policy.load(file(text), { host = host })
    return assert(tree, mistakes and tostring(mistakes[1]))
  end

  local function run(policy_text, scenario_text, seed)
    local tree = tree_of(policy_text, policies.host())
    local list, problems = scenario.load(file(scenario_text))
    assert(list, problems and problems[1])
    return runs.all(list[1], tree.policies[1], { seed = seed or 1, processes = 1 })
  end

  -- When each call is granted, by the library's own waiting on the manual clock.
  local function by_hand(declared, times, by, timeout_s)
    local before, list = runtime.use(manual.new()), {}
    local one = assert(live.new(declared))
    neap.run(function ()
      for i, at in ipairs(times) do
        neap.spawn(function ()
          neap.sleep(at)
          local permit = one:acquire { tenant = by[i], timeout = timeout_s }
          if not permit then return end
          list[#list + 1] = ("%.9f"):format(neap.now())
          neap.sleep(0.2)
          permit:give "success"
        end)
      end
    end)
    runtime.use(before)
    return list
  end

  it("lets the same calls go at the same instants as it does live", function ()
    local tree = tree_of [[
      policy "p" {
        limits = { requests = "20/s burst 5", calls = "6 in flight" },
        per "tenant" { requests = "9/s burst 3" },
        queue = { max = 12, timeout = "700ms", fair = "tenant" },
      } ]]
    local random, times, by, lines, at = neap.backoff("1s jitter full", nil), {}, {}, {}, 0
    random = random:sequence(5)
    for i = 1, 300 do
      at = at + random() * 0.07
      times[i] = math.floor(at * 1e9 + 0.5) / 1e9
      lines[i] = ("%.9f"):format(times[i])
      by[i] = "tenant-1"
    end
    local offset = times[1]
    for i = 1, 300 do times[i] = times[i] - offset end
    local path = file(table.concat(lines, "\n"))
    local list = assert(scenario.load(file(([[scenario "s" { arrive = "trace %s",
      call = { by = { tenant = 1 }, timeout = "10s" }, downstream = "200ms", run = "60s" }]])
      :format(path))))
    local model, seen = scenario.model(list[1], tree.policies[1], {}, {}), {}
    local gate_of = model.gate
    function model.gate(seed)
      local gate = gate_of(seed)
      local over = gate.over
      function gate.over(request, how, retry_ns, granted)
        seen[#seen + 1] = ("%.9f"):format(tonumber(granted) / 1e9)
        return over(request, how, retry_ns, granted)
      end
      return gate
    end
    local made = world.new(model)
    made.begin(1, 60 * S, 1)
    made.run(60 * S)
    made.close()
    table.sort(seen, function (a, b) return tonumber(a) < tonumber(b) end)
    assert.is_true(#seen > 100 and #seen < 300)
    assert.same(by_hand(tree.policies[1], times, by, 10), seen)
  end)

  it("runs its hooks, opens its breaker, and backs off", function ()
    local result = run([[
      policy "p" {
        limits = { requests = "100/s", size = "1000/s burst 1000" },
        estimate = function (call) return { requests = 1, size = call.bytes } end,
        breaker = { trip = "5 consecutive", cooldown = "1s", probes = 1 },
        backoff = { on = { 429 }, window = "500ms", from = "retry-after" },
        on = { open = function (e) log.warn("open %s", e.policy) emit("own", {}) end },
      }]], [[scenario "s" { arrive = "poisson 50/s", call = { cost = { bytes = 100 }, wait = "0s" },
        downstream = 'delay 10ms, fail 100% from 10s to 12s, limit "8/s burst 8" reply 429',
        run = "30s" }]])
    assert.is_true(result.mean.granted < 0.3 * result.mean.offered)   -- 10 of size 100 a second
    assert.is_true(result.mean.throttled > 10)
    assert.is_true(result.told.open >= 1)
    assert.equal(result.told.open, result.told.own)
    assert.is_true(result.told.backoff >= result.mean.throttled * 0.5)
  end)

  it("is fair between those who ask too much and those who do not", function ()
    local text = [[policy "p" { limits = { requests = "100/s burst 1" },
      queue = { max = 1000, timeout = "2s" %s } }]]
    local scene = [[scenario "s" { arrive = "poisson 200/s", run = "60s",
      call = { by = { tenant = "big 60, a 20, b 20" }, timeout = "2s" } }]]
    local plain = run((text:format ""):gsub("policy \"p\" {", 'policy "p" { per "tenant" { '
      .. 'requests = "1000/s" },'), scene)
    local fair = run(text:format ', fair = "tenant"', scene)
    assert.is_true(plain.mean.fairness < 0.8)    -- 60, 20 and 20 of the 100
    assert.is_true(fair.mean.fairness > 0.99)    -- a third each
  end)

  it("refuses what it does not know", function ()
    for text, expected in pairs {
      ['call = { by = { tennant = 3 } }'] = "call.by: unknown limit 'tennant'",
      ['call = { cost = { sze = 3 } }'] = "call.cost: unknown limit 'sze'",
      ['call = { priority = "high 1, low 2" }'] = "call.priority: there is no queue",
    } do
      local fine, message = pcall(run, [[policy "p" { limits = { size = "9/s" },
        per "tenant" { size = "3/s" } }]], ('scenario "s" { arrive = "poisson 1/s", %s }')
        :format(text))
      assert.is_false(fine)
      assert.matches(expected, message, 1, true)
    end
  end)
end)

describe("the manual's example", function ()
  it("says what it says there", function ()
    local manual_text = read "doc/sim.md"
    local blocks = {}
    for block in manual_text:gmatch "```lua\n(.-)```" do blocks[#blocks + 1] = block end
    local out, err, status = sim(file(blocks[1]), file(blocks[2]))
    assert.same({ "", 0 }, { err, status })
    for line in manual_text:match "```\n%$ neap sim[^\n]*\n(.-)\n…":gmatch "[^\n]+" do
      local got = out:gsub("  +", "  ")
      assert.is_true(got:find((line:gsub("  +", "  ")), 1, true) ~= nil, line)
    end
  end)
end)

describe("neap sim", function ()
  it("says the same for the same seed, by however many processes", function ()
    local front, spike = file(POLICY), file(SCENARIO)
    local out, err, status = sim(front, spike)
    assert.same({ "", 0 }, { err, status })
    assert.matches("^spike: policy 'front', 20s, 3 times, seed 1\n", out)
    assert.equal(out, (sim(front, spike, "--processes", "1")))
    assert.equal(out, (sim(front, spike, "--seed=1", "--processes=3")))
    assert.not_equal(out, (sim(front, spike, "--seed", "2")))
  end)

  it("exits with 3 when what is asserted does not hold", function ()
    local front, spike = file(POLICY), file(SCENARIO)
    local _, err, status = sim(front, spike, "--assert", "granted < 0")
    assert.same({ "neap: spike: granted < 0 does not hold\n", 3 }, { err, status })
    _, err, status = sim(front, spike, "--assert", "granted > 0", "--assert", "p99_wait <= 500ms")
    assert.same({ "", 0 }, { err, status })
    _, err, status = sim(front, spike, "--assert", "grnted > 0")
    assert.same({ "neap: --assert 'grnted > 0': unknown name 'grnted' (did you mean 'granted'?)",
      2 }, { err:match "^[^\n]*", status })
  end)

  it("tells how another policy differs", function ()
    local front, spike = file(POLICY), file(SCENARIO)
    local out = sim(front, spike, "--against", front)
    assert.matches("\ngoodput +[%d./s]+ +[%d./s]+ +0 +ended well", out)
    local other = file((POLICY:gsub("80 in flight", "20 in flight")))
    out = sim(front, spike, "--against", other)
    local difference, half = out:match "\ngoodput +[%d./s]+ +[%d./s]+ +%-([%d.]+)/s ± ([%d.]+)/s"
    assert.is_true(tonumber(difference) > 5 and tonumber(half) < tonumber(difference))
  end)

  it("draws what the numbers say", function ()
    local svg, csv = file "", file ""
    local _, err, status = sim(file(POLICY), file(SCENARIO), "--svg", svg, "--csv", csv)
    assert.same({ "", 0 }, { err, status })
    local rows, columns = {}, nil
    for line in read(csv):gmatch "[^\n]+" do
      local cells = {}
      for cell in line:gmatch "[^,]+" do cells[#cells + 1] = cell end
      if columns then rows[#rows + 1] = cells else columns = cells end
    end
    assert.equal(20, #rows)
    local drawn, picture = 0, read(svg)
    for name, values in picture:gmatch 'data%-series="(%a+)" data%-values="([^"]*)"' do
      local column, list = nil, {}
      for i, each in ipairs(columns) do column = each == name and i or column end
      for i, row in ipairs(rows) do list[i] = row[column] end
      assert.equal(table.concat(list, " "), values)
      drawn = drawn + 1
    end
    assert.equal(5, drawn)
    assert.is_nil(picture:find("https?://[^w]"))     -- but for the name of SVG itself
    assert.matches("prefers%-color%-scheme: dark", picture)
  end)

  it("says what is wrong with its files and its words", function ()
    local front, spike = file(POLICY), file(SCENARIO)
    local two = file(POLICY .. (POLICY:gsub("front", "back")))
    local _, err, status = sim(two, spike)
    assert.same({ 1, true }, { status, err:find("has 2 policies: say which", 1, true) ~= nil })
    _, err, status = sim(two, file((SCENARIO:gsub("arrive ", 'policy = "bakc", arrive '))))
    assert.same({ 1, true }, { status, err:find("(did you mean 'back'?)", 1, true) ~= nil })
    _, err, status = sim(front, file 'scenario "s" { arrive = "poison 4/s" }')
    assert.same({ 1, true }, { status, err:find("(did you mean 'poisson'?)", 1, true) ~= nil })
    for _, case in ipairs {
      { "a policy and a scenario are missing" }, { "a scenario is missing", front },
      { "--experiment needs no file", front, "--experiment=md1" },
      { "--svg is for scenarios", "--experiment=md1", "--svg=x" },
      { "--seed: a whole number from 0 to 4294967296 expected, got 'x'", front, spike, "--seed=x" },
    } do
      _, err, status = sim(unpack(case, 2))
      assert.same({ "neap: " .. case[1], 2 }, { err:match "^[^\n]*", status })
    end
    _, err, status = sim("--experiment", "mdl")
    assert.same({ 2, true }, { status, err:find("(did you mean 'md1'?)", 1, true) ~= nil })
  end)

  it("plots on standard output when it is told to", function ()
    local out = sim(file(POLICY), file(SCENARIO), "--plot")
    assert.matches("\noffered, a second\n", out)
  end)

  it("runs experiments", function ()
    local out, err, status = sim("--experiment", "windows")
    assert.same({ "", 0 }, { err, status })
    assert.matches("^windows: ", out)
    assert.matches("\nok\n$", out)
  end)
end)
