--- The worker's page in a real Chromium: that it shows what the snapshot says, lets nothing in, can
--- be used by keyboard and read aloud, in light and dark, and says so when the worker is gone.
--- Pictures of it are left in the build tree: page-light.png and so on.
local cjson = require "cjson"
local browser = require "spec.browser"
local process = require "spec.process"

local BUILD = os.getenv "NEAP_BUILD" or "build"
local WIDE, NARROW = { width = 1280, height = 900 }, { width = 320, height = 900 }

-- What is spent here comes back so late that it stays spent.
local FILE = [[
policy "openai" {
  doc = "chat <b>completions</b>",
  limits = { requests = "100/d burst 100", input = "1000/d burst 1000", calls = "5 in flight" },
  lease = { ttl = "60s", settle = "input" },
}
policy "github" { limits = { calls = "1 in flight" } }
policy "stripe" { limits = { daily = "8/d burst 8" } }
policy "free" { limits = { all = "unlimited" } }
]]

-- The contrast of every text with what is behind it (WCAG 2, 1.4.3), the lowest first.
local CONTRAST = [[(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = text => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => [r, g, b].map(n => n / 255).map(
    n => n <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4)
    .reduce((sum, n, i) => sum + n * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = node => { for (; node; node = node.parentElement) {
    const color = rgba(getComputedStyle(node).backgroundColor); if (color[3]) return color; } };
  const found = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !node.getClientRects().length) continue;
    const [a, b] = [light(rgba(getComputedStyle(node).color)), light(ground(node))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.outerHTML.slice(0, 80)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()]]

-- From here on the page is told by us.
local BY_HAND = [[ source.close(); heard_at = Infinity;
  globalThis.told = (ms, policies) => take({ policies, worker: { version: "0", now_ms: ms,
    uptime_s: ms / 1000, draining: false, clients: 1 } });
  globalThis.policy = (name, granted, more) => ({ policy: name, waiting: 0, leases: 0, limits: [],
    said: { granted, waited: 0, retry: 0, never: 0, shed: 0 }, ...more }); ]]

-- Two minutes of traffic in waves, and some of everything that can be shown.
local TIDE = [[ {
  const totals = [0, 0, 0, 0].map(() => [0, 0, 0]);
  const limit = (name, text, available, capacity, more) =>
    ({ name, limit: text, available, capacity, ...more });
  for (let s = 0; s <= 120; s++) {
    totals.forEach((sum, i) => {
      const swell = Math.max(0, 20 + 14 * Math.sin(s / 9 + i) + 6 * Math.sin(s / 2.3 + 2 * i));
      const high = Math.max(0, swell - 26);
      [swell - high, high / 2, high].forEach((n, kind) => sum[kind] += Math.round(n));
    });
    const said = ([granted, waited, refused]) => ({ granted: granted + waited, waited,
      retry: refused, never: 0, shed: 0 });
    told(s * 1000, [
      policy("openai", 0, { doc: "chat completions, all tenants", breaker: "closed", waiting: 3,
        said: said(totals[0]), limits: [limit("requests", "500/min burst 100", 61, 100),
          limit("input", "1M/min burst 250k", 38512, 250000),
          limit("calls", "20 in flight", 0, 20, { in_flight: 20 })] }),
      policy("github", 0, { said: said(totals[1]), breaker: "open", backoff_ms: 41000,
        limits: [limit("hourly", "5k/h", 4810, 5000)] }),
      policy("stripe", 0, { said: said(totals[2]), breaker: "half-open",
        limits: [limit("rps", "25/s", 2, 25), limit("all", "unlimited", null, null)] }),
      policy("crawler", 0, { said: said(totals[3]), waiting: 12,
        limits: [limit("rps", "10/s burst 2", 1, 2)] }),
      policy("archive", 0, { limits: [limit("all", "closed", 0, 0)] })]);
  }
  const tell = (number, event, policy, count, more) => take_event({ lastEventId: "0-" + number,
    data: JSON.stringify({ policy, event, at: 1764108554 + number * 11, count, ...more }) });
  tell(1, "reload", "-", 1, { file: "policy.lua" });
  tell(2, "expired", "openai", 14, { held_ms: 60000 });
  tell(3, "open", "github", 1, { failures: 5 });
  tell(4, "shed", "crawler", 260, { bound: "queue" });
} ]]

-- Without a name these say nothing.
local NAMED = {}
for role in ("button image table searchbox link heading rowheader columnheader"):gmatch "%w+" do
  NAMED[role] = true
end

local program = browser.program()

describe("the page", function ()
  local chromium, running, resp, http, tab

  local function start(file, at)
    local path = process.file(file)
    running = process.start { BUILD .. "/bin/neap", "run", "--listen", "127.0.0.1:0", "--http",
      at or "127.0.0.1:0", "--drain", "1ms", path }
    resp = running:line():match "^info listening address=(%S+) protocol=resp$"
    http = running:line():match "^info listening address=(%S+) protocol=http$"
    os.remove(path)
    assert(http)
  end

  local function open(look)
    chromium.events = {}
    tab = chromium:open("http://" .. http .. "/", look or WIDE)
    tab:wait "document.body.className === 'serving'"
  end

  local function snapshot()
    return cjson.decode((process.output("env -u LD_PRELOAD curl -s http://" .. http
      .. "/v1/snapshot")))
  end

  setup(function () if program then chromium = browser.start() end end)
  teardown(function () if program then chromium:stop() end end)
  before_each(function () if program then start(FILE) end end)
  after_each(function ()
    if tab then tab:close() end
    tab = nil
    process.sweep(chromium and chromium.running)
  end)

  local function it_shows(title, test)
    it(title, function ()
      if not program then pending "no Chromium here: chromium-headless-shell" return end
      test()
      assert.same({}, tab:complaints())
    end)
  end

  it_shows("shows what the snapshot says, and nothing else is asked for", function ()
    local one, two = process.dial(resp), process.dial(resp)
    tab = chromium:open("about:blank", WIDE)
    tab:call "Network.enable"
    tab:call("Page.navigate", { url = "http://" .. http .. "/" })
    tab:wait "document.body.className === 'serving'"
    tab:call "Network.disable"
    local asked = {}
    for _, event in ipairs(chromium.events) do
      local request = event.method == "Network.requestWillBeSent" and event.params.request
      if request then asked[#asked + 1] = request.url end
    end
    assert.same({ "http://" .. http .. "/", "http://" .. http .. "/v1/events?state=1&last=50" },
      asked)

    for _ = 1, 3 do one:ask("NEAP.ACQUIRE", "openai", "COST", "input", "150") end
    one:ask("NEAP.ACQUIRE", "openai", "COST", "input", "900")
    one:ask("NEAP.ACQUIRE", "openai", "COST", "calls", "6")
    one:ask("NEAP.ACQUIRE", "stripe", "COST", "8")
    one:ask("NEAP.ACQUIRE", "stripe")
    local lease = one:ask("NEAP.ACQUIRE", "github")[2]
    two:send("NEAP.ACQUIRE", "github", "BLOCK", "0", "ID", "x")
    process.eventually(function () return one:ask("NEAP.SNAPSHOT", "github")[4] == 1 end)
    tab:wait "by('in-line').textContent === '1'"
    one:ask("NEAP.RELEASE", lease)
    two:receive()
    two:send("NEAP.ACQUIRE", "github", "BLOCK", "0")
    process.eventually(function () return one:ask("NEAP.SNAPSHOT", "github")[4] == 1 end)
    tab:wait [[state.policies[1].said.waited === 1 && state.policies[1].waiting === 1]]

    local is, expected = snapshot(), {}
    local function text(n) return n == cjson.null and "∞" or tostring(n) end
    for _, p in ipairs(is.policies) do
      local flight = p.leases
      for _, limit in ipairs(p.limits) do flight = limit.in_flight or flight end
      expected[#expected + 1] = { p.policy, ("%d"):format(flight), ("%d"):format(p.waiting) }
      for _, limit in ipairs(p.limits) do
        local share = limit.capacity ~= cjson.null
          and ("%g%%"):format(100 - 100 * limit.available / limit.capacity) or "0%"
        expected[#expected + 1] = { limit.name, limit.limit, share, text(limit.available),
          limit.capacity == cjson.null and "" or text(limit.capacity):gsub("^(%d)(%d%d%d)$",
            "%1,%2") }
      end
    end
    local shown = tab:eval [[[...by("policies").tBodies].flatMap(body => [...body.rows].map(row =>
      row.className.startsWith("limit")
        ? [row.cells[0].textContent, row.cells[1].textContent,
            row.querySelector("i").style.width, row.cells[3].textContent, row.cells[4].textContent]
        : [row.querySelector("button").textContent, row.querySelector(".flight").textContent,
            row.querySelector(".waiting").textContent]))]]
    assert.same(expected, shown)
    assert.same({ "openai", "3", "0" }, shown[1])
    assert.same({ "input", "1k/d", "45%", "550", "1,000" }, shown[3])
    assert.same({ { granted = 3, waited = 0, retry = 1, never = 1, shed = 0 },
      { granted = 2, waited = 1, retry = 0, never = 0, shed = 0 } },
      { is.policies[1].said, is.policies[2].said })
    assert.equal("chat <b>completions</b>", tab:eval "document.querySelector('.doc').textContent")
  end)

  it_shows("shows events, those of a kind together, once", function ()
    local one = process.dial(resp)
    one:ask("NEAP.ACQUIRE", "github", "TTL", "1", "DETACH")
    process.eventually(function () return one:ask("NEAP.SNAPSHOT", "github")[6] == 0 end)
    open()   -- and hears of what was before
    tab:wait "document.querySelectorAll('#events li').length === 1"
    local function line() return tab:eval "by('events').textContent" end
    assert.matches("^%d%d:%d%d:%d%dexpired githubheld [%d.]+ m?s$", line())
    tab:wait "by('news').textContent === 'expired github'"
    tab:eval [[ globalThis.again = { data: JSON.stringify({ ...events[0], count: 2, b: "<i>" }),
      lastEventId: heard[0] + "-" + (heard[1] + 1) }; take_event(again); take_event(again) ]]
    assert.matches("^%d%d:%d%d:%d%dexpired github×3held [^·]* · b <i>$", line())
    tab:eval [[ take_event({ data: JSON.stringify({ ...events[0], event: "shed", policy: "free" }),
      lastEventId: "0-1" }) ]]   -- another life of the worker
    assert.matches("shed free.*expired github", line())
    tab:eval "select('free')"
    assert.is_nil(line():find "github")
  end)

  it_shows("counts rates by the worker's clock, and leaves gaps where it knows nothing", function ()
    open()
    tab:eval(BY_HAND)
    local function now(ms, granted)
      tab:eval(("told(%d, [policy('a', %d)])"):format(ms, granted))
      return tab:eval "by('granted').textContent"
    end
    assert.equal("–", now(1000, 10))
    assert.equal("20", now(2000, 30))
    assert.equal("5.0", now(4000, 40))
    assert.equal("–", now(14000, 50))    -- ten seconds without a word
    assert.equal("1,500", now(15000, 1550))
    assert.equal("–", now(100, 0))       -- another life
    assert.equal("0", now(1100, 0))
    assert.same({ cjson.null, { 20, 0, 0 }, { 5, 0, 0 }, { 5, 0, 0 }, cjson.null },
      tab:eval "rows.get('a').history.rates.slice(0, 5)")
    assert.equal(1 + 1 + 2 + 10 + 1 + 1 + 1, tab:eval "rows.get('a').history.rates.length")
    for i = 1, 130 do now(1100 + i * 1000, i) end
    assert.equal(120, tab:eval "rows.get('a').history.rates.length")
    assert.equal(120, tab:eval
      "document.querySelector('#chart path.granted').getAttribute('d').split('M').length - 1")
    assert.matches("now 1.0 granted at once, 0 after a wait, 0 refused; at most 1.0",
      tab:eval "by('chart').getAttribute('aria-label')")
    tab:eval "document.querySelector('summary').click()"
    tab:wait "by('chart-table').tBodies[0].rows.length === 12"
    assert.equal("110 to 120|1.0|0|0",
      tab:eval "[...by('chart-table').tBodies[0].rows[11].cells].map(c => c.textContent).join('|')")
  end)

  it_shows("has room for one policy and for many", function ()
    open()
    tab:eval(BY_HAND)
    tab:eval [[ for (const ms of [1000, 2000]) told(ms, Array.from({ length: 200 }, (_, i) =>
      policy("tenant-" + i, i * ms / 1000, { breaker: i === 7 ? "open" : "closed",
        backoff_ms: i === 7 ? 2500 : 0, limits: [
          { name: "calls", limit: "9 in flight", available: 9 - i % 10, capacity: 9,
            in_flight: i % 10 }] }))) ]]
    local SIZE = [[ [by("policies").tBodies.length, by("filter-label").hidden,
      by("policies-title").textContent] ]]
    assert.same({ 200, false, "200 policies" }, tab:eval(SIZE))
    assert.equal("tenant-7breaker open · back-off 3 s",
      tab:eval "rows.get('tenant-7').body.rows[0].cells[0].textContent")
    assert.equal("limit full", tab:eval "rows.get('tenant-9').body.rows[1].className")
    tab:eval [[ by("filter").value = "-19"; by("filter").dispatchEvent(new Event("input")) ]]
    assert.equal(11, tab:eval "[...rows.values()].filter(row => !row.body.hidden).length")
    tab:screenshot(BUILD .. "/page-many.png")
    tab:eval "told(3000, [policy('one', 1)])"
    assert.same({ 1, true, "1 policy" }, tab:eval(SIZE))
  end)

  it_shows("can be used by keyboard alone", function ()
    open()
    tab:wait "rows.size === 4"
    local walk = {}
    for i = 1, 7 do
      tab:press "Tab"
      local at = tab:eval [[(() => { const e = document.activeElement, s = getComputedStyle(e);
        return [e.id || e.textContent, s.outlineStyle !== "none" && parseFloat(s.outlineWidth) > 1]
      })()]]
      assert.is_true(at[2], at[1])
      walk[i] = at[1]
    end
    assert.same({ "Skip to the policies", "pause", "The chart as a table", "openai", "github",
      "stripe", "free" }, walk)   -- no events: nothing to scroll there
    tab:press "Tab"                -- out of the page
    tab:press "Tab"
    tab:press "Enter"
    assert.equal("policies", tab:eval "document.activeElement.id")
    tab:press "Tab"
    tab:press "Tab"
    tab:press "Enter"
    assert.same({ "of github", "true", "false" }, tab:eval [[ [by("scope").textContent,
      rows.get("github").button.getAttribute("aria-pressed"),
      rows.get("openai").button.getAttribute("aria-pressed")] ]])
    tab:press " "
    assert.equal("of all policies", tab:eval "by('scope').textContent")
    for _ = 1, 3 do tab:press "Shift+Tab" end
    assert.equal("pause", tab:eval "document.activeElement.id")
    tab:press " "
    assert.equal("true", tab:eval "by('pause').getAttribute('aria-pressed')")
    local shown = tab:eval "by('about').textContent"
    tab:eval "globalThis.before = state.worker.now_ms"
    tab:wait "state.worker.now_ms >= before + 1000"
    assert.equal(shown, tab:eval "by('about').textContent")
    tab:press "Enter"
    assert.not_equal(shown, tab:eval "by('about').textContent")
  end)

  it_shows("can be read aloud", function ()
    open()
    tab:wait "rows.size === 4"
    local count, named = {}, {}
    for _, node in ipairs(tab:tree()) do
      count[node.role] = (count[node.role] or 0) + 1
      named[node.role .. " " .. (node.name or "")] = node
      if NAMED[node.role] then
        assert.truthy(node.name and node.name ~= "", node.role)
      end
    end
    for _, name in ipairs { "RootWebArea neap " .. http, "heading neap", "heading 4 policies",
      "heading Events", "table 4 policies", "columnheader Free", "columnheader Refused/s",
      "rowheader openai chat <b>completions</b>", "rowheader requests", "button Pause",
      "link Skip to the policies", "banner ", "main ", "region Answers of all policies" } do
      assert.truthy(named[name], name)
    end
    assert.equal(1, count.image)
    assert.equal(4 + 6, count.rowheader)
    assert.equal(1 + 4 + 6, count.row)
    assert.same({ "polite", "polite" },
      { tab:eval "by('news').getAttribute('aria-live')", named["status "].live })
  end)

  it_shows("is legible in light and dark, wide and narrow", function ()
    open()
    tab:eval(BY_HAND)
    tab:eval(TIDE)
    local grounds = {}
    for _, scheme in ipairs { "light", "dark" } do
      tab:look { width = WIDE.width, height = WIDE.height, scheme = scheme }
      grounds[scheme] = tab:eval "getComputedStyle(document.documentElement).backgroundColor"
      for _, class in ipairs { "serving", "draining" } do
        tab:eval("document.body.className = '" .. class .. "'")
        local lowest = tab:eval(CONTRAST)[1]
        assert.truthy(lowest[1] >= 4.5, scheme .. " " .. lowest[1] .. " " .. lowest[2])
      end
      tab:eval "document.body.className = 'serving'"
      tab:screenshot(BUILD .. "/page-" .. scheme .. ".png")
      tab:look { width = NARROW.width, height = NARROW.height, scheme = scheme }
      assert.equal(NARROW.width, tab:eval "document.documentElement.scrollWidth")
      tab:screenshot(BUILD .. "/page-narrow-" .. scheme .. ".png")
    end
    assert.same({ light = "rgb(252, 251, 248)", dark = "rgb(19, 23, 26)" }, grounds)
    local file = io.open(BUILD .. "/page-dark.png", "rb")
    local bytes = file:read "*a"
    file:close()
    assert.equal("\137PNG\r\n", bytes:sub(1, 6))
    assert.truthy(#bytes > 10000)
  end)

  it("lets no other script run", function ()
    if not program then pending "no Chromium here: chromium-headless-shell" return end
    open()
    tab:eval [[ globalThis.refused = [];
      addEventListener("securitypolicyviolation", e => refused.push(e.effectiveDirective));
      const evil = document.createElement("div");
      evil.innerHTML = "<img src=x onerror='globalThis.ran = 1'><b style='color: red'>";
      document.body.append(evil);
      const code = document.createElement("script");
      code.textContent = "globalThis.ran = 2";
      document.body.append(code);
      fetch("http://127.0.0.1:1/").catch(() => {}); ]]
    tab:wait "refused.includes('connect-src') && refused.includes('img-src')"
    local refused = tab:eval "refused.sort().join(' ')"
    for _, what in ipairs { "connect-src", "img-src", "script-src-elem", "style-src-attr" } do
      assert.truthy(refused:find(what, 1, true), what .. " in " .. refused)
    end
    assert.is_nil(tab:eval "globalThis.ran")
  end)

  it("says when the worker goes, is gone, and is back", function ()
    if not program then pending "no Chromium here: chromium-headless-shell" return end
    open()
    tab:eval [[ globalThis.seen = []; new MutationObserver(() => seen.push(document.body.className
      + ": " + by("state").textContent)).observe(by("state"), { childList: true, subtree: true }) ]]
    running:stop()
    tab:wait "document.body.className === 'lost'"
    assert.same({ "draining: draining: nothing more is granted",
      "lost: connection lost, trying again" }, tab:eval "seen")
    assert.matches("^lost – neap", tab:eval "document.title")
    assert.matches("drain", tab:eval "by('events').textContent")
    start('policy "other" { limits = { all = "1/d" } }', http)
    tab:wait "document.body.className === 'serving'"
    assert.equal("other", tab:wait "by('policies').tBodies.length === 1 && [...rows.keys()][0]")
    running:stop "KILL"
    tab:wait "document.body.className === 'lost'"
  end)

  it("asks for a password where users are declared", function ()
    if not program then pending "no Chromium here: chromium-headless-shell" return end
    running:stop()
    start(FILE .. 'user "eye" { password = "e:e", allow = "read events" }')
    open { width = 1280, height = 900, login = { user = "eye", password = "e:e" } }
    assert.equal(4, tab:wait "rows.size")
    assert.equal(1, chromium.asked)   -- once, for the page; its stream has it from there
  end)
end)
