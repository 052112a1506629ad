#!/usr/bin/env -S neap run
-- One provider, several budgets, and the ways a declaration may be written.
listen { resp = { "127.0.0.1:6390", "[::1]:6390", "unix:/run/neap.sock" } }

user "app" { password = env "NEAP_APP", allow = "acquire, read" }
user("watcher") { password = "look only", allow = { "events", "read" } }

policy "openai" {
  doc = "chat completions, tier 2",

  limits = {
    requests = "500/min burst 60",   -- the first is the default
    input    = "200k/min burst 40k",
    ["output"] = [[40k/min]];
    calls    = "64 in flight",
    upload   = "5MB in flight",
    paced    = "90/min smooth",
    free     = "unlimited",
    never    = "closed",
  },

  lease = { ttl = "10min", settle = "input, output" },
}

policy [[discord-webhook]] ({
  limits = { posts = "30/min burst 5", calls = 1 .. " in flight" },
})
