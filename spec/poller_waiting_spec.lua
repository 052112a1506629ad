local in_virtual_time = require "spec.in_virtual_time"
local polled = require "spec.polled"
local poller = require "neap.poller"
local semaphore = require "neap.semaphore"

describe("a poller that waits", function ()
  local rt, log
  in_virtual_time(function (new) rt, log = new, {} end)
  local script, run, hangs = polled(function () return rt, log end)

  it("cuts off a step that hangs", function ()
    local policy = poller { timeout = "50ms" }
    assert.same({ nil, "timeout" }, run(policy, hangs))
    assert.same({ 0.05 }, log)
    assert.equal(0.05, rt.now())               -- nothing is left that waits
    log = {}
    assert.same({ nil, "timeout", "r" }, run(poller { backoff = "1s", timeout = 5 },
      function (try)
        if try.attempt < 2 then return "retry", "r" end
        return hangs()
      end))
    assert.same({ 5.05 }, log)
    log = {}
    assert.same({ nil, "timeout" }, run(poller { timeout = 0 }, hangs))
    assert.same({ 5.05 }, log)
  end)

  it("answers in time whatever a step does that hangs", function ()
    local answer, at
    rt.run(function ()
      answer = { poller { timeout = 1 }:run(function ()
        for _ = 1, 5 do rt.sleep(2) end        -- does not listen
        error "late, and nobody's"
      end) }
      at = rt.now()
    end)
    assert.same({ nil, "timeout" }, answer)
    assert.equal(1, at)
    assert.equal(9, rt.now())
  end)

  it("hears a step that ends at the very deadline", function ()
    for takes = 1, 3 do
      for round = 0, 1 do
        local began, answer = rt.now(), nil
        rt.run(function ()
          if round == 1 then rt.spawn(rt.sleep, takes) end
          answer = { poller():run(script({ "done" }, takes), { timeout = takes }) }
        end)
        assert.same({ "done" }, answer)
        assert.equal(began + takes, rt.now())
      end
    end
  end)

  it("leaves the line that a step stands in", function ()
    local places = semaphore(1)
    local held = places:try_acquire()
    local policy = poller { timeout = 2 }
    assert.same({ nil, "timeout" }, run(policy, function () return places:acquire() end))
    held:release()
    assert.equal(1, places:available())
    held = places:try_acquire()
    assert.same({ nil, "timeout" }, run(policy, function (try)
      local permit, why = places:acquire(1, { deadline = try.deadline })
      assert(not permit)
      return nil, why
    end))
    held:release()
    assert.equal(1, places:available())
  end)

  it("ends when whoever polls is cancelled, at any time", function ()
    local function cancelled_at(when, step, policy)
      local answer, ended
      rt.run(function ()
        local task = rt.spawn(function () answer = { (policy or poller()):run(step) } end)
        local began = rt.now()
        rt.sleep(when)
        task:cancel()
        task:join()
        ended = rt.now() - began
      end)
      assert.equal(when, ended)
      return answer
    end
    assert.same({ nil, "cancelled" }, cancelled_at(1, hangs))
    assert.same({ 1 }, log)
    assert.same({ nil, "cancelled" }, cancelled_at(1, hangs, poller { timeout = 7 }))
    assert.same({ 1, 2 }, log)
    assert.equal(2, rt.now())
    local slow = poller { backoff = "10s" }
    assert.same({ nil, "cancelled", "r" }, cancelled_at(1, script { { "retry", "r" } }, slow))
    assert.same({ nil, "cancelled" }, cancelled_at(15, script({ "retry" }, 2), slow))
    assert.same({ nil, "cancelled" }, cancelled_at(0, script { "retry" }))   -- without pauses
    -- a step that hears it first, and takes no notice, does not go on
    log = {}
    assert.same({ nil, "cancelled" }, cancelled_at(1, script({ "retry" }, 2)))
    assert.equal(2, #log)
  end)

  it("polls in the background, and is awaited", function ()
    local policy = poller { backoff = "1s", name = "job" }
    rt.run(function ()
      local polling = policy:start(script { "retry", "retry", { "done", 1, nil } })
      assert.same({}, log)
      assert.is_false(polling:ended())
      assert.same({ "done", 1 }, { polling:await() })
      assert.equal(2, rt.now())
      assert.is_true(polling:ended())
      assert.is_false(polling:cancel())
      assert.same({ "done", 1 }, { polling:await(0) })        -- as often as one likes
      polling = policy:start(script { { nil, "no" } })
      assert.same({ nil, "no" }, { polling:await(5) })
      polling = policy:start(script { "retry" }, { timeout = "3s" })
      rt.sleep(1)                                             -- its time goes on meanwhile
      assert.same({ nil, "timeout" }, { polling:await() })
      assert.equal(5, rt.now())
    end)
    assert.equal(5, rt.now())
  end)

  it("gives up what takes longer than one waits for it", function ()
    local answer, again
    rt.run(function ()
      local polling = poller():start(hangs)
      answer = { polling:await "20ms" }
      assert.equal(0.02, rt.now())
      again = { polling:await() }
    end)
    assert.same({ { nil, "timeout" }, { nil, "cancelled" } }, { answer, again })
    assert.same({ 0.02 }, log)
    assert.equal(0.02, rt.now())
  end)

  it("goes on in the background when somebody does not wait any longer", function ()
    local first, second
    rt.run(function ()
      local polling = poller { backoff = "1s" }:start(script { "retry", "retry", "done" })
      local task = rt.spawn(function () first = { polling:await(9) } end)
      rt.spawn(function () second = { polling:await(9) } end)
      rt.sleep(0.5)
      task:cancel()
    end)
    assert.same({ { nil, "cancelled" }, { "done" } }, { first, second })
    assert.equal(2, rt.now())
  end)

  it("says under its name what it raised when nobody waits for it any longer", function ()
    local reports = {}
    function rt.report(text) reports[#reports + 1] = text end
    local ok, err = pcall(rt.run, function ()
      local policy = poller { name = "job", backoff = "2s", exceptions = "raise" }
      local polling = policy:start(function (try)
        if try.attempt == 0 then return "retry" end
        error({ "boom" }, 0)
      end)
      local task = rt.spawn(function () polling:await(9) end)
      rt.sleep(1)
      task:cancel()
    end)
    assert.same({ false, { "boom" } }, { ok, err })
    assert.equal(1, #reports)
    assert.matches("^neap: job: ", reports[1])
    assert.equal(2, rt.now())
  end)

  it("is cancelled in the background, even before it begins", function ()
    rt.run(function ()
      local polling = poller():start(script { "done" })
      assert.is_true(polling:cancel())
      assert.same({ nil, "cancelled" }, { polling:await(1) })
      assert.same({}, log)
      polling = poller():start(hangs)
      rt.sleep(1)
      assert.is_true(polling:cancel())
      assert.same({ nil, "cancelled" }, { polling:await() })
      assert.equal(1, rt.now())
    end)
    assert.same({ 1 }, log)
    local ok, err = pcall(rt.run, function ()
      poller { exceptions = "raise" }:start(function () error({ "boom" }, 0) end):await(1)
    end)
    assert.same({ false, { "boom" } }, { ok, err })
    assert.equal(1, rt.now())
  end)

  it("works outside of tasks", function ()
    local policy = poller { backoff = "1s", timeout = "5s" }
    assert.same({ "done" }, { policy:run(script { "retry", "done" }) })
    assert.same({ nil, "timeout" }, { policy:run(hangs) })
    assert.same({ "done" }, { policy:start(script { "retry", "done" }):await(2) })
    assert.same({ nil, "timeout" }, { poller():start(hangs):await(2) })
    assert.equal(1 + 5 + 1 + 2, rt.now())
    assert.same({ 1 }, { poller():run(script { "retry", 1 }) })
  end)
end)
