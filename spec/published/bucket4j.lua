--- Another limit in place: how much there is to take before and after.
---
--- Source: bucket4j/bucket4j:asciidoc/src/main/docs/asciidoc/basic/configuration-replacement.adoc
--- (worked examples) and bucket4j-core/src/test/java/io/github/bucket4j/
--- ConfigurationReplacementTest.java (cases), which calls the modes RESET, AS_IS (here "balance"),
--- PROPORTIONALLY ("scale") and ADDITIVE ("keep").
---
--- A row: what it shows, the limit before, tokens at 0, the limit after, the mode; then instants in
--- ms and tokens, the first right before the change and the second right after it. A limit: amount,
--- ms, burst. The cases are in ns there, which is neap's grain, so they are played as ms. Two
--- numbers for one are the published one and neap's:
---
---   additive, smaller  There a smaller limit takes nothing away from what is left; here what was
---                      spent is spent, and 60 of 20 are more than all. gubernator.lua agrees.
---   proportional       1.8 tokens are no whole number of the pieces that tokens are cut in, and
---                      what has not quite arrived is not there: 36 are whole a moment later.
---   overfull           Nothing ever holds more than its burst here.
---
--- Left out of 15 cases: two where a limit is found by its ID among others, which is for whoever
--- owns the names, and two where tokens arrive a period at a time, which no limit here does.
local tiny, slow = { 3, 5, 3 }, { 60, 1000, 60 }
local old, larger, smaller = { 10, 60000, 100 }, { 10, 60000, 200 }, { 10, 60000, 20 }
local s500, s200, s900 = { 100, 100, 500 }, { 100, 100, 200 }, { 100, 100, 900 }

return {
  examples = {
    { "reset", old, 40, larger, "reset", { { 0, 40 }, { 0, 200 } } },
    { "proportional, larger", old, 40, larger, "scale", { { 0, 40 }, { 0, 80 } } },
    { "proportional, smaller", old, 40, smaller, "scale", { { 0, 40 }, { 0, 8 } } },
    { "as is, larger", old, 40, larger, "balance", { { 0, 40 }, { 0, 40 } } },
    { "as is, smaller", old, 40, smaller, "balance", { { 0, 40 }, { 0, 20 } } },
    { "additive, larger", old, 40, larger, "keep", { { 0, 40 }, { 0, 140 } } },
    { "additive, smaller", old, 40, smaller, "keep", { { 0, 40 }, { 0, { 20, 0 } } } },
    { "additive, smaller, less left", old, 10, smaller, "keep", { { 0, 10 }, { 0, { 10, 0 } } } },
  },

  cases = {
    { "reset forgets", tiny, 0, slow, "reset", { { 3, 1 }, { 3, 60 } } },
    { "as is", tiny, 0, slow, "balance", { { 3, 1 }, { 3, 1 }, { 7, 2 } } },
    { "as is, smaller", s500, 500, s200, "balance", { { 0, 500 }, { 0, 200 } } },
    { "additive", tiny, 0, slow, "keep", { { 3, 1 }, { 3, 58 }, { 7, 59 } } },
    { "additive, smaller", s500, 500, s200, "keep", { { 0, 500 }, { 0, 200 } } },
    { "additive, larger", s500, 200, s900, "keep", { { 0, 200 }, { 0, 600 } } },
    { "proportional, smaller", s500, 500, s200, "scale", { { 0, 500 }, { 0, 200 } } },
    {
      "proportional", tiny, 0, slow, "scale",
      { { 3, 1 }, { 3, { 36, 35 } }, { 7, 36 }, { 20, 37 } },
    },
    {
      "proportional, overfull", tiny, 0, slow, "scale", { { 0, { 1e7, 3 } }, { 0, 60 } },
      add = 1e7,
    },
    -- 2.25 of 6 are 1.125 of 3: the second is whole when 7/8 of a token came, 7/3 ms later
    {
      "part of a token", { 6, 8, 6 }, 0, { 3, 8, 3 }, "scale",
      { { 3, 2 }, { 3, 1 }, { 5, 1 }, { 6, 2 } },
    },
    -- -2.75 of 6 are -1.375 of 3
    {
      "part of a token owed", { 6, 8, 6 }, 0, { 3, 8, 3 }, "scale", { { 3, -3 }, { 3, -2 } },
      borrow = 5,
    },
  },
}
