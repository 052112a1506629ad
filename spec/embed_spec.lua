--- What others build on neap: from an installation in a prefix of its own, with nothing but what
--- that says, by cc and pkg-config, by cmake, by c++, by luarocks, and by a LuaJIT that is told
--- nothing at all.
local process = require "spec.process"

local BUILD = assert(os.getenv "NEAP_BUILD", "NEAP_BUILD: the build tree; spec/run sets it")
local SANITIZE = BUILD:match "/build%-san%-(.*)$"
local HERE = process.output "pwd":match "%S+"

local quoted = process.quoted
local CC = "cc -O2 -std=gnu11 -Wall -Wextra -Wpedantic -Wconversion -Wno-sign-conversion -Werror"
  .. (SANITIZE and " -fsanitize=" .. SANITIZE:gsub("%-", ",") or "")

local top, prefix

local function write(name, text)
  local file = assert(io.open(top .. "/" .. name, "w"))
  file:write(text)
  file:close()
end

--- Run this in the temporary directory, without what the specs are told.
local function sh(command)
  return process.output(("cd %s && unset LUA_PATH LUA_CPATH && export PKG_CONFIG_PATH=%s && %s")
    :format(top, prefix .. "/lib/pkgconfig", command))
end

local function must(command)
  local text, status = sh(command)
  assert.equal(0, status, command .. "\n" .. text)
  return text
end

--- What a program says, without the line of its CPU share, and that share.
local function played(command)
  local text = must(command)
  local said, cpu = text:match "^(.*)cpu ([%d.]+) %%[^\n]*\n$"
  assert.truthy(said, text)
  return said, tonumber(cpu)
end

describe("an embedding", function ()
  setup(function ()
    top = process.output "mktemp -d":match "%S+"
    prefix = top .. "/prefix"
    must(("cmake --install %s --prefix %s"):format(quoted(BUILD), prefix))
    must(("cp %s/examples/embed/*.c %s/examples/embed/*.lua ."):format(quoted(HERE), quoted(HERE)))
  end)

  teardown(function () process.output("rm -rf " .. top) end)

  it("plays a game with the core alone", function ()
    must(CC .. " -o game game.c $(pkg-config --cflags --libs neap-core)")
    if not SANITIZE then
      local needs = must "ldd ./game"
      assert.falsy(needs:match "libev" or needs:match "lua" or needs:match "libneap", needs)
    end
    -- 40 + 20/s until 9.98 s each; 8 saves at once; 8 more in each 4 frames, to 2 s
    local said = played "./game 1000 600 fast"
    assert.matches("^moves 239000 of 600000\n", said)
    assert.matches("\nsaves 40 of 40, 32 waited, 0 too late\n", said)
    said = played "./game 10000 121 fast"   -- frame 120 is at 2 s
    assert.matches("\nsaves 248 of 400, 240 waited, 152 too late\n", said)
  end)

  it("plays it with limits that Lua composed, in the host's frames", function ()
    must(CC .. " -o policy policy.c $(pkg-config --cflags --libs neap luajit)")
    -- player 7 has 60/s; chat is 200 + 200/s for all; each place saves 40 times in 2 s
    assert.equal("moves 239361 of 600000\nchats 2196 of 6000\nsaves 40, 0 too late\n", (played(
      ("LD_LIBRARY_PATH=%s/lib LUA_PATH='%s/share/lua/5.1/?.lua;%s/share/lua/5.1/?/init.lua;;' "
      .. "./policy policy.lua 1000 600"):format(prefix, prefix, prefix))))
  end)

  it("says what is wrong with a policy", function ()
    write("bad.lua", "local policy = nil\npolicy.tick = 1\n")
    local text, status = sh(("LD_LIBRARY_PATH=%s/lib ./policy bad.lua"):format(prefix))
    assert.equal(1, status)
    assert.matches("bad.lua:2:", text)
  end)

  it("is found by cmake, as a library and as the core alone", function ()
    write("CMakeLists.txt", ([[
cmake_minimum_required(VERSION 3.16)
project(user C)
find_package(neap 0.1 REQUIRED)
add_compile_options(%s)
add_link_options(%s)
add_executable(by_core game.c)
target_link_libraries(by_core PRIVATE neap::core)
add_executable(by_library game.c)
target_link_libraries(by_library PRIVATE neap::neap)
]]):format(CC:match "%-fsanitize=%S+" or "", CC:match "%-fsanitize=%S+" or ""))
    must(("cmake -G Ninja -S . -B out -DCMAKE_PREFIX_PATH=%s && cmake --build out"):format(prefix))
    local said = played "out/by_core 100 60 fast"
    assert.equal(said, (played "out/by_library 100 60 fast"))
    assert.matches("libneap", must "ldd out/by_library")
  end)

  it("is not found by cmake when another version is wanted", function ()
    write("CMakeLists.txt", [[
cmake_minimum_required(VERSION 3.16)
project(user C)
find_package(neap 9.1 REQUIRED)
]])
    local text, status = sh(("cmake -G Ninja -S . -B wrong -DCMAKE_PREFIX_PATH=%s"):format(prefix))
    assert.equal(1, status)
    assert.matches('requested version "9.1".*version: 0.1.0', text)
  end)

  it("has a header that C and C++ compile without a word", function ()
    write("user.cc", [[
#include <neap.h>
int main()
{
  neap_gcra g;
  neap_bell bell = {0, 0};
  neap_ring(&bell);
  return neap_gcra_init(&g, 10, 1000000000, 3) == NEAP_OK && neap_version[0] ? 0 : 1;
}
]])
    for standard in ("c++11 c++17 c++20"):gmatch "%S+" do
      must(("c++ -std=%s -Wall -Wextra -Wpedantic -Werror -fsyntax-only "
        .. "$(pkg-config --cflags neap) user.cc"):format(standard))
    end
    must(("c++ -o user user.cc %s $(pkg-config --cflags --libs neap) -Wl,-rpath,%s/lib && ./user")
      :format(CC:match "%-fsanitize=%S+" or "", prefix))
    write("user.c", "#include <neap.h>\nint main(void) { return 0; }\n")
    must("cc -std=c11 -Wall -Wextra -Wpedantic -Werror -o user $(pkg-config --cflags neap) user.c")
  end)
end)

--- Run a script where /usr/local is the prefix; nil where that is not allowed.
local function in_usr_local(script)
  write("script", ("mount --bind %s /usr/local && cd / && %s"):format(prefix, script))
  for _, how in ipairs { "unshare -m", "unshare -rm" } do
    if select(2, sh(how .. " mount --bind . /usr/local")) == 0 then
      return must(how .. " sh " .. top .. "/script")
    end
  end
end

describe("a LuaJIT that is told nothing", function ()
  setup(function ()
    top = process.output "mktemp -d":match "%S+"
    prefix = top .. "/prefix"
    must(("cmake --install %s --prefix %s"):format(quoted(BUILD), prefix))
  end)

  teardown(function () process.output("rm -rf " .. top) end)

  local ALONE = SANITIZE and "" or "env -i PATH=/usr/bin:/bin "

  it("finds what is installed in /usr/local, and so do busted and nginx", function ()
    write("hello_spec.lua", [[
it("is there", function () assert.truthy(require "neap".throttle("5/s"):try_acquire()) end)
]])
    write("nginx.conf", [[
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
daemon off; pid pid; error_log error_log; events {}
http { access_log off; init_by_lua_block {
  io.write("nginx ", require "neap".version, "\n") io.stdout:flush() os.exit(0) } }
]])
    local text = in_usr_local(([[%sluajit -e 'print(require "neap".version)' &&
      %sluajit /usr/bin/busted %s/hello_spec.lua && %s/usr/sbin/nginx -p %s -c nginx.conf]])
      :format(ALONE, ALONE, top, ALONE, top))
    if not text then pending "no mount namespaces here" return end
    assert.matches("^0%.1%.0\n", text)
    assert.matches("1 success / 0 failures / 0 errors", text)
    assert.matches("nginx 0%.1%.0\n", text)
  end)

  it("finds what luarocks built offline, the library included", function ()
    if SANITIZE then pending "a build of its own, without sanitizers" return end
    local version = select(2, pcall(require, "neap")).version
    must(("cd %s && cp -r engine lua CMakeLists.txt LICENSE neap-%s-1.rockspec %s")
      :format(quoted(HERE), version, top))
    must(("HOME=%s CMAKE_GENERATOR=Ninja luarocks make --lua-version 5.1 --deps-mode none "
      .. "--tree %s/tree"):format(top, top))
    assert.equal(version .. " true\n", must(("LUA_PATH='%s/tree/share/lua/5.1/?.lua;"
      .. "%s/tree/share/lua/5.1/?/init.lua;;' luajit -e 'local neap = require [[neap]] "
      .. "print(neap.version, (neap.throttle [[5/s]]:peek()))' | tr '\t' ' '"):format(top, top)))
  end)
end)
