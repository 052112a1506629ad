--- The globals that a chunk can touch, whether it has run there or not: a hook's misspelt name is
--- found when the file is checked, not when the breaker opens.
--
-- The machine has compiled the text already, and its instructions say it without a guess: GGET and
-- GSET name a global, and TGETS right behind a GGET a field of it. Their numbers differ between
-- versions of the machine, so it is asked for them: it compiles a line that has each.
local bit = require "bit"
local util = require "jit.util"

local band, rshift = bit.band, bit.rshift
local funcbc, funcinfo, funck = util.funcbc, util.funcinfo, util.funck
local loadstring, type = loadstring, type

local globals = {}

local function opcode(text, pc)
  return band((funcbc(loadstring(text), pc)), 0xff)
end

local GGET, GSET = opcode("return x", 1), opcode("x = 1", 2)
local TGETS = opcode("return x.y", 2)

local function name_at(f, index) return funck(f, -index - 1) end

-- The instruction's number, and its operands: A, and D or B and C.
local function decode(instruction)
  return band(instruction, 0xff), band(rshift(instruction, 8), 0xff), rshift(instruction, 16)
end

--- Call `see(line, name, field, sets)` for each place where a function, or one inside of it,
--- reads a global (and which field of it, if that is written there), or sets it.
---@param f function
---@param see fun(line: integer, name: string, field: string?, sets: boolean)
function globals.each(f, see)
  local pc, instruction = 1, funcbc(f, 1)
  while instruction do
    local op, a, d = decode(instruction)
    local next_instruction = funcbc(f, pc + 1)
    if op == GGET or op == GSET then
      local field
      if op == GGET and next_instruction then
        local next_op, _, operands = decode(next_instruction)
        if next_op == TGETS and rshift(operands, 8) == a then
          field = name_at(f, band(operands, 0xff))
        end
      end
      see(funcinfo(f, pc).currentline, name_at(f, d), field, op == GSET)
    end
    pc, instruction = pc + 1, next_instruction
  end
  local index, constant = -1, funck(f, -1)
  while constant ~= nil do
    if type(constant) == "proto" then globals.each(constant, see) end
    index = index - 1
    constant = funck(f, index)
  end
end

return globals
