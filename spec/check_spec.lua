--- `neap check` as an operator meets it.
local process = require "spec.process"

local BIN = (os.getenv "NEAP_BUILD" or "build") .. "/bin/neap"
local HERE = debug.getinfo(1, "S").source:match "^@(.*/)" or "spec/"
local EXAMPLES, FIXTURES = HERE .. "../examples/policies/", HERE .. "policies/"

local neap, quoted = process.neap, process.quoted

local paths = {}

local function written(text)
  local path = process.file(text)
  paths[#paths + 1] = path
  return path
end

local function clean()
  for _, path in ipairs(paths) do os.remove(path) end
  paths = {}
end

describe("neap check", function ()
  after_each(clean)

  it("tells all mistakes of a file, sorted, and ends with 1", function ()
    local out, err, status = neap("check", FIXTURES .. "bad.lua")
    assert.same({ "", 1 }, { out, status })
    local places = {}
    for place in err:gmatch "bad%.lua:(%d+:%d+): " do places[#places + 1] = place end
    assert.equal("3:21 5:14 7:13 12:1 15:1", table.concat(places, " "))
  end)

  it("prints what is right, and ends with 0", function ()
    local out, err, status = neap("check", EXAMPLES .. "llm.lua", EXAMPLES .. "gateway.lua",
      EXAMPLES .. "game.lua")
    assert.same({ "", 0 }, { err, status })
    for _, row in ipairs { "llm.lua: ok, 1 policy\n", "requests +500/min burst 60\n",
      'per "tenant" output +8k/min\n', "breaker +50%% of 20 in 30s, cooldown 15s, probes 2\n",
      "retry +5 attempts, 200ms x2 cap 20s jitter decorrelated, budget 10%%\n",
      "penalty upload +x20\n", "on open +.-llm.lua:43\n", "gateway.lua: ok, 3 policies\n",
      "shed +queue > 80%%, keep priority interactive\n",
      "adaptive calls +gradient from 20 to 300\n",
      'per "tenant" acme requests +400/s burst 800\n',
      'per "player" keep +20k keys, idle 5m\n' } do
      assert.matches(row, out)
    end
  end)

  it("prints warnings, which --strict makes mistakes", function ()
    local path = written 'policy "p" { limits = { a = "1/s" }, retry = {} }'
    local out, err, status = neap("check", path)
    assert.same({ 0, true }, { status, out:find("ok, 1 policy", 1, true) ~= nil })
    assert.matches(":1:46: warning: retry: without a budget", err)
    assert.equal(0, select(3, neap("check", "--quiet", path)))
    out, err, status = neap("check", "--strict", path)
    assert.same({ "", 1 }, { out, status })
    assert.matches(":1:46: retry: without a budget", err)
  end)

  it("prints JSON that is a policy file", function ()
    local out = neap("check", "--print", "json", EXAMPLES .. "gateway.lua")
    local again, err, status = neap("check", "--print", "json", written(out))
    assert.same({ out, "", 0 }, { again, err, status })
    local _, told = neap("check", written(neap("check", "--print=json", EXAMPLES .. "llm.lua")))
    assert.matches("warning: hooks: hooks are not carried: estimate, open", told)
  end)

  it("prints what a reload would do", function ()
    local old = written 'policy "p" { limits = { a = "5/s", b = "1/s" }, queue = { max = 5 } }'
    local json = written(neap("check", "--print", "json", old))
    local new = written 'policy "p" { limits = { a = "6/s", c = "1/s" }, queue = { max = 6 } }'
    for _, path in ipairs { old, json } do
      local out, err, status = neap("check", "--diff", path, new)
      assert.same({ [[
  p  a      5/s -> 6/s, what is used stays used
     c      new: 1/s
     b      gone: 1/s
     queue  max 5 -> max 6
]], "", 0 }, { out, err, status })
    end
    local _, err, status = neap("check", "--diff", FIXTURES .. "bad.lua", new)
    assert.equal(1, status)
    assert.matches("bad.lua:3:21: ", err)
    _, err, status = neap("check", "--diff", old, "--print", "json", new)
    assert.same({ "neap: --diff prints no json\n", 2 }, { err, status })
  end)

  -- What nobody means to write, and the limit that each runs into.
  local RUNAWAYS = {
    loop = "loop.lua:[34]: stopped after ",
    protected = "protected.lua:[23]: stopped after ",
    bottomless = "bottomless.lua:[345]: stopped after ",
    recursion = "recursion.lua:3: stack overflow",
    handler = "handler.lua:[234]: stopped after ",
    finaliser = "finaliser.lua:2:15: 'newproxy' is not available in a policy file",
    pattern = "pattern.lua:2: stopped at a call that could take more than 10 million steps",
    memory = "memory.lua:4: stopped at a string or table of more than 256 KB",
  }

  for name, limit in pairs(RUNAWAYS) do
    it("stops, and names the file and the limit: " .. name, function ()
      local out, err, status = neap("check", FIXTURES .. name .. ".lua")
      assert.same({ "", 1 }, { out, status })
      assert.matches(limit, err)
      -- 10 million steps, or what comes first on a slow machine
      assert.truthy(not limit:find "after" or err:find "after 10 million steps: a"
        or err:find "after 2 seconds: a", err)
    end)
  end

  it("stops them all within 3 s of the processor's time and 128 MB each", function ()
    if BIN:find "san" then return pending "sanitizers need more" end
    local words = { quoted(BIN) }
    for name in pairs(RUNAWAYS) do words[#words + 1] = quoted(FIXTURES .. name .. ".lua") end
    local pipe = assert(io.popen([[/usr/bin/python3 -c '
import resource, subprocess, sys
spent = 0
for path in sys.argv[2:]:
    status = subprocess.run([sys.argv[1], "check", path], stderr=subprocess.DEVNULL).returncode
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(status, round(used.ru_utime + used.ru_stime - spent, 3), used.ru_maxrss, path)
    spent = used.ru_utime + used.ru_stime
' ]] .. table.concat(words, " ")))
    local count = 0
    for line in pipe:lines() do
      local code, seconds, kb = line:match "^(%d+) (%S+) (%d+) "
      count = count + 1
      assert.is_true(code == "1" and tonumber(seconds) < 3 and tonumber(kb) < 131072, line)
    end
    pipe:close()
    assert.equal(8, count)
  end)

  it("accepts what run refuses, which says so", function ()
    local path = written 'policy "p" { limits = { a = "1/s fixed" } }'
    assert.equal(0, select(3, neap("check", path)))
    local _, err, status = neap("run", path)
    assert.equal(1, status)
    assert.matches(":1:29: limits.a: 'fixed' is not supported by this version", err)
  end)
end)
