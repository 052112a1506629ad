--- The desk: who asks for a permit over the wire, who waits for one, and what is answered.
---
--- A caller that waits is parked: the server reads no further command of it and the engine holds
--- its place under a ticket. Its hanging up cancels the ticket, unless another connection waits
--- for the same ID; a grant that finds nobody there any more is undone.
local ffi = require "ffi"
local C = require "neap.engine"
local alarms = require "neap.worker.alarms"
local leases = require "neap.worker.leases"
local parked = require "neap.worker.parked"
local tail = require "neap.worker.tail"
local verdicts = require "neap.worker.verdicts"

local ipairs, pairs, setmetatable, tonumber = ipairs, pairs, setmetatable, tonumber
local int64, max = ffi.typeof "int64_t", math.max

local GRANTED, WAITING, NEVER = C.NEAP_GRANTED, C.NEAP_WAITING, C.NEAP_NEVER
local CANCELLED, WOKEN, QUEUE_FULL = C.NEAP_CANCELLED, C.NEAP_WOKEN, C.NEAP_QUEUE_FULL
local SHED = C.NEAP_SHED
local DRAIN_MS = 1000   -- then another worker may be there

local id_key = leases.id_key
local fail, since_ms, until_ms, verdict = verdicts.fail, verdicts.since_ms, verdicts.until_ms,
  verdicts.say
local request_t = ffi.typeof "struct neap_request"
local request, answer = request_t(), ffi.new "struct neap_answer"
local nothing = ffi.new "int64_t[8]"
local COSTS, REQUEST = ffi.sizeof(nothing), ffi.sizeof(request)

---@class neap.Desk
---@field server ffi.cdata*
---@field engine ffi.cdata*
---@field accounts neap.Accounts
---@field leases neap.Leases
---@field shed integer      ever
---@field undone integer    grants that met nobody, ever
---@field voices table<integer, neap.Voice>  of those who wait for a verdict in another tongue
local desk = {}
desk.__index = desk
for name, method in pairs(parked) do desk[name] = method end

---@param server ffi.cdata*
---@param engine ffi.cdata*
---@param accounts neap.Accounts
---@param secret ffi.cdata*   struct neap_keys
---@param clock fun(): ffi.cdata*  ns
---@param events neap.WorkerEvents
---@return neap.Desk
function desk.new(server, engine, accounts, secret, clock, events)
  local no_limit = ffi.new "struct neap_all"
  C.neap_all_init(no_limit, ffi.new "struct neap_term[1]", 0)
  local self = setmetatable({
    nothing = no_limit, server = server, engine = engine, accounts = accounts, clock = clock,
    events = events, leases = leases.new(engine, secret),
    by_ticket = {}, by_client = {}, by_id = {},   -- parked
    alarms = {},   -- accounts, by the ticket of what wakes us for their sake
    ends = {},     -- parties, by the ticket of what ends a wait that the engine does not end
    voices = {}, shed = 0, undone = 0, asked = 0, granted = 0, draining = false,
  }, desk)
  self.leases.ended = function (account) self:look_at(account) end
  return self
end

--- What happened to a policy is told, now and when time alone brings it about.
---@param account neap.Account
function desk:look_at(account) alarms.look_at(self, account) end

--- An error, which is all that happens.
function desk:fail(client, text) fail(self, client, text) end

-- ---- asking -----------------------------------------------------------------------------------

--- Each limit is charged 1 unless told otherwise.
local function ones(account)
  ffi.copy(request.cost, account.ones, COSTS)
  return request.cost
end

--- Tell of an event: of a policy, or, of keys, for of these there is no end, as the worker's own.
local function emit(self, account, event, fields, n)
  if account.live then return account.live:emit(event, fields, n) end
  self.events:emit("-", event, fields, n)
end

--- No loop: one that is left at once keeps what is around it from being compiled.
local function tell_each(self, clients, i, word, lease, waited_ms, retry_ms, bound)
  if not clients[i] then return end
  verdict(self, clients[i], word, lease, waited_ms, retry_ms, bound)
  if clients[i + 1] then
    return tell_each(self, clients, i + 1, word, lease, waited_ms, retry_ms, bound)
  end
end

--- Answer all who ask together: usually one, more when several sent the same ID.
local function tell(self, party, word, lease, waited_ms, retry_ms, bound)
  if word == "SHED" and #party.clients > 0 then
    self.shed = self.shed + 1
    emit(self, party.account, "shed", { bound = bound }, #party.clients)
  end
  party.account:tell(word, bound, #party.clients)
  tell_each(self, party.clients, 1, word, lease, waited_ms, retry_ms, bound)
end

--- Undo a grant that meets nobody: nothing was spent.
local function undo(self, party, at, now)
  if party.booking then return C.neap_engine_unbook(self.engine, party.booking, now) end
  C.neap_engine_settle(self.engine, party.request, nothing, at, now)
end

--- Remember who it was.
local function count_keys(party)
  for scope, name in pairs(party.keys) do
    local top = party.account.tops[scope]
    if top then top:add(name) end
  end
end

--- Hand over what the engine granted at instant `at`, with a lease if there is to be one.
local function grant(self, party, at, now)
  local name
  local ms = party.booking and until_ms(at, now) or since_ms(party.since, at)
  if party.ttl_ns then
    local lease = self.leases:grant(party.account, {
      request = party.request, at = at, id = party.id, ttl_ns = party.ttl_ns,
      keys = party.keys,
      client = not party.detach and party.clients[#party.clients] or nil,   -- who asked last
      booking = party.booking,
    }, now)
    if not lease then
      undo(self, party, at, now)
      return tell(self, party, "SHED", nil, since_ms(party.since, now), -1, "queue")
    end
    name = lease.name
  end
  self.granted = self.granted + 1
  if party.keys then count_keys(party) end
  tell(self, party, "GRANTED", name, ms, -1, "")
end

local function wait_with(self, party, client)
  party.clients[#party.clients + 1] = client
  self.by_client[client] = party
  C.neap_server_park(self.server, client)
end

local function park(self, party, ticket)
  local client = party.clients[1]
  party.ticket, party.clients = ticket, {}
  self.by_ticket[ticket] = party
  if party.id then self.by_id[id_key(party.account, party.id)] = party end
  party.account.waiting = party.account.waiting + 1
  if party.aside then party.account.live.aside = party.account.live.aside + 1 end
  wait_with(self, party, client)
end

--- Nobody can join it any more.
function desk:seal(party)
  if party.sealed then return end
  party.sealed = true
  if party.id then self.by_id[id_key(party.account, party.id)] = nil end
  party.account.waiting = party.account.waiting - 1
  if party.aside then party.account.live.aside = party.account.live.aside - 1 end
end

--- Until when one waits: as it says, and no longer than its policy's queue lets anybody wait.
local function deadline(account, options, now)
  if not options.block then return now end
  local policy = account.live
  local most = policy and policy.timeout_ns and now + int64(policy.timeout_ns) or C.neap_never
  if options.block == 0 then return most end
  local at = now + int64(options.block) * 1000000
  return at < most and at or most
end

local function peek(self, client, now, names)
  C.neap_engine_peek(self.engine, request, now, answer)
  local status, bound = answer.status, names[answer.bound] or ""
  if status == GRANTED then return verdict(self, client, "GRANTED", nil, 0, -1, "") end
  if status == NEVER then return verdict(self, client, "NEVER", nil, 0, -1, bound) end
  return verdict(self, client, status == SHED and "SHED" or "RETRY", nil, 0,
    until_ms(answer.at, now), bound)
end

--- One who asked with an ID before, and waits, or has a lease: the same again.
local function asked_before(self, client, account, options)
  local lease = self.leases:find(account, options.id)
  if lease then
    -- the caller came back by another connection; a detached lease stays so
    if lease.client then self.leases:hold(lease, not options.detach and client or nil) end
    local ms = lease.booking and max(0, until_ms(lease.at, self.clock())) or 0
    if ms > 0 and not options.books then
      verdict(self, client, "RETRY", nil, 0, ms, "booked")
    else
      verdict(self, client, "GRANTED", lease.name, ms, -1, "")
    end
    return true
  end
  local party = self.by_id[id_key(account, options.id)]
  if not party then return false end
  if options.block then
    party.detach = party.detach or options.detach
    wait_with(self, party, client)
  else
    verdict(self, client, "RETRY", nil, 0, 0, "queue")
  end
  return true
end

--- The request is for these terms, keys, and place in line.
---@return table<integer, string> names   what terms are called
---@return table<string, string>? keys    of scopes
---@return neap.Limiter? variant
local function address(account, options)
  if not (options.by or account.queues) then
    request.all, request.queue = account.all, nil
    return account.bound
  end
  local variant, keys = account.live:enter(request, options.by)
  request.priority = options.priority or 0
  return variant.bound, keys, variant
end

--- The request, for keeps. (Compiled code can copy memory, but not make a struct of another.)
local function kept()
  local copy = request_t()
  ffi.copy(copy, request, REQUEST)
  return copy
end

--- Is there no place for it in the queue? Whom only its own key holds up does not wait there.
local function is_shed(policy, party, variant, now)
  if policy:sheds(request.priority) then return true end
  if not policy:stand_aside(request, variant, now) then return false end
  party.aside, party.request.queue = true, nil
  return request.deadline > now and policy.aside >= policy.queue.places
end

--- What would be asked of the engine: filled in, used and read before anybody else can run.
---@param account neap.Account
---@param options neap.AcquireOptions
---@return ffi.cdata*                   request
---@return ffi.cdata*                   answer
---@return table<integer, string>
function desk:peek(account, options)
  local names = address(account, options)
  C.neap_engine_peek(self.engine, request, self.clock(), answer)
  return request, answer, names
end

--- Ask the engine. Answers whether that failed; the answer is in `answer`.
local function ask_engine(self, party, options, now)
  if not options.books then
    return C.neap_engine_acquire(self.engine, request, now, answer) ~= C.NEAP_OK
  end
  local booking = C.neap_engine_book(self.engine, party.request,
    now + int64(options.max_wait) * 1000000, now, answer)
  if booking ~= nil then party.booking = booking end
  return false
end

--- Ask for a policy or a key alike. `leased`: a grant comes with a lease.
---@return string? err  and nothing has happened
local function ask(self, client, account, options, leased)
  local now = self.clock()
  local names, keys, variant = address(account, options)
  request.deadline = deadline(account, options, now)
  if options.peek then return peek(self, client, now, names) end
  if options.id and asked_before(self, client, account, options) then return end
  if leased then
    local err = self.leases:full(not options.detach and client or nil, options.books)
    if err then return err end
  end
  self.asked = self.asked + 1
  local party = {
    account = account, request = kept(), asked = self.asked, clients = { client }, since = now,
    id = options.id, detach = options.detach,
    ttl_ns = leased and (options.ttl and options.ttl * 1e6 or account.ttl_ns) or nil,
  }
  if keys then party.names, party.keys, party.by = names, keys, options.by end
  if self.draining then return tell(self, party, "SHED", nil, 0, DRAIN_MS, "drain") end
  if account.queues and is_shed(account.live, party, variant, now) then
    return tell(self, party, "SHED", nil, 0, -1, "queue")
  end
  local failed = ask_engine(self, party, options, now)
  local status, at = answer.status, answer.at
  if failed or status == QUEUE_FULL then
    tell(self, party, "SHED", nil, 0, -1, "queue")
  elseif status == GRANTED then
    party.request.on = answer.on
    grant(self, party, at, now)
  elseif status == WAITING then
    park(self, party, tonumber(answer.ticket))
  elseif status == NEVER then
    tell(self, party, "NEVER", nil, 0, -1, names[answer.bound] or "")
  else
    local behind = options.books and answer.ahead > 0   -- those who wait have no instant yet
    tell(self, party, status == SHED and "SHED" or "RETRY", nil, 0, until_ms(at, now),
      behind and "queue" or names[answer.bound] or "")
  end
end

-- ---- what comes back from the engine, and who goes --------------------------------------------

--- When could they go now? For those who waited in vain.
function desk:retry_ms(party, now)
  C.neap_engine_peek(self.engine, party.request, now, answer)
  return answer.status == NEVER and -1 or until_ms(answer.at, now)
end

local function bound_of(party, done)
  return (party.names or party.account.bound)[done.bound] or ""
end

--- A ticket has ended.
---@param done ffi.cdata*  struct neap_completion
---@param now ffi.cdata*
function desk:completed(done, now)
  local ticket = tonumber(done.ticket)
  local party = self.by_ticket[ticket]
  if not party then
    if done.status ~= WOKEN then return end
    local lease = self.leases:came_due(ticket, now)
    if lease then
      return emit(self, lease.account, "expired", { held_ms = since_ms(lease.at, now) })
    end
    if self.ends[ticket] then return self:give_up(ticket, done, now) end
    local account = self.alarms[ticket]
    if not account then return end
    self.alarms[ticket], account.alarm = nil, nil
    return self:look_at(account)
  end
  self.by_ticket[ticket] = nil
  self:ended(party, done, now)
end

--- A wait has ended, for all who share it.
---@param party neap.Party
---@param done ffi.cdata*  struct neap_completion, or a struct neap_answer that says as much
---@param now ffi.cdata*
function desk:ended(party, done, now)
  local status, at = done.status, done.at
  self:seal(party)
  for _, client in ipairs(party.clients) do
    self.by_client[client] = nil
    C.neap_server_resume(self.server, client)
  end
  if status == GRANTED and #party.clients == 0 then
    self.undone = self.undone + 1
    party.request.on = done.on
    undo(self, party, at, now)
  elseif status == GRANTED then
    party.account.waited = party.account.waited + #party.clients
    party.request.on = done.on
    grant(self, party, at, now)
  elseif status == NEVER then
    tell(self, party, "NEVER", nil, since_ms(party.since, at), -1, bound_of(party, done))
  elseif status == SHED then
    tell(self, party, "SHED", nil, since_ms(party.since, at), self:retry_ms(party, now),
      bound_of(party, done))
  elseif status == QUEUE_FULL then   -- another has its place
    tell(self, party, "SHED", nil, since_ms(party.since, at), -1, "queue")
  elseif status == CANCELLED then
    tell(self, party, "SHED", nil, since_ms(party.since, at), party.gone and -1 or DRAIN_MS,
      party.gone or "drain")
  else
    tell(self, party, "RETRY", nil, since_ms(party.since, at), self:retry_ms(party, now),
      "timeout")
  end
end

-- ---- commands ---------------------------------------------------------------------------------

--- Who is asked, and what for; nil, and the error to reply.
---@return neap.Account?
---@return neap.AcquireOptions|string
function desk:read(words, grammar)
  local account, err = self.accounts:policy(words[1])
  if not account then return nil, err end
  local options, fine
  options, err = (grammar or tail.acquire)(words, 2, account, ones(account))
  if not options then return nil, err end
  if account.estimates or account.told then
    fine, err = account:charge(options)
    if not fine then return nil, err end
  end
  return account, options
end

--- Ask, and say so if that makes no sense.
---@param client integer
---@param account neap.Account
---@param options neap.AcquireOptions
---@param leased boolean
function desk:ask(client, account, options, leased)
  local err = ask(self, client, account, options, leased)
  if err then fail(self, client, err) end
end

function desk:acquire(client, words)
  local account, options = self:read(words)
  if not account then return fail(self, client, options) end
  self:ask(client, account, options, account.leased or options.id ~= nil)
end

function desk:reserve(client, words)
  local account, options = self:read(words, tail.reserve)
  if not account then return fail(self, client, options) end
  self:ask(client, account, options, true)
end

--- The same for one who does not speak RESP: the verdict goes to `say`, now or when it is known,
--- unless the client is gone by then. A lease is detached: who asks so does not stay.
---@param client integer
---@param words string[]
---@param say fun(account: neap.Account): neap.Voice
---@return string? err  and nothing has happened
function desk:check(client, words, say)
  local account, options = self:read(words)
  if not account then return options end
  options.detach = true
  self.voices[client] = say(account)
  local err = ask(self, client, account, options, account.leased or options.id ~= nil)
  if err then self.voices[client] = nil end
  return err
end

--- Does the engine grant what nothing limits?
---@return boolean
function desk:works()
  local probe = request_t { all = self.nothing, deadline = 0 }
  C.neap_engine_try(self.engine, probe, self.clock(), answer)
  return answer.status == GRANTED
end

--- What a call costs that is no policy's, to be changed in place.
---@return ffi.cdata*  int64_t[8]: one of the first
function desk:one()
  ffi.fill(request.cost, COSTS)
  request.cost[0] = 1
  return request.cost
end

return desk
