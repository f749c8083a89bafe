// What the chart shows: a grid of buckets of one interface or of the whole server, its gaps, and its events.

import { get } from "../shared/api.js";
import { bucketSeconds, definitions } from "../shared/definitions.js";

/** @import { Period } from "../shared/definitions.js" */

const BEATS_A_BUCKET = 2;
const MOST_BUCKETS = 480;

/**
 * @typedef {(number | null)[]} Values one a bucket; null: nothing was reported
 * @typedef {{ since: number, until: number }} Span in seconds since 1970
 */

/**
 * @typedef {object} Series
 * @property {number} since in seconds since 1970, like `until` and `starts`
 * @property {number} until
 * @property {number} width of a bucket, in seconds
 * @property {number[]} starts of the buckets
 * @property {Values} rx in bits per second
 * @property {Values} tx
 * @property {Values} rxBytes
 * @property {Values} txBytes
 * @property {string[] | null} counted the interfaces that a total is made of
 */

/**
 * @typedef {object} Timing when heartbeats come
 * @property {number} interval seconds from one to the next
 * @property {number} seen when the newest was measured, in seconds since 1970
 */

/**
 * @typedef {object} Event what is not counted plainly; `kind` as the API has it
 * @property {number} at in seconds since 1970
 * @property {string} kind
 * @property {string[]} interfaces
 * @property {number | null} elapsed_seconds
 */

/** @typedef {{ timestamp: string, rx_bytes?: number | null, tx_bytes?: number | null, rx_bps?: number | null, tx_bps?: number | null }} Bucket */

/**
 * Of the buckets of a period where heartbeats come every `interval` seconds.
 * @param {Period} period
 * @param {number} interval
 */
export function bucketOf(period, interval) {
  return bucketSeconds(period, { interval, beats: BEATS_A_BUCKET });
}

/**
 * The traffic of `name` (null: of the server) in `period`, or in `zoom`.
 * @param {string} server
 * @param {{ interface: string | null, period: Period, zoom: Span | null }} of
 * @param {Timing} timing
 * @param {AbortSignal} signal
 * @returns {Promise<Series>}
 */
export async function load(server, { interface: name, period, zoom }, timing, signal) {
  if (zoom) return zoomed(server, name, zoom, timing.interval, signal);
  const answer = await get("/api/v1/metrics/sparkline/{server_id}/network", {
    path: { server_id: server },
    query: { period, interface: name, fill: "null", bucket: `${bucketOf(period, timing.interval) / 60}m` },
    signal,
  });
  if (!("data" in answer)) throw new Error("a series for each interface, where one was asked for");
  return series(answer.data, answer.bucket_seconds, timing, answer.interfaces ?? null);
}

/**
 * The series of every interface of the server in `period`, in one answer, by name.
 * @param {string} server
 * @param {Period} period
 * @param {Timing} timing
 * @param {AbortSignal} signal
 */
export async function loadAll(server, period, timing, signal) {
  const answer = await get("/api/v1/metrics/sparkline/{server_id}/network", {
    path: { server_id: server },
    query: { period, group_by: "interface", fill: "null", bucket: `${bucketOf(period, timing.interval) / 60}m` },
    signal,
  });
  if (!("series" in answer)) throw new Error("one series, where one for each interface was asked for");
  return new Map(answer.series.map((one) => [one.interface, series(one.data, answer.bucket_seconds, timing)]));
}

/**
 * The finest buckets that are kept of this span, as far as a screen can show them and heartbeats fill them.
 * @param {string} server
 * @param {string | null} name
 * @param {Span} span
 * @param {number} interval
 * @param {AbortSignal} signal
 * @returns {Promise<Series>}
 */
async function zoomed(server, name, { since, until }, interval, signal) {
  const narrowest = Math.max((until - since) / MOST_BUCKETS, BEATS_A_BUCKET * interval);
  const { bucket_widths_seconds: widths, periods } = definitions();
  // Widths that one aggregate answers are kept for the same time: where one of them has nothing, the next aggregate may.
  const aggregates = [...new Set(periods.map((one) => one.base_seconds))].sort((one, other) => one - other);
  let width = widths.find((one) => one >= narrowest) ?? widths.at(-1) ?? narrowest;
  while (true) {
    const first = Math.floor(since / width) * width;
    const answer = await get("/api/v1/traffic/history", {
      query: {
        server, interface: name, group_by: name == null ? "server" : null, bucket: `${width / 60}m`, limit: 1_000,
        since: iso(first), until: iso(until),
      },
      signal,
    });
    const wider = aggregates.find((one) => one > width);
    if (answer.data.length || wider === undefined) return { ...series(onGrid(answer.data, first, until, width), width, null), since, until };
    width = wider;
  }
}

/**
 * A bucket for each `width` seconds of the span, empty where nothing was reported.
 * @param {Bucket[]} data
 * @param {number} first
 * @param {number} until
 * @param {number} width
 */
function onGrid(data, first, until, width) {
  const known = new Map(data.map((bucket) => [seconds(bucket.timestamp), bucket]));
  /** @type {Bucket[]} */
  const grid = [];
  for (let start = first; start < until; start += width) grid.push({ ...known.get(start), timestamp: iso(start) });
  return grid;
}

/**
 * @param {Bucket[]} data
 * @param {number} width
 * @param {Timing | null} timing of the bucket under way; null: its rate is as it came
 * @param {string[] | null} counted
 * @returns {Series}
 */
function series(data, width, timing, counted = null) {
  const starts = data.map((bucket) => seconds(bucket.timestamp));
  const [since = 0] = starts;
  const last = starts.at(-1) ?? since;
  const rxBytes = data.map((bucket) => bucket.rx_bytes ?? null);
  const txBytes = data.map((bucket) => bucket.tx_bytes ?? null);
  /**
   * @param {Values} rates
   * @param {Values} octets
   */
  const finished = (rates, octets) => (timing ? withoutTheUnfinished(rates, octets, width, timing.seen - last, timing.interval) : rates);
  return {
    since, until: last + width, width, starts, counted, rxBytes, txBytes,
    rx: finished(data.map((bucket) => bucket.rx_bps ?? null), rxBytes),
    tx: finished(data.map((bucket) => bucket.tx_bps ?? null), txBytes),
  };
}

/**
 * Of the bucket under way a sparkline has the bytes so far over its whole width: a drop that nobody saw. Here its rate is
 * that of the time that its samples stand for: each for the interval before it. `passed` is from its start to the newest.
 * @param {Values} rates
 * @param {Values} octets
 * @param {number} width
 * @param {number} passed
 * @param {number} interval
 */
function withoutTheUnfinished(rates, octets, width, passed, interval) {
  const last = rates.length - 1;
  const [before, rate] = [rates[last - 1], rates[last]];
  // Heartbeats are a little early or late; a sample too few would be a rate too high.
  const covered = (Math.floor(passed / interval + 0.1) + 1) * interval;
  // Behind a gap, the rate is one of the gap too.
  if (!(covered < width) || rate == null || before == null) return rates;
  return rates.with(last, Math.max(rate, ((octets[last] ?? 0) * 8) / covered));
}

/**
 * Where nothing was reported. Heartbeats that are only just due are no gap.
 * @param {Series} series
 * @param {number} interval
 */
export function gaps({ rx, starts, width }, interval) {
  /** @type {Span[]} */
  const found = [];
  const last = rx.length - 1;
  const due = definitions().offline_after_intervals * interval;
  for (let from = 0; from <= last; from += 1) {
    if (rx[from] != null) continue;
    let to = from;
    while (to < last && rx[to + 1] == null) to += 1;
    const isDue = to === last && (to - from) * width <= due;
    if (!isDue) found.push({ since: starts[from] ?? 0, until: (starts[to] ?? 0) + width });
    from = to;
  }
  return found;
}

/**
 * What is not counted plainly in the range of a series; of a total, at the interfaces that it is made of.
 * @param {string} server
 * @param {string | null} name
 * @param {Series} series
 * @param {AbortSignal} signal
 * @returns {Promise<Event[]>}
 */
export async function events(server, name, { since, until, counted }, signal) {
  const { data } = await get("/api/v1/traffic/events", {
    query: { server, interface: name, since: iso(since), until: iso(until), limit: 500 }, signal,
  });
  /** @param {string} one */
  const isOfIt = (one) => !counted?.length || counted.includes(one);
  return data
    .map((event) => ({ ...event, at: seconds(event.timestamp), interfaces: event.interfaces.filter(isOfIt) }))
    .filter((event) => event.interfaces.length);
}

/**
 * The totals and peaks of a series, for its summary. A peak is { bps, start }; null: nothing was reported.
 * @param {Series} series
 */
export function summary({ starts, rx, tx, rxBytes, txBytes }) {
  return { rxBytes: sum(rxBytes), txBytes: sum(txBytes), rxPeak: peak(starts, rx), txPeak: peak(starts, tx) };
}

/** @param {Values} values */
function sum(values) {
  return values.reduce((/** @type {number} */ total, value) => total + (value ?? 0), 0);
}

/**
 * @param {number[]} starts
 * @param {Values} rates
 */
function peak(starts, rates) {
  /** @type {{ bps: number, start: number } | null} */
  let best = null;
  for (const [index, start] of starts.entries()) {
    const bps = rates[index];
    if (bps != null && (best === null || bps > best.bps)) best = { bps, start };
  }
  return best;
}

/** @param {number} at in seconds since 1970 */
export function iso(at) {
  return new Date(at * 1000).toISOString();
}

/** @param {string} timestamp */
export function seconds(timestamp) {
  return Date.parse(timestamp) / 1000;
}
