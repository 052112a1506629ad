--- Whether and when to repeat a request, from its answer's status and headers.
local backoff = require "neap.backoff"
local cjson = require "cjson"
local harness = require "spec.vectors.harness"
local headers = require "neap.headers"

local NOW = 784111777   -- Sun, 06 Nov 1994 08:49:37 GMT
local DRAWS = 100

-- That time, ten seconds later, in its three forms.
local DATES = {
  ["{imf}"] = "Sun, 06 Nov 1994 08:49:47 GMT",
  ["{rfc850}"] = "Sunday, 06-Nov-94 08:49:47 GMT",
  ["{asctime}"] = "Sun Nov  6 08:49:47 1994",
}

local function given(value)
  if value ~= cjson.null then return value end
end

local function seconds(ms) return ms and ms / 1000 end

-- Rules come from a file here, so what cannot be a rule is passed over.
local function rules_of(args) return headers.rules(args.rules, { lenient = true }) end

local fns = {}

--- Both ends and whatever chance has in between.
function fns.retry_delay(args, expected)
  local delay
  for i = 0, DRAWS do
    local policy = backoff {
      preset = "foundation_http", base = seconds(args.initial_ms), cap = seconds(args.max_ms),
      random = function () return i / DRAWS end,
    }
    delay = policy:delay(args.attempt) * 1000
    harness.expect("draw " .. i / DRAWS, expected, delay)
  end
  return delay
end

function fns.retryable_status(args) return headers.rules():retryable(args.status) end

function fns.retryable_status_for_method(args)
  return rules_of(args):retryable(args.status, args.method)
end

function fns.should_retry(args)
  if args.not_a_response then return headers.should_retry "not a response" end
  return headers.should_retry { status = args.status, headers = args.headers }
end

function fns.should_retry_for_method(args)
  return headers.should_retry({ status = args.status, headers = args.headers },
    { method = args.method, rules = rules_of(args) })
end

--- Where a case says nothing of a default, it is 1 s, which neap has to be told.
function fns.parse_retry_after_ms(args)
  local default = 1000
  if args.default_ms ~= nil then default = given(args.default_ms) end
  for _, pair in ipairs(args.headers) do
    if DATES[pair[2]] then
      assert(args.template_offset_s == 10)
      pair[2] = DATES[pair[2]]
    end
  end
  local delay = headers.delay(args.headers, { now = NOW, default = seconds(default) })
  return delay and delay * 1000
end

local suite = {}

function suite.run(case)
  local fn = fns[case.fn] or harness.skip("no function '" .. tostring(case.fn) .. "'")
  harness.expect(case.fn, case.expect, fn(case.args, case.expect))
end

return suite
