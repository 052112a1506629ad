--- The protocol without sockets: rows of bytes and what they mean, whole and in single bytes.
local ffi = require "ffi"
local C = require "neap.engine"

local parser = ffi.new "struct neap_parse"

--- Feed `bytes` in pieces of `step` and tell all that comes out: lists of words, then the error or
--- the number of bytes left over.
local function feed(bytes, step, login)
  C.neap_parse_init(parser)
  parser.login = login or 0
  local out, from, upto, need = {}, 0, 0, 1
  local buffer = ffi.new("char[?]", #bytes + 1, bytes)
  while true do
    local got = 0
    if upto - from >= need then got = C.neap_parse(parser, buffer + from, upto - from) end
    if got < 0 then
      out[#out + 1] = ffi.string(parser.error)
      return out
    elseif got == 1 then
      local words = {}
      for i = 0, parser.argc - 1 do
        words[i + 1] = ffi.string(parser.argv[i].data, parser.argv[i].size)
      end
      if #words > 0 then out[#out + 1] = words end
      from, need = from + parser.used, 1
    elseif upto == #bytes then
      out[#out + 1] = upto - from
      return out
    else
      if need <= upto - from then need = parser.need end
      upto = math.min(upto + step, #bytes)
    end
  end
end

local function means(expected, bytes, login)
  for _, step in ipairs { #bytes > 0 and #bytes or 1, 1, 2, 3, 7 } do
    assert.same(expected, feed(bytes, step, login), bytes:sub(1, 60) .. " by " .. step)
  end
end

describe("resp commands", function ()
  it("are arrays of bulk strings, any number in a row", function ()
    means({ { "PING" }, 0 }, "*1\r\n$4\r\nPING\r\n")
    means({ { "a", "" }, { "b\r\nc" }, 0 }, "*2\r\n$1\r\na\r\n$0\r\n\r\n*1\r\n$4\r\nb\r\nc\r\n")
    means({ { "a" }, 12 }, "*1\r\n$1\r\na\r\n*1\r\n$4\r\nPING")
  end)

  it("may be lines of words, quoted as in Redis", function ()
    means({ { "PING" }, { "a", "b" }, 0 }, "PING\r\n  a \t b \n")
    means({ { "a b", "it's", 'x"y' }, 0 }, [["a b" 'it\'s' "x\"y"]] .. "\n")
    means({ { "AB\n\r\t\b\az", "\\n" }, 0 }, [["\x41B\n\r\t\b\a\z" '\n']] .. "\r\n")
    means({ { "ab", "\\xzz" }, 0 }, [[a"b" "\\xzz"]] .. "\n")
    means({ "Protocol error: unbalanced quotes in request" }, '"a\r\n')
    means({ "Protocol error: unbalanced quotes in request" }, "'a'b\r\n")
    means({ "Protocol error: unbalanced quotes in request" }, [["a\]] .. "\r\n")
  end)

  it("may be empty, which is nothing", function ()
    means({ { "PING" }, 0 }, "*-1\r\n*0\r\n\r\n\n   \r\nPING\r\n")
  end)

  it("are refused with Redis' words", function ()
    for _, number in ipairs { "-1", "-5", "abc", "536870913", "65537", "01", "" } do
      means({ "Protocol error: invalid bulk length" }, "*1\r\n$" .. number .. "\r\n")
    end
    for _, number in ipairs { "abc", "2147483648", "257", "", "+1", "1 " } do
      means({ "Protocol error: invalid multibulk length" }, "*" .. number .. "\r\n")
    end
    means({ "Protocol error: expected '$', got ':'" }, "*1\r\n:1\r\n")
    means({ "Protocol error: expected '$', got ' '" }, "*1\r\n\r\n")
    means({ { "a" }, "Protocol error: expected CRLF after bulk" }, "a\n*1\r\n$1\r\nabc\r\n")
    means({ "Protocol error: expected CRLF after bulk" }, "*1\r\n$3\r\na\r\nx")
  end)

  it("have bounds, and the last that fits is fine", function ()
    local bulk = ("x"):rep(65536)
    means({ { bulk }, 0 }, "*1\r\n$65536\r\n" .. bulk .. "\r\n")
    assert.equal(256, #feed("*256\r\n" .. ("$1\r\na\r\n"):rep(256), 1000)[1])
    means({ "Protocol error: too big inline request" }, bulk .. "xx")
    means({ "Protocol error: too big mbulk count string" }, "*" .. bulk .. "x")
    means({ "Protocol error: too big bulk count string" }, "*1\r\n$" .. bulk .. "x")
    assert.same({ "Protocol error: too big inline request" }, feed(("a "):rep(257) .. "\n", 1000))
    local most = "*17\r\n" .. ("$65536\r\n" .. bulk .. "\r\n"):rep(17)
    assert.same({ "Protocol error: too big request" }, feed(most, 10000))
  end)

  it("are smaller before login", function ()
    means({ "Protocol error: unauthenticated multibulk length" }, "*11\r\n", 1)
    means({ "Protocol error: unauthenticated bulk length" }, "*1\r\n$16385\r\n", 1)
    means({ "Protocol error: unauthenticated multibulk length" }, ("a "):rep(11) .. "\r\n", 1)
    means({ { "AUTH", "a", "b" }, 0 }, "*3\r\n$4\r\nAUTH\r\n$1\r\na\r\n$1\r\nb\r\n", 1)
  end)
end)

describe("resp replies", function ()
  local r = ffi.new "struct neap_reply"

  before_each(function () r.limit, r.proto = 1000, 2 end)
  after_each(function () C.neap_reply_free(r) end)

  local function written()
    local text = ffi.string(r.data + r.head, r.tail - r.head)
    r.head, r.tail = 0, 0
    return text
  end

  --- A row: the verb, its arguments, the bytes in RESP2 and in RESP3 (nil: the same).
  local rows = {
    { "status", { "OK", 2 }, "+OK\r\n" },
    { "status", { "a\r\nb\0", 5 }, "+a  b \r\n" },
    { "error", { "ERR no\n", 7 }, "-ERR no \r\n" },
    { "integer", { 0 }, ":0\r\n" },
    { "integer", { -9223372036854775807LL - 1 }, ":-9223372036854775808\r\n" },
    { "integer", { 9223372036854775807LL }, ":9223372036854775807\r\n" },
    { "bulk", { "a\r\n", 3 }, "$3\r\na\r\n\r\n" },
    { "bulk", { "", 0 }, "$0\r\n\r\n" },
    { "verbatim", { "x: y", 4 }, "$4\r\nx: y\r\n", "=8\r\ntxt:x: y\r\n" },
    { "double", { 0.1 }, "$3\r\n0.1\r\n", ",0.1\r\n" },
    { "double", { 1 / 3 }, "$18\r\n0.3333333333333333\r\n", ",0.3333333333333333\r\n" },
    { "double", { 1 / 0 }, "$3\r\ninf\r\n", ",inf\r\n" },
    { "double", { -1 / 0 }, "$4\r\n-inf\r\n", ",-inf\r\n" },
    { "double", { 0 / 0 }, "$3\r\nnan\r\n", ",nan\r\n" },
    { "bool", { 1 }, ":1\r\n", "#t\r\n" },
    { "bool", { 0 }, ":0\r\n", "#f\r\n" },
    { "null", {}, "$-1\r\n", "_\r\n" },
    { "null_array", {}, "*-1\r\n", "_\r\n" },
    { "array", { 2 }, "*2\r\n" },
    { "map", { 3 }, "*6\r\n", "%3\r\n" },
    { "set", { 3 }, "*3\r\n", "~3\r\n" },
    { "push", { 3 }, "*3\r\n", ">3\r\n" },
    { "raw", { "+x\r\n", 4 }, "+x\r\n" },
  }

  it("are what the protocol the client speaks has for them", function ()
    for i, row in ipairs(rows) do
      for proto = 2, 3 do
        r.proto = proto
        C["neap_reply_" .. row[1]](r, unpack(row[2]))
        assert.equal(proto == 3 and row[4] or row[3], written(), "row " .. i)
      end
    end
  end)

  it("stop for good at the limit, with nothing half written", function ()
    r.limit = 100
    C.neap_reply_bulk(r, ("x"):rep(50), 50)
    C.neap_reply_bulk(r, ("x"):rep(50), 50)
    C.neap_reply_integer(r, 1)
    assert.equal(1, r.failed)
    assert.equal("$50\r\n" .. ("x"):rep(50) .. "\r\n", written())
  end)

  it("are measured, nested ones whole", function ()
    local whole = {
      "+OK\r\n", ":1\r\n", "$-1\r\n", "*-1\r\n", "$3\r\n\r\n\r\r\n", "_\r\n", "#t\r\n", ",1.5\r\n",
      "*0\r\n", "*2\r\n:1\r\n*1\r\n$1\r\na\r\n",
      "%1\r\n+a\r\n~1\r\n:2\r\n", ">2\r\n+a\r\n+b\r\n",
      "=8\r\ntxt:x: y\r\n", "!3\r\nERR\r\n", "|1\r\n+a\r\n+b\r\n:1\r\n",
      "(123456789012345678901\r\n",
    }
    for _, text in ipairs(whole) do
      assert.equal(#text, tonumber(C.neap_reply_measure(text .. "+more", #text + 5)), text)
      for size = 0, #text - 1 do
        assert.equal(0, tonumber(C.neap_reply_measure(text, size)), text .. size)
      end
    end
    for _, text in ipairs { "x\r\n", "$-2\r\n", "*x\r\n", "%-1\r\n", "$1\rx", "\0\r\n", "*\r\n" } do
      assert.equal(C.NEAP_ERANGE, tonumber(C.neap_reply_measure(text, #text)), text)
    end
  end)
end)
