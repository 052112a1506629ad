--- Adaptive limits: samples in, limits out.
---
--- Source: Netflix/concurrency-limits:concurrency-limits-core/src/test/java/com/netflix/
--- concurrency/limits/limit/ VegasLimitTest.java, AIMDLimitTest.java, ExpAvgMeasurementTest.java,
--- functions/Log10RootFunctionTest.java. Two AIMD cases are published by a port of those tests:
--- helidon-io/helidon:common/concurrency/limits/src/test/java/io/helidon/common/concurrency/
--- limits/AimdLimitTest.java. What an option is when a case does not name it stands in
--- `defaults`, from VegasLimit.java, AIMDLimit.java and Gradient2Limit.java of the first.
---
--- A sample: rtt in ms, calls in flight, the limit after it, and "dropped" for one that failed. The
--- limit is what a caller sees, cut to a whole number; the state goes on with its fraction.
---
--- Gradient2 is published without numbers. Those here are derived with pencil and paper from the
--- three formulas above its class, one step in each row.

-- "log10": max(1, whole part of log10(limit)).
local vegas = {
  initial = 20, floor = 1, ceiling = 1000, smoothing = 1,
  alpha = "3 log10", beta = "6 log10", threshold = "log10", increase = "log10", decrease = "log10",
}
local aimd = { initial = 20, floor = 20, ceiling = 200, ratio = 0.9, timeout_ms = 5000 }
local gradient2 = {
  initial = 20, floor = 20, ceiling = 200, smoothing = 0.2, queue = 4, tolerance = 1.5,
  window = 600, warmup = 10,
}

return {
  defaults = { vegas = vegas, aimd = aimd, gradient2 = gradient2 },

  vegas = {
    {
      "the first sample is the minimum, the next below the threshold adds beta",
      { initial = 10000, ceiling = 20000 },
      { { 10000, 5000, 10000 }, { 10000, 6000, 10024 } },
    }, {
      "no queue adds beta",
      { initial = 10, ceiling = 20, alpha = 3, beta = 6 },
      { { 10, 10, 10 }, { 10, 11, 16 } },
    }, {
      "a queue above beta takes one away",
      { initial = 10, ceiling = 20, alpha = 3, beta = 6 },
      { { 10, 10, 10 }, { 50, 11, 9 } },
    }, {
      "a queue between alpha and beta changes nothing",
      { initial = 10, ceiling = 20, alpha = 3, beta = 6 },
      { { 10, 10, 10 }, { 14, 14, 10 } },
    }, {
      "halving, smoothed by one half",
      { initial = 100, ceiling = 200, smoothing = 0.5, decrease = "half" },
      { { 10, 100, 100 }, { 20, 100, 75 }, { 20, 100, 56 } },
    }, {
      "halving, not smoothed",
      { initial = 100, ceiling = 200, decrease = "half" },
      { { 10, 100, 100 }, { 20, 100, 50 }, { 20, 100, 25 } },
    },
  },

  aimd = {
    { "success adds one", { initial = 20 }, { { 1, 10, 21 } } },
    { "a drop takes a tenth", { initial = 30 }, { { 0, 0, 27, "dropped" } } },
    {
      "slower than the timeout is a drop",   -- the port; 1 s and 1 ns there
      { initial = 30, timeout_ms = 1000 },
      { { 1000.000001, 0, 27 } },
    },
    {
      "the ceiling holds",                   -- the port
      { initial = 21, floor = 0, ceiling = 21 },
      { { 1, 10, 21 } },
    },
  },

  gradient2 = {
    {
      "not smoothed, no tolerance",
      { initial = 50, floor = 1, smoothing = 1, tolerance = 1 },
      {
        { 100, 50, 54 },     -- long 100: 50 + 4
        { 100, 54, 58 },
        { 200, 58, 42 },     -- long 400/3, gradient 2/3: 58 * 2/3 + 4 = 42.67
        { 1000, 42, 25 },    -- long 350, gradient 0.35 counts as 0.5: 21.33 + 4 = 25.33
        { 1000, 5, 25 },     -- less than half of it in use: as it was; long 480
        { 100, 25, 29 },     -- long 416.67, gradient 4.17 counts as 1: 25.33 + 4
      },
    }, {
      "as it comes",
      { initial = 50 },
      {
        { 100, 50, 50 },     -- 0.8 * 50 + 0.2 * 54 = 50.8
        { 100, 50, 51 },     -- 51.6
        { 140, 51, 52 },     -- long 113.33, and 1.5 times that is above 140: 52.4
        { 400, 52, 49 },     -- long 185, gradient 0.69375: 0.8 * 52.4 + 0.2 * 40.3525 = 49.9905
        { 800, 49, 46 },     -- long 308, gradient 0.5775: 46.566
      },
    },
  },

  -- A mean over `window` samples that is a plain mean until `warmup` have come: { sample, mean }.
  moving_mean = {
    window = 100, warmup = 10,
    {
      { 10, 10 }, { 11, 10.5 }, { 12, 11 }, { 13, 11.5 }, { 14, 12 }, { 15, 12.5 }, { 16, 13 },
      { 17, 13.5 }, { 18, 14 }, { 19, 14.5 },
      { 100, 16.2 },   -- within 0.1; the others within 0.01
    },
  },

  log10 = { { 0, 1 }, { 100, 2 }, { 10000, 4 } },   -- { limit, its root }
}
