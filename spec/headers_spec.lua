local date = require "neap.headers.date"
local headers = require "neap.headers"

local NOW = 784111777   -- Sun, 06 Nov 1994 08:49:37 GMT

local function at(value, dialect)
  return headers.retry_after(value, { now = NOW, dialect = dialect })
end

describe("headers", function ()
  it("are found in any case, and the first one counts", function ()
    local list = { { "A", "x" }, { "Retry-AFTER", 7 }, { "retry-after", "9" } }
    assert.equal("7", headers.get(list, "Retry-After"))
    assert.same({ "7", "9" }, headers.all(list, "retry-after"))
    assert.equal("7", headers.get({ ["RETRY-After"] = "7" }, "retry-after"))
    assert.same({ "5", "6" }, headers.all({ ["Retry-After"] = { 5, "6" } }, "retry-after"))
    assert.is_nil(headers.get({ a = "b" }, "c"))
  end)

  it("under one name in several cases: as it is asked for, or the first by its bytes", function ()
    local both = { ["Retry-After"] = "1", ["RETRY-AFTER"] = "2", ["Retry-after"] = "3" }
    assert.equal("2", headers.get(both, "retry-after"))
    both["retry-after"] = "4"
    assert.equal("4", headers.get(both, "Retry-After"))
    for _, name in ipairs { "abc", "retry", "x-limit", "left", "quota" } do
      local many = { [name:gsub("^.", string.upper)] = "2" }   -- capitals come first
      for i = 2, #name do many[name:sub(1, i - 1) .. name:sub(i):upper()] = "3" end
      many[name:upper()] = "1"
      assert.equal("1", headers.get(many, name))
    end
  end)
end)

describe("Retry-After", function ()
  it("is read strictly or leniently, as one is told", function ()
    for _, row in ipairs {
      -- value                              strict                 lenient
      { "120",                              120,                   120 },
      { "120s",                             nil,                   120 },
      { "+7",                               nil,                   7 },
      { "-7",                               nil,                   nil },
      { "1994-11-06T08:49:47Z",             nil,                   10 },
      { "1994-11-06",                       nil,                   nil },
      { "08:49:47",                         nil,                   nil },
      { "1e400",                            nil,                   1 },
      { ("9"):rep(400),                     nil,                   math.huge },
      { ("0"):rep(400) .. "5",              5,                     5 },
      { "Sun, 06 Nov 1994 08:49:47 GMT",    10,                    10 },
      { "Sun, 06 nov 1994 08:49:47 gmt",    10,                    10 },
      { "Sunday, 06-Nov-94 08:49:47 GMT",   10,                    10 },
      { "Sun Nov  6 08:49:47 1994",         10,                    10 },
      { "Sun Nov 6 08:49:47 1994",          10,                    nil },
      { "Mon, 06 Nov 1994 08:49:47 GMT",    10,                    nil },
      { "Sun, 6 Nov 1994 08:49:47 GMT",     10,                    nil },
      { "Sun, 06-Nov-1994 08:49:47 GMT",    10,                    nil },
      { "Sun, 06 Nov 1994 08:49:60 GMT",    23,                    nil },
      { "Sun, 06 Nov 1994 08:49:61 GMT",    nil,                   nil },
      { "Tue, 29 Feb 1994 08:49:47 GMT",    nil,                   nil },
      { "Sun, 06 Nov 1994 08:49:47 UTC",    nil,                   nil },
    } do
      assert.equal(row[2], at(row[1]), row[1])
      assert.equal(row[3], at(row[1], "lenient"), row[1])
    end
  end)

  it("asks for the time of day when there is a date, and only then", function ()
    local asked = 0
    local function now()
      asked = asked + 1
      return NOW
    end
    assert.equal(5, headers.retry_after("5", { now = now }))
    assert.equal(0, asked)
    assert.equal(10, headers.retry_after("Sun, 06 Nov 1994 08:49:47 GMT", { now = now }))
    assert.equal(1, asked)
  end)

  it("is cut to a maximum", function ()
    assert.equal(60, headers.retry_after("3600", { max = 60 }))
    assert.equal(60, headers.delay({ ["retry-after-ms"] = "3600000" }, { max = 60 }))
    assert.equal(90, headers.delay({}, { max = 60, default = 90 }))
  end)

  it("gives way to retry-after-ms, unless that cannot be read", function ()
    assert.equal(0.25, headers.delay { { "Retry-After", "9" }, { "Retry-After-Ms", "250" } })
    assert.equal(9, headers.delay { { "Retry-After", "9" }, { "Retry-After-Ms", "soon" } })
    assert.is_nil(headers.delay { { "Retry-After", "soon" } })
  end)

  it("refuses options that are none", function ()
    assert.has_error(function () headers.retry_after("1", { clock = 1 }) end,
      "option 'clock' is not known")
    assert.has_error(function () headers.retry_after("1", { dialect = "loose" }) end,
      'dialect: "strict" or "lenient" expected, got loose')
    assert.has_error(function () headers.delay({}, { max = -1 }) end,
      "max: seconds from 0 expected, got -1")
    assert.has_error(function () headers.delay({}, 5) end, "options: a table expected, got number")
  end)
end)

describe("dates", function ()
  local SHORT = { "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun" }
  local MONTHS = {
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
  }
  local DAYS = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 }

  -- A calendar that is walked, day by day, from a Monday: 1 January of the year 1.
  local function each_day(last, visit)
    local days = -719162
    for year = 1, last do
      for month = 1, 12 do
        local length = DAYS[month]
        local leap = year % 400 == 0 or year % 4 == 0 and year % 100 ~= 0
        if month == 2 and leap then length = 29 end
        for day = 1, length do
          visit(days, year, month, day)
          days = days + 1
        end
        assert(not visit(days, year, month, length + 1, true))
      end
    end
  end

  it("are days of the calendar, all of them, and no others", function ()
    local wrong = 0
    each_day(2500, function (days, year, month, day, missing)
      local text = ("%s, %02d %s %04d 00:00:01 GMT"):format(SHORT[(days + 719162) % 7 + 1], day,
        MONTHS[month], year)
      local want = not missing and days * 86400 + 1 or nil
      if date.http(text, 0, true) ~= want or date.http("x" .. text, 0) ~= want then
        wrong = wrong + 1
      end
      if not missing and days % 97 == 0 then
        local iso = ("%04d-%02d-%02dT00:00:01Z"):format(year, month, day)
        if date.rfc3339(iso) ~= want then wrong = wrong + 1 end
      end
    end)
    assert.equal(0, wrong)
  end)

  it("with a year of two digits are at most 50 years ahead, and no more than that", function ()
    local function instant(year, month, day)
      return date.rfc3339(("%04d-%02d-%02dT12:00:00Z"):format(year, month, day))
    end
    for today = 1950, 2150, 7 do
      for _, now_month in ipairs { 1, 6, 12 } do
        local now = instant(today, now_month, 15)
        for short = 0, 99 do
          for _, month in ipairs { 1, 6, 12 } do
            local text = ("Sunday, 15-%s-%02d 12:00:00 GMT"):format(MONTHS[month], short)
            local latest
            for year = 1800 + short, 2300, 100 do
              if instant(year - 50, month, 15) <= now then latest = year end
            end
            if date.http(text, now) ~= instant(latest, month, 15) then
              error(("%s in %d is not %d"):format(text, today, latest))
            end
          end
        end
      end
    end
  end)

  it("of RFC 3339 have offsets", function ()
    local noon = date.rfc3339 "1994-11-06T12:00:00Z"
    assert.equal(noon, date.rfc3339 "1994-11-06T13:30:00+01:30")
    assert.equal(noon, date.rfc3339 "1994-11-05T22:00:00-14:00")
    assert.equal(noon, date.rfc3339 "1994-11-06T12:00:00.999z")
    assert.is_nil(date.rfc3339 "1994-11-06T12:00:00+24:00")
    assert.is_nil(date.rfc3339 "1994-11-06T12:00:00+01:60")
    assert.is_nil(date.rfc3339 "1994-13-06T12:00:00Z")
    assert.is_nil(date.rfc3339 "1994-00-06T12:00:00Z")
    assert.is_nil(date.rfc3339 "1994-11-06T12:00:00.Z")
  end)
end)

describe("whether to call again", function ()
  it("is decided by status and method, unless the server says", function ()
    local says = { { "X-Should-Retry", " TRUE " } }
    local idempotent = { method = "POST", idempotent = true }
    for _, row in ipairs {
      { 503, nil, true }, { 409, nil, true }, { 404, nil, false }, { 599, nil, true },
      { 503, { method = "GET" }, true }, { 503, { method = " put " }, true },
      { 503, { method = "POST" }, false }, { 503, { method = "PATCH" }, false },
      { 503, { method = "BREW" }, false }, { 429, { method = "BREW" }, true },
      { 429, { method = "POST" }, true }, { 409, { method = "POST" }, false },
      { 503, idempotent, true }, { 404, idempotent, false },
      { { status = 404, headers = says }, { method = "POST" }, true },
      { { status = 503, headers = { ["x-should-retry"] = "false" } }, nil, false },
      { { status = 503, headers = { ["x-should-retry"] = "maybe" } }, nil, true },
      { { status = "503" }, nil, false }, { "503", nil, false }, { 503.5, nil, false },
    } do
      local status = type(row[1]) == "table" and row[1].status or row[1]
      assert.equal(row[3], headers.should_retry(row[1], row[2]),
        ("%s %s"):format(tostring(status), row[2] and row[2].method or "-"))
    end
  end)

  it("by rules of one's own", function ()
    local rules = headers.rules { ALL = { 429 }, get = { "5xx" } }
    assert.is_true(rules:retryable(599, "Get"))
    assert.is_false(rules:retryable(600, "get"))
    assert.is_false(rules:retryable(500, "all"))
    assert.is_true(headers.should_retry(500, { rules = rules, method = "GET" }))
    assert.is_false(headers.should_retry(500, { rules = rules, method = "PUT" }))
    assert.is_false(headers.should_retry(500, { rules = headers.rules {} }))
  end)

  it("whose mistakes are told, or passed over", function ()
    assert.has_error(function () headers.rules { gett = { 500 } } end,
      "rules: unknown method gett (did you mean 'get'?)")
    assert.has_error(function () headers.rules { get = 500 } end,
      "rules: get: a list of statuses expected, got 500")
    assert.has_error(function () headers.rules { get = { "500" } } end,
      'rules: get: a status such as 503 or "5xx" expected, got 500')
    assert.has_error(function () headers.rules "idempotant" end,
      "rules: no rules called 'idempotant' (did you mean 'idempotent'?)")
    assert.has_error(function () headers.rules(5) end,
      "rules: statuses by method expected, as in { all = { 429 }, get = { 503 } }, got 5")
    local lenient = headers.rules({ gett = { 500 }, get = { "500", 503 }, put = 5 },
      { lenient = true })
    assert.is_false(lenient:retryable(500, "get"))
    assert.is_true(lenient:retryable(503, "get"))
  end)
end)
