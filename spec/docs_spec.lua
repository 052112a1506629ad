--- What users may call is documented where it is, with an example that runs.
---
--- Public are the functions of what a file returns and of its classes, but for those marked
--- `@package`, which are for neap's own modules. Each has a sentence, `@param` for every parameter,
--- `@return` when it returns something, a unit where it takes time, and a call in its file's
--- program (see spec/literate.lua).
---
--- Programs run on virtual time, with what is in `world` around them.
local lpeg = require "lpeg"
local literate = require "spec.literate"
local neap = require "neap"
local manual = require "neap.runtime.manual"
local runtime = require "neap.runtime"

local P, R, S = lpeg.P, lpeg.R, lpeg.S
local C, Cc, Cg, Cp, Ct = lpeg.C, lpeg.Cc, lpeg.Cg, lpeg.Cp, lpeg.Ct

--- What neap exports, and the classes that users get from there.
local CLASSES = { "limiter", "permit", "registry", "reporter", "retry/state", "retry/outcome",
  "headers/rules", "headers/structured", "policy/address", "policy/json", "policy/live",
  "policy/feedback", "runtime/manual", "runtime/ev", "runtime/host", "runtime/rounds", "stats",
  "task", "plot" }

local function contents(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

local function path_of(name) return ("lua/neap/%s.lua"):format(name) end

local function public_files()
  local seen, files = {}, {}
  local function add(name)
    if not seen[name] then files[#files + 1] = name end
    seen[name] = true
  end
  for name in contents(path_of "init"):gmatch '= require "neap%.(%l[%w_]*)"' do
    if name ~= "engine" then add(name) end
  end
  for _, name in ipairs(CLASSES) do add(name) end
  table.sort(files)
  return files
end

-- ---- what is documented -----------------------------------------------------------------------

local rest = (1 - P "\n") ^ 0
local blank = S " " ^ 0
local name = (R("az", "AZ") + "_") * (R("az", "AZ", "09") + "_") ^ 0
local params = blank * "(" * Cg((1 - P ")") ^ 0, "params") * ")"
local comment = blank * "---" * C(rest) * "\n"
local within = Cg(S " " ^ 1 * Cc(true), "inside") ^ -1
local item = Ct(Cg(Ct(comment ^ 0), "doc") * Cg(Cp(), "at")
  * (within * "function " * Cg(C(name), "of") * S ".:" * Cg(C(name), "name") * params
  + P "local function " * Cg(C(name), "name") * params * Cg(Cc(true), "is_local")
  + P "return function" * params
  + Cg(C(name), "of") * "." * Cg(C(name), "name") * " = " * Cg(C(rest), "made")
  + within * Cg(C(name), "name") * " = function" * params))
local items = Ct((item + rest * "\n") ^ 0)

--- Is it what a file returns, or a class there?
local function is_public(source, table_)
  if source:find("\nreturn " .. table_ .. "\n") then return true end
  for class in source:gmatch "%-%-%-@class.-\nlocal ([%w_]+)" do
    if class == table_ then return true end
  end
  return false
end

--- May users call it? What is made by a function and not written as one is one when its type says.
local function is_for_users(source, each)
  if each.text:find "@package" or each.is_local then return false end
  if each.made and not (each.text .. each.made):find "@type " then return false end
  if each.inside then return each.text ~= "" end
  return not each.of or is_public(source, each.of)
end

--- The functions of a file: those that users may call; and by place, those that it says more of.
local function functions_of(file)
  local source, public, known = contents(path_of(file)), {}, {}
  for _, each in ipairs(items:match(source)) do
    local text, first = table.concat(each.doc, "\n"), source:match("^[^\n]*", each.at)
    local _, line = source:sub(1, each.at):gsub("\n", "")
    each.text, each.place = text, ("%s:%d"):format(path_of(file), line + 1)
    each.body = first:find " end,?$" and first
      or source:match("^.-\n" .. first:match "^ *" .. "end", each.at) or source:sub(each.at)
    each.where = ("%s: %s"):format(each.place, each.name or "what it returns")
    local is_theirs = is_for_users(source, each)
    if is_theirs then public[#public + 1] = each end
    local said = is_theirs or text:find "@package" ~= nil or nil
    known[each.place], known[("%s: %s"):format(path_of(file), each.name)] = said, said
  end
  return public, known
end

--- Does it return something? What functions inside of it return is theirs.
local function answers(body)
  local inside
  for line in body:gsub("^[^\n]-function", "", 1):gmatch "[^\n]+" do
    local indent = line:match "^ *"
    line = line:gsub("function *%b().- end", "")
    if inside then
      if line:sub(1, #inside + 3) == inside .. "end" then inside = nil end
    elseif line:find "function *[%w_.:]* *%b()" and #indent > 0 then
      inside = indent
    elseif line:find "return +[^%s]" and not line:find "return end" then
      return true
    end
  end
  return false
end

local TIMES = {}
for time in ("at deadline duration now previous timeout until_ns wait while_s"):gmatch "%S+" do
  TIMES[time] = { "second", "%f[%w]ns%f[%W]", "neap%.now", '"%d+m?[smhd]"' }
end

local function says_one_of(text, patterns)
  for _, pattern in ipairs(patterns) do
    if text:find(pattern) then return true end
  end
  return false
end

--- What a function's comment lacks.
local function lacks(each)
  local missing, said, text = {}, {}, each.text
  if each.made then return missing end   -- its type says it
  local function check(ok, what) if not ok then missing[#missing + 1] = what end end
  check(("\n" .. text):find "\n [^@ ]", "a sentence")
  if text:find "@type " then return missing end
  for parameter in text:gmatch "@param ([%w_.]+)" do said[parameter] = true end
  for parameter in each.params:gmatch "[%w_.]+" do
    check(said[parameter] or parameter == "_", "@param " .. parameter)
    local about = text:match "^[^@]*"
      .. (text:match("@param " .. parameter .. "%f[%W]([^@]*)") or "")
    check(not TIMES[parameter] or says_one_of(about, TIMES[parameter]), "a unit for " .. parameter)
    said[parameter] = nil
  end
  for parameter in pairs(said) do check(false, "a parameter called " .. parameter) end
  check(not answers(each.body) or text:find "@return ", "@return")
  return missing
end

--- What a module exports, under the places it is at: functions may be called otherwise there.
local function exports(module)
  local names = {}
  for key, value in pairs(type(module) == "table" and module or {}) do
    if type(value) == "function" then
      local info = debug.getinfo(value, "S")
      local where = path_of(info.source:match ".*/neap/(.-)%.lua$")
      names[("%s:%d"):format(where, info.linedefined)] = key
    end
  end
  return names
end

--- Is it called in a program?
local function is_called(program, word)
  if word == "__tostring" then return program:find "tostring%(" ~= nil end
  return program:find("[.:]" .. word .. " *[%({\"']") ~= nil
end

-- ---- programs ---------------------------------------------------------------------------------

--- A server that is well and 50 ms away; its mirror, a second. It goes by what OpenAI says.
local function fetch(where)
  neap.sleep(type(where) == "string" and where:find "mirror" and 1 or 0.05)
  return { status = 200, body = { text = "hello", usage = { total_tokens = 912 } }, headers = {
    ["x-ratelimit-remaining-requests"] = "400", ["x-ratelimit-reset-requests"] = "12s" } }
end

--- Segments outlast a program, so those of examples are elsewhere, and new.
local function segment(_, options)
  local file = os.tmpname()
  os.remove(file)
  local made = assert(neap.segment(file, options))
  finally(function () os.remove(file) end)
  return made
end

--- What examples find around them, besides neap and Lua's own.
local function world()
  local asked = 0
  --- A job that is done when it is asked for the third time.
  local function fetch_job()
    asked = asked + 1
    return { done = asked > 2, state = "queued", report = "hello" }
  end
  local here = setmetatable({ segment = segment }, { __index = neap })
  return setmetatable({
    fetch_job = fetch_job, id = 7, step = function () return "retry", "queued" end,
    neap = here, require = function (what) return what == "neap" and here or require(what) end,
    fetch = fetch,
    post = fetch, print = function (...) return ... end,
    host = "api.example.com", url = "https://api.example.com/v1",
    mirrors = { "https://mirror.example.com/v1", "https://api.example.com/v1" },
    customer = "ann", body = ("x"):rep(1000), has_key = true, retry_after = "5s",
    answer = { status = 429, headers = { ["retry-after"] = "5" } },
  }, { __index = function (_, key)
    local value = rawget(_G, key)
    if value == nil then error(("'%s' is nothing that an example has"):format(key), 2) end
    return value
  end })
end

local function play(path, lines)
  local rt = manual.new()
  local before = runtime.use(rt)
  local reported = {}
  rt.report = function (text) reported[#reported + 1] = text end
  local ok, why = xpcall(function ()
    literate.run(path, lines, world())
    neap.run(function () end)   -- tasks that are still out
  end, function (why)
    return type(why) == "string" and why or debug.traceback(tostring(why))
  end)
  runtime.use(before)
  if not ok then error(why, 0) end
  assert.same({}, reported)
end

describe("an example", function ()
  local function run(...) return literate.run("here", { ... }, { n = 1, tostring = tostring }) end

  it("says what it answers", function ()
    assert.equal(7, run("local a, b = n, 2   --> 1, 2", "n + 1 --> 2", "n = {",
      "  1, x = a } --> { 1, x = 1 }", "tostring(n) --> \"table: …\"", "a / 3 --> 0.333…",
      "a == 2, nil --> false, nil", "nil, 3, n --> nil, …"))
  end)

  it("is an error when it answers something else", function ()
    for want, code in pairs {
      ["2"] = "n", ["nil"] = "n, nil", ["1, 3"] = "n, 2", ["1"] = "n, 2", ['"1"'] = "n",
      ["0.34…"] = "n / 3", ["{ 1 }"] = "{ 1, 2 }", ["{ 1, 2 }"] = "{ 1 }",
      ["{ x = 1, … }"] = "{ x = 2, y = 3 }", ['"ab…"'] = '"acb"', ["false"] = "nil",
    } do
      local _, why = pcall(run, "", code .. " --> " .. want)
      assert.equal("here:2: says " .. want, tostring(why):match "^(.-), but is")
    end
  end)

  it("that can say nothing is an error", function ()
    assert.error_matches(function () run("while true do --> 1", "end") end, "not after an expr")
  end)

  it("is told from a text", function ()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write [[
---     local a = {   -- begins
---       1 }
---
---     text, of words
--- out
---     { 1 } --> { 1 }
---        more = 1
---     ----|----
--- out
---     ----|----
---       indented more
---   a = 1
---     a.b   c = 1
]]
    file:close()
    local lines = literate.in_comments(path)
    os.remove(path)
    assert.same({ "local a = {   -- begins", "  1 }", "", "", "", "{ 1 } --> { 1 }", "   more = 1",
      "----|----", "", "", "", "", "" }, lines)
  end)
end)

describe("the documentation", function ()
  for _, file in ipairs(public_files()) do
    local path = path_of(file)

    it("of " .. file .. " says what every function takes and gives", function ()
      local all = {}
      for _, each in ipairs(functions_of(file)) do
        local missing = lacks(each)
        all[#all + 1] = missing[1] and each.where .. " lacks " .. table.concat(missing, ", ") or nil
      end
      assert.equal("", table.concat(all, "\n"))
    end)

    it("of " .. file .. " has examples that answer what they say", function ()
      play(path, literate.in_comments(path))
    end)

    it("of " .. file .. " has an example of every function", function ()
      local program, all = table.concat(literate.in_comments(path), "\n"), {}
      local called, by_neap = exports(neap[file:match "[%w_]+"]), exports(neap)
      for _, each in ipairs(functions_of(file)) do
        local word = called[each.place] or by_neap[each.place] or each.name or file:match "[%w_]+$"
        if not is_called(program, word) then all[#all + 1] = each.where end
      end
      local exported = neap[file]
      if exported ~= nil and (type(exported) == "function" or getmetatable(exported))
          and not is_called(program, file) then
        all[#all + 1] = path .. ": neap." .. file
      end
      assert.equal("", table.concat(all, "\n"))
    end)
  end

  it("leaves out nothing that a module exports", function ()
    local all = {}
    for _, file in ipairs(public_files()) do
      local _, ours = functions_of(file)
      for place, key in pairs(exports(neap[file])) do
        local _, known = functions_of(place:match "^lua/neap/(.-)%.lua")
        if not known[place] and not ours[("%s: %s"):format(path_of(file), key)] then
          all[#all + 1] = ("neap.%s.%s, %s"):format(file, key, place)
        end
      end
    end
    assert.equal("", table.concat(all, "\n"))
  end)

  for _, page in ipairs { "README.md", "doc/lua.md" } do
    it("in " .. page .. " has examples that run", function ()
      play(page, literate.in_page(page))
    end)
  end
end)
