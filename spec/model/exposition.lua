--- A second opinion on metrics: the grammars of the two text formats, as their specifications have
--- them, and what a parser has to refuse besides.
---
---   https://prometheus.io/docs/instrumenting/exposition_formats  text format 0.0.4
---   https://prometheus.io/docs/specs/om/open_metrics_spec        OpenMetrics 1.0, its ABNF
---
--- Each answers what the text says: { families = { { name, type, help, unit, samples }, … } }, a
--- sample being { name, labels (a table), value (a number), key (name and labels as text) }.
local lpeg = require "lpeg"

local P, R, S = lpeg.P, lpeg.R, lpeg.S
local C, Cc, Cf, Cg, Cs, Ct = lpeg.C, lpeg.Cc, lpeg.Cf, lpeg.Cg, lpeg.Cs, lpeg.Ct

-- ---- what both share --------------------------------------------------------------------------

local tail = R "\128\191"
local utf8 = R "\1\9" + R "\11\127"
  + R "\194\223" * tail
  + P "\224" * R "\160\191" * tail + R("\225\236", "\238\239") * tail * tail
  + P "\237" * R "\128\159" * tail
  + P "\240" * R "\144\191" * tail * tail + R "\241\243" * tail * tail * tail
  + P "\244" * R "\128\143" * tail * tail

local digit, nl = R "09", P "\n"
local name_first = R("az", "AZ") + S "_:"
local metric_name = name_first * (name_first + digit) ^ 0
local label_name = (R("az", "AZ") + P "_") * (R("az", "AZ", "09") + P "_") ^ 0
local escaped = P "\\\\" / "\\" + P "\\n" / "\n" + P "\\\"" / "\""
local label_text = Cs((escaped + (utf8 - S "\\\"")) ^ 0)

local function set(labels, name, value)
  assert(labels[name] == nil, "a label twice: " .. name)
  labels[name] = value
  return labels
end

local pair = Cg(C(label_name) * "=\"" * label_text * "\"")
local labels = "{" * Cf(Ct "" * pair * ("," * pair) ^ 0, set) * "}"

local real = S "+-" ^ -1 * (digit ^ 1 * ("." * digit ^ 0) ^ -1 + "." * digit ^ 1)
  * (S "eE" * S "+-" ^ -1 * digit ^ 1) ^ -1
local value = real / tonumber + P "+Inf" * Cc(math.huge) + P "-Inf" * Cc(-math.huge)
  + P "NaN" * Cc(0 / 0)

local sample = Ct(Cg(C(metric_name), "name") * Cg(labels + Cc {}, "labels") * " "
  * Cg(value, "value") * nl)

-- ---- each by itself ---------------------------------------------------------------------------

local function line(word, what)
  return "# " * P(word) * " " * Cg(C(metric_name), "name") * " " * what * nl
end
local kind = P "counter" + "gauge" + "histogram"

--- HELP of 0.0.4 escapes backslashes and line feeds, that of OpenMetrics quotes, too.
local function family(help_text, unit)
  return Ct(line("HELP", Cg(Cs(help_text ^ 0), "help")) * line("TYPE", Cg(C(kind), "type"))
    * unit * Cg(Ct(sample ^ 1), "samples"))
end

local plain = P "\\\\" / "\\" + P "\\n" / "\n" + (utf8 - P "\\")
local quoted = escaped + (utf8 - S "\\\"")
local unit = line("UNIT", Cg(C(label_name), "unit")) ^ -1

local GRAMMARS = {
  prometheus = Ct(family(plain, P(true)) ^ 0) * -1,
  openmetrics = Ct(family(quoted, unit) ^ 0) * "# EOF\n" * -1,
}

-- ---- beyond grammar ---------------------------------------------------------------------------

local SUFFIXES = {
  prometheus = { counter = { "" }, gauge = { "" }, histogram = { "_bucket", "_sum", "_count" } },
  openmetrics = { counter = { "_total" }, gauge = { "" },
    histogram = { "_bucket", "_sum", "_count" } },
}

local function key_of(one, without)
  local list = {}
  for name, text in pairs(one.labels) do
    if name ~= without then list[#list + 1] = ("%s=%q"):format(name, text) end
  end
  table.sort(list)
  return one.name .. "{" .. table.concat(list, ",") .. "}"
end

local function check_sample(fam, one, format, seen)
  one.key = key_of(one)
  assert(not seen[one.key], "a series twice: " .. one.key)
  seen[one.key] = one
  local fits = false
  for _, suffix in ipairs(SUFFIXES[format][fam.type]) do
    fits = fits or one.name == fam.name .. suffix
  end
  assert(fits, one.name .. " does not belong to " .. fam.name)
  if fam.type ~= "gauge" then assert(one.value >= 0, one.key .. " is below 0") end
end

--- Buckets ascend, their counts do, and the last of them is the count.
local function check_histogram(fam, seen)
  local last = {}
  for _, one in ipairs(fam.samples) do
    if one.name == fam.name .. "_bucket" then
      local key = key_of(one, "le")
      local le = one.labels.le == "+Inf" and math.huge or tonumber(one.labels.le)
      local before = last[key] or { le = -1, value = 0 }
      assert(le > before.le and one.value >= before.value, one.key .. " does not ascend")
      last[key] = { le = le, value = one.value }
    end
  end
  for key, bucket in pairs(last) do
    assert(bucket.le == math.huge, key .. " has no +Inf")
    local count = seen[(key:gsub("_bucket", "_count", 1))]
    assert(count and count.value == bucket.value, key .. " and its count differ")
    assert(seen[(key:gsub("_bucket", "_sum", 1))], key .. " has no sum")
  end
end

--- Read a text, or raise an error.
---@param format "prometheus"|"openmetrics"
---@param text string
---@return table[] families
---@return table<string, table> samples  by key
return function (format, text)
  local families = GRAMMARS[format]:match(text)
  if not families then
    local list = Ct((family(plain, unit) * lpeg.Cp()) ^ 0):match(text)
    local at = list[#list] or 1
    error("does not follow the grammar from here: " .. text:sub(at, at + 200), 0)
  end
  local names, seen = {}, {}
  for _, fam in ipairs(families) do
    assert(not names[fam.name], "a family twice: " .. fam.name)
    names[fam.name] = true
    assert(fam.help ~= "", fam.name .. " has no help")
    if format == "prometheus" then
      assert((fam.type == "counter") == (fam.name:find "_total$" ~= nil), fam.name)
    else
      assert(not fam.name:find "_total$", fam.name)
      assert(not fam.unit or fam.name:sub(-#fam.unit - 1) == "_" .. fam.unit, fam.name)
    end
    for _, one in ipairs(fam.samples) do check_sample(fam, one, format, seen) end
    if fam.type == "histogram" then check_histogram(fam, seen) end
  end
  return families, seen
end
