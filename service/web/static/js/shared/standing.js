// Whether a server reports: up, late, silent or paused, by the service's thresholds and its own interval.

import { definitions, intervalOf } from "./definitions.js";
import { duration } from "./format.js";

/**
 * @typedef {object} Standing
 * @property {"silent" | "late" | "paused" | "up"} name
 * @property {"bad" | "warn" | "ok"} kind of its badge
 * @property {number} rank to sort by, the worst first
 * @property {string} words
 */

/**
 * How a server does at `now` (ms, by the service's clock).
 * @param {{ received_at: string, interval_seconds: number | null, paused: boolean }} server
 * @param {number} now
 * @returns {Standing}
 */
export function standing(server, now) {
  const seconds = (now - Date.parse(server.received_at)) / 1000;
  const intervals = seconds / intervalOf(server);
  const { late_after_intervals: late, offline_after_intervals: offline } = definitions();
  if (intervals > offline) return { name: "silent", kind: "bad", rank: 0, words: `Silent ${coarse(seconds)}` };
  if (intervals > late) return { name: "late", kind: "warn", rank: 1, words: `Late ${coarse(seconds)}` };
  if (server.paused) return { name: "paused", kind: "warn", rank: 2, words: "Paused" };
  return { name: "up", kind: "ok", rank: 3, words: "Up" };
}

/**
 * "4 h": the seconds of a minute ago are news, those of yesterday are not.
 * @param {number} seconds
 */
function coarse(seconds) {
  return duration(seconds).split(" ")[0] ?? "";
}
