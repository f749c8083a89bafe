// The fleet: a row for each server, kept up to date.
//
// All rows are there, as rows of a real table, and only what is in view has its sparklines fetched and drawn. Rows that
// come and go with the scrolling would be fewer, but a screen reader could not count them, and the browser's own search
// not find them. 500 of them are made in a quarter of a second, after the first screen; past that, a button makes 500
// more.

import { addMachine } from "./add-machine.js";
import { get } from "./api.js";
import { onChoice } from "./choices.js";
import { byId, setText } from "./dom.js";
import { mainInterface, Row, standing } from "./fleet-row.js";
import { keep, reread, settings, sortBy } from "./fleet-settings.js";
import { Sparklines } from "./fleet-sparklines.js";
import { clock, count } from "./format.js";
import { follow } from "./live.js";

const PAGE = 500;
const AT_FIRST = 30;
const AT_FIRST_MS = 150;
const SORT_SECONDS = 5;

const KEYS = {
  status: (row) => standing(row.server, now()).rank,
  server: (row) => row.server.id,
  interface: (row) => mainInterface(row.server)?.name ?? "",
  now: (row) => row.rateOf(mainInterface(row.server)) ?? -1,
  peak: (row) => row.peakOf(mainInterface(row.server)) ?? -1,
  errors: (row) => row.errorCount(),
};

const rows = new Map(); // by server
const body = byId("servers");
const filter = byId("filter");
let pages = [""]; // where those of the fleet begin
let peaksOf = new Map(); // by server, and by interface
let shown = []; // the rows that match, in order
let sorted = 0; // when
let limit = PAGE;
let placing = 0;
let offset = 0; // of the service's clock
let problem = null;
let isLoaded = false;

const sparklines = new Sparklines(rows, () => document.hidden || problem !== null);

function now() {
  return Date.now() + offset;
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
    sparklines.remove(row);
    rows.delete(id);
  }
  await peaks;
  const more = begun.filter((start) => !pages.includes(start));
  pages = begun;
  await loadPeaks(more, signal);
  sparklines.forget();
  arrange();
  return at;
}

async function loadPeaks(starts, signal) {
  const { period } = settings;
  for (const after of starts) {
    const found = await get("/api/v1/fleet/peaks", { query: { period, limit: PAGE, after }, signal });
    if (period !== settings.period) return;
    for (const [id, peaks] of Map.groupBy(found.peaks, (one) => one.server_id)) {
      peaksOf.set(id, new Map(peaks.map((one) => [one.interface, one])));
    }
  }
  if (!starts.length) return;
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
  shown = inOrder([...rows.values()].filter((row) => matches(row, terms)));
  sorted = Date.now();
  place(shown.slice(0, limit));
  const isEmpty = isLoaded && !rows.size;
  byId("fleet").hidden = !shown.length;
  byId("none").hidden = !rows.size || shown.length > 0;
  byId("empty").hidden = !isEmpty;
  document.body.classList.toggle("no-servers", isEmpty);
  if (isEmpty && !byId("empty-add").childElementCount) byId("empty-add").append(addMachine());
  byId("more").hidden = shown.length <= limit;
  setText(byId("more"), `Show ${count(Math.min(PAGE, shown.length - limit))} more`);
  summarise();
}

function inOrder(chosen) {
  const keys = new Map(chosen.map((row) => [row, KEYS[settings.sort](row)]));
  const sign = settings.descending ? -1 : 1;
  return chosen.sort((a, b) => sign * compare(keys.get(a), keys.get(b)) || compare(a.server.id, b.server.id));
}

/** Names as people count: eth9 before eth10. */
const collator = new Intl.Collator(undefined, { numeric: true });

function compare(a, b) {
  return typeof a === "string" ? collator.compare(a, b) : a - b;
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
  const placed = isFirst ? chosen.slice(0, AT_FIRST) : chosen;
  const elements = placed.map((row) => row.element);
  const current = body.children;
  if (elements.length === current.length && elements.every((element, index) => element === current[index])) return;
  const focused = document.activeElement;
  body.replaceChildren(...elements);
  // What moves loses the focus.
  if (focused !== document.activeElement && body.contains(focused)) focused.focus({ preventScroll: true });
  for (const row of placed) {
    row.showStanding(now());
    sparklines.observe(row.element);
  }
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

/* What is wrong */

function state(found) {
  problem = found;
  const words = byId("stale");
  words.hidden = !found;
  document.body.classList.toggle("stale", Boolean(found));
  if (!found) {
    sparklines.soon();
    return;
  }
  const what = found.status === 503 ? "The service cannot reach its database" : found.words;
  const known = isLoaded ? ` What is shown is of ${clock(found.since)}.` : "";
  setText(words, `${what} (since ${clock(found.since)}).${known} Trying again …`);
}

/* What readers do */

function showSettings() {
  document.querySelector(`input[name="period"][value="${settings.period}"]`).checked = true;
  setText(byId("span"), settings.period);
  if (filter.value !== settings.filter) filter.value = settings.filter;
  for (const button of document.querySelectorAll("thead button")) {
    const header = button.closest("th");
    const order = settings.descending ? "descending" : "ascending";
    if (button.dataset.sort === settings.sort) header.setAttribute("aria-sort", order);
    else header.removeAttribute("aria-sort");
  }
}

function changedPeriod() {
  for (const row of rows.values()) row.forget();
  peaksOf = new Map();
  sparklines.forget();
  // Where it fails, the page asks again all the same, and says what is wrong.
  loadPeaks(pages).then(() => settings.sort === "peak" && arrange(), () => {});
}

for (const input of document.querySelectorAll('input[name="period"]')) {
  input.addEventListener("change", () => {
    settings.period = input.value;
    keep({ isStep: true });
    showSettings();
    changedPeriod();
  });
}

addEventListener("popstate", () => {
  const { period } = settings;
  reread();
  showSettings();
  arrange();
  if (period !== settings.period) changedPeriod();
});

for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    sortBy(button.dataset.sort);
    keep();
    showSettings();
    arrange();
  });
}

function filterBy(text) {
  settings.filter = text;
  limit = PAGE;
  keep();
  showSettings();
  arrange();
}

filter.addEventListener("input", () => filterBy(filter.value));
filter.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !filter.value) return;
  event.preventDefault();
  filterBy("");
});
addEventListener("keydown", (event) => {
  const isTyping = event.target.closest?.("input:not([type=radio]), textarea, select, dialog");
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  filter.focus();
  filter.select();
});

byId("more").addEventListener("click", () => {
  limit += PAGE;
  arrange();
});

byId("add").addEventListener("click", () => {
  byId("dialog-add").replaceChildren(addMachine());
  byId("add-dialog").showModal();
});
byId("add-dialog").addEventListener("click", (event) => {
  if (event.target === event.currentTarget) event.currentTarget.close(); // beside it
});

onChoice(() => {
  for (const row of rows.values()) row.show();
});

setInterval(() => {
  if (document.hidden) return;
  for (const row of rows.values()) row.showStanding(now());
  summarise();
  sparklines.soon();
  // Not under a reader's hands.
  const isSteady = settings.sort === "server" || settings.sort === "interface";
  if (!isSteady && Date.now() - sorted > SORT_SECONDS * 1000 && !body.matches(":hover, :focus-within")) arrange();
}, 1000);

showSettings();
follow({ load, apply, state });
