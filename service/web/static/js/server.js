// The page of one server: what is asked for when, and where it is shown.

import { address, choosing, chosen, readAddress, zoomTo } from "./address.js";
import { ApiError, get } from "./api.js";
import { choice, onChoice } from "./choices.js";
import { byId, make, setText } from "./dom.js";
import { bytes, clock, count, moment, rate } from "./format.js";
import { showAge, showFacts, showFigures, showHead, showStanding } from "./head.js";
import { Interfaces } from "./interfaces.js";
import { Gauges, showFilesystems } from "./machine.js";
import { offerPicture } from "./picture.js";
import { bucketOf, events, load, loadAll, PERIODS, seconds } from "./traffic.js";
import { TrafficView } from "./traffic-view.js";
import { QuotaForm, showMonths, showQuota } from "./usage.js";
import { UNSAID_INTERVAL_SECONDS } from "./warnings.js";

const LOOK_SECONDS = 1.5;
const USAGE_SECONDS = 60;
const TOTAL = ""; // of the choice of an interface: all of them

const id = decodeURIComponent(location.pathname.split("/")[2]);
const path = `/api/v1/servers/${encodeURIComponent(id)}`;
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

// What the API said last; null is not there yet. `series` are of the period and bucket that `seriesOf` names.
const known = { server: null, agent: null, series: null, seriesOf: [], usage: null, today: null, months: null, usageAt: 0 };

// What is shown

function showServer() {
  showHead(known.server, known.agent, known.usage?.quota ?? null);
  showFilesystems(byId("filesystems"), known.server.filesystems);
  gauges.show(known.server.latest_metrics);
  showInterfaceChoice();
}

function showUsage() {
  if (!known.usage) return;
  showFigures(known.today, known.usage);
  showQuota(byId("quota-state"), known.usage.quota);
  setText(byId("quota").querySelector("summary"), known.usage.quota ? "Change the quota" : "Set a quota");
  form.show(known.usage.quota);
  setText(byId("usage-zone"), `months of ${known.months.time_zone}`);
  showMonths(byId("months"), known.months, choice("units"));
}

function showChoices() {
  for (const input of byId("period").querySelectorAll("input")) input.checked = input.value === chosen.period;
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
  const isSame = select.options.length === ordered.length + 1 && ordered.every((name, at) => select.options[at + 1].value === name);
  if (!isSame) {
    const options = ordered.map((value) => make("option", { value }, value));
    select.replaceChildren(make("option", { value: TOTAL }, "all interfaces"), ...options);
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

/** What the chosen interface is, and did today. Of several together, and of all, there is no such thing. */
async function showDetail(signal) {
  const element = byId("detail");
  element.hidden = chosen.interface == null || chosen.interface.includes("/");
  if (element.hidden) return;
  let stats;
  try {
    const name = encodeURIComponent(chosen.interface);
    stats = await get(`${path}/interfaces/${name}/stats`, { query: { time_zone: zone }, signal });
  } catch (error) {
    if (error.status !== 404) throw error;
    element.hidden = true; // it is in the address, and nowhere else
    return;
  }
  const { interface: one, today } = stats;
  const state = one.is_current ? (one.is_up ? "up" : "down") : "gone";
  const units = choice("units");
  showFacts(element, [
    ["State", stats.changed_at && one.is_current ? `${state} since ${moment(stats.changed_at)}` : state],
    ["Today", today && `↓ ${bytes(today.rx_bytes)} ↑ ${bytes(today.tx_bytes)}`],
    ["Today's peak", today?.rx_bps_max != null && `↓ ${rate(today.rx_bps_max, units)} ↑ ${rate(today.tx_bps_max, units)}`],
    ["Today's packets", today && `↓ ${count(today.rx_packets)} ↑ ${count(today.tx_packets)}`],
    ["Errors today", today && count(today.rx_errors + today.tx_errors)],
    ["Drops today", today && count(today.rx_dropped + today.tx_dropped)],
    ["Counted", one.is_lowest ? null : `in ${one.stacked_on?.join(", ") || "those below it"} too`],
  ]);
}

function showUnknown() {
  byId("known").hidden = true;
  byId("unknown").hidden = false;
  document.title = "Unknown server · Linkbeat";
  setText(byId("name"), id);
  byId("main").removeAttribute("aria-busy");
  isLooking = false;
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
      if (!signal.aborted) heard(null);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      heard(error);
    }
  };
}

let heardAt = Date.now();
let pauseSeconds = LOOK_SECONDS;

/** Takes note of how a request went: what the page shows is as old as the last one that went well. */
function heard(error) {
  if (error?.status === 404 && !known.server) return showUnknown();
  if (!error) heardAt = Date.now();
  pauseSeconds = Math.max(LOOK_SECONDS, error?.retrySeconds ?? 0);
  byId("stale").hidden = !error;
  if (error) setText(byId("stale"), `${error.message}. What is shown is of ${clock(heardAt)}; it goes on by itself.`);
}

function timing() {
  return {
    interval: known.agent?.interval_seconds ?? UNSAID_INTERVAL_SECONDS,
    seen: known.server ? seconds(known.server.last_seen) : Date.now() / 1000,
    known: known.server ? seconds(known.server.first_seen) : 0,
  };
}

const refreshTraffic = replacing(async (signal) => {
  const name = chosen.interface;
  const [traffic] = await Promise.all([load(id, { ...chosen, ...timing(), signal }), showDetail(signal)]);
  view.show(name, traffic, await events(id, name, traffic, signal), timing());
});

/** What shows the whole period, whatever the chart shows: the table's sparklines, and the machine's. */
const refreshPeriod = replacing(async (signal) => {
  const { period } = chosen;
  const width = bucketOf(period, timing().interval);
  const seriesOf = [period, Math.floor(timing().seen / width)];
  [known.series] = await Promise.all([
    loadAll(id, { period, ...timing(), signal }), gauges.load(id, period, width, signal),
  ]);
  known.seriesOf = seriesOf;
  showInterfaceChoice();
  showInterfaces();
});

/** Within a bucket nothing of it changes that one would see, and of many interfaces it is much. */
function isPeriodDue() {
  const [period, bucket] = known.seriesOf;
  const { interval, seen } = timing();
  return period !== chosen.period || bucket !== Math.floor(seen / bucketOf(period, interval));
}

const refreshUsage = replacing(async (signal) => {
  const day = new Intl.DateTimeFormat("en-CA", { timeZone: zone }).format(new Date()); // as 2026-01-29
  const ask = (query) => get(`/api/v1/usage/${encodeURIComponent(id)}`, { query: { time_zone: zone, ...query }, signal });
  const [usage, today, months] = await Promise.all([ask({ by: "day" }), ask({ by: "day", since: day }), ask({ by: "month" })]);
  Object.assign(known, { usage, today, months, usageAt: Date.now() });
  showUsage();
  if (known.server) showServer();
  showInterfaces();
});

/** Looks whether a heartbeat came, by the smallest answer that tells, and then asks for all that it changes. */
const look = replacing(async (signal) => {
  const agent = await get(`${path}/agent`, { signal });
  const isNew = known.agent?.received_at !== agent.received_at;
  if (isNew || known.agent.status !== agent.status) {
    known.server = await get(path, { signal });
    known.agent = agent;
    showServer();
  } else {
    showStanding(agent);
  }
  if (isNew) {
    byId("main").removeAttribute("aria-busy");
    showInterfaces();
    refreshTraffic();
    if (isPeriodDue()) refreshPeriod();
  }
  if (Date.now() - known.usageAt > USAGE_SECONDS * 1000) {
    known.usageAt = Date.now();
    refreshUsage();
  }
});

// What the reader does

function go(changes) {
  if (!choosing(changes)) return;
  showChoices();
  showInterfaces();
  refreshTraffic();
  if (isPeriodDue()) refreshPeriod();
}

const gauges = new Gauges(byId("gauges"));
const view = new TrafficView({
  onZoom: (since, until) =>
    go({ zoom: since == null ? null : zoomTo(since, until, Math.max(view.traffic.until, Date.now() / 1000)) }),
});
const table = new Interfaces(
  {
    table: byId("interfaces"), filter: byId("filter"), only: byId("only-up"), shown: byId("interfaces-shown"), more: byId("more"),
  },
  {
    href: (name) => address({ interface: name }),
    onChoose: (name) => {
      go({ interface: name });
      byId("traffic-title").scrollIntoView({ block: "nearest" });
    },
  },
);
const form = new QuotaForm(byId("quota").querySelector("form"), byId("quota-problem"), { server: id, zone, onSaved: refreshUsage });

byId("period").append(...[...PERIODS.keys()].map((period) =>
  make("label", {}, make("input", { type: "radio", name: "period", value: period }), period)));
byId("period").addEventListener("change", (event) => go({ period: event.target.value, zoom: null }));
byId("interface").addEventListener("change", (event) => go({ interface: event.target.value === TOTAL ? null : event.target.value }));
byId("whole").addEventListener("click", () => {
  go({ zoom: null });
  byId("chart").querySelector(".plot").focus();
});
offerPicture(byId("picture"), byId("picture-words"), () => ({ server: id, ...chosen }));
addEventListener("popstate", () => {
  readAddress();
  showChoices();
  showInterfaces();
  refreshTraffic();
  if (isPeriodDue()) refreshPeriod();
});
onChoice((name) => {
  if (name === "theme") view.chart.rebuild();
  else if (known.server) {
    showServer();
    showUsage();
    showInterfaces();
    refreshTraffic();
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view.chart.rebuild());
document.addEventListener("visibilitychange", () => document.hidden || look());

readAddress();
showChoices();
setInterval(() => known.agent && showAge(known.agent), 1000);
let isLooking = true;
while (isLooking) {
  if (!document.hidden) await look();
  await new Promise((resolve) => {
    setTimeout(resolve, pauseSeconds * 1000);
  });
}
