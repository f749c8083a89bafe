// What the reader chose to see of a server. It is in the address, so that it can be gone back to and sent to others.

import { isPeriod, periodOf } from "../shared/definitions.js";
import { iso } from "./traffic.js";

/** @import { Period } from "../shared/definitions.js" */
/** @import { Span } from "./traffic.js" */

/** @type {Period} */
const USUAL_PERIOD = "24h";
export const SHORTEST_ZOOM_SECONDS = 300;

/**
 * @typedef {object} Chosen
 * @property {Period} period
 * @property {string | null} interface null: all of them
 * @property {Span | null} zoom null: the whole period
 */

/** @type {Chosen} */
export const chosen = { period: USUAL_PERIOD, interface: null, zoom: null };

/** Takes over what the address says; what it cannot mean is left out. Needs the definitions. */
export function readAddress() {
  const query = new URLSearchParams(location.search);
  const period = query.get("period");
  chosen.period = isPeriod(period) ? period : USUAL_PERIOD;
  chosen.interface = query.get("interface") || null;
  const since = Date.parse(query.get("since") ?? "") / 1000;
  const until = Date.parse(query.get("until") ?? "") / 1000;
  chosen.zoom = until - since >= SHORTEST_ZOOM_SECONDS ? { since, until } : null;
}

/**
 * The address of what is chosen, but for `changes`.
 * @param {Partial<Chosen>} changes
 */
export function address(changes = {}) {
  const { period, interface: name, zoom } = { ...chosen, ...changes };
  const query = new URLSearchParams();
  if (period !== USUAL_PERIOD) query.set("period", period);
  if (name != null) query.set("interface", name);
  if (zoom) {
    query.set("since", iso(zoom.since));
    query.set("until", iso(zoom.until));
  }
  return query.size ? `${location.pathname}?${query}` : location.pathname;
}

/**
 * Takes `changes` over, and a new entry into the browser's history; false where nothing changes.
 * @param {Partial<Chosen>} changes
 */
export function choosing(changes) {
  const next = address(changes);
  if (next === location.pathname + location.search) return false;
  history.pushState(null, "", next);
  Object.assign(chosen, changes);
  return true;
}

/**
 * A zoom between two moments in seconds, up to the newest, not too narrow; null where it is the whole period.
 * @param {number} since
 * @param {number} until
 * @param {number} newest
 * @returns {Span | null}
 */
export function zoomTo(since, until, newest) {
  const span = Math.max(until - since, SHORTEST_ZOOM_SECONDS);
  const end = Math.min((since + until + span) / 2, newest);
  if (span >= periodOf(chosen.period).seconds) return null;
  return { since: Math.round(end - span), until: Math.round(end) };
}
