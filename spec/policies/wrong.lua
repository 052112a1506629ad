-- A dozen and more mistakes of every kind; one run tells them all, in order.
listen { resp = { "0.0.0.0:6390", "127.0.0.1:70000", "localhost" }, http = "0.0.0.0:9390" }

policy "openai" {
  limits = {
    requests = "500/min brust 60",
    calls    = "64 inflight",
    pace     = "0.5/s",
    log      = "10/s fixed",
    slots    = 64,
    flag     = true,
    ["9th"]  = "5/s",
    "5/s",
    pace     = "1/s",
  },
  lease   = { ttl = "100d", settle = "requests, calsl, calls, calls", tll = "1s" },
  breaker = { trip = "5 consecutive" },
  limit   = {},
  doc     = 7,
}

policy "openai" { limits = { a = "1/s" } }
policy "" { limits = { a = "1/s" } }
policy "a b" { limits = { a = "1/s" } }
policy "empty" { limits = {} }
policy "none" {}
policy "alone"
policy { limits = { a = "1/s" } }

for _, name in ipairs { "left", "right" } do
  policy(name) {
    limits = { hits = "5/sceond" },
    estimate = function (call) return { hits = call.n, more = { 1, 2 } }, nil end,
  }
end

log.info "this room has no log"
local when = os.time()
policy "shared" { limits = { calls = tostring(when) and "1/s", bad = string.fromat("%d/s", 5) } }
size = 5
listen { resp = "127.0.0.1:6391" }
error "the author gave up"
