--- Leases: permits that callers hold, by name.
---
--- A lease ends when it is released, when its time is up, or when the connection it was granted to
--- is gone, unless it was detached; whichever comes first gives back what it holds. Any connection
--- may release it, since client pools do not come back with the same one. An ID makes it findable
--- by the caller who lost the reply: the same ID gets the same lease, not a second one.
---
--- One that is booked begins later. Ended before that it is as if it had never been.
---
--- There are so many at once: by connection, so that one that leaks them harms itself alone, and in
--- all. They are a list, too, the eldest first.
local ffi = require "ffi"
local C = require "neap.engine"

local bit = require "bit"

local next, pairs, setmetatable, tonumber = next, pairs, setmetatable, tonumber
local function nobody() end

local OF_CLIENT_MAX = 10000
local DETACHED_MAX = 100000
local BOOKED_MAX = 4096       -- each is looked at when one is undone

---@class neap.Lease
---@field name string
---@field account neap.Account
---@field request ffi.cdata*  struct neap_request: what was granted
---@field at ffi.cdata*       ns: when it was granted
---@field client integer?     dies with it; nil: detached
---@field ticket integer      of the sleep that ends it
---@field ends ffi.cdata*     ns: when that is
---@field id string?
---@field keys table<string, string|integer>?  whom it is for, by scope
---@field view table?         its account as it was when it was granted, if that is another now
---@field booking ffi.cdata*? struct neap_booking: it begins at `at`, or began then
---@field after neap.Lease?   the next younger one, and
---@field before neap.Lease?  the next elder

---@class neap.Leases
---@field count integer
---@field ended fun(account: neap.Account)  told of each that ended, when it has given back
---@field expired integer  ever
---@field orphaned integer  ended with their connection, ever
---@field killed integer    ended by hand, ever
---@field refused integer   not let be, for there were as many as may be, ever
---@field booked integer    that were booked, those that have begun among them
---@field detached integer
---@field eldest neap.Lease?
---@field youngest neap.Lease?
local leases = {}
leases.__index = leases

local used_t, int64 = ffi.typeof "int64_t[8]", ffi.typeof "int64_t"

---@param engine ffi.cdata*
---@param secret ffi.cdata*  struct neap_keys: names are drawn under its secret
---@return neap.Leases
function leases.new(engine, secret)
  return setmetatable({
    engine = engine, secret = secret, drawn = 0, count = 0, expired = 0, orphaned = 0,
    by_name = {}, by_ticket = {}, by_client = {}, by_id = {}, ended = nobody,
    killed = 0, refused = 0, booked = 0, detached = 0, held = {},
    max = { of_client = OF_CLIENT_MAX, detached = DETACHED_MAX, booked = BOOKED_MAX },
  }, leases)
end

--- A name that nobody can guess who was not told.
local function draw(self)
  repeat
    self.drawn = self.drawn + 1
    local text = ("lease %d"):format(self.drawn)
    local name = bit.tohex(C.neap_keys_hash(self.secret, text, #text))
    if not self.by_name[name] then return name end
  until false
end

local function file_under(index, key, lease)
  local set = index[key]
  if not set then
    set = {}
    index[key] = set
  end
  set[lease] = true
end

local function take_from(index, key, lease)
  local set = index[key]
  if not set then return end
  set[lease] = nil
  if next(set) == nil then index[key] = nil end
end

--- Under what an ID is kept: IDs are the account's own.
---@return string
function leases.id_key(account, id) return (account.ids or account.name) .. "\0" .. id end

local id_key = leases.id_key

--- The lease an ID stands for, if it is out.
---@return neap.Lease?
function leases:find(account, id) return self.by_id[id_key(account, id)] end

--- The caller's connection answers for it from now on.
---@param lease neap.Lease
---@param client integer?  nil: nobody's does
function leases:hold(lease, client)
  local held, before = self.held, lease.client
  if before then
    take_from(self.by_client, before, lease)
    held[before] = held[before] > 1 and held[before] - 1 or nil
  else
    self.detached = self.detached - 1
  end
  lease.client = client
  if client then
    file_under(self.by_client, client, lease)
    held[client] = (held[client] or 0) + 1
  else
    self.detached = self.detached + 1
  end
end

--- Are there as many as may be? Then what to say.
---@param client integer?  nil: one that is detached
---@param booked boolean?
---@return string? err
function leases:full(client, booked)
  local max, err = self.max, nil
  if client and (self.held[client] or 0) >= max.of_client then
    err = ("ERR this connection holds %d leases, the most there may be; release some"):format(
      max.of_client)
  elseif not client and self.detached >= max.detached then
    err = ("ERR %d leases are detached, the most there may be; release some"):format(max.detached)
  elseif booked and self.booked >= max.booked then
    err = ("ERR %d leases are booked, the most there may be; try again later"):format(max.booked)
  end
  if err then self.refused = self.refused + 1 end
  return err
end

local function append(self, lease)
  local last = self.youngest
  lease.before, self.youngest = last, lease
  if last then last.after = lease else self.eldest = lease end
end

local function remove(self, lease)
  local before, after = lease.before, lease.after
  if before then before.after = after else self.eldest = after end
  if after then after.before = before else self.youngest = before end
end

--- A lease for what was just granted. Its end takes a place in the engine, so the engine's bound
--- on waiters is one on leases, too.
---@param account neap.Account
---@param terms { request: ffi.cdata*, at: ffi.cdata*, ttl_ns: number, client: integer?,
---  id: string?, booking: ffi.cdata*?, keys: table<string, string>?, name: string? }
---@param now ffi.cdata*
---@return neap.Lease?  nil: no place is free
function leases:grant(account, terms, now)
  local booking = terms.booking
  local ends = (booking and terms.at or now) + int64(terms.ttl_ns)
  local ticket = tonumber(C.neap_engine_sleep(self.engine, ends, now))
  if ticket == 0 then return nil end
  local lease = {
    name = terms.name or draw(self), account = account, request = terms.request, at = terms.at,
    id = terms.id, ticket = ticket, ends = ends, booking = booking, keys = terms.keys,
  }
  append(self, lease)
  self.detached = self.detached + 1   -- until it is held
  if booking then self.booked = self.booked + 1 end
  self.by_name[lease.name], self.by_ticket[ticket] = lease, lease
  if lease.id then self.by_id[id_key(account, lease.id)] = lease end
  self:hold(lease, terms.client)
  account.leases, self.count = account.leases + 1, self.count + 1
  return lease
end

--- A booked one that has not begun: then it never was.
local function undone(self, lease, now)
  local booking = lease.booking
  if not booking then return false end
  self.booked = self.booked - 1
  return C.neap_engine_unbook(self.engine, booking, now) == 1
end

--- Forget it, and give back what it holds.
---@param lease neap.Lease
---@param outcome integer
---@param at ffi.cdata*  when the call began
---@param now ffi.cdata*
local function finish(self, lease, outcome, at, now)
  self:hold(lease, nil)
  self.detached = self.detached - 1
  remove(self, lease)
  self.by_name[lease.name], self.by_ticket[lease.ticket] = nil, nil
  if lease.id then self.by_id[id_key(lease.account, lease.id)] = nil end
  lease.account.leases, self.count = lease.account.leases - 1, self.count - 1
  C.neap_engine_cancel(self.engine, lease.ticket, now)
  if not undone(self, lease, now) then
    C.neap_engine_give(self.engine, lease.request, outcome, at, now)
  end
  self.ended(lease.account)
end

--- Give back by name. `used` says what limits were really charged, by their numbers from 1.
---@param name string
---@param outcome integer
---@param used table<integer, integer>?
---@param took_ns integer?  how long the call took, when that is known and less than the lease did
---@param now ffi.cdata*
---@return neap.Lease?  nil: no such lease, any more
function leases:release(name, outcome, used, took_ns, now)
  local lease = self.by_name[name]
  if not lease then return nil end
  if used and not (lease.booking and now < lease.at) then
    local cost = used_t(lease.request.cost)
    for i, n in pairs(used) do cost[i - 1] = n end
    C.neap_engine_settle(self.engine, lease.request, cost, lease.at, now)
    ffi.copy(lease.request.cost, cost, ffi.sizeof(cost))
  end
  local at, began = lease.at, took_ns and now - int64(took_ns) or lease.at
  if began > at then
    if lease.account.live then lease.account.live:began_later(at, began) end
    at = began
  end
  finish(self, lease, outcome, at, now)
  return lease
end

--- Let it end later, or sooner.
---@param name string
---@param ns number  from now, or, of one that is booked, from when it begins
---@return neap.Lease?  nil: no such lease, any more
---@return string? err  there is no place in the engine
function leases:renew(name, ns, now)
  local lease = self.by_name[name]
  if not lease then return nil end
  local ends = (lease.at > now and lease.at or now) + int64(ns)
  local ticket = tonumber(C.neap_engine_sleep(self.engine, ends, now))
  if ticket == 0 then return nil, "ERR all places of the engine are taken; try again later" end
  self.by_ticket[lease.ticket] = nil
  C.neap_engine_cancel(self.engine, lease.ticket, now)
  lease.ticket, lease.ends = ticket, ends
  self.by_ticket[ticket] = lease
  return lease
end

--- End it by hand: nothing is known of the call.
---@param name string
---@return neap.Lease?
function leases:kill(name, now)
  local lease = self.by_name[name]
  if not lease then return nil end
  self.killed = self.killed + 1
  finish(self, lease, C.NEAP_IGNORE, lease.at, now)
  return lease
end

--- A sleep ended: was it a lease's? Then its time is up.
---@param ticket integer
---@return neap.Lease?  it was this one's
function leases:came_due(ticket, now)
  local lease = self.by_ticket[ticket]
  if not lease then return nil end
  local account = lease.account
  self.expired, account.expired = self.expired + 1, account.expired + 1
  finish(self, lease, C.NEAP_IGNORE, lease.at, now)
  return lease
end

--- A connection is gone, and its leases with it.
---@param client integer
function leases:orphan(client, now)
  local set = self.by_client[client]
  if not set then return end
  for lease in pairs(set) do
    self.orphaned = self.orphaned + 1
    finish(self, lease, C.NEAP_IGNORE, lease.at, now)
  end
end

return leases
