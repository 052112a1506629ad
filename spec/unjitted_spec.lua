--- A worker's suites where pages cannot become executable, as under systemd's
--- MemoryDenyWriteExecute=yes: without the compiler, all is the same.
---
---     NEAP_SOAK=1   more of them
local process = require "spec.process"

local BUILD = os.getenv "NEAP_BUILD" or "build"
local SUITES = { "worker", "worker_live", "worker_leases", "worker_http", "worker_stream", "wire",
  "cell_wire", "slots" }
if os.getenv "NEAP_SOAK" then
  for _, name in ipairs { "worker_events", "clients", "parked", "mutated", "check" } do
    SUITES[#SUITES + 1] = name
  end
end

local NO_NEW_CODE = BUILD .. "/spec/c/no_new_code"
local RUN = NO_NEW_CODE .. [[ luajit -joff -e 'require "busted.runner" { standalone = false }' ]] ..
  "/dev/null -o spec/tap.lua spec/%s_spec.lua"

describe("without new code", function ()
  for _, name in ipairs(SUITES) do
    it("nothing else happens: " .. name, function ()
      if BUILD:find "san" then return pending "sanitizers need some" end
      if select(2, process.output(NO_NEW_CODE .. " true")) ~= 0 then
        return pending "this kernel cannot refuse it"
      end
      local said, status = process.output("env -u NEAP_SOAK " .. RUN:format(name))
      assert.equal(0, status, said)
      assert.matches("\n1%.%.[1-9]%d*\n", said)
      assert.falsy(said:find "not ok ", said)
    end)
  end
end)
