--- What the program says of its verbs and options, the manual page and the shells' completions are
--- four texts about one thing: here they are held together.
local process = require "spec.process"

local BIN = (os.getenv "NEAP_BUILD" or "build") .. "/bin/neap"

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

local function sorted(set)
  local list = {}
  for word in pairs(set) do list[#list + 1] = word end
  table.sort(list)
  return list
end

--- The words of a text that match, sorted, each once.
local function words(text, pattern)
  local set = {}
  for word in text:gmatch(pattern) do set[word] = true end
  return sorted(set)
end

local verbs, options = {}, {}   -- the program's own words

for line in process.output(BIN .. " --help"):gmatch "[^\n]+" do
  local verb = line:match "^  (%l+)  +%l"
  if verb then
    verbs[#verbs + 1] = verb
    local said = "\n" .. process.output(BIN .. " " .. verb .. " --help")
    options[verb] = verb == "help" and {} or words(said, "\n  %-%-([%l-]+)")
  end
end
table.sort(verbs)

describe("the command line", function ()
  it("has verbs, and every one of them explains all that it takes", function ()
    assert.truthy(#verbs >= 7)
    for _, verb in ipairs(verbs) do
      if verb ~= "help" then
        local said = process.output(BIN .. " " .. verb .. " --help")
        assert.matches("^usage: neap " .. verb .. " ", said)
        for _, option in ipairs(options[verb]) do   -- and takes what it explains
          local refused = process.output(BIN .. " " .. verb .. " --" .. option)
          assert.falsy(refused:find("unknown option", 1, true), refused)
        end
      end
    end
  end)

  it("has a manual page with the same verbs and options, that groff reads", function ()
    local page = read "packaging/neap.1"
    assert.same(verbs, words(page, "\n%.SS neap (%l+)\n"))
    for section in (page:gsub("\n%.S([SH])", "\n\1.S%1") .. "\1"):gmatch "%.S(S neap [^\1]+)" do
      local verb = section:match "^S neap (%l+)\n"
      local said = words(section:gsub("\\%-", "-"), "\n%.TP\n%.B%u* \"?%-%-([%l-]+)")
      assert.same(options[verb], said, verb)
    end
    local count = select(2, page:gsub("\n%.SS neap ", ""))
    assert.equal(#verbs, count)
    local groff = "env -u LD_PRELOAD groff -man -ww -Tutf8 packaging/neap.1"
    local said, status = process.output(groff .. " >/dev/null")
    assert.same({ "", 0 }, { said, status })
    for heading in ("NAME SYNOPSIS DESCRIPTION VERBS SIGNALS EXIT ENVIRONMENT FILES EXAMPLES")
      :gmatch "%S+" do
      assert.truthy(page:find("\n.SH " .. heading, 1, true), heading)
    end
    for signal in ("TERM INT QUIT USR1 HUP PIPE"):gmatch "%S+" do
      assert.truthy(page:find("SIG" .. signal, 1, true), signal)
    end
  end)

  --- What bash offers for the last of these words.
  local function offered(...)
    local list = { ... }
    for i, word in ipairs(list) do list[i] = process.quoted(word) end
    local said, status = process.output(([[bash -c '
source packaging/neap.bash
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_neap
printf "%%s\n" "${COMPREPLY[@]}"' bash %s]]):format(table.concat(list, " ")))
    assert.equal(0, status, said)
    return words(said, "[^\n]+")
  end

  local function dashed(verb)
    local list = { "--help" }
    for _, option in ipairs(options[verb]) do list[#list + 1] = "--" .. option end
    table.sort(list)
    return list
  end

  it("is completed by bash", function ()
    local all = { "--help", "--version", unpack(verbs) }
    table.sort(all)
    assert.same(all, offered("neap", ""))
    assert.same({ "check" }, offered("neap", "ch"))
    for _, verb in ipairs(verbs) do
      if verb ~= "help" then assert.same(dashed(verb), offered("neap", verb, "--"), verb) end
    end
    assert.same({ "json" }, offered("neap", "check", "--print", "j"))
    assert.same({ "json", "text" }, offered("neap", "run", "--log-format", ""))
    assert.same({}, offered("neap", "run", "--listen", "-"))
    assert.same({ "repl", "run" }, offered("neap", "help", "r"))
    assert.same({ "sha256sum" }, offered("neap", "exec", "--policy", "x", "--", "sha256su"))
    assert.same({ "CMakeLists.txt" }, offered("neap", "exec", "--", "cat", "CMakeL"))
    assert.same({ "lua" }, offered("neap", "run", "lu"))   -- a folder; of files those of Lua
    assert.same({}, offered("neap", "run", "CMakeL"))
  end)

  it("is completed by zsh", function ()
    local text = read "packaging/neap.zsh"
    assert.same(verbs, words(text, "\n\t\t'(%l+):"))
    for _, verb in ipairs(verbs) do
      local case = verb ~= "help" and text:match("\n\t\t" .. verb .. "%)\n(.-);;")
      if verb ~= "help" then
        local said = words(assert(case, verb), "'%*?%(?[^'%)]*%)?(%-%-[%l-]+)%[")
        assert.same(dashed(verb), said, verb)
      end
    end
  end)

  it("is completed by fish", function ()
    local text = read "packaging/neap.fish"
    assert.same(verbs, words(text, "__fish_use_subcommand %-a (%l+) "))
    for _, verb in ipairs(verbs) do
      local said = words(text, "__fish_seen_subcommand_from " .. verb .. "' %-l ([%l-]+)")
      assert.same(options[verb], said, verb)
    end
  end)

  for _, shell in ipairs { "bash", "zsh", "fish" } do
    it("has a completion that " .. shell .. " can read", function ()
      local file = shell == "fish" and "--no-execute packaging/neap.fish"
        or "-n packaging/neap." .. shell
      if select(2, process.output("command -v " .. shell)) ~= 0 then
        return pending(shell .. " is not installed")
      end
      assert.same({ "", 0 }, { process.output(shell .. " " .. file) })
    end)
  end
end)
