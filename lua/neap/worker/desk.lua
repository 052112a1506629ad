--- The desk: who asks for a permit over the wire, who waits for one, and what is answered.
---
--- Every answer about a permit is a verdict of five elements, the same in RESP2 and RESP3:
---
---     GRANTED | RETRY | NEVER | SHED   lease or nil   waited ms   retry after ms   what bound
---
--- RETRY is "not now", with the earliest time that could be (0: not known, some lease must come
--- back first); NEVER is a cost above a capacity; SHED is a full queue or a worker going down.
--- These are answers. Errors are for words that make no sense, and then nothing has happened.
---
--- A caller that waits is parked: the server reads no further command of it and the engine holds
--- its place under a ticket. Its hanging up cancels the ticket, unless another connection waits
--- for the same ID; a grant that finds nobody there any more is undone.
local ffi = require "ffi"
local C = require "neap.engine"
local leases = require "neap.worker.leases"
local tail = require "neap.worker.tail"

local ipairs, pairs, setmetatable, tonumber = ipairs, pairs, setmetatable, tonumber
local int64, max, min = ffi.typeof "int64_t", math.max, math.min
local remove = table.remove

local GRANTED, WAITING, NEVER = C.NEAP_GRANTED, C.NEAP_WAITING, C.NEAP_NEVER
local CANCELLED, WOKEN, QUEUE_FULL = C.NEAP_CANCELLED, C.NEAP_WOKEN, C.NEAP_QUEUE_FULL
local OUTCOMES = { OK = C.NEAP_SUCCESS, FAIL = C.NEAP_FAILURE, IGNORE = C.NEAP_IGNORE }
local KEY_BYTES = 1024

local id_key = leases.id_key
local request_t = ffi.typeof "struct neap_request"
local request, answer = request_t(), ffi.new "struct neap_answer"
local nothing = ffi.new "int64_t[8]"

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
  return setmetatable({
    nothing = no_limit, server = server, engine = engine, accounts = accounts, clock = clock,
    events = events, leases = leases.new(engine, secret),
    by_ticket = {}, by_client = {}, by_id = {},   -- parked
    voices = {}, shed = 0, undone = 0, granted = 0, draining = false,
  }, desk)
end

-- ---- replies ----------------------------------------------------------------------------------

local function fail(self, client, text)
  C.neap_reply_error(C.neap_server_reply(self.server, client), text, #text)
end

---@alias neap.Voice fun(word: string, lease: string?, waited_ms: integer, retry_ms: integer,
---  bound: string)

local function verdict(self, client, word, lease, waited_ms, retry_ms, bound)
  local say = self.voices[client]
  if say then
    self.voices[client] = nil
    return say(word, lease, waited_ms, retry_ms, bound)
  end
  local reply = C.neap_server_reply(self.server, client)
  C.neap_reply_array(reply, 5)
  C.neap_reply_bulk(reply, word, #word)
  if lease then C.neap_reply_bulk(reply, lease, #lease) else C.neap_reply_null(reply) end
  C.neap_reply_integer(reply, waited_ms)
  C.neap_reply_integer(reply, retry_ms)
  C.neap_reply_bulk(reply, bound, #bound)
end

--- From now to an instant, in whole ms: up, so that whoever waits so long does not come early.
local function until_ms(at, now)
  if at >= C.neap_on_give then return 0 end
  return tonumber((at - now + 999999) / 1000000)
end

local function since_ms(since, at) return max(0, tonumber((at - since) / 1000000)) end

local function bound_name(account, term) return account.bound[term] or "" end

-- ---- asking -----------------------------------------------------------------------------------

--- Each limit is charged 1 unless told otherwise.
local function ones(account)
  for i = 0, 7 do request.cost[i] = i < #account.limits and 1 or 0 end
  return request.cost
end

--- What events name an account by: of keys there is no end, so they are the worker's own.
local function policy_of(account) return account.counts and account.name or "-" end

--- Answer all who ask together: usually one, more when several sent the same ID.
local function tell(self, party, word, lease, waited_ms, retry_ms, bound)
  if word == "SHED" and #party.clients > 0 then
    self.shed = self.shed + 1
    self.events:emit(policy_of(party.account), "shed", { bound = bound }, #party.clients)
  end
  party.account:tell(word, bound, #party.clients)
  for _, client in ipairs(party.clients) do
    verdict(self, client, word, lease, waited_ms, retry_ms, bound)
  end
end

--- Undo a grant that cannot be handed over: nothing was spent.
local function undo(self, party, at, now)
  C.neap_engine_settle(self.engine, party.request, nothing, at, now)
end

--- Hand over what the engine granted at instant `at`, with a lease if there is to be one.
local function grant(self, party, at, now)
  local name
  if party.ttl_ns then
    local lease = self.leases:grant(party.account, {
      request = party.request, at = at, id = party.id, ttl_ns = party.ttl_ns,
      client = not party.detach and party.clients[#party.clients] or nil,   -- who asked last
    }, now)
    if not lease then
      undo(self, party, at, now)
      return tell(self, party, "SHED", nil, since_ms(party.since, now), -1, "queue")
    end
    name = lease.name
  end
  self.granted = self.granted + 1
  tell(self, party, "GRANTED", name, since_ms(party.since, at), -1, "")
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
  wait_with(self, party, client)
end

--- Nobody can join it any more.
local function seal(self, party)
  if party.sealed then return end
  party.sealed = true
  if party.id then self.by_id[id_key(party.account, party.id)] = nil end
  party.account.waiting = party.account.waiting - 1
end

local function deadline(options, now)
  if not options.block then return now end
  if options.block == 0 then return C.neap_never end
  return now + int64(options.block) * 1000000
end

local function peek(self, client, account, now)
  C.neap_engine_peek(self.engine, request, now, answer)
  local status, bound = answer.status, bound_name(account, answer.bound)
  if status == GRANTED then return verdict(self, client, "GRANTED", nil, 0, -1, "") end
  if status == NEVER then return verdict(self, client, "NEVER", nil, 0, -1, bound) end
  return verdict(self, client, "RETRY", nil, 0, until_ms(answer.at, now), bound)
end

--- One who asked with an ID before, and waits, or has a lease: the same again.
local function asked_before(self, client, account, options)
  local lease = self.leases:find(account, options.id)
  if lease then
    -- the caller came back by another connection; a detached lease stays so
    if lease.client then self.leases:hold(lease, not options.detach and client or nil) end
    verdict(self, client, "GRANTED", lease.name, 0, -1, "")
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

--- Ask the engine, for a policy or a key alike. `leased`: a grant comes with a lease.
local function ask(self, client, account, options, leased)
  local now = self.clock()
  request.all, request.deadline = account.all, deadline(options, now)
  if options.peek then return peek(self, client, account, now) end
  if options.id and asked_before(self, client, account, options) then return end
  local party = {
    account = account, request = request_t(request), clients = { client }, since = now,
    id = options.id, detach = options.detach,
    ttl_ns = leased and (options.ttl and options.ttl * 1e6 or account.ttl_ns) or nil,
  }
  if self.draining then return tell(self, party, "SHED", nil, 0, -1, "drain") end
  local failed = C.neap_engine_acquire(self.engine, request, now, answer) ~= C.NEAP_OK
  local status, at, bound = answer.status, answer.at, bound_name(account, answer.bound)
  if failed or status == QUEUE_FULL then
    tell(self, party, "SHED", nil, 0, -1, "queue")
  elseif status == GRANTED then
    grant(self, party, at, now)
  elseif status == WAITING then
    park(self, party, tonumber(answer.ticket))
  elseif status == NEVER then
    tell(self, party, "NEVER", nil, 0, -1, bound)
  else
    tell(self, party, "RETRY", nil, 0, until_ms(at, now), bound)
  end
end

-- ---- what comes back from the engine, and who goes --------------------------------------------

--- When could they go now? For those who waited in vain.
local function retry_ms(self, party, now)
  C.neap_engine_peek(self.engine, party.request, now, answer)
  return answer.status == NEVER and -1 or until_ms(answer.at, now)
end

--- A ticket has ended.
---@param done ffi.cdata*  struct neap_completion
---@param now ffi.cdata*
function desk:completed(done, now)
  local ticket, status, at = tonumber(done.ticket), done.status, done.at
  local party = self.by_ticket[ticket]
  if not party then
    local lease = status == WOKEN and self.leases:came_due(ticket, now)
    if lease then
      self.events:emit(policy_of(lease.account), "expired", { held_ms = since_ms(lease.at, now) })
    end
    return
  end
  self.by_ticket[ticket] = nil
  seal(self, party)
  for _, client in ipairs(party.clients) do
    self.by_client[client] = nil
    C.neap_server_resume(self.server, client)
  end
  if status == GRANTED and #party.clients == 0 then
    self.undone = self.undone + 1
    undo(self, party, at, now)
  elseif status == GRANTED then
    party.account.waited = party.account.waited + #party.clients
    grant(self, party, at, now)
  elseif status == NEVER then
    tell(self, party, "NEVER", nil, since_ms(party.since, at), -1,
      bound_name(party.account, done.bound))
  elseif status == CANCELLED then
    tell(self, party, "SHED", nil, since_ms(party.since, at), -1, "drain")
  else
    tell(self, party, "RETRY", nil, since_ms(party.since, at), retry_ms(self, party, now),
      "timeout")
  end
end

--- Out of the line, if it waits; the party it waits with goes on without it.
local function step_out(self, client, now)
  local party = self.by_client[client]
  if not party then return nil end
  self.by_client[client] = nil
  for i, one in ipairs(party.clients) do
    if one == client then
      remove(party.clients, i)
      break
    end
  end
  if #party.clients == 0 then
    seal(self, party)
    C.neap_engine_cancel(self.engine, party.ticket, now)
  end
  return party
end

--- A client is gone: out of the line, and its leases end.
---@param client integer
function desk:closed(client)
  local now = self.clock()
  step_out(self, client, now)
  self.voices[client] = nil
  self.leases:orphan(client, now)
end

--- Let a parked caller go, as if its time were up.
---@param client integer
---@return boolean  whether it waited
function desk:unblock(client)
  local now = self.clock()
  local party = step_out(self, client, now)
  if not party then return false end
  C.neap_server_resume(self.server, client)
  party.account:tell("RETRY", "timeout", 1)
  verdict(self, client, "RETRY", nil, since_ms(party.since, now), retry_ms(self, party, now),
    "timeout")
  return true
end

local function waiting_of(self)
  local n = 0
  for _ in pairs(self.by_client) do n = n + 1 end
  return n
end

--- Grant nothing more, and tell those who wait.
function desk:drain()
  local now = self.clock()
  self.draining = true
  self.events:emit("-", "drain", { waiting = waiting_of(self), leases = self.leases.count })
  for ticket in pairs(self.by_ticket) do C.neap_engine_cancel(self.engine, ticket, now) end
end

-- ---- commands ---------------------------------------------------------------------------------

function desk:acquire(client, words)
  local account, err = self.accounts:policy(words[1])
  if not account then return fail(self, client, err) end
  local options
  options, err = tail.acquire(words, 2, account, ones(account))
  if not options then return fail(self, client, err) end
  ask(self, client, account, options, account.leased or options.id ~= nil)
end

--- The same for one who does not speak RESP: the verdict goes to `say`, now or when it is known,
--- unless the client is gone by then. A lease is detached: who asks so does not stay.
---@param client integer
---@param words string[]
---@param say fun(account: neap.Account): neap.Voice
---@return string? err  and nothing has happened
function desk:check(client, words, say)
  local account, err = self.accounts:policy(words[1])
  if not account then return err end
  local options
  options, err = tail.acquire(words, 2, account, ones(account))
  if not options then return err end
  options.detach = true
  self.voices[client] = say(account)
  ask(self, client, account, options, account.leased or options.id ~= nil)
end

--- Does the engine grant what nothing limits?
---@return boolean
function desk:works()
  local probe = request_t { all = self.nothing, deadline = 0 }
  C.neap_engine_try(self.engine, probe, self.clock(), answer)
  return answer.status == GRANTED
end

--- Give a lease back, on behalf of one who does not speak RESP.
---@param words string[]
---@return boolean? found  nil: `err`
---@return string? err
function desk:give_back(words)
  local lease = self.leases.by_name[words[1]]
  local options, err = tail.release(words, 2, lease and lease.account)
  if not options then return nil, err end
  return self.leases:release(words[1], OUTCOMES[options.outcome or "OK"], options.used,
    self.clock()) ~= nil
end

function desk:limit(client, words)
  if #words[1] > KEY_BYTES then
    return fail(self, client, ("ERR a key has up to %d bytes, got %d"):format(KEY_BYTES, #words[1]))
  end
  -- read the options first: what is wrong there must not make a key
  request.cost[0] = 1
  for i = 1, 7 do request.cost[i] = 0 end
  local options, err = tail.limit(words, 3, request.cost)
  if not options then return fail(self, client, err) end
  local account
  account, err = self.accounts:key(self.engine, words[1], words[2], self.clock())
  if not account then return fail(self, client, err) end
  ask(self, client, account, options, false)
end

function desk:release(client, words)
  local found, err = self:give_back(words)
  if err then return fail(self, client, err) end
  C.neap_reply_integer(C.neap_server_reply(self.server, client), found and 1 or 0)
end

function desk:list(client, words)
  local names = self.accounts:list(words[1])
  local reply = C.neap_server_reply(self.server, client)
  C.neap_reply_array(reply, #names)
  for _, name in ipairs(names) do C.neap_reply_bulk(reply, name, #name) end
end

--- One policy as a map: what is free, who waits, what is out. -1: no bound.
function desk:snapshot(client, words)
  local account, err = self.accounts:policy(words[1])
  if not account then return fail(self, client, err) end
  local now = self.clock()
  C.neap_engine_advance(self.engine, now)
  local reply = C.neap_server_reply(self.server, client)
  local function text(s) C.neap_reply_bulk(reply, s, #s) end
  local function field(name, n)
    text(name)
    C.neap_reply_integer(reply, n and min(n, 2 ^ 53) or -1)
  end
  C.neap_reply_map(reply, account.doc and 5 or 4)
  text "policy"
  text(account.name)
  if account.doc then
    text "doc"
    text(account.doc)
  end
  field("waiting", account.waiting)
  field("leases", account.leases)
  text "limits"
  C.neap_reply_array(reply, #account.limits)
  for i, limit in ipairs(account.limits) do
    local available, capacity = account:level(i, now)
    C.neap_reply_map(reply, 4)
    text "name"
    text(limit.name)
    text "limit"
    text(limit.text)
    field("available", available)
    field("capacity", capacity)
  end
end

return desk
