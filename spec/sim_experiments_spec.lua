-- Experiments against exact and published results: short forms, whose dice are those of every run.
-- NEAP_EFFORT=1 is the full form.
local experiment = require "neap.sim.experiment"
local backoff = require "neap.backoff"
local erlang = require "neap.sim.experiments.erlang"
local policer = require "neap.sim.experiments.policer"
local report = require "neap.sim.report"

local effort = tonumber(os.getenv "NEAP_EFFORT" or 0.03)

describe("the experiment", function ()
  for _, name in ipairs(experiment.NAMES) do
    it(name .. " is within its tolerance", function ()
      local outcome = experiment.run(name, { seed = 1, effort = effort })
      assert.is_true(#outcome.rows > 5)
      if not outcome.fine then error(report.experiment(outcome, 1), 0) end
    end)
  end

  it("fails when the engine pauses otherwise", function ()
    local real, swapped = backoff, {}
    package.loaded["neap.sim.experiments.aws_jitter"] = nil
    package.loaded["neap.backoff"] = function (text)
      return real((text:gsub("jitter full", "jitter equal")))
    end
    swapped.fine = experiment.run("aws-jitter", { seed = 1, effort = effort }).fine
    package.loaded["neap.backoff"] = real
    package.loaded["neap.sim.experiments.aws_jitter"] = nil
    assert.is_false(swapped.fine)
  end)

  it("fails when it fails", function ()
    package.loaded["neap.sim.experiments.windows"] = { about = "", tolerance = "",
      run = function () error "what" end }
    local outcome = experiment.run("windows", { seed = 1 })
    package.loaded["neap.sim.experiments.windows"] = nil
    assert.is_false(outcome.fine)
    assert.matches("what", outcome.rows[1].what)
  end)
end)

describe("what is exact", function ()
  it("is as tables have it", function ()
    for _, row in ipairs { { 1, 1, 0.5 }, { 1, 2, 0.2689 }, { 1, 5, 0.1034 }, { 1, 10, 0.0508 },
      { 1, 20, 0.0252 }, { 0.8, 1, 0.4444 }, { 0.8, 2, 0.1996 }, { 0.8, 5, 0.0353 },
      { 0.8, 10, 0.0036 }, { 2, 1, 0.6667 }, { 2, 2, 0.5317 }, { 2, 5, 0.5003 } } do
      assert.near(row[3], policer.loss(row[1], row[2]), 0.00005)
    end
    for _, row in ipairs { { 10, 8, 0.12166, 0.40918, 0.20459 },
      { 5, 3, 0.11005, 0.23615, 0.11808 }, { 64, 51.2, 0.01174, 0.05606, 0.00438 } } do
      local waits, mean = erlang.c(row[1], row[2])
      assert.near(row[3], erlang.b(row[1], row[2]), 0.000005)
      assert.near(row[4], waits, 0.000005)
      assert.near(row[5], mean, 0.000005)
    end
  end)
end)
