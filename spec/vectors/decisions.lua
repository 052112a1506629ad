--- Where neap answers otherwise than a case, and why: by the case's id, or by a name under which
--- more than one case finds it. The runner skips these and prints the reason.
local decisions = {
  too_fast = "more than 6 tokens per ns are refused at construction, so that every rate that is "
    .. "accepted is exact",
  no_polling = "nobody polls here: a permit that comes back wakes the next in line, so there are "
    .. "no pauses to set",
  by_permit = "a place is given back by its permit: whoever has none has nothing to give back",
}

decisions.shards = "a table belongs to one thread and has no locks, so there is nothing to divide"

decisions["PK-010"] = decisions.shards
decisions["PK-013"] = decisions.shards
decisions["TB-051"] = decisions.too_fast
decisions["SE-021"] = decisions.no_polling
decisions["SE-022"] = decisions.no_polling

decisions["RA-081"] = "there is no 31 February, in either dialect"
decisions["RA-089"] = "GMT is read in any case, in either dialect"
decisions["RA-095"] = "a date with a sign in it is no date, in either dialect"

return decisions
