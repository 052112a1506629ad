--- Vectors: cases that are data. A suite's file is read, each case builds what it says, plays its
--- steps on the manual clock, and is compared. What a suite's words mean in neap is told by a
--- module of its name beside this one; a suite without one is skipped, and that is said.
local cjson = require "cjson"
local lfs = require "lfs"

local harness = {}

local NULL = cjson.null

-- ---- expectations -----------------------------------------------------------------------------

local is_range = { min = true, max = true }

local function only_range(expected)
  if next(expected) == nil then return false end
  for key in pairs(expected) do
    if not is_range[key] then return false end
  end
  return true
end

--- Expectations about a list that are not a list themselves.
local function matches_sum(expected, got)
  local total = 0
  for i, n in ipairs(got) do
    total = total + n
    if expected.each and math.abs(n - expected.each) > 0.001 then
      return false, ("item %d is %s"):format(i, n)
    end
  end
  if expected.count and #got ~= expected.count then return false, #got .. " items" end
  return total >= (expected.total_at_least or -math.huge)
    and total <= (expected.total_at_most or math.huge), "a total of " .. total
end

--- Does what came satisfy what was expected?
---@param expected any
---@param got any
---@return boolean
---@return string? where  the path to the first difference, and what is there
function harness.matches(expected, got)
  if expected == NULL or expected == nil then
    return got == nil or got == NULL, "something instead of nothing"
  elseif type(expected) == "number" then
    local near = type(got) == "number" and (math.abs(got - expected) <= 0.001 or got == expected)
    return near, tostring(got)
  elseif type(expected) ~= "table" then
    if expected == "unbounded" then return got == math.huge, tostring(got) end
    return expected == got, tostring(got)
  elseif expected.any_of then
    for _, one in ipairs(expected.any_of) do
      if harness.matches(one, got) then return true end
    end
    return false, "none of the alternatives"
  elseif only_range(expected) then
    return type(got) == "number" and got >= (expected.min or -math.huge)
      and got <= (expected.max or math.huge), tostring(got)
  elseif type(got) ~= "table" then
    return false, tostring(got)
  elseif expected.total_at_least or expected.total_at_most or expected.each then
    return matches_sum(expected, got)
  end
  if (#expected > 0 or next(expected) == nil) and #expected ~= #got then
    return false, ("%d items"):format(#got)
  end
  for key, value in pairs(expected) do
    local ok, where = harness.matches(value, got[key])
    if not ok then return false, tostring(key) .. ": " .. where end
  end
  return true
end

---@param value any
---@return string  on one line
function harness.shown(value)
  if type(value) == "number" then return ("%.14g"):format(value) end
  if type(value) ~= "table" then return tostring(value) end
  local ok, text = pcall(cjson.encode, value)
  return ok and text or tostring(value)
end

--- Give up on a case that says something this version has no words for.
---@param reason string
function harness.skip(reason) error({ skip = reason }, 0) end

--- Find a case wanting.
---@param where string
---@param expected any
---@param got any
function harness.fail(where, expected, got)
  error({ where = where, expected = harness.shown(expected), got = harness.shown(got) }, 0)
end

--- Compare, and give up the case when they differ.
function harness.expect(where, expected, got)
  if not harness.matches(expected, got) then harness.fail(where, expected, got) end
end

-- ---- running ----------------------------------------------------------------------------------

--- The note of a case allows a refusal at construction instead of an answer.
local function may_refuse(case)
  local note = (case.note or ""):lower()
  return note:find "config error" or note:find "at construction"
end

--- Errors name the place they were raised at; those of a make are compared without it.
local function message_of(err)
  return (tostring(err):gsub("^[^\n]-:%d+: ", ""))
end

--- Build, and see that building fails exactly when it should.
---@param case table
---@param make fun(): any
---@param kind_of fun(message: string): string  the vectors' word for an error of neap
---@return any? subject  nil: it was refused, and rightly
function harness.build(case, make, kind_of)
  local ok, subject = pcall(make)
  if ok then
    if case.make_error then harness.fail("make", case.make_error, "no error") end
    return subject
  elseif type(subject) == "table" then
    error(subject, 0)
  end
  local message = message_of(subject)
  if case.make_error then
    harness.expect("make", case.make_error, kind_of(message))
  elseif not may_refuse(case) then
    harness.fail("make", "to be built", message)
  end
end

local function run_case(suite, case, decisions)
  if decisions[case.id] then return "skipped", decisions[case.id] end
  local ok, err = xpcall(suite.run, function (err)
    return type(err) == "string" and debug.traceback(err, 2) or err
  end, case)
  if ok then return "passed" end
  if type(err) == "table" and err.skip then return "skipped", err.skip end
  if type(err) ~= "table" then
    err = { where = "run", expected = "no error", got = tostring(err) }
  end
  return "failed", ("%s: %s: expected %s, got %s"):format(case.why or "?", err.where, err.expected,
    err.got)
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

local function module_of(name)
  local ok, module = pcall(require, "spec.vectors." .. name)
  if ok then return module end
  if not tostring(module):find("module 'spec.vectors." .. name .. "' not found", 1, true) then
    error(module, 0)
  end
end

---@return string name
---@return table[] cases
---@return table? suite
local function load_suite(path)
  if path:find "%.tsv$" then
    local suite = require "spec.vectors.cl_throttle"
    return "cl_throttle", suite.cases(read(path)), suite
  end
  local data = cjson.decode(read(path))
  local name = assert(data.suite, path .. " has no suite")
  return name, data.cases, name:find "^[%w_]+$" and module_of(name) or nil
end

--- Run the suite in a file and say how it went.
---@param path string
---@param decisions table<string, string>  case id to why neap does otherwise
---@param say fun(line: string)
---@return integer failed
function harness.run(path, decisions, say)
  local name, cases, suite = load_suite(path)
  local count = { passed = 0, failed = 0, skipped = 0 }
  for _, case in ipairs(cases) do
    local verdict, why = "skipped", nil
    if suite then verdict, why = run_case(suite, case, decisions) end
    count[verdict] = count[verdict] + 1
    if why then say(("  %s %s: %s"):format(verdict, case.id, why)) end
  end
  say(("vectors: %s: %d passed, %d failed, %d skipped%s"):format(name, count.passed, count.failed,
    count.skipped, suite and "" or " (neap has nothing of the kind)"))
  return count.failed
end

--- The suites in a directory, by name.
---@param dir string
---@return string[] paths
function harness.files(dir)
  local paths = {}
  for name in lfs.dir(dir) do
    if name:find "%.json$" or name:find "^cl_throttle.*%.tsv$" then
      paths[#paths + 1] = dir .. "/" .. name
    end
  end
  table.sort(paths)
  return paths
end

return harness
