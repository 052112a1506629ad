-- From a checkout: `luarocks make`. It builds with cmake, whose compiler, libev and LuaJIT have to
-- be there; only the Lua modules and the library they load are installed, not the program.
rockspec_format = "3.0"
package = "neap"
version = "0.1.0-1"
source = { url = "." }
description = {
  summary = "Decides when an outbound call may leave: rates, permits, waiting, retries",
  license = "MIT",
}
supported_platforms = { "linux" }
dependencies = { "lua == 5.1", "lpeg >= 1.0" }   -- lua: LuaJIT
build = {
  type = "command",
  build_command = "cmake -S . -B build-rock && cmake --build build-rock --target neap",
  install_command = "mkdir -p $(LUADIR) $(LIBDIR) && cp -R lua/neap $(LUADIR)"
    .. " && cp -L build-rock/lib/libneap.so $(LIBDIR)",
}
