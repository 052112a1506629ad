--- Where neap answers otherwise than a case, and why. Case id to reason; the runner skips these and
--- prints the reason.
return {
  ["TB-051"] = "more than 6 tokens per ns are refused at construction, so that every rate that is "
    .. "accepted is exact",
  ["SE-021"] = "nobody polls here: a permit that comes back wakes the next in line, so there are "
    .. "no pauses to set",
  ["SE-022"] = "nobody polls here: there are no pauses to set",
  ["BW-012"] = "who waits leaves at the instant the pause ends; one that begins at that instant "
    .. "holds the next",
}
