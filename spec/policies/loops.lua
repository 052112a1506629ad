-- Loops, locals and shared tables; what they make is found again by what is in it.
local plans = {
  free = { requests = "5/s burst 10", calls = "4 in flight" },
  pro  = { requests = "50/s burst 100", calls = "32 in flight" },
}

local function sized(name, n)
  policy(name) {
    limits = { slots = ("%d in flight"):format(n), rate = math.max(n, 10) .. "/s" },
    lease  = { ttl = 2 .. "min" },
  }
end

for _, plan in ipairs { "free", "pro" } do
  policy("plan-" .. plan) { doc = plan, limits = plans[plan] }
end

for n = 1, 3 do sized("size-" .. n, n) end
