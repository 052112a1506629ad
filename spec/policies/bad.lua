policy "openai" {
  limits = {
    requests = "500/mn",
    input = "200k/min burst 40k",
    output = 40,
  },
  brekaer = { trip = "50% of 20 in 30s" },
}

listen { resp = "127.0.0.1:6390" }

polcy "anthropic" {
  limits = { requests = "50/min" },
}
x = 5
