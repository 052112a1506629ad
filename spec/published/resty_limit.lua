--- What resty.limit.req, .conn, .count and .traffic answer, from the tests of
--- openresty/lua-resty-limit-traffic: t/req.t, t/conn.t, t/count.t, t/traffic.t (BSD), put as rows.
---
--- A row: what is called, its key, whether it counts (or its argument), and the two answers; `at`
--- in seconds when time passes before it.
--- Where neap differs, `theirs` is the first answer there, and why stands beside it.
local rejected = { nil, "rejected" }

local function rows(n, row)
  local list = {}
  for i = 1, n do list[i] = row(i) end
  return list
end

return {
  { "req.t 1: one key, each waits as told", of = "req", new = { 40, 40 },
    rows(80, function (i) return { "incoming", "/t", true, i == 1 and 0 or 0.025,
      i == 1 and 0 or 1, at = i > 1 and (i - 2) * 0.025 or 0 } end) },
  { "req.t 2: two keys", of = "req", new = { 2, 10 }, {
    { "incoming", "foo", true, 0, 0 }, { "incoming", "foo", true, 0.5, 1 },
    { "incoming", "bar", true, 0, 0 }, { "incoming", "bar", true, 0.5, 1 } } },
  { "req.t 3: no burst", of = "req", new = { 2, 0 }, {
    { "incoming", "foo", true, 0, 0 }, { "incoming", "foo", true, unpack(rejected, 1, 2) } } },
  { "req.t 3: a burst of 1, and of 2", of = "req", new = { 2, 0 }, {
    { "set_burst", 1 }, { "incoming", "foo", true, 0, 0 }, { "incoming", "foo", true, 0.5, 1 },
    { "incoming", "foo", true, nil, "rejected" },
    { "set_burst", 2 }, { "incoming", "foo", true, 1, 2 },
    { "incoming", "foo", true, nil, "rejected" } } },
  { "req.t 4: only the first two count", of = "req", new = { 2, 10 }, {
    { "incoming", "bar", true, 0, 0 }, { "incoming", "bar", true, 0.5, 1 },
    { "incoming", "bar", false, 1, 2 }, { "incoming", "bar", false, 1, 2 } } },
  -- There what an uncommit takes back is cut at no excess, so the second one has to wait.
  { "req.t 7: counted, and taken back", of = "req", new = { 40, 40 },
    rows(10, function (i)
      if i % 2 == 0 then return { "uncommit", "/t", nil, true } end
      return { "incoming", "/t", true, 0, 0, theirs = i > 1 and 0.025 or 0 }
    end) },
  { "req.t 8: less than one a second", of = "req", new = { 0.1, 0.1 }, {
    { "incoming", "k", true, 0, 0 }, { "incoming", "k", true, nil, "rejected" },
    { "incoming", "k", true, nil, "rejected" } } },

  { "conn.t 1: none leaves", of = "conn", new = { 2, 8, 1 },
    rows(12, function (i)
      if i > 10 then return { "incoming", "foo", true, nil, "rejected", committed = false } end
      return { "incoming", "foo", true, math.floor((i - 1) / 2), i, committed = true }
    end) },
  { "conn.t 2: the third and the fifth count", of = "conn", new = { 2, 8, 1 },
    rows(12, function (i)
      local conn = i < 4 and 1 or i < 6 and 2 or 3
      return { "incoming", "foo", i == 3 or i == 5, i < 6 and 0 or 1, conn,
        committed = i == 3 or i == 5 }
    end) },
  { "conn.t 3: two leave", of = "conn", new = { 2, 8, 1 }, {
    { "incoming", "foo", true, 0, 1 }, { "incoming", "foo", true, 0, 2 },
    { "incoming", "foo", true, 1, 3 }, { "incoming", "foo", true, 1, 4 },
    { "leaving", "foo", nil, 3 },
    { "incoming", "foo", true, 1, 4 }, { "incoming", "foo", true, 2, 5 },
    { "incoming", "foo", true, 2, 6 },
    { "leaving", "foo", nil, 5 },
    { "incoming", "foo", true, 2, 6 }, { "incoming", "foo", true, 3, 7 },
    { "incoming", "foo", true, 3, 8 }, { "incoming", "foo", true, 4, 9 },
    { "incoming", "foo", true, 4, 10 } } },
  { "conn.t 4: counted, and taken back", of = "conn", new = { 2, 8, 1 },
    rows(6, function (i)
      if i % 2 == 0 then return { "uncommit", "foo", nil, 0 } end
      return { "incoming", "foo", true, 0, 1, committed = true }
    end) },
  { "conn.t 5: other limits on the way", of = "conn", new = { 2, 1, 1 }, {
    { "incoming", "foo", true, 0, 1 }, { "incoming", "foo", true, 0, 2 },
    { "incoming", "foo", true, 1, 3 }, { "incoming", "foo", true, nil, "rejected" },
    { "set_conn", 5 }, { "set_burst", 2 },
    { "incoming", "foo", true, 0, 4 }, { "incoming", "foo", true, 0, 5 },
    { "incoming", "foo", true, 1, 6 }, { "incoming", "foo", true, 1, 7 },
    { "incoming", "foo", true, nil, "rejected" }, { "incoming", "foo", true, nil, "rejected" } } },

  { "count.t 1: one key", of = "count", new = { 10, 100 },
    rows(12, function (i)
      if i > 10 then return { "incoming", "/t", true, nil, "rejected" } end
      return { "incoming", "/t", true, 0, 10 - i }
    end) },
  { "count.t 2: two keys", of = "count", new = { 1, 10 }, {
    { "incoming", "foo", true, 0, 0 }, { "incoming", "foo", true, nil, "rejected" },
    { "incoming", "bar", true, 0, 0 }, { "incoming", "bar", true, nil, "rejected" } } },
  { "count.t 3: the window ends", of = "count", new = { 1, 1 }, {
    { "incoming", "/t", true, 0, 0 }, { "incoming", "/t", true, nil, "rejected" },
    { "incoming", "/t", true, nil, "rejected", at = 0.999 },
    { "incoming", "/t", true, 0, 0, at = 1 }, { "incoming", "/t", true, nil, "rejected" } } },
  { "count.t 4: only the first two count", of = "count", new = { 5, 10 }, {
    { "incoming", "foo", true, 0, 4 }, { "incoming", "foo", true, 0, 3 },
    { "incoming", "foo", false, 0, 2 }, { "incoming", "foo", false, 0, 2 } } },
  { "count.t 5: counted, and taken back", of = "count", new = { 2, 10 },
    rows(6, function (i)
      if i % 2 == 0 then return { "uncommit", "foo", nil, 2 } end
      return { "incoming", "foo", true, 0, 1 }
    end) },

  -- { at, delay or false when rejected, states after it }
  traffic = {
    { "traffic.t 1: a request rate says no", count = 10, {
      { 0, 0, { 0, 0, 1, 9 } }, { 0, 0.5, { 1, 1, 2, 8 } }, { 0, 1, { 2, 2, 3, 7 } },
      { 0, false, { 2, 2, 3, 7 } },
      { 1, 0.5, { 0, 1, 4, 6 } }, { 1, 2, { 1, 2, 5, 5 } } } },
    { "traffic.t 3: the count says no", count = 2, {
      { 0, 0, { 0, 0, 1, 1 } }, { 0, 0.5, { 1, 1, 2, 0 } }, { 0, false, { 1, 1, 2, 0 } },
      { 0, false, { 1, 1, 2, 0 } }, { 1, false, { 1, 1, 2, 0 } }, { 1, false, { 1, 1, 2, 0 } } } },
  },
}
