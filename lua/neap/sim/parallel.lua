--- Several runs at once: each in a process of its own, forked, whose answer comes back through a
--- pipe as text. What comes of it does not depend on how many there are.
local ffi = require "ffi"
local system = require "neap.cli.system"

local concat, max, min = table.concat, math.max, math.min
local error, pcall, tonumber, tostring = error, pcall, tonumber, tostring

local PIECE = 65536
local PROCESSORS = 84   -- _SC_NPROCESSORS_ONLN of Linux
local POLLIN = 1

local parallel = {}

--- How many processors there are.
---@return integer
function parallel.processors()
  return max(tonumber(system.sysconf(PROCESSORS)), 1)
end

local function write_all(fd, text)
  local at = 0
  while at < #text do
    local n = tonumber(system.write(fd, ffi.cast("const char *", text) + at, #text - at))
    if n <= 0 then system._exit(1) end
    at = at + n
  end
end

--- In a child: its share of the work, each answer behind its number and length.
local function work(fd, first, count, step, fn)
  for i = first, count, step do
    local fine, text = pcall(fn, i)
    if not fine then text = "\0" .. tostring(text) end
    write_all(fd, ("%d %d\n"):format(i, #text) .. text)
  end
  system._exit(0)
end

local function start(first, count, step, fn)
  local ends = ffi.new "int[2]"
  if system.pipe(ends) ~= 0 then return nil end
  io.stdout:flush()
  local pid = system.fork()
  if pid < 0 then
    system.close(ends[0])
    system.close(ends[1])
    return nil
  elseif pid == 0 then
    system.close(ends[0])
    work(ends[1], first, count, step, fn)
  end
  system.close(ends[1])
  return { pid = pid, fd = ends[0], parts = {} }
end

--- Take apart what has come of a child's answers.
local function take(child, answers)
  local text = concat(child.parts)
  local at = 1
  while true do
    local i, size, from = text:match("^(%d+) (%d+)\n()", at)
    if not i or #text < from + size - 1 then break end
    local answer = text:sub(from, from + size - 1)
    if answer:byte() == 0 then child.failed = answer:sub(2) end
    answers[tonumber(i)] = answer
    answers.count = answers.count + 1
    at = from + size
  end
  child.parts = { text:sub(at) }
end

local function read_some(child, buffer, answers)
  local n = tonumber(system.read(child.fd, buffer, PIECE))
  if n > 0 then
    child.parts[#child.parts + 1] = ffi.string(buffer, n)
    take(child, answers)
    return true
  end
  system.close(child.fd)
  system.waitpid(child.pid, nil, 0)
end

local function collect(children, answers, progress)
  local buffer, polls = ffi.new("char[?]", PIECE), ffi.new("struct neap_pollfd[?]", #children)
  local problem
  while children[1] do
    for k, child in ipairs(children) do polls[k - 1].fd, polls[k - 1].events = child.fd, POLLIN end
    system.poll(polls, #children, -1)
    for k = #children, 1, -1 do
      local child = children[k]
      if polls[k - 1].revents ~= 0 and not read_some(child, buffer, answers) then
        table.remove(children, k)
      end
      problem = problem or child.failed
    end
    progress(answers.count)
  end
  return problem
end

--- What fn(1) to fn(count) answer, texts all, in that order.
---@param count integer
---@param processes integer   at most so many at once; 1: this one
---@param fn fun(i: integer): string
---@param progress fun(done: integer)
---@return string[]
function parallel.map(count, processes, fn, progress)
  processes = min(processes, count)
  local answers, children = { count = 0 }, {}
  if processes > 1 then
    for k = 1, processes do children[#children + 1] = start(k, count, processes, fn) end
  end
  local problem = children[1] and collect(children, answers, progress)
  if problem then error(problem, 0) end
  for i = 1, count do   -- what no process did
    if not answers[i] then
      answers[i] = fn(i)
      answers.count = answers.count + 1
      progress(answers.count)
    end
  end
  answers.count = nil
  return answers
end

return parallel
