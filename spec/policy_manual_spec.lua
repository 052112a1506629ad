--- The manual of policy files is true: each of its examples is read, and what it says of one that
--- is wrong is what is said.
local manners = require "neap.policy.manners"
local policy = require "neap.policy"

local HERE = debug.getinfo(1, "S").source:match "^@(.*/)" or "spec/"

local function contents(path)
  local file = assert(io.open(HERE .. "../" .. path))
  local text = file:read "*a"
  file:close()
  return text
end

local MANUAL = contents "doc/policy.md"

local ENVIRONMENT = { NEAP_APP = "a", NEAP_ADMIN = "b" }

--- The blocks of code: { kind, text, said }, `said` being the block right behind without a kind.
local blocks = {}
for kind, text in MANUAL:gmatch "```(%l*)\n(.-)```" do
  if kind == "" then
    blocks[#blocks].said = text
  else
    blocks[#blocks + 1] = { kind = kind, text = text }
  end
end

describe("the manual of policy files", function ()
  for i, block in ipairs(blocks) do
    it("is true: example " .. i, function ()
      local _, mistakes, warnings = policy.parse(block.text, "policy.lua",
        { getenv = function (name) return ENVIRONMENT[name] end })
      assert.equal(block.said or "",
        mistakes and tostring(mistakes) .. "\n" or warnings[1] and tostring(warnings) .. "\n" or "")
    end)
  end

  it("has examples", function ()
    local said = 0
    for _, block in ipairs(blocks) do said = said + (block.said and 1 or 0) end
    assert.is_true(#blocks >= 11 and said == 2, #blocks .. " " .. said)
  end)

  it("names every event, field and limit on what there is", function ()
    for _, event in ipairs(manners.EVENTS) do
      assert.is_truthy(MANUAL:find(event, 1, true), event)
    end
    for feature in pairs(policy.supported) do
      local name = feature:gsub("_", " ")
      assert.is_truthy(MANUAL:find(name, 1, true) or MANUAL:find(feature, 1, true), feature)
    end
  end)

  it("shows limits that are limits", function ()
    local rows = 0
    for cell in MANUAL:match("\n| text | means.-\n\n"):gmatch "\n| (`[^|]+) |" do
      for text in cell:gmatch "`([^`]+)`" do
        assert.is_table(require "neap.notation".limit(text), text)
        rows = rows + 1
      end
    end
    assert.is_true(rows >= 8)
  end)
end)
