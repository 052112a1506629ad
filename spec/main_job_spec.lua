--- The main job, shortened: real processes, real time, and nothing of it left behind. It is the one
--- place where a worker, its clients and the downstream's own log have to agree about the rate.
local BUILD = assert(os.getenv "NEAP_BUILD", "NEAP_BUILD: the build tree; spec/run sets it")
local JOB = "luajit examples/shared_limit.lua"

local function sh(command)
  local pipe = assert(io.popen(("{ %s; } 2>&1; echo \" $?\""):format(command)))
  local output = pipe:read "*a"
  pipe:close()
  local text, status = output:match "^(.*) (%d+)\n$"
  return tonumber(status), text
end

describe("the main job", function ()
  local scratch   -- the job makes its directory here

  --- What is left of a job: files, and processes that name them or run from them.
  local function remains()
    local _, files = sh("ls -A " .. scratch)
    local _, processes = sh(("for p in /proc/[0-9]*; do case $(readlink $p/cwd) in %s/*) " ..
      "echo $p; esac; done"):format(scratch))
    return files .. processes
  end

  --- The table's row `name`: the figure without neap, and with it.
  local function figures(output, name)
    local row = "\n  " .. name:gsub("%p", "%%%0") .. " +([%d.]+)%D* +([%d.]+)"
    local without, with = output:match(row)
    assert.truthy(with, name .. " is not in\n" .. output)
    return tonumber(without), tonumber(with)
  end

  --- All but the share is so in every run. A machine with other things to do may stop all clients
  --- for longer than the burst lasts, and what nobody asked for meanwhile is lost. So one run of a
  --- few has to have the share, and refusals without neap: who wastes rate by itself never has.
  local function shares_the_limit(arguments)
    local calls, tries = 100, 0
    local command = ("TMPDIR=%s %s --calls %d %s"):format(scratch, JOB, calls, arguments)
    while true do
      local status, output = sh(command)
      assert.truthy(status <= 1, output)
      local refused, none = figures(output, "refused (429)")
      assert.equal(0, none, output)
      assert.same({ 4 * calls, 4 * calls }, { figures(output, "served") })
      local _, share = figures(output, "share of the allowed rate used")
      assert.truthy(share <= 100, output)
      assert.equal("", remains())
      tries = tries + 1
      if status == 0 and share >= 97 and refused > 20 then return output end
      assert.truthy(tries < 8, output)
    end
  end

  setup(function ()
    local _, name = sh "mktemp -d"
    scratch = name:match "%S+"
    assert.equal(0, (sh(("test -x '%s/bin/neap'"):format(BUILD))))
  end)

  teardown(function () sh("rm -rf " .. scratch) end)

  it("is never refused by nginx and uses at least 97 % of its rate", function ()
    if sh "PATH=$PATH:/usr/sbin; command -v nginx" ~= 0 then return pending "no nginx here" end
    assert.matches("nginx %d", shares_the_limit "")
  end)

  it("is the same with the built-in downstream", function ()
    assert.matches("the built%-in server", shares_the_limit "--builtin")
  end)

  for _, signal in ipairs { "INT", "TERM", "KILL" } do
    it("leaves nothing behind when it is ended by SIG" .. signal, function ()
      local _, output = sh(("export TMPDIR=%s; %s >/dev/null 2>&1 & job=$!; sleep 1; " ..
        "for try in $(seq 300); do ls %s | grep . && break; sleep 0.1; done; kill -%s $job")
        :format(scratch, JOB, scratch, signal))
      assert.matches("^tmp%.", output)     -- it had begun
      local tries = 0
      while remains() ~= "" and tries < 300 do
        sh "sleep 0.1"
        tries = tries + 1
      end
      assert.equal("", remains())
    end)
  end
end)
