--- A world in virtual time: calls that come, a limiter that lets them go, and what they go to.
---
---     arrivals --> call --> the limiter --> wire --> downstream --> wire --> the call ends
---                   ^   try / wait in line           slots, service,          |
---                   |                                failures, its 429        |
---                   +------------- again, after a pause <---------------------+
---
--- The limiter is the shipped one and is asked as a program asks it: neap_engine_acquire, and later
--- _give; who stands in line hears by a completion, at its exact instant. All else that has an
--- instant is a timer of the shipped wheel, one for a call and one for what it has under way
--- downstream, which goes on when the call has given up. The next event is the earlier of the
--- wheel's and the engine's, of one instant the engine's.
---
--- No event makes a table, a closure or a coroutine: records are structs in arrays, a call is its
--- index there, and one function per step is all that compiled code sees. Instants are doubles,
--- exact up to 2^53 ns (104 days).
local ffi = require "ffi"
local C = require "neap.engine"
local arrivals = require "neap.sim.arrivals"
local dice = require "neap.sim.dice"
local downstream = require "neap.sim.downstream"
local gates = require "neap.sim.gates"
local runtime = require "neap.runtime"
local tally = require "neap.sim.tally"

local error, ipairs, tonumber = error, ipairs, tonumber
local floor, huge, max, min = math.floor, math.huge, math.max, math.min
local FINE, THROTTLED = downstream.FINE, downstream.THROTTLED
local GRANTED, WAITING = C.NEAP_GRANTED, C.NEAP_WAITING
local TIMEOUT, SUCCESS, FAILURE = C.NEAP_TIMEOUT, C.NEAP_SUCCESS, C.NEAP_FAILURE

local world = {}

local MOST_CALLS = 2 ^ 20        -- at once
local TIMERS = 2 * MOST_CALLS + 64
local FIRST_SOURCE = 2 * MOST_CALLS   -- the timers of sources come after those of calls and work
local BATCH = 64
local INDEX = 2 ^ 24             -- a ticket is generation * 2^24 + index: see engine/ticket.c
world.LONGEST_NS = 2 ^ 53

-- The streams of a seed, for who wants the same draws.
world.WIRE, world.SERVICE, world.THINK, world.KEYS, world.PAUSES, world.FAILURES = 1, 2, 3, 4, 5, 6
world.ARRIVALS = 7   -- of the first source, and so on
world.SOURCES = 8
world.PIECES = 32   -- of slots

local FIRST_CHANGE = FIRST_SOURCE + world.SOURCES

-- What a call is doing. Its timer, 2 i, says: it takes too long (SENT), the pause is over (PAUSED),
-- the client comes again (AWAY).
local FREE, IN_LINE, SENT, PAUSED, AWAY = 0, 1, 2, 3, 4

local calls_t = ffi.typeof [[struct {
  double born, asked, pause;   // instants; and the pause before this attempt, ns
  int64_t granted_at, ticket;
  int32_t state, tries, key, turn;   // turn: of the attempt, so that late answers are known
  int32_t aside, next;               // aside: it waits in a line that the gate counts
}[?] ]]
local requests_t = ffi.typeof "struct neap_request[?]"
local state_t = ffi.typeof [[struct {
  double now;
  int32_t calls, room, free;   // used so far; how many there is room for; a list, -1: empty
  int32_t in_line;
}]]

--- What a world is made of. Durations are ns.
---@class neap.sim.Model
---@field arrivals neap.sim.Arrivals[]?
---@field closed { clients: integer, think: neap.sim.Distribution }?
---@field gate fun(seed: integer): neap.sim.Gate    a new one
---@field wait_ns number?       at the limiter; 0: not at all; as long as the timeout unless told
---@field timeout_ns number?    of an attempt, from when it asks; none unless told
---@field tries integer?        1 unless told
---@field backoff ffi.cdata*?   struct neap_backoff: the pause before another try; none unless told
---@field obeys boolean?        a pause is at least as long as a Retry-After asked for
---@field budget (fun(keys: integer): neap.sim.Budget)?  whether there is another try
---@field keys neap.sim.Keys?                 whose a call is
---@field wire neap.sim.Distribution?     to the downstream, and back
---@field service neap.sim.Distribution?  how long it takes there; nothing unless told
---@field per_call_ns number?   and more for each call in flight there, this one included
---@field slots neap.sim.Piece[]?   so many at once there, by when; others wait
---@field places integer?       so many others; more are broken at once
---@field fail neap.sim.Piece[]?   the share that is broken, by when it ends
---@field limit (fun(): neap.sim.Gate)?   its own limit: more are answered 429, at once
---@field settle_ns number?     waits and latencies of calls that come before are not kept

---@class neap.sim.Keys
---@field count integer
---@field draw fun(stream: ffi.cdata*): fun(): integer   one of them, from 0

---@class neap.sim.Budget
---@field first fun(key: integer, now: number)            a call begins
---@field take fun(key: integer, now: number): boolean    another try may

---@class neap.sim.World
---@field begin fun(seed: integer, run_ns: number, bins: integer): neap.sim.Tally  all anew
---@field run fun(until_ns: number)         let it go by, from where it is
---@field now fun(): number                 ns
---@field close fun()

--- Make one. It has no time before it is told to begin.
---@param model neap.sim.Model
---@return neap.sim.World
function world.new(model)
  local s = state_t()
  local engine, wheel, gate
  local calls, requests, holders
  local counts, bin_ns, bins
  local sources, budget = {}, nil
  local answer, batch = ffi.new "struct neap_answer", ffi.new("struct neap_completion[?]", BATCH)
  local due = ffi.new "neap_ns[1]"
  local streams = {}
  for i = 1, world.FAILURES + world.SOURCES do streams[i] = dice.stream(0, i) end

  local rt = gates.runtime(s, MOST_CALLS)
  local tries, obeys = model.tries or 1, model.obeys
  local timeout_ns, backoff = model.timeout_ns or huge, model.backoff
  local wait_ns
  local think = model.closed and dice.draw(model.closed.think, streams[world.THINK])
  local key_count = model.keys and model.keys.count or 1
  local pick = model.keys and model.keys.draw(streams[world.KEYS])
  local pauses = streams[world.PAUSES]
  local service   -- below

  -- ---- memory -----------------------------------------------------------------------------------

  local function grow()
    if s.room >= MOST_CALLS then error("sim: more than 2^20 calls at once", 0) end
    local room = s.room * 2
    local wider, more_requests = calls_t(room), requests_t(room)
    ffi.copy(wider, calls, ffi.sizeof(calls))
    ffi.copy(more_requests, requests, ffi.sizeof(requests))
    local more = ffi.new("int32_t[?]", room)
    ffi.copy(more, holders, ffi.sizeof(holders))
    calls, requests, holders = wider, more_requests, more
    s.room = room
  end

  local function new_call()
    local i = s.free
    if i >= 0 then
      s.free = calls[i].next
      return i
    end
    if s.calls == s.room then grow() end
    s.calls = s.calls + 1
    return s.calls - 1
  end

  local function count(name_series)
    local bin = floor(s.now / bin_ns)
    if bin > bins then bin = bins end
    name_series[bin] = name_series[bin] + 1
  end

  -- ---- the call ---------------------------------------------------------------------------------

  local offered, granted_by, refused_by, sent_by, good_by, failed_by

  --- It is over.
  local function finish(i, fine)
    local call = calls[i]
    local now = s.now
    if fine then
      counts.good = counts.good + 1
      count(good_by)
      if call.born >= counts.settled then tally.add_latency(counts, now - call.born) end
    else
      counts.failed = counts.failed + 1
      count(failed_by)
    end
    call.turn = call.turn + 1
    if think then
      call.state = AWAY
      C.neap_wheel_set(wheel, 2 * i, now + think())
    else
      call.state, call.next = FREE, s.free
      s.free = i
    end
  end

  --- The limiter let it go, at `at`.
  local function leave(i, at, on)
    local call, now = calls[i], s.now
    counts.granted = counts.granted + 1
    counts.sent = counts.sent + 1
    count(granted_by)
    count(sent_by)
    if call.key < tally.KEYS then counts.key[call.key] = counts.key[call.key] + 1 end
    if call.born >= counts.settled then tally.add_wait(counts, now - call.asked) end
    call.state, call.granted_at = SENT, at
    requests[i].on = on
    if timeout_ns < huge then C.neap_wheel_set(wheel, 2 * i, call.asked + timeout_ns) end
    service.send(i, call.turn)
  end

  --- Ask the limiter. Answers whether it was turned away.
  local function ask(i)
    local call, request, now = calls[i], requests + i, s.now
    call.asked, call.tries = now, call.tries + 1
    counts.asked = counts.asked + 1
    request.all, request.queue = gate.all, gate.queue
    call.aside = 0
    if gate.enter then
      local how = gate.enter(request, call.key)
      if how == gates.REFUSES then
        counts.refused = counts.refused + 1
        count(refused_by)
        return true
      elseif how == gates.ASIDE then
        call.aside = 1
      end
    end
    if wait_ns == 0 then
      C.neap_engine_try(engine, request, now, answer)
    else
      local ends = now + wait_ns
      request.deadline = ends < world.LONGEST_NS and ends or C.neap_never
      if C.neap_engine_acquire(engine, request, now, answer) ~= C.NEAP_OK then
        error("sim: no memory", 0)
      end
    end
    local status = answer.status
    if status == GRANTED then
      leave(i, answer.at, answer.on)
      return false
    elseif status == WAITING then
      call.state, call.ticket = IN_LINE, answer.ticket
      if call.aside == 1 then gate.aside(1) end
      local index = tonumber(answer.ticket) % INDEX
      while index >= s.room do grow() end
      holders[index] = i
      s.in_line = s.in_line + 1
      return false
    end
    if status == TIMEOUT then
      counts.expired = counts.expired + 1
    else
      counts.refused = counts.refused + 1
    end
    count(refused_by)
    return true
  end

  --- The pause before the next try; nil when there is none.
  local function pause_of(i, again)
    local call = calls[i]
    if call.tries >= tries or budget and not budget.take(call.key, s.now) then return nil end
    local pause = 0
    if backoff then
      pause = tonumber(C.neap_backoff_delay(backoff, call.tries - 1, call.pause,
        C.neap_random_unit(pauses)))
      call.pause = pause
    end
    return obeys and max(pause, again) or pause
  end

  --- An attempt has failed: try again, now or later, or be over.
  local function failed(i, again)
    while true do
      local pause = pause_of(i, again)
      if not pause then return finish(i, false) end
      if pause > 0 then
        calls[i].state = PAUSED
        C.neap_wheel_set(wheel, 2 * i, s.now + pause)
        return
      end
      if not ask(i) then return end
      again = 0
    end
  end

  --- What was granted comes back: how 0 to 2 as work says, or -1 when the client gave up.
  local function give(i, how, again)
    local outcome = how == FINE and SUCCESS or FAILURE
    if gate.over then outcome = gate.over(requests + i, how, again, calls[i].granted_at) end
    if gate.holds then
      C.neap_engine_give(engine, requests + i, outcome, calls[i].granted_at, s.now)
    end
    if gate.notice then gate.notice() end
  end

  --- What was under way downstream is answered; the call may have given it up.
  local function answered(i, turn, how, again)
    local call = calls[i]
    if call.turn ~= turn or call.state ~= SENT then return end
    if timeout_ns < huge then C.neap_wheel_cancel(wheel, 2 * i) end
    call.turn = call.turn + 1
    give(i, how, again)
    if how == FINE then return finish(i, true) end
    if how == THROTTLED then
      counts.throttled = counts.throttled + 1
    else
      counts.broken = counts.broken + 1
    end
    failed(i, again)
  end

  --- It took too long: nobody waits for the answer any more.
  local function give_up(i)
    counts.timeouts = counts.timeouts + 1
    calls[i].turn = calls[i].turn + 1
    give(i, -1, 0)
    failed(i, 0)
  end

  local function begin_call(i)
    local call = calls[i]
    counts.offered = counts.offered + 1
    count(offered)
    call.born, call.tries, call.pause = s.now, 0, 0
    if pick then call.key = pick() end
    if budget then budget.first(call.key, s.now) end
    if ask(i) then failed(i, 0) end
  end

  local function new_request(i)
    ffi.copy(requests[i].cost, gate.cost, ffi.sizeof "int64_t[8]")
  end

  -- ---- events -----------------------------------------------------------------------------------

  --- A wait in line is over.
  local function line_over(done)
    local i = holders[tonumber(done.ticket) % INDEX]
    s.in_line = s.in_line - 1
    if calls[i].aside == 1 then gate.aside(-1) end
    counts.events = counts.events + 1
    if done.status == GRANTED then
      counts.waited = counts.waited + 1
      leave(i, done.at, done.on)
      return
    end
    if done.status == TIMEOUT then
      counts.expired = counts.expired + 1
    else
      counts.refused = counts.refused + 1
    end
    count(refused_by)
    failed(i, 0)
  end

  local function drain()
    repeat
      local n = tonumber(C.neap_engine_drain(engine, batch, BATCH))
      for k = 0, n - 1 do line_over(batch[k]) end
    until n < BATCH
  end

  local function call_timer(i)
    local state = calls[i].state
    if state == SENT then return give_up(i) end
    if state == AWAY then return begin_call(i) end
    if ask(i) then failed(i, 0) end
  end

  local function source_timer(id)
    local i = new_call()
    new_request(i)
    calls[i].key = 0
    begin_call(i)
    local next_ns = sources[id - FIRST_SOURCE + 1](s.now)
    if next_ns < huge then C.neap_wheel_set(wheel, id, next_ns) end
  end

  local function run(until_ns)
    local before = runtime.use(rt)
    while true do
      local line = s.in_line > 0 and tonumber(C.neap_engine_next_due(engine)) or huge
      local id = tonumber(C.neap_wheel_pop(wheel, min(until_ns, line - 1), due))
      if id >= 0 then
        s.now = tonumber(due[0])
        counts.events = counts.events + 1
        if id >= FIRST_CHANGE then
          service.change()
        elseif id >= FIRST_SOURCE then
          source_timer(id)
        elseif id % 2 == 1 then
          service.timer((id - 1) / 2)
        else
          call_timer(id / 2)
        end
        if s.in_line > 0 then drain() end
      elseif line <= until_ns then
        s.now = max(line, s.now)
        C.neap_engine_advance(engine, s.now)
        drain()
      else
        break
      end
    end
    s.now = until_ns
    runtime.use(before)
  end

  -- ---- beginning --------------------------------------------------------------------------------

  local function close()
    if not engine then return end
    C.neap_engine_close(engine)
    C.neap_wheel_close(wheel)
    engine, wheel, rt.engine, gate = nil, nil, nil, nil
  end

  local function begin_sources()
    for k, each in ipairs(model.arrivals or {}) do
      sources[k] = arrivals.source(each, streams[world.ARRIVALS + k - 1])
      local at = sources[k](0)
      if at < huge then C.neap_wheel_set(wheel, FIRST_SOURCE + k - 1, at) end
    end
    for _ = 1, model.closed and model.closed.clients or 0 do
      local i = new_call()
      new_request(i)
      calls[i].state, calls[i].key = AWAY, i
      C.neap_wheel_set(wheel, 2 * i, think())
    end
  end

  local function begin(seed, run_ns, number)
    close()
    for i, stream in ipairs(streams) do dice.seed(stream, seed, i) end
    engine, wheel = C.neap_engine_open(MOST_CALLS, 0), C.neap_wheel_open(TIMERS, 0)
    if engine == nil or wheel == nil then error("sim: no memory", 0) end
    rt.engine = engine
    ffi.fill(s, ffi.sizeof(s))
    s.room, s.free = 1024, -1
    calls, requests = calls_t(s.room), requests_t(s.room)
    holders = ffi.new("int32_t[?]", s.room)
    local made = tally.new(run_ns, number)
    counts, bin_ns, bins = made.counts, made.bin_ns, number
    counts.settled = model.settle_ns or 0
    local series = made.series
    offered, granted_by, refused_by = series.offered, series.granted, series.refused
    sent_by, good_by, failed_by = series.sent, series.good, series.failed
    local before = runtime.use(rt)
    gate = model.gate(seed)
    service.begin(wheel, model.limit and model.limit(), FIRST_CHANGE)
    runtime.use(before)
    wait_ns = min(model.wait_ns or timeout_ns, gate.wait_ns or huge)
    budget = model.budget
      and model.budget(max(key_count, model.closed and model.closed.clients or 1))
    begin_sources()
    return made
  end

  service = downstream.new(model, s, { wire = streams[world.WIRE], service = streams[world.SERVICE],
    failures = streams[world.FAILURES] }, MOST_CALLS, answered)

  return { begin = begin, run = run, close = close, now = function () return s.now end }
end

return world
