local decisions = require "spec.vectors.decisions"
local harness = require "spec.vectors.harness"
local runtime = require "neap.runtime"

local HERE = debug.getinfo(1, "S").source:match "^@(.*)_spec%.lua$"

describe("vectors", function ()
  local before
  setup(function () before = runtime.use(nil) end)
  teardown(function () runtime.use(before) end)

  for _, path in ipairs(harness.files(os.getenv "NEAP_VECTORS" or HERE)) do
    it("hold in " .. path:match "[^/]*$", function ()
      local lines = {}
      local failed = harness.run(path, decisions, function (line) lines[#lines + 1] = line end)
      io.write(table.concat(lines, "\n"), "\n")
      assert.equal(0, failed)
    end)
  end
end)
