--- What the dice of a spec begin with: NEAP_SEED, which spec/run sets, and shows when one fails. A
--- test that draws says math.randomseed(seed) first: it draws the same alone and among others.
local text = os.getenv "NEAP_SEED"
local seed = tonumber(text)
if not seed then error("NEAP_SEED: a whole number expected, got " .. tostring(text), 0) end

--- Whole and exact, and so is its product with a small one, for any 64 bits.
---@type integer  0 to 2^31 - 1
return seed % 2 ^ 31
