--- Words for what went wrong, and whether trying again makes sense.
---
---     local api = neap.throttle "10/s"
---     local permit, why, wait_s = api:try_acquire()
---     if not permit and neap.errors.of(why).retryable then neap.sleep(wait_s or 1) end
---
--- This is the one place that says what the words mean: README shows this list, and a spec sees to
--- it that no verb answers a word that is not in here. Whatever the word, an answer is one of three
--- things; `decision` says which:
---
---     granted               go
---     retry, after so long  not now: come back then (after 0 s is still not granted), or when
---                           somebody gives a permit back, if nobody can tell
---     never                 waiting is vain
---
--- The last ones are for the caller's own: what a remote call came to, what a loop of tries gave up
--- for. Whoever reports over HTTP finds a status there; a word of one's own counts as "error".
local error, tostring, type = error, tostring, type

---@class neap.ErrorKind
---@field retryable boolean  the same call may succeed later, without anybody changing anything
---@field status integer     of HTTP
---@field means string

local errors = {
  kinds = {},   ---@type table<string, neap.ErrorKind>
  words = {},   ---@type string[]  in the order in which they are explained
}

local function kind(word, advice, status, means)
  errors.words[#errors.words + 1] = word
  errors.kinds[word] = { retryable = advice == "retry", status = status, means = means }
end

-- What limiters answer.
kind("rate", "retry", 429, "tokens have yet to arrive")
kind("busy", "retry", 429, "permits have yet to come back")
kind("line", "retry", 429, "others wait, and go first")
kind("pause", "retry", 429, "nobody leaves for a while")
kind("open", "retry", 503, "a breaker turns calls away")
kind("queue", "retry", 503, "all places to wait are taken")
kind("full", "retry", 503, "no room for another key")
kind("memory", "retry", 503, "no memory for another line; nothing was done")
kind("cost", "stop", 400, "more than there can ever be")
kind("closed", "stop", 503, "it refuses everything")
kind("timeout", "stop", 504, "its time is up, or too short for what it would have to wait")
kind("cancelled", "stop", 499, "somebody cancelled the wait")
-- What others answer.
kind("network", "retry", 503, "the other side cannot be reached")
kind("unavailable", "retry", 503, "the other side, or a place there, is not to be had just now")
kind("max_attempts", "stop", 503, "tried as often as it may be")
kind("max_elapsed", "stop", 504, "tried for as long as it may be")
kind("budget", "stop", 503, "others try again already, as many as may")
kind("progress_timeout", "stop", 504, "nothing moved for too long")
kind("missing_dependency", "stop", 500, "something that was asked for is not installed")
kind("config", "stop", 500, "what was configured cannot work")
kind("error", "stop", 500, "anything else")

--- What a word means; "error" for one that is none of these.
---
---     neap.errors.of "cost"   --> { retryable = false, status = 400, means = "more than …" }
---
---@param word string?
---@return neap.ErrorKind
function errors.of(word) return errors.kinds[word] or errors.kinds.error end

local FOR_GOOD = { cost = true, closed = true }

---@class neap.Decision
---@field decision "granted"|"retry"|"never"
---@field granted boolean
---@field after number?  retry: seconds; nil when no clock can tell
---@field why string?

--- What a verb answered, as a value.
---
---     neap.errors.decision(api:peek(5))        --> { decision = "granted", granted = true }
---     neap.errors.decision(api:peek(11)).why   --> "cost"
---
---@param ok any
---@param why string?
---@param wait_s number?
---@return neap.Decision
function errors.decision(ok, why, wait_s)
  if ok then return { decision = "granted", granted = true } end
  if type(why) ~= "string" then
    error("decision: what a verb answered expected, got nil, " .. tostring(why), 2)
  end
  if FOR_GOOD[why] then return { decision = "never", granted = false, why = why } end
  return { decision = "retry", granted = false, why = why, after = wait_s }
end

return errors
