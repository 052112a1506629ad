--- A crowd: who waits and who goes when, without anything that makes it fast.
---
--- Everybody is in one list, by arrival. The rules, those of engine/turn.c, line.c and ask.c, are
--- looked up in it for every question:
---
---   Those who ask one limiter for the same kinds of cost, and keys, are a line; its head is the
---   eldest. A head stands before the limit that held it up when it was last asked, and the eldest
---   head there is asked at the instant it was told, when something comes back, and when the one
---   before it is gone.
---   Nobody passes a limit before which somebody stands who arrived before him.
---   At one instant the heads that are to be asked are asked, always the eldest of them; then those
---   whose deadline it is give up, in order of arrival.
---   A head that has gone from one limit to another 8 times is urgent, if nobody older is. Nobody
---   younger takes of a limit what would make it come later. When it was asked and stays, and when
---   it ends, those who stand first before its limits are to be asked.
local leaves = require "spec.model.leaves"

local NEVER, ON_GIVE, max = leaves.NEVER, leaves.ON_GIVE, math.max
local remove = table.remove

local crowd = {}
crowd.__index = crowd

--- What a call asks.
---@class Call
---@field sums { leaf: table, n: integer }[]  in order, n from 1
---@field line string                         names its line

function crowd.new(now)
  return setmetatable({
    now = now, people = {}, arrivals = 0, stands = {}, binds = {}, due = {}, dirty = {}, ended = {},
    wakeups = 0, ends = 0, moves = 0, stays = 0, urgents = 0,
  }, crowd)
end

-- ---- who stands where -------------------------------------------------------------------------

function crowd:is_head(who)
  for _, other in ipairs(self.people) do
    if other.line == who.line then return other == who end
  end
end

function crowd:first_at(leaf)
  for _, who in ipairs(self.people) do
    if self.stands[who.line] == leaf and self:is_head(who) then return who end
  end
end

local function asks(call, leaf)
  for _, sum in ipairs(call.sums) do
    if sum.leaf == leaf then return sum.n end
  end
  return 0
end

--- From when on one who came at `arrival` may have n of a limit of the urgent one's.
function crowd:spared(leaf, n, arrival)
  local urgent = self.urgent
  local own = urgent and urgent.arrival < arrival and asks(urgent, leaf) or 0
  if own == 0 then return self.now end
  local stands = self.stands[urgent.line]
  local goes = self:first_at(stands) == urgent and self.due[stands] or ON_GIVE
  goes = goes < ON_GIVE and max(goes, self.now) or self.now
  if leaf:after(n, own, self.now) <= goes then return self.now end
  local both = leaf:when(n + own, self.now)
  return both > self.now and both < ON_GIVE and both or ON_GIVE
end

--- When could one who came at `arrival` go, and what holds him up?
function crowd:decide(call, arrival)
  local latest, bound = self.now, nil
  for _, sum in ipairs(call.sums) do
    local at = sum.leaf:when(sum.n, self.now)
    local first = self:first_at(sum.leaf)
    if at < NEVER and first and first.arrival < arrival then at = ON_GIVE end
    if at < ON_GIVE then at = max(at, self:spared(sum.leaf, sum.n, arrival)) end
    if at > latest then latest, bound = at, sum.leaf end
  end
  return latest, bound
end

-- ---- what a newcomer is told ------------------------------------------------------------------

local function asks_alone(call) return #call.sums == 1 end

--- The earliest instant for one who would join now, the limit that says so, and how many go first.
function crowd:predict(call, bound)
  local latest, most, line = self.now, 0, call.line
  for _, sum in ipairs(call.sums) do
    local leaf, queued, ahead = sum.leaf, 0, 0
    for _, who in ipairs(self.people) do
      local here, own = self.stands[who.line] == leaf, who.line == line
      if here and asks_alone(who) or own then queued = queued + asks(who, leaf) end
      if here or own or who == self.urgent and self:spared(leaf, sum.n, NEVER) > self.now then
        ahead = ahead + 1
      end
    end
    local at, first = leaf:after(queued, sum.n, self.now), self:first_at(leaf)
    local told = first and (asks_alone(first) or first.line == line)
    local urgent = self.urgent
    if told and urgent and urgent.arrival < first.arrival and asks(urgent, leaf) > 0 then
      told = false   -- for the urgent one's sake, and may hear otherwise
    end
    if told then at = max(at, self.due[leaf]) end
    most = max(most, ahead)
    if at > latest then latest, bound = at, leaf end
  end
  return max(latest, self.now + 1), bound, most
end

local function wait(at, now)
  if at >= ON_GIVE then return nil end
  return at > now and (at - now) / 1e9 or 0
end

--- true; or nil, why, wait_s and the instant, as a limiter's peek answers.
function crowd:peek(call)
  local at, bound = self:decide(call, NEVER)
  if at <= self.now then return true end
  if at == NEVER then return nil, "cost" end
  local ahead
  at, bound, ahead = self:predict(call, bound)
  return nil, ahead > 0 and "line" or bound.word, wait(at, self.now), at
end

function crowd:take(call, waited)
  for _, sum in ipairs(call.sums) do sum.leaf:take(sum.n, self.now, waited) end
end

-- ---- asking -----------------------------------------------------------------------------------

function crowd:mark(leaf)
  for _, other in ipairs(self.dirty) do
    if other == leaf then return end
  end
  self.dirty[#self.dirty + 1] = leaf
  self.wakeups = self.wakeups + 1
end

function crowd:unmark(leaf)
  for i, other in ipairs(self.dirty) do
    if other == leaf then return remove(self.dirty, i) end
  end
end

function crowd:ask_anew(leaf)
  if self:first_at(leaf) then self:mark(leaf) end
end

function crowd:ask_held_up(urgent)
  for _, sum in ipairs(urgent.sums) do
    local is_here = urgent == self.urgent and self.stands[urgent.line] == sum.leaf
    if not is_here then self:ask_anew(sum.leaf) end
  end
end

function crowd:finish(who, how)
  for i, other in ipairs(self.people) do
    if other == who then remove(self.people, i) end
  end
  self.ended[#self.ended + 1] = { who = who, how = how, at = self.now }
  self.ends = self.ends + 1
  if self.urgent == who then
    self.urgent = nil
    self:ask_held_up(who)
  end
end

function crowd:move(who, leaf, at)
  local urgent = self.urgent
  self.stands[who.line] = leaf
  if self:first_at(leaf) == who then
    self.due[leaf] = at
    self:unmark(leaf)   -- it was asked just now
  end
  self.moves, who.moves = self.moves + 1, who.moves + 1
  if who.moves < 8 or urgent and urgent.arrival < who.arrival then return end
  if urgent ~= who then self.urgents = self.urgents + 1 end
  self.urgent = who
  if urgent and urgent ~= who then self:ask_held_up(urgent) end
end

--- Ask the first before a limit. Is there another to be asked, now that it is gone?
function crowd:ask_first(leaf)
  local who = self:first_at(leaf)
  if not who then return false end
  local at, bound = self:decide(who, who.arrival)
  if at <= self.now or at == NEVER then
    if at <= self.now then self:take(who, true) end
    self:finish(who, at == NEVER and "cost" or "granted")
    return true
  elseif bound == leaf then
    self.due[leaf] = at
    self.stays = self.stays + 1
  else
    self:move(who, bound, at)
  end
  if self.urgent == who then self:ask_held_up(who) end
  return bound ~= leaf
end

function crowd:settle_down()
  while self.dirty[1] do
    local eldest, rank
    for _, leaf in ipairs(self.dirty) do
      local first = self:first_at(leaf)
      local its = first and first.arrival or 0
      if not eldest or its < rank then eldest, rank = leaf, its end
    end
    if not self:ask_first(eldest) then self:unmark(eldest) end
  end
end

--- End one who waits, otherwise than by a grant.
function crowd:drop(who, how)
  local leaf = self.stands[who.line]
  local was_first = self:first_at(leaf) == who
  self:finish(who, how)
  if was_first then self:mark(leaf) end
  self:settle_down()
end

-- ---- time -------------------------------------------------------------------------------------

function crowd:timer(who)
  local leaf = self.stands[who.line]
  return self:first_at(leaf) == who and math.min(who.deadline, self.due[leaf]) or who.deadline
end

--- When something is due next.
function crowd:next()
  local next_at = NEVER
  for _, who in ipairs(self.people) do
    local at = self:timer(who)
    if at < ON_GIVE and at < next_at then next_at = at end
  end
  return next_at
end

--- All that is due at this instant.
function crowd:happen()
  local due = {}
  for _, who in ipairs(self.people) do
    local leaf = self.stands[who.line]
    if self:timer(who) <= self.now then
      due[#due + 1] = who
      if self:first_at(leaf) == who and self.due[leaf] <= self.now then self:mark(leaf) end
    end
  end
  self:settle_down()
  local ends = #self.ended
  for _, who in ipairs(due) do
    local waits = false
    for _, other in ipairs(self.people) do waits = waits or other == who end
    if waits and who.deadline <= self.now then self:drop(who, "timeout") end
  end
  for i = ends + 1, #self.ended do   -- what those hear who gave up: as if they asked now
    local e = self.ended[i]
    if e.how == "timeout" then
      local ok, _, wait_s = self:peek(e.who)
      e.wait_s = ok and 0 or wait_s
    end
  end
end

function crowd:advance(now)
  while self:next() <= now do
    self.now = max(self.now, self:next())
    self:happen()
  end
  self.now = now
end

-- ---- coming and going -------------------------------------------------------------------------

--- Wait; what to answer at once was asked before.
function crowd:join(call, deadline, id)
  local at, bound = self:decide(call, NEVER)
  self.arrivals = self.arrivals + 1
  local who = {
    sums = call.sums, line = call.line, deadline = deadline, arrival = self.arrivals, moves = 0,
    id = id, since = self.now, before = #self.people,
  }
  self.people[#self.people + 1] = who
  if self:is_head(who) then
    self.stands[who.line] = bound
    if self:first_at(bound) == who then self.due[bound] = at end
  end
  return who
end

return crowd
