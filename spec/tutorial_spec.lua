--- doc/tutorial.md, done: its commands are run in a folder of its own, its entries typed at a
--- terminal, and everything has to answer what the page prints. … stands for what may be anything.
local process = require "spec.process"
local terminal = require "spec.terminal"

local BIN = (os.getenv "NEAP_BUILD" or "build") .. "/bin"
local PAGE = "doc/tutorial.md"

local concat = table.concat

--- The fenced blocks: of which kind, their lines, and where the first of them is.
local function blocks_of(path)
  local blocks, inside, n = {}, nil, 0
  for line in io.lines(path) do
    n = n + 1
    if inside and line == "```" then
      inside = nil
    elseif line:match "^```" then
      inside = { kind = line:sub(4), line = n }
      blocks[#blocks + 1] = inside
    elseif inside then
      inside[#inside + 1] = line
    end
  end
  return blocks
end

local function escaped(text) return (text:gsub("%p", "%%%0")) end

--- Does a text agree with what the page has?
local function agrees(want, got)
  local pattern = escaped(want):gsub("…", ".-")
  return got:find("^" .. pattern .. "$") ~= nil
end

--- What is typed in a block, each with what is answered: { mark, typed, answer, line }.
local function steps_of(block)
  local steps = {}
  for i, line in ipairs(block) do
    local mark, typed = line:match "^(%$ )(.*)$"
    if not mark then mark, typed = line:match "^([%w.:]+ ?[%w.+]*> )(.*)$" end
    if mark then
      steps[#steps + 1] = { mark = mark, typed = typed, line = block.line + i, answer = {} }
    else
      local answer = steps[#steps].answer
      answer[#answer + 1] = line
    end
  end
  return steps
end

describe("the tutorial", function ()
  local folder, screen

  before_each(function ()
    folder = process.unused_path()
    assert(os.execute("mkdir " .. folder))
  end)
  after_each(function ()
    if screen then screen:stop() end
    process.sweep()
    screen = nil
    os.execute("rm -rf " .. process.quoted(folder))
  end)

  local function in_folder(command)
    return ("cd %s && PATH=%s:$PATH && %s"):format(process.quoted(folder), process.quoted(BIN),
      command)
  end

  local function expect(step, got)
    local want = concat(step.answer, "\n")
    got = got:gsub("\n$", "")
    assert.truthy(agrees(want, got), ("%s:%d: %s\nsays\n%s\nbut is\n%s"):format(PAGE, step.line,
      step.typed, want, got))
  end

  --- A command that has a prompt of its own; what it says first is of that step.
  local function open(step, prompt)
    if screen then
      screen:type "\4"
      screen:finish()
    end
    screen = terminal.start({ "sh", "-c", in_folder("exec " .. step.typed) },
      { XDG_STATE_HOME = folder .. "/state" })
    expect(step, (screen:expect(prompt):gsub(escaped(prompt) .. "$", "")))
  end

  local function serve(step)
    local worker = process.start { "sh", "-c", in_folder("exec " .. step.typed:gsub(" &$", "")) }
    assert.matches("listening", worker:line())
    expect(step, "")
  end

  local function run(step, following)
    if step.mark ~= "$ " then
      screen:type(step.typed .. "\n")
      local prompt = following and following.mark ~= "$ " and following.mark or "> "
      local said = screen:expect(prompt)
      local _, past = said:find(step.typed .. "\n", 1, true)
      expect(step, (said:sub((past or 0) + 1):gsub("[^\n]*$", "")))
    elseif step.typed:find " &$" then
      serve(step)
    elseif following and following.mark ~= "$ " then
      open(step, following.mark)
    else
      expect(step, (process.output(in_folder(step.typed))))
    end
  end

  it("says what happens", function ()
    local steps = {}
    for _, block in ipairs(blocks_of(PAGE)) do
      if block.kind == "lua" then
        local file = assert(io.open(folder .. "/policy.lua", "w"))
        file:write(concat(block, "\n"), "\n")
        file:close()
      elseif block.kind == "console" then
        for _, step in ipairs(steps_of(block)) do steps[#steps + 1] = step end
      end
    end
    for i, step in ipairs(steps) do run(step, steps[i + 1]) end
    assert.truthy(#steps >= 28)
    assert.truthy(screen)
  end)

  it("begins with what sets up and builds", function ()
    local block = blocks_of(PAGE)[1]
    assert.same({ "./spec/run cli", "export PATH=$PWD/build/bin:$PATH" }, { unpack(block) })
    for _, file in ipairs { "spec/run", "spec/cli_spec.lua" } do
      local found = assert(io.open(file))
      found:close()
    end
  end)
end)
