--- The GCRA table that redis-cell and Dragonfly play, too: 1 a second, 5 at once.
---
--- Source: throttled/throttled:rate_test.go
---
--- A row: ms, quantity; then whether it was limited, what remains, the ms until all is there again
--- and the ms to come back in, -1 when there are none to wait or waiting is vain.
return {
  amount = 1, per_ms = 1000, burst = 5,
  {    0, 6,  true, 5,    0,   -1 },
  {    0, 1, false, 4, 1000,   -1 },
  {    0, 1, false, 3, 2000,   -1 },
  {    0, 1, false, 2, 3000,   -1 },
  {    0, 1, false, 1, 4000,   -1 },
  {    0, 1, false, 0, 5000,   -1 },
  {    0, 1,  true, 0, 5000, 1000 },
  { 3000, 1, false, 2, 3000,   -1 },
  { 3100, 1, false, 1, 3900,   -1 },
  { 4000, 1, false, 1, 4000,   -1 },
  { 8000, 1, false, 4, 1000,   -1 },
  { 9500, 1, false, 4, 1000,   -1 },
  { 9500, 0, false, 4, 1000,   -1 },
  { 9500, 2, false, 2, 3000,   -1 },
  { 9500, 5,  true, 2, 3000, 3000 },
}
