--- The example lines of draft-ietf-httpapi-ratelimit-headers, all that revision 11 of May 2026 has
--- (in ietf-wg-httpapi/ratelimit-headers), in its order, and where it says so two that revision 10
--- had besides; and what a client is to make of them: windows by name, each with what remains, the
--- limit, and seconds to the reset. `limit` and `policy` are a line or several.
---
--- They have traps. Four lines have a bare token for a policy's name where the text wants a string,
--- and of these two RateLimit lines lack the r that it requires: malformed, so ignored. Two keys of
--- partitions have bits to spare in their base64. One answer has a Retry-After that ends before t:
--- it takes precedence.
local draft = {
  { why = "two policies in one field",
    policy = '"burst";q=100;w=60,"daily";q=1000;w=86400',
    windows = { burst = { nil, 100 }, daily = { nil, 1000 }, requests = { nil, 100 } } },
  { why = "a policy alone", policy = '"default";q=100;w=10',
    windows = { default = { nil, 100 }, requests = { nil, 100 } } },
  { why = "two policies more", policy = '"permin";q=50;w=60,"perhr";q=1000;w=3600',
    windows = { permin = { nil, 50 }, perhr = { nil, 1000 }, requests = { nil, 50 } } },
  { why = "a partition key with bits to spare",
    policy = '"peruser";q=100;w=60;pk=:cHsdsRa894==:',
    partition = { peruser = "\112\123\029\177\022\188\247" },
    windows = { peruser = { nil, 100 }, requests = { nil, 100 } } },
  { why = "a unit, and another key with bits to spare",
    policy = '"peruser";q=65535;qu="content-bytes";w=10;pk=:sdfjLJUOUH==:',
    partition = { peruser = "\177\215\227\044\149\014\080" },
    windows = { peruser = { nil, 65535 }, content_bytes = { nil, 65535 } } },
  { why = "a state alone", limit = '"default";r=50;t=30',
    windows = { default = { 50, nil, 30 }, requests = { 50, nil, 30 } } },
  { why = "no t", limit = '"default";r=999;pk=:dHJpYWwxMjEzMjM=:',
    partition = { default = "trial121323" },
    windows = { default = { 999 }, requests = { 999 } } },
  { why = "a partition", limit = '"default";r=300000000;t=60;pk=:QXBwLTk5OQ==:',
    partition = { default = "App-999" },
    windows = { default = { 300000000, nil, 60 }, requests = { 300000000, nil, 60 } } },
  { why = "nothing left", limit = '"problemPolicy";r=0;t=10',
    windows = { problemPolicy = { 0, nil, 10 }, requests = { 0, nil, 10 } } },
  { why = "one left", limit = '"default";r=1;t=7',
    windows = { default = { 1, nil, 7 }, requests = { 1, nil, 7 } } },
  { why = "until tomorrow evening", limit = '"daily";r=1;t=86400',
    windows = { daily = { 1, nil, 86400 }, requests = { 1, nil, 86400 } } },
  { why = "a short reset of a long window", policy = '"somepolicy";q=10000;w=1000',
    limit = '"somepolicy";r=10000;t=10',
    windows = { somepolicy = { 10000, 10000, 10 }, requests = { 10000, 10000, 10 } } },
  { why = "used up", limit = '"default";r=0;t=50',
    windows = { default = { 0, nil, 50 }, requests = { 0, nil, 50 } } },
  { why = "used up still", limit = '"default";r=0;t=48',
    windows = { default = { 0, nil, 48 }, requests = { 0, nil, 48 } } },
  { why = "the closest limit of two", limit = '"dayLimit";r=100;t=36000',
    windows = { dayLimit = { 100, nil, 36000 }, requests = { 100, nil, 36000 } } },
  { why = "concurrency, at ease", policy = '"basic";q=100;w=60', limit = '"basic";r=60;t=58',
    windows = { basic = { 60, 100, 58 }, requests = { 60, 100, 58 } } },
  { why = "concurrency, in need", policy = '"basic";q=100;w=60', limit = '"basic";r=20;t=56',
    windows = { basic = { 20, 100, 56 }, requests = { 20, 100, 56 } } },
  { why = "refused, with a date", limit = '"default";r=0;t=5',
    retry_after = "Mon, 05 Aug 2019 09:27:05 GMT", now = 1564997220, retry_after_s = 5,
    windows = { default = { 0, nil, 5 }, requests = { 0, nil, 5 } } },
  { why = "a fixed window", policy = '"fixedwindow";q=100;w=60', limit = '"fixedwindow";r=99;t=50',
    windows = { fixedwindow = { 99, 100, 50 }, requests = { 99, 100, 50 } } },
  { why = "slow down", policy = '"dynamic";q=100;w=60', limit = '"dynamic";r=9;t=50',
    windows = { dynamic = { 9, 100, 50 }, requests = { 9, 100, 50 } } },
  { why = "pushed back", policy = '"dynamic";q=15;w=20', limit = '"dynamic";r=0;t=20',
    windows = { dynamic = { 0, 15, 20 }, requests = { 0, 15, 20 } } },
  { why = "pushed back by Retry-After, which ends before t", retry_after = "20", retry_after_s = 20,
    policy = '"dynamic";q=100;w=60', limit = '"dynamic";r=15;t=40',
    windows = { dynamic = { 15, 100, 40 }, requests = { 15, 100, 40 } } },
  { why = "a token for a name, and no r (revision 10)", policy = "quota;q=100;w=1",
    limit = "quota;t=1", windows = {} },
  { why = "again (revision 10)", policy = "quota;q=10", limit = "quota;t=1", windows = {} },
  { why = "the closest limit of two that are told",
    policy = '"hour";q=1000;w=3600, "day";q=5000;w=86400', limit = '"day";r=100;t=36000',
    windows = { hour = { nil, 1000 }, day = { 100, 5000, 36000 },
      requests = { 100, 5000, 36000 } } },
  { why = "the simplest form", limit = '"default";r=50;t=60',
    windows = { default = { 50, nil, 60 }, requests = { 50, nil, 60 } } },
  { why = "two lines of one field, and parameters of their own", limit = '"sliding";r=50;t=44',
    policy = { '"sliding";q=100;w=60;burst=1000', '"fixed";q=5000;w=3600;burst=0' },
    windows = { sliding = { 50, 100, 44 }, fixed = { nil, 5000 }, requests = { 50, 100, 44 } } },
  { why = "half of what can be, and a q where it is a comment", policy = '"sliding";q=12;w=1',
    limit = '"sliding";q=12;r=6;t=1',
    windows = { sliding = { 6, 12, 1 }, requests = { 6, 12, 1 } } },
  { why = "all of what can be", policy = '"sliding";q=12;w=1', limit = '"sliding";q=12;r=1;t=1',
    windows = { sliding = { 1, 12, 1 }, requests = { 1, 12, 1 } } },
}

--- The problems of its section 5 that an answer's body may tell (RFC 9457), with the status it has.
draft.problems = {
  { status = 429, type = "https://iana.org/assignments/http-problem-types#quota-exceeded",
    body = [[{
     "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
     "title": "Request cannot be satisfied as assigned quota has been exceeded",
     "violated-policies": ["daily","bandwidth"]
   }]] },
  { status = 503,
    type = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
    body = [[{
     "type": "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
     "title": "Request cannot be satisfied due to temporary server capacity constraints",
     "violated-policies": ["hourly"]
   }]] },
  { status = 429, type = "https://iana.org/assignments/http-problem-types#abnormal-usage-detected",
    body = [[{
     "type": "https://iana.org/assignments/http-problem-types#abnormal-usage-detected",
     "title": "Request not satisifed due to detection of abnormal request pattern",
     "violated-policies": ["hourly"]
   }]] },
}

return draft
