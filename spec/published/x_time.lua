--- Tokens now or not at all, reservations, cancels, clocks that jump back, limits that change.
---
--- Source: golang/time:rate/rate_test.go
---
--- Instants are in tenths of a second. A reservation there is a place in line here, the instant at
--- which it may act is that of the grant, and whoever cancels it leaves the line. Two answers for
--- one are the published one and neap's:
---
---   A cancel there gives back what nobody reserved after it, and leaves those behind at their
---   instants. Here it gives back all of it exactly, and who stands behind moves up.
---
---   A clock that jumps back grants there what the way forward brings a second time. Here time
---   stands until the clock has come back to where it was: never more than the limit.
---
---   A reservation keeps its instant there when the limit changes. Here it waits at the new rate
---   from the change on.
---
--- Left out: a rate of 0, which is refused here ("closed" is a limit of its own, which has no
--- first token either), and the conversions from intervals, which notation_spec has.

-- A row: the instant, tokens asked for, got them.
local allow = {
  {
    "a burst of 1", { 10, 1 }, {
      { 0, 1, true }, { 0, 1, false }, { 0, 1, false },
      { 1, 1, true }, { 1, 1, false }, { 1, 1, false },
      { 2, 2, false }, { 2, 1, true }, { 2, 1, false },
    },
  }, {
    "a burst of 3", { 10, 3 }, {
      { 0, 2, true }, { 0, 2, false }, { 0, 1, true }, { 0, 1, false },
      { 1, 4, false }, { 2, 1, true }, { 3, 1, true },
      { 4, 1, true }, { 4, 1, true }, { 4, 1, false }, { 4, 1, false },
      { 9, 3, true }, { 9, 0, true },
    },
  }, {
    "a clock that jumps back", { 10, 3 }, {
      { 1, 1, true },
      { 0, 1, true }, { 0, 1, true }, { 0, 1, false }, { 0, 1, false },
      { 1, 1, { true, false } }, { 1, 1, false }, { 1, 1, false },
      { 2, 1, true }, { 2, 1, false }, { 2, 1, false },
    },
  }, {
    "10 in 13 s, which is 0.769… a second", { 10, 1, 13 }, { { 0, 1, true }, { 0, 1, false } },
  },
}

-- Steps: { "reserve", instant, tokens, instant of the grant, or why there is none; also who asks,
-- and how long for at most }, { "cancel", instant, who }, { "allow", instant, tokens, got them },
-- { "limit", instant, amount, burst }.
local lines = {
  { "simple", { 10, 2 }, {
    { "reserve", 0, 2, 0 }, { "reserve", 0, 2, 2 }, { "reserve", 3, 2, 4 },
  } },
  { "mixed with those who do not wait", { 10, 2 }, {
    { "reserve", 0, 3, "cost" }, { "reserve", 0, 2, 0 }, { "allow", 1, 2, false },
    { "reserve", 1, 2, 2 }, { "allow", 1, 1, false }, { "allow", 3, 1, true },
  } },
  { "a cancel of what never was", { 10, 2 }, {
    { "reserve", 0, 2, 0 }, { "reserve", 0, 3, "cost", who = "r" }, { "cancel", 0, "r" },
    { "reserve", 0, 2, 2 },
  } },
  { "a cancel of the last", { 10, 2 }, {
    { "reserve", 0, 2, 0 }, { "reserve", 0, 2, "cancelled", who = "r" }, { "cancel", 1, "r" },
    { "reserve", 1, 2, 2 },
  } },
  { "a cancel that is too late", { 10, 2 }, {
    { "reserve", 0, 2, 0 }, { "reserve", 0, 2, 2, who = "r" }, { "cancel", 3, "r" },
    { "reserve", 3, 2, 4 },
  } },
  { "a cancel gives 0 tokens back, or 1 here", { 10, 2 }, {
    { "reserve", 0, 2, 0 }, { "reserve", 0, 1, "cancelled", who = "r" },
    { "reserve", 0, 1, { 2, 1 } }, { "cancel", 0, "r" }, { "reserve", 0, 1, { 3, 2 } },
  } },
  { "a cancel gives 1 token back, or 2 here", { 10, 2 }, {
    { "reserve", 0, 2, 0 }, { "reserve", 0, 2, 2, who = "r" },
    { "reserve", 0, 1, { 3, 2 } }, { "cancel", 2, "r" }, { "reserve", 2, 2, { 4, 3 } },
  } },
  { "two cancels give 3 tokens back, or 4 here", { 10, 4 }, {
    { "reserve", 0, 4, 0 }, { "reserve", 0, 3, "cancelled", who = "a" },
    { "reserve", 0, 1, { 4, 1 } }, { "reserve", 0, 1, "cancelled", who = "c" },
    { "cancel", 1, "c" }, { "cancel", 1, "a" }, { "reserve", 1, 3, { 5, 4 } },
  } },
  { "a clock that jumps back", { 10, 2 }, {
    { "reserve", 1, 2, 1 }, { "reserve", 0, 1, { 1, 2 } }, { "reserve", 2, 2, { 3, 4 } },
  } },
  { "a clock that jumps back to a cancel", { 10, 2 }, {
    { "reserve", 1, 2, 1 }, { "reserve", 1, 2, "cancelled", who = "r" },
    { "reserve", 1, 1, { 4, 2 } }, { "cancel", 0, "r" }, { "reserve", 1, 2, 4 },
  } },
  { "another limit", { 5, 2 }, {
    { "reserve", 0, 2, 0 }, { "reserve", 0, 2, { 4, 3 } }, { "limit", 2, 10, 2 },
    { "reserve", 2, 1, 4 },
  } },
  { "another burst, and a clock that jumps back", { 5, 2 }, {
    { "reserve", 0, 2, 0 }, { "reserve", 0, 2, 4 }, { "limit", 3, 5, 4 },
    { "reserve", 0, 4, { 9, 12 } },
  } },
  { "another limit, and a cancel", { 5, 2 }, {
    { "reserve", 0, 2, 0 }, { "reserve", 0, 2, "cancelled", who = "r" }, { "limit", 2, 10, 2 },
    { "cancel", 2, "r" }, { "reserve", 2, 2, 3 },
  } },
  { "not too far in the future", { 10, 2 }, {
    { "reserve", 0, 2, 0, most = 1 }, { "reserve", 0, 1, 1, most = 1 },
    { "reserve", 0, 1, "timeout", most = 1 },
  } },
  { "a wait", { 10, 3 }, {
    { "reserve", 0, 1, "cancelled", who = "cancelled before" },
    { "reserve", 0, 4, "cost" }, { "reserve", 0, 2, 0 }, { "reserve", 0, 3, 2 },
  } },
  { "a wait that is cancelled", { 10, 3 }, {
    { "reserve", 0, 2, 0 }, { "reserve", 0, 3, "cancelled", who = "r" }, { "cancel", 1, "r" },
    { "reserve", 1, 2, 1 },
  } },
  { "a wait that would take too long", { 10, 3 }, {
    { "reserve", 0, 2, 0, most = 1 }, { "reserve", 0, 3, "timeout", most = 1 },
  } },
  { "a wait for what has no limit", nil, { { "reserve", 0, 3, 0 } } },
}

return {
  allow = allow,
  lines = lines,
  at_once = { amount = 1, burst = 5, asked = 15, granted = 5 },
  -- asked for every 2 ms for 5 s; of the ideal 600 at least 0.999, cut, and at most 1 more
  long_run = { amount = 100, burst = 100, every_ms = 2, seconds = 5, least = 599, most = 601 },
}
