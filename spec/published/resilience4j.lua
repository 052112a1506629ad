--- A bucket of 5 that gets one token each nanosecond.
---
--- Source: resilience4j/resilience4j:resilience4j-ratelimiter/src/test/resources/
--- refill_no_wait_five_bucket_scenario.csv
---
--- A row: the instant in ns, tokens before, asked for, tokens one ns later, granted.
return {
  amount = 1, per_ns = 1, burst = 5,
  {  1, 5, 1, 5, true },
  {  2, 5, 1, 5, true },
  {  3, 5, 2, 4, true },
  {  4, 4, 2, 3, true },
  {  5, 3, 2, 2, true },
  {  6, 2, 2, 1, true },
  {  7, 1, 2, 2, false },
  {  8, 2, 2, 1, true },
  {  9, 1, 2, 2, false },
  { 10, 2, 2, 1, true },
  { 11, 1, 2, 2, false },
  { 12, 2, 2, 1, true },
  { 13, 1, 2, 2, false },
  { 14, 2, 2, 1, true },
  { 15, 1, 2, 2, false },
  { 16, 2, 2, 1, true },
  { 17, 1, 2, 2, false },
  { 18, 2, 0, 3, true },
  { 19, 3, 0, 4, true },
  { 20, 4, 0, 5, true },
  { 21, 5, 0, 5, true },
  { 22, 5, 5, 1, true },
  { 23, 1, 1, 1, true },
  { 24, 1, 1, 1, true },
  { 25, 1, 2, 2, false },
  { 26, 2, 2, 1, true },
  { 27, 1, 1, 1, true },
  { 28, 1, 1, 1, true },
  { 29, 1, 0, 2, true },
  { 30, 2, 0, 3, true },
  { 31, 3, 2, 2, true },
  { 32, 2, 2, 1, true },
  { 33, 1, 1, 1, true },
}
