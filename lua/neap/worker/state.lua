--- State that outlives the worker: what was used and who holds what, in a file.
---
---     neap run --state DIR policy.lua    DIR/state.neap: every 5 s if something happened, at exit
---
--- What there is to write is collected a bit with each turn, some 500 keys at a time, while all
--- go on; and a thread puts it on the disk (engine/save.c), beside the old file and then in its
--- place. What changes meanwhile is in the file or not. NEAP.LIMIT, NEAP.SLOT, CL.THROTTLE and GCRA
--- begin anew.
---
--- To begin, the policies of the file are made as they were, and what is written is put into them,
--- as much older as it is: on a machine that was not started anew its clock says how much, or else
--- the time of day, and never less than nothing. Then they are reloaded into those of today
--- (neap.policy.carry): a restart is a reload that took longer. Leases that were detached come back
--- with what time they have left; the others were given back when their connections ended.
---
--- The policy's `start` says whether: "state"; or "empty" or "full". Where there is no file,
--- "state" begins those limits of its own empty that take a minute or longer to fill, for nobody
--- knows what was spent just before; where it is torn, or not ours, all of them. Keys of which
--- nothing is known, and policies that the file does not have, begin as new.
local bit = require "bit"
local cjson = require "cjson"
local ffi = require "ffi"
local C = require "neap.engine"
local key = require "neap.key"
local live = require "neap.policy.live"
local memory = require "neap.policy.memory"
local policy = require "neap.policy"
local reload = require "neap.worker.reload"
local runtime = require "neap.runtime"

local concat, error, huge, ipairs, max, open, pairs = table.concat, error, math.huge, ipairs,
  math.max, io.open, pairs
local pcall, setmetatable, tonumber, tostring = pcall, setmetatable, tonumber, tostring
local coroutine, int64 = coroutine, ffi.typeof "int64_t"

local EVERY_NS = 5e9
local LOOK_NS = 5e6       -- at a thread that writes
local PATIENCE_NS = 10e9  -- with it, at the end
local NAME = "/state.neap"

local request_t = ffi.typeof "struct neap_request"
local text = memory.text

---@class neap.State
---@field worker neap.Worker
---@field path string
---@field due number         ns, of the loop's clock
---@field fine boolean       the last one was written, or there was none yet
---@field at number          seconds since 1970 when one last was; 0: none
---@field failures integer   ever
local state = {}
state.__index = state

-- ---- times ------------------------------------------------------------------------------------

--- Of the machine and of the day.
local function clocks()
  local file = open("/proc/sys/kernel/random/boot_id", "r")
  local boot = file and file:read "*l"
  if file then file:close() end
  return { boot = boot or "", now = text(C.neap_loop_now(nil)), wall = text(os.time()) }
end

--- ns that have passed since then.
---@param was { boot: string, now: string, wall: string }
---@param is { boot: string, now: string, wall: string }
---@return number
function state.passed(was, is)
  if was.boot == is.boot and was.boot ~= "" then
    return max(0, tonumber(is.now) - tonumber(was.now))
  end
  return max(0, tonumber(is.wall) - tonumber(was.wall)) * 1e9
end

-- ---- reading ----------------------------------------------------------------------------------

local function number_of(hex)
  return int64(tonumber(hex:sub(1, 8), 16)) * 4294967296LL + tonumber(hex:sub(9), 16)
end

--- What a file says: { head = …, policies = { { head, words, slides }, … } }.
local function parse(body)
  local saved, at = { policies = {} }, 1
  while at <= #body do
    local line, after = body:match("^([^\n]*)\n()", at)
    if not line then return nil end
    local count, label = line:match "^words (%d+) (.*)$"
    local last = saved.policies[#saved.policies]
    if count then
      after = after + count * 16
      if not last or after > #body + 1 then return nil end
      last.words[#last.words + 1] = { label, body:sub(after - count * 16, after - 1) }
    else
      local ok, one = pcall(cjson.decode, line)
      if not ok then return nil end
      if not saved.head then saved.head = one
      elseif one.slide then last.slides[#last.slides + 1] = one
      else saved.policies[#saved.policies + 1] = { head = one, words = {}, slides = {} } end
    end
    at = after
  end
  return saved.head and saved
end

--- The state in a folder. Keys are known by hashes under its secret, so it is to be read before
--- there are any.
---@param folder string
---@return table? saved    nil: there is none, or `problem`
---@return string? problem
function state.read(folder)
  local path = folder .. NAME
  local file, problem, code = open(path, "rb")
  if not file then return nil, code ~= 2 and problem or nil end
  local all = file:read "*a"
  file:close()
  local hash, size, at = (all or ""):match "^neap%-state 1 (%x+) (%d+)\n()"
  if not hash then return nil, path .. ": it is no state of this version" end
  local body = all:sub(at)
  if #body ~= tonumber(size) or bit.tohex(C.neap_save_hash(body, #body)) ~= hash then
    return nil, path .. ": it is torn"
  end
  local saved = parse(body)
  if not saved then return nil, path .. ": it cannot be read" end
  for i = 0, 15 do key.secret[i] = tonumber(saved.head.secret:sub(2 * i + 1, 2 * i + 2), 16) end
  return saved
end

-- ---- leases -----------------------------------------------------------------------------------

local function write_lease(lease, now)
  local costs, keys = {}, {}
  local names = (lease.view or lease.account).costs
  for i, name in ipairs(names) do
    if lease.request.cost[i - 1] > 0 then costs[name] = text(lease.request.cost[i - 1]) end
  end
  for scope, value in pairs(lease.keys or {}) do
    keys[scope] = memory.hex(key.hash(value, scope, 2))
  end
  return { name = lease.name, id = lease.id, ttl = text(lease.ends - now), costs = costs,
    keys = keys, held = text(now - lease.at), on = memory.hex(lease.request.on) }
end

--- Those that outlive connections.
local function leases_of(desk, account, now)
  local list = {}
  for _, lease in pairs(desk.leases.by_name) do
    if lease.account == account and not lease.client then
      list[#list + 1] = write_lease(lease, now)
    end
  end
  return list
end

--- What a lease holds is out.
local function hold(variant, request, now)
  for i, part in ipairs(variant.terms.parts) do
    local leaf = part.of or part.leaf
    local n = request.cost[part.index] * part.multiplier
    if part.of then
      local c = part.leaf.as.conditional
      n = n * (bit.band(bit.rshift(request.on, i - 1), 1) == 1 and c.on or c.off)
    end
    if part.keyed then
      local table_, hash, seen = leaf.as.keyed, request.key[part.key_index],
        ffi.new "struct neap_limiter"
      if C.neap_keyed_look(table_, hash, now, seen) == C.NEAP_OK
        and seen.kind == C.NEAP_SEMAPHORE and n > 0 then
        local own
        for _, one in ipairs(part.keyed.owned) do if one.hash == hash then own = one[1] end end
        if own then own.as.semaphore.in_use = own.as.semaphore.in_use + n
        else C.neap_keyed_put(table_, hash, seen.as.semaphore.in_use + n, now) end
      end
    elseif leaf.kind == C.NEAP_SEMAPHORE then
      leaf.as.semaphore.in_use = leaf.as.semaphore.in_use + n
    elseif leaf.kind == C.NEAP_ADAPTIVE then
      leaf.as.adaptive.in_use = leaf.as.adaptive.in_use + n
    end
  end
end

--- A lease goes on, with what time it has left.
local function bring_back(desk, account, was, passed, now)
  local old, mask, left = account.live, 0, tonumber(was.ttl) - passed
  if left <= 0 then return end
  for i, scope in ipairs(old.scopes) do
    if was.keys[scope.name] then mask = mask + 2 ^ (i - 1) end
  end
  local variant, request = old:variant(mask), request_t()
  for _, kind in ipairs(variant.terms.keys or {}) do
    request.key[kind.index] = ffi.cast("uint64_t", number_of(was.keys[kind.name]))
  end
  for name, n in pairs(was.costs) do
    if old.index[name] then request.cost[old.index[name] - 1] = tonumber(n) end
  end
  if #old.costs < C.NEAP_COSTS then request.cost[#old.costs] = 1 end
  request.all, request.on = variant.terms.all, ffi.cast("uint64_t", number_of(was.on))
  hold(variant, request, now)
  local at = now - int64(tonumber(was.held) + passed)
  desk.leases:grant(account, { request = request, at = at > 0 and at or int64(0), name = was.name,
    id = was.id, ttl_ns = left }, now)
end

-- ---- beginning --------------------------------------------------------------------------------

--- Put back into an account what there is of its policy. False: there was nothing.
local function restore(worker, account, one, passed)
  local now = worker.clock()
  local tree = policy.parse(one.head.policy, "state")
  local declared = tree and tree.policies[1]
  local old = declared and live.new(declared, {})
  if not old then return false end
  local today = account.live.declared
  memory.read(old, one.head, passed, now)
  for _, words in ipairs(one.words) do memory.put(old, words[1], words[2], passed, now) end
  for _, slide in ipairs(one.slides) do
    memory.slide(old, slide.slide, slide.key, key.hash(slide.key, "key", 2), slide.log, passed, now)
  end
  account:adopt(old)
  for _, lease in ipairs(one.head.leases) do
    bring_back(worker.desk, account, lease, passed, now)
  end
  reload.keep_view(worker.desk.leases, account)
  account:adopt(assert(live.new(today, setmetatable({ from = old },
    { __index = worker.desk.accounts.options }))))
  worker.desk:look_at(account)
  return true
end

--- Begin as each policy's `start` says.
---@param worker neap.Worker
---@param folder string?   nil: state is not kept, and nothing is known of before
---@param saved table?     as state.read gave it
---@param problem string?  why there is none
---@param passed? number   ns, for specs
function state.begin(worker, folder, saved, problem, passed)
  if problem then worker.log:error("state-refused", "reason", problem) end
  local before, by_name = runtime.use(worker.runtime), {}
  for _, one in ipairs(saved and saved.policies or {}) do by_name[one.head.name] = one end
  passed = passed or saved and state.passed(saved.head, clocks()) or 0
  for name, account in pairs(worker.desk.accounts.policies) do
    local start, one = account.live.declared.start or "state", by_name[name]
    if start == "empty" then
      memory.empty(account.live, false, worker.clock())
    elseif start == "state" and folder and (one or not saved)
      and not (one and restore(worker, account, one, passed)) then
      if one then worker.log:error("state-refused", "reason", "it cannot be read", "of", name) end
      memory.empty(account.live, not problem, worker.clock())
    end
  end
  runtime.use(before)
end

-- ---- writing ----------------------------------------------------------------------------------

---@param worker neap.Worker
---@param options { folder: string, every_ns: number? }
---@return neap.State
function state.new(worker, options)
  local self = setmetatable({ worker = worker, path = options.folder .. NAME, failures = 0, at = 0,
    every_ns = options.every_ns or EVERY_NS, fine = true, seen = -1, due = 0 }, state)
  worker.state = self
  return self
end

local function now_of(self) return tonumber(C.neap_loop_now(self.worker.loop)) end

local function commands_of(self)
  local stats = ffi.new "struct neap_server_stats"
  C.neap_server_stats(self.worker.server, stats)
  return tonumber(stats.commands) + self.worker.desk.leases.expired
end

--- The text of one policy, as a file of its own would have it.
local function policy_text(declared)
  return policy.to_json { policies = { declared }, users = {}, listen = { resp = {}, http = {} } }
end

--- All there is, piece by piece, into what is to be written.
local function collect(self, into)
  local worker = self.worker
  local tree, begun = worker.tree, worker.clock()
  local function put(bytes)
    if C.neap_save_put(into, bytes, #bytes) ~= C.NEAP_OK then
      error("there is not enough memory", 0)
    end
  end
  local function rest()
    coroutine.yield()
    if worker.tree ~= tree then error("reloaded", 0) end
  end
  local head, secret = clocks(), {}
  for i = 0, 15 do secret[i + 1] = bit.tohex(key.secret[i], 2) end
  head.secret = concat(secret)
  put(cjson.encode(head) .. "\n")
  for _, name in ipairs(worker.desk.accounts.names) do
    local account = worker.desk.accounts.policies[name]
    local one = memory.write(account.live, begun)
    one.name, one.policy = name, policy_text(account.live.declared)
    one.leases = leases_of(worker.desk, account, begun)
    put(cjson.encode(one) .. "\n")
    for label, what, log in memory.keys(account.live, function () return begun end) do
      if log then
        put(cjson.encode { slide = label, key = what, log = log } .. "\n")
      elseif label ~= "" and #what > 0 then
        put(("words %d %s\n"):format(#what / 16, label) .. what)
      end
      rest()
    end
    rest()
  end
end

local function failed(self, reason)
  self.fine, self.failures = false, self.failures + 1
  self.worker.log:error("state-not-saved", "reason", reason)
  self.worker.events:emit("-", "fault", { state = self.path, reason = reason })
end

local function close(self)
  C.neap_save_close(self.save)
  self.save, self.work = nil, nil
end

local function begin(self)
  self.seen = commands_of(self)
  self.save = C.neap_save_open(self.path)
  if self.save == nil then
    self.save = nil
    return failed(self, "there is not enough memory")
  end
  self.work = coroutine.create(function () collect(self, self.save) end)
end

--- One bit of the work.
local function go_on(self)
  if self.work then
    local before = runtime.use(self.worker.runtime)
    local fine, problem = coroutine.resume(self.work)
    runtime.use(before)
    if not fine then
      close(self)
      if problem == "reloaded" then self.seen = -1 else failed(self, tostring(problem)) end
    elseif coroutine.status(self.work) == "dead" then
      self.work = nil
      if C.neap_save_start(self.save) ~= C.NEAP_OK then
        close(self)
        failed(self, "there is no thread to write it")
      end
    end
  elseif C.neap_save_over(self.save) == 1 then
    local problem = C.neap_save_problem(self.save)
    problem = problem ~= nil and ffi.string(problem) or nil
    close(self)
    if problem then return failed(self, self.path .. ": " .. problem) end
    self.fine, self.at = true, os.time()
  end
end

--- See to what is due. Never waits.
function state:turn()
  local now = now_of(self)
  if self.save then
    go_on(self)
  elseif now >= (self.next_ns or 0) then
    self.next_ns = now + self.every_ns
    if not self.fine or self.seen ~= commands_of(self) then begin(self) end
  end
  self.due = self.work and 0 or self.save and now + LOOK_NS or self.next_ns or huge
end

--- Write it now, and wait for that: there will be no later.
function state:finish()
  local ends = now_of(self) + PATIENCE_NS
  while self.save and now_of(self) < ends do go_on(self) end
  if self.save then return failed(self, "the disk takes too long") end
  begin(self)
  while self.save and now_of(self) < ends do
    go_on(self)
    if self.save and not self.work then C.neap_loop_turn(self.worker.loop, C.neap_loop_now(nil)) end
  end
end

return state
