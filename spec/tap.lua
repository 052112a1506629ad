--- How busted reports to spec/run: TAP as it happens, so that a process that dies has said which
--- test it was in. Busted's own TAP breaks on a file that does not parse.
local function message_of(failure)
  local message = failure.message
  if type(message) ~= "string" then message = require "pl.pretty".write(message) end
  return message
end

return function ()
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base" ()
  local count = 0

  local function say(...)
    io.write(...)
    io.write "\n"
    io.flush()
  end

  local function not_ok(failure)
    local trace = failure.trace or {}
    count = count + 1
    say("not ok ", count, " - ", failure.name)
    if trace.short_src and trace.currentline then
      say("# ", trace.short_src, ":", trace.currentline)
    end
    say("# ", (message_of(failure):gsub("%s+$", ""):gsub("\n", "\n# ")))
  end

  local function on_start(element)
    say("# in ", handler.getFullName(element))
    return nil, true
  end

  local function on_end(element, _, status)
    if status == "failure" then
      not_ok(handler.failures[#handler.failures])
    elseif status == "error" then
      not_ok(handler.errors[#handler.errors])
    else
      count = count + 1
      local skipped = status == "pending" and " # SKIP" or ""
      say("ok ", count, " - ", handler.getFullName(element), skipped)
    end
    return nil, true
  end

  --- What goes wrong outside a test: a file that does not load, a setup.
  local function on_error(element)
    if element.descriptor ~= "it" then not_ok(handler.errors[#handler.errors]) end
    return nil, true
  end

  local function on_suite_end()
    say("1..", count)
    return nil, true
  end

  busted.subscribe({ "test", "start" }, on_start)
  busted.subscribe({ "test", "end" }, on_end)
  busted.subscribe({ "error" }, on_error)
  busted.subscribe({ "failure" }, on_error)
  busted.subscribe({ "suite", "end" }, on_suite_end)
  return handler
end
