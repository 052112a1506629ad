-- A job on a server, and who waits for it: it is asked for again after 0.5 s, 1 s and so on, or
-- when the server says; for half a minute at most, and in the background. In virtual time.
local neap = require "neap"
local manual = require "neap.runtime.manual"

neap.runtime.use(manual.new())

local server = {
  { state = "queued" }, { state = "queued", retry_after = 5 }, { state = "running" },
  { state = "done", report = "42 pages" },
}
local poller = neap.poller { backoff = "500ms x2 cap 10s", timeout = "30s" }

neap.run(function ()
  local polling = poller:start(function (try)
    local job = server[try.attempt + 1]
    print(("%5.1f s  %s, %.1f s left"):format(neap.now(), job.state, try:remaining()))
    if job.state ~= "done" then return "retry", job.state, job.retry_after end
    return job.report
  end)
  print "something else"
  print(polling:await())

  local report, why, reason = poller:run(function ()
    return "retry", "still running"
  end, { timeout = "10s" })
  print(report, why, reason, neap.now() .. " s")

  print(poller:run(function () neap.sleep "1h" end, { timeout = "1s" }))   -- it hangs
end)
