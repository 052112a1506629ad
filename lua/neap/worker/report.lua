--- What callers report, and what is set by hand: how calls went, backoffs, the breaker.
---
---     NEAP.RELEASE lease [OK|FAIL|IGNORE] [STATUS http] [RETRY-AFTER text] [HEADER name value]…
---     NEAP.REPORT policy  the same of a call that had no lease
---     NEAP.BACKOFF policy [ms [XX|GT|LT] | CLEAR]
---     NEAP.BREAKER policy [OPEN ms | CLOSE | AUTO]
---
--- What a word says of a call counts before what its status does; a status says more than that,
--- too: see neap.policy.feedback.
local C = require "neap.engine"
local notation = require "neap.notation"
local reply = require "neap.worker.reply"
local tail = require "neap.worker.tail"

local ceil, select, tonumber = math.ceil, select, tonumber

local OUTCOMES = { OK = C.NEAP_SUCCESS, FAIL = C.NEAP_FAILURE, IGNORE = C.NEAP_IGNORE,
  success = C.NEAP_SUCCESS, failure = C.NEAP_FAILURE, ignore = C.NEAP_IGNORE }
local MOST_MS = 2 ^ 31   -- 24 days

local report = {}

local function writer(desk, client) return C.neap_server_reply(desk.server, client) end

--- Tell a policy how a call went.
---@param account neap.Account
---@param options neap.ReportOptions
---@return integer outcome
local function hear(account, options)
  local outcome = account.live and account.live:report(options) or "success"
  return OUTCOMES[options.outcome or outcome]
end

--- Give a lease back, and report; for those, too, who do not speak RESP.
---@param desk neap.Desk
---@param words string[]
---@return boolean? found  nil: `err`
---@return string? err
function report.give_back(desk, words)
  local lease = desk.leases.by_name[words[1]]
  local options, err = tail.release(words, 2, lease and (lease.view or lease.account))
  if not options then return nil, err end
  if not lease then return false end
  local outcome = hear(lease.account, options)
  return desk.leases:release(words[1], outcome, options.used,
    options.latency_us and options.latency_us * 1000, desk.clock()) ~= nil
end

---@param desk neap.Desk
---@param client integer
---@param words string[]
function report.release(desk, client, words)
  local found, err = report.give_back(desk, words)
  if err then return desk:fail(client, err) end
  reply.write(writer(desk, client), found and 1 or 0)
end

function report.report(desk, client, words)
  local account, err = desk.accounts:policy(words[1])
  if not account then return desk:fail(client, err) end
  local options
  options, err = tail.report(words, 2)
  if not options then return desk:fail(client, err) end
  local outcome, breaker = hear(account, options), account.live.breaker
  if breaker and outcome == C.NEAP_SUCCESS then
    breaker:success()
  elseif breaker and outcome == C.NEAP_FAILURE then
    breaker:failure()
  end
  desk:look_at(account)
  reply.ok(writer(desk, client))
end

-- ---- by hand ----------------------------------------------------------------------------------

local function milliseconds(word, what)
  local n = word and word:find "^%d+$" and tonumber(word)
  if n and n <= MOST_MS then return n end
  return nil, ("ERR %s needs a whole number from 0 to %.0f, got %s"):format(what, MOST_MS,
    word and "'" .. notation.show(word) .. "'" or "nothing")
end

--- When a window that is on stays as it is: GT never shortens, and is meant when nothing is said.
local STAYS = {
  GT = function (ms, left) return ms <= left end,
  LT = function (ms, left) return ms >= left end,
  XX = function (_, left) return left == 0 end,
}

local function set_window(policy, words)
  local how = (words[3] or "GT"):upper()
  if words[4] or not STAYS[how] then return "ERR BACKOFF takes one of XX, GT and LT" end
  local ms, err = milliseconds(words[2], "BACKOFF")
  if not ms then return err end
  local left = ceil(select(2, policy:backoff_left()) * 1000)
  if STAYS[how](ms, left) then return end
  if ms < left then policy:clear_backoff() end
  if ms > 0 then policy:back_off(ms / 1000) end
end

function report.backoff(desk, client, words)
  local account, err = desk.accounts:policy(words[1])
  if not account then return desk:fail(client, err) end
  local policy = account.live
  if not policy.backoff then
    return desk:fail(client, ("ERR policy '%s' has no backoff"):format(account.name))
  elseif words[2] and words[2]:upper() == "BY" then
    return desk:fail(client, "ERR BACKOFF takes no BY: a policy backs off as a whole")
  elseif words[2] and words[2]:upper() == "CLEAR" and not words[3] then
    policy:clear_backoff()
  elseif words[2] then
    err = set_window(policy, words)
    if err then return desk:fail(client, err) end
  end
  desk:look_at(account)
  reply.write(writer(desk, client), ceil(policy:backoff_left() * 1000))
end

local VERBS = {
  OPEN = function (breaker, words)
    local ms, err = milliseconds(words[3], "OPEN")
    if not ms then return err end
    breaker:open(ms / 1000)
  end,
  CLOSE = function (breaker) breaker:close() end,
  AUTO = function (breaker) breaker:reset() end,
}

function report.breaker(desk, client, words)
  local account, err = desk.accounts:policy(words[1])
  if not account then return desk:fail(client, err) end
  local breaker, verb = account.live.breaker, words[2] and VERBS[words[2]:upper()]
  if not breaker then
    err = ("ERR policy '%s' has no breaker"):format(account.name)
  elseif words[2] and not verb or #words > (verb == VERBS.OPEN and 3 or 2) then
    err = "ERR BREAKER takes OPEN ms, CLOSE or AUTO"
  elseif verb then
    err = verb(breaker, words)
  end
  if err then return desk:fail(client, err) end
  desk:look_at(account)
  reply.write(writer(desk, client), breaker:state())
end

return report
