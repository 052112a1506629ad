--- CL.THROTTLE and GCRA as clients meet them: a worker whose clock is told the time gives the
--- recorded replies of the module it follows, in one pipeline with the clock; and nonsense.
local process = require "spec.process"

local ROUNDS = 6         -- each at an epoch and with keys of its own: 2,400 commands
local SECOND = 1000000000LL
local DAY = 86400 * SECOND   -- the vectors start their clock anywhere from a day on

local POLICY = [[policy "one" { limits = { calls = "1 in flight" } }]]

--- The rows of the file: its numbers, the key a text.
local function recorded()
  local rows = {}
  for line in io.lines "spec/vectors/cl_throttle.tsv" do
    local row = {}
    for field in line:gmatch "[^\t]+" do row[#row + 1] = tonumber(field) or field end
    if type(row[1]) == "number" then rows[#rows + 1] = row end
  end
  return rows
end

local function text_of(instant) return (tostring(instant):gsub("LL$", "")) end

describe("over the wire, a throttle", function ()
  local worker, peer

  before_each(function ()
    worker = process.worker(POLICY, nil, "--virtual-clock")
    peer = process.dial(worker.address)
  end)

  after_each(process.sweep)

  local function stop()
    peer:hang_up()
    assert.same({ "", 0 }, { worker:stop() })
  end

  it("gives the recorded reply to every command of the vectors, pipelined", function ()
    local rows, epoch, last = recorded(), DAY, 0
    local expected, asked = {}, {}
    for round = 1, ROUNDS do
      if round == ROUNDS / 2 + 1 then   -- the other half in the other protocol
        asked[#asked + 1] = { "HELLO", "3" }
      end
      local case
      for _, row in ipairs(rows) do
        if row[1] ~= case then
          epoch, case = epoch + last + round * SECOND, row[1]
        end
        last = row[2]
        asked[#asked + 1] = { "DEBUG", "CLOCK", text_of(epoch + last) }
        asked[#asked + 1] = { "CL.THROTTLE", ("%d.%d.%s"):format(round, case, row[3]),
          unpack(row, 4, 7) }
        expected[#expected + 1] = row
      end
    end
    assert.equal(400 * ROUNDS, #expected)
    local at = 0
    for first = 1, #asked, 200 do
      local pipeline = {}
      for i = first, math.min(first + 199, #asked) do
        local parts = { ("*%d\r\n"):format(#asked[i]) }
        for k, word in ipairs(asked[i]) do
          parts[k + 1] = ("$%d\r\n%s\r\n"):format(#tostring(word), word)
        end
        pipeline[#pipeline + 1] = table.concat(parts)
      end
      peer:say(table.concat(pipeline))
      for i = first, math.min(first + 199, #asked) do
        local reply = peer:receive()
        if asked[i][1] == "CL.THROTTLE" then
          at = at + 1
          assert.same({ unpack(expected[at], 8, 12) }, reply, table.concat(asked[i], " "))
        elseif asked[i][1] == "DEBUG" then
          assert.equal("OK", reply)
        end
      end
    end
    assert.equal(400 * ROUNDS, at)
    stop()
  end)

  it("may have a period with a fraction, and say how many tokens", function ()
    for i, row in ipairs {   -- at (ms), what is asked, the reply
      {    0, "10 5 0.5", { 0, 11, 10, -1, 1 } },
      {    0, "10 5 0.5 TOKENS 10", { 0, 11, 0, -1, 2 } },
      {   99, "10 5 0.5", { 1, 11, 0, 1, 2 } },
      {  100, "10 5 .5", { 0, 11, 0, -1, 2 } },
      {  100, "10 5 0.5 tokens 12", { 1, 11, 0, -1, 2 } },
      { 2000, "10 5 5e-1 TOKENS 11", { 0, 11, 0, -1, 2 } },
      { 2300, "10 5 0.5 TOKENS 1", { 0, 11, 2, -1, 1 } },
      { 2300, "10 5 0.5 TOKENS 3", { 1, 11, 2, 1, 1 } },
    } do
      peer:ask("DEBUG", "CLOCK", text_of(DAY + row[1] * 1000000LL))
      local words = { "GCRA", "k" }
      for word in row[2]:gmatch "%S+" do words[#words + 1] = word end
      assert.same(row[3], peer:ask(unpack(words)), "row " .. i .. ": " .. row[2])
    end
    stop()
  end)

  it("is refused when it makes no sense, and the key is as it was", function ()
    assert.equal(0, peer:ask("CL.THROTTLE", "k", 1, 1, 60)[1])
    local ARITY = "wrong number of arguments for '%s' command"
    local WHOLE, REAL = "value is not an integer or out of range", "value is not a valid float"
    local BURST, POSITIVE = "max_burst is out of range", "count and period must be > 0"
    for _, row in ipairs {
      { "CL.THROTTLE k 1 1", ARITY:format "cl.throttle" },
      { "CL.THROTTLE k 1 1 60 1 1", ARITY:format "cl.throttle" },
      { "CL.THROTTLE k x 1 60", WHOLE }, { "CL.THROTTLE k 1 1.5 60", WHOLE },
      { "CL.THROTTLE k -1 1 60", BURST }, { "CL.THROTTLE k -2 1 60", BURST },
      { "CL.THROTTLE k 9223372036854775807 1 60", BURST },
      { "CL.THROTTLE k 9223372036854775806 1 60", "max_burst at this rate would overflow" },
      { "CL.THROTTLE k 1 0 60", POSITIVE }, { "CL.THROTTLE k 1 1 0", POSITIVE },
      { "CL.THROTTLE k 1 3000000000 1", "rates above 1000000000 per second are not supported" },
      { "CL.THROTTLE k 1 1 60 -1", "quantity must be >= 0" },
      { "GCRA k 1 1", ARITY:format "gcra" }, { "GCRA k 1 1 60 TOKENS", "syntax error" },
      { "GCRA k 1 1 60 TOKEN 1", "syntax error" },
      { "GCRA k 1 1 60 TOKENS 0", "TOKENS must be >= 1" },
      { "GCRA k 1 1 60 TOKENS -1", "TOKENS must be >= 1" },
      { "GCRA k 1 1 60 TOKENS x", WHOLE }, { "GCRA k 1 1 x", REAL }, { "GCRA k 1 1 nan", REAL },
      { "GCRA k 1 1 inf", REAL }, { "GCRA k 1 1 -0.5", POSITIVE }, { "GCRA k 1 1 0", POSITIVE },
      { "GCRA k -1 1 60", BURST }, { "GCRA k 1 0 60", POSITIVE },
    } do
      local words = {}
      for word in row[1]:gmatch "%S+" do words[#words + 1] = word end
      assert.same({ err = "ERR " .. row[2] }, peer:ask(unpack(words)), row[1])
    end
    assert.same({ 0, 2, 0, -1, 120 }, peer:ask("CL.THROTTLE", "k", 1, 1, 60))
    stop()
  end)
end)
