--- CL.THROTTLE's replies, one row each: the rows of a case share a clock and their keys' words, so
--- they are played in order.
local ffi = require "ffi"
local C = require "neap.engine"
local harness = require "spec.vectors.harness"

local EPOCH = 86400LL * 1000000000LL
local REPLY = { "limited", "limit", "remaining", "retry_s", "reset_s" }

local suite = {}

--- The rows in the text of the file.
---@param text string
---@return table[]
function suite.cases(text)
  local rows, words_of = {}, {}
  for line in text:gmatch "[^\n]+" do
    local fields = {}
    for field in line:gmatch "[^\t]+" do fields[#fields + 1] = field end
    local case = tonumber(fields[1])
    if case then
      words_of[case] = words_of[case] or {}
      rows[#rows + 1] = {
        id = ("CL-%d row %d"):format(case, #rows + 1), why = "replies as redis-cell",
        fields = fields, words = words_of[case],
      }
    end
  end
  return rows
end

function suite.run(row)
  local _, at, key, max_burst, count, period_s, quantity = unpack(row.fields)
  local now = EPOCH + tonumber(at)
  local cell, reply = ffi.new "struct neap_cell", ffi.new "struct neap_cell_reply"
  local status = C.neap_cell_init(cell, tonumber(max_burst), tonumber(count), period_s * 1e9)
  harness.expect("init", C.NEAP_OK, status)
  C.neap_cell_take(cell, row.words[key] or 0, tonumber(quantity), now, reply)
  row.words[key] = reply.tat
  for i, name in ipairs(REPLY) do
    harness.expect(name, tonumber(row.fields[7 + i]), tonumber(reply[name]))
  end
end

return suite
