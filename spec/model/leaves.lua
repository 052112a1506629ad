--- Single limits, slowly: each keeps a plain list of what was taken, and computes anew from it.
---
--- Instants and amounts are whole numbers below 2^53, so nothing is ever rounded but where neap
--- says that it rounds: a rate reads its clock in whole units, 2^shift to a token and one to two
--- per ns; and who waited is charged at the moment the token came, between two nanoseconds.
---
--- A limit answers
---
---     when(n, now)            the first instant at which n go: now, later, ON_GIVE or NEVER
---     take(n, now, waited)    they go; `waited`: for one who stood in line since before
---     after(ahead, n, now)    when n go after `ahead` others, all as early as they can
---     settle(was, used, at, now) and give(n)
---     left(now)               whole tokens
local floor, huge, max, min = math.floor, math.huge, math.max, math.min

local leaves = { NEVER = huge, ON_GIVE = 2 ^ 62 }
local NEVER, ON_GIVE = leaves.NEVER, leaves.ON_GIVE

local function class(word)
  local methods = { word = word, gives = false }
  methods.__index = methods
  return methods
end

-- Exact: all are whole.
local function down(a, b) return (a - a % b) / b end
local function up(a, b) return -down(-a, b) end

-- ---- a rate -----------------------------------------------------------------------------------

-- A bucket that leaks: debt grows with each charge and drains as the clock moves on.
local rate = class "rate"

function rate:set(limit)
  self.amount, self.period, self.burst = limit.amount, limit.per_ns, limit.burst
  self.unit = 1
  while self.amount * self.unit < self.period + floor(self.period * 73741824 / 1e9) do
    self.unit = self.unit * 2
  end
  self.most = self.burst * self.unit
end

function rate:clock(now) return down(now * self.amount * self.unit, self.period) end

function rate:reaches(clock) return up(clock * self.period, self.amount * self.unit) end

--- Units owed when the clock stands here.
function rate:debt(clock)
  local debt, last = 0, 0
  for _, charge in ipairs(self.list) do
    debt = max(0, max(0, debt - (charge.clock - last)) + charge.units)
    last = charge.clock
  end
  return max(0, debt - (clock - last))
end

function rate:charge(clock, units)
  if self:debt(clock) == 0 then self.list = {} end
  self.list[#self.list + 1] = { clock = clock, units = units }
end

function rate:after(ahead, n, now)
  if n > self.burst then return NEVER end
  local clock = self:clock(now)
  local over = self:debt(clock) + (ahead + n) * self.unit - self.most
  return over <= 0 and now or self:reaches(clock + over)
end

function rate:when(n, now) return self:after(0, n, now) end

function rate:take(n, now, waited)
  local units, clock = n * self.unit, self:clock(now)
  if waited and now > 0 then
    local before = self:clock(now - 1)
    local over = self:debt(before) + units - self.most
    if over > 0 then clock = before + over end   -- here it came
  end
  self:charge(clock, units)
end

function rate:settle(was, used, _, now) self:charge(self:clock(now), (used - was) * self.unit) end

function rate:left(now) return down(self.most - self:debt(self:clock(now)), self.unit) end

function rate:change(limit, mode, now)
  local unit, most, was = self.unit, self.most, self:debt(self:clock(now))
  self:set(limit)
  local debt = up(was * self.unit, unit)
  local full = most / unit * self.unit
  local owed = max(0, debt - full)
  local spent = debt - owed
  if mode == "balance" then
    spent = max(0, self.most - (full - spent))
  elseif mode == "scale" then
    spent = up(was * self.most, most)
    owed = max(0, spent - self.most)
  elseif mode == "reset" then
    spent, owed = 0, 0
  end
  self.list = { { clock = self:clock(now), units = min(spent, self.most) + owed } }
end

function rate:fill(n, now)
  self.list = { { clock = self:clock(now), units = self.most - min(n, self.burst) * self.unit } }
end

-- ---- a sliding window -------------------------------------------------------------------------

local window = class "rate"

function window:set(limit) self.limit, self.period = limit.amount, limit.per_ns end

function window:used(now)
  local sum = 0
  for _, grant in ipairs(self.list) do
    if grant.at + self.period > now then sum = sum + grant.n end
  end
  return sum
end

function window:when(n, now)
  if n > self.limit then return NEVER end
  local first = NEVER
  if self:used(now) + n <= self.limit then return now end
  for _, grant in ipairs(self.list) do
    local at = grant.at + self.period
    if at > now and at < first and self:used(at) + n <= self.limit then first = at end
  end
  return first
end

function window:after(ahead, n, now)
  local whole = down(ahead + n - 1, self.limit)
  return self:when(ahead + n - whole * self.limit, now) + whole * self.period
end

function window:take(n, now)
  self.list[#self.list + 1] = { at = now, n = n }
end

function window:settle(was, used, at, now)
  if was == 0 and at + self.period > now then self.list[#self.list + 1] = { at = at, n = used } end
  for i, grant in ipairs(self.list) do
    if was > 0 and grant.at == at and grant.n == was then
      grant.n = used
      if used == 0 then table.remove(self.list, i) end
      return
    end
  end
end

function window:left(now) return self.limit - self:used(now) end

function window:change(limit, mode, now)
  local kept = {}
  for _, grant in ipairs(self.list) do
    if mode == "keep" and grant.at + self.period > now then kept[#kept + 1] = grant end
  end
  self.list = kept
  self:set(limit)
end

-- ---- permits ----------------------------------------------------------------------------------

local permits = class "busy"
permits.gives = true

function permits:set(limit) self.limit, self.overdraw = limit.amount, limit.overdraw end

function permits:out()
  local sum = 0
  for _, n in ipairs(self.list) do sum = sum + n end
  return sum
end

function permits:left() return self.limit - self:out() end

function permits:when(n, now)
  if self.overdraw then return self:left() >= 0 and now or ON_GIVE end
  if n > self.limit then return NEVER end
  return self:left() >= n and now or ON_GIVE
end

function permits:after(ahead, n, now)
  local alone = self:when(n, now)
  if ahead == 0 or alone == NEVER then return alone end
  local needed = self.overdraw and ahead or ahead + n
  return self:left() >= needed and alone or ON_GIVE
end

function permits:take(n) self.list[#self.list + 1] = n end
function permits:settle(was, used) self.list[#self.list + 1] = used - was end
function permits:give(n) self.list[#self.list + 1] = -n end
function permits:change(limit) self.limit = limit.amount end

-- ---- a pause ----------------------------------------------------------------------------------

local pause = class "pause"

function pause:set() self.ends = 0 end
function pause:when(_, now) return max(now, self.ends) end
function pause:after(_, n, now) return self:when(n, now) end
function pause:take() end
function pause:settle() end
function pause:left(now) return self.ends > now and 0 or huge end
function pause:extend(by, now) self.ends = max(self.ends, now + by) end
function pause:clear() self.ends = 0 end

-- -----------------------------------------------------------------------------------------------

local KINDS = { rate = rate, sliding = window, in_flight = permits, pause = pause }

--- One that is new.
---@param limit table  kind, and amount, per_ns, burst or overdraw
function leaves.new(limit)
  local self = setmetatable({ list = {}, kind = limit.kind }, KINDS[limit.kind])
  self:set(limit)
  return self
end

return leaves
