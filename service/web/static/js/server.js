// The page of one server: what is asked for when, and where it is shown.

import { ApiError, get, post } from "./api.js";
import { Chart, EVENT_NAMES } from "./chart.js";
import { choice, onChoice } from "./choices.js";
import { byId, make, setText } from "./dom.js";
import { age, bytes, clock, count, duration, moment, NOTHING, rate } from "./format.js";
import { Interfaces } from "./interfaces.js";
import { Gauges, showFilesystems } from "./machine.js";
import { pair, setPair } from "./pair.js";
import { bucketOf, events, gaps, iso, load, loadAll, PERIODS, seconds, SHORTEST_ZOOM_SECONDS, summary } from "./traffic.js";
import { lastDay, monthName, QuotaForm, quotaWords, showMonths } from "./usage.js";
import { warnings } from "./warnings.js";

const LOOK_SECONDS = 1.5;
const USAGE_SECONDS = 60;
const MOST_EVENTS = 6;
const TOTAL = ""; // of the interface's choice: all of them

const id = decodeURIComponent(location.pathname.split("/")[2]);
const path = `/api/v1/servers/${encodeURIComponent(id)}`;
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

// What is known by now; null is not there yet.
const known = { server: null, agent: null, series: null, seriesOf: null, traffic: null, notes: [], usage: null, today: null, months: null };
// What the reader chose; it is in the address.
const chosen = { period: "24h", interface: null, zoom: null };

function readAddress() {
  const query = new URLSearchParams(location.search);
  chosen.period = PERIODS.has(query.get("period")) ? query.get("period") : "24h";
  chosen.interface = query.get("interface") || null;
  const since = Date.parse(query.get("since")) / 1000;
  const until = Date.parse(query.get("until")) / 1000;
  chosen.zoom = until - since >= SHORTEST_ZOOM_SECONDS ? { since, until } : null;
}

function address(changes = {}) {
  const { period, interface: name, zoom } = { ...chosen, ...changes };
  const query = new URLSearchParams();
  if (period !== "24h") query.set("period", period);
  if (name != null) query.set("interface", name);
  if (zoom) {
    query.set("since", iso(zoom.since));
    query.set("until", iso(zoom.until));
  }
  return query.size ? `${location.pathname}?${query}` : location.pathname;
}

/** Takes over what the reader chose, and shows it; going back in the browser takes it back. */
function go(changes) {
  const next = address(changes);
  if (next === location.pathname + location.search) return;
  history.pushState(null, "", next);
  Object.assign(chosen, changes);
  showChoices();
  refreshTraffic();
  if ("period" in changes) refreshPeriod();
}

// The head

function showServer() {
  const { server, agent } = known;
  const now = Date.now();
  document.title = `${server.id} · Linkbeat`;
  setText(byId("name"), server.id);
  const isOnline = server.status === "online";
  const status = server.paused && isOnline ? ["paused", "warn"] : [server.status, isOnline ? "ok" : "bad"];
  setText(byId("status"), status[0]);
  byId("status").className = `badge ${status[1]}`;
  showAge();
  const facts = [
    ["Hostname", server.hostname],
    ["Up for", server.latest_metrics?.uptime_seconds == null ? null : duration(server.latest_metrics.uptime_seconds)],
    ["Primary interface", server.primary_interface],
    ["Agent", server.agent_version],
    ["System", server.os_info?.pretty_name ?? server.os_info?.name ?? null],
    ["Known since", moment(server.first_seen, now)],
  ];
  byId("facts").replaceChildren(...facts.filter(([, value]) => value).map(fact));
  const found = agent ? warnings(server, agent, now) : [];
  byId("warnings").hidden = !found.length;
  byId("warnings").replaceChildren(...found.map(({ level, words, remedy }) =>
    make("li", { class: level }, make("strong", {}, words), ` ${remedy}`)));
  showNow();
  showFilesystems(byId("filesystems"), server.filesystems);
  gauges.show(server.latest_metrics);
  showInterfaceChoice();
}

function fact([name, value]) {
  return make("div", {}, make("dt", {}, name), make("dd", {}, value));
}

function showAge() {
  if (known.agent) setText(byId("seen"), `last heartbeat ${age(Date.parse(known.agent.received_at), Date.now())}`);
}

function figure(name, rx, tx, note) {
  const element = byId(`figure-${name}`);
  if (!element.children.length) element.append(...pair());
  setPair(element, rx, tx);
  setText(byId(`note-${name}`), note);
}

function showNow() {
  const { server } = known;
  const units = choice("units");
  const lowest = server.network_interfaces.filter((one) => one.is_lowest && !one.is_folded);
  const of = (field) => {
    const rates = lowest.map((one) => one[field]).filter((bps) => bps != null);
    return server.status === "online" && rates.length ? rates.reduce((total, bps) => total + bps, 0) : null;
  };
  const [rx, tx] = [of("rx_bps"), of("tx_bps")];
  const seen = new Date(server.last_seen);
  figure("now", rate(rx, units), rate(tx, units), rx == null ? "no data" : `measured at ${seen.toLocaleTimeString([])}`);
}

function showUsage() {
  const { usage, today, months } = known;
  const units = choice("units");
  if (today) {
    const sum = today.days.at(-1);
    figure("today", bytes(sum?.rx_bytes), bytes(sum?.tx_bytes), sum ? `since midnight, ${today.time_zone}` : "no data yet");
  }
  if (usage) {
    const { month } = usage;
    setText(byId("title-month"), monthName(month.since, usage.time_zone));
    const has = month.samples > 0;
    const forecast = month.expected
      ? `about ${bytes(month.expected.total_bytes)} in all by ${lastDay(month.until, usage.time_zone)}`
      : has ? "a forecast comes after a day" : "no data yet";
    figure("month", bytes(has ? month.rx_bytes : null), bytes(has ? month.tx_bytes : null), forecast);
    const rates = month.percentile?.of_samples;
    figure("last", rate(rates?.rx_bps, units), rate(rates?.tx_bps, units), rates ? "of this month's 5-minute rates" : "no data yet");
    showQuota(usage.quota);
  }
  if (months) {
    setText(byId("usage-zone"), `months of ${months.time_zone}`);
    showMonths(byId("months"), months, units);
  }
}

function showQuota(quota) {
  const element = byId("quota-state");
  element.hidden = !quota;
  setText(byId("quota").querySelector("summary"), quota ? "Change the quota" : "Set a quota");
  form.show(quota);
  if (!quota) return;
  const words = quotaWords(quota);
  const fill = make("span", { class: `fill ${words.level}` });
  fill.style.width = `${Math.min(100, words.share)}%`;
  const badge = { ok: "ok", near: "warn", over: "bad" }[words.level];
  element.replaceChildren(
    make("strong", {}, `Quota: ${words.used}`), make("span", { class: `badge ${badge}` }, words.state),
    make("span", { class: "muted" }, words.forecast), make("span", { class: "bar" }, fill),
    make("span", { class: "muted sizes" }, words.counts),
  );
}

// The chart

function describe(index) {
  const { traffic } = known;
  const start = traffic.starts[index];
  const end = start + traffic.width;
  const units = choice("units");
  const exact = (bps, octets) => (bps == null ? NOTHING : `${rate(bps, units)}, ${count(octets)} B`);
  return {
    time: span(start, end),
    rx: exact(traffic.rx[index], traffic.rxBytes[index]), tx: exact(traffic.tx[index], traffic.txBytes[index]),
    notes: notesOf(start, end),
  };
}

function span(start, end) {
  const isDays = end - start >= 86_400;
  return isDays ? moment(start * 1000) : `${moment(start * 1000)} – ${clock(end * 1000)}`;
}

function notesOf(start, end) {
  const found = known.notes.filter((note) => note.at >= start && note.at < end && note.kind !== "gap").map((note) => note.words);
  const missing = known.notes.filter((note) => note.kind === "gap");
  if (missing.some((note) => start >= note.at && end <= note.until)) found.unshift("no data");
  // What crossed it is unknown where the machine itself was new, or away since before the chart begins.
  if (missing.some((note) => note.until === start && note.at > known.traffic.since)) found.unshift("with all that crossed the gap, at its mean rate");
  return found;
}

const EVENT_WORDS = {
  reboot: (event) => `Reboot: the counters of ${names(event.interfaces)} began anew${lost(event)}.`,
  reset: (event) => `The counters of ${names(event.interfaces)} began anew without a reboot${lost(event)}.`,
  rejected: (event) => `${names(event.interfaces)} showed more than the line can carry: not counted.`,
};

function names(interfaces) {
  return interfaces.length > 3 ? `${interfaces.slice(0, 2).join(", ")} and ${interfaces.length - 2} more` : interfaces.join(", ");
}

function lost({ elapsed_seconds: elapsed }) {
  return elapsed ? `; what moved before it, for up to ${duration(elapsed)}, is not known` : "";
}

function showTraffic(traffic, happened) {
  known.traffic = traffic;
  const missing = gaps(traffic, timing().interval);
  known.notes = [
    ...happened.map((event) => ({ at: event.at, kind: event.kind, words: EVENT_WORDS[event.kind](event) })),
    ...missing.map(({ since, until }) => ({
      at: since, until, kind: "gap",
      words: `No data from ${moment(since * 1000)} to ${moment(until * 1000)}, ${duration(until - since)}.`,
    })),
  ].sort((one, other) => one.at - other.at);
  const isEmpty = traffic.rx.every((bps) => bps == null);
  byId("empty").hidden = !isEmpty;
  byId("chart").hidden = isEmpty;
  if (!isEmpty) chart.show(traffic, { gaps: missing, events: happened }, choice("units") === "bytes" ? 8 : 1);
  showSummary();
  showNumbers();
}

function showSummary() {
  const { traffic, notes } = known;
  const units = choice("units");
  const { rxBytes, txBytes, rxPeak, txPeak } = summary(traffic);
  const peak = (found) => (found ? `, at most ${rate(found.bps, units)} at ${span(found.start, found.start + traffic.width)}` : "");
  byId("summary").replaceChildren(
    make("span", { class: "rx-text" }, `↓ ${bytes(rxBytes)} received${peak(rxPeak)}`), " ",
    make("span", { class: "tx-text" }, `↑ ${bytes(txBytes)} sent${peak(txPeak)}`),
  );
  byId("summary").hidden = !rxPeak;
  const shown = notes.slice(-MOST_EVENTS);
  const rest = notes.length - shown.length;
  byId("events").replaceChildren(
    ...(rest ? [make("li", { class: "muted" }, `${rest} more before; the table has them all.`)] : []),
    ...shown.map((note) => make("li", { class: note.kind }, note.kind === "gap" ? note.words : `${moment(note.at * 1000)}: ${note.words}`)),
  );
  const counted = traffic.counted ?? [];
  setText(byId("counted"), counted.length > 1 ? `sum of ${names(counted)}, each byte once` : counted.length ? `of ${counted[0]}` : "");
}

/** The numbers of the chart, made when the reader opens them. */
function showNumbers() {
  const details = byId("numbers");
  if (!details.open) return;
  const { traffic } = known;
  const units = choice("units");
  setText(byId("numbers-caption"), `Traffic of ${chosen.interface ?? "all interfaces"}, in steps of ${duration(traffic.width)}, the newest first`);
  const rows = traffic.starts.map((start, index) => make(
    "tr", {},
    make("th", { scope: "row" }, moment(start * 1000)),
    make("td", { class: "number" }, rate(traffic.rx[index], units)), make("td", { class: "number" }, rate(traffic.tx[index], units)),
    make("td", { class: "number" }, count(traffic.rxBytes[index])), make("td", { class: "number" }, count(traffic.txBytes[index])),
    make("td", {}, notesOf(start, start + traffic.width).join(" ")),
  ));
  details.querySelector("tbody").replaceChildren(...rows.reverse());
}

/** What the chosen interface is, and did today. */
async function showDetail(signal) {
  const element = byId("detail");
  const name = chosen.interface;
  if (name == null || name.includes("/")) {
    element.hidden = true;
    return;
  }
  let stats;
  try {
    stats = await get(`${path}/interfaces/${encodeURIComponent(name)}/stats`, { query: { time_zone: zone }, signal });
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 404) throw error;
    element.hidden = true;
    return;
  }
  const { interface: one, today } = stats;
  const state = one.is_current ? (one.is_up ? "up" : "down") : "gone";
  const units = choice("units");
  const facts = [
    ["State", stats.changed_at && one.is_current ? `${state} since ${moment(stats.changed_at)}` : state],
    ["Today", today && `↓ ${bytes(today.rx_bytes)} ↑ ${bytes(today.tx_bytes)}`],
    ["Today's peak", today?.rx_bps_max != null && `↓ ${rate(today.rx_bps_max, units)} ↑ ${rate(today.tx_bps_max, units)}`],
    ["Today's packets", today && `↓ ${count(today.rx_packets)} ↑ ${count(today.tx_packets)}`],
    ["Errors today", today && count(today.rx_errors + today.tx_errors)],
    ["Drops today", today && count(today.rx_dropped + today.tx_dropped)],
    ["Counted", one.is_lowest ? null : `in ${one.stacked_on?.join(", ") || "those below it"} too`],
  ];
  element.replaceChildren(...facts.filter(([, value]) => value).map(fact));
  element.hidden = false;
}

function showChoices() {
  for (const input of byId("period").elements) if (input.type === "radio") input.checked = input.value === chosen.period;
  byId("whole").hidden = !chosen.zoom;
  setText(byId("interfaces-period"), chosen.period);
  showInterfaceChoice();
}

function showInterfaceChoice() {
  const select = byId("interface");
  const all = new Set(known.server?.network_interfaces.filter((one) => !one.is_folded).map((one) => one.name));
  for (const name of known.series?.keys() ?? []) all.add(name);
  if (chosen.interface != null) all.add(chosen.interface);
  const ordered = [...all].sort(new Intl.Collator("en", { numeric: true }).compare);
  if (select.options.length !== ordered.length + 1 || ordered.some((name, at) => select.options[at + 1].value !== name)) {
    select.replaceChildren(make("option", { value: TOTAL }, "all interfaces"), ...ordered.map((value) => make("option", { value }, value)));
  }
  select.value = chosen.interface ?? TOTAL;
}

function showInterfaces() {
  if (!known.server) return;
  const sums = (usage) => usage && new Map(usage.interfaces.map((one) => [one.interface, one]));
  table.update({
    server: known.server, series: known.series, today: sums(known.today), month: sums(known.usage),
    units: choice("units"), chosen: chosen.interface,
  });
}

// What is asked for, and when

/** One request at a time of each kind: a newer one takes the place of the one before. */
function replacing(ask) {
  let controller = null;
  return async () => {
    controller?.abort();
    controller = new AbortController();
    const { signal } = controller;
    try {
      await ask(signal);
      if (!signal.aborted) noted(null);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      noted(error);
    }
  };
}

const refreshTraffic = replacing(async (signal) => {
  const [traffic] = await Promise.all([load(id, { ...chosen, ...timing(), signal }), showDetail(signal)]);
  const happened = await events(id, chosen.interface, traffic, signal);
  showTraffic(traffic, happened);
});

/** What shows the whole period, whatever the chart shows: the table's sparklines, and the machine's. */
const refreshPeriod = replacing(async (signal) => {
  const { period } = chosen;
  const { interval, seen } = timing();
  const width = bucketOf(period, interval);
  [known.series] = await Promise.all([
    loadAll(id, { period, interval, seen, signal }), gauges.load(id, period, width, signal),
  ]);
  known.seriesOf = [period, bucketNow(width)];
  showInterfaceChoice();
  showInterfaces();
});

/** In narrower steps than a bucket nothing of it changes that one would see, and of many interfaces it is much. */
function isPeriodDue() {
  const [period, bucket] = known.seriesOf ?? [];
  return period !== chosen.period || bucket !== bucketNow(bucketOf(period, timing().interval));
}

function bucketNow(width) {
  return Math.floor(timing().seen / width);
}

function timing() {
  return {
    interval: known.agent?.interval_seconds ?? 30,
    seen: known.server ? seconds(known.server.last_seen) : Date.now() / 1000,
  };
}

const refreshUsage = replacing(async (signal) => {
  const usage = `/api/v1/usage/${encodeURIComponent(id)}`;
  const day = new Intl.DateTimeFormat("en-CA", { timeZone: zone }).format(new Date());
  const ask = (query) => get(usage, { query: { time_zone: zone, ...query }, signal });
  [known.usage, known.today, known.months] = await Promise.all([ask({ by: "day" }), ask({ by: "day", since: day }), ask({ by: "month" })]);
  usageAt = Date.now();
  showUsage();
  showInterfaces();
});
let usageAt = 0;

/** Looks whether a heartbeat came, and then for all that it changes. */
const look = replacing(async (signal) => {
  const before = known.server;
  known.server = await get(path, { signal });
  const isNew = before?.last_seen !== known.server.last_seen;
  if (isNew || before?.status !== known.server.status || !known.agent) known.agent = await get(`${path}/agent`, { signal });
  showServer();
  if (isNew) {
    byId("main").removeAttribute("aria-busy");
    showInterfaces();
    refreshTraffic();
    if (isPeriodDue()) refreshPeriod();
  }
  if (Date.now() - usageAt > USAGE_SECONDS * 1000) refreshUsage();
});

let heardAt = Date.now();

/** Takes note of how a request went: what the page shows is as old as the last one that went well. */
function noted(error) {
  if (error?.status === 404 && !known.server) {
    byId("known").hidden = true;
    byId("unknown").hidden = false;
    document.title = "Unknown server · Linkbeat";
    setText(byId("name"), id);
    setText(byId("unknown-words"), "No server of this name ever sent a heartbeat.");
    byId("main").removeAttribute("aria-busy");
    clearInterval(looking);
    return;
  }
  if (!error) heardAt = Date.now();
  byId("stale").hidden = !error;
  if (error) setText(byId("stale"), `${error.message}. What is shown is of ${clock(heardAt)}; it goes on by itself.`);
}

// Where everything is

const gauges = new Gauges(byId("gauges"));
const chart = new Chart(byId("chart"), {
  describe,
  rate: (bps) => rate(bps, choice("units")),
  onZoom: (since, until) => {
    if (since == null) return go({ zoom: null });
    const { traffic } = known;
    const whole = PERIODS.get(chosen.period).seconds;
    const middle = (since + until) / 2;
    const half = Math.max(until - since, SHORTEST_ZOOM_SECONDS) / 2;
    const end = Math.min(middle + half, Math.max(traffic.until, Date.now() / 1000));
    const zoom = { since: Math.round(end - 2 * half), until: Math.round(end) };
    return go({ zoom: 2 * half >= whole ? null : zoom });
  },
});
const table = new Interfaces(
  {
    table: byId("interfaces"), filter: byId("filter"), only: byId("only-up"), shown: byId("interfaces-shown"), more: byId("more"),
  },
  {
    href: (name) => address({ interface: name }),
    onChoose: (name) => {
      go({ interface: name });
      showInterfaces();
      byId("traffic-title").scrollIntoView({ block: "nearest" });
    },
  },
);
const form = new QuotaForm(byId("quota").querySelector("form"), byId("quota-problem"), {
  server: id, zone, onSaved: () => refreshUsage(),
});

byId("period").append(...[...PERIODS.keys()].map((period) =>
  make("label", {}, make("input", { type: "radio", name: "period", value: period }), period)));
byId("period").addEventListener("change", (event) => go({ period: event.target.value, zoom: null }));
byId("interface").addEventListener("change", (event) => {
  go({ interface: event.target.value === TOTAL ? null : event.target.value });
  showInterfaces();
});
byId("whole").addEventListener("click", () => {
  go({ zoom: null });
  byId("chart").querySelector(".plot").focus();
});
byId("numbers").addEventListener("toggle", showNumbers);
byId("picture").querySelector("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const words = byId("picture-words");
  try {
    const body = { server_id: id, metric: "network", interface: chosen.interface, expires_in_days: null };
    const link = new URL((await post("/api/v1/pictures", body)).path, location.origin);
    link.searchParams.set("period", chosen.period);
    link.searchParams.set("theme", event.target.elements.theme.value);
    await navigator.clipboard.writeText(link.href);
    setText(words, "Copied.");
  } catch (error) {
    setText(words, error instanceof ApiError ? `${error.message}.` : "This browser does not let pages copy.");
  }
});
addEventListener("popstate", () => {
  readAddress();
  showChoices();
  showInterfaces();
  refreshTraffic();
  refreshPeriod();
});
onChoice((name) => {
  if (name === "theme") chart.rebuild();
  else if (known.server) {
    showServer();
    showUsage();
    showInterfaces();
    refreshTraffic();
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.rebuild());
document.addEventListener("visibilitychange", () => document.hidden || look());

readAddress();
showChoices();
const looking = setInterval(() => {
  showAge();
  if (!document.hidden) look();
}, LOOK_SECONDS * 1000);
look();
