// The page of one server: what is asked for when, and where it is shown.

import { ApiError, get } from "../shared/api.js";
import { watchBell } from "../shared/bell.js";
import { choice, onChoice } from "../shared/choices.js";
import { now } from "../shared/clock.js";
import { definitions, intervalOf, loadDefinitions } from "../shared/definitions.js";
import { byId, byIdAs, find, make, setText } from "../shared/dom.js";
import { bytes, count, moment, rate } from "../shared/format.js";
import { loadEpisodes } from "../shared/episodes.js";
import { Freshness } from "../shared/freshness.js";
import { zoneOfPage } from "../shared/zone.js";
import { address, choosing, chosen, readAddress, zoomTo } from "./address.js";
import { showFacts, showFigures, showHead, showStanding } from "./head.js";
import { natural } from "./interface-rows.js";
import { Interfaces } from "./interfaces.js";
import { Gauges, showFilesystems } from "./machine.js";
import { offerPicture } from "./picture.js";
import { bucketOf, events, load, loadAll, seconds } from "./traffic.js";
import { TrafficView } from "./traffic-view.js";
import { QuotaForm, showMonths, showQuota } from "./usage.js";
import { loadFiring, NONE_FIRES } from "./warnings.js";

/** @import { Episode } from "../shared/episodes.js" */
/** @import { Period } from "../shared/definitions.js" */
/** @import { Rates } from "./interface-rows.js" */

const POLL_SECONDS = 1.5;
const USAGE_SECONDS = 60;
const [ALERT_SECONDS, MOST_DAYS] = [15, 400]; // days that the chart shows at most
const TOTAL = ""; // of the choice of an interface: all of them

const id = decodeURIComponent(location.pathname.split("/")[2] ?? "");
const path = { server_id: id };

// The API's latest answers; null is not there yet.
/** @type {{ server: Api.Server, agent: Api.Agent } | null} */
let machine = null;
/** @type {{ usage: Api.Usage, today: Api.Usage, months: Api.Usage } | null} */
let sums = null;
/** @type {{ period: string, bucket: number, series: Map<string, Rates> } | null} */
let ofPeriod = null; // `bucket`: the number of the one that the newest heartbeat is in
let [firing, episodes] = [NONE_FIRES, /** @type {Episode[]} */ ([])]; // of alerts
const fresh = new Freshness(byId("stale"));
const period = byId("period");
const choiceOfInterface = byIdAs("interface", HTMLSelectElement);

// What is shown

function showMachine() {
  if (!machine) return;
  showHead(machine.server, machine.agent, firing);
  showFilesystems(byId("filesystems"), machine.server.filesystems);
  gauges.show(machine.server.latest_metrics);
  showInterfaceChoice();
}

function showUsage() {
  if (!sums) return;
  const { usage, today, months } = sums;
  showFigures(today, usage);
  showQuota(byId("quota-state"), usage.quota);
  setText(find(byId("quota"), "summary", HTMLElement), usage.quota ? "Change the quota" : "Set a quota");
  form.show(usage.quota);
  setText(byId("usage-zone"), `months in ${months.time_zone}`);
  showMonths(byIdAs("months", HTMLTableElement), months, choice("units"));
}

function showChoices() {
  for (const input of period.querySelectorAll("input")) input.checked = input.value === chosen.period;
  byId("whole").hidden = !chosen.zoom;
  setText(byId("interfaces-period"), chosen.period);
  showInterfaceChoice();
}

function showInterfaceChoice() {
  const own = machine?.server.network_interfaces.filter((one) => !one.is_folded) ?? [];
  const all = new Set([...own.map((one) => one.name), ...(ofPeriod?.series.keys() ?? [])]);
  if (chosen.interface != null) all.add(chosen.interface);
  const values = [TOTAL, ...[...all].sort(natural)];
  const { options } = choiceOfInterface;
  if (options.length !== values.length || values.some((value, at) => options[at]?.value !== value)) {
    choiceOfInterface.replaceChildren(...values.map((value) => make("option", { value }, value === TOTAL ? "all interfaces" : value)));
  }
  choiceOfInterface.value = chosen.interface ?? TOTAL;
}

function showInterfaces() {
  if (!machine) return;
  /** @param {Api.Usage | undefined} usage */
  const byName = (usage) => (usage ? new Map(usage.interfaces.map((one) => [one.interface, one])) : null);
  table.update({
    server: machine.server, series: ofPeriod?.series ?? null, today: byName(sums?.today), month: byName(sums?.usage),
    units: choice("units"), chosen: chosen.interface,
  });
}

/**
 * What the chosen interface is, and did today. Of several together, and of all, there is no such thing.
 * @param {AbortSignal} signal
 */
async function showDetail(signal) {
  const element = byId("detail");
  const name = chosen.interface;
  element.hidden = name === null || name.includes("/");
  if (name === null || element.hidden) return;
  let stats;
  try {
    stats = await get("/api/v1/servers/{server_id}/interfaces/{name}/stats", {
      path: { server_id: id, name }, query: { time_zone: zoneOfPage() }, signal,
    });
  } catch (error) {
    if (!(error instanceof ApiError && error.status === 404)) throw error;
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
    ["Counted", one.is_lowest ? null : `also in ${one.stacked_on?.join(", ") || "the interfaces below it"}`],
  ]);
}

function showUnknown() {
  byId("known").hidden = true;
  byId("unknown").hidden = false;
  document.title = "Unknown server · Linkbeat";
  setText(byId("name"), id);
  byId("main").removeAttribute("aria-busy");
  fresh.stop();
}

// What is asked for, and when

/** When heartbeats come: every `interval` seconds, since `known`; the newest was measured at `seen`, in seconds. */
function timing() {
  return {
    interval: intervalOf(machine?.agent ?? null),
    seen: machine ? seconds(machine.server.last_seen) : now() / 1000,
    known: machine ? seconds(machine.server.first_seen) : 0,
  };
}

const traffic = fresh.task(async (signal) => {
  const name = chosen.interface;
  const [series] = await Promise.all([load(id, chosen, timing(), signal), showDetail(signal)]);
  view.show(name, series, { events: await events(id, name, series, signal), episodes }, timing());
});

const alerts = fresh.task(async (signal) => {
  firing = await loadFiring(id, signal);
  showMachine();
  const found = await loadEpisodes({ server: id, since: now() - MOST_DAYS * 86_400_000, until: now() }, signal);
  if (JSON.stringify(found) === JSON.stringify(episodes)) return;
  episodes = found;
  traffic.restart();
}, ALERT_SECONDS);

/** What shows the whole period, whatever the chart shows: the table's sparklines, and the machine's. */
const wholePeriod = fresh.task(async (signal) => {
  const { period } = chosen;
  const bucket = newestBucket();
  const [series] = await Promise.all([
    loadAll(id, period, timing(), signal),
    gauges.load(id, period, bucketOf(period, timing().interval), signal),
  ]);
  ofPeriod = { period, bucket, series };
  showInterfaceChoice();
  showInterfaces();
});

/** The number of the period's bucket that the newest heartbeat is in. */
function newestBucket() {
  const { interval, seen } = timing();
  return Math.floor(seen / bucketOf(chosen.period, interval));
}

/** Within a bucket nothing of it changes that one would see, and of many interfaces it is much. */
function refreshPeriod() {
  if (ofPeriod?.period !== chosen.period || ofPeriod.bucket !== newestBucket()) wholePeriod.restart();
}

const usage = fresh.task(async (signal) => {
  const day = new Intl.DateTimeFormat("en-CA", { timeZone: zoneOfPage() }).format(now()); // as 2026-01-29
  /** @param {{ by: "day" | "month", since?: string }} query */
  const ask = (query) => get("/api/v1/usage/{server_id}", { path, query: { time_zone: zoneOfPage(), ...query }, signal });
  const [usage, today, months] = await Promise.all([ask({ by: "day" }), ask({ by: "day", since: day }), ask({ by: "month" })]);
  sums = { usage, today, months };
  showUsage();
  showInterfaces();
}, USAGE_SECONDS);

/** Asks whether a heartbeat came, by the smallest answer that tells, and then for everything that it changes. */
const poll = fresh.task(async (signal) => {
  const definitions = loadDefinitions(signal);
  definitions.catch(() => {}); // it is waited for below; a failure before that is no unhandled one
  try {
    await pollMachine(definitions, signal);
  } catch (error) {
    if (!machine && error instanceof ApiError && error.status === 404) showUnknown();
    else throw error;
  }
}, POLL_SECONDS);

/**
 * @param {Promise<void>} definitions
 * @param {AbortSignal} signal
 */
async function pollMachine(definitions, signal) {
  const agent = await get("/api/v1/servers/{server_id}/agent", { path, signal });
  const before = machine?.agent;
  const isNew = before?.received_at !== agent.received_at;
  if (!isNew && before?.status === agent.status) {
    showStanding(agent);
    return;
  }
  const server = await get("/api/v1/servers/{server_id}", { path, signal });
  await definitions;
  if (!machine) begin();
  machine = { server, agent };
  showMachine();
  if (!isNew) return;
  byId("main").removeAttribute("aria-busy");
  showInterfaces();
  traffic.restart();
  refreshPeriod();
  if (!before) for (const task of [usage, alerts]) task.soon();
}

// What the reader does

/** @param {Partial<typeof chosen>} changes */
function go(changes) {
  if (choosing(changes)) showChosen();
}

function showChosen() {
  showChoices();
  showInterfaces();
  traffic.restart();
  refreshPeriod();
}

const gauges = new Gauges(byId("gauges"));
const view = new TrafficView((since, until) => {
  const newest = Math.max(view.shown().until, now() / 1000);
  go({ zoom: since === null ? null : zoomTo(since, until, newest) });
});
const table = new Interfaces(
  {
    table: byIdAs("interfaces", HTMLTableElement), filter: byIdAs("filter", HTMLInputElement),
    only: byIdAs("only-up", HTMLInputElement), shown: byId("interfaces-shown"), more: byId("more"),
  },
  {
    href: (name) => address({ interface: name }),
    onChoose: (name) => {
      go({ interface: name });
      byId("traffic-title").scrollIntoView({ block: "nearest" });
    },
  },
);
const form = new QuotaForm(find(byId("quota"), "form", HTMLFormElement), byId("quota-problem"), {
  server: id, zone: zoneOfPage(), onSaved: () => usage.restart(),
});

/** What needs the definitions: the periods, and an address that names one. */
function begin() {
  for (const { name } of definitions().periods) {
    const input = make("input", {
      type: "radio", name: "period", value: name, onchange: () => go({ period: /** @type {Period} */ (name), zoom: null }),
    });
    period.append(make("label", {}, input, name));
  }
  readAddress();
  showChoices();
  addEventListener("popstate", () => {
    readAddress();
    showChosen();
  });
}

choiceOfInterface.addEventListener("change", () => {
  go({ interface: choiceOfInterface.value === TOTAL ? null : choiceOfInterface.value });
});
byId("whole").addEventListener("click", () => {
  go({ zoom: null });
  find(byId("chart"), ".plot", HTMLElement).focus();
});
offerPicture(byIdAs("picture", HTMLDetailsElement), byId("picture-words"), () => ({ server: id, ...chosen }));
onChoice((name) => {
  if (name === "theme") view.chart.rebuild();
  else if (machine) {
    showMachine();
    showUsage();
    showInterfaces();
    traffic.restart();
  }
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => view.chart.rebuild());

fresh.tick(() => machine && showStanding(machine.agent));
watchBell(fresh);
poll.soon();
