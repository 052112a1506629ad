--- The rules of the house that a machine can check: who may know what, what the header promises.
local ffi = require "ffi"
local C = require "neap.engine"

local BUILD = assert(os.getenv "NEAP_BUILD", "NEAP_BUILD: the build tree; spec/run sets it")
local RING0 = {
  "word", "gcra", "semaphore", "window", "pause", "breaker", "adaptive", "backoff",
  "budget", "limiter", "all", "cell", "guard", "convert", "stripes",
}

local function lines_of(command)
  local pipe = assert(io.popen(command))
  local lines = {}
  for line in pipe:lines() do lines[#lines + 1] = line end
  pipe:close()
  return lines
end

local OBJECTS = BUILD .. "/CMakeFiles/neap_core.dir/engine/"

--- The functions an object file takes from elsewhere.
local function borrowed(source)
  local found = {}
  local object = ("'%s%s.c.o'"):format(OBJECTS, source)
  local lines = lines_of("nm " .. object)
  for _, line in ipairs(lines) do
    local name = line:match " U ([%w_]+)$"
    if name then found[name] = true end
  end
  assert.truthy(lines[1], object .. ": nm says nothing")
  return found
end

local function refuse(sources, names)
  for _, source in ipairs(sources) do
    local found = borrowed(source)
    for name in names:gmatch "%S+" do
      assert.falsy(found[name], ("engine/%s.c calls %s"):format(source, name))
    end
  end
end

describe("the house", function ()
  it("reads no clock, sleeps nowhere and does no I/O in rings 0 and 1", function ()
    local world = "clock_gettime gettimeofday time nanosleep usleep sleep poll " ..
      "open fopen read write printf fprintf puts socket send recv"
    local core = lines_of(("find '%s' -name '*.o' -exec basename {} .c.o \\;"):format(OBJECTS))
    assert.truthy(#core > #RING0)
    refuse(core, world)
  end)

  it("allocates nothing in ring 0", function ()
    refuse(RING0, "malloc calloc realloc free aligned_alloc posix_memalign mmap strdup")
  end)

  it("exports what the header declares, and nothing else", function ()
    local only_in = { neap_cdef = "header" }   -- name to the one place that has it
    local text = ffi.string(C.neap_cdef):gsub("/%*.-%*/", "")
    for name in text:gmatch "[%s%*](neap_[%w_]+)%s*%(" do only_in[name] = "header" end
    for name in text:gmatch "extern const [%w_]+ (neap_[%w_]+)" do only_in[name] = "header" end
    for _, line in ipairs(lines_of(("nm -D --defined-only '%s/lib/libneap.so'"):format(BUILD))) do
      local name = line:match " %a (%S+)$"
      if not name:match "^_" then only_in[name] = not only_in[name] and "library" or nil end
    end
    assert.same({}, only_in)
  end)

  it("says ffi.cdef in one module, and in one of the command line", function ()
    assert.same({ "lua/neap/cli/system.lua", "lua/neap/engine.lua" },
      lines_of "grep -rlF 'ffi.cdef' lua examples | sort")
  end)

  it("has no file past 500 lines, but the one header", function ()
    assert.same({}, lines_of [[find engine lua examples spec -type f ! -name neap.h \
      \( -name '*.[ch]' -o -name '*.lua' \) \
      -exec awk 'END { if (NR > 500) print FILENAME, NR }' {} \;]])
  end)
end)
