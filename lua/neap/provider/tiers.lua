--- Tiers: what providers allow, by name, as limits for neap.multi. They change: each says where its
--- numbers are from and when they were read there, and is a table to be copied and put right.
local MINUTE = "%d/min"

local function tier(requests, input, output)
  return {
    limits = {
      requests = MINUTE:format(requests), input_tokens = MINUTE:format(input),
      output_tokens = MINUTE:format(output),
    },
    source = "jamesgober/throttle-net 1.0.0, src/presets.rs",
    date = "2026-11",
  }
end

---@type table<string, { limits: table<string, string>, source: string, date: string }>
return {
  ["anthropic.tier_1"] = tier(50, 40000, 8000),
  ["anthropic.tier_2"] = tier(1000, 80000, 16000),
  ["anthropic.tier_4"] = tier(4000, 400000, 80000),
  ["openai.tier_1"] = tier(500, 30000, 30000),
  ["openai.tier_2"] = tier(5000, 450000, 450000),
}
