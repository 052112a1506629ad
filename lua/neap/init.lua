--- neap decides when an outbound call may leave. These are its names; each is a module.
local ffi = require "ffi"
local C = require "neap.engine"
local runtime = require "neap.runtime"

return {
  throttle = require "neap.throttle",
  semaphore = require "neap.semaphore",
  adaptive = require "neap.adaptive",
  hybrid = require "neap.hybrid",
  multi = require "neap.multi",
  breaker = require "neap.breaker",
  breakers = require "neap.breakers",
  pause = require "neap.pause",
  backoff = require "neap.backoff",
  retry = require "neap.retry",
  budget = require "neap.budget",
  hedge = require "neap.hedge",
  client = require "neap.client",
  classify = require "neap.classify",
  backoff_window = require "neap.backoff_window",
  slots = require "neap.slots",
  per_key = require "neap.per_key",
  queue = require "neap.queue",
  layered = require "neap.layered",
  headers = require "neap.headers",
  provider = require "neap.provider",
  notation = require "neap.notation",
  policy = require "neap.policy",
  errors = require "neap.errors",
  events = require "neap.events",
  limiters = require "neap.stats".each,
  runtime = runtime,
  run = runtime.run,
  spawn = runtime.spawn,
  sleep = runtime.sleep,
  now = runtime.now,
  version = ffi.string(C.neap_version),
}
