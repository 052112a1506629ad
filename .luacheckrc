-- What `luacheck .` accepts: LuaJIT, 100 columns, no global of our own anywhere.
std = "luajit"
max_line_length = 100
self = false                    -- a method need not use its receiver
exclude_files = { "build*/**" }

files["spec/**/*_spec.lua"].std = "+busted"
