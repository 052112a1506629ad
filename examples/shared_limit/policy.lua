-- What the downstream's owner has promised us, as the worker keeps it. The main job reads the two
-- numbers from here and sets up the downstream to enforce just that rate.
-- luacheck: read globals policy
policy "api" {
  doc    = "one rate for all callers, however many processes they are",
  limits = { calls = "200/s burst 20" },
}
