--- For specs of a poller: what steps do, and how a run ends.
---
---     local script, run, hangs = polled(function () return rt, log end)
---
---@param where fun(): neap.ManualRuntime, any[]  the clock, and where steps note when they begin
return function (where)
  --- A step that notes when it begins, takes a while, and answers what the list says.
  local function script(answers, takes)
    local calls = 0
    return function ()
      local rt, log = where()
      calls = calls + 1
      log[#log + 1] = rt.now()
      if takes and not rt.sleep(takes) then log[#log + 1] = "cut off" end
      local answer = answers[math.min(calls, #answers)]
      if type(answer) == "table" then return unpack(answer, 1, 3) end
      return answer
    end
  end

  local function run(policy, ...)
    local answer
    local args, rt = { ... }, where()
    rt.run(function () answer = { policy:run(unpack(args)) } end)
    return answer
  end

  --- A step that hangs, and notes when it is cut off.
  local function hangs()
    local rt = where()
    rt.sleep(math.huge)
    local _, log = where()
    log[#log + 1] = rt.now()
    return "too late"
  end

  return script, run, hangs
end
