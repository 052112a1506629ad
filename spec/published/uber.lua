--- How many takes there were, at given virtual times.
---
--- Source: uber-go/ratelimit:ratelimit_test.go
---
--- Slack there is how many slots that were missed may be caught up with: a bucket of that and 1
--- more, which begins with 1. Who takes from two limits in turn stands before a hybrid here.
---
--- A case: limits by name, { amount, ms, slack }; takers, { since when in s, how many, of which };
--- counts, { s, how many }, right before that instant. At that instant itself one more is there,
--- which the clock of the original comes to later; but 7 a minute are 8571428571 ns each there,
--- rounded down, and so 3 ns early at the end of the minute: those are counted at the instant.
local function slack(name, fast, want)
  return {
    name, { slow = { 10, 1000, 0 }, fast = fast },
    { { 0, 1, { "slow", "fast" } }, { 2, 2, { "fast" } } },
    { { 1, 10 }, { 3, want } },
  }
end

return {
  counts = {
    {
      "four takers", { one = { 100, 1000, 0 } }, { { 0, 4, { "one" } } },
      { { 1, 100 }, { 2, 200 }, { 3, 300 } },
    }, {
      "a slow and a fast one", { slow = { 10, 1000, 0 }, fast = { 100, 1000, 0 } },
      { { 0, 1, { "slow", "fast" } }, { 20, 4, { "fast" } } },
      { { 30, 1200 } },
    }, {
      "7 a minute", { one = { 7, 60000, 0 } }, { { 0, 2, { "one" } } },
      { { 1, 1, "at" }, { 60, 8, "at" }, { 120, 15, "at" } },
    },
    slack("a slack of 10", { 100, 1000, 10 }, 130),
    slack("a slack of 20", { 100, 1000, 20 }, 140),
    slack("a slack of 150", { 100, 1000, 150 }, 270),
    slack("a slack of 10, twice as fast", { 100, 500, 10 }, 230),
    slack("a slack of 20, twice as fast", { 100, 500, 20 }, 240),
    slack("a slack of 150, twice as fast", { 100, 500, 150 }, 370),
  },

  -- Three at once: ms between them.
  first = { limit = { 10, 1000 }, slacks = { 10, 0 }, { 0, 100, 100 } },

  -- One, a pause, then five with 1 ns between them: more than 3 s.
  again = { limit = { 1, 1000, 1 }, pause_s = 2, takes = 5, more_than_ns = 3000000000 },
}
