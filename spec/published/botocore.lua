--- Retries and their quota as botocore's tests have them.
---
--- Source: boto/botocore:tests/unit/retries/test_standard.py, test_quota.py and
--- test_standard_retry_v2_1.py; constants from botocore/retries/standard.py and quota.py. The 2.1
--- rules are behind a flag there, and so are under a name of their own here. Its rate limiter
--- (test_throttling.py, test_bucket.py, test_adaptive.py) is neither a retry nor a quota.
---
--- Delays are seconds, with each draw the largest there can be.
return {
  max_attempts = 3,
  quota = 500,

  cost = { retry = 5, timeout = 10, unused = 1 },         -- 2.0; unused: a success without retries
  cost_2_1 = { retry = 14, throttled = 5, unused = 1 },

  -- The first is the 2.0 curve from its formula, rand(0, 1) * min(2^attempt, 20); the others are
  -- published: { base } and the delays of attempts 1 to 11, and for one service 1 to 3.
  curves = {
    { "1s", { 1, 2, 4, 8, 16, 20, 20 } },
    { "50ms", { 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20, 20 } },
    { "25ms", { 0.025, 0.05, 0.1 } },
  },

  -- A quota of 50: { "acquire" or "release", amount, is it granted, what is left }.
  quota_of_50 = {
    { { "acquire", 5, true, 45 }, { "release", 5, true, 50 } },
    { { "acquire", 5, true, 45 }, { "release", 10, true, 50 } },
    { { "release", 10, true, 50 } },
    { { "acquire", 49, true, 1 }, { "acquire", 10, false, 1 } },
  },

  -- 2.1: an error, what is left of 500 after the retry, and after its success or failure.
  accounts = {
    { "error", 486, success = 500 },
    { "throttled", 495, success = 500 },
    { "timeout", 486, success = 500 },
    { "error", 486, failure = 486 },
  },
  -- Three retries that fail, one after the other; the fourth call is the last.
  drained = { 486, 472, 458 },

  -- x-amz-retry-after in ms, and the delay: at least the curve's, and at most 5 s more.
  retry_after = { { "1500", 1.5 }, { "0", 0.05 }, { "10000", 5.05 }, { "invalid", 0.05 } },
  retry_after_over_s = 5,
}
