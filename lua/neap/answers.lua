--- What the engine says about a request, in words; and whoever listens is told.
---
--- Every verb of a limiter ends in one of these: `grant` makes the permit, `refuse` the refusal.
--- When somebody listens (see neap.events) others take their place, which do the same and then
--- tell. They are fields, not locals: a look there is all that compiled code pays for the choice.
local ffi = require "ffi"
local C = require "neap.engine"
local cost = require "neap.cost"
local events = require "neap.events"
local permit = require "neap.permit"
local stats = require "neap.stats"

local ipairs, tonumber, type = ipairs, tonumber, type
local new_permit, about, wanted = permit.new, events.about, events.wanted
local ON_GIVE = C.neap_on_give
local REFUSED, TIMEOUT, SHED = C.NEAP_REFUSED, C.NEAP_TIMEOUT, C.NEAP_SHED
local FULL = C.NEAP_QUEUE_FULL

-- One request and one answer for all: filled, used and read before anybody else can run.
local request = ffi.new "struct neap_request"
local answer = ffi.new "struct neap_answer"

local answers = { request = request, answer = answer }

-- ---- in words ---------------------------------------------------------------------------------

---@return number?  seconds until `at`; nil when no clock can tell
local function wait_until(at, now)
  if at >= ON_GIVE then return nil end
  return at > now and tonumber(at - now) / 1e9 or 0
end

answers.wait_until = wait_until

--- The part that binds, for an index from the engine.
---@param self neap.Limiter
---@param bound integer
---@return neap.Part
function answers.binding(self, bound)
  return self.terms.parts[bound >= 0 and bound + 1 or 1]
end

local binding = answers.binding

--- The refusal in `answer`, as a word and a wait.
---@param self neap.Limiter
---@param now ffi.cdata*
---@return nil
---@return string why
---@return number? wait_s
local function refusal(self, now)
  local status = answer.status
  if status == REFUSED then
    if answer.ahead > 0 then return nil, "line", wait_until(answer.at, now) end
    return nil, binding(self, answer.bound).word, wait_until(answer.at, now)
  elseif status == TIMEOUT then
    return nil, "timeout", wait_until(answer.at, now)
  elseif status == FULL then
    return nil, "queue"
  elseif status == SHED then
    return nil, binding(self, answer.bound).shed, wait_until(answer.at, now)
  end
  local part = binding(self, answer.bound)
  if part.closed or part.keyed and part.keyed:is_closed(request.key[part.key_index]) then
    return nil, "closed"
  end
  return nil, "cost"
end

answers.refusal = refusal

-- ---- telling ----------------------------------------------------------------------------------

local KIND = { timeout = "timeout", cancelled = "cancelled", queue = "overflow" }

--- The keys that a call named.
local function keys_of(self, given, key)
  local kinds = self.terms.keys
  if not kinds then return nil end
  if key ~= nil then return { [kinds[1].name] = key } end
  local keys = {}
  for _, kind in ipairs(kinds) do keys[kind.name] = type(given) == "table" and given[kind.name] end
  return keys
end

--- What a call may have brought about: keys that made room for others, another state of a breaker.
local function tell_more(self)
  for _, part in ipairs(self.terms.keys and wanted.evicted and self.terms.parts or {}) do
    local count = part.keyed and part.keyed:newly_evicted() or 0
    if count > 0 then about("evicted", part.keyed, { count = count }) end
  end
  for _, breaker in ipairs(self.terms.breakers or {}) do breaker:notice() end
end

--- What is told about a call, gathered before anybody is called who could call others.
---@param self neap.Limiter
---@param costs ffi.cdata*
---@param n integer?
---@param given any
---@param key? string|integer
---@return table
function answers.fields(self, costs, n, given, key)
  return { cost = cost.written(self.terms, costs, n), keys = keys_of(self, given, key) }
end

local fields_of = answers.fields

--- A hybrid with guests is not through when the engine is: it tells by itself (see neap.guest).
local function told_grant(self, of, n, at, given, key, waited)
  local held = new_permit(self, of, n, at)
  if wanted.granted and not self.guests then
    local fields = fields_of(self, of.cost, n, given, key)
    fields.waited = waited or 0
    about("granted", self, fields)
  end
  tell_more(self)
  return held
end

local function told_refusal(self, now, n, given, key)
  local _, why, wait = refusal(self, now)
  if not self.guests then
    answers.tell(self, why, wait, fields_of(self, request.cost, n, given, key))
  end
  tell_more(self)
  return nil, why, wait
end

--- Tell of a refusal, if somebody listens.
---@param self neap.Limiter
---@param why string
---@param wait number?
---@param fields table  becomes the event
function answers.tell(self, why, wait, fields)
  fields.why, fields.wait = why, wait
  if why == "queue" then fields.policy = self.room and self.room.overflow or "reject" end
  about(KIND[why] or "refused", self, fields)
end

-- ---- how verbs end ----------------------------------------------------------------------------

--- Granted: `of` at `at`, after `waited` seconds in line.
---@type fun(self: neap.Limiter, of: ffi.cdata*, n: integer?, at: ffi.cdata*, given: any, key: any,
---  waited: number?): neap.Permit
answers.grant = new_permit

--- Refused, as `answer` says.
---@type fun(self: neap.Limiter, now: ffi.cdata*, n: integer?, given: any, key: any): nil, string,
---  number?
answers.refuse = refusal

--- A refusal that the engine had no part in.
---@return nil
---@return string why
function answers.own(self, why, n, given, key)
  stats.refused(self, why)
  if wanted.refused then
    answers.tell(self, why, nil, fields_of(self, request.cost, n, given, key))
  end
  return nil, why
end

--- Somebody stands in line.
---@return table?  what there is to tell about that call, for its end
function answers.waiting(self, now, n, given, key)
  stats.keep_waits(self)
  local listens = wanted.waiting or wanted.timeout or wanted.cancelled or wanted.refused
    or wanted.overflow
  if not listens or self.guests then return nil end
  local fields = fields_of(self, request.cost, n, given, key)
  about("waiting", self, { cost = fields.cost, keys = fields.keys, place = tonumber(answer.ahead),
    wait = wait_until(answer.at, now) })
  return fields
end

--- A wait ended otherwise than by a grant.
---@param fields table?  from `waiting`
---@param waited number  seconds
---@return nil
---@return string why
---@return number? wait_s
function answers.ended(self, why, wait, fields, waited)
  if fields then
    fields.waited = waited
    answers.tell(self, why, wait, fields)
  end
  return nil, why, wait
end

events.on_change(function (listening)
  answers.grant = listening and told_grant or new_permit
  answers.refuse = listening and told_refusal or refusal
end)

return answers
