--- Profiles: which headers of a provider say what. A dimension has up to three, each of them the
--- name of a header: `limit`, `remaining` and `reset`, and the last one's format. `retry_after` is
--- read as Retry-After is, and the standard ones everywhere.

--- The three headers of a dimension whose names are alike.
local function alike(pattern, format)
  return {
    limit = pattern:format "limit", remaining = pattern:format "remaining",
    reset = pattern:format "reset", reset_format = format,
  }
end

return {
  -- platform.openai.com/docs/guides/rate-limits: reset is how long until all of it is there again
  openai = {
    requests = alike("x-ratelimit-%s-requests", "duration"),
    tokens = alike("x-ratelimit-%s-tokens", "duration"),
  },
  -- docs.anthropic.com/en/api/rate-limits: reset is when all of it is there again
  anthropic = {
    requests = alike("anthropic-ratelimit-requests-%s", "rfc3339"),
    tokens = alike("anthropic-ratelimit-tokens-%s", "rfc3339"),
    input_tokens = alike("anthropic-ratelimit-input-tokens-%s", "rfc3339"),
    output_tokens = alike("anthropic-ratelimit-output-tokens-%s", "rfc3339"),
  },
  -- docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
  github = { requests = alike("x-ratelimit-%s", "unix") },
  -- these say Retry-After alone
  stripe = {},
  aws = {},
  -- draft-ietf-httpapi-ratelimit-headers up to revision 06: three fields
  rfc = { requests = alike("ratelimit-%s", "seconds") },
  -- and from 08 on: two structured ones
  ietf = { structured = true },
}
