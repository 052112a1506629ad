--- What is read from outside, on texts that nobody would send: random ones, and those that somebody
--- would, damaged. Nothing raises an error; what comes is a value of its kind; and structured
--- fields are what a reader says that goes by the RFC step by step, and are the same when they are
--- written and read again.
---
---     NEAP_FUZZ=10000000   texts per grammar, 1,000,000 unless told
local date = require "neap.headers.date"
local headers = require "neap.headers"
local model = require "spec.model.structured"
local formats = require "neap.provider.formats"
local provider = require "neap.provider"
local seed = require "spec.seed"
local structured = require "neap.headers.structured"

local TEXTS = tonumber(os.getenv "NEAP_FUZZ" or 1e6)
local NOW = 1767225600
local COMPARED = 8   -- of so many structured texts one is read by the model, too: it is slow

local random = math.random

local SEEDS = {
  times = {
    "120", "0", " 7\t", "18446744073709551615", "1500.7", "-5", "1e3", "true", "False",
    "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
    "Thu, 29 Feb 2024 23:59:60 GMT", "1994-11-06T08:49:37Z", "2026-01-01T00:00:00.123+01:00",
    "Thu, 01 Jan 1777777777777777 00:00:00 GMT", "31-Feb-26", "", "7.66s", "1m26.4s", "20ms", "1h",
  },
  fields = {
    '"default";r=50;t=30', '"burst";q=100;w=60, "daily";q=1000;w=86400', "a=1, b;x=2, c=(1 2);y",
    '("foo"; a=1;b=2);lvl=5, ("bar" "baz");lvl=1', ":aGVsbG8=:", ":iZ==:", "?1;a=?0", "@1659578233",
    '%"f%c3%bcr %f0%9f%92%a9"', "1.5, -42, 999999999999.999", "*tok/en:x;*k=v", '"es\\"c\\\\aped"',
    "()", "a, b, a=2", "-0;a;b;a", "",
  },
}

local LETTERS = {
  times = " \t0123456789:,-+.TZzGMTmtSunovfrah",
  fields = " \t019aZ*%\"\\;=,()?:@-./cf",
}

local function one_of(list) return list[random(#list)] end

local function letter(kind)
  if random(8) == 1 then return string.char(random(0, 255)) end
  local letters = LETTERS[kind]
  local at = random(#letters)
  return letters:sub(at, at)
end

local damages = {
  function (text, at, kind) return text:sub(1, at - 1) .. letter(kind) .. text:sub(at + 1) end,
  function (text, at, kind) return text:sub(1, at - 1) .. letter(kind) .. text:sub(at) end,
  function (text, at) return text:sub(1, at - 1) .. text:sub(at + 1) end,
  function (text, at) return text:sub(1, at) .. text:sub(random(#text)) end,
  function (text, at) return text:sub(1, at) end,
  function (text, at, kind)
    local other = one_of(SEEDS[kind])
    return text:sub(1, at) .. other:sub(random(#other + 1))
  end,
}

local function text_of(kind)
  if random(10) == 1 then
    local letters = {}
    for i = 1, random(0, 12) do letters[i] = letter(kind) end
    return table.concat(letters)
  end
  local text = one_of(SEEDS[kind])
  for _ = 1, random(0, 3) do
    if text == "" then return letter(kind) end
    text = one_of(damages)(text, random(#text), kind)
  end
  return text
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do
    if not same(value, b[key]) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end

--- Seconds to wait: nothing else may come of a header.
local function wait(value) return value == nil or value >= 0 end
local function instant(value) return value == nil or value % 1 == 0 and value - value == 0 end

-- What reads such texts, and what may come of it.
local READERS = {
  times = {
    { "retry_after", function (text) return headers.retry_after(text, { now = NOW }) end, wait },
    { "retry_after, lenient", function (text)
      return headers.retry_after(text, { now = NOW, dialect = "lenient" })
    end, wait },
    { "retry_after_ms", headers.retry_after_ms, wait },
    { "says_retry", headers.says_retry, function (value)
      return value == nil or type(value) == "boolean"
    end },
    { "count", headers.count, function (value)
      return value == nil or value >= 0 and value % 1 == 0
    end },
    { "date.http", function (text) return date.http(text, NOW) end, instant },
    { "date.http, exact", function (text) return date.http(text, NOW, true) end, instant },
    { "date.rfc3339", date.rfc3339, instant },
  },
  fields = {},
}

for name, read in pairs(formats) do
  table.insert(READERS.times, { name, function (text) return read(text, NOW) end, wait })
end

for i, kind in ipairs { "item", "list", "dictionary" } do
  READERS.fields[i] = { kind, structured[kind], function (value, text)
    if random(COMPARED) == 1 and not same(value, model.read(kind, text)) then return false end
    return value == nil or same(value, structured[kind](structured.format(kind, value)))
  end }
end

local ietf = provider "ietf"
READERS.fields[4] = { "RateLimit", function (text)
  local seen = ietf:parse({ RateLimit = text, ["RateLimit-Policy"] = text }, NOW)
  return next(seen) and seen
end, function (seen)
  for _, window in pairs(seen or {}) do
    if not wait(window.remaining) or not wait(window.limit) or not wait(window.reset_s) then
      return false
    end
  end
  return true
end }

--- Throw them.
local function fuzz(kind)
  math.randomseed(seed)
  local values = {}
  for n = 1, TEXTS do
    local text = text_of(kind)
    for _, reader in ipairs(READERS[kind]) do
      local name, read, check = reader[1], reader[2], reader[3]
      local ok, value = pcall(read, text)
      if not ok or not check(value, text) then
        error(("%s: text %d: %q: %s"):format(name, n, text, tostring(value)))
      end
      if value ~= nil then values[name] = (values[name] or 0) + 1 end
    end
  end
  for _, reader in ipairs(READERS[kind]) do
    local count = values[reader[1]] or 0
    assert.is_true(count > TEXTS / 1000, ("%s: %d texts had a value"):format(reader[1], count))
  end
end

describe("whatever comes", function ()
  for kind in pairs(READERS) do
    it("is read, or is not: " .. kind, function () fuzz(kind) end)
  end

  it("may be no text at all", function ()
    for _, value in pairs { 5, true, {}, { {} }, { { 1 } }, error, { 0 / 0 }, { false } } do
      for _, read in ipairs { headers.retry_after, headers.retry_after_ms, headers.says_retry } do
        assert.has_no.errors(function () read(value) end)
      end
      for _, read in ipairs { headers.delay, headers.should_retry } do
        assert.has_no.errors(function () read(value) end)
      end
      assert.has_no.errors(function () headers.get(value, "retry-after") end)
      assert.is_nil(structured.list(value))
    end
    assert.is_nil(headers.retry_after(nil))
    assert.is_nil(headers.delay(nil))
    assert.is_false(headers.should_retry(nil))
    assert.same({}, headers.all({ { "a", { {}, 1, "b" } }, a = { true } }, "b"))
  end)
end)
