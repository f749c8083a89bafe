// The chart of traffic: received above zero and sent below it, with gaps, events, zoom and exact values.
//
// uPlot draws; what a reader does with keys, and what a screen reader hears, is here: the plot is a slider along time.

import { make } from "./dom.js";

const { uPlot } = globalThis; // vendor/uPlot.iife.min.js, which the page loads before its modules
const PAGE = 10;
const IS_12_HOURS = new Intl.DateTimeFormat([], { hour: "numeric" }).resolvedOptions().hour12;

/** What an event is called over its line. */
export const EVENT_NAMES = { reboot: "reboot", reset: "counters reset", rejected: "rejected", glitch: "wrong reading" };
// What a reader need not act on.
const QUIET = new Set(["glitch"]);

/** A rate beside the axis, such as "1.5 Mbit/s": no zeros behind the point. */
function tick(text) {
  return text.replace(/(\.\d*?)0+(?=\D)/, "$1").replace(/\.(?=\D)/, "");
}

/**
 * The chart in `element`.
 *
 * describe(index)        what to say of a bucket: { time, rx, tx, notes: [words] }
 * rate(bps)              a rate in words
 * onZoom(since, until)   the reader asks for this range, in seconds; onZoom(null): for the whole period
 */
export class Chart {
  constructor(element, { describe, rate, onZoom }) {
    this.element = element;
    this.describe = describe;
    this.rate = rate;
    this.onZoom = onZoom;
    this.series = null;
    this.marks = { gaps: [], events: [] };
    this.index = null;
    this.tip = make("div", { class: "tip", "aria-hidden": "true", hidden: true });
    this.plot = make("div", {
      class: "plot", tabindex: "0", role: "slider", "aria-label": "Traffic over time", "aria-valuemin": "0", "aria-valuenow": "0",
      "aria-describedby": "chart-keys",
      onkeydown: (event) => this.onKey(event),
      onfocus: () => this.series && this.plot.matches(":focus-visible") && this.select(this.index ?? this.newest()),
      onblur: () => this.select(null),
    });
    element.replaceChildren(this.plot, this.tip);
    new ResizeObserver(() => this.resize()).observe(this.plot);
  }

  /** Shows a series of traffic.js, or nothing where it is null; `unit` is 1 for bits and 8 for bytes. */
  show(series, marks, unit) {
    this.series = series;
    this.marks = marks;
    const last = series.starts.length - 1;
    this.plot.setAttribute("aria-valuemax", String(Math.max(last, 0)));
    const scaled = (values, sign) => values.map((bps) => (bps == null ? null : (sign * bps) / unit));
    const data = [series.starts, scaled(series.rx, 1), scaled(series.tx, -1)];
    this.unit = unit;
    if (this.drawn) this.drawn.setData(data);
    else this.build(data);
    if (this.index != null) this.select(Math.min(this.index, last));
    else this.say(this.newest());
  }

  /** Draws anew, as after a change of colours. */
  rebuild() {
    if (!this.drawn) return;
    const { data } = this.drawn;
    this.drawn.destroy();
    this.build(data);
  }

  build(data) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    this.colours = Object.fromEntries(["rx", "tx", "text", "muted", "line", "bg", "warn"].map((name) => [name, colour(name)]));
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    this.font = font;
    const { line, muted } = this.colours;
    const axis = { stroke: muted, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
    const area = (name) => ({
      stroke: this.colours[name], fill: `${this.colours[name]}2e`, width: 1.25, points: { show: false },
      paths: (u, index) => this.steps(u, u.data[index]),
    });
    const { width, height } = this.size();
    this.drawn = new uPlot(
      {
        width, height, padding: [16, 20, 0, 0], legend: { show: false },
        cursor: {
          y: false, points: { show: false }, drag: { x: true, y: false, setScale: false },
          bind: { dblclick: () => () => this.onZoom(null) },
        },
        scales: {
          x: { time: true, range: () => [this.series.since, this.series.until] },
          y: { range: (_, low, high) => range(low, high) },
        },
        axes: [
          { ...axis, space: 72, gap: 6, size: 28, values: (_, splits, __, ___, step) => splits.map((at) => timeTick(at, step)) },
          {
            ...axis, space: 34, gap: 6, size: (_, values) => 16 + 6.6 * Math.max(4, ...(values ?? []).map((one) => one.length)),
            values: (_, splits) => splits.map((value) => tick(this.rate(Math.abs(value) * this.unit))),
          },
        ],
        series: [{}, area("rx"), area("tx")],
        hooks: {
          drawClear: [(u) => this.drawGaps(u)],
          draw: [(u) => this.drawZero(u), (u) => this.drawEvents(u)],
          setCursor: [(u) => this.onPointer(u)],
          setSelect: [(u) => this.onDrag(u)],
        },
      },
      data,
      this.plot,
    );
  }

  size() {
    return { width: Math.max(this.plot.clientWidth, 200), height: Math.max(this.plot.clientHeight, 120) };
  }

  resize() {
    const { width, height } = this.size();
    if (this.drawn && (this.drawn.width !== width || this.drawn.height !== height)) this.drawn.setSize({ width, height });
  }

  // Pointer

  onPointer(u) {
    const { left } = u.cursor;
    this.select(left == null || left < 0 ? null : this.indexAt(u.posToVal(left, "x")), { isPointed: true });
  }

  onDrag(u) {
    const { left, width } = u.select;
    if (width < 4) return;
    u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.onZoom(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
  }

  indexAt(at) {
    const { starts, width } = this.series;
    return Math.min(Math.max(Math.floor((at - starts[0]) / width), 0), starts.length - 1);
  }

  newest() {
    const { rx } = this.series;
    const found = rx.findLastIndex((bps) => bps != null);
    return found === -1 ? rx.length - 1 : found;
  }

  // Keys

  onKey(event) {
    if (!this.series || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = this.series.starts.length - 1;
    const at = this.index ?? this.newest();
    const places = {
      ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
      PageDown: at - PAGE, PageUp: at + PAGE, Home: 0, End: last,
    };
    if (event.key in places) this.select(Math.min(Math.max(places[event.key], 0), last));
    else if (event.key === "+" || event.key === "=") this.zoom(at, 1 / 3);
    else if (event.key === "-") this.zoom(at, 3);
    else if (event.key === "Escape" || event.key === "0") this.onZoom(null);
    else return;
    event.preventDefault();
  }

  zoom(index, factor) {
    const { since, until, starts, width } = this.series;
    const span = (until - since) * factor;
    const middle = starts[index] + width / 2;
    this.onZoom(middle - span / 2, middle + span / 2);
  }

  // What is selected

  select(index, { isPointed = false } = {}) {
    this.index = index;
    this.tip.hidden = index == null;
    if (index == null) {
      if (!isPointed) this.moveLine(-10);
      return;
    }
    const { time, rx, tx, notes } = this.say(index);
    this.tip.replaceChildren(
      make("strong", {}, time),
      make("span", { class: "rx-text" }, `↓ ${rx}`),
      make("span", { class: "tx-text" }, `↑ ${tx}`),
      ...notes.map((words) => make("span", { class: "note" }, words)),
    );
    const { starts, width } = this.series;
    const middle = this.drawn.valToPos(starts[index] + width / 2, "x");
    if (!isPointed) this.moveLine(middle);
    const left = middle + this.drawn.over.offsetLeft;
    const isRight = left > this.plot.clientWidth / 2;
    this.tip.style.transform = `translateX(${isRight ? left - 12 - this.tip.offsetWidth : left + 12}px)`;
  }

  /** What a screen reader says of the plot. */
  say(index) {
    const said = this.describe(index);
    this.plot.setAttribute("aria-valuenow", String(index));
    this.plot.setAttribute("aria-valuetext", [said.time, `received ${said.rx}`, `sent ${said.tx}`, ...said.notes].join(", "));
    return said;
  }

  moveLine(left) {
    this.drawn?.setCursor({ left, top: left < 0 ? -10 : 0 }, false);
  }

  // Drawn over and under the traffic, in pixels of the canvas

  /** Each bucket's rate for all of its time, and nothing where there is none. */
  steps(u, values) {
    const { starts, width } = this.series;
    const stroke = new Path2D();
    const fill = new Path2D();
    const zero = u.valToPos(0, "y", true);
    let isOn = false;
    values.forEach((value, index) => {
      if (value == null) {
        isOn = false;
        return;
      }
      const left = u.valToPos(starts[index], "x", true);
      const right = u.valToPos(starts[index] + width, "x", true);
      const y = u.valToPos(value, "y", true);
      if (isOn) stroke.lineTo(left, y);
      else stroke.moveTo(left, y);
      stroke.lineTo(right, y);
      fill.rect(left, Math.min(y, zero), right - left, Math.abs(y - zero));
      isOn = true;
    });
    return { stroke, fill, clip: null, band: null, gaps: null, flags: 1 };
  }

  drawGaps(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const { since, until } of this.marks.gaps) {
      const left = u.valToPos(since, "x", true);
      const width = u.valToPos(until, "x", true) - left;
      ctx.fillStyle = `${this.colours.muted}1c`;
      ctx.fillRect(left, bbox.top, width, bbox.height);
      this.write(ctx, "no data", left + width / 2, bbox.top + bbox.height / 2, width, this.colours.muted);
    }
    ctx.restore();
  }

  drawZero(u) {
    const { ctx, bbox } = u;
    const y = Math.round(u.valToPos(0, "y", true)) + 0.5;
    ctx.save();
    ctx.strokeStyle = this.colours.muted;
    ctx.lineWidth = devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(bbox.left, y);
    ctx.lineTo(bbox.left + bbox.width, y);
    ctx.stroke();
    ctx.restore();
  }

  drawEvents(u) {
    const { ctx, bbox } = u;
    ctx.save();
    const free = [-Infinity, -Infinity]; // where the last label ended, over the plot and in its top
    let said = null; // what the last one says
    for (const { at, kind } of this.marks.events) {
      const x = Math.round(u.valToPos(at, "x", true)) + 0.5;
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      const colour = QUIET.has(kind) ? this.colours.muted : this.colours.warn;
      ctx.strokeStyle = colour;
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      const half = this.textWidth(ctx, EVENT_NAMES[kind]) / 2 + 3 * devicePixelRatio;
      const middle = Math.min(Math.max(x, bbox.left + half), bbox.left + bbox.width - half);
      const row = free.findIndex((end) => middle - half >= end);
      // The list below the chart has it, or it would say the same beside itself.
      if (row === -1 || (row === 1 && kind === said)) continue;
      free[row] = middle + half;
      said = kind;
      const y = bbox.top + (row ? 8 : -7) * devicePixelRatio;
      if (row) {
        ctx.fillStyle = this.colours.bg;
        ctx.fillRect(middle - half, y - 7 * devicePixelRatio, 2 * half, 14 * devicePixelRatio);
      }
      this.write(ctx, EVENT_NAMES[kind], middle, y, Infinity, colour);
    }
    ctx.restore();
  }

  textWidth(ctx, text) {
    ctx.font = this.font.replace(/^\d+px/, `${11 * devicePixelRatio}px`);
    return ctx.measureText(text).width;
  }

  write(ctx, text, x, y, room, colour) {
    if (this.textWidth(ctx, text) + 8 > room) return;
    ctx.fillStyle = colour;
    ctx.textAlign = "center";
    ctx.textBaseline = "middle";
    ctx.fillText(text, x, y);
  }
}

/** From the most that was sent to the most that was received, and enough of the other side that its axis can be read. */
function range(low, high) {
  const most = Math.max(high ?? 0, -(low ?? 0), 100);
  return [Math.min(low ?? 0, -most * 0.12) * 1.06, Math.max(high ?? 0, most * 0.12) * 1.06];
}

/** A time beside the axis, as narrow as what lies between two of them allows. */
function timeTick(at, step) {
  const date = new Date(at * 1000);
  if (step >= 27 * 86_400) return date.toLocaleDateString([], { month: "short", year: "2-digit" });
  if (step >= 86_400) return date.toLocaleDateString([], { day: "numeric", month: "short" });
  // Asked for both, some languages put the day before its name.
  if (!date.getHours() && !date.getMinutes()) return `${date.toLocaleDateString([], { weekday: "short" })} ${date.getDate()}`;
  return date.toLocaleTimeString([], { hour: IS_12_HOURS ? "numeric" : "2-digit", minute: "2-digit" });
}
