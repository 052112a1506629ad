--- HTTP without sockets: rows of bytes and what they mean, whole and in single bytes.
local ffi = require "ffi"
local C = require "neap.engine"

local parser = ffi.new "struct neap_http"
local METHODS = { [0] = "other", "GET", "HEAD", "POST" }

local function text(span) return ffi.string(span.data, span.size) end

--- A request in one line: "GET /path {name: value}... 'body' closes old bare".
local function told()
  local parts = { METHODS[parser.method] }
  if parser.method == 0 then parts[1] = text(parser.verb):lower() end
  parts[2] = text(parser.target)
  for i = 0, parser.fields - 1 do
    local field = parser.field[i]
    local name = text(field.name)
    if name:lower() ~= "host" then parts[#parts + 1] = name .. "=" .. text(field.value) end
  end
  if parser.body.size > 0 then parts[#parts + 1] = "'" .. text(parser.body) .. "'" end
  for i, word in ipairs { "closes", "old", "bare" } do
    if bit.band(parser.how, 2 ^ (i - 1)) ~= 0 then parts[#parts + 1] = word end
  end
  return table.concat(parts, " ")
end

--- Feed `bytes` in pieces of `step` and tell all that comes out: requests, then the error or the
--- number of bytes left over.
local function feed(bytes, step)
  C.neap_http_init(parser)
  local out, from, upto, need = {}, 0, 0, 1
  local buffer = ffi.new("char[?]", #bytes + 1, bytes)
  while true do
    local got = 0
    if upto - from >= need then got = C.neap_http_parse(parser, buffer + from, upto - from) end
    if got < 0 then
      out[#out + 1] = parser.status .. " " .. ffi.string(parser.error)
      return out
    elseif got == 1 then
      out[#out + 1] = told()
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

local function means(bytes, ...)
  for _, step in ipairs { #bytes > 0 and #bytes or 1, 1, 2, 3, 7 } do
    assert.same({ ... }, feed(bytes, step), bytes:sub(1, 60) .. " by " .. step)
  end
end

local HOST = "Host: h\r\n"

local function get(fields) return "GET / HTTP/1.1\r\n" .. HOST .. fields .. "\r\n" end

local function post(fields, body)
  return "POST /x HTTP/1.1\r\n" .. HOST .. fields .. "\r\n" .. (body or "")
end

describe("requests of HTTP", function ()
  it("are a line, fields, and a body as long as was said, any number in a row", function ()
    means(get "", "GET /", 0)
    means(get "Accept: */*\r\nX-Empty:\r\nX-Y: \t a b\t \r\n",
      "GET / Accept=*/* X-Empty= X-Y=a b", 0)
    means("HEAD /a?b=%20 HTTP/1.1\r\nhOST:h\r\n\r\n" .. get "", "HEAD /a?b=%20 bare", "GET /", 0)
    means(post("Content-Length: 5\r\n", "hello") .. get "",
      "POST /x Content-Length=5 'hello'", "GET /", 0)
    means(post("Content-Length: 4\r\n", "\r\n\r\n") .. post("content-length: 0\r\n"),
      "POST /x Content-Length=4 '\r\n\r\n'", "POST /x content-length=0", 0)
    means(post "" .. "hel", "POST /x", 3)
    means(post("Content-Length: 5\r\n", "hell"), 52)
    means("GET / HTTP/1.1\r\nHost", 20)
    means("", 0)
  end)

  it("may be made with methods that are not known here", function ()
    means("DELETE /x HTTP/1.1\r\n" .. HOST .. "\r\n", "delete /x", 0)
    means("OPTIONS * HTTP/1.1\r\n" .. HOST .. "\r\n", "options *", 0)
    means("CONNECT h:1 HTTP/1.1\r\n" .. HOST .. "\r\n", "connect h:1", 0)
    means("get / HTTP/1.1\r\n" .. HOST .. "\r\n", "get /", 0)
  end)

  it("may name the host with the path, which says nothing", function ()
    means("GET http://h:1/x?y HTTP/1.1\r\n" .. HOST .. "\r\n", "GET /x?y", 0)
    means("GET HTTP://h HTTP/1.1\r\n" .. HOST .. "\r\n", "GET /", 0)
    means("GET https://h/ HTTP/1.1\r\n" .. HOST .. "\r\n", "400 the target is no path")
    means("GET x HTTP/1.1\r\n" .. HOST .. "\r\n", "400 the target is no path")
    means("GET * HTTP/1.1\r\n" .. HOST .. "\r\n", "400 the target is no path")
  end)

  it("keep the connection as their version does, or as they say", function ()
    means(get "Connection: close\r\n", "GET / Connection=close closes", 0)
    means(get "Connection: x , Close\r\n", "GET / Connection=x , Close closes", 0)
    means(get "Connection: keep-alive\r\nConnection: close\r\n",
      "GET / Connection=keep-alive Connection=close closes", 0)
    means(get "Connection: closed\r\n", "GET / Connection=closed", 0)
    means("GET / HTTP/1.0\r\n\r\n", "GET / closes old", 0)
    means("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET / Connection=Keep-Alive old", 0)
    means("GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
      "GET / Connection=close Connection=keep-alive closes old", 0)
    means("GET / HTTP/1.2\r\n" .. HOST .. "\r\n", "GET /", 0)
  end)

  it("may have one empty line before them", function ()
    means("\r\n" .. get "" .. "\r\n" .. get "", "GET /", "GET /", 0)
    means("\r\n\r\n" .. get "", "400 this is no HTTP request")
    means("\n" .. get "", "400 this is no HTTP request")
    means("\r", 1)
    means("\rG", "400 this is no HTTP request")
  end)

  it("are refused when they are something else", function ()
    for _, bytes in ipairs { "*1\r\n$4\r\nPING\r\n", "PING\r\n", "GET /\r\n", "GET / HTTP/1.1 \r\n",
      "GET  / HTTP/1.1\r\n", " GET / HTTP/1.1\r\n", "GET\t/ HTTP/1.1\r\n", "GET / http/1.1\r\n",
      "GET / HTTP/1\r\n", "GET / HTTP/1.10\r\n", "GET / HTTP/x.1\r\n", "GET /# HTTP/1.1\r\n",
      "GET /\1 HTTP/1.1\r\n", "GET /\127 HTTP/1.1\r\n",
      "GET /\195\164 HTTP/1.1\r\n", "G:T / HTTP/1.1\r\n", "\0" } do
      means(bytes, "400 this is no HTTP request")
    end
    means("\22\3\1", "400 a TLS hello; neap speaks no TLS")
    means("PRI * HTTP/2.0\r\n\r\n", "505 HTTP/1.1 is spoken here")
    means("GET / HTTP/0.9\r\n", "505 HTTP/1.1 is spoken here")
  end)

  it("are refused when two readers could read two things", function ()
    local crlf = "400 a line does not end in CRLF"
    means("GET / HTTP/1.1\nHost: h\n\n", crlf)
    means("GET / HTTP/1.1\r\nHost: h\n\r\n", crlf)
    means(get "X: y\n", crlf)
    means("GET / HTTP/1.1\r\nHost: h\r\n\n", crlf)
    local colon = "400 a field has no name with a colon right after it"
    for _, line in ipairs { "X : y", "X\t: y", "X", ": y", "X y: z", "X\0: y", "(X): y",
      "\255: y" } do
      means(get(line .. "\r\n"), colon)
    end
    for _, line in ipairs { " X: y", "\tX: y", " " } do
      means(get(line .. "\r\n"), "400 a field is folded over two lines")
    end
    means("GET / HTTP/1.1\r\n Host: h\r\n\r\n", "400 a field is folded over two lines")
    for _, byte in ipairs { "\0", "\r", "\27", "\127", "\11" } do
      means(get("X: a" .. byte .. "b\r\n"), "400 a control byte in a field's value")
    end
    means(get "X: \195\164\255\r\n", "GET / X=\195\164\255", 0)
    for _, line in ipairs { "5", "6" } do
      means(post("Content-Length: 5\r\nContent-Length: " .. line .. "\r\n", "hello"),
        "400 more than one Content-Length")
    end
    for _, value in ipairs { "", "+5", "-5", "5, 5", "0x5", "5 5", "5a", "1e3", "5.0" } do
      means(post("Content-Length: " .. value .. "\r\n", "hello"),
        "400 a Content-Length that is no number")
    end
    means(post("Content-Length: 005\r\n", "hello"), "POST /x Content-Length=005 'hello'", 0)
    local both = "400 a Content-Length and a Transfer-Encoding"
    means(post "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", both)
    means(post "Transfer-Encoding: identity\r\nContent-Length: 5\r\n", both)
    means("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
      "400 a Transfer-Encoding in HTTP/1.0")
    means("GET / HTTP/1.1\r\n\r\n", "400 no Host")
    means(get(HOST), "400 more than one Host")
  end)

  it("are refused when they want what there is not", function ()
    means(post "Transfer-Encoding: Chunked\r\n", "411 a body comes with its Content-Length")
    for _, value in ipairs { "gzip, chunked", "identity", "xchunked", "chunked, chunked", "" } do
      means(post("Transfer-Encoding: " .. value .. "\r\n"),
        "501 a Transfer-Encoding that is not known")
    end
    means(post "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
      "501 a Transfer-Encoding that is not known")
    means(post "Content-Length: 5\r\nExpect: 100-continue\r\n",
      "417 nothing is answered before the body")
  end)

  it("have bounds, and the last that fits is fine", function ()
    local function long(size)
      return "GET /" .. ("x"):rep(size - 16) .. " HTTP/1.1\r\n" .. HOST .. "\r\n"
    end
    assert.equal(0, feed(long(8192), 1000)[2])
    means(long(8193), "414 the request line is too long")
    means(("x"):rep(8193), "414 the request line is too long")
    local empty = #get "X: \r\n"
    assert.equal(0, feed(get("X: " .. ("y"):rep(16384 - empty) .. "\r\n"), 1000)[2])
    means(get("X: " .. ("y"):rep(16384 - empty + 1) .. "\r\n"), "431 the head is too large")
    assert.equal(0, feed(get(("X: y\r\n"):rep(63)), 1000)[2])
    means(get(("X: y\r\n"):rep(64)), "431 more fields than are read")
    local body = ("b"):rep(65536)
    assert.equal(0, feed(post("Content-Length: 65536\r\n", body), 1000)[2])
    means(post "Content-Length: 65537\r\n", "413 the body is too large")
    means(post("Content-Length: " .. ("9"):rep(40) .. "\r\n"), "413 the body is too large")
    means(post("Content-Length: " .. ("0"):rep(18) .. "5\r\n"), "413 the body is too large")
  end)

  it("cost no more in single bytes than a walk or two over them", function ()
    local bytes = get("X: " .. ("y"):rep(16000) .. "\r\n")
    C.neap_http_init(parser)
    local buffer = ffi.new("char[?]", #bytes + 1, bytes)
    for size = 1, #bytes - 1 do
      assert(C.neap_http_parse(parser, buffer, size) == 0 and parser.need == size + 1)
      -- where it goes on: never before the line's start, and past all of a line that is not whole
      assert(parser.seen >= size - 1)
    end
    assert.equal(1, C.neap_http_parse(parser, buffer, #bytes))
    bytes = post "Content-Length: 1000\r\n"
    assert.equal(0, C.neap_http_parse(parser, ffi.new("char[?]", #bytes + 1, bytes), #bytes))
    assert.equal(#bytes + 1000, parser.need)
  end)
end)

describe("responses of HTTP", function ()
  local r = ffi.new("struct neap_reply", { limit = 1000, proto = 2 })

  after_each(function () C.neap_reply_free(r) end)

  local function written()
    local bytes = ffi.string(r.data + r.head, r.tail - r.head)
    r.head, r.tail = 0, 0
    return bytes
  end

  local ALWAYS = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"

  it("say how the connection goes on, and how long the body is", function ()
    C.neap_http_status(r, 200, 0)
    C.neap_http_field(r, "Content-Type", "text/plain", 10)
    C.neap_http_body(r, "ok\n", 3, 0)
    assert.equal("HTTP/1.1 200 OK\r\n" .. ALWAYS ..
      "Content-Type: text/plain\r\nContent-Length: 3\r\n\r\nok\n", written())
    C.neap_http_status(r, 429, C.NEAP_HTTP_CLOSES + C.NEAP_HTTP_OLD)
    C.neap_http_body(r, "no\n", 3, C.NEAP_HTTP_BARE)
    assert.equal("HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\n" .. ALWAYS ..
      "Content-Length: 3\r\n\r\n", written())
    C.neap_http_status(r, 204, C.NEAP_HTTP_OLD)
    C.neap_http_no_body(r)
    assert.equal("HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n" .. ALWAYS .. "\r\n",
      written())
    C.neap_http_status(r, 599, 0)
    assert.equal("HTTP/1.1 599 \r\n" .. ALWAYS, written())
  end)

  it("have no line that a value made", function ()
    C.neap_http_field(r, "X", "a\r\nSet-Cookie: b\0\127\tc", 20)
    assert.equal("X: a  Set-Cookie: b   c\r\n", written())
    local long = ("x"):rep(127) .. "\n" .. ("y"):rep(200)
    C.neap_http_field(r, "X", long, #long)
    assert.equal("X: " .. long:gsub("\n", " ") .. "\r\n", written())
  end)

  it("stop for good at the limit", function ()
    local body = ("x"):rep(1000)
    C.neap_http_status(r, 200, 0)
    C.neap_http_body(r, body, #body, 0)
    assert.equal(1, r.failed)
  end)
end)
