--- What neap's own commands are called, how many words they have, who may use them, and what they
--- say about themselves: redis-cli makes its help, its hints and its completion of this. What they
--- do is the desk's.
local POLICY = { "policy", "key" }
local COST = { "cost", "block", token = "COST", optional = true, multiple = true, of = {
  { "limit", "string", optional = true }, { "n", "integer" } } }
local BLOCK = { "milliseconds", "integer", token = "BLOCK", optional = true }
local PEEK = { "peek", "pure-token", token = "PEEK", optional = true }

---@type neap.Command[]  but for `run`
return {
  { name = "NEAP.ACQUIRE", arity = -2, group = "neap", need = "acquire", keys = { 1, 1, 1 },
    flags = { "write", "blocking" }, complexity = "O(N) in the limits of the policy",
    summary = "Take from all limits of a policy or from none, now or after a wait.",
    arguments = { POLICY, COST, BLOCK, PEEK,
      { "token", "string", token = "ID", optional = true },
      { "ttl", "integer", token = "TTL", optional = true },
      { "detach", "pure-token", token = "DETACH", optional = true } } },
  { name = "NEAP.RELEASE", arity = -2, group = "neap", need = "acquire", flags = { "write" },
    summary = "Give a lease back, with how it went and what it really cost.",
    arguments = { { "lease", "string" },
      { "outcome", "oneof", optional = true, of = {
        { "ok", "pure-token", token = "OK" }, { "fail", "pure-token", token = "FAIL" },
        { "ignore", "pure-token", token = "IGNORE" } } },
      { "used", "block", token = "USED", optional = true, multiple = true, of = {
        { "limit", "string" }, { "n", "integer" } } } } },
  { name = "NEAP.LIMIT", arity = -3, group = "neap", need = "acquire", keys = { 1, 1, 1 },
    flags = { "write", "blocking" }, summary = "Take from a limit kept under a key.",
    arguments = { { "key", "key" }, { "limit", "string" },
      { "cost", "integer", token = "COST", optional = true }, BLOCK, PEEK } },
  { name = "NEAP.SNAPSHOT", arity = 2, group = "neap", need = "read", keys = { 1, 1, 1 },
    flags = { "readonly" }, complexity = "O(N) in the limits of the policy",
    summary = "What is free, who waits and what is out.", arguments = { POLICY } },
  { name = "NEAP.LIST", arity = -1, group = "neap", need = "read", flags = { "readonly" },
    complexity = "O(N) in the number of policies", summary = "The names of the policies.",
    arguments = { { "pattern", "pattern", optional = true } } },
}
