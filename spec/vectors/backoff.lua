--- Back-offs: sequences of delays. One system counts whole ms, so what it shows has that grid.
local backoff = require "neap.backoff"
local harness = require "spec.vectors.harness"

local huge, max, min = math.huge, math.max, math.min

local suite = {}

local PRESETS = { default = "throttle_net", foundation_default = "foundation_policy" }

local function seconds(ms) return ms == "max" and huge or ms / 1e3 end

--- A case's `make`, in our options; others that retry have it, too.
---@param given table
---@param dialect string?
---@return neap.Backoff
function suite.make(given, dialect)
  if given.preset then
    return backoff { preset = PRESETS[given.preset] or given.preset }
  end
  local options = { curve = given.curve, base = seconds(given.base_ms), factor = given.factor }
  if given.increment_ms then options.step = seconds(given.increment_ms) end
  if given.max_ms then
    options.cap = given.max_ms == require "cjson".null and huge or seconds(given.max_ms)
  end
  local amount = given.jitter_amount
  if type(amount) == "table" then
    options.jitter = { given.jitter, amount[1], amount[2] }
  else
    options.jitter = given.jitter and { given.jitter, amount }
  end
  if dialect == "foundation" then options.grid, options.strict = "1ms", true end
  return backoff(options)
end

--- The first delays of one sequence, in ms.
local function delays(policy, count, seed)
  local sequence, list = policy:sequence(seed), {}
  for i = 1, count do list[i] = sequence() * 1e3 end
  return list
end

local checks = {}

function checks.delays_ms(policy, expected)
  harness.expect("delays", expected, delays(policy, #expected))
end

function checks.at(policy, expected)
  for _, pair in ipairs(expected) do
    harness.expect("attempt " .. pair[1], pair[2], policy:delay(pair[1]) * 1e3)
  end
end

function checks.bounds_ms(policy, bounds, case)
  for seed = 1, case.seeds or 1 do
    for i, ms in ipairs(delays(policy, #bounds, seed)) do
      harness.expect("attempt " .. i - 1, { min = bounds[i][1], max = bounds[i][2] }, ms)
    end
  end
end

function checks.max_ratio_to_previous(policy, ratio, case)
  for seed = 1, case.seeds do
    local list = delays(policy, case.attempts, seed)
    for i, ms in ipairs(list) do
      local most = ratio * (list[i - 1] or ms)
      harness.expect("attempt " .. i - 1, { min = case.min_ms, max = most }, ms)
    end
  end
end

function checks.monotonic(policy, _, case)
  local list = delays(policy, case.attempts)
  for i = 2, #list do harness.expect("attempt " .. i - 1, { min = list[i - 1] }, list[i]) end
end

function checks.reproducible(policy, how)
  local first = delays(policy, how.attempts, how.seed)
  harness.expect("again", first, delays(policy, how.attempts, how.seed))
  if harness.matches(first, delays(policy, how.attempts, how.seed + 1)) then
    harness.fail("another seed", "other delays", first)
  end
end

function checks.independent(policy, how)
  local seen = {}
  for _ = 1, how.sequences do
    local shown = harness.shown(delays(policy, how.attempts))
    if seen[shown] then harness.fail("sequences", "different ones", shown) end
    seen[shown] = true
  end
end

function checks.no_crash(policy, _, case)
  for i, ms in ipairs(delays(policy, case.attempts)) do
    harness.expect("attempt " .. i - 1, { min = 0, max = huge }, ms)
  end
end

function checks.spread_at_cap(policy, how)
  local counts, most, cap_ms = {}, 0, 0
  for _ = 1, how.clients do
    local ms = policy:delay(100) * 1e3
    counts[ms] = (counts[ms] or 0) + 1
    most, cap_ms = max(most, counts[ms]), max(cap_ms, ms)
  end
  harness.expect("the most popular", { max = how.clients * how.max_share_of_one_value }, most)
  harness.expect("the longest", { max = policy.value.cap_ns / 1e6 }, cap_ms)
end

--- One first delay for each client.
function checks.herd(policy, how)
  local seen, distinct, least, most = {}, 0, huge, 0
  for _ = 1, how.clients do
    local ms = delays(policy, 1)[1]
    if not seen[ms] then distinct = distinct + 1 end
    seen[ms], least, most = true, min(least, ms), max(most, ms)
  end
  for name, expected in pairs(how) do
    if name == "bounds_ms" then
      harness.expect("herd", { min = expected[1] }, least)
      harness.expect("herd", { max = expected[2] }, most)
    elseif name:find "distinct" then
      harness.expect("herd " .. name, { min = expected }, distinct)
    elseif name:find "spread" then
      harness.expect("herd " .. name, { min = expected }, most - least)
    end
  end
end

--- Delays of attempts that there are not.
function checks.call_error(policy, _, case)
  local attempt = case.attempt or -1
  local ok = pcall(policy.delay, policy, attempt)
  if ok then harness.fail("attempt " .. attempt, "an error", "none") end
end

function checks.fields(policy, expected)
  local value = policy.value
  harness.expect("fields", expected, {
    curve = value.curve, base_ms = value.base_ns / 1e6, factor = value.factor,
    max_ms = value.cap_ns == huge and "max" or value.cap_ns / 1e6, jitter = value.jitter,
    increment_ms = value.step_ns and value.step_ns / 1e6, jitter_amount = value.amount,
  })
end

function suite.run(case)
  local function make() return suite.make(case.make, case.dialect) end
  local policy = harness.build(case, make, function () return "invalid_argument" end)
  if not policy then return end
  if case.unit_random then policy.draw = function () return case.unit_random end end
  local checked = false
  for name, check in pairs(checks) do
    if case[name] ~= nil then
      check(policy, case[name], case)
      checked = true
    end
  end
  if not checked then harness.skip("nothing to check") end
end

return suite
