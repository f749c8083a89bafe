// The service's clock, by which it dates heartbeats. A browser's own clock may be wrong by hours, and every server would
// seem silent by it.

// `Date` has whole seconds, and an answer takes a moment: a browser whose clock is this near is taken to be right.
const TOLERANCE_MS = 2_000;

let offsetMs = 0;

/** Milliseconds since 1970 by the service's clock, as far as its answers have shown. */
export function now() {
  return Date.now() + offsetMs;
}

/**
 * Learns from the `Date` of an answer; null, or no date, teaches nothing.
 * @param {string | null} date
 */
export function readClock(date) {
  const served = Date.parse(date ?? "") + 500; // whole seconds, so half a second later on average
  if (Math.abs(served - now()) > TOLERANCE_MS) offsetMs = served - Date.now();
}
