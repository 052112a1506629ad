--- Experiments: the shipped engine against results that are exact or were published. Each measures,
--- compares, and says how far it may be off: an experiment that fails has found the engine, or the
--- experiment, wrong.
---
---     local outcome = experiment.run("md1", { seed = 1 })
---     outcome.fine                                       --> true
---
--- A comparison holds when the difference is within the stated share of the reference, or within
--- the stated amount; `effort` below 1 is a short form, whose tolerance is wider as its chance is.
local ipairs, pcall, setmetatable = ipairs, pcall, setmetatable
local abs, huge, max, sqrt = math.abs, math.huge, math.max, math.sqrt

local experiment = {}

experiment.NAMES = { "policer", "md1", "erlang", "aws-jitter", "retry-budget",
  "metastable", "adaptive", "windows" }

---@class neap.sim.Row
---@field what string
---@field got number
---@field wanted number?     nil: it only has to hold
---@field off number?        what of the tolerance was used, 1 is all of it
---@field fine boolean

---@class neap.sim.Outcome
---@field name string
---@field about string
---@field tolerance string
---@field rows neap.sim.Row[]
---@field notes string[]
---@field fine boolean

---@class neap.sim.Trial
---@field seed integer
---@field effort number    of the full form, above 0 to 1
---@field rows neap.sim.Row[]
---@field progress fun(text: string)
local trial = {}
trial.__index = trial

--- So many of what the full form has n of.
---@param n number
---@return integer
function trial:of(n) return max(1, math.ceil(n * self.effort)) end

--- Compare what was measured with what it should be.
---@param what string
---@param got number
---@param wanted number
---@param share number     of the reference that it may be off
---@param amount number?   or that much, whatever the reference
function trial:compare(what, got, wanted, share, amount)
  local wide = 1 / sqrt(self.effort)
  local most = max(abs(wanted) * share, amount or 0) * wide
  local off = most > 0 and abs(got - wanted) / most or got == wanted and 0 or huge
  local fine = off <= 1   -- not for a NaN
  self.rows[#self.rows + 1] = { what = what, got = got, wanted = wanted, off = off, fine = fine }
  self.progress(what)
end

--- Something that has to hold.
---@param what string
---@param fine boolean
---@param got number?
function trial:holds(what, fine, got)
  self.rows[#self.rows + 1] = { what = what, got = got, fine = fine and true or false }
  self.progress(what)
end

--- A line for people.
---@param text string
function trial:note(text) self.notes[#self.notes + 1] = text end

--- The module of a name; nil when there is none.
---@param name string
---@return table?
function experiment.find(name)
  for _, each in ipairs(experiment.NAMES) do
    if each == name then
      return require("neap.sim.experiments." .. name:gsub("-", "_"))
    end
  end
end

--- Run one.
---@param name string
---@param options { seed: integer, effort: number?, progress: fun(text: string)? }
---@return neap.sim.Outcome
function experiment.run(name, options)
  local module = experiment.find(name)
  if not module then error("no experiment '" .. tostring(name) .. "'", 2) end
  local self = setmetatable({ seed = options.seed, effort = options.effort or 1, rows = {},
    notes = {}, progress = options.progress or function () end }, trial)
  local ran, problem = pcall(module.run, self)
  if not ran then self:holds(tostring(problem), false) end
  local fine = #self.rows > 0
  for _, row in ipairs(self.rows) do fine = fine and row.fine end
  return { name = name, about = module.about, tolerance = module.tolerance, rows = self.rows,
    notes = self.notes, fine = fine }
end

return experiment
