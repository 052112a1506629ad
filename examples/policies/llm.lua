-- One provider of language models, three budgets, and good manners when it says no.
listen { resp = "127.0.0.1:6390", http = "127.0.0.1:9390" }

policy "openai" {
  doc = "chat completions, tier 2",

  limits = {
    requests = "500/min burst 60",
    input    = "200k/min burst 40k",
    output   = "40k/min",
    calls    = "64 in flight",
    upload   = "5MB in flight",
  },

  -- What a call costs before we know what it costs.
  estimate = function (call)
    return {
      requests = 1,
      input    = call.input or math.ceil((call.bytes or 0) / 4),
      output   = call.max_output or 600,
      upload   = call.bytes or 0,
    }
  end,

  -- RELEASE … USED output 212 gives 388 back; USED output 900 borrows 300 from the future.
  lease = { ttl = "10min", settle = "input, output" },

  backoff = {
    on        = { 429, 503, 529 },
    window    = "10s",
    from      = "retry-after, x-ratelimit-reset-tokens",
    throttled = { calls = "4 in flight" },
    penalty   = { upload = 20 },
  },

  breaker = { trip = "50% of 20 in 30s", cooldown = "15s", probes = 2 },
  queue   = { max = 2000, timeout = "45s", fair = "tenant", priority = { "interactive", "batch" } },
  retry   = { attempts = 5, backoff = "200ms x2 cap 20s jitter decorrelated", budget = "10%" },

  per "tenant" { requests = "60/min burst 10", output = "8k/min" },

  on = {
    open = function (e)
      log.warn("breaker open for %s: %d of last %d failed", e.policy, e.failed, e.seen)
    end,
  },
}
