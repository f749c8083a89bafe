// The fleet: a row for each server, kept up to date.
//
// All rows are there, as rows of a real table, and only what is in view has its sparklines fetched and drawn. Rows that
// come and go with the scrolling would be fewer, but a screen reader could not count them, and the browser's own search
// not find them. Text for 500 servers is made in a tenth of a second; past that, a button makes 500 more.

import { addMachine } from "./add-machine.js";
import { get } from "./api.js";
import { onChoice } from "./choices.js";
import { byId, make, setText } from "./dom.js";
import { mainInterface, rateOf, Row, standing } from "./fleet-row.js";
import { clock, count } from "./format.js";
import { follow } from "./live.js";

const PERIODS = ["1h", "24h", "7d"];
// Of a week in hours, more points than a sparkline has pixels.
const BUCKETS = { "7d": "2h" };
const PAGE = 500;
const AT_FIRST = 30;
const AT_FIRST_MS = 150;
const SERIES_AT_ONCE = 240;
const DRAW_SECONDS = 20;
const SORT_SECONDS = 5;

const rows = new Map();
const inView = new Set();
const drawn = new Map(); // when, by server
let limit = PAGE;
let offset = 0; // of the service's clock
let problem = null;
let isLoaded = false;
let drawing = null;
let peaksOf = new Map(); // by server
let pages = [""]; // where those of the fleet begin
let shown = []; // the rows that match, in order
let sorted = 0; // when
let placing = 0;

const body = byId("servers");
const filter = byId("filter");
const observer = new IntersectionObserver(look, { rootMargin: "300px 0px" });

const SORTS = {
  status: (row) => standing(row.server, now()).rank,
  server: (row) => row.server.id,
  interface: (row) => mainInterface(row.server)?.name ?? "",
  now: (row) => rateOf(mainInterface(row.server)) ?? -1,
  peak: (row) => row.peakOf(mainInterface(row.server)) ?? -1,
  errors: (row) => row.errorCount(),
};
// What one looks for by it stands first: trouble, and much.
const DESCENDING_FIRST = new Set(["now", "peak", "errors"]);

let settings = fromUrl();

function now() {
  return Date.now() + offset;
}

/* What is asked for stands in the address: it can be kept, sent on, and gone back to. */

function fromUrl() {
  const query = new URLSearchParams(location.search);
  const sort = query.get("sort") in SORTS ? query.get("sort") : "server";
  return {
    period: PERIODS.includes(query.get("period")) ? query.get("period") : "1h",
    filter: query.get("q") ?? "",
    sort,
    descending: query.has("order") ? query.get("order") === "desc" : DESCENDING_FIRST.has(sort),
  };
}

function toUrl(change) {
  const query = new URLSearchParams();
  if (settings.period !== "1h") query.set("period", settings.period);
  if (settings.filter) query.set("q", settings.filter);
  if (settings.sort !== "server") query.set("sort", settings.sort);
  if (settings.descending !== DESCENDING_FIRST.has(settings.sort)) query.set("order", settings.descending ? "desc" : "asc");
  history[change](null, "", query.size ? `?${query}` : location.pathname);
}

function showSettings() {
  document.querySelector(`input[name="period"][value="${settings.period}"]`).checked = true;
  setText(byId("span"), settings.period);
  if (filter.value !== settings.filter) filter.value = settings.filter;
  for (const button of document.querySelectorAll("thead button")) {
    const header = button.closest("th");
    if (button.dataset.sort === settings.sort) header.setAttribute("aria-sort", settings.descending ? "descending" : "ascending");
    else header.removeAttribute("aria-sort");
  }
}

/* Data */

async function load(signal) {
  let after = "";
  let at = null;
  const found = new Set();
  const begun = [];
  const peaks = loadPeaks(pages, signal);
  peaks.catch(() => {}); // it is waited for below, and until then nobody's
  do {
    begun.push(after);
    const page = await get("/api/v1/fleet", { query: { limit: PAGE, after }, signal });
    at ??= page.at;
    offset = Date.parse(page.at) - Date.now();
    for (const server of page.servers) {
      found.add(server.id);
      take(server);
    }
    after = page.next;
    if (!isLoaded) {
      isLoaded = true;
      arrange();
    }
  } while (after);
  for (const [id, row] of rows) {
    if (found.has(id)) continue;
    if (row.made) observer.unobserve(row.made);
    rows.delete(id);
    inView.delete(id);
  }
  await peaks;
  const more = begun.filter((start) => !pages.includes(start));
  pages = begun;
  if (more.length) await loadPeaks(more, signal);
  drawn.clear();
  arrange();
  return at;
}

async function loadPeaks(starts, signal) {
  const { period } = settings;
  for (const after of starts) {
    const found = await get("/api/v1/fleet/peaks", { query: { period, limit: PAGE, after }, signal });
    if (period !== settings.period) return;
    const of = Map.groupBy(found.peaks, (one) => one.server_id);
    for (const [id, peaks] of of) peaksOf.set(id, new Map(peaks.map((one) => [one.interface, one])));
  }
  for (const [id, row] of rows) {
    row.peaks = peaksOf.get(id) ?? new Map();
    row.showPeaks();
  }
}

function take(server) {
  let row = rows.get(server.id);
  if (!row) {
    row = new Row(server);
    row.peaks = peaksOf.get(server.id) ?? new Map();
    rows.set(server.id, row);
  }
  row.show(server);
  row.showStanding(now());
}

function apply(servers, at) {
  offset = Date.parse(at) - Date.now();
  const isNew = servers.some((server) => !rows.has(server.id));
  servers.forEach(take);
  if (isNew) arrange();
  else summarise();
}

/* Rows */

/** Puts those that are asked for into the table, in the order that is. */
function arrange() {
  const terms = settings.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = [...rows.values()].filter((row) => matches(row, terms));
  const key = SORTS[settings.sort];
  const sign = settings.descending ? -1 : 1;
  const keys = new Map(chosen.map((row) => [row, key(row)]));
  chosen.sort((a, b) => {
    const [x, y] = [keys.get(a), keys.get(b)];
    const order = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return sign * order || a.server.id.localeCompare(b.server.id, undefined, { numeric: true });
  });
  shown = chosen;
  place(chosen.slice(0, limit));
  byId("more").hidden = chosen.length <= limit;
  setText(byId("more"), `Show ${count(Math.min(PAGE, chosen.length - limit))} more`);
  byId("fleet").hidden = !isLoaded || !rows.size;
  byId("empty").hidden = !isLoaded || rows.size > 0;
  document.body.classList.toggle("no-servers", isLoaded && !rows.size);
  byId("none").hidden = !rows.size || chosen.length > 0;
  showEmpty();
  summarise();
  sorted = Date.now();
}

/** Puts the rows into the table; of many, at first those that one sees at first. */
function place(chosen) {
  const isFirst = (!body.childElementCount || placing) && chosen.length > AT_FIRST;
  if (isFirst) {
    placing ||= setTimeout(() => {
      placing = 0;
      place(shown.slice(0, limit));
    }, AT_FIRST_MS);
  }
  const elements = (isFirst ? chosen.slice(0, AT_FIRST) : chosen).map((row) => row.element);
  const current = body.children;
  if (elements.length === current.length && elements.every((element, index) => element === current[index])) return;
  const focused = document.activeElement;
  body.replaceChildren(...elements);
  // What moves loses the focus.
  if (focused !== document.activeElement && body.contains(focused)) focused.focus({ preventScroll: true });
  for (const row of chosen.slice(0, elements.length)) row.showStanding(now());
  for (const element of elements) observer.observe(element); // once more is as good as once
}

function matches(row, terms) {
  if (!terms.length) return true;
  const { server } = row;
  const text = [
    server.id, server.hostname, standing(server, now()).name, ...server.interfaces.map((one) => one.name),
    server.interfaces_down ? "down" : "",
  ].join("\n").toLowerCase();
  return terms.every((term) => text.includes(term));
}

function summarise() {
  const counts = { silent: 0, late: 0, paused: 0, up: 0 };
  for (const row of rows.values()) counts[standing(row.server, now()).name] += 1;
  const parts = [`${count(rows.size)} ${rows.size === 1 ? "server" : "servers"}`];
  for (const name of ["silent", "late", "paused"]) if (counts[name]) parts.push(`${count(counts[name])} ${name}`);
  setText(byId("summary"), rows.size ? parts.join(" · ") : "");
  setText(byId("found"), settings.filter ? `${count(shown.length)} of ${count(rows.size)}` : "");
}

/* Sparklines, of the rows in view */

function look(entries) {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inView.add(target.dataset.server);
    else inView.delete(target.dataset.server);
  }
  drawSoon();
}

function drawSoon() {
  drawing ??= setTimeout(drawInView, 30);
}

async function drawInView() {
  drawing = null;
  if (document.hidden || problem) return;
  const { period } = settings;
  const old = Date.now() - DRAW_SECONDS * 1000;
  const series = [];
  const asked = [];
  for (const id of inView) {
    const row = rows.get(id);
    if (!row || (row.period === period && (drawn.get(id) ?? 0) > old)) continue;
    if (series.length && series.length + row.server.interfaces.length > SERIES_AT_ONCE) break;
    drawn.set(id, Date.now());
    asked.push(row);
    for (const one of row.server.interfaces) series.push(`${id}/${one.name}`);
  }
  if (!asked.length) return;
  try {
    const found = series.length
      ? await get("/api/v1/fleet/sparklines", { query: { period, bucket: BUCKETS[period], series } })
      : { series: [] };
    if (period !== settings.period) return;
    const of = new Map(asked.map((row) => [row.server.id, new Map()]));
    for (const one of found.series) of.get(one.server_id)?.set(one.interface, one);
    for (const row of asked) row.draw(of.get(row.server.id), period);
  } catch {
    // That the service is away, the page says by what it asks again and again.
    for (const row of asked) drawn.delete(row.server.id);
    return;
  }
  if (document.documentElement.dataset.drawn === undefined) document.documentElement.dataset.drawn = "";
  drawSoon();
}

/* What is wrong */

function state(found) {
  problem = found;
  const words = byId("stale");
  words.hidden = !found;
  document.body.classList.toggle("stale", Boolean(found));
  if (found) {
    const away = found.status === 503 ? "The service cannot reach its database" : found.words;
    const what = isLoaded ? ` What is shown is of ${clock(found.since)}.` : "";
    setText(words, `${away} (since ${clock(found.since)}).${what} Trying again …`);
  } else if (!words.dataset.wasWell) {
    words.dataset.wasWell = "yes";
  }
  if (!found) drawSoon();
}

/* Adding a machine */

function showEmpty() {
  if (!byId("empty").hidden && !byId("empty-add").childElementCount) byId("empty-add").append(addMachine());
}

byId("add").addEventListener("click", () => {
  const dialog = byId("add-dialog");
  byId("dialog-add").replaceChildren(addMachine());
  dialog.showModal();
});

/* What readers do */

for (const input of document.querySelectorAll('input[name="period"]')) {
  input.addEventListener("change", () => {
    settings.period = input.value;
    toUrl("pushState");
    showSettings();
    changedPeriod();
  });
}

function changedPeriod() {
  for (const row of rows.values()) row.forget();
  drawn.clear();
  peaksOf.clear();
  drawSoon();
  loadPeaks(pages).then(() => settings.sort === "peak" && arrange(), () => {});
}

filter.addEventListener("input", () => {
  settings.filter = filter.value;
  limit = PAGE;
  toUrl("replaceState");
  arrange();
});

filter.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && filter.value) {
    event.preventDefault();
    filter.value = "";
    filter.dispatchEvent(new Event("input"));
  }
});

addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input, textarea, select, dialog");
  if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    filter.focus();
    filter.select();
  }
});

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const { sort } = button.dataset;
    settings.descending = sort === settings.sort ? !settings.descending : DESCENDING_FIRST.has(sort);
    settings.sort = sort;
    toUrl("replaceState");
    showSettings();
    arrange();
  });
}

byId("more").addEventListener("click", () => {
  limit += PAGE;
  arrange();
});

addEventListener("popstate", () => {
  const { period } = settings;
  settings = fromUrl();
  showSettings();
  arrange();
  if (period !== settings.period) changedPeriod();
});

onChoice(() => {
  for (const row of rows.values()) row.show();
});

setInterval(() => {
  if (document.hidden) return;
  for (const row of rows.values()) row.showStanding(now());
  summarise();
  drawSoon();
  // Not under a reader's hands.
  const isSteady = settings.sort === "server" || settings.sort === "interface";
  if (!isSteady && Date.now() - sorted > SORT_SECONDS * 1000 && !body.matches(":hover, :focus-within")) arrange();
}, 1000);

byId("add-dialog").addEventListener("click", (event) => {
  if (event.target === event.currentTarget) event.currentTarget.close();
});

showSettings();
follow({ load, apply, state });
