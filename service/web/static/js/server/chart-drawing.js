// What the chart draws over and under the traffic, in pixels of the canvas.

/** @import { Event, Series, Span } from "./traffic.js" */
/** @typedef {Span & { severity: "critical" | "warning" | "info" }} Band of an alert */
/** @typedef {import("uplot")} UPlot */

const IS_12_HOURS = new Intl.DateTimeFormat([], { hour: "numeric" }).resolvedOptions().hour12;

/**
 * What an event is called over its line.
 * @type {Record<string, string>}
 */
const EVENT_NAMES = { reboot: "reboot", reset: "counters reset", rejected: "rejected", glitch: "wrong reading" };
// Events that a reader need not act on.
const QUIET = new Set(["glitch"]);

/** @typedef {ReturnType<typeof colours>} Theme */

/** The colours and the font of the page as it is now. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  /** @param {string} name */
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  return {
    rx: colour("rx"), tx: colour("tx"), muted: colour("muted"), line: colour("line"), bg: colour("bg"), warn: colour("warn"), bad: colour("bad"),
    font: `12px ${getComputedStyle(document.body).fontFamily}`,
  };
}

/**
 * Each bucket's rate for all of its time, and no line across a bucket without data.
 * @param {UPlot} u
 * @param {ArrayLike<number | null | undefined>} values
 * @param {Series} series
 * @returns {import("uplot").Series.Paths}
 */
export function steps(u, values, { starts, width }) {
  const stroke = new Path2D();
  const fill = new Path2D();
  const zero = u.valToPos(0, "y", true);
  let isOn = false;
  for (const [index, start] of starts.entries()) {
    const value = values[index];
    if (value == null) {
      isOn = false;
      continue;
    }
    const left = u.valToPos(start, "x", true);
    const right = u.valToPos(start + width, "x", true);
    const y = u.valToPos(value, "y", true);
    if (isOn) stroke.lineTo(left, y);
    else stroke.moveTo(left, y);
    stroke.lineTo(right, y);
    fill.rect(left, Math.min(y, zero), right - left, Math.abs(y - zero));
    isOn = true;
  }
  return { stroke, fill, clip: null, band: null, flags: 1 };
}

/**
 * @param {UPlot} u
 * @param {Theme} theme
 * @param {Span[]} gaps
 */
export function drawGaps({ ctx, bbox, valToPos }, theme, gaps) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const { since, until } of gaps) {
    const left = valToPos(since, "x", true);
    const width = valToPos(until, "x", true) - left;
    ctx.fillStyle = `${theme.muted}1c`;
    ctx.fillRect(left, bbox.top, width, bbox.height);
    const text = "no data";
    if (textWidth(ctx, theme, text) + 8 > width) continue;
    write(ctx, theme, text, left + width / 2, bbox.top + bbox.height / 2, theme.muted);
  }
  ctx.restore();
}

/**
 * When alerts fired, as bands along the foot of the plot.
 * @param {UPlot} u
 * @param {Theme} theme
 * @param {Band[]} bands
 */
export function drawBands({ ctx, bbox, valToPos }, theme, bands) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  const height = 5 * devicePixelRatio;
  for (const { since, until, severity } of bands) {
    const left = valToPos(since, "x", true);
    const width = Math.max(valToPos(until, "x", true) - left, 2 * devicePixelRatio);
    const colour = { critical: theme.bad, warning: theme.warn, info: theme.muted }[severity];
    ctx.fillStyle = `${colour}14`;
    ctx.fillRect(left, bbox.top, width, bbox.height);
    ctx.fillStyle = colour;
    ctx.fillRect(left, bbox.top + bbox.height - height, width, height);
  }
  ctx.restore();
}

/**
 * @param {UPlot} u
 * @param {Theme} theme
 */
export function drawZero({ ctx, bbox, valToPos }, theme) {
  const y = Math.round(valToPos(0, "y", true)) + 0.5;
  ctx.save();
  ctx.strokeStyle = theme.muted;
  ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.restore();
}

/**
 * @param {UPlot} u
 * @param {Theme} theme
 * @param {Event[]} events
 */
export function drawEvents({ ctx, bbox, valToPos }, theme, events) {
  ctx.save();
  const free = [-Infinity, -Infinity]; // where the last label ended, over the plot and in its top
  let said = ""; // what the last label says
  for (const { at, kind } of events) {
    const x = Math.round(valToPos(at, "x", true)) + 0.5;
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    const colour = QUIET.has(kind) ? theme.muted : theme.warn;
    const name = EVENT_NAMES[kind] ?? kind;
    ctx.strokeStyle = colour;
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    const half = textWidth(ctx, theme, name) / 2 + 3 * devicePixelRatio;
    const middle = Math.min(Math.max(x, bbox.left + half), bbox.left + bbox.width - half);
    const row = free.findIndex((end) => middle - half >= end);
    // The list below the chart has it, or it would say the same beside itself.
    if (row === -1 || (row === 1 && kind === said)) continue;
    free[row] = middle + half;
    said = kind;
    const y = bbox.top + (row ? 8 : -7) * devicePixelRatio;
    if (row) {
      ctx.fillStyle = theme.bg;
      ctx.fillRect(middle - half, y - 7 * devicePixelRatio, 2 * half, 14 * devicePixelRatio);
    }
    write(ctx, theme, name, middle, y, colour);
  }
  ctx.restore();
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {Theme} theme
 * @param {string} text
 */
function textWidth(ctx, theme, text) {
  ctx.font = theme.font.replace(/^\d+px/, `${11 * devicePixelRatio}px`);
  return ctx.measureText(text).width;
}

/**
 * @param {CanvasRenderingContext2D} ctx
 * @param {Theme} theme
 * @param {string} text
 * @param {number} x of its middle
 * @param {number} y
 * @param {string} colour
 */
function write(ctx, theme, text, x, y, colour) {
  ctx.font = theme.font.replace(/^\d+px/, `${11 * devicePixelRatio}px`);
  ctx.fillStyle = colour;
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  ctx.fillText(text, x, y);
}

/**
 * From the most that was sent to the most that was received, and enough of the other side that its axis can be read.
 * @param {number | null} low
 * @param {number | null} high
 * @returns {[number, number]}
 */
export function range(low, high) {
  const most = Math.max(high ?? 0, -(low ?? 0), 100);
  return [Math.min(low ?? 0, -most * 0.12) * 1.06, Math.max(high ?? 0, most * 0.12) * 1.06];
}

/**
 * A time beside the axis, as narrow as what lies between two of them allows.
 * @param {number} at in seconds since 1970
 * @param {number} step in seconds
 */
export function timeTick(at, step) {
  const date = new Date(at * 1000);
  if (step >= 27 * 86_400) return date.toLocaleDateString([], { month: "short", year: "2-digit" });
  if (step >= 86_400) return date.toLocaleDateString([], { day: "numeric", month: "short" });
  // Asked for both, some languages put the day before its name.
  if (!date.getHours() && !date.getMinutes()) return `${date.toLocaleDateString([], { weekday: "short" })} ${date.getDate()}`;
  return date.toLocaleTimeString([], { hour: IS_12_HOURS ? "numeric" : "2-digit", minute: "2-digit" });
}
