-- A game server loads this itself: actions of each player, and of each zone; no sockets.
local actions = {
  move  = "20/s burst 6",
  shoot = "8/s burst 3",
  chat  = "1/2s burst 4",
  trade = "12/min burst 2",
  craft = "90/min smooth",
}

policy "world" {
  limits = { actions = "60k/s burst 6k" },
  per "player" { limits = actions, keep = "20k keys, idle 5min" },
  per "zone"   { actions = "4000/s" },
}

policy "discord-webhook" {
  limits  = { posts = "30/min burst 5", calls = "1 in flight" },
  backoff = { on = { 429 }, window = "2s", from = "retry-after" },
  queue   = { max = 200, overflow = "drop oldest" },
}
