--- One value of Retry-After, and the time of day.
local harness = require "spec.vectors.harness"
local headers = require "neap.headers"

local suite = {}

-- What no case says, or both systems do, is the dialect that neap has unless told.
local DIALECT = { lenient = "lenient" }

function suite.run(case)
  harness.expect("seconds", case.seconds, headers.retry_after(case.header, {
    now = case.now, dialect = DIALECT[case.dialect] or "strict", max = case.max_seconds,
  }))
  if case.dialect == "common" then
    harness.expect("seconds, lenient", case.seconds, headers.retry_after(case.header, {
      now = case.now, dialect = "lenient",
    }))
  end
end

return suite
