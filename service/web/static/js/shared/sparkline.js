// A sparkline: what was received above a line of zero, and what was sent below it, on one scale. A gap is a gap.

import { makeSvg } from "./dom.js";

// Of the picture's own grid; CSS says how large it is shown.
const WIDTH = 120;
const HEIGHT = 32;

/** An empty one, to be drawn into. `label` is its accessible name. */
export function sparkline(label = "") {
  return makeSvg(
    "svg",
    { class: "sparkline", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    makeSvg("path", { class: "zero", d: "" }),
    makeSvg("path", { class: "rx", d: "" }),
    makeSvg("path", { class: "tx", d: "" }),
  );
}

/** @typedef {(number | null)[]} Rates of one bucket each, oldest first; null: no data */

/**
 * Draws the rates into what `sparkline` made.
 * @param {SVGSVGElement} svg
 * @param {{ rx: Rates, tx: Rates }} rates
 * @param {string} [label]
 */
export function draw(svg, { rx, tx }, label) {
  const max = Math.max(1, ...[...rx, ...tx].map((bps) => bps ?? 0));
  const [zero, received, sent] = svg.children;
  zero?.setAttribute("d", baseline(rx));
  received?.setAttribute("d", outline(rx, max, -1));
  sent?.setAttribute("d", outline(tx, max, 1));
  if (label !== undefined) svg.setAttribute("aria-label", label);
}

/**
 * Areas between zero and the rates, one for each run of buckets that has data; `max` reaches the edge.
 * @param {Rates} values
 * @param {number} max
 * @param {1 | -1} sign
 */
function outline(values, max, sign) {
  const step = WIDTH / values.length;
  const middle = HEIGHT / 2;
  // What there is, however little, shows.
  /** @param {number} value */
  const place = (value) => (middle + sign * (value > 0 ? Math.max(0.7, (value * (middle - 1)) / max) : 0)).toFixed(1);
  return runs(values)
    .map(([from, until]) => {
      const steps = [];
      for (let index = from; index < until; index += 1) {
        // Each bucket's rate holds for all of it: no slope claims what was not measured.
        steps.push(`V${place(values[index] ?? 0)}H${((index + 1) * step).toFixed(1)}`);
      }
      return `M${(from * step).toFixed(1)} ${middle}${steps.join("")}V${middle}Z`;
    })
    .join("");
}

/**
 * The line of zero, where there is data.
 * @param {Rates} values
 */
function baseline(values) {
  const step = WIDTH / values.length;
  return runs(values)
    .map(([from, until]) => `M${(from * step).toFixed(1)} ${HEIGHT / 2}H${(until * step).toFixed(1)}`)
    .join("");
}

/**
 * Where data begins and ends: [from, until) each.
 * @param {Rates} values
 */
function runs(values) {
  /** @type {[number, number][]} */
  const found = [];
  values.forEach((value, index) => {
    if (value == null) return;
    const last = found.at(-1);
    if (last?.[1] === index) last[1] = index + 1;
    else found.push([index, index + 1]);
  });
  return found;
}
