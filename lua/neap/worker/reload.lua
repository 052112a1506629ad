--- Another policy for a worker that serves: all of it or nothing, between two turns.
---
--- What is in the way is found before anything is touched: every policy that changed is made once
--- as if there had been none before it. Then, policy by policy, those who wait leave their lines,
--- what goes on is carried over (neap.policy.carry), and they come back (neap.worker.parked).
--- Leases notice nothing: what they hold is given back to the limiters it was taken from, and those
--- are the same as far as they go on. A policy that only has other hooks is not touched otherwise.
---
--- Users are those of the new file for whoever logs in from then on. Listeners stay as they are.
local ffi = require "ffi"
local C = require "neap.engine"
local diff = require "neap.policy.diff"
local live = require "neap.policy.live"
local rows = require "neap.policy.table"
local runtime = require "neap.runtime"
local users = require "neap.worker.users"

local concat, ipairs, pairs, setmetatable = table.concat, ipairs, pairs, setmetatable

local request_t, COSTS = ffi.typeof "struct neap_request", ffi.sizeof "int64_t[8]"

local reload = {}

--- All of a policy but its hooks, as a text.
local function text_of(declared)
  local plain = setmetatable({ on = {}, estimate = false }, { __index = declared })
  local list = {}
  for i, row in ipairs(rows.of(plain)) do list[i] = concat(row, "\0") end
  return concat(list, "\n")
end

--- Leases keep to the names that costs had when they were granted.
function reload.keep_view(leases, account)
  local view = setmetatable({ index = account.index, costs = account.costs, held = account.held,
    live_then = account.live, estimates = account.estimates }, { __index = account })
  for _, lease in pairs(leases.by_name) do
    if lease.account == account and not lease.view then lease.view = view end
  end
end

--- What is booked is so by the limit as it was. It is undone, and then charged of what is there:
--- who booked comes at the instant that was said, and tokens may be owed meanwhile.
local function unbook(desk, account)
  local list, now = {}, desk.clock()
  for _, lease in pairs(desk.leases.by_name) do
    if lease.account == account and lease.booking then
      local undone = C.neap_engine_unbook(desk.engine, lease.booking, now) == 1
      desk.leases.booked, lease.booking = desk.leases.booked - 1, nil
      if undone then list[#list + 1] = lease end
    end
  end
  return list
end

local function charge(desk, list)
  local now = desk.clock()
  for _, lease in ipairs(list) do
    local nothing = request_t(lease.request)
    ffi.fill(nothing.cost, COSTS)
    C.neap_engine_settle(desk.engine, nothing, lease.request.cost, now, now)
  end
end

local function change(self, account, declared, tell)
  local desk, old, index = self.desk, account.live, account.index
  local waiting = desk:lift(account)
  tell()
  local booked = unbook(desk, account)
  reload.keep_view(desk.leases, account)
  local options = setmetatable({ from = old, waiting = #waiting },
    { __index = desk.accounts.options })
  account:adopt(assert(live.new(declared, options)))
  charge(desk, booked)
  for _, party in ipairs(waiting) do desk:rejoin(party, index) end
  desk:look_at(account)
end

--- The names of limits and scopes that a file has now, policy by policy.
local function carry_over(self, tree, texts, made, tell)
  local books, policies, names = self.desk.accounts, {}, {}
  for i, declared in ipairs(tree.policies) do
    local name = declared.name
    local account = books.policies[name] or made[name]
    if made[name] then
      books.names[#books.names + 1] = name
    elseif texts[name] == text_of(account.live.declared) then
      account.live:renew(declared, books.options.guard)
    else
      change(self, account, declared, tell)
    end
    names[i], policies[name] = name, account
  end
  for name, account in pairs(books.policies) do
    if not policies[name] then
      for _, party in ipairs(self.desk:lift(account)) do self.desk:dismiss(party) end
    end
  end
  books.names, books.policies = names, policies
end

local function same_list(a, b) return concat(a, "\0") == concat(b, "\0") end

--- What of a file takes a restart.
---@param old neap.tree
---@param new neap.tree
---@return string[]
local function restarts(old, new)
  local list = {}
  if not same_list(old.listen.resp, new.listen.resp)
    or not same_list(old.listen.http, new.listen.http) then
    list[#list + 1] = "listen: other addresses take a restart"
  end
  if old.users[1] and not new.users[1] then
    list[#list + 1] = "users: that nobody needs to log in any more takes a restart"
  end
  return list
end

--- All that is new or changes, made as if there had been nothing: what is in the way is known then.
---@return table<string, string>? texts
---@return table<string, neap.Account>|string made
local function prepare(books, tree)
  local texts, made = {}, {}
  for _, declared in ipairs(tree.policies) do
    local name = declared.name
    local account = books.policies[name]
    texts[name] = text_of(declared)
    if not account then
      local new, problem = books:make(declared)
      if not new then return nil, problem end
      made[name] = new
    elseif texts[name] ~= text_of(account.live.declared) then
      local fine, problem = live.new(declared, setmetatable({ guard = false },
        { __index = books.options }))
      if not fine then return nil, problem end
    end
  end
  return texts, made
end

--- Take over another tree.
---@param self neap.Worker
---@param tree neap.tree
---@param tell fun()      tell those whose waits have ended
---@return neap.Change[]? changes
---@return string[]|string message   nil: what is in the way, and nothing happened; else what of it
---  takes a restart
function reload.apply(self, tree, tell)
  local before = runtime.use(self.runtime)
  local texts, made = prepare(self.desk.accounts, tree)
  if not texts then
    runtime.use(before)
    return nil, made
  end
  local old = self.tree
  local changes, later = diff.compare(old, tree), restarts(old, tree)
  C.neap_engine_advance(self.engine, self.clock())
  tell()
  carry_over(self, tree, texts, made, tell)
  if tree.users[1] then
    if not old.users[1] then C.neap_server_guard(self.server) end
    self.floor.users = users.of(tree)
    self.http.users = self.floor.users
  end
  runtime.use(before)
  self.tree = tree
  return changes, later
end

return reload
