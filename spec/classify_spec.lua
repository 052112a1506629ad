local classify = require "neap.classify"
local retry = require "neap.retry"

local outcome, raised = retry.outcome, retry.raised

local function verdict(classifier, of) return { classifier(of) } end
local function fixed(...)
  local answer = { ... }
  return function () return unpack(answer) end
end

describe("a classifier", function ()
  it("by default tries failures again, unless their error says otherwise", function ()
    assert.same({}, verdict(classify.failure, outcome "fine"))
    assert.same({ "retry" }, verdict(classify.failure, outcome(nil, "no")))
    assert.same({ "retry" }, verdict(classify.failure, raised "no"))
    assert.same({ "retry", 3 }, verdict(classify.failure, outcome(nil, { retry_after = 3 })))
    assert.same({ "stop" }, verdict(classify.failure, outcome(nil, { retryable = false })))
    assert.same({ "stop" }, verdict(classify.never, outcome(nil, "no")))
  end)

  it("knows a status, of a response or an error", function ()
    local busy = classify.status { 429, "5xx" }
    for _, of in ipairs { outcome { status = 503 }, outcome(nil, { status = 429 }), outcome(500),
      outcome(nil, 599), raised { status = 500 } } do
      assert.same({ "retry" }, verdict(busy, of))
    end
    for _, of in ipairs { outcome { status = 200 }, outcome(nil, "503"), outcome(404), outcome(),
      outcome(nil, { status = 428 }), outcome "429" } do
      assert.same({}, verdict(busy, of))
    end
    assert.same({ "retry", 9 }, verdict(busy, outcome { status = 503, retry_after = 9 }))
  end)

  it("knows an error by a pattern", function ()
    local lost = classify.match("timed? ?out", "refused$")
    assert.same({ "retry" }, verdict(lost, outcome(nil, "connection refused")))
    assert.same({ "retry" }, verdict(lost, raised "x.lua:1: timeout"))
    assert.same({}, verdict(lost, outcome(nil, "refused, too")))
    assert.same({}, verdict(lost, outcome "timeout"))
  end)

  it("reads what HTTP says", function ()
    local http = classify.http { method = "GET", now = 1000 }
    local function response(status, fields) return outcome { status = status, headers = fields } end
    assert.same({ "retry" }, verdict(http, response(503)))
    assert.same({ "retry", 7 }, verdict(http, response(429, { ["Retry-After"] = "7" })))
    assert.same({ "retry", 0.25 }, verdict(http, response(503, { ["retry-after-ms"] = "250" })))
    assert.same({ "retry", 5 },
      verdict(http, response(503, { { "retry-after", "Thu, 01 Jan 1970 00:16:45 GMT" } })))
    assert.same({ "retry" }, verdict(http, response(503, { ["retry-after"] = "soon" })))
    assert.same({ "retry" }, verdict(http, response(404, { ["x-should-retry"] = "true" })))
    assert.same({ "stop" }, verdict(http, response(503, { ["x-should-retry"] = "false" })))
    assert.same({ "retry" }, verdict(http, outcome(nil, { status = 500 })))
    assert.same({ "retry" }, verdict(http, outcome(503)))
    for _, of in ipairs { response(200), response(404), outcome(nil, "reset"), outcome "200" } do
      assert.same({}, verdict(http, of))
    end
    assert.same({}, verdict(classify.http { method = "POST" }, response(503)))
    assert.same({ "retry" },
      verdict(classify.http { method = "POST", idempotent = true }, response(503)))
    assert.same({ "retry", 2 }, verdict(classify.http { max = 2 },
      response(429, { ["retry-after"] = "99" })))
  end)

  it("is composed of others", function ()
    local yes, no, none = fixed("retry", 2), fixed "stop", fixed(nil)
    local late = fixed("retry", 5)
    local of = outcome(nil, "no")
    assert.same({ "retry", 2 }, verdict(classify.any { none, no, yes, late }, of))
    assert.same({ "stop" }, verdict(classify.any { none, no }, of))
    assert.same({ "stop" }, verdict(classify.any { no, none }, of))
    assert.same({}, verdict(classify.any { none }, of))
    assert.same({ "retry", 5 }, verdict(classify.all { yes, late, fixed(true) }, of))
    assert.same({ "retry", 5 }, verdict(classify.all { late, yes }, of))
    assert.same({ "stop" }, verdict(classify.all { yes, no, none }, of))
    assert.same({}, verdict(classify.all { yes, none }, of))
    assert.same({ "stop" }, verdict(classify.all { yes, classify.any { none, fixed(false) } }, of))
  end)

  it("refuses to be made of nonsense", function ()
    for message, make in pairs {
      ["status: a list expected"] = function () return classify.status(503), nil end,
      ["status: a status or \"5xx\" expected, got 9xx"] = function ()
        return classify.status { "9xx" }, nil
      end,
      ["match: a pattern expected, got nothing"] = function () return classify.match(), nil end,
      ["match: a pattern expected, got 7"] = function () return classify.match(7), nil end,
      ["http: option 'methode' is not known (did you mean 'method'?)"] = function ()
        return classify.http { methode = "GET" }, nil
      end,
      ["any: a list of classifiers expected, got an empty one"] = function ()
        return classify.any {}, nil
      end,
      ["all: a function expected in place 2, got x"] = function ()
        return classify.all { print, "x" }, nil
      end,
    } do
      local ok, err = pcall(make)
      assert.is_false(ok, message)
      assert.truthy(err:find("classify." .. message, 1, true), err)
      assert.truthy(err:find "^spec/classify_spec.lua:", err)
    end
  end)
end)
