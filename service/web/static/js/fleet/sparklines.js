// The sparklines of the rows that are in view, or nearly: fetched for all of them at once, and again after a while.

import { get } from "../shared/api.js";
import { bucketSeconds } from "../shared/definitions.js";
import { settings } from "./address.js";

/** @import { Row } from "./row.js" */

const AGAIN_SECONDS = 20;
const SERIES_AT_ONCE = 240;
const SOON_SECONDS = 0.03; // rows that come into view together are asked for together
// A week in hours has more points than a sparkline has pixels.
const MOST_POINTS = 96;
const BEATS_A_BUCKET = 1.5;

export class Sparklines {
  /**
   * @param {Map<string, Row>} rows by server
   * @param {import("../shared/freshness.js").Freshness} fresh
   */
  constructor(rows, fresh) {
    this.rows = rows;
    /** @type {Set<string>} */
    this.inView = new Set();
    /** @type {Map<string, number>} */
    this.drawn = new Map(); // when, by server
    this.task = fresh.task((signal) => this.draw(signal), 1);
    this.observer = new IntersectionObserver((entries) => this.onView(entries), { rootMargin: "300px 0px" });
  }

  /** @param {Element} element of a row; once more is as good as once */
  observe(element) {
    this.observer.observe(element);
  }

  /** @param {Row} row */
  remove(row) {
    if (row.parts) this.observer.unobserve(row.parts.row);
    this.inView.delete(row.server.id);
  }

  /** What is drawn is not what is wanted: another period, or everything was loaded again. */
  invalidate() {
    this.drawn.clear();
    this.task.restart();
  }

  /** @param {IntersectionObserverEntry[]} entries */
  onView(entries) {
    for (const { target, isIntersecting } of entries) {
      const id = target.getAttribute("data-server") ?? "";
      if (isIntersecting) this.inView.add(id);
      else this.inView.delete(id);
    }
    this.task.soon(SOON_SECONDS);
  }

  /** @param {AbortSignal} signal */
  async draw(signal) {
    const { period } = settings;
    for (let asked = this.next(); asked.length; asked = this.next()) {
      const groups = Map.groupBy(asked, ({ server }) => this.bucketOf(server));
      for (const [bucket, rows] of groups) {
        const series = rows.flatMap(({ server }) => server.interfaces.map((one) => `${server.id}/${one.name}`));
        const found = series.length
          ? (await get("/api/v1/fleet/sparklines", { query: { period, bucket, series }, signal })).series
          : [];
        if (signal.aborted) return;
        const of = Map.groupBy(found, (one) => one.server_id);
        for (const row of rows) {
          row.draw(new Map((of.get(row.server.id) ?? []).map((one) => [one.interface, one])), period);
          this.drawn.set(row.server.id, performance.now());
        }
      }
      document.documentElement.dataset.drawn = ""; // for those who measure
    }
  }

  /** The rows in view that have no sparklines of this period, or old ones; as many as are asked for at once. */
  next() {
    const old = performance.now() - AGAIN_SECONDS * 1000;
    const asked = [];
    let series = 0;
    for (const id of this.inView) {
      const row = this.rows.get(id);
      if (!row || (row.period === settings.period && (this.drawn.get(id) ?? -Infinity) > old)) continue;
      series += row.server.interfaces.length;
      if (asked.length && series > SERIES_AT_ONCE) break;
      asked.push(row);
    }
    return asked;
  }

  /** @param {Api.FleetServer} server */
  bucketOf(server) {
    const of = { interval: server.interval_seconds, beats: BEATS_A_BUCKET, most: MOST_POINTS };
    return `${bucketSeconds(settings.period, of) / 60}m`;
  }
}
