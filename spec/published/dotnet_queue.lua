--- Who goes when a permit comes back, who is turned away when the queue is full, and what a cancel
--- frees.
---
--- Source: dotnet/runtime:src/libraries/System.Threading.RateLimiting/tests/
--- ConcurrencyLimiterTests.cs
---
--- A case: what it shows, permits, places in the queue, whose turn it is ("oldest" or "newest"
--- first), and steps. Places are counted there in permits asked for; where it matters, `callers`
--- is how many places show the same when they are counted in callers, 0 where none do.
---
---   { "try", who, permits, outcome }      now or not at all
---   { "acquire", who, permits, outcome }  or wait
---   { "give", who }                       its permits come back
---   { "cancel", who }                     it waits no longer
---   { "close" }
---   { "free", permits, queued }           how many are free, and how many are waited for
---
--- Outcomes: "granted", "waiting", "refused", "cancelled". A step that changes those of others
--- names them, { "give", "a", b = "granted" }; all that it does not name stay as they were. Two
--- outcomes for one are the published one and neap's: a call that costs nothing needs no permit
--- here.
---
--- Full means: in the order "oldest" the newcomer is refused; in "newest" those who have waited
--- longest are, as many as make room, unless the newcomer asks for more than all places.
---
--- Left out: costs below 0 or above all permits, which are mistakes there (here "cost" is an
--- answer); names of metadata; how long a limiter has been idle.
local MOST = 2147483647

return {
  -- ---- oldest first ----
  { "the oldest goes first", 1, 2, "oldest", {
    { "acquire", "a", 1, "granted" }, { "acquire", "b", 1, "waiting" },
    { "acquire", "c", 1, "waiting" }, { "give", "a", b = "granted" },
    { "give", "b", c = "granted" },
  } },
  { "a full queue refuses the newcomer", 1, 1, "oldest", {
    { "try", "a", 1, "granted" }, { "acquire", "b", 1, "waiting" },
    { "acquire", "c", 1, "refused" },
  } },
  { "a place is free again when its owner went", 1, 1, "oldest", {
    { "try", "a", 1, "granted" }, { "acquire", "b", 1, "waiting" },
    { "acquire", "c", 1, "refused" }, { "give", "a", b = "granted" },
    { "acquire", "d", 1, "waiting" }, { "give", "b", d = "granted" },
  } },
  { "several go at once", 2, 2, "oldest", {
    { "acquire", "a", 2, "granted" }, { "acquire", "b", 1, "waiting" },
    { "acquire", "c", 1, "waiting" }, { "give", "a", b = "granted", c = "granted" },
  } },
  { "a light one does not overtake a heavy one", 2, 3, "oldest", {
    { "acquire", "a", 1, "granted" }, { "acquire", "b", 2, "waiting" },
    { "acquire", "c", 1, "waiting" }, { "give", "a", b = "granted" },
    { "give", "b", c = "granted" },
  } },
  { "nor does one who does not wait", 2, 3, "oldest", {
    { "acquire", "a", 1, "granted" }, { "acquire", "b", 2, "waiting" },
    { "try", "c", 1, "refused" }, { "give", "a", b = "granted" },
  } },
  { "who cancels takes nothing with it", 1, 1, "oldest", {
    { "try", "a", 1, "granted" }, { "acquire", "b", 1, "waiting" },
    { "cancel", "b", b = "cancelled" }, { "give", "a" }, { "free", 1, 0 },
  } },
  { "a cancel frees a place", 1, 1, "oldest", {
    { "try", "a", 1, "granted" }, { "acquire", "b", 1, "waiting" },
    { "cancel", "b", b = "cancelled" }, { "acquire", "c", 1, "waiting" },
    { "give", "a", c = "granted" },
  } },
  { "closing refuses all who wait, and all who come", 1, 3, "oldest", {
    { "try", "a", 1, "granted" }, { "acquire", "b", 1, "waiting" },
    { "acquire", "c", 1, "waiting" }, { "acquire", "d", 1, "waiting" },
    { "close", b = "refused", c = "refused", d = "refused" }, { "give", "a" },
    { "try", "e", 1, "refused" }, { "acquire", "f", 1, "refused" },
  } },
  { "closing after a cancel does nothing", 1, 1, "oldest", {
    { "try", "a", 1, "granted" }, { "acquire", "b", 1, "waiting" },
    { "cancel", "b", b = "cancelled" }, { "close" },
  } },
  { "more than all places are refused at once", 2, 1, "oldest", {
    { "try", "a", 2, "granted" }, { "acquire", "b", 2, "refused" },
  }, callers = 0 },
  { "what is free and queued", 100, 50, "oldest", {
    { "free", 100, 0 }, { "try", "a", 60, "granted" }, { "free", 40, 0 },
    { "acquire", "b", 50, "waiting" }, { "free", 40, 50 }, { "acquire", "c", 1, "refused" },
    { "free", 40, 50 }, { "try", "d", 100, "refused" }, { "free", 40, 50 },
    { "give", "a", b = "granted" }, { "free", 50, 0 },
  }, callers = 1 },
  { "nothing is granted while something is there", 100, 50, "oldest", {
    { "try", "a", 0, "granted" }, { "free", 100, 0 }, { "acquire", "b", 0, "granted" },
    { "free", 100, 0 }, { "try", "c", 100, "granted" }, { "free", 0, 0 },
    { "try", "d", 0, { "refused", "granted" } }, { "free", 0, 0 },
  } },

  -- ---- newest first ----
  { "a permit comes back", 1, 1, "newest", {
    { "try", "a", 1, "granted" }, { "try", "b", 1, "refused" }, { "give", "a" },
    { "try", "c", 1, "granted" },
  } },
  { "a permit comes back to who waits", 1, 1, "newest", {
    { "acquire", "a", 1, "granted" }, { "acquire", "b", 1, "waiting" },
    { "give", "a", b = "granted" },
  } },
  { "the newest goes first", 2, 3, "newest", {
    { "acquire", "a", 2, "granted" }, { "acquire", "b", 2, "waiting" },
    { "acquire", "c", 1, "waiting" }, { "give", "a", c = "granted" },
    { "give", "c", b = "granted" },
  } },
  { "a full queue refuses the oldest", 1, 1, "newest", {
    { "try", "a", 1, "granted" }, { "acquire", "b", 1, "waiting" },
    { "acquire", "c", 1, "waiting", b = "refused" }, { "give", "a", c = "granted" },
  } },
  { "and as many as make room", 2, 2, "newest", {
    { "try", "a", 2, "granted" }, { "acquire", "b", 1, "waiting" },
    { "acquire", "c", 1, "waiting" },
    { "acquire", "d", 2, "waiting", b = "refused", c = "refused" }, { "give", "a", d = "granted" },
  }, callers = 0 },
  { "but none for more than all places", 2, 1, "newest", {
    { "try", "a", 2, "granted" }, { "acquire", "b", 1, "waiting" },
    { "acquire", "c", 2, "refused" }, { "give", "a", b = "granted" },
  }, callers = 0 },
  { "large costs", MOST, MOST, "newest", {
    { "try", "a", MOST, "granted" }, { "acquire", "b", 3, "waiting" },
    { "acquire", "c", MOST, "waiting", b = "refused" }, { "give", "a", c = "granted" },
  }, callers = 1 },
  { "what is free goes to the newest at once", 2, 3, "newest", {
    { "acquire", "a", 1, "granted" }, { "acquire", "b", 2, "waiting" },
    { "acquire", "c", 1, "granted" }, { "give", "a" }, { "give", "c", b = "granted" },
  } },
  { "and to who does not wait", 2, 3, "newest", {
    { "acquire", "a", 1, "granted" }, { "acquire", "b", 2, "waiting" },
    { "try", "c", 1, "granted" }, { "give", "a" }, { "give", "c", b = "granted" },
  } },
  { "a cancelled one makes room", 2, 2, "newest", {
    { "try", "a", 2, "granted" }, { "acquire", "b", 1, "waiting" },
    { "acquire", "c", 1, "waiting" }, { "cancel", "b", b = "cancelled" },
    { "acquire", "d", 2, "waiting", c = "refused" }, { "give", "a", d = "granted" },
  }, callers = 0 },
  { "nothing is granted when something is there", 1, 1, "newest", {
    { "try", "a", 0, "granted" }, { "acquire", "b", 0, "granted" },
  } },
  { "nothing waits for something to be there", 1, 1, "newest", {
    { "acquire", "a", 1, "granted" }, { "acquire", "b", 0, { "waiting", "granted" } },
    { "give", "a", b = "granted" },
  } },
}
