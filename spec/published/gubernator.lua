--- A limit that changes between calls, each of which costs one, all at the same instant.
---
--- Source: gubernator-io/gubernator:functional_test.go, its change of limit and its reset
---
--- A row: the limit for 9 s of a call, and what remains after it; and, if that is not "keep", the
--- mode of the change from the row above, in neap's words.
return {
  per_ms = 9000,
  { "token bucket", { { 100, 99 }, { 100, 98 }, { 10, 7 }, { 10, 6 }, { 200, 195 } } },
  { "leaky bucket", { { 100, 99 }, { 10, 9, "balance" }, { 10, 8 } } },
  { "reset", { { 100, 99 }, { 100, 98 }, { 100, 99, "reset" } } },
}
