-- What `luacheck .` accepts: LuaJIT, 100 columns, no global of our own anywhere.
std = "luajit"
max_line_length = 100
self = false                    -- a method need not use its receiver
ignore = { "581" }              -- `not (x >= y)` is not `x < y` when one may be NaN
exclude_files = { "build*/**", "spec/policies/**" }   -- those hold mistakes on purpose

files["spec/**/*_spec.lua"].std = "+busted"
for _, path in ipairs { "examples/**/policy.lua", "examples/policies/*.lua" } do
  files[path].read_globals = { "policy", "per", "user", "listen", "env", "include", "log", "now",
    "emit" }
end
for _, path in ipairs { "lua/neap/ngx.lua", "lua/neap/ngx/*.lua", "lua/neap/runtime/ngx.lua" } do
  files[path].read_globals = { "ngx" }
end
