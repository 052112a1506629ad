--- For specs: each test of a block has a clock of its own, which is the current one while it runs.
---
---     local rt
---     in_virtual_time(function (new) rt = new end)
---
--- In the end its engine has to be sound, and what was current before is so again.
local busted = require "busted"
local C = require "neap.engine"
local manual = require "neap.runtime.manual"
local runtime = require "neap.runtime"

---@param begin? fun(rt: neap.runtime.Manual)  before each test
return function (begin)
  local rt, before
  busted.before_each(function ()
    rt = manual.new()
    before = runtime.use(rt)
    if begin then begin(rt) end
  end)
  busted.after_each(function ()
    runtime.use(before)
    assert(C.neap_engine_check(rt.engine) == C.NEAP_OK, "the engine is corrupt")
  end)
end
