--- Downstream: what calls go to, as a world has it. Work comes over the wire, may meet its own
--- limit (429) or find no place, waits for a slot, takes its time, may fail, and goes back over the
--- wire; whether anybody still waits for it, it does not know.
---
---     send --> GOES --> its limit --> line for a slot --> RUNS --> RETURNS --> answered
---
--- Each piece of work is an index, with a timer of its own in the world's wheel: 2 i + 1.
local ffi = require "ffi"
local C = require "neap.engine"
local dice = require "neap.sim.dice"

local error, ipairs, tonumber = error, ipairs, tonumber
local ceil, huge = math.ceil, math.huge

local downstream = {}

-- What work does until its timer.
local GOES, RUNS, RETURNS = 0, 1, 2

-- How it went.
downstream.FINE, downstream.BROKEN, downstream.THROTTLED = 0, 1, 2
local FINE, BROKEN, THROTTLED = downstream.FINE, downstream.BROKEN, downstream.THROTTLED

local works_t = ffi.typeof [[struct {
  double at;                // when its own limit let it in; -1: it was not asked
  double again;             // Retry-After, whole seconds in ns
  int32_t call, turn, doing, how, next;
}[?] ]]
local state_t = ffi.typeof [[struct {
  int32_t works, room, free;           // used so far; how many there is room for; a list, -1: empty
  int32_t in_flight, busy;             // here; slots in use
  int32_t first, last, queued;         // who waits for a slot
}]]

-- What holds by time, as arrivals have rates by time.
local function value_at(pieces, at)
  local value = pieces.rate or 0
  for i = 1, #pieces do
    if pieces[i].from <= at then value = pieces[i].rate end
  end
  return value
end

local function simple(pieces)
  return pieces and #pieces == 1 and { rate = pieces[1].rate } or pieces
end

---@class neap.sim.Downstream
---@field begin fun(wheel: ffi.cdata*, limit: neap.sim.Gate?, change: integer)   all anew; timers
---  from `change` on say that there may be other slots
---@field change fun()
---@field send fun(call: integer, turn: integer)
---@field timer fun(work: integer)

--- Make one.
---@param model neap.sim.Model
---@param clock ffi.cdata*   has the instant in 'now'
---@param streams { wire: ffi.cdata*, service: ffi.cdata*, failures: ffi.cdata* }
---@param most integer       so much work at once
---@param answered fun(call: integer, turn: integer, how: integer, retry_ns: number)
---@return neap.sim.Downstream
function downstream.new(model, clock, streams, most, answered)
  local d = state_t()
  local wheel, limit, works
  local slots, fail = simple(model.slots), simple(model.fail)
  local places, per_call_ns = model.places or huge, model.per_call_ns or 0
  local wire = model.wire and dice.draw(model.wire, streams.wire)
  local service = model.service and dice.draw(model.service, streams.service)
  local failures = streams.failures

  local function grow()
    if d.room >= most then error("sim: more than 2^20 calls at once downstream", 0) end
    local wider = works_t(d.room * 2)
    ffi.copy(wider, works, ffi.sizeof(works))
    works, d.room = wider, d.room * 2
  end

  local function new_work()
    local w = d.free
    if w >= 0 then
      d.free = works[w].next
      return w
    end
    if d.works == d.room then grow() end
    d.works = d.works + 1
    return d.works - 1
  end

  local function over(w)
    local work = works[w]
    local call, turn, how, again = work.call, work.turn, work.how, work.again
    work.next, d.free = d.free, w
    answered(call, turn, how, again)
  end

  local function send_back(w)
    d.in_flight = d.in_flight - 1
    if not wire then return over(w) end
    works[w].doing = RETURNS
    C.neap_wheel_set(wheel, 2 * w + 1, clock.now + wire())
  end

  local function serve(w)
    d.busy = d.busy + 1
    local took = service and service() or 0
    if per_call_ns > 0 then took = took + per_call_ns * d.in_flight end
    works[w].doing = RUNS
    C.neap_wheel_set(wheel, 2 * w + 1, clock.now + took)
  end

  local function arrive(w)
    local work, now = works[w], clock.now
    d.in_flight = d.in_flight + 1
    work.how, work.again, work.at = FINE, 0, -1
    if limit then
      local at = tonumber(C.neap_all_take(limit.all, limit.cost, now, nil))
      if at > now then
        work.how, work.again = THROTTLED, at < 2 ^ 59 and ceil((at - now) / 1e9) * 1e9 or 0
        return send_back(w)
      end
      work.at = now
    end
    if slots and (d.queued > 0 or d.busy >= value_at(slots, now)) then
      if d.queued >= places then
        work.how = BROKEN
        return send_back(w)
      end
      if d.queued == 0 then d.first = w else works[d.last].next = w end
      d.last, d.queued = w, d.queued + 1
      return
    end
    serve(w)
  end

  --- Those in line, as far as there are slots.
  local function serve_line()
    while d.queued > 0 and d.busy < value_at(slots, clock.now) do
      local first = d.first
      d.first, d.queued = works[first].next, d.queued - 1
      serve(first)
    end
  end

  local function served(w)
    local work, now = works[w], clock.now
    d.busy = d.busy - 1
    serve_line()
    if fail and C.neap_random_unit(failures) < value_at(fail, now) then work.how = BROKEN end
    if limit and limit.holds and work.at >= 0 then
      C.neap_all_give(limit.all, limit.cost, C.NEAP_SUCCESS, work.at, now)
    end
    send_back(w)
  end

  local function send(call, turn)
    local w = new_work()
    local work = works[w]
    work.call, work.turn = call, turn
    if not wire then return arrive(w) end
    work.doing = GOES
    C.neap_wheel_set(wheel, 2 * w + 1, clock.now + wire())
  end

  local function timer(w)
    local doing = works[w].doing
    if doing == RUNS then
      served(w)
    elseif doing == GOES then
      arrive(w)
    else
      over(w)
    end
  end

  local function begin(new_wheel, new_limit, change)
    ffi.fill(d, ffi.sizeof(d))
    d.room, d.free, wheel, limit = 1024, -1, new_wheel, new_limit
    works = works_t(d.room)
    for k, piece in ipairs(slots or {}) do
      if piece.from > 0 then C.neap_wheel_set(wheel, change + k - 1, piece.from) end
    end
  end

  return { begin = begin, send = send, timer = timer, change = serve_line }
end

return downstream
