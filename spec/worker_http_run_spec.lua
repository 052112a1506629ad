--- `neap run` speaking HTTP: asked by curl, read by Prometheus' own parser and, before it lets a
--- call pass, by nginx.
local nginx = require "spec.nginx"
local process = require "spec.process"

local FILE = [[
policy "api" { limits = { rps = "10/s burst 2" } }
policy "openai" {
  limits = { requests = "500/min burst 100", input = "1000/s burst 1000", calls = "2 in flight" },
  lease = { ttl = "5s", settle = "input" },
}
]]

describe("neap run speaking HTTP", function ()
  local running, http

  after_each(process.sweep)

  local function start(file)
    local path = process.file(file)
    local words = { (os.getenv "NEAP_BUILD" or "build") .. "/bin/neap", "run", "--listen",
      "127.0.0.1:0", "--http", "127.0.0.1:0", path }
    running = process.start(words)
    running:line()
    http = running:line():match "^info listening address=(%S+) protocol=http$"
    os.remove(path)
    assert(http)
  end

  local function curl(words)
    return (process.output("env -u LD_PRELOAD curl -s --max-time 20 " .. words:gsub("@", http)))
  end

  it("is asked by curl", function ()
    start(FILE)
    assert.equal("ok\nready\n", curl "http://@/healthz http://@/readyz")
    assert.equal("200 1", curl("-o /dev/null -w '%{http_code} %{num_connects}' "
      .. "'http://@/v1/check/openai?cost=1'"))
    local lease = curl("-D - -o /dev/null http://@/v1/check/openai"):match "X%-Neap%-Lease: (%x+)"
    assert.equal("204", curl("-w '%{http_code}' -d outcome=ok http://@/v1/release/" .. lease))
    assert.equal("200", curl "-I -o /dev/null -w '%{http_code}' http://@/metrics")
    assert.equal("411", curl("-o /dev/null -w '%{http_code}' -H 'Transfer-Encoding: chunked' "
      .. "-d x=1 http://@/v1/release/x"))
    assert.equal("200", curl "-0 -o /dev/null -w '%{http_code}' http://@/healthz")
    -- RESP at HTTP's port, and HTTP at RESP's
    local peer = process.dial(http)
    peer:say "*1\r\n$4\r\nPING\r\n"
    assert.truthy(peer:hear():find("^HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"))
    peer:hang_up()
    local said, status = running:stop()
    said = said:gsub("client=%d+", "client=N")
    assert.same({ 'warning cut-off client=N reason="a body comes with its Content-Length"\n'
      .. 'warning cut-off client=N reason="this is no HTTP request"\n', 0 }, { said, status })
  end)

  it("is believed by Prometheus' own parser", function ()
    start(FILE)
    curl "-o /dev/null http://@/v1/check/openai"
    for _, row in ipairs {
      { "prometheus_client.parser", "text/plain" },
      { "prometheus_client.openmetrics.parser", "application/openmetrics-text" },
    } do
      local count = process.output(([[env -u LD_PRELOAD curl -s -H 'Accept: %s' http://%s/metrics |
        env -u LD_PRELOAD /usr/bin/python3 -c '
import sys
from %s import text_string_to_metric_families as families
print(sum(len(f.samples) for f in families(sys.stdin.read())))']]):format(row[2], http, row[1]))
      assert.truthy((tonumber(count) or 0) > 100, count)
    end
    assert.equal("# EOF\n", curl "-H 'Accept: application/openmetrics-text' http://@/metrics"
      :match "\n([^\n]*\n)$")
    assert.same({ "", 0 }, { running:stop() })
  end)

  it("has metrics that promtool finds nothing against", function ()
    if select(2, process.output "command -v promtool") ~= 0 then
      return pending "there is no promtool"   -- a server comes with it, for one test too much
    end
    start(FILE)
    curl "-o /dev/null http://@/v1/check/openai"
    assert.same({ "", 0 }, { process.output(("env -u LD_PRELOAD curl -s http://%s/metrics | " ..
      "env -u LD_PRELOAD promtool check metrics"):format(http)) })
    assert.same({ "", 0 }, { running:stop() })
  end)

  it("stands behind nginx' auth_request: 429 at the edge, and the lease passes", function ()
    if not nginx.is_here() then pending "no nginx here that can be used" return end
    start [[
      policy "edge" { limits = { rps = "2/h" } }
      policy "busy" { limits = { calls = "1 in flight" } }
    ]]
    local function location(name, query)
      return ([[
        location = /ask/%s {
          internal;
          proxy_pass http://%s/v1/check/%s%s;
          proxy_pass_request_body off;
          proxy_set_header Content-Length "";
        }
        location /%s/ {
          auth_request /ask/%s;
          auth_request_set $lease $upstream_http_x_neap_lease;
          auth_request_set $after $upstream_http_retry_after;
          error_page 403 = @limited;
          content_by_lua_block { ngx.say("lease ", ngx.var.lease ~= "" and ngx.var.lease or "-") }
        }
      ]]):format(name, http, name, query, name, name)
    end
    local edge = nginx.start { http = "", server = location("edge", "?deny=403") .. location("busy",
      "?deny=403&wait=50ms") .. [[
        location @limited {
          add_header Retry-After $after always;
          return 429;
        }
      ]] }
    local function get(path)
      local a = edge:get(path)
      return a.status .. " " .. (a.headers["retry-after"] or a.body:gsub("\n$", ""))
    end
    assert.equal("200 lease -", get "/edge/a")
    assert.equal("200 lease -", get "/edge/b?cost=7")   -- what a stranger says is not heard
    assert.truthy(get "/edge/c":find "^429 1[78]%d%d$")
    local lease = get "/busy/a":match "^200 lease (%x+)$"
    assert.equal("429 1", get "/busy/b")
    assert.equal("204", curl("-w '%{http_code}' -X POST http://@/v1/release/" .. lease))
    assert.truthy(get "/busy/c":find "^200 lease %x+$")
    edge:stop()
    assert.same({ "", 0 }, { running:stop() })
  end)
end)
