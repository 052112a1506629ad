--- A crowd of callers that wait at one worker: who is served when, what they cost, and whether
--- others notice.
---
---     NEAP_SOAK=10   10,000 of them instead of 1,000, and the figures are held to what is promised
---                    of a machine with nothing else to do
local process = require "spec.process"

local BUILD = os.getenv "NEAP_BUILD" or "build"
local soak = tonumber(os.getenv "NEAP_SOAK" or 1)
local COUNT = 1000 * soak

local POLICY = [[policy "one" { limits = { calls = "1 in flight" } }]]

describe("parked callers", function ()
  after_each(process.sweep)

  it("are served in the order they came, and weigh little", function ()
    local worker = process.worker(POLICY)
    local said, status = process.output(("%s/spec/c/parked_client 127.0.0.1 %s %d %s"):format(BUILD,
      worker.port, COUNT, worker.pid))
    assert.same({ 0, true }, { status, said:find "order" ~= nil }, said)
    local seen = {}
    for name, value in said:gmatch "([%w_]+) (%-?%d+)" do seen[name] = tonumber(value) end
    assert.same({ COUNT, 0 }, { seen.count, seen.order })
    if soak > 1 then
      print(("# %d parked: %d bytes each; PING p50 %d us, p99 %d us, longest %d us"):format(COUNT,
        seen.bytes, seen.ping_p50_us, seen.ping_p99_us, seen.ping_max_us))
      assert.is_true(seen.bytes < 4096, said)
      assert.is_true(seen.ping_p99_us < 10000, said)
    end
    assert.same({ "", 0 }, { worker:stop() })
  end)
end)
