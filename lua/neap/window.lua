--- The state of a sliding limit: an exact log of what was granted, oldest first. Its size bounds
--- the memory: 16 bytes for each grant that is in the window at once, and no more than the limit's
--- tokens can be. A log that is smaller is safe, too: when it is full the next grant waits for its
--- oldest entry to leave.
local ffi = require "ffi"

local error = error
local ENTRIES = 2 ^ 20   -- 16 MiB; more must be asked for

local log_t = ffi.typeof "struct neap_stamp[?]"

--- The log for a sliding limit of `amount` tokens.
---@param amount integer
---@param entries integer?  at most so many grants in the window
---@param level integer
---@return ffi.cdata* log   struct neap_stamp[]
---@return integer entries
local function log_for(amount, entries, level)
  if entries == nil then
    entries = amount
    if entries > ENTRIES then
      error(("throttle: a sliding limit of %d tokens may have to remember as many grants; say how "
        .. "many it may: log = %d takes 16 MiB"):format(amount, ENTRIES), level + 1)
    end
  elseif type(entries) ~= "number" or entries < 1 or entries % 1 ~= 0 or entries > 2 ^ 27 then
    error("log: a whole number from 1 to 2^27 expected, got " .. tostring(entries), level + 1)
  end
  return log_t(entries), entries
end

return { log_for = log_for }
