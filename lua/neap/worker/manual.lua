--- What neap's own commands are called, how many words they have, who may use them, and what they
--- say about themselves: redis-cli makes its help, its hints and its completion of this. What they
--- do is the desk's.
local POLICY = { "policy", "key" }
local COST = { "cost", "block", token = "COST", optional = true, multiple = true, of = {
  { "limit", "string", optional = true }, { "n", "integer" } } }
local BY = { "by", "block", token = "BY", optional = true, multiple = true, of = {
  { "scope", "string" }, { "value", "string" } } }
local OUTCOME = { "outcome", "oneof", optional = true, of = {
  { "ok", "pure-token", token = "OK" }, { "fail", "pure-token", token = "FAIL" },
  { "ignore", "pure-token", token = "IGNORE" } } }
local STATUS = { "status", "integer", token = "STATUS", optional = true }
local RETRY_AFTER = { "text", "string", token = "RETRY-AFTER", optional = true }
local LATENCY = { "microseconds", "integer", token = "LATENCY", optional = true }
local HEADER = { "header", "block", token = "HEADER", optional = true, multiple = true, of = {
  { "name", "string" }, { "value", "string" } } }
local BLOCK = { "milliseconds", "integer", token = "BLOCK", optional = true }
local ID = { "token", "string", token = "ID", optional = true }
local TTL = { "ttl", "integer", token = "TTL", optional = true }
local DETACH = { "detach", "pure-token", token = "DETACH", optional = true }
local PRIORITY = { "priority", "string", token = "PRIO", optional = true }
local COUNT = { "n", "integer", token = "COUNT", optional = true }
local LEASE = { "lease", "string" }
local PEEK = { "peek", "pure-token", token = "PEEK", optional = true }

---@type neap.Command[]  but for `run`
return {
  { name = "NEAP.ACQUIRE", arity = -2, group = "neap", need = "acquire", keys = { 1, 1, 1 },
    flags = { "write", "blocking" }, complexity = "O(N) in the limits of the policy",
    summary = "Take from all limits of a policy or from none, now or after a wait.",
    arguments = { POLICY, BY, COST, PRIORITY, BLOCK, PEEK, ID, TTL, DETACH } },
  { name = "NEAP.RESERVE", arity = -2, group = "neap", need = "acquire", keys = { 1, 1, 1 },
    flags = { "write" }, complexity = "O(N) in the limits of the policy and in what is booked",
    summary = "Book the earliest instant, and be told at once when that is.",
    arguments = { POLICY, BY, COST, PRIORITY, ID, TTL, DETACH,
      { "milliseconds", "integer", token = "MAXWAIT", optional = true } } },
  { name = "NEAP.RELEASE", arity = -2, group = "neap", need = "acquire", flags = { "write" },
    summary = "Give a lease back, with how it went and what it really cost.",
    arguments = { LEASE, OUTCOME, STATUS, RETRY_AFTER, LATENCY, HEADER,
      { "used", "block", token = "USED", optional = true, multiple = true, of = {
        { "limit", "string" }, { "n", "integer" } } } } },
  { name = "NEAP.REPORT", arity = -2, group = "neap", need = "acquire", keys = { 1, 1, 1 },
    flags = { "write" }, summary = "Tell how a call went that had no lease.",
    arguments = { POLICY, OUTCOME, STATUS, RETRY_AFTER, LATENCY, HEADER } },
  { name = "NEAP.LIMIT", arity = -3, group = "neap", need = "acquire", keys = { 1, 1, 1 },
    flags = { "write", "blocking" }, summary = "Take from a limit kept under a key.",
    arguments = { { "key", "key" }, { "limit", "string" },
      { "cost", "integer", token = "COST", optional = true }, BLOCK, PEEK } },
  { name = "NEAP.SLOT", arity = -3, group = "neap", need = "acquire", keys = { 1, 1, 1 },
    flags = { "write", "blocking" }, summary = "Take one of n slots kept under a key.",
    arguments = { { "key", "key" }, { "n", "integer" }, BLOCK, TTL, ID, DETACH, PEEK } },
  { name = "NEAP.RENEW", arity = 3, group = "neap", need = "acquire", flags = { "write", "fast" },
    summary = "Let a lease end so many milliseconds from now: that, or -2 when there is none.",
    arguments = { LEASE, { "milliseconds", "integer" } } },
  { name = "NEAP.LEASES", arity = -1, group = "neap", need = "admin", flags = { "readonly" },
    complexity = "O(N) in the number of leases", summary = "What is out, the eldest first.",
    arguments = { { "policy", "string", optional = true }, COUNT } },
  { name = "NEAP.KILL", arity = 2, group = "neap", need = "admin", flags = { "write", "fast" },
    summary = "End a lease, whoever holds it.", arguments = { LEASE } },
  { name = "NEAP.BACKOFF", arity = -2, group = "neap", need = "acquire", keys = { 1, 1, 1 },
    flags = { "write" }, summary = "How long a policy backs off still; begin or end that.",
    arguments = { POLICY, { "how", "oneof", optional = true, of = {
      { "window", "block", of = { { "milliseconds", "integer" },
        { "condition", "oneof", optional = true, of = { { "xx", "pure-token", token = "XX" },
          { "gt", "pure-token", token = "GT" }, { "lt", "pure-token", token = "LT" } } } } },
      { "clear", "pure-token", token = "CLEAR" } } } } },
  { name = "NEAP.BREAKER", arity = -2, group = "neap", need = "acquire", keys = { 1, 1, 1 },
    flags = { "write" }, summary = "The state of a policy's breaker; change it by hand.",
    arguments = { POLICY, { "how", "oneof", optional = true, of = {
      { "milliseconds", "integer", token = "OPEN" }, { "close", "pure-token", token = "CLOSE" },
      { "auto", "pure-token", token = "AUTO" } } } } },
  { name = "NEAP.SNAPSHOT", arity = -2, group = "neap", need = "read", keys = { 1, 1, 1 },
    flags = { "readonly" }, complexity = "O(N) in the limits of the policy and in its keys",
    summary = "What is free, who waits and what is out.", arguments = { POLICY, BY } },
  { name = "NEAP.EXPLAIN", arity = -2, group = "neap", need = "read", keys = { 1, 1, 1 },
    flags = { "readonly" }, complexity = "O(N) in the limits of the policy",
    summary = "What a call would meet, limit by limit; nothing is taken.",
    arguments = { POLICY, BY, COST } },
  { name = "NEAP.TOP", arity = -3, group = "neap", need = "read", keys = { 1, 1, 1 },
    flags = { "readonly" }, summary = "Who of a scope called most, and how often.",
    arguments = { POLICY, { "scope", "string" }, COUNT } },
  { name = "NEAP.LIST", arity = -1, group = "neap", need = "read", flags = { "readonly" },
    complexity = "O(N) in the number of policies", summary = "The names of the policies.",
    arguments = { { "pattern", "pattern", optional = true } } },
  { name = "NEAP.POLICY", arity = -2, group = "neap", need = "admin", flags = { "blocking" },
    complexity = "O(N) in the size of the policies",
    summary = "What is declared; what a text would be; go on with the file, or a text.",
    arguments = { { "what", "oneof", of = {
      { "get", "block", token = "GET", of = { { "name", "string", optional = true } } },
      { "text", "string", token = "CHECK" }, { "text", "string", token = "DIFF" },
      { "reload", "pure-token", token = "RELOAD" },
      { "text", "string", token = "LOAD" } } } } },
  { name = "NEAP.EVAL", arity = -2, group = "neap", need = "admin", flags = { "write" },
    complexity = "that of the script", summary = "Run a Lua script, within narrow bounds.",
    arguments = { { "script", "string" },
      { "arg", "string", optional = true, multiple = true } } },
}
