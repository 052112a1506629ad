--- The words of refusals: all are explained, in one place, and `why` says the rest.
local neap = require "neap"
local in_virtual_time = require "spec.in_virtual_time"

local errors = neap.errors

local function read(path)
  local file = assert(io.open(path))
  local text = file:read "*a"
  file:close()
  return text
end

-- What answers otherwise than limiters do: in sentences.
local SENTENCES = { ["lua/neap/cli.lua"] = true, ["lua/neap/notation.lua"] = true,
  ["lua/neap/policy.lua"] = true, ["lua/neap/worker.lua"] = true }

local function sources()
  local list = {}
  local pipe = assert(io.popen "ls lua/neap/*.lua lua/neap/per_key/*.lua lua/neap/runtime/*.lua")
  for path in pipe:lines() do
    if not SENTENCES[path] then list[#list + 1] = path end
  end
  pipe:close()
  return list
end

describe("errors", function ()
  local rt

  in_virtual_time(function (new) rt = new end)

  it("explain every word that a verb can answer", function ()
    local found = {}
    for _, path in ipairs(sources()) do
      local text = read(path):gsub("%-%-[^\n]*", "")
      for _, pattern in ipairs { 'return nil, "([^"]*)"', '[%s{]word = "([^"]*)"',
          'shed = "([^"]*)"', 'why = "([^"]*)"', 'why, wait_s = "([^"]*)"',
          'answers%.%w+%(self, "([^"]*)"', 'or "([^"]*)", wait' } do
        for word in text:gmatch(pattern) do found[word] = path end
      end
    end
    for word, path in pairs(found) do
      assert.truthy(errors.kinds[word], ("%s answers %q"):format(path, word))
    end
    for _, word in ipairs { "closed", "cost", "timeout", "queue", "line", "busy", "rate", "open",
        "full", "pause", "cancelled", "memory" } do
      assert.truthy(found[word], word)
    end
  end)

  it("are the ones the manual shows", function ()
    local readme, rows = read "doc/lua.md", {}
    for word, means, advice in readme:gmatch '| `"([%w_]+)"` | ([^|]+) | (%w+) |' do
      rows[#rows + 1] = word
      local kind = errors.kinds[word]
      assert.same({ kind.means, kind.retryable and "retry" or "stop" }, { means, advice }, word)
    end
    assert.same({ unpack(errors.words, 1, #rows) }, rows)
    assert.equal("cancelled", rows[#rows])
  end)

  it("stand for what they say, for words of one's own, too", function ()
    assert.same({ true, 503 }, { errors.of "network".retryable, errors.of "network".status })
    assert.same({ false, 500 }, { errors.of "config".retryable, errors.of "config".status })
    assert.equal(errors.kinds.error, errors.of "quota")
    assert.equal(errors.kinds.error, errors.of(nil))
  end)

  it("are decisions with what verbs answer", function ()
    local l = neap.throttle "1/s"
    assert.same({ decision = "granted", granted = true }, errors.decision(l:try_acquire()))
    assert.same({ decision = "retry", granted = false, after = 1, why = "rate" },
      errors.decision(l:try_acquire()))
    assert.same({ decision = "never", granted = false, why = "cost" }, errors.decision(l:peek(2)))
    local busy = neap.semaphore(1)
    assert(busy:try_acquire())
    assert.same({ decision = "retry", granted = false, why = "busy" }, errors.decision(busy:peek()))
    assert.has_error(function () errors.decision(nil) end,
      "decision: what a verb answered expected, got nil, nil")
  end)

  -- A hybrid in a multi in layers: what binds is named by the name it was given last.
  local function nested()
    local inner = neap.hybrid { "2/s", neap.semaphore(3, { name = "places" }) }
    local middle = neap.multi { tokens = inner, requests = neap.throttle("10/s", { name = "rpm" }) }
    return neap.layered { global = middle, user = "4/s" }
  end

  it("name what binds, three levels deep", function ()
    local l = nested()
    local function why(given)
      local r = l:why(given)
      return r and { r.word, r.limiter, r.cost, r.capacity, r.balance, r.wait, r.at, r.place }
    end
    rt.advance(1)
    assert.is_nil(why { user = "ann", tokens = 2, requests = 1 })
    assert.same({ "cost", "tokens", 3, 2, 2, nil, nil, 0 }, why { user = "ann", tokens = 3 })
    assert.same({ "cost", "requests", 11, 10, 10, nil, nil, 0 },
      why { user = "ann", requests = 11 })
    local kept = assert(l:try_acquire { user = "ann", tokens = 2 })
    assert.same({ "rate", "tokens", 1, 2, 0, 0.5, 1.5, 0 }, why { user = "ann", tokens = 1 })
    for _ = 1, 3 do assert(l:try_acquire { user = "ann", requests = 1 }) end
    assert.same({ "rate", "user", 1, 4, 0, 0.25, 1.25, 0 }, why { user = "ann", requests = 1 })
    assert.is_nil(why { user = "bob", requests = 1 })
    local held = assert(l:acquire { user = "bob", tokens = 1 })
    assert.equal(1.5, neap.now())
    assert.same({ "busy", "tokens", 1, 3, 0, nil, nil, 0 }, why { user = "bob", tokens = 1 })
    local task = rt.spawn(function () l:acquire { user = "bob", tokens = 1 } end)
    rt.turn(0)
    local waits = why { user = "bob", tokens = 1 }
    assert.same({ "line", "tokens", 1 }, { waits[1], waits[2], waits[8] })
    task:cancel()
    held:release()
    kept:release()
  end)

  it("say whether a deadline can be met", function ()
    local l = neap.throttle("1/s", { name = "api" })
    rt.advance(5)
    assert(l:try_acquire())
    local can = l:why { timeout = 1 }
    assert.same({ "rate", 6, 6 }, { can.word, can.at, can.deadline })
    local cannot = l:why { timeout = "500ms" }
    assert.same({ "timeout", 6, 5.5 }, { cannot.word, cannot.at, cannot.deadline })
    assert.equal("api: needs 1 of 1, has 0; free in 1s, after the deadline", tostring(cannot))
    assert.same({ nil, "timeout", 1 }, { l:acquire { timeout = 0.5 } })
    assert.equal("cost", l:why { cost = 2, timeout = 1 }.word)
  end)
end)
