// The service's own thresholds and periods (GET /api/v1/system/definitions), and what the pages derive from them.

import { get } from "./api.js";

/** @typedef {NonNullable<NonNullable<Api.Get["/api/v1/fleet/peaks"]["asked"]["query"]>["period"]>} Period such as "24h" */

/** @type {Api.Definitions | null} */
let known = null;

/**
 * Asks for them, once a page; everything else here needs them. Throws ApiError.
 * @param {AbortSignal} [signal]
 */
export async function loadDefinitions(signal) {
  known ??= await get("/api/v1/system/definitions", { signal });
}

/** The definitions, once they are loaded. */
export function definitions() {
  if (!known) throw new Error("the definitions are not loaded yet");
  return known;
}

/**
 * Whether there is a period of this name.
 * @param {string | null} name
 * @returns {name is Period}
 */
export function isPeriod(name) {
  return definitions().periods.some((one) => one.name === name);
}

/**
 * A period's length and buckets.
 * @param {Period} name
 */
export function periodOf(name) {
  const found = definitions().periods.find((one) => one.name === name);
  if (!found) throw new Error(`no period ${name}`);
  return found;
}

/**
 * Seconds from one heartbeat of an agent to the next, where it may not report them.
 * @param {{ interval_seconds: number | null } | null} agent
 */
export function intervalOf(agent) {
  return agent?.interval_seconds ?? definitions().default_interval_seconds;
}

/**
 * The width in seconds of the buckets of a period that `beats` heartbeats fill, one every `interval` seconds: in narrower
 * buckets, some would be empty and look like gaps. At most `most` of them make up the period, and at least two: a single
 * one on the clock could be empty while the period is not.
 * @param {Period} name
 * @param {{ interval: number, beats: number, most?: number }} of
 */
export function bucketSeconds(name, { interval, beats, most = Infinity }) {
  const { seconds, bucket_seconds: bucket } = periodOf(name);
  const least = Math.max(bucket, beats * interval, seconds / most);
  const width = definitions().bucket_widths_seconds.find((one) => one >= least && one % bucket === 0);
  const half = Math.floor(seconds / 2 / bucket) * bucket;
  return Math.min(width ?? Math.ceil(least / bucket) * bucket, half);
}
