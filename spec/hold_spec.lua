--- Limits that are held: against a bucket that is kept as a level, in exact numbers, and against
--- what any observer could count.
local ffi = require "ffi"
local C = require "neap.engine"
local seed = require "spec.seed"

local random = math.random

local function run(title, fn)
  it(title, function ()
    math.randomseed(seed)
    fn()
  end)
end

-- ---- a bucket, the plain way ------------------------------------------------------------------

local PERIOD = 1024   -- ns per token: a power of two, so nothing is rounded

local bucket = {}
bucket.__index = bucket

--- Let time pass up to an instant; levels are in tokens * PERIOD.
function bucket:pass(now)
  if now >= self.held then
    self.level = math.min(self.burst, self.level + (now - self.at) + self.aside)
    self.aside = 0
  else
    self.aside = self.aside + now - self.at
  end
  self.at = now
end

function bucket:take(cost)
  if self.level < cost * PERIOD then return false end
  self.level = self.level - cost * PERIOD
  return true
end

--- Tokens are whole, so what is left of one is no reason to take it.
function bucket:hold(tokens, till)
  self.level = math.min(self.burst, self.level + self.aside)
  if self.level >= (tokens + 1) * PERIOD then self.level = tokens * PERIOD end
  self.aside, self.held = 0, till > self.at and till or 0
end

--- The first instant at which a cost goes.
function bucket:when(cost)
  local missing = cost * PERIOD - self.level
  if missing <= 0 then return self.at end
  local now = self.at + missing - self.aside
  return self.at < self.held and math.max(now, self.held) or now
end

describe("a rate that is held", function ()
  run("is a bucket into which nothing flows, and then all of it at once", function ()
    for _ = 1, 400 do
      local burst = random(1, 30)
      local g = ffi.new "struct neap_gcra"
      assert.equal(C.NEAP_OK, C.neap_gcra_init(g, 1, PERIOD, burst))
      local b = setmetatable({ burst = burst * PERIOD, level = burst * PERIOD, at = 0, held = 0,
        aside = 0 }, bucket)
      local now = 0
      for _ = 1, 300 do
        local step = random(6)
        if step == 1 and now < b.held then
          now = b.held - random(0, 1)   -- the end, and the instant before
        elseif step <= 4 then
          now = now + random(0, 3 * PERIOD)
        end
        now = math.max(now, b.at)
        b:pass(now)
        local cost = random(0, burst)
        if random(8) == 1 then
          local tokens, till = random(0, burst + 2), now + random(-5, 20) * random(PERIOD)
          C.neap_gcra_hold(g, tokens, till, now)
          b:hold(tokens, till)
        elseif random(2) == 1 then
          local at = tonumber(C.neap_gcra_when(g, cost, now))
          assert.equal(b:when(cost), at)
          if at > now then
            assert.is_true(C.neap_gcra_when(g, cost, at - 1) > at - 1)
            assert.is_true(C.neap_gcra_when(g, cost, at) == at)
          end
        else
          local took = C.neap_gcra_take(g, cost, now) == now
          assert.equal(b:take(cost), took)
        end
        assert.equal(math.floor(b.level / PERIOD), tonumber(C.neap_gcra_available(g, now)))
      end
    end
  end)
end)

-- ---- a sliding log ----------------------------------------------------------------------------

describe("a sliding limit that is held", function ()
  run("lets no more go than it is told, and is exact in every window all the same", function ()
    for _ = 1, 400 do
      local limit, window, size = random(1, 20), random(5, 100), random(1, 20)
      local log = ffi.new("struct neap_stamp[?]", size)
      local w = ffi.new "struct neap_window"
      assert.equal(C.NEAP_OK, C.neap_window_init(w, limit, window, log, size))
      local now, held, left, latest, grants = 0, 0, 0, 0, {}
      for _ = 1, 200 do
        now = random(4) == 1 and now < held and held or now + random(0, window)
        local free = tonumber(C.neap_window_available(w, now))
        if random(8) == 1 then
          local tokens, till = random(0, limit + 1), now + random(-1, 3) * random(window)
          C.neap_window_hold(w, tokens, till, now)
          assert.equal(math.min(free, tokens), tonumber(C.neap_window_available(w, now)))
          held, left, latest = till, math.min(tokens, limit), math.max(latest, till)
        end
        local cost = random(1, limit)
        local at = tonumber(C.neap_window_when(w, cost, now))
        assert.is_true(at >= now)
        if C.neap_window_take(w, cost, now) == now then
          assert.equal(now, at)
          grants[#grants + 1] = { now, cost }
          if now < held then
            left = left - cost
            assert.is_true(left >= 0, "more than was told")
          end
          local inside = 0
          for _, grant in ipairs(grants) do
            if grant[1] > now - window then inside = inside + grant[2] end
          end
          assert.is_true(inside <= limit, "more than the limit in a window")
        end
        for i = 1, w.count - 1 do
          assert.is_true(log[(w.first + i - 1) % size].at <= log[(w.first + i) % size].at)
        end
      end
      now = math.max(now, latest) + 2 * window   -- nothing is lost for good
      assert.equal(limit, tonumber(C.neap_window_available(w, now)))
    end
  end)

  it("is let go at the reset, and not when its own window has passed", function ()
    local log = ffi.new "struct neap_stamp[8]"
    local w = ffi.new "struct neap_window"
    C.neap_window_init(w, 10, 100, log, 8)
    assert.equal(0, tonumber(C.neap_window_take(w, 4, 0)))
    C.neap_window_hold(w, 3, 250, 10)
    assert.equal(3, tonumber(C.neap_window_available(w, 10)))
    assert.equal(3, tonumber(C.neap_window_available(w, 249)))
    assert.equal(10, tonumber(C.neap_window_available(w, 250)))
    C.neap_window_hold(w, 3, 0, 300)   -- no reset: as if granted now
    assert.equal(3, tonumber(C.neap_window_available(w, 399)))
    assert.equal(10, tonumber(C.neap_window_available(w, 400)))
  end)
end)
