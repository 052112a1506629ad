--- /v1/check: a proxy asks whether a call may pass. 200: it may, and the lease, if the policy has
--- such, is in X-Neap-Lease. 429, or another status that was asked for: it may not, and Retry-After
--- says when it could.
---
---     /v1/check/POLICY?by.tenant=42&cost=2&cost.input=900&wait=200ms&deny=403&id=job-7&ttl=30s
---     /v1/check               X-Neap-Policy: openai     X-Neap-Cost: 2, input=900
---     /v1/check/POLICY/...    X-Neap-Wait: 200ms        X-Neap-Deny: 403     X-Neap-Id, X-Neap-Ttl
---
--- Who asks in the first form says it all in the query, and fields are not read: a proxy like nginx
--- passes them on from whoever called it, and a stranger should not say what his call costs. The
--- others are for those, like Envoy, that put the path and the query they were called with behind a
--- prefix of ours and send no fields but those they were told to.
---
--- nginx makes 500 of any status of auth_request but 2xx, 401 and 403; so it asks with deny=403
--- and answers 429 itself.
local notation = require "neap.notation"
local json = require "neap.policy.json"
local uri = require "neap.worker.uri"

local ceil, floor, ipairs, max, min = math.ceil, math.floor, ipairs, math.max, math.min
local concat, tonumber, tostring = table.concat, tonumber, tostring
local object, value = json.object, json.value

local DENIED, DRAINING = 429, 503
local DIGITS = 999999999999999   -- the largest integer of a structured field
local REPORTS = { status = "STATUS", retry_after = "RETRY-AFTER", latency_us = "LATENCY" }
local OUTCOMES = { ok = "OK", fail = "FAIL", ignore = "IGNORE" }

local check = {}

-- ---- what is asked ----------------------------------------------------------------------------

local function milliseconds(name, text)
  local ns, message = notation.duration(text)
  if ns then return tostring(ceil(ns / 1e6)) end
  return nil, ("bad %s '%s': %s"):format(name, notation.show(text), message)
end

local function unknown(name, words)
  local meant = notation.nearest(name, words)
  return ("unknown parameter '%s'%s"):format(notation.show(name),
    meant and (" (did you mean '%s'?)"):format(meant) or "")
end

local PARAMETERS = { "cost", "wait", "ttl", "id", "prio", "deny" }

--- The words that NEAP.ACQUIRE would have, and the status of a denial.
---@param policy string
---@param parameters { [1]: string, [2]: string }[]
---@return string[]?
---@return integer|string deny_or_problem
local function acquire_words(policy, parameters)
  local words, deny = { policy }, nil
  local function add(...)
    for _, word in ipairs { ... } do words[#words + 1] = word end
  end
  for _, parameter in ipairs(parameters) do
    local name, given = parameter[1], parameter[2]
    local part, of = name:match "^(%l+)%.(.+)$"
    local ms, problem
    if part == "cost" then
      add("COST", of, given)
    elseif part == "by" then
      add("BY", of, given)
    elseif name == "cost" then
      add("COST", given)
    elseif name == "id" then
      add("ID", given)
    elseif name == "prio" then
      add("PRIO", given)
    elseif name == "wait" or name == "ttl" then
      ms, problem = milliseconds(name, given)
      if not ms then return nil, problem end
      if name == "ttl" then add("TTL", ms) elseif ms ~= "0" then add("BLOCK", ms) end
    elseif name == "deny" then
      deny = given:find "^[45]%d%d$" and tonumber(given)
      if not deny then return nil, "deny is a status from 400 to 599" end
    else
      return nil, unknown(name, PARAMETERS)
    end
  end
  return words, deny
end

--- "2, input=900" as parameters.
local function costs(text, list)
  for part in text:gmatch "[^,%s]+" do
    local limit, n = part:match "^([^=]+)=(.*)$"
    list[#list + 1] = limit and { "cost." .. limit, n } or { "cost", part }
  end
end

local function from_fields(fields)
  local list = {}
  if fields["x-neap-cost"] then costs(fields["x-neap-cost"], list) end
  for _, name in ipairs(PARAMETERS) do
    local given = name ~= "cost" and fields["x-neap-" .. name]
    if given then list[#list + 1] = { name, given } end
  end
  return list
end

--- What a request asks: its words and status, or nil and what is wrong.
local function asked(request)
  local policy, behind = (request.rest or ""):match "^([^/]*)(.*)$"
  policy = uri.decode(policy)
  if policy == "" then policy = request.fields["x-neap-policy"] end
  if not policy then return nil, "no policy is named, in the path or in X-Neap-Policy" end
  local in_query = request.rest and request.rest ~= "" and behind == ""
  local parameters = in_query and uri.query(request.query)
  if in_query and not parameters then return nil, "the query is malformed" end
  return acquire_words(policy, parameters or from_fields(request.fields))
end

-- ---- what is answered -------------------------------------------------------------------------

--- RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10): a limit's name, its
--- quota q in a window of w seconds, what remains r, and for what bound, in how many seconds t.
local function rate_fields(account, now, bound, retry_s)
  local policies, states = {}, {}
  for i, limit in ipairs(account.limits) do
    local available = account:level(i, now)
    if available then
      local rule = limit.value
      local window = (rule.per_ns or 0) / 1e9
      policies[#policies + 1] = ('"%s";q=%d%s'):format(limit.name, min(rule.amount or 0, DIGITS),
        window >= 1 and window % 1 == 0 and (";w=%d"):format(window) or "")
      states[#states + 1] = ('"%s";r=%d%s'):format(limit.name,
        min(max(floor(available), 0), DIGITS),
        limit.name == bound and retry_s and (";t=%d"):format(retry_s) or "")
    end
  end
  return concat(policies, ", "), concat(states, ", ")
end

local function body_of(word, lease, waited_ms, retry_ms, bound)
  return object {
    { "verdict", value(word) }, { "lease", lease and value(lease) or "null" },
    { "waited_ms", value(waited_ms) }, { "retry_ms", value(retry_ms) }, { "bound", value(bound) },
  } .. "\n"
end

--- A voice for the desk: says a verdict to this request.
local function voice(http, request, deny)
  local desk = http.worker.desk
  return function (account)
    return function (word, lease, waited_ms, retry_ms, bound)
      local granted, draining = word == "GRANTED", word == "SHED" and bound == "drain"
      local fields = {
        { "X-Neap-Verdict", word }, { "X-Neap-Waited-Ms", ("%d"):format(waited_ms) },
      }
      local function add(name, text) fields[#fields + 1] = { name, text } end
      if lease then add("X-Neap-Lease", lease) end
      if bound ~= "" then add("X-Neap-Bound", bound) end
      -- 0 is "when a lease comes back"; a full queue does not say: whole seconds, and never none
      local retry_s = word == "RETRY" and max(ceil(retry_ms / 1000), 1)
        or word == "SHED" and 1 or nil
      if retry_s then add("Retry-After", ("%d"):format(retry_s)) end
      if word == "RETRY" and retry_ms > 0 then add("Retry-After-Ms", ("%d"):format(retry_ms)) end
      local policies, states = rate_fields(account, desk.clock(), bound, retry_s)
      if policies ~= "" then
        add("RateLimit-Policy", policies)
        add("RateLimit", states)
      end
      local status = granted and 200 or deny or draining and DRAINING or DENIED
      http:respond(request, status, "application/json",
        body_of(word, lease, waited_ms, retry_ms, bound), fields)
    end
  end
end

--- Answer a check, with any verb: a proxy asks with that of the call.
---@param http neap.Http
---@param request neap.HttpRequest
function check.run(http, request)
  local words, deny = asked(request)
  if not words then return http:say(request, 400, deny) end
  local err = http.worker.desk:check(request.client, words, voice(http, request, deny))
  if err then http:fail(request, err) end
end

-- ---- giving back ------------------------------------------------------------------------------

--- The words that NEAP.RELEASE would have: /v1/release/LEASE?outcome=fail&used.input=812.
---@param request neap.HttpRequest
---@return string[]?
---@return string? problem
function check.release_words(request)
  local words = { request.rest }
  for _, text in ipairs { request.query or "", request.body } do
    local parameters = uri.query(text)
    if not parameters then return nil, "the query is malformed" end
    for _, parameter in ipairs(parameters) do
      local name, given = parameter[1], parameter[2]
      local limit = name:match "^used%.(.+)$"
      if limit then
        words[#words + 1], words[#words + 2], words[#words + 3] = "USED", limit, given
      elseif name == "outcome" and OUTCOMES[given] then
        words[#words + 1] = OUTCOMES[given]
      elseif name == "outcome" then
        return nil, "an outcome is ok, fail or ignore"
      elseif REPORTS[name] then
        words[#words + 1], words[#words + 2] = REPORTS[name], given
      else
        return nil, unknown(name, { "outcome", "used", "status", "retry_after", "latency_us" })
      end
    end
  end
  return words
end

return check
