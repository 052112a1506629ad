-- A gateway: every call passes the house limit, its tenant's share and its route's cap. Plans are
-- tables; three upstreams are one loop.
local plans = {
  free = { requests = "5/s burst 10",    calls = "4 in flight" },
  pro  = { requests = "50/s burst 100",  calls = "32 in flight" },
  big  = { requests = "400/s burst 800", calls = "200 in flight" },
}

for _, upstream in ipairs { "billing", "search", "mail" } do
  policy(upstream) {
    limits = { requests = "1000/s burst 200", calls = "300 in flight" },

    per "tenant" {
      limits   = plans.free,
      override = { acme = plans.big, initech = plans.pro },
      keep     = "100k keys, idle 10min",
    },
    per "route" { requests = "200/s", calls = "40 in flight" },
    per "tenant, route" { requests = "20/s burst 20", keep = "500k keys, idle 2min" },

    adaptive = { calls = "gradient from 20 to 300" },
    queue    = { max = 500, timeout = "250ms", fair = "tenant", overflow = "drop oldest",
                 priority = { "interactive", "batch" } },
    breaker  = { trip = "5 consecutive", cooldown = "5s", probes = 1 },
    shed     = { when = "queue > 80%", keep = "priority interactive" },
  }
end
