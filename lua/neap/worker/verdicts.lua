--- Verdicts: what is answered to who asks for a permit.
---
--- Every one has five elements, the same in RESP2 and RESP3:
---
---     GRANTED | RETRY | NEVER | SHED   lease or nil   waited ms   retry after ms   what bound
---
--- RETRY is "not now", with the earliest time that could be (0: not known, some lease must come
--- back first); NEVER is a cost above a capacity; SHED is an open breaker, a full queue, no room
--- for another key, or a worker going down. These are answers. Errors are for words that make no
--- sense, and then nothing has happened.
---
--- One who books is told how long it is until his call instead of what he waited; and RETRY with
--- "booked" is for who asks at once, with the ID of such a call, before it is time.
local C = require "neap.engine"

local max, tonumber = math.max, tonumber

local verdicts = {}

function verdicts.fail(self, client, text)
  C.neap_reply_error(C.neap_server_reply(self.server, client), text, #text)
end

---@alias neap.Voice fun(word: string, lease: string?, waited_ms: integer, retry_ms: integer,
---  bound: string)

function verdicts.say(self, client, word, lease, waited_ms, retry_ms, bound)
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
function verdicts.until_ms(at, now)
  if at >= C.neap_on_give then return 0 end
  return tonumber((at - now + 999999) / 1000000)
end

function verdicts.since_ms(since, at) return max(0, tonumber((at - since) / 1000000)) end

return verdicts
