local cjson = require "cjson"
local structured = require "neap.headers.structured"

local HERE = debug.getinfo(1, "S").source:match "^@(.*)headers_structured_spec%.lua$"
local DIR = (os.getenv "NEAP_VECTORS" or HERE .. "vectors") .. "/structured-fields/"
local FILES = {
  "binary", "boolean", "dictionary", "examples", "item", "key-generated", "large-generated", "list",
  "listlist", "number", "number-generated", "param-dict", "param-list", "param-listlist", "string",
  "string-generated", "token", "token-generated",
}

-- ---- values as the vectors write them ---------------------------------------------------------

local BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

local function from_base32(text)
  local bits, count, bytes = 0, 0, {}
  for c in text:gmatch "[^=]" do
    bits, count = bits * 32 + BASE32:find(c, 1, true) - 1, count + 5
    if count >= 8 then
      count = count - 8
      bytes[#bytes + 1] = string.char(math.floor(bits / 2 ^ count))
      bits = bits % 2 ^ count
    end
  end
  return table.concat(bytes)
end

--- A value of the vectors, as neap's.
local function bare(value)
  if type(value) ~= "table" then return { type = type(value), value = value } end
  local content = value.value
  if value.__type == "binary" then content = from_base32(content) end
  return { type = value.__type, value = content }
end

local function named(pairs_of, read)
  local names = {}
  for i, pair in ipairs(pairs_of) do names[i], names[pair[1]] = pair[1], read(pair[2]) end
  return names
end

local function item(pair)
  local one = bare(pair[1])
  one.params = named(pair[2], bare)
  return one
end

local function member(pair)
  if type(pair[1]) ~= "table" or pair[1].__type then return item(pair) end
  local list = {}
  for i, inner in ipairs(pair[1]) do list[i] = item(inner) end
  return { type = "list", value = list, params = named(pair[2], bare) }
end

local expected = { item = item }

function expected.list(list)
  local members = {}
  for i, pair in ipairs(list) do members[i] = member(pair) end
  return members
end

function expected.dictionary(list) return named(list, member) end

--- JSON has one kind of number.
local function blur(value)
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, each in pairs(value) do copy[key] = blur(each) end
  if copy.type == "integer" or copy.type == "decimal" then copy.type = "number" end
  return copy
end

local function read_file(name)
  local file = assert(io.open(DIR .. name .. ".json"))
  local text = file:read "*a"
  file:close()
  return cjson.decode(text)
end

-- -----------------------------------------------------------------------------------------------

describe("structured fields", function ()
  for _, name in ipairs(FILES) do
    it("are read, refused and written as the vectors in " .. name .. " say", function ()
      local passed = 0
      for _, case in ipairs(read_file(name)) do
        local kind, raw = case.header_type, table.concat(case.raw, ", ")
        local value, message, at = structured[kind](raw)
        if case.must_fail then
          assert.is_nil(value, case.name)
          assert.is_string(message, case.name)
          assert.is_true(at >= 1 and at <= #raw + 1, case.name)
        else
          assert.is_table(value, case.name .. ": " .. tostring(message))
          assert.same(expected[kind](case.expected), blur(value), case.name)
          local canonical = table.concat(case.canonical or case.raw, ", ")
          assert.equal(canonical, structured.format(kind, value), case.name)
        end
        passed = passed + 1
      end
      assert.is_true(passed > 0)
    end)
  end

  local function rows(kind, list)
    for _, row in ipairs(list) do
      local text, want, canonical = row[1], row[2], row[3]
      local got, message = structured.item(text)
      if want == nil then
        assert.is_nil(got, text)
      else
        assert.is_table(got, text .. ": " .. tostring(message))
        assert.same({ type = kind, value = want, params = {} }, got, text)
        assert.equal(canonical or text, structured.format("item", got), text)
      end
    end
  end

  it("have dates: whole seconds after an @", function ()
    rows("date", {
      { "@1659578233", 1659578233 },
      { "@-1659578233", -1659578233 },
      { "@0", 0 },
      { "@-0", 0, "@0" },
      { "@25340221190412", 25340221190412 },
      { "@1659578233.12", nil },
      { "@", nil },
      { "@1234567890123456", nil },
      { "@ 1", nil },
    })
  end)

  it("have display strings: UTF-8 in percent signs, whole and shortest", function ()
    rows("display", {
      { '%"foo bar"', "foo bar" },
      { '%""', "" },
      { '%"f%c3%bc%c3%bc"', "füü" },
      { '%"%e2%82%ac 5"', "€ 5" },
      { '%"%f0%9f%92%a9"', "💩" },
      { '%"%f4%8f%bf%bf"', "\244\143\191\191" },
      { '%"%ee%80%80"', "\238\128\128" },
      { '%"%00%25%22"', '\0%"' },
      { '%"%41"', "A", '%"A"' },
      { '%"f%C3%BC"', nil },              -- capitals
      { '%"füü"', nil },                  -- raw bytes
      { '%"%c3"', nil },                  -- half a character
      { '%"%c3%28"', nil },
      { '%"%c0%af"', nil },               -- a longer form than needed
      { '%"%e0%9f%bf"', nil },
      { '%"%f0%8f%bf%bf"', nil },
      { '%"%ed%a0%80"', nil },            -- a surrogate
      { '%"%f4%90%80%80"', nil },         -- beyond the last
      { '%"%f5%80%80%80"', nil },
      { '%"%bf"', nil },
      { '%"%4"', nil },
      { '%"a', nil },
      { '"a', nil },
      { "%a", nil },
    })
  end)

  it("may have tabs after lists and dictionaries, but not before, and not around items", function ()
    assert.same({}, structured.item "a".params)
    assert.truthy(structured.list "a\t ")
    assert.truthy(structured.dictionary "a \t")
    for _, kind in ipairs { "item", "list", "dictionary" } do
      assert.truthy(structured[kind] "  a  ")
      assert.is_nil(structured[kind] "\ta")
    end
    assert.is_nil(structured.item "a\t")
  end)

  it("share the parameters they do not have, which nobody can add to", function ()
    assert.has_error(function () structured.item "a".params.q = 1 end,
      "structured: give it params of its own first")
  end)

  it("tell a decimal from an integer", function ()
    assert.equal("integer", structured.item("1").type)
    assert.equal("decimal", structured.item("1.0").type)
    assert.equal("1.0", structured.format("item", structured.item "1.000"))
    assert.equal("0.0", structured.format("item", structured.item "-0.0"))
  end)

  it("are written to three places, ties to even", function ()
    local function written(value)
      return structured.format("item", { type = "decimal", value = value })
    end
    assert.equal("0.062", written(0.0625))
    assert.equal("0.188", written(0.1875))
    assert.equal("2.0", written(1.9999))
    assert.equal("-1.5", written(-1.5))
    assert.equal("999999999999.999", written(999999999999.999))
    assert.has_error(function () written(999999999999.9999) end)
    assert.has_error(function () written(0 / 0) end)
    assert.has_error(function () written(1 / 0) end)
  end)

  it("are not written when the RFC has no words for them", function ()
    for _, wrong in ipairs {
      { type = "integer", value = 1e15 }, { type = "integer", value = 1.5 },
      { type = "integer", value = 0 / 0 }, { type = "date", value = 0.5 },
      { type = "token", value = "a b" }, { type = "token", value = "1a" },
      { type = "token", value = "" }, { type = "string", value = "\n" },
      { type = "string", value = "ü" }, { type = "string", value = 5 },
      { type = "binary", value = 5 }, { type = "boolean", value = 1 },
      { type = "display", value = "\255" }, { type = "display" }, { type = "nothing", value = 1 },
      { value = 1 }, { type = "integer", value = 1, params = { "A", A = true } },
      { type = "integer", value = 1, params = { "a" } },
    } do
      assert.has_error(function () structured.format("item", wrong) end)
    end
    assert.has_error(function () structured.format("items", {}) end,
      'structured: "item", "list" or "dictionary" expected, got items')
    assert.has_error(function () structured.format("list", 1) end,
      "structured: a table expected, got number")
    assert.has_error(function () structured.format("list", { 1 }) end,
      "structured: 1 is no value with a type")
    assert.has_error(function ()
      structured.format("dictionary", { "B", B = { type = "boolean", value = true } })
    end, "structured: B is no name")
  end)

  it("say where they stop making sense", function ()
    local function wrong(kind, text, message, at)
      assert.same({ nil, message, at }, { structured[kind](text) }, text)
    end
    wrong("list", "1, 2,", "not a structured list: did not expect ',' at byte 5", 5)
    wrong("list", "(1", "not a structured list: did not expect '(' at byte 1", 1)
    wrong("item", "", "not a structured item: did not expect nothing at byte 1", 1)
    wrong("item", "\255", "not a structured item: did not expect byte 255 at byte 1", 1)
    wrong("dictionary", "a=1, B=2", "not a structured dictionary: did not expect ',' at byte 4", 4)
    wrong("list", 5, "text expected, got number", 1)
    wrong("list", nil, "text expected, got nil", 1)
  end)

  it("written with bytes of any length, read the same", function ()
    for n = 0, 300 do
      local bytes = {}
      for i = 1, n do bytes[i] = string.char((i * 131 + n * 17) % 256) end
      local one = { type = "binary", value = table.concat(bytes), params = {} }
      local text = structured.format("item", one)
      assert.equal(2 + 4 * math.ceil(n / 3), #text)
      assert.same(one, structured.item(text))
    end
  end)
end)
