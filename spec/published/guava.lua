--- Smooth pacing in virtual time, as a string of events: R0.20, the limiter made its caller wait
--- for 200 ms; U0.20, the caller itself slept.
---
--- Source: google/guava:guava-tests/test/com/google/common/util/concurrent/RateLimiterTest.java
---
--- That limiter saves up to a second of permits, and a call waits until what the one before it took
--- is paid off, whatever it takes itself. Here this is a bucket of a second and 1, that begins with
--- 1: who acquires 1 and settles what it takes pays later.
---
--- A step: permits to acquire; or sleep, in ms; or rate, a new one per second. Two strings are the
--- published one and neap's: there a debt is paid off at the rate that it was made at; here tokens
--- are owed, which come at the new rate.
---
--- Left out: the warm-up curve, which neap does not have (testWarmUp, testWarmUpWithColdFactor,
--- testWarmUpWithColdFactor1, testWarmUpAndUpdate, testWarmUpAndUpdateWithColdFactor,
--- testInfinity_WarmUp, testInfinity_WarmUpTimeElapsed, testTimeToWarmUpIsHonouredEvenWithWeights,
--- and testCreateWarmupParameterValidation and testSimpleRateUpdate, which make one); an infinite
--- rate that becomes finite (the rest of testInfinity_Bursty, testInfinity_BustyTimeElapsed), for
--- which one builds a new limiter here; a cost of 0, which is a mistake there and free here.
return {
  events = {
    { "simple", 5, { 1, 1, 1 }, "R0.00, R0.20, R0.20" },
    {
      "simple, after a wait", 5, { 1, { sleep = 200 }, 1, 1 },
      "R0.00, U0.20, R0.00, R0.20",
    },
    {
      "what was saved", 5, { 1, { sleep = 400 }, 1, 1, 1 },   -- waits are published, no string
      "R0.00, U0.40, R0.00, R0.00, R0.20",
    },
    {
      "a burst of one second", 5, { { sleep = 1000 }, { sleep = 1000 }, 1, 1, 3, 1, 1 },
      "U1.00, U1.00, R0.00, R0.00, R0.00, R0.00, R0.20",
    },
    { "weights", 1, { 1, 1, 2, 4, 8, 1 }, "R0.00, R1.00, R1.00, R2.00, R4.00, R8.00" },
    {
      "another rate", 1, { 1, 1, { rate = 2 }, 1, 2, 4, 1 }, {
        "R0.00, R1.00, R1.00, R0.50, R1.00, R2.00",
        "R0.00, R1.00, R0.50, R0.50, R1.00, R2.00",
      },
    },
    { "an infinite rate", nil, { 2 ^ 29, 2 ^ 30, 2 ^ 31 }, "R0.00, R0.00, R0.00" },
  },

  -- A step: how long to wait at most, in ms, whether that was enough, and permits, if not 1; or
  -- sleep. A time below 0, which is a mistake here, is none.
  tries = {
    { "no wait", 1, { { 0, true }, { 0, false } } },
    { "no wait allowed", 5, {
      { 0, true }, { 0, false }, { 0, false }, { sleep = 100 }, { 0, false },
    } },
    { "some wait allowed", 5, {
      { 0, true }, { 200, true }, { 100, false }, { sleep = 100 }, { 100, true },
    } },
    { "any wait allowed", 5, { { 0, true }, { sleep = 100 }, { math.huge, true } } },
    { "less than no wait", 5, {
      { 0, true, 5 }, { sleep = 900 }, { 0, false }, { sleep = 100 }, { 0, true },
    } },
    -- The smallest double a second there, the slowest rate of all here: 1 in 104 days.
    { "the slowest rate", 1, { { 0, true }, { 0, false }, { sleep = 2147483647 }, { 0, false } },
      per_ns = 2 ^ 53 },
  },

  -- After as many seconds as the rate has permits, one second of work takes up to a second, and the
  -- next one at least that long, in whatever pieces.
  bursts = { first = 1, rates = { 1000, 1, 10, 1000000, 10, 1 }, ms = 1000 },
}
