// The chart of traffic: received above zero and sent below it, with gaps, events, zoom and exact values.
//
// uPlot draws, with chart-drawing.js; what keys and the pointer do, and what a screen reader says, is here: the plot is a
// slider along time.

import { make } from "../shared/dom.js";
import { colours, drawBands, drawEvents, drawGaps, drawZero, range, steps, timeTick } from "./chart-drawing.js";

/** @import { Band } from "./chart-drawing.js" */
/** @import { Event, Series, Span } from "./traffic.js" */
/** @typedef {import("uplot")} UPlot */

/** @type {{ uPlot: typeof import("uplot") }} */
const { uPlot } = /** @type {any} */ (globalThis); // vendor/uPlot.iife.min.js, which the page loads before its modules
const PAGE = 10;

/**
 * @typedef {{ time: string, rx: string, tx: string, notes: string[] }} Described a bucket in words
 * @typedef {{ gaps: Span[], events: Event[], bands: Band[] }} Marks
 *
 * @typedef {object} Callbacks
 * @property {(index: number) => Described} describe what to say of a bucket
 * @property {(bps: number) => string} rate a rate beside the axis
 * @property {(since: number | null, until: number) => void} onZoom the reader asks for this range, in seconds; null: for
 *   the whole period
 */

export class Chart {
  /**
   * @param {HTMLElement} element
   * @param {Callbacks} callbacks
   */
  constructor(element, { describe, rate, onZoom }) {
    this.describe = describe;
    this.rate = rate;
    this.onZoom = onZoom;
    /** @type {Series | null} */
    this.series = null;
    /** @type {Marks} */
    this.marks = { gaps: [], events: [], bands: [] };
    /** @type {number | null} */
    this.index = null; // of the bucket that is selected
    this.unit = 1;
    /** @type {UPlot | null} */
    this.drawn = null;
    this.tip = make("div", { class: "tip", "aria-hidden": "true", hidden: true });
    this.plot = make("div", {
      class: "plot", tabindex: "0", role: "slider", "aria-label": "Traffic over time", "aria-valuemin": "0", "aria-valuenow": "0",
      "aria-describedby": "chart-keys",
      onkeydown: (/** @type {KeyboardEvent} */ event) => this.onKey(event),
      onfocus: () => this.plot.matches(":focus-visible") && this.select(this.index ?? this.newest()),
      onblur: () => this.select(null),
    });
    element.replaceChildren(this.plot, this.tip);
    new ResizeObserver(() => this.resize()).observe(this.plot);
  }

  /**
   * @param {Series} series
   * @param {Marks} marks
   * @param {1 | 8} unit bits of what the axis counts in
   */
  show(series, marks, unit) {
    this.series = series;
    this.marks = marks;
    this.unit = unit;
    const last = series.starts.length - 1;
    this.plot.setAttribute("aria-valuemax", String(Math.max(last, 0)));
    /**
     * @param {(number | null)[]} values
     * @param {1 | -1} sign
     */
    const scaled = (values, sign) => values.map((bps) => (bps == null ? null : (sign * bps) / unit));
    /** @type {import("uplot").AlignedData} */
    const data = [series.starts, scaled(series.rx, 1), scaled(series.tx, -1)];
    if (this.drawn) this.drawn.setData(data);
    else this.build(data);
    if (this.index !== null) this.select(Math.min(this.index, last));
    else this.say(this.newest());
  }

  /** Draws it again, as after a change of colours. */
  rebuild() {
    if (!this.drawn) return;
    const { data } = this.drawn;
    this.drawn.destroy();
    this.build(data);
  }

  /** @param {import("uplot").AlignedData} data */
  build(data) {
    const theme = colours();
    const { font, line, muted } = theme;
    const axis = { stroke: muted, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
    /**
     * @param {string} colour
     * @returns {import("uplot").Series}
     */
    const area = (colour) => ({
      stroke: colour, fill: `${colour}2e`, width: 1.25, points: { show: false },
      paths: (u, index) => steps(u, u.data[index] ?? [], this.shownSeries()),
    });
    const { width, height } = this.size();
    this.drawn = new uPlot(
      {
        width, height, padding: [16, 20, 0, 0], legend: { show: false },
        cursor: {
          y: false, points: { show: false }, drag: { x: true, y: false, setScale: false },
          bind: {
            dblclick: () => () => {
              this.onZoom(null, 0);
              return null;
            },
          },
        },
        scales: {
          x: { time: true, range: () => [this.shownSeries().since, this.shownSeries().until] },
          y: { range: (_, low, high) => range(low, high) },
        },
        axes: [
          { ...axis, space: 72, gap: 6, size: 28, values: (_, splits, __, ___, step) => splits.map((at) => timeTick(at, step)) },
          {
            ...axis, space: 34, gap: 6,
            size: (_, values) => 16 + 6.6 * Math.max(4, ...(values ?? []).map((one) => one.length)),
            values: (_, splits) => splits.map((value) => this.rate(Math.abs(value) * this.unit)),
          },
        ],
        series: [{}, area(theme.rx), area(theme.tx)],
        hooks: {
          drawClear: [(u) => drawGaps(u, theme, this.marks.gaps), (u) => drawBands(u, theme, this.marks.bands)],
          draw: [(u) => drawZero(u, theme), (u) => drawEvents(u, theme, this.marks.events)],
          setCursor: [(u) => this.onPointer(u)],
          setSelect: [(u) => this.onDrag(u)],
        },
      },
      data,
      this.plot,
    );
  }

  shownSeries() {
    if (!this.series) throw new Error("the chart shows nothing yet");
    return this.series;
  }

  size() {
    return { width: Math.max(this.plot.clientWidth, 200), height: Math.max(this.plot.clientHeight, 120) };
  }

  resize() {
    const { width, height } = this.size();
    if (this.drawn && (this.drawn.width !== width || this.drawn.height !== height)) this.drawn.setSize({ width, height });
  }

  // Pointer

  /** @param {UPlot} u */
  onPointer(u) {
    const { left } = u.cursor;
    this.select(left == null || left < 0 ? null : this.indexAt(u.posToVal(left, "x")), { isPointed: true });
  }

  /** @param {UPlot} u */
  onDrag(u) {
    const { left, width } = u.select;
    if (width < 4) return;
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.onZoom(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
  }

  /** @param {number} at in seconds since 1970 */
  indexAt(at) {
    const { starts, width } = this.shownSeries();
    return Math.min(Math.max(Math.floor((at - (starts[0] ?? 0)) / width), 0), starts.length - 1);
  }

  /** The last bucket that has data; of none, the last. */
  newest() {
    const rx = this.series?.rx ?? [];
    const found = rx.findLastIndex((bps) => bps != null);
    return found === -1 ? rx.length - 1 : found;
  }

  // Keys

  /** @param {KeyboardEvent} event */
  onKey(event) {
    if (!this.series || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.series.starts.length - 1;
    const at = this.index ?? this.newest();
    /** @type {Record<string, number>} */
    const places = {
      ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
      PageDown: at - PAGE, PageUp: at + PAGE, Home: 0, End: last,
    };
    const place = places[event.key];
    if (place !== undefined) this.select(Math.min(Math.max(place, 0), last));
    else if (event.key === "+" || event.key === "=") this.zoom(at, 1 / 3);
    else if (event.key === "-") this.zoom(at, 3);
    else if (event.key === "Escape" || event.key === "0") this.onZoom(null, 0);
    else return;
    event.preventDefault();
  }

  /**
   * @param {number} index of the bucket in the middle
   * @param {number} factor
   */
  zoom(index, factor) {
    const { since, until, starts, width } = this.shownSeries();
    const span = (until - since) * factor;
    const middle = (starts[index] ?? since) + width / 2;
    this.onZoom(middle - span / 2, middle + span / 2);
  }

  // Selection

  /**
   * @param {number | null} index of a bucket; null: none
   * @param {{ isPointed?: boolean }} how
   */
  select(index, { isPointed = false } = {}) {
    this.index = this.series ? index : null;
    this.tip.hidden = this.index === null;
    if (this.index === null || !this.series || !this.drawn) {
      if (!isPointed) this.moveLine(-10);
      return;
    }
    const { time, rx, tx, notes } = this.say(this.index);
    this.tip.replaceChildren(
      make("strong", {}, time),
      make("span", { class: "rx-text" }, `↓ ${rx}`),
      make("span", { class: "tx-text" }, `↑ ${tx}`),
      ...notes.map((words) => make("span", { class: "note" }, words)),
    );
    const { starts, width } = this.series;
    const middle = this.drawn.valToPos((starts[this.index] ?? 0) + width / 2, "x");
    if (!isPointed) this.moveLine(middle);
    const left = middle + this.drawn.over.offsetLeft;
    const isRight = left > this.plot.clientWidth / 2;
    this.tip.style.transform = `translateX(${isRight ? left - 12 - this.tip.offsetWidth : left + 12}px)`;
  }

  /**
   * Sets what a screen reader says of the plot.
   * @param {number} index
   */
  say(index) {
    const said = this.describe(index);
    this.plot.setAttribute("aria-valuenow", String(index));
    this.plot.setAttribute("aria-valuetext", [said.time, `received ${said.rx}`, `sent ${said.tx}`, ...said.notes].join(", "));
    return said;
  }

  /** @param {number} left in pixels of the plot; negative: out of sight */
  moveLine(left) {
    this.drawn?.setCursor({ left, top: left < 0 ? -10 : 0 }, false);
  }
}
