--- A hook that does not come back is noticed, and named. A machine may stop a program in the midst
--- of a quick one, which is then as late as a slow one: the programs here take the time themselves.
local watch = require "neap.policy.watch"

-- What a program in Lua says, run by another one or not, and its exit status as the shell has it.
local function lua(text, by)
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write([[
    local C = require "neap.engine"
    local watch = require "neap.policy.watch"
    --- Call it: did the watch look more than once meanwhile?
    local function took(late_ms, hook)
      local since = C.neap_loop_now(nil)
      hook()
      return C.neap_loop_now(nil) - since >= late_ms / 8 * 1e6
    end
    ]], text)
  file:close()
  local command = ("bash -c 'ulimit -c 0; %s luajit %s' 2>&1; echo $?"):format(by or "", path)
  local pipe = assert(io.popen(command))
  local said, status = pipe:read "*a":match "^(.-)(%d+)\n$"
  pipe:close()
  os.remove(path)
  return said, tonumber(status)
end

describe("a watched hook", function ()
  it("answers what it answers, and its error", function ()
    local over = watch()
    local sum = over:over("p", "estimate", function (a, b) return a + b, nil, 3 end)
    assert.same({ true, 5, nil, 3 }, { sum(2, 3) })
    local bad = over:over("p", "open", function () error({ 1 }) end)
    assert.same({ false, { 1 } }, { bad() })
    assert.equal(0, over:late())
    over:close()
    assert.same({ true, 7, nil, 3 }, { sum(3, 4) })   -- without the watch
  end)

  it("is not late before it is called, nor after", function ()
    local said, status = lua [[
      local over = watch { late = "2ms", dead = "100ms" }
      local function idle()
        local until_s = os.clock() + 0.2
        while os.clock() < until_s do end
      end
      idle()
      local slow = took(2, over:over("p", "open", function () end))
      idle()
      os.exit(over:late() <= (slow and 1 or 0) and 0 or 1)]]
    assert.equal(0, status, said)
  end)

  it("may call another one", function ()
    local over = watch()
    local inner = over:over("p", "shed", function () error "in" end)
    local outer = over:over("p", "open", function () return inner() end)
    local ok, fine, message = outer()
    assert.same({ true, false }, { ok, fine })
    assert.matches("in$", message)
    assert.has_error(function () over:over("p", "x", function () over:close() end)() error "no" end)
    over:close()
  end)

  it("is named when it is late, and goes on", function ()
    local said, status = lua [[
      local over = watch { late = "5ms", dead = "1h" }
      local quick = over:over("p", "limit", function () end)
      local stops = 0
      for _ = 1, 1e5 do
        if took(5, quick) then stops = stops + 1 end
      end
      local before = over:late()
      assert(before <= stops, "a quick one was late")
      local slow = over:over("ope\27nai", "open", function ()
        while over:late() == before do end
        return "back"
      end)
      print(select(2, slow()), over:late() - before)
      over:close()]]
    assert.equal(0, status, said)
    assert.matches("neap: hook 'open' of policy 'ope\\27nai' has not returned for %d+ ms\n"
      .. "back\t1\n$", said)
  end)

  it("is not late for having been stopped with its process", function ()
    local said, status = lua [[
      local ffi = require "ffi"
      ffi.cdef "int raise(int); int getpid(void);"
      local over = watch { late = "100ms", dead = "2s" }
      local function some_looks()
        local until_s = os.clock() + 0.05
        while os.clock() < until_s do end
      end
      -- goes on as long as it is there, so that it does not matter which of the two comes first
      local go_on = "(while sleep 2.3; kill -CONT %d; do :; done) > /dev/null 2>&1 &"
      os.execute(go_on:format(ffi.C.getpid()))
      over:over("p", "open", function ()
        some_looks()
        ffi.C.raise(19)   -- SIGSTOP
        some_looks()
      end)()
      print "back"]]
    assert.same({ "back\n", 0 }, { said:match "back\n$", status })
  end)

  it("is watched after another one that it called", function ()
    local _, status = lua [[
      local over = watch { late = "5ms", dead = "1h" }
      local inner = over:over("p", "shed", function () end)
      local outer = over:over("p", "open", function ()
        inner()
        local give_up = os.clock() + 20
        while over:late() == 0 and os.clock() < give_up do end
      end)
      outer()
      os.exit(over:late())]]
    assert.equal(1, status)
  end)

  it("ends the process when it never comes back, compiled as it is", function ()
    local said, status = lua [[
      local over = watch { late = "5ms", dead = "30ms" }
      over:over("openai", "estimate", function () while true do end end)()]]
    assert.equal(134, status)
    assert.matches("hook 'estimate' of policy 'openai' has not returned for %d+ ms\n", said)
    assert.matches("'openai' has not returned for %d+ ms: the process ends\n", said)
  end)

  it("ends the process also when nobody reads what is said of it", function ()
    local _, status = lua([[
      local ffi = require "ffi"
      ffi.cdef "int pipe2(int *, int); int dup2(int, int); int fcntl(int, int, ...);"
      ffi.cdef "long write(int, const char *, unsigned long);"
      local ends = ffi.new "int[2]"
      ffi.C.pipe2(ends, 2048)             -- O_NONBLOCK
      ffi.C.dup2(ends[1], 2)
      while ffi.C.write(2, "x", 1) == 1 do end
      ffi.C.fcntl(2, 4, ffi.new("int", 0))   -- F_SETFL: whoever writes waits now
      local over = watch { late = "5ms", dead = "30ms" }
      over:over("openai", "estimate", function () while true do end end)()]], "timeout 20")
    assert.equal(134, status)
  end)

  it("is refused bounds that are none", function ()
    assert.has_error(function () watch { late = "5s", dead = "1s" } end,
      "watch: no thread, or 'dead' comes before 'late'")
    assert.has_error(function () watch { late = "soon" } end)
  end)
end)
