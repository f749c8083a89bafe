// The machine itself: how busy it was, and how full its filesystems are.

import { get } from "../shared/api.js";
import { definitions, periodOf } from "../shared/definitions.js";
import { make, makeSvg, setText } from "../shared/dom.js";
import { bytes, celsius, clock, moment, NOTHING, percent } from "../shared/format.js";

/** @import { Period } from "../shared/definitions.js" */

const WIDTH = 240;
const HEIGHT = 56;
const READ_ONLY = "read-only"; // as their state: images that are full by their nature, and what an agent says so of

/**
 * @typedef {object} Gauge
 * @property {"cpu" | "memory" | "load" | "temperature"} metric
 * @property {string} name
 * @property {"cpu_percent" | "memory_percent" | "load_1m" | "temperature_celsius"} now of latest_metrics
 * @property {(value: number | null) => string} words
 * @property {number} ceiling of the picture, unless a value is above it
 * @property {boolean} [isRare] shown of machines alone that report it
 */

/** @type {Gauge[]} */
const GAUGES = [
  { metric: "cpu", name: "Processor", now: "cpu_percent", words: percent, ceiling: 100 },
  { metric: "memory", name: "Memory", now: "memory_percent", words: percent, ceiling: 100 },
  { metric: "load", name: "Load", now: "load_1m", words: (load) => (load == null ? NOTHING : load.toFixed(2)), ceiling: 1 },
  { metric: "temperature", name: "Temperature", now: "temperature_celsius", words: celsius, ceiling: 100, isRare: true },
];

/** @typedef {{ gauge: Gauge, box: HTMLElement, value: HTMLElement, note: HTMLElement, picture: SVGElement }} Shown */

/** Small charts of processor, memory and load in `element`, and of the temperature where there is one. */
export class Gauges {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.shown = GAUGES.map((gauge) => {
      const value = make("strong", {});
      const note = make("span", { class: "muted" });
      const picture = makeSvg(
        "svg",
        { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", class: "gauge-picture" },
        makeSvg("path", { class: "gap" }), makeSvg("path", { class: "span" }), makeSvg("path", { class: "mean" }),
      );
      const head = make("div", { class: "gauge-head" }, make("h3", {}, gauge.name), value, note);
      const box = make("div", { class: "gauge" }, head, picture);
      box.hidden = Boolean(gauge.isRare);
      element.append(box);
      return { gauge, box, value, note, picture };
    });
  }

  /**
   * Reads the period's sparklines, in buckets of `width` seconds. Throws ApiError.
   * @param {string} server
   * @param {Period} period
   * @param {number} width
   * @param {AbortSignal} signal
   */
  async load(server, period, width, signal) {
    await Promise.all(
      this.shown.map(async (one) => {
        const answer = await get(`/api/v1/metrics/sparkline/{server_id}/${one.gauge.metric}`, {
          path: { server_id: server }, query: { period, fill: "null", bucket: `${width / 60}m` }, signal,
        });
        this.draw(one, answer.data, period);
      }),
    );
  }

  /**
   * The newest values, of the server's latest_metrics.
   * @param {Api.HostMetrics | null} metrics
   */
  show(metrics) {
    for (const { gauge, box, value } of this.shown) {
      const now = metrics?.[gauge.now] ?? null;
      if (now != null) box.hidden = false;
      setText(value, gauge.words(now));
    }
  }

  /**
   * @param {Shown} shown
   * @param {Api.GaugeSparkline["data"]} data
   * @param {Period} period
   */
  draw({ gauge, box, note, picture }, data, period) {
    /** @type {{ max: number, timestamp: string } | null} */
    let peak = null;
    for (const { max, timestamp } of data) if (max != null && (!peak || max > peak.max)) peak = { max, timestamp };
    if (peak) box.hidden = false;
    const ceiling = Math.max(gauge.ceiling, peak?.max ?? 0);
    const step = WIDTH / data.length;
    /** @param {number | null} value */
    const y = (value) => (HEIGHT - 1 - (Math.max(0, value ?? 0) / ceiling) * (HEIGHT - 2)).toFixed(1);
    const [gap, span, mean] = picture.children;
    const paths = { gap: "", span: "", mean: "" };
    let isOn = false;
    data.forEach((bucket, index) => {
      const left = (index * step).toFixed(1);
      const right = ((index + 1) * step).toFixed(1);
      if (bucket.avg == null) {
        // The newest bucket is empty until its first heartbeat.
        if (index < data.length - 1) paths.gap += `M${left} 0H${right}V${HEIGHT}H${left}Z`;
      } else {
        paths.span += `M${left} ${y(bucket.min)}H${right}V${y(bucket.max)}H${left}Z`;
        paths.mean += `${isOn ? "V" : `M${left} `}${y(bucket.avg)}H${right}`;
      }
      isOn = bucket.avg != null;
    });
    gap?.setAttribute("d", paths.gap);
    span?.setAttribute("d", paths.span);
    mean?.setAttribute("d", paths.mean);
    const when = periodOf(period).seconds <= 86_400 ? clock : moment;
    const words = peak ? `most ${gauge.words(peak.max)}, ${when(peak.timestamp)}` : "no data";
    setText(note, words);
    picture.setAttribute("aria-label", `${gauge.name} over ${period}: ${words}`);
  }
}

/**
 * Draws the filesystems of a server into the list `element`.
 * @param {HTMLElement} element
 * @param {Api.MountedFilesystem[]} filesystems
 */
export function showFilesystems(element, filesystems) {
  if (!filesystems.length) {
    element.replaceChildren(make("li", { class: "muted" }, "No data: its agent reports no filesystems."));
    return;
  }
  const sorted = [...filesystems].sort((one, other) => (one.mount_point < other.mount_point ? -1 : 1));
  element.replaceChildren(...sorted.map(filesystem));
}

/** @param {Api.MountedFilesystem} filesystem */
export function isReadOnly({ state }) {
  return state === READ_ONLY;
}

/**
 * Its state names a fault, such as unreachable.
 * @param {Api.MountedFilesystem} filesystem
 */
export function isOutOfOrder({ state }) {
  return Boolean(state) && state !== "ok" && state !== READ_ONLY;
}

/** @param {Api.MountedFilesystem} one */
function filesystem(one) {
  const { filesystem_warning_percent: nearlyFull, filesystem_full_percent: full } = definitions();
  const isLost = isOutOfOrder(one);
  const share = one.percent ?? 0;
  const level = isLost ? "lost" : isReadOnly(one) ? "ok" : share >= full ? "bad" : share >= nearlyFull ? "warn" : "ok";
  const fill = make("span", { class: `fill ${level}` });
  fill.style.width = `${Math.min(share, 100)}%`;
  const words = `${bytes(one.used_bytes)} of ${bytes(one.total_bytes)} used, ${bytes(one.available_bytes)} free`;
  return make(
    "li",
    { class: "filesystem" },
    make("span", { class: "mount" }, one.mount_point),
    make("span", { class: "device muted" }, [one.fs_type, one.device].filter(Boolean).join(" · ")),
    isReadOnly(one) ? make("span", { class: "tag" }, READ_ONLY) : null,
    isLost ? make("span", { class: "badge bad" }, one.state) : null,
    make("span", { class: "number" }, percent(one.percent)),
    make("span", { class: "bar" }, fill),
    make("span", { class: "muted sizes" }, words),
  );
}
