// What the reader chose to see of a server. It is in the address, so that it can be gone back to and sent to others.

import { iso, PERIODS, SHORTEST_ZOOM_SECONDS } from "./traffic.js";

const USUAL_PERIOD = "24h";

/** `interface` null: all of them; `zoom` null: the whole period, else { since, until } in seconds since 1970. */
export const chosen = { period: USUAL_PERIOD, interface: null, zoom: null };

/** Takes over what the address says; what it cannot mean is left out. */
export function readAddress() {
  const query = new URLSearchParams(location.search);
  chosen.period = PERIODS.has(query.get("period")) ? query.get("period") : USUAL_PERIOD;
  chosen.interface = query.get("interface") || null;
  const since = Date.parse(query.get("since")) / 1000;
  const until = Date.parse(query.get("until")) / 1000;
  chosen.zoom = until - since >= SHORTEST_ZOOM_SECONDS ? { since, until } : null;
}

/** The address of what is chosen, but for `changes`. */
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

/** Takes `changes` over, and a new entry into the browser's history; false where nothing changes. */
export function choosing(changes) {
  const next = address(changes);
  if (next === location.pathname + location.search) return false;
  history.pushState(null, "", next);
  Object.assign(chosen, changes);
  return true;
}

/** A zoom between two moments, as far as there is a past, not too narrow; null where it is the whole period. */
export function zoomTo(since, until, newest) {
  const span = Math.max(until - since, SHORTEST_ZOOM_SECONDS);
  const end = Math.min((since + until + span) / 2, newest);
  if (span >= PERIODS.get(chosen.period).seconds) return null;
  return { since: Math.round(end - span), until: Math.round(end) };
}
