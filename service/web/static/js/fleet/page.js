// The fleet: a row for each server, kept up to date. All of it is loaded once, then changes come by a long poll, which the
// service answers when there is one. Each answer is an ordinary one, which every proxy passes on, and each request is
// checked again: a session that has ended is noticed at the next.

import { get } from "../shared/api.js";
import { watchBell } from "../shared/bell.js";
import { onChoice } from "../shared/choices.js";
import { now } from "../shared/clock.js";
import { loadDefinitions } from "../shared/definitions.js";
import { byId, byIdAs, focusBySlash, setText } from "../shared/dom.js";
import { Freshness } from "../shared/freshness.js";
import { addMachine } from "./add-machine.js";
import { keep, periodButton, reread, settings, sortBy, sortOf } from "./address.js";
import { Groups } from "./groups.js";
import { Row } from "./row.js";
import { Sparklines } from "./sparklines.js";
import { FleetTable, PAGE } from "./table.js";

const PAUSE_SECONDS = 0.2; // between long polls
// Everything again, for what no change tells: removed servers, errors, and peaks that have passed.
const RELOAD_MS = 60_000;

/** @type {Map<string, Row>} */
const rows = new Map(); // by server
const filter = byIdAs("filter", HTMLInputElement);
const dialog = byIdAs("add-dialog", HTMLDialogElement);
/** @type {string[]} */
let pages = [""]; // where those of the fleet begin
/** @type {Map<string, Map<string, Api.Peak>>} */
let peaksOf = new Map(); // by server, and by interface
/** @type {string | null} */
let cursor = null; // where the changes go on; null: everything is to be loaded
let loadedAt = 0; // by performance.now()

const fresh = new Freshness(byId("stale"));
const sparklines = new Sparklines(rows, fresh);
const groups = new Groups((key) => {
  settings.group = key;
  keep({ isStep: true });
  table.arrange();
}, (tag) => filterBy(tag));
const table = new FleetTable(rows, (element) => sparklines.observe(element), groups);
const changes = fresh.task(async (signal) => {
  try {
    if (cursor === null || performance.now() - loadedAt > RELOAD_MS) cursor = await load(signal);
    else cursor = await follow(cursor, signal);
  } catch (error) {
    if (!signal.aborted) cursor = null; // a page that was hidden goes on where it was
    throw error;
  }
}, PAUSE_SECONDS);
const peaks = fresh.task(async (signal) => {
  await loadPeaks(pages, signal);
  if (settings.sort === "peak" || settings.sort === "errors") table.arrange();
});

// Data

/**
 * Everything; resolves to the moment that it is of.
 * @param {AbortSignal} signal
 */
async function load(signal) {
  let after = "";
  /** @type {string | null} */
  let at = null;
  /** @type {Set<string>} */
  const found = new Set();
  const begun = [];
  const definitions = loadDefinitions(signal);
  const peaksOfKnown = loadPeaks(pages, signal);
  // They are waited for below; a failure before that is no unhandled one.
  for (const one of [definitions, peaksOfKnown]) one.catch(() => {});
  while (true) {
    begun.push(after);
    const page = await get("/api/v1/fleet", { query: { limit: PAGE, after }, signal });
    await definitions;
    for (const server of page.servers) {
      found.add(server.id);
      take(server);
    }
    if (at === null) {
      at = page.at;
      table.isLoaded = true;
      table.arrange(); // the first page at once
    }
    if (!page.next) break;
    after = page.next;
  }
  for (const [id, row] of rows) {
    if (found.has(id)) continue;
    sparklines.remove(row);
    rows.delete(id);
  }
  await peaksOfKnown;
  const more = begun.filter((start) => !pages.includes(start));
  pages = begun;
  await loadPeaks(more, signal);
  table.arrange();
  loadedAt = performance.now();
  return at;
}

/**
 * What changed since `at`; resolves to where the changes go on, or null where more changed than the service remembers.
 * @param {string} at
 * @param {AbortSignal} signal
 */
async function follow(at, signal) {
  const found = await get("/api/v1/fleet", { query: { since: at }, signal });
  // Of those that are known, a name and tags may have changed, by which rows are filtered and grouped.
  const isNew = found.servers.some((server) => labelsOf(server) !== labelsOf(rows.get(server.id)?.server));
  found.servers.forEach(take);
  if (isNew) table.arrange();
  else if (found.servers.length) table.summarise();
  return found.is_whole ? found.at : null;
}

/** @param {Api.FleetServer | undefined} server */
function labelsOf(server) {
  return server && [server.display_name, ...server.tags].join("\n");
}

/**
 * @param {string[]} starts of pages of the fleet
 * @param {AbortSignal} signal
 */
async function loadPeaks(starts, signal) {
  const { period } = settings;
  for (const after of starts) {
    const found = await get("/api/v1/fleet/peaks", { query: { period, limit: PAGE, after }, signal });
    if (period !== settings.period) return;
    for (const [id, of] of Map.groupBy(found.peaks, (one) => one.server_id)) {
      peaksOf.set(id, new Map(of.map((one) => [one.interface, one])));
    }
  }
  if (!starts.length) return;
  for (const [id, row] of rows) {
    row.peaks = peaksOf.get(id) ?? new Map();
    row.showPeaks();
  }
}

/** @param {Api.FleetServer} server */
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

// What readers do

const sortButtons = [...document.querySelectorAll("thead button")];

/** @param {Element} button */
function sortOfButton(button) {
  return sortOf(button.getAttribute("data-sort"));
}

function showSettings() {
  periodButton(settings.period).checked = true;
  setText(byId("span"), settings.period);
  if (filter.value !== settings.filter) filter.value = settings.filter;
  for (const button of sortButtons) {
    const header = button.closest("th");
    if (sortOfButton(button) !== settings.sort) header?.removeAttribute("aria-sort");
    else header?.setAttribute("aria-sort", settings.descending ? "descending" : "ascending");
  }
}

function changedPeriod() {
  for (const row of rows.values()) row.invalidate();
  peaksOf = new Map();
  sparklines.invalidate();
  peaks.restart();
}

for (const input of document.querySelectorAll('input[name="period"]')) {
  input.addEventListener("change", () => {
    Object.assign(settings, { period: input.getAttribute("value") });
    keep({ isStep: true });
    showSettings();
    changedPeriod();
  });
}

addEventListener("popstate", () => {
  const { period } = settings;
  reread();
  showSettings();
  table.arrange();
  if (period !== settings.period) changedPeriod();
});

for (const button of sortButtons) {
  button.addEventListener("click", () => {
    sortBy(sortOfButton(button));
    keep();
    showSettings();
    table.arrange();
  });
}

/** @param {string} text */
function filterBy(text) {
  settings.filter = text;
  keep();
  showSettings();
  table.limitTo(PAGE);
}

filter.addEventListener("input", () => filterBy(filter.value));
filter.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !filter.value) return;
  event.preventDefault();
  filterBy("");
});
focusBySlash(filter);

byId("more").addEventListener("click", () => table.limitTo(table.limit + PAGE));
byId("add").addEventListener("click", () => {
  byId("dialog-add").replaceChildren(addMachine());
  dialog.showModal();
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // the backdrop
});

onChoice(() => {
  for (const row of rows.values()) row.show();
});

fresh.tick(() => table.age());
watchBell(fresh);
showSettings();
changes.soon();
