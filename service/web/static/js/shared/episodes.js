// Episodes of alerts: each from the moment that its condition became true to the one when it no longer held.

import { get } from "./api.js";

/**
 * @typedef {object} Episode
 * @property {string} rule
 * @property {string} server_id
 * @property {string} subject interface, mount point or level of a quota; "": the server
 * @property {"critical" | "warning" | "info"} severity
 * @property {number} since ms since 1970
 * @property {number | null} until null: it goes on
 * @property {boolean} isLate found in replayed data
 * @property {string | null} reason why it was closed; null: it was not
 */

const PAGE = 1000;
const MOST_EVENTS = 10_000;

/**
 * Those that reach into [since, until), both in ms since 1970; of one server, or of all. Throws ApiError.
 * @param {{ since: number, until: number, server?: string }} range
 * @param {AbortSignal} signal
 */
export async function loadEpisodes({ since, until, server }, signal) {
  /** @type {Api.AlertEvent[]} */
  const events = [];
  /** @type {string | null} */
  let cursor = null;
  do {
    /** @type {Api.AlertEvents} */
    const page = await get("/api/v1/alerts/events", { query: { server, limit: PAGE, cursor }, signal });
    events.push(...page.events);
    cursor = page.next;
  } while (cursor && events.length < MOST_EVENTS && Date.parse(events.at(-1)?.recorded_at ?? "") >= since);
  return episodesOf(events).filter((one) => one.since < until && (one.until ?? Infinity) >= since);
}

/** @param {Api.AlertEvent[]} events the newest first */
function episodesOf(events) {
  return [...Map.groupBy(events, (event) => event.episode).values()].flatMap((both) => {
    const first = both.at(-1);
    if (!first) return [];
    const end = both.find((event) => event.to !== "firing");
    /** @type {Episode} */
    const episode = {
      rule: first.rule, server_id: first.server_id, subject: first.subject, severity: first.severity ?? "info",
      since: Date.parse(first.since), until: end ? Date.parse(end.cleared_at ?? end.at) : null,
      isLate: both.some((event) => event.is_late), reason: end?.to === "closed" ? end.reason : null,
    };
    return [episode];
  });
}
