// What the chart shows: a grid of buckets of one interface or of the whole server, its gaps, and what is not plain in it.

import { get } from "./api.js";

/** Seconds of each period, as in service/traffic/periods.py, with the width of its aggregate's buckets. */
export const PERIODS = new Map([
  ["1h", { seconds: 3_600, bucket: 60 }],
  ["24h", { seconds: 86_400, bucket: 900 }],
  ["7d", { seconds: 7 * 86_400, bucket: 3_600 }],
  ["30d", { seconds: 30 * 86_400, bucket: 6 * 3_600 }],
  ["1y", { seconds: 365 * 86_400, bucket: 86_400 }],
]);
export const SHORTEST_ZOOM_SECONDS = 300;
const WIDTHS = [60, 120, 300, 900, 1_800, 3_600, 6 * 3_600, 86_400];
const MOST_BUCKETS = 480;

/**
 * The width in seconds that buckets of a period should have where heartbeats come every `interval` seconds: in narrower
 * ones, every other would be empty, and look like a gap.
 */
export function bucketOf(period, interval) {
  const { bucket } = PERIODS.get(period);
  return bucket * [1, 2, 4, 5, 10, 20, 30].find((factor) => bucket * factor >= 2 * interval || factor === 30);
}

/**
 * The traffic of `interface` (null: of the server) in `period`, or in `zoom` ({ since, until } in seconds since 1970).
 *
 * Answers { since, until, width, starts, rx, tx, rxBytes, txBytes, counted }: lists with one entry a bucket, rates in
 * bits per second, null where nothing was reported; `counted` names the interfaces that a total is made of.
 */
export async function load(server, { interface: name, period, zoom, interval, seen, signal }) {
  if (zoom) return zoomed(server, name, zoom, interval, signal);
  const width = bucketOf(period, interval);
  const answer = await get(`/api/v1/metrics/sparkline/${encodeURIComponent(server)}/network`, {
    query: { period, interface: name, fill: "null", bucket: `${width}s` }, signal,
  });
  return series(answer.data, answer.bucket_seconds, { counted: answer.interfaces ?? null, seen, interval });
}

/** The rates of every interface of the server in `period`, in one answer: a Map of names to { rx, tx }. */
export async function loadAll(server, { period, interval, seen, signal }) {
  const answer = await get(`/api/v1/metrics/sparkline/${encodeURIComponent(server)}/network`, {
    query: { period, group_by: "interface", fill: "null", bucket: `${bucketOf(period, interval)}s` }, signal,
  });
  return new Map(
    answer.series.map(({ interface: name, data }) => [name, series(data, answer.bucket_seconds, { seen, interval })]),
  );
}

/** The finest buckets that are kept of so much time, as far as a screen can show them and heartbeats fill them. */
async function zoomed(server, name, { since, until }, interval, signal) {
  const narrowest = Math.max((until - since) / MOST_BUCKETS, 2 * interval);
  for (const width of WIDTHS.filter((one) => one >= narrowest || one === WIDTHS.at(-1))) {
    const first = Math.floor(since / width) * width;
    const answer = await get("/api/v1/traffic/history", {
      query: {
        server, interface: name, group_by: name == null ? "server" : null, bucket: `${width / 60}m`, limit: 1_000,
        since: iso(first), until: iso(until),
      },
      signal,
    });
    if (!answer.data.length && width !== WIDTHS.at(-1)) continue; // so narrow ones are no longer kept, or never were
    const known = new Map(answer.data.map((bucket) => [seconds(bucket.timestamp), bucket]));
    const grid = [];
    for (let start = first; start < until; start += width) {
      grid.push({ ...(known.get(start) ?? {}), timestamp: iso(start) });
    }
    return { ...series(grid, width), since, until };
  }
}

/** `seen`: when the newest heartbeat was measured, where the last bucket's rate is one of the time up to then. */
function series(data, width, { counted = null, seen = Infinity, interval = 1 } = {}) {
  const starts = data.map((bucket) => seconds(bucket.timestamp));
  const of = (field) => data.map((bucket) => bucket[field] ?? null);
  const [rxBytes, txBytes] = [of("rx_bytes"), of("tx_bytes")];
  const rates = (field, octets) => withoutTheUnfinished(of(field), octets, width, seen - starts.at(-1), interval);
  return {
    since: starts[0], until: starts.at(-1) + width, width, starts, counted,
    rx: rates("rx_bps", rxBytes), tx: rates("tx_bps", txBytes), rxBytes, txBytes,
  };
}

/**
 * Of the bucket under way a sparkline has the bytes so far over its whole width: a drop that nobody saw. Here its rate is
 * that of the time that its samples stand for: each for the interval before it. `passed` is from its start to the newest.
 */
function withoutTheUnfinished(rates, octets, width, passed, interval) {
  const last = rates.length - 1;
  // Heartbeats are a little early or late; a sample too few would be a rate too high.
  const covered = (Math.floor(passed / interval + 0.1) + 1) * interval;
  // Behind a gap, the rate is one of the gap too.
  if (!(covered < width) || rates[last] == null || rates[last - 1] == null) return rates;
  return rates.with(last, Math.max(rates[last], (octets[last] * 8) / covered));
}

/** Where nothing was reported: [{ since, until }], in seconds. Heartbeats that are only just due are no gap. */
export function gaps({ rx, starts, width }, interval) {
  const found = [];
  const last = rx.length - 1;
  for (let from = 0; from <= last; from += 1) {
    if (rx[from] != null) continue;
    let to = from;
    while (to < last && rx[to + 1] == null) to += 1;
    const isDue = to === last && (to - from) * width <= 3 * interval;
    if (!isDue) found.push({ since: starts[from], until: starts[to] + width });
    from = to;
  }
  return found;
}

/** What is not counted plainly in the range of a series, as the API has it; of a total, at the interfaces it is made of. */
export async function events(server, name, { since, until, counted }, signal) {
  const { data } = await get("/api/v1/traffic/events", {
    query: { server, interface: name, since: iso(since), until: iso(until), limit: 500 }, signal,
  });
  const isOfIt = (one) => !counted?.length || counted.includes(one);
  return data
    .map((event) => ({ ...event, at: seconds(event.timestamp), interfaces: event.interfaces.filter(isOfIt) }))
    .filter((event) => event.interfaces.length);
}

/** The totals and peaks of a series, for its summary. A peak is { bps, start }; null: nothing was reported. */
export function summary({ starts, rx, tx, rxBytes, txBytes }) {
  const sum = (values) => values.reduce((total, value) => total + (value ?? 0), 0);
  const peak = (rates) => {
    let best = null;
    rates.forEach((bps, index) => {
      if (bps != null && (best == null || bps > best.bps)) best = { bps, start: starts[index] };
    });
    return best;
  };
  return { rxBytes: sum(rxBytes), txBytes: sum(txBytes), rxPeak: peak(rx), txPeak: peak(tx) };
}

export function iso(at) {
  return new Date(at * 1000).toISOString();
}

export function seconds(timestamp) {
  return Date.parse(timestamp) / 1000;
}
