// What the reader asks the fleet page for stands in the address: it can be kept, sent on, and gone back to.

import { find } from "../shared/dom.js";

/** @import { Period } from "../shared/definitions.js" */

const SORTS = /** @type {const} */ (["status", "server", "interface", "now", "peak", "errors"]);
/** @typedef {(typeof SORTS)[number]} Sort */

// A reader who sorts by one of these looks for the highest: that stands first.
/** @type {Set<Sort>} */
const DESCENDING_FIRST = new Set(["now", "peak", "errors"]);

// Those that the page offers; the service has more.
const periods = [...document.querySelectorAll('input[name="period"]')].map((input) => input.getAttribute("value"));

/** period, filter, group (key of a tag, "" for none), sort and descending, as the address has them. */
export const settings = read();

/** Takes them from the address again, after a step back or forward. */
export function reread() {
  Object.assign(settings, read());
}

/** Puts them into the address; `isStep`: it can be gone back from. */
export function keep({ isStep = false } = {}) {
  const query = new URLSearchParams();
  if (settings.period !== periods[0]) query.set("period", settings.period);
  if (settings.filter) query.set("q", settings.filter);
  if (settings.group) query.set("group", settings.group);
  if (settings.sort !== "server") query.set("sort", settings.sort);
  if (settings.descending !== DESCENDING_FIRST.has(settings.sort)) {
    query.set("order", settings.descending ? "desc" : "asc");
  }
  history[isStep ? "pushState" : "replaceState"](null, "", query.size ? `?${query}` : location.pathname);
}

/**
 * By another column, or by the same one the other way round.
 * @param {Sort} sort
 */
export function sortBy(sort) {
  settings.descending = sort === settings.sort ? !settings.descending : DESCENDING_FIRST.has(sort);
  settings.sort = sort;
}

/**
 * @param {string | null | undefined} name
 * @returns {Sort} "server", where there is no such column
 */
export function sortOf(name) {
  return SORTS.find((one) => one === name) ?? "server";
}

/**
 * The radio button of a period.
 * @param {string} period
 */
export function periodButton(period) {
  return find(document, `input[name="period"][value="${CSS.escape(period)}"]`, HTMLInputElement);
}

function read() {
  const query = new URLSearchParams(location.search);
  const sort = sortOf(query.get("sort"));
  const period = query.get("period");
  return {
    period: /** @type {Period} */ (periods.includes(period) ? period : periods[0]),
    filter: query.get("q") ?? "",
    group: query.get("group") ?? "",
    sort,
    descending: query.has("order") ? query.get("order") === "desc" : DESCENDING_FIRST.has(sort),
  };
}
