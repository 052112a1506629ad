--- The examples run, on virtual time, and the README's script is one of them.
local runtime = require "neap.runtime"
local manual = require "neap.runtime.manual"

local function contents(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

describe("an example", function ()
  local before, printed

  --- What a script prints.
  local function run(path)
    local chunk = assert(loadfile(path))
    setfenv(chunk, setmetatable({
      print = function (...)
        local words = {}
        for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
        printed[#printed + 1] = table.concat(words, " ")
      end,
    }, { __index = _G }))
    chunk()
    return printed
  end

  before_each(function ()
    printed = {}
    before = runtime.use(manual.new())
  end)

  after_each(function () runtime.use(before) end)

  it("is what the README opens with, and paces its calls", function ()
    local script = contents "README.md":match "```lua\n(.-)```"
    assert.truthy(contents "examples/ten_lines.lua":find(script, 1, true))
    local lines = run "examples/ten_lines.lua"
    assert.equal(30, #lines)
    assert.same({ "0 call 1", "0 call 20", "0.6 call 21", "6 call 30" },
      { lines[1], lines[20], lines[21], lines[30] })
  end)

  it("waits an hour in no time, and says why", function ()
    assert.same({
      "     0 s  4000 tokens: go",
      "     0 s  6000 tokens: cost",
      "input: needs 4000 of 5000, has 2666; free in 56m, 2 ahead",
      "  1080 s  4000 tokens: go",
      "  2520 s  4000 tokens: go",
    }, run "examples/virtual_time.lua")
  end)

  it("keeps a limit for every key", function ()
    local lines = run "examples/by_key.lua"
    assert.equal("ann       2 of 50 now: 2/s: needs 1 of 2, has 0; free in 500ms", lines[1])
    assert.equal("spammer   0 of 50 now: 2/s: closed", lines[4])
    assert.same({ "ann      /a at 1.0 s", "ann      /a at 1.0 s", "ann      /b at 1.5 s" },
      { lines[5], lines[6], lines[7] })
  end)

  it("leaves a server alone that is down, and finds out that it is back", function ()
    local lines = run "examples/outage.lua"
    assert.equal("  0.1 s  closed    limit 2", lines[1])
    assert.equal(" 21.1 s  open      limit 1", lines[2])
    assert.equal(" 66.4 s  closed    limit 2", lines[#lines])
    assert.equal(8, #lines)
  end)

  it("tries again when it is told to, and asks a second mirror when the first is slow", function ()
    assert.same({
      "  0.00 s  call 0: 503",
      "  0.20 s  call 1: 429",
      "  7.20 s  call 2: 503",
      "  8.00 s  call 3: 200",
      "hello 2 tokens left",
      "mirror 2 8.15 s",
    }, run "examples/retry.lua")
  end)

  it("waits for a job, and for none longer than it wants to", function ()
    assert.same({
      "something else",
      "  0.0 s  queued, 30.0 s left", "  0.5 s  queued, 29.5 s left",
      "  5.5 s  running, 24.5 s left", "  7.5 s  done, 22.5 s left",
      "42 pages",
      "nil timeout still running 15 s",
      "nil timeout nil",
    }, run "examples/poll.lua")
  end)

  it("goes by what a server tells", function ()
    assert.same({
      "   0 s  sent, 49 requests left", "   0 s  sent, 48 requests left",
      "   0 s  sent, 0 requests left", "  30 s  sent, 24 requests left",
      "  75 s  sent, 36 requests left",
    }, run "examples/told.lua")
  end)

  it("asks a language model, within three limits and what the server says", function ()
    assert.same({
      "  0.0 s  try 0: 200",
      "  2.0 s  left: 3233 input, 883 output",
      "  2.0 s  try 0: 529",
      "  4.5 s  try 1: 200",
      "  6.5 s  left: 2433 input, 100 output",
      " 18.5 s  try 0: 200",
      " 20.5 s  left: 2566 input, 253 output",
    }, run "examples/llm.lua")
  end)

  it("calls an API that says 429 midway", function ()
    assert.same({
      "0 s  ****************", "1 s  ", "2 s  ", "3 s  ", "4 s  ****", "5 s  ****",
      "6 s  ****************", "7 s  ", "8 s  ", "1000000 bytes free",
    }, run "examples/dispatch.lua")
  end)

  it("shows a scraper what became of calls", function ()
    local lines = table.concat(run "examples/metrics.lua", "\n"):gsub(",?id=\"%d+\"", "")
    for _, line in ipairs {
      'neap_granted_total{limiter="api"} 24', 'neap_expired_total{limiter="api"} 1',
      'neap_wait_seconds_bucket{limiter="api",le="1.073741823"} 9',
      'neap_waiting{limiter="api"} 5', 'neap_in_flight{limiter="api"} 4',
    } do
      assert.truthy(("\n" .. lines .. "\n"):find("\n" .. line .. "\n", 1, true), line)
    end
  end)
end)
