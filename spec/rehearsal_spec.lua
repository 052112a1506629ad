--- A policy is checked by a process of its own, which may die of it.
local C = require "neap.engine"
local policy = require "neap.policy"

local HERE = debug.getinfo(1, "S").source:match "^@(.*/)" or "spec/"
local EXAMPLES, FIXTURES = HERE .. "../examples/policies/", HERE .. "policies/"

local paths = {}

local function written(text, mode)
  local path = os.tmpname()
  paths[#paths + 1] = path
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
  if mode then os.execute(("chmod %s '%s'"):format(mode, path)) end
  return path
end

-- Wait for the end of a rehearsal, a moment at a time.
local function ended(rehearsal)
  local fine, said
  repeat
    fine, said = rehearsal:poll()
    if fine == nil then os.execute "sleep 0.01" end
  until fine ~= nil
  return fine, said
end

-- A program that does this instead of checking.
local function program(script) return written("#!/bin/sh\n" .. script, "+x") end

local function clean()
  for _, path in ipairs(paths) do os.remove(path) end
  paths = {}
end

describe("a rehearsal", function ()
  after_each(clean)

  it("says nothing of a file that is fine", function ()
    assert.same({ true, "" }, { ended(assert(policy.rehearse(EXAMPLES .. "llm.lua"))) })
  end)

  it("says what check says", function ()
    local path = FIXTURES .. "bad.lua"
    local fine, said = ended(assert(policy.rehearse(path)))
    local _, mistakes = policy.load(path)
    assert.same({ false, tostring(mistakes) }, { fine, said })
    local warned
    path = written 'policy "p" { limits = { a = "1/s" }, retry = {} }'
    fine, warned = ended(assert(policy.rehearse(path)))
    assert.is_true(fine)
    assert.matches("warning: retry: without a budget", warned)
  end)

  it("survives whatever the file does", function ()
    for _, name in ipairs { "loop", "protected", "bottomless", "handler", "pattern" } do
      local fine, said = ended(assert(policy.rehearse(FIXTURES .. name .. ".lua")))
      assert.is_false(fine)
      assert.matches(name .. "%.lua:%d: stopped", said)
    end
  end)

  it("does not wait, and can be ended", function ()
    local rehearsal = assert(policy.rehearse("x.lua", { program = program "exec sleep 600" }))
    assert.is_nil((rehearsal:poll()))
    rehearsal:close()
    assert.is_false((rehearsal:poll()))
    assert.equal(-1, rehearsal.child.fd)
    rehearsal:close()
  end)

  it("keeps what was said before a violent end, and not all of very much", function ()
    local fine, said = ended(policy.rehearse("x.lua", { program =
      program "echo so far; kill -9 $$" }))
    assert.same({ false, "so far\nneap: 'x.lua': its check was ended by signal 9" }, { fine, said })
    fine, said = ended(policy.rehearse("x.lua", { program =
      program "head -c 3000000 /dev/zero | tr '\\0' x" }))
    assert.is_true(fine)
    assert.is_true(#said >= 2 ^ 18 and #said < 2 ^ 19)
  end)

  it("has an empty input, whatever ours is", function ()
    local path = written(([[
      local rehearsal = require "neap.policy".rehearse("x.lua", { program = %q })
      repeat local fine, said = rehearsal:poll() until fine ~= nil
      print(select(2, rehearsal:poll()) == "", io.read())]]):format(program "cat"))
    local pipe = assert(io.popen(("echo ours | luajit '%s' 2>&1"):format(path)))
    assert.equal("true\tours\n", pipe:read "*a")
    pipe:close()
  end)

  it("passes the path as one word", function ()
    local _, said = ended(policy.rehearse("-a b'c", { program =
      program "cat; echo \"$1 $2 $3|$4|$#\"" }))
    assert.equal("check --quiet --|-a b'c|4", said)
  end)

  it("says when there is no program", function ()
    local none, message = policy.rehearse("x.lua", { program = "/no/such" })
    assert.is_nil(none)
    assert.matches("cannot start '/no/such': error %d+", message)
    assert.has_error(function () policy.rehearse(5) end,
      "rehearse: the path of a policy file expected")
    assert.has_error(function () policy.rehearse "a\0b" end)
  end)

  it("leaves no descriptor and no process behind", function ()
    collectgarbage()
    collectgarbage()
    -- a new descriptor is the least that is free
    local sleeps, ends = program "exec sleep 600", program "exit 3"
    local least = assert(policy.rehearse("x.lua", { program = ends }))
    assert.is_false((ended(least)))
    for i = 1, 20 do
      local rehearsal = policy.rehearse("x.lua", { program = i % 2 == 0 and ends or sleeps })
      assert.equal(least.fd, rehearsal.fd)
      if i % 2 == 0 then ended(rehearsal) else rehearsal:close() end
      assert.same({ 0, -1 }, { rehearsal.child.pid, rehearsal.child.fd })
    end
  end)
end)

describe("a process that bounds itself", function ()
  after_each(clean)

  -- What a program in Lua says, and its exit status.
  local function lua(text)
    local path = written(text)
    local pipe = assert(io.popen(("luajit '%s' 2>&1; echo $?"):format(path)))
    local said, status = pipe:read "*a":match "^(.-)(%d+)\n$"
    pipe:close()
    return said, tonumber(status)
  end

  it("ends with its last words when its time is used, compiled or not", function ()
    local said, status = lua [[
      local C = require "neap.engine"
      assert(C.neap_bound(1, 2^40, "old words\n") == 0)
      assert(C.neap_bound(1, 2^40, "these were the last words\n") == 0)
      while true do end]]
    assert.same({ "these were the last words\n", 1 }, { said, status })
  end)

  it("gets no more memory", function ()
    if (os.getenv "NEAP_BUILD" or ""):find "san" then return end   -- sanitizers need more
    local said, status = lua [[
      local C = require "neap.engine"
      assert(C.neap_bound(60, 64 * 2^20, "") == 0)
      local t = {}
      local ok, why = pcall(function () while true do t[#t + 1] = ("x"):rep(1e6 + #t) end end)
      local n = #t
      t = nil
      print(why, n < 64)]]
    assert.same({ "not enough memory\ttrue\n", 0 }, { said, status })
  end)

  it("refuses bounds of nothing", function ()
    assert.equal(C.NEAP_ERANGE, C.neap_bound(0, 1, ""))
    assert.equal(C.NEAP_ERANGE, C.neap_bound(1, 0, ""))
  end)
end)
