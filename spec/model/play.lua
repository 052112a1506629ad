--- A play: one world of limiters, as neap has them and as a crowd of people, and steps on both.
--- Whatever they do not agree about is an error, a table with `what`.
local ffi = require "ffi"
local C = require "neap.engine"
local crowd = require "spec.model.crowd"
local leaves = require "spec.model.leaves"
local manual = require "neap.runtime.manual"
local runtime = require "neap.runtime"
local trees = require "spec.model.trees"

local floor, max, min = math.floor, math.max, math.min
local NEVER = leaves.NEVER

local Play = {}
Play.__index = Play

local function differ(what, got, want)
  if got ~= want then
    error({ what = ("%s: %s, not %s"):format(what, tostring(got), tostring(want)) }, 0)
  end
end

--- Begin; so many can wait at once.
---@param world table[]   see spec.model.trees
---@param places integer
local function open(world, places)
  local rt = manual.new { waiters_max = places }
  local self = setmetatable({
    rt = rt, places = places, before = runtime.use(rt), crowd = crowd.new(0), heard = {}, told = {},
    tasks = {}, held = {}, of = {}, granted = 0, calls = 0,
  }, Play)
  rt.report = function (text) error({ what = text }, 0) end
  self.nodes = trees.grow(world)
  for _, node in ipairs(self.nodes) do self.of[node.limiter] = node end
  return self
end

function Play:close() runtime.use(self.before) self.rt.close() end

--- Let everybody run who can.
function Play:run_tasks() self.rt.advance_to(self.rt.now_ns()) end

--- The costs and keys of a step, as this node is given them and as a call.
local function asked(node, step)
  local costs, given, keys = {}, { cost = step.n }, {}
  for _, by in ipairs(node.keys) do keys[by] = step.keys[by] end
  if step.named and node.names[1] then
    costs[false] = step.n
    for _, name in ipairs(node.names) do
      costs[name] = step.named[name]
      given[name] = step.named[name]
    end
  else
    local n = step.n
    if node.limit and node.limit.overdraw and n == 0 then n = 1 end
    given = { cost = n }
    costs = setmetatable({}, { __index = function () return n end })
  end
  if not node.per_key then
    for by, key in pairs(keys) do given[by] = key end
  end
  return given, costs, keys
end

local function verb(node, name, keys, given)
  if node.per_key then return node.limiter[name](node.limiter, keys[node.by], given) end
  return node.limiter[name](node.limiter, given)
end

function Play:remember(permit, node, costs, keys, call, at)
  self.granted = self.granted + 1
  self.held[#self.held + 1] = {
    permit = permit, node = node, costs = costs, keys = keys, call = call, at = at,
  }
end

--- Compare what was heard with what the crowd has to tell.
function Play:compare_ends()
  for i, e in ipairs(self.crowd.ended) do
    local h = self.heard[i]
    if not h then
      error({ what = ("call %d ends at %d as %s, and did not hear; next is %s"):format(
        e.who.id, e.at, e.how, tostring(C.neap_engine_next_due(self.rt.engine))) }, 0)
    end
    differ("who ends " .. i .. "th", h and h.id, e.who.id)
    local name = "call " .. h.id
    differ(name .. " hears", h.how, e.how)
    differ(name .. " hears it at", h.at, e.at)
    if e.how == "timeout" then differ(name .. " could go in", h.wait_s, e.wait_s) end
    if e.how == "granted" then
      self:remember(h.permit, e.who.node, e.who.costs, e.who.keys, e.who.call, e.at)
    end
  end
  differ("ends", #self.heard, #self.crowd.ended)
  self.heard, self.crowd.ended = {}, {}
end

local stats = ffi.new "struct neap_engine_stats"

function Play:compare()
  local engine, c = self.rt.engine, self.crowd
  self:compare_ends()
  differ("check", C.neap_engine_check(engine), 0)
  C.neap_engine_stats(engine, stats)
  differ("waiting", tonumber(stats.waiting), #c.people)
  differ("wake-ups", tonumber(stats.wakeups), c.wakeups)
  for i, node in ipairs(self.nodes) do
    if node.limit then
      differ(("what node %d has"):format(i), node.limiter:available(), node.leaf:left(c.now))
    elseif node.per_key then
      for key, of in pairs(node.leaf) do
        local least = math.huge
        for _, leaf in pairs(of) do least = min(least, leaf:left(c.now)) end
        for j, limit in ipairs(node.per_key) do
          if not of[j] then least = min(least, limit.burst or limit.amount) end
        end
        differ(("what node %d has for %s"):format(i, key), node.limiter:available(key), least)
      end
    end
  end
end

-- ---- the verbs --------------------------------------------------------------------------------

local act = {}

--- What a newcomer is told now, by the crowd.
function Play:tells(node, call)
  if node.closed then return nil, "closed" end
  return self.crowd:peek(call)
end

function act:peek(step, node)
  local given, costs, keys = asked(node, step)
  local ok, why, wait_s = self:tells(node, trees.call(node, costs, keys))
  local got, got_why, got_wait = verb(node, "peek", keys, given)
  differ("peek", got, ok)
  differ("peek says", got_why, why)
  differ("peek says in", got_wait, wait_s)
end

act["try"] = function (self, step, node)
  local given, costs, keys = asked(node, step)
  local call = trees.call(node, costs, keys)
  local ok, why, wait_s = self:tells(node, call)
  local permit, got_why, got_wait = verb(node, "try_acquire", keys, given)
  differ("try", permit ~= nil, ok == true)
  differ("try says", got_why, why)
  differ("try says in", got_wait, wait_s)
  if ok then
    self.crowd:take(call)
    self:remember(permit, node, costs, keys, call, self.crowd.now)
  end
end

--- The ticket that is new in a limiter's line.
local function new_ticket(node, known)
  for ticket in pairs(node.limiter.waiting) do
    if not known[ticket] then return ticket end
  end
end

function act:acquire(step, node)
  local c = self.crowd
  local given, costs, keys = asked(node, step)
  local call, deadline = trees.call(node, costs, keys), NEVER
  self.calls = self.calls + 1
  local id = self.calls
  if step.timeout then
    deadline = c.now + step.timeout
    given.timeout = step.timeout / 1e9
  end
  local known = {}
  for ticket in pairs(node.limiter.waiting) do known[ticket] = true end
  local heard = self.heard
  self.tasks[id] = self.rt.spawn(function ()
    local permit, why, wait_s = verb(node, "acquire", keys, given)
    heard = self.heard
    heard[#heard + 1] = {
      id = id, how = permit and "granted" or why, permit = permit, wait_s = wait_s,
      at = permit and tonumber(permit.at) or tonumber(self.rt.now_ns()),
    }
  end)
  self:run_tasks()
  local ok, why, wait_s, at = self:tells(node, call)
  local who = { id = id, node = node, costs = costs, keys = keys, call = call }
  if not ok and why ~= "closed" and why ~= "cost" then
    if deadline <= c.now or at > deadline and at < leaves.ON_GIVE then
      why = "timeout"
    elseif #c.people >= self.places then
      why = "queue"
    else
      who = c:join(call, deadline, id)
      who.node, who.costs, who.keys, who.call = node, costs, keys, call
      who.ticket = new_ticket(node, known)
      return
    end
  end
  if ok then c:take(call) end
  c.ended[#c.ended + 1] = { who = who, how = ok and "granted" or why, at = c.now, wait_s = wait_s }
end

function act:cancel(step)
  local people = self.crowd.people
  local who = people[floor(step.on * #people) + 1]
  if not who then return end
  self.tasks[who.id]:cancel()
  self:run_tasks()
  self.crowd:drop(who, "cancelled")
end

function Play:held_one(step)
  local i = floor(step.on * #self.held) + 1
  return self.held[i], i
end

function act:give(step)
  local held, i = self:held_one(step)
  if not held then return end
  differ("give", held.permit:give(step.outcome), true)
  differ("give again", held.permit:give(), false)
  self:run_tasks()
  table.remove(self.held, i)
  if not held.node.holds then return end
  for _, sum in ipairs(held.call.sums) do
    if sum.leaf.gives then sum.leaf:give(sum.n) end
  end
  for _, leaf in ipairs(held.call.all) do
    if leaf.gives then self.crowd:ask_anew(leaf) end
  end
  self.crowd:settle_down()
end

--- What a call was charged by a limit.
local function charged(call, leaf)
  for _, sum in ipairs(call.sums) do
    if sum.leaf == leaf then return sum.n end
  end
  return 0
end

function act:settle(step)
  local held = self:held_one(step)
  if not held then return end
  local node, now = held.node, self.crowd.now
  local given, costs = asked(node, step)
  local used = {}
  if step.named and node.names[1] then
    for _, name in ipairs(node.names) do used[name] = given[name] end
    for _, part in ipairs(node.parts) do
      if not part.cost then costs[false] = held.costs[false] end
    end
  else
    used = given.cost
  end
  local before, after = held.call, trees.call(node, costs, held.keys)
  local changes = {}
  for _, leaf in ipairs(after.all) do
    local was, is = charged(before, leaf), charged(after, leaf)
    -- a full log joins what comes late with its neighbour, which is later than a plain list
    if leaf.kind == "sliding" and was == 0 and is > 0 then return end
    if was ~= is then changes[#changes + 1] = { leaf, was, is } end
  end
  differ("settle", held.permit:settle(used), true)
  self:run_tasks()
  for _, change in ipairs(changes) do change[1]:settle(change[2], change[3], held.at, now) end
  held.costs, held.call = costs, after
  for _, leaf in ipairs(after.all) do self.crowd:ask_anew(leaf) end
  self.crowd:settle_down()
end

function act:change(step, node)
  local leaf, limit, now = node.leaf, node.limit, self.crowd.now
  if not limit then return end
  if limit.kind == "pause" then
    if step.n > 1 then
      node.limiter:extend(step.by * 20 / 1e9)
      leaf:extend(step.by * 20, now)
    else
      node.limiter:clear()
      leaf:clear()
    end
  elseif limit.kind == step.limit.kind then
    local mode = limit.kind == "rate" and step.mode or "keep"
    if limit.kind == "sliding" and step.mode == "reset" then mode = "reset" end
    node.limiter:reconfigure(limit.kind == "in_flight" and step.limit.amount
      or trees.told(step.limit), mode)
    leaf:change(step.limit, mode, now)
  elseif limit.kind == "rate" and step.n > 1 then
    node.limiter:refill()
    leaf:fill(math.huge, now)
  elseif limit.kind == "rate" then
    node.limiter:drain()
    leaf:fill(0, now)
    return   -- nobody can go because of that
  else
    return
  end
  self:run_tasks()
  self.crowd:ask_anew(leaf)
  self.crowd:settle_down()
end

--- In the order in which close() sends them away, who waits for a node or what contains it.
function Play:to_close(limiter, list, met)
  local node = self.of[limiter]
  if met[node] or node.closed then return list end
  met[node] = true
  list[#list + 1] = node
  for ticket in pairs(limiter.waiting) do list[#list + 1] = ticket end
  for parent in pairs(limiter.parents) do self:to_close(parent, list, met) end
  return list
end

function act:close(_, node)
  local list = self:to_close(node.limiter, {}, {})
  node.limiter:close()
  self:run_tasks()
  for _, each in ipairs(list) do
    if type(each) == "table" then each.closed = true end
    for _, who in ipairs({ unpack(self.crowd.people) }) do
      if who.ticket == each then self.crowd:drop(who, "closed") end
    end
  end
end

function Play:move_clock(step)
  local c = self.crowd
  local due, to = c:next(), c.now + step.by
  if step.wait == "none" then
    return
  elseif step.wait ~= "some" and step.wait ~= "long" and due < leaves.ON_GIVE then
    to = step.wait == "due" and due or max(c.now, due - 1)
  end
  self.rt.advance_to(to)
  c:advance(to)
end

function Play:step(step)
  self:move_clock(step)
  self:compare_ends()
  local node = self.nodes[floor(step.on * #self.nodes) + 1]
  act[step.verb](self, step, node)
  self:compare()
end

--- Everything comes back, and is there.
function Play:end_well()
  for _ = 1, 1000 do
    while self.held[1] do
      act.give(self, { on = 0 })
      self:compare_ends()
    end
    local due = self.crowd:next()
    if due >= leaves.ON_GIVE then break end
    self.rt.advance_to(due)
    self.crowd:advance(due)
    self:compare_ends()
  end
  self:compare()
  differ("those who wait in the end", #self.crowd.people, 0)
  local now = self.crowd.now + 1e7
  self.rt.advance_to(now)
  self.crowd:advance(now)
  self:compare()
  for i, node in ipairs(self.nodes) do
    local l = node.limiter
    if node.limit then
      local most = node.limit.kind == "in_flight" and l:limit() or l:capacity()
      differ(("what node %d has when all is back"):format(i), l:available(), most)
    end
  end
end

return { open = open, act = act }
