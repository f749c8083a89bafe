// Numbers and times in words. Pure: the same arguments give the same text, but for the reader's own time zone.
// What is null is not known: it is a dash, and never 0.

export const NOTHING = "–";

const PREFIXES = ["", "k", "M", "G", "T", "P", "E"];
/** @type {[number, string][]} */
const SPANS = [[86_400, "d"], [3_600, "h"], [60, "min"], [1, "s"]];

/** @typedef {number | null | undefined} Known a number, or not known */

/**
 * A rate of bits per second as "12.3 Mbit/s", or by `units` "bytes" as "1.54 MB/s".
 * @param {Known} bps
 * @param {import("./choices.js").Units} units
 */
export function rate(bps, units = "bits") {
  if (bps == null) return NOTHING;
  return units === "bytes" ? `${scaled(bps / 8, "B")}/s` : `${scaled(bps, "bit")}/s`;
}

/**
 * The same without zeros behind the point: "1 Gbit/s".
 * @param {Known} bps
 * @param {import("./choices.js").Units} units
 */
export function roundRate(bps, units = "bits") {
  return rate(bps, units).replace(/(\.\d*?)0+(?=\D)/, "$1").replace(/\.(?=\D)/, "");
}

/**
 * An amount of octets as "1.54 GB", in powers of 1000, as networks and disks are sold.
 * @param {Known} octets
 */
export function bytes(octets) {
  return octets == null ? NOTHING : scaled(octets, "B");
}

/**
 * "1 234 567" with the thinnest of separators, which no language reads as a decimal point.
 * @param {Known} number
 */
export function count(number) {
  if (number == null) return NOTHING;
  return Math.round(number).toString().replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/**
 * "45.2 %"
 * @param {Known} value
 */
export function percent(value) {
  return value == null ? NOTHING : `${value >= 99.95 ? Math.round(value) : value.toFixed(1)}\u00a0%`;
}

/**
 * Degrees Celsius.
 * @param {Known} value
 */
export function celsius(value) {
  return value == null ? NOTHING : `${value.toFixed(1)}\u00a0°C`;
}

/**
 * A span of seconds in its two largest units: "3 d 4 h", "5 min", "12 s".
 * @param {Known} seconds
 */
export function duration(seconds) {
  if (seconds == null) return NOTHING;
  let rest = Math.max(0, Math.round(seconds));
  const parts = [];
  for (const [size, unit] of SPANS) {
    const whole = Math.floor(rest / size);
    rest -= whole * size;
    // "2 d 5 s" would be more exact than anybody asks.
    if (parts.length && !whole) break;
    if (whole) parts.push(`${whole}\u00a0${unit}`);
    if (parts.length === 2) break;
  }
  return parts.join(" ") || "0\u00a0s";
}

/**
 * How long ago: "now", "12 s ago". Both are milliseconds.
 * @param {Known} then
 * @param {number} now
 */
export function age(then, now) {
  if (then == null) return NOTHING;
  const seconds = (now - then) / 1000;
  return seconds < 1 ? "now" : `${duration(seconds)} ago`;
}

/** @typedef {Date | string | number} Moment */

/**
 * "14:05", in the reader's zone and habits.
 * @param {Moment | null} [date]
 */
export function clock(date) {
  return date == null ? NOTHING : new Date(date).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

/**
 * "Wed 25 Nov, 14:05": a moment with its day, and of another year with that.
 * @param {Moment | null} [date]
 * @param {number} now
 */
export function moment(date, now = Date.now()) {
  if (date == null) return NOTHING;
  const at = new Date(date);
  /** @type {Intl.DateTimeFormatOptions} */
  const year = at.getFullYear() === new Date(now).getFullYear() ? {} : { year: "numeric" };
  return at.toLocaleString([], {
    weekday: "short", day: "numeric", month: "short", ...year, hour: "2-digit", minute: "2-digit",
  });
}

/**
 * Three digits that count, and the prefix: 999.96 k is 1.00 M and not 1000 k.
 * @param {number} value
 * @param {string} unit
 */
function scaled(value, unit) {
  let index = 0;
  let size = Math.abs(value);
  while (index < PREFIXES.length - 1 && size >= 999.5) {
    size /= 1000;
    index += 1;
  }
  const digits = index === 0 && Number.isInteger(size) ? 0 : size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
  return `${value < 0 ? "−" : ""}${index === 0 ? Math.round(size) : size.toFixed(digits)}\u00a0${PREFIXES[index]}${unit}`;
}
