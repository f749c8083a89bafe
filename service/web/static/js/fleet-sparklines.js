// The sparklines of the rows that are in view, or nearly: fetched for all of them at once, and again after a while.

import { get } from "./api.js";
import { settings } from "./fleet-settings.js";

const AGAIN_SECONDS = 20;
const SERIES_AT_ONCE = 240;
const SOON_MS = 30;
// Seconds of a bucket, and how many of them at most are one: the period. A week in hours has more points than a sparkline pixels.
const BUCKETS = { "1h": [60, 60], "24h": [900, 96], "7d": [7200, 84] };
// Where heartbeats are seldom, a bucket has one all the same: else there would be gaps that are none.
const BEATS_A_BUCKET = 1.5;

export class Sparklines {
  /** `rows`: by server; `isPaused()`: there is nobody to see them, or nobody to ask. */
  constructor(rows, isPaused) {
    this.rows = rows;
    this.isPaused = isPaused;
    this.inView = new Set();
    this.drawn = new Map(); // when, by server
    this.timer = null;
    this.observer = new IntersectionObserver((entries) => this.look(entries), { rootMargin: "300px 0px" });
  }

  observe(element) {
    this.observer.observe(element); // once more is as good as once
  }

  remove(row) {
    if (row.made) this.observer.unobserve(row.made);
    this.inView.delete(row.server.id);
  }

  /** What is drawn is not what is wanted: another period, or all anew. */
  forget() {
    this.drawn.clear();
    this.soon();
  }

  soon() {
    this.timer ??= setTimeout(() => this.draw(), SOON_MS);
  }

  look(entries) {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting) this.inView.add(target.dataset.server);
      else this.inView.delete(target.dataset.server);
    }
    this.soon();
  }

  async draw() {
    this.timer = null;
    if (this.isPaused()) return;
    const { period } = settings;
    const asked = this.next(period);
    if (!asked.length) return;
    for (const row of asked) this.drawn.set(row.server.id, Date.now());
    try {
      for (const [bucket, rows] of Map.groupBy(asked, (row) => bucketOf(row.server, period))) {
        const series = rows.flatMap(({ server }) => server.interfaces.map((one) => `${server.id}/${one.name}`));
        const found = series.length
          ? await get("/api/v1/fleet/sparklines", { query: { period, bucket, series } })
          : { series: [] };
        if (period !== settings.period) return;
        const of = Map.groupBy(found.series, (one) => one.server_id);
        for (const row of rows) {
          row.draw(new Map((of.get(row.server.id) ?? []).map((one) => [one.interface, one])), period);
        }
      }
    } catch {
      // That the service is away, the page says by what it asks again and again.
      for (const row of asked) this.drawn.delete(row.server.id);
      return;
    }
    document.documentElement.dataset.drawn = ""; // for those who measure
    this.soon();
  }

  /** The rows in view that have no sparklines of this period, or old ones; as many as are asked for at once. */
  next(period) {
    const old = Date.now() - AGAIN_SECONDS * 1000;
    const asked = [];
    let series = 0;
    for (const id of this.inView) {
      const row = this.rows.get(id);
      if (!row || (row.period === period && (this.drawn.get(id) ?? 0) > old)) continue;
      series += row.server.interfaces.length;
      if (asked.length && series > SERIES_AT_ONCE) break;
      asked.push(row);
    }
    return asked;
  }
}

function bucketOf(server, period) {
  const [seconds, most] = BUCKETS[period];
  // Of less than two buckets, those of the clock could be empty while the period is not: the service chooses them then.
  const together = Math.min(most / 2, Math.max(1, Math.ceil((BEATS_A_BUCKET * server.interval_seconds) / seconds)));
  return `${(together * seconds) / 60}m`;
}
