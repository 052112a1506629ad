--- An installed neap works from wherever it is put, and says so when its parts do not fit.
local BUILD = assert(os.getenv "NEAP_BUILD", "NEAP_BUILD: the build tree; spec/run sets it")

local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

--- Run a shell command away from the source tree, with only what it is given in LUA_PATH.
---@param command string
---@param lua_path? string
---@return integer status
---@return string output
local function sh(command, lua_path)
  local pipe = assert(io.popen(("cd / && export LUA_PATH=%s && { %s; } 2>&1; echo \" $?\"")
    :format(quoted(lua_path or ""), command)))
  local output = pipe:read "*a"
  pipe:close()
  local text, status = output:match "^(.*) (%d+)\n$"
  return tonumber(status), text
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

describe("an installation", function ()
  local top, prefix

  local function must(command, lua_path)
    local status, output = sh(command, lua_path)
    assert.equal(0, status, command .. "\n" .. output)
    return output
  end

  setup(function ()
    local _, name = sh "mktemp -d"
    top = name:match "%S+"
    prefix = top .. "/elsewhere"
    must(("cmake --install %s --prefix %s/first"):format(quoted(BUILD), top))
    must(("mv %s/first %s"):format(top, prefix))   -- nothing may remember the first name
  end)

  teardown(function () sh("rm -rf " .. top) end)

  it("has the program, library, header, pkg-config file and modules", function ()
    for path in ("bin/neap lib/libneap.so include/neap.h lib/pkgconfig/neap.pc " ..
      "share/lua/5.1/neap/engine.lua share/lua/5.1/neap/worker/page/page.html " ..
      "share/man/man1/neap.1 lib/systemd/system/neap.socket " ..
      "lib/systemd/system/neap-http.socket share/bash-completion/completions/neap " ..
      "share/zsh/site-functions/_neap share/fish/vendor_completions.d/neap.fish"):gmatch "%S+" do
      must("test -f " .. prefix .. "/" .. path)
    end
    must(("grep -q '^ExecStart=%s/first/bin/neap run ' %s/lib/systemd/system/neap.service"):format(
      top, prefix))
  end)

  it("runs from any directory, moved after it was installed", function ()
    assert.matches("^neap %d+%.%d+%.%d+", must(prefix .. "/bin/neap --version"))
  end)

  it("gives its modules to a plain luajit", function ()
    assert.matches("^%d+%.%d+%.%d+\n$", must(
      "luajit -e 'local C = require [[neap.engine]] print(require [[ffi]].string(C.neap_version))'",
      prefix .. "/share/lua/5.1/?.lua"))
  end)

  it("compiles and links a C program through pkg-config", function ()
    write(top .. "/user.c", [[
#include <neap.h>
#include <stdio.h>
int main(void)
{
	struct neap_gcra g;
	if (neap_gcra_init(&g, 10, 1000000000, 3) != NEAP_OK)
		return 1;
	printf("%d %s\n", (int)neap_gcra_available(&g, 0), neap_version);
	return 0;
}
]])
    must(("export PKG_CONFIG_PATH=%s/lib/pkgconfig && cc -std=c11 -Wall -Wextra -Werror " ..
      "-pedantic -o %s/user %s/user.c $(pkg-config --cflags --libs neap)")
      :format(prefix, top, top))
    assert.matches("^3 %d", must(("LD_LIBRARY_PATH=%s/lib %s/user"):format(prefix, top)))
  end)

  it("refuses a library of another version, naming both", function ()
    local modules = top .. "/other/share/lua/5.1/neap"
    must(("mkdir -p %s && ln -s %s/lib %s/other/lib"):format(modules, prefix, top))
    local text, changed = read(prefix .. "/share/lua/5.1/neap/engine.lua")
      :gsub('VERSION = "[^"]*"', 'VERSION = "99.0.0"')
    assert.equal(1, changed)
    write(modules .. "/engine.lua", text)
    local status, output = sh("luajit -e 'require [[neap.engine]]'",
      top .. "/other/share/lua/5.1/?.lua")
    assert.equal(1, status)
    assert.matches("modules are version 99%.0%.0, libneap%.so is %d+%.%d+%.%d+", output)
  end)

  it("says where it looked when there is no library", function ()
    local modules = top .. "/alone/share/lua/5.1/neap"
    must(("mkdir -p %s && cp %s/share/lua/5.1/neap/engine.lua %s")
      :format(modules, prefix, modules))
    local status, output = sh("luajit -e 'require [[neap.engine]]'",
      top .. "/alone/share/lua/5.1/?.lua")
    assert.equal(1, status)
    assert.matches("no libneap%.so", output)
    assert.matches("alone/share/lua/5.1/neap", output, 1, true)
  end)
end)
