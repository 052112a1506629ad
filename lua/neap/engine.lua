--- The engine as LuaJIT sees it: the one module that declares it, and the one that looks for
--- libneap. The declarations come out of the library itself (`neap_cdef`, neap.h between its cut
--- marks), so they fit the code they describe by construction. What can still differ is this
--- directory and the library, when two installations are mixed; so their versions are compared.
local ffi = require "ffi"

local error, ipairs, pcall, tostring = error, ipairs, pcall, tostring

local VERSION = "0.1.0"   -- of these modules; the build refuses another than its own

--- The library this tree came with, for `<prefix>/share/lua/5.1/neap`: `<prefix>/lib/libneap.so`,
--- or `<prefix>/lib/lua/5.1/libneap.so`, where luarocks puts it. The path is cut as text: in a
--- build tree that `neap` is a link, and `..` would leave by its end.
---@return string? path  nil when there is none, or this file was not loaded from a prefix
local function own_library()
  local prefix = debug.getinfo(1, "S").source:match "^@(.*)/share/lua/5%.1/neap/engine%.lua$"
  for _, directory in ipairs(prefix and { "/lib", "/lib/lua/5.1" } or {}) do
    local path = prefix .. directory .. "/libneap.so"
    local file = io.open(path)
    if file then
      file:close()
      return path
    end
  end
end

---@return ffi.namespace*
local function load_library()
  local path = own_library()
  local found, lib = pcall(ffi.load, path or "neap")
  if found then return lib end
  if path then error("neap: " .. path .. " does not load: " .. tostring(lib), 0) end
  error("neap: no libneap.so: neither in the prefix of " .. debug.getinfo(1, "S").short_src ..
    " nor where the system looks (" .. tostring(lib) .. "); build it with " ..
    "`cmake -B build && cmake --build build`, or add its directory to LD_LIBRARY_PATH", 0)
end

local lib = load_library()

-- A state may load this module twice (a test runner forgets modules); declarations stay for good.
if not pcall(ffi.typeof, "neap_ns") then
  ffi.cdef "extern const char neap_cdef[];"
  local ours, cdef = pcall(function () return ffi.string(lib.neap_cdef) end)
  if not ours then
    error("neap: the libneap.so that was found is not neap's: " .. tostring(cdef), 0)
  end
  ffi.cdef(cdef)
end

local version = ffi.string(lib.neap_version)
if version ~= VERSION then
  error(("neap: the Lua modules are version %s, libneap.so is %s; use the two of one installation")
    :format(VERSION, version), 0)
end

return lib
