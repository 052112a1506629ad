-- The program as people meet it: what it says, where, and how it ends.
local cjson = require "cjson"
local process = require "spec.process"
local segment = require "neap.segment"

local BIN = (os.getenv "NEAP_BUILD" or "build") .. "/bin/neap"

local neap, quoted = process.neap, process.quoted

local function assert_usage(expected, ...)
  local out, err, status = neap(...)
  assert.same({ "", expected, 2 }, { out, err:match "^[^\n]*", status })
end

describe("neap", function ()
  local paths = {}

  local function policy(text)
    local path = process.file(text)
    paths[#paths + 1] = path
    return path
  end

  after_each(function ()
    for _, path in ipairs(paths) do os.remove(path) end
    paths = {}
  end)

  it("says its version", function ()
    assert.same({ "neap 0.1.0\n", "", 0 }, { neap "--version" })
  end)

  it("explains itself when asked, on standard output", function ()
    for _, words in ipairs { { "--help" }, { "-h" }, { "help" } } do
      local out, err, status = neap(unpack(words))
      assert.matches("^usage: neap VERB", out)
      assert.same({ "", 0 }, { err, status })
    end
    for _, verb in ipairs { "run", "check" } do
      for _, words in ipairs { { "help", verb }, { "--help", verb }, { verb, "--help" },
        { verb, "-h" }, { verb, "file.lua", "--help" } } do
        local out, err, status = neap(unpack(words))
        assert.equal("usage: neap " .. verb, out:match "^usage: neap %a+")
        assert.same({ "", 0 }, { err, status })
      end
    end
  end)

  it("explains itself on standard error when told nothing", function ()
    local out, err, status = neap()
    assert.same({ "", 2 }, { out, status })
    assert.matches("^usage: neap VERB", err)
  end)

  it("knows what was meant", function ()
    assert_usage("neap: unknown verb 'chekc' (did you mean 'check'?)", "chekc", "a.lua")
    assert_usage("neap: unknown verb 'rn' (did you mean 'run'?)", "help", "rn")
    assert_usage("neap: unknown option '--versoin' (did you mean '--version'?)", "--versoin")
    assert_usage("neap: unknown option '--listn' (did you mean '--listen'?)", "run", "--listn=x")
    assert_usage("neap: unknown verb 'policy.lua'", "policy.lua")
    assert_usage("neap: unknown verb '\\27[31m'", "\27[31m")
  end)

  it("says what is missing or too much", function ()
    assert_usage("neap: a policy file is missing", "run")
    assert_usage("neap: a policy file is missing", "check", "--print", "json")
    assert_usage("neap: one policy file expected, also got 'b.lua'", "run", "a.lua", "b.lua")
    assert_usage("neap: --listen needs a value", "run", "a.lua", "--listen")
    assert_usage("neap: --verbose takes no value", "run", "--verbose=1", "a.lua")
    assert_usage("neap: --print: 'table' or 'json' expected, got 'xml'", "check", "--print=xml", "")
  end)

  it("takes what follows -- as files", function ()
    local _, err, status = neap("check", "--", "--print")
    assert.same({ "neap: cannot read '--print': No such file or directory\n", 1 }, { err, status })
  end)

  for _, verb in ipairs { "check", "run" } do
    it(verb .. " says in one line which file cannot be read, and why", function ()
      local _, err, status = neap(verb, "/no/such/file.lua")
      assert.same({ "neap: cannot read '/no/such/file.lua': No such file or directory\n", 1 },
        { err, status })
      _, err, status = neap(verb, "/")
      assert.same({ "neap: cannot read '/': Is a directory\n", 1 }, { err, status })
    end)

    it(verb .. " tells all mistakes of a file in one run", function ()
      local path = policy '\npolcy "x" {}\npolicy "a" { limits = { n = "5/mn" } }\n'
      local out, err, status = neap(verb, path)
      assert.same({ "", 1 }, { out, status })
      local first, second = err:find(path .. ":2:1: unknown name 'polcy' (did you mean 'policy'?)",
        1, true), err:find(path .. ":3:", 1, true)
      assert.truthy(first and second and first < second, err)
    end)
  end

  it("check prints what is right in its canonical form", function ()
    local path = policy [[
      listen { resp = { "127.0.0.1:6390", "unix:/run/neap.sock" }, http = "127.0.0.1:9390" }
      user "app" { password = "secret" }
      policy "openai" {
        limits = { requests = "500 per minute burst 60", calls = "64 in flight" },
        lease = { ttl = "600s", settle = "requests" },
      }
      policy "x" { limits = { all = "10/s" } }
    ]]
    local out, err, status = neap("check", path)
    assert.same({ path .. [[
: ok, 2 policies, 1 user
  listen  127.0.0.1:6390
  listen  unix:/run/neap.sock
  http    127.0.0.1:9390
  openai  requests  500/min burst 60
          calls     64 in flight
          lease     10m, settles requests
  x       all       10/s
          lease     1m
]], "", 0 }, { out, err, status })
  end)

  it("check prints JSON, a line for each file, without passwords", function ()
    local path = policy 'user "u" { password = "secret" }\npolicy "x" { limits = { a = "10/s" } }'
    local out, err, status = neap("check", "--print", "json", path, path)
    assert.same({ "", 0 }, { err, status })
    local lines = {}
    for line in out:gmatch "[^\n]+" do lines[#lines + 1] = require "cjson".decode(line) end
    assert.equal(2, #lines)
    assert.equal(10, lines[2].policies.x.limits.a.rate)
    assert.is_nil(out:find("secret", 1, true))
  end)

  it("check goes on after a file that is wrong, and fails at the end", function ()
    local good = policy 'policy "x" { limits = { a = "10/s" } }'
    local out, err, status = neap("check", "/no/file", good)
    assert.matches("^" .. good:gsub("%p", "%%%0") .. ": ok, 1 policy\n", out)
    assert.matches("cannot read '/no/file'", err)
    assert.equal(1, status)
  end)

  -- A shell that starts a worker, on its first line tries another, and then ends the first.
  local LIFE = [[
    { sh -c 'echo $$; exec "$0" run --listen unix:@socket @policy 2>&1' @bin
      echo "status $?"
    } | while read -r word rest; do
      case $word in
        info|notice)
                echo "$word $rest"
                [ "${rest%% *}" = listening ] || continue
                @bin run --listen unix:@socket @policy
                echo "another $?"
                kill -@signal $pid ;;
        status) echo "status $rest"
                test -e @socket || echo gone ;;
        *)      pid=$word ;;
      esac
    done 2>&1
  ]]

  it("run serves until SIGTERM or SIGINT, then takes its socket away and is fine", function ()
    for _, signal in ipairs { "TERM", "INT" } do
      local socket = os.tmpname()
      os.remove(socket)
      local words = { bin = quoted(BIN), signal = signal, socket = socket,
        policy = policy 'policy "x" { limits = { a = "10/s" } }' }
      local pipe = assert(io.popen((LIFE:gsub("@(%l+)", words))))
      local said = pipe:read "*a"
      pipe:close()
      local expected = ([[
info listening address=unix:@socket protocol=resp
neap: unix:@socket: Address already in use
another 1
notice draining held=0
info stopped
status 0
gone
]]):gsub("@socket", socket)
      assert.equal(expected, said)
    end
  end)

  it("inspect and top look into a segment, and write nothing there", function ()
    local path = os.tmpname()
    os.remove(path)
    paths[#paths + 1] = path
    local shared = assert(segment(path))
    shared:throttle("pay", "1/h burst 8"):try_acquire(6)
    local held = shared:semaphore("slots", 2):try_acquire()
    shared:breaker("api", { failures = 1 }):failure()
    shared:pause "later"
    local picture = path .. ": 4 of 64 limiters, 1 of 64 processes, %d+ of 524288 bytes for logs\n"
      .. "  pay    rate       |###############%-%-%-%-%-|  2 of 8\n"
      .. "  slots  semaphore  |##########%-%-%-%-%-%-%-%-%-%-|  1 of 2  1 process holds some\n"
      .. "  api    breaker    open\n"
      .. "  later  pause      not on\n"
    local out, err, status = neap("inspect", path)
    assert.matches("^" .. picture .. "$", out)
    assert.same({ "", 0 }, { err, status })
    out, err, status = neap("top", "--every", "1ms", "--rounds", "3", path)
    assert.matches("^" .. picture:rep(3) .. "$", out)
    assert.same({ "", 0 }, { err, status })
    out = neap("inspect", "--json", path)
    local all = cjson.decode(out)
    assert.same({ path, 4, "open", 2 },
      { all.segment, all.stats.limiters, all.limiters[3].state, all.limiters[1].available })
    held:release()
    out, err, status = neap("inspect", path .. "x")
    assert.same({ "", 1 }, { out, status })
    assert.matches("^neap: .*No such file", err)
    assert_usage("neap: a segment is missing", "inspect")
    local out2, err2, status2 = neap("top", "--rounds", "no", path)
    assert.same({ "", "neap: --rounds: a whole number from 1 expected, got 'no'\n", 2 },
      { out2, err2, status2 })
  end)

  it("fails when its output has nowhere to go", function ()
    local pipe = assert(io.popen(quoted(BIN) .. " --version 2>&1 >/dev/full; echo $?"))
    assert.equal("neap: standard output: No space left on device\n1\n", pipe:read "*a")
    pipe:close()
  end)

  it("runs from any directory, and by a link", function ()
    local link = os.tmpname()
    os.remove(link)
    local full = BIN:sub(1, 1) == "/" and BIN or "$PWD/" .. BIN
    local pipe = assert(io.popen(('ln -s "%s" %s; cd /; %s --version; rm %s'):format(full, link,
      link, link)))
    assert.equal("neap 0.1.0\n", pipe:read "*a")
    pipe:close()
  end)

  it("loads no module from where it is started", function ()
    local directory = os.tmpname()
    os.remove(directory)
    local full = BIN:sub(1, 1) == "/" and BIN or "$PWD/" .. BIN
    local pipe = assert(io.popen(([[
      neap="%s"; mkdir %s; cd %s; echo 'error "from here"' >lpeg.lua; mkdir neap
      cp lpeg.lua neap/cli.lua; "$neap" check /no/file 2>&1; rm -r %s
    ]]):format(full, directory, directory, directory)))
    assert.equal("neap: cannot read '/no/file': No such file or directory\n", pipe:read "*a")
    pipe:close()
  end)
end)
