// The page: once a second the worker says how it stands, and it says events as they happen. What is
// shown is what it said last; rates are differences of its counters over the time between, by its
// own clock. When it says nothing the page says so, and asks again.
"use strict";

const SPAN = 120;             // seconds in the chart
const EVENTS = 50;
const SILENCE_MS = 4000;      // then the line is lost, whatever the browser believes
const AGAIN_MS = 2000;
const TOGETHER_S = 10;        // of the same kind, they are on one line
const NEWS_MS = 10000;        // between two things said aloud

const by = id => document.getElementById(id);
const make = (name, classes, text) => {
  const node = document.createElement(name);
  if (classes) node.className = classes;
  if (text !== undefined) node.textContent = text;
  return node;
};
const show = (node, text) => {
  text = String(text);
  if (node.textContent !== text) node.textContent = text;
};
const SVG = "http://www.w3.org/2000/svg";

// ---- numbers ------------------------------------------------------------------------------------

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const large = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });
const count = n => n == null ? "–" : Math.abs(n) < 1e6 ? whole.format(n) : large.format(n);
const rate = n => n == null ? "–" : n === 0 ? "0" : n < 9.95 ? n.toFixed(1) : count(n);
const plural = (n, one, many) => count(n) + " " + (n === 1 ? one : many);

function duration(s) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = parts.findIndex(([size]) => s >= size);
  if (at < 0) return "0 s";
  if (s < 10 && s % 1) return s.toFixed(1) + " s";
  const [size, unit] = parts[at], next = parts[at + 1];
  const rest = next ? Math.floor(s % size / next[0]) : 0;
  return Math.floor(s / size) + " " + unit + (rest ? " " + rest + " " + next[1] : "");
}

// ---- what was answered, second by second --------------------------------------------------------

const KINDS = ["granted", "waited", "refused"];

function said(policy) {
  const { granted, waited, retry, never, shed } = policy.said;
  return [granted - waited, waited, retry + never + shed];
}

// The last SPAN seconds of one policy, or of all: rates by kind, oldest first; null: not known.
class History {
  constructor() { this.rates = []; this.before = null; }
  add(totals, seconds) {
    const before = this.before;
    this.before = totals;
    const known = before && seconds > 0 && seconds < 3 && totals.every((n, i) => n >= before[i]);
    const rates = known ? totals.map((n, i) => (n - before[i]) / seconds) : null;
    const times = Math.min(SPAN, Math.max(1, Math.round(seconds)));
    this.rates.push(...Array(times).fill(rates));
    this.rates.splice(0, this.rates.length - SPAN);
  }
  get last() { return this.rates[this.rates.length - 1] || [null, null, null]; }
}

// Stacked bars, one a second, in a box of SPAN by height: a path for each kind.
function bars(history, top, height) {
  const paths = KINDS.map(() => "");
  const first = SPAN - history.rates.length;
  history.rates.forEach((rates, i) => {
    if (!rates) return;
    let y = height;
    rates.forEach((n, kind) => {
      if (!n) return;
      const h = n / top * height;
      paths[kind] += `M${first + i} ${y.toFixed(2)}v${(-h).toFixed(2)}h.8v${h.toFixed(2)}z`;
      y -= h;
    });
  });
  return paths;
}

const most = history => Math.max(0, ...history.rates.map(r => r ? r[0] + r[1] + r[2] : 0));

// 1, 2 or 5 with zeros: where the scale ends.
function round_up(n) {
  const ten = 10 ** Math.floor(Math.log10(Math.max(n, 1)));
  return [1, 2, 5, 10].map(m => m * ten).find(m => m >= n);
}

// ---- state --------------------------------------------------------------------------------------

const all = new History();
const rows = new Map();       // by policy
let selected = null, paused = false, state = null, heard_at = 0, clock_ms = null, source = null;

function used_of(limit) {
  if (!(limit.capacity > 0) || limit.available == null) return null;
  return Math.min(1, Math.max(0, 1 - limit.available / limit.capacity));
}

function in_flight(policy) {
  const held = policy.limits.map(limit => limit.in_flight).filter(n => n != null);
  return held.length ? Math.max(...held) : policy.leases;
}

// With less room the rules are left out, then trends: see the style.
const middling = matchMedia("(max-width: 60rem)"), narrow = matchMedia("(max-width: 40rem)");

class Row {
  constructor(policy) {
    this.name = policy.policy;
    this.history = new History();
    this.shape = "";
    this.body = make("tbody");
    by("policies").append(this.body);
  }
  // Its rows anew, when the policy has other limits than before.
  build(policy) {
    const head = make("tr"), name = make("th");
    name.scope = "rowgroup";
    name.colSpan = middling.matches && !narrow.matches ? 1 : 2;
    this.button = make("button", "", policy.policy);
    this.button.type = "button";
    this.button.setAttribute("aria-pressed", String(selected === this.name));
    this.button.addEventListener("click", () => select(selected === this.name ? null : this.name));
    name.append(this.button);
    if (policy.doc) name.append(make("span", "doc", policy.doc));
    this.health = make("span", "health");
    name.append(this.health);
    const level = make("td", "level");
    this.trend = document.createElementNS(SVG, "svg");
    for (const [key, value] of [["class", "trend"], ["viewBox", `0 0 ${SPAN} 20`],
      ["preserveAspectRatio", "none"], ["aria-hidden", "true"]]) this.trend.setAttribute(key, value);
    for (const kind of KINDS) {
      this.trend.append(document.createElementNS(SVG, "path"));
      this.trend.lastChild.setAttribute("class", kind);
    }
    level.append(this.trend);
    this.cells = {};
    const cell = (key, classes) => this.cells[key] = make("td", classes);
    head.append(name, ...(narrow.matches ? [] : [level]), make("td", "n"), make("td", "n of"),
      cell("flight", "n flight"), cell("waiting", "n"), cell("granted", "n"), cell("refused", "n"));
    this.limits = policy.limits.map(limit => this.limit(limit));
    this.body.replaceChildren(head, ...this.limits.map(one => one.row));
  }
  limit(limit) {
    const row = make("tr", "limit"), name = make("th", "", limit.name), level = make("td", "level");
    name.scope = "row";
    const fill = make("span", "fill"), bar = make("i");
    fill.setAttribute("aria-hidden", "true");
    fill.append(bar);
    level.append(fill);
    const free = make("td", "n free"), of = make("td", "n of"), rest = make("td");
    const flight = make("td", "n flight");
    rest.colSpan = 3;
    row.append(name, make("td", "rule", limit.limit), level, free, of, flight, rest);
    return { row, bar, free, of, flight };
  }
  fit(policy) {
    const shape = JSON.stringify([policy.doc, policy.limits.map(l => [l.name, l.limit])]);
    if (shape !== this.shape) {
      this.shape = shape;
      this.build(policy);
    }
    this.policy = policy;
  }
  update(policy, seconds) {
    this.fit(policy);
    this.history.add(said(policy), seconds);
  }
  draw() {
    const { policy, cells } = this, [now, later, refused] = this.history.last;
    const put = (key, text, n, classes) => {
      show(cells[key], text);
      cells[key].className = `n ${key} ${n ? classes : "zero"}`;
    };
    const flight = in_flight(policy), granted = now == null ? null : now + later;
    put("flight", count(flight), flight, "");
    put("waiting", count(policy.waiting), policy.waiting, "some");
    put("granted", rate(granted), granted, "");
    put("refused", rate(refused), refused, "bad");
    const { breaker, backoff_ms } = policy;
    show(this.health, [breaker && "breaker " + breaker,
      backoff_ms && "back-off " + duration(Math.ceil(backoff_ms / 1000))].filter(Boolean).join(" · "));
    this.health.className = "health " + (breaker === "open" || backoff_ms ? "bad"
      : breaker === "half-open" ? "testing" : "");
    this.limits.forEach((one, i) => {
      const limit = policy.limits[i], used = used_of(limit);
      one.bar.style.width = (100 * (used || 0)).toFixed(1) + "%";
      one.row.className = "limit" + (used >= 1 ? " full" : used >= 0.8 ? " high" : "");
      show(one.free, limit.available == null ? "∞" : count(limit.available));
      show(one.of, limit.capacity == null ? "" : count(limit.capacity));
      show(one.flight, limit.in_flight == null ? "" : count(limit.in_flight));
    });
    const top = most(this.history) || 1;
    bars(this.history, top, 20).forEach((path, i) => this.trend.children[i].setAttribute("d", path));
  }
}

function select(name) {
  selected = name;
  for (const row of rows.values()) {
    row.button.setAttribute("aria-pressed", String(row.name === name));
  }
  draw();
  draw_events();
}

// ---- drawing ------------------------------------------------------------------------------------

function draw_chart() {
  const row = rows.get(selected), history = row ? row.history : all;
  const of = row ? [row.policy] : state.policies;
  const sum = read => of.reduce((total, policy) => total + read(policy), 0);
  const [granted, waited, refused] = history.last;
  show(by("scope"), row ? "of " + row.name : "of all policies");
  show(by("granted"), rate(granted));
  show(by("waited"), rate(waited));
  show(by("refused"), rate(refused));
  show(by("in-flight"), count(sum(in_flight)));
  show(by("in-line"), count(sum(policy => policy.waiting)));
  const top = round_up(most(history));
  const paths = document.querySelectorAll("#chart path:not(.grid)");
  bars(history, top, 100).forEach((path, i) => paths[i].setAttribute("d", path));
  show(by("scale-top"), count(top) + "/s");
  show(by("scale-half"), rate(top / 2) + "/s");
  by("chart").setAttribute("aria-label", `Answers of the last two minutes, per second: now `
    + `${rate(granted)} granted at once, ${rate(waited)} after a wait, ${rate(refused)} refused; `
    + `at most ${rate(most(history))} together`);
  if (by("chart-table").parentElement.open) draw_chart_table(history);
}

// Means over ten seconds each.
function draw_chart_table(history) {
  const body = by("chart-table").tBodies[0], lines = [];
  for (let ago = 0; ago < SPAN; ago += 10) {
    const end = history.rates.length - ago;
    const known = history.rates.slice(Math.max(0, end - 10), Math.max(0, end)).filter(Boolean);
    if (!known.length) continue;
    const mean = kind => known.reduce((sum, rates) => sum + rates[kind], 0) / known.length;
    lines.push([`${ago} to ${ago + 10}`, ...KINDS.map((_, kind) => rate(mean(kind)))]);
  }
  while (body.rows.length > lines.length) body.deleteRow(-1);
  lines.forEach((line, i) => {
    const row = body.rows[i] || body.insertRow();
    line.forEach((text, j) => {
      if (!row.cells[j]) row.append(make(j ? "td" : "th"));
      if (!j) row.cells[j].scope = "row";
      show(row.cells[j], text);
    });
  });
}

function draw() {
  if (!state) return;
  const { worker, policies } = state;
  show(by("about"), `${location.host} · up ${duration(worker.uptime_s)} · ${plural(worker.clients, "client", "clients")}`
    + ` · version ${worker.version}`);
  show(by("policies-title"), plural(policies.length, "policy", "policies"));
  by("filter-label").hidden = policies.length < 8;
  draw_chart();
  for (const row of rows.values()) if (!row.body.hidden) row.draw();
}

function filter() {
  const wanted = by("filter").value.trim().toLowerCase();
  let shown = 0;
  for (const row of rows.values()) {
    row.body.hidden = !row.name.toLowerCase().includes(wanted);
    shown += !row.body.hidden;
  }
  by("none").hidden = shown > 0 || !rows.size;
}

function take(news) {
  const seconds = clock_ms == null ? 0 : (news.worker.now_ms - clock_ms) / 1000;
  clock_ms = news.worker.now_ms;
  const names = new Set(news.policies.map(policy => policy.policy));
  for (const [name, row] of rows) {
    if (names.has(name)) continue;
    row.body.remove();
    rows.delete(name);
    if (selected === name) selected = null;
  }
  const before = rows.size;
  const totals = [0, 0, 0];
  for (const policy of news.policies) {
    if (!rows.has(policy.policy)) rows.set(policy.policy, new Row(policy));
    rows.get(policy.policy).update(policy, seconds);
    said(policy).forEach((n, i) => totals[i] += n);
  }
  all.add(totals, seconds);
  state = news;
  if (rows.size !== before) filter();
  if (!paused && !document.hidden) draw();
}

// ---- events -------------------------------------------------------------------------------------

const events = [];            // newest first; those of a kind that came together are one
let heard = null;             // the last id: after a loss some are told again
let silent_until = 0, unsaid = [];

function take_event(message) {
  const [life, number] = message.lastEventId.split("-");
  if (heard && heard[0] === life && +number <= heard[1]) return;
  heard = [life, +number];
  const event = JSON.parse(message.data);
  unsaid.push(event);
  const like = events.findIndex(one => one.policy === event.policy && one.event === event.event
    && event.at - one.at < TOGETHER_S && event.at - one.since < TOGETHER_S);
  const [before] = like < 0 ? [null] : events.splice(like, 1);
  events.unshift({ ...event, count: event.count + (before ? before.count : 0),
    since: before ? before.since : event.at });
  if (events.length > EVENTS) events.pop();
  if (!paused) draw_events();
}

function item(event) {
  const line = make("li"), what = make("span", "what");
  const time = make("time", "", new Date(event.at * 1000).toLocaleTimeString("en-GB"));
  time.dateTime = new Date(event.at * 1000).toISOString();
  what.append(make("b", "", event.event), " ", event.policy === "-" ? "" : event.policy);
  line.append(time, what, make("span", "n", event.count > 1 ? "×" + count(event.count) : ""));
  const more = Object.entries(event)
    .filter(([key]) => !["since", "policy", "event", "at", "count"].includes(key))
    .map(([key, value]) => key.endsWith("_ms") ? key.slice(0, -3).replaceAll("_", " ") + " "
      + (value < 1000 ? value + " ms" : duration(value / 1000))
      : `${key.replaceAll("_", " ")} ${value}`).join(" · ");
  if (more) line.append(make("span", "more", more));
  return line;
}

function draw_events() {
  const wanted = events.filter(event => !selected || event.policy === selected
    || event.policy === "-");
  by("events").replaceChildren(...wanted.map(item));
  by("events").hidden = !wanted.length;
  by("no-events").hidden = wanted.length > 0;
}

// Said aloud: what is new, all together, and not more often than every NEWS_MS.
function speak() {
  if (paused || !unsaid.length || Date.now() < silent_until) return;
  const counts = new Map();
  for (const event of unsaid) {
    const name = event.event + (event.policy === "-" ? "" : " " + event.policy);
    counts.set(name, (counts.get(name) || 0) + event.count);
  }
  unsaid = [];
  silent_until = Date.now() + NEWS_MS;
  const parts = [...counts].slice(0, 3).map(([name, n]) => n > 1 ? `${name}, ${n} times` : name);
  show(by("news"), parts.join("; ") + (counts.size > 3 ? `; and ${counts.size - 3} more` : ""));
}

// ---- the line -----------------------------------------------------------------------------------

function stand(word, text) {
  if (document.body.className !== word) document.body.className = word;
  show(by("state"), text);
  document.title = (word === "serving" ? "" : word + " – ") + "neap " + location.host;
}

function connect() {
  if (source) source.close();
  source = new EventSource("v1/events?state=1&last=" + EVENTS);
  heard_at = Date.now();
  source.addEventListener("state", message => {
    heard_at = Date.now();
    take(JSON.parse(message.data));
    const { draining } = state.worker;
    stand(draining ? "draining" : "serving", draining ? "draining: nothing more is granted" : "serving");
  });
  source.addEventListener("message", take_event);
  source.addEventListener("error", lost);
}

function lost() {
  stand("lost", "connection lost, trying again");
  if (source.readyState === EventSource.CLOSED) setTimeout(connect, AGAIN_MS);
}

setInterval(() => {
  speak();
  if (Date.now() - heard_at < SILENCE_MS) return;
  lost();
  connect();
}, 1000);

by("pause").addEventListener("click", () => {
  paused = !paused;
  by("pause").setAttribute("aria-pressed", String(paused));
  if (paused) return;
  draw();
  draw_events();
});
for (const room of [middling, narrow]) room.addEventListener("change", () => {
  for (const row of rows.values()) {
    row.shape = "";
    row.fit(row.policy);
  }
  draw();
});
by("filter").addEventListener("input", () => { filter(); draw(); });
by("chart-table").parentElement.addEventListener("toggle", () => { if (state) draw_chart(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden && !paused) draw(); });
draw_events();
connect();
